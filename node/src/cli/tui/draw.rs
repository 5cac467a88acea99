//! The state on a screen. The only file that names `ratatui`.
//!
//! A large window shows all panes at once, any other the chosen one under a line of tabs; one that is too small says so.

use super::{
    panes::{self, Look},
    state::{Overlay, Pane, State},
    text::{Row, Tone, foreign},
};
use crate::cli::watch::span;
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};
use std::io::{self, Stdout};

/// The least that is of use: a tab, a frame and three rows of text.
const MIN: (u16, u16) = (30, 8);
/// Where all panes have room for what matters in them.
const ALL: (u16, u16) = (110, 36);
/// Lines where there are only letters.
const ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const HELP: [&str; 13] = [
    "1 .. 7        that pane",
    "Tab           the next pane (Shift-Tab: the one before)",
    "j k, arrows   scroll; PageUp, PageDown, g, G",
    "z, Enter      the chosen pane alone, and back",
    "p             hold still, and go on",
    "d             take no new jobs, or take them again",
    "q, Ctrl-C     leave; the node goes on",
    "",
    "Prices are for a million output tokens. Earnings are what",
    "receipts say, signed by the buyer or not.",
    "",
    "`infernet why` says what keeps the node from earning more.",
    "Any key closes this.",
];

/// A screen on stdout.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// One that fills the terminal.
    pub(super) fn new() -> io::Result<Self> {
        Terminal::new(CrosstermBackend::new(io::stdout())).map(Screen)
    }

    /// Draws `state`, and lets it know how far its panes can be scrolled.
    pub(super) fn draw(&mut self, state: &mut State, look: Look) -> io::Result<()> {
        let mut limits = Vec::new();
        self.0.draw(|frame| limits = render(state, look, frame))?;
        limits.into_iter().for_each(|(pane, rows)| state.limit(pane, rows));
        Ok(())
    }
}

/// Shows `state`; returns the panes that are seen, with how many rows each can be scrolled.
fn render(state: &State, look: Look, frame: &mut Frame<'_>) -> Vec<(Pane, usize)> {
    let area = frame.area();
    if area.width < MIN.0 || area.height < MIN.1 {
        let text = format!("too small: {}x{}, and {}x{} is needed", area.width, area.height, MIN.0, MIN.1);
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return Vec::new();
    }
    let all = !state.zoomed && area.width >= ALL.0 && area.height >= ALL.1;
    let heights = [Constraint::Length(1), Constraint::Length(u16::from(!all)), Constraint::Fill(1), Constraint::Length(1)];
    let [head, tabs, body, foot] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(line(&header(state, head.width), look)), head);
    frame.render_widget(Paragraph::new(tab_line(state, tabs.width, look)), tabs);
    let places = if all { grid(body) } else { vec![(state.pane, body)] };
    let limits = places.into_iter().map(|(pane, place)| (pane, show(pane, state, look, frame, place))).collect();
    frame.render_widget(Paragraph::new(line(&footer(state, foot.width), look)), foot);
    overlay(state, look, frame, body);
    limits
}

/// Where each pane is when all are shown.
fn grid(area: Rect) -> Vec<(Pane, Rect)> {
    let half = [Constraint::Fill(1), Constraint::Fill(1)];
    let heights = [Constraint::Fill(6), Constraint::Fill(5), Constraint::Fill(6), Constraint::Fill(4)];
    let [first, second, third, last] = Layout::vertical(heights).areas(area);
    let [[node, earnings], [peers, engine], [auctions, streams]] =
        [first, second, third].map(|row| Layout::horizontal(half).areas(row));
    vec![
        (Pane::Node, node),
        (Pane::Earnings, earnings),
        (Pane::Peers, peers),
        (Pane::Engine, engine),
        (Pane::Auctions, auctions),
        (Pane::Streams, streams),
        (Pane::Log, last),
    ]
}

/// Draws a pane; returns how many of its rows have no room.
fn show(pane: Pane, state: &State, look: Look, frame: &mut Frame<'_>, place: Rect) -> usize {
    let chosen = pane == state.pane;
    let block = framed(&format!(" {} {} ", pane.number(), pane.name()), chosen, look);
    let inner = block.inner(place);
    let (facts, height) = (state.shown(), usize::from(inner.height));
    // While it stands still, so does "12 s ago".
    let now = if state.is_paused() { facts.at } else { state.now };
    let rows = panes::rows(pane, facts, now, inner.width.into(), look);
    let hidden = rows.len().saturating_sub(height);
    let scrolled = state.scrolled(pane).min(hidden);
    let from = if pane == Pane::Log { hidden - scrolled } else { scrolled };
    let lines: Vec<Line<'_>> = rows.iter().skip(from).take(height).map(|row| line(row, look)).collect();
    let below = hidden - from;
    let block = if below > 0 { block.title_bottom(Line::from(format!(" {below} more ")).right_aligned()) } else { block };
    frame.render_widget(Paragraph::new(lines).block(block), place);
    hidden
}

fn framed<'a>(title: &str, chosen: bool, look: Look) -> Block<'a> {
    let set = match (look.blocks, chosen) {
        (false, _) => ASCII,
        (true, true) => border::THICK,
        (true, false) => border::PLAIN,
    };
    let title_style = if chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let border_style = if chosen { style(Tone::Good, look) } else { style(Tone::Faint, look) };
    Block::bordered().border_set(set).border_style(border_style).title(Span::styled(title.to_owned(), title_style))
}

fn style(tone: Tone, look: Look) -> Style {
    let colour = |colour| if look.colour { Style::new().fg(colour) } else { Style::new() };
    match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
        Tone::Good => colour(Color::Green),
        Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
    }
}

fn line<'a>(row: &Row, look: Look) -> Line<'a> {
    Line::from(row.0.iter().map(|(tone, text)| Span::styled(text.clone(), style(*tone, look))).collect::<Vec<_>>())
}

/// Who it is and how it is, the most important first: a narrow window cuts the rest.
fn header(state: &State, width: u16) -> Row {
    let mut words = vec![(Tone::Strong, "infernet ".to_owned())];
    if let Some((since, why)) = &state.gone {
        let text = format!("node gone for {}, trying again: {}", span(state.now.since(*since)), foreign(why));
        words.push((Tone::Bad, text));
        return Row(words);
    }
    if state.is_paused() {
        words.push((Tone::Bad, "held still ".into()));
    }
    let Some(snapshot) = &state.shown().snapshot else { return Row(words) };
    let status = &snapshot.status;
    words.push((Tone::Plain, format!("{} ", status.id.short())));
    if status.seller.as_ref().is_some_and(|seller| seller.draining) {
        words.push((Tone::Bad, "draining ".into()));
    }
    if !status.warnings.is_empty() {
        words.push((Tone::Bad, format!("! {} ", super::super::counted(status.warnings.len(), "warning"))));
    }
    if width >= 60 {
        let text =
            format!("on {}, up {}, {}", status.network, span(status.uptime_ms), super::super::counted(status.peers, "peer"));
        words.push((Tone::Faint, text));
    }
    Row(words)
}

/// All names if there is room, else the chosen one's.
fn tab_line<'a>(state: &State, width: u16, look: Look) -> Line<'a> {
    let names: usize = Pane::ALL.iter().map(|pane| pane.name().len() + 5).sum();
    let tab = |pane: Pane| {
        let chosen = pane == state.pane;
        let named = chosen || names <= usize::from(width);
        let text = if named { format!(" {} {} ", pane.number(), pane.name()) } else { format!(" {} ", pane.number()) };
        let style = if chosen { Style::new().add_modifier(Modifier::REVERSED) } else { style(Tone::Faint, look) };
        Span::styled(text, style)
    };
    Line::from(Pane::ALL.map(tab).to_vec())
}

fn footer(state: &State, width: u16) -> Row {
    match &state.notice {
        Some(notice) => Row::of(Tone::Strong, foreign(notice)),
        None if width >= 70 => {
            Row::of(Tone::Faint, "q leave  Tab, 1-7 pane  j/k scroll  z alone  p hold still  d drain  ? help")
        }
        None => Row::of(Tone::Faint, "q leave  Tab pane  ? help"),
    }
}

fn overlay(state: &State, look: Look, frame: &mut Frame<'_>, area: Rect) {
    let (title, text): (_, Vec<&str>) = match state.overlay {
        Overlay::None => return,
        Overlay::Help => (" keys ", HELP.to_vec()),
        Overlay::Confirm(true) => (" drain? ", vec!["Take no new jobs; running ones end.", "", "y yes   any other key no"]),
        Overlay::Confirm(false) => (" resume? ", vec!["Take new jobs again.", "", "y yes   any other key no"]),
    };
    let width = text.iter().map(|line| line.len()).max().unwrap_or_default() + 4;
    let size = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(most).min(most);
    let (width, height) = (size(width, area.width), size(text.len() + 2, area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = framed(title, true, look).title_alignment(Alignment::Center);
    frame.render_widget(Clear, place);
    let lines: Vec<Line<'_>> = text.into_iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

#[cfg(test)]
mod tests;
