//! `infernet start`: runs the node until it is told to stop.

use super::{
    Context, counted, exit,
    exit::Exit,
    flags::NodeArgs,
    progress::{Line, TURN},
    status::{closed_said, priced},
};
use crate::{
    api::open::{ApiConfig, OpenError, Opened},
    backend::{self, Backend, BackendError, Deadlines},
    buyer::{Preferences, Trust},
    clock,
    config::{self, Config},
    control::Control,
    doctor,
    engines::{EngineReport, Engines, Probed},
    identity::{self, SOLANA_KEY_FILE},
    logfile, metrics,
    node::{Node, Serve, Settings},
    plane_client::{self, Planes},
    seller,
    settlement::{service, solana::key::SolanaKey, tabs::Credit},
    store, why,
};
use infernet_wire::{id::NodeId, key::NodeKey};
use libp2p::Multiaddr;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, sleep},
};
use tracing::{info, warn};

/// A named peer that lives is met within seconds; a slow name server takes a few more.
const MEET: Duration = Duration::from_secs(5);
/// Models that the line about what is sold names.
const NAMED_MODELS: usize = 5;

pub(super) async fn run(context: &Context, args: NodeArgs) -> Result<(), Exit> {
    let config = Config::load(&context.home, args.partial())?;
    let key = context.key_or_new(&config)?;
    let mut control = Control::bind(&context.home)?;
    // Only now is the home this node's, and so is its log.
    if let Some(error) = logfile::log_to(config.log_file.then_some(context.home.as_path()), "info") {
        context.note(format!("no log is written to the home: {error}"));
    }
    config::unknown_variables().iter().for_each(|unknown| warn!("{unknown}"));
    let store = store::open(&context.home, &config.network)?;
    let serve = serve(context, &config).await?;
    let api = open_api(context, &config).await?;
    let mut stop = Stop::listen()?;
    let (grace, caps) = (config.grace, config.caps());
    let planes = plane_client::Settings {
        key: key.clone(),
        home: context.home.clone(),
        planes: config.planes.clone(),
        every: config.heartbeat,
    };
    let former = identity::former(&context.home, &key.id(), &config.network)?;
    let named = config.bootstrap.clone();
    let solana = match &config.solana {
        Some(account) => Some((account.clone(), solana_key(context)?)),
        None => None,
    };
    if config.evm_lacks_rpc {
        let fix = "evm_rpc is missing: write the URL of the chain's node into config.toml, or set INFERNET_EVM_RPC";
        return Err(Exit::new(exit::CONFIG, fix));
    }
    let account = config.evm.clone().map(|evm| service::Settings {
        evm,
        payout_at: config.payout_at,
        payout_to: config.payout_evm,
        poll: service::POLL,
    });
    let node = Arc::new(Node::start(settings(config, key.clone(), former, serve), store).await?);
    if let Some(account) = account {
        node.settle(account, key).map_err(|error| Exit::new(exit::FAILED, error))?;
    }
    if let Some((account, key)) = solana {
        node.use_solana(account, &key).map_err(|error| Exit::new(exit::FAILED, error))?;
    }
    let purse = node.limit(caps).await?;
    let api = api.map(|api| api.serve(&node, purse.clone(), metrics::route(node.clone()))).transpose()?;
    if let Some(api) = &api {
        node.serves_api(api.base_url());
    }
    control.serve(node.clone());
    let planes = Planes::spawn(&node, planes).map_err(|error| Exit::new(exit::FAILED, error))?;
    ready(context, &node).await?;
    tokio::select! {
        () = stop.first() => {}
        () = watch_named(&node, &named) => {}
    }
    drop(control);
    if let Some(api) = &api {
        api.stop();
    }
    let closing = async {
        tokio::join!(close(context, &node, grace), planes.stop());
        if let Err(error) = purse.close().await {
            context.note(format!("more counts as spent than was: {error}"));
        }
    };
    tokio::select! {
        () = closing => Ok(()),
        () = stop.first() => Err(Exit::new(exit::FAILED, "stopped at once; running jobs were cut")),
    }
}

/// Warns once of each peer that was named to be met first and can't be. Never ends.
async fn watch_named(node: &Node, named: &[Multiaddr]) {
    sleep(MEET).await;
    let met = !node.net().peers().await.is_empty();
    for why in doctor::unmet(named, node.network(), met).await {
        warn!("a peer that is named with bootstrap can't be met: {why}");
    }
    std::future::pending().await
}

/// The key of the node's wallet on Solana. Whoever has a backup is told of a new one.
fn solana_key(context: &Context) -> Result<SolanaKey, Exit> {
    let is_new = identity::existing_solana_key(&context.home)?.is_none();
    let key = identity::solana_key(&context.home)?;
    if is_new {
        let (address, file) = (key.address(), context.home.join(SOLANA_KEY_FILE));
        context.note(format!(
            "made a wallet on Solana, {address}, in {}: no backup of before holds it, run `infernet key backup FILE`",
            file.display()
        ));
    }
    Ok(key)
}

/// Lets running jobs end, and tells how many are left.
async fn close(context: &Context, node: &Node, grace: Duration) {
    let (begin, mut left) = (clock::instant(), node.jobs().await);
    context.note(match left {
        0 => "stopping".into(),
        n => format!(
            "stopping: no new jobs; {} may take {} s; again to stop at once",
            counted(n, "running job"),
            grace.as_secs()
        ),
    });
    let (mut line, mut turn, mut closing) = (Line::new(context), interval(TURN), pin!(node.close(grace)));
    loop {
        tokio::select! {
            biased;
            () = &mut closing => return,
            _ = turn.tick() => {}
        }
        let jobs = node.jobs().await;
        if jobs != left {
            left = jobs;
            info!(jobs, "draining");
        }
        let seconds = grace.saturating_sub(begin.elapsed()).as_secs();
        line.show(&format!("{} left, {seconds} s at most", counted(left, "running job")));
    }
}

/// Takes the API's address before the node starts, so that a taken one is told at once.
async fn open_api(context: &Context, config: &Config) -> Result<Option<Opened>, OpenError> {
    match ApiConfig::of(config) {
        Some(api) => Opened::new(&context.home, api).await.map(Some),
        None => Ok(None),
    }
}

/// The engines that answer. It is an error if some are named and none does: the operator would wait for earnings in vain. If
/// none is named, the first that answers is taken, and looked for as long as it takes.
async fn serve(context: &Context, config: &Config) -> Result<Option<Serve>, Exit> {
    if config.backend.is_empty() {
        return Ok(None);
    }
    let engines = connect(config).map_err(|error| Exit::new(exit::NO_ENGINE, error))?;
    let probed = Engines::probe(&engines).await;
    if probed.iter().all(|p| p.models.is_err()) {
        // The log tells of engines that were only looked for, and why none is used.
        if !config.backend_is_guess {
            let reasons: Vec<String> = probed.iter().filter_map(|p| p.models.clone().err()).collect();
            let fix = "start one, name one with --backend KIND=URL, or use --no-serve to only buy";
            return Err(Exit::new(exit::NO_ENGINE, format!("no engine can be used ({}): {fix}", reasons.join("; "))));
        }
    }
    for Probed { engine, models } in &probed {
        // Whoever does not answer is logged when its models are first missed.
        if let Ok(models) = models {
            context.note(format!("engine {engine} has {}", counted(models.len(), "model")));
        }
    }
    if probed.iter().any(|p| p.models.is_ok())
        && !probed.iter().any(|p| p.models.as_ref().is_ok_and(|models| !models.is_empty()))
    {
        context.note("no engine has a model yet: pull one, for example with `infernet model pull llama3.2`; it is offered as soon as it is there");
    }
    let Config { aliases, region, chat_advertise, pricing, models, policy, slots, credit, .. } = config.clone();
    if credit == Credit::default() && !pricing.is_free() {
        context.note(
            "no buyer may owe you anything, so nothing is sold that costs something: `infernet credit set anybody 0.10` lets anybody owe \
             ten cents, a node id instead of anybody one buyer",
        );
    }
    Ok(Some(Serve { chat_advertise, aliases, region, models, policy, credit, ..Serve::new(engines, pricing, slots) }))
}

fn connect(config: &Config) -> Result<Vec<Arc<dyn Backend>>, BackendError> {
    if config.backend_is_guess {
        return Ok(vec![backend::first_of(&config.backend, Deadlines::default())?.into()]);
    }
    config.backend.iter().map(|spec| backend::connect(spec).map(Arc::from)).collect()
}

/// How the node buys, whoever asks.
fn preferences(config: &Config) -> Preferences {
    let trust = Trust {
        min_reputation: config.min_reputation,
        allow: config.allow_workers.iter().copied().collect(),
        deny: config.deny_workers.iter().copied().collect(),
        regions: config.regions.iter().map(|region| region.as_str().to_owned()).collect(),
    };
    Preferences { trust, standing: config.standing }
}

pub(super) fn settings(config: Config, key: NodeKey, former: Vec<NodeId>, serve: Option<Serve>) -> Settings {
    let preferences = preferences(&config);
    Settings {
        key,
        former,
        network: config.network,
        listen: config.listen,
        chat_listen: config.chat_listen,
        bootstrap: config.bootstrap,
        mdns: config.mdns,
        max_peers: config.max_peers,
        reach: config.reach,
        serve,
        preferences,
        tap: None,
    }
}

async fn ready(context: &Context, node: &Node) -> Result<(), Exit> {
    let status = node.status().await;
    for finding in status.warnings.iter().filter(|finding| finding.code == why::UNSERVED) {
        warn!("{}: {}; {}", finding.seen, finding.means, finding.change.as_deref().unwrap_or_default());
    }
    if context.json {
        return context.print_json(&status);
    }
    context.note(format!("node {} on network {}", status.id, status.network));
    status.listen.iter().for_each(|address| context.note(format!("mesh {address}")));
    context.note(format!("chat udp {}", status.chat));
    if let Some(api) = &status.api {
        context.note(format!("api {api}"));
    }
    context.note(match &status.seller {
        Some(seller) if seller.models.is_empty() => nothing_yet(&status.engines).into(),
        Some(seller) => offer(seller),
        None => "sells nothing; ask with `infernet chat`".into(),
    });
    Ok(())
}

/// What a worker without a model waits for.
fn nothing_yet(engines: &[EngineReport]) -> &'static str {
    if engines.iter().all(|engine| engine.error.is_some()) {
        "sells nothing until an engine answers; until then it only buys (`infernet chat`)"
    } else {
        "sells nothing until an engine has a model that may be offered"
    }
}

/// What is for sale, in a line.
fn offer(seller: &seller::Status) -> String {
    let models = match seller.models.as_slice() {
        all if all.len() <= NAMED_MODELS => all.join(", "),
        all => format!(
            "{} and {} more",
            all.iter().take(NAMED_MODELS).cloned().collect::<Vec<_>>().join(", "),
            all.len() - NAMED_MODELS
        ),
    };
    let jobs = counted(seller.slots.into(), "job");
    let now = match &seller.closed {
        Some(closed) => format!("; nothing now ({})", closed_said(closed, clock::now())),
        None => String::new(),
    };
    format!("sells {models} at {}, {jobs} at once{now}", priced(seller))
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Exit> {
        let signal = |kind| signal(kind).map_err(|e| Exit::new(exit::FAILED, format!("can't listen for signals: {e}")));
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
