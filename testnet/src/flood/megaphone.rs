//! A gossip peer that publishes what it likes, as fast as it likes: nothing checks it before others must.
//!
//! It speaks gossipsub itself, without a node's gate. When its victim has had enough of it and hangs up, it comes back under a
//! new key, as keys are free.

use super::{dice::Dice, tally::Tally};
use crate::stranger::{fresh_key, network, offer_body};
use futures::StreamExt;
use infernet_node::clock;
use infernet_wire::{
    accept::JobAccept,
    capability::{CapabilityAd, ModelAd},
    envelope::Message,
    id::{Hash, JobId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::JobOffer,
    topic::{self, NetworkId},
};
use libp2p::{
    Multiaddr, Swarm,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::{Keypair, secp256k1},
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Before it comes back after it was hung up on: what a new key and a new connection cost anyway.
const COME_BACK: Duration = Duration::from_millis(200);
/// How often it speaks; each time it says what is due.
const BEAT: Duration = Duration::from_millis(10);

/// How a megaphone shouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Noise, forgeries and foreign messages among good ones: whoever passes them on is to blame, and is hung up on.
    Crude,
    /// Only what an honest peer might pass on, far too much of it: nobody may be blamed for that.
    Sly,
}

/// Publishes `rate` messages a second to whoever is at `victims`, for ever.
pub(super) async fn run(victims: Vec<Multiaddr>, manner: Manner, rate: u32, mut dice: Dice, tally: Arc<Tally>) {
    loop {
        let key = fresh_key();
        if let Some(mut swarm) = swarm(&key) {
            for victim in &victims {
                let _ = swarm.dial(victim.clone());
            }
            tally.count("gossip keys");
            shout(swarm, &key, (manner, rate), &mut dice, &tally).await;
        }
        sleep(COME_BACK).await;
    }
}

/// Until the last victim hangs up.
async fn shout(
    mut swarm: Swarm<gossipsub::Behaviour>,
    key: &NodeKey,
    (manner, rate): (Manner, u32),
    dice: &mut Dice,
    tally: &Tally,
) {
    let (jobs, ads) = (IdentTopic::new(topic::jobs(topic::INFERENCE)), IdentTopic::new(topic::CAPABILITIES));
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut due = 0.0;
    loop {
        tokio::select! {
            _ = beat.tick() => {
                due += f64::from(rate) * BEAT.as_secs_f64();
                while due >= 1.0 {
                    due -= 1.0;
                    let (topic, message) = match (manner, dice.below(8)) {
                        (Manner::Sly, 0) => (&ads, ad(key, dice)),
                        (Manner::Sly, _) => (&jobs, fresh_offer(key, dice)),
                        (Manner::Crude, 0) => (&ads, crude(key, dice)),
                        (Manner::Crude, _) => (&jobs, crude(key, dice)),
                    };
                    // Refused before the victim has subscribed, or while its queue is full.
                    let said = swarm.behaviour_mut().publish(topic.clone(), message).is_ok();
                    tally.count(match manner {
                        _ if !said => "gossip not taken",
                        Manner::Sly => "sly gossip said",
                        Manner::Crude => "crude gossip said",
                    });
                }
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionClosed { num_established: 0, .. } if swarm.connected_peers().next().is_none() => return,
                SwarmEvent::OutgoingConnectionError { .. } if swarm.connected_peers().next().is_none() => return,
                _ => {}
            },
        }
    }
}

/// For the model that is served, or for one of many that are not.
fn fresh_offer(key: &NodeKey, dice: &mut Dice) -> Vec<u8> {
    let model = if dice.one_in(2) { "tiny-chat".into() } else { format!("model-{}", dice.below(1_000_000)) };
    signed(key, &network(), offer_body(&model, 64, b"", &clock::random()))
}

/// Of a worker that does not exist.
fn ad(key: &NodeKey, dice: &mut Dice) -> Vec<u8> {
    let now = clock::now();
    let price = Price { input: MicroUsd(1_000_000), output: MicroUsd(1_000_000) };
    let models = vec![ModelAd { id: format!("model-{}", dice.below(1_000)), price, ..ModelAd::default() }];
    let (sequence, expires) = (now.0 + dice.below(1_000), now.after(limits::AD_TTL_MS));
    let ad = CapabilityAd {
        sequence,
        issued: now,
        expires,
        tags: Vec::new(),
        models,
        slots: 8,
        chat: Vec::new(),
        mesh: Vec::new(),
        evm: Vec::new(),
    };
    signed(key, &network(), ad)
}

/// Anything that others must refuse, and some that they must not.
fn crude(key: &NodeKey, dice: &mut Dice) -> Vec<u8> {
    let fresh = || offer_body("tiny-chat", 64, b"", &clock::random());
    match dice.below(6) {
        0 => (0..dice.below(2_000)).map(|_| dice.below(256) as u8).collect(),
        1 => signed(key, &network(), JobOffer { issued: ago(60_000), expires: ago(30_000), ..fresh() }),
        2 => signed(key, &"elsewhere".parse().unwrap_or_default(), fresh()),
        3 => signed(&fresh_key(), &network(), fresh()),
        4 => signed(key, &network(), accept(key)),
        _ => signed(key, &network(), fresh()),
    }
}

/// Of a bid that nobody made.
fn accept(key: &NodeKey) -> JobAccept {
    let now = clock::now();
    JobAccept {
        offer: Hash(clock::random()),
        bid: Hash(clock::random()),
        winner: key.id(),
        model: "tiny-chat".into(),
        price: Price { input: MicroUsd(1), output: MicroUsd(1) },
        job: JobId(clock::random()),
        attempt: 1,
        runners_up: Vec::new(),
        bids: Hash([0; 32]),
        score: 1,
        issued: now,
        expires: now.after(limits::ACCEPT_TTL_MS),
        rate: None,
    }
}

fn ago(ms: u64) -> infernet_wire::time::UnixMillis {
    infernet_wire::time::UnixMillis(clock::now().0.saturating_sub(ms))
}

fn signed<T: Message>(key: &NodeKey, network: &NetworkId, body: T) -> Vec<u8> {
    key.sign(network, body).map(|message| message.raw().to_vec()).unwrap_or_default()
}

pub(super) fn swarm(key: &NodeKey) -> Option<Swarm<gossipsub::Behaviour>> {
    let mut secret = key.secret_bytes();
    let secret = secp256k1::SecretKey::try_from_bytes(&mut *secret).ok()?;
    let keypair: Keypair = secp256k1::Keypair::from(secret).into();
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .max_transmit_size(limits::MAX_GOSSIP_BYTES)
        .flood_publish(true)
        .build()
        .ok()?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config).ok()?;
    gossip.subscribe(&IdentTopic::new(topic::jobs(topic::INFERENCE))).ok()?;
    let built = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .ok()?
        .with_behaviour(|_| gossip)
        .ok()?;
    Some(built.with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60))).build())
}
