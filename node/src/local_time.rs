//! How far this machine's wall clock is from UTC, and times as it shows them. The only file that names `jiff`.

use crate::date::{self, Day};
use infernet_wire::time::UnixMillis;
use jiff::{Timestamp, tz::TimeZone};

/// Seconds that local time is ahead of UTC at `now`: of the zone in `TZ`, else of `/etc/localtime`, else 0.
pub fn offset_seconds(now: UnixMillis) -> i32 {
    let Ok(at) = i64::try_from(now.0).map_err(drop).and_then(|ms| Timestamp::from_millisecond(ms).map_err(drop)) else {
        return 0;
    };
    TimeZone::try_system().map_or(0, |zone| zone.to_offset(at).seconds())
}

/// `2026-11-25 13:05:07` by this machine's wall clock.
pub fn shown(at: UnixMillis) -> String {
    date::time(by_clock(at))
}

/// The time of `at` if it is of the same day as `now`, else the day: ten columns.
pub fn brief(at: UnixMillis, now: UnixMillis) -> String {
    short(by_clock(at), by_clock(now))
}

/// The instant at which UTC shows what the wall clock shows at `at`.
fn by_clock(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_add_signed(i64::from(offset_seconds(at)) * 1_000))
}

fn short(at: UnixMillis, now: UnixMillis) -> String {
    let (day, time) = (Day::of(at), date::time(at));
    match time.split_once(' ') {
        Some((_, time)) if day == Day::of(now) => time.into(),
        _ => day.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn today_is_told_by_its_hour_and_another_day_by_its_date() {
        let noon = UnixMillis(1_795_694_400_000);
        assert_eq!(short(noon, UnixMillis(noon.0 + 3_600_000)), "12:00:00");
        assert_eq!(short(noon, UnixMillis(noon.0 + 13 * 3_600_000)), "2026-11-26");
    }

    #[test]
    fn no_zone_is_a_day_off() {
        for now in [0, 1_795_700_000_000, u64::MAX] {
            assert!(offset_seconds(UnixMillis(now)).abs() <= 26 * 3_600, "{now}");
        }
    }
}
