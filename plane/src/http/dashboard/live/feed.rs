//! Pages that are the same for everybody: each is made once, by a task that lives as long as somebody looks.

use super::{LIFE, Look, View, looked};
use crate::{http::dashboard::Ask, shares::Share, state::Plane};
use bytes::{Bytes, BytesMut};
use infernet_node::clock;
use infernet_wire::id::Hash;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Different pages that are made for all, beside the few that have no number in their address: those are always made.
const MAX_FEEDS: usize = 128;

/// A page as it is now.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Each live part: its digest, and the event that brings it.
    pub(super) parts: Vec<(Hash, Bytes)>,
    /// The event that says as of when.
    pub(super) as_of: Bytes,
}

/// All pages that somebody looks at.
#[derive(Default)]
pub(super) struct Feeds(Arc<Mutex<HashMap<View, watch::Receiver<Arc<Made>>>>>);

impl Feeds {
    /// The feed of a page; `None` if there are too many.
    pub(super) fn of(&self, plane: &Plane, view: &View) -> Option<watch::Receiver<Arc<Made>>> {
        // Nothing in here panics while it holds the lock.
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(view) {
            return Some(feed.clone());
        }
        if feeds.len() >= MAX_FEEDS && !view.is_first() {
            return None;
        }
        let (told, feed) = watch::channel(Arc::default());
        feeds.insert(view.clone(), feed.clone());
        let over = Over { feeds: self.0.clone(), view: view.clone() };
        tokio::spawn(make(plane.clone(), told, over));
        Some(feed)
    }
}

/// Takes the feed out when its task ends, however it does.
struct Over {
    feeds: Arc<Mutex<HashMap<View, watch::Receiver<Arc<Made>>>>>,
    view: View,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.view);
    }
}

async fn make(plane: Plane, told: watch::Sender<Arc<Made>>, over: Over) {
    let mut look = Look::new(&plane);
    loop {
        let ask = Ask { plane: &plane, somebody: None, now: clock::now() };
        if let Ok(made) = looked(&ask, &over.view).await {
            told.send_replace(Arc::new(made));
        }
        look.wait().await;
        // The map has one.
        if look.is_over() || told.receiver_count() <= 1 {
            return;
        }
    }
}

/// Somebody who looks.
pub(super) struct Reader {
    feed: watch::Receiver<Arc<Made>>,
    #[expect(dead_code, reason = "it is given back when the reader goes")]
    room: Share,
    /// The digests of what was sent; nothing before the first.
    sent: Vec<Hash>,
    over: Instant,
}

impl Reader {
    pub(super) fn new(mut feed: watch::Receiver<Arc<Made>>, room: Share) -> Self {
        // What is there is new to whoever comes.
        feed.mark_changed();
        Reader { feed, room, sent: Vec::new(), over: clock::deadline(LIFE) }
    }

    /// What has changed since; `None` when the page is no longer live.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.feed.changed().await.ok()?;
            if self.over.elapsed() > Duration::ZERO {
                return None;
            }
            let made = self.feed.borrow_and_update().clone();
            if made.as_of.is_empty() {
                continue;
            }
            let events = since(&made, &self.sent);
            self.sent = made.parts.iter().map(|(digest, _)| *digest).collect();
            return Some(events);
        }
    }
}

/// The events that bring a reader of `sent` to what is `made`.
pub(super) fn since(made: &Made, sent: &[Hash]) -> Bytes {
    let new: Vec<&Bytes> = made.parts.iter().filter(|(digest, _)| !sent.contains(digest)).map(|(_, event)| event).collect();
    if new.is_empty() {
        return made.as_of.clone();
    }
    let mut events = BytesMut::new();
    new.into_iter().chain([&made.as_of]).for_each(|event| events.extend_from_slice(event));
    events.freeze()
}
