//! `/live?of=/nodes`: the parts of a page that have changed, as server-sent events.
//!
//! `event: part`, `data: {"id","html"}` for each part that is not as it was last sent; `event: asof`, `data: {"at"}` whenever it
//! was looked. It is looked when the index or something in the store has changed, at most once in [`PAUSE`] however much happens,
//! and after [`LOOK`] in any case.
//!
//! A page that is the same for everybody is made once for all who look at it ([`feed`]): ten thousand cost what one does, but for
//! their connections. Others are made for each client, who is looked up each time, so a session that has ended sees nothing more.
//! Who is nobody has no page of its own, and each address has a share of the places.

mod feed;

use self::feed::{Feeds, Made};
use super::{Ask, Part, View, words};
use crate::{
    http::{
        caller::{self, Known, Somebody},
        error::Refusal,
        limits::From as Sender,
    },
    shares::{Share, Shares},
    state::Plane,
    store::Notice,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash};
use serde_json::json;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

/// Pages of somebody's own that are live at once: each is made again every second or so, in about a millisecond.
const MAX_OWN: usize = 256;
/// And of one client: more than anybody looks at.
const MAX_OWN_EACH: usize = 8;
/// Viewers of pages that are the same for everybody: a connection each, of some kilobytes.
const MAX_SHARED: usize = 10_000;
/// Between two looks at least: nobody reads faster.
const PAUSE: Duration = Duration::from_secs(1);
/// And at most: what no notice tells of, and proxies close a connection on which nothing comes.
const LOOK: Duration = Duration::from_secs(10);
/// How long a page lives without being opened again, so that nothing is for ever.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Who is looking at live pages.
pub struct Viewers {
    own: Shares,
    shared: Shares,
    feeds: Feeds,
    closing: watch::Sender<bool>,
}

impl Default for Viewers {
    fn default() -> Self {
        let closing = watch::Sender::new(false);
        Viewers { own: Shares::new(MAX_OWN), shared: Shares::new(MAX_SHARED), feeds: Feeds::default(), closing }
    }
}

impl Viewers {
    /// Ends all streams: a browser asks again, and finds another instance or this one anew.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

pub(super) fn routes() -> Router<Plane> {
    Router::new().route("/live", get(live))
}

async fn live(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let of = crate::http::jobs::pairs(&query).find(|(name, _)| *name == "of").map(|(_, value)| value).unwrap_or_default();
    let (path, rest) = of.split_once('?').unwrap_or((&of, ""));
    let view = View::parse(path, rest).filter(View::is_live);
    let view = view.ok_or_else(|| Refusal::not_found("live page"))?;
    // So that a viewer who may not see the page is told so at once.
    let somebody = who(&plane, &headers, &view).await?;
    let viewers = plane.viewers.clone();
    let feed = if view.is_same_for(somebody.as_ref()) { viewers.feeds.of(&plane, &view) } else { None };
    let body = match (feed, &somebody) {
        (Some(feed), _) => {
            // As many as it may load in a minute.
            let each = usize::try_from(plane.config.http.per_minute).unwrap_or(usize::MAX);
            let room = place(&viewers.shared, from.counted(), each)?;
            Body::from_stream(events(feed::Reader::new(feed, room), |mut reader: feed::Reader| async move {
                Some((reader.next().await?, reader))
            }))
        }
        (None, Some(somebody)) => {
            let room = place(&viewers.own, somebody.client.id.0.clone(), MAX_OWN_EACH)?;
            let viewer = Viewer::new(plane, headers, view, room);
            Body::from_stream(events(viewer, |mut viewer: Viewer| async move { Some((viewer.next().await?, viewer)) }))
        }
        (None, None) => return Err(Refusal::busy("too many different pages are live now: load this one again, or sign in")),
    };
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, [("x-accel-buffering", "no")], body).into_response())
}

/// A place for `who`, of whom no more than `each` may have one.
fn place(room: &Shares, who: String, each: usize) -> Result<Share, Refusal> {
    let mut share = room.of(who);
    if share.grow(1, each) {
        return Ok(share);
    }
    Err(Refusal::busy("too many live pages are open now: this one does not change by itself, load it again"))
}

/// Bytes of `state`, as long as there are any.
fn events<S: Send + 'static, F>(
    state: S,
    next: impl Fn(S) -> F + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send
where
    F: Future<Output = Option<(Bytes, S)>> + Send,
{
    stream::unfold(state, next).map(Ok)
}

/// When to look again.
struct Look {
    closing: watch::Receiver<bool>,
    changes: watch::Receiver<u64>,
    notices: BoxStream<'static, Notice>,
}

impl Look {
    fn new(plane: &Plane) -> Self {
        let (closing, changes) = (plane.viewers.closing.subscribe(), plane.index.changes());
        Look { closing, changes, notices: plane.store.notices() }
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
        while self.notices.next().now_or_never().flatten().is_some() {}
    }

    /// The plane is stopping.
    fn is_over(&self) -> bool {
        *self.closing.borrow()
    }
}

/// The live parts of a page.
async fn looked(ask: &Ask<'_>, view: &View) -> Result<Made, Refusal> {
    let part = |part: Part| {
        let (id, html) = (part.id?, part.markup.into_string());
        let event = format!("event: part\ndata: {}\n\n", json!({ "id": id, "html": html }));
        Some((hash::sha256(event.as_bytes()), Bytes::from(event)))
    };
    let at = words::time(ask.now).into_string();
    let as_of = format!("event: asof\ndata: {}\n\n", json!({ "html": at })).into();
    Ok(Made { parts: view.parts(ask).await?.into_iter().filter_map(part).collect(), as_of })
}

/// A live page of somebody's own.
struct Viewer {
    #[expect(dead_code, reason = "it is given back when the viewer goes")]
    room: Share,
    look: Look,
    plane: Plane,
    headers: HeaderMap,
    view: View,
    /// The digests of what was last sent; nothing before the first look.
    sent: Option<Vec<Hash>>,
    over: Instant,
}

impl Viewer {
    fn new(plane: Plane, headers: HeaderMap, view: View, room: Share) -> Self {
        Viewer { room, look: Look::new(&plane), plane, headers, view, sent: None, over: clock::deadline(LIFE) }
    }

    /// The next events; `None` when the page is no longer live.
    async fn next(&mut self) -> Option<Bytes> {
        if self.sent.is_some() {
            self.look.wait().await;
        }
        if self.look.is_over() || self.over.elapsed() > Duration::ZERO {
            return None;
        }
        // After an error the browser says that the page is not live any more, and asks again later.
        let somebody = who(&self.plane, &self.headers, &self.view).await.ok()?;
        let ask = Ask { plane: &self.plane, somebody: somebody.as_ref(), now: clock::now() };
        let made = looked(&ask, &self.view).await.ok()?;
        let events = feed::since(&made, self.sent.as_deref().unwrap_or_default());
        self.sent = Some(made.parts.iter().map(|(digest, _)| *digest).collect());
        Some(events)
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
