//! The nodes, their links and engines, and what is done to them.

use super::{
    kept,
    plan::{Cast, Fault, Strike, Who},
};
use crate::{
    bench::{BenchError, engine::EngineProcess},
    cluster::{
        ClusterError, Sells,
        process::{Launch, Process},
    },
    shim::{Link, Quality},
};
use infernet_node::clock;
use infernet_wire::id::NodeId;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Jobs at once of each worker.
const SLOTS: u16 = 8;
/// What the cheapest worker charges, in micro-USD per million tokens; the next ones that much more each.
const PRICE: u64 = 200_000;
/// Engine's speed: a job of the load takes a fraction of a second to two.
const TOKENS_PER_SECOND: f64 = 100.0;
/// Of a disk of its own, in megabytes: a home with its journal and index, and room to run for hours.
const DISK_MB: u32 = 96;
/// How long a node told to stop may finish its jobs.
const GRACE_SECS: &str = "20";
/// What keeps a disk busy is written in pieces of this, over and over into the same place.
const HOG: usize = 4 << 20;

/// How buyers and workers are started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// They listen, and whoever joins finds them; else their links to the hubs are their only ways.
    pub(crate) is_open: bool,
    /// What else is in each one's config.toml.
    pub(crate) config: String,
    /// More flags of workers.
    pub(crate) worker: Vec<String>,
    /// They settle on a chain: it is counted how many steps there a kill has met.
    pub(crate) on_chain: bool,
}

impl Setup {
    fn given(&self, launch: Launch) -> Result<Launch, ClusterError> {
        if self.is_open { launch.listening().configured(&self.config) } else { launch.dialling_only() }
    }
}

/// When a node could not answer, from when to when.
pub(crate) type Outages = Arc<Mutex<BTreeMap<Who, Vec<(Instant, Option<Instant>)>>>>;

/// One node.
struct Member {
    launch: Launch,
    process: Option<Process>,
    /// To each hub.
    mesh: Vec<Link>,
    chat: Option<Link>,
    engine: Option<(EngineProcess, Link)>,
    /// Where it is found by whoever looks for it, whichever process it is.
    door: Option<Link>,
}

/// All of them.
pub(crate) struct Stage {
    members: BTreeMap<Who, Member>,
    pub(crate) outages: Outages,
    hog: Option<(tokio::task::JoinHandle<()>, Arc<std::sync::atomic::AtomicBool>)>,
    scratch: TempDir,
    /// Why there is no small disk, if there is none.
    pub(crate) no_small_disk: Option<String>,
    setup: Setup,
    /// Steps on a chain that were under way on nodes when they were killed.
    pub(crate) steps_met: usize,
}

/// A bootstrap address: `id` behind `link`.
fn way(link: &Link, id: &NodeId) -> String {
    format!("/ip4/{}/tcp/{}/p2p/{id}", link.addr().ip(), link.addr().port())
}

impl Stage {
    /// Starts everybody. Asks for `cast.small_disks`, and tells how many there are.
    pub(crate) async fn build(binary: &Path, cast: &mut Cast, setup: Setup) -> Result<Self, BenchError> {
        let scratch = tempfile::Builder::new().prefix("infernet-").tempdir()?;
        let mut stage = Stage {
            members: BTreeMap::new(),
            outages: Outages::default(),
            hog: None,
            scratch,
            no_small_disk: None,
            setup,
            steps_met: 0,
        };
        for n in 0..cast.hubs {
            let links = stage.links_to_hubs(n).await?;
            let launch = Launch::new(binary, &stage.through(&links)?, &["--no-serve"])?.listening();
            stage.enter(Who::Hub(n), launch, links, None, None).await?;
        }
        for n in 0..cast.workers {
            stage.enter_worker(n, binary, cast).await?;
        }
        for n in 0..cast.buyers {
            let links = stage.links_to_hubs(cast.hubs).await?;
            let launch = Launch::new(binary, &stage.through(&links)?, &["--no-serve", "--grace-secs", GRACE_SECS])?;
            let launch = stage.with_disk(launch, n, cast).await?;
            let launch = stage.setup.given(launch)?;
            stage.enter(Who::Buyer(n), launch, links, None, None).await?;
        }
        Ok(stage)
    }

    async fn enter_worker(&mut self, n: usize, binary: &Path, cast: &mut Cast) -> Result<(), BenchError> {
        let engine = EngineProcess::metronome(binary, TOKENS_PER_SECOND).await?;
        let at = engine.url().strip_prefix("http://").and_then(|at| at.trim_end_matches('/').parse().ok());
        let at = at.ok_or_else(|| BenchError::Options("the engine has no address".into()))?;
        let to_engine = Link::tcp(at, Quality::default()).await?;
        let chat = Link::udp(Quality::default()).await?;
        let (links, outside) = (self.links_to_hubs(cast.hubs).await?, chat.addr().to_string());
        let price = PRICE * (n as u64 + 1);
        let mut flags = Sells::new(format!("http://{}", to_engine.addr()), price, price, SLOTS).flags();
        flags.extend(["--chat-advertise", &outside, "--grace-secs", GRACE_SECS].map(str::to_owned));
        flags.extend(self.setup.worker.iter().cloned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let launch = Launch::new(binary, &self.through(&links)?, &flags)?;
        let launch = self.with_disk(launch, n, cast).await?;
        let launch = self.setup.given(launch)?;
        self.enter(Who::Worker(n), launch, links, Some(chat), Some((engine, to_engine))).await
    }

    async fn with_disk(&mut self, launch: Launch, n: usize, cast: &mut Cast) -> Result<Launch, BenchError> {
        if n >= cast.small_disks {
            return Ok(launch);
        }
        match launch.clone().on_small_disk(DISK_MB).await {
            Ok(launch) => Ok(launch),
            Err(error) => {
                cast.small_disks = 0;
                self.no_small_disk = Some(error.to_string());
                Ok(launch)
            }
        }
    }

    /// A link to each of the first `hubs` hubs.
    async fn links_to_hubs(&self, hubs: usize) -> Result<Vec<Link>, BenchError> {
        let mut links = Vec::new();
        for n in 0..hubs {
            links.push(Link::tcp(self.mesh_address(Who::Hub(n))?, Quality::default()).await?);
        }
        Ok(links)
    }

    /// The hubs' addresses behind `links`, as bootstrap addresses.
    fn through(&self, links: &[Link]) -> Result<Vec<String>, BenchError> {
        let address = |(n, link): (usize, &Link)| {
            let hub = self.members.get(&Who::Hub(n)).and_then(|hub| hub.process.as_ref());
            let hub = hub.ok_or_else(|| BenchError::Options("a hub does not run".into()))?;
            Ok(way(link, &hub.status.id))
        };
        links.iter().enumerate().map(address).collect()
    }

    /// For somebody who joins: where those with a door are, and the hubs' own addresses, which last while they do.
    pub(crate) fn ways_in(&self) -> Result<Vec<String>, BenchError> {
        let address = |member: &Member| {
            let status = &member.process.as_ref()?.status;
            match &member.door {
                Some(door) => Some(way(door, &status.id)),
                None => status.listen.first().cloned(),
            }
        };
        let open = self.members.iter().filter(|(who, member)| matches!(who, Who::Hub(_)) || member.door.is_some());
        let all: Option<Vec<String>> = open.map(|(_, member)| address(member)).collect();
        all.ok_or_else(|| BenchError::Options("somebody has no address".into()))
    }

    fn mesh_address(&self, who: Who) -> Result<SocketAddr, BenchError> {
        let listen = self.members.get(&who).and_then(|m| m.process.as_ref()).map(|p| p.status.listen.clone());
        let port = listen.unwrap_or_default().iter().find_map(|address| {
            let address: Multiaddr = address.parse().ok()?;
            address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })
        });
        Ok((Ipv4Addr::LOCALHOST, port.ok_or_else(|| BenchError::Options("a hub listens nowhere".into()))?).into())
    }

    async fn enter(
        &mut self,
        who: Who,
        launch: Launch,
        mesh: Vec<Link>,
        chat: Option<Link>,
        engine: Option<(EngineProcess, Link)>,
    ) -> Result<(), BenchError> {
        let has_door = self.setup.is_open && !matches!(who, Who::Hub(_));
        // It leads somewhere once the process listens.
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let door = if has_door { Some(Link::tcp(nowhere, Quality::default()).await?) } else { None };
        self.members.insert(who, Member { launch, process: None, mesh, chat, engine, door });
        Ok(self.start(who).await?)
    }

    /// Starts the process of `who`, and leads links that led to the last one to it.
    async fn start(&mut self, who: Who) -> Result<(), ClusterError> {
        let Some(member) = self.members.get_mut(&who).filter(|member| member.process.is_none()) else { return Ok(()) };
        let process = member.launch.start().await?;
        if let (Some(link), Ok(address)) = (&member.chat, process.status.chat.parse()) {
            link.aim(address);
        }
        member.process = Some(process);
        let Ok(address) = self.mesh_address(who) else { return Ok(()) };
        if let Some(door) = self.members.get(&who).and_then(|member| member.door.as_ref()) {
            door.aim(address);
        }
        if let Who::Hub(n) = who {
            self.members.values().filter_map(|member| member.mesh.get(n)).for_each(|link| link.aim(address));
        }
        Ok(())
    }

    /// Everybody's home, as this process sees it.
    pub(crate) fn homes(&self) -> BTreeMap<Who, PathBuf> {
        self.members.iter().map(|(who, member)| (*who, member.launch.home())).collect()
    }

    /// Who those are that run.
    pub(crate) fn ids(&self) -> BTreeMap<Who, NodeId> {
        let running = self.members.iter().filter_map(|(who, member)| Some((*who, member.process.as_ref()?.status.id)));
        running.collect()
    }

    /// A fault begins.
    pub(crate) async fn begin(&mut self, strike: &Strike) -> Result<(), BenchError> {
        if matches!(strike.fault, Fault::Kill | Fault::Freeze) {
            self.note_outage(strike.who);
        }
        match strike.fault {
            Fault::Split => self.split(Link::cut),
            Fault::SlowDisk => self.hog_disk(),
            _ => {
                let Some(member) = self.members.get_mut(&strike.who) else { return Ok(()) };
                member.suffer(strike.fault).await?;
                if strike.fault == Fault::Kill && self.setup.on_chain {
                    self.steps_met += kept::open_steps(strike.who, &member.launch.home())?;
                }
            }
        }
        Ok(())
    }

    /// It is over.
    pub(crate) async fn end(&mut self, strike: &Strike) -> Result<(), BenchError> {
        match strike.fault {
            Fault::Split => self.split(Link::mend),
            Fault::SlowDisk => self.leave_disk().await,
            Fault::Kill => self.start(strike.who).await?,
            _ => {
                let Some(member) = self.members.get_mut(&strike.who) else { return Ok(()) };
                member.recover(strike.fault).await?;
            }
        }
        // One that was killed while it was frozen still is.
        if self.members.get(&strike.who).is_some_and(|member| member.process.is_some()) {
            self.note_recovery(strike.who);
        }
        Ok(())
    }

    /// Every second node loses the first hub, the others the second, and the hubs each other.
    fn split(&self, to: impl Fn(&Link)) {
        for (n, member) in self.members.values().enumerate() {
            member.mesh.get(n % 2).into_iter().for_each(&to);
        }
        let hubs = self.members.iter().filter(|(who, _)| matches!(who, Who::Hub(_)));
        hubs.flat_map(|(_, hub)| &hub.mesh).for_each(&to);
    }

    fn hog_disk(&mut self) {
        let (path, stop) = (self.scratch.path().join("hog"), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let told = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let piece = vec![1; HOG];
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                let written =
                    fs::File::create(&path).and_then(|mut file| file.write_all(&piece).and_then(|()| file.sync_all()));
                if written.is_err() {
                    return;
                }
            }
        });
        self.hog = Some((task, stop));
    }

    async fn leave_disk(&mut self) {
        if let Some((task, stop)) = self.hog.take() {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let _ = task.await;
        }
    }

    fn note_outage(&self, who: Who) {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.entry(who).or_default().push((clock::instant(), None));
    }

    fn note_recovery(&self, who: Who) {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        let open = outages.entry(who).or_default().iter_mut().filter(|(_, until)| until.is_none());
        open.for_each(|(_, until)| *until = Some(clock::instant()));
    }

    /// Tells everybody to stop, and waits. Who did not end well, and how.
    pub(crate) async fn stop(&mut self, within: Duration) -> Vec<String> {
        let mut wrong = Vec::new();
        for (who, member) in &mut self.members {
            let Some(process) = &mut member.process else { continue };
            match process.stop(within).await {
                Some(status) if status.success() => {}
                Some(status) => wrong.push(format!("{who:?} ended with {status} when told to stop")),
                None => wrong.push(format!("{who:?} did not stop within {} s", within.as_secs())),
            }
        }
        wrong
    }
}

impl Member {
    async fn suffer(&mut self, fault: Fault) -> Result<(), BenchError> {
        match fault {
            Fault::Kill => {
                if let Some(mut process) = self.process.take() {
                    process.kill().await;
                }
            }
            Fault::Freeze => {
                self.signal("STOP").await;
            }
            Fault::Isolate => self.mesh.iter().for_each(Link::cut),
            Fault::CutChat => self.chat.iter().for_each(Link::cut),
            Fault::CutEngine => self.engine.iter().for_each(|(_, link)| link.cut()),
            Fault::HangEngine => self.signal_engine("STOP").await,
            Fault::FullDisk => self.launch.disk().map_or(Ok(()), |disk| disk.fill())?,
            Fault::Split | Fault::SlowDisk => {}
        }
        Ok(())
    }

    async fn recover(&mut self, fault: Fault) -> Result<(), BenchError> {
        match fault {
            Fault::Freeze => {
                self.signal("CONT").await;
            }
            Fault::Isolate => self.mesh.iter().for_each(Link::mend),
            Fault::CutChat => self.chat.iter().for_each(Link::mend),
            Fault::CutEngine => self.engine.iter().for_each(|(_, link)| link.mend()),
            Fault::HangEngine => self.signal_engine("CONT").await,
            Fault::FullDisk => self.launch.disk().map_or(Ok(()), |disk| disk.empty())?,
            Fault::Kill | Fault::Split | Fault::SlowDisk => {}
        }
        Ok(())
    }

    async fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            process.signal(name).await;
        }
    }

    async fn signal_engine(&self, name: &str) {
        if let Some((engine, _)) = &self.engine {
            engine.signal(name).await;
        }
    }
}
