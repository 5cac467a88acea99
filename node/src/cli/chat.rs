//! `infernet chat`: asks through the running node of this home, else joins the mesh for one question.

mod screen;

use self::screen::{Screen, turn};
use super::{Context, exit, exit::Exit, flags::MeshArgs, money, start::settings};
use crate::{
    buyer::{ChatEvent, DEFAULT_WINDOW_MS},
    clock,
    config::{Config, Region},
    control::{
        client::Client,
        error_report,
        schema::{ChatOrderBody, ChatStep, PathName, WishesBody},
    },
    doctor, identity,
    node::Node,
    store,
};
use clap::{Args, ValueEnum};
use infernet_wire::{
    chat::{ChatMessage, Role},
    id::NodeId,
};
use std::{
    cell::{Cell, RefCell},
    io::Read,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// A prompt from a pipe is read up to this size; it must fit a request.
const MAX_PROMPT_BYTES: u64 = infernet_wire::limits::MAX_REQUEST_BYTES as u64;
/// How long a short-lived buyer looks for the mesh.
const JOIN_MS: u64 = 10_000;
/// How long a short-lived buyer takes to leave.
const LEAVE: Duration = Duration::from_secs(2);
/// An hour: whoever waits longer writes a script.
const MAX_WAIT_SECS: u64 = 3_600;
/// How long an interrupted job may take to be settled: the worker's last frame and its receipt.
const SETTLE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rule {
    // Money first, and a price on waiting.
    Balanced,
    // The lowest price.
    Cheapest,
    // The earliest answer.
    Fastest,
}

#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// What to ask; `-` reads it from stdin.
    prompt: String,
    /// Model to ask, by id or alias.
    #[arg(long, short)]
    model: String,
    /// The most to pay per million tokens, input or output, in micro-USD [default: max_price of the configuration]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    max_price: Option<u64>,
    /// The most to pay for this answer, in micro-USD [default: what the tokens can cost at --max-price]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    budget: Option<u64>,
    /// The most tokens to answer with.
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: u32,
    /// Instructions for the model.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Sampling temperature, 0 to 2 [default: the engine's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Sampling seed, for engines that can repeat themselves.
    #[arg(long, value_name = "N")]
    seed: Option<i64>,
    /// How to choose among the bids; balanced puts a price on waiting.
    #[arg(long, value_enum, default_value = "balanced")]
    rule: Rule,
    /// How long to collect bids at most, in milliseconds; most auctions close far earlier.
    #[arg(long, value_name = "MS", default_value_t = DEFAULT_WINDOW_MS)]
    window_ms: u16,
    /// How to find a worker: auto takes an advertised price where an auction would hardly do better.
    #[arg(long, value_enum, default_value = "auto")]
    path: PathName,
    /// Seconds to wait, and ask again, while nobody has room or nobody is there.
    #[arg(long, value_name = "SECS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=MAX_WAIT_SECS))]
    wait: u64,
    /// Only a worker that says it is there; repeatable [default: as configured]
    #[arg(long, value_name = "NAME")]
    region: Vec<Region>,
    /// Settled receipts that a worker must have [default: as configured]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_reputation: u32,
    /// Node id of a worker that may do it; then no other may; repeatable.
    #[arg(long, value_name = "NODE_ID")]
    allow: Vec<NodeId>,
    /// Node id of a worker that may not; repeatable.
    #[arg(long, value_name = "NODE_ID")]
    deny: Vec<NodeId>,
    #[command(flatten)]
    mesh: MeshArgs,
}

impl ChatArgs {
    fn order(&self, config: &Config) -> Result<ChatOrderBody, Exit> {
        let message = |role, content: String| ChatMessage::new(role, content);
        let system = self.system.clone().map(|text| message(Role::System, text));
        let prompt = if self.prompt == "-" { read_stdin()? } else { self.prompt.clone() };
        if prompt.trim().is_empty() {
            return Err(Exit::new(exit::USAGE, "the prompt is empty: write it in quotes, or pipe it in and give `-`"));
        }
        Ok(ChatOrderBody {
            model: self.model.clone(),
            messages: system.into_iter().chain([message(Role::User, prompt)]).collect(),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            max_price: self.max_price.unwrap_or(config.max_price.0),
            budget: self.budget,
            rule: match self.rule {
                Rule::Balanced => 0,
                Rule::Cheapest => 1,
                Rule::Fastest => 2,
            },
            window_ms: self.window_ms,
            wishes: self.wishes(),
        })
    }

    fn wishes(&self) -> WishesBody {
        WishesBody {
            path: self.path,
            wait_ms: self.wait * 1000,
            min_reputation: self.min_reputation,
            allow: self.allow.iter().copied().collect(),
            deny: self.deny.iter().copied().collect(),
            regions: self.region.iter().map(ToString::to_string).collect(),
        }
    }
}

fn read_stdin() -> Result<String, Exit> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_PROMPT_BYTES).read_to_string(&mut text);
    read.map_err(|e| Exit::new(exit::USAGE, format!("can't read the prompt from stdin: {e}")))?;
    Ok(text)
}

pub(super) async fn run(context: &Context, args: ChatArgs) -> Result<(), Exit> {
    let order = args.order(&Config::load(&context.home, args.mesh.partial())?)?;
    match Client::connect(&context.home) {
        Some(node) => through_node(context, &node, order).await,
        None => short_lived(context, &args, order).await,
    }
}

/// Asks through the node that runs here. It settles the job even if this command ends early.
async fn through_node(context: &Context, node: &Client, order: ChatOrderBody) -> Result<(), Exit> {
    let screen = RefCell::new(Screen::new(context));
    let last = tokio::select! {
        last = node.chat(&order, |step| screen.borrow_mut().show(step)) => Some(last?),
        () = interrupt() => None,
        () = turn(&screen) => None,
    };
    let screen = screen.into_inner();
    match last {
        Some(Some(last)) => screen.end(last, false),
        None => {
            screen.break_line(false);
            Err(Exit::new(exit::INTERRUPTED, "interrupted; the running node settles what had arrived"))
        }
        Some(None) => {
            context.note("nobody reads the answer any more; the running node settles what had arrived");
            Ok(())
        }
    }
}

/// Joins, asks, leaves. Ctrl-C, or a reader of the answer who goes away, cancels the job in order: what was delivered is settled.
async fn short_lived(context: &Context, args: &ChatArgs, order: ChatOrderBody) -> Result<(), Exit> {
    let node = join(context, &args.mesh).await?;
    let screen = RefCell::new(Screen::new(context));
    let interrupted = Cell::new(false);
    let (events, mut heard) = mpsc::channel::<ChatEvent>(16);
    let (cancel, mut cancelled) = watch::channel(false);
    let asking = async {
        let result = node.chat(order.into(), &events, &mut cancelled).await;
        drop(events);
        result
    };
    let showing = async {
        while let Some(event) = heard.recv().await {
            if screen.borrow_mut().show(&event.into()).is_break() {
                cancel.send_replace(true);
            }
        }
    };
    let impatient = async {
        interrupt().await;
        interrupted.set(true);
        cancel.send_replace(true);
        // A second Ctrl-C does not wait for the worker's receipt.
        let _ = timeout(SETTLE, interrupt()).await;
    };
    let result = tokio::select! {
        (result, ()) = async { tokio::join!(asking, showing) } => Some(result),
        () = impatient => None,
        () = turn(&screen) => None,
    };
    let mut screen = screen.into_inner();
    screen.rest();
    node.shutdown(LEAVE).await;
    let last = match result {
        Some(Ok(report)) => ChatStep::Done(Box::new(report)),
        Some(Err(error)) => ChatStep::Error(error_report(&error)),
        None => return Err(Exit::new(exit::INTERRUPTED, "interrupted before the worker's receipt came")),
    };
    screen.end(last, interrupted.get())
}

/// Resolves at the next Ctrl-C.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Then it ends the process, as it would have without us.
        std::future::pending::<()>().await;
    }
}

/// Starts a node that only buys, on free ports, and waits until it has met a peer.
pub(super) async fn join(context: &Context, mesh: &MeshArgs) -> Result<Node, Exit> {
    let mut partial = mesh.partial();
    partial.backend = Some(Vec::new());
    let mut config = Config::load(&context.home, partial)?;
    if mesh.listen.is_empty() {
        config.listen = Vec::new();
    }
    // It is gone before a router's mapping is of use.
    config.reach.upnp = false;
    if mesh.chat_listen.is_none() {
        config.chat_listen.set_port(0);
    }
    let key = context.key_or_new(&config)?;
    let store = store::open(&context.home, &config.network)?;
    let fix = "name a node of the network with --bootstrap MULTIADDR (`infernet start` prints its own), or start one here";
    if config.listen.is_empty() && config.bootstrap.is_empty() && !config.mdns && store.peers()?.is_empty() {
        return Err(Exit::new(exit::NO_PEERS, format!("no peers: this node knows none and may not look for any; {fix}")));
    }
    let caps = config.caps();
    let former = identity::former(&context.home, &key.id(), &config.network)?;
    let (named, network) = (config.bootstrap.clone(), config.network.clone());
    let node = Node::start(settings(config, key, former, None), store).await?;
    node.limit(caps).await?;
    let met = context.during("looking for peers", node.net().wait_connected(clock::now().after(JOIN_MS))).await;
    if !met {
        node.shutdown(LEAVE).await;
        let why = doctor::unmet(&named, &network, false).await;
        let fix = if why.is_empty() { fix.to_owned() } else { format!("{}: name another with --bootstrap", why.join("; ")) };
        return Err(Exit::new(exit::NO_PEERS, format!("no peers found within {} s; {fix}", JOIN_MS / 1000)));
    }
    Ok(node)
}
