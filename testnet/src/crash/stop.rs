//! A store that stops its process dead at a write: before it, when it is in the file and not synced, or when it is on the disk.
//! Nothing of the node knows of it: the store and the disk that it is given are wrapped.

use futures::{FutureExt, future::BoxFuture};
use infernet_node::{
    settlement::{
        solana::{
            book::{Bought, FIRST_STEP, WITHDRAWAL_STEP},
            payment::Persist as Paid,
            withdrawals::Withdrawal,
        },
        steps::{Entry, Persist},
    },
    store::{Commits, Counts, Disk, Page, Put, Side, SpendRecord, Store, StoreError, TabOf, open_through},
};
use infernet_wire::{
    codec,
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Read, Write as _},
    path::Path,
    process,
    sync::{Arc, Mutex, PoisonError},
};

/// What a process says when it has stopped; at which of its stops comes behind it.
pub const STOPPED: &str = "stopped ";

/// A write that matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Write {
    /// A step, by the label of its purpose.
    Step(String, Persist),
    /// The tab of a buyer, with a voucher or a tranche that is to count.
    Voucher,
    /// A tranche that is paid.
    Tranche(Paid),
    /// That a job was opened with it.
    Taken,
    /// What is sent away on Solana.
    Withdrawal(Paid),
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Step(label, at) => write!(f, "{label} {}", format!("{at:?}").to_lowercase()),
            Write::Voucher => f.write_str("voucher"),
            Write::Tranche(at) => write!(f, "tranche {}", format!("{at:?}").to_lowercase()),
            Write::Taken => f.write_str("tranche taken"),
            Write::Withdrawal(at) => write!(f, "withdrawal {}", format!("{at:?}").to_lowercase()),
        }
    }
}

/// When, in the course of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Moment {
    /// Nothing is written.
    Before,
    /// The bytes are in the file, and not synced.
    Written,
    /// They are on the disk, and nobody was told.
    Kept,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 3] = [Moment::Before, Moment::Written, Moment::Kept];

    /// The one of a turn in a life: three lives have all of each.
    pub fn of_turn(turn: usize, life: u32) -> Self {
        let turn = turn + usize::try_from(life).unwrap_or_default();
        Moment::ALL.into_iter().cycle().nth(turn % Moment::ALL.len()).unwrap_or(Moment::Before)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Before => "before",
            Moment::Written => "written",
            Moment::Kept => "kept",
        })
    }
}

/// Where a process stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stop {
    /// At which write.
    pub write: Write,
    /// At which moment of it.
    pub moment: Moment,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.write, self.moment)
    }
}

/// The store under `home`, in a process that stops at whichever of these comes first.
pub fn open(home: &Path, network: &NetworkId, stops: Vec<Stop>) -> Result<Arc<dyn Store>, StoreError> {
    let trap = Arc::new(Trap { stops, armed: Mutex::default() });
    let below = trap.clone();
    let store = open_through(home, network, move |disk| Arc::new(StoppingDisk { disk, trap: below }))?;
    Ok(Arc::new(StoppingStore { store, trap }))
}

struct Trap {
    stops: Vec<Stop>,
    /// The record whose append the disk stops behind, and at which stop that is.
    armed: Mutex<Option<(Vec<u8>, usize)>>,
}

impl Trap {
    fn at(&self, write: Option<Write>) -> Option<(usize, Moment)> {
        let here = |(_, stop): &(usize, &Stop)| Some(&stop.write) == write.as_ref();
        self.stops.iter().enumerate().find(here).map(|(at, stop)| (at, stop.moment))
    }

    fn arm(&self, record: Vec<u8>, at: usize) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((record, at));
    }

    fn is_armed_for(&self, appended: &[u8]) -> Option<usize> {
        let armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let (record, at) = armed.as_ref()?;
        appended.windows(record.len()).any(|part| part == record).then_some(*at)
    }

    /// Says so, and waits to be killed. Should nobody be left who could, stdin ends.
    fn halt(&self, at: usize) -> ! {
        let _ = writeln!(io::stdout(), "{STOPPED}{at}").and_then(|()| io::stdout().flush());
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1)
    }
}

struct StoppingDisk {
    disk: Arc<dyn Disk>,
    trap: Arc<Trap>,
}

impl Disk for StoppingDisk {
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.append(name, bytes)?;
        self.trap.is_armed_for(bytes).map_or(Ok(()), |at| self.trap.halt(at))
    }

    fn place(&self) -> &Path {
        self.disk.place()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.disk.len(name)
    }

    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read(name, at, buffer)
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.disk.truncate(name, len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.disk.sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

struct StoppingStore {
    store: Arc<dyn Store>,
    trap: Arc<Trap>,
}

type Keeping = BoxFuture<'static, Result<(), StoreError>>;

impl StoppingStore {
    fn keep(&self, write: Option<Write>, record: Vec<u8>, keep: impl FnOnce(&dyn Store, Vec<u8>) -> Keeping) -> Keeping {
        match self.trap.at(write) {
            None => keep(&*self.store, record),
            Some((at, Moment::Before)) => self.trap.halt(at),
            Some((at, Moment::Written)) => {
                self.trap.arm(record.clone(), at);
                keep(&*self.store, record)
            }
            Some((at, Moment::Kept)) => {
                let (kept, trap) = (keep(&*self.store, record), self.trap.clone());
                async move {
                    kept.await?;
                    trap.halt(at)
                }
                .boxed()
            }
        }
    }
}

impl Store for StoppingStore {
    fn keep_step(&self, number: u64, step: Vec<u8>) -> Keeping {
        let evm = || {
            let entry = codec::decode::<Entry>(&step).ok()?;
            Some(Write::Step(entry.purpose.label().into(), entry.at()))
        };
        let tranche = || {
            let bought = codec::decode::<Bought>(&step).ok()?;
            Some(if bought.taken { Write::Taken } else { Write::Tranche(bought.payment.at()) })
        };
        let withdrawal = || Some(Write::Withdrawal(codec::decode::<Withdrawal>(&step).ok()?.payment.at()));
        let write = match number {
            WITHDRAWAL_STEP => withdrawal(),
            FIRST_STEP.. => tranche(),
            _ => evm(),
        };
        self.keep(write, step, |store, step| store.keep_step(number, step))
    }

    fn keep_tab(&self, of: &TabOf, tab: Vec<u8>) -> Keeping {
        let write = (of.side == Side::Sold).then_some(Write::Voucher);
        self.keep(write, tab, |store, tab| store.keep_tab(of, tab))
    }

    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError> {
        self.store.put_receipt(receipt)
    }

    fn keep_receipt(&self, receipt: &SignedReceipt) -> BoxFuture<'static, Result<Put, StoreError>> {
        self.store.keep_receipt(receipt)
    }

    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        self.store.receipts(page)
    }

    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        self.store.receipts_of(job)
    }

    fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError> {
        self.store.has_receipt(job, worker)
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        self.store.counts()
    }

    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.store.next_ad_sequence(now)
    }

    fn put_spend(&self, record: &SpendRecord) -> Result<(), StoreError> {
        self.store.put_spend(record)
    }

    fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError> {
        self.store.spend_since(day)
    }

    fn accept_command(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError> {
        self.store.accept_command(operator, sequence)
    }

    fn put_tab(&self, of: &TabOf, tab: Vec<u8>) -> Result<(), StoreError> {
        self.store.put_tab(of, tab)
    }

    fn tab(&self, of: &TabOf) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.tab(of)
    }

    fn tabs(&self, side: Side, me: &NodeId, after: Option<&TabOf>) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
        self.store.tabs(side, me, after)
    }

    fn put_step(&self, number: u64, step: Vec<u8>) -> Result<(), StoreError> {
        self.store.put_step(number, step)
    }

    fn steps(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.store.steps(from)
    }

    fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError> {
        self.store.put_ad_sequences(sequences)
    }

    fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        self.store.ad_sequences()
    }

    fn accepts_work(&self) -> Result<(), StoreError> {
        self.store.accepts_work()
    }

    fn commits(&self) -> Option<Commits> {
        self.store.commits()
    }

    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.store.put_peers(peers)
    }

    fn peers(&self) -> Result<Vec<String>, StoreError> {
        self.store.peers()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}
