//! `infernet config`: what holds, and who said so.

use super::{Context, exit::Exit, flags::NodeArgs};
use crate::config::{self, CONFIG_FILE, Row};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every key and its value, as `start` with the same flags would have it.
    Show(Box<ShowArgs>),
    /// Show where the configuration file is.
    Path,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Also show where each value came from.
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// `infernet config path --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PathReport {
    /// Where the file is, or would be.
    path: PathBuf,
    /// Whether it exists.
    exists: bool,
}

pub(super) fn run(context: &Context, command: ConfigCommand) -> Result<(), Exit> {
    match command {
        ConfigCommand::Show(args) => show(context, &args),
        ConfigCommand::Path => path(context),
    }
}

fn path(context: &Context) -> Result<(), Exit> {
    let file = context.home.join(CONFIG_FILE);
    let exists = file.exists();
    if context.json {
        return context.print_json(&PathReport { path: file, exists });
    }
    context.print(file.display().to_string());
    if !exists {
        context.note("there is no such file yet; `infernet init` writes one that explains every key");
    }
    Ok(())
}

fn show(context: &Context, args: &ShowArgs) -> Result<(), Exit> {
    let rows = config::rows(&context.home, args.node.partial())?;
    if context.json {
        return context.print_json(&rows);
    }
    let widest = rows.iter().map(|row| row.key.len()).max().unwrap_or_default();
    for Row { key, value, origin } in &rows {
        let origin = if args.origin { format!("   # {origin}") } else { String::new() };
        context.print(format!("{key:<widest$} = {}{origin}", shown(value)));
    }
    Ok(())
}

/// As the file has it, but for what it can't say.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}
