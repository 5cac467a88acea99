//! A member of the mesh that is no node: it signs offers and answers by hand and does what it likes with what comes back.

use crate::{
    cluster::{NETWORK, loopback},
    pay::Promises,
};
use infernet_node::{
    clock,
    net::{self, Event, Net, NetConfig, NetError},
};
use infernet_wire::{
    bid::Answer,
    capability::Abilities,
    chat::{ChatMessage, ChatRequest, Role},
    envelope::{Message, Verified},
    id::{NodeId, OfferId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    topic::{self, NetworkId},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

/// How long its offers collect bids: long enough that a hold outlives everything a test does with it.
const WINDOW_MS: u16 = 2_000;

/// A key and a place in the mesh.
pub struct Stranger {
    key: NodeKey,
    net: Net,
    events: mpsc::Receiver<Event>,
    promises: Promises,
}

/// An offer, and what opens its commitment.
pub struct Asked {
    /// As it is gossiped.
    pub offer: Verified<JobOffer>,
    /// The request's bytes.
    pub request: Vec<u8>,
    /// What hides it.
    pub salt: [u8; 32],
}

impl Stranger {
    /// Joins by way of `bootstrap`, and listens on loopback.
    pub async fn join(bootstrap: Vec<Multiaddr>) -> Result<Self, NetError> {
        Self::join_at(vec![loopback()], bootstrap).await
    }

    /// The same, and listens nowhere.
    pub async fn join_silently(bootstrap: Vec<Multiaddr>) -> Result<Self, NetError> {
        Self::join_at(Vec::new(), bootstrap).await
    }

    async fn join_at(listen: Vec<Multiaddr>, bootstrap: Vec<Multiaddr>) -> Result<Self, NetError> {
        let key = fresh_key();
        let config = NetConfig { network: network(), listen, bootstrap, ..NetConfig::default() };
        let (net, events) = net::start(&key, config).await?;
        Ok(Stranger { promises: Promises::new(key.clone(), network()), key, net, events })
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.key.id()
    }

    /// Its key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// What it pays with.
    pub fn promises(&self) -> &Promises {
        &self.promises
    }

    /// Its place in the mesh.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// What it hears next; `None` once the mesh is gone.
    pub async fn hear(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Signs anything; `None` if it breaks the wire's own bounds.
    pub fn sign<T: Message>(&self, body: T) -> Option<Verified<T>> {
        self.key.sign(&network(), body).ok()
    }

    /// An honest offer for `max_tokens` of `model`, not yet published.
    pub fn ask(&self, model: &str, max_tokens: u32) -> Option<Asked> {
        let request = ChatRequest::new(model, vec![ChatMessage::new(Role::User, "Go.")], max_tokens).encode().ok()?;
        let salt = clock::random();
        let offer = self.sign(offer_body(model, max_tokens, &request, &salt))?;
        Some(Asked { offer, request, salt })
    }

    /// Publishes `offer`; whether somebody took it before its window ended.
    pub async fn publish(&self, offer: &Verified<JobOffer>) -> bool {
        self.net.publish(topic::jobs(topic::INFERENCE), offer.raw().clone(), offer.window_end()).await.is_ok()
    }

    /// Waits for the next answer to any of its offers.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Event::Answer(answer) = self.hear().await? {
                return Some(answer);
            }
        }
    }
}

/// The network of this crate.
pub fn network() -> NetworkId {
    NETWORK.parse().unwrap_or_default()
}

/// A key that nobody has had before.
pub fn fresh_key() -> NodeKey {
    loop {
        // Fails once in 2^128 draws.
        if let Ok(key) = NodeKey::from_bytes(&clock::random()) {
            return key;
        }
    }
}

/// The body of an offer of now, with money and time to spare.
pub fn offer_body(model: &str, max_tokens: u32, request: &[u8], salt: &[u8; 32]) -> JobOffer {
    let now = clock::now();
    let ceiling = Price { input: MicroUsd(10_000_000), output: MicroUsd(10_000_000) };
    JobOffer {
        id: OfferId(clock::random()),
        issued: now,
        expires: now.after(limits::OFFER_TTL_MS),
        workload: topic::INFERENCE.into(),
        model: model.into(),
        abilities: Abilities::default(),
        input_tokens: 1_000,
        output_tokens: max_tokens,
        ceiling,
        budget: ceiling.cost(1_000, max_tokens).unwrap_or(MicroUsd(u64::MAX)),
        deadline: now.after(10 * 60_000),
        window_ms: WINDOW_MS,
        rule: SelectionRule::BALANCED,
        commitment: commitment(salt, request),
        invited: Vec::new(),
    }
}
