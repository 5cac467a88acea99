//! Sockets around the tables: one task owns them all. Each outside endpoint that a table has mapped is a socket, bound while it is
//! mapped. So are, always, those of the ports that a host listens on inside: a guess that it has the same outside is what others may
//! have, and what they send there must go through their own tables, whoever gets it.

use super::{
    ModelError, PORTS, Tally, World, owner,
    table::{Behaviour, Refusal, Table},
};
use crate::flood::dice::Dice;
use infernet_node::clock;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// Datagrams that have come and wait for the tables: a tenth of a second of a busy internet. More wait in the kernel's sockets, which
/// drop what they can't keep.
const ARRIVED: usize = 4_096;
/// Datagrams on their way. More are dropped, as by any router.
const UNDER_WAY: usize = 16_384;
/// What an Ethernet carries; QUIC finds that out by itself.
const MTU: usize = 1_500;
/// How often what is over is looked for.
const TIDY: Duration = Duration::from_secs(1);
/// How long it is believed whose an unbound socket is. Its port may be another's later.
const OWNER_FOR: Duration = Duration::from_secs(2);
/// Of those, how many are remembered: dials under way.
const OWNERS: usize = 1_024;
/// Processes of a host: relay, node, engine, and their next lives.
const PROCESSES: usize = 32;

/// What the router is told.
pub(super) enum Order {
    /// A host, whose ports are passed on to it or not.
    Add { host: u8, behaviour: Behaviour, forwards: bool, reply: oneshot::Sender<Result<(), ModelError>> },
    /// A process is one of its programs.
    Runs { host: u8, pid: u32 },
    /// Of a thousand datagrams, so many are lost.
    Lose { host: u8, permille: u16 },
    /// Its outside address changes.
    Move { host: u8, moves: u8 },
    /// What became of datagrams?
    Tally(oneshot::Sender<Tally>),
}

/// What came to an outside endpoint.
struct Arrived {
    at: SocketAddr,
    from: SocketAddr,
    datagram: Vec<u8>,
}

/// What goes on to an inside endpoint.
struct Leaving {
    due: Instant,
    socket: Arc<std::net::UdpSocket>,
    to: SocketAddr,
    datagram: Vec<u8>,
}

struct Side {
    table: Table,
    processes: BTreeSet<u32>,
    permille: u16,
}

struct Outside {
    /// To send from: what tokio knows of a new socket is that it can't send yet.
    sender: Arc<std::net::UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// See the module.
pub(super) struct Router {
    world: World,
    delay: Duration,
    sides: BTreeMap<u8, Side>,
    sockets: BTreeMap<SocketAddr, Outside>,
    readers: JoinSet<()>,
    arrive: mpsc::Sender<Arrived>,
    arrived: mpsc::Receiver<Arrived>,
    /// In the order in which they are due: all take as long.
    leaving: VecDeque<Leaving>,
    owners: BTreeMap<u16, (u8, Instant)>,
    dice: Dice,
    tally: Tally,
}

impl Router {
    pub(super) fn new(world: World, delay: Duration) -> Self {
        let (arrive, arrived) = mpsc::channel(ARRIVED);
        Router {
            world,
            delay,
            sides: BTreeMap::new(),
            sockets: BTreeMap::new(),
            readers: JoinSet::new(),
            arrive,
            arrived,
            leaving: VecDeque::new(),
            owners: BTreeMap::new(),
            dice: Dice::new(u64::from(world.0), 0),
            tally: Tally::default(),
        }
    }

    /// Until nobody can give orders any more.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.leaving.front().map(|leaving| leaving.due);
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(|| clock::deadline(Duration::ZERO))), if due.is_some() => self.send_one(),
                Some(arrived) = self.arrived.recv() => self.on_arrived(arrived),
                _ = tidy.tick() => self.tidy(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Add { host, behaviour, forwards, reply } => drop(reply.send(self.add(host, behaviour, forwards))),
            Order::Runs { host, pid } => {
                if let Some(side) = self.sides.get_mut(&host)
                    && side.processes.len() < PROCESSES
                {
                    side.processes.insert(pid);
                }
            }
            Order::Lose { host, permille } => {
                self.sides.entry(host).and_modify(|side| side.permille = permille);
            }
            Order::Move { host, moves } => self.move_elsewhere(host, moves),
            Order::Tally(reply) => drop(reply.send(self.tally)),
        }
    }

    fn add(&mut self, host: u8, behaviour: Behaviour, forwards: bool) -> Result<(), ModelError> {
        let mut table = Table::new(behaviour, self.world.outside(host, 0).into());
        for port in PORTS {
            if forwards {
                table.forward((self.world.inside(host), port).into());
            }
            self.socket((table.outside(), port).into())?;
        }
        self.sides.insert(host, Side { table, processes: BTreeSet::new(), permille: 0 });
        Ok(())
    }

    fn move_elsewhere(&mut self, host: u8, moves: u8) {
        let Some(side) = self.sides.get_mut(&host) else { return };
        let old = side.table.outside();
        side.table = Table::new(side.table.behaviour(), self.world.outside(host, moves).into());
        let new = side.table.outside();
        self.sockets.retain(|outside, _| outside.ip() != old);
        // Without them only guesses are missed.
        let bound = PORTS.iter().filter(|port| self.socket((new, **port).into()).is_ok()).count();
        self.tally.failed += u64::try_from(PORTS.len() - bound).unwrap_or_default();
    }

    // ---- a datagram

    fn on_arrived(&mut self, Arrived { at, from, datagram }: Arrived) {
        let counted = match self.route(at, from) {
            Ok((socket, to)) if self.leaving.len() < UNDER_WAY && datagram.len() <= MTU => {
                self.leaving.push_back(Leaving { due: clock::deadline(self.delay), socket, to, datagram });
                return;
            }
            Ok(_) => &mut self.tally.dropped,
            Err(Stopped::Refused(Refusal::Unmapped)) => &mut self.tally.unmapped,
            Err(Stopped::Refused(Refusal::Filtered)) => &mut self.tally.filtered,
            Err(Stopped::Refused(Refusal::Hairpin)) => &mut self.tally.hairpin,
            Err(Stopped::Refused(Refusal::Full)) => &mut self.tally.full,
            Err(Stopped::Lost) => &mut self.tally.lost,
            Err(Stopped::Unknown) => &mut self.tally.unknown,
            Err(Stopped::Failed) => &mut self.tally.failed,
        };
        *counted += 1;
    }

    /// From where, and to which inside endpoint, a datagram goes on that `from` has sent to the outside endpoint `at`.
    fn route(&mut self, at: SocketAddr, from: SocketAddr) -> Result<(Arc<std::net::UdpSocket>, SocketAddr), Stopped> {
        let (now, chance) = (clock::now(), self.dice.below(u64::MAX));
        let sender = self.owner(from).ok_or(Stopped::Unknown)?;
        let side = self.sides.get_mut(&sender).ok_or(Stopped::Unknown)?;
        let leaving_loses = side.permille;
        let mut seen = side.table.outbound(from, at, now, chance).map_err(Stopped::Refused)?;
        if self.socket(seen).is_err() {
            // Some program here has that port on all addresses: the sender itself, if its socket is bound to none.
            let side = self.sides.get_mut(&sender).ok_or(Stopped::Unknown)?;
            side.table.reserve(seen.port());
            seen = side.table.outbound(from, at, now, chance).map_err(Stopped::Refused)?;
        }
        let socket = self.socket(seen).map_err(|_| Stopped::Failed)?;
        let receiver = self.sides.values_mut().find(|side| side.table.outside() == at.ip());
        let receiver = receiver.ok_or(Stopped::Refused(Refusal::Unmapped))?;
        if [leaving_loses, receiver.permille].into_iter().any(|permille| self.dice.below(1_000) < permille.into()) {
            return Err(Stopped::Lost);
        }
        let to = receiver.table.inbound(at.port(), seen, now).map_err(Stopped::Refused)?;
        Ok((socket, to))
    }

    fn send_one(&mut self) {
        let Some(Leaving { socket, to, datagram, .. }) = self.leaving.pop_front() else { return };
        // A full kernel buffer loses it, as a full router would; the other error is an ICMP message about an earlier datagram.
        let sent = (0..2).any(|_| socket.send_to(&datagram, to).is_ok());
        let counted = if sent { &mut self.tally.passed } else { &mut self.tally.failed };
        *counted += 1;
    }

    // ---- whose it is

    fn owner(&mut self, from: SocketAddr) -> Option<u8> {
        let IpAddr::V4(ip) = from.ip() else { return None };
        if let Some(host) = self.world.host(ip) {
            return Some(host);
        }
        (ip == Ipv4Addr::LOCALHOST).then(|| self.owner_of_port(from.port())).flatten()
    }

    /// Of a socket that is bound to no address. Reads `/proc`, which takes a millisecond, once for each such socket.
    fn owner_of_port(&mut self, port: u16) -> Option<u8> {
        if let Some((host, until)) = self.owners.get(&port)
            && clock::deadline(Duration::ZERO) < *until
        {
            return Some(*host);
        }
        let processes = self.sides.values().flat_map(|side| side.processes.iter().copied());
        let process = owner::of_port(port, processes)?;
        let (host, _) = self.sides.iter().find(|(_, side)| side.processes.contains(&process))?;
        let host = *host;
        if self.owners.len() >= OWNERS {
            self.owners.clear();
        }
        self.owners.insert(port, (host, clock::deadline(OWNER_FOR)));
        Some(host)
    }

    // ---- sockets

    /// The socket of an outside endpoint.
    fn socket(&mut self, outside: SocketAddr) -> io::Result<Arc<std::net::UdpSocket>> {
        if let Some(Outside { sender, .. }) = self.sockets.get(&outside) {
            return Ok(sender.clone());
        }
        let socket = std::net::UdpSocket::bind(outside)?;
        socket.set_nonblocking(true)?;
        let sender = Arc::new(socket.try_clone()?);
        let reader = self.readers.spawn(read(outside, UdpSocket::from_std(socket)?, self.arrive.clone()));
        self.sockets.insert(outside, Outside { sender: sender.clone(), reader });
        Ok(sender)
    }

    /// Closes what no table maps any more.
    fn tidy(&mut self) {
        let now = clock::now();
        let mut tables = BTreeMap::new();
        for side in self.sides.values_mut() {
            side.table.expire(now);
            tables.insert(side.table.outside(), &side.table);
        }
        self.sockets.retain(|outside, _| {
            let mapped = |table: &&Table| PORTS.contains(&outside.port()) || table.is_mapped(outside.port());
            tables.get(&outside.ip()).is_some_and(mapped)
        });
        while self.readers.try_join_next().is_some() {}
    }
}

/// Why a datagram goes no further.
enum Stopped {
    Refused(Refusal),
    Lost,
    Unknown,
    Failed,
}

async fn read(at: SocketAddr, socket: UdpSocket, arrive: mpsc::Sender<Arrived>) {
    // One more, to see that a datagram is too long.
    let mut buffer = vec![0; MTU + 1];
    loop {
        // An error is an ICMP message about an earlier datagram, such as a program that has ended.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = buffer.get(..length).unwrap_or_default().to_vec();
        if arrive.send(Arrived { at, from, datagram }).await.is_err() {
            return;
        }
    }
}
