//! Whether an account is this program's alone: **pure**.
//!
//! Two programs with one key take each other's nonces. Nothing is paid twice by that, but what one of them has promised ends as
//! replaced. An account's transactions are counted on the chain, and this program knows its own: what is more is somebody else's.

use infernet_wire::{evm::EvmAddress, time::UnixMillis};

/// So long after somebody else's last transaction nothing new is begun. An owner who used another wallet waits for it once; a second
/// program that goes on is told of, until it has a key of its own.
pub const QUIET_MS: u64 = 10 * 60_000;

/// Somebody else uses the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "another program sends from {account}: the chain counts {found} transactions of it, and this one has made {ours}. One key is for \
     one program: stop the other one, or give it a key of its own; if it was you, try again in ten minutes"
)]
pub struct Shared {
    /// Whose key it is.
    pub account: EvmAddress,
    /// The account's transactions, those on their way included.
    pub found: u64,
    /// As many as there would be if this program's last were the last.
    pub ours: u64,
}

/// What was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sole {
    noticed: Option<(u64, UnixMillis)>,
}

impl Sole {
    /// Whether something new may begin. `last`: the nonce of this program's last transaction, if it has made one; `found`: the account's
    /// transactions, those on their way included.
    pub fn check(&mut self, account: EvmAddress, last: Option<u64>, found: u64, now: UnixMillis) -> Result<(), Shared> {
        // Who has made none can't tell what was before.
        let Some(ours) = last.map(|last| last.saturating_add(1)).filter(|ours| found > *ours) else { return Ok(()) };
        // Behind one address there may be several nodes, some of them late: the most that was ever found counts.
        let (_, since) = *self.noticed.insert(match self.noticed {
            Some((seen, since)) if seen >= found => (seen, since),
            _ => (found, now),
        });
        if now.since(since) >= QUIET_MS { Ok(()) } else { Err(Shared { account, found, ours }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_has_sent_is_noticed_until_it_is_quiet() {
        let mut sole = Sole::default();
        let mut at =
            |last, found, now| sole.check(EvmAddress([1; 20]), last, found, UnixMillis(now)).map_err(|shared| shared.ours);
        assert_eq!(at(None, 9, 0), Ok(()), "what was before nobody knows");
        assert_eq!(at(Some(3), 4, 0), Ok(()), "the next is ours");
        assert_eq!(at(Some(3), 3, 0), Ok(()), "a node that is late");
        assert_eq!(at(Some(3), 5, 1_000), Err(4));
        assert_eq!(at(Some(3), 5, QUIET_MS), Err(4));
        assert_eq!(at(Some(3), 6, QUIET_MS + 1), Err(4), "and again");
        assert_eq!(at(Some(3), 6, 2 * QUIET_MS), Err(4));
        assert_eq!(at(Some(3), 6, 2 * QUIET_MS + 1), Ok(()), "quiet for long enough");
        assert_eq!(at(Some(6), 7, 2 * QUIET_MS + 2), Ok(()));
        assert_eq!(at(Some(6), 8, 2 * QUIET_MS + 3), Err(7));
    }

    #[test]
    fn nodes_that_disagree_do_not_look_like_somebody_who_goes_on() {
        let mut sole = Sole::default();
        let mut at = |found, now| sole.check(EvmAddress([1; 20]), Some(3), found, UnixMillis(now)).is_ok();
        assert_eq!([(6, 1), (5, 2), (6, 3)].map(|(found, now)| at(found, now)), [false; 3]);
        assert_eq!([(6, QUIET_MS), (6, QUIET_MS + 1)].map(|(found, now)| at(found, now)), [false, true]);
    }
}
