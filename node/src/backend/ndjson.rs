//! Bytes to lines, for engines that stream one JSON object per line, or events. Pure.

/// The longest line read. A token with its log probabilities is a few kilobytes; an engine that answers all at once sends one
/// line with everything.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;

/// A line is longer than [`MAX_LINE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Collects bytes and gives back whole lines. Holds one line and one read at most.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes at the front that are known to hold no line feed, so that a slow long line is not searched again and again.
    searched: usize,
}

impl LineBuffer {
    /// Adds what was read.
    pub(super) fn push(&mut self, read: &[u8]) {
        self.bytes.extend_from_slice(read);
    }

    /// The next whole line, without its line feed. Empty lines are skipped.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            match self.next_or_empty()? {
                Some(line) if line.is_empty() => {}
                line => return Ok(line),
            }
        }
    }

    /// The next whole line, without its line feed and what blanks are before that.
    pub(super) fn next_or_empty(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(at) = self.line_feed() else {
            return if self.bytes.len() > MAX_LINE_BYTES { Err(TooLong) } else { Ok(None) };
        };
        let mut line: Vec<u8> = self.bytes.drain(..=at).collect();
        self.searched = 0;
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        if line.len() > MAX_LINE_BYTES { Err(TooLong) } else { Ok(Some(line)) }
    }

    /// Whatever follows the last line feed, when nothing more comes.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        self.searched = 0;
        let rest = std::mem::take(&mut self.bytes);
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }

    fn line_feed(&mut self) -> Option<usize> {
        let found = self.bytes.iter().skip(self.searched).position(|byte| *byte == b'\n');
        let at = found.map(|offset| self.searched + offset);
        self.searched = self.bytes.len();
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<String>, TooLong> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for piece in pieces {
            buffer.push(piece);
            while let Some(line) = buffer.next_line()? {
                lines.push(String::from_utf8(line).unwrap());
            }
        }
        lines.extend(buffer.rest().map(|rest| String::from_utf8(rest).unwrap()));
        Ok(lines)
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(
            read_all(&[b"{\"a\"", b":1}\n{}", b"\r\n\n\n", b"x\ny"]),
            Ok(vec!["{\"a\":1}".into(), "{}".into(), "x".into(), "y".into()])
        );
    }

    #[test]
    fn an_endless_line_is_refused() {
        let piece = vec![b'x'; MAX_LINE_BYTES / 2 + 1];
        assert_eq!(read_all(&[&piece]).map(|lines| lines.len()), Ok(1));
        assert_eq!(read_all(&[&piece, &piece]), Err(TooLong));
        assert_eq!(read_all(&[&piece, &piece, b"\n"]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[a-c\n]{0,64}", cut in 0usize..64) {
            let bytes = text.as_bytes();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read_all(&[left, right]), read_all(&[bytes]));
        }
    }
}
