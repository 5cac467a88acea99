//! What the journal holds: records, each of a kind and about a subject.
//!
//! | kind | subject | body |
//! |---|---|---|
//! | receipt | job ‖ worker | finished, 8 bytes ‖ 1 if countersigned ‖ digest ‖ [`SignedReceipt::encode`] |
//! | ad lease | nothing | the highest ad sequence that may be used, 8 bytes |
//! | spend | day, 4 bytes ‖ key | authorised ‖ spent, 8 bytes each |
//! | command | operator | sequence, 8 bytes |
//! | tab | side, 1 byte ‖ our id then ‖ the other node ‖ the channel, if it is on one | what [`crate::settlement::tab`] writes of it |
//! | step | number, 8 bytes | what [`crate::settlement`] writes of it |
//!
//! Numbers are big endian. Of the records about one subject the newest counts, so a rewritten journal may leave out the others;
//! only a receipt that the buyer has signed is kept whatever comes after it. A kind that this version does not know is kept
//! as it is.

use super::{Position, Side, SpendRecord, Standing, TabOf};
use infernet_wire::{
    id::{ChannelId, Hash, JobId, NodeId},
    money::MicroUsd,
    receipt::SignedReceipt,
    time::UnixMillis,
};

/// The longest subject: an API key's name and a day. A receipt's is 49 bytes.
pub(super) const MAX_SUBJECT: usize = 255;
/// The longest body: ten times the largest receipt with both its envelopes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// What a record tells of. An open number: newer versions may know more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind(pub(super) u16);

impl Kind {
    pub(super) const RECEIPT: Self = Kind(1);
    pub(super) const AD_LEASE: Self = Kind(2);
    pub(super) const SPEND: Self = Kind(3);
    pub(super) const COMMAND: Self = Kind(4);
    pub(super) const TAB: Self = Kind(5);
    pub(super) const STEP: Self = Kind(6);

    fn is_known(self) -> bool {
        (Self::RECEIPT..=Self::STEP).contains(&self)
    }
}

/// Kind and subject.
pub(super) type Key = (Kind, Vec<u8>);

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Grows by at least one with each record.
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) subject: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Record {
    /// A record that has no number yet.
    pub(super) fn new(kind: Kind, subject: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Self {
        Record { number: 0, kind, subject: subject.into(), body: body.into() }
    }

    pub(super) fn key(&self) -> Key {
        (self.kind, self.subject.clone())
    }

    /// Whether nobody needs it once there is a newer one about its subject.
    pub(super) fn is_superseded_by_newer(&self) -> bool {
        let is_evidence =
            self.kind == Kind::RECEIPT && ReceiptRow::read(&self.body).is_none_or(|row| row.standing.countersigned);
        self.kind.is_known() && !is_evidence
    }

    pub(super) fn receipt(receipt: &SignedReceipt) -> Self {
        let (position, standing) = (Position::of(receipt), Standing::of(receipt));
        let row = ReceiptRow { finished: position.finished, standing, signed: &receipt.encode() };
        Record::new(Kind::RECEIPT, receipt_subject(&position.job, &position.worker), row.encode())
    }

    pub(super) fn ad_lease(until: u64) -> Self {
        Record::new(Kind::AD_LEASE, [], until.to_be_bytes())
    }

    pub(super) fn spend(spend: &SpendRecord) -> Self {
        let subject = [&spend.day.to_be_bytes(), spend.key.as_bytes()].concat();
        Record::new(Kind::SPEND, subject, [spend.authorised.0.to_be_bytes(), spend.spent.0.to_be_bytes()].concat())
    }

    pub(super) fn command(operator: &NodeId, sequence: u64) -> Self {
        Record::new(Kind::COMMAND, *operator.as_bytes(), sequence.to_be_bytes())
    }

    pub(super) fn tab(of: &TabOf, body: Vec<u8>) -> Self {
        Record::new(Kind::TAB, tab_subject(of), body)
    }

    pub(super) fn step(number: u64, body: Vec<u8>) -> Self {
        Record::new(Kind::STEP, number.to_be_bytes(), body)
    }
}

/// A receipt's body, taken apart without checking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiptRow<'a> {
    pub(super) finished: UnixMillis,
    pub(super) standing: Standing,
    pub(super) signed: &'a [u8],
}

impl<'a> ReceiptRow<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let finished = self.finished.0.to_be_bytes();
        let countersigned = [u8::from(self.standing.countersigned)];
        [&finished[..], &countersigned, self.standing.digest.as_ref(), self.signed].concat()
    }

    /// Of bytes that are no receipt of ours: kept, and shown to be unreadable.
    pub(super) fn unreadable(signed: &'a [u8]) -> Self {
        let standing = Standing { digest: Hash([0; 32]), countersigned: false };
        ReceiptRow { finished: UnixMillis(0), standing, signed }
    }

    /// `None` if it is too short to be one.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (finished, rest) = body.split_first_chunk()?;
        let ([countersigned], rest) = rest.split_first_chunk()?;
        let (digest, signed) = rest.split_first_chunk()?;
        let standing = Standing { digest: Hash(*digest), countersigned: *countersigned == 1 };
        Some(ReceiptRow { finished: UnixMillis(u64::from_be_bytes(*finished)), standing, signed })
    }
}

pub(super) fn receipt_subject(job: &JobId, worker: &NodeId) -> [u8; 49] {
    let mut subject = [0; 49];
    let (front, back) = subject.split_at_mut(16);
    front.copy_from_slice(job.as_bytes());
    back.copy_from_slice(worker.as_bytes());
    subject
}

pub(super) fn tab_subject(of: &TabOf) -> Vec<u8> {
    let channel = of.channel.as_ref().map_or(&[][..], |channel| &channel.0);
    [&[of.side as u8], &of.me.as_bytes()[..], of.other.as_bytes(), channel].concat()
}

/// Whose tab it is.
pub(super) fn read_tab_subject(subject: &[u8]) -> Option<TabOf> {
    let (side, rest) = subject.split_first()?;
    let (me, rest) = rest.split_first_chunk()?;
    let (other, rest) = rest.split_first_chunk()?;
    let side = match side {
        0 => Side::Bought,
        1 => Side::Sold,
        _ => return None,
    };
    let channel = if rest.is_empty() { None } else { Some(ChannelId(rest.try_into().ok()?)) };
    Some(TabOf { side, me: NodeId(*me), other: NodeId(*other), channel })
}

/// The spend that a subject and a body tell of; `None` if they are not of a spend record.
pub(super) fn read_spend(subject: &[u8], body: &[u8]) -> Option<SpendRecord> {
    let (day, key) = subject.split_first_chunk()?;
    let (authorised, spent) = body.split_first_chunk()?;
    Some(SpendRecord {
        key: String::from_utf8(key.to_vec()).ok()?,
        day: u32::from_be_bytes(*day),
        authorised: MicroUsd(u64::from_be_bytes(*authorised)),
        spent: MicroUsd(u64::from_be_bytes(spent.try_into().ok()?)),
    })
}

/// Eight bytes; anything else was not written here and counts as nothing.
pub(super) fn read_number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}
