//! A program's output, within a time and a size: a tool of a driver may hang with its driver.

use crate::clock;
use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// What a tool that tells of some GPUs may print.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How often it is looked whether the tool is done.
const LOOK: Duration = Duration::from_millis(20);

/// A program that is asked again and again. One that could not be ended (it may wait for its driver inside the kernel, where no
/// signal reaches it, or have left a child that holds its output) is not started anew before it is gone: one hangs, not hundreds.
#[derive(Default)]
pub(super) struct Tool {
    left: Option<Asked>,
}

/// One that runs.
struct Asked {
    child: Child,
    /// All that it printed, or nothing if that was no text.
    printed: Receiver<Option<String>>,
    /// Whether its output has ended.
    is_read: bool,
}

impl Tool {
    /// What `program args…` prints, if it ends well within `limit`. Blocks as long, and no longer.
    pub(super) fn output(&mut self, program: &str, args: &[&str], limit: Duration) -> Option<String> {
        if self.left.as_mut().is_some_and(|left| !left.is_gone()) {
            return None;
        }
        self.left = None;
        let begin = clock::instant();
        let mut asked = Asked::start(program, args)?;
        let text = asked.wait(begin, limit);
        if text.is_none() {
            let _ = asked.child.kill();
            self.left = Some(asked);
        }
        text?
    }
}

impl Asked {
    fn start(program: &str, args: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let stdout = child.stdout.take()?;
        let (send, printed) = sync_channel(1);
        // Else a long output would fill the pipe, and the program wait for a reader.
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.take(MAX_OUTPUT).read_to_string(&mut text);
            let _ = send.send(read.ok().map(|_| text));
        });
        Some(Asked { child, printed, is_read: false })
    }

    /// `None` if it did not end in time; else what it printed, if it ended well.
    fn wait(&mut self, begin: Instant, limit: Duration) -> Option<Option<String>> {
        let left = || limit.saturating_sub(begin.elapsed());
        let text = self.printed.recv_timeout(left()).ok()?;
        self.is_read = true;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(text.filter(|_| status.success())),
                Ok(None) if !left().is_zero() => thread::sleep(LOOK),
                _ => return None,
            }
        }
    }

    fn is_gone(&mut self) -> bool {
        self.is_read = self.is_read || self.printed.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty);
        self.is_read && !matches!(self.child.try_wait(), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(program: &str, args: &[&str], limit: Duration) -> Option<String> {
        Tool::default().output(program, args, limit)
    }

    #[test]
    fn only_what_ends_well_and_in_time_counts() {
        let long = Duration::from_secs(60);
        assert_eq!(output("sh", &["-c", "echo a"], long).as_deref(), Some("a\n"));
        assert_eq!(output("sh", &["-c", "echo a; exit 1"], long), None);
        assert_eq!(output("/nonexistent/tool", &[], long), None);
        assert_eq!(output("sh", &["-c", "exec sleep 100"], Duration::from_millis(50)), None);
        let many = output("sh", &["-c", "head -c 200000 /dev/zero | tr '\\0' x"], long);
        assert_eq!(many.map(|text| text.len()), Some(200_000), "more than a pipe holds");
    }

    #[test]
    fn a_child_that_holds_the_output_holds_up_nobody_and_is_not_joined_by_another() {
        let (mut tool, short) = (Tool::default(), Duration::from_millis(200));
        let begin = clock::instant();
        // The shell ends at once; what it leaves behind keeps the pipe open until it reads a line.
        let (input, fifo) = (tempfile::tempdir().expect("a place"), "fifo");
        let fifo = input.path().join(fifo);
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("runs").success());
        let script = format!("(read line < {}) & exit 0", fifo.display());
        assert_eq!(tool.output("sh", &["-c", &script], short), None);
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(tool.output("sh", &["-c", "echo a"], Duration::from_secs(60)), None, "the first is not gone");
        std::fs::write(&fifo, "go\n").expect("it reads");
        let until = clock::instant() + Duration::from_secs(60);
        while tool.output("sh", &["-c", "echo a"], Duration::from_secs(60)).is_none() {
            assert!(clock::instant() < until, "it is gone, and still not asked again");
            thread::sleep(LOOK);
        }
    }
}
