//! What the routes share: the buyer, the till, and every bound on what callers may take.

use super::{
    access::Caller,
    error::ApiError,
    job::Job,
    options::Options,
    replay::Replays,
    till::{Till, Wish},
};
use crate::{
    buyer::{Buyer, ChatOrder},
    net::Net,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use infernet_wire::{capability::ModelAd, chat::ChatRequest, money::MicroUsd};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The largest body: a request of 8 MiB, the most that workers take, whose images were a third longer in base64.
pub const MAX_BODY: usize = 12 * 1024 * 1024;
/// What is read and thrown away of a body that is too large, so that its sender hears why instead of a broken connection.
const MAX_DISCARDED: usize = 4 * MAX_BODY;
/// From the head of a request to the last byte of its body: 12 MiB at half a megabyte a second.
const BODY: Duration = Duration::from_secs(30);
/// Requests under way: twice the streams that a node of two cores carries.
pub const MAX_REQUESTS: usize = 4_096;
/// Bodies in memory, in KiB: what several dozen of the largest take. Each counts until its jobs are settled.
const MAX_BODIES_KIB: usize = 512 * 1024;
/// The longest answer where the client names none. Long enough for a page of code with its reasoning; each token is reserved
/// of the budget, and a worker must have room for it in its context.
const DEFAULT_MAX_TOKENS: u32 = 4_096;
/// The shortest that this default shrinks to in a small context.
const LEAST_MAX_TOKENS: u32 = 64;
/// Bytes of text in a token, to guess how much of a context is left.
const BYTES_PER_TOKEN: u32 = 4;

/// What the routes share.
pub(super) struct Service {
    pub(super) buyer: Buyer,
    pub(super) net: Net,
    till: Arc<dyn Till>,
    max_price: MicroUsd,
    pub(super) replays: Replays,
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    stopping: AtomicBool,
}

/// A request's place among those under way; free again when its last job is settled.
pub(super) struct Place {
    _request: OwnedSemaphorePermit,
    _body: Option<OwnedSemaphorePermit>,
}

impl Service {
    pub(super) fn new(buyer: Buyer, net: Net, till: Arc<dyn Till>, max_price: MicroUsd, max_requests: usize) -> Self {
        Service {
            buyer,
            net,
            till,
            max_price,
            replays: Replays::default(),
            requests: Arc::new(Semaphore::new(max_requests)),
            bodies: Arc::new(Semaphore::new(MAX_BODIES_KIB)),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on requests are refused.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Reads a body, if there is room for its request.
    pub(super) async fn receive(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Place), ApiError> {
        if self.is_stopping() {
            return Err(ApiError::unavailable("shutting_down", "this node is shutting down"));
        }
        let full = |_| ApiError::busy("this node has as many requests under way as it takes; try again");
        let request = self.requests.clone().try_acquire_owned().map_err(full)?;
        let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let reading = self.read(body, said.unwrap_or(0));
        let (bytes, room) = timeout(BODY, reading).await.map_err(|_| ApiError::slow_request(BODY.as_secs()))??;
        Ok((bytes, Place { _request: request, _body: room }))
    }

    async fn read(&self, body: Body, said: usize) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
        if said > MAX_DISCARDED {
            return Err(ApiError::too_large(MAX_BODY));
        }
        let (mut chunks, mut bytes, mut read, mut room) = (body.into_data_stream(), Vec::new(), 0, None);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::not_json("it broke off"))?;
            read += chunk.len();
            if read > MAX_DISCARDED {
                break;
            }
            if read <= MAX_BODY && said <= MAX_BODY {
                self.make_room(&mut room, read)?;
                bytes.extend_from_slice(&chunk);
            }
        }
        if read > MAX_BODY { Err(ApiError::too_large(MAX_BODY)) } else { Ok((bytes.into(), room)) }
    }

    /// Takes what `bytes` need beyond what `room` has.
    fn make_room(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        let needed = bytes.div_ceil(1024).saturating_sub(room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let full = |_| ApiError::busy("this node has as much of other requests in memory as it takes; try again");
        let more = self.bodies.clone().try_acquire_many_owned(u32::try_from(needed).unwrap_or(u32::MAX)).map_err(full)?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }

    /// A job for each of `requests`, all of one request by `caller`, and what a spend cap leaves for each, if it is less than
    /// they may cost.
    pub(super) async fn jobs(
        &self,
        caller: &Caller,
        options: &Options,
        requests: Vec<ChatRequest>,
        place: Place,
    ) -> Result<(Vec<Job>, Option<MicroUsd>), ApiError> {
        let (count, place) = (requests.len(), Arc::new(place));
        let (mut jobs, mut capped) = (Vec::with_capacity(count), None);
        for request in requests {
            let mut order = options.apply(self.max_price, ChatOrder::new(request));
            let worst = order.worst();
            let wish = Wish { model: &order.request.model, most: worst, jobs: count };
            let charge = self.till.authorise(caller, wish).await?;
            if let Some(charge) = charge.as_ref().filter(|charge| charge.most() < worst) {
                order.budget = Some(charge.most());
                capped = order.budget;
            }
            jobs.push(Job::new(self.buyer.clone(), order, charge, place.clone()));
        }
        Ok((jobs, capped))
    }

    /// `request` with a longest answer, if it names none: the default, or what the model's context has room for.
    pub(super) async fn with_max_tokens(&self, request: ChatRequest) -> ChatRequest {
        if request.max_tokens > 0 {
            return request;
        }
        let named = |id: &str| ModelAd { id: id.into(), ..ModelAd::default() }.answers_to(&request.model);
        let known = self.buyer.known_models().await;
        let context = known.iter().filter(|model| named(&model.id)).map(|model| model.context).max().filter(|c| *c > 0);
        let input = request.input_token_bound().div_ceil(BYTES_PER_TOKEN);
        let room = context.map_or(DEFAULT_MAX_TOKENS, |context| context.saturating_sub(input));
        ChatRequest { max_tokens: room.clamp(LEAST_MAX_TOKENS, DEFAULT_MAX_TOKENS), ..request }
    }
}
