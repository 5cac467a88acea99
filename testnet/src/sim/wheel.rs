//! What happens when: a queue of events, ordered by time and then by the order in which they were put in.
//!
//! Nearly all events are due within seconds, so they wait in a ring of one bucket for each millisecond, and putting one in and
//! taking it out costs the same whatever else waits. What is due later waits in a map until the ring has come near.

use std::collections::{BTreeMap, VecDeque};

/// Milliseconds that the ring spans: a power of two, longer than nearly all latencies and pauses.
const SPAN: u64 = 4_096;

/// Events of a virtual time in milliseconds.
#[derive(Debug)]
pub struct Wheel<E> {
    now: u64,
    ring: Vec<VecDeque<E>>,
    near: usize,
    far: BTreeMap<u64, VecDeque<E>>,
}

impl<E> Default for Wheel<E> {
    fn default() -> Self {
        Wheel { now: 0, ring: (0..SPAN).map(|_| VecDeque::new()).collect(), near: 0, far: BTreeMap::new() }
    }
}

impl<E> Wheel<E> {
    /// Puts in an event that is due `at`; at once if that is past.
    pub fn put(&mut self, at: u64, event: E) {
        let at = at.max(self.now);
        if at - self.now >= SPAN {
            self.far.entry(at).or_default().push_back(event);
        } else if let Some(bucket) = self.ring.get_mut((at % SPAN) as usize) {
            bucket.push_back(event);
            self.near += 1;
        }
    }

    /// Takes out the next event that is due by `end`, and when it is due.
    pub fn next(&mut self, end: u64) -> Option<(u64, E)> {
        loop {
            if let Some(event) = self.ring.get_mut((self.now % SPAN) as usize).and_then(VecDeque::pop_front) {
                self.near -= 1;
                return Some((self.now, event));
            }
            if self.now >= end {
                return None;
            }
            self.turn(end);
        }
    }

    /// Goes on to the next millisecond, or over all in which nothing happens.
    fn turn(&mut self, end: u64) {
        let next_far = self.far.keys().next().copied();
        self.now = match (self.near, next_far) {
            (0, Some(far)) => far.min(end),
            (0, None) => end,
            _ => self.now + 1,
        };
        // What comes into the ring's span was put in before anything that is put there from now on.
        while let Some(entry) = self.far.first_entry().filter(|entry| entry.key() - self.now < SPAN) {
            let (at, events) = entry.remove_entry();
            if let Some(bucket) = self.ring.get_mut((at % SPAN) as usize) {
                self.near += events.len();
                bucket.extend(events);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(puts: &[(u64, u32)], expected: &[(u64, u32)]) {
        let mut wheel = Wheel::default();
        puts.iter().for_each(|(at, event)| wheel.put(*at, *event));
        let found: Vec<_> = std::iter::from_fn(|| wheel.next(u64::MAX - SPAN)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn time_comes_first_and_then_the_order_of_putting() {
        check(&[(5, 1), (3, 2), (5, 3), (3, 4)], &[(3, 2), (3, 4), (5, 1), (5, 3)]);
        check(&[(90_000, 1), (3, 2), (SPAN, 3), (90_000, 4)], &[(3, 2), (SPAN, 3), (90_000, 1), (90_000, 4)]);
    }

    #[test]
    fn what_was_put_in_long_ago_comes_before_what_was_put_in_now() {
        let mut wheel = Wheel::default();
        wheel.put(5_000, 1);
        wheel.put(1_000, 2);
        assert_eq!(wheel.next(9_000), Some((1_000, 2)));
        wheel.put(5_000, 3);
        wheel.put(10, 4);
        assert_eq!(wheel.next(9_000), Some((1_000, 4)), "what is past is due at once");
        assert_eq!((wheel.next(9_000), wheel.next(9_000)), (Some((5_000, 1)), Some((5_000, 3))));
        assert_eq!(wheel.next(9_000), None);
    }

    #[test]
    fn it_stops_at_the_end_and_goes_on() {
        let mut wheel = Wheel::default();
        wheel.put(100, 1);
        assert_eq!(wheel.next(99), None);
        assert_eq!(wheel.next(100), Some((100, 1)));
    }
}
