//! Runs answers: admits them, gives each a slot, paces them, notices when nobody wants them any more.
//!
//! The owner of an answer is the stream that [`Jobs::submit`] returns. Dropping it at any point cancels the answer:
//! in line it just leaves the line; in a slot the channel from the slot's thread closes and the thread stops.
//!
//! Each slot has a pool of *one* rayon thread. Candle splits even the smallest operation over the rayon pool it is
//! called in; with one thread that costs nothing, with the global pool every token waits for wake-ups of other threads
//! (on two cores 826 tokens/s instead of 1 241, the first after 3.4 ms instead of 1.5).

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc},
    time::sleep,
};

use super::{
    Answer, EngineError, EngineEvent, EngineKind, EngineOptions, Finish, Sampling, TinyModel,
    pace::Pace,
    stamp,
    watch::{EVENTS, Watch},
};

/// Requests that may wait for a slot (Ollama's `OLLAMA_MAX_QUEUE`).
const MAX_WAITING: usize = 512;
/// Tokens that the model may be ahead of the client: enough not to stall it, few enough to cancel promptly.
const AHEAD: usize = 4;

/// One request, parsed.
pub(super) struct Work {
    pub(super) prompt: String,
    pub(super) sampling: Sampling,
}

/// What comes out of an answer; the last is always `Done` or `Failed`.
pub(super) enum Piece {
    /// Text of one token, perhaps none.
    Text(Cow<'static, str>),
    /// The end, with the prompt's tokens.
    Done(Answer, Vec<u32>),
    /// The model failed.
    Failed(String),
}

pub(super) type Pieces = BoxStream<'static, Piece>;

/// The line is full.
#[derive(Debug)]
pub(super) struct Busy;

/// All answers of one engine.
pub(super) struct Jobs {
    source: Source,
    first_token_delay: Duration,
    /// One permit for each request in a slot or in line.
    places: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    threads: Arc<Threads>,
    events: broadcast::Sender<EngineEvent>,
    next_request: AtomicU64,
}

enum Source {
    Model { model: Arc<TinyModel>, pace: Option<Pace> },
    Metronome { pace: Pace, tokens: u32, token_bytes: usize },
}

impl Jobs {
    pub(super) fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        if options.max_concurrent == 0 {
            return Err(EngineError::NoSlots);
        }
        // Tokio's semaphores have an upper bound, far above any number of streams.
        let slots = options.max_concurrent.min(Semaphore::MAX_PERMITS / 2);
        Ok(Self {
            source: Source::new(options)?,
            first_token_delay: options.first_token_delay,
            places: Arc::new(Semaphore::new(slots + MAX_WAITING)),
            slots: Arc::new(Semaphore::new(slots)),
            threads: Arc::default(),
            events: broadcast::Sender::new(EVENTS),
            next_request: AtomicU64::new(0),
        })
    }

    pub(super) fn events(&self) -> broadcast::Sender<EngineEvent> {
        self.events.clone()
    }

    /// Admits a request or refuses it at once.
    pub(super) fn submit(self: &Arc<Self>, work: Work) -> Result<Pieces, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let watch = Watch::start(request, self.events.clone());
        let jobs = Arc::clone(self);
        let pieces = async move { jobs.run(work, watch, place).await };
        Ok(stream::once(pieces).flatten().boxed())
    }

    async fn run(&self, work: Work, mut watch: Watch, place: OwnedSemaphorePermit) -> Pieces {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return failed(&mut watch, "the engine is closed");
        };
        if !self.first_token_delay.is_zero() {
            sleep(self.first_token_delay).await;
        }
        let held = Held(place, slot);
        match &self.source {
            Source::Metronome { pace, tokens, token_bytes } => {
                metronome((pace.clone(), *token_bytes), *tokens, &work, watch, held)
            }
            Source::Model { model, pace } => match self.threads.take() {
                Ok(thread) => received(self.spawn(&thread, model, work, watch, held), pace.clone()),
                Err(e) => failed(&mut watch, &e.to_string()),
            },
        }
    }

    /// Starts the model on a slot's thread. Thread and slot are free again when the last piece is in the channel.
    fn spawn(
        &self,
        thread: &Arc<ThreadPool>,
        model: &Arc<TinyModel>,
        work: Work,
        mut watch: Watch,
        held: Held,
    ) -> mpsc::Receiver<Piece> {
        let (pieces, received) = mpsc::channel(AHEAD);
        let (model, threads, own) = (Arc::clone(model), Arc::clone(&self.threads), Arc::clone(thread));
        thread.spawn(move || {
            let last = answer(&model, &work, &mut watch, &pieces);
            watch.end(&last);
            drop(watch);
            // An error means that the client has gone, as `watch` has said.
            let _ = pieces.blocking_send(last);
            threads.give_back(own);
            drop(held);
        });
        received
    }
}

impl Source {
    fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        Ok(match options.kind {
            EngineKind::TinyModel => {
                Self::Model { model: TinyModel::load()?, pace: options.tokens_per_second.map(Pace::new).transpose()? }
            }
            EngineKind::Metronome { tokens_per_second, tokens } => {
                Self::Metronome { pace: Pace::new(tokens_per_second)?, tokens, token_bytes: options.token_bytes }
            }
        })
    }
}

/// The place in line and the slot, given back when dropped.
#[expect(dead_code, reason = "they are held for their drop")]
struct Held(OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Threads that have no answer to work on; at most as many as there are slots.
#[derive(Default)]
struct Threads(Mutex<Vec<Arc<ThreadPool>>>);

impl Threads {
    fn take(&self) -> Result<Arc<ThreadPool>, EngineError> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(new_thread, Ok)
    }

    fn give_back(&self, thread: Arc<ThreadPool>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

fn new_thread() -> Result<Arc<ThreadPool>, EngineError> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "engine-slot".into())
        // Rayon would abort the process. The answer's channel closes, and its stream says that it failed.
        .panic_handler(|_| tracing::error!("an answer's thread panicked"))
        .build()?;
    Ok(Arc::new(pool))
}

/// Generates one answer; runs on a slot's thread.
fn answer(model: &TinyModel, work: &Work, watch: &mut Watch, pieces: &mpsc::Sender<Piece>) -> Piece {
    let generated = model.encode(&work.prompt).and_then(|prompt| {
        let prompt = TinyModel::fit(prompt);
        let on_token = |token: super::Token| {
            watch.token();
            // If the client has gone, `is_closed` ends the answer.
            let _ = pieces.blocking_send(Piece::Text(token.text.into()));
        };
        let answer = model.generate(&prompt, &work.sampling, || pieces.is_closed(), on_token)?;
        Ok((answer, prompt))
    });
    match generated {
        Ok((answer, prompt)) => Piece::Done(answer, prompt),
        Err(e) => Piece::Failed(e.to_string()),
    }
}

/// The end of an answer that never began.
fn failed(watch: &mut Watch, why: &str) -> Pieces {
    let last = Piece::Failed(why.to_owned());
    watch.end(&last);
    stream::iter([last]).boxed()
}

/// The pieces that a thread sends, paced.
fn received(pieces: mpsc::Receiver<Piece>, pace: Option<Pace>) -> Pieces {
    let state = Some((pieces, pace));
    stream::unfold(state, async |state| {
        let (mut pieces, mut pace) = state?;
        match pieces.recv().await {
            Some(Piece::Text(text)) => {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
                Some((Piece::Text(text), Some((pieces, pace))))
            }
            Some(last) => Some((last, None)),
            None => Some((Piece::Failed("the model stopped".into()), None)),
        }
    })
    .boxed()
}

/// An answer of [`EngineKind::Metronome`].
fn metronome(beat: (Pace, usize), tokens: u32, work: &Work, watch: Watch, held: Held) -> Pieces {
    let limit = work.sampling.max_tokens.unwrap_or(tokens);
    let words = u32::try_from(work.prompt.split_whitespace().count()).unwrap_or(u32::MAX);
    let answer = Answer {
        finish: if limit < tokens { Finish::Length } else { Finish::Stop },
        prompt_tokens: words,
        eval_count: limit.min(tokens),
        tokens: Vec::new(),
        prompt_eval_duration: Duration::ZERO,
        eval_duration: Duration::ZERO,
    };
    let state = Some((answer.eval_count, beat, answer, watch, held));
    stream::unfold(state, async |state| {
        let (left, (mut pace, bytes), answer, mut watch, held) = state?;
        if left == 0 {
            let last = Piece::Done(answer, Vec::new());
            watch.end(&last);
            return Some((last, None));
        }
        pace.tick().await;
        watch.token();
        let token = format!("{:.<bytes$}", stamp::token());
        Some((Piece::Text(token.into()), Some((left - 1, (pace, bytes), answer, watch, held))))
    })
    .boxed()
}
