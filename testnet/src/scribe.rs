//! A process that writes into a store until it is killed, and says after each write what is now durable. Whoever kills it can
//! then look whether that is true.

use crate::receipts::Parties;
use infernet_node::store::{self, SpendRecord, Store};
use infernet_wire::money::MicroUsd;
use std::{
    io::{self, Write},
    path::Path,
    sync::Mutex,
    thread,
};

/// Threads that write, so that commits have many records.
const THREADS: u64 = 8;
/// Jobs per thread at most: it ends by itself should nobody kill it.
const MAX_JOBS: u64 = 2_000;

/// What a line says is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// The worker's receipt of this job.
    Receipt(u64),
    /// The same with the buyer's signature.
    Countersigned(u64),
    /// That so much was spent, at [`SPEND_DAY`].
    Spent(u64),
    /// That the buyer's command of this sequence was obeyed.
    Obeyed(u64),
}

/// The day of every spend record.
pub const SPEND_DAY: u32 = 20_000;

impl Said {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Self> {
        let (what, number) = line.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "receipt" => Some(Said::Receipt(number)),
            "countersigned" => Some(Said::Countersigned(number)),
            "spent" => Some(Said::Spent(number)),
            "obeyed" => Some(Said::Obeyed(number)),
            _ => None,
        }
    }
}

/// Writes receipts of jobs from number `from` on into the store under `home`, and between them spend and commands.
pub fn run(home: &Path, from: u64, out: impl Write + Send) -> anyhow::Result<()> {
    let parties = Parties::new()?;
    let store = store::open(home, &parties.network)?;
    let scribe = Scribe { parties, store: &*store, out: Mutex::new(out) };
    thread::scope(|scope| {
        let write = |thread: u64| {
            let scribe = &scribe;
            scope.spawn(move || (0..MAX_JOBS).try_for_each(|round| scribe.job(from + round * THREADS + thread, thread)))
        };
        let threads: Vec<_> = (0..THREADS).map(write).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer has panicked"))?)
    })
}

struct Scribe<'a, W> {
    parties: Parties,
    store: &'a dyn Store,
    out: Mutex<W>,
}

impl<W: Write> Scribe<'_, W> {
    fn job(&self, n: u64, thread: u64) -> anyhow::Result<()> {
        self.store.put_receipt(&self.parties.signed(n, false)?)?;
        self.say(&format!("receipt {n}"))?;
        if thread == 0 {
            let spent = SpendRecord { key: "key".into(), day: SPEND_DAY, authorised: MicroUsd(n), spent: MicroUsd(n) };
            self.store.put_spend(&spent)?;
            self.say(&format!("spent {n}"))?;
        }
        if thread == 1 && self.store.accept_command(&self.parties.buyer.id(), n)? {
            self.say(&format!("obeyed {n}"))?;
        }
        self.store.put_receipt(&self.parties.signed(n, true)?)?;
        self.say(&format!("countersigned {n}"))
    }

    fn say(&self, line: &str) -> anyhow::Result<()> {
        let mut out = self.out.lock().map_err(|_| io::Error::other("another writer has panicked"))?;
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }
}
