//! `/v1/*`: the node's own OpenAI endpoint, with the plane's keys and its clients' balances in place of the node's.
//!
//! Each job of a request has a row like any other: by that it is leased, reserved and settled, and its client sees what it
//! cost. What is asked and answered is in no row and no log here.

use super::{
    caller::{self, By},
    error::Refusal,
};
use crate::{
    accounts::Scope,
    gateway::{Begun, Gateway, Live, NewJob, Outcome, to_its_end},
    state::Plane,
    store::{JobError, Store},
};
use axum::{Router, body::Body};
use futures::{FutureExt, future::BoxFuture};
use infernet_node::{
    api::{
        self,
        access::{Caller, Doors},
        error::ApiError,
        service::MAX_REQUESTS,
        till::{Bill, Charge, Till, Wish},
    },
    clock,
    spend::Caps,
};
use infernet_wire::{id::Hash, money::MicroUsd};
use std::{net::Ipv4Addr, sync::Arc};
use tokio::{runtime::Handle, sync::watch};

/// `router` with `/v1/*`, if `plane` buys.
pub(super) fn mount(router: Router, plane: &Plane) -> Router {
    let Some(gateway) = &plane.gateway else { return router };
    let through = gateway.through();
    let (store, http) = (plane.store.clone(), &plane.config.http);
    let mut hosts = http.hosts.clone();
    hosts.extend(super::limits::host_of(&plane.config.origin).map(str::to_owned));
    let mut origins = http.origins.clone();
    origins.push(plane.config.origin.clone());
    let settings = api::Settings {
        doors: Doors::new((Ipv4Addr::LOCALHOST, 0).into(), &hosts, &origins),
        authenticate: Arc::new(move |bearer| authenticate(store.clone(), bearer).boxed()),
        till: Arc::new(PlaneTill { gateway: gateway.clone(), store: plane.store.clone() }),
        max_price: gateway.config().max_price,
        max_requests: MAX_REQUESTS,
        metrics: through.metrics.clone(),
        more: Router::new(),
    };
    let hosted = api::hosted(through.buyer.clone(), through.net.clone(), settings);
    router.route_service("/v1/{*rest}", hosted.router.into_service::<Body>())
}

async fn authenticate(store: Arc<dyn Store>, bearer: Option<&str>) -> Result<Caller, ApiError> {
    let key = bearer.ok_or_else(|| ApiError::unauthorised("show a key of this plane as `Authorization: Bearer sk-plane-…`"))?;
    let somebody = caller::by_key(&*store, key, clock::now()).await.map_err(shown)?;
    match somebody.by {
        By::Key(key) if Scope::Jobs.is_in(&key.scopes) => {
            Ok(Caller { key: key.hash.to_string(), caps: Caps { per_request: None, per_day: key.per_day } })
        }
        _ => Err(ApiError::forbidden("forbidden", "this key lacks the scope jobs: make another with it")),
    }
}

/// A refusal in OpenAI's shape.
fn shown(refusal: Refusal) -> ApiError {
    let message = refusal.message;
    match refusal.status.as_u16() {
        401 => ApiError::unauthorised(message),
        402 => ApiError::spend_cap(message),
        403 => ApiError::forbidden(refusal.code, message),
        429 => ApiError::busy(message),
        _ => ApiError::unavailable(refusal.code, message),
    }
}

struct PlaneTill {
    gateway: Arc<Gateway>,
    store: Arc<dyn Store>,
}

impl Till for PlaneTill {
    fn authorise<'a>(&'a self, caller: &'a Caller, wish: Wish<'a>) -> BoxFuture<'a, Result<Option<Box<dyn Charge>>, ApiError>> {
        async move { self.reserve(caller, wish).await.map(Some).map_err(shown) }.boxed()
    }
}

impl PlaneTill {
    async fn reserve(&self, caller: &Caller, wish: Wish<'_>) -> Result<Box<dyn Charge>, Refusal> {
        let gone = || Refusal::unauthorized("this key is not known here any more");
        let hash: Hash = caller.key.parse().map_err(|_| gone())?;
        let row = self.store.key(hash).await?.ok_or_else(gone)?;
        let new = NewJob {
            client: row.client,
            key: Some((hash, row.per_day)),
            model: wish.model.to_owned(),
            most: wish.most,
            text: None,
            idempotency: None,
            followed: false,
        };
        let gateway = self.gateway.clone();
        to_its_end(async move {
            match gateway.begin(new).await? {
                // If nobody waits for it any more, it ends as it is dropped.
                Begun::New(live, most) => Ok(Box::new(Reserved { gateway, live: Some(live), most }) as Box<dyn Charge>),
                // Without an idempotency key every job is new.
                Begun::Same(_) => Err(Refusal::conflict("this job was asked before")),
            }
        })
        .await
    }
}

/// A reservation that becomes a cost, or nothing, whatever happens to it.
struct Reserved {
    gateway: Arc<Gateway>,
    live: Option<Arc<Live>>,
    most: MicroUsd,
}

impl Charge for Reserved {
    fn most(&self) -> MicroUsd {
        self.most
    }

    fn cancelled(&self) -> Option<watch::Receiver<bool>> {
        self.live.as_ref().map(|live| live.cancelled())
    }

    fn note(&self, cost: MicroUsd, tokens: u32) {
        if let Some(live) = &self.live {
            live.note(cost, tokens);
        }
    }

    fn settle(mut self: Box<Self>, bill: Bill) {
        self.end(outcome(bill));
    }
}

impl Reserved {
    fn end(&mut self, outcome: Outcome) {
        // Without a runtime the process is ending; the lease runs out then.
        let (Some(live), Ok(runtime)) = (self.live.take(), Handle::try_current()) else { return };
        let gateway = self.gateway.clone();
        runtime.spawn(async move { gateway.finish(&live, outcome).await });
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.end(Outcome { cancelled: true, ..Outcome::default() });
    }
}

fn outcome(bill: Bill) -> Outcome {
    let error = bill
        .failure
        .filter(|failure| *failure != "cancelled")
        .map(|failure| JobError { code: failure.into(), message: "the request to /v1 had an error as its answer".into() });
    Outcome {
        cost: bill.cost,
        cancelled: error.is_none() && bill.usage.is_none(),
        error,
        worker: bill.worker,
        usage: bill.usage,
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_tells_how_a_job_ended() {
        let whole = outcome(Bill { cost: MicroUsd(6), usage: Some((3, 3)), ..Bill::default() });
        assert_eq!((whole.cost, whole.cancelled, whole.error), (MicroUsd(6), false, None));
        assert!(outcome(Bill::default()).cancelled, "nobody waited for the rest");
        assert!(outcome(Bill { failure: Some("cancelled"), ..Bill::default() }).cancelled);
        let failed = outcome(Bill { failure: Some("no_peers"), ..Bill::default() });
        assert_eq!((failed.cancelled, failed.error.map(|error| error.code)), (false, Some("no_peers".into())));
    }
}
