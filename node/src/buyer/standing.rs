//! A job at a worker's standing price: no gossip, no turn to wait for, one round trip to the first token.
//!
//! The decider chooses the ad; here it is accepted and the stream is run. A worker that has no room after all says so before
//! anything has happened: the next one is asked, or an auction is held, and the caller does not notice.

use super::{Buyer, ChatError, ChatEvent, Deal, Prepared, loads::Load, refused::NoBids, task::Command};
use crate::{
    chat::client::Failure,
    clock,
    market::{
        course::Course,
        standing::{Choice, NotStanding, PathChoice},
    },
    report::{AuctionReport, ChatReport},
};
use infernet_wire::{id::NodeId, offer::JobOffer, standing::StandingOffer};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info};

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
        course: &mut Course,
    ) -> Result<Option<ChatReport>, ChatError> {
        if prepared.wishes.path == PathChoice::Auction {
            return Ok(None);
        }
        let mut last = None;
        while let Some(tried) = course.next_ad().map(<[NodeId]>::to_vec) {
            let started = clock::instant();
            let offer = prepared.offer(clock::now());
            let booked = match self.choose(&offer, prepared, tried).await? {
                Ok(booked) => booked,
                Err(reason) => {
                    self.shared.metrics.not_standing(reason.label());
                    debug!(reason = reason.label(), "not at a standing price");
                    return self.without_standing(prepared, course, reason, last).await;
                }
            };
            let worker = booked.choice.worker;
            course.ad_tried(worker);
            let report = AuctionReport::standing(&booked.choice, offer.id, started.elapsed());
            match self.run_standing(booked, offer, prepared, (events, cancel, &mut *retries), report).await {
                Ok(report) => {
                    self.shared.metrics.standing("completed");
                    return Ok(Some(report));
                }
                Err(ChatError::Failed { failure, .. }) if failure.is_retryable() => {
                    self.shared.metrics.standing(if failure.is_refusal() { "refused" } else { "failed" });
                    self.on_refused(worker, &failure, events, retries).await;
                    last = Some(failure);
                }
                Err(error) => {
                    self.shared.metrics.standing("failed");
                    return Err(error);
                }
            }
        }
        self.without_standing(prepared, course, NotStanding::Full, last).await
    }

    /// What follows when nobody is left to ask: an auction, unless the order forbids it.
    async fn without_standing(
        &self,
        prepared: &Prepared,
        course: &Course,
        reason: NotStanding,
        last: Option<Failure>,
    ) -> Result<Option<ChatReport>, ChatError> {
        match last {
            _ if course.may_auction() => Ok(None),
            Some(failure) if !failure.is_refusal() => Err(ChatError::Failed { failure, partial: String::new() }),
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
        let body = self.at_our_rate(choice.accept_body(&offer, prepared.job, clock::now()));
        let accept = client.key.sign(&client.network, body)?;
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
        if failure.is_refusal() {
            debug!(worker = %worker.short(), cause = failure.cause.label(), "not at its standing price now");
            return;
        }
        *retries += 1;
        self.shared.metrics.retried(failure.cause.label());
        info!(worker = %worker.short(), cause = failure.cause.label(), "retrying elsewhere");
        super::tell(events, ChatEvent::Retry { worker, reason: failure.to_string() }).await;
    }
}
