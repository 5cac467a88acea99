//! Compares what everybody kept, pair by pair and client by client. Pure.
//!
//! | must be the same | but for |
//! |---|---|
//! | a buyer's debits by receipts, the worker's credits by the same, the plane's volume of the pair | nothing |
//! | a client's drop, the sum of its entries, what its jobs cost | nothing |
//! | what a job cost its client, the receipts of that job | jobs without a receipt, listed as [`Loose`] |
//!
//! Vouchers may say more than receipts, for jobs whose buyer or worker was gone before the receipt: never more than the buyer has
//! promised, and what is beyond the receipts is at most what [`Hurt`] explains. What a chain must have is in [`super::chain`].

use super::chain::{self, ChainBooks, Holding, OnChain};
use crate::chaos::{
    books::{Book, Entry},
    plan::Who,
};
use infernet_node::settlement::tab::STEP;
use infernet_wire::{
    evm::EvmAddress,
    id::{Hash, JobId, NodeId},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A job that nobody could end well came to this at most, in micro-USD: the dearest worker's price (0.4 a token), for the longest
/// answer of the load (200 tokens) and the input.
pub(super) const MOST_LOOSE: u64 = 100;

/// A client's job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) job: String,
    pub(super) cost: u64,
    pub(super) receipt: Option<Hash>,
    pub(super) error: Option<String>,
}

/// A web client's account, in micro-USD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Whose.
    pub name: String,
    /// What it was given, or deposited.
    pub given: u64,
    /// What it has.
    pub balance: u64,
    /// What of it is reserved.
    pub reserved: u64,
    /// What its jobs took, by its entries.
    pub drops: u64,
    #[serde(skip)]
    pub(super) charges: Vec<Charge>,
    /// What it deposits from, where deposits are taken.
    #[serde(skip)]
    pub(super) wallet: Option<EvmAddress>,
}

/// What was done to whom: it explains what has no receipt.
#[derive(Debug, Clone, Default)]
pub(super) struct Hurt {
    /// SIGKILLs of each buyer. A buyer that comes back counts from the end of the step that it had written ahead, and its worker
    /// takes the rest as paid in advance.
    pub(super) kills: BTreeMap<Who, u64>,
    /// Jobs that faults of any kind may have broken, of each buyer.
    pub(super) broken: u64,
}

impl Hurt {
    fn most(&self, buyer: Who, unacknowledged: u64) -> u64 {
        let kills = self.kills.get(&buyer).copied().unwrap_or_default();
        kills * STEP + (self.broken + unacknowledged) * MOST_LOOSE
    }
}

/// What the plane keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct PlaneBooks {
    /// Settled, by buyer and worker.
    pub(super) indexed: BTreeMap<(NodeId, NodeId), u64>,
    /// All that is settled.
    pub(super) volume: u64,
    /// The digests of what is settled.
    pub(super) known: BTreeSet<Hash>,
    pub(super) accounts: Vec<Account>,
}

/// A buyer and a worker, in micro-USD.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Who bought.
    pub buyer: String,
    /// Who sold.
    pub worker: String,
    /// Receipts that both signed.
    pub receipts: u64,
    /// What the buyer owes by them.
    pub debits: u64,
    /// What the worker has by the same.
    pub credits: u64,
    /// What the plane's index has of the pair.
    pub volume: u64,
    /// The worker's highest voucher, of all channels together.
    pub voucher: u64,
    /// The most that the buyer knows to have promised.
    pub promised: u64,
    /// Receipts of the worker alone, and what they say.
    pub unacknowledged: u64,
    /// See above.
    pub unacknowledged_amount: u64,
    /// What the chain has of it, if it trades on channels; else it is on the worker's credit.
    pub chain: Option<OnChain>,
}

/// Something that has no receipt of both, and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loose {
    /// What it is.
    pub what: String,
    /// In micro-USD.
    pub micro_usd: u64,
}

/// What all books come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// All pairs that traded.
    pub pairs: Vec<Pair>,
    /// The plane's clients.
    pub accounts: Vec<Account>,
    /// The plane's volume, in micro-USD.
    pub volume: u64,
    /// What was bought by way of the plane, by receipts.
    pub plane_debits: u64,
    /// What its clients paid.
    pub drops: u64,
    /// Who had and has what on the chain, if one is settled on.
    pub holdings: Vec<Holding>,
    /// What of it is in the contract.
    pub contract: u64,
    /// What has no receipt of both.
    pub loose: Vec<Loose>,
    /// What does not fit.
    pub complaints: Vec<String>,
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<10} {:<8} {:>8} {:>10} {:>10} {:>10} {:>10} {:>14}",
            "buyer", "worker", "paid by", "receipts", "debits", "credits", "volume", "voucher", "unacknowledged"
        )?;
        let mut sum = Pair { buyer: "all".into(), ..Pair::default() };
        for pair in &self.pairs {
            row(f, pair)?;
            sum.receipts += pair.receipts;
            sum.debits += pair.debits;
            sum.credits += pair.credits;
            sum.volume += pair.volume;
            sum.voucher += pair.voucher;
            sum.unacknowledged_amount += pair.unacknowledged_amount;
        }
        row(f, &sum)?;
        self.on_chain(f)?;
        writeln!(f, "{:<21} {:>8} {:>10} {:>10} {:>10}", "client", "jobs", "given", "balance", "dropped")?;
        for account in &self.accounts {
            let Account { name, given, balance, drops, charges, .. } = account;
            writeln!(f, "{name:<21} {:>8} {given:>10} {balance:>10} {drops:>10}", charges.len())?;
        }
        writeln!(
            f,
            "the plane bought {} for its clients, who paid {}; its index has {} in all",
            self.plane_debits, self.drops, self.volume
        )?;
        self.loose
            .iter()
            .try_for_each(|loose| writeln!(f, "without a receipt of both: {} micro-USD, {}", loose.micro_usd, loose.what))
    }
}

impl Audit {
    fn on_chain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holdings.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<21} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "on channels", "channels", "deposited", "paid", "returned", "left"
        )?;
        for Pair { buyer, worker, chain, .. } in &self.pairs {
            let Some(OnChain { channels, deposited, paid, returned, left }) = chain else { continue };
            writeln!(f, "{buyer:<10} {worker:<10} {channels:>8} {deposited:>10} {paid:>10} {returned:>10} {left:>10}")?;
        }
        writeln!(f, "{:<21} {:>8} {:>10} {:>10}", "on the chain", "", "before", "after")?;
        for Holding { name, before, after, .. } in &self.holdings {
            writeln!(f, "{name:<21} {:>8} {before:>10} {after:>10}", "")?;
        }
        writeln!(f, "{:<21} {:>8} {:>10} {:>10}", "the contract", "", 0, self.contract)
    }
}

fn row(f: &mut fmt::Formatter<'_>, pair: &Pair) -> fmt::Result {
    let Pair { buyer, worker, receipts, debits, credits, volume, voucher, unacknowledged_amount, chain, .. } = pair;
    let paid_by = match chain {
        _ if worker.is_empty() => "",
        Some(_) => "channel",
        None => "credit",
    };
    writeln!(
        f,
        "{buyer:<10} {worker:<10} {paid_by:<8} {receipts:>8} {debits:>10} {credits:>10} {volume:>10} {voucher:>10} {unacknowledged_amount:>14}"
    )
}

type Side<'a> = BTreeMap<(JobId, NodeId), &'a Entry>;

/// Compares everything. The plane's node is the buyer with the highest number.
pub(super) fn audit(books: &BTreeMap<Who, Book>, plane: &PlaneBooks, chain: Option<&ChainBooks>, hurt: &Hurt) -> Audit {
    let mut audit = Audit { volume: plane.volume, accounts: plane.accounts.clone(), ..Audit::default() };
    if let Some(chain) = chain {
        (audit.holdings, audit.contract) = (chain.holdings.clone(), chain.contract);
        audit.complaints = chain::whole(chain, books, &plane.accounts);
    }
    let buyers = books.iter().filter(|(who, _)| matches!(who, Who::Buyer(_)));
    for (buyer, bought) in buyers {
        for (worker, sold) in books.iter().filter(|(who, _)| matches!(who, Who::Worker(_))) {
            if let (Some(b), Some(w)) = (bought.id, sold.id) {
                pair((*buyer, b, bought), (*worker, w, sold), (plane, chain), hurt, &mut audit);
            }
        }
    }
    let settled: u64 = audit.pairs.iter().map(|pair| pair.debits).sum();
    if plane.volume != settled {
        audit.complaints.push(format!("the plane's volume is {}, all debits come to {settled}", plane.volume));
    }
    if let Some((who, book)) = books.iter().rfind(|(who, _)| matches!(who, Who::Buyer(_))) {
        clients(*who, book, plane, &mut audit);
    }
    audit
}

fn pair(
    (buyer, b, bought): (Who, NodeId, &Book),
    (worker, w, sold): (Who, NodeId, &Book),
    (plane, chain): (&PlaneBooks, Option<&ChainBooks>),
    hurt: &Hurt,
    audit: &mut Audit,
) {
    let both = |entry: &&Entry| entry.worker == w && entry.buyer == b;
    let theirs: Side<'_> = sold.entries.iter().filter(both).map(|entry| ((entry.job, entry.worker), entry)).collect();
    let ours: Side<'_> = bought
        .entries
        .iter()
        .filter(both)
        .filter(|e| e.countersigned)
        .map(|entry| ((entry.job, entry.worker), entry))
        .collect();
    let mut pair = Pair { buyer: format!("{buyer:?}"), worker: format!("{worker:?}"), ..Pair::default() };
    for (key, entry) in &ours {
        pair.receipts += 1;
        pair.debits += entry.micro_usd;
        if !plane.known.contains(&entry.digest) {
            let both = theirs.get(key).is_some_and(|theirs| theirs.countersigned);
            let who = if both { "both sides have" } else { "its buyer alone has" };
            audit.complaints.push(format!("job {}: the plane does not know its receipt, which {who} whole", entry.job));
        }
        match theirs.get(key) {
            Some(same) if same.digest == entry.digest => pair.credits += same.micro_usd,
            Some(_) => audit.complaints.push(format!("job {}: its two sides differ", entry.job)),
            None => audit.complaints.push(format!("job {}: the worker does not have its receipt", entry.job)),
        }
    }
    let alone: Vec<&Entry> = theirs.iter().filter(|(key, _)| !ours.contains_key(key)).map(|(_, entry)| *entry).collect();
    pair.unacknowledged = alone.len() as u64;
    pair.unacknowledged_amount = alone.iter().map(|entry| entry.micro_usd).sum();
    pair.volume = plane.indexed.get(&(b, w)).copied().unwrap_or_default();
    let on_ledger = sold.vouchers.get(&b).copied().unwrap_or_default();
    let (sold_on, bought_on) = (sold.sold.iter(), bought.bought.iter());
    let vouchers = sold_on.filter(|((buyer, _), _)| *buyer == b).map(|(_, tab)| tab.voucher);
    let promises = bought_on.filter(|((worker, _), _)| *worker == w).map(|(_, promised)| promised);
    pair.voucher = on_ledger + vouchers.sum::<u64>();
    pair.promised = bought.promised.get(&w).copied().unwrap_or_default() + promises.sum::<u64>();
    let name = format!("{} and {}", pair.buyer, pair.worker);
    let mut must = |fits: bool, text: String| {
        if !fits {
            audit.complaints.push(format!("{name}: {text}"))
        }
    };
    if let Some(chain) = chain {
        let (on, mut complaints) = chain::pair(chain, (b, bought), (w, sold));
        if on.channels > 0 {
            complaints.extend(chain::receipts(&pair, &on, on_ledger));
            pair.chain = Some(on);
        }
        complaints.into_iter().for_each(|text| must(false, text));
    }
    must(pair.debits == pair.credits, format!("debits of {} and credits of {}", pair.debits, pair.credits));
    must(pair.debits == pair.volume, format!("debits of {}, and a volume of {}", pair.debits, pair.volume));
    let most = hurt.most(buyer, pair.unacknowledged);
    let beyond = pair.voucher.saturating_sub(pair.debits);
    must(beyond <= most, format!("a voucher of {beyond} beyond the receipts, where {most} can be explained"));
    must(pair.voucher <= pair.promised, format!("a voucher of {}, of which its buyer knows {}", pair.voucher, pair.promised));
    must(pair.debits <= pair.promised, format!("debits of {} beyond the {} that were promised", pair.debits, pair.promised));
    for entry in alone {
        must(entry.micro_usd <= MOST_LOOSE, format!("job {} has only its worker's receipt, of {}", entry.job, entry.micro_usd));
        audit
            .loose
            .push(Loose { what: format!("{name}: the worker's receipt of job {}", entry.job), micro_usd: entry.micro_usd });
    }
    if pair.voucher > pair.debits {
        audit
            .loose
            .push(Loose { what: format!("{name}: the voucher beyond the receipts"), micro_usd: pair.voucher - pair.debits });
    }
    if pair.receipts + pair.unacknowledged + pair.voucher > 0 {
        audit.pairs.push(pair);
    }
}

/// The plane's clients against the receipts of the plane's node.
fn clients(who: Who, book: &Book, plane: &PlaneBooks, audit: &mut Audit) {
    let settled: Vec<&Entry> = book.entries.iter().filter(|entry| entry.countersigned).collect();
    let job_of: BTreeMap<Hash, JobId> = settled.iter().map(|entry| (entry.digest, entry.job)).collect();
    let cost_of = |job: &JobId| settled.iter().filter(|entry| entry.job == *job).map(|entry| entry.micro_usd).sum::<u64>();
    let (mut charged, mut without) = (BTreeSet::new(), Vec::new());
    for account in &plane.accounts {
        let Account { name, given, balance, reserved, drops, charges, .. } = account;
        let mut must = |fits: bool, text: String| {
            if !fits {
                audit.complaints.push(format!("{name}: {text}"))
            }
        };
        must(*reserved == 0, format!("{reserved} are still reserved"));
        must(given.checked_sub(*balance) == Some(*drops), format!("it has {balance} of {given}, and jobs took {drops}"));
        let costs: u64 = charges.iter().map(|charge| charge.cost).sum();
        must(costs == *drops, format!("its jobs cost {costs}, and took {drops}"));
        audit.drops += drops;
        for charge in charges {
            match charge.receipt.map(|digest| job_of.get(&digest)) {
                Some(Some(job)) => {
                    let cost = cost_of(job);
                    must(charged.insert(*job), format!("{} was charged for a job of another", charge.job));
                    must(charge.cost == cost, format!("{} cost {}, its receipts say {cost}", charge.job, charge.cost));
                }
                Some(None) => must(false, format!("{} names a receipt that its node does not have", charge.job)),
                None if charge.cost > 0 || charge.error.is_some() => without.push((name, charge)),
                None => {}
            }
        }
    }
    audit.plane_debits = settled.iter().map(|entry| entry.micro_usd).sum();
    // Jobs amid which the plane, or their last worker, was killed: charged by what was noted of them last.
    for (name, charge) in &without {
        if charge.cost > MOST_LOOSE {
            audit.complaints.push(format!("{name}: {} cost {} without a receipt", charge.job, charge.cost));
        }
        if charge.cost > 0 {
            let why = charge.error.as_deref().unwrap_or("no error");
            audit.loose.push(Loose {
                what: format!("{name}: {} ({why}) was charged without one", charge.job),
                micro_usd: charge.cost,
            });
        }
    }
    let unclaimed: BTreeMap<JobId, u64> =
        settled.iter().map(|entry| entry.job).filter(|job| !charged.contains(job)).map(|job| (job, cost_of(&job))).collect();
    if unclaimed.len() > without.len() {
        let (jobs, most) = (unclaimed.len(), without.len());
        audit
            .complaints
            .push(format!("{who:?} bought {jobs} jobs that no client was charged for, and {most} ended without a receipt"));
    }
    for (job, cost) in unclaimed {
        audit.loose.push(Loose {
            what: format!("{who:?}: job {job} has a receipt, and its client's job does not know it"),
            micro_usd: cost,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::books::samples::{BUYER, WORKER, entry};

    type Change = fn(&mut BTreeMap<Who, Book>, &mut PlaneBooks);

    fn scene() -> (BTreeMap<Who, Book>, PlaneBooks) {
        let entries = vec![entry(1), entry(2)];
        let bought = Book { id: Some(BUYER), entries: entries.clone(), promised: [(WORKER, 20)].into(), ..Book::default() };
        let sold = Book { id: Some(WORKER), entries, vouchers: [(BUYER, 20)].into(), ..Book::default() };
        let charge = |job: u8| Charge { job: format!("job_{job}"), cost: 10, receipt: Some(Hash([job; 32])), error: None };
        let charges = vec![charge(1), charge(2)];
        let account = Account { name: "web".into(), given: 100, balance: 80, reserved: 0, drops: 20, charges, wallet: None };
        let indexed = [((BUYER, WORKER), 20)].into();
        let known = [Hash([1; 32]), Hash([2; 32])].into();
        let plane = PlaneBooks { indexed, volume: 20, known, accounts: vec![account] };
        ([(Who::Buyer(0), bought), (Who::Worker(0), sold)].into(), plane)
    }

    fn complaints(change: impl FnOnce(&mut BTreeMap<Who, Book>, &mut PlaneBooks)) -> Vec<String> {
        let (mut books, mut plane) = scene();
        change(&mut books, &mut plane);
        audit(&books, &plane, None, &Hurt::default()).complaints
    }

    fn book(books: &mut BTreeMap<Who, Book>, who: Who) -> &mut Book {
        books.get_mut(&who).expect("a book")
    }

    #[test]
    fn books_that_agree_have_no_complaint() {
        let (books, plane) = scene();
        let audit = audit(&books, &plane, None, &Hurt::default());
        assert_eq!((audit.complaints, audit.loose), (vec![], vec![]));
        assert_eq!((audit.plane_debits, audit.drops, audit.volume), (20, 20, 20));
        assert_eq!((audit.pairs[0].debits, audit.pairs[0].credits, audit.pairs[0].receipts), (20, 20, 2));
    }

    #[test]
    fn every_micro_usd_that_is_elsewhere_is_told() {
        let checks: [(&str, Change); 13] = [
            ("another amount", |books, _| book(books, Who::Worker(0)).entries[0].micro_usd = 11),
            ("no receipt", |books, _| book(books, Who::Worker(0)).entries.truncate(1)),
            ("another receipt", |books, _| book(books, Who::Worker(0)).entries[0].digest = Hash([9; 32])),
            ("an unknown voucher", |books, _| book(books, Who::Worker(0)).vouchers = [(BUYER, 21)].into()),
            ("too little promised", |books, _| book(books, Who::Buyer(0)).promised = [(WORKER, 19)].into()),
            ("a pair's volume", |_, plane| plane.indexed = [((BUYER, WORKER), 19)].into()),
            ("the volume", |_, plane| plane.volume = 21),
            ("a receipt that the plane missed", |_, plane| _ = plane.known.pop_first()),
            ("a voucher beyond receipts", |books, _| {
                book(books, Who::Worker(0)).vouchers = [(BUYER, 21)].into();
                book(books, Who::Buyer(0)).promised = [(WORKER, 21)].into();
            }),
            ("a balance", |_, plane| plane.accounts[0].balance = 81),
            ("a reservation", |_, plane| plane.accounts[0].reserved = 1),
            ("a cost", |_, plane| plane.accounts[0].charges[0].cost = 9),
            ("a job", |_, plane| plane.accounts[0].charges.truncate(1)),
        ];
        for (what, change) in checks {
            assert_ne!(complaints(change), [""; 0], "{what}");
        }
    }

    #[test]
    fn what_a_killed_plane_left_is_listed_and_bounded() {
        let lost = |cost: u64| {
            let (books, mut plane) = scene();
            let account = &mut plane.accounts[0];
            account.charges[1] =
                Charge { cost, receipt: None, error: Some("instance_lost".into()), ..account.charges[1].clone() };
            (account.drops, account.balance) = (10 + cost, 90 - cost);
            audit(&books, &plane, None, &Hurt::default())
        };
        let few = lost(7);
        assert_eq!(few.complaints, [""; 0]);
        assert_eq!(few.loose.iter().map(|loose| loose.micro_usd).collect::<Vec<_>>(), [7, 10]);
        assert!(!lost(0).loose.is_empty());
    }
}
