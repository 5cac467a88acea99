//! The plane as a process, and its clients.

use super::ledger::{Account, Charge, PlaneBooks};
use crate::{bench::BenchError, cluster::NETWORK};
use infernet_node::clock;
use infernet_plane::{
    accounts::{self, Proven},
    follow,
    http::HttpConfig,
    index::Index,
    store::{Clients, EmbeddedStore, EntryKind, JobQuery, MAX_PAGE, Store, StoreError},
};
use infernet_wire::{evm::EvmAddress, id::NodeId};
use reqwest::{Client, RequestBuilder, Response};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};

/// Where the node that it buys through is, in its home.
const BUYER: &str = "buyer";
/// Web clients.
pub(super) const CLIENTS: usize = 2;
/// What each has: ten dollars.
const BALANCE: u64 = 10_000_000;
/// How long the plane may take to listen, and to find the workers.
const START: Duration = Duration::from_secs(30);
const FORM: Duration = Duration::from_secs(90);
/// A job that takes longer hangs.
const HUNG: Duration = Duration::from_secs(90);
/// Between two jobs of a client, or two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// Tokens of an answer, in turn.
const TOKENS: [u32; 4] = [4, 64, 16, 150];

/// What became of the web clients' jobs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct WebReport {
    /// Begun.
    pub asked: u64,
    /// Whole answers.
    pub answered: u64,
    /// Ended with an error that the plane told.
    pub refused: u64,
    /// The plane was gone.
    pub lost: u64,
}

/// How a plane takes deposits.
pub(super) struct Till {
    /// Its flags for that.
    pub(super) flags: Vec<String>,
    /// Where each client pays from.
    pub(super) wallets: Vec<EvmAddress>,
}

/// The plane, which may be killed and started again at the same address.
pub(super) struct Plane {
    binary: PathBuf,
    home: TempDir,
    flags: Vec<String>,
    bootstrap: Vec<String>,
    listen: String,
    child: Option<Child>,
    keys: Vec<String>,
    http: Client,
    report: Arc<Mutex<WebReport>>,
}

/// Jobs of its clients.
#[derive(Clone)]
pub(super) struct Load {
    url: String,
    keys: Vec<String>,
    http: Client,
    report: Arc<Mutex<WebReport>>,
}

pub(super) fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Options(format!("{what}: {error}"))
}

fn number(told: &Value, field: &str) -> Option<u64> {
    told.get(field)?.as_u64()
}

impl Plane {
    /// Its home, with its clients. Each has ten dollars, or what it pays in from its wallet, where there is a `till`.
    pub(super) async fn new(binary: &Path, till: Option<Till>) -> Result<Self, BenchError> {
        let home = tempfile::Builder::new().prefix("infernet-plane-").tempdir()?;
        let http = Client::builder().no_proxy().timeout(HUNG).build().map_err(|error| failed("a client", &error))?;
        let mut plane = Plane {
            binary: binary.to_owned(),
            home,
            flags: till.as_ref().map(|till| till.flags.clone()).unwrap_or_default(),
            bootstrap: Vec::new(),
            listen: "127.0.0.1:0".into(),
            child: None,
            keys: Vec::new(),
            http,
            report: Arc::default(),
        };
        let balance = if till.is_some() { 0 } else { BALANCE };
        for n in 0..CLIENTS {
            plane.make_client(&format!("web-{n}"), balance).await?;
        }
        if let Some(till) = till {
            plane.give_wallets(&till.wallets).await.map_err(|error| failed("a client's wallet", &error))?;
        }
        Ok(plane)
    }

    /// Starts it for the first time.
    pub(super) async fn start(&mut self, bootstrap: Vec<String>) -> Result<(), BenchError> {
        self.bootstrap = bootstrap;
        self.begin().await
    }

    /// The node that it buys through, whose account is the plane's, too.
    pub(super) fn id(&self) -> Result<NodeId, BenchError> {
        let key = infernet_plane::server::key(self.home.path(), BUYER);
        key.map(|key| key.id()).map_err(|error| failed("the plane's key", &error))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["plane", "--json", "--home"]).arg(self.home.path()).args(args);
        command.args(["--network", NETWORK, "--mdns", "false", "--log", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn make_client(&mut self, name: &str, balance: u64) -> Result<(), BenchError> {
        let output = self.command(&["client", name, "--grant", &balance.to_string()]).output().await?;
        let made: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed("a client of the plane", &error))?;
        let key = made.get("key").and_then(Value::as_str);
        self.keys.push(key.ok_or_else(|| failed("a client of the plane", &made))?.to_owned());
        Ok(())
    }

    /// Clients sign in by these, too, each by one. The plane does not run yet.
    async fn give_wallets(&self, wallets: &[EvmAddress]) -> Result<(), String> {
        let store = self.store().map_err(|error| error.to_string())?;
        let clients = Clients::clients(&store, None, MAX_PAGE).await.map_err(|error| error.to_string())?;
        for (n, wallet) in wallets.iter().enumerate() {
            let name = format!("web-{n}");
            let client = clients.iter().find(|client| client.name == name).ok_or("there is no such client")?;
            let proven = Proven { kind: "evm", subject: hex::encode(wallet.0), data: String::new(), label: name };
            let signed_in = accounts::sign_in(&store, &HttpConfig::default(), proven, Some(&client.id)).await;
            signed_in.map_err(|refusal| refusal.message)?;
        }
        Ok(())
    }

    fn store(&self) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(&self.home.path().join("store"), &NETWORK.parse().unwrap_or_default())
    }

    /// Starts the process, which must listen in time.
    async fn begin(&mut self) -> Result<(), BenchError> {
        let bootstrap = self.bootstrap.join(",");
        let anywhere = ["start", "--watch-listen", "none", "--p2p-listen", "/ip4/127.0.0.1/tcp/0"];
        let args = [&anywhere[..], &["--listen", &self.listen, "--bootstrap", &bootstrap]].concat();
        let mut child = self.command(&args).args(&self.flags).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| failed("the plane", &"it has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START, lines.next_line()).await.map_err(|_| failed("the plane", &"it does not start in time"))??;
        let said: Value = serde_json::from_str(&line.unwrap_or_default()).map_err(|error| failed("the plane", &error))?;
        let url = said.get("url").and_then(Value::as_str).unwrap_or_default();
        self.listen = url.trim_start_matches("http://").to_owned();
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and a new process at once.
    pub(super) async fn again(&mut self) -> Result<(), BenchError> {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended already.
            let _ = child.kill().await;
        }
        self.begin().await
    }

    pub(super) fn load(&self) -> Load {
        let url = format!("http://{}", self.listen);
        Load { url, keys: self.keys.clone(), http: self.http.clone(), report: self.report.clone() }
    }

    /// Until a client has had an answer.
    pub(super) async fn answers(&self) -> Result<(), BenchError> {
        let (load, ends) = (self.load(), clock::instant() + FORM);
        loop {
            match load.ask(0, 4).await {
                Ok(true) => return Ok(()),
                told if clock::instant() >= ends => {
                    return Err(failed("no answer by way of the plane", &format!("{told:?}")));
                }
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Until what it tells `key` at `path` fits; what it told last, if that is not in time.
    async fn until(&self, path: &str, key: &str, ends: Instant, fits: impl Fn(&Value) -> bool) -> Result<(), Value> {
        loop {
            let told = self.ask(path, key).await;
            if fits(&told) {
                return Ok(());
            }
            if clock::instant() >= ends {
                return Err(told);
            }
            sleep(PAUSE).await;
        }
    }

    /// Until nothing is reserved for anybody: jobs of an instance that was killed are ended when their leases are over.
    pub(super) async fn rests(&self, within: Duration) -> Result<(), String> {
        let ends = clock::instant() + within;
        let rests = |me: &Value| number(me, "reserved_micro_usd") == Some(0);
        for key in &self.keys {
            let rested = self.until("/api/v1/me", key, ends, rests).await;
            rested.map_err(|_| format!("something is still reserved after {} s", within.as_secs()))?;
        }
        Ok(())
    }

    /// Until each client was credited what it has sent.
    pub(super) async fn credits(&self, sent: &[u64], within: Duration) -> Result<(), String> {
        let ends = clock::instant() + within;
        let credited = |told: &Value| -> u64 {
            let rows = told.get("deposits").and_then(Value::as_array).into_iter().flatten();
            rows.filter_map(|row| number(row, "amount_micro_usd")).sum()
        };
        for (key, sent) in self.keys.iter().zip(sent) {
            let came = self.until("/api/v1/user/deposits", key, ends, |told| credited(told) >= *sent).await;
            came.map_err(|told| {
                let (came, secs) = (credited(&told), within.as_secs());
                format!("a client has sent {sent}, and {came} came within {secs} s")
            })?;
        }
        Ok(())
    }

    /// What it answers; null if it does not.
    async fn ask(&self, path: &str, key: &str) -> Value {
        match self.http.get(format!("http://{}{path}", self.listen)).bearer_auth(key).send().await {
            Ok(response) => response.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    /// Until its volume is `micro_usd` at least: what it did not hear it reads from nodes, some time after they or it have come.
    pub(super) async fn knows(&self, micro_usd: u64, within: Duration) -> Result<(), String> {
        let (ends, key) = (clock::instant() + within, self.keys.first().map_or("", String::as_str));
        let volume = |told: &Value| number(told, "volume");
        let knows = self.until("/api/v1/overview", key, ends, |told| volume(told) >= Some(micro_usd)).await;
        knows.map_err(|told| {
            format!("of {micro_usd} micro-USD the plane knows {:?} after {} s", volume(&told), within.as_secs())
        })
    }

    /// Tells it to stop; what is wrong with how it did.
    pub(super) async fn stop(&mut self, within: Duration) -> Option<String> {
        let mut child = self.child.take()?;
        let pid = child.id()?.to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await;
        match timeout(within, child.wait()).await {
            Ok(Ok(status)) if status.success() => None,
            other => Some(format!("the plane did not stop well: {told:?}, {other:?}")),
        }
    }

    /// The home of the node that it buys through.
    pub(super) fn buyer(&self) -> PathBuf {
        self.home.path().join(BUYER)
    }

    /// What the plane keeps; it must have ended.
    pub(super) async fn books(&self) -> Result<PlaneBooks, BenchError> {
        self.read().await.map_err(|error| failed("the plane's store", &error))
    }

    async fn read(&self) -> Result<PlaneBooks, StoreError> {
        let store = self.store()?;
        let index = Index::default();
        follow::catch_up(&store, &index, 0).await?;
        let indexed = index.read(|book| {
            let workers = book.ledger().workers();
            let of = |worker| book.ledger().buyers_of(worker).map(move |(buyer, sums)| ((*buyer, *worker), sums.charged().0));
            workers.flat_map(of).collect()
        });
        let volume = index.read(|book| book.ledger().all().charged().0);
        let mut accounts = Vec::new();
        for row in Clients::clients(&store, None, MAX_PAGE).await? {
            accounts.push(account(&store, row).await?);
        }
        let known = index.read(|book| {
            let settled = book.ledger().newest().filter(|receipt| receipt.is_settled);
            settled.map(|receipt| receipt.digest).collect()
        });
        Ok(PlaneBooks { indexed, volume, known, accounts })
    }
}

async fn account(store: &dyn Store, row: infernet_plane::store::ClientRow) -> Result<Account, StoreError> {
    let (mut given, mut drops, mut before) = (0, 0, None);
    loop {
        let entries = store.entries(&row.id, before, MAX_PAGE).await?;
        let Some(last) = entries.last() else { break };
        before = Some(last.number);
        for entry in entries {
            match entry.kind {
                EntryKind::Job => drops += entry.amount.unsigned_abs(),
                EntryKind::Grant | EntryKind::Deposit => given += entry.amount.unsigned_abs(),
                EntryKind::Withdrawal => given -= entry.amount.unsigned_abs(),
            }
        }
    }
    let (mut charges, mut query) =
        (Vec::new(), JobQuery { client: Some(row.id.clone()), limit: MAX_PAGE, ..JobQuery::default() });
    loop {
        let rows = store.jobs(&query).await?;
        let Some(last) = rows.last() else { break };
        query.before = Some((last.created, last.id.clone()));
        charges.extend(rows.into_iter().map(|job| Charge {
            job: job.id.0,
            cost: job.cost.unwrap_or_default().0,
            receipt: job.receipt,
            error: job.error.map(|error| error.code),
        }));
    }
    let identities = store.identities(&row.id).await?;
    let address = |subject: &str| Some(EvmAddress(hex::decode(subject).ok()?.try_into().ok()?));
    let wallet = identities.iter().filter(|identity| identity.kind == "evm").find_map(|identity| address(&identity.subject));
    Ok(Account { name: row.name, given, balance: row.balance.0, reserved: row.reserved.0, drops, charges, wallet })
}

impl Load {
    /// One job, followed to its end: whether it was answered, or why the plane could not be asked.
    async fn ask(&self, client: usize, tokens: u32) -> Result<bool, String> {
        let body = json!({ "model": crate::chaos::MODEL, "prompt": "count", "max_tokens": tokens });
        let job = self.http.post(format!("{}/api/v1/jobs", self.url)).json(&body);
        let job: Value = self.told(job, client).await?.json().await.map_err(|error| error.to_string())?;
        let Some(id) = job.get("id").and_then(Value::as_str) else { return Ok(false) };
        let answer = self.told(self.http.get(format!("{}/api/v1/jobs/{id}/stream", self.url)), client).await?;
        Ok(answer.text().await.map_err(|error| error.to_string())?.contains("[DONE]"))
    }

    async fn told(&self, request: RequestBuilder, client: usize) -> Result<Response, String> {
        let key = self.keys.get(client).cloned().unwrap_or_default();
        request.bearer_auth(key).send().await.map_err(|error| error.to_string())
    }

    /// Runs jobs until `stop`; the job that runs then is waited for.
    pub(super) async fn client(self, client: usize, stop: watch::Receiver<bool>) {
        for tokens in TOKENS.into_iter().cycle().skip(client) {
            if *stop.borrow() {
                return;
            }
            let told = self.ask(client, tokens).await;
            self.note(&told);
            sleep(PAUSE).await;
        }
    }

    fn note(&self, told: &Result<bool, String>) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.asked += 1;
        match told {
            Ok(true) => report.answered += 1,
            Ok(false) => report.refused += 1,
            Err(_) => report.lost += 1,
        }
    }

    pub(super) fn report(&self) -> WebReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
