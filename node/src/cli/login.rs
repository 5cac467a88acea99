//! `infernet login`: get an API key of a control plane by signing for it with this home's key. No account, no password.

use super::{Context, exit, exit::Exit};
use crate::plane_client::{Origin, Plane, PlaneError};
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The control plane, such as https://plane.example
    url: Origin,
    /// As whom: this home's key as a node's, or as an operator's.
    #[arg(long = "as", value_enum, default_value_t = As::Node)]
    who: As,
    /// What the plane calls the key.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
}

/// As whom somebody signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum As {
    /// A node.
    Node,
    /// An operator.
    Operator,
}

/// `infernet login --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LoginReport {
    /// The plane's origin: `/v1` below it is OpenAI's API.
    plane: String,
    /// Who you are there.
    client: String,
    /// What is left to spend there, in micro-USD.
    available_micro_usd: u64,
    /// The key. It can't be shown again.
    key: String,
    /// When it is no longer good (RFC 3339).
    expires_at: Option<String>,
}

/// What the plane answers.
#[derive(Deserialize)]
struct Answer {
    client: Client,
    key: Key,
}

#[derive(Deserialize)]
struct Client {
    id: String,
    available_micro_usd: u64,
}

#[derive(Deserialize)]
struct Key {
    key: String,
    expires_at: Option<String>,
}

pub(super) async fn run(context: &Context, args: LoginArgs) -> Result<(), Exit> {
    let name = args.url.to_string();
    let plane = Plane::new(args.url, context.key()?).map_err(of_plane)?;
    let who = if args.who == As::Node { "node" } else { "operator" };
    let body: Map<String, Value> = [("as".to_owned(), who.into()), ("name".to_owned(), args.name.into())].into_iter().collect();
    let answer = plane.post("/api/v1/auth/key", body).await.map_err(of_plane)?;
    let malformed = |_| of_plane(PlaneError::Malformed { plane: name.clone() });
    let Answer { client, key } = serde_json::from_value(answer).map_err(malformed)?;
    let plain = |text: String| text.chars().filter(char::is_ascii_graphic).collect::<String>();
    let report = LoginReport {
        plane: name,
        client: plain(client.id),
        available_micro_usd: client.available_micro_usd,
        key: plain(key.key),
        expires_at: key.expires_at.map(plain),
    };
    if context.json {
        return context.print_json(&report);
    }
    context.print(&report.key);
    context.note(format!("you are {} at {}, with {} micro-USD left", report.client, report.plane, report.available_micro_usd));
    context.note("the key can't be shown again: give it, and the plane's address with /v1, to any OpenAI client");
    Ok(())
}

/// A plane's refusal names its reason; everything else is about the way to it.
fn of_plane(error: PlaneError) -> Exit {
    Exit::new(if error.status().is_some() { exit::REFUSED } else { exit::FAILED }, error)
}
