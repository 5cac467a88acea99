//! `infernet api-key`: named keys of the API, each with caps of its own.

use super::{Context, exit::Exit, money};
use crate::api_keys::{self, ApiKey};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeyCommand {
    /// Make a key and show it, this once.
    Add(AddArgs),
    /// Show the names and caps of all keys.
    List,
    /// Forget a key; a running node does so within a second.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// A name for it: letters, digits, dots, dashes, underscores.
    name: String,
    /// The most that its requests of one day may cost, in micro-USD [default: what the node's cap leaves]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    per_day: Option<u64>,
    /// The most that one of its requests may cost, in micro-USD [default: what the node's cap leaves]
    #[arg(long, value_name = "MICRO_USD", value_parser = money::micro_usd)]
    per_request: Option<u64>,
}

/// A key without its secret.
#[derive(Serialize, JsonSchema)]
pub(super) struct ApiKeyReport {
    /// Its name.
    name: String,
    /// The most that one of its requests may cost, in micro-USD; absent if only the node's cap counts.
    per_request: Option<u64>,
    /// The most that its requests of one day may cost, in micro-USD; absent if only the node's cap counts.
    per_day: Option<u64>,
}

/// `infernet api-key add --json`.
#[derive(Serialize, JsonSchema)]
pub(super) struct NewApiKeyReport {
    /// Its name.
    name: String,
    /// The key itself, told this once.
    key: String,
}

pub(super) fn run(context: &Context, command: ApiKeyCommand) -> Result<(), Exit> {
    match command {
        ApiKeyCommand::Add(args) => add(context, &args),
        ApiKeyCommand::List => list(context),
        ApiKeyCommand::Remove { name } => {
            api_keys::remove(&context.home, &name)?;
            context.note(format!("{name} is no key any more"));
            if context.json { list(context) } else { Ok(()) }
        }
    }
}

fn add(context: &Context, args: &AddArgs) -> Result<(), Exit> {
    let key = api_keys::add(&context.home, &args.name, args.per_request, args.per_day)?;
    if context.json {
        return context.print_json(&NewApiKeyReport { name: args.name.clone(), key: key.to_string() });
    }
    context.print(&*key);
    context.note("this is the only time it is shown; clients send it as their API key");
    Ok(())
}

fn list(context: &Context) -> Result<(), Exit> {
    let keys = api_keys::list(&context.home)?;
    if context.json {
        let row = |key: &ApiKey| ApiKeyReport { name: key.name.clone(), per_request: key.per_request, per_day: key.per_day };
        return context.print_json(&keys.iter().map(row).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        context.note("there are no keys: on loopback none is needed; make one with `infernet api-key add NAME`");
    }
    let cap = |cap: Option<u64>| cap.map_or_else(|| "no cap".into(), |cap| format!("{cap} micro-USD"));
    for key in &keys {
        context.print(format!("{:<24} per request {:<20} per day {}", key.name, cap(key.per_request), cap(key.per_day)));
    }
    Ok(())
}
