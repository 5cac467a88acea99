//! The desk: one task that owns the [`Book`] and the [`Turns`]. Whoever wants something asks it through a [`Desk`], and a circuit
//! asks before each piece that it carries.

use crate::{
    book::{Book, CircuitId, Refusal},
    fair::Turns,
    limits::{Limits, Prefix},
};
use infernet_node::clock;
use infernet_wire::time::UnixMillis;
use libp2p::PeerId;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that wait: two of each circuit, and some. When full, circuits wait, as they do for their turn.
const REQUESTS: usize = 2_048;
/// Without anything to do the desk sleeps, until it is asked.
const ASLEEP: Duration = Duration::from_secs(3_600);

/// A circuit may carry what it asked for.
#[derive(Debug)]
pub struct Turn {
    /// How long it has to pause afterwards, since its peer's quota is spent.
    pub pause: Duration,
}

/// What is going on.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Peers that can be reached over the relay.
    pub reservations: usize,
    /// Circuits now.
    pub circuits: usize,
    /// Bytes carried since the start, in both directions.
    pub bytes: u64,
    /// Turns taken at the slow rate.
    pub slowed: u64,
    /// What happened how often: `reserved`, `opened`, how circuits ended.
    pub happened: BTreeMap<&'static str, u64>,
    /// What was refused how often, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Whether nothing new is taken.
    pub is_draining: bool,
}

enum Request {
    Reserve { peer: PeerId, prefix: Prefix, reply: oneshot::Sender<Result<UnixMillis, Refusal>> },
    Connect { source: PeerId, prefix: Prefix, target: PeerId, reply: oneshot::Sender<Result<CircuitId, Refusal>> },
    Ended { id: CircuitId, how: &'static str },
    Turn { id: CircuitId, bytes: u64, reply: oneshot::Sender<Turn> },
    Left { peer: PeerId },
    Happened { what: &'static str },
    Drain { reply: oneshot::Sender<()> },
    Tell { reply: oneshot::Sender<Told> },
}

/// A handle to the desk. Asked after its end, it refuses.
#[derive(Debug, Clone)]
pub struct Desk {
    requests: mpsc::Sender<Request>,
    circuits: watch::Receiver<usize>,
}

/// Starts the desk; it ends with its last handle.
pub fn start(limits: Limits) -> Desk {
    let (requests, requests_in) = mpsc::channel(REQUESTS);
    let (circuits_out, circuits) = watch::channel(0);
    let task = DeskTask {
        began: clock::instant(),
        turns: Turns::new(limits.rate),
        slow_rate: limits.slow_rate.max(1),
        book: Book::new(limits),
        told: Told::default(),
        circuits: circuits_out,
    };
    tokio::spawn(task.run(requests_in));
    Desk { requests, circuits }
}

impl Desk {
    /// See [`Book::reserve`].
    pub async fn reserve(&self, peer: PeerId, prefix: Prefix) -> Result<UnixMillis, Refusal> {
        self.ask(|reply| Request::Reserve { peer, prefix, reply }).await.unwrap_or(Err(Refusal::Draining))
    }

    /// See [`Book::connect`]. Whoever gets a circuit ends it by [`Desk::ended`].
    pub async fn connect(&self, source: PeerId, prefix: Prefix, target: PeerId) -> Result<CircuitId, Refusal> {
        self.ask(|reply| Request::Connect { source, prefix, target, reply }).await.unwrap_or(Err(Refusal::Draining))
    }

    /// A circuit is gone; `how` is a short stable name, for counters.
    pub async fn ended(&self, id: CircuitId, how: &'static str) {
        self.tell(Request::Ended { id, how }).await;
    }

    /// Waits for the circuit's turn to carry `bytes`; `None` if the desk or the circuit is gone.
    pub async fn turn(&self, id: CircuitId, bytes: u64) -> Option<Turn> {
        self.ask(|reply| Request::Turn { id, bytes, reply }).await
    }

    /// A peer is no longer connected.
    pub async fn left(&self, peer: PeerId) {
        self.tell(Request::Left { peer }).await;
    }

    /// Counts something.
    pub async fn happened(&self, what: &'static str) {
        self.tell(Request::Happened { what }).await;
    }

    /// From now on nothing new; whatever was let in before has been counted when this returns.
    pub async fn drain(&self) {
        self.ask(|reply| Request::Drain { reply }).await;
    }

    /// What is going on.
    pub async fn told(&self) -> Told {
        self.ask(|reply| Request::Tell { reply }).await.unwrap_or_default()
    }

    /// Waits until no circuit is left, `most` at most; whether that is so.
    pub async fn wait_empty(&self, most: Duration) -> bool {
        let mut circuits = self.circuits.clone();
        let empty = circuits.wait_for(|count| *count == 0);
        matches!(tokio::time::timeout(most, empty).await, Ok(Ok(_)))
    }

    async fn tell(&self, request: Request) {
        // Nobody is there to be told.
        let _ = self.requests.send(request).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

struct DeskTask {
    began: std::time::Instant,
    book: Book,
    turns: Turns<PeerId, (oneshot::Sender<Turn>, Turn)>,
    slow_rate: u64,
    told: Told,
    circuits: watch::Sender<usize>,
}

impl DeskTask {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let pause = self.turns.pause().unwrap_or(ASLEEP);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
            while let Some((reply, turn)) = self.turns.next(self.began.elapsed()) {
                // The circuit may be gone.
                let _ = reply.send(turn);
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Reserve { peer, prefix, reply } => {
                let outcome = self.book.reserve(peer, prefix, clock::now());
                self.count("reserved", outcome.as_ref().err());
                let _ = reply.send(outcome);
            }
            Request::Connect { source, prefix, target, reply } => {
                let outcome = self.book.connect(source, prefix, target, clock::now());
                self.count("opened", outcome.as_ref().err());
                let id = outcome.ok();
                self.circuits.send_replace(self.book.circuits());
                if reply.send(outcome).is_err() {
                    id.into_iter().for_each(|id| self.ended(id, "abandoned"));
                }
            }
            Request::Ended { id, how } => self.ended(id, how),
            Request::Turn { id, bytes, reply } => self.on_turn(id, bytes, reply),
            Request::Left { peer } => self.book.left(&peer),
            Request::Happened { what } => self.count(what, None),
            Request::Drain { reply } => {
                self.book.drain();
                let _ = reply.send(());
            }
            Request::Tell { reply } => {
                let told = Told {
                    reservations: self.book.reservations(clock::now()),
                    circuits: self.book.circuits(),
                    is_draining: self.book.is_draining(),
                    ..self.told.clone()
                };
                let _ = reply.send(told);
            }
        }
    }

    fn on_turn(&mut self, id: CircuitId, bytes: u64, reply: oneshot::Sender<Turn>) {
        let Some((source, is_spent)) = self.book.carry(id, bytes, clock::now()) else { return };
        self.told.bytes = self.told.bytes.saturating_add(bytes);
        let slow = || Duration::from_millis(bytes.saturating_mul(1_000) / self.slow_rate);
        let pause = if is_spent { slow() } else { Duration::ZERO };
        self.told.slowed += u64::from(is_spent);
        self.turns.ask(source, (reply, Turn { pause }), bytes);
    }

    fn ended(&mut self, id: CircuitId, how: &'static str) {
        self.book.ended(id);
        self.count(how, None);
        self.circuits.send_replace(self.book.circuits());
    }

    fn count(&mut self, what: &'static str, refused: Option<&Refusal>) {
        match refused {
            None => *self.told.happened.entry(what).or_default() += 1,
            Some(refusal) => *self.told.refused.entry(refusal.label()).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Prefix = Prefix::V4([192, 0, 2]);

    #[tokio::test]
    async fn a_circuit_that_was_asked_for_before_the_drain_is_waited_for() {
        let desk = start(Limits::default());
        let (source, target) = (PeerId::random(), PeerId::random());
        desk.reserve(target, HERE).await.expect("reserved");
        let connecting = desk.connect(source, HERE, target);
        tokio::pin!(connecting);
        assert!(futures::poll!(&mut connecting).is_pending(), "it is in the queue");
        desk.drain().await;
        assert!(!desk.wait_empty(Duration::ZERO).await);
        let id = connecting.await.expect("let in");
        assert_eq!(desk.connect(source, HERE, target).await, Err(Refusal::Draining));
        desk.ended(id, "closed").await;
        assert!(desk.wait_empty(Duration::from_secs(60)).await);
    }
}
