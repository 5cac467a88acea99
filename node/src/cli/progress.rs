//! What a person sees while something takes time: a line that turns, on a terminal alone, and only after a second.

use super::Context;
use crate::{clock, logfile::Stderr};
use std::{future::Future, io::IsTerminal, pin::pin, time::Duration};
use tokio::time::interval_at;

/// Whoever waits less needs no comfort.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line turns.
pub(super) const TURN: Duration = Duration::from_millis(120);
/// The line's first sign, one after the other.
const SIGNS: [char; 4] = ['|', '/', '-', '\\'];

/// A line on stderr that is written over. Gone when dropped.
pub(super) struct Line {
    live: bool,
    turns: usize,
}

impl Line {
    /// Shows nothing unless a person looks at a terminal that can go back to the line's begin.
    pub(super) fn new(context: &Context) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Line { live: !context.json && !dumb && std::io::stderr().is_terminal(), turns: 0 }
    }

    /// Whether anything is shown.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Writes `text` over what was there.
    pub(super) fn show(&mut self, text: &str) {
        if !self.live {
            return;
        }
        let sign = SIGNS.get(self.turns % SIGNS.len()).unwrap_or(&' ');
        self.turns += 1;
        Stderr::show_live(&format!("{sign} {text}"));
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        Stderr::clear_live();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Context {
    /// Awaits `work`, and tells `what` is awaited and since when, should it take longer.
    pub(super) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let begin = clock::deadline(PATIENCE);
        let (mut line, mut turn, mut work) = (Line::new(self), interval_at(begin, TURN), pin!(work));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                at = turn.tick() => line.show(&format!("{what} ({} s)", (at - begin + PATIENCE).as_secs())),
            }
        }
    }
}
