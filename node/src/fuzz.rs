//! Fuzz targets: every decoder and state machine of this crate as a function of bytes that must not panic. Compiled for tests,
//! which replay the corpora in `fuzz/corpus`, and for the fuzzer (`fuzz/run`); absent from every other build.
//!
//! A decoder gets the bytes as its input. A state machine gets them as a list of operations ([`Ops`]), and its invariants are
//! checked after each; what a message's signature would keep from being changed is changed before it is signed.

mod auction;
mod session;
mod worker;

use crate::{
    api, api_keys, backend,
    buyer::{ChatOrder, Prepared},
    chat::framing::FrameReader,
    config,
    control::schema::{ChatOrderBody, ChatStep, StatusReport},
    identity, operator, store,
};
use futures::FutureExt;

/// A target: its name, which is its corpus' too, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: [Target; 12] = [
    ("framing", framing),
    ("ollama", backend::fuzz_ollama),
    ("openai", backend::fuzz_openai),
    ("config", config::fuzz_file),
    ("files", files),
    ("control", control),
    ("api", api::fuzz_bodies),
    ("journal_file", store::fuzz_journal_file),
    ("journal", store::fuzz_journal),
    ("worker", worker::run),
    ("auction", auction::run),
    ("session", session::run),
];

/// Bytes as choices. When they are used up, every choice is the first.
pub(crate) struct Ops<'a>(&'a [u8]);

impl<'a> Ops<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Ops(data)
    }

    /// What to do next; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// One of `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    /// Small numbers mostly, and the largest.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => byte.into(),
            byte @ 200..=253 => 1 << (byte - 200),
            254 => u64::from(u32::MAX),
            255 => u64::MAX,
        }
    }

    /// At most `n` bytes.
    pub(crate) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A stream as the other side of a chat sends it.
fn framing(data: &[u8]) {
    let mut reader = FrameReader::new(data);
    let mut read = 0;
    while let Some(Ok(raw)) = reader.next().now_or_never() {
        read += 4 + raw.bytes.len();
        assert!(read <= data.len());
    }
}

/// The small files of a home, which their owner may have edited.
fn files(data: &[u8]) {
    identity::fuzz_file(data);
    if let Ok(text) = std::str::from_utf8(data) {
        operator::fuzz_file(text);
        api_keys::fuzz_file(text);
    }
}

/// What comes over the control socket: an order to the node, and a node's answers to the command.
fn control(data: &[u8]) {
    if let Ok(body) = serde_json::from_slice::<ChatOrderBody>(data)
        && let Ok(prepared) = Prepared::new(ChatOrder::from(body))
    {
        let _ = prepared.offer(infernet_wire::time::UnixMillis(1_795_000_000_000));
    }
    if let Ok(step) = serde_json::from_slice::<ChatStep>(data) {
        assert!(serde_json::to_vec(&step).is_ok());
    }
    if let Ok(status) = serde_json::from_slice::<StatusReport>(data) {
        assert!(serde_json::to_vec(&status).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn corpora_replay() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let inputs: Vec<_> = fs::read_dir(root.join(name)).expect("every target has a corpus").collect();
            assert!(!inputs.is_empty(), "the corpus of {name} is empty");
            for input in inputs {
                target(&fs::read(input.expect("a file").path()).expect("readable"));
            }
        }
    }
}
