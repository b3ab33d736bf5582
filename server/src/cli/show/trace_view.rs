//! A trace as a tree with bars on its timeline.
//!
//! ```text
//! api-gateway GET /match          350 ms   50 ms  ██████████████████████████
//! ├─ game-service load            200 ms  200 ms    ███████████████
//! └─ matchmaking find              80 ms   40 ms                   ██████
//!    └─ rating-service rate        20 ms   20 ms                    █
//! ```
//!
//! Every span has at least one mark, at its place. Rows come in depth-first preorder. Trees deeper than
//! [`DEPTH_SHOWN_MAX`] are no longer indented but numbered, so that a chain of 100,000 spans costs a line
//! each and no more.

use std::fmt::Write as _;

use super::{
    duration::duration,
    terminal::Terminal,
    text::{plain, shortened, width},
};

/// Depth from which rows are no longer indented.
const DEPTH_SHOWN_MAX: usize = 24;
/// Columns of a duration.
const DURATION_COLUMNS: usize = 8;
/// Least columns for bars.
const BAR_COLUMNS_MIN: usize = 10;
/// Least columns for the tree.
const TREE_COLUMNS_MIN: usize = 20;

/// A span, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct TraceLine {
    /// Steps to its root.
    pub(crate) depth: u64,
    /// Its service.
    pub(crate) service: String,
    /// Its name.
    pub(crate) name: String,
    /// Start after the trace's.
    pub(crate) offset_ns: u64,
    /// How long it took.
    pub(crate) duration_ns: u64,
    /// For how long no child of it ran.
    pub(crate) own_ns: u64,
    /// Whether its status is an error.
    pub(crate) error: bool,
    /// What its status says; may be empty.
    pub(crate) message: String,
    /// Whether its parent is not stored.
    pub(crate) orphan: bool,
    /// Whether it is shown as a root because its parents lead back to itself.
    pub(crate) circular: bool,
}

/// A trace, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct TraceView {
    /// In depth-first preorder.
    pub(crate) lines: Vec<TraceLine>,
    /// From the earliest start to the latest end.
    pub(crate) duration_ns: u64,
}

/// The tree as text, a line for the head and one for each span.
pub(crate) fn trace_view(view: &TraceView, terminal: Terminal) -> String {
    let columns = terminal.columns_or_default();
    let prefixes = tree_prefixes(&view.lines);
    let labels: Vec<Label> = view
        .lines
        .iter()
        .zip(prefixes)
        .map(|(l, p)| Label::of(l, p))
        .collect();
    let fixed = 2 * (DURATION_COLUMNS + 2) + 2;
    let widest = labels
        .iter()
        .map(Label::width)
        .max()
        .unwrap_or(0)
        .max(TREE_COLUMNS_MIN);
    let room = columns.saturating_sub(fixed);
    // Bars get what the tree leaves, but at least a third.
    let tree_columns = widest.min((room - room / 3).max(TREE_COLUMNS_MIN));
    let bar_columns = room.saturating_sub(tree_columns).max(BAR_COLUMNS_MIN);

    let mut out = String::new();
    let scale_end = duration(view.duration_ns as f64);
    let head = format!(
        "{:tree_columns$}  {:>DURATION_COLUMNS$}  {:>DURATION_COLUMNS$}  0{scale_end:>width$}",
        "SERVICE OPERATION",
        "DURATION",
        "OWN",
        width = bar_columns.saturating_sub(1),
    );
    out.push_str(&terminal.bold(&head));
    out.push('\n');
    for (line, label) in view.lines.iter().zip(&labels) {
        let bar = bar(line, view.duration_ns, bar_columns);
        let bar = if line.error {
            terminal.red(&bar)
        } else {
            terminal.by_key(&line.service, &bar)
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}  {:>DURATION_COLUMNS$}  {:>DURATION_COLUMNS$}  {bar}",
            label.render(line, tree_columns, terminal),
            duration(line.duration_ns as f64),
            duration(line.own_ns as f64),
        );
    }
    out
}

/// What stands left of the figures.
struct Label {
    prefix: String,
    service: String,
    name: String,
    marks: String,
}

impl Label {
    fn of(line: &TraceLine, prefix: String) -> Self {
        let mut marks = String::new();
        if line.error {
            marks.push_str(" ✗");
            if !line.message.is_empty() {
                marks.push(' ');
                marks.push_str(&plain(&line.message));
            }
        }
        if line.orphan {
            marks.push_str(" (parent not stored)");
        }
        if line.circular {
            marks.push_str(" (its parents lead back to itself)");
        }
        let service = match line.service.as_str() {
            "" => "(no service)".to_owned(),
            service => plain(service),
        };
        Self {
            prefix,
            service,
            name: plain(&line.name),
            marks,
        }
    }

    fn width(&self) -> usize {
        width(&self.prefix) + width(&self.service) + 1 + width(&self.name) + width(&self.marks)
    }

    /// Exactly `columns` columns.
    fn render(&self, line: &TraceLine, columns: usize, terminal: Terminal) -> String {
        let mut left = columns;
        let mut take = |text: &str| {
            let text = shortened(text, left);
            left -= width(&text);
            text
        };
        let prefix = take(&self.prefix);
        let service = take(&self.service);
        let name = take(&format!(" {}", self.name));
        let marks = take(&self.marks);
        let service = terminal.by_key(&line.service, &service);
        let marks = if line.error {
            terminal.red(&marks)
        } else {
            terminal.faint(&marks)
        };
        format!(
            "{}{service}{name}{marks}{}",
            terminal.faint(&prefix),
            " ".repeat(left)
        )
    }
}

/// The branches before each row. From the last row up, a bit for each depth says whether a later row
/// hangs there.
fn tree_prefixes(lines: &[TraceLine]) -> Vec<String> {
    let mut hangs = [false; DEPTH_SHOWN_MAX + 1];
    let mut prefixes = vec![String::new(); lines.len()];
    for (line, prefix) in lines.iter().zip(&mut prefixes).rev() {
        let depth = usize::try_from(line.depth).unwrap_or(usize::MAX);
        let shown = depth.min(DEPTH_SHOWN_MAX);
        if depth == 0 {
            hangs = [false; DEPTH_SHOWN_MAX + 1];
            continue;
        }
        for (level, hang) in hangs.iter().enumerate().take(shown + 1).skip(1) {
            prefix.push_str(match (level == shown, hang) {
                (true, true) => "├─ ",
                (true, false) => "└─ ",
                (false, true) => "│  ",
                (false, false) => "   ",
            });
        }
        if depth > DEPTH_SHOWN_MAX {
            let _ = write!(prefix, "[{depth}] ");
        }
        for (level, hang) in hangs.iter_mut().enumerate() {
            // What hung below this row belongs to it.
            match level.cmp(&shown) {
                std::cmp::Ordering::Equal => *hang = true,
                std::cmp::Ordering::Greater => *hang = false,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    prefixes
}

/// Blanks up to the span's start, then a mark for each column that it touches.
fn bar(line: &TraceLine, trace_ns: u64, columns: usize) -> String {
    let per_column = (trace_ns as f64 / columns as f64).max(f64::MIN_POSITIVE);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and held to the columns"
    )]
    let column = |ns: f64| ((ns / per_column).max(0.0) as usize).min(columns);
    let from = column(line.offset_ns as f64).min(columns.saturating_sub(1));
    let to = column((line.offset_ns as f64 + line.duration_ns as f64 - per_column / 2.0).max(0.0));
    let marks = if line.duration_ns as f64 * 2.0 < per_column {
        "▏".to_owned()
    } else {
        "█".repeat(to.saturating_sub(from) + usize::from(to < columns))
    };
    let mut bar = " ".repeat(from);
    bar.push_str(&marks);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Terminal = Terminal {
        columns: Some(80),
        colours: false,
    };

    fn line(depth: u64, service: &str, offset: u64, duration: u64, own: u64) -> TraceLine {
        TraceLine {
            depth,
            service: service.to_owned(),
            name: "op".to_owned(),
            offset_ns: offset * 1_000_000,
            duration_ns: duration * 1_000_000,
            own_ns: own * 1_000_000,
            error: false,
            message: String::new(),
            orphan: false,
            circular: false,
        }
    }

    fn request() -> TraceView {
        TraceView {
            lines: vec![
                line(0, "api-gateway", 0, 350, 50),
                line(1, "game-service", 20, 200, 200),
                line(1, "matchmaking", 230, 80, 40),
                line(2, "rating-service", 240, 20, 20),
                line(2, "postgres", 270, 20, 20),
                line(1, "notification", 320, 20, 20),
            ],
            duration_ns: 350_000_000,
        }
    }

    #[test]
    fn a_trace_is_a_tree_with_bars() {
        let text = trace_view(&request(), PIPE);
        let expected = "\
SERVICE OPERATION        DURATION       OWN  0                            350 ms
api-gateway op             350 ms     50 ms  ███████████████████████████████████
├─ game-service op         200 ms    200 ms    ████████████████████
├─ matchmaking op           80 ms     40 ms                         ████████
│  ├─ rating-service op     20 ms     20 ms                          ██
│  └─ postgres op           20 ms     20 ms                             ██
└─ notification op          20 ms     20 ms                                  ██
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn every_line_fits_the_terminal() {
        for columns in [40, 60, 80, 200] {
            let terminal = Terminal {
                columns: Some(columns),
                colours: false,
            };
            for text in trace_view(&request(), terminal).lines() {
                assert!(
                    width(text) <= columns.max(52),
                    "{columns}: {} {text}",
                    width(text)
                );
            }
        }
    }

    #[test]
    fn errors_orphans_and_hostile_names_are_shown_safely() {
        let mut view = request();
        view.lines[5].error = true;
        view.lines[5].message = "no\x1b[2J route".to_owned();
        view.lines[5].orphan = true;
        view.lines[0].circular = true;
        let text = trace_view(
            &view,
            Terminal {
                columns: Some(160),
                colours: false,
            },
        );
        assert!(
            text.contains("notification op ✗ no\\u{1b}[2J route (parent not stored)"),
            "{text}"
        );
        assert!(text.contains("(its parents lead back to itself)"), "{text}");
        let coloured = trace_view(
            &view,
            Terminal {
                columns: Some(160),
                colours: true,
            },
        );
        assert!(coloured.contains("\x1b[31m") && !coloured.contains("\x1b[2J"));
    }

    #[test]
    fn a_very_deep_tree_stays_narrow() {
        let lines = (0..1_000).map(|depth| line(depth, "a", 0, 1, 0)).collect();
        let text = trace_view(
            &TraceView {
                lines,
                duration_ns: 1_000_000,
            },
            PIPE,
        );
        assert_eq!(text.lines().count(), 1_001);
        assert!(text.lines().all(|l| width(l) <= 80), "{text}");
    }

    #[test]
    fn a_trace_without_duration_has_marks() {
        let view = TraceView {
            lines: vec![line(0, "a", 0, 0, 0)],
            duration_ns: 0,
        };
        assert!(trace_view(&view, PIPE).contains('▏'));
    }
}
