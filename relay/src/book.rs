//! Who may be reached, who reaches whom, and who took how much: pure, told the time. [`Limits`] says what is allowed.

use crate::{
    limits::{Limits, Prefix},
    message::Status,
};
use infernet_wire::time::UnixMillis;
use libp2p::PeerId;
use std::collections::BTreeMap;

/// A quota's time.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Peers whose spending is remembered. When full, those who spent least are forgotten.
const MAX_SPENDERS: usize = 4_096;

/// A circuit, by the order in which they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CircuitId(u64);

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The relay is about to stop.
    Draining,
    /// No reservation is left.
    Reservations,
    /// None for this prefix.
    ReservationsOfPrefix,
    /// The other peer has none.
    NoReservation,
    /// No circuit is left.
    Circuits,
    /// None for this peer.
    CircuitsOfSource,
    /// None to this peer.
    CircuitsOfTarget,
    /// None for this prefix.
    CircuitsOfPrefix,
    /// The peer has had its bytes of the day.
    Quota,
    /// To itself.
    Itself,
}

impl Refusal {
    /// What the peer is told, by the specification.
    pub fn status(self) -> Status {
        match self {
            Refusal::Draining | Refusal::ReservationsOfPrefix => Status::ReservationRefused,
            Refusal::NoReservation => Status::NoReservation,
            Refusal::Itself => Status::PermissionDenied,
            _ => Status::ResourceLimit,
        }
    }

    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Draining => "draining",
            Refusal::Reservations => "reservations",
            Refusal::ReservationsOfPrefix => "reservations_per_prefix",
            Refusal::NoReservation => "no_reservation",
            Refusal::Circuits => "circuits",
            Refusal::CircuitsOfSource => "circuits_per_source",
            Refusal::CircuitsOfTarget => "circuits_per_target",
            Refusal::CircuitsOfPrefix => "circuits_per_prefix",
            Refusal::Quota => "quota",
            Refusal::Itself => "itself",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Reservation {
    prefix: Prefix,
    expires: UnixMillis,
}

#[derive(Debug, Clone, Copy)]
struct Circuit {
    source: PeerId,
    prefix: Prefix,
    target: PeerId,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    since: UnixMillis,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    limits: Limits,
    reservations: BTreeMap<PeerId, Reservation>,
    circuits: BTreeMap<CircuitId, Circuit>,
    spent: BTreeMap<PeerId, Spent>,
    opened: u64,
    is_draining: bool,
}

impl Book {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Book {
            limits,
            reservations: BTreeMap::new(),
            circuits: BTreeMap::new(),
            spent: BTreeMap::new(),
            opened: 0,
            is_draining: false,
        }
    }

    /// `peer`, at `prefix`, wants to be reached, or still wants it. Until when it is.
    pub fn reserve(&mut self, peer: PeerId, prefix: Prefix, now: UnixMillis) -> Result<UnixMillis, Refusal> {
        self.forget_expired(now);
        let others = || self.reservations.iter().filter(|(other, _)| **other != peer);
        if self.is_draining {
            return Err(Refusal::Draining);
        }
        if others().count() >= self.limits.reservations {
            return Err(Refusal::Reservations);
        }
        if others().filter(|(_, other)| other.prefix == prefix).count() >= self.limits.reservations_per_prefix {
            return Err(Refusal::ReservationsOfPrefix);
        }
        let expires = now.after(u64::try_from(self.limits.reservation.as_millis()).unwrap_or(u64::MAX));
        self.reservations.insert(peer, Reservation { prefix, expires });
        Ok(expires)
    }

    /// `source`, at `prefix`, wants a circuit to `target`. It counts from now on, until [`Book::ended`].
    pub fn connect(&mut self, source: PeerId, prefix: Prefix, target: PeerId, now: UnixMillis) -> Result<CircuitId, Refusal> {
        self.forget_expired(now);
        let open = |is: &dyn Fn(&Circuit) -> bool| self.circuits.values().filter(|circuit| is(circuit)).count();
        let refused = [
            (self.is_draining, Refusal::Draining),
            (source == target, Refusal::Itself),
            (!self.reservations.contains_key(&target), Refusal::NoReservation),
            (self.is_spent(&source, now), Refusal::Quota),
            (self.circuits.len() >= self.limits.circuits, Refusal::Circuits),
            (open(&|it| it.source == source) >= self.limits.circuits_per_source, Refusal::CircuitsOfSource),
            (open(&|it| it.target == target) >= self.limits.circuits_per_target, Refusal::CircuitsOfTarget),
            (open(&|it| it.prefix == prefix) >= self.limits.circuits_per_prefix, Refusal::CircuitsOfPrefix),
        ];
        if let Some((_, refusal)) = refused.into_iter().find(|(is_so, _)| *is_so) {
            return Err(refusal);
        }
        self.opened += 1;
        let id = CircuitId(self.opened);
        self.circuits.insert(id, Circuit { source, prefix, target });
        Ok(id)
    }

    /// A circuit is gone.
    pub fn ended(&mut self, id: CircuitId) {
        self.circuits.remove(&id);
    }

    /// A peer is no longer connected, and can't be reached.
    pub fn left(&mut self, peer: &PeerId) {
        self.reservations.remove(peer);
    }

    /// A circuit carries `bytes`, for which whoever opened it answers: so nobody can use up another's quota. Who that is, and
    /// whether its quota is spent; `None` for a circuit that has ended.
    pub fn carry(&mut self, id: CircuitId, bytes: u64, now: UnixMillis) -> Option<(PeerId, bool)> {
        let source = self.circuits.get(&id)?.source;
        if self.spent.len() >= MAX_SPENDERS && !self.spent.contains_key(&source) {
            let least = self.spent.iter().min_by_key(|(_, spent)| spent.bytes).map(|(peer, _)| *peer);
            least.and_then(|peer| self.spent.remove(&peer));
        }
        let spent = self.spent.entry(source).or_insert(Spent { since: now, bytes: 0 });
        if now.since(spent.since) >= DAY_MS {
            *spent = Spent { since: now, bytes: 0 };
        }
        spent.bytes = spent.bytes.saturating_add(bytes);
        Some((source, self.is_spent(&source, now)))
    }

    /// From now on nothing new.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether nothing new is taken.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Reservations now.
    pub fn reservations(&self, now: UnixMillis) -> usize {
        self.reservations.values().filter(|it| it.expires > now).count()
    }

    /// Circuits now.
    pub fn circuits(&self) -> usize {
        self.circuits.len()
    }

    fn is_spent(&self, peer: &PeerId, now: UnixMillis) -> bool {
        let spent = self.spent.get(peer).filter(|spent| now.since(spent.since) < DAY_MS);
        self.limits.quota > 0 && spent.is_some_and(|spent| spent.bytes >= self.limits.quota)
    }

    fn forget_expired(&mut self, now: UnixMillis) {
        self.reservations.retain(|_, reservation| reservation.expires > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const T0: UnixMillis = UnixMillis(1_000_000);
    const HERE: Prefix = Prefix::V4([192, 0, 2]);
    const THERE: Prefix = Prefix::V4([198, 51, 100]);

    fn peers<const N: usize>() -> [PeerId; N] {
        std::array::from_fn(|_| PeerId::random())
    }

    fn book(change: impl FnOnce(&mut Limits)) -> Book {
        let mut limits = Limits::default();
        change(&mut limits);
        Book::new(limits)
    }

    #[test]
    fn reservations_are_bounded_in_all_and_by_prefix_and_may_be_renewed() {
        let mut book = book(|limits| (limits.reservations, limits.reservations_per_prefix) = (3, 2));
        let [a, b, c, d, e] = peers();
        assert_eq!(book.reserve(a, HERE, T0), Ok(T0.after(600_000)));
        assert!(book.reserve(b, HERE, T0).is_ok());
        assert_eq!(book.reserve(c, HERE, T0), Err(Refusal::ReservationsOfPrefix));
        assert!(book.reserve(a, HERE, T0).is_ok(), "renewed");
        assert!(book.reserve(d, THERE, T0).is_ok());
        assert_eq!(book.reserve(e, THERE, T0), Err(Refusal::Reservations));
        book.left(&d);
        assert!(book.reserve(e, THERE, T0).is_ok());
        assert_eq!(book.reservations(T0.after(600_000)), 0);
        assert!(book.reserve(c, HERE, T0.after(600_000)).is_ok());
    }

    #[test]
    fn circuits_are_bounded_by_who_opens_who_is_reached_and_where_from() {
        let mut book = book(|limits| {
            (limits.circuits_per_source, limits.circuits_per_target) = (2, 3);
            (limits.circuits_per_prefix, limits.circuits) = (4, 5);
        });
        let [a, b, c, x, y] = peers();
        assert_eq!(book.connect(a, HERE, x, T0), Err(Refusal::NoReservation));
        assert!(book.reserve(x, THERE, T0).is_ok() && book.reserve(y, THERE, T0).is_ok());
        assert_eq!(book.connect(x, HERE, x, T0), Err(Refusal::Itself));
        let first = book.connect(a, HERE, x, T0).expect("the first");
        assert!(book.connect(a, HERE, x, T0).is_ok());
        assert_eq!(book.connect(a, HERE, x, T0), Err(Refusal::CircuitsOfSource));
        assert!(book.connect(b, HERE, x, T0).is_ok());
        assert_eq!(book.connect(b, HERE, x, T0), Err(Refusal::CircuitsOfTarget));
        assert!(book.connect(b, HERE, y, T0).is_ok());
        assert_eq!(book.connect(c, HERE, y, T0), Err(Refusal::CircuitsOfPrefix));
        assert!(book.connect(c, THERE, y, T0).is_ok());
        assert_eq!(book.connect(y, THERE, x, T0), Err(Refusal::Circuits));
        book.ended(first);
        assert!(book.connect(a, HERE, x, T0).is_ok());
    }

    #[test]
    fn a_spent_quota_slows_what_runs_refuses_what_is_new_and_ends_with_the_day() {
        let mut book = book(|limits| limits.quota = 100);
        let [a, b, x] = peers();
        assert!(book.reserve(x, HERE, T0).is_ok());
        let circuit = book.connect(a, HERE, x, T0).expect("open");
        assert_eq!(book.carry(circuit, 99, T0), Some((a, false)));
        assert_eq!(book.carry(circuit, 1, T0), Some((a, true)));
        assert_eq!(book.connect(a, HERE, x, T0), Err(Refusal::Quota));
        assert!(book.connect(b, HERE, x, T0).is_ok(), "whom others reach, and others, are not concerned");
        let later = T0.after(DAY_MS);
        assert_eq!(book.carry(circuit, 1, later), Some((a, false)));
        book.ended(circuit);
        assert_eq!(book.carry(circuit, 1, later), None);
    }

    #[test]
    fn what_drains_takes_nothing_new() {
        let mut book = book(|limits| limits.reservation = Duration::from_secs(60));
        let [a, x] = peers();
        assert!(book.reserve(x, HERE, T0).is_ok());
        let circuit = book.connect(a, HERE, x, T0).expect("open");
        book.drain();
        assert_eq!(book.reserve(x, HERE, T0).map_err(Refusal::status), Err(Status::ReservationRefused));
        assert_eq!(book.connect(a, HERE, x, T0), Err(Refusal::Draining));
        assert!(book.carry(circuit, 1, T0).is_some(), "what runs goes on");
    }

    #[test]
    fn those_who_spent_least_are_forgotten_first() {
        let mut book =
            book(|limits| (limits.circuits, limits.circuits_per_prefix, limits.circuits_per_target) = (9_999, 9_999, 9_999));
        let [greedy, x] = peers();
        let later = |n| T0.after(n);
        assert!(book.reserve(x, HERE, T0).is_ok());
        let circuit = book.connect(greedy, HERE, x, T0).expect("open");
        assert!(book.carry(circuit, 1 << 40, T0).is_some());
        for n in 0..5_000 {
            let circuit = book.connect(PeerId::random(), HERE, x, later(n)).expect("open");
            assert!(book.carry(circuit, 1, later(n)).is_some());
            book.ended(circuit);
        }
        assert_eq!(book.spent.len(), MAX_SPENDERS);
        assert_eq!(book.connect(greedy, HERE, x, later(5_000)), Err(Refusal::Quota));
    }
}
