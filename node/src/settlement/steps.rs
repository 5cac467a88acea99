//! What this node does on an EVM chain, step by step, kept in the journal: **pure**. [`super::service`] drives the steps, one at a time,
//! in the order of their numbers.
//!
//! A step is **wanted** (kept: it will be done, or fail with a reason), gets its transaction (kept, with its nonce for ever, before it is
//! signed), is signed (kept before it is sent), sent, mined, and ends. After a crash the newest record of each number counts, so that
//! whatever was promised goes on, and nothing is done twice: the same transaction is sent once more. To ask again for what is still open
//! gives the step that there is.

use super::evm::{
    contract::{self, Channels},
    step::{Stage, Step},
    transaction::Call,
};
use infernet_wire::{
    codec,
    evm::{EvmAddress, amount},
    id::{ChannelId, EvmSignature, NodeId},
    time::UnixMillis,
    voucher::{ChannelTerms, UnverifiedVoucher},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// The journal's numbers: how far the chain was read, then steps, then channels. Those of another chain have the top bit.
pub const CURSOR: u64 = 0;
/// Where channels begin.
pub const CHANNELS: u64 = 1 << 62;
/// Where the numbers are another chain's.
pub const FOREIGN: u64 = 1 << 63;
/// Where they are of single records, beside all that is counted.
pub const SINGLE: u64 = u64::MAX - 0xffff;
/// In [`Purpose::Withdraw`]: all that is there when its turn comes.
pub const ALL: u128 = u128::MAX;

/// Steps that have ended stay in memory up to so many: what a person looks back at.
const MAX_ENDED: usize = 1_000;
/// Steps that have not: more is a fault, or an operator's script that runs wild.
const MAX_OPEN: usize = 1_000;

/// What a step is for. Amounts are units of the channel's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Let the contract take a deposit.
    Approve {
        /// The token.
        token: EvmAddress,
        /// How much.
        #[serde(with = "amount")]
        amount: u128,
        /// For which channel.
        channel: ChannelId,
    },
    /// Open a channel to a worker.
    Open {
        /// To whom.
        worker: NodeId,
        /// Whom it binds.
        terms: ChannelTerms,
        /// The deposit.
        #[serde(with = "amount")]
        amount: u128,
    },
    /// Add to a channel's deposit.
    TopUp {
        /// Which.
        channel: ChannelId,
        /// Its token.
        token: EvmAddress,
        /// How much.
        #[serde(with = "amount")]
        amount: u128,
    },
    /// Be paid what a voucher says.
    Redeem {
        /// Where.
        channel: ChannelId,
        /// The voucher's total.
        #[serde(with = "amount")]
        amount: u128,
        /// The voucher.
        voucher: ByteBuf,
    },
    /// Want out of a channel.
    StartExit {
        /// Which.
        channel: ChannelId,
    },
    /// Take what is left in it, after the worker's time.
    FinishExit {
        /// Which.
        channel: ChannelId,
    },
    /// End a channel at once, as both sides signed.
    Close {
        /// Which.
        channel: ChannelId,
        /// What its worker then has in all.
        #[serde(with = "amount")]
        amount: u128,
        /// The buyer's word.
        payer: EvmSignature,
        /// The worker's.
        payee: EvmSignature,
    },
    /// Send money away.
    Withdraw {
        /// To whom.
        to: EvmAddress,
        /// What; [`EvmAddress::ZERO`] for the chain's coin.
        token: EvmAddress,
        /// How much.
        #[serde(with = "amount")]
        amount: u128,
    },
}

impl Purpose {
    /// A short stable name.
    pub fn label(&self) -> &'static str {
        match self {
            Purpose::Approve { .. } => "approve",
            Purpose::Open { .. } => "open",
            Purpose::TopUp { .. } => "top_up",
            Purpose::Redeem { .. } => "redeem",
            Purpose::StartExit { .. } => "start_exit",
            Purpose::FinishExit { .. } => "finish_exit",
            Purpose::Close { .. } => "close",
            Purpose::Withdraw { .. } => "withdraw",
        }
    }

    /// On which channel.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Purpose::Open { terms, .. } => Some(terms.id()),
            Purpose::Approve { channel, .. }
            | Purpose::TopUp { channel, .. }
            | Purpose::Redeem { channel, .. }
            | Purpose::StartExit { channel }
            | Purpose::FinishExit { channel }
            | Purpose::Close { channel, .. } => Some(*channel),
            Purpose::Withdraw { .. } => None,
        }
    }

    /// How much it is about, if it is about an amount.
    pub fn amount(&self) -> Option<u128> {
        match self {
            Purpose::Approve { amount, .. }
            | Purpose::Open { amount, .. }
            | Purpose::TopUp { amount, .. }
            | Purpose::Redeem { amount, .. }
            | Purpose::Close { amount, .. }
            | Purpose::Withdraw { amount, .. } => Some(*amount),
            Purpose::StartExit { .. } | Purpose::FinishExit { .. } => None,
        }
    }

    /// Whether the owner asked for it, and can ask again; the rest the node wants by itself, for as long as it takes.
    pub fn is_asked_for(&self) -> bool {
        matches!(self, Purpose::Approve { .. } | Purpose::Open { .. } | Purpose::TopUp { .. } | Purpose::Withdraw { .. })
    }

    /// Whether there should not be both at once. A second redemption of a channel waits for the first, whatever it is about.
    fn is_same(&self, other: &Purpose) -> bool {
        match (self, other) {
            (Purpose::Redeem { channel: one, .. }, Purpose::Redeem { channel: two, .. }) => one == two,
            (Purpose::Open { worker: one, .. }, Purpose::Open { worker: two, .. }) => one == two,
            _ => self == other,
        }
    }

    /// The transaction; `None` if what was kept is no voucher.
    pub fn call(&self, contract: &Channels) -> Option<Call> {
        Some(match self {
            Purpose::Approve { token, amount, .. } => contract::approve(token, &contract.0, *amount),
            Purpose::Open { terms, amount, .. } => contract.open(&terms.payee, &terms.token, *amount, terms.salt),
            Purpose::TopUp { channel, token, amount } => contract.top_up(channel, token, *amount),
            Purpose::Redeem { voucher, .. } => contract.redeem(&UnverifiedVoucher::decode(voucher).ok()?.as_kept()),
            Purpose::StartExit { channel } => contract.start_exit(channel),
            Purpose::FinishExit { channel } => contract.finish_exit(channel),
            Purpose::Close { channel, amount, payer, payee } => contract.close(channel, *amount, payer, payee),
            Purpose::Withdraw { to, token, amount } if *token == EvmAddress::ZERO => {
                Call { to: Some(*to), value: *amount, data: Vec::new() }
            }
            Purpose::Withdraw { to, token, amount } => contract::transfer(token, to, *amount),
        })
    }
}

/// When a step is written to the journal. Whatever happens between two of these happens again after a crash, and does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Persist {
    /// It is wanted.
    Wanted,
    /// Its transaction has a nonce.
    Prepared,
    /// An attempt is signed and may be sent.
    Signed,
    /// The chain has it, or has it no more.
    Moved,
    /// It has ended.
    Ended,
}

impl Persist {
    /// All of them: a test crashes at each.
    pub const ALL: [Self; 5] = [Persist::Wanted, Persist::Prepared, Persist::Signed, Persist::Moved, Persist::Ended];
}

/// A chain's id and the address of `Channels` there: steps of another place wait until the node is back at it.
pub type Place = (u64, EvmAddress);

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub place: Place,
    /// With which account: that of the node's key. Older records don't say; they are of the key that there is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<EvmAddress>,
    /// What it is for.
    pub purpose: Purpose,
    /// Since when it is wanted.
    pub since: UnixMillis,
    /// Its transaction, once it has one.
    pub step: Option<Step>,
    /// Why it failed before anything was sent.
    pub refused: Option<String>,
    /// What had to be out of the way first: an allowance that was left over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clearing: Option<Step>,
}

impl Entry {
    /// Wanted since now.
    pub fn new(place: Place, account: EvmAddress, purpose: Purpose, since: UnixMillis) -> Self {
        Entry { place, account: Some(account), purpose, since, step: None, refused: None, clearing: None }
    }

    /// Whether `account` is to do it there. Another can't: what it signs has another place among its own transactions.
    pub fn is_of(&self, place: Place, account: EvmAddress) -> bool {
        self.place == place && self.account.is_none_or(|of| of == account)
    }

    /// Whether nothing more comes of it.
    pub fn is_done(&self) -> bool {
        self.refused.is_some() || self.step.as_ref().is_some_and(Step::is_done)
    }

    /// The transaction whose turn it is.
    pub fn turn(&self) -> Option<&Step> {
        self.clearing.as_ref().filter(|_| self.is_clearing()).or(self.step.as_ref())
    }

    /// That transaction has come so far.
    #[must_use]
    pub fn with(&self, step: Step) -> Self {
        let step = Some(step);
        if self.is_clearing() { Entry { clearing: step, ..self.clone() } } else { Entry { step, ..self.clone() } }
    }

    fn is_clearing(&self) -> bool {
        self.step.is_none() && self.clearing.as_ref().is_some_and(|step| !step.is_done())
    }

    /// How far it is, in a word for people.
    pub fn word(&self) -> &'static str {
        match self.step.as_ref().map(|step| step.stage) {
            _ if self.refused.is_some() => "failed",
            None | Some(Stage::Prepared) => "prepared",
            Some(Stage::Sent { .. } | Stage::Doubt { .. }) => "sent",
            Some(Stage::Mined { .. }) => "acknowledged",
            Some(Stage::Confirmed { .. }) => "settled",
            Some(Stage::Reverted { .. }) => "failed",
            Some(Stage::Replaced) => "replaced",
        }
    }

    /// Why it is so, where that helps.
    pub fn reason(&self) -> Option<String> {
        let by_stage = match self.step.as_ref()?.stage {
            Stage::Doubt { .. } => "another transaction with its number seems to be on the chain",
            Stage::Reverted { .. } => "the contract refused it; its gas is paid",
            Stage::Replaced => "another program with this key used its number; nothing was paid by it",
            _ => return None,
        };
        Some(by_stage.into())
    }

    /// At which point it was written last.
    pub fn at(&self) -> Persist {
        match self.step.as_ref().or(self.clearing.as_ref()) {
            _ if self.is_done() => Persist::Ended,
            None => Persist::Wanted,
            Some(Step { stage: Stage::Prepared, attempts, .. }) if attempts.is_empty() => Persist::Prepared,
            Some(Step { stage: Stage::Prepared, .. }) => Persist::Signed,
            Some(_) => Persist::Moved,
        }
    }

    /// What is written.
    pub fn record(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// What came of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It was wanted before, and is under way.
    Before(u64),
    /// It is to be kept.
    New(u64),
    /// Too much is under way.
    Full,
}

/// All steps that are open, and the last that are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    place: Place,
    account: EvmAddress,
    entries: BTreeMap<u64, Entry>,
    last: u64,
}

impl Steps {
    /// None yet.
    pub fn new(place: Place, account: EvmAddress) -> Self {
        Steps { place, account, entries: BTreeMap::new(), last: 0 }
    }

    /// What the journal tells of a place and an account, and how many of its records can't be read.
    pub fn recover(place: Place, account: EvmAddress, records: impl IntoIterator<Item = (u64, Vec<u8>)>) -> (Self, usize) {
        let (mut steps, mut unreadable) = (Steps::new(place, account), 0);
        for (number, record) in records {
            steps.last = steps.last.max(number);
            match codec::decode::<Entry>(&record) {
                Ok(entry) if entry.is_of(place, account) => steps.set(number, entry),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        (steps, unreadable)
    }

    /// Wants something, unless it is wanted already.
    pub fn want(&mut self, purpose: Purpose, now: UnixMillis) -> Wanted {
        let mut open = self.entries.iter().filter(|(_, entry)| !entry.is_done());
        if let Some((number, _)) = open.clone().find(|(_, entry)| entry.purpose.is_same(&purpose)) {
            return Wanted::Before(*number);
        }
        if open.nth(MAX_OPEN - 1).is_some() {
            return Wanted::Full;
        }
        self.last += 1;
        self.entries.insert(self.last, Entry::new(self.place, self.account, purpose, now));
        Wanted::New(self.last)
    }

    /// Whether the same has failed since then: it is too early to try again.
    pub fn failed_since(&self, purpose: &Purpose, since: UnixMillis) -> bool {
        let lately = self.entries.values().rev().take_while(|entry| entry.since >= since);
        lately.filter(|entry| entry.purpose.is_same(purpose)).any(|entry| entry.is_done() && entry.word() != "settled")
    }

    /// A wish that could not be kept is none.
    pub fn forget(&mut self, number: u64) {
        self.entries.remove(&number);
    }

    /// How a step is now.
    pub fn set(&mut self, number: u64, entry: Entry) {
        self.entries.insert(number, entry);
        let ended = || self.entries.iter().filter(|(_, entry)| entry.is_done());
        if ended().count() > MAX_ENDED
            && let Some(oldest) = ended().next().map(|(number, _)| *number)
        {
            self.entries.remove(&oldest);
        }
    }

    /// The step whose turn it is.
    pub fn next(&self) -> Option<(u64, Entry)> {
        self.entries.iter().find(|(_, entry)| !entry.is_done()).map(|(number, entry)| (*number, entry.clone()))
    }

    /// The nonce of this account's last transaction on a chain, as far as it is ours.
    pub fn last_nonce(&self, chain: u64) -> Option<u64> {
        let here = self.entries.values().filter(|entry| entry.place.0 == chain);
        here.flat_map(|entry| entry.clearing.iter().chain(&entry.step)).map(|step| step.nonce).max()
    }

    /// One step.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    /// All of them, in order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::evm::transaction::TxHash;

    const PLACE: Place = (5, EvmAddress([9; 20]));
    const US: EvmAddress = EvmAddress([2; 20]);

    fn redeem(channel: u8, amount: u128) -> Purpose {
        Purpose::Redeem { channel: ChannelId([channel; 32]), amount, voucher: ByteBuf::new() }
    }

    #[test]
    fn what_is_under_way_is_not_wanted_twice() {
        let (mut steps, now) = (Steps::new(PLACE, US), UnixMillis(1));
        assert_eq!(steps.want(redeem(1, 5), now), Wanted::New(1));
        assert_eq!(steps.want(redeem(1, 9), now), Wanted::Before(1), "a second redemption waits");
        assert_eq!(steps.want(redeem(2, 9), now), Wanted::New(2));
        assert_eq!(steps.next().map(|(number, _)| number), Some(1));
        let failed = Entry { refused: Some("no".into()), ..steps.get(1).expect("there").clone() };
        steps.set(1, failed.clone());
        assert_eq!((failed.word(), failed.at()), ("failed", Persist::Ended));
        assert_eq!(steps.next().map(|(number, _)| number), Some(2));
        assert_eq!(steps.want(redeem(1, 9), now), Wanted::New(3));
    }

    #[test]
    fn what_is_in_the_way_has_its_turn_first_and_is_no_end() {
        let call = || contract::approve(&EvmAddress([8; 20]), &PLACE.1, 0);
        let approve = Purpose::Approve { token: EvmAddress([8; 20]), amount: 5, channel: ChannelId([1; 32]) };
        let wanted = Entry::new(PLACE, US, approve, UnixMillis(1));
        let clearing = Entry { clearing: Some(Step::new(5, call(), 3, 50_000)), ..wanted.clone() };
        assert_eq!((clearing.turn().map(|step| step.nonce), clearing.at()), (Some(3), Persist::Prepared));
        let hash = TxHash([0; 32]);
        let cleared = clearing.with(Step { stage: Stage::Confirmed { hash, block: 1 }, ..Step::new(5, call(), 3, 50_000) });
        assert_eq!((cleared.turn(), cleared.is_done(), cleared.word()), (None, false, "prepared"));
        let own = Entry { step: Some(Step::new(5, call(), 4, 50_000)), ..cleared };
        assert_eq!((own.turn().map(|step| step.nonce), own.at()), (Some(4), Persist::Prepared));
        let done = own.with(Step { stage: Stage::Confirmed { hash, block: 2 }, ..Step::new(5, call(), 4, 50_000) });
        assert!(done.is_done() && done.clearing.is_some());
        for entry in [&wanted, &clearing, &done] {
            assert_eq!(codec::decode::<Entry>(&entry.record()).as_ref(), Ok(entry));
        }
    }

    #[test]
    fn the_journal_tells_all_of_it_again() {
        let mut steps = Steps::new(PLACE, US);
        let withdraw = Purpose::Withdraw { to: EvmAddress([1; 20]), token: EvmAddress::ZERO, amount: u128::MAX };
        steps.want(withdraw, UnixMillis(1));
        steps.want(redeem(1, 5), UnixMillis(2));
        let records: Vec<_> = steps.all().map(|(number, entry)| (number, entry.record())).collect();
        assert_eq!(Steps::recover(PLACE, US, records.clone()), (steps, 0));
        for (place, account) in [((6, PLACE.1), US), (PLACE, EvmAddress([3; 20]))] {
            let elsewhere = Steps::recover(place, account, records.clone());
            assert_eq!((elsewhere.0.next(), elsewhere.1), (None, 0), "another chain's or another key's steps wait");
        }
        let (mut some, unreadable) = Steps::recover(PLACE, US, [records[0].clone(), (7, vec![0xff])]);
        assert_eq!((unreadable, some.want(redeem(1, 5), UnixMillis(1))), (1, Wanted::New(8)), "no number is used twice");
    }

    #[test]
    fn memory_is_bounded_and_what_is_open_stays() {
        let mut steps = Steps::new(PLACE, US);
        steps.want(redeem(1, 1), UnixMillis(1));
        for number in 2..2 * MAX_ENDED as u64 {
            let purpose = Purpose::StartExit { channel: ChannelId([0; 32]) };
            steps.set(number, Entry { refused: Some("no".into()), ..Entry::new(PLACE, US, purpose, UnixMillis(1)) });
        }
        assert_eq!((steps.all().count(), steps.next().map(|(number, _)| number)), (MAX_ENDED + 1, Some(1)));
        let mut full = Steps::new(PLACE, US);
        for salt in 0..=MAX_OPEN {
            let purpose = Purpose::Withdraw { to: EvmAddress::ZERO, token: EvmAddress::ZERO, amount: salt as u128 };
            assert_eq!(full.want(purpose, UnixMillis(1)) == Wanted::Full, salt == MAX_OPEN);
        }
    }
}
