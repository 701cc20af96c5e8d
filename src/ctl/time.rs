//! Times for people (`3 min`, `41 s left`), times for programs (RFC 3339), and durations with units.
//!
//! The present time is read once per rendering and passed on, so that tests own it.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::ids::Timestamp;

/// The present, and where the reader is.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// The present.
    pub(crate) now: Timestamp,
    /// The reader's time zone.
    pub(crate) zone: TimeZone,
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

impl Clock {
    /// The time now, in this machine's zone.
    pub(crate) fn system() -> Self {
        Clock { now: now(), zone: TimeZone::system() }
    }

    /// How long ago `then` was: `12 s`.
    pub(crate) fn age(&self, then: Timestamp) -> String {
        short(self.now.since_ms(then))
    }

    /// How long until `until`: `41 s left`, or `overdue`.
    pub(crate) fn left(&self, until: Timestamp) -> String {
        match until.since_ms(self.now) {
            0 => "overdue".to_owned(),
            ms => format!("{} left", short(ms)),
        }
    }

    fn zoned(&self, at: Timestamp) -> Option<jiff::Zoned> {
        Some(jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(self.zone.clone()))
    }

    /// RFC 3339 with milliseconds and the zone's offset.
    pub(crate) fn full(&self, at: Timestamp) -> String {
        self.zoned(at).map_or_else(
            || at.0.to_string(),
            |zoned| zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        )
    }

    /// The time of day; with the date where that is another day.
    pub(crate) fn time_of_day(&self, at: Timestamp) -> String {
        let (Some(then), Some(now)) = (self.zoned(at), self.zoned(self.now)) else {
            return at.0.to_string();
        };
        let format = if then.date() == now.date() { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S" };
        then.strftime(format).to_string()
    }
}

/// A duration in one unit, rounded down: `850 ms`, `41 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn short(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// Parses a duration with units: `500ms`, `10s`, `2m`, `1h30m`, `1d`.
///
/// # Errors
/// A sentence that names the units.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no duration: write a unit, as in 500ms, 10s, 2m, 1h30m, 1d");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let ms: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = number.checked_mul(ms).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(ms)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// A duration in milliseconds, as the wire has it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration(" 2min "), Ok(Duration::from_secs(120)));
        for bad in
            ["", "5", "5x", "s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_humane_in_tables_and_exact_in_details() {
        let clock = Clock { now: Timestamp(1_700_000_000_000), zone: TimeZone::UTC };
        assert_eq!(clock.age(Timestamp(1_700_000_000_000 - 850)), "850 ms");
        assert_eq!(clock.age(Timestamp(1_700_000_000_000 - 7_199_999)), "119 min");
        assert_eq!(clock.age(Timestamp(1_700_000_005_000)), "0 ms");
        assert_eq!(clock.left(Timestamp(1_700_000_041_500)), "41 s left");
        assert_eq!(clock.left(Timestamp(1)), "overdue");
        assert_eq!(clock.full(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123+00:00");
        assert_eq!(clock.time_of_day(Timestamp(1_699_999_999_000)), "22:13:19.000");
        assert_eq!(clock.time_of_day(Timestamp(1_600_000_000_000)), "2020-09-13 12:26:40");
        assert_eq!(clock.full(Timestamp(i64::MAX)), i64::MAX.to_string());
    }
}
