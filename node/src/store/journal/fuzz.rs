//! Any bytes as a journal's file, and any history of writes, crashes, rot and full disks.

use super::{
    Disk, Journal,
    kept::{Written, append, check_kept, open, record, replayed},
    test_disk::{Names, Tear, TestDisk},
};
use crate::{fuzz::Ops, store::record::Kind};

/// Any bytes as the newest segment, and as an older one beside a good one. Whatever they are, the journal opens or says why
/// not, and what it has read it reads again.
pub(in crate::store) fn file(data: &[u8]) {
    let (which, data) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let disk = TestDisk::default();
    if which % 2 == 1 {
        let Ok(mut journal) = open(&disk) else { return };
        (0..20).for_each(|n| drop(append(&mut journal, vec![record(Kind(77), 1, n)])));
        disk.damage("0000000001.seg", |bytes| change(bytes, data));
    } else {
        disk.append("0000000001.seg", data).expect("there is room");
    }
    let Ok(mut journal) = open(&disk) else { return };
    let found = replayed(&mut journal);
    if let Ok(more) = append(&mut journal, vec![record(Kind::SPEND, 200, 1)]) {
        let all = [found, more].concat();
        let again = replayed(&mut open(&disk).expect("what was opened opens again"));
        check_kept(&Written { acknowledged: all.clone(), tried: all }, &again, "after damage");
    }
}

/// Changes bytes at places: each four of `data` are a place and what is done there.
fn change(bytes: &mut Vec<u8>, data: &[u8]) {
    for chunk in data.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([chunk[0], chunk[1]])) % bytes.len().max(1);
        match chunk[2] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), chunk[3]),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= chunk[3]),
        }
    }
}

/// A journal on a disk that is not kind to it.
struct World {
    disk: TestDisk,
    journal: Option<Journal>,
    written: Written,
}

pub(in crate::store) fn history(data: &[u8]) {
    let (mut ops, disk) = (Ops::new(data), TestDisk::default());
    let mut world = World { journal: open(&disk).ok(), disk, written: Written::default() };
    while let Some(op) = ops.next() {
        match op % 8 {
            0..=3 => world.append(&mut ops),
            4 => world.crash(&mut ops),
            5 => world.disk.fail_sync_in(ops.byte().into()),
            6 => {
                let room = (ops.below(4) != 0).then(|| world.disk.used() + usize::from(ops.byte()));
                world.disk.limit(room);
            }
            _ => world.journal.iter_mut().for_each(Journal::try_recover),
        }
    }
    world.restart(Tear::LOST);
}

impl World {
    fn append(&mut self, ops: &mut Ops<'_>) {
        let Some(journal) = &mut self.journal else { return };
        let mut batch: Vec<_> =
            (0..=ops.below(3)).map(|_| record(Kind(1 + u16::from(ops.below(5))), ops.below(6), ops.byte())).collect();
        for (record, number) in batch.iter_mut().zip(journal.last() + 1..) {
            record.number = number;
        }
        self.written.tried.extend(batch.clone());
        if journal.append(&batch).is_ok() {
            self.written.acknowledged.extend(batch);
        }
    }

    /// Now, or before an operation that is still to come.
    fn crash(&mut self, ops: &mut Ops<'_>) {
        let more = u64::from(ops.below(12));
        self.disk.crash_at(self.disk.operations() + more);
        (0..ops.below(4)).for_each(|_| self.append(ops));
        let names = [Names::Synced, Names::Seen, Names::Fewest][usize::from(ops.below(3))];
        let kept = if ops.below(4) == 0 { usize::MAX } else { ops.byte().into() };
        self.restart(Tear { kept, garbage: ops.byte().into(), names });
    }

    fn restart(&mut self, tear: Tear) {
        self.journal = None;
        self.disk = self.disk.after_crash(tear);
        let mut journal = open(&self.disk).expect("a crash is no reason not to open");
        let found = replayed(&mut journal);
        check_kept(&self.written, &found, "after a crash");
        // What was read once is durable: from here on it counts as written, and what was lost does not.
        self.written = Written { acknowledged: found.clone(), tried: found };
        self.journal = Some(journal);
    }
}
