//! One command that a plane gave: verified, carried out, reported.

use super::{Plane, say};
use crate::{
    node::Node,
    obey::{self, Failed, Order, Progress},
    operator::Verb,
};
use infernet_wire::{
    hash,
    id::Hash,
    limits::{ENVELOPE_OVERHEAD_BYTES, MAX_COMMAND_BYTES},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};
use tracing::{debug, warn};

/// How often a plane is told how far a command is. Its lease is 90 s.
const TOLD: Duration = Duration::from_secs(5);
/// Reports that are on their way to planes at once.
const MAX_REPORTS: usize = 32;
/// Tries to report an end; a plane that was down asks again by giving the command again.
const TRIES: u32 = 5;
/// Between two of them, at first.
const AGAIN: Duration = Duration::from_secs(2);
/// Ends that are remembered, for planes that did not hear of them.
const MAX_ENDS: usize = 64;
/// The longest name that a plane gives a command: a UUID is 36.
const MAX_ID: usize = 64;

/// A command as a plane gives it. Only `signed` says anything; the rest is how to speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The plane's name for it.
    id: String,
    /// The operator's words.
    signed: Vec<u8>,
}

impl Given {
    /// `None` if it is not what this version obeys.
    pub(super) fn read(command: &Value) -> Option<Self> {
        let id = command.get("id")?.as_str().filter(|id| (1..=MAX_ID).contains(&id.len()))?;
        // It becomes a part of a path.
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let hex = command.get("signed")?.as_str()?;
        let fits = hex.len() <= 2 * (MAX_COMMAND_BYTES + ENVELOPE_OVERHEAD_BYTES);
        let signed = hex::decode(hex).ok().filter(|_| plain && fits)?;
        Some(Given { id: id.into(), signed })
    }
}

/// How commands ended, or that they have not yet.
#[derive(Default)]
struct Known {
    commands: BTreeMap<Hash, Option<Map<String, Value>>>,
    order: VecDeque<Hash>,
}

/// What all planes' tasks share: a command that two planes carry is carried out once.
#[derive(Clone)]
pub(super) struct Desk {
    node: Arc<Node>,
    home: PathBuf,
    known: Arc<Mutex<Known>>,
    reports: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(node: Arc<Node>, home: PathBuf) -> Self {
        Desk { node, home, known: Arc::default(), reports: Arc::new(Semaphore::new(MAX_REPORTS)) }
    }

    /// Verifies a command and carries it out; a long one in the background. The plane is told in any case.
    pub(super) async fn take(&self, plane: &Plane, given: Given) {
        let digest = hash::sha256(&given.signed);
        match self.known().commands.get(&digest) {
            Some(None) => return,
            Some(Some(end)) => return self.report(plane, &given.id, end.clone()),
            None => {}
        }
        let order = match obey::accept(&self.node, &self.home, &given.signed).await {
            Ok(order) => order,
            Err(error) => {
                warn!(plane = %plane.origin(), reason = error.label(), "operator command refused");
                return self.report(plane, &given.id, say::failed(error));
            }
        };
        self.remember(digest, None);
        if matches!(order.verb, Verb::ModelInstall(_)) {
            let (desk, plane) = (self.clone(), plane.clone());
            tokio::spawn(async move { desk.carry_out(&plane, given, digest, order).await });
        } else {
            self.carry_out(plane, given, digest, order).await;
        }
    }

    async fn carry_out(&self, plane: &Plane, given: Given, digest: Hash, order: Order) {
        let (far, heard) = watch::channel(None);
        let work = obey::carry_out(&self.node, &self.home, order, |progress| _ = far.send_replace(Some(progress)));
        let end = tokio::select! {
            done = work => ended(done),
            () = cancelled(plane, &given.id, heard) => say::failed("cancelled"),
        };
        self.remember(digest, Some(end.clone()));
        self.report(plane, &given.id, end);
    }

    fn remember(&self, digest: Hash, end: Option<Map<String, Value>>) {
        let mut known = self.known();
        if known.commands.insert(digest, end).is_none() {
            known.order.push_back(digest);
        }
        if known.order.len() > MAX_ENDS {
            // A running one has its place until it ends.
            let over = known.order.iter().position(|digest| known.commands.get(digest).is_some_and(Option::is_some));
            if let Some(over) = over.and_then(|place| known.order.remove(place)) {
                known.commands.remove(&over);
            }
        }
    }

    /// Tells the plane how it ended, in the background.
    fn report(&self, plane: &Plane, id: &str, end: Map<String, Value>) {
        let Ok(permit) = self.reports.clone().try_acquire_owned() else {
            return debug!("too many reports to planes are on their way");
        };
        let (plane, path) = (plane.clone(), format!("/api/v1/node/commands/{id}/complete"));
        tokio::spawn(async move {
            let _permit = permit;
            for attempt in 0..TRIES {
                match plane.post(&path, end.clone()).await {
                    Err(error) if error.status().is_none() => debug!("a plane was not told of a command's end: {error}"),
                    _ => return,
                }
                sleep(AGAIN * 2u32.saturating_pow(attempt)).await;
            }
        });
    }

    /// Nothing that holds it can panic half way through a change.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(done: Result<Value, Failed>) -> Map<String, Value> {
    match done {
        Ok(result) => say::completed(&result),
        Err(error) => say::failed(error),
    }
}

/// Tells the plane how far the command is, every few seconds; resolves when the answer is that it was cancelled.
async fn cancelled(plane: &Plane, id: &str, mut heard: watch::Receiver<Option<Progress>>) {
    let path = format!("/api/v1/node/commands/{id}/progress");
    // An engine that has nothing new to say is still at it.
    let _ = heard.changed().await;
    loop {
        let Some(progress) = heard.borrow_and_update().clone() else { return pending().await };
        let mut body = Map::new();
        body.insert("progress".into(), json!(progress));
        match plane.post(&path, body).await {
            Ok(answer) if answer.get("status").and_then(Value::as_str) == Some("cancelled") => return,
            Ok(_) => {}
            Err(error) => debug!("a plane was not told how far a command is: {error}"),
        }
        sleep(TOLD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_commands_with_plain_names_are_looked_at() {
        let good = json!({ "id": "5f6d1e8e-3a0c", "signed": "00ff", "command": "drain", "args": {} });
        assert_eq!(Given::read(&good), Some(Given { id: "5f6d1e8e-3a0c".into(), signed: vec![0, 255] }));
        for bad in [
            json!({ "id": "a", "command": "drain" }),
            json!({ "id": "../x", "signed": "00" }),
            json!({ "id": "a?b", "signed": "00" }),
            json!({ "id": "", "signed": "00" }),
            json!({ "id": "a", "signed": "0g" }),
            json!({ "id": "a", "signed": "00".repeat(MAX_COMMAND_BYTES + ENVELOPE_OVERHEAD_BYTES + 1) }),
            json!(["a"]),
        ] {
            assert_eq!(Given::read(&bad), None, "{bad}");
        }
    }
}
