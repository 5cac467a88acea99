//! A command in a terminal of its own: keys go in, and what a person would see can be read.

use super::{DEADLINE, command};
use infernet_node::clock;
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{timeout, timeout_at},
};

/// Of every terminal here.
const COLUMNS: usize = 120;
const ROWS: usize = 40;

/// A command in a terminal, by way of `script` (util-linux).
pub(super) struct Terminal {
    child: Child,
    keys: ChildStdin,
    output: ChildStdout,
    /// Everything that was written.
    pub(super) text: String,
    screen: Screen,
}

impl Terminal {
    /// `infernet args…` in `home`; `None`, and a word about it, if there is no `script`.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(super) fn open(home: &Path, args: &[&str]) -> Option<Self> {
        let inner = command(home, args);
        let inner = inner.as_std();
        let words: Vec<String> = [inner.get_program()]
            .into_iter()
            .chain(inner.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let pid = home.join("terminal.pid");
        let line = format!("stty cols {COLUMNS} rows {ROWS}; echo $$ > '{}'; exec {}", pid.display(), words.join(" "));
        let mut outer = Command::new("script");
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh").env("LC_ALL", "C");
        outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(mut child) = outer.spawn() else {
            eprintln!("SKIPPED: there is no `script`, so there is no terminal");
            return None;
        };
        let (keys, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Some(Terminal { child, keys, output, text: String::new(), screen: Screen::default() })
    }

    /// Presses keys.
    pub(super) async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.expect("the terminal takes keys");
    }

    /// Waits until all of `words` are on the screen.
    pub(super) async fn shows(&mut self, words: &[&str]) {
        // In all: a screen that lives always says something.
        let until = clock::deadline(DEADLINE);
        while !words.iter().all(|word| self.screen.shows(word)) {
            let more = timeout_at(until, self.read()).await;
            assert!(more.is_ok_and(|more| more), "{words:?} in\n{}", self.screen.rows().join("\n"));
        }
    }

    /// Sends the command a signal.
    pub(super) fn signal(&self, home: &Path, name: &str) {
        let pid = std::fs::read_to_string(home.join("terminal.pid")).expect("it has begun");
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), pid.trim()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The exit code, when it has ended.
    pub(super) async fn end(&mut self) -> Option<i32> {
        let ended = async {
            while self.read().await {}
            self.child.wait().await.expect("a status").code()
        };
        timeout(DEADLINE, ended).await.expect("ends in time")
    }

    /// `false` at the end.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let n = self.output.read(&mut bytes).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        self.screen.write(&text);
        self.text.push_str(&text);
        n > 0
    }
}

/// What stands where: enough of a terminal for what the command writes.
#[derive(Debug)]
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A sequence that has not ended yet.
    escape: Option<String>,
}

impl Default for Screen {
    fn default() -> Self {
        Screen { cells: vec![vec![' '; COLUMNS]; ROWS], row: 0, column: 0, escape: None }
    }
}

impl Screen {
    fn write(&mut self, text: &str) {
        for sign in text.chars() {
            match (self.escape.take(), sign) {
                (Some(mut escape), sign) => {
                    escape.push(sign);
                    let ended = escape != "[" && sign.is_ascii_alphabetic() || escape.len() == 1 && sign != '[';
                    if ended { self.obey(&escape) } else { self.escape = Some(escape) }
                }
                (None, '\u{1b}') => self.escape = Some(String::new()),
                (None, '\r') => self.column = 0,
                (None, '\n') => self.row += 1,
                (None, sign) => {
                    if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
                        *cell = sign;
                    }
                    self.column += 1;
                }
            }
        }
    }

    /// Moves and wipes; colours are nothing to it.
    fn obey(&mut self, escape: &str) {
        if let Some(place) = escape.strip_prefix('[').and_then(|rest| rest.strip_suffix('H')) {
            let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok()).unwrap_or(1) - 1;
            let mut parts = place.split(';');
            (self.row, self.column) = (number(parts.next()), number(parts.next()));
        } else if ["[2J", "[?1049h"].contains(&escape) {
            self.cells = Screen::default().cells;
        }
    }

    fn rows(&self) -> Vec<String> {
        self.cells.iter().map(|row| row.iter().collect()).collect()
    }

    fn shows(&self, word: &str) -> bool {
        self.rows().iter().any(|row| row.contains(word))
    }
}
