//! The state on a screen. The only file that names `ratatui`.
//!
//! A large window shows all panes at once, any other the chosen one under a line of tabs; one that is too small says so.

use super::{
    panes::{self, Look},
    state::{Drawn, Overlay, Pane, State},
    text::{Row, Tone, foreign, wrapped},
};
use crate::cli::watch::span;
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Clear, Padding, Paragraph},
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

/// A key and what it does, or a sentence.
const HELP: [(&str, &str); 12] = [
    ("1 - 7", "that pane"),
    ("Tab", "the next pane (Shift-Tab: the one before)"),
    ("j k", "scroll, as arrows, PageUp, PageDown, g, G do"),
    ("z", "the chosen pane alone, and back; so does Enter"),
    ("p", "hold still, and go on"),
    ("d", "take no new jobs, or take them again"),
    ("q", "leave (Ctrl-C, too); the node goes on"),
    ("", ""),
    ("", "Prices are for a million output tokens. Earnings are what receipts say, signed by the buyer or not."),
    ("", "`infernet why` says what keeps the node from earning more."),
    ("", ""),
    ("", "j and k scroll this, any other key closes it."),
];
/// Longer lines are no easier to read.
const HELP_WIDTH: usize = 58;

/// A screen on stdout.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// One that fills the terminal.
    pub(super) fn new() -> io::Result<Self> {
        Terminal::new(CrosstermBackend::new(io::stdout())).map(Screen)
    }

    /// Draws `state`, and lets it know how far its panes can be scrolled.
    pub(super) fn draw(&mut self, state: &mut State, look: Look) -> io::Result<()> {
        let mut drawn = Drawn::default();
        self.0.draw(|frame| drawn = render(state, look, frame))?;
        state.settle(drawn);
        Ok(())
    }
}

/// Shows `state`.
fn render(state: &State, look: Look, frame: &mut Frame<'_>) -> Drawn {
    let area = frame.area();
    if area.width < MIN.0 || area.height < MIN.1 {
        let text = format!("too small: {}x{}, and {}x{} is needed", area.width, area.height, MIN.0, MIN.1);
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return Drawn::default();
    }
    let all = !state.zoomed && area.width >= ALL.0 && area.height >= ALL.1;
    let heights = [Constraint::Length(1), Constraint::Length(u16::from(!all)), Constraint::Fill(1), Constraint::Length(1)];
    let [head, tabs, body, foot] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(line(&header(state, head.width), look)), head);
    frame.render_widget(Paragraph::new(tab_line(state, tabs.width, look)), tabs);
    let places = if all { grid(body) } else { vec![(state.pane, body)] };
    let mut drawn = Drawn::default();
    places.into_iter().for_each(|(pane, place)| show(pane, state, look, frame, place, &mut drawn));
    frame.render_widget(Paragraph::new(line(&footer(state, foot.width), look)), foot);
    overlay(state, look, frame, body, &mut drawn);
    drawn
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

fn show(pane: Pane, state: &State, look: Look, frame: &mut Frame<'_>, place: Rect, drawn: &mut Drawn) {
    let chosen = pane == state.pane;
    let block = framed(&format!(" {} {} ", pane.number(), pane.name()), chosen, look);
    let inner = block.inner(place);
    let (facts, width, height) = (state.shown(), inner.width.into(), usize::from(inner.height));
    // While it stands still, so does "12 s ago".
    let now = if state.is_paused() { facts.at } else { state.now };
    let (rows, from) = if pane == Pane::Log {
        let (places, rows): (Vec<_>, Vec<_>) = panes::log(facts, width).into_iter().unzip();
        let (from, reader) = state.reader.stand(&places, height);
        drawn.reader = Some(reader);
        (rows, from)
    } else {
        (panes::rows(pane, facts, now, width, look), state.scrolled(pane))
    };
    drawn.hidden.push((pane, scrolled(&rows, from, block, look, frame, place)));
}

/// Draws `rows` from `from` on, if so many have no room; returns how many have none.
fn scrolled(rows: &[Row], from: usize, block: Block<'_>, look: Look, frame: &mut Frame<'_>, place: Rect) -> usize {
    let height = usize::from(block.inner(place).height);
    let hidden = rows.len().saturating_sub(height);
    let from = from.min(hidden);
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

fn overlay(state: &State, look: Look, frame: &mut Frame<'_>, area: Rect, drawn: &mut Drawn) {
    let question = |text| vec![Row::of(Tone::Plain, text), Row::default(), Row::of(Tone::Plain, "y yes   any other key no")];
    let (title, rows) = match state.overlay {
        Overlay::None => return,
        Overlay::Help => (" keys ", help(area.width)),
        Overlay::Confirm(true) => (" drain? ", question("Take no new jobs; running ones end.")),
        Overlay::Confirm(false) => (" resume? ", question("Take new jobs again.")),
    };
    // Within the frame, a sign is left free on each side.
    let widest = rows.iter().map(Row::width).max().unwrap_or_default() + 4;
    let size = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(most).min(most);
    let (width, height) = (size(widest, area.width), size(rows.len() + 2, area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = framed(title, true, look).title_alignment(Alignment::Center).padding(Padding::horizontal(1));
    frame.render_widget(Clear, place);
    drawn.help = scrolled(&rows, state.help, block, look, frame, place);
}

fn help(width: u16) -> Vec<Row> {
    let row = |(key, said): (&str, &'static str)| match key {
        "" => Row::of(Tone::Plain, said),
        key => Row::labelled(key, Tone::Plain, said),
    };
    let width = usize::from(width).saturating_sub(4).min(HELP_WIDTH);
    HELP.into_iter().flat_map(|line| wrapped(row(line), width)).collect()
}

#[cfg(test)]
mod tests;
