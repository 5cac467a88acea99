//! The tranches that this node has bought, as decisions: which is next, how far it is, what its worker is shown. **Pure**.
//!
//! There is one tranche at a time for each worker: the next is begun when the one before was shown to the worker and taken, so no
//! more than one is ever at stake. The two count them, 1, 2, 3 …; one that ended without paying gives its number to the next.
//!
//! A tranche is one step in the journal, and all tranches of a worker are the same one, so the journal does not grow with them.

use super::{
    payment::{Payment, Stage},
    transaction::{Order, Transfer, TxSignature},
};
use crate::settlement::steps::FOREIGN;
use infernet_wire::{
    codec,
    id::NodeId,
    money::MicroUsd,
    solana::{Coin, SolanaTerms, tranche_hash},
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps in the journal from this number on are ours.
pub const FIRST_STEP: u64 = FOREIGN;
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
}

/// What is to be kept: a step's number, and its bytes.
pub type Step = (u64, Vec<u8>);

/// Why no tranche is begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// There is one already.
    #[error("tranche {number} of {amount} to this worker is {state}: the next can be bought after a job has used it")]
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
    /// Nothing, or more than a transaction can move.
    #[error("a tranche of {0} can't be paid")]
    Amount(MicroUsd),
    /// Too many workers.
    #[error("tranches of {MAX_WORKERS} workers are kept: no more can be bought")]
    Full,
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
    /// The priority fee, see [`Order::unit_price`].
    pub unit_price: u64,
}

impl Means {
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

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book(BTreeMap<u64, Bought>);

impl Book {
    /// What was kept. Steps that can't be read are those of a newer version, and are left alone.
    pub fn recover(steps: impl IntoIterator<Item = Step>) -> Self {
        let read = |(number, bytes): Step| Some((number, codec::decode::<Bought>(&bytes).ok()?));
        Book(steps.into_iter().filter(|(number, _)| *number >= FIRST_STEP).filter_map(read).collect())
    }

    /// The newest tranche of a worker, and its step.
    pub fn of(&self, worker: &NodeId) -> Option<(u64, &Bought)> {
        self.0.iter().find(|(_, bought)| bought.worker == *worker).map(|(step, bought)| (*step, bought))
    }

    /// Those whose payments go on.
    pub fn running(&self) -> Vec<(u64, Bought)> {
        self.0.iter().filter(|(_, bought)| !bought.payment.is_done()).map(|(step, bought)| (*step, bought.clone())).collect()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Bought> {
        self.0.values()
    }

    /// What the next tranche of a worker would be; [`Book::put`] begins it.
    pub fn next(
        &self,
        means: &Means,
        worker: NodeId,
        terms: &SolanaTerms,
        amount: MicroUsd,
    ) -> Result<(u64, Bought), NotBegun> {
        let coin = means.agreed(terms)?;
        let moved = coin.units(amount).filter(|units| *units > 0).ok_or(NotBegun::Amount(amount))?;
        let (step, number, before) = match self.of(&worker) {
            None if self.0.len() >= MAX_WORKERS => return Err(NotBegun::Full),
            None => (self.0.last_key_value().map_or(FIRST_STEP, |(last, _)| last + 1), 1, MicroUsd(0)),
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
        Ok((step, Bought { worker, number, amount, order, payment: Payment::default(), taken: false, before, rate }))
    }

    /// Begins a tranche, or tells how far it is. What is returned is to be kept.
    pub fn put(&mut self, step: u64, bought: Bought) -> Step {
        let bytes = codec::encode(&bought);
        self.0.insert(step, bought);
        (step, bytes)
    }

    /// What to show a worker: a tranche that is paid, and that no job was opened with yet.
    pub fn to_show(&self, worker: &NodeId) -> Option<(&Bought, TxSignature)> {
        let (_, bought) = self.of(worker)?;
        Some((bought, bought.paid_by().filter(|_| !bought.taken)?))
    }

    /// A job was opened with it. What is returned is to be kept; `None` if that is known, or it is another's.
    pub fn taken(&mut self, worker: &NodeId, number: u64) -> Option<Step> {
        let (step, bought) = self.of(worker).filter(|(_, bought)| bought.number == number && !bought.taken)?;
        let bought = Bought { taken: true, ..bought.clone() };
        Some(self.put(step, bought))
    }
}

impl Bought {
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
            Stage::Finalized { .. } => "paid and waiting for a job",
            Stage::Failed { .. } => "failed",
            Stage::GivenUp => "given up",
            _ => "on its way",
        }
    }

    /// What the worker was prepaid in all.
    pub fn prepaid(&self) -> MicroUsd {
        let this = self.paid_by().map_or(0, |_| self.amount.0);
        MicroUsd(self.before.0.saturating_add(this))
    }

    /// The number of the one after it, and what was taken by then.
    fn following(&self) -> Result<(u64, MicroUsd), NotBegun> {
        match &self.payment.stage {
            Stage::Failed { .. } | Stage::GivenUp => Ok((self.number, self.before)),
            Stage::Finalized { .. } if self.taken => Ok((self.number.saturating_add(1), self.prepaid())),
            _ => Err(NotBegun::Open { number: self.number, amount: self.amount, state: self.state() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::key::NodeKey;

    use infernet_wire::solana::SolanaAddress;

    const MINT: SolanaAddress = SolanaAddress([8; 32]);
    const TOKEN: Coin = Coin::Token { mint: MINT, decimals: 6 };
    const DOLLAR: MicroUsd = MicroUsd(1_000_000);

    fn node(n: u8) -> NodeId {
        NodeKey::from_bytes(&[n; 32]).expect("a key").id()
    }

    fn means() -> Means {
        Means { network: NetworkId::default(), buyer: node(1), coin: TOKEN, unit_price: 0 }
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

    fn begun(book: &mut Book, worker: NodeId) -> u64 {
        let (step, bought) = book.next(&means(), worker, &terms(), DOLLAR).expect("begun");
        book.put(step, bought);
        step
    }

    fn ends(book: &mut Book, step: u64, stage: Stage) {
        let mut bought = book.0.get(&step).expect("begun").clone();
        bought.payment.stage = stage;
        book.put(step, bought);
    }

    fn paid() -> Stage {
        Stage::Finalized { signature: TxSignature([5; 64]), slot: 9 }
    }

    #[test]
    fn the_next_tranche_begins_when_the_one_before_was_taken() {
        let (mut book, worker) = (Book::default(), node(2));
        let step = begun(&mut book, worker);
        let open = |book: &Book| book.next(&means(), worker, &terms(), DOLLAR).map(|(_, next)| next.number);
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
            assert_eq!(book.next(&means(), worker, &terms(), DOLLAR).expect("begun").1.number, 1);
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let mut book = Book::default();
        let (one, two) = (begun(&mut book, node(2)), begun(&mut book, node(3)));
        assert_ne!(one, two);
        ends(&mut book, one, paid());
        let kept: Vec<Step> = book.0.iter().map(|(step, bought)| (*step, codec::encode(bought))).collect();
        // Steps of other chains, and of newer versions.
        let others = [(1, kept[0].1.clone()), (FIRST_STEP + 9, vec![0xff])];
        let again = Book::recover(kept.into_iter().chain(others));
        assert_eq!((&again, again.running().len()), (&book, 1));
    }

    fn in_sol(rate: u64) -> SolanaTerms {
        SolanaTerms { mint: SolanaAddress::SOL, decimals: 9, rate: Some(rate), ..terms() }
    }

    #[test]
    fn sol_is_paid_at_the_workers_rate_up_to_ours() {
        let means = Means { coin: Coin::Sol { rate: 7_000_000 }, ..means() };
        let next = |terms: SolanaTerms| Book::default().next(&means, node(2), &terms, DOLLAR).map(|(_, bought)| bought);
        let paid = |rate| next(in_sol(rate)).map(|bought| (bought.order.transfers[0].amount, bought.rate));
        assert_eq!(paid(6_500_000), Ok((6_500_000, Some(6_500_000))));
        assert_eq!(paid(7_000_000), Ok((7_000_000, Some(7_000_000))));
        assert_eq!(paid(7_000_001), Err(NotBegun::Rate { theirs: 7_000_001, ours: 7_000_000 }));
        assert!(matches!(next(terms()), Err(NotBegun::Coin { .. })));
        let hash = |rate| next(in_sol(rate)).map(|bought| bought.order.transfers[0].hash);
        assert_ne!(hash(6_500_000), hash(6_500_001), "the rate is in the memo");
    }

    #[test]
    fn another_token_or_amount_than_can_be_paid_is_refused() {
        let next = |terms: SolanaTerms, amount| Book::default().next(&means(), node(2), &terms, amount).map(drop);
        let other = SolanaTerms { mint: SolanaAddress([9; 32]), ..terms() };
        assert!(matches!(next(other, DOLLAR), Err(NotBegun::Coin { .. })));
        assert!(matches!(next(SolanaTerms { decimals: 9, ..terms() }, DOLLAR), Err(NotBegun::Coin { .. })));
        assert!(matches!(next(in_sol(5), DOLLAR), Err(NotBegun::Coin { .. })));
        assert_eq!(next(terms(), MicroUsd(0)), Err(NotBegun::Amount(MicroUsd(0))));
    }
}
