//! The `infernet-relay` command: parses, calls the library, prints. Answers go to stdout, everything about them to stderr.
//!
//! Exit codes, as far as `infernet` has them too: 0 fine · 2 usage or settings · 3 home or key · 4 address in use · 130
//! stopped at once · 1 anything else.

use crate::{
    bootstrap,
    server::{self, Running},
    settings::{EXAMPLE, FILE, Keys, Settings},
};
use clap::{Parser, Subcommand};
use infernet_node::program;
use serde_json::json;
use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The command line or the settings are wrong.
const USAGE: u8 = 2;
/// Stopped at once.
const INTERRUPTED: u8 = 130;

/// One small machine that is all a new infernet network needs: a circuit relay for nodes that can't be dialled, and a place to
/// begin.
#[derive(Debug, Parser)]
#[command(name = "infernet-relay", version)]
struct Cli {
    /// Where its key and its settings (relay.toml) are.
    #[arg(long, global = true, env = "INFERNET_RELAY_HOME", hide_env_values = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Relay, until Ctrl-C or SIGTERM.
    Start {
        #[command(flatten)]
        keys: Box<Keys>,
    },
    /// Tell the relay's id and its key's fingerprint. Makes the key if there is none.
    Id,
    /// Check the settings, and print a relay.toml with every key explained.
    Config {
        #[command(flatten)]
        keys: Box<Keys>,
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
    let json = cli.json;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return told(Exit(1, format!("can't start: {error}")), json),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => told(exit, json),
    }
}

fn told(Exit(code, message): Exit, json: bool) -> ExitCode {
    let error = json!({ "error": { "exit": code, "message": message } });
    let line = if json { error.to_string() } else { format!("infernet-relay: {message}") };
    // Nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(code)
}

fn print(text: &str) -> Result<(), Exit> {
    writeln!(std::io::stdout(), "{text}").map_err(Exit::from)
}

async fn run(cli: Cli) -> Result<(), Exit> {
    let (home, json) = (program::home(cli.home, "infernet-relay").map_err(|error| Exit(USAGE, error))?, cli.json);
    let load = |keys: Box<Keys>| Settings::load(&home, *keys).map_err(|error| Exit(USAGE, error.to_string()));
    match cli.command {
        Command::Start { keys } => {
            let settings = load(keys)?;
            program::log(&settings.log, "infernet_relay");
            start(settings, json).await
        }
        Command::Id => {
            let id = server::key(&home).map_err(|error| Exit(error.exit(), error.to_string()))?.id();
            let fingerprint = bootstrap::fingerprint(&id);
            if json {
                return print(&json!({ "id": id.to_string(), "fingerprint": fingerprint }).to_string());
            }
            print(&format!("id          {id}\nfingerprint {fingerprint}"))
        }
        Command::Config { keys } => {
            load(keys)?;
            let _ = writeln!(std::io::stderr(), "the settings are good; {} is where they are kept", home.join(FILE).display());
            print(EXAMPLE.trim_end())
        }
    }
}

async fn start(settings: Settings, json: bool) -> Result<(), Exit> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let grace = Duration::from_secs(settings.grace);
    let running = tokio::select! {
        running = Running::start(settings, None) => running.map_err(|error| Exit(error.exit(), error.to_string()))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    show(&running, json).await?;
    let again = tokio::select! {
        _ = terminate.recv() => &mut terminate,
        _ = interrupt.recv() => &mut interrupt,
    };
    tracing::info!("stopping: circuits have {} s", grace.as_secs());
    tokio::select! {
        () = running.stop(grace) => Ok(()),
        _ = again.recv() => Err(Exit(INTERRUPTED, "stopped at once; circuits were cut".into())),
    }
}

async fn show(running: &Running, json: bool) -> Result<(), Exit> {
    let id = running.net().id();
    let addresses: Vec<String> = running.about.relaying.addresses().await.iter().map(ToString::to_string).collect();
    let bootstrap = running.http.map(|addr| format!("http://{addr}/bootstrap.json"));
    let metrics = running.watch.map(|addr| format!("http://{addr}/metrics"));
    let fingerprint = bootstrap::fingerprint(&id);
    if json {
        let shown = json!({
            "id": id.to_string(), "fingerprint": fingerprint, "listen": addresses, "bootstrap": bootstrap, "metrics": metrics,
        });
        return print(&shown.to_string());
    }
    print(&format!("relay       {id}\nfingerprint {fingerprint}"))?;
    addresses.iter().try_for_each(|address| print(&format!("listen      {address}")))?;
    bootstrap.iter().try_for_each(|url| print(&format!("bootstrap   {url}")))?;
    metrics.iter().try_for_each(|url| print(&format!("metrics     {url}")))
}
