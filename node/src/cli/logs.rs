//! `infernet logs`: the log file of a home, as a person reads it.

use super::{Context, exit, exit::Exit};
use crate::logfile::{self, LOG_FILE, LOG_FILES};
use clap::Args;
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

/// How often a followed log is looked at; a person notices no less.
const LOOK: Duration = Duration::from_millis(200);
/// The longest line that is shown; a longer one is shown in pieces.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// More lines than all files of the log hold.
const MAX_LINES: u64 = 1_000_000;

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Go on with what is logged from now on, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=MAX_LINES))]
    lines: u64,
}

pub(super) async fn run(context: &Context, args: LogsArgs) -> Result<(), Exit> {
    let failed =
        |error: io::Error| Exit::new(exit::CONFIG, format!("can't read the log in {}: {error}", context.home.display()));
    let lines = usize::try_from(args.lines).unwrap_or(usize::MAX);
    let (last, mut tail) = last(&context.home, lines).map_err(failed)?;
    if !args.follow && last.is_empty() && tail.file.is_none() {
        let text = format!("no {LOG_FILE} in {}; `infernet start` writes it, unless log_file = false", context.home.display());
        return Err(Exit::new(exit::CONFIG, text));
    }
    for line in last {
        show(context, &line)?;
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        tail.read_on(|line| show(context, line)).map_err(failed)??;
        tokio::select! {
            () = sleep(LOOK) => {}
            // Nobody's work is cut short: the end of looking is no failure.
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// The last lines of all files, oldest first, and the place where the newest file goes on.
fn last(home: &Path, lines: usize) -> io::Result<(VecDeque<String>, Tail)> {
    let mut last = VecDeque::new();
    let mut keep = |line: &str| {
        last.push_back(line.to_owned());
        if last.len() > lines {
            last.pop_front();
        }
        Ok(())
    };
    for n in (1..LOG_FILES).rev() {
        let Ok(file) = File::open(logfile::path(home, n)) else { continue };
        let mut old = Tail { path: PathBuf::new(), file: Some(BufReader::new(file)), part: Vec::new() };
        old.read_lines(&mut keep)?.unwrap_or_default();
    }
    let mut tail = Tail { path: logfile::path(home, 0), file: None, part: Vec::new() };
    tail.open()?;
    tail.read_lines(&mut keep)?.unwrap_or_default();
    Ok((last, tail))
}

/// A place in a file that grows, and is replaced by a new one now and then.
pub(super) struct Tail {
    path: PathBuf,
    file: Option<BufReader<File>>,
    part: Vec<u8>,
}

type Shown = Result<(), Exit>;

impl Tail {
    fn open(&mut self) -> io::Result<()> {
        self.file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(BufReader::new(opened?)),
        };
        Ok(())
    }

    /// Reads what is new; if the file was replaced, the rest of the old one first.
    fn read_on(&mut self, mut show: impl FnMut(&str) -> Shown) -> io::Result<Shown> {
        // Asked before reading: what is written meanwhile is either in the old file or found next time.
        let replaced = self.is_replaced();
        if let Err(exit) = self.read_lines(&mut show)? {
            return Ok(Err(exit));
        }
        if replaced {
            self.open()?;
            return self.read_lines(&mut show);
        }
        Ok(Ok(()))
    }

    fn is_replaced(&self) -> bool {
        let now = fs::metadata(&self.path).map(|about| (about.dev(), about.ino())).ok();
        let ours = self.file.as_ref().and_then(|file| file.get_ref().metadata().ok()).map(|about| (about.dev(), about.ino()));
        now.is_some() && now != ours
    }

    /// Shows whole lines up to the file's end; the begin of an unfinished one is kept.
    fn read_lines(&mut self, show: &mut impl FnMut(&str) -> Shown) -> io::Result<Shown> {
        let Some(file) = &mut self.file else { return Ok(Ok(())) };
        loop {
            let room = MAX_LINE_BYTES.saturating_sub(self.part.len() as u64);
            file.by_ref().take(room).read_until(b'\n', &mut self.part)?;
            let is_whole = self.part.last() == Some(&b'\n') || self.part.len() as u64 >= MAX_LINE_BYTES;
            if !is_whole {
                return Ok(Ok(()));
            }
            let line = String::from_utf8_lossy(&self.part).trim_end().to_owned();
            self.part.clear();
            if let Err(exit) = show(&line) {
                return Ok(Err(exit));
            }
        }
    }
}

/// The last `lines` of the log of `home` and, from the second call on, what is new, as a person reads it. `tail` is where to go on.
pub(super) fn read_on(home: &Path, lines: usize, tail: &mut Option<Tail>) -> io::Result<Vec<String>> {
    let Some(tail) = tail else {
        let (last, begun) = last(home, lines)?;
        *tail = Some(begun);
        return Ok(last.iter().map(|line| readable(line)).collect());
    };
    let mut new = VecDeque::new();
    let keep = |line: &str| {
        new.push_back(readable(line));
        if new.len() > lines {
            new.pop_front();
        }
        Ok(())
    };
    tail.read_on(keep)?.unwrap_or_default();
    Ok(new.into())
}

fn show(context: &Context, line: &str) -> Shown {
    if context.json {
        context.print(line);
    } else {
        context.print(readable(line));
    }
    Ok(())
}

/// `2026-11-25 13:05:07 INFO message key=value (seller me=…)`; what is no log line is shown as it is.
fn readable(line: &str) -> String {
    let Ok(Value::Object(event)) = serde_json::from_str::<Value>(line) else { return line.into() };
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = text("timestamp").get(..19).unwrap_or_default().replace('T', " ");
    let fields = event.get("fields").and_then(Value::as_object);
    let message = fields.and_then(|fields| fields.get("message")).map(plain).unwrap_or_default();
    let rest = fields.map(pairs).unwrap_or_default();
    let span = event.get("span").and_then(Value::as_object).map(|span| {
        let name = span.get("name").map(plain).unwrap_or_default();
        format!(" ({name}{})", pairs(span))
    });
    format!("{time} {:<5} {message}{rest}{}", text("level"), span.unwrap_or_default())
}

/// ` key=value` for each but those that are shown elsewhere.
fn pairs(fields: &Map<String, Value>) -> String {
    let shown = fields.iter().filter(|(key, _)| !["message", "name"].contains(&key.as_str()));
    shown.map(|(key, value)| format!(" {key}={}", plain(value))).collect()
}

/// Control characters of a hostile name would move the cursor.
fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_made_readable() {
        let line = r#"{"timestamp":"2026-11-25T13:05:07.123Z","level":"INFO","fields":{"message":"catalogue changed","models":2},"target":"x","span":{"me":"abc","name":"seller"},"spans":[]}"#;
        assert_eq!(readable(line), "2026-11-25 13:05:07 INFO  catalogue changed models=2 (seller me=abc)");
        assert_eq!(readable(r#"{"level":"WARN","fields":{"message":"a\u001b[2Jb"}}"#), " WARN  a [2Jb");
        assert_eq!(readable("not json"), "not json");
    }

    #[test]
    fn following_loses_no_line_when_the_log_turns() {
        let home = tempfile::tempdir().unwrap();
        let (first, second) = (logfile::path(home.path(), 0), logfile::path(home.path(), 1));
        let append = |path: &Path, text: &str| {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&second, "a\n");
        append(&first, "b\nc\nd");
        let (lines, mut tail) = last(home.path(), 2).unwrap();
        assert_eq!(lines, ["b", "c"]);
        append(&first, "e\n");
        fs::rename(&first, &second).unwrap();
        append(&second, "f\n");
        append(&first, "g\n");
        let mut seen = Vec::new();
        for _ in 0..2 {
            let show = |line: &str| {
                seen.push(line.to_owned());
                Ok(())
            };
            tail.read_on(show).unwrap().unwrap();
        }
        assert_eq!(seen, ["de", "f", "g"]);
        assert_eq!(
            last(home.path(), 100).unwrap().0,
            ["a", "b", "c", "de", "f", "g"].map(str::to_owned).into_iter().skip(1).collect::<VecDeque<_>>()
        );
    }

    #[test]
    fn no_log_is_no_lines() {
        let home = tempfile::tempdir().unwrap();
        let (lines, tail) = last(home.path(), 5).unwrap();
        assert!(lines.is_empty() && tail.file.is_none());
    }
}
