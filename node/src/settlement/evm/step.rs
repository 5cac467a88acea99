//! One transaction's life, as a decision: prepared → sent → mined → confirmed, reverted or replaced. **Pure**: what the chain
//! shows and what time it is are arguments, what to do next is the answer, and all state is in a [`Step`], which is kept before
//! anything is sent.
//!
//! **Never twice.** A step has one nonce from its beginning. Sending it again, with the same fees or higher ones, makes more
//! attempts of which the chain takes at most one. So the rules are simple: in doubt, send again; never prepare another step for
//! the same debt before this one has ended.
//!
//! **Blocks vanish.** A receipt counts when its block is [`Rules::depth`] deep. Until then, a receipt that is gone sends the step
//! back to where it was sent, and its bytes are sent again.
//!
//! **Somebody else used the nonce**: another program with the same key, or the owner's wallet. Then none of our attempts can be
//! mined any more, and the step ends as replaced, but only after its nonce is used `depth` deep and it has looked that way for
//! [`Rules::doubt_ms`]: nodes behind one address don't agree with each other at once.

use super::{
    rpc::Receipt,
    transaction::{Call, Fees, Transaction, TxHash},
};
use infernet_wire::{key::NodeKey, time::UnixMillis};
use serde::{Deserialize, Serialize};

/// Attempts that are kept. Each costs a quarter more than the one before: sixteen are 28 times the first, if the cap allows.
const MAX_ATTEMPTS: usize = 16;
/// What another attempt costs at least, in percent of the last: nodes take a replacement for ten more.
const BUMP_PERCENT: u128 = 125;
/// What it must cost at least to be taken in its place.
const REPLACES_PERCENT: u128 = 110;
/// The base fee can double in six blocks (EIP-1559); a transaction should survive that.
const BASE_FEE_FACTOR: u128 = 2;

/// How patient a step is, and what it may pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Blocks, its own included, that bury a transaction before it counts.
    pub depth: u64,
    /// Time in no block after which more is paid.
    pub stuck_ms: u64,
    /// Time that a nonce must look used by somebody else before it is believed.
    pub doubt_ms: u64,
    /// What a gas unit may cost at most, in wei.
    pub max_fee: u128,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            // Two minutes on Ethereum; more than any reorganisation since its merge.
            depth: 12,
            // Several blocks on any chain.
            stuck_ms: 90_000,
            doubt_ms: 60_000,
            // 200 gwei: a redemption costs less than 0.015 coins.
            max_fee: 200_000_000_000,
        }
    }
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// By which its receipt is found.
    pub hash: TxHash,
    /// What it pays.
    pub fees: Fees,
    /// The bytes to send.
    #[serde(with = "serde_bytes")]
    pub raw: Vec<u8>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing was sent, as far as we know.
    Prepared,
    /// An attempt was sent, last at that time.
    Sent {
        /// When.
        at: UnixMillis,
    },
    /// An attempt is in a block that may yet vanish.
    Mined {
        /// Which attempt.
        hash: TxHash,
        /// The block's number.
        block: u64,
        /// The block's hash.
        #[serde(with = "serde_bytes")]
        block_hash: [u8; 32],
    },
    /// The nonce looks used by somebody else.
    Doubt {
        /// Since when.
        since: UnixMillis,
    },
    /// Done.
    Confirmed {
        /// Which attempt.
        hash: TxHash,
        /// In which block.
        block: u64,
    },
    /// It was mined and did nothing: the contract refused. Its gas is paid.
    Reverted {
        /// Which attempt.
        hash: TxHash,
        /// In which block.
        block: u64,
    },
    /// Another transaction has its nonce: it never happened, and never will.
    Replaced,
}

/// One transaction, from the decision to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The chain.
    pub chain: u64,
    /// What is to be done.
    pub call: Call,
    /// Its place among the account's transactions, for ever.
    pub nonce: u64,
    /// How much gas at most.
    pub gas: u64,
    /// What was signed, oldest first.
    pub attempts: Vec<Attempt>,
    /// How far it is.
    pub stage: Stage,
}

/// What the chain shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The number of the newest block.
    pub head: u64,
    /// Its base fee, in wei per gas.
    pub base_fee: u128,
    /// What others tip now, in wei per gas.
    pub tip: u128,
    /// What the account has of the chain's coin, in wei.
    pub coin: u128,
    /// Transactions of the account `depth` blocks deep, read **before** the receipts.
    pub deep_nonce: u64,
    /// Receipts of our attempts: at most one, since they share a nonce.
    pub receipt: Option<(TxHash, Receipt)>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look again later.
    Wait,
    /// Look again later: gas costs more than may be paid, and nothing was sent.
    TooDear {
        /// The base fee.
        base_fee: u128,
    },
    /// Look again later: the account has not enough of the chain's coin, and nothing new was signed. More would not be taken either.
    Poor {
        /// What it may cost, in wei.
        needed: u128,
    },
    /// Sign another attempt, keep the step, then send it.
    Sign(Fees),
    /// Send the newest attempt, once more if it was sent before.
    Send,
    /// It has ended; [`Step::stage`] tells how.
    Done,
}

impl Step {
    /// A step at its beginning.
    pub fn new(chain: u64, call: Call, nonce: u64, gas: u64) -> Self {
        Step { chain, call, nonce, gas, attempts: Vec::new(), stage: Stage::Prepared }
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Confirmed { .. } | Stage::Reverted { .. } | Stage::Replaced)
    }

    /// Decides what follows from what the chain shows.
    pub fn decide(&mut self, facts: &Facts, rules: &Rules, now: UnixMillis) -> Next {
        if self.is_done() {
            return Next::Done;
        }
        match facts.receipt {
            Some((hash, receipt)) => self.on_receipt(hash, receipt, facts.head, rules),
            None if matches!(self.stage, Stage::Mined { .. }) => {
                self.stage = Stage::Sent { at: now };
                Next::Send
            }
            None if facts.deep_nonce > self.nonce => self.on_foreign(rules, now),
            None => self.on_nothing(facts, rules, now),
        }
    }

    /// Signs an attempt. It is sent when the step is kept.
    pub fn sign(&mut self, fees: Fees, key: &NodeKey) {
        let transaction = Transaction { chain: self.chain, nonce: self.nonce, fees, gas: self.gas, call: &self.call };
        let (raw, hash) = transaction.sign(key);
        self.attempts.push(Attempt { hash, fees, raw });
    }

    /// The newest attempt was sent, or at least tried to be.
    pub fn sent(&mut self, now: UnixMillis) {
        if !self.is_done() {
            self.stage = Stage::Sent { at: now };
        }
    }

    fn on_receipt(&mut self, hash: TxHash, receipt: Receipt, head: u64, rules: &Rules) -> Next {
        let Receipt { block, block_hash, success, .. } = receipt;
        // A node whose head is behind the receipt that it shows is asked again.
        if head.saturating_add(1).saturating_sub(block) < rules.depth {
            self.stage = Stage::Mined { hash, block, block_hash };
            return Next::Wait;
        }
        self.stage = if success { Stage::Confirmed { hash, block } } else { Stage::Reverted { hash, block } };
        Next::Done
    }

    fn on_foreign(&mut self, rules: &Rules, now: UnixMillis) -> Next {
        match self.stage {
            Stage::Doubt { since } if now.since(since) >= rules.doubt_ms => {
                self.stage = Stage::Replaced;
                Next::Done
            }
            Stage::Doubt { .. } => Next::Wait,
            _ => {
                self.stage = Stage::Doubt { since: now };
                Next::Wait
            }
        }
    }

    /// What an attempt may cost, in wei: nodes take none of an account that has less.
    fn cost(&self, fees: Fees) -> u128 {
        fees.max.saturating_mul(self.gas.into()).saturating_add(self.call.value)
    }

    fn on_nothing(&mut self, facts: &Facts, rules: &Rules, now: UnixMillis) -> Next {
        let market = market(facts, rules);
        let can_pay = |fees: Fees| self.cost(fees) <= facts.coin;
        let Some(last) = self.attempts.last() else {
            return match facts.base_fee {
                base_fee if base_fee > rules.max_fee => Next::TooDear { base_fee },
                _ if can_pay(market) => Next::Sign(market),
                _ => Next::Poor { needed: self.cost(market) },
            };
        };
        match self.stage {
            Stage::Sent { at } if now.since(at) < rules.stuck_ms => Next::Wait,
            Stage::Sent { .. } if !can_pay(last.fees) => Next::Poor { needed: self.cost(last.fees) },
            Stage::Sent { .. } => {
                let bumped = bumped(last.fees, market, rules);
                let more = replaces(bumped, last.fees) && can_pay(bumped) && self.attempts.len() < MAX_ATTEMPTS;
                if more { Next::Sign(bumped) } else { Next::Send }
            }
            // Signed and not known to be sent; or the doubt was a mistake.
            _ => Next::Send,
        }
    }
}

fn market(facts: &Facts, rules: &Rules) -> Fees {
    // Nothing can't be raised by a quarter.
    let tip = facts.tip.max(1);
    let max = facts.base_fee.saturating_mul(BASE_FEE_FACTOR).saturating_add(tip).min(rules.max_fee);
    Fees { max, tip: tip.min(max) }
}

/// A quarter more than the last, or what others pay now if that is more; never above the cap.
fn bumped(last: Fees, market: Fees, rules: &Rules) -> Fees {
    let more = |fee: u128| fee.saturating_mul(BUMP_PERCENT).div_ceil(100);
    let max = more(last.max).max(market.max).min(rules.max_fee);
    Fees { max, tip: more(last.tip).max(market.tip).min(max) }
}

/// Whether nodes would take the one in place of the other: both parts must grow.
fn replaces(new: Fees, old: Fees) -> bool {
    let enough = |new: u128, old: u128| new > old && new >= old.saturating_mul(REPLACES_PERCENT).div_ceil(100);
    enough(new.max, old.max) && enough(new.tip, old.tip)
}

#[cfg(test)]
mod tests;
