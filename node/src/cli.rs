//! The `infernet` command: parses, calls the library, prints.
//!
//! Answers go to stdout, everything about them to stderr, so that output can be piped. `--json` prints one JSON value per
//! line instead. Every failure is one sentence on stderr and an exit code from [`exit`].

mod api_key;
mod chat;
mod command;
mod config;
mod credit;
mod doctor;
mod drain;
pub mod exit;
mod flags;
mod income;
mod jobs;
mod key;
mod login;
mod logs;
mod model;
mod money;
mod operator;
mod pages;
mod payout;
mod progress;
mod query;
mod receipts;
mod schema;
mod service;
mod setup;
mod start;
mod status;
mod tranche;
mod tui;
mod wallet;
mod watch;
mod why;

use crate::{
    config as configuration,
    earnings::Side,
    logfile::{self, Stderr},
};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::Exit;
use money::dollars;
use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode, time::Duration};

/// Behind the flags of the command itself, in `--help`.
const LAST: usize = 900;

/// What still blocks at the end, such as a file that is being written, may take so long.
const LEFT: Duration = Duration::from_secs(1);

/// Buy and sell AI inference, peer to peer.
#[derive(Debug, Parser)]
#[command(name = "infernet", version, after_help = exit::HELP)]
struct Cli {
    /// Where this node keeps its key, configuration and receipts.
    #[arg(long, global = true, env = "INFERNET_HOME", hide_env_values = true, value_name = "DIR", display_order = LAST)]
    home: Option<PathBuf>,
    /// Print JSON for scripts; `infernet schema` describes it.
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node's key and a commented config.toml.
    Init,
    /// Set up a node by a few questions: key, configuration, and a service if you like.
    Setup(setup::SetupArgs),
    /// Run this node: join the mesh, and sell what the engines beside it can do.
    Start(Box<flags::NodeArgs>),
    /// Show this node on one screen.
    Status(watch::WatchArgs),
    /// Take no new jobs; those that run end.
    Drain(drain::DrainArgs),
    /// Take jobs again, after `drain`.
    Resume,
    /// Show this node on a screen that lives: peers, auctions, streams, engine, earnings, log.
    Tui,
    /// Show the jobs that run and the last ones, bought and sold.
    Jobs(jobs::JobsArgs),
    /// Say why this worker earns, or does not, and what to change.
    Why(watch::WatchArgs),
    /// Look for what is wrong with home, machine and surroundings, and say what to do.
    Doctor,
    /// Ask a model something: auction, answer, receipt.
    Chat(Box<chat::ChatArgs>),
    /// Show which models the mesh offers, and for how much.
    Models(query::ModelsArgs),
    /// See, fetch, remove and choose the models of the engines beside this node.
    Model(model::ModelArgs),
    /// Show the peers of the running node.
    Peers,
    /// Show receipts, newest first, or one whole, or check them all.
    Receipts(receipts::ReceiptsArgs),
    /// Show what was earned, by day and model.
    Earnings(income::BookArgs),
    /// Show what was spent, by day and model.
    Spend(income::BookArgs),
    /// Show and say what buyers owe this worker, may owe, and have paid.
    Credit {
        #[command(subcommand)]
        command: credit::CreditCommand,
    },
    /// Prepay workers on Solana, and show what was prepaid.
    Tranche {
        #[command(subcommand)]
        command: tranche::TrancheCommand,
    },
    /// Show the money of the running node, and move what is on an EVM chain.
    Wallet {
        #[command(subcommand)]
        command: wallet::WalletCommand,
    },
    /// Show what was earned on chains, redeem it, and say where it goes.
    Payout {
        #[command(subcommand)]
        command: payout::PayoutCommand,
    },
    /// Make, list and remove keys of this node's API.
    ApiKey {
        #[command(subcommand)]
        command: api_key::ApiKeyCommand,
    },
    /// Show, back up, restore, encrypt or replace this node's key.
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Run this node as a systemd service of yours.
    Service {
        #[command(subcommand)]
        command: service::ServiceCommand,
    },
    /// Say who may command this node, or sign a command.
    Operator {
        #[command(subcommand)]
        command: operator::OperatorCommands,
    },
    /// Tell a node of yours what to do, by way of a control plane.
    #[command(name = "command")]
    Order(command::CommandArgs),
    /// Get an API key of a control plane, by this home's key.
    Login(login::LoginArgs),
    /// Show the configuration and where it comes from.
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Show the log of the node of this home.
    Logs(logs::LogsArgs),
    /// Print what --json prints, as JSON Schema.
    Schema {
        /// A command, such as `chat` or `receipts verify` [default: all]
        command: Vec<String>,
    },
    /// Print a script that completes commands and flags in your shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a directory.
    Man {
        /// Directory for the pages, one for each command.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
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

    /// Text with line ends of its own, on stdout.
    fn print_text(&self, text: &[u8]) {
        let _ = std::io::stdout().lock().write_all(text);
    }

    /// One JSON value on stdout.
    fn print_json(&self, value: &impl serde::Serialize) -> Result<(), Exit> {
        self.print(json(value)?);
        Ok(())
    }

    /// One line on stderr, for people.
    fn note(&self, line: impl AsRef<str>) {
        if self.json {
            return;
        }
        let _ = writeln!(Stderr::default(), "{}", line.as_ref());
    }
}

/// Runs the command line `args`, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = command_line().try_get_matches_from(&args);
    let parsed = parsed.and_then(|found| Cli::from_arg_matches(&found).map_err(|error| error.format(&mut command_line())));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, args.iter().any(|arg| arg == "--json")),
    };
    // `start` knows only with its configuration where its log goes, and the screen of `tui` is no place for one.
    if !matches!(cli.command, Command::Start(_) | Command::Tui) {
        logfile::log_to(None, "error");
    }
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.show(json);
            ExitCode::from(exit.code)
        }
    }
}

/// The command line's definition, with every help complete.
fn command_line() -> clap::Command {
    flags::with_variables(Cli::command())
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
    let context = Context { home: configuration::home(cli.home.as_deref())?, json: cli.json };
    // `start` has its log for this, and `doctor` its list.
    if !matches!(cli.command, Command::Start(_) | Command::Doctor) {
        configuration::unknown_variables().iter().for_each(|unknown| context.note(unknown.to_string()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Exit::new(exit::FAILED, e))?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Init => query::init(&context),
            Command::Setup(args) => setup::run(&context, args).await,
            Command::Start(args) => start::run(&context, *args).await,
            Command::Status(args) => status::run(&context, args).await,
            Command::Drain(args) => drain::drain(&context, args).await,
            Command::Resume => drain::resume(&context).await,
            Command::Tui => tui::run(&context).await,
            Command::Jobs(args) => jobs::run(&context, args).await,
            Command::Why(args) => why::run(&context, args).await,
            Command::Doctor => doctor::run(&context).await,
            Command::Chat(args) => chat::run(&context, *args).await,
            Command::Models(args) => query::models(&context, args).await,
            Command::Model(args) => model::run(&context, args).await,
            Command::Peers => query::peers(&context).await,
            Command::ApiKey { command } => api_key::run(&context, command),
            Command::Receipts(args) => receipts::run(&context, args).await,
            Command::Earnings(args) => income::run(&context, Side::Earned, args).await,
            Command::Spend(args) => income::run(&context, Side::Spent, args).await,
            Command::Credit { command } => credit::run(&context, command).await,
            Command::Tranche { command } => tranche::run(&context, command).await,
            Command::Wallet { command } => wallet::run(&context, command).await,
            Command::Payout { command } => payout::run(&context, command).await,
            Command::Key { command } => key::run(&context, command).await,
            Command::Service { command } => service::run(&context, command).await,
            Command::Operator { command } => operator::run(&context, command).await,
            Command::Order(args) => command::run(&context, args).await,
            Command::Login(args) => login::run(&context, args).await,
            Command::Config { command } => config::run(&context, command),
            Command::Logs(args) => logs::run(&context, args).await,
            Command::Schema { command } => schema::run(&context, &command.join(" ")),
            Command::Completions { shell } => pages::completions(&context, shell),
            Command::Man { dir } => pages::man(&context, dir),
        }
    });
    // All of value is on the disk by now. Dropped, a runtime waits for a name server or a driver that never answers.
    runtime.shutdown_timeout(LEFT);
    done
}

/// `value` as JSON, in one line.
fn json(value: &impl serde::Serialize) -> Result<String, Exit> {
    serde_json::to_string(value).map_err(|e| Exit::new(exit::FAILED, e))
}

/// `1 bid`, `2 bids`.
fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
