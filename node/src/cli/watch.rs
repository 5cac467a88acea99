//! Screens: what `status`, `jobs` and `why` show, once or again and again.
//!
//! On a terminal a watched screen is drawn over the last one, as far as there is room, and is gone at the end; in a pipe, screens
//! follow each other, and with `--json` there is one value a line. Colour only on a terminal that shows it, and not if `NO_COLOR` is set.

use super::{Context, exit, exit::Exit};
use clap::Args;
use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

/// How often a watched screen is drawn: a person sees tokens flow, and the node hardly notices.
const REDRAW: Duration = Duration::from_secs(1);
/// Columns of running text: what every terminal has.
const COLUMNS: usize = 80;
/// Columns of text beside a label.
const WIDE: usize = 100;

#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct WatchArgs {
    /// Show it again every second, until Ctrl-C.
    #[arg(long, short)]
    pub(super) watch: bool,
}

/// Shows what `look` returns: once, or until Ctrl-C. It gets a [`Paint`] and returns its screen, or a JSON value.
pub(super) async fn show(
    context: &Context,
    args: WatchArgs,
    mut look: impl AsyncFnMut(Paint) -> Result<String, Exit>,
) -> Result<(), Exit> {
    let paint = Paint::new(context);
    if !args.watch {
        context.print(look(paint).await?.trim_end());
        return Ok(());
    }
    // Before the first look: a Ctrl-C that comes during one must not be lost.
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| Exit::new(exit::FAILED, format!("can't listen for signals: {error}")))?;
    let screen = Screen::new(context);
    let mut turn = interval(REDRAW);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The end of looking is no failure.
            _ = interrupt.recv() => return Ok(()),
            _ = turn.tick() => {}
        }
        screen.draw(context, paint, look(paint).await?.trim_end());
    }
}

fn fancy() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !dumb && std::io::stdout().is_terminal()
}

/// A terminal's second screen, while this lives.
struct Screen {
    live: bool,
}

impl Screen {
    fn new(context: &Context) -> Self {
        let screen = Screen { live: !context.json && fancy() };
        // The second screen, no cursor, and what is too long for a line is cut, not wrapped.
        screen.write("\x1b[?1049h\x1b[?25l\x1b[?7l");
        screen
    }

    fn draw(&self, context: &Context, paint: Paint, text: &str) {
        if !self.live {
            // Screens of text are apart by an empty line; values of JSON are a line each.
            return context.print(if context.json { text.to_owned() } else { format!("{text}\n") });
        }
        // Asked each time: a window may have been resized.
        let height = terminal_size::terminal_size().map(|(_, height)| usize::from(height.0));
        let lines = fitting(text, height, |left| paint.faint(left));
        let rows = lines.iter().enumerate().map(|(row, line)| format!("\x1b[{};1H{line}\x1b[K", row + 1));
        self.write(&format!("{}\x1b[J", rows.collect::<String>()));
    }

    fn write(&self, text: &str) {
        if self.live {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.write("\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

/// The lines of `text` for `height` rows. If it has more, the last row says how many are left out, as `note` shows it.
fn fitting(text: &str, height: Option<usize>, note: impl Fn(&str) -> String) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = lines.len();
    if let Some(shown) = height.filter(|height| (1..count).contains(height)).map(|height| height - 1) {
        lines.truncate(shown);
        lines.push(note(&format!("… {} more lines: make the window higher, or leave out --watch", count - shown)));
    }
    lines
}

/// Emphasis, where it can be seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub(super) fn new(context: &Context) -> Self {
        // https://no-color.org: set and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Paint { on: wanted && !context.json && fancy() }
    }

    /// None, for what is compared.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Paint { on: false }
    }

    pub(super) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    pub(super) fn faint(self, text: impl Display) -> String {
        self.with("2", text)
    }

    pub(super) fn bad(self, text: impl Display) -> String {
        self.with("1;31", text)
    }

    pub(super) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// `text` in lines of at most 80 columns, each behind `indent`. A word is never cut.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    wrapped_to(text, indent, COLUMNS)
}

/// The same in lines of at most `columns`.
pub(super) fn wrapped_to(text: &str, indent: &str, columns: usize) -> String {
    let mut lines = vec![indent.to_owned()];
    let width = |text: &str| text.chars().count();
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let begun = width(line) > width(indent);
        if begun && width(line) + 1 + width(word) > columns {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push_str(if begun { " " } else { "" });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// A stranger's text in lines of at most 100 columns, each behind `indent`.
pub(super) fn cell_to_lines(text: &str, indent: &str) -> String {
    wrapped_to(&cell(text, usize::MAX), indent, WIDE)
}

/// A time that a person reads at a glance: `350 ms`, `45 s`, `12 min`, `3 h 12 min`, `2 d 4 h`.
pub(super) fn span(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match () {
        () if ms < 1_000 => format!("{ms} ms"),
        () if seconds < 60 => format!("{seconds} s"),
        () if minutes < 60 => format!("{minutes} min"),
        () if hours < 24 => format!("{hours} h {} min", minutes % 60),
        () => format!("{days} d {} h", hours % 24),
    }
}

/// A stranger's text, without what would change how a terminal shows the rest, and not longer than `columns`.
pub(super) fn cell(text: &str, columns: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if plain.chars().count() <= columns {
        return plain;
    }
    plain.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [999, 59_000, 3_599_000, 11_520_000, 187_200_000].map(span);
        assert_eq!(shown, ["999 ms", "59 s", "59 min", "3 h 12 min", "2 d 4 h"]);
    }

    #[test]
    fn a_screen_that_is_too_long_says_so_in_its_last_row() {
        let fits = |height| fitting("a\nb\nc", height, str::to_owned);
        assert_eq!(fits(None), ["a", "b", "c"]);
        assert_eq!(fits(Some(3)), ["a", "b", "c"]);
        assert_eq!(fits(Some(2)), ["a", "… 2 more lines: make the window higher, or leave out --watch"]);
        assert_eq!(fits(Some(1)).len(), 1);
        assert_eq!(fits(Some(0)), ["a", "b", "c"], "a terminal without a size");
    }

    #[test]
    fn words_stay_whole_and_lines_short() {
        let text = "word ".repeat(40) + &"x".repeat(100);
        let lines = wrapped(&text, "  ");
        assert!(lines.lines().all(|line| line.starts_with("  ") && (line.len() <= COLUMNS || line.len() == 102)), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 41);
    }

    #[test]
    fn names_can_not_paint_the_screen() {
        assert_eq!(cell("a\x1b[31mb", 20), "a?[31mb");
        assert_eq!(cell("abcdef", 4), "abc…");
    }
}
