//! Pages of receipts: ours, for those who ask, and others', for us.

use super::{NetTask, tell};
use crate::{
    clock,
    net::{
        discovery,
        peers::{node_id, peer_id},
        quota::{Quota, Rate},
        receipts::{self, Asked, PATIENCE, PageError},
    },
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use infernet_wire::{
    id::NodeId,
    receipt_page::{Page, PageRequest},
};
use libp2p::{
    PeerId,
    request_response::{self, OutboundRequestId},
};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};

/// Pages that one peer may ask for. Five a second are half a second to verify for its reader, and a twentieth of that for us.
const PER_PEER: Rate = Rate { interval_ms: 200, burst: 10 };
/// Pages that all peers together may ask for: a fifth of a core.
const FOR_ALL: Rate = Rate { interval_ms: 50, burst: 20 };
/// Peers whose quota is kept: more than are connected.
const QUOTA_KEYS: usize = 1_024;
/// Pages that are being looked up.
const MAX_ANSWERS: usize = 32;
/// Pages that we wait for.
const MAX_ASKED: usize = 64;
/// When whoever was refused may ask again.
const WAIT_MS: u32 = 1_000;

type Answer = (receipts::Channel, Page);

/// What is under way.
pub(super) struct Pages {
    keeper: Option<mpsc::Sender<Asked>>,
    per_peer: Quota<NodeId>,
    for_all: Quota<()>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    asked: BTreeMap<OutboundRequestId, oneshot::Sender<Result<Vec<u8>, PageError>>>,
}

impl Pages {
    pub(super) fn new(keeper: Option<mpsc::Sender<Asked>>) -> Self {
        Pages {
            keeper,
            per_peer: Quota::new(PER_PEER, QUOTA_KEYS),
            for_all: Quota::new(FOR_ALL, 1),
            answers: FuturesUnordered::new(),
            asked: BTreeMap::new(),
        }
    }

    /// The next page that was looked up; `None` at once if none is being. Cancel-safe.
    pub(super) async fn next_answer(&mut self) -> Option<Answer> {
        self.answers.next().await
    }

    fn may_ask(&mut self, peer: NodeId) -> bool {
        let now = clock::now();
        self.answers.len() < MAX_ANSWERS && self.per_peer.try_take(peer, now) && self.for_all.try_take((), now)
    }

    /// Has the page looked up; `None` if nobody can now.
    fn look_up(&self, request: PageRequest) -> Option<oneshot::Receiver<Page>> {
        let (reply, page) = oneshot::channel();
        self.keeper.as_ref()?.try_send(Asked { request, reply }).ok()?;
        Some(page)
    }
}

impl NetTask {
    pub(super) fn ask_for_page(
        &mut self,
        peer: NodeId,
        request: &PageRequest,
        reply: oneshot::Sender<Result<Vec<u8>, PageError>>,
    ) {
        match peer_id(&peer) {
            Some(id) if self.pages.asked.len() < MAX_ASKED => {
                // Nobody has chosen this one: an ad is enough to be asked.
                let least = discovery::least_of_unchosen(self.least, self.peers.remotes());
                let mut places = self.advertised(&peer);
                places.retain(|place| discovery::reach(place) >= Some(least));
                let asking = &mut self.swarm.behaviour_mut().receipts;
                let id = asking.send_request_with_addresses(&id, request.encode(), places);
                self.pages.asked.insert(id, reply);
            }
            Some(_) => tell(reply, Err(PageError::Busy)),
            None => tell(reply, Err(PageError::Unreachable("its key is no key".into()))),
        }
    }

    pub(super) fn on_receipts(&mut self, event: receipts::Event) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => self.on_page_wanted(&peer, &request, channel),
                request_response::Message::Response { request_id, response } => {
                    self.page_came(request_id, Ok(response));
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                self.page_came(request_id, Err(PageError::Unreachable(error.to_string())));
            }
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }

    /// Who has asked reads it: it may be long, and this task serves everybody.
    fn page_came(&mut self, request: OutboundRequestId, page: Result<Vec<u8>, PageError>) {
        if let Some(reply) = self.pages.asked.remove(&request) {
            tell(reply, page);
        }
    }

    fn on_page_wanted(&mut self, peer: &PeerId, bytes: &[u8], channel: receipts::Channel) {
        let Some(peer) = node_id(peer) else { return };
        let Ok(request) = PageRequest::decode(bytes) else {
            // The stream is closed without an answer.
            return self.counters.add("receipts", "malformed");
        };
        if self.pages.keeper.is_none() {
            // Relays and planes: whoever was told to come again would do so for ever.
            self.counters.add("receipts", "none_kept");
            return self.send_page(channel, Page::none());
        }
        let page = if self.pages.may_ask(peer) { self.pages.look_up(request) } else { None };
        let Some(page) = page else {
            self.counters.add("receipts", "busy");
            return self.send_page(channel, Page::busy(WAIT_MS));
        };
        self.counters.add("receipts", "asked");
        let answer = async move {
            let page = tokio::time::timeout(PATIENCE, page).await;
            (channel, page.ok().and_then(Result::ok).unwrap_or_else(|| Page::busy(WAIT_MS)))
        };
        self.pages.answers.push(answer.boxed());
    }

    /// Who does not wait any more gets nothing.
    pub(super) fn send_page(&mut self, channel: receipts::Channel, page: Page) {
        let _ = self.swarm.behaviour_mut().receipts.send_response(channel, page.encode());
    }
}
