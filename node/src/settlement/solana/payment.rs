//! One payment's life on Solana, as a decision: prepared → sent → finalized, failed or given up. **Pure**: what the chain's nodes
//! show and what time it is are arguments, what to do next is the answer, and all state is in a [`Payment`], which is kept before
//! anything is sent.
//!
//! **Never twice.** A Solana transaction has no nonce. What keeps it from landing twice is that its blockhash dies: after
//! [`Attempt::last_valid`] no block takes it. So there is one live attempt at a time, its bytes are sent again as often as one
//! likes, and another one is signed only when the *finalized* height is past the last valid one **and** none of the signatures is
//! known. The height is read first ([`Facts::height`]): whatever could land has landed by then, and shows.
//!
//! **What a node may lie about.** Several nodes may be asked, and [`merged`] believes the most cautious of them: the lowest height,
//! a signature that any of them knows, finality that all of them see. If one of them is honest, and its finalized height not more
//! than [`LAG`] blocks behind the newest block, at most one attempt lands whatever the others say: which heights, blockhashes and
//! statuses, and when they pass on what they got. A lone node can hide a payment that landed, and get it made again; it must keep
//! that up for [`Rules::life_ms`]. Two nodes of two operators close that gap. Any node can delay a payment, and all together can
//! claim one that never was: the payee then says that it has nothing.

use super::transaction::{Blockhash, TxSignature};
use infernet_wire::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// Blocks that a blockhash lives (`MAX_PROCESSING_AGE`).
pub const VALID_BLOCKS: u64 = 150;
/// Blocks that an honest node's finalized height may be behind the newest block: 32 at most in a healthy cluster, some for the way.
pub const LAG: u64 = 150;
/// A blockhash that is said to live longer than that after the finalized height is not one of this chain.
const MAX_AHEAD: u64 = 2 * (VALID_BLOCKS + LAG);
/// Attempts of one payment. Each takes minutes to die: after as many, somebody should look at it.
pub const MAX_ATTEMPTS: usize = 8;

/// How patient a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After which the same bytes are sent once more.
    pub resend_ms: u64,
    /// For which no attempt is given up, whatever height the nodes tell.
    pub life_ms: u64,
}

impl Default for Rules {
    fn default() -> Self {
        // Leaders change every 1.6 s, and forget what did not fit. 300 blocks take two minutes, more when slots are skipped.
        Rules { resend_ms: 5_000, life_ms: 150_000 }
    }
}

/// A blockhash to sign over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// The hash.
    pub blockhash: Blockhash,
    /// The last height at which it is taken, as a node says.
    pub last_valid: u64,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// By which it is found.
    pub signature: TxSignature,
    /// Over which it was signed.
    pub blockhash: Blockhash,
    /// The last height at which it can land, with a margin.
    pub last_valid: u64,
    /// When it was signed.
    pub at: UnixMillis,
    /// The bytes to send.
    #[serde(with = "serde_bytes")]
    pub raw: Vec<u8>,
}

/// How far a payment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing can land: nothing was signed, or all that was has expired.
    Prepared,
    /// An attempt is signed and kept, and may have been sent.
    Signed,
    /// It was sent, last at that time.
    Sent {
        /// When.
        at: UnixMillis,
    },
    /// It landed, in a block that may yet vanish.
    Landed {
        /// Which attempt.
        signature: TxSignature,
    },
    /// Paid.
    Finalized {
        /// By which attempt.
        signature: TxSignature,
        /// In which slot.
        slot: u64,
    },
    /// It landed and moved nothing. Its fee is paid.
    Failed {
        /// Which attempt.
        signature: TxSignature,
        /// What the chain says.
        reason: String,
    },
    /// [`MAX_ATTEMPTS`] expired, or nothing was signed before the process ended. Nothing was paid, and nothing of it ever will be.
    GivenUp,
}

/// Where a payment was written last: a crash can come at each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Persist {
    /// It is decided, and nothing of it is signed.
    Begun,
    /// An attempt is signed and may be sent.
    Signed,
    /// It was sent.
    Sent,
    /// It is in a block that may yet vanish.
    Landed,
    /// It has ended.
    Ended,
}

impl Persist {
    /// All of them: a test crashes at each.
    pub const ALL: [Self; 5] = [Persist::Begun, Persist::Signed, Persist::Sent, Persist::Landed, Persist::Ended];
}

/// A transaction that a node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which of ours.
    pub signature: TxSignature,
    /// Its slot.
    pub slot: u64,
    /// Whether its block is final.
    pub finalized: bool,
    /// Why it did nothing; `None` if it did what it should.
    pub failed: Option<String>,
}

/// What a node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The finalized height, read **before** the statuses.
    pub height: u64,
    /// A blockhash to sign over.
    pub recent: Recent,
    /// Those of our attempts that it knows, looked for in all its history.
    pub seen: Vec<Seen>,
}

/// What follows from what several nodes show: the most cautious of each. `None` if there is none.
pub fn merged(all: &[Facts]) -> Option<Facts> {
    let first = all.first()?;
    let height = all.iter().map(|facts| facts.height).min()?;
    let last_valid = all.iter().map(|facts| facts.recent.last_valid).max()?;
    let mut seen: Vec<Seen> = Vec::new();
    for found in all.iter().flat_map(|facts| &facts.seen) {
        if seen.iter().all(|known| known.signature != found.signature) {
            let everybody = all.iter().all(|facts| facts.seen.iter().any(|other| agrees(other, found)));
            seen.push(Seen { finalized: everybody, ..found.clone() });
        }
    }
    Some(Facts { height, recent: Recent { last_valid, ..first.recent }, seen })
}

/// Whether one node confirms that the other's news is final.
fn agrees(one: &Seen, other: &Seen) -> bool {
    one.finalized && one.signature == other.signature && one.failed.is_some() == other.failed.is_some()
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look again later.
    Wait,
    /// Look again later: the blockhash can't be one of this chain.
    Implausible,
    /// Sign an attempt over it with [`Payment::signed`], keep the payment, then send.
    Sign(Recent),
    /// Send the newest attempt, once more if it was sent before.
    Send,
    /// It has ended; [`Payment::stage`] tells how.
    Done,
}

/// One payment, from the decision to its end. What is paid is the caller's to keep beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// What was signed, oldest first.
    pub attempts: Vec<Attempt>,
    /// How far it is.
    pub stage: Stage,
}

impl Default for Payment {
    fn default() -> Self {
        Payment { attempts: Vec::new(), stage: Stage::Prepared }
    }
}

impl Payment {
    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Finalized { .. } | Stage::Failed { .. } | Stage::GivenUp)
    }

    /// At which point it was written last.
    pub fn at(&self) -> Persist {
        match self.stage {
            Stage::Prepared => Persist::Begun,
            Stage::Signed => Persist::Signed,
            Stage::Sent { .. } => Persist::Sent,
            Stage::Landed { .. } => Persist::Landed,
            Stage::Finalized { .. } | Stage::Failed { .. } | Stage::GivenUp => Persist::Ended,
        }
    }

    /// Decides what follows from what the chain shows.
    pub fn decide(&mut self, facts: &Facts, rules: &Rules, now: UnixMillis) -> Next {
        if self.is_done() {
            return Next::Done;
        }
        if let Some(seen) = self.best_of(&facts.seen) {
            return self.on_seen(seen);
        }
        match self.attempts.last() {
            Some(last) if self.stage != Stage::Prepared && !is_dead(last, facts.height, rules, now) => {
                self.on_unseen(rules, now)
            }
            _ => self.on_dead(facts),
        }
    }

    /// An attempt was signed over what [`Next::Sign`] gave. It is sent when the payment is kept.
    pub fn signed(&mut self, attempt: Attempt) {
        if !self.is_done() {
            self.attempts.push(attempt);
            self.stage = Stage::Signed;
        }
    }

    /// The newest attempt was sent, or at least tried to be.
    pub fn sent(&mut self, now: UnixMillis) {
        if matches!(self.stage, Stage::Signed | Stage::Sent { .. }) {
            self.stage = Stage::Sent { at: now };
        }
    }

    /// What ends the payment, before what does not; a success before a failure. Signatures that are not ours don't count.
    fn best_of<'a>(&self, seen: &'a [Seen]) -> Option<&'a Seen> {
        let ours = |seen: &&Seen| self.attempts.iter().any(|attempt| attempt.signature == seen.signature);
        seen.iter().filter(ours).max_by_key(|seen| (seen.failed.is_none(), seen.finalized))
    }

    fn on_seen(&mut self, seen: &Seen) -> Next {
        let signature = seen.signature;
        match &seen.failed {
            _ if !seen.finalized => {
                self.stage = Stage::Landed { signature };
                return Next::Wait;
            }
            None => self.stage = Stage::Finalized { signature, slot: seen.slot },
            Some(reason) => self.stage = Stage::Failed { signature, reason: reason.clone() },
        }
        Next::Done
    }

    /// The newest attempt can still land.
    fn on_unseen(&mut self, rules: &Rules, now: UnixMillis) -> Next {
        match self.stage {
            Stage::Sent { at } if now.since(at) < rules.resend_ms => Next::Wait,
            // Signed and not known to be sent; sent long ago; or its block has vanished.
            _ => {
                self.stage = Stage::Signed;
                Next::Send
            }
        }
    }

    /// Nothing that was signed can land any more.
    fn on_dead(&mut self, facts: &Facts) -> Next {
        if self.attempts.len() >= MAX_ATTEMPTS {
            self.stage = Stage::GivenUp;
            return Next::Done;
        }
        self.stage = Stage::Prepared;
        let known = self.attempts.iter().any(|attempt| attempt.blockhash == facts.recent.blockhash);
        if known || facts.recent.last_valid > facts.height.saturating_add(MAX_AHEAD) {
            return Next::Implausible;
        }
        // Nodes that tell too low a height, or too early an end, are not believed.
        let last_valid = facts.recent.last_valid.max(facts.height.saturating_add(VALID_BLOCKS + LAG));
        Next::Sign(Recent { last_valid, ..facts.recent })
    }
}

/// Whether no block will take the attempt any more.
fn is_dead(attempt: &Attempt, height: u64, rules: &Rules, now: UnixMillis) -> bool {
    height > attempt.last_valid && now.since(attempt.at) >= rules.life_ms
}

#[cfg(test)]
mod tests;
