//! The terminal while it is ours: keys one by one, and the second screen. The only file that names `crossterm`.
//!
//! However the command ends, the terminal is given back as it was: at the end of [`Raw`]'s life, and in a panic before its
//! message is shown.

use super::state::Key;
use crossterm::{
    cursor::Show,
    event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use futures::StreamExt;
use std::{io, panic};

/// The terminal is ours while this lives.
pub(super) struct Raw(());

impl Raw {
    /// Takes it.
    pub(super) fn enter() -> io::Result<Self> {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            restore();
            told(what);
        }));
        enable_raw_mode()?;
        // From here on it is given back, even if the next step fails.
        let raw = Raw(());
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Whoever has closed the terminal has nothing to be restored.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// What a person does.
pub(super) enum Act {
    /// Presses a key.
    Key(Key),
    /// Makes the window larger or smaller, or something that means nothing here.
    Other,
}

/// What comes from the terminal.
pub(super) struct Acts(EventStream);

impl Acts {
    pub(super) fn new() -> Self {
        Acts(EventStream::new())
    }

    /// The next one; an error when the terminal is gone. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> io::Result<Act> {
        match self.0.next().await {
            Some(event) => event.map(|event| act(&event)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn act(event: &Event) -> Act {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => self::key(key).map_or(Act::Other, Act::Key),
        _ => Act::Other,
    }
}

fn key(event: &KeyEvent) -> Option<Key> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return (event.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match event.code {
        KeyCode::Char(sign) => Key::Char(sign),
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_c_leaves_and_other_chords_are_no_letters() {
        let pressed = |code, modifiers| key(&KeyEvent::new(code, modifiers));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(pressed(KeyCode::Char('d'), KeyModifiers::CONTROL), None);
        assert_eq!(pressed(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Key::Char('G')));
        assert_eq!(pressed(KeyCode::F(5), KeyModifiers::NONE), None);
    }

    /// In a terminal of its own, since this test may have none.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        const CHILD: &str = "TERMINAL_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let _raw = Raw::enter().expect("a terminal");
            panic!("on purpose");
        }
        let this = std::env::current_exe().expect("a program");
        let name = "cli::tui::terminal::tests::a_panic_gives_the_terminal_back_before_it_is_told";
        let line = format!("'{}' --exact {name} --nocapture; stty -a", this.display());
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env(CHILD, "1").stdin(std::process::Stdio::null());
        let Ok(shown) = command.output() else {
            return eprintln!("SKIPPED {name}: there is no `script`");
        };
        let text = String::from_utf8_lossy(&shown.stdout);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} in {text:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("on purpose"), "{text:?}");
        assert!(text.contains(" icanon") && text.contains(" echo "), "{text}");
    }
}
