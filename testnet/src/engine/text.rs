//! From tokens to text that may be sent.
//!
//! A byte-level token is a run of bytes, not of characters: one character may span several tokens, and a stop string
//! may too. [`TextOut`] keeps back what may still change its meaning, so that each piece it gives out is whole.

use std::collections::BTreeMap;

/// The bytes that a byte-level BPE token stands for. Characters outside the byte alphabet (there are none in ours)
/// stand for themselves.
pub(super) fn token_bytes(token: &str, alphabet: &BTreeMap<char, u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match alphabet.get(&c) {
            Some(byte) => bytes.push(*byte),
            None => bytes.extend_from_slice(c.to_string().as_bytes()),
        }
    }
    bytes
}

/// GPT-2's byte alphabet: printable Latin-1 bytes are themselves, the others are moved, in order, to U+0100 and up.
pub(super) fn byte_alphabet() -> BTreeMap<char, u8> {
    let mut moved = 0x100..;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let c = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
                _ => moved.next().and_then(char::from_u32),
            };
            c.map(|c| (c, byte))
        })
        .collect()
}

/// What one token's bytes let out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Text that is safe to send, perhaps none.
    Text(String),
    /// The text before a stop string; nothing may follow it.
    Stopped(String),
}

/// Assembles characters, watches for stop strings. As Ollama does, it keeps the whole pending text back while its end
/// could be the beginning of a stop string.
#[derive(Debug, Default)]
pub(super) struct TextOut {
    stops: Vec<String>,
    /// Beginning of a character, at most three bytes.
    partial: Vec<u8>,
    /// Text that may turn out to begin a stop string; shorter than a token and the longest stop together.
    held: String,
}

impl TextOut {
    /// `stops` that are empty are left out: they would stop everything.
    pub(super) fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { stops, ..Self::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Fed {
        self.partial.extend_from_slice(bytes);
        self.held.push_str(&take_characters(&mut self.partial));
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s)).min() {
            self.held.truncate(at);
            return Fed::Stopped(std::mem::take(&mut self.held));
        }
        if self.stops.iter().any(|stop| may_begin(&self.held, stop)) {
            return Fed::Text(String::new());
        }
        Fed::Text(std::mem::take(&mut self.held))
    }

    /// What was kept back, at the end of an answer. An unfinished character is dropped.
    pub(super) fn finish(&mut self) -> String {
        self.partial.clear();
        std::mem::take(&mut self.held)
    }
}

/// Whether some end of `text` is a beginning of `stop`.
fn may_begin(text: &str, stop: &str) -> bool {
    stop.char_indices().skip(1).any(|(at, _)| text.ends_with(stop.get(..at).unwrap_or(stop)))
}

/// Takes the whole characters off the front of `bytes`; what can never become a character comes out as U+FFFD.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    while let Some(chunk) = rest.utf8_chunks().next() {
        text.push_str(chunk.valid());
        let (_, after) = rest.split_at(chunk.valid().len());
        let unfinished = std::str::from_utf8(after).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
        if unfinished {
            rest = after;
            break;
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        rest = after.split_at(chunk.invalid().len()).1;
    }
    let done = bytes.len() - rest.len();
    bytes.drain(..done);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&[u8]], expected: &[&str], end: &str) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut out = TextOut::new(&stops);
        let said: Vec<String> = pieces
            .iter()
            .map(|piece| match out.push(piece) {
                Fed::Text(text) => text,
                Fed::Stopped(text) => text + "[stop]",
            })
            .collect();
        assert_eq!(said, expected);
        assert_eq!(out.finish(), end);
    }

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet.get(&'Ġ'), Some(&b' '));
        assert_eq!(alphabet.get(&'Ċ'), Some(&b'\n'));
        assert_eq!(token_bytes("Ġfo", &alphabet), b" fo");
        assert_eq!(token_bytes("ðŁ", &alphabet), [0xf0, 0x9f]);
    }

    #[test]
    fn characters_are_never_split() {
        check(&[], &[&[0xf0], &[0x9f, 0xa6], &[0x8a], b"!"], &["", "", "🦊", "!"], "");
        check(&[], &["aé".as_bytes().split_at(2).0, &[0xa9]], &["a", "é"], "");
    }

    #[test]
    fn impossible_bytes_become_replacements_at_once() {
        check(&[], &[&[0xff], &[0x80, b'a'], &[0xe2], b"b"], &["\u{fffd}", "\u{fffd}a", "", "\u{fffd}b"], "");
        check(&[], &[&[0xff, 0xf0, 0x9f]], &["\u{fffd}"], "");
    }

    #[test]
    fn unfinished_character_is_dropped_at_the_end() {
        check(&[], &[b"a", &[0xf0, 0x9f]], &["a", ""], "");
    }

    #[test]
    fn stop_string_over_two_tokens_cuts_before_it() {
        check(&["fox"], &[b"ave", b" fo", b"x runs"], &["ave", "", " [stop]"], "");
    }

    #[test]
    fn false_alarm_is_sent_with_what_follows() {
        check(&["fox"], &[b" fo", b"g"], &["", " fog"], "");
        check(&["fox"], &[b" fo"], &[""], " fo");
    }

    #[test]
    fn earliest_of_several_stops_wins() {
        check(&["c", "b", ""], &[b"abc"], &["a[stop]"], "");
    }

    #[test]
    fn stop_string_may_hold_wide_characters() {
        let stop = "→🦊";
        check(&[stop], &["a→".as_bytes(), "🦊".as_bytes()], &["", "a[stop]"], "");
        check(&[stop], &["a→".as_bytes(), b"b"], &["", "a→b"], "");
    }
}
