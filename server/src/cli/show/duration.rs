//! Durations: `350 ms` for people, `1h30m` from people.

/// A duration with three significant digits and the unit that fits.
pub(crate) fn duration(ns: f64) -> String {
    if !ns.is_finite() {
        return ns.to_string();
    }
    let (size, sign) = (ns.abs(), if ns < 0.0 { "-" } else { "" });
    if size >= 3.6e12 {
        return clock(sign, size / 1e9, 3600.0, "h", "m");
    }
    // A minute on: two units say more than decimals.
    if size >= 119.95e9 {
        return clock(sign, size / 1e9, 60.0, "m", "s");
    }
    // A value that would round up to 1000 of its unit takes the next one.
    let (value, unit) = match size {
        s if s >= 999.5e6 => (s / 1e9, "s"),
        s if s >= 999.5e3 => (s / 1e6, "ms"),
        s if s >= 999.5 => (s / 1e3, "µs"),
        s => (s, "ns"),
    };
    let decimals = match value {
        v if unit == "ns" && v.fract() == 0.0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text.as_str()
    };
    format!("{sign}{text} {unit}")
}

fn clock(sign: &str, seconds: f64, large: f64, large_unit: &str, small_unit: &str) -> String {
    let small = large / 60.0;
    let units = (seconds / small).round();
    let whole = (units / 60.0).floor();
    format!(
        "{sign}{whole:.0}{large_unit}{:02.0}{small_unit}",
        units - whole * 60.0
    )
}

/// Nanoseconds of `10m`, `1h30m`, `250ms`, `1.5s`, `2d`; a unit is needed.
pub(crate) fn parse_duration_ns(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (value, tail) = rest.split_at_checked(digits)?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let unit_ns = match unit.trim() {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            "w" => 604_800e9,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * unit_ns;
        rest = tail;
    }
    // Up to the range of a timestamp.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    (total.is_finite() && (0.0..9.2e18).contains(&total)).then_some(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_fits() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (17.0, "17 ns"),
            (999.0, "999 ns"),
            (999.6, "1 µs"),
            (1_234.0, "1.23 µs"),
            (350e6, "350 ms"),
            (999.6e6, "1 s"),
            (12.34e9, "12.3 s"),
            (119.9e9, "120 s"),
            (125e9, "2m05s"),
            (3599.9e9, "60m00s"),
            (3.6e12, "1h00m"),
            (93_784e9, "26h03m"),
            (-2e6, "-2 ms"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn people_write_durations_with_units() {
        assert_eq!(parse_duration_ns("10m"), Some(600_000_000_000));
        assert_eq!(parse_duration_ns("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration_ns(" 1.5 s "), Some(1_500_000_000));
        assert_eq!(parse_duration_ns("250us"), Some(250_000));
        for wrong in ["", "10", "m", "1x", "-5s", "1h-3m", "1e400s", "999999999w"] {
            assert_eq!(parse_duration_ns(wrong), None, "{wrong}");
        }
    }
}
