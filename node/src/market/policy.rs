//! Whether a worker sells at the moment: by the clock, the GPUs' heat and power, and whether somebody else needs the machine.
//!
//! [`Gate::look`] is shown how the machine is and says what keeps it closed, if anything does. Closing and opening have different
//! thresholds and take some time (`Latch`), so that a worker at the edge does not open and close with every reading. While a
//! job of ours runs, and a little longer, a busy machine is busy with it, so that says nothing about others. What a machine does
//! not tell can't close the gate; if it stops telling, the gate opens as if all were well.

use super::schedule::{Minute, Schedule};
use infernet_wire::{bid::NoBidReason, time::UnixMillis};

/// Degrees below the limit at which it is cool again.
const COOLER: u16 = 5;
/// Percent of the power limit at which there is room again.
const POWER_ROOM: u64 = 90;
/// The load of a minute's mean has forgotten a job of ours by then.
const FORGET_MS: u64 = 90_000;

/// When nothing is sold. By default something always is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// When anything is.
    pub schedule: Schedule,
    /// The temperature of the hottest GPU above which nothing is, in degrees Celsius.
    pub max_celsius: Option<u16>,
    /// What all GPUs together draw at most, in watts.
    pub max_watts: Option<u32>,
    /// Percent of a GPU or of the processors that others use at most; `None`: no matter.
    pub idle_percent: Option<u16>,
}

/// How the machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sensed {
    /// Seconds that local time is ahead of UTC.
    pub offset_seconds: i32,
    /// Temperature of the hottest GPU.
    pub celsius: Option<u16>,
    /// What all GPUs draw together.
    pub watts: Option<u32>,
    /// How busy the busiest GPU or the processors are, whichever is more, in percent.
    pub busy_percent: Option<u16>,
}

/// Why nothing is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// The schedule says so.
    OffSchedule,
    /// A GPU is too hot.
    TooHot,
    /// The GPUs draw too much.
    TooMuchPower,
    /// Somebody else uses the machine.
    BusyHost,
}

impl Closed {
    /// What buyers are told.
    pub fn reason(self) -> NoBidReason {
        match self {
            Closed::OffSchedule => NoBidReason::OFF_SCHEDULE,
            Closed::TooHot => NoBidReason::TOO_HOT,
            Closed::TooMuchPower => NoBidReason::TOO_MUCH_POWER,
            Closed::BusyHost => NoBidReason::BUSY_HOST,
        }
    }
}

/// What the gate says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What keeps it closed; `None` if it is open.
    pub closed: Option<Closed>,
    /// When it opens at the earliest, where that is known.
    pub opens: Option<UnixMillis>,
}

/// Decides, and remembers what it has seen.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    policy: Policy,
    heat: Latch,
    power: Latch,
    busy: Latch,
    /// When a job of ours ran last.
    ours: Option<UnixMillis>,
}

impl Gate {
    /// An open gate.
    pub fn new(policy: Policy) -> Self {
        Gate { policy, ..Gate::default() }
    }

    /// Looks at the machine at `now`; `working` tells whether a job of ours runs.
    pub fn look(&mut self, sensed: &Sensed, working: bool, now: UnixMillis) -> Verdict {
        if working {
            self.ours = Some(now);
        }
        let Policy { max_celsius, max_watts, idle_percent, .. } = self.policy;
        let hot =
            max_celsius.and_then(|max| Some(judge(sensed.celsius?.into(), max.into(), max.saturating_sub(COOLER).into())));
        self.heat.look(hot, Pace { close_ms: 0, open_ms: 30_000 }, now);
        let power = max_watts.and_then(|max| Some(judge(sensed.watts?.into(), max.into(), u64::from(max) * POWER_ROOM / 100)));
        self.power.look(power, Pace { close_ms: 15_000, open_ms: 60_000 }, now);
        if self.ours.is_some_and(|at| now.since(at) < FORGET_MS) {
            self.busy.turns = None;
        } else {
            let busy = idle_percent.and_then(|max| Some(judge(sensed.busy_percent?.into(), max.into(), max.into())));
            self.busy.look(busy, Pace { close_ms: 15_000, open_ms: 120_000 }, now);
        }
        self.verdict(sensed, now)
    }

    fn verdict(&self, sensed: &Sensed, now: UnixMillis) -> Verdict {
        if !self.policy.schedule.is_open(Minute::of(now, sensed.offset_seconds)) {
            let opens = self.policy.schedule.opens(now, sensed.offset_seconds);
            return Verdict { closed: Some(Closed::OffSchedule), opens };
        }
        let latches = [(&self.heat, Closed::TooHot), (&self.power, Closed::TooMuchPower), (&self.busy, Closed::BusyHost)];
        let closed = latches.into_iter().find(|(latch, _)| latch.closed);
        Verdict { closed: closed.map(|(_, why)| why), opens: closed.and_then(|(latch, _)| latch.turns) }
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// Above the limit.
    Over,
    /// Between the limit and where all is well.
    Between,
    /// All is well.
    Well,
}

/// Above `max` is over, at most `well` is well.
fn judge(value: u64, max: u64, well: u64) -> Judged {
    match value {
        _ if value > max => Judged::Over,
        _ if value <= well => Judged::Well,
        _ => Judged::Between,
    }
}

/// How long a value has to be over, or well again, before anything changes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    close_ms: u64,
    open_ms: u64,
}

/// Closed after a value was over its limit for some time, open after it was well for some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Latch {
    closed: bool,
    /// When it will close, or open, if nothing changes.
    turns: Option<UnixMillis>,
}

impl Latch {
    fn look(&mut self, judged: Option<Judged>, pace: Pace, now: UnixMillis) {
        let (turning, wait) = match judged {
            Some(Judged::Over) => (!self.closed, pace.close_ms),
            Some(Judged::Well) | None => (self.closed, pace.open_ms),
            Some(Judged::Between) => (false, 0),
        };
        if !turning {
            self.turns = None;
            return;
        }
        let turns = *self.turns.get_or_insert(now.after(wait));
        if turns <= now {
            *self = Latch { closed: !self.closed, turns: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, at};

    /// Shows `gate` each reading for some seconds, one a second, and returns what it said last.
    fn shown(gate: &mut Gate, from: &mut u64, seconds: u64, sensed: Sensed, working: bool) -> Option<Closed> {
        let mut last = None;
        for _ in 0..seconds {
            *from += 1_000;
            last = gate.look(&sensed, working, at(*from)).closed;
        }
        last
    }

    fn hot(celsius: u16) -> Sensed {
        Sensed { celsius: Some(celsius), ..Sensed::default() }
    }

    fn busy(percent: u16) -> Sensed {
        Sensed { busy_percent: Some(percent), ..Sensed::default() }
    }

    #[test]
    fn heat_closes_at_once_and_opens_when_it_is_cooler_for_a_while() {
        let mut gate = Gate::new(Policy { max_celsius: Some(80), ..Policy::default() });
        let (gate, now) = (&mut gate, &mut 0);
        assert_eq!(shown(gate, now, 9, hot(80), false), None);
        assert_eq!(shown(gate, now, 1, hot(81), false), Some(Closed::TooHot));
        assert_eq!(shown(gate, now, 999, hot(76), false), Some(Closed::TooHot), "between the two");
        assert_eq!(shown(gate, now, 20, hot(75), false), Some(Closed::TooHot));
        assert_eq!(gate.look(&hot(75), false, at(*now)).opens, Some(at(*now + 11_000)));
        assert_eq!(shown(gate, now, 1, hot(77), false), Some(Closed::TooHot), "starts again");
        assert_eq!(shown(gate, now, 30, hot(70), false), Some(Closed::TooHot));
        assert_eq!(shown(gate, now, 1, hot(70), false), None);
        shown(gate, now, 1, hot(90), false);
        assert_eq!(shown(gate, now, 31, Sensed::default(), false), None, "a sensor that is gone keeps nothing closed");
    }

    #[test]
    fn a_peak_of_power_is_no_reason() {
        let mut gate = Gate::new(Policy { max_watts: Some(300), ..Policy::default() });
        let (gate, now) = (&mut gate, &mut 0);
        let draws = |watts| Sensed { watts: Some(watts), ..Sensed::default() };
        for _ in 0..9 {
            assert_eq!(shown(gate, now, 10, draws(400), true), None);
            assert_eq!(shown(gate, now, 1, draws(300), true), None);
        }
        assert_eq!(shown(gate, now, 16, draws(301), true), Some(Closed::TooMuchPower));
        assert_eq!(shown(gate, now, 600, draws(271), true), Some(Closed::TooMuchPower));
        assert_eq!(shown(gate, now, 61, draws(270), false), None);
    }

    #[test]
    fn our_own_work_is_nobody_elses() {
        let mut gate = Gate::new(Policy { idle_percent: Some(20), ..Policy::default() });
        let (gate, now) = (&mut gate, &mut 0);
        assert_eq!(shown(gate, now, 500, busy(100), true), None);
        assert_eq!(shown(gate, now, 89, busy(100), false), None, "the mean of the last minute still has it");
        assert_eq!(shown(gate, now, 17, busy(100), false), Some(Closed::BusyHost));
        assert_eq!(shown(gate, now, 200, busy(100), true), Some(Closed::BusyHost), "a job that still runs opens nothing");
        assert_eq!(shown(gate, now, 90 + 119, busy(20), false), Some(Closed::BusyHost));
        assert_eq!(shown(gate, now, 2, busy(20), false), None);
    }

    #[test]
    fn the_schedule_says_when_it_opens() {
        let schedule = Schedule(vec!["00:00-00:01 mon".parse().expect("a window")]);
        let mut gate = Gate::new(Policy { schedule, max_celsius: Some(1), ..Policy::default() });
        let verdict = gate.look(&hot(99), false, T0);
        assert_eq!(verdict.closed, Some(Closed::OffSchedule), "it is told first: the heat may be gone by then");
        let opens = verdict.opens.expect("some Monday");
        assert_eq!(gate.look(&hot(0), false, opens).closed, Some(Closed::TooHot));
    }

    proptest::proptest! {
        /// Whatever the sensors say, the gate opens and closes no faster than its pace, and for a reason.
        #[test]
        fn no_gate_flutters(
            readings in proptest::collection::vec(
                (1u64..20_000, proptest::option::of(60u16..100), proptest::option::of(100u32..400), proptest::option::of(0u16..60),
                 proptest::bool::weighted(0.1)),
                1..200,
            ),
        ) {
            let policy =
                Policy { max_celsius: Some(80), max_watts: Some(300), idle_percent: Some(20), ..Policy::default() };
            let mut gate = Gate::new(policy);
            // When each latch closed last.
            let (mut now, mut closed, mut since) = (0, [false; 3], [0; 3]);
            for (ms, celsius, watts, busy_percent, working) in readings {
                now += ms;
                let sensed = Sensed { celsius, watts, busy_percent, offset_seconds: 0 };
                let verdict = gate.look(&sensed, working, at(now));
                let latches = [gate.heat, gate.power, gate.busy];
                for (place, (latch, open_ms)) in latches.into_iter().zip([30_000, 60_000, 120_000]).enumerate() {
                    if latch.closed && !closed[place] {
                        let over = [celsius > Some(80), watts > Some(300), busy_percent > Some(20) && !working][place];
                        proptest::prop_assert!(over, "closed for no reason");
                        since[place] = now;
                    }
                    if !latch.closed && closed[place] {
                        let well = [celsius <= Some(75), watts <= Some(270), busy_percent <= Some(20)][place];
                        proptest::prop_assert!(well && now >= since[place] + open_ms, "opened too soon");
                    }
                    closed[place] = latch.closed;
                }
                proptest::prop_assert_eq!(verdict.closed.is_some(), closed.contains(&true));
                proptest::prop_assert!(verdict.opens.is_none_or(|opens| opens > at(now)));
            }
        }
    }

    #[test]
    fn without_a_policy_nothing_closes() {
        let mut gate = Gate::new(Policy::default());
        let wild = Sensed { celsius: Some(999), watts: Some(u32::MAX), busy_percent: Some(999), offset_seconds: 0 };
        assert_eq!(shown(&mut gate, &mut 0, 300, wild, false), None);
    }
}
