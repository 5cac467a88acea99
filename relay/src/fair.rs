//! Whose turn it is: pure, told the time.
//!
//! Each peer with bytes waiting is a *flow*. Turns go round by deficit (Shreedhar and Varghese, 1995): in each round a flow may
//! send [`QUANTUM`] bytes, whatever the number of its circuits. A flow that had nothing waiting goes before those that had, for
//! its first quantum (RFC 8290, section 4.2), so that what sends little hardly waits; it can't win by pausing, since it keeps its place
//! among the old ones until it comes up there with nothing to send.
//!
//! All turns together are held to a rate by a bucket of tokens.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Bytes of a turn, the most that may be asked for at once: about 1 ms of the default rate, and a full buffer.
pub const QUANTUM: u64 = 16 * 1024;
/// How much the bucket holds, in time: what a timer is late by, several times over.
const BURST: Duration = Duration::from_millis(20);

struct Flow<T> {
    asks: VecDeque<(T, u64)>,
    deficit: u64,
}

/// See the module. `K` names a flow, `T` what is handed back when it is its turn.
pub struct Turns<K, T> {
    /// Bytes a second; 0: no bound.
    rate: u64,
    /// Below zero by a turn at most.
    tokens: i64,
    refilled: Duration,
    flows: BTreeMap<K, Flow<T>>,
    fresh: VecDeque<K>,
    old: VecDeque<K>,
}

impl<K: Ord + Copy, T> Turns<K, T> {
    /// Nobody waits; the bucket is full.
    pub fn new(rate: u64) -> Self {
        Turns {
            rate,
            tokens: bucket(rate),
            refilled: Duration::ZERO,
            flows: BTreeMap::new(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
        }
    }

    /// `flow` wants to send `bytes`, of which at most a [`QUANTUM`] counts.
    pub fn ask(&mut self, flow: K, ask: T, bytes: u64) {
        let ask = (ask, bytes.min(QUANTUM));
        match self.flows.get_mut(&flow) {
            Some(known) => known.asks.push_back(ask),
            None => {
                self.flows.insert(flow, Flow { asks: [ask].into(), deficit: QUANTUM });
                self.fresh.push_back(flow);
            }
        }
    }

    /// Who is next, if anybody is and the rate allows it; `now` since the start.
    pub fn next(&mut self, now: Duration) -> Option<T> {
        self.refill(now);
        if self.rate > 0 && self.tokens < 0 {
            return None;
        }
        loop {
            let is_fresh = !self.fresh.is_empty();
            let key = *self.fresh.front().or_else(|| self.old.front())?;
            let flow = self.flows.get_mut(&key)?;
            match flow.asks.front() {
                Some((_, bytes)) if *bytes <= flow.deficit => {
                    let (ask, bytes) = flow.asks.pop_front()?;
                    flow.deficit -= bytes;
                    self.tokens = self.tokens.saturating_sub_unsigned(bytes);
                    return Some(ask);
                }
                Some(_) => {
                    flow.deficit += QUANTUM;
                    self.rotate(is_fresh);
                }
                // It keeps its place once, so that a pause wins nothing.
                None if is_fresh => self.rotate(true),
                None => {
                    self.old.pop_front();
                    self.flows.remove(&key);
                }
            }
        }
    }

    /// How long until [`next`](Self::next) may have somebody; `None` if nobody waits.
    pub fn pause(&self) -> Option<Duration> {
        if self.flows.values().all(|flow| flow.asks.is_empty()) {
            return None;
        }
        let missing = self.tokens.min(0).unsigned_abs();
        Some(Duration::from_micros(missing.saturating_mul(1_000_000).checked_div(self.rate).unwrap_or_default()))
    }

    fn rotate(&mut self, is_fresh: bool) {
        let from = if is_fresh { &mut self.fresh } else { &mut self.old };
        let moved = from.pop_front();
        self.old.extend(moved);
    }

    fn refill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.refilled).as_micros().saturating_mul(u128::from(self.rate)) / 1_000_000;
        if gained > 0 {
            self.refilled = now;
            self.tokens = self.tokens.saturating_add_unsigned(u64::try_from(gained).unwrap_or(u64::MAX)).min(bucket(self.rate));
        }
    }
}

fn bucket(rate: u64) -> i64 {
    i64::try_from(u128::from(rate) * BURST.as_millis() / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at once `count` times `bytes` for each flow, then serves `turns` of them; who got how many bytes.
    fn served(asks: &[(u8, usize, u64)], turns: usize) -> BTreeMap<u8, u64> {
        let mut queue = Turns::new(0);
        for (flow, count, bytes) in asks {
            (0..*count).for_each(|_| queue.ask(*flow, (*flow, *bytes), *bytes));
        }
        let mut got = BTreeMap::new();
        for _ in 0..turns {
            let Some((flow, bytes)) = queue.next(Duration::ZERO) else { break };
            *got.entry(flow).or_default() += bytes;
        }
        got
    }

    #[test]
    fn a_peer_with_many_circuits_gets_no_more_than_one_with_one() {
        let got = served(&[(1, 100, QUANTUM), (2, 20, QUANTUM), (3, 20, QUANTUM)], 30);
        assert_eq!(got, [(1, 10 * QUANTUM), (2, 10 * QUANTUM), (3, 10 * QUANTUM)].into());
    }

    #[test]
    fn bytes_count_not_turns() {
        let got = served(&[(1, 1_000, QUANTUM / 8), (2, 1_000, QUANTUM)], 90);
        assert_eq!(got[&1], got[&2]);
    }

    #[test]
    fn whoever_sends_little_goes_first_and_a_pause_wins_nothing() {
        let mut queue = Turns::new(0);
        (0..10).for_each(|_| queue.ask(1, "bulk", QUANTUM));
        assert_eq!(queue.next(Duration::ZERO), Some("bulk"));
        assert_eq!(queue.next(Duration::ZERO), Some("bulk"));
        queue.ask(2, "token", 100);
        assert_eq!(queue.next(Duration::ZERO), Some("token"));
        // It asks again at once with much: it is among the old ones now.
        assert_eq!(queue.next(Duration::ZERO), Some("bulk"));
        queue.ask(2, "more", QUANTUM);
        queue.ask(2, "more", QUANTUM);
        let next: Vec<_> = (0..4).filter_map(|_| queue.next(Duration::ZERO)).collect();
        assert_eq!(next.iter().filter(|who| **who == "bulk").count(), 2, "{next:?}");
    }

    #[test]
    fn all_together_keep_to_the_rate() {
        let rate = 1_000_000;
        let mut queue = Turns::new(rate);
        (0..1_000).for_each(|_| queue.ask(1, (), QUANTUM));
        let (mut now, mut sent) = (Duration::ZERO, 0);
        while now < Duration::from_secs(2) {
            while queue.next(now).is_some() {
                sent += QUANTUM;
            }
            let pause = queue.pause().expect("somebody waits");
            assert!(pause > Duration::ZERO && pause < Duration::from_millis(20), "{pause:?}");
            now += pause;
        }
        let burst = 20_000 + 2 * QUANTUM;
        assert!((2 * rate - burst..2 * rate + burst).contains(&sent), "{sent}");
    }

    #[test]
    fn when_nobody_waits_nothing_is_kept() {
        let mut queue = Turns::new(1_000);
        queue.ask(1, (), 5);
        assert!(queue.next(Duration::ZERO).is_some());
        assert!(queue.next(Duration::ZERO).is_none());
        assert!(queue.flows.is_empty() && queue.fresh.is_empty() && queue.old.is_empty());
        assert_eq!(queue.pause(), None);
    }
}
