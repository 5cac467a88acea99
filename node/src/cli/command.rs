//! `infernet command`: tell a node of yours, wherever it is, what to do, by way of a control plane.
//!
//! The command is signed here, with this home's key, which the node's owner named on the node (`infernet operator add`). The
//! plane carries it, and can't change it.

use super::{Context, exit, exit::Exit, progress::Line};
use crate::{
    clock,
    config::{Config, Partial},
    download::bytes,
    plane_client::{Origin, Plane, PlaneError},
};
use clap::{Args, ValueEnum};
use infernet_wire::{
    command::{self, OperatorCommand, Verb},
    id::NodeId,
    key::NodeKey,
    limits::COMMAND_TTL_MS,
    topic::NetworkId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::sleep;

/// How often the plane is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// Times in a row that the plane may not answer while a command is followed.
const PATIENCE: u32 = 30;
/// The longest text of a plane that is shown.
const MAX_SHOWN: usize = 300;

#[derive(Debug, Args)]
pub(super) struct CommandArgs {
    /// Node id of the node.
    node: NodeId,
    /// What to do there.
    #[arg(value_enum)]
    verb: Wish,
    /// A model for model_install and model_remove, IN/OUT or MODEL=IN/OUT for set_price, the command's id for cancel.
    #[arg(default_value = "", hide_default_value = true)]
    argument: String,
    /// Control plane that carries it, such as https://plane.example; repeatable: the first that takes it [default: the configured]
    #[arg(long, value_name = "URL")]
    plane: Vec<String>,
    /// Network of the node [default: main]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Don't wait until it is done.
    #[arg(long)]
    no_wait: bool,
}

/// What a person can want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Wish {
    /// No new jobs; running ones end.
    Drain,
    /// Bid again.
    Resume,
    /// Fetch a model.
    ModelInstall,
    /// Remove a model.
    ModelRemove,
    /// Sell at another price, in micro-USD per million tokens.
    SetPrice,
    /// Show the last commands.
    List,
    /// Take a command back; a download stops.
    Cancel,
}

impl Wish {
    /// The verb that a node obeys; `None` for what is between operator and plane.
    fn verb(self) -> Option<&'static str> {
        match self {
            Wish::Drain => Some(command::DRAIN),
            Wish::Resume => Some(command::RESUME),
            Wish::ModelInstall => Some(command::MODEL_INSTALL),
            Wish::ModelRemove => Some(command::MODEL_REMOVE),
            Wish::SetPrice => Some(command::SET_PRICE),
            Wish::List | Wish::Cancel => None,
        }
    }
}

/// `infernet command --json`: one such value a line, whenever something has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct CommandState {
    /// The plane's name for it.
    id: String,
    /// What to do.
    command: String,
    /// To what.
    #[serde(default)]
    args: Value,
    /// `pending`, `running`, `completed`, `failed`, `cancelled` or `expired`.
    status: String,
    /// How far it is: `status`, `phase`, `completed` of `total` bytes, `pct`; absent if nothing was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Value>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it was signed, as an ISO 8601 date.
    #[serde(default)]
    issued_at: String,
}

pub(super) async fn run(context: &Context, args: CommandArgs) -> Result<(), Exit> {
    let planes = (!args.plane.is_empty()).then(|| args.plane.clone());
    let flags = Partial { planes, network: args.network.clone(), ..Partial::default() };
    let config = Config::load(&context.home, flags)?;
    if config.planes.is_empty() {
        return Err(Exit::new(exit::USAGE, "no control plane: name one with --plane https://plane.example"));
    }
    let key = context.key()?;
    let path = format!("/api/v1/user/nodes/{}/commands", hex::encode(args.node.x_only()));
    match args.verb {
        Wish::List => list(context, &first(&config.planes, &key)?, &path).await,
        Wish::Cancel => cancel(context, &first(&config.planes, &key)?, &path, &args.argument).await,
        _ => give(context, &config, &key, &path, &args).await,
    }
}

fn first(planes: &[Origin], key: &NodeKey) -> Result<Plane, Exit> {
    let origin = planes.first().ok_or_else(|| Exit::new(exit::USAGE, "no control plane"))?;
    Plane::new(origin.clone(), key.clone()).map_err(of_plane)
}

/// A plane's refusal names its reason; everything else is about the way to it.
fn of_plane(error: PlaneError) -> Exit {
    Exit::new(if error.status().is_some() { exit::REFUSED } else { exit::FAILED }, error)
}

async fn give(context: &Context, config: &Config, key: &NodeKey, path: &str, args: &CommandArgs) -> Result<(), Exit> {
    let signed = sign(&config.network, key, args)?;
    let mut refused = None;
    for origin in &config.planes {
        let plane = Plane::new(origin.clone(), key.clone()).map_err(of_plane)?;
        let body: Map<String, Value> = [("signed".to_owned(), signed.clone().into())].into_iter().collect();
        match plane.post(path, body).await {
            Ok(answer) => {
                let state = read(answer, origin)?;
                context.note(format!("{origin} carries it; the node asks within half a minute"));
                return follow(context, &plane, path, state, args.no_wait).await;
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| Exit::new(exit::USAGE, "no control plane"), of_plane))
}

fn sign(network: &NetworkId, key: &NodeKey, args: &CommandArgs) -> Result<String, Exit> {
    let usage = |error: &dyn std::fmt::Display| Exit::new(exit::USAGE, error.to_string());
    let verb = Verb::parse(args.verb.verb().unwrap_or_default(), &args.argument).map_err(|error| usage(&error))?;
    let now = clock::now();
    let body = OperatorCommand {
        node: args.node,
        sequence: now.0,
        issued: now,
        expires: now.after(COMMAND_TTL_MS),
        verb: verb.name().into(),
        argument: verb.argument(),
    };
    let signed = key.sign(network, body).map_err(|refusal| usage(&refusal))?;
    Ok(hex::encode(signed.raw()))
}

fn read(answer: Value, plane: &Origin) -> Result<CommandState, Exit> {
    serde_json::from_value(answer).map_err(|_| of_plane(PlaneError::Malformed { plane: plane.to_string() }))
}

/// Shows how far it is until it is over.
async fn follow(context: &Context, plane: &Plane, path: &str, first: CommandState, no_wait: bool) -> Result<(), Exit> {
    let one = format!("{path}/{}", first.id);
    let (mut state, mut line, mut silent) = (first, Line::new(context), 0);
    show(context, &state)?;
    while !no_wait && !is_over(&state) {
        sleep(LOOK).await;
        let now = match plane.get(&one).await {
            Ok(answer) => read(answer, plane.origin())?,
            Err(error) if error.status().is_none() && silent < PATIENCE => {
                silent += 1;
                continue;
            }
            Err(error) => return Err(of_plane(error)),
        };
        silent = 0;
        line.show(&said(&now));
        if now != state {
            if is_over(&now) {
                line.clear();
            }
            show(context, &now)?;
        }
        state = now;
    }
    let why = state.error.as_deref().map(plain).unwrap_or_default();
    match state.status.as_str() {
        "failed" => Err(Exit::new(exit::FAILED, format!("the node could not: {why}"))),
        "cancelled" => Err(Exit::new(exit::FAILED, "the command was cancelled")),
        "expired" => Err(Exit::new(exit::FAILED, "the node did not ask for the command in time; give it again")),
        _ => Ok(()),
    }
}

fn is_over(state: &CommandState) -> bool {
    !["pending", "running"].contains(&state.status.as_str())
}

/// A change, for a program as JSON; a person is told the begin and the end.
fn show(context: &Context, state: &CommandState) -> Result<(), Exit> {
    if context.json {
        return context.print_json(state);
    }
    match state.status.as_str() {
        "pending" => context.note(format!("command {}; `infernet command … cancel` takes it back", plain(&state.id))),
        "completed" => context.print(said(state)),
        _ => {}
    }
    Ok(())
}

/// `model_install llama3.2: running, 45% of 2.0 GB`.
fn said(state: &CommandState) -> String {
    let mut text = format!("{}{}: {}", plain(&state.command), argument(&state.args), plain(&state.status));
    let number = |key: &str| state.progress.as_ref()?.get(key)?.as_u64();
    if let (Some(total @ 1..), Some(pct), "running") = (number("total"), number("pct"), state.status.as_str()) {
        text += &format!(", {pct}% of {}", bytes(total));
    }
    if let Some(error) = &state.error {
        text += &format!(" ({})", plain(error));
    }
    text
}

fn argument(args: &Value) -> String {
    let model = args.get("model").and_then(Value::as_str).map(|model| format!(" {}", plain(model))).unwrap_or_default();
    let price = |key: &str| args.get(key).and_then(Value::as_u64);
    match (price("in"), price("out")) {
        (Some(input), Some(output)) => format!("{model} {input}/{output}"),
        _ => model,
    }
}

/// A plane's text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

async fn list(context: &Context, plane: &Plane, path: &str) -> Result<(), Exit> {
    let answer = plane.get(path).await.map_err(of_plane)?;
    let rows: Vec<CommandState> =
        serde_json::from_value(answer).map_err(|_| of_plane(PlaneError::Malformed { plane: plane.origin().to_string() }))?;
    if rows.is_empty() {
        context.note("no commands");
    }
    for row in &rows {
        if context.json {
            context.print_json(row)?;
        } else {
            context.print(format!("{}  {}  {}", plain(&row.issued_at), plain(&row.id), said(row)));
        }
    }
    Ok(())
}

async fn cancel(context: &Context, plane: &Plane, path: &str, id: &str) -> Result<(), Exit> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Exit::new(exit::USAGE, "name the command by its id; `infernet command NODE list` shows it"));
    }
    let one = format!("{path}/{id}");
    let cancelled = plane.delete(&one).await.map_err(of_plane)?.get("cancelled").and_then(Value::as_bool);
    let state = read(plane.get(&one).await.map_err(of_plane)?, plane.origin())?;
    if context.json {
        context.print_json(&state)?;
    }
    if cancelled == Some(true) {
        context.note("cancelled; a node that is at it stops within seconds");
        return Ok(());
    }
    Err(Exit::new(exit::REFUSED, format!("it is over: {}", said(&state))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_is_said_in_a_line() {
        let state = |value: Value| said(&serde_json::from_value(value).expect("a state"));
        let check = |value: Value, expected: &str| assert_eq!(state(value), expected);
        let install = json!({ "model": "m:1b" });
        let progress = json!({ "total": 2_000_000_000u64, "completed": 900, "pct": 45 });
        check(
            json!({ "id": "a", "command": "model_install", "args": install, "status": "running", "progress": progress }),
            "model_install m:1b: running, 45% of 2.0 GB",
        );
        check(
            json!({ "id": "a", "command": "set_price", "args": { "in": 1, "out": 2 }, "status": "completed" }),
            "set_price 1/2: completed",
        );
        check(json!({ "id": "a", "command": "drain\u{1b}[2J", "status": "failed", "error": "no" }), "drain[2J: failed (no)");
    }
}
