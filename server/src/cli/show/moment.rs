//! Moments: RFC 3339 in UTC for people, several forms from people.

use super::duration::parse_duration_ns;

const NS_PER_S: i64 = 1_000_000_000;
const S_PER_DAY: i64 = 86_400;

/// Why a moment does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a moment: give RFC 3339 (2022-08-23T12:00:00Z, also without seconds or zone, then in \
     UTC), seconds, milliseconds, microseconds or nanoseconds since 1970, an age such as 10m, or now"
)]
pub(crate) struct MomentError {
    text: String,
}

/// Nanoseconds since the epoch of what people write:
/// - `2022-08-23T12:00:00.5Z`, with an offset (`+02:00`), with a blank instead of `T`, without seconds,
///   or only the day; without a zone it is UTC;
/// - a number since the epoch, whose unit follows from its size: below 1e11 seconds (to the year 5138),
///   below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds;
/// - `10m`, `1h30m`: so long before `now_ns`;
/// - `now`.
pub(crate) fn parse_moment(text: &str, now_ns: i64) -> Result<i64, MomentError> {
    let trimmed = text.trim();
    let parsed = if trimmed == "now" {
        Some(now_ns)
    } else if let Some(age) = parse_duration_ns(trimmed.strip_prefix('-').unwrap_or(trimmed)) {
        i64::try_from(age)
            .ok()
            .map(|age| now_ns.saturating_sub(age))
    } else {
        parse_epoch(trimmed).or_else(|| parse_rfc3339(trimmed))
    };
    parsed.ok_or_else(|| MomentError {
        text: text.to_owned(),
    })
}

fn parse_epoch(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || unsigned.ends_with('.') {
        return None;
    }
    let number: i128 = whole.parse().ok()?;
    let unit_ns: i128 = match number {
        n if n < 100_000_000_000 => 1_000_000_000,
        n if n < 100_000_000_000_000 => 1_000_000,
        n if n < 100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let mut ns = number.checked_mul(unit_ns)?;
    let mut place_ns = unit_ns / 10;
    for digit in fraction.chars() {
        ns += i128::from(digit.to_digit(10)?) * place_ns;
        place_ns /= 10;
    }
    i64::try_from(if text.starts_with('-') { -ns } else { ns }).ok()
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time_of_day) = match text.get(10..)? {
        "" => (text, "00:00"),
        rest => (text.get(..10)?, rest.strip_prefix(['T', 't', ' '])?),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let last = days_in_month(year, month)?;
    if day == 0 || day > last {
        return None;
    }
    let (time, offset_s) = split_zone(time_of_day)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = match clock.len() {
        5 => {
            let [hour, minute] = numbers(clock, ':', [2, 2])?;
            [hour, minute, 0]
        }
        _ => numbers(clock, ':', [2, 2, 2])?,
    };
    if hour > 23 || minute > 59 || second > 60 || time.ends_with('.') || fraction.len() > 18 {
        return None;
    }
    let mut ns = 0;
    let mut place_ns = NS_PER_S / 10;
    for digit in fraction.chars() {
        ns += i64::from(digit.to_digit(10)?) * place_ns;
        place_ns /= 10;
    }
    let seconds =
        days_from_civil(year, month, day) * S_PER_DAY + hour * 3600 + minute * 60 + second
            - offset_s;
    seconds.checked_mul(NS_PER_S)?.checked_add(ns)
}

/// Time and offset in seconds of `12:00:00Z`, `12:00:00+02:00`, `12:00:00`.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let (time, zone) = text.split_at_checked(at)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some((time, sign * (hours * 3600 + minutes * 60)))
}

/// Numbers of exactly these many digits, divided by `separator`.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for (place, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days since 1970-01-01 of a day of the Gregorian calendar. Years are counted from March, so that the
/// leap day is the last of its year; 146,097 days make 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

struct Civil {
    date: String,
    /// `12:00:00`
    clock: String,
    /// `.123456789`, without trailing zeros; empty for a whole second.
    fraction: String,
}

fn civil(ns: i64) -> Civil {
    let seconds = ns.div_euclid(NS_PER_S);
    let (year, month, day) = civil_from_days(seconds.div_euclid(S_PER_DAY));
    let in_day = seconds.rem_euclid(S_PER_DAY);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let fraction = match ns.rem_euclid(NS_PER_S) {
        0 => String::new(),
        ns => format!(".{ns:09}").trim_end_matches('0').to_owned(),
    };
    Civil {
        date: format!("{year:04}-{month:02}-{day:02}"),
        clock: format!("{hour:02}:{minute:02}:{second:02}"),
        fraction,
    }
}

/// `2022-08-23T12:00:00.5Z`.
pub(crate) fn rfc3339(ns: i64) -> String {
    let Civil {
        date,
        clock,
        fraction,
    } = civil(ns);
    format!("{date}T{clock}{fraction}Z")
}

/// Where data lie, in short: `2022-08-23 12:00..17:10`, with dates on both ends where they differ and
/// seconds where minutes do not tell the ends apart. UTC.
pub(crate) fn span_of_time(start_ns: i64, end_ns: i64) -> String {
    let (start, end) = (civil(start_ns), civil(end_ns));
    let minutes = |c: &Civil| c.clock.get(..5).unwrap_or_default().to_owned();
    let same_day = start.date == end.date;
    let (from, to) = if same_day && minutes(&start) == minutes(&end) {
        (start.clock.clone(), end.clock.clone())
    } else {
        (minutes(&start), minutes(&end))
    };
    if same_day && from == to {
        format!("{} {from}", start.date)
    } else if same_day {
        format!("{} {from}..{to}", start.date)
    } else {
        format!("{} {from}..{} {to}", start.date, end.date)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 1_661_256_000 * NS_PER_S;

    fn parsed(text: &str) -> Option<i64> {
        parse_moment(text, NOON).ok()
    }

    #[test]
    fn the_forms_people_use_mean_the_same_moment() {
        for text in [
            "2022-08-23T12:00:00Z",
            "2022-08-23 12:00",
            "2022-08-23t12:00:00.000z",
            "2022-08-23T14:00:00+02:00",
            "2022-08-23T06:30:00-05:30",
            "1661256000",
            "1661256000000",
            "1661256000000000",
            "1661256000000000000",
            "1661256000.0",
            "now",
        ] {
            assert_eq!(parsed(text), Some(NOON), "{text}");
        }
        assert_eq!(parsed("2022-08-23"), Some(NOON - 12 * 3600 * NS_PER_S));
        assert_eq!(parsed("10m"), Some(NOON - 600 * NS_PER_S));
        assert_eq!(parsed("1661256000.25"), Some(NOON + NS_PER_S / 4));
        assert_eq!(parsed("-1.5"), Some(-1_500_000_000));
    }

    #[test]
    fn what_is_no_moment_is_refused_with_the_forms() {
        for text in [
            "",
            "yesterday",
            "2022-13-01",
            "2022-02-29",
            "2022-08-23T",
            "2022-08-23T24:00",
            "2022-08-23T12",
            "2022-08-23X12:00",
            "2022-08-23T12:00:00+2",
            "1.",
            "é022-08-23",
            "2262-04-12",
            "99999999999999999999",
        ] {
            let error = parse_moment(text, NOON).unwrap_err();
            assert!(error.to_string().contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn moments_are_shown_in_utc() {
        assert_eq!(rfc3339(NOON + 123), "2022-08-23T12:00:00.000000123Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn where_data_lie_is_said_in_short() {
        let hours = 3600 * NS_PER_S;
        assert_eq!(
            span_of_time(NOON, NOON + 5 * hours),
            "2022-08-23 12:00..17:00"
        );
        assert_eq!(
            span_of_time(NOON, NOON + 13 * hours),
            "2022-08-23 12:00..2022-08-24 01:00"
        );
        assert_eq!(
            span_of_time(NOON, NOON + 5 * NS_PER_S),
            "2022-08-23 12:00:00..12:00:05"
        );
        assert_eq!(span_of_time(NOON, NOON), "2022-08-23 12:00:00");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ns: i64) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ns)), Some(ns));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = parse_moment(&text, NOON);
        }
    }
}
