//! `rootline query dependencies` and `rootline query compare-dependencies`.

use clap::{Args, ValueEnum};
use rootline_engine::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{
    ask::{Failure, Range, RangeArgs, Sought, duration_arg, info_json, json_text, nothing},
    query::Out,
    show::{Align, Table, count, duration, parse_moment},
};
use crate::client::{Client, v1};

const CALLS: Sought = Sought {
    what: "calls between services",
    elsewhere: "the node has spans",
    overview: "rootline query stats --spans --by operation --all-time",
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// A span whose parent belongs to another service
    Call,
    /// A database that reports no spans of its own
    Database,
    /// A message broker
    Messaging,
    /// Anything else that is called and reports no spans
    External,
    /// A link to a span of another service
    Link,
    /// All of them
    All,
}

/// Which edges.
#[derive(Debug, Args)]
struct EdgeArgs {
    /// Only calls by this service
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    caller: String,
    /// Only calls of this service or peer
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    callee: String,
    /// Kinds of edges
    #[arg(
        long = "kind",
        value_enum,
        value_delimiter = ',',
        default_value = "call"
    )]
    kinds: Vec<KindArg>,
    /// Quantiles are exact for up to so many calls, beyond within 1 %
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    exact_max: u64,
}

impl EdgeArgs {
    fn kinds(&self) -> Vec<i32> {
        use v1::DependencyKind as Kind;
        let all = [
            (KindArg::Call, Kind::Call),
            (KindArg::Database, Kind::Database),
            (KindArg::Messaging, Kind::Messaging),
            (KindArg::External, Kind::External),
            (KindArg::Link, Kind::Link),
        ];
        let wanted = |kind| self.kinds.contains(&KindArg::All) || self.kinds.contains(&kind);
        let wanted = all.into_iter().filter(|(kind, _)| wanted(*kind));
        wanted.map(|(_, kind)| i32::from(kind)).collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct DependenciesArgs {
    #[command(flatten)]
    edges: EdgeArgs,
    /// The graph as it was in this past minute, instead of a range
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["from", "to", "since", "all_time"])]
    as_of: Option<String>,
    /// How far --as-of looks back
    #[arg(long, value_name = "DURATION", requires = "as_of", default_value = "1h", value_parser = duration_arg)]
    look_back: std::time::Duration,
    #[command(flatten)]
    range: RangeArgs,
}

impl DependenciesArgs {
    pub(super) fn request(&self) -> Result<(v1::GetDependenciesRequest, Range), Failure> {
        let mut request = v1::GetDependenciesRequest {
            caller: self.edges.caller.clone(),
            callee: self.edges.callee.clone(),
            kinds: self.edges.kinds(),
            exact_spans_max: self.edges.exact_max,
            ..Default::default()
        };
        let range = if let Some(moment) = &self.as_of {
            let now_ns = SystemClock::new().wall_ns();
            let as_of_ns = parse_moment(moment, now_ns)
                .map_err(|error| Failure::Usage(format!("--as-of: {error}")))?;
            request.as_of_ns = Some(as_of_ns);
            request.lookback_ns = u64::try_from(self.look_back.as_nanos()).unwrap_or(u64::MAX);
            Range {
                message: v1::TimeRange::default(),
                words: format!("as of {moment}"),
            }
        } else {
            let range = self.range.range()?;
            request.range = Some(range.message);
            range
        };
        Ok((request, range))
    }
}

fn kind_word(kind: i32) -> &'static str {
    match v1::DependencyKind::try_from(kind) {
        Ok(v1::DependencyKind::Call) => "call",
        Ok(v1::DependencyKind::Database) => "database",
        Ok(v1::DependencyKind::Messaging) => "messaging",
        Ok(v1::DependencyKind::External) => "external",
        Ok(v1::DependencyKind::Link) => "link",
        Err(_) => "other",
    }
}

pub(super) async fn dependencies(
    client: Client,
    request: v1::GetDependenciesRequest,
    range: Range,
    out: Out,
) -> Result<String, Failure> {
    let has_kinds = request.kinds != [i32::from(v1::DependencyKind::Call)];
    let answer = client.dependencies(request).await?;
    let info = answer.info.clone().unwrap_or_default();
    if out.json {
        let edges: Vec<Value> = answer
            .dependencies
            .iter()
            .map(|edge| {
                json!({
                    "caller": edge.caller, "callee": edge.callee, "kind": kind_word(edge.kind),
                    "peer_system": edge.peer_system, "calls": edge.calls,
                    "errors": edge.errors, "mean_ns": edge.mean_ns, "p50_ns": edge.p50_ns,
                    "p95_ns": edge.p95_ns, "p99_ns": edge.p99_ns,
                    "quantiles_exact": edge.quantiles_exact,
                })
            })
            .collect();
        return Ok(json_text(&json!({
            "dependencies": edges, "unresolved_links": answer.unresolved_links,
            "info": info_json(Some(&info)),
        })));
    }
    if answer.dependencies.is_empty() {
        return Ok(nothing(CALLS, &range, &info));
    }
    let mut columns = vec![("caller", Align::Left), ("callee", Align::Left)];
    if has_kinds {
        columns.extend([("kind", Align::Left), ("system", Align::Left)]);
    }
    columns.extend([
        ("calls", Align::Right),
        ("errors", Align::Right),
        ("error %", Align::Right),
        ("mean", Align::Right),
        ("p50", Align::Right),
        ("p95", Align::Right),
        ("p99", Align::Right),
    ]);
    let mut table = Table::new(&columns);
    let is_exact = answer.dependencies.iter().all(|edge| edge.quantiles_exact);
    for edge in answer.dependencies {
        let share = edge.errors as f64 * 100.0 / edge.calls.max(1) as f64;
        let mut cells = vec![edge.caller, edge.callee];
        if has_kinds {
            cells.extend([kind_word(edge.kind).to_owned(), edge.peer_system]);
        }
        cells.extend([
            count(edge.calls),
            count(edge.errors),
            format!("{share:.2}"),
            duration(edge.mean_ns),
            duration(edge.p50_ns),
            duration(edge.p95_ns),
            duration(edge.p99_ns),
        ]);
        table.row(cells);
    }
    let mut text = table.render(out.terminal);
    let mut hint = |line: &str| {
        text.push_str(&out.terminal.faint(line));
        text.push('\n');
    };
    if !is_exact {
        hint("p50, p95 and p99 are within 1 %; --exact-max N has them read from so many spans");
    }
    if answer.unresolved_links > 0 {
        let links = count(answer.unresolved_links);
        hint(&format!("{links} links to spans that are not stored"));
    }
    Ok(text)
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    edges: EdgeArgs,
    /// Start of the earlier range
    #[arg(long, value_name = "MOMENT")]
    before_from: String,
    /// End of the earlier range, included
    #[arg(long, value_name = "MOMENT")]
    before_to: String,
    /// Start of the later range
    #[arg(long, value_name = "MOMENT")]
    from: String,
    /// End of the later range, included
    #[arg(long, value_name = "MOMENT", default_value = "now")]
    to: String,
}

impl CompareArgs {
    pub(super) fn request(&self) -> Result<v1::CompareDependenciesRequest, Failure> {
        let now_ns = SystemClock::new().wall_ns();
        let moment = |option: &str, text: &str| {
            parse_moment(text, now_ns).map_err(|error| Failure::Usage(format!("{option}: {error}")))
        };
        let range = |start_ns, end_ns| {
            Some(v1::TimeRange {
                start_ns: Some(start_ns),
                end_ns: Some(end_ns),
            })
        };
        Ok(v1::CompareDependenciesRequest {
            before: range(
                moment("--before-from", &self.before_from)?,
                moment("--before-to", &self.before_to)?,
            ),
            after: range(moment("--from", &self.from)?, moment("--to", &self.to)?),
            caller: self.edges.caller.clone(),
            callee: self.edges.callee.clone(),
            kinds: self.edges.kinds(),
            exact_spans_max: self.edges.exact_max,
            ..Default::default()
        })
    }
}

fn figures_json(figures: Option<&v1::EdgeFigures>) -> Value {
    figures.map_or(Value::Null, |f| {
        json!({
            "calls": f.calls, "calls_per_s": f.calls_per_s, "errors": f.errors,
            "error_rate": f.error_rate, "mean_ns": f.mean_ns, "p95_ns": f.p95_ns,
            "quantiles_exact": f.quantiles_exact,
        })
    })
}

pub(super) async fn compare(
    client: Client,
    request: v1::CompareDependenciesRequest,
    out: Out,
) -> Result<String, Failure> {
    let answer = client.compare_dependencies(request).await?;
    let lists = [
        ("added", &answer.added),
        ("gone", &answer.gone),
        ("changed", &answer.changed),
    ];
    if out.json {
        let list = |changes: &[v1::DependencyChange]| -> Value {
            let changes = changes.iter().map(|c| {
                json!({
                    "caller": c.caller, "callee": c.callee, "kind": kind_word(c.kind),
                    "peer_system": c.peer_system,
                    "before": figures_json(c.before.as_ref()),
                    "after": figures_json(c.after.as_ref()),
                })
            });
            changes.collect()
        };
        return Ok(json_text(&json!({
            "added": list(&answer.added), "gone": list(&answer.gone),
            "changed": list(&answer.changed), "unchanged": answer.unchanged,
            "info": info_json(answer.info.as_ref()),
        })));
    }
    let mut table = Table::new(&[
        ("", Align::Left),
        ("caller", Align::Left),
        ("callee", Align::Left),
        ("calls/s", Align::Right),
        ("then", Align::Right),
        ("error %", Align::Right),
        ("then", Align::Right),
        ("p95", Align::Right),
        ("then", Align::Right),
    ]);
    for (word, changes) in lists {
        for change in changes {
            let cell = |show: &dyn Fn(&v1::EdgeFigures) -> String| {
                let side = |f: Option<&v1::EdgeFigures>| f.map_or_else(|| "-".to_owned(), show);
                [side(change.before.as_ref()), side(change.after.as_ref())]
            };
            let figures = [
                cell(&|f| format!("{:.3}", f.calls_per_s)),
                cell(&|f| format!("{:.2}", f.error_rate * 100.0)),
                cell(&|f| duration(f.p95_ns)),
            ];
            let names = [
                word.to_owned(),
                change.caller.clone(),
                change.callee.clone(),
            ];
            table.row(names.into_iter().chain(figures.into_iter().flatten()));
        }
    }
    let unchanged = count(answer.unchanged);
    if lists.iter().all(|(_, changes)| changes.is_empty()) {
        return Ok(format!("no edge differs; {unchanged} are much the same\n"));
    }
    let mut text = table.render(out.terminal);
    let hint = format!("{unchanged} further edges are much the same");
    text.push_str(&out.terminal.faint(&hint));
    text.push('\n');
    Ok(text)
}
