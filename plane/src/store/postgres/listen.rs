//! Notices of all instances. One connection listens; when it breaks another is made, and what was told meanwhile is lost, as
//! notices may be.

use super::{
    super::{Notice, StoreError, embedded::heard},
    connect::Target,
};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{future::poll_fn, time::Duration};
use tokio::{sync::broadcast, task::JoinHandle};
use tokio_postgres::AsyncMessage;
use tracing::{debug, warn};

/// What instances talk on. One database is one network's.
pub(super) const CHANNEL: &str = "infernet";

/// Notices that a slow reader may be behind.
const MAX_NOTICES: usize = 1024;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Listens until it is dropped.
pub(super) struct Listener {
    sender: broadcast::Sender<Notice>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens at `target`.
    pub(super) fn start(target: Target) -> Self {
        let sender = broadcast::channel(MAX_NOTICES).0;
        let task = tokio::spawn(run(target, sender.clone()));
        Listener { sender, task }
    }

    /// What is heard from now on.
    pub(super) fn notices(&self) -> BoxStream<'static, Notice> {
        heard(self.sender.subscribe())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(target: Target, sender: broadcast::Sender<Notice>) {
    let mut wait = FIRST_WAIT;
    loop {
        let error = match listen(&target, &sender, &mut wait).await {
            Ok(()) => StoreError::Unreachable("the connection was closed".into()),
            Err(error) => error,
        };
        warn!("notices of other instances are not heard, next try in {} ms: {error}", wait.as_millis());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn listen(target: &Target, sender: &broadcast::Sender<Notice>, wait: &mut Duration) -> Result<(), StoreError> {
    let (client, mut connection) = super::deadline(target.connect()).await?;
    let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    let statement = format!("listen {CHANNEL}");
    let mut listening = Box::pin(super::deadline(async { Ok(client.batch_execute(&statement).await?) }));
    let mut is_listening = false;
    loop {
        tokio::select! {
            listens = poll_fn(|cx| listening.as_mut().poll(cx)), if !is_listening => {
                listens?;
                is_listening = true;
                *wait = FIRST_WAIT;
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(told))) => hear(told.payload(), sender),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            }
        }
    }
}

fn hear(text: &str, sender: &broadcast::Sender<Notice>) {
    match serde_json::from_str(text) {
        // Nobody listens: nobody is to be told.
        Ok(notice) => drop(sender.send(notice)),
        Err(error) => debug!("a notice of another version: {error}"),
    }
}
