//! What the commands that ask a node share: where it is, which range, how to answer, what to say when
//! it goes wrong.

use std::{
    future::Future,
    io::{ErrorKind, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use rootline_engine::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tonic::Code;

use super::show::{duration, parse_duration_ns, parse_moment, plain, rfc3339, span_of_time};
use crate::client::{Client, ClientError, v1};

/// Exit code of an error.
const EXIT_ERROR: u8 = 1;
/// Exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;
/// The range where none is given.
const SINCE_DEFAULT: &str = "1h";

/// Where the node is if nothing is said.
const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:4317";
/// The variable that says where the node is.
const ENDPOINT_VARIABLE: &str = "ROOTLINE_ENDPOINT";

/// Where the node is, and how to answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's gRPC port
    #[arg(
        long,
        value_name = "URL",
        env = ENDPOINT_VARIABLE,
        default_value = ENDPOINT_DEFAULT,
        global = true
    )]
    endpoint: String,
    /// Give up after this long, such as 30s
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration_arg, global = true)]
    timeout: Duration,
    /// Answer in JSON, with the fields of docs/cli.md
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which range of time. Moments are RFC 3339 (UTC unless it says otherwise), numbers since 1970 in
/// seconds to nanoseconds, ages such as 10m, or now.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RangeArgs {
    /// From this moment on: 2022-08-23T12:00:00Z, 1661256000, 10m (ago)
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["since", "all_time"])]
    from: Option<String>,
    /// Up to this moment, included
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["since", "all_time"])]
    to: Option<String>,
    /// The last so long; 1h if nothing else is said
    #[arg(long, value_name = "DURATION", conflicts_with = "all_time")]
    since: Option<String>,
    /// All there is
    #[arg(long)]
    all_time: bool,
}

/// A range, and how to speak of it.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) message: v1::TimeRange,
    /// "in the last 1h", "from .. to ..", "at any time".
    pub(crate) words: String,
}

impl NodeArgs {
    /// The option that leads a next command to the same node; empty where none is needed.
    pub(crate) fn endpoint_option(&self) -> String {
        let is_set = std::env::var(ENDPOINT_VARIABLE).is_ok_and(|set| set == self.endpoint);
        if is_set || self.endpoint == ENDPOINT_DEFAULT {
            String::new()
        } else {
            format!(" --endpoint {}", plain(&self.endpoint))
        }
    }
}

impl RangeArgs {
    /// The range as of now.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub(crate) fn range(&self) -> Result<Range, Failure> {
        self.range_at(SystemClock::new().wall_ns())
    }

    fn range_at(&self, now_ns: i64) -> Result<Range, Failure> {
        let moment = |option: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => parse_moment(text, now_ns)
                .map(Some)
                .map_err(|error| Failure::Usage(format!("{option}: {error}"))),
        };
        if self.all_time {
            let message = v1::TimeRange {
                start_ns: None,
                end_ns: None,
            };
            return Ok(Range {
                message,
                words: "at any time".to_owned(),
            });
        }
        if self.from.is_none() && self.to.is_none() {
            let since = self.since.as_deref().unwrap_or(SINCE_DEFAULT);
            let age_ns = parse_duration_ns(since).and_then(|ns| i64::try_from(ns).ok());
            let Some(age_ns) = age_ns else {
                return Err(Failure::Usage(format!(
                    "--since: {since:?} is not a duration such as 10m, 1h30m or 2d"
                )));
            };
            let start_ns = Some(now_ns.saturating_sub(age_ns));
            let message = v1::TimeRange {
                start_ns,
                end_ns: None,
            };
            return Ok(Range {
                message,
                words: format!("in the last {}", since.trim()),
            });
        }
        let (start_ns, end_ns) = (moment("--from", &self.from)?, moment("--to", &self.to)?);
        if let (Some(start), Some(end)) = (start_ns, end_ns)
            && end < start
        {
            return Err(Failure::Usage(format!(
                "--to {} is before --from {}",
                rfc3339(end),
                rfc3339(start)
            )));
        }
        let words = match (start_ns, end_ns) {
            (Some(start), Some(end)) => format!("from {} to {}", rfc3339(start), rfc3339(end)),
            (Some(start), None) => format!("from {} on", rfc3339(start)),
            (None, Some(end)) => format!("up to {}", rfc3339(end)),
            (None, None) => "at any time".to_owned(),
        };
        Ok(Range {
            message: v1::TimeRange { start_ns, end_ns },
            words,
        })
    }
}

/// A duration on the command line.
pub(crate) fn duration_arg(text: &str) -> Result<Duration, String> {
    parse_duration_ns(text)
        .map(Duration::from_nanos)
        .ok_or_else(|| "give a number and a unit: 250ms, 30s, 10m, 1h30m".to_owned())
}

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Something else is; the text says what to do next.
    Error(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let advice = match (&error, error.code()) {
            (ClientError::Connect { .. }, _) => {
                "Start one with `rootline serve --data-dir DIR`, or try `rootline demo`. A node elsewhere \
                 is named by --endpoint or ROOTLINE_ENDPOINT."
            }
            (ClientError::Endpoint { .. }, _) => return Self::Usage(error.to_string()),
            (_, Some(Code::Unavailable)) => {
                "The node is starting, stopping or short of memory, or the connection broke: try again."
            }
            (_, Some(Code::DeadlineExceeded)) => {
                "Ask for a shorter range (--from, --to, --since) or give it more time (--timeout)."
            }
            (_, Some(Code::ResourceExhausted)) => {
                "Ask for less: a shorter range or a narrower selector."
            }
            (_, Some(Code::Internal)) if error.to_string().contains("invalid compression flag") => {
                "What answers there does not speak gRPC: --endpoint is the node's gRPC port, the first in \
                 its ready line."
            }
            // The node's own words for what it does not offer yet.
            (_, Some(Code::Unimplemented)) if error.to_string().contains("in this release") => "",
            (_, Some(Code::Unimplemented)) => {
                "The node does not offer this: it may be of another release, or something else may answer \
                 at this endpoint."
            }
            _ => "",
        };
        let text = plain(&error.to_string());
        Self::Error(if advice.is_empty() {
            text
        } else {
            format!("{text}\n{advice}")
        })
    }
}

/// Connects, asks, prints; the process' exit code.
pub(crate) fn ask<F, A>(node: &NodeArgs, question: F) -> ExitCode
where
    F: FnOnce(Client) -> A,
    A: Future<Output = Result<String, Failure>>,
{
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return end(Err(Failure::Error(format!(
                "cannot start the runtime: {error}"
            ))));
        }
    };
    let (endpoint, timeout) = (node.endpoint.clone(), node.timeout);
    end(runtime.block_on(async {
        let client = Client::connect(&endpoint).await?.with_timeout(timeout);
        // The node honours the deadline; a connection that hangs has to end as well.
        let patience = timeout.saturating_add(Duration::from_secs(2));
        match tokio::time::timeout(patience, question(client)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Error(format!(
                "{endpoint} did not answer within {}: give it more time (--timeout)",
                duration(timeout.as_nanos() as f64)
            ))),
        }
    }))
}

/// Prints an answer or a failure.
pub(crate) fn end(answer: Result<String, Failure>) -> ExitCode {
    let (text, code) = match answer {
        Ok(text) => {
            return match print(&text) {
                Err(error) => {
                    eprintln!("error: cannot write the answer: {error}");
                    ExitCode::from(EXIT_ERROR)
                }
                Ok(()) => ExitCode::SUCCESS,
            };
        }
        Err(Failure::Usage(text)) => (
            format!("{text}\n\nFor more information, try '--help'."),
            EXIT_USAGE,
        ),
        Err(Failure::Error(text)) => (text, EXIT_ERROR),
    };
    eprintln!("error: {text}");
    ExitCode::from(code)
}

/// Writes an answer to standard output.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What an answer with nothing in it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    /// What was not found: "samples".
    pub(crate) what: &'static str,
    /// Who has it when: "this metric has data".
    pub(crate) elsewhere: &'static str,
    /// The command that shows what there is, for when it is nowhere.
    pub(crate) overview: &'static str,
}

/// A line for an answer with nothing in it: what was not found, and where such data lie.
pub(crate) fn nothing(sought: Sought, range: &Range, info: &v1::AnswerInfo) -> String {
    let Sought {
        what,
        elsewhere,
        overview,
    } = sought;
    let words = &range.words;
    match (info.data_start_ns, info.data_end_ns) {
        (Some(start), Some(end)) => format!(
            "no {what} {words}; {elsewhere} {}, try --from/--to or --all-time\n",
            span_of_time(start, end)
        ),
        _ if words == "at any time" => format!("no {what} {words}; see `{overview}`\n"),
        _ => format!("no {what} {words}, and none at any other time; see `{overview}`\n"),
    }
}

/// The `info` object of every JSON answer.
pub(crate) fn info_json(info: Option<&v1::AnswerInfo>) -> Value {
    let Some(info) = info else { return Value::Null };
    let range = info.range.unwrap_or_default();
    let data = match (info.data_start_ns, info.data_end_ns) {
        (Some(start), Some(end)) => json!({ "start_ns": start, "end_ns": end }),
        _ => Value::Null,
    };
    json!({
        "range": { "start_ns": range.start_ns, "end_ns": range.end_ns },
        "snapshot_lsn": info.snapshot_lsn,
        "method": info.method,
        "exact": info.exact,
        "empty": info.empty,
        "truncated": info.truncated,
        "data": data,
    })
}

/// A JSON answer as text.
pub(crate) fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_661_256_000_000_000_000;
    const HOUR: i64 = 3_600_000_000_000;

    fn args(from: Option<&str>, to: Option<&str>, since: Option<&str>) -> RangeArgs {
        let own = |text: Option<&str>| text.map(str::to_owned);
        RangeArgs {
            from: own(from),
            to: own(to),
            since: own(since),
            all_time: false,
        }
    }

    #[test]
    fn the_last_hour_is_the_default() {
        let range = args(None, None, None).range_at(NOW).unwrap();
        assert_eq!(
            (range.message.start_ns, range.message.end_ns),
            (Some(NOW - HOUR), None)
        );
        assert_eq!(range.words, "in the last 1h");
    }

    #[test]
    fn from_and_to_are_moments() {
        let range = args(Some("2h"), Some("2022-08-23T11:30Z"), None)
            .range_at(NOW)
            .unwrap();
        assert_eq!(range.message.start_ns, Some(NOW - 2 * HOUR));
        assert_eq!(range.message.end_ns, Some(NOW - HOUR / 2));
        let open = args(None, Some("now"), None).range_at(NOW).unwrap();
        assert_eq!(open.words, "up to 2022-08-23T12:00:00Z");
        let all = RangeArgs {
            all_time: true,
            ..RangeArgs::default()
        }
        .range_at(NOW)
        .unwrap();
        assert_eq!((all.message.start_ns, all.message.end_ns), (None, None));
    }

    #[test]
    fn wrong_ranges_are_usage_errors() {
        for (from, to, since, says) in [
            (Some("now"), Some("1h"), None, "is before"),
            (Some("yesterday"), None, None, "--from"),
            (None, None, Some("10"), "--since"),
        ] {
            let Err(Failure::Usage(text)) = args(from, to, since).range_at(NOW) else {
                panic!()
            };
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn an_empty_answer_says_where_data_lie() {
        let range = args(None, None, None).range_at(NOW).unwrap();
        let sought = Sought {
            what: "samples",
            elsewhere: "this metric has data",
            overview: "rootline admin stats",
        };
        let info = v1::AnswerInfo {
            empty: true,
            data_start_ns: Some(NOW),
            data_end_ns: Some(NOW + 5 * HOUR + HOUR / 6),
            ..Default::default()
        };
        assert_eq!(
            nothing(sought, &range, &info),
            "no samples in the last 1h; this metric has data 2022-08-23 12:00..17:10, try --from/--to \
             or --all-time\n"
        );
        assert_eq!(
            nothing(sought, &range, &v1::AnswerInfo::default()),
            "no samples in the last 1h, and none at any other time; see `rootline admin stats`\n"
        );
    }

    #[test]
    fn a_next_command_is_led_to_the_same_node() {
        let node = |endpoint: &str| NodeArgs {
            endpoint: endpoint.to_owned(),
            timeout: Duration::from_mins(1),
            json: false,
        };
        assert_eq!(node(ENDPOINT_DEFAULT).endpoint_option(), "");
        assert_eq!(
            node("http://127.0.0.1:9").endpoint_option(),
            " --endpoint http://127.0.0.1:9"
        );
    }

    #[test]
    fn a_port_that_speaks_no_grpc_is_told_apart() {
        let status = tonic::Status::internal(
            "protocol error: received message with invalid compression flag: 110",
        );
        let Failure::Error(text) = Failure::from(ClientError::from(status)) else {
            panic!()
        };
        assert!(text.contains("gRPC port"), "{text}");
    }

    #[test]
    fn a_node_that_is_not_there_is_told_how_to_start() {
        let error = ClientError::Connect {
            endpoint: "http://127.0.0.1:1".into(),
            reason: "connection refused".into(),
        };
        let Failure::Error(text) = Failure::from(error) else {
            panic!()
        };
        assert!(
            text.contains("connection refused") && text.contains("rootline serve"),
            "{text}"
        );
    }
}
