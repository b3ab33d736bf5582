//! How OTLP's names become Prometheus' names: metrics with unit and type suffixes, attributes as label
//! names. The rules are those of the OpenTelemetry specification's page on compatibility
//! with Prometheus; the table of what becomes what is in `docs/otlp.md`.
//!
//! Names are appended to buffers of the caller's: a name costs no allocation.

use crate::config::Config;

/// How metrics are translated. Plain data with the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Translation {
    /// Keep metric and label names as they were sent (UTF-8) instead of turning every character
    /// outside `[a-zA-Z0-9_:]` into `_`. Suffixes are added all the same. Default off.
    pub utf8_names: bool,
    /// Resource attributes copied onto every series of the resource.
    pub promoted_attributes: Vec<String>,
}

/// Resource attributes promoted unless configured otherwise.
pub const PROMOTED_ATTRIBUTES_DEFAULT: [&str; 8] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "k8s.pod.name",
    "k8s.namespace.name",
    "host.name",
    "deployment.environment",
    "deployment.environment.name",
];

impl Default for Translation {
    fn default() -> Self {
        Self {
            utf8_names: false,
            promoted_attributes: PROMOTED_ATTRIBUTES_DEFAULT.map(str::to_owned).to_vec(),
        }
    }
}

impl Translation {
    /// What a node's configuration asks for.
    pub fn of(config: &Config) -> Self {
        Self {
            utf8_names: config.utf8_names,
            promoted_attributes: config.promote_resource_attributes.clone(),
        }
    }
}

/// What kind of metric a name is for, as far as its suffixes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suffixes {
    /// OTLP gauges: `_ratio` where the unit is `1`.
    Gauge,
    /// Monotonic sums: `_total`.
    Counter,
    /// Everything else: the unit alone.
    UnitOnly,
}

/// UCUM's abbreviations and the words Prometheus has for them.
const UNITS: [(&str, &str); 28] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("kBy", "kilobytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
    ("", ""),
];

/// Units behind a stroke, in the singular. `m` is a minute there, as in Prometheus' own table.
const PER_UNITS: [(&str, &str); 8] = [
    ("s", "second"),
    ("m", "minute"),
    ("min", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word_of<'a>(table: &[(&'static str, &'static str)], unit: &'a str) -> &'a str {
    table
        .iter()
        .find(|(symbol, _)| *symbol == unit)
        .map_or(unit, |(_, word)| word)
}

impl Translation {
    /// Appends a metric's name with its suffixes to `name`, and its unit in words to `unit_words`.
    /// `false`, with `name` as it was, if nothing is left of the name.
    pub(crate) fn push_metric_name(
        &self,
        name: &mut String,
        unit_words: &mut String,
        sent_name: &str,
        sent_unit: &str,
        suffixes: Suffixes,
    ) -> bool {
        let start = name.len();
        if self.utf8_names {
            name.push_str(sent_name);
        } else {
            if sent_name.starts_with(|c: char| c.is_ascii_digit()) {
                name.push('_');
            }
            push_sanitized(name, start, sent_name, |c| {
                c.is_ascii_alphanumeric() || c == ':'
            });
        }
        if !has_substance(name, start) {
            name.truncate(start);
            return false;
        }
        if suffixes == Suffixes::Counter {
            drop_last_word(name, start, "total");
        }
        let unit_start = unit_words.len();
        let per_start = self.push_unit(unit_words, sent_unit, suffixes);
        let words = unit_words.get(unit_start..).unwrap_or_default();
        let (unit, per) = words
            .split_at_checked(per_start - unit_start)
            .unwrap_or((words, ""));
        for word in [unit.trim_end_matches('_'), per.trim_start_matches('_')] {
            if !word.is_empty() && !has_word(name, start, word) {
                self.push_word(name, start, word);
            }
        }
        if suffixes == Suffixes::Counter {
            self.push_word(name, start, "total");
        }
        true
    }

    /// Appends a unit in words, such as `bytes_per_second`; returns where the `per` part begins.
    fn push_unit(&self, out: &mut String, sent_unit: &str, suffixes: Suffixes) -> usize {
        let start = out.len();
        let sent_unit = sent_unit.trim();
        if sent_unit == "1" && suffixes == Suffixes::Gauge {
            out.push_str("ratio");
            return out.len();
        }
        let (unit, per) = sent_unit.split_once('/').unwrap_or((sent_unit, ""));
        self.push_unit_word(out, start, &UNITS, unit);
        let mut per_start = out.len();
        if !per.is_empty() {
            if out.len() > start {
                out.push('_');
                per_start = out.len();
            }
            out.push_str("per_");
            let word_start = out.len();
            self.push_unit_word(out, word_start, &PER_UNITS, per);
            if out.len() == word_start {
                out.truncate(per_start);
                if out.len() > start {
                    out.pop();
                    per_start = out.len();
                }
            }
        }
        per_start
    }

    /// One unit's word, without what braces annotate: `By` for `By{heap}`, nothing for `{request}`.
    fn push_unit_word(
        &self,
        out: &mut String,
        start: usize,
        table: &[(&'static str, &'static str)],
        unit: &str,
    ) {
        let mut rest = unit;
        let mut plain = "";
        // Nearly always there is one piece: only then can it be an abbreviation of the table.
        let mut pieces = 0;
        while !rest.is_empty() {
            let open = rest.find('{').unwrap_or(rest.len());
            let (piece, annotation) = rest.split_at_checked(open).unwrap_or((rest, ""));
            let piece = piece.trim();
            if !piece.is_empty() {
                pieces += 1;
                if pieces == 1 {
                    plain = piece;
                } else {
                    if pieces == 2 {
                        self.push_unit_text(out, start, plain);
                    }
                    self.push_unit_text(out, start, piece);
                }
            }
            rest = annotation.split_once('}').map_or("", |(_, behind)| behind);
        }
        if pieces == 1 {
            self.push_unit_text(out, start, word_of(table, plain));
        }
        out.truncate(
            start
                + out
                    .get(start..)
                    .unwrap_or_default()
                    .trim_end_matches('_')
                    .len(),
        );
    }

    fn push_unit_text(&self, out: &mut String, start: usize, text: &str) {
        if self.utf8_names {
            out.push_str(text);
        } else {
            let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            push_sanitized(out, start, text, |c| c.is_ascii_alphanumeric());
        }
    }

    fn push_word(&self, name: &mut String, start: usize, word: &str) {
        if self.utf8_names || !name.get(start..).unwrap_or_default().ends_with('_') {
            name.push('_');
        }
        name.push_str(word);
    }

    /// Appends the label name for an attribute's key behind `prefix` (which is a legal name or empty).
    pub(crate) fn push_label_name(&self, out: &mut String, prefix: &str, key: &str) {
        out.push_str(prefix);
        if self.utf8_names {
            out.push_str(key);
            return;
        }
        if prefix.is_empty() && key.starts_with(|c: char| c.is_ascii_digit()) {
            out.push_str("key_");
        }
        let start = out.len() - usize::from(prefix.ends_with('_'));
        push_sanitized(out, start, key, |c| c.is_ascii_alphanumeric());
    }
}

/// Appends `text` with every character outside `legal` as `_`, and no two `_` in a row behind `start`.
fn push_sanitized(out: &mut String, start: usize, text: &str, legal: impl Fn(char) -> bool) {
    let mut after_underscore = out.get(start..).is_some_and(|s| s.ends_with('_'));
    for c in text.chars() {
        if legal(c) {
            out.push(c);
            after_underscore = false;
        } else if !after_underscore {
            out.push('_');
            after_underscore = true;
        }
    }
}

/// Whether the name says anything: a name of illegal characters alone would be shared by all of them.
fn has_substance(name: &str, start: usize) -> bool {
    name.get(start..)
        .is_some_and(|s| s.chars().any(|c| c != '_'))
}

/// Whether `word` stands in the name between its ends or characters that are no letters or digits.
fn has_word(name: &str, start: usize, word: &str) -> bool {
    let name = name.get(start..).unwrap_or_default();
    name.match_indices(word).any(|(at, found)| {
        let before = name.get(..at).unwrap_or_default();
        let behind = name.get(at + found.len()..).unwrap_or_default();
        !before.ends_with(char::is_alphanumeric) && !behind.starts_with(char::is_alphanumeric)
    })
}

/// Takes `word` and the separator before it off the end of the name, unless it is all of the name.
fn drop_last_word(name: &mut String, start: usize, word: &str) {
    let own = name.get(start..).unwrap_or_default();
    if let Some(before) = own.strip_suffix(word)
        && let Some(separator) = before.chars().next_back()
        && !separator.is_alphanumeric()
        && before.chars().any(char::is_alphanumeric)
    {
        let length = before.len() - separator.len_utf8();
        name.truncate(start + length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(
        translation: &Translation,
        name: &str,
        unit: &str,
        suffixes: Suffixes,
    ) -> (String, String) {
        let (mut out, mut words) = ("before_".to_owned(), "before_".to_owned());
        assert!(translation.push_metric_name(&mut out, &mut words, name, unit, suffixes));
        (
            out["before_".len()..].to_owned(),
            words["before_".len()..].to_owned(),
        )
    }

    fn name(name: &str, unit: &str, suffixes: Suffixes) -> String {
        named(&Translation::default(), name, unit, suffixes).0
    }

    fn label(key: &str) -> String {
        let mut out = String::new();
        Translation::default().push_label_name(&mut out, "", key);
        out
    }

    use Suffixes::{Counter, Gauge, UnitOnly};

    #[test]
    fn illegal_characters_become_one_underscore() {
        assert_eq!(
            name("http.server.active-requests", "", UnitOnly),
            "http_server_active_requests"
        );
        assert_eq!(name("a..b__c@@d", "", UnitOnly), "a_b_c_d");
        assert_eq!(name("ns:job.rate", "", UnitOnly), "ns:job_rate");
        assert_eq!(name("größe", "", UnitOnly), "gr_e");
        assert_eq!(name("_leading", "", UnitOnly), "_leading");
    }

    #[test]
    fn a_leading_digit_gets_an_underscore_before_it() {
        assert_eq!(name("5xx.errors", "", Counter), "_5xx_errors_total");
    }

    #[test]
    fn a_name_without_a_legal_character_is_refused() {
        for empty in ["", "___", "@#$", "…"] {
            let mut out = String::from("x");
            let translation = Translation::default();
            assert!(!translation.push_metric_name(
                &mut out,
                &mut String::new(),
                empty,
                "s",
                Counter
            ));
            assert_eq!(out, "x");
        }
    }

    #[test]
    fn units_become_words() {
        for (unit, word) in UNITS.iter().filter(|(_, word)| !word.is_empty()) {
            assert_eq!(name("x", unit, UnitOnly), format!("x_{word}"), "{unit}");
        }
        assert_eq!(name("x", "fortnight", UnitOnly), "x_fortnight");
        assert_eq!(
            name("x", "unit@with#special", UnitOnly),
            "x_unit_with_special"
        );
    }

    #[test]
    fn units_per_unit_are_read() {
        for (unit, words) in [
            ("m/s", "meters_per_second"),
            ("By/s", "bytes_per_second"),
            ("1/s", "per_second"),
            ("{request}/s", "per_second"),
            ("By/{request}", "bytes"),
            ("By/min", "bytes_per_minute"),
            ("1/m", "per_minute"),
            ("1/y", "per_year"),
            ("a@b/c#d", "a_b_per_c_d"),
            ("{a}/{b}", ""),
            ("/s", "per_second"),
        ] {
            let expected = if words.is_empty() {
                "x".to_owned()
            } else {
                format!("x_{words}")
            };
            let got = named(&Translation::default(), "x", unit, UnitOnly);
            assert_eq!(got, (expected, words.to_owned()), "{unit}");
        }
    }

    #[test]
    fn annotations_in_braces_are_dropped() {
        assert_eq!(name("x", "{request}", Counter), "x_total");
        assert_eq!(name("x", "By{heap}", UnitOnly), "x_bytes");
        assert_eq!(name("x", "{fault", UnitOnly), "x");
    }

    #[test]
    fn one_is_a_ratio_on_gauges_only() {
        assert_eq!(name("cpu.utilization", "1", Gauge), "cpu_utilization_ratio");
        assert_eq!(name("hit.ratio", "1", Gauge), "hit_ratio");
        assert_eq!(name("requests", "1", Counter), "requests_total");
        assert_eq!(name("queue.length", "1", UnitOnly), "queue_length");
    }

    #[test]
    fn the_type_suffix_comes_behind_the_unit() {
        assert_eq!(name("cpu.time", "s", Counter), "cpu_time_seconds_total");
        assert_eq!(
            name("requests", "1/s", Counter),
            "requests_per_second_total"
        );
    }

    #[test]
    fn what_the_name_already_says_is_not_said_twice() {
        assert_eq!(name("requests_total", "", Counter), "requests_total");
        assert_eq!(name("requests.total", "", Counter), "requests_total");
        assert_eq!(name("cpu_seconds_total", "s", Counter), "cpu_seconds_total");
        assert_eq!(name("cpu_total", "s", Counter), "cpu_seconds_total");
        assert_eq!(name("duration_seconds", "s", UnitOnly), "duration_seconds");
        assert_eq!(
            name("duration.seconds.max", "s", Gauge),
            "duration_seconds_max"
        );
        assert_eq!(
            name("io_bytes_per_second", "By/s", Gauge),
            "io_bytes_per_second"
        );
        assert_eq!(name("io_bytes", "By/s", Gauge), "io_bytes_per_second");
        assert_eq!(name("kilobytes", "By", Gauge), "kilobytes_bytes");
        assert_eq!(name("total", "", Counter), "total_total");
        assert_eq!(name("total_requests", "", Counter), "total_requests_total");
    }

    #[test]
    fn a_trailing_underscore_is_not_doubled_by_a_suffix() {
        assert_eq!(name("requests.", "s", Counter), "requests_seconds_total");
    }

    #[test]
    fn utf8_names_are_kept_and_still_get_suffixes() {
        let utf8 = Translation {
            utf8_names: true,
            ..Translation::default()
        };
        assert_eq!(
            named(&utf8, "http.größe", "By", UnitOnly).0,
            "http.größe_bytes"
        );
        assert_eq!(
            named(&utf8, "http.requests", "", Counter).0,
            "http.requests_total"
        );
        assert_eq!(
            named(&utf8, "http.requests.total", "", Counter).0,
            "http.requests_total"
        );
        assert_eq!(named(&utf8, "cpu.seconds", "s", UnitOnly).0, "cpu.seconds");
        assert_eq!(named(&utf8, "@", "1", Gauge).0, "@_ratio");
        let mut out = String::new();
        utf8.push_label_name(&mut out, "", "http.method");
        assert_eq!(out, "http.method");
    }

    #[test]
    fn label_names_are_made_legal() {
        assert_eq!(label("http.request.method"), "http_request_method");
        assert_eq!(label("a..b"), "a_b");
        assert_eq!(label("a:b"), "a_b");
        assert_eq!(label("__name__"), "_name_");
        assert_eq!(label("1st"), "key_1st");
        assert_eq!(label("名"), "_");
        let mut out = String::new();
        Translation::default().push_label_name(&mut out, "otel_scope_", ".1.x");
        assert_eq!(out, "otel_scope_1_x");
    }

    proptest! {
        #[test]
        fn translated_names_are_legal(sent: String, unit: String, kind in 0..3usize) {
            let suffixes = [Gauge, Counter, UnitOnly][kind];
            let (mut out, mut words) = (String::new(), String::new());
            let translation = Translation::default();
            if translation.push_metric_name(&mut out, &mut words, &sent, &unit, suffixes) {
                prop_assert!(out.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':'));
                prop_assert!(!out.starts_with(|c: char| c.is_ascii_digit()));
                prop_assert!(!out.contains("__"));
                prop_assert!(words.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            }
            let utf8 = Translation { utf8_names: true, ..Translation::default() };
            out.clear();
            if utf8.push_metric_name(&mut out, &mut words, &sent, &unit, suffixes) {
                prop_assert!(out.len() >= sent.len().saturating_sub(6));
            }
            let name = label(&sent);
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            prop_assert!(!name.contains("__") && !name.starts_with(|c: char| c.is_ascii_digit()));
        }
    }
}
