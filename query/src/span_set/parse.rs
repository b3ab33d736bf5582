//! Sets from text, as people type them:
//! `{service="frontend"} with descendant {service="cart" status=error}`.
//!
//! Grammar, with blanks and line feeds allowed between tokens; `docs/api/span-sets.md` explains it:
//!
//! ```text
//! set        = both { "or" both }
//! both       = chain { ( "and" | "minus" ) chain }              from left to right
//! chain      = single { relation single | "having" bounds }     from left to right
//! single     = "{" { condition [ "," ] } "}" | "(" set ")"
//! relation   = ( "with" | "without" )
//!              ( "child" | "parent" | "descendant" | "ancestor" | "sibling" | "any" )
//! bounds     = ( "duration" | "own" | "depth" | "children" ) compare
//! condition  = ( "service" | "name" | "event" | "scope" | "message" | attribute ) op value
//!            | "kind" "=" word | "status" "=" word | "duration" compare | attribute
//! attribute  = [ "span." | "resource." | "event." | "link." | "scope." ] ( key | string )
//! op         = "=" | "!=" | "=~" | "!~"
//! compare    = ( "=" | "<" | "<=" | ">" | ">=" ) figure | "=" figure ".." figure
//! figure     = digits [ "." digits ] [ "h" | "m" | "s" | "ms" | "us" | "ns" ]
//! value      = string | [A-Za-z0-9_./:@%+-]+
//! key        = [A-Za-z_][A-Za-z0-9_./-]*
//! string     = '"' ... '"' | "'" ... "'" with Go's escapes | "`" ... "`" without
//! ```

use rootline_engine::{
    Axis, Error as EngineError, MatchOp, Matcher, SpanCondition, StringMatch, TagScope,
};

use super::{
    SPAN_SET_DEPTH_MAX, SPAN_SET_NODES_MAX, SpanFigure, SpanSet,
    print::{ANY, AXES, KINDS, RESERVED, SCOPES, STATUSES, UNITS_NS, is_key_char},
};
use crate::{
    error::Error,
    selector::{PATTERNS_MAX, SELECTOR_BYTES_MAX},
    text_cursor::{Cursor, Fault},
};

/// Why a text is no set of spans, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("span set, character {character}: {reason}, at {rest}")]
pub struct SpanSetError {
    /// Place of the fault, counted in characters from 1.
    pub character: usize,
    /// What was expected or found.
    pub reason: String,
    /// What stands there, shortened and quoted; `end of text` at the end.
    pub rest: String,
    line: String,
    caret: usize,
}

impl SpanSetError {
    /// The text (or the part around the fault) and below it a mark at the fault, for a fixed-width
    /// display. Control characters are shown as blanks.
    pub fn pointer(&self) -> String {
        Fault::pointer(&self.line, self.caret)
    }
}

impl From<Fault> for SpanSetError {
    fn from(fault: Fault) -> Self {
        Self {
            character: fault.character,
            reason: fault.reason,
            rest: fault.rest,
            line: fault.line,
            caret: fault.caret,
        }
    }
}

impl SpanSet {
    /// From text.
    ///
    /// # Errors
    /// [`Error::SpanSet`] points at the place, [`EngineError::InvalidMatcher`] names the pattern.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, |op, name, value| {
            Ok(Matcher::new(op, name, value).map_err(EngineError::InvalidMatcher)?)
        })
    }

    /// From text, the matchers of its patterns (`=~`, `!~`) made by `make`: compiling them costs memory
    /// and time, which a caller may want to bound.
    ///
    /// # Errors
    /// [`Error::SpanSet`] points at the place; else what `make` says.
    pub fn parse_with<E: From<Error>>(
        text: &str,
        make: impl FnMut(MatchOp, &str, &str) -> Result<Matcher, E>,
    ) -> Result<Self, E> {
        let mut parser = Parser {
            cursor: Cursor::new(text),
            make,
            nodes: 0,
            patterns: 0,
        };
        parser.whole().map_err(|stop| match stop {
            Stop::Fault(fault) => E::from(SpanSetError::from(fault).into()),
            Stop::Make(error) => error,
        })
    }
}

/// Why reading stopped.
enum Stop<E> {
    Fault(Fault),
    Make(E),
}

impl<E> From<Fault> for Stop<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A set and how deep it is.
type Deep = (SpanSet, usize);

struct Parser<'a, M> {
    cursor: Cursor<'a>,
    make: M,
    nodes: usize,
    patterns: usize,
}

impl<E, M> Parser<'_, M>
where
    M: FnMut(MatchOp, &str, &str) -> Result<Matcher, E>,
{
    fn whole(&mut self) -> Result<SpanSet, Stop<E>> {
        if self.cursor.text.len() > SELECTOR_BYTES_MAX {
            let reason = format!("longer than {SELECTOR_BYTES_MAX} bytes");
            return Err(self.cursor.fault(reason).into());
        }
        let (set, _) = self.set(0)?;
        self.cursor.blanks();
        match self.cursor.peek() {
            None => Ok(set),
            Some(')') => Err(self.cursor.fault("a `)` without a `(`").into()),
            Some(_) => {
                let reason =
                    "expected `with`, `without`, `having`, `and`, `or`, `minus` or the end";
                Err(self.cursor.fault(reason).into())
            }
        }
    }

    /// `open` parentheses around it are open.
    fn set(&mut self, open: usize) -> Result<Deep, Stop<E>> {
        let first = self.both(open)?;
        let mut sets = Vec::new();
        let mut depth = first.1;
        sets.push(first.0);
        while self.keyword(&["or"]).is_some() {
            let (set, deep) = self.both(open)?;
            depth = depth.max(deep);
            sets.push(set);
        }
        self.several(sets, depth, SpanSet::Or)
    }

    fn both(&mut self, open: usize) -> Result<Deep, Stop<E>> {
        let (first, mut depth) = self.chain(open)?;
        // What `and` has joined since the last `minus`.
        let mut sets = vec![first];
        while let Some(word) = self.keyword(&["and", "minus"]) {
            let (set, deep) = self.chain(open)?;
            if word == "and" {
                depth = depth.max(deep);
                sets.push(set);
                continue;
            }
            let (from, left) = self.several(sets, depth, SpanSet::And)?;
            depth = self.deeper(left.max(deep))?;
            sets = vec![SpanSet::Minus(Box::new(from), Box::new(set))];
        }
        self.several(sets, depth, SpanSet::And)
    }

    /// One set is itself; several are joined.
    fn several(
        &mut self,
        mut sets: Vec<SpanSet>,
        depth: usize,
        join: fn(Vec<SpanSet>) -> SpanSet,
    ) -> Result<Deep, Stop<E>> {
        match sets.pop() {
            Some(only) if sets.is_empty() => Ok((only, depth)),
            last => {
                sets.extend(last);
                Ok((join(sets), self.deeper(depth)?))
            }
        }
    }

    fn chain(&mut self, open: usize) -> Result<Deep, Stop<E>> {
        let (mut set, mut depth) = self.single(open)?;
        loop {
            match self.keyword(&["without", "with", "having"]) {
                Some("having") => {
                    let (figure, (min, max)) = self.having()?;
                    depth = self.deeper(depth)?;
                    set = set.having(figure, min, max);
                }
                Some(word) => {
                    let negated = word == "without";
                    let axis = self.axis()?;
                    let (of, deep) = self.single(open)?;
                    depth = self.deeper(depth.max(deep))?;
                    let (among, of) = (Box::new(set), Box::new(of));
                    set = match axis {
                        Some(axis) => SpanSet::Relative {
                            among,
                            axis,
                            of,
                            negated,
                        },
                        None => SpanSet::InSameTrace { among, of, negated },
                    };
                }
                None => return Ok((set, depth)),
            }
        }
    }

    /// The relation after `with`; `None` for `any`.
    fn axis(&mut self) -> Result<Option<Axis>, Stop<E>> {
        if self.keyword(&[ANY]).is_some() {
            return Ok(None);
        }
        for (word, axis) in AXES {
            if self.keyword(&[word]).is_some() {
                return Ok(Some(axis));
            }
        }
        let reason = "expected `child`, `parent`, `descendant`, `ancestor`, `sibling` or `any`";
        Err(self.cursor.fault(reason).into())
    }

    fn having(&mut self) -> Result<(SpanFigure, (u64, u64)), Stop<E>> {
        for figure in [
            SpanFigure::Duration,
            SpanFigure::Own,
            SpanFigure::Depth,
            SpanFigure::Children,
        ] {
            if self.keyword(&[figure.as_str()]).is_some() {
                return Ok((figure, self.compare(figure)?));
            }
        }
        let reason = "expected `duration`, `own`, `depth` or `children`";
        Err(self.cursor.fault(reason).into())
    }

    fn single(&mut self, open: usize) -> Result<Deep, Stop<E>> {
        self.cursor.blanks();
        if self.cursor.peek() == Some('(') {
            if open >= SPAN_SET_DEPTH_MAX {
                let reason = format!("more than {SPAN_SET_DEPTH_MAX} parentheses are open");
                return Err(self.cursor.fault(reason).into());
            }
            self.cursor.take('(');
            let inner = self.set(open + 1)?;
            self.cursor.blanks();
            if !self.cursor.take(')') {
                return Err(self.cursor.fault("expected `)`").into());
            }
            return Ok(inner);
        }
        if !self.cursor.take('{') {
            let reason = "expected conditions in `{` and `}`, or a set in `(` and `)`";
            return Err(self.cursor.fault(reason).into());
        }
        self.node()?;
        let mut conditions = Vec::new();
        loop {
            self.cursor.blanks();
            if self.cursor.take('}') {
                return Ok((SpanSet::Where(conditions), 1));
            }
            self.node()?;
            conditions.push(self.condition()?);
            let end = self.cursor.at;
            self.cursor.blanks();
            let apart = self.cursor.at > end || self.cursor.take(',');
            if self.cursor.peek() == Some(',') {
                self.cursor.take(',');
            } else if !apart && self.cursor.peek() != Some('}') {
                let reason = match self.cursor.peek() {
                    None => "`{` is not closed: expected `}`",
                    Some(_) => "expected a blank, `,` or `}` after a condition",
                };
                return Err(self.cursor.fault(reason).into());
            }
        }
    }

    fn condition(&mut self) -> Result<SpanCondition, Stop<E>> {
        let start = self.cursor.at;
        if matches!(self.cursor.peek(), Some('"' | '\'' | '`')) {
            let key = self.cursor.string()?;
            return self.attribute(key, TagScope::Any);
        }
        for (prefix, of) in SCOPES {
            if let Some(rest) = self.cursor.rest().strip_prefix(prefix) {
                self.cursor.at = self.cursor.text.len() - rest.len();
                let start = self.cursor.at;
                let key = match self.cursor.peek() {
                    Some('"' | '\'' | '`') => self.cursor.string()?,
                    _ => self.cursor.word(is_key_char).to_owned(),
                };
                if self.cursor.at == start {
                    let reason = format!("expected an attribute's key after `{prefix}`");
                    return Err(self.cursor.fault(reason).into());
                }
                return self.attribute(key, of);
            }
        }
        let word = self.cursor.word(is_key_char);
        match word {
            "" if self.cursor.peek().is_none() => {
                Err(self.cursor.fault("`{` is not closed: expected `}`").into())
            }
            "" => Err(self.cursor.fault("expected a condition or `}`").into()),
            "service" => Ok(SpanCondition::Service(self.text(word)?)),
            "name" => Ok(SpanCondition::Name(self.text(word)?)),
            "event" => Ok(SpanCondition::EventName(self.text(word)?)),
            "scope" => Ok(SpanCondition::ScopeName(self.text(word)?)),
            "message" => Ok(SpanCondition::StatusMessage(self.text(word)?)),
            "kind" => Ok(SpanCondition::Kind(self.one_of(word, &KINDS)?)),
            "status" => Ok(SpanCondition::Status(self.one_of(word, &STATUSES)?)),
            "duration" => {
                let (min, max) = self.compare(SpanFigure::Duration)?;
                Ok(SpanCondition::DurationNs { min, max })
            }
            word if RESERVED.contains(&word) => {
                self.cursor.at = start;
                let reason = format!(
                    "`{word}` between conditions: a blank means that both hold; an attribute of that \
                     name stands in quotes"
                );
                Err(self.cursor.fault(reason).into())
            }
            word => self.attribute(word.to_owned(), TagScope::Any),
        }
    }

    /// An attribute compared, or alone: then it is enough that it is there.
    fn attribute(&mut self, key: String, of: TagScope) -> Result<SpanCondition, Stop<E>> {
        let end = self.cursor.at;
        self.cursor.blanks();
        if !matches!(self.cursor.peek(), Some('=' | '!' | '<' | '>')) {
            self.cursor.at = end;
            return Ok(SpanCondition::Exists { key, of });
        }
        let matches = self.text(&key)?;
        Ok(SpanCondition::Tag { key, of, matches })
    }

    /// An operator and the text it compares `what` with.
    fn text(&mut self, what: &str) -> Result<StringMatch, Stop<E>> {
        self.cursor.blanks();
        let start = self.cursor.at;
        // The longer ones first: `=` begins `=~`.
        let found = [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ]
        .into_iter()
        .find(|(text, _)| self.symbol(text));
        let Some((symbol, op)) = found else {
            let reason = format!("expected `=`, `!=`, `=~` or `!~` after `{what}`");
            return Err(self.cursor.fault(reason).into());
        };
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                self.cursor.at = start;
                let reason = format!("more than {PATTERNS_MAX} patterns (=~, !~)");
                return Err(self.cursor.fault(reason).into());
            }
        }
        self.cursor.blanks();
        let value = match self.cursor.peek() {
            Some('"' | '\'' | '`') => self.cursor.string()?,
            _ => self.cursor.word(is_value_char).to_owned(),
        };
        if value.is_empty() && self.cursor.at == start + symbol.len() {
            let reason = format!("expected a value after `{what}{symbol}`, in quotes or plain");
            return Err(self.cursor.fault(reason).into());
        }
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            let matcher = (self.make)(op, what, &value).map_err(Stop::Make)?;
            return Ok(StringMatch::from(matcher));
        }
        // Nothing is compiled, so nothing can be wrong.
        StringMatch::new(op, &value).map_err(|error| {
            self.cursor.at = start;
            self.cursor.fault(error.to_string()).into()
        })
    }

    fn one_of<T: Copy>(&mut self, what: &str, table: &[(&'static str, T)]) -> Result<T, Stop<E>> {
        self.cursor.blanks();
        if !self.cursor.take('=') {
            return Err(self.cursor.fault(format!("`{what}` takes `=`")).into());
        }
        self.cursor.blanks();
        let start = self.cursor.at;
        let word = match self.cursor.peek() {
            Some('"' | '\'' | '`') => self.cursor.string()?,
            _ => self.cursor.word(is_value_char).to_owned(),
        };
        if let Some((_, found)) = table.iter().find(|(known, _)| *known == word) {
            return Ok(*found);
        }
        self.cursor.at = start;
        let known: Vec<String> = table.iter().map(|(word, _)| format!("`{word}`")).collect();
        let reason = format!("`{what}` is one of {}", known.join(", "));
        Err(self.cursor.fault(reason).into())
    }

    /// An operator and what it compares a figure with, as bounds, both included.
    fn compare(&mut self, figure: SpanFigure) -> Result<(u64, u64), Stop<E>> {
        self.cursor.blanks();
        let start = self.cursor.at;
        let found = [">=", "<=", ">", "<", "="]
            .into_iter()
            .find(|s| self.symbol(s));
        let Some(symbol) = found else {
            let reason = format!(
                "expected `=`, `<`, `<=`, `>` or `>=` after `{}`",
                figure.as_str()
            );
            return Err(self.cursor.fault(reason).into());
        };
        let number = self.figure(figure)?;
        let bounds = match symbol {
            ">=" => Some((number, u64::MAX)),
            "<=" => Some((0, number)),
            ">" => number.checked_add(1).map(|min| (min, u64::MAX)),
            "<" => number.checked_sub(1).map(|max| (0, max)),
            _ if self.symbol("..") => {
                let max = self.figure(figure)?;
                (number <= max).then_some((number, max))
            }
            _ => Some((number, number)),
        };
        bounds.ok_or_else(|| {
            self.cursor.at = start;
            self.cursor.fault("no number is within these bounds").into()
        })
    }

    fn figure(&mut self, figure: SpanFigure) -> Result<u64, Stop<E>> {
        self.cursor.blanks();
        let start = self.cursor.at;
        let whole = self.cursor.word(|_, c| c.is_ascii_digit());
        let fraction = match self.cursor.rest().strip_prefix('.') {
            Some(rest) if !rest.starts_with('.') => {
                self.cursor.take('.');
                self.cursor.word(|_, c| c.is_ascii_digit())
            }
            _ => "",
        };
        let unit = self.cursor.word(|_, c| c.is_ascii_alphabetic());
        let found = if figure.is_time() {
            let unit_ns = UNITS_NS.iter().find(|(known, _)| *known == unit);
            match unit_ns {
                Some((_, ns)) => scaled(whole, fraction, *ns),
                // Nothing needs no unit.
                None if unit.is_empty() => scaled(whole, fraction, 1).filter(|&n| n == 0),
                None => None,
            }
        } else if unit.is_empty() && fraction.is_empty() {
            whole.parse().ok()
        } else {
            None
        };
        found.ok_or_else(|| {
            self.cursor.at = start;
            let reason = if figure.is_time() {
                "expected a time with its unit (h, m, s, ms, us, ns) that is a whole number of ns"
            } else {
                "expected a whole number"
            };
            self.cursor.fault(reason).into()
        })
    }

    /// One of the words, if it stands here as a word of its own.
    fn keyword(&mut self, words: &[&'static str]) -> Option<&'static str> {
        self.cursor.blanks();
        let mut ahead = self.cursor;
        let here = ahead.word(|_, c| c.is_ascii_alphanumeric() || c == '_');
        let found = words.iter().find(|word| **word == here)?;
        self.cursor = ahead;
        Some(found)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.cursor.rest().starts_with(symbol);
        if found {
            self.cursor.at += symbol.len();
        }
        found
    }

    fn node(&mut self) -> Result<(), Stop<E>> {
        self.nodes += 1;
        if self.nodes > SPAN_SET_NODES_MAX {
            let reason = format!("more than {SPAN_SET_NODES_MAX} sets and conditions");
            return Err(self.cursor.fault(reason).into());
        }
        Ok(())
    }

    /// One level more above something that is `depth` deep.
    fn deeper(&mut self, depth: usize) -> Result<usize, Stop<E>> {
        self.node()?;
        if depth >= SPAN_SET_DEPTH_MAX {
            let reason = format!("sets are nested deeper than {SPAN_SET_DEPTH_MAX}");
            return Err(self.cursor.fault(reason).into());
        }
        Ok(depth + 1)
    }
}

fn is_value_char(_: usize, c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | ':' | '@' | '%' | '+' | '-')
}

/// `whole.fraction` of `unit_ns`, if that is a whole number of ns.
fn scaled(whole: &str, fraction: &str, unit_ns: u64) -> Option<u64> {
    let mut ns = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    let mut unit_ns = unit_ns;
    for digit in fraction.trim_end_matches('0').chars() {
        if !unit_ns.is_multiple_of(10) {
            return None;
        }
        unit_ns /= 10;
        let part = u64::from(digit.to_digit(10)?).checked_mul(unit_ns)?;
        ns = ns.checked_add(part)?;
    }
    Some(ns)
}
