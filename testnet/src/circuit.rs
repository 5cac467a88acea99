//! A peer that speaks libp2p's own circuit relay, as its library has it: reached through a relay, or reaching others through one,
//! and an echo at the other end. So the relay is tried against an implementation that is not ours.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// What comes is sent back.
pub const ECHO: StreamProtocol = StreamProtocol::new("/infernet-test/echo/1");
/// What is seen and not looked at yet. More is left out.
const SEEN: usize = 256;
/// How often a stream is opened anew that was dropped at once.
const OPEN_TRIES: usize = 20;
const KEPT: Duration = Duration::from_secs(3_600);

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::client::Behaviour,
    streams: libp2p_stream::Behaviour,
    ping: ping::Behaviour,
}

enum Command {
    Listen(Multiaddr),
    Dial(Multiaddr),
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It can be reached there.
    Listening(Multiaddr),
    /// It can't, or no longer.
    NotListening,
    /// A connection.
    Connected(PeerId),
    /// None.
    NotConnected(String),
}

/// A peer. It leaves when dropped.
pub struct Peer {
    /// Who it is.
    pub id: PeerId,
    /// Its streams.
    pub streams: libp2p_stream::Control,
    commands: mpsc::Sender<Command>,
    seen: mpsc::Receiver<Seen>,
}

/// A circuit peer could not be made, or a stream not opened.
#[derive(Debug, thiserror::Error)]
#[error("circuit: {0}")]
pub struct CircuitError(pub String);

fn failed(error: impl std::fmt::Display) -> CircuitError {
    CircuitError(error.to_string())
}

impl Peer {
    /// Listens nowhere, so it can't be dialled; answers echoes. It pings every `ping`.
    pub fn start(ping: Duration) -> Result<Self, CircuitError> {
        let swarm = SwarmBuilder::with_existing_identity(Keypair::generate_secp256k1())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(failed)?
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .map_err(failed)?
            .with_behaviour(|_, relay| Behaviour {
                relay,
                streams: libp2p_stream::Behaviour::new(),
                ping: ping::Behaviour::new(ping::Config::new().with_interval(ping)),
            })
            .map_err(failed)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(KEPT))
            .build();
        let id = *swarm.local_peer_id();
        let mut streams = swarm.behaviour().streams.new_control();
        let mut echoes = streams.accept(ECHO).map_err(failed)?;
        tokio::spawn(async move {
            while let Some((_, stream)) = echoes.next().await {
                tokio::spawn(echo(stream));
            }
        });
        let (commands, commands_in) = mpsc::channel(16);
        let (seen_out, seen) = mpsc::channel(SEEN);
        tokio::spawn(run(swarm, commands_in, seen_out));
        Ok(Peer { id, streams, commands, seen })
    }

    /// Asks the relay at `relay` (with `/p2p/`) for a reservation; where it can be reached then.
    pub async fn reserve(&mut self, relay: &Multiaddr) -> Result<Multiaddr, CircuitError> {
        let _ = self.commands.send(Command::Listen(relay.clone().with(Protocol::P2pCircuit))).await;
        while let Some(seen) = self.seen.recv().await {
            match seen {
                Seen::Listening(address) => return Ok(address),
                Seen::NotListening => return Err(failed("no reservation")),
                _ => {}
            }
        }
        Err(failed("the peer is gone"))
    }

    /// Listens on loopback, to be dialled directly; where.
    pub async fn listen(&mut self) -> Result<Multiaddr, CircuitError> {
        let any = "/ip4/127.0.0.1/tcp/0".parse::<Multiaddr>().map_err(failed)?;
        let _ = self.commands.send(Command::Listen(any)).await;
        while let Some(seen) = self.seen.recv().await {
            match seen {
                Seen::Listening(address) => return address.with_p2p(self.id).map_err(failed),
                Seen::NotListening => return Err(failed("it can't listen")),
                _ => {}
            }
        }
        Err(failed("the peer is gone"))
    }

    /// Connects to `address`, which ends in `/p2p/`.
    pub async fn connect(&mut self, address: &Multiaddr) -> Result<PeerId, CircuitError> {
        let Some(Protocol::P2p(wanted)) = address.iter().last() else { return Err(failed("it names nobody")) };
        let _ = self.commands.send(Command::Dial(address.clone())).await;
        while let Some(seen) = self.seen.recv().await {
            match seen {
                Seen::Connected(peer) if peer == wanted => return Ok(peer),
                Seen::NotConnected(reason) => return Err(CircuitError(reason)),
                _ => {}
            }
        }
        Err(failed("the peer is gone"))
    }

    /// An echo of a connected peer.
    pub async fn echo(&self, peer: PeerId) -> Result<Stream, CircuitError> {
        let mut tries = 0;
        loop {
            let mut stream = self.streams.clone().open_stream(peer, ECHO).await.map_err(failed)?;
            tries += 1;
            match answers(&mut stream).await {
                // The library drops a stream that comes while the one before it is not taken yet.
                Err(_) if tries < OPEN_TRIES => {}
                Err(error) => return Err(failed(error)),
                Ok(()) => return Ok(stream),
            }
        }
    }

    /// What happens next.
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

/// Sends a byte there and back.
async fn answers(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(&[1]).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0]).await
}

async fn echo(stream: Stream) {
    let (reader, mut writer) = stream.split();
    let mut reader = reader;
    let mut buffer = vec![0; 16 * 1024];
    // Whoever sends may be gone.
    while let Ok(length) = reader.read(&mut buffer).await {
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() || writer.write_all(piece).await.is_err() || writer.flush().await.is_err() {
            break;
        }
    }
    let _ = writer.close().await;
}

async fn run(mut swarm: Swarm<Behaviour>, mut commands: mpsc::Receiver<Command>, seen: mpsc::Sender<Seen>) {
    let tell = |what| drop(seen.try_send(what));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen(address)) => if swarm.listen_on(address).is_err() { tell(Seen::NotListening) },
                Some(Command::Dial(address)) => if let Err(error) = swarm.dial(address) { tell(Seen::NotConnected(error.to_string())) },
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => tell(Seen::Listening(address)),
                SwarmEvent::ListenerClosed { .. } => tell(Seen::NotListening),
                SwarmEvent::ConnectionEstablished { peer_id, .. } => tell(Seen::Connected(peer_id)),
                SwarmEvent::OutgoingConnectionError { error, .. } => tell(Seen::NotConnected(format!("{error:?}"))),
                _ => {}
            },
        }
    }
}
