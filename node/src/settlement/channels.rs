//! The payment channels of this node, as the chain has them: the book that jobs are taken and paid against. Whoever watches the chain
//! writes it; nothing here asks one.

use super::tab::units;
use infernet_wire::{
    evm::EvmAddress,
    id::{ChannelId, NodeId},
    money::MicroUsd,
    settle::{EvmTerms, PaidOn},
    voucher::{ChannelTerms, Voucher},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Channels in the book; one takes some two hundred bytes, and each is asked for on the chain every few minutes. Anybody can open one to
/// us, for a cent and what its transaction costs: when the book is full a larger deposit takes the place of one that nobody needs, so that
/// who wants to keep others out must deposit more than they do, four thousand times.
pub const MAX_CHANNELS: usize = 4_096;
/// Deposits below it are not worth the gas to redeem them, and do not get into the book.
pub const MIN_DEPOSIT: MicroUsd = MicroUsd(10_000);

/// [`MIN_DEPOSIT`] in units, at `rate` for a micro-USD.
pub fn least(rate: u128) -> u128 {
    units(MIN_DEPOSIT, rate)
}

/// A channel of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Whom it binds.
    pub terms: ChannelTerms,
    /// All that was ever deposited, as deep in the chain as is believed.
    pub deposit: u128,
    /// All that was ever redeemed.
    pub redeemed: u128,
    /// When its payer may take the rest, in seconds since 1970, by the newest block; 0 while nobody wants out.
    pub exit_at: u64,
    /// Both sides have signed its end: no more jobs on it.
    pub closing: bool,
}

impl Known {
    /// Whether jobs may run on it.
    pub fn is_open(&self) -> bool {
        self.exit_at == 0 && !self.closing
    }

    /// What jobs may still be paid from it.
    pub fn left(&self) -> u128 {
        if self.is_open() { self.deposit.saturating_sub(self.redeemed) } else { 0 }
    }

    /// Its part of an ad or an agreement, at `rate`.
    fn paid_on(&self, rate: u128) -> PaidOn {
        PaidOn { chain: self.terms.chain, contract: self.terms.contract, channel: self.terms.id(), rate }
    }
}

/// Why a job can't be paid on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChannel {
    /// This worker is on no chain, or on another one.
    #[error("this worker takes no vouchers of that chain, contract or token; its ad says which it takes")]
    NotTaken,
    /// It is not there, or not deep enough.
    #[error(
        "this worker does not know that channel: a new one counts when its deposit is some blocks deep; try again in a minute, or \
         deposit more if it stays so: a worker whose book is full keeps the larger ones"
    )]
    Unknown,
    /// It is of somebody else.
    #[error("that channel is not between these two nodes")]
    NotOurs,
    /// Its payer is on the way out, or it is closed.
    #[error("that channel is being closed; open another one (`infernet wallet deposit`)")]
    Closing,
    /// The accept says less than the ad.
    #[error("the accept says {found} units for a micro-USD, and the ad of this worker {wanted}")]
    Rate {
        /// What it says.
        found: u128,
        /// What it must be at least.
        wanted: u128,
    },
}

impl BadChannel {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            BadChannel::NotTaken => "chain",
            BadChannel::Unknown => "unknown_channel",
            BadChannel::NotOurs => "foreign_channel",
            BadChannel::Closing => "closing_channel",
            BadChannel::Rate { .. } => "rate",
        }
    }
}

/// All of `map`, from behind `asked` on and around, so that each has its turn.
pub(super) fn turn<V>(map: &BTreeMap<ChannelId, V>, asked: Option<ChannelId>) -> impl Iterator<Item = (&ChannelId, &V)> {
    let after = map.range((asked.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    after.chain(asked.map(|asked| map.range(..=asked)).into_iter().flatten())
}

/// Which of the book of `us` makes room for `newcomer`: of those that others opened, and that are not needed, the one with the least left,
/// if that is less than the newcomer has. What we opened ourselves never makes room, and always gets some.
fn gives_way<'a>(
    us: &EvmAddress,
    book: impl IntoIterator<Item = (&'a ChannelId, &'a Known)>,
    newcomer: &Known,
    is_needed: impl Fn(&ChannelId, &Known) -> bool,
) -> Option<ChannelId> {
    let is_ours = |known: &Known| known.terms.payer == *us;
    let others = book.into_iter().filter(|(id, known)| !is_ours(known) && !is_needed(id, known));
    let (id, least) = others.min_by_key(|(_, known)| known.left())?;
    (is_ours(newcomer) || least.left() < newcomer.left()).then_some(*id)
}

/// The book; cheap to clone.
#[derive(Debug, Clone)]
pub struct Channels {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    us: EvmAddress,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    means: Option<EvmTerms>,
    known: BTreeMap<ChannelId, Known>,
}

impl Book {
    fn is_worth_it(&self, known: &Known) -> bool {
        let rate = self.means.map_or(1, |means| means.rate);
        known.deposit >= least(rate)
    }
}

impl Channels {
    /// The empty book of `us`, who settles on no chain yet.
    pub fn new(us: EvmAddress) -> Self {
        Channels { shared: Arc::new(Shared { us, book: Mutex::default() }) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is complete before the lock is given back.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our address.
    pub fn us(&self) -> EvmAddress {
        self.shared.us
    }

    /// In what this node pays and is paid; `None`: not on a chain, or its chain's node has not shown the right contract yet.
    pub fn means(&self) -> Option<EvmTerms> {
        self.book().means
    }

    /// From now on in this.
    pub fn set_means(&self, means: Option<EvmTerms>) {
        self.book().means = means;
    }

    /// News of a channel. Whether there is room for it: what is worth less than [`MIN_DEPOSIT`] has none, nor has what is beyond
    /// [`MAX_CHANNELS`].
    pub fn put(&self, known: Known) -> bool {
        let mut book = self.book();
        let id = known.terms.id();
        if let Some(old) = book.known.get_mut(&id) {
            *old = Known { closing: old.closing || known.closing, ..known };
            return true;
        }
        let fits = book.is_worth_it(&known) && book.known.len() < MAX_CHANNELS;
        if fits {
            book.known.insert(id, known);
        }
        fits
    }

    /// The channel that makes room for `newcomer`, if the book is full and there is one: it is not needed, and smaller. Nothing changes.
    pub fn gives_way(&self, newcomer: &Known, is_needed: impl Fn(&ChannelId, &Known) -> bool) -> Option<ChannelId> {
        let book = self.book();
        let full = book.known.len() >= MAX_CHANNELS && book.is_worth_it(newcomer);
        full.then(|| gives_way(&self.shared.us, &book.known, newcomer, is_needed)).flatten()
    }

    /// It is closed for ever, or was never there.
    pub fn remove(&self, id: &ChannelId) {
        self.book().known.remove(id);
    }

    /// No more jobs run on it: its end is signed. Whether it was open.
    pub fn close(&self, id: &ChannelId) -> bool {
        let mut book = self.book();
        let Some(known) = book.known.get_mut(id) else { return false };
        !std::mem::replace(&mut known.closing, true)
    }

    /// One channel.
    pub fn get(&self, id: &ChannelId) -> Option<Known> {
        self.book().known.get(id).copied()
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Known> {
        self.book().known.values().copied().collect()
    }

    /// Open channels that `us` and `other` have; who pays is told by their addresses. An address takes its time to find, and most
    /// nodes are on no chain.
    fn between(&self, other: &NodeId, sides: impl FnOnce(EvmAddress, EvmAddress) -> (EvmAddress, EvmAddress)) -> Vec<Known> {
        let Some(means) = self.means() else { return Vec::new() };
        let sides = sides(self.shared.us, other.evm_address());
        let book = self.book();
        let ours = |known: &&Known| {
            let ChannelTerms { chain, contract, token, .. } = known.terms;
            (chain, contract, token) == (means.chain, means.contract, means.token)
                && (known.terms.payer, known.terms.payee) == sides
                && known.is_open()
        };
        book.known.values().filter(ours).copied().collect()
    }

    /// Those on which we can pay `worker`, the one with the largest deposit first.
    pub fn to(&self, worker: &NodeId) -> Vec<Known> {
        let mut open = self.between(worker, |us, worker| (us, worker));
        open.sort_by_key(|known| std::cmp::Reverse(known.deposit));
        open
    }

    /// Those on which `buyer` can pay us.
    pub fn from(&self, buyer: &NodeId) -> Vec<Known> {
        self.between(buyer, |us, buyer| (buyer, us))
    }

    /// The channel of a voucher of `buyer`, for a job whose accept says `rate`.
    pub fn check(&self, buyer: &EvmAddress, claim: &Voucher, rate: u128) -> Result<(Known, PaidOn), BadChannel> {
        let means = self.means().ok_or(BadChannel::NotTaken)?;
        if (claim.chain, claim.contract) != (means.chain, means.contract) {
            return Err(BadChannel::NotTaken);
        }
        let known = self.get(&claim.channel).ok_or(BadChannel::Unknown)?;
        let ChannelTerms { chain, contract, token, payer, payee, .. } = known.terms;
        if (chain, contract, token) != (means.chain, means.contract, means.token) {
            return Err(BadChannel::NotTaken);
        }
        if (payer, payee) != (*buyer, self.shared.us) {
            return Err(BadChannel::NotOurs);
        }
        if !known.is_open() {
            return Err(BadChannel::Closing);
        }
        if rate < means.rate {
            return Err(BadChannel::Rate { found: rate, wanted: means.rate });
        }
        Ok((known, known.paid_on(rate)))
    }

    /// Where a job of `worker` can be paid from, at the rate that its accept says: open channels, the best first.
    pub fn sources(&self, worker: &NodeId, rate: u128) -> Vec<(Known, PaidOn)> {
        self.to(worker).into_iter().map(|known| (known, known.paid_on(rate))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{id::JobId, key::NodeKey};

    const CONTRACT: EvmAddress = EvmAddress([9; 20]);
    const MEANS: EvmTerms = EvmTerms { chain: 5, contract: CONTRACT, token: EvmAddress([8; 20]), rate: 2 };

    fn key(n: u8) -> NodeId {
        NodeKey::from_bytes(&[n; 32]).expect("a key").id()
    }

    fn known(payer: &NodeId, payee: &NodeId, salt: u8) -> Known {
        let (payer, payee) = (payer.evm_address(), payee.evm_address());
        let terms = ChannelTerms { chain: 5, contract: CONTRACT, payer, payee, token: MEANS.token, salt: [salt; 32] };
        Known { terms, deposit: 1_000_000, redeemed: 0, exit_at: 0, closing: false }
    }

    fn book() -> (Channels, NodeId, NodeId) {
        let (us, buyer) = (key(1), key(2));
        let channels = Channels::new(us.evm_address());
        channels.set_means(Some(MEANS));
        (channels, us, buyer)
    }

    #[test]
    fn a_voucher_is_taken_on_an_open_channel_of_these_two_at_the_rate_of_the_ad() {
        let (channels, us, buyer) = book();
        let (ours, others) = (known(&buyer, &us, 1), known(&key(3), &us, 1));
        assert!(channels.put(ours) && channels.put(others));
        let claim = |known: &Known| Voucher {
            chain: known.terms.chain,
            contract: known.terms.contract,
            channel: known.terms.id(),
            job: JobId([1; 16]),
            amount: 1,
        };
        let check = |claim: Voucher, rate| channels.check(&buyer.evm_address(), &claim, rate).map(|(known, _)| known);
        assert_eq!(check(claim(&ours), 2), Ok(ours));
        assert_eq!(check(claim(&ours), 1), Err(BadChannel::Rate { found: 1, wanted: 2 }));
        assert_eq!(check(claim(&others), 2), Err(BadChannel::NotOurs));
        assert_eq!(check(claim(&known(&buyer, &us, 7)), 2), Err(BadChannel::Unknown));
        assert_eq!(check(Voucher { chain: 6, ..claim(&ours) }, 2), Err(BadChannel::NotTaken));
        assert_eq!(check(Voucher { contract: EvmAddress([1; 20]), ..claim(&ours) }, 2), Err(BadChannel::NotTaken));
        channels.put(Known { exit_at: 99, ..ours });
        assert_eq!(check(claim(&ours), 2), Err(BadChannel::Closing));
        channels.put(ours);
        assert!(channels.close(&ours.terms.id()) && !channels.close(&ours.terms.id()));
        channels.put(ours);
        assert_eq!(check(claim(&ours), 2), Err(BadChannel::Closing), "news of the chain don't open what is signed away");
        channels.set_means(None);
        assert_eq!(check(claim(&ours), 2), Err(BadChannel::NotTaken));
    }

    #[test]
    fn the_book_is_bounded_and_takes_no_dust() {
        let (channels, us, buyer) = book();
        assert!(!channels.put(Known { deposit: 19_999, ..known(&buyer, &us, 1) }));
        for salt in 0..=MAX_CHANNELS {
            let mut channel = known(&buyer, &us, 0);
            channel.terms.salt[..8].copy_from_slice(&(salt as u64).to_be_bytes());
            assert_eq!(channels.put(channel), salt < MAX_CHANNELS);
        }
    }

    #[test]
    fn the_smallest_that_nobody_needs_makes_room_for_a_larger_one() {
        let (us, buyer) = (key(1), key(2));
        let of = |deposit, salt| Known { deposit, ..known(&buyer, &us, salt) };
        let [small, middle, large] = [of(20, 1), of(30, 2), of(40, 3)];
        let ours = Known { deposit: 1, ..known(&us, &buyer, 4) };
        let spent = Known { redeemed: 89, ..of(99, 5) };
        let leaving = Known { exit_at: 7, ..of(99, 6) };
        let goes = |book: &[Known], newcomer: &Known, needed: &[Known]| {
            let book: BTreeMap<_, _> = book.iter().map(|known| (known.terms.id(), *known)).collect();
            let is_needed = |id: &ChannelId, _: &Known| needed.iter().any(|known| known.terms.id() == *id);
            let id = gives_way(&us.evm_address(), &book, newcomer, is_needed)?;
            book.get(&id).copied()
        };
        let book = [large, small, middle];
        assert_eq!(goes(&book, &of(21, 9), &[]), Some(small));
        assert_eq!(goes(&book, &of(20, 9), &[]), None, "no larger");
        assert_eq!(goes(&book, &of(41, 9), &[small]), Some(middle), "the smallest is needed");
        assert_eq!(goes(&book, &of(99, 9), &book), None, "all are");
        assert_eq!(goes(&[ours], &of(99, 9), &[]), None, "our own stays");
        assert_eq!(goes(&book, &Known { deposit: 1, ..known(&us, &buyer, 9) }, &[]), Some(small), "and gets room");
        assert_eq!(goes(&[small, spent], &of(15, 9), &[]), Some(spent), "what is spent does not count");
        assert_eq!(goes(&[small, leaving], &of(15, 9), &[]), Some(leaving), "nor what is on its way out");
        assert_eq!(goes(&[small], &Known { closing: true, ..of(99, 9) }, &[]), None, "of the newcomer either");
    }

    #[test]
    fn the_largest_deposit_is_used_first_and_no_channel_of_another_token() {
        let (channels, us, worker) = book();
        let small = known(&us, &worker, 1);
        let large = Known { deposit: 2_000_000, ..known(&us, &worker, 2) };
        let mut other = known(&us, &worker, 3);
        other.terms.token = EvmAddress::ZERO;
        [small, large, other].into_iter().for_each(|known| assert!(channels.put(known)));
        assert_eq!(channels.to(&worker), [large, small]);
        assert_eq!(channels.from(&worker), []);
    }
}
