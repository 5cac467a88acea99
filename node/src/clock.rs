//! The only place that reads a clock or draws a random number. Everything that decides gets both as arguments.

use infernet_wire::time::UnixMillis;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall time, as it is signed. Before 1970 it is 0.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Wall time as the standard library has it, to show; see [`now`] for what is signed.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A monotonic instant, to measure durations that are shown, never signed.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// How long from now until `at`, zero if that is past: for timers.
pub fn until(at: UnixMillis) -> Duration {
    Duration::from_millis(at.since(now()))
}

/// `N` random bytes from the operating system.
///
/// # Panics
/// If the operating system has no randomness to give, in which case no key made here could be trusted either.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// A timer's deadline, `wait` from now.
pub fn deadline(wait: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + wait
}
