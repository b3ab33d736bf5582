//! `rootline query`: questions to a node, answered in tables, trees or JSON (`docs/cli.md`).

use std::{collections::HashSet, fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use rootline_engine::{MatchOp, Matcher, TraceId};
use rootline_query::Selector;
use serde_json::{Value, json};
use tonic::Code;

use super::{
    ask::{
        Failure, NodeArgs, Range, RangeArgs, Sought, ask, duration_arg, end, info_json, json_text,
        nothing,
    },
    dependencies::{self, CompareArgs, DependenciesArgs},
    show::{
        Align, Table, Terminal, TraceLine, TraceView, count, duration, number, plain, rfc3339,
        span_of_time, trace_view,
    },
    spans::{self, AggregateArgs, OperationsArgs, ServicesArgs, SpansArgs, TagsArgs},
};
use crate::client::{Client, ClientError, TraceAnswer, v1};

const METRICS_OVERVIEW: &str = "rootline query labels __name__ --all-time";
const SPANS_OVERVIEW: &str = "rootline query stats --spans --by operation --all-time";
const SAMPLES: Sought = Sought {
    what: "samples",
    elsewhere: "this metric has data",
    overview: METRICS_OVERVIEW,
};
const SERIES: Sought = Sought {
    what: "series",
    ..SAMPLES
};
const LABELS: Sought = Sought {
    what: "labels",
    elsewhere: "the node has data",
    overview: "rootline admin stats",
};
const SPANS: Sought = Sought {
    what: "such spans",
    elsewhere: "the node has some",
    overview: SPANS_OVERVIEW,
};
const TRACES: Sought = Sought {
    what: "traces with such a span",
    ..SPANS
};
/// Ask a node.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Count, sum, min, max, mean, stddev and percentiles of samples or (--spans) of span durations
    Stats(StatsArgs),
    /// Label sets of the series that have samples
    Series(SeriesArgs),
    /// Label names, or the values of one label
    Labels(LabelsArgs),
    /// A trace as a tree with time bars
    Trace(TraceArgs),
    /// Traces with a span that meets all conditions, newest first
    Find(FindArgs),
    /// Spans of a set, those of the newest trace first
    Spans(SpansArgs),
    /// Figures over the spans of a set, grouped and by steps of time: count, rate, errors, percentiles
    Aggregate(AggregateArgs),
    /// Services that have spans
    Services(ServicesArgs),
    /// Span names of a service
    Operations(OperationsArgs),
    /// Attribute keys, or the values of one
    Tags(TagsArgs),
    /// Which service calls which, how often, how slowly, with how many errors
    Dependencies(DependenciesArgs),
    /// What changed in who calls whom between two ranges of time
    CompareDependencies(CompareArgs),
}

#[derive(Debug, Args)]
struct StatsArgs {
    /// Which series: name{label="value",other=~"pattern"}
    #[arg(required_unless_present = "spans", conflicts_with = "spans")]
    selector: Option<String>,
    /// Statistics of span durations instead
    #[arg(long)]
    spans: bool,
    /// Group by these labels; with --spans by service or operation
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    by: Vec<String>,
    /// Each series on its own
    #[arg(long, conflicts_with_all = ["by", "spans"])]
    each: bool,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Debug, Args)]
struct SeriesArgs {
    /// Which series: name{label="value",other=~"pattern"}
    selector: String,
    /// At most so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct LabelsArgs {
    /// The label whose values to list; without it, label names are listed
    name: Option<String>,
    /// Only of these series: name{label="value"}
    #[arg(long, value_name = "SELECTOR")]
    of: Option<String>,
    /// Only values that begin with this
    #[arg(long, value_name = "TEXT", requires = "name")]
    prefix: Option<String>,
    /// At most so many, the first in order; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Debug, Args)]
struct TraceArgs {
    /// 32 hexadecimal digits
    trace_id: String,
}

/// Conditions on one span: all that are given hold together.
#[derive(Debug, Default, Args)]
pub(super) struct ConditionArgs {
    /// Spans of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Spans of this name
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Spans with this attribute, of the span or its resource: key=value, key!=value, key=~pattern,
    /// key!~pattern; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// Spans with this outcome
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Spans with this role
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Spans that took at least so long
    #[arg(long, value_name = "DURATION", value_parser = duration_arg)]
    min_duration: Option<std::time::Duration>,
    /// Spans that took at most so long
    #[arg(long, value_name = "DURATION", value_parser = duration_arg)]
    max_duration: Option<std::time::Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusArg {
    Unset,
    Ok,
    Error,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

#[derive(Debug, Args)]
struct FindArgs {
    /// Which spans a trace has to have, such as '{service="cart" status=error} with ancestor
    /// {service="shop"}' (docs/api/span-sets.md), instead of conditions
    #[arg(value_name = "SET", conflicts_with_all = ["service", "operation", "tags", "status", "kind", "min_duration", "max_duration"])]
    set: Option<String>,
    #[command(flatten)]
    conditions: ConditionArgs,
    /// Most traces to show, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where a page before ended
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    page: String,
    #[command(flatten)]
    range: RangeArgs,
}

/// Answers the question of this command line.
pub(crate) fn run(args: QueryArgs) -> ExitCode {
    let QueryArgs { node, question } = args;
    let out = Out {
        json: node.json,
        terminal: Terminal::of_stdout(),
    };
    match question {
        Question::Stats(args) if args.spans => match args.span_request() {
            Ok((request, range)) => ask(&node, |c| span_stats(c, request, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Stats(args) => match args.metric_request() {
            Ok((request, range)) => ask(&node, |c| metric_stats(c, request, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Series(args) => match args.request() {
            Ok((request, range)) => ask(&node, |c| series(c, request, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Labels(args) => query_labels(&node, args),
        Question::Trace(args) => match trace_id(&args.trace_id) {
            Ok(id) => ask(&node, |c| trace(c, id, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Find(args) => match args.request() {
            Ok((request, range)) => {
                let next = node.endpoint_option();
                ask(&node, |c| find(c, request, range, next, out))
            }
            Err(failure) => end(Err(failure)),
        },
        Question::Spans(args) => match args.request() {
            Ok((request, range)) => ask(&node, |c| spans::spans(c, request, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Aggregate(args) => match args.request() {
            Ok((request, range)) => ask(&node, |c| spans::aggregate(c, request, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Services(args) => match args.range.range() {
            Ok(range) => ask(&node, |c| spans::services(c, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Operations(args) => match args.range.range() {
            Ok(range) => ask(&node, |c| spans::operations(c, args, range, out)),
            Err(failure) => end(Err(failure)),
        },
        Question::Tags(args) => ask(&node, |c| spans::tags(c, args, out)),
        Question::Dependencies(args) => match args.request() {
            Ok((request, range)) => ask(&node, |c| {
                dependencies::dependencies(c, request, range, out)
            }),
            Err(failure) => end(Err(failure)),
        },
        Question::CompareDependencies(args) => match args.request() {
            Ok(request) => ask(&node, |c| dependencies::compare(c, request, out)),
            Err(failure) => end(Err(failure)),
        },
    }
}

/// Answers `labels`.
pub(super) fn query_labels(node: &NodeArgs, args: LabelsArgs) -> ExitCode {
    let out = Out {
        json: node.json,
        terminal: Terminal::of_stdout(),
    };
    match args.selection() {
        Ok((selection, range)) => ask(node, |c| labels(c, args, selection, range, out)),
        Err(failure) => end(Err(failure)),
    }
}

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    pub(super) json: bool,
    pub(super) terminal: Terminal,
}

/// A trace id, or what form one has.
pub(crate) fn trace_id(text: &str) -> Result<TraceId, Failure> {
    TraceId::from_hex(text.trim()).ok_or_else(|| {
        Failure::Usage(format!(
            "{:?} is not a trace id: 32 hexadecimal digits such as 4bf92f3577b34da6a3ce929d0e0e4736. \
             `rootline query find` lists traces.",
            plain(text)
        ))
    })
}

/// A selector as it goes to the node, or where it is wrong.
pub(crate) fn selector(text: &str, narrow: bool) -> Result<v1::SeriesSelector, Failure> {
    let parsed = Selector::parse(text).and_then(|selector| {
        if narrow {
            selector.narrow()?;
        }
        Ok(selector)
    });
    match parsed {
        Ok(_) => Ok(v1::SeriesSelector {
            selector: text.to_owned(),
            matchers: Vec::new(),
        }),
        Err(rootline_query::Error::Selector(error)) => Err(Failure::Usage(format!(
            "{}\n\n{}",
            plain(&error.to_string()),
            error.pointer()
        ))),
        Err(error) => Err(Failure::Usage(plain(&error.to_string()))),
    }
}

/// A condition on an attribute: `key=value` and the like.
fn tag(text: &str) -> Result<v1::Matcher, Failure> {
    use v1::matcher::Type;
    let wrong = || {
        Failure::Usage(format!(
            "--tag {:?}: give key=value, key!=value, key=~pattern or key!~pattern",
            plain(text)
        ))
    };
    let at = text
        .find(['=', '!'])
        .filter(|at| *at > 0)
        .ok_or_else(wrong)?;
    let (name, rest) = text.split_at_checked(at).ok_or_else(wrong)?;
    // The longer ones first: `=` begins `=~`.
    let forms = [
        ("=~", Type::Regex, MatchOp::Regex),
        ("!~", Type::NotRegex, MatchOp::NotRegex),
        ("!=", Type::NotEqual, MatchOp::NotEqual),
        ("=", Type::Equal, MatchOp::Equal),
    ];
    let found = forms
        .iter()
        .find_map(|(text, kind, op)| Some((rest.strip_prefix(text)?, kind, op)));
    let (value, kind, op) = found.ok_or_else(wrong)?;
    Matcher::new(*op, name, value)
        .map_err(|error| Failure::Usage(plain(&format!("--tag: {error}"))))?;
    Ok(v1::Matcher {
        r#type: (*kind).into(),
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

impl ConditionArgs {
    pub(super) fn message(&self) -> Result<v1::SpanConditions, Failure> {
        let status = self.status.map(|status| match status {
            StatusArg::Unset => v1::StatusCode::Unset,
            StatusArg::Ok => v1::StatusCode::Ok,
            StatusArg::Error => v1::StatusCode::Error,
        });
        let kind = self.kind.map(|kind| match kind {
            KindArg::Unspecified => v1::SpanKind::Unspecified,
            KindArg::Internal => v1::SpanKind::Internal,
            KindArg::Server => v1::SpanKind::Server,
            KindArg::Client => v1::SpanKind::Client,
            KindArg::Producer => v1::SpanKind::Producer,
            KindArg::Consumer => v1::SpanKind::Consumer,
        });
        let ns = |duration: Option<std::time::Duration>| {
            duration.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
        };
        Ok(v1::SpanConditions {
            service: self.service.clone().unwrap_or_default(),
            operation: self.operation.clone().unwrap_or_default(),
            tags: self
                .tags
                .iter()
                .map(|text| tag(text))
                .collect::<Result<_, _>>()?,
            status: status.map(Into::into),
            kind: kind.map(Into::into),
            min_duration_ns: ns(self.min_duration),
            max_duration_ns: ns(self.max_duration),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none()
            && self.operation.is_none()
            && self.tags.is_empty()
            && self.status.is_none()
            && self.kind.is_none()
            && self.min_duration.is_none()
            && self.max_duration.is_none()
    }
}

impl StatsArgs {
    fn metric_request(&self) -> Result<(v1::MetricStatsRequest, Range), Failure> {
        if !self.conditions.is_empty() {
            return Err(Failure::Usage(
                "conditions on spans need --spans; conditions on series stand in the selector"
                    .to_owned(),
            ));
        }
        let range = self.range.range()?;
        let request = v1::MetricStatsRequest {
            series: Some(selector(
                self.selector.as_deref().unwrap_or_default(),
                true,
            )?),
            range: Some(range.message),
            by: self.by.clone(),
            each_series: self.each,
        };
        Ok((request, range))
    }

    fn span_request(&self) -> Result<(v1::SpanStatsRequest, Range), Failure> {
        use v1::span_stats_request::By;
        let by: Vec<&str> = self.by.iter().map(String::as_str).collect();
        let by = match by.as_slice() {
            [] => By::Nothing,
            ["service"] => By::Service,
            ["operation"] | ["service", "operation"] | ["operation", "service"] => By::Operation,
            _ => {
                return Err(Failure::Usage(
                    "--spans is grouped --by service or --by operation".to_owned(),
                ));
            }
        };
        let range = self.range.range()?;
        let request = v1::SpanStatsRequest {
            conditions: Some(self.conditions.message()?),
            range: Some(range.message),
            by: by.into(),
        };
        Ok((request, range))
    }
}

impl SeriesArgs {
    fn request(&self) -> Result<(v1::SeriesRequest, Range), Failure> {
        let range = self.range.range()?;
        let request = v1::SeriesRequest {
            series: Some(selector(&self.selector, true)?),
            range: Some(range.message),
            limit: self.limit,
        };
        Ok((request, range))
    }
}

impl LabelsArgs {
    fn selection(&self) -> Result<(Option<v1::SeriesSelector>, Range), Failure> {
        let selection = match &self.of {
            Some(text) => Some(selector(text, false)?),
            None => None,
        };
        Ok((selection, self.range.range()?))
    }
}

impl FindArgs {
    fn request(&self) -> Result<(v1::FindTracesRequest, Range), Failure> {
        let range = self.range.range()?;
        let request = v1::FindTracesRequest {
            conditions: Some(self.conditions.message()?),
            range: Some(range.message),
            limit: self.limit,
            page_token: self.page.clone(),
            span_set: match &self.set {
                Some(text) => spans::span_set(text)?,
                None => String::new(),
            },
        };
        Ok((request, range))
    }
}

fn label_map(labels: &[v1::Label]) -> Value {
    labels
        .iter()
        .map(|l| (l.name.clone(), Value::from(l.value.clone())))
        .collect()
}

fn labels_text(labels: &[v1::Label]) -> String {
    let name = labels
        .iter()
        .find(|l| l.name == "__name__")
        .map_or("", |l| l.value.as_str());
    let rest: Vec<String> = labels
        .iter()
        .filter(|l| l.name != "__name__")
        .map(|l| format!("{}={:?}", l.name, l.value))
        .collect();
    if rest.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", rest.join(", "))
    }
}

fn statistics_json(of: Option<&v1::Statistics>) -> Value {
    let s = of.copied().unwrap_or_default();
    json!({
        "count": s.count, "sum": s.sum, "min": s.min, "max": s.max, "mean": s.mean,
        "stddev": s.stddev, "p50": s.p50, "p95": s.p95, "p99": s.p99,
    })
}

/// The columns of figures in tables, in this order.
const FIGURES: [(&str, Align); 9] = [
    ("count", Align::Right),
    ("min", Align::Right),
    ("mean", Align::Right),
    ("p50", Align::Right),
    ("p95", Align::Right),
    ("p99", Align::Right),
    ("max", Align::Right),
    ("stddev", Align::Right),
    ("sum", Align::Right),
];

fn figures(of: Option<&v1::Statistics>, show: fn(f64) -> String) -> Vec<String> {
    let s = of.copied().unwrap_or_default();
    let mut cells = vec![count(s.count)];
    for figure in [s.min, s.mean, s.p50, s.p95, s.p99, s.max, s.stddev, s.sum] {
        cells.push(figure.map_or_else(|| "-".to_owned(), show));
    }
    cells
}

async fn metric_stats(
    client: Client,
    request: v1::MetricStatsRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let (groups, info) = client.metric_stats(request).await?;
    if out.json {
        let groups: Vec<Value> = groups
            .iter()
            .map(|group| {
                json!({
                    "labels": label_map(&group.labels),
                    "series": group.series,
                    "first_ns": group.first_ns,
                    "last_ns": group.last_ns,
                    "statistics": statistics_json(group.statistics.as_ref()),
                    "nan_samples": group.nan_samples,
                    "stale_samples": group.stale_samples,
                })
            })
            .collect();
        return Ok(json_text(
            &json!({ "groups": groups, "info": info_json(Some(&info)) }),
        ));
    }
    if groups.is_empty() {
        return Ok(nothing(SAMPLES, &range, &info));
    }
    let mut columns = vec![("group", Align::Left), ("series", Align::Right)];
    columns.extend(FIGURES);
    let mut table = Table::new(&columns);
    let (mut nan, mut times) = (0, None);
    for group in &groups {
        let name = if group.labels.is_empty() {
            "all".to_owned()
        } else {
            labels_text(&group.labels)
        };
        let cells = [name, count(group.series)];
        table.row(
            cells
                .into_iter()
                .chain(figures(group.statistics.as_ref(), number)),
        );
        nan += group.nan_samples;
        if let (Some(first), Some(last)) = (group.first_ns, group.last_ns) {
            let (a, b) = times.unwrap_or((first, last));
            times = Some((first.min(a), last.max(b)));
        }
    }
    let mut text = table.render(out.terminal);
    if let Some((first, last)) = times {
        text.push_str(
            &out.terminal
                .faint(&format!("samples {} UTC", span_of_time(first, last))),
        );
        text.push('\n');
    }
    if nan > 0 {
        text.push_str(&count(nan));
        text.push_str(" NaN samples left out\n");
    }
    Ok(text)
}

async fn span_stats(
    client: Client,
    request: v1::SpanStatsRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    use v1::span_stats_request::By;
    let by = By::try_from(request.by).unwrap_or(By::Nothing);
    let answer = client.span_stats(request).await?;
    let info = answer.info.unwrap_or_default();
    if out.json {
        let groups: Vec<Value> = answer
            .groups
            .iter()
            .map(|group| {
                json!({
                    "service": (by != By::Nothing).then_some(&group.service),
                    "operation": (by == By::Operation).then_some(&group.operation),
                    "errors": group.errors,
                    "duration_ns": statistics_json(group.duration_ns.as_ref()),
                })
            })
            .collect();
        return Ok(json_text(
            &json!({ "groups": groups, "info": info_json(Some(&info)) }),
        ));
    }
    if answer.groups.is_empty() {
        return Ok(nothing(SPANS, &range, &info));
    }
    let mut columns = Vec::new();
    if by != By::Nothing {
        columns.push(("service", Align::Left));
    }
    if by == By::Operation {
        columns.push(("operation", Align::Left));
    }
    columns.extend(FIGURES);
    columns.push(("errors", Align::Right));
    let mut table = Table::new(&columns);
    for group in answer.groups {
        let mut cells = Vec::new();
        if by != By::Nothing {
            cells.push(group.service);
        }
        if by == By::Operation {
            cells.push(group.operation);
        }
        cells.extend(figures(group.duration_ns.as_ref(), duration));
        cells.push(count(group.errors));
        table.row(cells);
    }
    Ok(table.render(out.terminal))
}

async fn series(
    client: Client,
    request: v1::SeriesRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let (series, info) = client.series(request).await?;
    if out.json {
        let series: Vec<Value> = series
            .iter()
            .map(|s| json!({ "series_ref": s.series_ref, "labels": label_map(&s.labels) }))
            .collect();
        return Ok(json_text(
            &json!({ "series": series, "info": info_json(Some(&info)) }),
        ));
    }
    if series.is_empty() {
        return Ok(nothing(SERIES, &range, &info));
    }
    let mut text = String::new();
    for one in &series {
        text.push_str(&plain(&labels_text(&one.labels)));
        text.push('\n');
    }
    let more = if info.truncated {
        "; there are more, see --limit"
    } else {
        ""
    };
    let line = format!(
        "{} series {}{more}",
        count(series.len() as u64),
        range.words
    );
    text.push_str(&out.terminal.faint(&line));
    text.push('\n');
    Ok(text)
}

async fn labels(
    client: Client,
    args: LabelsArgs,
    series: Option<v1::SeriesSelector>,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let (what, list, info) = if let Some(name) = args.name {
        let request = v1::LabelValuesRequest {
            name,
            series,
            range: Some(range.message),
            limit: args.limit,
            prefix: args.prefix.unwrap_or_default(),
        };
        let (values, info) = client.label_values(request).await?;
        ("values", values, info)
    } else {
        let request = v1::LabelNamesRequest {
            series,
            range: Some(range.message),
            limit: args.limit,
        };
        let answer = client.label_names(request).await?;
        ("names", answer.names, answer.info.unwrap_or_default())
    };
    if out.json {
        return Ok(json_text(
            &json!({ (what): list, "info": info_json(Some(&info)) }),
        ));
    }
    if list.is_empty() {
        return Ok(nothing(LABELS, &range, &info));
    }
    let mut text: String = list.iter().map(|entry| plain(entry) + "\n").collect();
    if info.truncated {
        text.push_str(&out.terminal.faint("there are more, see --limit\n"));
    }
    Ok(text)
}

async fn trace(client: Client, id: TraceId, out: Out) -> Result<String, Failure> {
    let trace = match client.trace(&id.to_string()).await {
        Err(ClientError::Status(status)) if status.code() == Code::NotFound => {
            return Err(Failure::Error(format!(
                "no span of trace {id} is stored. `rootline query find` lists traces; `--since` and \
                 `--all-time` widen its range."
            )));
        }
        answer => answer?,
    };
    Ok(if out.json {
        trace_json(&trace)
    } else {
        trace_text(&trace, out.terminal)
    })
}

fn trace_text(trace: &TraceAnswer, terminal: Terminal) -> String {
    let summary = &trace.summary;
    let mut text = format!(
        "{}  {}  {}  {} spans  {} services",
        terminal.bold(&summary.trace_id),
        rfc3339(summary.start_ns),
        duration(summary.duration_ns as f64),
        count(summary.spans),
        count(trace.services.len() as u64),
    );
    if summary.errors > 0 {
        text.push_str(&terminal.red(&format!("  {} errors", count(summary.errors))));
    }
    text.push_str("\n\n");
    let stored: HashSet<&str> = span_ids(trace).collect();
    let lines = trace
        .rows
        .iter()
        .map(|row| trace_line(row, &stored))
        .collect();
    text.push_str(&trace_view(
        &TraceView {
            lines,
            duration_ns: summary.duration_ns,
        },
        terminal,
    ));
    text.push('\n');
    let mut table = Table::new(&[
        ("service", Align::Left),
        ("spans", Align::Right),
        ("errors", Align::Right),
        ("own time", Align::Right),
        ("inclusive", Align::Right),
    ]);
    for time in &trace.services {
        table.row([
            time.service.clone(),
            count(time.spans),
            count(time.errors),
            duration(time.own_ns as f64),
            duration(time.inclusive_ns as f64),
        ]);
    }
    text.push_str(&table.render(terminal));
    text
}

fn span_ids(trace: &TraceAnswer) -> impl Iterator<Item = &str> {
    let spans = trace.rows.iter().filter_map(|row| row.span.as_ref());
    spans.map(|span| span.span_id.as_str())
}

fn trace_line(row: &v1::SpanRow, stored: &HashSet<&str>) -> TraceLine {
    let empty = v1::Span::default();
    let span = row.span.as_ref().unwrap_or(&empty);
    let rootless = row.parent_row.is_none() && !span.parent_span_id.is_empty();
    let parent_stored = stored.contains(span.parent_span_id.as_str());
    TraceLine {
        depth: u64::from(row.depth),
        service: row.service.clone(),
        name: span.name.clone(),
        offset_ns: row.offset_ns,
        duration_ns: row.duration_ns,
        own_ns: row.own_ns,
        error: span.status() == v1::StatusCode::Error,
        message: span.status_message.clone(),
        orphan: rootless && !parent_stored,
        circular: rootless && parent_stored,
    }
}

fn trace_json(trace: &TraceAnswer) -> String {
    let services: Vec<Value> = trace
        .services
        .iter()
        .map(|time| {
            json!({
                "service": time.service, "spans": time.spans, "errors": time.errors,
                "own_ns": time.own_ns, "inclusive_ns": time.inclusive_ns,
            })
        })
        .collect();
    let rows: Vec<Value> = trace.rows.iter().map(|row| row_json(row, trace)).collect();
    json_text(&json!({
        "trace": summary_json(&trace.summary, false),
        "spans": rows,
        "services": services,
        "info": info_json(Some(&trace.info)),
    }))
}

fn row_json(row: &v1::SpanRow, trace: &TraceAnswer) -> Value {
    let empty = v1::Span::default();
    let span = row.span.as_ref().unwrap_or(&empty);
    let resource = trace.resources.get(row.resource as usize);
    let scope = trace.scopes.get(row.scope as usize);
    let events: Vec<Value> = span
        .events
        .iter()
        .map(|event| {
            json!({
                "time_ns": event.time_ns, "name": event.name,
                "attributes": attributes_json(&event.attributes),
            })
        })
        .collect();
    let links: Vec<Value> = span
        .links
        .iter()
        .map(|link| {
            json!({
                "trace_id": link.trace_id, "span_id": link.span_id,
                "attributes": attributes_json(&link.attributes),
            })
        })
        .collect();
    json!({
        "span_id": span.span_id,
        "parent_span_id": (!span.parent_span_id.is_empty()).then_some(&span.parent_span_id),
        "parent_row": row.parent_row,
        "depth": row.depth,
        "descendants": row.descendants,
        "service": row.service,
        "name": span.name,
        "kind": kind_name(span.kind()),
        "status": status_name(span.status()),
        "status_message": span.status_message,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "offset_ns": row.offset_ns,
        "duration_ns": row.duration_ns,
        "own_ns": row.own_ns,
        "trace_state": span.trace_state,
        "flags": span.flags,
        "attributes": attributes_json(&span.attributes),
        "resource": resource.map(|r| attributes_json(&r.attributes)),
        "scope": scope.map(|s| json!({
            "name": s.name, "version": s.version, "attributes": attributes_json(&s.attributes),
        })),
        "events": events,
        "links": links,
    })
}

fn kind_name(kind: v1::SpanKind) -> &'static str {
    match kind {
        v1::SpanKind::Unspecified => "unspecified",
        v1::SpanKind::Internal => "internal",
        v1::SpanKind::Server => "server",
        v1::SpanKind::Client => "client",
        v1::SpanKind::Producer => "producer",
        v1::SpanKind::Consumer => "consumer",
    }
}

fn status_name(status: v1::StatusCode) -> &'static str {
    match status {
        v1::StatusCode::Unset => "unset",
        v1::StatusCode::Ok => "ok",
        v1::StatusCode::Error => "error",
    }
}

/// By key; of a key that occurs twice the last. Bytes are an array of numbers.
fn attributes_json(attributes: &[v1::KeyValue]) -> Value {
    attributes
        .iter()
        .map(|kv| (kv.key.clone(), value_json(kv.value.as_ref())))
        .collect()
}

fn value_json(value: Option<&v1::Value>) -> Value {
    use v1::value::Value as V;
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(V::StringValue(v)) => json!(v),
        Some(V::BoolValue(v)) => json!(v),
        Some(V::IntValue(v)) => json!(v),
        Some(V::DoubleValue(v)) => json!(v),
        Some(V::BytesValue(v)) => json!(v),
        Some(V::ListValue(list)) => list.values.iter().map(|v| value_json(Some(v))).collect(),
        Some(V::MapValue(map)) => attributes_json(&map.entries),
    }
}

fn summary_json(summary: &v1::TraceSummary, matched: bool) -> Value {
    let services: Vec<Value> = summary
        .services
        .iter()
        .map(|s| json!({ "service": s.service, "spans": s.spans, "errors": s.errors }))
        .collect();
    let mut value = json!({
        "trace_id": summary.trace_id,
        "start_ns": summary.start_ns,
        "duration_ns": summary.duration_ns,
        "spans": summary.spans,
        "errors": summary.errors,
        "root_service": summary.root_service,
        "root_name": summary.root_name,
        "root_is_orphan": summary.root_is_orphan,
        "services": services,
    });
    if let (true, Some(fields)) = (matched, value.as_object_mut()) {
        fields.insert("matched_spans".to_owned(), summary.matched_spans.into());
    }
    value
}

/// A range as options that mean the same at any time.
pub(super) fn range_options(range: v1::TimeRange) -> String {
    match (range.start_ns, range.end_ns) {
        (Some(start), Some(end)) => format!("--from {} --to {}", rfc3339(start), rfc3339(end)),
        (Some(start), None) => format!("--from {}", rfc3339(start)),
        (None, Some(end)) => format!("--to {}", rfc3339(end)),
        (None, None) => "--all-time".to_owned(),
    }
}

async fn find(
    client: Client,
    request: v1::FindTracesRequest,
    range: Range,
    endpoint_option: String,
    out: Out,
) -> Result<String, Failure> {
    let answer = client.find_traces(request).await?;
    let info = answer.info.unwrap_or_default();
    if out.json {
        let traces: Vec<Value> = answer
            .traces
            .iter()
            .map(|t| summary_json(t, true))
            .collect();
        let next = (!answer.next_page_token.is_empty()).then_some(&answer.next_page_token);
        return Ok(json_text(&json!({
            "traces": traces, "next_page_token": next, "info": info_json(Some(&info)),
        })));
    }
    if answer.traces.is_empty() {
        return Ok(nothing(TRACES, &range, &info));
    }
    let mut table = Table::new(&[
        ("trace", Align::Whole),
        ("start", Align::Whole),
        ("duration", Align::Right),
        ("spans", Align::Right),
        ("matched", Align::Right),
        ("errors", Align::Right),
        ("root", Align::Left),
    ]);
    for trace in &answer.traces {
        table.row([
            trace.trace_id.clone(),
            rfc3339(trace.start_ns / 1_000_000 * 1_000_000),
            duration(trace.duration_ns as f64),
            count(trace.spans),
            count(trace.matched_spans),
            count(trace.errors),
            format!("{} {}", trace.root_service, trace.root_name),
        ]);
    }
    let mut text = table.render(out.terminal);
    let first = answer.traces.first().map_or("", |t| t.trace_id.as_str());
    let mut hint = format!("look into one: rootline query trace {first}{endpoint_option}");
    if !answer.next_page_token.is_empty() {
        // A relative range would have moved on by then.
        let range = range_options(range.message);
        let token = &answer.next_page_token;
        let _ = write!(hint, "\nnext page: the same with {range} --page {token}");
    }
    text.push_str(&out.terminal.faint(&hint));
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Terminal = Terminal {
        columns: Some(80),
        colours: false,
    };

    #[test]
    fn tags_are_conditions_on_attributes() {
        let found = |text: &str| {
            let m = tag(text).unwrap();
            (m.r#type, m.name, m.value)
        };
        let own = |n: i32, k: &str, v: &str| (n, k.to_owned(), v.to_owned());
        assert_eq!(found("http.status=500"), own(0, "http.status", "500"));
        assert_eq!(found("user!="), own(1, "user", ""));
        assert_eq!(found("path=~/cart/.*"), own(2, "path", "/cart/.*"));
        assert_eq!(found("q!~a=b"), own(3, "q", "a=b"));
        for wrong in ["", "=x", "user", "user!x", "a=~("] {
            assert!(matches!(tag(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_selector_is_a_usage_error_that_points_at_the_place() {
        let Err(Failure::Usage(text)) = selector("up{job}", true) else {
            panic!()
        };
        assert!(text.ends_with("up{job}\n      ^"), "{text}");
        assert!(matches!(selector("{}", true), Err(Failure::Usage(_))));
        assert!(selector("{}", false).is_ok());
        assert!(matches!(trace_id("12"), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_trace_is_shown_with_its_time_by_service() {
        let row =
            |service: &str, depth, offset_ns, duration_ns, own_ns, failed: bool| v1::SpanRow {
                span: Some(v1::Span {
                    name: "op".into(),
                    parent_span_id: if depth > 0 {
                        "1".repeat(16)
                    } else {
                        String::new()
                    },
                    status: if failed { 2 } else { 0 },
                    ..Default::default()
                }),
                service: service.into(),
                depth,
                parent_row: (depth > 0).then_some(0),
                offset_ns,
                duration_ns,
                own_ns,
                ..Default::default()
            };
        let trace = TraceAnswer {
            summary: v1::TraceSummary {
                trace_id: "ab".repeat(16),
                start_ns: 1_661_256_000_000_000_000,
                duration_ns: 100_000_000,
                spans: 2,
                errors: 1,
                ..Default::default()
            },
            rows: vec![
                row("shop", 0, 0, 100_000_000, 50_000_000, false),
                row("db\u{7}", 1, 50_000_000, 50_000_000, 50_000_000, true),
            ],
            services: vec![v1::ServiceTime {
                service: "shop".into(),
                spans: 1,
                errors: 0,
                own_ns: 50_000_000,
                inclusive_ns: 100_000_000,
            }],
            ..Default::default()
        };
        let text = trace_text(&trace, PIPE);
        assert!(text.starts_with(&"ab".repeat(16)), "{text}");
        assert!(
            text.contains("2022-08-23T12:00:00Z  100 ms  2 spans  1 services  1 errors"),
            "{text}"
        );
        assert!(text.contains("└─ db\\u{7} op ✗"), "{text}");
        assert!(
            text.contains("shop         1       0     50 ms     100 ms"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&trace_json(&trace)).unwrap();
        assert_eq!(json["spans"][1]["parent_row"], 0);
        assert_eq!(json["spans"][1]["status"], "error");
        assert_eq!(json["spans"][0]["parent_span_id"], Value::Null);
        assert_eq!(json["services"][0]["own_ns"], 50_000_000);
    }

    #[test]
    fn a_range_for_the_next_page_does_not_move() {
        let range = v1::TimeRange {
            start_ns: Some(1_661_256_000_000_000_001),
            end_ns: None,
        };
        assert_eq!(
            range_options(range),
            "--from 2022-08-23T12:00:00.000000001Z"
        );
    }
}
