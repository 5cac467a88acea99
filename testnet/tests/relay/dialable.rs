//! Whether a peer can be dialled, asked by libp2p's own AutoNAT client (version 2).

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, autonat,
    core::{Endpoint, transport::PortUse},
    identify,
    identity::Keypair,
    noise,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
    tcp, yamux,
};
use std::{
    task::{Context, Poll},
    time::Duration,
};

#[derive(NetworkBehaviour)]
struct Behaviour {
    ask: autonat::v2::client::Behaviour,
    /// By it a client learns who can be asked.
    identify: identify::Behaviour,
    claim: Claim,
}

/// Says once that its peer may be reached at an address.
struct Claim(Option<Multiaddr>);

impl NetworkBehaviour for Claim {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        self.0.take().map_or(Poll::Pending, |address| Poll::Ready(ToSwarm::NewExternalAddrCandidate(address)))
    }
}

/// A peer with a socket on loopback, where that is, and what it will say of itself.
pub(crate) struct Asker {
    swarm: Swarm<Behaviour>,
    /// Where it listens.
    pub address: Multiaddr,
}

impl Asker {
    pub(crate) async fn start() -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_secp256k1())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|key| Behaviour {
                // It looks every 5 s for addresses to ask about.
                ask: autonat::v2::client::Behaviour::default(),
                identify: identify::Behaviour::new(identify::Config::new("/infernet-test/1".into(), key.public())),
                claim: Claim(None),
            })
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listening");
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return Asker { swarm, address };
            }
        }
    }

    /// Whether the relay at `relay` could dial it at `claimed`.
    pub(crate) async fn ask(&mut self, relay: &Multiaddr, claimed: &Multiaddr) -> bool {
        self.swarm.behaviour_mut().claim.0 = Some(claimed.clone());
        self.swarm.dial(relay.clone()).expect("dialling");
        loop {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(BehaviourEvent::Ask(told)) = event
                && told.tested_addr == *claimed
            {
                return told.result.is_ok();
            }
        }
    }
}
