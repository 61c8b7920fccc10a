//! Times as people write them.

/// Where clock times are counted from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Local second of the day at the beginning.
    pub(crate) clock_s: u64,
    /// Times beyond the end are mistakes.
    pub(crate) lasts_ms: u64,
}

const DAY_S: u64 = 86_400;

impl Moment {
    /// `17:39`, `17:39:30`: the first such time at or after the beginning. `+26h10m`: so long after it. In ms.
    pub(crate) fn parse(&self, text: &str) -> Result<u64, String> {
        let after_ms = match text.strip_prefix('+') {
            Some(rest) => parse_duration(rest)?,
            None => {
                let clock_s = parse_clock(text)?;
                (clock_s + DAY_S - self.clock_s) % DAY_S * 1000
            }
        };
        if after_ms > self.lasts_ms {
            return Err(format!("{text:?} is after the end"));
        }
        Ok(after_ms)
    }
}

fn parse_clock(text: &str) -> Result<u64, String> {
    let problem = || format!("{text:?} is no time: 17:39, 17:39:30, or +1h30m after the beginning");
    let mut parts = text.split(':').map(|part| {
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    });
    let mut next = |missing: Option<u64>| match parts.next() {
        Some(part) => part.ok_or_else(problem),
        None => missing.ok_or_else(problem),
    };
    let (hour, minute, second) = (next(None)?, next(None)?, next(Some(0))?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return Err(problem());
    }
    Ok(hour * 3600 + minute * 60 + second)
}

/// `90s`, `1h30m`, `2d`, in ms.
pub(crate) fn parse_duration(text: &str) -> Result<u64, String> {
    let problem = || format!("{text:?} is no duration: 90s, 1h30m, 2d");
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(problem());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| problem())?;
        rest = &rest[digits..];
        let (unit_ms, len) = match rest.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b's', ..] => (1_000, 1),
            [b'm', ..] => (60_000, 1),
            [b'h', ..] => (3_600_000, 1),
            [b'd', ..] => (86_400_000, 1),
            _ => return Err(problem()),
        };
        rest = rest[len..].trim_start();
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(problem)?;
    }
    Ok(total_ms)
}

/// `2023-11-12 16:30`, local: seconds since 1970 UTC, and the local second of that day.
pub(crate) fn parse_begin(text: &str, offset_min: i16) -> Result<(u64, u64), String> {
    let problem = || format!("{text:?} is no date and time: 2023-11-12 16:30");
    let (date, clock) = text.trim().split_once([' ', 'T']).ok_or_else(problem)?;
    let clock_s = parse_clock(clock)?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let mut next = || parts.next().flatten().ok_or_else(problem);
    let (year, month, day) = (next()?, next()?, next()?);
    if parts.next().is_some() || !(1971..2200).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
    {
        return Err(problem());
    }
    let local_s = days_since_1970(year, month, day) * DAY_S as i64 + clock_s as i64;
    let utc_s = local_s - i64::from(offset_min) * 60;
    Ok((u64::try_from(utc_s).map_err(|_| problem())?, clock_s))
}

/// The proleptic Gregorian calendar, with the year beginning in March.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A moment of a run on the local clock: `17:39`, with the day if it is not the first.
pub(crate) fn clock(clock_s: u64, after_ms: u64) -> String {
    let local_s = clock_s + after_ms / 1000;
    let (day, of_day) = (local_s / DAY_S, local_s % DAY_S);
    let time = format!("{:02}:{:02}", of_day / 3600, of_day / 60 % 60);
    if day == 0 { time } else { format!("+{day}d {time}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let moment = Moment {
            clock_s: 16 * 3600 + 1800,
            lasts_ms: 86_400_000,
        };
        let check = |text: &str, expected: Result<u64, &str>| {
            let found = moment.parse(text);
            match expected {
                Ok(minutes) => assert_eq!(found, Ok(minutes * 60_000), "{text}"),
                Err(part) => assert!(found.as_ref().is_err_and(|why| why.contains(part)), "{text}: {found:?}"),
            }
        };
        check("16:30", Ok(0));
        check("17:39", Ok(69));
        check("00:10:00", Ok(460));
        check("+1h9m", Ok(69));
        check("+ 1h", Ok(60));
        check("+1 h", Err("no duration"));
        check("+25h", Err("after the end"));
        check("24:00", Err("no time"));
        check("1739", Err("no time"));
        check("17:39:00:00", Err("no time"));
        check("+h", Err("no duration"));
        check("+99999999999999999d", Err("no duration"));
        check("", Err("no time"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |text: &str, expected: u64| assert_eq!(parse_begin(text, 480).map(|b| b.0), Ok(expected), "{text}");
        check("2023-11-12 17:39", 1_699_781_940);
        check("2024-02-29T00:00", 1_709_136_000);
        check("1971-01-01 08:00", 31_536_000);
        for bad in ["2023-11-12", "2023-13-01 00:00", "12.11.2023 17:39", "2023-11-12 25:00"] {
            assert!(parse_begin(bad, 480).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_told_on_the_local_clock() {
        assert_eq!(clock(16 * 3600, 99 * 60_000), "17:39");
        assert_eq!(clock(16 * 3600, 9 * 3_600_000), "+1d 01:00");
    }
}
