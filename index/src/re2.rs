//! Patterns as their senders mean them: RE2 syntax, as Prometheus has it, put into the syntax of
//! the `regex` crate where the two differ.
//!
//! | in RE2 | meaning | becomes |
//! | --- | --- | --- |
//! | `\d` `\w` `\s` and negations | ASCII only | classes spelt out |
//! | `\b` `\B` | ASCII word boundaries | the same without Unicode |
//! | `\Q...\E` | literal text | escaped text |
//! | `{` that opens no repetition | a literal brace | `\{` |
//! | `[`, `&&`, `--`, `~~` in a class | themselves | escaped |
//!
//! Everything else is left to the parser, its errors included. Named classes such as `[:alpha:]`,
//! `\pL`, flags and groups are alike in both.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// Rewrites `pattern`; borrowed if nothing differs.
pub(crate) fn to_regex_syntax(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(['\\', '{', '[']) {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => push_escape(&mut out, &mut chars, Place::Outside),
            '[' => push_class(&mut out, &mut chars),
            '{' if !opens_repetition(&chars) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Outside,
    InClass,
}

/// What stands behind a backslash.
fn push_escape(out: &mut String, chars: &mut Peekable<Chars<'_>>, place: Place) {
    let spelt = match chars.next() {
        None => "\\",
        Some('d') => "[0-9]",
        Some('D') => "[^0-9]",
        Some('w') => "[0-9A-Za-z_]",
        Some('W') => "[^0-9A-Za-z_]",
        Some('s') => r"[\t\n\f\r ]",
        Some('S') => r"[^\t\n\f\r ]",
        Some('b') if place == Place::Outside => r"(?-u:\b)",
        Some('B') if place == Place::Outside => r"(?-u:\B)",
        Some('Q') if place == Place::Outside => return push_quoted(out, chars),
        Some(other) => {
            out.push('\\');
            out.push(other);
            // A code point or property in braces is no repetition.
            if matches!(other, 'x' | 'p' | 'P') && chars.peek() == Some(&'{') {
                for c in chars.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            return;
        }
    };
    out.push_str(spelt);
}

/// Literal text up to `\E` or the end.
fn push_quoted(out: &mut String, chars: &mut Peekable<Chars<'_>>) {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek() == Some(&'E') {
            chars.next();
            break;
        }
        text.push(c);
    }
    out.push_str(&regex_syntax::escape(&text));
}

/// A bracketed class, from behind its opening bracket to its closing one.
fn push_class(out: &mut String, chars: &mut Peekable<Chars<'_>>) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !is_first => {
                out.push(']');
                return;
            }
            ']' => out.push_str("\\]"),
            '\\' => push_escape(out, chars, Place::InClass),
            '[' if chars.peek() == Some(&':') => push_named_class(out, chars),
            '[' => out.push_str("\\["),
            '&' | '~' if chars.peek() == Some(&c) => {
                out.push('\\');
                out.push(c);
            }
            // Two hyphens would subtract. In front the first is a literal, further in it makes a
            // range that the second ends.
            '-' if chars.peek() == Some(&'-') => {
                if is_first {
                    out.push_str("\\-");
                } else {
                    chars.next();
                    out.push_str("-\\-");
                }
            }
            c => out.push(c),
        }
        is_first = false;
    }
}

/// `[:alpha:]` inside a class, or a literal bracket if it does not close.
fn push_named_class(out: &mut String, chars: &mut Peekable<Chars<'_>>) {
    let rest: String = chars.clone().take(16).collect();
    match rest.find(":]") {
        Some(end) if end > 0 => {
            out.push('[');
            out.push_str(rest.get(..end + 2).unwrap_or_default());
            for _ in 0..rest.get(..end + 2).unwrap_or_default().chars().count() {
                chars.next();
            }
        }
        _ => out.push_str("\\["),
    }
}

/// Whether what follows a brace is `n}`, `n,}` or `n,m}`.
fn opens_repetition(chars: &Peekable<Chars<'_>>) -> bool {
    let mut ahead = chars.clone();
    let mut digits = 0;
    while ahead.next_if(char::is_ascii_digit).is_some() {
        digits += 1;
    }
    if ahead.next_if_eq(&',').is_some() {
        while ahead.next_if(char::is_ascii_digit).is_some() {}
    }
    digits > 0 && ahead.next() == Some('}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        let pattern = to_regex_syntax(pattern);
        Regex::new(&format!("^(?s:{pattern})$"))
            .expect(&pattern)
            .is_match(value)
    }

    #[test]
    fn digits_words_and_spaces_are_ascii() {
        assert!(matches(r"\d+", "09") && !matches(r"\d", "٣"));
        assert!(matches(r"\w+", "aZ_9") && !matches(r"\w", "é"));
        assert!(matches(r"\W", "é") && matches(r"\D", "٣") && matches(r"\S", "\u{a0}"));
        assert!(matches(r"\s", "\n") && !matches(r"\s", "\u{a0}") && !matches(r"\s", "\u{b}"));
        assert!(matches(r"[\d.]+", "1.2") && matches(r"[^\d]", "x") && !matches(r"[^\d]", "1"));
        assert!(matches(r"a\b.*", "aé") && !matches(r"a\b.*", "ab") && matches(r"a\Bb", "ab"));
    }

    #[test]
    fn quoted_text_is_literal() {
        assert!(matches(r"\Qa.b[\E.", "a.b[x") && !matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\Qa.b", "a.b") && matches(r"\Q\\E", "\\"));
    }

    #[test]
    fn a_brace_that_opens_no_repetition_is_literal() {
        assert!(matches("a{", "a{") && matches("{a}", "{a}") && matches("a{,2}", "a{,2}"));
        assert!(matches("a{2}", "aa") && matches("a{1,}", "aaa") && matches("a{1,2}", "aa"));
        assert!(matches(r"\x{41}", "A") && matches(r"\p{Greek}", "λ") && matches(r"\{2}", "{2}"));
    }

    #[test]
    fn a_class_has_no_set_operations() {
        assert!(matches("[a&&b]+", "&ab") && matches("[[a]+", "[a[") && matches("[a~~]+", "~a"));
        assert!(matches("[]a]+", "]a") && matches("[^]a]", "b") && !matches("[^]a]", "]"));
        assert!(matches("[[:alpha:]-]+", "a-") && matches("[[:^alpha:]]", "1"));
        assert!(matches("[+--]+", "+,-") && !matches("[+--]", "."));
        assert!(matches("[--/]+", "-./") && matches("[--]", "-"));
    }

    proptest! {
        #[test]
        fn plain_patterns_stay_as_they_are(pattern in "[a-z.*+?|()^$ -]{0,20}") {
            prop_assert_eq!(to_regex_syntax(&pattern), pattern.as_str());
        }

        #[test]
        fn any_pattern_is_rewritten_without_panic(pattern in r"[\\QEdwbx\[\]{}0-9,:a&~^-]{0,20}|\PC{0,20}") {
            let _ = to_regex_syntax(&pattern);
        }
    }
}
