//! Anchored regular expressions on label values, in RE2 syntax (`re2.rs`).
//!
//! Most patterns that people write are not regular at heart: `a|b|c`, `api-.*`, `.+`. Those are
//! recognised in the parsed pattern and run as what they are; only the rest becomes an automaton,
//! behind a check of its literal prefix and suffix.

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{Extractor, Literal};
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::error::{Error, shortened};
use crate::re2::to_regex_syntax;

/// Longest accepted pattern. Grafana's generated alternations reach some tens of kilobytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Memory that one compiled pattern may take; past it, the pattern is refused.
const COMPILED_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bounds that a pattern is compiled under, one after the other: the one that suffices tells what the
/// automaton holds, which the regex crate does not.
const COMPILED_BYTES_STEPS: [usize; 4] =
    [16 * 1024, 256 * 1024, 2 * 1024 * 1024, COMPILED_BYTES_MAX];
/// Memory that the lazy automaton may use while it runs; past it, it runs slower.
const LAZY_DFA_BYTES_MAX: usize = 1024 * 1024;
/// Brackets and repetitions inside each other.
const NEST_MAX: u32 = 200;
/// Most values that a pattern is multiplied out to before it counts as regular; with the next
/// bound, 10 MiB at worst. An alternation of plain texts has no such bound.
const EXPANDED_VALUES_MAX: usize = 10_000;
/// Longest value of that kind.
const EXPANDED_VALUE_BYTES_MAX: usize = 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct RegexMatcher {
    form: Form,
    memory_bytes: usize,
}

#[derive(Debug)]
enum Form {
    /// The pattern matches exactly these values, sorted.
    Listed(Box<[Box<str>]>),
    /// Literals with gaps of any text between them.
    Glob(Glob),
    /// Anything else.
    Automaton {
        prefix: Box<str>,
        suffix: Box<str>,
        regex: Regex,
    },
}

impl RegexMatcher {
    /// Compiles `pattern`; `label` is for the error message.
    pub(crate) fn new(label: &str, pattern: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidRegex {
            label: shortened(label),
            pattern: shortened(pattern),
            reason,
        };
        if pattern.len() > PATTERN_BYTES_MAX {
            let (bytes, max) = (pattern.len(), PATTERN_BYTES_MAX);
            return Err(invalid(format!(
                "the pattern has {bytes} bytes, at most {max} are accepted"
            )));
        }
        let rewritten = to_regex_syntax(pattern);
        let parsed = ParserBuilder::new()
            .nest_limit(NEST_MAX)
            .dot_matches_new_line(true)
            .octal(true)
            .build()
            .parse(&rewritten)
            .map_err(|e| invalid(one_line_reason(&e)))?;
        if let Some(values) = listed_values(&parsed) {
            let text_bytes: usize = values.iter().map(|value| value.len()).sum();
            return Ok(Self {
                memory_bytes: text_bytes + size_of_val(&*values),
                form: Form::Listed(values),
            });
        }
        let parts = flattened(&parsed);
        if let Some(glob) = Glob::new(&parts) {
            return Ok(Self {
                form: Form::Glob(glob),
                memory_bytes: pattern.len(),
            });
        }
        let (regex, compiled_bytes) =
            compiled(&rewritten).map_err(|e| invalid(compile_reason(&e)))?;
        let literal = |part: Option<&Part>| match part {
            Some(Part::Literal(text)) => text.as_str().into(),
            _ => Box::default(),
        };
        let (prefix, suffix) = (literal(parts.first()), literal(parts.last()));
        Ok(Self {
            form: Form::Automaton {
                prefix,
                suffix,
                regex,
            },
            // The automaton is kept forwards and backwards, as is the cache it runs with.
            memory_bytes: 2 * (compiled_bytes + LAZY_DFA_BYTES_MAX.min(4 * compiled_bytes)),
        })
    }

    /// Memory that it may hold, rounded up.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether the whole of `value` matches.
    pub(crate) fn is_match(&self, value: &str) -> bool {
        match &self.form {
            Form::Listed(values) => values.binary_search_by(|v| (**v).cmp(value)).is_ok(),
            Form::Glob(glob) => glob.is_match(value),
            Form::Automaton {
                prefix,
                suffix,
                regex,
            } => {
                value.starts_with(&**prefix) && value.ends_with(&**suffix) && regex.is_match(value)
            }
        }
    }

    /// What every value that matches starts with; empty if nothing is known.
    pub(crate) fn literal_prefix(&self) -> &str {
        match &self.form {
            Form::Listed(_) => "",
            Form::Glob(glob) => &glob.prefix,
            Form::Automaton { prefix, .. } => prefix,
        }
    }

    /// The values that match, sorted, if they are a known few.
    pub(crate) fn listed_values(&self) -> Option<&[Box<str>]> {
        match &self.form {
            Form::Listed(values) => Some(values),
            _ => None,
        }
    }

    /// Whether every value but perhaps the empty one matches.
    pub(crate) fn holds_for_all_present(&self) -> bool {
        matches!(&self.form, Form::Glob(glob) if glob.holds_for_all_present())
    }
}

/// The anchored automaton, and the bound it was compiled under.
fn compiled(rewritten: &str) -> Result<(Regex, usize), regex::Error> {
    let anchored = format!("^(?s:{rewritten})$");
    let mut last = Err(regex::Error::CompiledTooBig(0));
    for bytes_max in COMPILED_BYTES_STEPS {
        last = RegexBuilder::new(&anchored)
            .nest_limit(NEST_MAX + 4)
            .octal(true)
            .size_limit(bytes_max)
            .dfa_size_limit(LAZY_DFA_BYTES_MAX)
            .build()
            .map(|regex| (regex, bytes_max));
        if !matches!(last, Err(regex::Error::CompiledTooBig(_))) {
            break;
        }
    }
    last
}

/// All strings of the pattern's language, sorted, if they are a known few.
fn listed_values(parsed: &Hir) -> Option<Box<[Box<str>]>> {
    let mut values = alternatives(parsed).or_else(|| expansion(parsed))?;
    values.sort_unstable();
    values.dedup();
    Some(values.into_boxed_slice())
}

/// The values of a plain alternation, such as a dashboard makes of a list of hosts.
fn alternatives(parsed: &Hir) -> Option<Vec<Box<str>>> {
    let value = |hir: &Hir| match hir.kind() {
        HirKind::Empty => Some(Box::default()),
        HirKind::Literal(literal) => Some(std::str::from_utf8(&literal.0).ok()?.into()),
        _ => None,
    };
    match parsed.kind() {
        HirKind::Capture(group) => alternatives(&group.sub),
        HirKind::Alternation(inner) => inner.iter().map(value).collect(),
        _ => Some(vec![value(parsed)?]),
    }
}

/// The values of a pattern that can be multiplied out, such as `web-[0-3]\.(eu|us)`.
fn expansion(parsed: &Hir) -> Option<Vec<Box<str>>> {
    // The extractor passes over assertions as if they always held.
    if !parsed.properties().look_set().is_empty() {
        return None;
    }
    let mut extractor = Extractor::new();
    extractor
        .limit_total(EXPANDED_VALUES_MAX)
        .limit_literal_len(EXPANDED_VALUE_BYTES_MAX);
    let found = extractor.extract(parsed);
    if !found.is_exact() {
        return None;
    }
    let text = |literal: &Literal| std::str::from_utf8(literal.as_bytes()).ok().map(Box::from);
    found.literals()?.iter().map(text).collect()
}

/// What a pattern is made of, seen from outside.
#[derive(Debug)]
enum Part {
    Literal(String),
    /// At least so many characters of any kind.
    Gap(u32),
    Other,
}

/// The parts of a concatenation, groups opened, neighbouring literals and gaps joined.
fn flattened(parsed: &Hir) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut pending = vec![parsed];
    while let Some(hir) = pending.pop() {
        let part = match hir.kind() {
            HirKind::Empty => continue,
            HirKind::Concat(inner) => {
                pending.extend(inner.iter().rev());
                continue;
            }
            HirKind::Capture(group) => {
                pending.push(&group.sub);
                continue;
            }
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => Part::Literal(text.to_owned()),
                Err(_) => Part::Other,
            },
            HirKind::Repetition(repetition)
                if repetition.max.is_none() && is_any_char(&repetition.sub) =>
            {
                Part::Gap(repetition.min)
            }
            _ => Part::Other,
        };
        match (parts.last_mut(), part) {
            (Some(Part::Literal(before)), Part::Literal(text)) => before.push_str(&text),
            (Some(Part::Gap(before)), Part::Gap(min)) => *before = before.saturating_add(min),
            (_, part) => parts.push(part),
        }
    }
    parts
}

/// Whether this is a class of all characters, as the dot is here.
fn is_any_char(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX)
        }
        HirKind::Capture(group) => is_any_char(&group.sub),
        _ => false,
    }
}

/// Literals in order, each behind a gap of at least so many characters.
#[derive(Debug)]
struct Glob {
    prefix: Box<str>,
    middle: Box<[(u32, Box<str>)]>,
    last_gap: u32,
    suffix: Box<str>,
}

impl Glob {
    /// `None` if the parts are not literals and gaps, with at least one gap.
    fn new(parts: &[Part]) -> Option<Self> {
        let mut prefix = Box::default();
        let mut middle: Vec<(u32, Box<str>)> = Vec::new();
        let mut gap = None;
        for part in parts {
            match (part, gap.take()) {
                (Part::Gap(min), None) => gap = Some(*min),
                (Part::Literal(text), None) => prefix = text.as_str().into(),
                (Part::Literal(text), Some(min)) => middle.push((min, text.as_str().into())),
                _ => return None,
            }
        }
        // A pattern that ends in a literal ends in the suffix, whose gap is the last one.
        let (last_gap, suffix) = match gap {
            Some(min) => (min, Box::default()),
            None => middle.pop()?,
        };
        Some(Self {
            prefix,
            middle: middle.into_boxed_slice(),
            last_gap,
            suffix,
        })
    }

    /// Taking each literal where it comes first leaves the most for the rest, so no going back.
    fn is_match(&self, value: &str) -> bool {
        let found = || {
            let mut rest = value.strip_prefix(&*self.prefix)?;
            for (gap, literal) in &self.middle {
                rest = skip_chars(rest, *gap)?;
                let (_, behind) = rest.split_once(&**literal)?;
                rest = behind;
            }
            skip_chars(rest, self.last_gap)?
                .ends_with(&*self.suffix)
                .then_some(())
        };
        found().is_some()
    }

    fn holds_for_all_present(&self) -> bool {
        self.prefix.is_empty()
            && self.middle.is_empty()
            && self.suffix.is_empty()
            && self.last_gap <= 1
    }
}

fn skip_chars(text: &str, count: u32) -> Option<&str> {
    let mut chars = text.chars();
    for _ in 0..count {
        chars.next()?;
    }
    Some(chars.as_str())
}

/// The parser's reason without its drawing of the pattern.
fn one_line_reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        regex_syntax::Error::Translate(e) => e.kind().to_string(),
        other => last_line(&other.to_string()),
    }
}

fn compile_reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(max) => {
            format!("it compiles to more than {max} bytes")
        }
        other => last_line(&other.to_string()),
    }
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(pattern: &str) -> RegexMatcher {
        RegexMatcher::new("l", pattern).unwrap()
    }

    fn form(pattern: &str) -> &'static str {
        match compile(pattern).form {
            Form::Listed(_) => "listed",
            Form::Glob(_) => "glob",
            Form::Automaton { .. } => "automaton",
        }
    }

    #[test]
    fn plain_patterns_need_no_automaton() {
        for pattern in [
            "", "a", "a|b|c", "(a|b)c", "ab?", "[0-3]x", "(?:)|a", "a|ab",
        ] {
            assert_eq!(form(pattern), "listed", "{pattern}");
        }
        for pattern in [
            ".*",
            ".+",
            "a.*",
            ".*a",
            ".*a.*",
            "a.+b",
            "(a).*?(b)",
            "a(.*)b.*c",
        ] {
            assert_eq!(form(pattern), "glob", "{pattern}");
        }
        for pattern in ["a+", "a[0-9]+", "(?i)straße.*", "^a.*$", "(?-s:.*)", "a.b"] {
            assert_eq!(form(pattern), "automaton", "{pattern}");
        }
    }

    #[test]
    fn listed_values_are_sorted_and_whole() {
        let matcher = compile("b|(a|c)d|");
        let listed: Vec<&str> = matcher
            .listed_values()
            .unwrap()
            .iter()
            .map(|v| &**v)
            .collect();
        assert_eq!(listed, ["", "ad", "b", "cd"]);
    }

    #[test]
    fn a_long_list_of_values_is_listed() {
        let values: Vec<String> = (0..20_000).map(|i| format!("host-{i}")).collect();
        let matcher = compile(&format!("({})", values.join("|")));
        assert_eq!(matcher.listed_values().map(<[_]>::len), Some(20_000));
        assert!(matcher.is_match("host-19999") && !matcher.is_match("host-20000"));
    }

    #[test]
    fn a_pattern_that_would_multiply_out_to_too_much_is_run_instead() {
        let pattern = format!("{}[a-j][a-j][a-j][a-j]", "x".repeat(10_000));
        assert_eq!(form(&pattern), "automaton");
        assert!(compile(&pattern).is_match(&format!("{}abcd", "x".repeat(10_000))));
    }

    #[test]
    fn a_pattern_that_compiles_to_too_much_is_refused() {
        let error = RegexMatcher::new("l", r"(\w{1000}){1000}").unwrap_err();
        assert!(matches!(error, Error::InvalidRegex { .. }), "{error}");
        assert!(RegexMatcher::new("l", &"(".repeat(100_000)).is_err());
        assert!(RegexMatcher::new("l", &"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn all_present_values_are_recognised() {
        for pattern in [".*", ".+", "(.*)", ".*.*"] {
            assert!(compile(pattern).holds_for_all_present(), "{pattern}");
        }
        for pattern in ["..+", ".*a", "(?-s:.*)"] {
            assert!(!compile(pattern).holds_for_all_present(), "{pattern}");
        }
    }

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        assert!(compile(r"\d+").is_match("09") && !compile(r"\d+").is_match("٣"));
        assert!(compile(r"a\.b\{\d\}{x").is_match("a.b{1}{x"));
        assert!(compile(r"\101").is_match("A"));
        assert_eq!(form(r"\Qa.*b\E|c"), "listed");
    }

    proptest! {
        /// The fast forms against the automaton of the same pattern.
        #[test]
        fn every_form_agrees_with_the_automaton(
            pattern in r"((a|b|é|\.\*|\.\+|\.\*\?|\[ab\]|\(a\|b\)|\(\|ab\)|b\?|a\+|\||\^|\$){0,6})",
            values in prop::collection::vec("[abé\n]{0,7}", 1..20),
        ) {
            let plain = Regex::new(&format!("^(?s:{pattern})$"));
            match (RegexMatcher::new("l", &pattern), plain) {
                (Ok(matcher), Ok(plain)) => {
                    for value in &values {
                        prop_assert_eq!(
                            matcher.is_match(value), plain.is_match(value),
                            "{} on {:?}", pattern, value
                        );
                    }
                }
                (Err(_), Err(_)) => {}
                (ours, plain) => prop_assert!(false, "{:?} against {:?}", ours, plain),
            }
        }

        #[test]
        fn any_pattern_compiles_or_is_refused(pattern in "\\PC{0,30}") {
            let _ = RegexMatcher::new("l", &pattern);
        }
    }
}
