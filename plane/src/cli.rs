//! The `infernet-plane` command: parses, calls the library, prints. Answers go to stdout, everything about them to stderr.

use crate::{
    accounts::{self, KeyWish, Scope, key::MAX_PER_MINUTE},
    follow::Follower,
    index::Index,
    query,
    rebuild::{self, Reader},
    server::{self, PlaneError, Running},
    settings::{EXAMPLE, FILE, Keys, Settings},
    store::{ClientId, ClientRow, Store},
};
use clap::{Parser, Subcommand};
use infernet_node::{clock, program};
use infernet_wire::money::MicroUsd;
use serde_json::json;
use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The command line or the settings are wrong.
const USAGE: u8 = 2;

/// An optional indexer of the infernet mesh, with an API for clients that have no node.
#[derive(Debug, Parser)]
#[command(name = "infernet-plane", version)]
struct Cli {
    /// Where its keys, its settings (plane.toml) and, unless named, its store are.
    #[arg(long, global = true, env = "INFERNET_PLANE_HOME", hide_env_values = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the mesh and serve, until Ctrl-C or SIGTERM.
    Start {
        #[command(flatten)]
        keys: Keys,
    },
    /// Read the receipts that nodes have into the store, and tell what the index says then.
    Rebuild {
        /// How long to look for nodes first, in seconds: they say every 45 that they are there.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        look: u64,
        #[command(flatten)]
        keys: Keys,
    },
    /// Make a client with an API key, which is shown once. A plane on the embedded store must be stopped first.
    Client {
        /// What it is called.
        name: String,
        /// It may make clients and grant balances.
        #[arg(long)]
        admin: bool,
        /// What it may spend, in micro-USD.
        #[arg(long, default_value_t = 0, value_name = "MICRO_USD")]
        grant: u64,
        #[command(flatten)]
        keys: Keys,
    },
    /// List clients, with what they have.
    Clients {
        #[command(flatten)]
        keys: Keys,
    },
    /// Give a client more to spend.
    Grant {
        /// Such as cl_1a2b….
        client: String,
        /// In micro-USD.
        amount: u64,
        /// What for: the same word counts once.
        #[arg(long)]
        reference: String,
        #[command(flatten)]
        keys: Keys,
    },
    /// Check the settings, and print a plane.toml with every key explained.
    Config {
        #[command(flatten)]
        keys: Keys,
    },
}

/// A command's failure: one sentence, and a code.
struct Exit(u8, String);

impl<E: std::fmt::Display> From<E> for Exit {
    fn from(error: E) -> Self {
        Exit(1, error.to_string())
    }
}

/// Runs a command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match program::parse::<Cli>(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return told(Exit(1, format!("can't start: {error}"))),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => told(exit),
    }
}

fn told(Exit(code, message): Exit) -> ExitCode {
    // Nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "infernet-plane: {message}");
    ExitCode::from(code)
}

fn print(text: &str) -> Result<(), Exit> {
    writeln!(std::io::stdout(), "{text}").map_err(Exit::from)
}

async fn run(cli: Cli) -> Result<(), Exit> {
    let (home, json) = (program::home(cli.home, "infernet-plane").map_err(|error| Exit(USAGE, error))?, cli.json);
    let load = |keys| {
        let settings = Settings::load(&home, keys).map_err(|error| Exit(USAGE, error.to_string()))?;
        program::log(&settings.log, "infernet_plane");
        Ok::<Settings, Exit>(settings)
    };
    match cli.command {
        Command::Start { keys } => start(load(keys)?, json).await,
        Command::Rebuild { look, keys } => rebuild(load(keys)?, Duration::from_secs(look), json).await,
        Command::Client { name, admin, grant, keys } => client(load(keys)?, &name, admin, grant, json).await,
        Command::Clients { keys } => clients(load(keys)?, json).await,
        Command::Grant { client, amount, reference, keys } => grant(load(keys)?, client, amount, &reference, json).await,
        Command::Config { keys } => {
            let settings = load(keys)?;
            let _ = writeln!(
                std::io::stderr(),
                "{} is good; served at {}",
                settings.home.join(FILE).display(),
                settings.plane.origin
            );
            print(EXAMPLE.trim_end())
        }
    }
}

async fn start(settings: Settings, json: bool) -> Result<(), Exit> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let grace = Duration::from_secs(settings.grace);
    let running = tokio::select! {
        running = Running::start(settings) => running?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let origin = &running.plane.config.origin;
    let watch = running.watch_addr.map(|addr| format!("http://{addr}/metrics"));
    let listen: Vec<String> = running.follower().net().listen_addresses().await.iter().map(ToString::to_string).collect();
    if json {
        let shown = json!({ "url": origin, "listen": running.addr, "metrics": watch, "mesh": listen });
        print(&shown.to_string())?;
    } else {
        print(&format!("plane {origin}"))?;
        listen.iter().try_for_each(|address| print(&format!("mesh {address}")))?;
        watch.iter().try_for_each(|watch| print(&format!("metrics {watch}")))?;
    }
    let again = tokio::select! {
        _ = terminate.recv() => &mut terminate,
        _ = interrupt.recv() => &mut interrupt,
    };
    tracing::info!("stopping: running answers have {} s", grace.as_secs());
    tokio::select! {
        () = running.stop(grace) => Ok(()),
        _ = again.recv() => Err(Exit(130, "stopped at once; answers that ran were cut".into())),
    }
}

async fn rebuild(settings: Settings, look: Duration, json: bool) -> Result<(), Exit> {
    let network = settings.plane.network.clone();
    let store = server::open_store(&settings.store, &network).await?;
    let index = Arc::new(Index::default());
    let key = server::key(&settings.home, "observer")?;
    let config = crate::follow::FollowConfig { pages: false, ..server::follow_config(&settings) };
    let follower = Follower::start(&key, config, store.clone(), index.clone()).await.map_err(PlaneError::from)?;
    if !follower.net().wait_connected(clock::now().after(look.as_millis() as u64)).await {
        return Err(Exit(1, "no node was found: name one with --bootstrap".into()));
    }
    tokio::time::sleep(look).await;
    let nodes = rebuild::nodes(follower.net(), &index).await.into_iter().map(|seen| seen.node).collect();
    let reader = Reader { net: follower.net().clone(), network, store, index: index.clone() };
    let told = reader.read_whole(nodes).await;
    follower.stop(Duration::from_secs(10)).await;
    let overview = index.read(|book| query::overview(book, clock::now()));
    if json {
        let shown = json!({
            "nodes": told.nodes, "failed": told.failed, "read": told.read, "new": told.new, "refused": told.refused,
            "jobs": overview.jobs, "volume_micro_usd": overview.volume.0,
        });
        return print(&shown.to_string());
    }
    print(&format!(
        "{} nodes told {} receipts, {} of them new; {} nodes did not answer",
        told.nodes, told.read, told.new, told.failed
    ))?;
    if told.refused > 0 {
        print(&format!("{} receipts do not verify and were left out", told.refused))?;
    }
    print(&format!("the index has {} settled jobs, {}", overview.jobs, overview.volume))
}

async fn client(settings: Settings, name: &str, admin: bool, amount: u64, json: bool) -> Result<(), Exit> {
    let store = server::open_store(&settings.store, &settings.plane.network).await?;
    let refused = |refusal: crate::http::error::Refusal| Exit(1, refusal.message);
    let called = accounts::name(name, "client");
    let others = accounts::clients(&*store).await.map_err(refused)?;
    if let Some(other) = others.iter().find(|other| other.name == called) {
        let id = &other.id.0;
        return Err(Exit(1, format!("{called} is a client already, {id}: infernet-plane grant {id} gives it more")));
    }
    let client = accounts::new_client(&*store, name, admin).await.map_err(refused)?.id;
    // Its first: by it the client signs in, and makes others that may less, so that this one may what any may.
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { name: name.into(), scopes, per_minute: Some(MAX_PER_MINUTE), ..KeyWish::default() };
    let (key, _) = accounts::new_key(&*store, &client, wish).await.map_err(refused)?;
    // First the key: it can't be shown again, and a grant can be made again.
    if json {
        print(&json!({ "client": client.0, "key": *key, "balance_micro_usd": amount }).to_string())?;
    } else {
        print(&format!("client {}\nkey    {}", client.0, *key))?;
        let (network, place) = (&settings.plane.network, store.place());
        let _ = writeln!(std::io::stderr(), "of network {network}, in the {place}; the key is shown this once: keep it");
    }
    if amount > 0 {
        let granted = give(&*store, &client, amount, "first").await;
        granted.map_err(|Exit(code, why)| Exit(code, format!("the client is made, and has no balance yet: {why}")))?;
    }
    Ok(())
}

async fn clients(settings: Settings, json: bool) -> Result<(), Exit> {
    let store = server::open_store(&settings.store, &settings.plane.network).await?;
    for row in accounts::clients(&*store).await.map_err(|refusal| Exit(1, refusal.message))? {
        let ClientRow { id, name, admin, balance, reserved, .. } = row;
        if json {
            let shown = json!({
                "client": id.0, "name": name, "admin": admin,
                "balance_micro_usd": balance.0, "reserved_micro_usd": reserved.0,
            });
            print(&shown.to_string())?;
        } else {
            print(&format!("{} {balance} {name}{}", id.0, if admin { ", admin" } else { "" }))?;
        }
    }
    Ok(())
}

async fn grant(settings: Settings, client: String, amount: u64, reference: &str, json: bool) -> Result<(), Exit> {
    let store = server::open_store(&settings.store, &settings.plane.network).await?;
    let client = ClientId(client);
    let is_new = give(&*store, &client, amount, reference).await?;
    let balance = store.client(&client).await?.map(|row| row.balance).unwrap_or_default();
    if json {
        return print(&json!({ "client": client.0, "new": is_new, "balance_micro_usd": balance.0 }).to_string());
    }
    let told = if is_new { "granted" } else { "nothing new: this reference was granted before" };
    print(&format!("{told}; {} has {balance}", client.0))
}

async fn give(store: &dyn Store, client: &ClientId, amount: u64, reference: &str) -> Result<bool, Exit> {
    let granted = accounts::grant(store, client, MicroUsd(amount), reference).await;
    granted.map_err(|refusal| Exit(1, refusal.message))
}
