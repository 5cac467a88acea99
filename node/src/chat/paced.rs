//! Letting a busy connection breathe, so that many small frames share a packet.
//!
//! A token is a frame of some forty bytes. Sent at once, each costs a datagram, a system call and an acknowledgement on both
//! sides, which is most of what it costs at all. A connection that is woken more than [`BUSY`] times a millisecond therefore
//! works in beats of [`BEAT`]: whatever comes in between goes out together. Below that nothing is ever delayed, so one stream, or
//! dozens, keep the latency of the network.

use crate::clock;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// The shortest time that a timer can measure, and far below what a reader notices.
const BEAT: Duration = Duration::from_millis(1);
/// How often it is looked whether the connection is busy.
const LOOK: Duration = Duration::from_millis(8);
/// Wakes per millisecond above which it is: there a beat carries several frames, below it would only delay one.
const BUSY: u32 = 3;

/// A connection's driver, paced while it is busy.
pub(super) struct Paced {
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    rest: Pin<Box<Sleep>>,
    resting: bool,
    last: Instant,
    load: Load,
}

/// How often it is woken.
#[derive(Debug)]
struct Load {
    since: Instant,
    wakes: u32,
    busy: bool,
}

impl Load {
    fn new(now: Instant) -> Self {
        Load { since: now, wakes: 0, busy: false }
    }

    /// Counts a wake at `now`; whether the connection is busy.
    fn count(&mut self, now: Instant) -> bool {
        self.wakes += 1;
        let over = now.saturating_duration_since(self.since);
        if over >= LOOK {
            let ms = u32::try_from(over.as_millis()).unwrap_or(u32::MAX);
            *self = Load { since: now, wakes: 0, busy: self.wakes > ms.saturating_mul(BUSY) };
        }
        self.busy
    }
}

impl Paced {
    /// Paces `driver`.
    pub(super) fn new(driver: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        let now = clock::instant();
        let rest = Box::pin(tokio::time::sleep_until(clock::deadline(BEAT)));
        Paced { driver, rest, resting: false, last: now, load: Load::new(now) }
    }

    /// Whether it is time to go on. If not, the timer will wake us.
    fn is_due(&mut self, now: Instant, busy: bool, cx: &mut Context<'_>) -> bool {
        if !self.resting {
            let since = now.saturating_duration_since(self.last);
            if !busy || since >= BEAT {
                return true;
            }
            self.rest.as_mut().reset(clock::deadline(BEAT - since));
            self.resting = true;
        }
        self.resting = self.rest.as_mut().poll(cx).is_pending();
        !self.resting
    }
}

impl Future for Paced {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::instant();
        let busy = self.load.count(now);
        if !self.is_due(now, busy, cx) {
            return Poll::Pending;
        }
        self.last = now;
        self.driver.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes each `every` for a while; whether that counts as busy at the end.
    fn check(every: Duration, expected: bool) {
        let mut now = clock::instant();
        let mut load = Load::new(now);
        let mut busy = false;
        for _ in 0..200 {
            now += every;
            busy = load.count(now);
        }
        assert_eq!(busy, expected, "woken each {every:?}");
    }

    #[test]
    fn only_a_stream_of_wakes_is_busy() {
        check(Duration::from_millis(20), false);
        check(Duration::from_millis(1), false);
        check(Duration::from_micros(200), true);
        check(Duration::from_micros(40), true);
    }

    #[test]
    fn it_is_idle_again_after_a_pause() {
        let now = clock::instant();
        let mut load = Load::new(now);
        assert!((1..2_000).any(|n| load.count(now + Duration::from_micros(40 * n))));
        assert!(!load.count(now + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_paced_driver_still_does_all_its_work() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(10_000);
        let driver = async move {
            let mut sum = 0u64;
            while let Some(n) = receiver.recv().await {
                sum += n;
            }
            assert_eq!(sum, (0..5_000).sum::<u64>());
        };
        let driving = tokio::spawn(Paced::new(Box::pin(driver)));
        for n in 0..5_000 {
            sender.send(n).await.expect("it runs");
            tokio::task::yield_now().await;
        }
        drop(sender);
        tokio::time::timeout(Duration::from_secs(5), driving).await.expect("it ends").expect("no panic");
    }
}
