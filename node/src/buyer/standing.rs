//! A job at a worker's standing price: no gossip, no turn to wait for, one round trip to the first token.
//!
//! The decider chooses the ad; here it is accepted and the stream is run. A worker that has no room after all says so before
//! anything has happened: the next one is asked, or an auction is held, and the caller does not notice.

use super::{Buyer, ChatError, ChatEvent, Deal, Prepared, loads::Load, refused::NoBids, task::Command};
use crate::{
    chat::client::{Cause, Failure},
    clock,
    market::standing::{Choice, NotStanding, PathChoice},
    report::{AuctionReport, ChatReport},
};
use infernet_wire::{
    accept::JobAccept, bid::bids_commitment, chat::ErrorCode, id::NodeId, limits::ACCEPT_TTL_MS, offer::JobOffer,
    standing::StandingOffer, time::UnixMillis,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info};

/// Ads tried for one job before its auction. The second may have the room that the first lacked; more would only add up.
const MAX_TRIES: usize = 2;
/// The same without an auction to fall back on.
const MAX_TRIES_ALONE: usize = 4;

/// A worker to be asked, and its place among our jobs.
pub(super) struct Booked {
    pub(super) choice: Choice,
    pub(super) load: Load,
}

impl Buyer {
    /// Runs the job at a standing price if that is the way to go; `None`: hold an auction.
    pub(super) async fn try_standing(
        &self,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
        retries: &mut u32,
    ) -> Result<Option<ChatReport>, ChatError> {
        let path = prepared.wishes.path;
        let tries = match path {
            PathChoice::Auction => return Ok(None),
            PathChoice::Auto => MAX_TRIES,
            PathChoice::Standing => MAX_TRIES_ALONE,
        };
        let (mut tried, mut last) = (Vec::new(), None);
        while tried.len() < tries {
            let started = clock::instant();
            let offer = prepared.offer(clock::now());
            let booked = match self.choose(&offer, prepared, tried.clone()).await? {
                Ok(booked) => booked,
                Err(reason) => {
                    self.shared.metrics.not_standing(reason.label());
                    debug!(reason = reason.label(), "not at a standing price");
                    return self.without_standing(prepared, reason, last).await;
                }
            };
            let worker = booked.choice.worker;
            tried.push(worker);
            let report = AuctionReport::standing(&booked.choice, offer.id, started.elapsed());
            match self.run_standing(booked, offer, prepared, (events, cancel, &mut *retries), report).await {
                Ok(report) => {
                    self.shared.metrics.standing("completed");
                    return Ok(Some(report));
                }
                Err(ChatError::Failed { failure, .. }) if failure.is_retryable() => {
                    self.shared.metrics.standing(if is_refusal(&failure) { "refused" } else { "failed" });
                    self.on_refused(worker, &failure, events, retries).await;
                    last = Some(failure);
                }
                Err(error) => {
                    self.shared.metrics.standing("failed");
                    return Err(error);
                }
            }
        }
        self.without_standing(prepared, NotStanding::Full, last).await
    }

    /// What follows when nobody is left to ask: an auction, unless the order forbids it.
    async fn without_standing(
        &self,
        prepared: &Prepared,
        reason: NotStanding,
        last: Option<Failure>,
    ) -> Result<Option<ChatReport>, ChatError> {
        match last {
            _ if prepared.wishes.path != PathChoice::Standing => Ok(None),
            Some(failure) if !is_refusal(&failure) => Err(ChatError::Failed { failure, partial: String::new() }),
            _ => {
                let no_bids = self.no_bids(prepared, Vec::new(), 0).await;
                Err(ChatError::NoBids(Box::new(NoBids { standing: Some(reason), ..no_bids })))
            }
        }
    }

    async fn choose(
        &self,
        offer: &JobOffer,
        prepared: &Prepared,
        excluded: Vec<NodeId>,
    ) -> Result<Result<Booked, NotStanding>, ChatError> {
        let (reply, answer) = oneshot::channel();
        let (offer, wishes) = (Box::new(offer.clone()), prepared.wishes.clone());
        let command = Command::Choose { offer, wishes, excluded, reply };
        self.commands.send(command).await.map_err(|_| ChatError::ShuttingDown)?;
        answer.await.map_err(|_| ChatError::ShuttingDown)
    }

    async fn run_standing(
        &self,
        Booked { choice, load }: Booked,
        offer: JobOffer,
        prepared: &Prepared,
        (events, cancel, retries): (&mpsc::Sender<ChatEvent>, &mut watch::Receiver<bool>, &mut u32),
        report: AuctionReport,
    ) -> Result<ChatReport, ChatError> {
        let client = &self.shared.client;
        let offer = StandingOffer::new(offer)?;
        let accept = client.key.sign(&client.network, accept_body(&choice, &offer, prepared, clock::now()))?;
        let deal =
            Deal { accept, budget: offer.budget, deadline: offer.deadline, addrs: choice.chat, offer: Some(offer), load };
        // Told only now: a worker without room would have been passed over, and the caller is not to notice. It is the first
        // event of the job, so there is room for it.
        let decided = ChatEvent::Auction(Box::new(report.clone()));
        let mut on_opened = || _ = events.try_send(decided.clone());
        let (result, said) = self.stream(deal, prepared, events, cancel, &mut on_opened).await;
        match result {
            Ok(completed) => Ok(super::report(&completed, said, choice.model, *retries, report)),
            Err(failure) => Err(ChatError::Failed { failure, partial: said.answer }),
        }
    }

    /// A worker without room is no event: it has not begun, and the caller has lost nothing but a round trip.
    async fn on_refused(&self, worker: NodeId, failure: &Failure, events: &mpsc::Sender<ChatEvent>, retries: &mut u32) {
        if is_refusal(failure) {
            debug!(worker = %worker.short(), cause = failure.cause.label(), "not at its standing price now");
            return;
        }
        *retries += 1;
        self.shared.metrics.retried(failure.cause.label());
        info!(worker = %worker.short(), cause = failure.cause.label(), "retrying elsewhere");
        super::tell(events, ChatEvent::Retry { worker, reason: failure.to_string() }).await;
    }
}

/// Whether the worker only said that it can't take the job, which is no fault of its.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    matches!(&failure.cause, Cause::Worker(error) if [ErrorCode::BUSY, ErrorCode::NO_HOLD].contains(&error.code))
}

fn accept_body(choice: &Choice, offer: &StandingOffer, prepared: &Prepared, now: UnixMillis) -> JobAccept {
    JobAccept {
        offer: offer.digest(),
        bid: choice.ad,
        winner: choice.worker,
        model: choice.model.clone(),
        price: choice.price,
        job: prepared.job,
        attempt: 1,
        runners_up: Vec::new(),
        bids: bids_commitment(vec![choice.ad]),
        score: choice.score,
        issued: now,
        expires: now.after(ACCEPT_TTL_MS),
    }
}
