//! The tranches that this node has bought, as decisions: which is next, how far it is, what its worker is shown. **Pure**.
//!
//! There is one tranche at a time for each worker: the next is begun when the one before was shown to the worker and taken, so no
//! more than one is ever at stake. The two count them, 1, 2, 3 …; one that ended without paying gives its number to the next. One that
//! its worker refuses for good is dropped, and the next has a higher number: if the worker did count it, it still counts the next.
//!
//! A tranche is one step in the journal, and all tranches of a worker are the same one, so the journal does not grow with them.
//!
//! **Several in one transaction.** Tranches of several workers that are bought at once share an order and its payment, as far as they fit.
//! Each step has a copy of both, and what is signed is on disk in all of them before it is sent; after a crash they are made the same
//! first, by the longest. So each has all that may have been sent, and [`Book::running`] drives each order once.
//!
//! **What was not signed when the process ended is given up**: nothing of it can land, and whoever still wants it asks again. So what
//! could not be kept, and was told to be not bought, isn't paid after a restart.

use super::{
    payment::{Payment, Stage},
    transaction::{Order, Transfer, TxSignature},
};
use crate::settlement::steps::{FOREIGN, SINGLE};
use infernet_wire::{
    codec,
    id::NodeId,
    money::MicroUsd,
    solana::{Coin, SolanaTerms, tranche_hash},
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps in the journal from this number on are ours, up to [`SINGLE`].
pub const FIRST_STEP: u64 = FOREIGN;
/// Where the payee keeps the wallets that it has named.
pub const WALLETS_STEP: u64 = u64::MAX;
/// The newest withdrawal.
pub const WITHDRAWAL_STEP: u64 = WALLETS_STEP - 1;
/// Workers that tranches were bought of. A record takes about a kilobyte.
const MAX_WORKERS: usize = 4_096;

/// The newest tranche of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bought {
    /// Who is paid.
    pub worker: NodeId,
    /// Which it is between the two.
    pub number: u64,
    /// How much.
    pub amount: MicroUsd,
    /// What pays it.
    pub order: Order,
    /// How far that is.
    pub payment: Payment,
    /// Whether a job was opened with it, so that the worker has counted it.
    pub taken: bool,
    /// What the worker has taken before it.
    #[serde(default)]
    pub before: MicroUsd,
    /// Lamports for a dollar, if it is SOL.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<u64>,
    /// Whether it was written off, see [`Book::write_off`].
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dropped: bool,
}

/// A tranche that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Of whom.
    pub worker: NodeId,
    /// What its ad says.
    pub terms: SolanaTerms,
    /// How much.
    pub amount: MicroUsd,
}

/// A tranche and its step.
pub type Begun = (u64, Bought);

/// What is to be kept: a step's number, and its bytes.
pub type Step = (u64, Vec<u8>);

/// Why no tranche is begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// There is one already.
    #[error(
        "tranche {number} of {amount} to this worker is {state}: the next can be bought after a job has used it, or, if the worker \
         refuses it for good, after `infernet tranche drop` has written it off"
    )]
    Open {
        /// Which.
        number: u64,
        /// How much.
        amount: MicroUsd,
        /// How far it is, in words.
        state: &'static str,
    },
    /// Another coin than ours.
    #[error("the worker takes {theirs}, and this node pays in {ours}: see `solana_mint` and `solana_decimals`")]
    Coin {
        /// The worker's.
        theirs: Coin,
        /// Ours.
        ours: Coin,
    },
    /// The worker counts a SOL for less than we do.
    #[error(
        "the worker wants {theirs} lamports for a dollar, and this node gives {ours} at most: see `solana_rate`, or buy of another"
    )]
    Rate {
        /// What it wants.
        theirs: u64,
        /// What we give.
        ours: u64,
    },
    /// The worker would like more than we pay unasked.
    #[error(
        "the worker would like {theirs} at once, and this node pays {ours} unasked: name the dollars, or see `solana_tranche`"
    )]
    Dear {
        /// What it would like.
        theirs: MicroUsd,
        /// What we pay.
        ours: MicroUsd,
    },
    /// Nothing, or more than a transaction can move.
    #[error("a tranche of {0} can't be paid")]
    Amount(MicroUsd),
    /// Too many workers.
    #[error("tranches of {MAX_WORKERS} workers are kept: no more can be bought")]
    Full,
}

/// Why a tranche can't be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDropped {
    /// None was bought.
    #[error("no tranche was bought of this worker: see `infernet tranche list`")]
    Unknown,
    /// The newest is another.
    #[error("the newest tranche of this worker is {0}: see `infernet tranche list`")]
    Other(u64),
    /// Nothing is lost by it, or not yet known to be.
    #[error("tranche {number} is {state}: only one that is paid and waits for a job can be written off")]
    State {
        /// Which.
        number: u64,
        /// How far it is, in words.
        state: &'static str,
    },
}

/// Who buys, and in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// The network.
    pub network: NetworkId,
    /// Who buys.
    pub buyer: NodeId,
    /// In what; the most that is given for a dollar, if that is SOL.
    pub coin: Coin,
    /// The most that is paid at once if no amount is named: a worker's ad may ask for any.
    pub tranche: MicroUsd,
    /// The priority fee, see [`Order::unit_price`].
    pub unit_price: u64,
}

impl Means {
    /// What a worker with these terms is paid if no amount is named: what it would like, if that is not beyond ours.
    pub fn unasked(&self, terms: &SolanaTerms) -> Result<MicroUsd, NotBegun> {
        let (theirs, ours) = (terms.tranche, self.tranche);
        if theirs > ours { Err(NotBegun::Dear { theirs, ours }) } else { Ok(theirs) }
    }

    /// In what a worker with these terms is paid: at its rate, if that is not beyond ours.
    fn agreed(&self, terms: &SolanaTerms) -> Result<Coin, NotBegun> {
        match (terms.coin(), self.coin) {
            (Coin::Sol { rate: theirs }, Coin::Sol { rate: ours }) if theirs > ours => Err(NotBegun::Rate { theirs, ours }),
            (theirs @ Coin::Sol { .. }, Coin::Sol { .. }) => Ok(theirs),
            (theirs, ours) if theirs == ours => Ok(ours),
            (theirs, ours) => Err(NotBegun::Coin { theirs, ours }),
        }
    }
}

/// All of them; steps below the second are a former key's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book(BTreeMap<u64, Bought>, u64);

impl Book {
    /// What was kept of a buyer on a network; what was not signed is given up. Steps that can't be read are those of a newer version, and
    /// those of another buyer are of a former key: both are left alone. No worker can count those for us, whose memos name another.
    pub fn recover((network, buyer): (&NetworkId, &NodeId), steps: impl IntoIterator<Item = Step>) -> Self {
        let read = |(number, bytes): Step| Some((number, codec::decode::<Bought>(&bytes).ok()?));
        let all = steps.into_iter().filter(|(number, _)| (FIRST_STEP..SINGLE).contains(number)).filter_map(read);
        let (ours, others): (BTreeMap<_, _>, BTreeMap<_, _>) = all.partition(|(_, bought)| bought.is_of(network, buyer));
        let mut book = Book(ours, others.last_key_value().map_or(0, |(last, _)| last + 1));
        // It may have been told that they can't be kept, or the copies of others may be missing.
        let unsigned = book.running().into_iter().filter(|batch| payment_of(batch).attempts.is_empty());
        unsigned.flatten().for_each(|(step, bought)| book.give_up(step, bought));
        book
    }

    /// The newest tranche of a worker, and its step.
    pub fn of(&self, worker: &NodeId) -> Option<(u64, &Bought)> {
        self.0.iter().find(|(_, bought)| bought.worker == *worker).map(|(step, bought)| (*step, bought))
    }

    /// Those whose payments go on, by their transactions.
    pub fn running(&self) -> Vec<Vec<Begun>> {
        let mut all: Vec<Vec<Begun>> = Vec::new();
        for (step, bought) in self.0.iter().filter(|(_, bought)| !bought.payment.is_done()) {
            match all.iter_mut().find(|batch| batch.iter().any(|(_, other)| other.order == bought.order)) {
                Some(batch) => batch.push((*step, bought.clone())),
                None => all.push(vec![(*step, bought.clone())]),
            }
        }
        all
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Bought> {
        self.0.values()
    }

    /// What the next tranches of some workers would be, each with an order of its own; [`Book::put`] begins them. If one can't be
    /// begun, none is: whose that is, and why.
    pub fn next(&self, means: &Means, wanted: &[Wanted]) -> Result<Vec<Begun>, (NodeId, NotBegun)> {
        let mut free = self.0.last_key_value().map_or(FIRST_STEP, |(last, _)| last + 1).max(self.1);
        let mut begun: Vec<Begun> = Vec::new();
        for wanted in wanted {
            let next = self.next_of(means, wanted, free).map_err(|why| (wanted.worker, why))?;
            free = free.max(next.0 + 1);
            begun.push(next);
        }
        if self.0.len() + begun.iter().filter(|(step, _)| !self.0.contains_key(step)).count() > MAX_WORKERS {
            return Err((begun.last().map_or(means.buyer, |(_, last)| last.worker), NotBegun::Full));
        }
        Ok(begun)
    }

    fn next_of(&self, means: &Means, wanted: &Wanted, free: u64) -> Result<Begun, NotBegun> {
        let Wanted { worker, terms, amount } = *wanted;
        let coin = means.agreed(&terms)?;
        let moved = coin.units(amount).filter(|units| *units > 0).ok_or(NotBegun::Amount(amount))?;
        let (step, number, before) = match self.of(&worker) {
            None => (free, 1, MicroUsd(0)),
            Some((step, bought)) => {
                let (number, before) = bought.following()?;
                (step, number, before)
            }
        };
        let rate = coin.rate();
        let hash = tranche_hash(&means.network, &means.buyer, &worker, number, amount, rate).0;
        let asset = coin.into();
        let order =
            Order { transfers: vec![Transfer { to: terms.address, asset, amount: moved, hash }], unit_price: means.unit_price };
        Ok((
            step,
            Bought { worker, number, amount, order, payment: Payment::default(), taken: false, before, rate, dropped: false },
        ))
    }

    /// Begins a tranche, or tells how far it is. What is returned is to be kept.
    pub fn put(&mut self, step: u64, bought: Bought) -> Step {
        let bytes = codec::encode(&bought);
        self.0.insert(step, bought);
        (step, bytes)
    }

    /// Nothing of it was signed, and nothing ever is. That needs no record: [`Book::recover`] finds the same.
    pub fn give_up(&mut self, step: u64, bought: Bought) {
        let payment = Payment { stage: Stage::GivenUp, ..Payment::default() };
        self.0.insert(step, Bought { payment, ..bought });
    }

    /// What to show a worker: a tranche that is paid, and that no job was opened with yet.
    pub fn to_show(&self, worker: &NodeId) -> Option<(&Bought, TxSignature)> {
        let (_, bought) = self.of(worker)?;
        Some((bought, bought.paid_by().filter(|_| !bought.taken && !bought.dropped)?))
    }

    /// Writes off the newest tranche of a worker, which is paid, and which no job could be opened with: it is shown no more, and the
    /// next can be bought. What is returned is to be kept.
    pub fn write_off(&mut self, worker: &NodeId, number: u64) -> Result<Step, NotDropped> {
        let (step, bought) = self.of(worker).ok_or(NotDropped::Unknown)?;
        if bought.number != number {
            return Err(NotDropped::Other(bought.number));
        }
        if self.to_show(worker).is_none() {
            return Err(NotDropped::State { number, state: bought.state() });
        }
        let bought = Bought { dropped: true, ..bought.clone() };
        Ok(self.put(step, bought))
    }

    /// A job was opened with it. What is returned is to be kept; `None` if that is known, or it is another's.
    pub fn taken(&mut self, worker: &NodeId, number: u64) -> Option<Step> {
        let (step, bought) = self.of(worker).filter(|(_, bought)| bought.number == number && !bought.taken)?;
        let bought = Bought { taken: true, ..bought.clone() };
        Some(self.put(step, bought))
    }
}

impl Bought {
    /// Whether that buyer pays it, as its memo says.
    fn is_of(&self, network: &NetworkId, buyer: &NodeId) -> bool {
        let hash = tranche_hash(network, buyer, &self.worker, self.number, self.amount, self.rate).0;
        self.order.transfers.iter().any(|transfer| transfer.hash == hash)
    }

    /// The transaction that pays it, if it is paid.
    pub fn paid_by(&self) -> Option<TxSignature> {
        match &self.payment.stage {
            Stage::Finalized { signature, .. } => Some(*signature),
            _ => None,
        }
    }

    /// How far it is, in words.
    pub fn state(&self) -> &'static str {
        match &self.payment.stage {
            Stage::Finalized { .. } if self.taken => "taken",
            Stage::Finalized { .. } if self.dropped => "written off",
            Stage::Finalized { .. } => "paid and waiting for a job",
            Stage::Failed { .. } => "failed",
            Stage::GivenUp => "given up",
            _ => "on its way",
        }
    }

    /// What the worker was prepaid in all.
    pub fn prepaid(&self) -> MicroUsd {
        let this = self.paid_by().filter(|_| self.taken || !self.dropped).map_or(0, |_| self.amount.0);
        MicroUsd(self.before.0.saturating_add(this))
    }

    /// The number of the one after it, and what was taken by then.
    fn following(&self) -> Result<(u64, MicroUsd), NotBegun> {
        match &self.payment.stage {
            Stage::Failed { .. } | Stage::GivenUp => Ok((self.number, self.before)),
            Stage::Finalized { .. } if self.taken || self.dropped => Ok((self.number.saturating_add(1), self.prepaid())),
            _ => Err(NotBegun::Open { number: self.number, amount: self.amount, state: self.state() }),
        }
    }
}

/// Puts tranches into as few orders as `fits` lets, in their turn.
pub fn together(begun: Vec<Begun>, fits: impl Fn(&Order) -> bool) -> Vec<Vec<Begun>> {
    let mut all: Vec<(Order, Vec<Begun>)> = Vec::new();
    for (step, bought) in begun {
        let longer = |order: &Order| {
            let transfers = order.transfers.iter().chain(&bought.order.transfers).copied().collect();
            Order { transfers, ..*order }
        };
        match all.last_mut().and_then(|(order, batch)| Some((Some(longer(order)).filter(&fits)?, order, batch))) {
            Some((longer, order, batch)) => {
                *order = longer;
                batch.push((step, bought));
            }
            None => all.push((bought.order.clone(), vec![(step, bought)])),
        }
    }
    let share = |(order, batch): (Order, Vec<Begun>)| {
        batch.into_iter().map(|(step, bought)| (step, Bought { order: order.clone(), ..bought })).collect()
    };
    all.into_iter().map(share).collect()
}

/// The payment of tranches that share one: the longest copy, since each is kept before anything is sent.
pub fn payment_of(batch: &[Begun]) -> Payment {
    batch.iter().map(|(_, bought)| &bought.payment).max_by_key(|payment| payment.attempts.len()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::key::NodeKey;

    use super::super::{payment::Attempt, transaction::Blockhash};
    use infernet_wire::{solana::SolanaAddress, time::UnixMillis};
    use std::sync::LazyLock;

    const MINT: SolanaAddress = SolanaAddress([8; 32]);
    const TOKEN: Coin = Coin::Token { mint: MINT, decimals: 6 };
    const DOLLAR: MicroUsd = MicroUsd(1_000_000);

    fn node(n: u8) -> NodeId {
        NodeKey::from_bytes(&[n; 32]).expect("a key").id()
    }

    fn means() -> Means {
        Means { network: NetworkId::default(), buyer: node(1), coin: TOKEN, tranche: MicroUsd(50_000), unit_price: 0 }
    }

    fn us() -> (&'static NetworkId, &'static NodeId) {
        static US: LazyLock<Means> = LazyLock::new(means);
        (&US.network, &US.buyer)
    }

    fn terms() -> SolanaTerms {
        SolanaTerms {
            address: SolanaAddress([2; 32]),
            proof: None,
            mint: MINT,
            decimals: 6,
            tranche: MicroUsd(50_000),
            rate: None,
        }
    }

    fn next(book: &Book, means: &Means, worker: NodeId, terms: SolanaTerms, amount: MicroUsd) -> Result<Begun, NotBegun> {
        let begun = book.next(means, &[Wanted { worker, terms, amount }]).map_err(|(_, why)| why)?;
        Ok(begun.into_iter().next().expect("one"))
    }

    fn begun(book: &mut Book, worker: NodeId) -> u64 {
        let (step, bought) = next(book, &means(), worker, terms(), DOLLAR).expect("begun");
        book.put(step, bought);
        step
    }

    fn ends(book: &mut Book, step: u64, stage: Stage) {
        let mut bought = book.0.get(&step).expect("begun").clone();
        bought.payment.stage = stage;
        book.put(step, bought);
    }

    fn signs(book: &mut Book, step: u64) {
        let mut bought = book.0.get(&step).expect("begun").clone();
        bought.payment.signed(attempt(1));
        book.put(step, bought);
    }

    fn paid() -> Stage {
        Stage::Finalized { signature: TxSignature([5; 64]), slot: 9 }
    }

    #[test]
    fn the_next_tranche_begins_when_the_one_before_was_taken() {
        let (mut book, worker) = (Book::default(), node(2));
        let step = begun(&mut book, worker);
        let open = |book: &Book| next(book, &means(), worker, terms(), DOLLAR).map(|(_, next)| next.number);
        assert!(matches!(open(&book), Err(NotBegun::Open { number: 1, state: "on its way", .. })));
        assert_eq!(book.to_show(&worker), None);
        ends(&mut book, step, paid());
        assert!(matches!(open(&book), Err(NotBegun::Open { number: 1, .. })));
        assert_eq!(
            book.to_show(&worker).map(|(bought, paid_by)| (bought.number, bought.amount, paid_by)),
            Some((1, DOLLAR, TxSignature([5; 64])))
        );
        assert_eq!(book.taken(&worker, 2), None);
        assert!(book.taken(&worker, 1).is_some());
        assert_eq!((book.taken(&worker, 1), book.to_show(&worker), open(&book)), (None, None, Ok(2)));
        assert_eq!(begun(&mut book, worker), step, "the same step in the journal");
        assert_eq!(book.of(&worker).map(|(_, bought)| bought.prepaid()), Some(DOLLAR), "the second is not paid yet");
    }

    #[test]
    fn a_tranche_that_paid_nothing_gives_its_number_to_the_next() {
        for stage in [Stage::GivenUp, Stage::Failed { signature: TxSignature([5; 64]), reason: "no".into() }] {
            let (mut book, worker) = (Book::default(), node(2));
            let step = begun(&mut book, worker);
            ends(&mut book, step, stage);
            assert_eq!(next(&book, &means(), worker, terms(), DOLLAR).expect("begun").1.number, 1);
        }
    }

    #[test]
    fn a_tranche_that_is_refused_for_good_is_written_off_and_its_number_never_used_again() {
        let (mut book, worker) = (Book::default(), node(2));
        assert_eq!(book.write_off(&worker, 1), Err(NotDropped::Unknown));
        let step = begun(&mut book, worker);
        assert_eq!(book.write_off(&worker, 1), Err(NotDropped::State { number: 1, state: "on its way" }));
        ends(&mut book, step, paid());
        assert_eq!(book.write_off(&worker, 2), Err(NotDropped::Other(1)));
        let kept = book.write_off(&worker, 1).expect("dropped");
        let again = Book::recover(us(), [kept]);
        assert_eq!((&again, again.to_show(&worker)), (&book, None));
        assert_eq!(again.of(&worker).map(|(_, bought)| (bought.state(), bought.prepaid())), Some(("written off", MicroUsd(0))));
        assert_eq!(book.write_off(&worker, 1), Err(NotDropped::State { number: 1, state: "written off" }));
        // A job that was on its way with it has been opened after all.
        let mut taken = again;
        assert!(taken.taken(&worker, 1).is_some());
        assert_eq!(taken.of(&worker).map(|(_, bought)| (bought.state(), bought.prepaid())), Some(("taken", DOLLAR)));
        begun(&mut book, worker);
        assert_eq!(
            book.of(&worker).map(|(_, bought)| (bought.number, bought.before, bought.dropped)),
            Some((2, MicroUsd(0), false))
        );
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let mut book = Book::default();
        let (one, two) = (begun(&mut book, node(2)), begun(&mut book, node(3)));
        assert_ne!(one, two);
        ends(&mut book, one, paid());
        signs(&mut book, two);
        let kept: Vec<Step> = book.0.iter().map(|(step, bought)| (*step, codec::encode(bought))).collect();
        // Steps of other chains, and of newer versions.
        let others = [(1, kept[0].1.clone()), (FIRST_STEP + 9, vec![0xff])];
        let again = Book::recover(us(), kept.into_iter().chain(others));
        assert_eq!((&again, again.running().len()), (&book, 1));
    }

    #[test]
    fn a_former_keys_tranches_are_neither_shown_nor_paid_nor_written_over() {
        let mut book = Book::default();
        let (one, two) = (begun(&mut book, node(2)), begun(&mut book, node(3)));
        ends(&mut book, one, paid());
        signs(&mut book, two);
        let other = node(9);
        let mut again = Book::recover((us().0, &other), kept(&book));
        assert_eq!((again.all().count(), again.running().len(), again.to_show(&node(2))), (0, 0, None));
        assert!(begun(&mut again, node(2)) > one.max(two));
    }

    fn in_sol(rate: u64) -> SolanaTerms {
        SolanaTerms { mint: SolanaAddress::SOL, decimals: 9, rate: Some(rate), ..terms() }
    }

    #[test]
    fn sol_is_paid_at_the_workers_rate_up_to_ours() {
        let means = Means { coin: Coin::Sol { rate: 7_000_000 }, ..means() };
        let next = |terms| next(&Book::default(), &means, node(2), terms, DOLLAR).map(|(_, bought)| bought);
        let paid = |rate| next(in_sol(rate)).map(|bought| (bought.order.transfers[0].amount, bought.rate));
        assert_eq!(paid(6_500_000), Ok((6_500_000, Some(6_500_000))));
        assert_eq!(paid(7_000_000), Ok((7_000_000, Some(7_000_000))));
        assert_eq!(paid(7_000_001), Err(NotBegun::Rate { theirs: 7_000_001, ours: 7_000_000 }));
        assert!(matches!(next(terms()), Err(NotBegun::Coin { .. })));
        let hash = |rate| next(in_sol(rate)).map(|bought| bought.order.transfers[0].hash);
        assert_ne!(hash(6_500_000), hash(6_500_001), "the rate is in the memo");
    }

    #[test]
    fn unasked_a_worker_is_paid_no_more_than_our_own_tranche() {
        let of = |micro: u64| means().unasked(&SolanaTerms { tranche: MicroUsd(micro), ..terms() });
        assert_eq!((of(1), of(50_000)), (Ok(MicroUsd(1)), Ok(MicroUsd(50_000))));
        assert_eq!(of(50_001), Err(NotBegun::Dear { theirs: MicroUsd(50_001), ours: MicroUsd(50_000) }));
    }

    #[test]
    fn another_token_or_amount_than_can_be_paid_is_refused() {
        let next = |terms, amount| next(&Book::default(), &means(), node(2), terms, amount).map(drop);
        let other = SolanaTerms { mint: SolanaAddress([9; 32]), ..terms() };
        assert!(matches!(next(other, DOLLAR), Err(NotBegun::Coin { .. })));
        assert!(matches!(next(SolanaTerms { decimals: 9, ..terms() }, DOLLAR), Err(NotBegun::Coin { .. })));
        assert!(matches!(next(in_sol(5), DOLLAR), Err(NotBegun::Coin { .. })));
        assert_eq!(next(terms(), MicroUsd(0)), Err(NotBegun::Amount(MicroUsd(0))));
    }

    /// Three tranches, at most two in an order.
    fn batched(book: &mut Book) -> Vec<Vec<Begun>> {
        let wanted = [2, 3, 4].map(|n| Wanted { worker: node(n), terms: terms(), amount: DOLLAR });
        let begun = book.next(&means(), &wanted).expect("begun");
        let batches = together(begun, |order| order.transfers.len() <= 2);
        batches.iter().flatten().cloned().for_each(|(step, bought)| drop(book.put(step, bought)));
        batches
    }

    fn kept(book: &Book) -> Vec<Step> {
        book.0.iter().map(|(step, bought)| (*step, codec::encode(bought))).collect()
    }

    fn attempt(n: u8) -> Attempt {
        let (signature, at) = (TxSignature([n; 64]), UnixMillis(1));
        Attempt { signature, blockhash: Blockhash([n; 32]), last_valid: 9, at, raw: vec![n] }
    }

    #[test]
    fn several_share_a_transaction_as_far_as_they_fit() {
        let mut book = Book::default();
        let batches = batched(&mut book);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let hashes = |batch: &[Begun]| batch[0].1.order.transfers.iter().map(|transfer| transfer.hash).collect::<Vec<_>>();
        assert_eq!((hashes(&batches[0]).len(), hashes(&batches[1]).len()), (2, 1));
        assert_eq!(batches[0][0].1.order, batches[0][1].1.order);
        assert_eq!(book.running(), batches, "each order is driven once");
        batches.iter().flatten().for_each(|(step, _)| signs(&mut book, *step));
        assert_eq!(Book::recover(us(), kept(&book)).running(), book.running(), "after a restart too");
        // If one can't be begun, none is.
        let wanted = [5, 2].map(|n| Wanted { worker: node(n), terms: terms(), amount: DOLLAR });
        assert!(matches!(book.next(&means(), &wanted), Err((worker, NotBegun::Open { .. })) if worker == node(2)));
    }

    #[test]
    fn what_was_not_signed_is_given_up_after_a_restart() {
        let mut book = Book::default();
        let batches = batched(&mut book);
        signs(&mut book, batches[1][0].0);
        let all = kept(&book);
        // All are there, or one of the copies that could not be kept is missing.
        for lost in [None, Some(0), Some(1)] {
            let some = all.iter().enumerate().filter(|(at, _)| Some(*at) != lost).map(|(_, step)| step.clone());
            let again = Book::recover(us(), some);
            let running: Vec<u64> = again.running().iter().flatten().map(|(step, _)| *step).collect();
            assert_eq!(running, [batches[1][0].0], "the one that was signed, without {lost:?}");
            assert!(next(&again, &means(), node(2), terms(), DOLLAR).is_ok_and(|(_, bought)| bought.number == 1));
        }
    }

    #[test]
    fn a_copy_of_a_batch_that_has_ended_does_not_stand_for_one_that_is_missing() {
        let mut book = Book::default();
        let order = |batches: Vec<Vec<Begun>>| batches[0][0].1.order.clone();
        let (first, failed) =
            (order(batched(&mut book)), Stage::Failed { signature: TxSignature([1; 64]), reason: "no".into() });
        for step in kept(&book).iter().map(|(step, _)| *step) {
            signs(&mut book, step);
            ends(&mut book, step, failed.clone());
        }
        let ended = kept(&book);
        assert_eq!(order(batched(&mut book)), first, "the same workers, at the same amounts");
        let again = Book::recover(us(), [kept(&book)[0].clone(), ended[1].clone(), ended[2].clone()]);
        assert!(again.running().is_empty(), "{again:?}");
    }

    #[test]
    fn of_copies_that_differ_the_longest_is_driven() {
        let mut book = Book::default();
        let first = batched(&mut book)[0][0].0;
        let second = book.running()[0][1].0;
        signs(&mut book, second);
        let again = Book::recover(us(), kept(&book));
        let batch = &again.running()[0];
        assert_eq!(batch.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [first, second]);
        assert_eq!(payment_of(batch).attempts, [attempt(1)]);
        // One that has ended is left alone, and the other goes on with what it has.
        let mut book = again;
        ends(&mut book, first, paid());
        assert_eq!(book.running()[0].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [second]);
    }
}
