//! The `infernet-testnet` command.

use clap::{Args, Parser, Subcommand};
use infernet_testnet::{
    bench::{auction, receipts, stream},
    demo, scribe,
};
use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// A whole infernet on this machine.
#[derive(Debug, Parser)]
#[command(name = "infernet-testnet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One prompt through auction, stream and receipt, with a real tiny model.
    Demo(DemoArgs),
    /// Measure, and say on what.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Write receipts and say which are durable, until killed.
    #[command(hide = true)]
    Scribe {
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        from: u64,
    },
    /// `infernet`, for processes that the testnet starts.
    #[command(hide = true, disable_help_flag = true)]
    Node {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// What to ask.
    #[arg(default_value = demo::DEFAULT_PROMPT)]
    prompt: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Keep the network running until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// Ask this model of the Ollama on this machine instead of the embedded one.
    #[arg(long, value_name = "MODEL")]
    ollama: Option<String>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// From the signed offer to the winner's first frame.
    Auction {
        /// Nodes in all, the buyer included; each worker is a process.
        #[arg(long, default_value_t = 10)]
        nodes: usize,
        /// Auctions per round.
        #[arg(long, default_value_t = 100)]
        auctions: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Receipts that are on the disk, per second.
    Receipts {
        /// How long to measure.
        #[arg(long, default_value_t = 20)]
        secs: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the network adds to a token.
    Stream {
        /// Streams at once.
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Node { args } => infernet_node::cli::main([OsString::from("infernet")].into_iter().chain(args)),
        command => match run(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "infernet-testnet: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Demo(DemoArgs { prompt, json, stay, ollama }) => {
                let options = demo::DemoOptions { prompt, json, stay, ollama };
                demo::run(options, &mut io::stdout(), &mut io::stderr()).await?;
            }
            Command::Bench { command: BenchCommand::Auction { nodes, auctions, json } } => {
                let binary: PathBuf = std::env::current_exe()?;
                let result = auction::run(auction::AuctionOptions { nodes, auctions, binary }).await?;
                print(&result, json)?;
            }
            Command::Bench { command: BenchCommand::Stream { streams, json } } => {
                print(&stream::run(stream::StreamOptions { streams }).await?, json)?;
            }
            Command::Bench { command: BenchCommand::Receipts { secs, json } } => {
                print(&receipts::run(&receipts::ReceiptsOptions { secs })?, json)?;
            }
            Command::Scribe { home, from } => scribe::run(&home, from, io::stdout())?,
            // Handled before the runtime exists: it makes its own.
            Command::Node { .. } => {}
        }
        Ok(())
    })
}

fn print(result: &(impl serde::Serialize + std::fmt::Display), json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(result)? } else { result.to_string() };
    Ok(writeln!(io::stdout(), "{text}")?)
}
