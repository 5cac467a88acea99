//! `/live?of=/nodes`: the parts of a page that have changed, as server-sent events.
//!
//! `event: part`, `data: {"id","html"}` for each part that is not as it was last sent; `event: asof`, `data: {"at"}` whenever it
//! was looked. It is looked when the index or something in the store has changed, at most once in [`PAUSE`] however much happens,
//! and after [`LOOK`] in any case. Who asks is looked up each time, so a session that has ended sees nothing more.

use super::{Ask, View, words};
use crate::{
    http::{
        caller::{self, Known, Somebody},
        error::Refusal,
    },
    state::Plane,
    store::Notice,
};
use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash};
use serde_json::json;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};

/// Pages that are live at once: each is made again every second or so, in about a millisecond.
const MAX_VIEWERS: usize = 256;
/// Between two looks at least: nobody reads faster.
const PAUSE: Duration = Duration::from_secs(1);
/// And at most: what no notice tells of, and proxies close a connection on which nothing comes.
const LOOK: Duration = Duration::from_secs(10);
/// How long a page lives without being opened again, so that nothing is for ever.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Who is looking at live pages.
pub struct Viewers {
    room: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Default for Viewers {
    fn default() -> Self {
        Viewers { room: Arc::new(Semaphore::new(MAX_VIEWERS)), closing: watch::Sender::new(false) }
    }
}

impl Viewers {
    /// Ends all streams: a browser asks again, and finds another instance or this one anew.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let full = |_| Refusal::busy("too many live pages are open now: this one does not change by itself, load it again");
        self.room.clone().try_acquire_owned().map_err(full)
    }
}

pub(super) fn routes() -> Router<Plane> {
    Router::new().route("/live", get(live))
}

async fn live(State(plane): State<Plane>, headers: HeaderMap, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let of = crate::http::jobs::pairs(&query).find(|(name, _)| *name == "of").map(|(_, value)| value).unwrap_or_default();
    let (path, rest) = of.split_once('?').unwrap_or((&of, ""));
    let view = View::parse(path, rest).ok_or_else(|| Refusal::not_found("page"))?;
    let viewer = Viewer {
        room: plane.viewers.enter()?,
        closing: plane.viewers.closing.subscribe(),
        changes: plane.index.changes(),
        notices: plane.store.notices(),
        headers,
        view,
        sent: None,
        over: clock::deadline(LIFE),
        plane,
    };
    // So that a viewer who may not see the page is told so at once.
    who(&viewer.plane, &viewer.headers, &viewer.view).await?;
    let events = stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await?;
        Some((Ok::<_, Infallible>(events), viewer))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, [("x-accel-buffering", "no")], Body::from_stream(events)).into_response())
}

/// A live page that somebody looks at.
struct Viewer {
    #[expect(dead_code, reason = "it is given back when the viewer goes")]
    room: OwnedSemaphorePermit,
    closing: watch::Receiver<bool>,
    changes: watch::Receiver<u64>,
    notices: BoxStream<'static, Notice>,
    plane: Plane,
    headers: HeaderMap,
    view: View,
    /// What each part was when it was last sent; nothing before the first look.
    sent: Option<BTreeMap<&'static str, Hash>>,
    over: Instant,
}

impl Viewer {
    /// The next events; `None` when the page is no longer live.
    async fn next(&mut self) -> Option<Bytes> {
        if self.sent.is_some() {
            self.wait().await;
        }
        if *self.closing.borrow() || self.over.elapsed() > Duration::ZERO {
            return None;
        }
        // After an error the browser says that the page is not live any more, and asks again later.
        self.look().await.ok()
    }

    /// Until something may be different.
    async fn wait(&mut self) {
        let (soonest, latest) = (clock::deadline(PAUSE), clock::deadline(LOOK));
        let closing = self.closing.clone();
        let changed = async {
            tokio::select! {
                _ = self.changes.changed() => {}
                Some(_) = self.notices.next() => {}
                else => std::future::pending().await,
            }
            sleep_until(soonest).await;
        };
        tokio::select! {
            _ = timeout_at(latest, changed) => {}
            () = closed(closing) => {}
        }
        // What came meanwhile is in what is looked at next.
        self.changes.mark_unchanged();
        while futures::FutureExt::now_or_never(self.notices.next()).flatten().is_some() {}
    }

    async fn look(&mut self) -> Result<Bytes, Refusal> {
        let (somebody, now) = (who(&self.plane, &self.headers, &self.view).await?, clock::now());
        let ask = Ask { plane: &self.plane, somebody: somebody.as_ref(), now };
        let parts = self.view.parts(&ask).await?;
        let sent = self.sent.get_or_insert_default();
        let mut events = String::new();
        for part in parts {
            let Some(id) = part.id else { continue };
            let html = part.markup.into_string();
            let digest = hash::sha256(html.as_bytes());
            if sent.insert(id, digest) != Some(digest) {
                events.push_str(&format!("event: part\ndata: {}\n\n", json!({ "id": id, "html": html })));
            }
        }
        let at = words::time(now).into_string();
        events.push_str(&format!("event: asof\ndata: {}\n\n", json!({ "html": at })));
        Ok(events.into())
    }
}

/// Who looks, if it may.
async fn who(plane: &Plane, headers: &HeaderMap, view: &View) -> Result<Option<Somebody>, Refusal> {
    let somebody = match caller::look_up(plane, headers, clock::now()).await {
        Known::Somebody(somebody) => Some(*somebody),
        Known::Nobody => None,
        Known::Refused(refusal) => return Err(refusal),
    };
    if view.is_private() && somebody.is_none() {
        return Err(Refusal::unauthorized("this page is somebody's own: sign in"));
    }
    Ok(somebody)
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
