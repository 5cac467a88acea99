//! A worker's way to the buyer of one job: a stream, and when that is lost, the next one.
//!
//! The job says what it has to say; what the buyer may not have is kept in a [`Backlog`]. If the buyer knows how to resume, a lost
//! stream only means that it is waited for, [`limits::RESUME_GRACE_MS`] at most: the engine goes on as long as there is room. The
//! stream that it comes back with, any path will do, is brought by [`Lasting`](super::lasting::Lasting).

use super::{
    backlog::Backlog,
    deadline,
    framing::{FrameError, FrameReader, FrameWriter, RawFrame},
    stream::{Ending, Incoming, Outgoing, Path},
};
use crate::clock;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use infernet_wire::{
    chat::{ErrorCode, Frame, Payment, StreamError},
    limits,
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant as TimerInstant, sleep_until},
};
use tracing::debug;

pub(super) type Reader = FrameReader<Incoming>;
pub(super) type Writer = FrameWriter<Outgoing>;

const GRACE: Duration = Duration::from_millis(limits::RESUME_GRACE_MS as u64);

/// A buyer that has come back for its job.
pub struct Newcomer {
    /// The content frame that it wants next.
    pub from: u64,
    /// How its stream goes.
    pub path: Path,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// The buyer can't hear us any more, and will not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Something happened on the line. It is dealt with by [`Line::handle`], which must not be cancelled.
pub(super) enum Happening {
    Frame(Reader, Result<RawFrame, FrameError>),
    Newcomer(Newcomer),
    Expired,
}

/// What the buyer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing that concerns the job.
    Nothing,
    /// It is back, on this path.
    Back(Path),
    /// It wants no more.
    Cancel,
    /// It pays.
    Pays(Payment),
    /// It agrees with the receipt.
    Countersign(Vec<u8>),
}

/// See the module.
pub(super) struct Line {
    stream: Option<Attached>,
    backlog: Backlog,
    /// Where the buyer comes back; `None` if it can't.
    newcomers: Option<mpsc::Receiver<Newcomer>>,
    /// The encoded `Opened`, with which each stream begins.
    opened: Vec<u8>,
    /// Until when the buyer is waited for, while its stream is lost.
    until: Option<TimerInstant>,
    resumed: u32,
}

struct Attached {
    path: Path,
    writer: Writer,
    /// The next frame of the buyer. Polled only when it says something, not with every token: a poll takes the connection's lock.
    hearing: FuturesUnordered<BoxFuture<'static, (Reader, Result<RawFrame, FrameError>)>>,
}

impl Attached {
    fn new(path: Path, reader: Reader, writer: Writer) -> Self {
        let attached = Attached { path, writer, hearing: FuturesUnordered::new() };
        attached.hear(reader);
        attached
    }

    fn hear(&self, mut reader: Reader) {
        let next = async move {
            let frame = reader.next().await;
            (reader, frame)
        };
        self.hearing.push(next.boxed());
    }
}

/// How writing what is due ended.
enum Wrote {
    All,
    /// A newer stream came while the old one did not take it.
    Interrupted(Newcomer),
    Failed(FrameError),
}

impl Line {
    /// Over the stream that the job came on; [`Line::open`] comes next.
    pub(super) fn new(
        path: Path,
        (reader, writer): (Reader, Writer),
        newcomers: Option<mpsc::Receiver<Newcomer>>,
        opened: Vec<u8>,
    ) -> Self {
        let stream = Some(Attached::new(path, reader, writer));
        Line { stream, backlog: Backlog::default(), newcomers, opened, until: None, resumed: 0 }
    }

    /// Tells the buyer that it has the job.
    pub(super) async fn open(&mut self) -> Result<(), Gone> {
        let Some(stream) = &mut self.stream else { return Err(Gone) };
        stream.writer.write(&self.opened, deadline::WRITE).await.map_err(|_| Gone)
    }

    /// Says a content frame. Not cancel safe.
    pub(super) async fn say(&mut self, frame: Vec<u8>) -> Result<(), Gone> {
        self.backlog.push(frame);
        self.flush().await
    }

    /// Says `Usage` or `Receipt`. Not cancel safe.
    pub(super) async fn say_ending(&mut self, frame: Vec<u8>) -> Result<(), Gone> {
        self.backlog.push_ending(frame);
        self.flush().await
    }

    /// Says that we are still there, or why not, if there is a stream: nobody needs to hear it later. Not cancel safe.
    pub(super) async fn say_now(&mut self, frame: &Frame) -> Result<(), Gone> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.writer.write(&frame.encode(), deadline::WRITE).await {
            Ok(()) => Ok(()),
            Err(error) => self.lost(&error),
        }
    }

    /// Closes what there is in order.
    pub(super) async fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.writer.finish().await;
        }
    }

    /// Whether the engine must wait until the buyer acknowledges.
    pub(super) fn is_full(&self) -> bool {
        self.newcomers.is_some() && self.backlog.is_full()
    }

    /// Whether the buyer can come back in another stream.
    pub(super) fn can_be_resumed(&self) -> bool {
        self.newcomers.is_some()
    }

    /// Whether the buyer is away.
    pub(super) fn is_lost(&self) -> bool {
        self.stream.is_none()
    }

    /// The next thing that happens. Cancel safe.
    pub(super) async fn next(&mut self) -> Happening {
        tokio::select! {
            biased;
            newcomer = next_of(&mut self.newcomers) => Happening::Newcomer(newcomer),
            (reader, frame) = heard(&mut self.stream) => Happening::Frame(reader, frame),
            () = expired(self.until) => Happening::Expired,
        }
    }

    /// Deals with what happened. Not cancel safe.
    pub(super) async fn handle(&mut self, happening: Happening) -> Result<Said, Gone> {
        match happening {
            Happening::Expired => {
                debug!("the buyer did not come back");
                Err(Gone)
            }
            Happening::Frame(reader, Ok(raw)) => self.on_frame(reader, raw.frame),
            Happening::Frame(_, Err(error)) => self.lost(&error).map(|()| Said::Nothing),
            Happening::Newcomer(newcomer) => {
                let before = self.resumed;
                self.attach(newcomer).await;
                self.flush().await?;
                let back = self.stream.as_ref().filter(|_| self.resumed > before);
                Ok(back.map_or(Said::Nothing, |stream| Said::Back(stream.path)))
            }
        }
    }

    fn on_frame(&mut self, reader: Reader, frame: Frame) -> Result<Said, Gone> {
        let said = match frame {
            Frame::Ack(seq) if self.newcomers.is_some() => {
                self.backlog.acknowledge(seq).map_err(|error| {
                    debug!("the buyer {error}");
                    Gone
                })?;
                Said::Nothing
            }
            Frame::Cancel => Said::Cancel,
            Frame::Voucher(payment) => Said::Pays(payment),
            Frame::Countersign(bytes) => Said::Countersign(bytes.into_vec()),
            frame => {
                debug!("buyer sent {} while the answer runs", frame.label());
                return Err(Gone);
            }
        };
        if let Some(stream) = &self.stream {
            stream.hear(reader);
        }
        Ok(said)
    }

    /// The stream failed: is the buyer waited for?
    fn lost(&mut self, error: &FrameError) -> Result<(), Gone> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        debug!(cause = error.label(), path = %stream.path, "the buyer's stream is over");
        if self.newcomers.is_none() || error.ending(&stream.path) == Ending::Left {
            return Err(Gone);
        }
        self.until = Some(clock::deadline(GRACE));
        Ok(())
    }

    /// The buyer is back. What it had before is told, in case that somebody still listens there.
    async fn attach(&mut self, newcomer: Newcomer) {
        let Newcomer { from, path, reader, mut writer } = newcomer;
        let refused = if self.resumed >= limits::MAX_RESUMES {
            Some(format!("a job is resumed {} times at most", limits::MAX_RESUMES))
        } else {
            self.backlog.rewind(from).err().map(|refused| refused.to_string())
        };
        if let Some(message) = refused {
            return dismiss(writer, ErrorCode::BAD_RESUME, message);
        }
        self.resumed += 1;
        if let Some(old) = self.stream.take() {
            dismiss(old.writer, ErrorCode::REPLACED, "a newer stream goes on with the job".into());
        }
        // Some sixty bytes, for which an empty stream has room.
        match writer.write(&self.opened, deadline::OPENED).await {
            Ok(()) => {
                self.stream = Some(Attached::new(path, reader, writer));
                self.until = None;
            }
            Err(error) => {
                debug!(cause = error.label(), "the buyer is lost again");
                self.until = Some(clock::deadline(GRACE));
            }
        }
    }

    /// Writes what is due, to whichever stream there is.
    async fn flush(&mut self) -> Result<(), Gone> {
        loop {
            match self.write_all().await {
                Wrote::All => break,
                Wrote::Interrupted(newcomer) => self.attach(newcomer).await,
                Wrote::Failed(error) => return self.lost(&error),
            }
        }
        if self.newcomers.is_none() {
            self.backlog.forget_written();
        }
        Ok(())
    }

    /// The first write is tried before anything else, so that a token costs no more than that.
    async fn write_all(&mut self) -> Wrote {
        let Some(stream) = &mut self.stream else { return Wrote::All };
        while let Some(frame) = self.backlog.unwritten() {
            tokio::select! {
                biased;
                written = stream.writer.write(frame, deadline::WRITE) => match written {
                    Ok(()) => self.backlog.wrote(),
                    Err(error) => return Wrote::Failed(error),
                },
                newcomer = next_of(&mut self.newcomers) => return Wrote::Interrupted(newcomer),
            }
        }
        Wrote::All
    }
}

/// Tells a stream that it is over, in the background: it may take nothing any more.
fn dismiss(mut writer: Writer, code: ErrorCode, message: String) {
    tokio::spawn(async move {
        let error = Frame::Error(StreamError { code, retryable: false, message });
        let _ = writer.write(&error.encode(), deadline::GOODBYE).await;
        let _ = tokio::time::timeout(deadline::GOODBYE, writer.finish()).await;
    });
}

async fn next_of(newcomers: &mut Option<mpsc::Receiver<Newcomer>>) -> Newcomer {
    let newcomer = match newcomers {
        Some(newcomers) => newcomers.recv().await,
        None => None,
    };
    match newcomer {
        Some(newcomer) => newcomer,
        None => std::future::pending().await,
    }
}

async fn heard(stream: &mut Option<Attached>) -> (Reader, Result<RawFrame, FrameError>) {
    let heard = match stream {
        Some(stream) => stream.hearing.next().await,
        None => None,
    };
    match heard {
        Some(heard) => heard,
        None => std::future::pending().await,
    }
}

async fn expired(until: Option<TimerInstant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
