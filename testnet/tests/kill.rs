//! A process that keeps receipts is killed, again and again, and everything it said was durable is there, once.

#![cfg(test)]

use infernet_node::store::{self, Page, Position, Store};
use infernet_testnet::{
    receipts::{self, Parties},
    scribe::{SPEND_DAY, Said},
};
use infernet_wire::receipt::SignedReceipt;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

const ROUNDS: u64 = 12;
/// Apart, so that a number tells its round.
const NUMBERS_PER_ROUND: u64 = 1_000_000;

fn start(home: &Path, from: u64) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.arg("scribe").arg("--home").arg(home).args(["--from", &from.to_string()]);
    command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("starts")
}

/// Kills it after it has said so many lines; everything it said, also meanwhile.
fn kill_after(mut child: Child, lines: usize) -> Vec<Said> {
    let said = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let mut heard = Vec::new();
    for line in said.map_while(Result::ok) {
        // The last line may be cut.
        heard.extend(Said::parse(&line));
        if heard.len() == lines {
            child.kill().expect("is alive");
        }
    }
    assert!(heard.len() >= lines, "it went on until it was killed: {} lines", heard.len());
    assert!(!child.wait().expect("ends").success(), "it was killed");
    heard
}

fn all_receipts(store: &dyn Store) -> Vec<SignedReceipt> {
    let (mut all, mut page) = (Vec::new(), Page::newest(store::MAX_PAGE));
    loop {
        let receipts = store.receipts(page).expect("reads");
        let Some(last) = receipts.last() else { return all };
        page.before = Some(Position::of(last));
        all.extend(receipts);
    }
}

/// Whether the store holds what was `said`, each receipt once.
fn check(home: &Path, parties: &Parties, said: &BTreeSet<Said>) {
    let store = store::open(home, &parties.network).expect("opens");
    let receipts = all_receipts(&*store);
    let of = |is: &dyn Fn(&SignedReceipt) -> bool| -> BTreeSet<u64> {
        receipts.iter().filter(|receipt| is(receipt)).map(|receipt| receipts::number(&receipt.receipt().job)).collect()
    };
    let (kept, countersigned) = (of(&|_| true), of(&|receipt| receipt.countersign().is_some()));
    assert_eq!(kept.len(), receipts.len(), "none twice");
    let counts = store.counts().expect("counts");
    assert_eq!((counts.receipts, counts.countersigned), (kept.len() as u64, countersigned.len() as u64));
    assert_eq!(counts.unreadable, 0);
    let spent = store.spend_since(SPEND_DAY).expect("reads").first().map_or(0, |record| record.spent.0);
    for said in said {
        let is_true = match said {
            Said::Receipt(n) => kept.contains(n),
            Said::Countersigned(n) => countersigned.contains(n),
            Said::Spent(n) => spent >= *n,
            Said::Obeyed(n) => !store.accept_command(&parties.buyer.id(), *n).expect("answers"),
        };
        assert!(is_true, "{said:?} was said and is not there");
    }
}

#[test]
fn whatever_was_acknowledged_before_a_kill_is_there_once() {
    let (home, parties) = (tempfile::tempdir().expect("a directory"), Parties::new().expect("keys"));
    let mut said = BTreeSet::new();
    for round in 0..ROUNDS {
        // Early, late, and in between: 1 to 400 lines.
        let lines = 1 + (round * 7_919 + 13) % 400;
        let heard = kill_after(start(home.path(), round * NUMBERS_PER_ROUND), usize::try_from(lines).expect("fits"));
        said.extend(heard);
        if round % 4 == 3 {
            fs::remove_dir_all(home.path().join("store-main")).expect("removes the index");
        }
        check(home.path(), &parties, &said);
    }
    assert!(said.len() > 1_000);
}
