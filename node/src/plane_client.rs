//! Tells control planes that the node is there, and obeys what its operators sent through them. All of it is optional.
//!
//! For each plane that the owner names (`--plane URL`) one task registers the node, sends a signed heartbeat every 30 s, and with
//! each asks for commands. A command counts by its operator's signature alone ([`crate::obey`]); that a plane says so counts for
//! nothing. So a plane can lose or hold back a command, or stop a download that it carried the command for, and can't make one
//! up, change one, send it elsewhere or send it twice.
//!
//! Nothing of the mesh waits for any of this. A plane that is down, slow or hostile costs one request at a time with a deadline,
//! answers of bounded size, ten commands a heartbeat, and a line in the log when it changes.
//!
//! | file | idea |
//! |---|---|
//! | `http` | signed requests with deadlines |
//! | `say` | what a plane is told |
//! | `pace` | when |
//! | `work` | one command: verified, carried out, reported |

mod http;
mod pace;
mod say;
mod work;

pub use http::{Origin, Plane, PlaneError};

use crate::{
    clock,
    control::schema::PlaneReport,
    node::Node,
    operator::{Operators, OperatorsError},
};
use infernet_wire::key::NodeKey;
use pace::Pace;
use serde_json::{Map, Value};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};
use work::Desk;

/// Seconds between two words to a plane, unless the owner says otherwise: a third of what makes a node offline.
pub const EVERY_SECS: u64 = 30;
/// Commands that are asked for at once.
const COMMANDS: usize = 10;
/// How long a node that stops takes to say so to its planes.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is said to a node without a row.
const NOT_FOUND: u16 = 404;

/// What a node needs to speak to its planes.
pub struct Settings {
    /// Signs requests.
    pub key: NodeKey,
    /// Where its operators and its configuration are.
    pub home: PathBuf,
    /// The planes.
    pub planes: Vec<Origin>,
    /// How often they are told.
    pub every: Duration,
}

/// The tasks that speak to planes.
pub struct Planes {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Planes {
    /// Speaks to all planes from now on.
    pub fn spawn(node: &Arc<Node>, settings: Settings) -> Result<Self, PlaneError> {
        let (stop, stopping) = watch::channel(false);
        let desk = Desk::new(node.clone(), settings.home.clone());
        let (mut tasks, mut reports) = (Vec::new(), Vec::new());
        for origin in settings.planes {
            let (report, told) = watch::channel(PlaneReport { url: origin.to_string(), ..PlaneReport::default() });
            reports.push(told);
            let plane = Plane::new(origin, settings.key.clone())?;
            let task = Task {
                plane,
                node: node.clone(),
                home: settings.home.clone(),
                desk: desk.clone(),
                pace: Pace::new(settings.every),
                registered: false,
                report,
            };
            tasks.push(tokio::spawn(task.run(stopping.clone())));
        }
        node.tells_planes(reports);
        Ok(Planes { stop, tasks })
    }

    /// Says to every plane that the node leaves, within two seconds.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let mut tasks = self.tasks;
        let _ = timeout(FAREWELL, futures::future::join_all(&mut tasks)).await;
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Why a plane was not told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error(transparent)]
    Operators(#[from] OperatorsError),
    #[error("the node is stopping")]
    Stopping,
}

struct Task {
    plane: Plane,
    node: Arc<Node>,
    home: PathBuf,
    desk: Desk,
    pace: Pace,
    registered: bool,
    /// For `infernet status`; and its error is what was logged last, so that it is logged once.
    report: watch::Sender<PlaneReport>,
}

impl Task {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                told = self.tell(true) => self.take_note(told),
            }
            let [spread] = clock::random::<1>();
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                () = sleep(self.pace.wait(spread)) => {}
            }
        }
        if self.registered {
            let _ = self.tell(false).await;
        }
    }

    fn take_note(&mut self, told: Result<(), Untold>) {
        self.pace.was_heard(told.is_ok());
        let trouble = told.err().map(|error| error.to_string());
        match (&trouble, &self.report.borrow().error) {
            (Some(now), before) if before.as_ref() != Some(now) => warn!("a plane is not told: {now}"),
            (None, Some(_)) => info!(plane = %self.plane.origin(), "a plane is told again"),
            _ => {}
        }
        self.report.send_modify(|report| report.error = trouble);
    }

    /// One heartbeat, after a registration if there is none, and then what the operators want.
    async fn tell(&mut self, available: bool) -> Result<(), Untold> {
        if !self.registered {
            self.plane.post("/api/v1/node/register", self.words(None).await?).await?;
            info!(plane = %self.plane.origin(), "registered with a plane");
            self.registered = true;
        }
        match self.plane.post("/api/v1/node/heartbeat", self.words(Some(available)).await?).await {
            // It has lost its memory; the next word is a registration.
            Err(error) if error.status() == Some(NOT_FOUND) => self.registered = false,
            told => {
                drop(told?);
                self.report.send_modify(|report| report.told = Some(clock::now().0));
            }
        }
        if available && self.registered { self.commands().await } else { Ok(()) }
    }

    /// The body of a registration, or of a heartbeat.
    async fn words(&self, available: Option<bool>) -> Result<Map<String, Value>, Untold> {
        let (status, home) = (self.node.status().await, self.home.clone());
        let operators = tokio::task::spawn_blocking(move || Operators::load(&home)).await.map_err(|_| Untold::Stopping)??;
        let (sold_at, now) = (self.node.sold_at(), clock::now());
        let facts = say::Facts { status: &status, sold_at: &sold_at, operators: &operators, now };
        Ok(match available {
            None => say::registration(&facts),
            Some(available) => say::heartbeat(&facts, available),
        })
    }

    async fn commands(&mut self) -> Result<(), Untold> {
        let asked: Map<String, Value> = [("limit".to_owned(), COMMANDS.into())].into_iter().collect();
        let answer = self.plane.post("/api/v1/node/commands/poll", asked).await?;
        let given = answer.get("commands").and_then(Value::as_array);
        for command in given.into_iter().flatten().take(COMMANDS) {
            match work::Given::read(command) {
                Some(given) => self.desk.take(&self.plane, given).await,
                None => debug!(plane = %self.plane.origin(), "a command without a name or signature"),
            }
        }
        Ok(())
    }
}
