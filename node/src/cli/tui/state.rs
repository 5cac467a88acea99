//! What the screen shows and what a key does: a fold over what comes in. Pure; `draw` shows it, `feed` and the terminal feed it.

use super::{
    income::{Earned, Income},
    log::Reader,
};
use crate::control::schema::{PeerReport, StatusReport};
use crate::jobs::JobReport;
use infernet_wire::time::UnixMillis;
use std::{collections::VecDeque, ops::ControlFlow};

/// Lines of the log that can be scrolled through: some screens.
pub(super) const LOG_LINES: usize = 500;
/// A page of scrolling: half a small screen, so that the eye finds its place again.
const PAGE: usize = 10;
/// Characters of a line of the log: longer ones, which are rare, are read with `infernet logs`.
const LOG_LINE: usize = 1_000;

/// A part of the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pane {
    #[default]
    Node,
    Peers,
    Auctions,
    Streams,
    Engine,
    Earnings,
    Log,
}

impl Pane {
    /// In the order of their keys, 1 to 7.
    pub(super) const ALL: [Pane; 7] =
        [Pane::Node, Pane::Peers, Pane::Auctions, Pane::Streams, Pane::Engine, Pane::Earnings, Pane::Log];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Pane::Node => "node",
            Pane::Peers => "peers",
            Pane::Auctions => "auctions",
            Pane::Streams => "streams",
            Pane::Engine => "engine",
            Pane::Earnings => "earnings",
            Pane::Log => "log",
        }
    }

    /// Its key.
    pub(super) fn number(self) -> usize {
        Pane::ALL.iter().position(|pane| *pane == self).unwrap_or_default() + 1
    }

    fn step(self, back: bool) -> Pane {
        let steps = if back { Pane::ALL.len() - 1 } else { 1 };
        Pane::ALL.into_iter().cycle().nth(self.number() - 1 + steps).unwrap_or_default()
    }
}

/// What a person presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Tab,
    BackTab,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    /// Ctrl-C.
    Interrupt,
}

/// What the node said of itself.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) status: StatusReport,
    pub(super) peers: Vec<PeerReport>,
    /// Those that run first, then the last ones.
    pub(super) jobs: Vec<JobReport>,
}

/// Something happened.
#[derive(Debug)]
pub(super) enum Input {
    /// Time went by.
    Tick,
    /// A key was pressed.
    Key(Key),
    /// The node answered.
    Snapshot(Box<Snapshot>),
    /// The node does not answer, and why.
    Gone(String),
    /// Jobs sold, some of them known.
    Earned(Vec<Earned>),
    /// New lines of the log.
    Log(Vec<String>),
    /// What became of an order: the node drains, takes jobs again, or refuses.
    Told(Result<bool, String>),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Tell the node to take no new jobs, or to take them again.
    Drain(bool),
}

/// What is known of the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) income: Income,
    pub(super) log: VecDeque<String>,
    /// Lines that were in the log before these, and are forgotten.
    pub(super) log_gone: u64,
    /// When all of this was seen.
    pub(super) at: UnixMillis,
}

/// What lies over the panes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Overlay {
    #[default]
    None,
    Help,
    /// Whether to drain, or to resume.
    Confirm(bool),
}

/// The whole screen.
#[derive(Debug, Default)]
pub(super) struct State {
    facts: Facts,
    frozen: Option<Facts>,
    /// Since when the node is gone, and why.
    pub(super) gone: Option<(UnixMillis, String)>,
    pub(super) now: UnixMillis,
    pub(super) pane: Pane,
    pub(super) zoomed: bool,
    pub(super) overlay: Overlay,
    /// A sentence for the last line, until the next key.
    pub(super) notice: Option<String>,
    /// Rows scrolled down in each pane but the log.
    scroll: [usize; Pane::ALL.len()],
    /// Where the log is read.
    pub(super) reader: Reader,
    /// Rows scrolled down in the help.
    pub(super) help: usize,
}

/// What is learned when the screen is drawn.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// Panes that are seen, with how many of their rows have no room.
    pub(super) hidden: Vec<(Pane, usize)>,
    /// Where the log is read, if it is seen.
    pub(super) reader: Option<Reader>,
    /// Rows of the help that have no room.
    pub(super) help: usize,
}

impl State {
    /// What is to be shown: while paused, what was known then.
    pub(super) fn shown(&self) -> &Facts {
        self.frozen.as_ref().unwrap_or(&self.facts)
    }

    /// Whether the panes stand still.
    pub(super) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// How far `pane` is scrolled.
    pub(super) fn scrolled(&self, pane: Pane) -> usize {
        self.scroll.get(pane.number() - 1).copied().unwrap_or_default()
    }

    /// Nothing is scrolled further than there is something to see.
    pub(super) fn settle(&mut self, drawn: Drawn) {
        for (pane, rows) in drawn.hidden {
            self.scroll_to(pane, self.scrolled(pane).min(rows));
        }
        self.reader = drawn.reader.unwrap_or(self.reader);
        self.help = self.help.min(drawn.help);
    }

    /// Folds `input` in. Breaks when the person wants to leave.
    pub(super) fn handle(&mut self, input: Input, now: UnixMillis) -> ControlFlow<(), Option<Order>> {
        self.now = now;
        match input {
            Input::Tick => {}
            Input::Key(key) => return self.press(key),
            Input::Snapshot(snapshot) => {
                self.gone = None;
                self.facts.snapshot = Some(*snapshot);
                self.facts.at = now;
            }
            Input::Gone(why) => {
                // The reason may change while it is gone: "no node runs" is what comes after "does not answer".
                let since = self.gone.as_ref().map_or(now, |(since, _)| *since);
                self.gone = Some((since, why));
            }
            Input::Earned(earned) => self.facts.income.enter(&earned, now),
            Input::Log(lines) => self.log(lines),
            Input::Told(answer) => self.notice = Some(told(answer)),
        }
        ControlFlow::Continue(None)
    }

    fn log(&mut self, lines: Vec<String>) {
        let short = |line: String| if line.len() > LOG_LINE { line.chars().take(LOG_LINE).collect() } else { line };
        self.facts.log.extend(lines.into_iter().map(short));
        let excess = self.facts.log.len().saturating_sub(LOG_LINES);
        self.facts.log.drain(..excess);
        self.facts.log_gone += excess as u64;
    }

    fn press(&mut self, key: Key) -> ControlFlow<(), Option<Order>> {
        self.notice = None;
        if key == Key::Interrupt {
            return ControlFlow::Break(());
        }
        match self.overlay {
            Overlay::Confirm(drain) => {
                self.overlay = Overlay::None;
                let yes = matches!(key, Key::Char('y' | 'Y'));
                return ControlFlow::Continue(yes.then_some(Order::Drain(drain)));
            }
            Overlay::Help => self.read_help(key),
            Overlay::None => return self.command(key),
        }
        ControlFlow::Continue(None)
    }

    /// Any key that does not scroll takes it away.
    fn read_help(&mut self, key: Key) {
        match scrolling(key) {
            Some((rows, true)) => self.help = self.help.saturating_sub(rows),
            Some((rows, false)) => self.help = self.help.saturating_add(rows),
            None => self.overlay = Overlay::None,
        }
    }

    fn command(&mut self, key: Key) -> ControlFlow<(), Option<Order>> {
        if let Some((rows, up)) = scrolling(key) {
            self.scroll_by(rows, up);
            return ControlFlow::Continue(None);
        }
        match key {
            Key::Char('q') => return ControlFlow::Break(()),
            Key::Char('?' | 'h') => (self.overlay, self.help) = (Overlay::Help, 0),
            Key::Char('p') => self.pause(),
            Key::Char('d') => self.ask_drain(),
            Key::Char('z') | Key::Enter => self.zoomed = !self.zoomed,
            Key::Esc => self.zoomed = false,
            Key::Tab => self.pane = self.pane.step(false),
            Key::BackTab => self.pane = self.pane.step(true),
            Key::Char(digit @ '1'..='7') => self.jump(digit),
            _ => {}
        }
        ControlFlow::Continue(None)
    }

    fn jump(&mut self, digit: char) {
        let place = digit.to_digit(10).and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_sub(1));
        if let Some(pane) = place.and_then(|place| Pane::ALL.get(place)) {
            self.pane = *pane;
        }
    }

    fn pause(&mut self) {
        self.frozen = if self.is_paused() { None } else { Some(self.facts.clone()) };
    }

    fn ask_drain(&mut self) {
        let seller = self.facts.snapshot.as_ref().and_then(|snapshot| snapshot.status.seller.as_ref());
        match seller {
            _ if self.gone.is_some() => self.notice = Some("the node is gone: there is nobody to tell".into()),
            Some(seller) => self.overlay = Overlay::Confirm(!seller.draining),
            None => self.notice = Some("this node sells nothing, so there is nothing to drain".into()),
        }
    }

    /// As far as there is anything: `settle` cuts it when it is drawn.
    fn scroll_by(&mut self, rows: usize, up: bool) {
        let here = self.scrolled(self.pane);
        match (self.pane, up) {
            (Pane::Log, up) => self.reader.go(rows, up),
            (pane, true) => self.scroll_to(pane, here.saturating_sub(rows)),
            (pane, false) => self.scroll_to(pane, here.saturating_add(rows)),
        }
    }

    fn scroll_to(&mut self, pane: Pane, rows: usize) {
        if let Some(scroll) = self.scroll.get_mut(pane.number() - 1) {
            *scroll = rows;
        }
    }
}

/// How far a key scrolls, and whether up.
fn scrolling(key: Key) -> Option<(usize, bool)> {
    Some(match key {
        Key::Down | Key::Char('j') => (1, false),
        Key::Up | Key::Char('k') => (1, true),
        Key::PageDown | Key::Char(' ') => (PAGE, false),
        Key::PageUp => (PAGE, true),
        Key::Home | Key::Char('g') => (usize::MAX, true),
        Key::End | Key::Char('G') => (usize::MAX, false),
        _ => return None,
    })
}

fn told(answer: Result<bool, String>) -> String {
    match answer {
        Ok(true) => "the node takes no new jobs; running ones end; d takes new ones again".into(),
        Ok(false) => "the node takes jobs again".into(),
        Err(why) => why,
    }
}

#[cfg(test)]
mod tests;
