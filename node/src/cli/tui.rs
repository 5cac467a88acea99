//! `infernet tui`: the running node on a screen that lives, and stays when the node goes.
//!
//! `state` is a pure fold of what comes in, `panes` what it says, `draw` how that looks; `feed` asks the node and `terminal` the
//! keyboard. The loop here carries between them. Strangers' texts reach the screen through `text::foreign` alone.

mod draw;
mod feed;
mod income;
mod log;
mod panes;
#[cfg(test)]
mod sample;
mod state;
mod terminal;
mod text;

use self::{
    draw::Screen,
    panes::Look,
    state::{Input, Order, State},
    terminal::{Act, Acts, Raw},
};
use super::{Context, exit, exit::Exit, income as books, query};
use crate::{clock, control::client::Client};
use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::Path,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// Between two drawings when nothing happens: times go on.
const TICK: Duration = Duration::from_secs(1);
/// What waits for the screen; then the feed waits.
const QUEUE: usize = 16;
/// Inputs folded in before the screen is drawn again: a backlog is no reason to draw it piece by piece.
const BATCH: usize = QUEUE;

pub(super) async fn run(context: &Context) -> Result<(), Exit> {
    if context.json {
        return Err(Exit::new(exit::USAGE, "`infernet tui` is for people; `infernet status --watch --json` is for scripts"));
    }
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    let (network, id) = query::who(&node, None).await?;
    let us = books::us(&context.home, &network, Some(id))?;
    is_terminal()?;
    let failed = |error: io::Error| Exit::new(exit::FAILED, format!("can't use the terminal: {error}"));
    let signals = Signals::listen().map_err(failed)?;
    let (inputs, fed) = mpsc::channel(QUEUE);
    let feed = tokio::spawn(feed::run(context.home.clone(), us, inputs.clone()));
    // Restores the terminal when it goes, before anything is said of an error.
    let ended = {
        let _raw = Raw::enter().map_err(failed)?;
        turn(&context.home, signals, inputs, fed).await
    };
    feed.abort();
    ended.map_err(failed)
}

fn is_terminal() -> Result<(), Exit> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !dumb && io::stdin().is_terminal() && io::stdout().is_terminal() {
        return Ok(());
    }
    let text = "`infernet tui` needs a terminal for its keys and its screen; `infernet status --watch` goes into a pipe, too";
    Err(Exit::new(exit::USAGE, text))
}

/// Draws, waits, folds, until somebody has enough.
async fn turn(
    home: &Path,
    mut signals: Signals,
    inputs: mpsc::Sender<Input>,
    mut fed: mpsc::Receiver<Input>,
) -> io::Result<()> {
    let (mut state, mut screen, mut acts, look) = (State::default(), Screen::new()?, Acts::new(), look());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        screen.draw(&mut state, look)?;
        tokio::select! {
            biased;
            () = signals.next() => return Ok(()),
            act = acts.next() => batch.push(match act? {
                Act::Key(key) => Input::Key(key),
                Act::Other => Input::Tick,
            }),
            _ = fed.recv_many(&mut batch, BATCH) => {}
            _ = tick.tick() => batch.push(Input::Tick),
        }
        for input in batch.drain(..) {
            match state.handle(input, clock::now()) {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some(Order::Drain(drain))) => tell(home, drain, &inputs),
            }
        }
    }
}

/// Apart, so that the screen does not wait for the node.
fn tell(home: &Path, drain: bool, inputs: &mpsc::Sender<Input>) {
    let (home, inputs) = (home.to_owned(), inputs.clone());
    tokio::spawn(async move {
        let answer = feed::drain(&home, drain).await;
        let _ = inputs.send(Input::Told(answer)).await;
    });
}

fn look() -> Look {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // POSIX: the first of these that is set says how texts are written.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    Look { colour: set("NO_COLOR").is_none(), blocks: locale.contains("utf-8") || locale.contains("utf8") }
}

/// What ends the command from outside; Ctrl-C is a key here.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Signals([terminate?, interrupt?, hangup?]))
    }

    async fn next(&mut self) {
        let Signals([terminate, interrupt, hangup]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
