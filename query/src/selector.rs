//! Series selectors in `PromQL`'s form: `name{label="value",other=~"pattern"}`.
//!
//! Grammar, with blanks and line feeds allowed between tokens:
//!
//! ```text
//! selector = [ name ] [ "{" [ term { "," term } [ "," ] ] "}" ]
//! term     = label op string | string op string | string        a lone string is the metric's name
//! op       = "=" | "!=" | "=~" | "!~"
//! name     = [a-zA-Z_:][a-zA-Z0-9_:]*        label = [a-zA-Z_][a-zA-Z0-9_]*
//! string   = '"' ... '"' | "'" ... "'" with Go's escapes | "`" ... "`" without
//! ```
//!
//! A range (`[5m]`), an `offset` or an operator is not part of a selector; the error says so.

use std::fmt;

use rootline_engine::{Error as EngineError, Labels, MatchOp, Matcher};

use crate::{
    error::Error,
    text_cursor::{Cursor, Fault},
};

/// Longest selector that is read.
pub(crate) const SELECTOR_BYTES_MAX: usize = 64 * 1024;
/// Patterns (`=~`, `!~`) in one question. A compiled one may take 10 MiB that no budget books.
pub const PATTERNS_MAX: usize = 16;
const METRIC_NAME: &str = "__name__";

/// Which series: all matchers hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    matchers: Vec<Matcher>,
}

impl Selector {
    /// The series that all of `matchers` select.
    pub fn new(matchers: Vec<Matcher>) -> Self {
        Self { matchers }
    }

    /// From text.
    ///
    /// # Errors
    /// [`Error::Selector`] points at the place, [`EngineError::InvalidMatcher`] names the pattern.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, |op, name, value| {
            Ok(Matcher::new(op, name, value).map_err(EngineError::InvalidMatcher)?)
        })
    }

    /// From text, its matchers made by `make`: compiling thousands of patterns costs memory and time,
    /// which a caller may want to bound.
    ///
    /// # Errors
    /// [`Error::Selector`] points at the place; else what `make` says.
    pub fn parse_with<E: From<Error>>(
        text: &str,
        mut make: impl FnMut(MatchOp, &str, &str) -> Result<Matcher, E>,
    ) -> Result<Self, E> {
        let cursor = Cursor::new(text);
        let terms = Parser { cursor }
            .selector()
            .map_err(|fault| E::from(SelectorError::from(fault).into()))?;
        let matchers = terms
            .iter()
            .map(|term| make(term.op, &term.name, &term.value))
            .collect::<Result<_, _>>()?;
        Ok(Self { matchers })
    }

    /// Adds a condition.
    pub fn and(&mut self, matcher: Matcher) {
        self.matchers.push(matcher);
    }

    /// Adds the conditions of another selector.
    pub fn and_all(&mut self, other: Self) {
        self.matchers.extend(other.matchers);
    }

    /// The conditions.
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Whether a label set meets all conditions.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|m| m.matches_labels(labels))
    }

    /// Refuses conditions that a series without any label would meet, as Prometheus does: such a
    /// selector is a slip far more often than a wish.
    ///
    /// # Errors
    /// [`Error::SelectsEverything`].
    pub fn narrow(&self) -> Result<&[Matcher], Error> {
        if self.matchers.iter().all(Matcher::matches_empty) {
            return Err(Error::SelectsEverything);
        }
        Ok(&self.matchers)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{matcher}")?;
        }
        f.write_str("}")
    }
}

/// Why a selector does not parse, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector, character {character}: {reason}, at {rest}")]
pub struct SelectorError {
    /// Place of the fault, counted in characters from 1.
    pub character: usize,
    /// What was expected or found.
    pub reason: String,
    /// What stands there, shortened and quoted; `end of text` at the end.
    pub rest: String,
    line: String,
    caret: usize,
}

impl SelectorError {
    /// The selector (or the part around the fault) and below it a mark at the fault, for a fixed-width
    /// display. Control characters are shown as blanks.
    pub fn pointer(&self) -> String {
        Fault::pointer(&self.line, self.caret)
    }
}

impl From<Fault> for SelectorError {
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

struct Term {
    op: MatchOp,
    name: String,
    value: String,
}

fn is_pattern(op: MatchOp) -> bool {
    matches!(op, MatchOp::Regex | MatchOp::NotRegex)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Vec<Term>, Fault> {
        if self.cursor.text.len() > SELECTOR_BYTES_MAX {
            return Err(self
                .cursor
                .fault(format!("longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut terms = Vec::new();
        self.cursor.blanks();
        let name = self.word(true);
        if !name.is_empty() {
            terms.push(Term {
                op: MatchOp::Equal,
                name: METRIC_NAME.into(),
                value: name.into(),
            });
        }
        self.cursor.blanks();
        if self.cursor.take('{') {
            self.terms(&mut terms, !name.is_empty())?;
        } else if name.is_empty() {
            return Err(self.cursor.fault("expected a metric name or `{`"));
        }
        self.cursor.blanks();
        match self.cursor.peek() {
            None => Ok(terms),
            Some('[') => Err(self
                .cursor
                .fault("a selector has no range in brackets: give the range apart")),
            Some('{') => Err(self.cursor.fault("a second `{`")),
            Some(_) => Err(self
                .cursor
                .fault("expected the end: only a selector can stand here")),
        }
    }

    fn terms(&mut self, terms: &mut Vec<Term>, named: bool) -> Result<(), Fault> {
        let mut named = named;
        loop {
            self.cursor.blanks();
            if self.cursor.take('}') {
                return Ok(());
            }
            let start = self.cursor.at;
            let quoted = matches!(self.cursor.peek(), Some('"' | '\'' | '`'));
            let name = if quoted {
                self.cursor.string()?
            } else {
                self.word(false).to_owned()
            };
            if name.is_empty() && !quoted {
                return Err(self.cursor.fault("expected a label name or `}`"));
            }
            self.cursor.blanks();
            if quoted && matches!(self.cursor.peek(), Some(',' | '}') | None) {
                if named {
                    self.cursor.at = start;
                    return Err(self.cursor.fault("a second metric name"));
                }
                named = true;
                terms.push(Term {
                    op: MatchOp::Equal,
                    name: METRIC_NAME.into(),
                    value: name,
                });
            } else {
                if name.is_empty() {
                    self.cursor.at = start;
                    return Err(self.cursor.fault("an empty label name"));
                }
                let op = self.operator(&name)?;
                if is_pattern(op)
                    && terms.iter().filter(|term| is_pattern(term.op)).count() >= PATTERNS_MAX
                {
                    self.cursor.at = start;
                    return Err(self
                        .cursor
                        .fault(format!("more than {PATTERNS_MAX} patterns (=~, !~)")));
                }
                self.cursor.blanks();
                if !matches!(self.cursor.peek(), Some('"' | '\'' | '`')) {
                    return Err(self.cursor.fault(format!(
                        "expected a quoted value after `{name}{}`",
                        op.as_str()
                    )));
                }
                let value = self.cursor.string()?;
                terms.push(Term { op, name, value });
            }
            self.cursor.blanks();
            if !self.cursor.take(',') && self.cursor.peek() != Some('}') {
                return Err(self.cursor.fault(match self.cursor.peek() {
                    None => "`{` is not closed: expected `}`",
                    Some(_) => "expected `,` or `}`",
                }));
            }
        }
    }

    fn operator(&mut self, name: &str) -> Result<MatchOp, Fault> {
        // The longer ones first: `=` begins `=~`.
        for (text, op) in [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ] {
            if let Some(rest) = self.cursor.rest().strip_prefix(text) {
                self.cursor.at = self.cursor.text.len() - rest.len();
                if op == MatchOp::Equal && rest.starts_with('=') {
                    return Err(self
                        .cursor
                        .fault("`==` compares numbers: a label takes `=`"));
                }
                return Ok(op);
            }
        }
        Err(self.cursor.fault(format!(
            "expected `=`, `!=`, `=~` or `!~` after label name `{name}`"
        )))
    }

    /// A metric's or label's name; empty if none stands here.
    fn word(&mut self, colons: bool) -> &'a str {
        self.cursor.word(|i, c| {
            let name = c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
            name || (i > 0 && c.is_ascii_digit())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> String {
        Selector::parse(text).unwrap().to_string()
    }

    #[test]
    fn so_many_patterns_and_no_more_are_compiled() {
        let of = |count: usize| {
            let terms: Vec<String> = (0..count).map(|i| format!("l{i}=~\"a.\"")).collect();
            format!("a{{b=\"c\",{}}}", terms.join(","))
        };
        assert!(Selector::parse(&of(PATTERNS_MAX)).is_ok());
        assert!(fault(&of(PATTERNS_MAX + 1)).reason.contains("16 patterns"));
    }

    fn fault(text: &str) -> SelectorError {
        match Selector::parse(text) {
            Err(Error::Selector(error)) => error,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn names_and_conditions_become_matchers() {
        assert_eq!(parsed("up"), r#"{__name__="up"}"#);
        assert_eq!(
            parsed(r#" http:rate5m { job = "a" , code=~'5..', x!="",y!~`\d+`, } "#),
            r#"{__name__="http:rate5m",job="a",code=~"5..",x!="",y!~"\\d+"}"#
        );
        assert_eq!(
            parsed(r#"{"http.server.duration","k8s.pod"="x"}"#),
            r#"{__name__="http.server.duration","k8s.pod"="x"}"#
        );
        assert_eq!(parsed("{}"), "{}");
    }

    #[test]
    fn escapes_are_those_of_go() {
        let selector = Selector::parse(r#"{a="\n\"\\\x41\u00e9\U0001F600\101'"}"#).unwrap();
        assert_eq!(selector.matchers()[0].value(), "\n\"\\Aé😀A'");
    }

    #[test]
    fn a_fault_is_pointed_at() {
        let error = fault(r#"up{job "api"}"#);
        assert_eq!(error.character, 8);
        assert_eq!(error.pointer(), "up{job \"api\"}\n       ^");
        assert!(
            error.to_string().contains("after label name `job`"),
            "{error}"
        );
    }

    #[test]
    fn faults_are_named() {
        for (text, reason, character) in [
            ("", "metric name or `{`", 1),
            ("up{", "label name or `}`", 4),
            (r#"up{a="b""#, "not closed", 9),
            (r#"up{a="b"#, "quote is not closed", 6),
            (r"up{a=b}", "quoted value after `a=`", 6),
            (r#"up{a=="b"}"#, "takes `=`", 6),
            (r#"up{a="b" c="d"}"#, "`,` or `}`", 10),
            (r#"up{a="\q"}"#, "unknown escape", 7),
            ("up[5m]", "range in brackets", 3),
            ("up offset 5m", "only a selector", 4),
            (r#"up{"x"}"#, "second metric name", 4),
            ("up{}{}", "second `{`", 5),
            ("é", "metric name or `{`", 1),
        ] {
            let error = fault(text);
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert_eq!(error.character, character, "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_of_everything_is_refused_where_it_matters() {
        assert!(matches!(
            Selector::parse("{}").unwrap().narrow(),
            Err(Error::SelectsEverything)
        ));
        let wide = Selector::parse(r#"{a=~".*"}"#).unwrap();
        assert!(matches!(wide.narrow(), Err(Error::SelectsEverything)));
        assert_eq!(
            Selector::parse(r#"{a=~".+"}"#)
                .unwrap()
                .narrow()
                .unwrap()
                .len(),
            1
        );
        assert!(matches!(
            Selector::parse(r#"{a=~"("}"#),
            Err(Error::Engine(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            if let Err(Error::Selector(error)) = Selector::parse(&text) {
                prop_assert!(error.character <= text.chars().count() + 1);
                prop_assert_eq!(error.pointer().lines().count(), 2);
            }
        }

        #[test]
        fn what_is_written_reads_back(name in "[a-z_:][a-z0-9_:]{0,8}",
                                      pairs in prop::collection::vec(("[a-z_]{1,6}", ".{0,12}"), 0..4)) {
            let mut selector = Selector::parse(&name).unwrap();
            for (label, value) in &pairs {
                selector.and(Matcher::equal(label, value));
            }
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
