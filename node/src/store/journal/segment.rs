//! The files of a journal: their names, and reading one from end to end.
//!
//! `0000000007.seg` is the seventh segment; `0000000001-0000000008.seg` holds what is still needed of the first eight. Names tell
//! the order, and which files an interrupted compaction has left behind: those whose range lies within another's. So one rename
//! swaps many files for one, and no list of files is needed beside them.

use super::{
    disk::Disk,
    frame::{self, BadHeader, FRAME_HEADER, SEGMENT_HEADER, Seed, SegmentHeader},
};
use crate::store::record::Record;
use std::{fmt, io};

/// Read at once. Bounds the memory of a recovery, with one record.
const CHUNK: usize = 256 * 1024;

/// A segment, or several in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Name {
    pub(super) fn one(number: u64) -> Self {
        Name { first: number, last: number }
    }

    /// `None` for a file that is no segment.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let numbers = name.strip_suffix(".seg")?;
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let name = Name { first: first.parse().ok()?, last: last.parse().ok()? };
        (name.first <= name.last).then_some(name)
    }

    /// Whether it has been compacted.
    pub(super) fn is_merged(self) -> bool {
        self.first != self.last
    }

    /// Whether `other` holds what this one does.
    pub(super) fn is_within(self, other: Name) -> bool {
        self != other && other.first <= self.first && self.last <= other.last
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_merged() {
            true => write!(f, "{:010}-{:010}.seg", self.first, self.last),
            false => write!(f, "{:010}.seg", self.first),
        }
    }
}

/// What reading a segment has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) header: Result<SegmentHeader, BadHeader>,
    /// Good records.
    pub(super) records: u64,
    /// The number of the last one, or the one asked to be above.
    pub(super) last: u64,
    /// Where the last good record ends.
    pub(super) good_end: u64,
    /// Bytes before a good record that belong to none.
    pub(super) hole: u64,
    /// Bytes after the last good record.
    pub(super) tail: u64,
}

impl Scan {
    /// Whether only its end may be missing: that is what a crash leaves.
    pub(super) fn is_whole_to_its_tail(&self) -> bool {
        self.header.is_ok() && self.hole == 0
    }
}

/// Reads a segment and hands each good record with a number above `after` to `each`. Goes on behind damage: whatever still
/// verifies is found.
pub(super) fn scan(disk: &dyn Disk, name: &str, seed: Seed, after: u64, each: &mut dyn FnMut(Record)) -> io::Result<Scan> {
    let mut window = Window { disk, name, buffer: Vec::new(), start: 0, at: 0, ended: false };
    window.fill(SEGMENT_HEADER)?;
    let header = SegmentHeader::read(window.rest(SEGMENT_HEADER), seed);
    // A damaged beginning may be shorter than it should be: look for records everywhere.
    if header.is_ok() {
        window.skip(SEGMENT_HEADER);
    }
    let mut scan = Scan { header, records: 0, last: after, good_end: window.offset(), hole: 0, tail: 0 };
    let mut bad = 0;
    while window.fill(FRAME_HEADER)? {
        if let Some((record, length)) = window.record(seed)?
            && record.number > scan.last
        {
            window.skip(length);
            scan.last = record.number;
            scan.records += 1;
            scan.good_end = window.offset();
            scan.hole += std::mem::take(&mut bad);
            each(record);
        } else {
            bad += window.skip_to_mark();
        }
    }
    scan.tail = disk.len(name)?.saturating_sub(scan.good_end);
    Ok(scan)
}

/// How the segment begins.
pub(super) fn header(disk: &dyn Disk, name: &str, seed: Seed) -> io::Result<Result<SegmentHeader, BadHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    let read = disk.read(name, 0, &mut bytes)?;
    Ok(SegmentHeader::read(bytes.get(..read).unwrap_or_default(), seed))
}

/// A part of a file in memory.
struct Window<'a> {
    disk: &'a dyn Disk,
    name: &'a str,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    /// Where in the buffer the reader stands.
    at: usize,
    ended: bool,
}

impl Window<'_> {
    /// Whether the file has `wanted` more bytes, which are then in the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() - self.at < wanted && !self.ended {
            self.start += self.at as u64;
            self.buffer.drain(..self.at);
            self.at = 0;
            let held = self.buffer.len();
            self.buffer.resize(held + CHUNK, 0);
            let room = self.buffer.get_mut(held..).unwrap_or_default();
            let read = self.disk.read(self.name, self.start + held as u64, room)?;
            self.buffer.truncate(held + read);
            self.ended = read == 0;
        }
        Ok(self.buffer.len() - self.at >= wanted)
    }

    /// At most `wanted` bytes from here on.
    fn rest(&self, wanted: usize) -> &[u8] {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        rest.get(..wanted).unwrap_or(rest)
    }

    /// The record that begins here, and its length.
    fn record(&mut self, seed: Seed) -> io::Result<Option<(Record, usize)>> {
        let Some(length) = frame::frame_length(self.rest(FRAME_HEADER)) else { return Ok(None) };
        if !self.fill(length)? {
            return Ok(None);
        }
        Ok(frame::read(self.rest(length), seed).map(|record| (record, length)))
    }

    fn skip(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }

    /// Goes to the next place in the buffer where a record may begin; how many bytes on that is.
    fn skip_to_mark(&mut self) -> u64 {
        let bytes = frame::next_mark(self.rest(usize::MAX));
        self.skip(bytes);
        bytes as u64
    }

    fn offset(&self) -> u64 {
        self.start + self.at as u64
    }
}
