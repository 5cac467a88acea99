//! A link of datagrams, which looks to the target like a NAT: each client has its own socket behind it.

use super::{Quality, State};
use infernet_node::clock;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Datagrams in flight per client and direction: a second of a busy connection. More are lost, as in any router.
const IN_FLIGHT: usize = 4_096;
/// Clients with a socket of their own. Above, the one heard of longest ago is forgotten, as in any NAT.
const MAX_CLIENTS: usize = 256;
/// No datagram is longer.
const MAX_DATAGRAM: usize = 64 * 1024;

type Queue = mpsc::Sender<(Instant, Vec<u8>)>;

/// Listens; aborting the task ends everything.
pub(super) async fn spawn(state: watch::Receiver<State>, quality: Quality) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let front = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
    let addr = front.local_addr()?;
    let nat = Nat { front, state, quality, clients: BTreeMap::new(), heard: 0, tasks: JoinSet::new(), dice: Dice(1) };
    Ok((addr, tokio::spawn(nat.run())))
}

struct Nat {
    front: Arc<UdpSocket>,
    state: watch::Receiver<State>,
    quality: Quality,
    clients: BTreeMap<SocketAddr, Client>,
    heard: u64,
    tasks: JoinSet<()>,
    dice: Dice,
}

struct Client {
    up: Queue,
    target: SocketAddr,
    task: AbortHandle,
    last_heard: u64,
}

impl Nat {
    async fn run(mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            // An error is an ICMP message about an earlier datagram, such as a client that is gone.
            let Ok((n, from)) = self.front.recv_from(&mut buffer).await else { continue };
            let target = self.state.borrow().open_target();
            let Some(target) = target else { continue };
            if self.dice.lost(self.quality.loss_percent) {
                continue;
            }
            let due = clock::deadline(self.quality.delay);
            if let Some(client) = self.client(from, target).await {
                // Full is lost.
                let _ = client.up.try_send((due, buffer.get(..n).unwrap_or_default().to_vec()));
            }
        }
    }

    async fn client(&mut self, from: SocketAddr, target: SocketAddr) -> Option<&mut Client> {
        self.heard += 1;
        if self.clients.get(&from).is_none_or(|client| client.target != target) {
            let made = self.new_client(from, target).await.ok()?;
            self.make_room();
            if let Some(aimed_elsewhere) = self.clients.insert(from, made) {
                aimed_elsewhere.task.abort();
            }
        }
        let client = self.clients.get_mut(&from)?;
        client.last_heard = self.heard;
        Some(client)
    }

    async fn new_client(&mut self, from: SocketAddr, target: SocketAddr) -> io::Result<Client> {
        let behind = UdpSocket::bind(("127.0.0.1", 0)).await?;
        behind.connect(target).await?;
        let (up, queue) = mpsc::channel(IN_FLIGHT);
        let dice = Dice(u64::from(from.port()));
        let way = Way { front: self.front.clone(), behind, from, state: self.state.clone(), quality: self.quality, dice };
        while self.tasks.try_join_next().is_some() {}
        Ok(Client { up, target, task: self.tasks.spawn(way.run(queue)), last_heard: self.heard })
    }

    fn make_room(&mut self) {
        if self.clients.len() >= MAX_CLIENTS
            && let Some(oldest) = self.clients.iter().min_by_key(|(_, client)| client.last_heard).map(|(addr, _)| *addr)
            && let Some(client) = self.clients.remove(&oldest)
        {
            client.task.abort();
        }
    }
}

/// One client's way to the target and back.
struct Way {
    front: Arc<UdpSocket>,
    behind: UdpSocket,
    from: SocketAddr,
    state: watch::Receiver<State>,
    quality: Quality,
    dice: Dice,
}

impl Way {
    async fn run(self, mut up: mpsc::Receiver<(Instant, Vec<u8>)>) {
        let Way { front, behind, from, state, quality, mut dice } = self;
        let (back, mut down) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
        let forth = async {
            while let Some((due, datagram)) = up.recv().await {
                sleep_until(due).await;
                let _ = behind.send(&datagram).await;
            }
        };
        let hearing = async {
            let mut buffer = vec![0; MAX_DATAGRAM];
            loop {
                let Ok(n) = behind.recv(&mut buffer).await else { continue };
                if state.borrow().up && !dice.lost(quality.loss_percent) {
                    let datagram = buffer.get(..n).unwrap_or_default().to_vec();
                    let _ = back.try_send((clock::deadline(quality.delay), datagram));
                }
            }
        };
        let passing = async {
            while let Some((due, datagram)) = down.recv().await {
                sleep_until(due).await;
                let _ = front.send_to(&datagram, from).await;
            }
        };
        // Ends when the client is forgotten; the task is aborted with it.
        tokio::select! {
            () = forth => {}
            () = hearing => {}
            () = passing => {}
        }
    }
}

/// Which datagrams are lost: the same ones in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn lost(&mut self, percent: u8) -> bool {
        self.0 = if self.0 == 0 { 0x9e37_79b9 } else { self.0 };
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 100 < u64::from(percent)
    }
}
