//! One command that a plane gave: verified, carried out, reported.

use super::{Plane, say};
use crate::{
    node::Node,
    obey::{self, Order, Progress},
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
use tracing::debug;

/// How often a plane is told how far a command is. Its lease is 90 s.
const TOLD: Duration = Duration::from_secs(5);
/// Reports that are on their way to planes at once.
const MAX_REPORTS: usize = 32;
/// Commands that wait for an engine, beside the heartbeats: one download, and removals that take seconds.
const MAX_LONG: usize = 4;
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

/// What is known of a command that a plane gives.
#[derive(Debug, PartialEq)]
enum Claim {
    /// Nothing; from now on it runs.
    New,
    /// It runs.
    Runs,
    /// How it ended.
    Ended(Map<String, Value>),
}

impl Known {
    fn claim(&mut self, digest: Hash) -> Claim {
        match self.commands.get(&digest) {
            Some(None) => Claim::Runs,
            Some(Some(end)) => Claim::Ended(end.clone()),
            None => {
                self.commands.insert(digest, None);
                self.order.push_back(digest);
                Claim::New
            }
        }
    }

    /// It was not accepted, and may be given again.
    fn forget(&mut self, digest: &Hash) {
        self.commands.remove(digest);
        self.order.retain(|known| known != digest);
    }

    fn end(&mut self, digest: Hash, end: Map<String, Value>) {
        self.commands.insert(digest, Some(end));
        while self.order.len() > MAX_ENDS {
            // A running one has its place until it ends.
            let over = self.order.iter().position(|digest| self.commands.get(digest).is_some_and(Option::is_some));
            let Some(over) = over.and_then(|place| self.order.remove(place)) else { return };
            self.commands.remove(&over);
        }
    }
}

/// What all planes' tasks share: a command that two planes carry is carried out once.
#[derive(Clone)]
pub(super) struct Desk {
    node: Arc<Node>,
    home: PathBuf,
    known: Arc<Mutex<Known>>,
    reports: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(node: Arc<Node>, home: PathBuf) -> Self {
        let (reports, long) = (Arc::new(Semaphore::new(MAX_REPORTS)), Arc::new(Semaphore::new(MAX_LONG)));
        Desk { node, home, known: Arc::default(), reports, long }
    }

    /// Verifies a command and carries it out; a long one in the background. The plane is told in any case.
    pub(super) async fn take(&self, plane: &Plane, given: Given) {
        let digest = hash::sha256(&given.signed);
        // In one step: of two planes that bring a command at once, one has it carried out.
        match self.known().claim(digest) {
            Claim::New => {}
            Claim::Runs => return,
            Claim::Ended(end) => return self.report(plane, &given.id, end),
        }
        let order = match obey::accept(&self.node, &self.home, &given.signed).await {
            Ok(order) => order,
            Err(error) => {
                // Whoever sent it reads why; a plane that gives it again and again fills no log.
                debug!(plane = %plane.origin(), reason = error.label(), "operator command refused");
                self.known().forget(&digest);
                return self.report(plane, &given.id, self.failed(&error));
            }
        };
        let is_long = matches!(order.verb, Verb::ModelInstall(_) | Verb::ModelRemove(_));
        // With too many of them the plane waits for the next.
        match self.long.clone().try_acquire_owned() {
            Ok(permit) if is_long => {
                let (desk, plane) = (self.clone(), plane.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    desk.carry_out(&plane, given, digest, order).await;
                });
            }
            _ => self.carry_out(plane, given, digest, order).await,
        }
    }

    async fn carry_out(&self, plane: &Plane, given: Given, digest: Hash, order: Order) {
        let (far, heard) = watch::channel(None);
        let work = obey::carry_out(&self.node, &self.home, order, |progress| _ = far.send_replace(Some(progress)));
        let end = tokio::select! {
            done = work => match done {
                Ok(result) => say::completed(&result),
                Err(error) => self.failed(&error),
            },
            () = cancelled(plane, &given.id, heard) => say::failed("cancelled"),
        };
        self.known().end(digest, end.clone());
        self.report(plane, &given.id, end);
    }

    /// A failure in words for its operator, by way of a plane, which learns no place of this machine or beside it.
    fn failed(&self, error: &impl ToString) -> Map<String, Value> {
        let engines: Vec<String> = self.node.engine_specs().unwrap_or_default().iter().map(ToString::to_string).collect();
        say::failed(say::without_places(error.to_string(), &self.home, &engines))
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

    #[test]
    fn of_two_planes_that_bring_a_command_one_has_it_carried_out() {
        let (mut known, digest) = (Known::default(), Hash([1; 32]));
        assert_eq!([known.claim(digest), known.claim(digest)], [Claim::New, Claim::Runs]);
        known.forget(&digest);
        assert_eq!(known.claim(digest), Claim::New, "refused as busy, it may be given again");
        let end = say::completed(&json!({}));
        known.end(digest, end.clone());
        assert_eq!(known.claim(digest), Claim::Ended(end));
    }

    #[test]
    fn ends_are_bounded_and_what_runs_is_never_forgotten() {
        let mut known = Known::default();
        let name = |n: usize| Hash([u8::try_from(n).expect("few"); 32]);
        known.claim(name(0));
        for n in 1..=2 * MAX_ENDS {
            known.claim(name(n));
            known.end(name(n), say::completed(&json!({})));
        }
        assert_eq!((known.commands.len(), known.order.len()), (MAX_ENDS, MAX_ENDS));
        assert_eq!(known.claim(name(0)), Claim::Runs);
    }
}
