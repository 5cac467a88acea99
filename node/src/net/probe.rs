//! Dials us as a stranger would, to see whether a relay carries anything: with a key made for this once, over a transport of its own,
//! first the relay, then us through it. It speaks nothing; that its handshake with us ends is all that it wants.
//!
//! To the relay, and to us at the other end, this is a peer like any other: it counts for the relay's limits, and for ours.

use super::{NetError, reach::Prove, transport};
use crate::clock;
use futures::StreamExt;
use infernet_wire::key::NodeKey;
use libp2p::{
    Multiaddr, PeerId, Swarm, relay,
    swarm::{self, SwarmEvent, dial_opts::DialOpts},
};
use std::time::Duration;
use tokio::time::timeout;

/// For a connection to the relay and a circuit through it, each a few round trips. libp2p gives a handshake half of that.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// No circuit came.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCircuit {
    /// It could not be tried, which is not the relay's fault.
    #[error("not tried: {0}")]
    Untried(String),
    /// The relay, or the way to it, failed.
    #[error("{0}")]
    Failed(String),
    /// Nothing was heard in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl From<NetError> for NoCircuit {
    fn from(error: NetError) -> Self {
        NoCircuit::Untried(error.to_string())
    }
}

/// Dials the relay, and `me` through it; returns when the handshake with `me` is over.
pub(super) async fn dial(me: PeerId, prove: Prove, patience: Duration) -> Result<(), NoCircuit> {
    let mut swarm = stranger()?;
    let both = async {
        meet(&mut swarm, prove.relay, prove.addresses).await?;
        meet(&mut swarm, me, vec![prove.circuit]).await
    };
    timeout(patience, both).await.map_err(|_| NoCircuit::Late(patience))?
}

/// A libp2p peer that nobody has seen before.
fn stranger() -> Result<Swarm<relay::client::Behaviour>, NoCircuit> {
    // One in 2^128 is no key.
    let key = NodeKey::from_bytes(&clock::random()).map_err(|_| NoCircuit::Untried("no key".into()))?;
    let keypair = transport::keypair(&key)?;
    let id = keypair.public().to_peer_id();
    let (circuits, behaviour) = relay::client::new(id);
    Ok(Swarm::new(transport::transport(&keypair, circuits)?, behaviour, id, swarm::Config::with_tokio_executor()))
}

async fn meet(swarm: &mut Swarm<relay::client::Behaviour>, peer: PeerId, at: Vec<Multiaddr>) -> Result<(), NoCircuit> {
    let dialled = swarm.dial(DialOpts::peer_id(peer).addresses(at).build());
    dialled.map_err(|error| NoCircuit::Untried(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return Ok(()),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } if peer_id == Some(peer) => {
                return Err(NoCircuit::Failed(error.to_string()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn relay_at(port: u16) -> Prove {
        let (relay, address) = (PeerId::random(), format!("/ip4/127.0.0.1/tcp/{port}"));
        let circuit = format!("{address}/p2p/{relay}/p2p-circuit").parse().unwrap();
        Prove { relay, addresses: vec![address.parse().unwrap()], circuit }
    }

    #[tokio::test]
    async fn who_takes_a_connection_and_says_nothing_is_not_waited_for_longer_than_was_said() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = relay_at(silent.local_addr().unwrap().port());
        let patience = Duration::from_millis(300);
        assert!(matches!(dial(PeerId::random(), at, patience).await, Err(NoCircuit::Late(_))));
        assert!(silent.accept().await.is_ok(), "it was tried");
    }

    #[tokio::test]
    async fn a_relay_that_is_not_there_carries_nothing() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert!(matches!(dial(PeerId::random(), relay_at(port), PATIENCE).await, Err(NoCircuit::Failed(_))));
    }
}
