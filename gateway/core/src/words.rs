//! Times, quantities and prices in the form in which people read them. Only for reports; nothing is decided on them.

use alloc::{format, string::String};

use proto::{
    id::Kind,
    link::Mark,
    message::ClockQuality,
    money::{Money, Units},
    tariff::Dimension,
};
use serde::{Deserialize, Serialize};

use crate::{
    session::register_dimension,
    time::{Now, SECONDS_A_DAY},
};

const SECONDS_A_DAY_U64: u64 = SECONDS_A_DAY as u64;

/// A moment as a report shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Number of the gateway's boot; 0: before the oldest record that is kept.
    pub boot: u32,
    /// Milliseconds since that boot.
    pub mono_ms: u64,
    /// Seconds since 1970 UTC; 0 if the clock was not set.
    pub wall_s: u64,
    /// What the wall clock was worth: U, I, S or R.
    pub clock: String,
    /// In local time.
    pub text: String,
}

impl Moment {
    /// `offset_min`: of local time from UTC.
    #[must_use]
    pub fn new(now: &Now, boot: u32, offset_min: i16) -> Self {
        Self {
            boot,
            mono_ms: now.mono_ms,
            wall_s: now.wall_s,
            clock: String::from(quality(now.quality)),
            text: match now.wall() {
                Some(wall_s) => local(wall_s, offset_min),
                None => format!("{} after boot {boot}", duration_ms(now.mono_ms)),
            },
        }
    }
}

/// What the backend said of a record beside its receipt; `None`: a remark of a later version.
#[must_use]
pub const fn remark(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::Quarantined => Some("the backend cannot book it and keeps it aside"),
        Mark::Disputed => Some("the backend computes another charge; both are kept"),
        Mark::Adjusted => Some("the backend has booked corrections beside it"),
        Mark::Aside => Some("another claim on its session is booked; this one is kept"),
        Mark::Other => None,
    }
}

/// The letter of OIML R 46 and IEC 62055-21.
#[must_use]
pub const fn quality(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unknown => "U",
        ClockQuality::Informative => "I",
        ClockQuality::Synchronised => "S",
        ClockQuality::Relative => "R",
    }
}

/// `2026-01-15 16:00:03 +08:00`.
#[must_use]
pub fn local(wall_s: u64, offset_min: i16) -> String {
    let seconds = i64::try_from(wall_s).unwrap_or(i64::MAX / 2) + i64::from(offset_min) * 60;
    let (day, second) = (
        seconds.div_euclid(i64::from(SECONDS_A_DAY)),
        seconds.rem_euclid(i64::from(SECONDS_A_DAY)),
    );
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (sign, offset) = (if offset_min < 0 { '-' } else { '+' }, offset_min.unsigned_abs());
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} {sign}{:02}:{:02}",
        offset / 60,
        offset % 60
    )
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap day is the
/// last one; 400 years have 146,097 days.
const fn date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468; // From 0000-03-01.
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Seconds since 1970 UTC of `2026-01-15`, `2026-01-15 16:00`, `2026-01-15T16:00:03`, each alone (then in the time of
/// `offset_min`) or followed by `Z` or `+08:00`; `None` if it is none of these.
#[must_use]
pub fn parse_time(text: &str, offset_min: i16) -> Option<u64> {
    let (text, offset_min) = match text.trim().strip_suffix('Z') {
        Some(rest) => (rest.trim_end(), 0),
        None => split_offset(text.trim()).unwrap_or((text.trim(), offset_min)),
    };
    let (day, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut parts = day.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = clock.trim().splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let fits = (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    let days = (fits && (1..=12).contains(&month)).then(|| days_before(year, month) + day - 1)?;
    if date(days) != (year, month, day) {
        return None; // As 31 June.
    }
    let seconds = ((days * 24 + hour) * 60 + minute - i64::from(offset_min)) * 60 + second;
    u64::try_from(seconds).ok()
}

fn split_offset(text: &str) -> Option<(&str, i16)> {
    let at = text.len().checked_sub(6)?;
    let (rest, offset) = (text.get(..at)?, text.get(at..)?);
    let sign = match offset.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 14 && minutes < 60).then(|| (rest.trim_end(), sign * (hours * 60 + minutes)))
}

/// Days from 1970-01-01 to the first of a month.
const fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `3 h 12 min`, `45 s`, `2 d 4 h`.
#[must_use]
pub fn duration_s(seconds: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..SECONDS_A_DAY_U64 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(
            seconds / SECONDS_A_DAY_U64,
            "d",
            seconds % SECONDS_A_DAY_U64 / 3_600,
            "h",
        ),
    }
}

/// As [`duration_s`], with tenths of a second below ten seconds.
#[must_use]
pub fn duration_ms(ms: u64) -> String {
    match ms {
        0 => String::from("0 s"),
        1..100 => format!("{ms} ms"),
        100..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => duration_s(ms / 1000),
    }
}

/// What the register of a kind counts: `1.234 kWh`, `1 cycle`, `2.500 L`.
#[must_use]
pub fn units(kind: Kind, units: Units) -> String {
    quantity(register_dimension(kind), units.0)
}

/// A quantity in its base unit, in the unit in which it is priced.
#[must_use]
pub fn quantity(dimension: Dimension, quantity: u64) -> String {
    let thousandths = |unit: &str| format!("{}.{:03} {unit}", quantity / 1000, quantity % 1000);
    match dimension {
        Dimension::Energy => thousandths("kWh"),
        Dimension::Volume => thousandths("L"),
        Dimension::Cycle if quantity == 1 => String::from("1 cycle"),
        Dimension::Cycle => format!("{quantity} cycles"),
        Dimension::Time | Dimension::Idle => duration_s(quantity),
        Dimension::Other => format!("{quantity}"),
    }
}

/// The unit that one price covers.
#[must_use]
pub const fn priced_unit(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Energy => "kWh",
        Dimension::Volume => "L",
        Dimension::Cycle => "cycle",
        Dimension::Time => "min",
        Dimension::Idle => "idle min",
        Dimension::Other => "unit",
    }
}

/// Base units that one price covers.
#[must_use]
pub const fn priced_units(dimension: Dimension) -> u64 {
    match dimension {
        Dimension::Energy | Dimension::Volume => 1000,
        Dimension::Time | Dimension::Idle => 60,
        Dimension::Cycle | Dimension::Other => 1,
    }
}

/// Thousandths of a minor unit with two to five decimals of the major one.
#[must_use]
pub fn milli(milli: i128) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    let milli = milli.unsigned_abs();
    let mut text = format!("{sign}{}.{:05}", milli / 100_000, milli % 100_000);
    for _ in 0..3 {
        if text.ends_with('0') {
            text.pop();
        }
    }
    text
}

/// `1 session`, `3 sessions`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// An amount, with nothing said about a limit that is no limit.
#[must_use]
pub fn amount(money: Money) -> String {
    match money {
        Money(i64::MAX) => String::from("no limit"),
        money => format!("{money}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let check = |text: &str, offset_min: i16, expected: Option<&str>| {
            let read = parse_time(text, offset_min);
            assert_eq!(read.map(|s| local(s, offset_min)).as_deref(), expected, "{text}");
        };
        check("2026-01-15 16:00:03 +08:00", 480, Some("2026-01-15 16:00:03 +08:00"));
        check("2026-01-15T08:00:03Z", 480, Some("2026-01-15 16:00:03 +08:00"));
        check("2026-01-15 16:00", 480, Some("2026-01-15 16:00:00 +08:00"));
        check("2026-01-15", 480, Some("2026-01-15 00:00:00 +08:00"));
        check("2024-02-29", -210, Some("2024-02-29 00:00:00 -03:30"));
        check("2000-12-31 23:59:59", 0, Some("2000-12-31 23:59:59 +00:00"));
        check("1970-01-01", 0, Some("1970-01-01 00:00:00 +00:00"));
        for wrong in [
            "",
            "today",
            "2026-02-29",
            "2026-13-01",
            "2026-01-15 24:00",
            "1969-12-31",
            "2026-01-00",
            "2026-01",
            "2026-01-15 16",
            "2026-01-15 16:00:03 +8",
        ] {
            check(wrong, 0, None);
        }
        for day in (0..100_000).step_by(7) {
            let wall_s = day * SECONDS_A_DAY_U64 + 3_601;
            assert_eq!(parse_time(&local(wall_s, 480), 0), Some(wall_s));
        }
    }

    #[test]
    fn quantities_for_people() {
        let check = |text: String, expected: &str| assert_eq!(text, expected);
        check(duration_ms(1_204), "1.2 s");
        check(duration_ms(45), "45 ms");
        check(duration_s(3 * 3600 + 12 * 60 + 5), "3 h 12 min");
        check(duration_s(SECONDS_A_DAY_U64 * 7), "7 d");
        check(quantity(Dimension::Energy, 1_234), "1.234 kWh");
        check(quantity(Dimension::Cycle, 2), "2 cycles");
        check(milli(74_040), "0.7404");
        check(milli(60_000), "0.60");
        check(milli(-1), "-0.00001");
    }
}
