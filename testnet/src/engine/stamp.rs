//! A metronome's token: the time at which it was made, so that whoever gets it knows how long it was on its way.
//!
//! Seven hexadecimal digits of microseconds, which begin again every 268 seconds: longer than any token is under way. Clocks of
//! one machine agree; across machines the age means nothing.

use infernet_node::clock;
use std::time::{Duration, SystemTime};

/// Microseconds after which stamps begin again.
const CYCLE: u128 = 1 << 28;

/// A token of now.
pub fn token() -> String {
    format!(" {:07x}", micros())
}

/// How old a token is; `None` if it is none of [`token`]'s.
pub fn age(text: &str) -> Option<Duration> {
    let made = u128::from(u32::from_str_radix(text.trim_start(), 16).ok()?);
    let age = (micros() + CYCLE - made) % CYCLE;
    Some(Duration::from_micros(u64::try_from(age).unwrap_or_default()))
}

fn micros() -> u128 {
    clock::system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() % CYCLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_age() {
        let text = token();
        assert_eq!(text.len(), 8);
        assert!(age(&text).is_some_and(|age| age < Duration::from_secs(60)));
        assert_eq!(age(" tick"), None);
    }
}
