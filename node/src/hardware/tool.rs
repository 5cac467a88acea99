//! A program's output, within a time and a size: a tool of a driver may hang with its driver.

use crate::clock;
use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// What a tool that tells of some GPUs may print.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How often it is looked whether the tool is done.
const LOOK: Duration = Duration::from_millis(20);

/// What `program args…` prints, if it ends well within `limit`. Blocks as long.
pub(super) fn output(program: &str, args: &[&str], limit: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let stdout = child.stdout.take()?;
    // Else a long output would fill the pipe, and the program wait for a reader.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.take(MAX_OUTPUT).read_to_string(&mut text).ok().map(|_| text)
    });
    let begin = clock::instant();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if begin.elapsed() < limit => thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let text = reader.join().ok().flatten()?;
    ended.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
