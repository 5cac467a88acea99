//! How far this machine's wall clock is from UTC. The only file that names `jiff`.

use infernet_wire::time::UnixMillis;
use jiff::{Timestamp, tz::TimeZone};

/// Seconds that local time is ahead of UTC at `now`: of the zone in `TZ`, else of `/etc/localtime`, else 0.
pub fn offset_seconds(now: UnixMillis) -> i32 {
    let Ok(at) = i64::try_from(now.0).map_err(drop).and_then(|ms| Timestamp::from_millisecond(ms).map_err(drop)) else {
        return 0;
    };
    TimeZone::try_system().map_or(0, |zone| zone.to_offset(at).seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_zone_is_a_day_off() {
        for now in [0, 1_795_700_000_000, u64::MAX] {
            assert!(offset_seconds(UnixMillis(now)).abs() <= 26 * 3_600, "{now}");
        }
    }
}
