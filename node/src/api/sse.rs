//! The answers of a request as server-sent events, each the moment its token comes.
//!
//! [`Events`] is the response's body: whenever the connection has room it moves the jobs ([`Choices`]), lets a [`Shape`] write
//! what happened, and hands the bytes on; what piled up while the client was slow goes out in one piece. An answer ends with
//! `[DONE]`, or, if it broke off, with an error and nothing after it: a truncated stream never looks complete.

use super::{
    comeback,
    error::ApiError,
    job::{Choices, Known},
    replay::Recorder,
};
use crate::{chat::client::Progress, clock};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use infernet_wire::money::MicroUsd;
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep_until};

/// A comment is sent when nothing else was for this long: proxies and SDKs give up on a line that is silent for half a minute.
const PING: Duration = Duration::from_secs(15);
/// The comment.
pub(super) const PING_LINE: &[u8] = b": ping\n\n";
/// What is written at once at most, so that one fast answer does not fill memory.
const PIECE: usize = 32 * 1024;
/// Tells nginx not to hold tokens back.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The end of a whole answer.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// How a dialect writes its events.
pub(super) trait Shape: Send + Unpin + 'static {
    /// One step of the answer at `place`; `known` is what is known of its job.
    fn write(&mut self, place: usize, progress: &Progress, known: &Known, out: &mut BytesMut);

    /// After the last answer, before `[DONE]`.
    fn end(&mut self, known: &mut dyn Iterator<Item = &Known>, out: &mut BytesMut);

    /// The answer at `place` broke off.
    fn fail(&mut self, place: usize, error: &ApiError, out: &mut BytesMut);
}

/// A response's body.
pub(super) struct Events<S> {
    choices: Choices,
    shape: S,
    /// What a spend cap left for each job.
    capped: Option<MicroUsd>,
    out: BytesMut,
    quiet: Pin<Box<Sleep>>,
    /// Whether something was sent since the timer was set.
    spoke: bool,
    over: bool,
    recorder: Option<Recorder>,
}

impl<S: Shape> Events<S> {
    /// The answers of `choices` as `shape` writes them. With a recorder they may be asked for again, and come back to.
    pub(super) fn new(choices: Choices, shape: S, capped: Option<MicroUsd>, recorder: Option<Recorder>) -> Self {
        let quiet = Box::pin(sleep_until(clock::deadline(PING)));
        Events { choices, shape, capped, out: BytesMut::new(), quiet, spoke: false, over: false, recorder }
    }

    /// The response, once there is something to say. Until then a failure still has a status of its own.
    pub(super) async fn response(mut self) -> Result<Response, ApiError> {
        match poll_fn(|cx| self.poll_first(cx)).await {
            Some(error) => Err(error),
            None => match self.recorder.take() {
                Some(recorder) => comeback::response(self, recorder),
                None => Ok((headers(), Body::from_stream(self)).into_response()),
            },
        }
    }

    /// `None` as soon as there is something to send, a failure otherwise. The first ping ends the wait, too: whoever waits for
    /// the head of the response must hear something.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<ApiError>> {
        match self.poll_fill(cx) {
            Poll::Ready(Some((_, error))) if self.out.is_empty() => Poll::Ready(Some(error)),
            // What came first is the client's.
            Poll::Ready(Some((place, error))) => {
                self.fail(place, error);
                Poll::Ready(None)
            }
            _ if self.over || !self.out.is_empty() => Poll::Ready(None),
            _ if self.poll_ping(cx).is_ready() => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }

    /// Writes all that has happened into `out`. Ready when the answers are over: with the failure that ended them, if any.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, ApiError)>> {
        while self.out.len() < PIECE {
            let Some((place, step)) = ready!(self.choices.poll_step(cx)) else {
                self.over = true;
                self.shape.end(&mut self.choices.known(), &mut self.out);
                self.out.extend_from_slice(DONE);
                return Poll::Ready(None);
            };
            match step.failure(self.capped) {
                Ok(progress) => {
                    if let Some(known) = self.choices.known().nth(place) {
                        self.shape.write(place, &progress, known, &mut self.out);
                    }
                }
                Err(error) => {
                    self.over = true;
                    return Poll::Ready(Some((place, error)));
                }
            }
        }
        Poll::Pending
    }

    fn fail(&mut self, place: usize, error: ApiError) {
        self.shape.fail(place, &error.with_partial(String::new()), &mut self.out);
    }

    /// Ready with a comment to send.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.quiet.as_mut().poll(cx));
            self.quiet.as_mut().reset(clock::deadline(PING));
            if !std::mem::take(&mut self.spoke) {
                self.out.extend_from_slice(PING_LINE);
                return Poll::Ready(());
            }
        }
    }

    fn take(&mut self) -> Bytes {
        self.spoke = true;
        self.out.split().freeze()
    }
}

impl<S: Shape> Stream for Events<S> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if !this.over {
            match this.poll_fill(cx) {
                Poll::Ready(Some((place, error))) => this.fail(place, error),
                Poll::Pending if this.out.is_empty() => ready!(this.poll_ping(cx)),
                _ => {}
            }
        }
        if !this.out.is_empty() {
            return Poll::Ready(Some(Ok(this.take())));
        }
        Poll::Ready(None)
    }
}

/// The head of a stream of events.
pub(super) fn headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (NO_BUFFERING, HeaderValue::from_static("no")),
    ]
}

/// `data: ` and JSON, and the empty line that ends an event.
pub(super) fn event(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    out.extend_from_slice(b"data: ");
    write(out);
    out.extend_from_slice(b"\n\n");
}

/// `value` as JSON. Writing to memory can't fail.
pub(super) fn json(out: &mut BytesMut, value: &(impl serde::Serialize + ?Sized)) {
    let _ = serde_json::to_writer(bytes::BufMut::writer(out), value);
}
