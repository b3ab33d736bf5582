//! The figures of an edge: of its durations one by one, or of their histogram.

use rootline_engine::Edge;

use crate::statistics::Statistics;

/// Figures over an edge's durations, in ns; `None` if it has no call. `exact`: it has them one by one.
pub(super) fn of(edge: &Edge, exact: bool) -> Option<Statistics> {
    if exact {
        let mut durations: Vec<f64> = edge.durations_ns.iter().map(|&ns| ns as f64).collect();
        return Statistics::of(&mut durations);
    }
    let count = edge.sums.calls();
    let sum = edge.sums.duration_sum_ns() as f64;
    let sketch = edge.sums.durations();
    let [p50, p95, p99] = sketch.quantiles([0.5, 0.95, 0.99])?;
    let (mut min, mut max, mut squares) = (f64::INFINITY, 0.0f64, 0.0);
    let mean = sum / count as f64;
    for (duration_ns, n) in sketch.durations() {
        min = min.min(duration_ns);
        max = max.max(duration_ns);
        squares += (duration_ns - mean).powi(2) * n as f64;
    }
    Some(Statistics {
        count,
        sum,
        min,
        max,
        mean,
        stddev: (squares / count as f64).sqrt(),
        p50,
        p95,
        p99,
    })
}
