//! Pages of ads: ours, for those who have just come, and our first neighbours', for us.

use super::{NetTask, chance};
use crate::{
    clock,
    net::{
        ads,
        peers::node_id,
        quota::{Quota, Rate},
    },
};
use infernet_wire::{ad_page::AdRequest, id::NodeId};
use libp2p::{PeerId, request_response};

/// Neighbours that are asked, from the first on: any one of them may hide what it knows.
const NEIGHBOURS: usize = 3;
/// Pages that one peer may ask for: it needs one, and another when it comes back.
const PER_PEER: Rate = Rate { interval_ms: 10_000, burst: 2 };
/// Pages that all peers together may ask for: 20 a second are 2.5 MB.
const FOR_ALL: Rate = Rate { interval_ms: 50, burst: 40 };
/// Peers whose quota is kept: more than are connected.
const QUOTA_KEYS: usize = 1_024;

/// What is under way.
pub(super) struct AdPages {
    /// Neighbours that were asked.
    asked: Vec<PeerId>,
    per_peer: Quota<NodeId>,
    for_all: Quota<()>,
}

impl AdPages {
    pub(super) fn new() -> Self {
        let (per_peer, for_all) = (Quota::new(PER_PEER, QUOTA_KEYS), Quota::new(FOR_ALL, 1));
        AdPages { asked: Vec::new(), per_peer, for_all }
    }

    /// Nobody is connected any more: what is heard then is new again.
    pub(super) fn alone(&mut self) {
        self.asked.clear();
    }
}

impl NetTask {
    /// Asks a neighbour that speaks the protocol, if it is one of the first.
    pub(super) fn ask_for_ads(&mut self, peer: &PeerId) {
        let asked = &mut self.ad_pages.asked;
        if asked.len() < NEIGHBOURS && !asked.contains(peer) {
            asked.push(*peer);
            let request = AdRequest { network: self.network.clone() };
            self.swarm.behaviour_mut().ads.send_request(peer, request.encode());
        }
    }

    pub(super) fn on_ads(&mut self, event: ads::Event) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => self.on_ads_wanted(&peer, &request, channel),
                request_response::Message::Response { response, .. } => self.on_ad_page(&response),
            },
            // The next neighbour is asked instead.
            request_response::Event::OutboundFailure { peer, .. } => self.ad_pages.asked.retain(|asked| *asked != peer),
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_ads_wanted(&mut self, peer: &PeerId, request: &[u8], channel: ads::Channel) {
        let (Some(peer), now) = (node_id(peer), clock::now()) else { return };
        // In each case but the last the stream is closed without an answer.
        let what = match AdRequest::decode(request) {
            Err(_) => "malformed",
            Ok(request) if request.network != self.network => "other_network",
            Ok(_) if !(self.ad_pages.per_peer.try_take(peer, now) && self.ad_pages.for_all.try_take((), now)) => "busy",
            Ok(_) => {
                let page = self.gate.ad_page(chance(), now);
                let _ = self.swarm.behaviour_mut().ads.send_response(channel, page.encode());
                "asked"
            }
        };
        self.counters.add("ads", what);
    }

    fn on_ad_page(&mut self, page: &[u8]) {
        for admitted in self.gate.admit_page(page, clock::now()) {
            self.counters.add("ads", admitted.reason);
            if let Some(event) = admitted.event {
                let _ = self.emit(event);
            }
        }
    }
}
