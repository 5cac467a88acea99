//! Bytes to server-sent events, as far as OpenAI's dialect uses them (WHATWG HTML, 9.2.6). Pure.
//!
//! Comments, which engines send to keep a connection open, are no events. A line that is no field at all is refused: something
//! else than an event stream comes, such as a web page.

use crate::backend::ndjson::{LineBuffer, MAX_LINE_BYTES, TooLong};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Whether it is of the type `error`.
    pub(super) is_error: bool,
    /// Its data; lines of it are joined.
    pub(super) data: Vec<u8>,
}

/// Why there is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoEvent {
    /// A line, or an event of many, is longer than any honest one.
    TooLong,
    /// This line is no field of an event.
    Foreign(Vec<u8>),
}

impl From<TooLong> for NoEvent {
    fn from(TooLong: TooLong) -> Self {
        NoEvent::TooLong
    }
}

/// Collects bytes and gives back whole events. Holds one event, one line and one read at most.
#[derive(Debug, Default)]
pub(super) struct EventBuffer {
    lines: LineBuffer,
    data: Option<Vec<u8>>,
    is_error: bool,
}

impl EventBuffer {
    /// Adds what was read.
    pub(super) fn push(&mut self, read: &[u8]) {
        self.lines.push(read);
    }

    /// The next whole event: an empty line ends it.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, NoEvent> {
        while let Some(line) = self.lines.next_or_empty()? {
            if line.is_empty() {
                if let Some(event) = self.take() {
                    return Ok(Some(event));
                }
            } else {
                self.field(line)?;
            }
        }
        Ok(None)
    }

    /// What is left when nothing more comes. The standard drops an event without its empty line; some engines leave that out
    /// after their last one, so it counts if its line is whole.
    pub(super) fn rest(&mut self) -> Option<Event> {
        self.take()
    }

    fn take(&mut self) -> Option<Event> {
        let is_error = std::mem::take(&mut self.is_error);
        self.data.take().map(|data| Event { is_error, data })
    }

    fn field(&mut self, line: Vec<u8>) -> Result<(), NoEvent> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"" | b"id" | b"retry" => Ok(()),
            b"event" => {
                self.is_error = value == b"error";
                Ok(())
            }
            b"data" => self.add(value),
            _ => Err(NoEvent::Foreign(line)),
        }
    }

    fn add(&mut self, value: &[u8]) -> Result<(), NoEvent> {
        let data = self.data.get_or_insert_default();
        if !data.is_empty() {
            data.push(b'\n');
        }
        data.extend_from_slice(value);
        if data.len() > MAX_LINE_BYTES { Err(NoEvent::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every event as text, errors marked; the last one says why it ended early.
    fn read_all(pieces: &[&[u8]]) -> Vec<String> {
        let mut buffer = EventBuffer::default();
        let mut seen = Vec::new();
        let show = |event: Event| {
            let data = String::from_utf8_lossy(&event.data).into_owned();
            if event.is_error { format!("error {data}") } else { data }
        };
        for piece in pieces {
            buffer.push(piece);
            loop {
                match buffer.next_event() {
                    Ok(Some(event)) => seen.push(show(event)),
                    Ok(None) => break,
                    Err(NoEvent::TooLong) => return [seen, vec!["too long".into()]].concat(),
                    Err(NoEvent::Foreign(line)) => {
                        return [seen, vec![format!("foreign {}", String::from_utf8_lossy(&line))]].concat();
                    }
                }
            }
        }
        seen.extend(buffer.rest().map(show));
        seen
    }

    #[test]
    fn events_are_whole_however_they_arrive() {
        assert_eq!(read_all(&[b"data: {\"a\"", b":1}\n\ndata:x\r\n", b"\r\ndata: y\n\n"]), ["{\"a\":1}", "x", "y"]);
        assert_eq!(read_all(&["data: fü".as_bytes().split_at(8).0, &"data: fü".as_bytes()[8..], b"\n\n"]), ["fü"]);
    }

    #[test]
    fn comments_and_unused_fields_are_no_events() {
        assert_eq!(read_all(&[b": ping\n\n:\n\nid: 7\nretry: 1\n\ndata: x\n: ping\n\n"]), ["x"]);
    }

    #[test]
    fn lines_of_data_are_one_event_and_errors_are_marked() {
        assert_eq!(read_all(&[b"data: a\ndata: b\n\nevent: error\ndata: c\n\ndata: d\n\n"]), ["a\nb", "error c", "d"]);
        assert_eq!(read_all(&[b"event: message\ndata: a\n\n"]), ["a"]);
    }

    #[test]
    fn a_last_event_may_lack_its_empty_line_but_not_its_line_feed() {
        assert_eq!(read_all(&[b"data: a\n\ndata: [DONE]\n"]), ["a", "[DONE]"]);
        assert_eq!(read_all(&[b"data: a\n\ndata: [DO"]), ["a"]);
    }

    #[test]
    fn what_is_no_event_stream_is_refused() {
        assert_eq!(read_all(&[b"data: a\n\n<html>\n"]), ["a", "foreign <html>"]);
        assert_eq!(read_all(&[b"{\"error\":\"x\"}\n"]), ["foreign {\"error\":\"x\"}"]);
    }

    #[test]
    fn endless_events_are_refused() {
        let line = [b"data: ".as_slice(), &vec![b'x'; MAX_LINE_BYTES / 2 + 8], b"\n"].concat();
        assert_eq!(read_all(&[&line, &line]), ["too long"]);
        assert_eq!(read_all(&[&line, &line[..line.len() - 1], &line]), ["too long"]);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(data: [ab]{0,3}\n|event: error\n|\n|:c\n|d){0,12}", cut in 0usize..64) {
            let bytes = text.as_bytes();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read_all(&[left, right]), read_all(&[bytes]));
        }
    }
}
