//! What happens in the middle of an answer: the relay that carries it ends, for a moment or for good; a buyer's address changes.

use super::{
    Answered, NatError, Question, TOKENS_PER_SECOND,
    kind::NatKind,
    stage::{Member, Relay, Stage, model_behind},
};
use crate::cluster::eventually;
use infernet_node::{control::client::Client, jobs::JobReport};
use serde::Serialize;
use std::{fmt, path::Path, time::Duration};
use tokio::time::sleep;

/// Of a long answer: it takes ten seconds.
const LONG: u32 = (TOKENS_PER_SECOND * 10.0) as u32;
/// Tokens after which something happens.
const INTO_IT: u32 = LONG / 5;
/// How long a relay is gone that comes back.
const GONE: Duration = Duration::from_secs(2);
/// Of an answer that takes 200 s: more than 3 minutes. It is 8 MB with its frames; of text there may be no more than
/// [`MAX_ANSWER_BYTES`](infernet_node::chat::session::MAX_ANSWER_BYTES).
const ON_AND_ON: u32 = 95_000;
const ON_AND_ON_RATE: f64 = 475.0;
const ON_AND_ON_TOKEN_BYTES: usize = 70;
const ON_AND_ON_TIME: Duration = Duration::from_secs(200);
const ON_AND_ON_MODEL: &str = "on-and-on";
/// For the first tokens of an answer.
const BEGIN: Duration = Duration::from_secs(90);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The relay that carries the answer is killed, and started again.
    RelayRestarts,
    /// The relay that carries it is killed for good.
    RelayIsLost,
    /// The buyer's machine gets another address, on a direct stream.
    BuyerMoves,
    /// The same on a relayed stream.
    RelayedBuyerMoves,
    /// The relay restarts in the middle of an answer of 8 MB that takes 200 s. On demand only.
    Long,
}

impl What {
    /// Those that take no minutes, in this order: relays that are lost for good come last.
    pub const ALL: [What; 4] = [What::BuyerMoves, What::RelayedBuyerMoves, What::RelayRestarts, What::RelayIsLost];

    /// Who asks whom.
    fn pair(self) -> (NatKind, NatKind) {
        match self {
            What::BuyerMoves => (NatKind::EndpointIndependent, NatKind::Open),
            What::RelayedBuyerMoves | What::RelayRestarts | What::RelayIsLost | What::Long => {
                (NatKind::Symmetric, NatKind::Symmetric)
            }
        }
    }

    /// What is asked of the worker behind `kind`.
    fn question(self, kind: NatKind) -> Question {
        match self {
            What::Long => Question {
                model: ON_AND_ON_MODEL.into(),
                tokens: ON_AND_ON,
                bytes: ON_AND_ON as usize * ON_AND_ON_TOKEN_BYTES,
                within: ON_AND_ON_TIME * 2,
            },
            _ => Question::of(model_behind(kind), LONG),
        }
    }

    /// Tokens after which it happens, and how long these may take.
    fn into_it(self) -> (u32, Duration) {
        match self {
            What::Long => (ON_AND_ON / 2, BEGIN + ON_AND_ON_TIME),
            _ => (INTO_IT, BEGIN),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            What::RelayRestarts => "the relay restarts",
            What::RelayIsLost => "the relay is lost",
            What::BuyerMoves => "the buyer's address changes",
            What::RelayedBuyerMoves => "the same, relayed",
            What::Long => "the relay restarts in 8 MB over 200 s",
        })
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Event {
    /// What happened in the middle of an answer.
    pub what: What,
    /// The answer, or why it did not come whole.
    pub outcome: Result<Answered, String>,
}

/// Has it happen.
pub(super) async fn happen(what: What, stage: &mut Stage, binary: &Path) -> Result<Event, NatError> {
    let (buyer, worker) = what.pair();
    for (missing, is_worker) in [(worker, true), (buyer, false)] {
        match is_worker {
            true if !stage.workers.contains_key(&missing) => stage.add_worker(missing, TOKENS_PER_SECOND).await?,
            false if !stage.buyers.contains_key(&missing) => stage.add_buyer(missing).await?,
            _ => {}
        }
    }
    let long = match what {
        What::Long => Some(stage.worker(worker, ON_AND_ON_MODEL, &on_and_on()).await?),
        _ => None,
    };
    let Stage { relays, buyers, .. } = stage;
    // It was put there above.
    let Some(member) = buyers.get_mut(&buyer) else { return Ok(Event { what, outcome: Err("no buyer".into()) }) };
    let home = member.node.home.clone();
    let question = what.question(worker);
    let (asked, told) = tokio::join!(super::ask(binary, home.path(), &question), amid(what, member, relays));
    drop(long);
    // Without its event, an answer says nothing.
    Ok(Event { what, outcome: told?.and(asked) })
}

/// Waits until an answer is under way, and has it happen.
async fn amid(what: What, member: &mut Member, relays: &mut [Relay]) -> Result<Result<(), String>, NatError> {
    let home = member.node.home.clone();
    let mut path = None;
    let (tokens, within) = what.into_it();
    let is_running = || async { running(home.path(), tokens).await.is_some() };
    let under_way = eventually("an answer that is under way", within, is_running).await;
    if let Err(error) = under_way {
        return Ok(Err(error.to_string()));
    }
    if let Some(job) = running(home.path(), tokens).await {
        path = job.path;
    }
    let path = path.unwrap_or_default();
    match what {
        What::BuyerMoves | What::RelayedBuyerMoves => member.host.move_elsewhere().await?,
        What::RelayRestarts | What::RelayIsLost | What::Long => {
            // A path names its relay by the end of its id.
            let named = path.rsplit(' ').next().unwrap_or_default();
            let carries = |relay: &&mut Relay| relay.id().is_some_and(|id| !named.is_empty() && id.ends_with(named));
            let Some(relay) = relays.iter_mut().find(carries) else {
                return Ok(Err(format!("no relay carries it: {path}")));
            };
            relay.kill().await;
            if what != What::RelayIsLost {
                sleep(GONE).await;
                relay.again().await?;
            }
        }
    }
    Ok(Ok(()))
}

/// Flags of an engine of long answers.
fn on_and_on() -> [String; 4] {
    let (rate, bytes) = (ON_AND_ON_RATE.to_string(), ON_AND_ON_TOKEN_BYTES.to_string());
    ["--tokens-per-second".into(), rate, "--token-bytes".into(), bytes]
}

/// The job that has brought so many tokens, if there is one.
async fn running(home: &Path, tokens: u32) -> Option<JobReport> {
    let jobs: Vec<JobReport> = Client::connect(home)?.get("jobs").await.ok()?;
    jobs.into_iter().find(|job| !job.state.is_ended() && job.tokens >= tokens)
}
