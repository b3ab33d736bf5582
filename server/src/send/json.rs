//! OTLP JSON lines, as the Collector's file exporter writes them: one request a line.
//!
//! Lines are counted by a typed read and moved in time by editing the text of the time fields alone,
//! so that everything else, unknown fields and the exact form of numbers included, goes out as it
//! came in.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    kind::Kind,
    wire::{Counts, Found, shift_nanos},
};

/// Names of the fields that hold a time in nanoseconds.
const TIME_FIELDS: [&str; 4] = [
    "timeUnixNano",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "observedTimeUnixNano",
];

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "resourceSpans")]
    spans: Option<Vec<ResourceSpans>>,
    #[serde(rename = "resourceMetrics")]
    metrics: Option<Vec<ResourceMetrics>>,
    #[serde(rename = "resourceLogs")]
    logs: Option<IgnoredAny>,
    #[serde(rename = "resourceProfiles")]
    profiles: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    #[serde(default)]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceMetrics {
    #[serde(default)]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Deserialize)]
struct ScopeMetrics {
    #[serde(default)]
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    gauge: Option<Points>,
    sum: Option<Points>,
    histogram: Option<Points>,
    exponential_histogram: Option<Points>,
    summary: Option<Points>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Points {
    #[serde(default)]
    data_points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(default)]
    exemplars: Vec<IgnoredAny>,
}

/// What a line is and holds; the error is a sentence.
pub(super) fn survey(line: &[u8]) -> Result<(Kind, Found), String> {
    let parsed: Line = serde_json::from_slice(line).map_err(|e| {
        if e.is_eof() {
            format!("{e}: a request must stand on one line")
        } else {
            e.to_string()
        }
    })?;
    let mut counts = Counts::default();
    let kind = match parsed {
        Line {
            spans: Some(spans), ..
        } => {
            let scopes = spans.iter().flat_map(|r| &r.scope_spans);
            counts.spans = scopes.map(|s| s.spans.len() as u64).sum();
            Kind::TracesJson
        }
        Line {
            metrics: Some(metrics),
            ..
        } => {
            let scopes = metrics.iter().flat_map(|r| &r.scope_metrics);
            for metric in scopes.flat_map(|s| &s.metrics) {
                let data = [
                    &metric.gauge,
                    &metric.sum,
                    &metric.histogram,
                    &metric.exponential_histogram,
                    &metric.summary,
                ];
                for point in data.into_iter().flatten().flat_map(|p| &p.data_points) {
                    counts.samples += 1;
                    counts.exemplars += point.exemplars.len() as u64;
                }
            }
            Kind::MetricsJson
        }
        Line { logs: Some(_), .. } => {
            return Err("holds logs, which Rootline does not store".into());
        }
        Line {
            profiles: Some(_), ..
        } => {
            return Err("holds profiles, which Rootline does not store".into());
        }
        _ => return Err("has neither \"resourceSpans\" nor \"resourceMetrics\"".into()),
    };
    let mut found = Found {
        counts,
        newest_ns: None,
    };
    edit_times(line, |ns| {
        found.see_ns(i128::from(ns));
        None
    });
    Ok((kind, found))
}

/// `line` with its times moved by `shift_ns`.
pub(super) fn shifted(line: &[u8], shift_ns: i64) -> Vec<u8> {
    edit_times(line, |ns| Some(shift_nanos(ns, shift_ns)))
}

/// Copies `line`, giving each time that is set to `edit` and putting down what it answers instead.
/// Expects valid JSON, and copies anything else as it is.
fn edit_times(line: &[u8], mut edit: impl FnMut(u64) -> Option<u64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 16);
    let mut rest = line;
    let mut time_next = false;
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'"' => {
                let (text, after) = split_string(after);
                let key = after.trim_ascii_start().first() == Some(&b':');
                out.push(b'"');
                match time(text).filter(|_| time_next && !key).and_then(&mut edit) {
                    Some(ns) => out.extend_from_slice(ns.to_string().as_bytes()),
                    None => out.extend_from_slice(text),
                }
                time_next = key && TIME_FIELDS.iter().any(|f| f.as_bytes() == text);
                if after.len() + text.len() + 1 < rest.len() {
                    out.push(b'"');
                }
                rest = after;
            }
            b'0'..=b'9' | b'-' => {
                let len = rest
                    .iter()
                    .position(|b| !is_number(*b))
                    .unwrap_or(rest.len());
                let (number, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                match time(number).filter(|_| time_next).and_then(&mut edit) {
                    Some(ns) => out.extend_from_slice(ns.to_string().as_bytes()),
                    None => out.extend_from_slice(number),
                }
                time_next = false;
                rest = after;
            }
            _ => {
                time_next &= first == b':' || first.is_ascii_whitespace();
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// A time that is set: whole nanoseconds, not 0.
fn time(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|ns| *ns != 0)
}

fn is_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// The content of a string whose opening quote is passed, and what follows its closing quote.
fn split_string(text: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    let Some(end) = end else { return (text, &[]) };
    let (content, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    (content, rest.split_first().map_or(&[], |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACES: &str = r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","startTimeUnixNano":"1000","endTimeUnixNano" : 2000,"attributes":[{"key":"timeUnixNano","value":{"stringValue":"1000"}},{"key":"a\"b\\","value":{"intValue":"7"}}],"events":[{"timeUnixNano":"1500","name":"say \"timeUnixNano\": 9"}]},{"endTimeUnixNano":"0"}]}]}]}"#;

    #[test]
    fn spans_are_counted_and_only_their_times_move() {
        let (kind, found) = survey(TRACES.as_bytes()).unwrap();
        assert_eq!((kind, found.counts.spans), (Kind::TracesJson, 2));
        assert_eq!(found.newest_ns, Some(2_000));
        let moved = String::from_utf8(shifted(TRACES.as_bytes(), 5)).unwrap();
        let expected = TRACES
            .replace(
                "\"startTimeUnixNano\":\"1000\"",
                "\"startTimeUnixNano\":\"1005\"",
            )
            .replace(": 2000", ": 2005")
            .replace("\"timeUnixNano\":\"1500\"", "\"timeUnixNano\":\"1505\"");
        assert_eq!(moved, expected);
    }

    #[test]
    fn data_points_of_every_kind_are_counted() {
        let line = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"gauge":{"dataPoints":[{"timeUnixNano":"3"},{}]}},
            {"histogram":{"dataPoints":[{"exemplars":[{},{}]}]}},
            {"summary":{}}]}]}]}"#;
        let (kind, found) = survey(line.as_bytes()).unwrap();
        assert_eq!(kind, Kind::MetricsJson);
        assert_eq!((found.counts.samples, found.counts.exemplars), (3, 2));
    }

    #[test]
    fn other_lines_are_refused_in_words() {
        assert!(
            survey(b"{\"resourceLogs\":[]}")
                .unwrap_err()
                .contains("logs")
        );
        assert!(survey(b"{}").unwrap_err().contains("neither"));
        assert!(
            survey(b"{\"resourceSpans\":[")
                .unwrap_err()
                .contains("one line")
        );
    }

    proptest::proptest! {
        #[test]
        fn an_edit_that_changes_nothing_copies_any_text(text in ".{0,200}") {
            proptest::prop_assert_eq!(edit_times(text.as_bytes(), |_| None), text.as_bytes());
        }
    }
}
