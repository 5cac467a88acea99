//! The `infernet` command: parses, calls the library, prints.
//!
//! Answers go to stdout, everything about them to stderr, so that output can be piped. `--json` prints one JSON value per
//! line instead. Every failure is one sentence on stderr and an exit code from [`exit`].

mod api_key;
mod chat;
pub mod exit;
mod flags;
mod query;
mod start;

use crate::config;
use clap::{Parser, Subcommand};
use exit::Exit;
use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// Behind the flags of the command itself, in `--help`.
const LAST: usize = 900;

/// Buy and sell AI inference, peer to peer.
#[derive(Debug, Parser)]
#[command(name = "infernet", version, after_help = exit::HELP)]
struct Cli {
    /// Where this node keeps its key, configuration and receipts.
    #[arg(long, global = true, env = "INFERNET_HOME", hide_env_values = true, value_name = "DIR", display_order = LAST)]
    home: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node's key and a commented config.toml.
    Init,
    /// Run this node: join the mesh, and sell what the engines beside it can do.
    Start(flags::NodeArgs),
    /// Ask a model something: auction, answer, receipt.
    Chat(chat::ChatArgs),
    /// Show which models the mesh offers, and for how much.
    Models(query::ModelsArgs),
    /// Show the peers of the running node.
    Peers,
    /// Show receipts, newest first.
    Receipts(query::ReceiptsArgs),
    /// Make, list and remove keys of this node's API.
    ApiKey {
        #[command(subcommand)]
        command: api_key::ApiKeyCommand,
    },
    /// Show this node's identity.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Show the public half.
    Show,
}

/// What every command needs.
struct Context {
    home: PathBuf,
    json: bool,
}

impl Context {
    /// One line on stdout.
    fn print(&self, line: impl AsRef<str>) {
        // A closed pipe is the reader's wish to hear no more.
        let _ = writeln!(std::io::stdout().lock(), "{}", line.as_ref());
    }

    /// One JSON value on stdout.
    fn print_json(&self, value: &impl serde::Serialize) -> Result<(), Exit> {
        self.print(serde_json::to_string(value).map_err(|e| Exit::new(exit::FAILED, e))?);
        Ok(())
    }

    /// One line on stderr, for people.
    fn note(&self, line: impl AsRef<str>) {
        if self.json {
            return;
        }
        let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
    }
}

/// Runs the command line `args`, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, args.iter().any(|arg| arg == "--json")),
    };
    log_to_stderr(if matches!(cli.command, Command::Start(_)) { "info" } else { "error" });
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.show(json);
            ExitCode::from(exit.code)
        }
    }
}

/// Help was asked for, or is needed.
fn not_understood(error: &clap::Error, json: bool) -> ExitCode {
    let no_command = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if error.use_stderr() && !no_command {
        Exit::usage(error).show(json);
    } else {
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

fn run(cli: Cli) -> Result<(), Exit> {
    let context = Context { home: config::home(cli.home.as_deref())?, json: cli.json };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Exit::new(exit::FAILED, e))?;
    runtime.block_on(async {
        match cli.command {
            Command::Init => query::init(&context),
            Command::Start(args) => start::run(&context, args).await,
            Command::Chat(args) => chat::run(&context, args).await,
            Command::Models(args) => query::models(&context, args).await,
            Command::Peers => query::peers(&context).await,
            Command::ApiKey { command } => api_key::run(&context, command),
            Command::Receipts(args) => query::receipts(&context, args).await,
            Command::Key { command: KeyCommand::Show } => query::key_show(&context),
        }
    })
}

/// `1 bid`, `2 bids`.
fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `RUST_LOG` decides, else `default` for this software and warnings of the libraries' own trouble.
fn log_to_stderr(default: &str) {
    let fallback = format!("error,infernet_node={default},infernet_testnet={default}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second call, in tests, keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).try_init();
}
