//! Buys on the mesh for clients that have no node. To the mesh the plane is an ordinary buyer.
//!
//! **A job's way:** its row is inserted, then the most it may cost is reserved, then it runs in a task of its own (`run`): rows
//! tell how far it is, the answer goes into a [`Log`] in memory that any number of readers follow, and at its end, in one
//! write with the row, the reservation becomes what it cost. Rows are written before money is taken, so that a crash in between
//! leaves nothing reserved that nobody remembers.
//!
//! **Leases.** Each row says which instance runs it, and until when that is believed (`keep`). A job whose instance died becomes
//! failed, and pays for what was noted of it last. A cancel for a job of another instance goes there as a notice, and is written
//! down for its next renewal, as notices may be lost. A log lives in the memory of the instance that runs the job, until some time
//! after its end; who wants an answer to be kept asks for that.
//!
//! **Bounds:** jobs at once, in all and for each client; bytes of answers that are kept; bytes of requests that run.

mod bridge;
mod keep;
mod live;
mod run;

pub use live::{End, Live, Log};

use crate::{
    http::error::{INTERNAL, Refusal, UNAVAILABLE},
    legacy::Legacy,
    shares::{Share, Shares},
    store::{
        ClientId, Idempotency, Inserted, JobError, JobRow, JobStatus, Notice, Reservation, Reserved, Store, StoredText,
        WebJobId,
    },
};
use infernet_node::{
    buyer::{Buyer, ChatOrder, DEFAULT_CEILING},
    clock,
    metrics::Metrics,
    net::Net,
    node::Node,
    store as node_store,
};
use infernet_wire::{
    id::{Hash, NodeId},
    money::MicroUsd,
    time::UnixMillis,
};
use live::Table;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{error, warn};

/// Jobs at once: as many as the node's own endpoint takes requests.
const MAX_RUNNING: usize = 4_096;
/// Jobs at once of one client: two of the largest batches.
const MAX_RUNNING_PER_CLIENT: usize = 128;
/// Bytes of answers that are kept after their ends.
const MAX_KEPT_BYTES: usize = 256 * 1024 * 1024;
/// KiB of requests that run.
const MAX_REQUESTS_KIB: usize = 512 * 1024;
/// And of one client, or of all who have nothing to pay with: they only keep each other waiting.
const MAX_REQUESTS_KIB_EACH: usize = MAX_REQUESTS_KIB / 4;
/// How long an answer is kept in memory after its end.
const RESUME_MS: u64 = 10 * 60_000;
/// How long an instance is believed to run its jobs after it last said so.
const LEASE_MS: u64 = 30_000;
/// How long a job waits for somebody who has room.
const WAIT_MS: u64 = 60_000;
/// Tries to write a job's end, each after twice the pause of the one before; then its lease runs out.
const END_TRIES: u32 = 6;
/// The first pause.
const END_PAUSE: Duration = Duration::from_millis(100);
/// How long a stopping plane waits for jobs that it has cancelled to settle.
pub(crate) const SETTLING: Duration = Duration::from_secs(10);
/// Between two looks whether all have ended.
const LOOK: Duration = Duration::from_millis(20);
/// Why a job was refused that its client may pay for later.
pub const UNPAID: &str = "insufficient_balance";
/// And one whose key has spent what it may today.
pub const SPENT: &str = "spend_cap";
/// A job that an instance had that is gone.
const LOST: &str = "instance_lost";

/// What a gateway is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The ceiling of jobs that name none, per million tokens.
    pub max_price: MicroUsd,
    /// How long a job that names nothing waits for somebody who has room, in milliseconds.
    pub wait_ms: u64,
    /// How long an answer is kept in memory after its end, in milliseconds.
    pub resume_ms: u64,
    /// How long an instance is believed to run its jobs after it last said so, in milliseconds.
    pub lease_ms: u64,
    /// Jobs at once.
    pub max_running: usize,
    /// Jobs at once of one client.
    pub max_running_per_client: usize,
    /// Bytes of answers that are kept after their ends.
    pub max_kept_bytes: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            max_price: DEFAULT_CEILING,
            wait_ms: WAIT_MS,
            resume_ms: RESUME_MS,
            lease_ms: LEASE_MS,
            max_running: MAX_RUNNING,
            max_running_per_client: MAX_RUNNING_PER_CLIENT,
            max_kept_bytes: MAX_KEPT_BYTES,
        }
    }
}

/// The node that a gateway buys through.
#[derive(Clone)]
pub struct Through {
    /// Its buyer.
    pub buyer: Buyer,
    /// Its mesh.
    pub net: Net,
    /// What counts its requests.
    pub metrics: Metrics,
    /// Where its receipts are.
    pub receipts: Arc<dyn node_store::Store>,
}

impl From<&Node> for Through {
    fn from(node: &Node) -> Self {
        Through {
            buyer: node.buyer().clone(),
            net: node.net().clone(),
            metrics: node.metrics().clone(),
            receipts: node.store().clone(),
        }
    }
}

/// Buys for clients.
pub struct Gateway {
    through: Through,
    store: Arc<dyn Store>,
    config: GatewayConfig,
    /// This instance, as leases name it.
    instance: String,
    table: Mutex<Table>,
    requests: Shares,
    stopping: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    bridge: OnceLock<Arc<Legacy>>,
}

/// A job that somebody wants.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Whose.
    pub client: ClientId,
    /// With which key, and what that may spend a day.
    pub key: Option<(Hash, Option<MicroUsd>)>,
    /// The model asked for.
    pub model: String,
    /// The most it may cost.
    pub most: MicroUsd,
    /// What is to be kept.
    pub text: Option<StoredText>,
    /// By which it may be asked for again.
    pub idempotency: Option<Idempotency>,
    /// Whether its answer is followed through the plane, and not given straight to who asked.
    pub followed: bool,
}

/// A job that was begun, or was there.
pub enum Begun {
    /// It runs, or is about to, with what is reserved for it.
    New(Arc<Live>, MicroUsd),
    /// The same was asked before.
    Same(Box<JobRow>),
}

/// How a job ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) cost: MicroUsd,
    pub(crate) error: Option<JobError>,
    pub(crate) cancelled: bool,
    pub(crate) worker: Option<NodeId>,
    pub(crate) usage: Option<(u32, u32)>,
    pub(crate) finish: Option<&'static str>,
    pub(crate) receipt: Option<Hash>,
}

impl Gateway {
    /// A gateway that buys through `node` and keeps what it does in `store`. Its tasks end with it.
    pub fn start(through: Through, store: Arc<dyn Store>, config: GatewayConfig) -> Arc<Self> {
        let gateway = Arc::new(Gateway {
            through,
            store,
            config,
            instance: hex::encode(clock::random::<8>()),
            table: Mutex::default(),
            requests: Shares::new(MAX_REQUESTS_KIB),
            stopping: AtomicBool::new(false),
            tasks: Mutex::default(),
            bridge: OnceLock::new(),
        });
        let tasks = keep::spawn(&gateway);
        gateway.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        gateway
    }

    /// What no worker of the mesh bids on goes to daemons behind `legacy` from now on. The first call counts.
    pub fn bridge(&self, legacy: Arc<Legacy>) {
        let _ = self.bridge.set(legacy);
    }

    /// The node behind it.
    pub fn through(&self) -> &Through {
        &self.through
    }

    /// What it is set to.
    pub fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// Jobs that run now, here.
    pub fn running(&self) -> usize {
        self.table().running()
    }

    /// Room for a request of `who`, of nothing yet, until it is dropped.
    pub(crate) fn room(&self, who: &str) -> Share {
        self.requests.of(who)
    }

    /// Makes a request's room that of `bytes`.
    pub(crate) fn widen(room: &mut Share, bytes: usize) -> Result<(), Refusal> {
        if room.grow(bytes.div_ceil(1024), MAX_REQUESTS_KIB_EACH) {
            return Ok(());
        }
        Err(Refusal::busy("the plane has as much of other requests in memory as it takes: try again"))
    }

    /// The job `id`, if it runs here or ended not long ago.
    pub fn live(&self, id: &WebJobId) -> Option<Arc<Live>> {
        self.table().get(id)
    }

    /// Begins a job and buys it. `room` is held until it ends. Goes on if whoever asked has gone: what is in the store is run.
    pub async fn submit(self: &Arc<Self>, new: NewJob, order: ChatOrder, room: Option<Arc<Share>>) -> Result<Begun, Refusal> {
        let gateway = self.clone();
        to_its_end(async move {
            let worst = new.most;
            let begun = gateway.begin(new).await?;
            if let Begun::New(live, most) = &begun {
                let order = if *most < worst { ChatOrder { budget: Some(*most), ..order } } else { order };
                let capped = (*most < worst).then_some(*most);
                tokio::spawn(run::run(gateway.clone(), live.clone(), order, capped, room));
            }
            Ok(begun)
        })
        .await
    }

    /// Inserts a job's row and reserves what it may cost; whoever asked for it runs it and tells its `Outcome`. Not to be dropped
    /// before it is done, see `to_its_end`.
    pub async fn begin(self: &Arc<Self>, new: NewJob) -> Result<Begun, Refusal> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::unavailable("the plane is stopping: try again in a moment"));
        }
        let id = WebJobId(format!("job_{}", hex::encode(clock::random::<16>())));
        let row = self.row(id, &new, clock::now());
        let live = Arc::new(Live::new(row.clone(), new.followed));
        self.table().add(&live, &self.config)?;
        // Whatever goes wrong from here on, its place is free again.
        let place = Placed { gateway: self, live: Some(live.clone()) };
        // The commonest refusal, before anything is written.
        self.check_balance(&new).await?;
        // What is to be kept is kept once it is paid for.
        let bare = JobRow { text: None, ..row.clone() };
        let (live, mut place) = match self.store.insert_job(&bare).await? {
            Inserted::New => {
                live.mark_written();
                (live, place)
            }
            Inserted::Conflict => {
                let text = "this Idempotency-Key was used with another request: use a new key for a new request";
                return Err(Refusal::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text));
            }
            Inserted::Same(old) if was_never_run(&old) => {
                let row = JobRow { id: old.id.clone(), ..row };
                drop(place);
                let live = Arc::new(Live::new(row.clone(), new.followed));
                // Before it is pending again: whoever finds no place may ask once more.
                self.table().add(&live, &self.config)?;
                let place = Placed { gateway: self, live: Some(live.clone()) };
                if !self.store.update_job(&[JobStatus::Failed], &JobRow { text: None, ..row }).await? {
                    return Ok(Begun::Same(old));
                }
                live.mark_written();
                (live, place)
            }
            Inserted::Same(old) => return Ok(Begun::Same(old)),
        };
        match self.reserve(&live, &new).await {
            Ok(most) => {
                place.live = None;
                Ok(Begun::New(live, most))
            }
            Err(refusal) => {
                let error = JobError { code: refusal.code.into(), message: refusal.message.clone() };
                live.keep_nothing();
                self.finish(&live, Outcome { error: Some(error), ..Outcome::default() }).await;
                Err(refusal)
            }
        }
    }

    fn row(&self, id: WebJobId, new: &NewJob, now: UnixMillis) -> JobRow {
        JobRow {
            id,
            client: new.client.clone(),
            model: new.model.clone(),
            status: JobStatus::Pending,
            created: now,
            updated: now,
            started: None,
            ended: None,
            worker: None,
            legacy: None,
            input_tokens: None,
            output_tokens: None,
            budget: new.most,
            cost: None,
            ttft_ms: None,
            receipt: None,
            error: None,
            idempotency: new.idempotency.clone(),
            text: new.text.clone(),
            lease: Some((self.instance.clone(), now.after(self.config.lease_ms))),
        }
    }

    async fn check_balance(&self, new: &NewJob) -> Result<(), Refusal> {
        let client = self.store.client(&new.client).await?;
        let left = client.map_or(0, |client| client.balance.0.saturating_sub(client.reserved.0));
        if left == 0 && new.most.0 > 0 && new.idempotency.is_none() { Err(empty()) } else { Ok(()) }
    }

    /// Reserves what the job may cost, or what there is, which then is its budget.
    async fn reserve(&self, live: &Live, new: &NewJob) -> Result<MicroUsd, Refusal> {
        let (key, key_per_day) = new.key.map_or((None, None), |(key, per_day)| (Some(key), per_day));
        let (job, client, now) = (live.id().clone(), new.client.clone(), clock::now());
        let mut wish = Reservation { job, client, key, most: new.most, key_per_day, now };
        let mut refused = empty();
        // Once for what is wanted, then for what is left; somebody else may take that meanwhile.
        for _ in 0..3 {
            let left = match self.store.reserve(&wish).await? {
                Reserved::Yes => return Ok(wish.most),
                Reserved::Balance(left) => {
                    refused = empty();
                    left
                }
                Reserved::KeyDay(left) => {
                    refused =
                        Refusal::unpaid(SPENT, "this key has spent what it may today: raise it, or wait until midnight UTC");
                    left
                }
            };
            if left.0 == 0 {
                break;
            }
            wish.most = left.min(wish.most);
        }
        Err(refused)
    }

    /// Asks for a job to be cancelled, wherever it runs.
    pub async fn cancel(&self, id: &WebJobId) -> Result<(), Refusal> {
        match self.live(id) {
            Some(live) => live.cancel(),
            // A notice is fast and may be lost; what is written is seen when the lease is renewed.
            None => {
                if self.store.want_cancel(id).await? {
                    let _ = self.store.notify(&Notice::Cancel { id: id.clone() }).await;
                }
            }
        }
        Ok(())
    }

    /// A job has ended: its reservation becomes its cost, its row and its log tell how.
    pub(crate) async fn finish(&self, live: &Arc<Live>, outcome: Outcome) {
        let now = clock::now();
        let row = live.ended(&outcome, now).await;
        let mut pause = END_PAUSE;
        for _ in 0..END_TRIES {
            match self.store.end_job(&row, None).await {
                Ok(Some(cost)) => {
                    live.row.lock().await.cost = Some(cost);
                    break;
                }
                Ok(None) => {
                    warn!(job = %row.id.0, "a job was over before its end was written: its lease was over, or it was written late");
                    break;
                }
                Err(error) => warn!(job = %row.id.0, "a job's end can't be written yet: {error}"),
            }
            sleep(pause).await;
            pause *= 2;
        }
        live.close(&outcome);
        self.table().ended(live, now.after(self.config.resume_ms), self.config.max_kept_bytes);
        self.tell(&row.id).await;
    }

    /// Pages are live by this; a notice that is lost is no harm.
    async fn tell(&self, id: &WebJobId) {
        let _ = self.store.notify(&Notice::Job { id: id.clone() }).await;
    }

    /// Takes no more jobs and waits for those that run, at most `patience`; then cancels them, so that each is settled.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.idle(patience).await;
        self.table().all_running().iter().for_each(|live| live.cancel());
        self.idle(SETTLING).await;
        if self.running() > 0 {
            error!("{} jobs did not end in time; they become failed when their leases end", self.running());
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
    }

    async fn idle(&self, patience: Duration) {
        let idle = async {
            while self.running() > 0 {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(patience, idle).await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in there panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
    }
}

/// Whether a job failed before anybody was found for it, by no fault of its own: it may be asked for again under its name.
fn was_never_run(row: &JobRow) -> bool {
    let code = row.error.as_ref().map_or("", |error| error.code.as_str());
    let nobody = row.worker.is_none() && row.legacy.is_none() && row.cost.unwrap_or_default().0 == 0;
    nobody && [UNPAID, SPENT, UNAVAILABLE, INTERNAL, LOST].contains(&code)
}

/// What `work` comes to. It goes on when its caller is dropped, as a request is whose connection breaks.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => {
            error!("a job could not be begun: {error}");
            Err(Refusal::unavailable("the plane could not begin this job: try again"))
        }
    }
}

/// A place in the table that is given back unless the job was begun.
struct Placed<'a> {
    gateway: &'a Gateway,
    live: Option<Arc<Live>>,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            self.gateway.table().remove(&live);
        }
    }
}

fn empty() -> Refusal {
    Refusal::unpaid(
        UNPAID,
        "nothing is left of this client's balance that running jobs have not reserved: ask who runs this plane for more",
    )
}
