//! A peer that takes a circuit by hand, and then reads nothing of it.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use infernet_relay::message::{HOP, STOP};
use libp2p::{
    Multiaddr, PeerId, Stream, SwarmBuilder, identity::Keypair, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux,
};
use std::time::Duration;

/// Type 1 (status), status 100 (taken), behind their length.
const TAKEN: [u8; 5] = [4, 0x08, 1, 0x20, 100];

/// Reserves at the relay at `at`, by TCP, and takes all circuits; who it is.
pub(crate) async fn deaf(at: &Multiaddr) -> PeerId {
    let Some(Protocol::P2p(relay)) = at.iter().last() else { panic!("{at} names nobody") };
    let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_secp256k1())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    let me = *swarm.local_peer_id();
    let mut control = swarm.behaviour().new_control();
    let mut circuits = control.accept(STOP).expect("once");
    swarm.dial(at.clone()).expect("dialling");
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let mut stream = control.open_stream(relay, HOP).await.expect("a stream");
    stream.write_all(&[2, 0x08, 0]).await.expect("asked");
    stream.flush().await.expect("asked");
    let answer = message(&mut stream).await;
    assert!(answer.ends_with(&[0x28, 100]), "{answer:?}");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some((_, mut stream)) = circuits.next().await {
            message(&mut stream).await;
            stream.write_all(&TAKEN).await.expect("taken");
            stream.flush().await.expect("taken");
            kept.push(stream);
        }
    });
    me
}

/// What stands behind a length of one byte.
pub(crate) async fn message(stream: &mut Stream) -> Vec<u8> {
    let mut length = [0];
    stream.read_exact(&mut length).await.expect("a length");
    let mut bytes = vec![0; usize::from(length[0])];
    stream.read_exact(&mut bytes).await.expect("a message");
    bytes
}
