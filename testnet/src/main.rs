//! The `infernet-testnet` command.

use clap::{Args, Parser, Subcommand};
use infernet_testnet::{
    audit,
    bench::{auction, dial, gas, node, plane, receipts, relay, stream, vouchers},
    chaos, crash, demo,
    engine::{EngineOptions, EngineServer},
    flood, nat, scribe, serve,
    sim::{self, adversary, plant::Plant, report, scenario::Scenario},
    up,
};
use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Linux's own keeps the pages that a flood has scattered its last bytes over.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// A small network with an OpenAI endpoint, until stdin is closed or Ctrl-C: point a client at it.
    Api {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// A network of processes, until stdin is closed or Ctrl-C: look at it with `infernet --home`, and break it by hand.
    Up {
        /// Nodes in all: one that buys, the others sell.
        #[arg(long, default_value_t = 4)]
        nodes: usize,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Measure, and say on what.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// A worker and a buyer under attack; the exit code tells whether they came through.
    Flood(FloodArgs),
    /// Thousands of nodes on virtual time, from a seed: the same every time. The exit code tells whether everything held.
    Sim(SimArgs),
    /// Processes that are killed, frozen, cut off and starved under load; the exit code tells whether the books balance.
    Chaos(ChaosArgs),
    /// A node's money on a chain, in processes that are killed at every write of it, many times over; the exit code tells whether all was
    /// paid once.
    Crash {
        /// Lives of a channel with 41 kills each, or of two tranches with 19; three of them crash at every moment of every write.
        #[arg(long, default_value_t = 9)]
        lives: u32,
        /// Where.
        #[arg(long, value_enum, default_value_t = demo::Settle::Evm)]
        settle: demo::Settle,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Jobs of mesh buyers and of a plane's web clients while processes are killed, then all books to the micro-USD; the exit code tells
    /// whether they balance.
    Audit(AuditArgs),
    /// The real programs behind NATs of each kind, in network namespaces or a model of them; the exit code tells whether every pair came
    /// together.
    Nat {
        /// What is before a buyer; repeatable [default: each kind].
        #[arg(long, value_enum)]
        buyer: Vec<nat::kind::NatKind>,
        /// What is before a worker; repeatable [default: each kind].
        #[arg(long, value_enum)]
        worker: Vec<nat::kind::NatKind>,
        /// What is to happen in the middle of an answer; repeatable [default: each].
        #[arg(long, value_enum)]
        event: Vec<nat::events::What>,
        /// The pairs alone: nothing happens in the middle of answers.
        #[arg(long, conflicts_with = "event")]
        no_events: bool,
        /// Of a hundred packets, how many each NAT loses, such as 1 or 0.5.
        #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = per_mille)]
        loss: u16,
        /// Milliseconds that a packet takes from one host to another, besides.
        #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=2_000))]
        delay: u64,
        /// The model, even if there are namespaces.
        #[arg(long)]
        model: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// A metronome instead of an engine, until it is killed; prints its URL.
    #[command(hide = true)]
    Engine {
        /// Of each stream.
        #[arg(long)]
        tokens_per_second: f64,
        /// Of each token.
        #[arg(long, default_value_t = 0)]
        token_bytes: usize,
    },
    /// Write receipts and say which are durable, until killed.
    #[command(hide = true)]
    Scribe {
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        from: u64,
    },
    /// A node's account, which does what stdin says and stops where that says, until it is killed.
    #[command(hide = true)]
    Account,
    /// `infernet-plane`, for processes that the testnet starts.
    #[command(name = "plane", hide = true, disable_help_flag = true)]
    PlaneProcess {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// `infernet-relay`, for processes that the testnet starts.
    #[command(hide = true, disable_help_flag = true)]
    Relay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
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
    #[arg(long, conflicts_with = "settle")]
    stay: bool,
    /// Pay on a chain that runs here, and show what everybody has before and after.
    #[arg(long)]
    settle: Option<demo::Settle>,
    /// Ask this model of a real engine instead of the embedded one, such as vllm=http://127.0.0.1:8000 my-model
    #[arg(long, num_args = 2, value_names = ["KIND=URL", "MODEL"])]
    engine: Vec<String>,
}

#[derive(Debug, Args)]
struct FloodArgs {
    /// For how long; fractions are fine.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Which attack.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gossip messages a second, all attackers together.
    #[arg(long, default_value_t = 1_000)]
    gossip: u32,
    /// Dials, TCP connections and noise datagrams a second, each, per victim.
    #[arg(long, default_value_t = 20)]
    dials: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SimArgs {
    #[command(subcommand)]
    command: Option<SimCommand>,
    /// A TOML file, or one of the built-in scenarios; a wrong name lists them.
    #[arg(long, default_value = "honest")]
    scenario: String,
    /// Which of the scenario's histories.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Many of them: the first and the last.
    #[arg(long, value_name = "FIRST..LAST", conflicts_with = "seed", value_parser = seeds)]
    seeds: Option<(u64, u64)>,
    /// Print what happens, line by line.
    #[arg(long)]
    trace: bool,
    /// Plant a bug, which a check must find.
    #[arg(long)]
    plant: Option<Plant>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ChaosArgs {
    /// For how long things go wrong; fractions are fine.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// SIGKILLs; half as many other faults come with them [default: 20 a minute].
    #[arg(long)]
    kills: Option<usize>,
    /// Nodes that sell.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Nodes that buy.
    #[arg(long, default_value_t = 3)]
    buyers: usize,
    /// Which faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AuditArgs {
    /// Jobs in all.
    #[arg(long, default_value_t = 200)]
    jobs: u64,
    /// Seconds for them at most.
    #[arg(long, default_value_t = 120)]
    secs: u64,
    /// SIGKILLs of workers and buyers; the plane is killed once, too, unless this is 0.
    #[arg(long, default_value_t = 8)]
    kills: usize,
    /// Which faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mesh buyers pay, and web clients deposit, on a chain that runs here, whose balances are audited, too.
    #[arg(long)]
    settle: Option<audit::Settle>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SimCommand {
    /// What growth costs, who earns what, and what attackers achieve: table, JSON and SVG plots.
    Report {
        /// Where to.
        #[arg(long, default_value = "testnet/reports")]
        dir: PathBuf,
        /// The largest network, in nodes: 10000 takes minutes and some gigabytes.
        #[arg(long, default_value_t = 1_000)]
        nodes: u64,
        /// Seeds of each attack.
        #[arg(long, default_value_t = 5)]
        attacks: u64,
    },
}

/// A percentage with one digit after the point, as tenths of it.
fn per_mille(text: &str) -> Result<u16, String> {
    let percent: f64 =
        text.parse().ok().filter(|percent| (0.0..=50.0).contains(percent)).ok_or("write a number from 0 to 50")?;
    // At most 500.
    Ok((percent * 10.0).round() as u16)
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").ok_or("say the first and the last seed, such as 1..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?} is no seed: {error}"));
    match (number(first)?, number(last)?) {
        (first, last) if first <= last => Ok((first, last)),
        (first, last) => Err(format!("{first} is above {last}: swap the two")),
    }
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
        /// How far away the buyer is from everybody, as a round trip in milliseconds.
        #[arg(long, default_value_t = 0)]
        rtt_ms: u16,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What an idle node costs, and how soon it bids.
    Node {
        /// How often to start one.
        #[arg(long, default_value_t = 5)]
        starts: usize,
        /// The `infernet` program [default: the one beside this program, the `dist` build if there is one]
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// A thousand buyers that dial a worker at the same moment, and its streams under a flood.
    Dial {
        /// Buyers.
        #[arg(long, default_value_t = 1_000)]
        dials: usize,
        /// Streams under the flood; 0: no flood.
        #[arg(long, default_value_t = 64)]
        streams: usize,
        /// Bogus Initials a second.
        #[arg(long, default_value_t = 10_000)]
        noise: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What a plane's index takes in, and how fast it is made anew.
    Plane {
        /// Messages to take in.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Who look at a live page: each is a connection, and an open file on both sides.
        #[arg(long, default_value_t = 9_000)]
        viewers: usize,
        /// Jobs over the plane, and as many on the mesh.
        #[arg(long, default_value_t = 100)]
        jobs: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What a relay adds to a frame's way, how it holds against a greedy peer, and what a reservation costs.
    Relay {
        /// Streams at once.
        #[arg(long, default_value_t = 64)]
        streams: usize,
        /// Reservations whose memory is measured.
        #[arg(long, default_value_t = 1_000)]
        reservations: usize,
        /// Also one stream of so many seconds; 200 make more than 10 MB.
        #[arg(long, default_value_t = 0)]
        secs: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What payment channels cost on an EVM chain: gas, counted on a real anvil.
    Gas {
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
    /// What it costs to pay, and to be paid, as an answer streams.
    Vouchers {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the network adds to a token.
    Stream {
        /// Streams at once; several numbers are measured one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1")]
        streams: Vec<usize>,
        /// Which way through the network.
        #[arg(long, value_enum, default_value_t = stream::Through::Node)]
        through: stream::Through,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Whether it goes on until a signal, and knows itself what to do then.
    fn stays(&self) -> bool {
        matches!(self, Command::Api { .. } | Command::Up { .. } | Command::Demo(DemoArgs { stay: true, .. }))
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Sim(args) => match simulate(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                let _ = writeln!(io::stderr(), "infernet-testnet: {error:#}");
                ExitCode::from(2)
            }
        },
        Command::Account => match crash::account::main(&mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "infernet-testnet: {error:#}");
                ExitCode::FAILURE
            }
        },
        Command::PlaneProcess { args } => infernet_plane::cli::main([OsString::from("infernet-plane")].into_iter().chain(args)),
        Command::Relay { args } => infernet_relay::cli::main([OsString::from("infernet-relay")].into_iter().chain(args)),
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
    let stays = command.stays();
    let work = async {
        match command {
            Command::Demo(DemoArgs { prompt, json, stay, settle, engine }) => {
                let mut named = engine.into_iter();
                let options = demo::DemoOptions { prompt, json, stay, settle, engine: named.next().zip(named.next()) };
                demo::run(options, &mut io::stdout(), &mut io::stderr()).await?;
            }
            Command::Api { json } => serve::run(json, &mut io::stdout()).await?,
            Command::Up { nodes, json } => up::run(nodes, &std::env::current_exe()?, json, &mut io::stdout()).await?,
            Command::Bench { command: BenchCommand::Auction { nodes, auctions, rtt_ms, json } } => {
                let binary: PathBuf = std::env::current_exe()?;
                let rtt = Duration::from_millis(rtt_ms.into());
                let result = auction::run(auction::AuctionOptions { nodes, auctions, rtt, binary }).await?;
                print(&result, json)?;
            }
            Command::Bench { command: BenchCommand::Stream { streams, through, json } } => {
                let binary: PathBuf = std::env::current_exe()?;
                print(&stream::run(stream::StreamOptions { streams, through, binary }).await?, json)?;
            }
            Command::Bench { command: BenchCommand::Node { starts, binary, json } } => {
                let engine: PathBuf = std::env::current_exe()?;
                let binary = binary.unwrap_or_else(|| infernet_beside(&engine));
                print(&node::run(node::NodeOptions { starts, binary, engine }).await?, json)?;
            }
            Command::Flood(FloodArgs { minutes, seed, gossip, dials, json }) => {
                let attack = Duration::try_from_secs_f64(minutes * 60.0)?;
                let (binary, gossip_per_second, dials_per_second) = (std::env::current_exe()?, gossip, dials);
                let options = flood::FloodOptions { attack, seed, gossip_per_second, dials_per_second, binary };
                let result = flood::run(options, &mut io::stderr()).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "the flood was not come through");
            }
            Command::Chaos(ChaosArgs { minutes, kills, workers, buyers, seed, json }) => {
                let time = Duration::try_from_secs_f64(minutes * 60.0)?;
                let kills = kills.unwrap_or((minutes * 20.0) as usize);
                let binary = std::env::current_exe()?;
                let options = chaos::ChaosOptions { time, kills, workers, buyers, seed, binary };
                let result = chaos::run(options, &mut io::stderr()).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "the network did not come through");
            }
            Command::Crash { lives, settle, json } => {
                let binary = std::env::current_exe()?;
                let result = crash::run(crash::CrashOptions { lives, settle, binary }, &mut io::stderr()).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "not everything was paid once");
            }
            Command::Audit(AuditArgs { jobs, secs, kills, seed, settle, json }) => {
                let (time, binary) = (Duration::from_secs(secs), std::env::current_exe()?);
                let options = audit::AuditOptions { jobs, time, seed, kills, settle, binary };
                let result = audit::run(options, &mut io::stderr()).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "the books do not balance");
            }
            Command::Engine { tokens_per_second, token_bytes } => engine(tokens_per_second, token_bytes).await?,
            Command::Bench { command: BenchCommand::Plane { events, viewers, jobs, json } } => {
                print(&plane::run(&plane::PlaneOptions { events, viewers, jobs }).await?, json)?;
            }
            Command::Bench { command: BenchCommand::Vouchers { json } } => print(&vouchers::run().await?, json)?,
            Command::Bench { command: BenchCommand::Gas { json } } => print(&gas::run().await?, json)?,
            Command::Bench { command: BenchCommand::Receipts { secs, json } } => {
                print(&receipts::run(&receipts::ReceiptsOptions { secs })?, json)?;
            }
            Command::Bench { command: BenchCommand::Dial { dials, streams, noise, json } } => {
                let binary = std::env::current_exe()?;
                let result = dial::run(dial::DialOptions { dials, streams, noise, binary }).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "not every dial had its answer");
            }
            Command::Bench { command: BenchCommand::Relay { streams, reservations, secs, json } } => {
                let binary = std::env::current_exe()?;
                print(&relay::run(&relay::RelayOptions { streams, reservations, secs, binary }).await?, json)?;
            }
            Command::Nat { buyer, worker, event, no_events, loss, delay, model, json } => {
                let or_all = |kinds: Vec<_>| if kinds.is_empty() { nat::kind::NatKind::ALL.to_vec() } else { kinds };
                let binary = std::env::current_exe()?;
                let events = match event.is_empty() {
                    true if no_events => Vec::new(),
                    true => nat::events::What::ALL.to_vec(),
                    false => event,
                };
                let (buyers, workers, delay) = (or_all(buyer), or_all(worker), Duration::from_millis(delay));
                let options = nat::NatOptions { buyers, workers, events, loss, delay, model, binary };
                let result = nat::run(options, &mut io::stderr()).await?;
                print(&result, json)?;
                anyhow::ensure!(result.is_well(), "not every pair came together");
            }
            Command::Scribe { home, from } => scribe::run(&home, from, io::stdout())?,
            // Handled before the runtime exists: they make their own, or need none.
            Command::Node { .. }
            | Command::PlaneProcess { .. }
            | Command::Relay { .. }
            | Command::Account
            | Command::Sim(_) => {}
        }
        Ok(())
    };
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            // Dropped, the work takes its processes and their homes with it.
            stopped = serve::signalled(), if !stays => {
                stopped?;
                anyhow::bail!("stopped by a signal; its processes are gone, too")
            }
        }
    })
}

/// Runs an attack and the same without it.
fn harm(scenario: &Scenario, name: &str, seeds: u64, json: bool) -> anyhow::Result<bool> {
    let Some(harm) = adversary::measure(scenario, name, seeds) else { return Ok(true) };
    print(&harm, json)?;
    Ok(harm.is_well())
}

/// Runs one seed or many; whether everything held.
fn simulate(args: SimArgs) -> anyhow::Result<bool> {
    if let Some(SimCommand::Report { dir, nodes, attacks }) = args.command {
        let report = report::run(&dir, nodes, attacks, &mut io::stderr())?;
        print(&report, args.json)?;
        return Ok(report.is_well());
    }
    let mut scenario = Scenario::load(&args.scenario)?;
    scenario.plant = args.plant;
    if let (Some(_), Some((_, last)), None) = (scenario.adversary, args.seeds, args.plant) {
        return harm(&scenario, &args.scenario, last, args.json);
    }
    let Some((first, last)) = args.seeds else {
        let outcome = sim::run(&scenario, &args.scenario, args.seed, args.trace);
        for line in &outcome.trace {
            writeln!(io::stdout(), "{line}")?;
        }
        print(&outcome, args.json)?;
        return Ok(outcome.is_well());
    };
    let (mut failed, mut jobs, mut fewest) = (0, 0, None::<(usize, usize, u64)>);
    let mut result = Ok(());
    let coverage = sim::run_many(&scenario, &args.scenario, first..=last, |outcome| {
        jobs += outcome.jobs;
        let least = fewest.get_or_insert((outcome.nodes, outcome.jobs, outcome.faults));
        *least = (least.0.min(outcome.nodes), least.1.min(outcome.jobs), least.2.min(outcome.faults));
        failed += u64::from(!outcome.is_well());
        if result.is_ok() && (!outcome.is_well() || args.json) {
            result = print(outcome, args.json);
        }
    });
    result?;
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&coverage)?)?;
        return Ok(failed == 0);
    }
    let (nodes, fewest_jobs, faults) = fewest.unwrap_or_default();
    writeln!(io::stdout(), "{coverage}")?;
    writeln!(
        io::stdout(),
        "{} seeds, {jobs} jobs, {} faults; each at least {nodes} nodes, {fewest_jobs} jobs, {faults} faults; {failed} seeds failed",
        last - first + 1,
        coverage.faults(),
    )?;
    Ok(failed == 0)
}

/// `infernet` of the `dist` profile if it was built, else of this profile.
fn infernet_beside(program: &Path) -> PathBuf {
    let folder = program.parent().unwrap_or(Path::new("."));
    let dist = folder.join("../dist/infernet");
    if dist.exists() { dist } else { folder.join("infernet") }
}

/// Long answers: whoever asks says how long.
const METRONOME_TOKENS: u32 = 1 << 20;

async fn engine(tokens_per_second: f64, token_bytes: usize) -> anyhow::Result<()> {
    let options = EngineOptions { token_bytes, ..EngineOptions::metronome(tokens_per_second, METRONOME_TOKENS) };
    let engine = EngineServer::start(options).await?;
    writeln!(io::stdout(), "{}", engine.url())?;
    std::future::pending().await
}

fn print(result: &(impl serde::Serialize + std::fmt::Display), json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(result)? } else { result.to_string() };
    Ok(writeln!(io::stdout(), "{text}")?)
}
