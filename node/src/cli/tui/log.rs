//! Where the log is read. Pure.
//!
//! Lines are wrapped, so how many rows lie between a reader and the end is known only when the log is drawn, and changes with the
//! window. What is kept is the row that stands on top, by the number of its line, which no later line changes.

/// A row of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The number of its line: the first one ever seen is 0.
    pub(super) line: u64,
    /// Which row of that line.
    pub(super) row: usize,
}

/// A reader of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reader {
    /// What stands on top; none: the newest line stands at the bottom, whatever comes.
    top: Option<Place>,
    /// Rows to go down from there, or up if below zero: since the log was drawn.
    moved: i64,
}

impl Reader {
    /// Goes `rows` up or down when the log is drawn next.
    pub(super) fn go(&mut self, rows: usize, up: bool) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.moved = self.moved.saturating_add(if up { -rows } else { rows });
    }

    /// Which of `rows` is the first that a pane of `height` shows, and where the reader stands from then on.
    pub(super) fn stand(self, rows: &[Place], height: usize) -> (usize, Self) {
        let last = rows.len().saturating_sub(height);
        // What stood on top may be forgotten by now, or be a row that a wider window has not: the next one then.
        let here = self.top.map_or(last, |top| rows.partition_point(|row| *row < top).min(last));
        let by = usize::try_from(self.moved.unsigned_abs()).unwrap_or(usize::MAX);
        let first = if self.moved < 0 { here.saturating_sub(by) } else { here.saturating_add(by).min(last) };
        let top = rows.get(first).filter(|_| first < last).copied();
        (first, Reader { top, moved: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines `from` to `to`, of `each` rows.
    fn rows(from: u64, to: u64, each: usize) -> Vec<Place> {
        (from..to).flat_map(|line| (0..each).map(move |row| Place { line, row })).collect()
    }

    fn up(rows: usize) -> Reader {
        let mut reader = Reader::default();
        reader.go(rows, true);
        reader
    }

    #[test]
    fn who_reads_keeps_their_row_however_many_rows_a_new_line_takes() {
        let (first, reader) = up(4).stand(&rows(0, 10, 3), 6);
        assert_eq!((first, reader.top), (20, Some(Place { line: 6, row: 2 })));
        assert_eq!(reader.stand(&rows(0, 15, 3), 6), (20, reader), "new lines change nothing");
        assert_eq!(reader.stand(&rows(5, 15, 3), 6), (5, reader), "old ones that go neither");
        assert_eq!(reader.stand(&rows(0, 10, 1), 3).0, 7, "in a wider window the line after it comes");
        assert_eq!(reader.stand(&rows(9, 30, 3), 6).0, 0, "what is forgotten is the oldest there is");
    }

    #[test]
    fn the_end_is_followed_until_somebody_goes_up_and_again_when_they_are_back() {
        let follows = Reader::default();
        assert_eq!(follows.stand(&rows(0, 10, 2), 6), (14, follows));
        assert_eq!(follows.stand(&rows(0, 11, 2), 6), (16, follows));
        let (_, mut reader) = up(2).stand(&rows(0, 10, 2), 6);
        assert!(reader.top.is_some());
        reader.go(usize::MAX, false);
        assert_eq!(reader.stand(&rows(0, 11, 2), 6), (16, follows));
        assert_eq!(up(usize::MAX).stand(&rows(0, 10, 2), 6).0, 0);
        assert_eq!(up(5).stand(&rows(0, 2, 2), 6), (0, follows), "there is nothing to scroll");
    }
}
