//! `infernet setup`: from nothing to a node that can be started, by a few questions or, with `--yes`, by none.
//!
//! What is there is kept: a key always, a `config.toml` as it stands. If flags say otherwise than the file, that is an error, and
//! nothing is written. At the end `doctor` looks at everything, and the next command is named.

mod dialogue;

use self::dialogue::Dialogue;
use super::{Context, doctor as checks, exit, exit::Exit, money, service, watch::Paint};
use crate::{
    backend::{self, BackendSpec},
    config::{self, CONFIG_FILE, Config, Partial},
    doctor::{self, DoctorReport},
    identity::{self, IdentityError},
    net::bootstrap::BootstrapAddress,
};
use clap::{Args, ValueEnum};
use futures::future::join_all;
use infernet_wire::{id::NodeId, money::MicroUsd};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};
use tokio::time::timeout;

/// An engine on this machine answers at once, another within a second.
const ENGINE: Duration = Duration::from_secs(5);
/// The answer of whoever knows no peer.
const NOBODY: &str = "nobody";
/// Models that are named.
const NAMED: usize = 5;

/// What the node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Sell what an engine can do; no OpenAI endpoint.
    Sell,
    /// Only buy.
    Buy,
    /// Both.
    Both,
}

#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    /// Ask nothing: take the defaults, and what the flags say.
    #[arg(long, short)]
    yes: bool,
    /// What the node is for [default: both]
    #[arg(long)]
    role: Option<Role>,
    /// Engine to sell [default: the first that answers at its usual place, at each start]
    #[arg(long, value_name = "KIND=URL")]
    backend: Option<String>,
    /// Price of a million input tokens, in micro-USD [default: 100000]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_in: Option<u64>,
    /// Price of a million output tokens, in micro-USD [default: 400000]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    price_out: Option<u64>,
    /// Jobs at once [default: 2]
    #[arg(long, value_name = "N")]
    slots: Option<u16>,
    /// What a stranger may owe this worker, in micro-USD [default: 0, so that only buyers with credit of their own buy]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    free_credit: Option<u64>,
    /// Multiaddr of a peer to meet first, such as `infernet start` prints on a node of the network, or the URL of a relay's page;
    /// repeatable.
    #[arg(long, value_name = "ADDRESS")]
    bootstrap: Vec<String>,
    /// Install the node as a service, too.
    #[arg(long, conflicts_with = "no_service")]
    service: bool,
    /// Don't install a service, and don't ask.
    #[arg(long)]
    no_service: bool,
}

/// `infernet setup --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SetupReport {
    /// The node id.
    #[schemars(with = "String")]
    id: NodeId,
    /// Where key and configuration are.
    home: PathBuf,
    /// Whether the key was made now.
    new_key: bool,
    /// The configuration file.
    config: PathBuf,
    /// Whether it was written now.
    new_config: bool,
    /// What is right and wrong now.
    doctor: DoctorReport,
    /// The next command.
    next: String,
}

pub(super) async fn run(context: &Context, args: SetupArgs) -> Result<(), Exit> {
    if !args.yes && (context.json || !io::stdin().is_terminal()) {
        let text = "setup asks questions, and nobody can answer here: use --yes for the defaults, with flags for other answers";
        return Err(Exit::new(exit::USAGE, text));
    }
    if args.role == Some(Role::Buy) && args.backend.is_some() {
        return Err(Exit::new(exit::USAGE, "--backend is for a node that sells; leave it out, or use --role sell or both"));
    }
    let (stdin, stderr) = (io::stdin(), io::stderr());
    let mut dialogue = (!args.yes).then(|| Dialogue::new(stdin.lock(), stderr.lock()));
    let has_config = context.home.join(CONFIG_FILE).exists();
    if has_config {
        agrees(context, &args)?;
    }
    // Asked before anything is written: whoever leaves in the middle leaves nothing behind.
    let answers = match (&mut dialogue, has_config) {
        (Some(dialogue), false) => ask(context, dialogue, &args).await?,
        _ => Answers::of(&args),
    };
    let wants_service = match &mut dialogue {
        Some(dialogue) if !args.service && !args.no_service && service::is_possible().await => {
            dialogue.yes("install it as a service that starts at login?", false)?
        }
        _ => args.service,
    };
    drop(dialogue);
    Config::load(&context.home, answers.partial())?;
    let (id, new_key) = key(context)?;
    let config = config::write_with(&context.home, &answers.partial())?;
    say(context, &format!("{} {}", if has_config { "kept" } else { "wrote" }, config.display()));
    if wants_service {
        service::install(context, &service::InstallArgs::default()).await?;
    }
    let doctor = context.during("looking at everything once more", doctor::examine(&context.home)).await;
    let next = next(context, wants_service);
    let report = SetupReport { id, home: context.home.clone(), new_key, config, new_config: !has_config, doctor, next };
    told(context, &report)
}

fn told(context: &Context, report: &SetupReport) -> Result<(), Exit> {
    if context.json {
        return context.print_json(report);
    }
    context.note(format!("\n{}", checks::screen(&report.doctor, Paint::new(context)).trim_end()));
    context.note(format!("next: `{}`", report.next));
    context.print(report.id.to_string());
    Ok(())
}

/// With `--json`, stderr is for errors.
fn say(context: &Context, text: &str) {
    context.note(text);
}

fn key(context: &Context) -> Result<(NodeId, bool), Exit> {
    match identity::public(&context.home) {
        Ok((id, _)) => {
            say(context, &format!("kept the key of node {id}"));
            Ok((id, false))
        }
        Err(IdentityError::Missing { .. }) => {
            context.may_make_key()?;
            let id = identity::init(&context.home)?.id();
            say(context, &format!("made the key of node {id}; `infernet key backup FILE` makes a copy of it"));
            Ok((id, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// What goes into a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Answers {
    role: Option<Role>,
    backend: Option<String>,
    price_in: Option<u64>,
    price_out: Option<u64>,
    slots: Option<u16>,
    free_credit: Option<u64>,
    bootstrap: Option<Vec<String>>,
}

impl Answers {
    fn of(args: &SetupArgs) -> Self {
        let (price_in, price_out) = (args.price_in, args.price_out);
        let bootstrap = (!args.bootstrap.is_empty()).then(|| args.bootstrap.clone());
        let (slots, free_credit) = (args.slots, args.free_credit);
        Answers { role: args.role, backend: args.backend.clone(), price_in, price_out, slots, free_credit, bootstrap }
    }

    fn partial(&self) -> Partial {
        let backend = if self.role == Some(Role::Buy) { Some(Vec::new()) } else { self.backend.clone().map(|one| vec![one]) };
        Partial {
            backend,
            price_in: self.price_in,
            price_out: self.price_out,
            slots: self.slots,
            free_credit: self.free_credit,
            bootstrap: self.bootstrap.clone(),
            api: (self.role == Some(Role::Sell)).then_some(false),
            ..Partial::default()
        }
    }
}

/// What flags say must be what the file says, since the file is kept.
fn agrees(context: &Context, args: &SetupArgs) -> Result<(), Exit> {
    let said = config::rows(&context.home, Partial::default())?;
    let wanted = config::rows(&context.home, Answers::of(args).partial())?;
    let differs = said.iter().zip(&wanted).filter(|(said, wanted)| said.value != wanted.value);
    let lines: Vec<String> =
        differs.map(|(said, wanted)| format!("{} is {}, not {}", said.key, said.value, wanted.value)).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let file = context.home.join(CONFIG_FILE);
    let text = format!(
        "{} is there and is kept, and it says otherwise: {}; change it there, or move it away and run setup again",
        file.display(),
        lines.join(", ")
    );
    Err(Exit::new(exit::CONFIG, text))
}

/// What whoever answers the questions may give a stranger: some hundred answers at the usual price.
const USUAL_CREDIT: &str = "0.1";

type Terminal<'a> = Dialogue<io::StdinLock<'a>, io::StderrLock<'a>>;

/// The questions, but for those that a flag has answered.
async fn ask(context: &Context, dialogue: &mut Terminal<'_>, args: &SetupArgs) -> Result<Answers, Exit> {
    let mut answers = Answers::of(args);
    // What holds if nothing is said, for what is shown in brackets.
    let usual = Config::defaults(&context.home)?;
    dialogue.say("A few questions; Enter takes what is in brackets.")?;
    if answers.role.is_none() {
        answers.role = Some(dialogue.choose("sell what an engine can do, buy, or both?", &["both", "sell", "buy"], role)?);
    }
    if answers.role != Some(Role::Buy) {
        ask_seller(context, dialogue, &mut answers, &usual).await?;
    }
    if answers.bootstrap.is_none() {
        answers.bootstrap = dialogue.ask(
            "whom to meet first? (what `infernet start` prints on a node of the network, or the URL of a relay's page)",
            NOBODY,
            peer,
        )?;
    }
    Ok(answers)
}

/// What only a node that sells is asked.
async fn ask_seller(context: &Context, dialogue: &mut Terminal<'_>, answers: &mut Answers, usual: &Config) -> Result<(), Exit> {
    if answers.backend.is_none() {
        answers.backend = engine(dialogue, &Config::load(&context.home, Partial::default())?.backend).await?;
    }
    let price = |what: &str| format!("dollars for a million {what} tokens? (`infernet models` shows what others ask)");
    if answers.price_in.is_none() {
        answers.price_in = Some(dialogue.ask(&price("input"), &shown(usual.pricing.base.input), micro_usd)?);
    }
    if answers.price_out.is_none() {
        answers.price_out = Some(dialogue.ask(&price("output"), &shown(usual.pricing.base.output), micro_usd)?);
    }
    if answers.slots.is_none() {
        let question = "jobs at once? (as many as the engine runs at once; Ollama: OLLAMA_NUM_PARALLEL)";
        let slots = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0).ok_or("write a number from 1 on".to_owned());
        answers.slots = Some(dialogue.ask(question, &usual.slots.to_string(), slots)?);
    }
    if answers.free_credit.is_none() {
        let question = "dollars that a stranger may owe you? (answers are paid with promises; 0: only buyers that you name)";
        answers.free_credit = Some(dialogue.ask(question, USUAL_CREDIT, micro_usd)?);
    }
    Ok(())
}

/// A peer to meet first, if any.
fn peer(text: &str) -> Result<Option<Vec<String>>, String> {
    match text {
        NOBODY => Ok(None),
        text if text.parse::<BootstrapAddress>().is_ok() => Ok(Some(vec![text.to_owned()])),
        _ => Err(format!(
            "write a multiaddr such as /ip4/ADDRESS/tcp/46337/p2p/ID, a relay's page such as http://ADDRESS:46382, or {NOBODY}"
        )),
    }
}

/// Which engine, and what it has: the first that answers of those at their usual places, or where `OLLAMA_HOST` and its like say.
/// Without an answer from it, it may be started later.
async fn engine(dialogue: &mut Terminal<'_>, candidates: &[BackendSpec]) -> Result<Option<String>, Exit> {
    let looked = join_all(candidates.iter().map(models)).await;
    let mut found_at = candidates.iter().zip(&looked).filter(|(_, models)| models.is_ok()).peekable();
    let guess = found_at.peek().map(|(spec, _)| *spec).or(candidates.first()).map(ToString::to_string).unwrap_or_default();
    if found_at.peek().is_none() {
        dialogue.say("no engine answers at its usual place; it may be started later")?;
    }
    for (spec, models) in found_at {
        dialogue.say(&found(spec, models.clone()))?;
    }
    let spec = dialogue.ask("which engine, as KIND=URL?", &guess, |text: &str| {
        text.parse::<BackendSpec>().map_err(|error| error.to_string())
    })?;
    if spec.to_string() != guess {
        dialogue.say(&found(&spec, models(&spec).await))?;
    }
    Ok(Some(spec.to_string()))
}

async fn models(spec: &BackendSpec) -> Result<Vec<String>, String> {
    let engine = backend::connect(spec).map_err(|error| error.to_string())?;
    let models = timeout(ENGINE, engine.models()).await.map_err(|_| format!("no answer within {} s", ENGINE.as_secs()))?;
    models.map(|all| all.into_iter().map(|model| model.id).collect()).map_err(|error| error.to_string())
}

fn found(spec: &BackendSpec, models: Result<Vec<String>, String>) -> String {
    match models {
        Ok(models) if models.is_empty() => {
            format!("{spec} answers and has no model yet; `infernet model recommend` says what runs here")
        }
        Ok(models) => {
            let more = if models.len() > NAMED { format!(" and {} more", models.len() - NAMED) } else { String::new() };
            let named: Vec<String> = models.into_iter().take(NAMED).collect();
            format!("{spec} answers and has {}{more}", named.join(", "))
        }
        Err(why) => format!("no engine answers at {spec} ({why}); it may be started later"),
    }
}

fn role(text: &str) -> Option<Role> {
    Role::from_str(text, true).ok()
}

/// Without the zeros at its end.
fn shown(price: MicroUsd) -> String {
    let text = price.to_string();
    text.trim_start_matches('$').trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As [`money::from_dollars`], for a question.
pub(super) fn micro_usd(text: &str) -> Result<u64, String> {
    money::from_dollars(text).ok_or_else(|| "write dollars, such as 0.4, with at most six decimals".into())
}

/// What to type next. An engine that is not up yet is the doctor's to tell: whoever sells is not told to buy only.
fn next(context: &Context, service: bool) -> String {
    let usual = config::home_by_default().is_some_and(|usual| usual == context.home);
    let home = if usual { String::new() } else { format!(" --home {}", context.home.display()) };
    format!("infernet{home} {}", if service { "status" } else { "start" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_offered_in_dollars() {
        assert_eq!([shown(MicroUsd(400_000)), shown(MicroUsd(2_000_000)), shown(MicroUsd(0))], ["0.4", "2", "0"]);
    }

    #[test]
    fn a_peer_to_meet_first_is_a_multiaddr_or_nobody() {
        let named = "/dns4/example.org/tcp/46337";
        assert_eq!(peer(named), Ok(Some(vec![named.to_owned()])));
        let page = "http://relay.example:46382";
        assert_eq!(peer(page), Ok(Some(vec![page.to_owned()])));
        assert_eq!(peer(NOBODY), Ok(None));
        assert!(peer("example.org:46337").is_err_and(|fix| fix.contains("/tcp/46337")));
    }

    #[test]
    fn a_role_is_a_configuration() {
        let of = |role| Answers { role: Some(role), backend: Some("ollama=http://x".into()), ..Answers::default() }.partial();
        assert_eq!((of(Role::Buy).backend, of(Role::Buy).api), (Some(vec![]), None));
        assert_eq!(of(Role::Sell).api, Some(false));
        assert_eq!((of(Role::Both).backend.map(|all| all.len()), of(Role::Both).api), (Some(1), None));
    }
}
