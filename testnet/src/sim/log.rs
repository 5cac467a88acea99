//! What happened, in order: a digest by which two runs are compared, and lines for people.
//!
//! Every line goes into the digest, whether or not anybody reads it. The digest is of the lines' numbers, not of their text, and
//! nothing in it depends on the machine.

use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// Bytes gathered before they are hashed.
const BATCH: usize = 8 * 1024;
/// Lines kept for a reader, the last ones: an evening's reading, and some tens of megabytes.
const MAX_LINES: usize = 400_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    hasher: Sha256,
    batch: Vec<u8>,
    entries: u64,
    /// The lines, if they are wanted.
    lines: Option<std::collections::VecDeque<String>>,
}

/// One fact of a line: its name and value.
pub type Fact = (&'static str, u64);

impl Log {
    /// A log that keeps its lines if `traced`.
    pub fn new(traced: bool) -> Self {
        Log { lines: traced.then(Default::default), ..Log::default() }
    }

    /// Node `who` at `ms` did `what`.
    pub fn note(&mut self, ms: u64, who: impl fmt::Display, number: u32, what: &'static str, facts: &[Fact]) {
        self.entries += 1;
        self.batch.extend_from_slice(&ms.to_le_bytes());
        self.batch.extend_from_slice(&number.to_le_bytes());
        self.batch.extend_from_slice(what.as_bytes());
        facts.iter().for_each(|(_, value)| self.batch.extend_from_slice(&value.to_le_bytes()));
        if self.batch.len() >= BATCH {
            self.hasher.update(&self.batch);
            self.batch.clear();
        }
        if let Some(lines) = &mut self.lines {
            if lines.len() >= MAX_LINES {
                lines.pop_front();
            }
            lines.push_back(line(ms, who, what, facts));
        }
    }

    /// How many lines there were.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The digest of all lines.
    pub fn digest(&mut self) -> String {
        self.hasher.update(&self.batch);
        self.batch.clear();
        hex::encode(self.hasher.clone().finalize())
    }

    /// The lines, if they were kept.
    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().flatten()
    }
}

fn line(ms: u64, who: impl fmt::Display, what: &str, facts: &[Fact]) -> String {
    let mut line = format!("{:>4}.{:03} s  {who:<12} {what}", ms / 1_000, ms % 1_000);
    for (name, value) in facts {
        // Writing to a string can't fail.
        let _ = write!(line, "  {name} {value}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(traced: bool, number: u32, value: u64) -> String {
        let mut log = Log::new(traced);
        log.note(1_234, "worker 7", number, "bids", &[("price", value)]);
        log.digest()
    }

    #[test]
    fn what_is_read_changes_nothing_and_what_happened_does() {
        assert_eq!(digest(true, 7, 5), digest(false, 7, 5));
        assert_ne!(digest(false, 7, 5), digest(false, 8, 5));
        assert_ne!(digest(false, 7, 5), digest(false, 7, 6));
    }

    #[test]
    fn a_line_reads_like_one() {
        let mut log = Log::new(true);
        log.note(1_234, "worker 7", 7, "bids", &[("price", 5)]);
        assert_eq!(log.lines().next().map(String::as_str), Some("   1.234 s  worker 7     bids  price 5"));
    }
}
