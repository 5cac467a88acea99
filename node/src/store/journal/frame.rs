//! The bytes of a record and of a segment's beginning, and how whole ones are told from torn ones. Pure. The only file that
//! names `crc32fast`.
//!
//! A record: mark (4 bytes) ‖ CRC-32 (4) ‖ length of the body (4) ‖ number (8) ‖ kind (2) ‖ length of the subject (2) ‖ subject ‖
//! body. A segment begins with: magic (8) ‖ version (2) ‖ length of the network's name (1) ‖ name, padded (32) ‖ the journal's
//! id (16) ‖ the number of its first record (8) ‖ CRC-32 (4). Numbers are little endian.
//!
//! The checksum begins with the network's name, so that records of another network are not mistaken for ours. It finds
//! accidents; who wants to forge a receipt needs a signature. The mark is no valid UTF-8, so no name inside a record looks like one.

use crate::store::record::{Kind, MAX_BODY, MAX_SUBJECT, Record};
use infernet_wire::{limits::MAX_NETWORK_BYTES, topic::NetworkId};

/// Bytes before a record's subject.
pub(super) const FRAME_HEADER: usize = 24;
/// Bytes before a segment's first record.
pub(super) const SEGMENT_HEADER: usize = 71;

const MARK: [u8; 4] = [0xf5, b'j', b'r', 0xf7];
const MAGIC: [u8; 8] = *b"infjrnl\n";
const VERSION: u16 = 1;

/// Which journal a segment belongs to: drawn at random when the journal is made.
pub(in crate::store) type JournalId = [u8; 16];

/// What the checksums of a network's records begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn of(network: &NetworkId) -> Self {
        Seed(crc32fast::hash(network.as_str().as_bytes()))
    }

    pub(super) fn checksum(self, bytes: &[u8]) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    }
}

/// The checksum of an index row: the index is another file, on which rot is found the same way.
pub(in crate::store) fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Appends the bytes of `record`.
pub(super) fn write(record: &Record, seed: Seed, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length(&record.body).to_le_bytes());
    out.extend_from_slice(&record.number.to_le_bytes());
    out.extend_from_slice(&record.kind.0.to_le_bytes());
    out.extend_from_slice(&u16::try_from(record.subject.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&record.subject);
    out.extend_from_slice(&record.body);
    if let Some((head, rest)) = out.get_mut(start..).and_then(|frame| frame.split_at_mut_checked(8))
        && let Some(place) = head.get_mut(4..)
    {
        place.copy_from_slice(&seed.checksum(rest));
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// How long the record that begins here says it is; `None` if none begins here.
pub(super) fn frame_length(bytes: &[u8]) -> Option<usize> {
    let (mark, rest) = bytes.split_first_chunk::<4>()?;
    let body = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
    let subject = u16::from_le_bytes(*rest.get(18..)?.first_chunk()?) as usize;
    let fits = *mark == MARK && body <= MAX_BODY && subject <= MAX_SUBJECT;
    fits.then_some(FRAME_HEADER + subject + body)
}

/// The record of exactly these bytes, if they are what was written.
pub(super) fn read(frame: &[u8], seed: Seed) -> Option<Record> {
    let (_mark, rest) = frame.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    if seed.checksum(rest) != *checksum {
        return None;
    }
    let (_length, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (subject, rest) = rest.split_first_chunk()?;
    let (subject, body) = rest.split_at_checked(u16::from_le_bytes(*subject).into())?;
    Some(Record {
        number: u64::from_le_bytes(*number),
        kind: Kind(u16::from_le_bytes(*kind)),
        subject: subject.into(),
        body: body.into(),
    })
}

/// Where the next record may begin, one byte on or later; the length of `bytes` if nowhere.
pub(super) fn next_mark(bytes: &[u8]) -> usize {
    let after = bytes.iter().skip(1).position(|byte| *byte == MARK[0]);
    after.map_or(bytes.len(), |at| at + 1)
}

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: JournalId,
    /// Its records' numbers are at least this.
    pub(super) first: u64,
}

/// Why a segment's beginning can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// It is not what was written.
    Damaged,
    /// A newer version wrote it.
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn encode(&self, network: &NetworkId, seed: Seed) -> Vec<u8> {
        let name = network.as_str().as_bytes();
        let mut padded = name.to_vec();
        padded.resize(MAX_NETWORK_BYTES, 0);
        let length = [u8::try_from(name.len()).unwrap_or(u8::MAX)];
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &length, &padded, &self.id, &self.first.to_le_bytes()].concat();
        bytes.extend_from_slice(&seed.checksum(&bytes));
        bytes
    }

    pub(super) fn read(bytes: &[u8], seed: Seed) -> Result<Self, BadHeader> {
        let parts = || {
            let (covered, checksum) = bytes.split_at_checked(SEGMENT_HEADER - 4)?;
            let (magic, rest) = covered.split_first_chunk()?;
            let (version, rest) = rest.split_first_chunk()?;
            let (id, rest) = rest.get(1 + MAX_NETWORK_BYTES..)?.split_first_chunk()?;
            let first = u64::from_le_bytes(rest.try_into().ok()?);
            let good = *magic == MAGIC && checksum == seed.checksum(covered);
            good.then_some((u16::from_le_bytes(*version), SegmentHeader { id: *id, first }))
        };
        match parts() {
            Some((VERSION, header)) => Ok(header),
            Some((newer, _)) => Err(BadHeader::Newer(newer)),
            None => Err(BadHeader::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed() -> Seed {
        Seed::of(&NetworkId::default())
    }

    fn record() -> Record {
        Record { number: 7, ..Record::new(Kind(9), *b"subject", *b"body") }
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&record(), seed(), &mut bytes);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = written();
        assert_eq!(frame_length(&bytes), Some(bytes.len()));
        assert_eq!(read(&bytes, seed()), Some(record()));
        let header = SegmentHeader { id: [3; 16], first: 5 };
        let bytes = header.encode(&NetworkId::default(), seed());
        assert_eq!(bytes.len(), SEGMENT_HEADER);
        assert_eq!(SegmentHeader::read(&bytes, seed()), Ok(header));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let good = written();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let whole = frame_length(&bytes) == Some(bytes.len());
            assert!(!whole || read(&bytes, seed()).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn another_networks_records_are_not_ours() {
        assert_eq!(read(&written(), Seed::of(&"test".parse().unwrap())), None);
    }

    proptest! {
        #[test]
        fn no_bytes_can_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (read(&bytes, seed()), frame_length(&bytes), SegmentHeader::read(&bytes, seed()).is_ok());
            prop_assert!(next_mark(&bytes) <= bytes.len());
        }
    }
}
