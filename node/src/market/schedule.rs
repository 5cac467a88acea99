//! When a worker sells: windows of the week, by the clock on its operator's wall.
//!
//! `22:00-07:00 mon-fri` opens at ten on each of five evenings and closes the morning after, so on Saturday at seven for the last
//! time. Days are those on which a window opens. Without days it opens every day, without times it lasts the whole day. Several
//! windows add up; none at all means always.
//!
//! Local time comes in as an offset from UTC, so that nothing here knows of time zones. Times to come are told by the offset of
//! now: in the night of a change of clocks they are an hour off until it is over.

use infernet_wire::time::UnixMillis;
use std::{fmt, str::FromStr};

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;
const MINUTE_MS: u64 = 60_000;
/// 1 January 1970 was a Thursday; our week begins on Monday.
const EPOCH_MINUTE: i64 = 3 * DAY as i64;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A minute of the week, 0 at the beginning of Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u32);

impl Minute {
    /// That of `now` where local time is `offset_seconds` ahead of UTC.
    pub fn of(now: UnixMillis, offset_seconds: i32) -> Self {
        let seconds = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX).saturating_add(offset_seconds.into());
        let minutes = seconds.div_euclid(60).saturating_add(EPOCH_MINUTE);
        // Below a week, so it fits.
        Minute(minutes.rem_euclid(WEEK.into()) as u32)
    }

    /// Minutes from here until the next `other`.
    fn until(self, other: u32) -> u32 {
        (other + WEEK - self.0) % WEEK
    }
}

/// One window, on some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Minute of the day at which it opens.
    from: u32,
    /// Minute of the day at which it closes: of the next day if it is not after `from`.
    to: u32,
    /// On which days it opens, Monday first.
    days: [bool; 7],
}

/// What is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write times, days or both, such as 22:00-07:00 mon-fri, or sat sun; days are mon tue wed thu fri sat sun")]
pub struct BadWindow;

impl Window {
    fn minutes(&self) -> u32 {
        if self.to > self.from { self.to - self.from } else { self.to + DAY - self.from }
    }

    /// Minutes of the week at which it opens.
    fn openings(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(self.days).filter(|(_, on)| *on).map(|(day, _): (u32, bool)| day * DAY + self.from)
    }

    fn is_open(&self, at: Minute) -> bool {
        self.openings().any(|opening| (at.0 + WEEK - opening) % WEEK < self.minutes())
    }
}

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let (mut times, mut days) = (None, [false; 7]);
        let words = text.split_whitespace();
        for word in words {
            match word.split_once('-') {
                Some((from, to)) if word.contains(':') && times.is_none() => {
                    times = Some((minute(from).filter(|m| *m < DAY).ok_or(BadWindow)?, minute(to).ok_or(BadWindow)?));
                }
                Some((first, last)) => mark(&mut days, day(first)?, day(last)?),
                None => mark(&mut days, day(word)?, day(word)?),
            }
        }
        let any = days.contains(&true);
        if times.is_none() && !any {
            return Err(BadWindow);
        }
        let (from, to) = times.unwrap_or((0, DAY));
        // From a time to itself is the whole day or nothing: whoever means the whole day can leave the times out.
        if from == to {
            return Err(BadWindow);
        }
        Ok(Window { from, to, days: if any { days } else { [true; 7] } })
    }
}

/// `22:00`; up to `24:00`.
fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u32>().ok()).flatten();
    let (hour, minute) = (two(hour)?, two(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

fn day(text: &str) -> Result<usize, BadWindow> {
    DAYS.iter().position(|name| name.eq_ignore_ascii_case(text)).ok_or(BadWindow)
}

/// From `first` to `last`, over Sunday if need be.
fn mark(days: &mut [bool; 7], first: usize, last: usize) {
    let count = (last + 7 - first) % 7;
    for step in 0..=count {
        if let Some(day) = days.get_mut((first + step) % 7) {
            *day = true;
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let days: Vec<&str> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        let all = days.len() == DAYS.len();
        write!(f, "{}-{}", time(self.from), time(self.to))?;
        if all { Ok(()) } else { write!(f, " {}", days.join(" ")) }
    }
}

/// Windows that add up; always open without any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(pub Vec<Window>);

impl Schedule {
    /// Whether it is open.
    pub fn is_open(&self, at: Minute) -> bool {
        self.0.is_empty() || self.0.iter().any(|window| window.is_open(at))
    }

    /// When it opens next, if it is closed at `now`.
    pub fn opens(&self, now: UnixMillis, offset_seconds: i32) -> Option<UnixMillis> {
        let at = Minute::of(now, offset_seconds);
        if self.is_open(at) {
            return None;
        }
        let openings = self.0.iter().flat_map(Window::openings);
        let minutes = openings.map(|opening| at.until(opening)).min()?;
        let begun = now.0.saturating_add(i64::from(offset_seconds).rem_euclid(60) as u64 * 1_000);
        Some(UnixMillis(now.0.saturating_sub(begun % MINUTE_MS).saturating_add(u64::from(minutes) * MINUTE_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::T0;

    fn schedule(texts: &[&str]) -> Schedule {
        Schedule(texts.iter().map(|text| text.parse().expect(text)).collect())
    }

    /// The minute of the week of `tue 21:59`.
    fn at(text: &str) -> Minute {
        let (name, time) = text.split_once(' ').expect("a day and a time");
        Minute(day(name).expect("a day") as u32 * DAY + minute(time).expect("a time"))
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let nights = schedule(&["22:00-07:00 mon-fri"]);
        let check = |time, open| assert_eq!(nights.is_open(at(time)), open, "{time}");
        check("mon 06:59", false);
        check("mon 21:59", false);
        check("mon 22:00", true);
        check("tue 06:59", true);
        check("tue 07:00", false);
        check("sat 06:59", true);
        check("sat 07:00", false);
        check("sat 22:00", false);
        let sunday = schedule(&["23:00-01:00 sun"]);
        assert!(sunday.is_open(at("mon 00:59")) && !sunday.is_open(at("sun 00:30")), "over the end of the week");
    }

    #[test]
    fn several_windows_add_up_and_none_is_always() {
        let all = schedule(&["09:00-12:00 mon", "11:00-13:00 mon", "sat-sun"]);
        for (time, open) in [("mon 12:30", true), ("mon 13:00", false), ("sun 23:59", true), ("tue 10:00", false)] {
            assert_eq!(all.is_open(at(time)), open, "{time}");
        }
        assert!(Schedule::default().is_open(at("wed 03:00")));
        assert!(schedule(&["fri-mon"]).is_open(at("sun 12:00")) && !schedule(&["fri-mon"]).is_open(at("tue 00:00")));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in [
            "",
            "22:00",
            "22-07",
            "25:00-07:00",
            "22:00-22:00",
            "24:00-07:00",
            "22:60-07:00",
            "monday",
            "mon-",
            "1:00-2:00",
            "08:00-09:00 10:00-11:00",
            "+8:00-09:00",
            "22:00-07:00 mon,tue",
        ] {
            assert_eq!(bad.parse::<Window>(), Err(BadWindow), "{bad:?}");
        }
        let shown = |text: &str| text.parse::<Window>().expect(text).to_string();
        assert_eq!(shown("22:00-07:00 MON-wed"), "22:00-07:00 mon tue wed");
        assert_eq!(shown("08:00-24:00"), "08:00-24:00");
        assert_eq!(shown("sat"), "00:00-24:00 sat");
    }

    #[test]
    fn local_time_is_ahead_of_or_behind_utc() {
        // 1 January 1970, a Thursday, at midnight.
        assert_eq!(Minute::of(UnixMillis(0), 0), at("thu 00:00"));
        assert_eq!(Minute::of(UnixMillis(0), 3_600), at("thu 01:00"));
        assert_eq!(Minute::of(UnixMillis(0), -3_600), at("wed 23:00"));
        assert_eq!(Minute::of(UnixMillis(4 * 86_400_000), -60), at("sun 23:59"));
        assert!(Minute::of(UnixMillis(u64::MAX), i32::MAX) < Minute(WEEK));
    }

    proptest::proptest! {
        /// Whatever the windows, the moment and the zone: closed until just before it says it opens, and open then.
        #[test]
        fn any_schedule_opens_when_it_says(
            windows in proptest::collection::vec((0u32..DAY, 1u32..DAY, 1u8..128), 1..5),
            now in 0u64..4_000_000_000_000, offset in -54_000i32..54_000,
        ) {
            let window = |(from, minutes, days): (u32, u32, u8)| Window {
                from,
                to: if from + minutes > DAY { from + minutes - DAY } else { from + minutes },
                days: std::array::from_fn(|day| days & (1 << day) != 0),
            };
            let schedule = Schedule(windows.into_iter().map(window).collect());
            for window in &schedule.0 {
                proptest::prop_assert_eq!(&window.to_string().parse::<Window>(), &Ok(*window));
            }
            let open = |at: u64| schedule.is_open(Minute::of(UnixMillis(at), offset));
            match schedule.opens(UnixMillis(now), offset) {
                None => proptest::prop_assert!(open(now)),
                Some(UnixMillis(opens)) => {
                    proptest::prop_assert!(now < opens && opens - now <= u64::from(WEEK) * MINUTE_MS);
                    proptest::prop_assert!(open(opens) && !open(opens - 1) && !open(now));
                    proptest::prop_assert!((now..opens).step_by(97 * MINUTE_MS as usize).all(|at| !open(at)));
                }
            }
        }
    }

    /// For many moments and offsets: the schedule is closed until just before it says it opens, and open then.
    #[test]
    fn it_opens_when_it_says() {
        let schedules = [
            schedule(&["22:00-07:00 mon-fri"]),
            schedule(&["00:00-00:01 sun"]),
            schedule(&["09:00-12:00", "13:00-17:30 sat"]),
            schedule(&["23:59-24:00 mon", "00:00-00:01 wed"]),
        ];
        let mut closed = 0;
        for schedule in &schedules {
            for step in 0..2_000u64 {
                let (now, offset) = (UnixMillis(T0.0 + step * 1_234_567), (step as i32 % 27 - 13) * 1_800);
                let open = |at: UnixMillis| schedule.is_open(Minute::of(at, offset));
                match schedule.opens(now, offset) {
                    None => assert!(open(now)),
                    Some(opens) => {
                        closed += 1;
                        assert!(opens > now && opens.since(now) <= 7 * 86_400_000, "{now:?} {opens:?}");
                        assert!(open(opens) && !open(UnixMillis(opens.0 - 1)), "{now:?} {opens:?} {offset}");
                        let between = UnixMillis(now.0 + opens.since(now) / 2);
                        assert!(!open(between) || between == opens);
                    }
                }
            }
        }
        assert!(closed > 1_000, "{closed}");
    }
}
