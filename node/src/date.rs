//! Days and times of day in UTC, as people write them. Pure arithmetic on unix milliseconds.

use infernet_wire::time::UnixMillis;
use std::{fmt, str::FromStr};

/// Milliseconds of a day; unix time has no leap seconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// Milliseconds in an hour.
pub const HOUR_MS: u64 = 3_600_000;

/// A day, counted from 1970-01-01, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of `time`.
    pub fn of(time: UnixMillis) -> Self {
        Day(u32::try_from(time.0 / DAY_MS).unwrap_or(u32::MAX))
    }

    /// When it begins.
    pub fn begin(self) -> UnixMillis {
        UnixMillis(u64::from(self.0) * DAY_MS)
    }

    /// Year, month and day of the month (H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    fn civil(self) -> (u32, u32, u32) {
        let days = u64::from(self.0) + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        // The largest day of all is in the year 11 761 191.
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        (narrow(year), narrow(month), narrow(day))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Text that is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no day: write it as 2026-11-25")]
pub struct BadDay(String);

impl FromStr for Day {
    type Err = BadDay;

    fn from_str(text: &str) -> Result<Self, BadDay> {
        let bad = || BadDay(text.into());
        let parts: Vec<u32> = text.split('-').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
        let [year, month, day] = parts.as_slice() else { return Err(bad()) };
        let (year, month, day) = (u64::from(*year), u64::from(*month), u64::from(*day));
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(bad());
        }
        // days_from_civil of the same paper.
        let year_shifted = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (year_shifted / 400, year_shifted % 400);
        let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let found = Day(u32::try_from(era * 146_097 + day_of_era - 719_468).map_err(|_| bad())?);
        // The 30th of February would be a day in March.
        if found.to_string() == text { Ok(found) } else { Err(bad()) }
    }
}

/// `2026-11-25 13:05:07`, UTC.
pub fn time(at: UnixMillis) -> String {
    let seconds = at.0 % DAY_MS / 1000;
    format!("{} {:02}:{:02}:{:02}", Day::of(at), seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_texts_are_one_to_one() {
        let check = |day: u32, text: &str| {
            assert_eq!((Day(day).to_string().as_str(), text.parse()), (text, Ok(Day(day))));
        };
        check(0, "1970-01-01");
        check(59, "1970-03-01");
        check(11_016, "2000-02-29");
        check(20_781, "2026-11-24");
        check(47_541, "2100-03-01");
        for day in 0..100_000 {
            assert_eq!(Day(day).to_string().parse(), Ok(Day(day)));
        }
        assert_eq!(Day(u32::MAX).to_string().get(..8), Some("11761191"));
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in
            ["", "2026-02-30", "2026-13-01", "2026-1-1", "1969-12-31", "yesterday", "2026-11-25-1", "-1-1-1", "2100-02-29"]
        {
            let error = text.parse::<Day>().unwrap_err().to_string();
            assert!(error.contains("2026-11-25"), "{error}");
        }
    }

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(time(UnixMillis(1_795_000_000_000)), "2026-11-18 11:06:40");
        assert_eq!(Day::of(UnixMillis(DAY_MS)).begin(), UnixMillis(DAY_MS));
    }
}
