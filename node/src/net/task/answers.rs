//! Answers on their way: ours, by the three ways in turn, and those of others that pass through here.

use super::{NetTask, Publisher, tell};
use crate::{
    clock,
    net::{
        Event, Route,
        direct::{self, Reply},
        gossip::AnswerAdmitted,
        outbox::Waiting,
        peers::{node_id, peer_id},
        score,
    },
};
use infernet_wire::{
    bid::{Answer, SealedAnswer},
    id::NodeId,
    limits, topic,
};
use libp2p::{
    PeerId,
    request_response::{self, OutboundRequestId},
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Answers, ours and others', whose outcome we wait for: two whole auctions' worth for each of eight neighbours.
const MAX_PENDING: usize = 1_024;

/// An answer that somebody else has now.
pub(super) enum Pending {
    /// Ours, and which way it went.
    Ours { buyer: NodeId, answer: Box<Answer>, way: Route, reply: oneshot::Sender<Route> },
    /// Another worker's; whoever gave it to us is waiting.
    Relayed(direct::Channel),
}

impl NetTask {
    pub(super) fn answer(&mut self, buyer: NodeId, answer: Box<Answer>, reply: oneshot::Sender<Route>) {
        if self.peers.is_connected(&buyer) {
            let bytes = answer.raw().clone();
            return self.send_answer(buyer, bytes, Pending::Ours { buyer, answer, way: Route::Direct, reply });
        }
        self.answer_by_path(buyer, answer, reply);
    }

    fn answer_by_path(&mut self, buyer: NodeId, answer: Box<Answer>, reply: oneshot::Sender<Route>) {
        let Some(sealed) = self.seal(buyer, &answer) else { return self.answered(reply, Route::Nowhere) };
        let via = self.gate.way_back(&answer.offer()).filter(|via| *via != buyer && self.peers.is_connected(via));
        match via {
            Some(via) => self.send_answer(via, sealed, Pending::Ours { buyer, answer, way: Route::Path, reply }),
            None => self.answer_on_topic(sealed, reply),
        }
    }

    fn answer_on_topic(&mut self, bytes: Arc<[u8]>, reply: oneshot::Sender<Route>) {
        let deadline = clock::now().after(limits::MAX_BID_WINDOW_MS);
        self.publish(Waiting { topic: topic::jobs(topic::INFERENCE), bytes, deadline, reply: Publisher::Answer(reply) });
    }

    fn seal(&self, buyer: NodeId, answer: &Answer) -> Option<Arc<[u8]>> {
        let sealed = SealedAnswer::seal(answer, &buyer, clock::now(), &clock::random()).ok()?;
        Some(self.key.sign(&self.network, sealed).ok()?.raw().clone())
    }

    fn send_answer(&mut self, to: NodeId, bytes: Arc<[u8]>, pending: Pending) {
        match peer_id(&to) {
            Some(to) if self.pending.len() < MAX_PENDING => {
                let id = self.swarm.behaviour_mut().answers.send_request(&to, bytes);
                self.pending.insert(id, pending);
            }
            _ => self.on_answer_outcome(pending, Reply::NO_ROUTE),
        }
    }

    fn on_answer_outcome(&mut self, pending: Pending, outcome: Reply) {
        match pending {
            Pending::Relayed(channel) => self.reply(channel, outcome),
            Pending::Ours { way, reply, .. } if outcome == Reply::DELIVERED => self.answered(reply, way),
            Pending::Ours { buyer, answer, way: Route::Direct, reply } if outcome == Reply::NO_ROUTE => {
                self.answer_by_path(buyer, answer, reply);
            }
            Pending::Ours { buyer, answer, reply, .. } if outcome == Reply::NO_ROUTE => match self.seal(buyer, &answer) {
                Some(sealed) => self.answer_on_topic(sealed, reply),
                None => self.answered(reply, Route::Nowhere),
            },
            Pending::Ours { reply, .. } => self.answered(reply, Route::Refused),
        }
    }

    pub(super) fn answered(&mut self, reply: oneshot::Sender<Route>, route: Route) {
        self.counters.add("answer_sent", route.label());
        tell(reply, route);
    }

    pub(super) fn on_answers(&mut self, event: direct::Event) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => self.on_answer(peer, &request, channel),
                request_response::Message::Response { request_id, response } => self.on_reply(request_id, response),
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                tracing::debug!(%error, "an answer did not get through");
                self.counters.add("answer", "send_failed");
                self.on_reply(request_id, Reply::NO_ROUTE);
            }
            request_response::Event::InboundFailure { error, .. } => {
                tracing::debug!(%error, "an answer could not be read");
                self.counters.add("answer", "receive_failed");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_reply(&mut self, id: OutboundRequestId, reply: Reply) {
        if let Some(pending) = self.pending.remove(&id) {
            self.on_answer_outcome(pending, reply);
        }
    }

    fn on_answer(&mut self, peer: PeerId, bytes: &Arc<[u8]>, channel: direct::Channel) {
        self.tap(direct::PROTOCOL.as_ref(), bytes);
        let Some(from) = node_id(&peer) else { return self.reply(channel, Reply::REFUSED) };
        match self.gate.answer(bytes, from, clock::now()) {
            AnswerAdmitted::Ours(answer) => {
                self.counters.add("answer", "received");
                let taken = self.emit(Event::Answer(*answer));
                self.reply(channel, if taken { Reply::DELIVERED } else { Reply::REFUSED });
            }
            AnswerAdmitted::Forward { buyer, via } => self.relay(from, [buyer, via], bytes.clone(), channel),
            AnswerAdmitted::Refused { reason, fault } => {
                self.counters.add("answer", reason);
                if fault {
                    self.blame(&peer, from);
                }
                // The topic may still lead to the buyer.
                self.reply(channel, if reason == "unknown_offer" { Reply::NO_ROUTE } else { Reply::REFUSED });
            }
        }
    }

    pub(super) fn blame(&mut self, peer: &PeerId, id: NodeId) {
        let penalty = score::penalty(self.peers.blamed(&id));
        self.swarm.behaviour_mut().gossip.set_application_score(peer, penalty);
    }

    fn relay(&mut self, from: NodeId, ways: [NodeId; 2], bytes: Arc<[u8]>, channel: direct::Channel) {
        let next = ways.into_iter().find(|next| *next != from && self.peers.is_connected(next));
        self.counters.add("answer", if next.is_some() { "relayed" } else { "no_route" });
        match next {
            Some(next) => self.send_answer(next, bytes, Pending::Relayed(channel)),
            None => self.reply(channel, Reply::NO_ROUTE),
        }
    }

    fn reply(&mut self, channel: direct::Channel, reply: Reply) {
        // Whoever asked may be gone.
        let _ = self.swarm.behaviour_mut().answers.send_response(channel, reply);
    }
}
