//! `infernet operator`: who may command this node, and, on an operator's machine, signing a command.

use super::{Context, exit, exit::Exit};
use crate::{
    clock,
    config::{Config, Partial},
    control::{client::Client, schema::CommandReport},
    date,
    operator::{Added, Operator, OperatorKey, Operators, Verb},
};
use clap::{Args, Subcommand};
use infernet_wire::{command::OperatorCommand, id::NodeId, limits, topic::NetworkId};
use schemars::JsonSchema;
use serde::Serialize;
use std::{io::Read, time::Duration};

/// The hex of the largest command.
const MAX_HEX: u64 = 2 * (limits::MAX_COMMAND_BYTES + limits::ENVELOPE_OVERHEAD_BYTES) as u64 + 2;

/// A day: 400 GB of a model at 5 MB a second. A node that dies is noticed at once.
const DOWNLOAD: Duration = Duration::from_secs(86_400);

#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommands {
    /// Let this key command the node of this home.
    Add {
        /// x-only public key (64 hex digits) or node id.
        key: OperatorKey,
    },
    /// Show whose commands the node obeys.
    List,
    /// Let this key command no more.
    Remove {
        /// x-only public key (64 hex digits) or node id.
        key: OperatorKey,
    },
    /// Sign a command for a node with this home's key, and print it in hex.
    Sign(SignArgs),
    /// Give a signed command to the node that runs here.
    Send {
        /// The hex that `sign` printed; `-` reads it from stdin.
        #[arg(default_value = "-")]
        command: String,
        /// Don't wait for the end of a download.
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// What to do: drain (no new jobs), resume, model_install, model_remove or set_price.
    #[arg(long)]
    verb: String,
    /// A model's name, or IN/OUT or MODEL=IN/OUT for set_price; drain and resume take none.
    #[arg(long, default_value = "", hide_default_value = true)]
    argument: String,
    /// Node id of the node that is to do it.
    #[arg(long, value_name = "NODE_ID")]
    node: NodeId,
    /// Above that of every earlier command for this node [default: the time in milliseconds]
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// For how long it counts.
    #[arg(long, value_name = "SECS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=300))]
    valid_secs: u64,
    /// Network of the node [default: main]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// `infernet operator list --json`: a list of these.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OperatorReport {
    /// x-only public key, in hex.
    key: String,
    /// When it was added, in unix milliseconds.
    added: u64,
}

/// `infernet operator sign --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SignedCommandReport {
    /// The signed envelope, in hex.
    command: String,
    /// Its number.
    sequence: u64,
    /// When it no longer counts, in unix milliseconds.
    expires: u64,
}

pub(super) async fn run(context: &Context, command: OperatorCommands) -> Result<(), Exit> {
    match command {
        OperatorCommands::Add { key } => add(context, key),
        OperatorCommands::List => list(context),
        OperatorCommands::Remove { key } => remove(context, key),
        OperatorCommands::Sign(args) => sign(context, args),
        OperatorCommands::Send { command, no_wait } => send(context, command, no_wait).await,
    }
}

fn add(context: &Context, key: OperatorKey) -> Result<(), Exit> {
    // A home without a key has no node that could obey.
    crate::identity::public(&context.home)?;
    let mut operators = Operators::load(&context.home)?;
    let added = operators.add(key, clock::now())?;
    operators.save(&context.home)?;
    context.note(match added {
        Added::New => format!("{key} may command this node from now on"),
        Added::Known => format!("{key} may command this node already"),
    });
    list_json(context, &operators)
}

fn remove(context: &Context, key: OperatorKey) -> Result<(), Exit> {
    let mut operators = Operators::load(&context.home)?;
    operators.remove(key)?;
    operators.save(&context.home)?;
    context.note(format!("{key} commands this node no more"));
    list_json(context, &operators)
}

fn list(context: &Context) -> Result<(), Exit> {
    let operators = Operators::load(&context.home)?;
    if !context.json {
        if operators.all().is_empty() {
            context.note("nobody may command this node; add a key with `infernet operator add KEY`");
        }
        let row = |Operator { key, added }: &Operator| context.print(format!("{key}  added {} UTC", date::time(*added)));
        operators.all().iter().for_each(row);
    }
    list_json(context, &operators)
}

/// With `--json`, whoever changes the list is told the whole of it.
fn list_json(context: &Context, operators: &Operators) -> Result<(), Exit> {
    if !context.json {
        return Ok(());
    }
    let row = |Operator { key, added }: &Operator| OperatorReport { key: key.to_string(), added: added.0 };
    context.print_json(&operators.all().iter().map(row).collect::<Vec<_>>())
}

fn sign(context: &Context, args: SignArgs) -> Result<(), Exit> {
    let verb = Verb::parse(&args.verb, &args.argument).map_err(|error| Exit::new(exit::USAGE, error))?;
    let network: NetworkId = Config::load(&context.home, Partial { network: args.network, ..Partial::default() })?.network;
    let key = context.key()?;
    let now = clock::now();
    let body = OperatorCommand {
        node: args.node,
        sequence: args.sequence.unwrap_or(now.0),
        issued: now,
        expires: now.after(args.valid_secs * 1000),
        verb: verb.name().into(),
        argument: verb.argument(),
    };
    let signed = key.sign(&network, body).map_err(|refusal| Exit::new(exit::USAGE, format!("no such command: {refusal}")))?;
    let command = hex::encode(signed.raw());
    if context.json {
        let (sequence, expires) = (signed.sequence, signed.expires.0);
        return context.print_json(&SignedCommandReport { command, sequence, expires });
    }
    context.print(command);
    context
        .note(format!("counts for {} s; `infernet operator send` on the node's machine gives it to the node", args.valid_secs));
    Ok(())
}

async fn send(context: &Context, command: String, no_wait: bool) -> Result<(), Exit> {
    let hex = if command == "-" { read_stdin()? } else { command };
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    let path = format!("command?wait={}", !no_wait);
    let obeyed = context.during("the node is at it", node.post_within(DOWNLOAD, &path, hex.trim().to_owned())).await?;
    let report: CommandReport = obeyed?;
    if context.json {
        return context.print_json(&report);
    }
    context.note(match (&report.result, report.done) {
        (Some(result), true) => format!("the node has done it: {} {result}", report.verb),
        _ => format!("the node has begun: {}; `infernet logs -f` on it tells how it ends", report.verb),
    });
    Ok(())
}

fn read_stdin() -> Result<String, Exit> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_HEX).read_to_string(&mut text);
    read.map_err(|e| Exit::new(exit::USAGE, format!("can't read the command from stdin: {e}")))?;
    Ok(text)
}
