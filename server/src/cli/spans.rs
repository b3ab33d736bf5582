//! `rootline query spans|aggregate|services|operations|tags`: sets of spans, and what there is to search
//! for.

use clap::{Args, ValueEnum};
use rootline_query::SpanSet;
use serde_json::{Value, json};

use super::{
    ask::{Failure, Range, RangeArgs, Sought, duration_arg, info_json, json_text, nothing},
    query::Out,
    show::{Align, Table, count, duration, plain, rfc3339},
};
use crate::client::{Client, v1};

const OVERVIEW: &str = "rootline query stats --spans --by operation --all-time";
const SPANS: Sought = Sought {
    what: "such spans",
    elsewhere: "the node has some",
    overview: OVERVIEW,
};

/// A set of spans as it goes to the node, or where it is wrong.
pub(super) fn span_set(text: &str) -> Result<String, Failure> {
    match SpanSet::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(rootline_query::Error::SpanSet(error)) => Err(Failure::Usage(format!(
            "{}\n\n{}",
            plain(&error.to_string()),
            error.pointer()
        ))),
        Err(error) => Err(Failure::Usage(plain(&error.to_string()))),
    }
}

#[derive(Debug, Args)]
pub(super) struct SpansArgs {
    /// Which spans, such as '{service="cart" status=error} with ancestor {service="shop"}'
    #[arg(value_name = "SET", default_value = "{}", hide_default_value = true)]
    set: String,
    /// Most spans to show; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
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

impl SpansArgs {
    pub(super) fn request(&self) -> Result<(v1::FindSpansRequest, Range), Failure> {
        let range = self.range.range()?;
        let request = v1::FindSpansRequest {
            span_set: span_set(&self.set)?,
            range: Some(range.message),
            limit: self.limit,
            page_token: self.page.clone(),
        };
        Ok((request, range))
    }
}

pub(super) async fn spans(
    client: Client,
    request: v1::FindSpansRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let answer = client.find_spans(request).await?;
    let info = answer.info.clone().unwrap_or_default();
    let next = (!answer.next_page_token.is_empty()).then_some(&answer.next_page_token);
    if out.json {
        let spans: Vec<Value> = answer
            .spans
            .iter()
            .map(|span| {
                json!({
                    "trace_id": span.trace_id, "span_id": span.span_id,
                    "parent_span_id": span.parent_span_id, "service": span.service,
                    "name": span.name, "kind": kind_word(span.kind),
                    "status": status_word(span.status), "start_ns": span.start_ns,
                    "duration_ns": span.duration_ns, "parent_service": span.parent_service,
                })
            })
            .collect();
        return Ok(json_text(&json!({
            "spans": spans, "next_page_token": next, "info": info_json(Some(&info)),
        })));
    }
    if answer.spans.is_empty() {
        return Ok(nothing(SPANS, &range, &info));
    }
    let mut table = Table::new(&[
        ("trace", Align::Whole),
        ("span", Align::Whole),
        ("start", Align::Whole),
        ("duration", Align::Right),
        ("status", Align::Left),
        ("service", Align::Left),
        ("name", Align::Left),
    ]);
    for span in &answer.spans {
        table.row([
            span.trace_id.clone(),
            span.span_id.clone(),
            rfc3339(span.start_ns / 1_000_000 * 1_000_000),
            duration(span.duration_ns as f64),
            status_word(span.status).to_owned(),
            span.service.clone(),
            span.name.clone(),
        ]);
    }
    let mut text = table.render(out.terminal);
    if let Some(token) = next {
        let range = super::query::range_options(range.message);
        let hint = format!("next page: the same with {range} --page {token}");
        text.push_str(&out.terminal.faint(&hint));
        text.push('\n');
    }
    Ok(text)
}

pub(super) fn kind_word(kind: i32) -> &'static str {
    match v1::SpanKind::try_from(kind) {
        Ok(v1::SpanKind::Internal) => "internal",
        Ok(v1::SpanKind::Server) => "server",
        Ok(v1::SpanKind::Client) => "client",
        Ok(v1::SpanKind::Producer) => "producer",
        Ok(v1::SpanKind::Consumer) => "consumer",
        _ => "unspecified",
    }
}

pub(super) fn status_word(status: i32) -> &'static str {
    match v1::StatusCode::try_from(status) {
        Ok(v1::StatusCode::Ok) => "ok",
        Ok(v1::StatusCode::Error) => "error",
        _ => "unset",
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OfArg {
    /// From start to end
    Duration,
    /// The part during which no child ran
    Own,
    /// Spans and errors alone
    Nothing,
}

#[derive(Debug, Args)]
pub(super) struct AggregateArgs {
    /// Which spans, such as '{service="cart" kind=server}'
    #[arg(value_name = "SET", default_value = "{}", hide_default_value = true)]
    set: String,
    /// What the figures are of
    #[arg(long, value_enum, default_value_t = OfArg::Duration)]
    of: OfArg,
    /// Group by service, operation, kind, status or attributes (http.route, resource.host.name)
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    by: Vec<String>,
    /// In steps of so long
    #[arg(long, value_name = "DURATION", value_parser = duration_arg)]
    step: Option<std::time::Duration>,
    /// Further quantiles, 0 to 1
    #[arg(long, value_name = "Q", value_delimiter = ',')]
    quantiles: Vec<f64>,
    /// Most groups
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    groups_max: u32,
    #[command(flatten)]
    range: RangeArgs,
}

impl AggregateArgs {
    pub(super) fn request(&self) -> Result<(v1::AggregateSpansRequest, Range), Failure> {
        use v1::aggregate_spans_request::Of;
        let range = self.range.range()?;
        let step_ns = self.step.map(|step| u64::try_from(step.as_nanos()));
        let request = v1::AggregateSpansRequest {
            span_set: span_set(&self.set)?,
            range: Some(range.message),
            of: i32::from(match self.of {
                OfArg::Duration => Of::Duration,
                OfArg::Own => Of::OwnTime,
                OfArg::Nothing => Of::Nothing,
            }),
            by: self.by.clone(),
            step_ns: step_ns.map_or(0, |ns| ns.unwrap_or(u64::MAX)),
            quantiles: self.quantiles.clone(),
            groups_max: self.groups_max,
        };
        Ok((request, range))
    }
}

pub(super) async fn aggregate(
    client: Client,
    request: v1::AggregateSpansRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let (by, quantiles) = (request.by.clone(), request.quantiles.clone());
    let answer = client.aggregate_spans(request).await?;
    let info = answer.info.clone().unwrap_or_default();
    if out.json {
        let groups: Vec<Value> = answer
            .groups
            .iter()
            .map(|group| {
                let named = by.iter().cloned().zip(group.by.iter());
                let by: serde_json::Map<String, Value> = named
                    .map(|(key, value)| (key, Value::from(value.clone())))
                    .collect();
                let figures = group.figures_ns.map(|f| {
                    json!({
                        "sum": f.sum, "min": f.min, "max": f.max, "mean": f.mean,
                        "p50": f.p50, "p95": f.p95, "p99": f.p99,
                    })
                });
                json!({
                    "by": by, "step_start_ns": group.step_start_ns, "spans": group.spans,
                    "errors": group.errors, "spans_per_s": group.spans_per_s,
                    "figures_ns": figures, "quantiles_ns": group.quantiles_ns,
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
    let has_steps = answer.groups.iter().any(|g| g.step_start_ns.is_some());
    let has_figures = answer.groups.iter().any(|g| g.figures_ns.is_some());
    let names: Vec<String> = quantiles.iter().map(|q| format!("q{q}")).collect();
    let mut columns: Vec<(&str, Align)> =
        by.iter().map(|key| (key.as_str(), Align::Left)).collect();
    if has_steps {
        columns.push(("from", Align::Whole));
    }
    let counts = ["spans", "errors", "spans/s"];
    columns.extend(counts.map(|name| (name, Align::Right)));
    if has_figures {
        let figures = ["min", "mean", "p50", "p95", "p99", "max", "sum"];
        columns.extend(figures.map(|name| (name, Align::Right)));
        columns.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
    }
    let mut table = Table::new(&columns);
    for group in answer.groups {
        let mut cells = group.by;
        if has_steps {
            cells.push(rfc3339(group.step_start_ns.unwrap_or_default()));
        }
        cells.push(count(group.spans));
        cells.push(count(group.errors));
        let rate = group.spans_per_s.map(|rate| format!("{rate:.3}"));
        cells.push(rate.unwrap_or_else(|| "-".to_owned()));
        if let Some(f) = group.figures_ns {
            for figure in [f.min, f.mean, f.p50, f.p95, f.p99, f.max, f.sum] {
                cells.push(figure.map_or_else(|| "-".to_owned(), duration));
            }
            cells.extend(group.quantiles_ns.into_iter().map(duration));
        }
        table.row(cells);
    }
    Ok(table.render(out.terminal))
}

#[derive(Debug, Args)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    pub(super) range: RangeArgs,
}

pub(super) async fn services(client: Client, range: Range, out: Out) -> Result<String, Failure> {
    let request = v1::ListServicesRequest {
        range: Some(range.message),
    };
    let answer = client.list_services(request).await?;
    let info = answer.info.unwrap_or_default();
    Ok(names("services", &answer.services, &range, &info, out))
}

#[derive(Debug, Args)]
pub(super) struct OperationsArgs {
    /// Of this service; of all if not given
    #[arg(default_value = "", hide_default_value = true)]
    service: String,
    #[command(flatten)]
    pub(super) range: RangeArgs,
}

pub(super) async fn operations(
    client: Client,
    args: OperationsArgs,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let request = v1::ListOperationsRequest {
        service: args.service,
        range: Some(range.message),
    };
    let answer = client.list_operations(request).await?;
    let info = answer.info.unwrap_or_default();
    Ok(names("operations", &answer.operations, &range, &info, out))
}

fn names(what: &str, names: &[String], range: &Range, info: &v1::AnswerInfo, out: Out) -> String {
    if out.json {
        return json_text(&json!({ what: names, "info": info_json(Some(info)) }));
    }
    if names.is_empty() {
        return nothing(SPANS, range, info);
    }
    names.iter().fold(String::new(), |mut text, name| {
        text.push_str(&plain(name));
        text.push('\n');
        text
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    /// Anywhere; of values: on the span, or else on its resource
    Any,
    /// On the span
    Span,
    /// On its resource
    Resource,
    /// On one of its events
    Event,
    /// On one of its links
    Link,
    /// On its instrumentation scope
    Scope,
}

impl ScopeArg {
    fn number(self) -> i32 {
        i32::from(match self {
            Self::Any => v1::TagScope::Any,
            Self::Span => v1::TagScope::Span,
            Self::Resource => v1::TagScope::Resource,
            Self::Event => v1::TagScope::Event,
            Self::Link => v1::TagScope::Link,
            Self::Scope => v1::TagScope::Scope,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct TagsArgs {
    /// The attribute whose values to list; without it, attribute keys are listed
    key: Option<String>,
    /// Where attributes stand
    #[arg(long, value_enum, default_value_t = ScopeArg::Any)]
    scope: ScopeArg,
    /// Only keys or values that begin with this
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// At most so many, the first in order
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
}

pub(super) async fn tags(client: Client, args: TagsArgs, out: Out) -> Result<String, Failure> {
    let range = Range {
        message: v1::TimeRange::default(),
        words: "at any time".to_owned(),
    };
    let (columns, rows, what, info): (Vec<_>, Vec<[String; 4]>, _, _) = if let Some(key) = args.key
    {
        let request = v1::ListTagValuesRequest {
            key,
            prefix: args.prefix,
            limit: args.limit,
            scope: args.scope.number(),
        };
        let (values, info) = client.list_tag_values(request).await?;
        let rows = values.into_iter().map(|value| {
            let kind = type_word(value.r#type).to_owned();
            [value.text, kind, value.spans.to_string(), String::new()]
        });
        (
            vec!["value", "type", "spans"],
            rows.collect(),
            "values",
            info,
        )
    } else {
        let request = v1::ListTagsRequest {
            prefix: args.prefix,
            limit: args.limit,
            scope: args.scope.number(),
        };
        let answer = client.list_tags(request).await?;
        let rows = answer.tags.into_iter().map(|tag| {
            let types: Vec<&str> = tag.types.iter().map(|t| type_word(*t)).collect();
            let scope = scope_word(tag.scope).to_owned();
            [tag.key, types.join(","), tag.spans.to_string(), scope]
        });
        let columns = vec!["key", "types", "spans", "scope"];
        (
            columns,
            rows.collect(),
            "tags",
            answer.info.unwrap_or_default(),
        )
    };
    if out.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                let cells = columns.iter().zip(row).map(|(column, cell)| {
                    let value = match *column {
                        "spans" => cell.parse::<u64>().map_or(Value::Null, Value::from),
                        "types" => cell.split(',').map(Value::from).collect(),
                        _ => Value::from(cell.clone()),
                    };
                    ((*column).to_owned(), value)
                });
                Value::Object(cells.collect())
            })
            .collect();
        return Ok(json_text(
            &json!({ what: rows, "info": info_json(Some(&info)) }),
        ));
    }
    if rows.is_empty() {
        return Ok(nothing(SPANS, &range, &info));
    }
    let aligned: Vec<(&str, Align)> = columns
        .iter()
        .map(|column| {
            let align = if *column == "spans" {
                Align::Right
            } else {
                Align::Left
            };
            (*column, align)
        })
        .collect();
    let mut table = Table::new(&aligned);
    for row in rows {
        table.row(row.into_iter().take(columns.len()));
    }
    let mut text = table.render(out.terminal);
    if info.truncated {
        let hint = "there are more: --limit N, --prefix TEXT";
        text.push_str(&out.terminal.faint(hint));
        text.push('\n');
    }
    Ok(text)
}

fn type_word(kind: i32) -> &'static str {
    match v1::TagType::try_from(kind) {
        Ok(v1::TagType::String) => "string",
        Ok(v1::TagType::Int) => "int",
        Ok(v1::TagType::Double) => "double",
        Ok(v1::TagType::Bool) => "bool",
        _ => "other",
    }
}

fn scope_word(scope: i32) -> &'static str {
    match v1::TagScope::try_from(scope) {
        Ok(v1::TagScope::Span) => "span",
        Ok(v1::TagScope::Resource) => "resource",
        Ok(v1::TagScope::Event) => "event",
        Ok(v1::TagScope::Link) => "link",
        Ok(v1::TagScope::Scope) => "scope",
        _ => "any",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_set_is_a_usage_error_that_points_at_the_place() {
        let Err(Failure::Usage(text)) = span_set("{service=}") else {
            panic!()
        };
        assert!(text.contains('^'), "{text}");
        assert!(span_set("{service=\"a\"} with child {status=error}").is_ok());
    }
}
