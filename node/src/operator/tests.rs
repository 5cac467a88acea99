//! Whom a node obeys, how often, and what it says to everybody else.

use super::*;
use infernet_wire::key::NodeKey;
use std::{cell::RefCell, collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a key")
}

fn network() -> NetworkId {
    NetworkId::default()
}

/// Operator 1's command for node 2.
fn command() -> OperatorCommand {
    OperatorCommand {
        node: key(2).id(),
        sequence: 1,
        issued: NOW,
        expires: NOW.after(60_000),
        verb: "drain".into(),
        argument: String::new(),
    }
}

fn operators() -> Operators {
    let mut operators = Operators::default();
    operators.add(OperatorKey::of_node(&key(1).id()), NOW).expect("there is room");
    operators
}

/// A node's memory of numbers.
#[derive(Default)]
struct Memory(RefCell<BTreeMap<NodeId, u64>>);

impl Memory {
    fn accept(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError> {
        let mut last = self.0.borrow_mut();
        let last = last.entry(*operator).or_default();
        let is_new = sequence > *last;
        *last = sequence.max(*last);
        Ok(is_new)
    }
}

fn tell_at(signer: &NodeKey, body: OperatorCommand, memory: &Memory, now: UnixMillis) -> Result<Verb, CommandError> {
    let raw = signer.sign(&network(), body).expect("within limits").raw().clone();
    check(&raw, &network(), &key(2).id(), &operators(), now)?.claim(|operator, sequence| memory.accept(operator, sequence))
}

fn tell(body: OperatorCommand, memory: &Memory) -> Result<Verb, CommandError> {
    tell_at(&key(1), body, memory, NOW)
}

#[test]
fn an_operators_commands_are_obeyed_in_order_and_once() {
    let memory = Memory::default();
    assert_eq!(tell(command(), &memory), Ok(Verb::Drain));
    assert_eq!(tell(command(), &memory), Err(CommandError::Replayed(1)));
    let resume = |sequence| OperatorCommand { verb: "resume".into(), sequence, ..command() };
    assert_eq!(tell(resume(5), &memory), Ok(Verb::Resume));
    assert_eq!(tell(resume(4), &memory), Err(CommandError::Replayed(4)), "a held back one comes too late");
}

#[test]
fn everybody_else_is_refused_without_a_trace() {
    let memory = Memory::default();
    let stranger = tell_at(&key(3), command(), &memory, NOW);
    assert_eq!(stranger, Err(CommandError::Stranger(key(3).id())));
    let elsewhere = OperatorCommand { node: key(4).id(), ..command() };
    assert_eq!(tell(elsewhere, &memory), Err(CommandError::OtherNode(key(4).id())));
    let late = tell_at(&key(1), command(), &memory, NOW.after(80_000));
    assert_eq!(late, Err(CommandError::Refused(Refusal::Expired)));
    let dance = OperatorCommand { verb: "dance".into(), ..command() };
    assert_eq!(tell(dance, &memory), Err(BadVerb::Unknown("dance".into()).into()));
    let much = OperatorCommand { argument: "x".into(), ..command() };
    assert_eq!(tell(much, &memory), Err(BadVerb::Needless("drain").into()));
    assert!(memory.0.borrow().is_empty(), "what is refused uses up no number");
}

#[test]
fn forged_and_foreign_envelopes_are_refused() {
    let me = key(2).id();
    let raw = key(1).sign(&network(), command()).unwrap().raw().to_vec();
    let refused = |raw: &[u8], network: &NetworkId| match check(raw, network, &me, &operators(), NOW) {
        Err(CommandError::Refused(refusal)) => refusal,
        other => panic!("refused, not {other:?}"),
    };
    assert_eq!(refused(&raw, &"other".parse().unwrap()), Refusal::WrongNetwork);
    assert_eq!(refused(b"nonsense", &network()), Refusal::Malformed);
    let mut forged = raw;
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&forged, &network()), Refusal::BadSignature);
}

#[test]
fn a_number_that_cannot_be_kept_is_not_obeyed() {
    let raw = key(1).sign(&network(), command()).unwrap().raw().clone();
    let checked = check(&raw, &network(), &key(2).id(), &operators(), NOW).unwrap();
    let full = || StoreError::Interrupted("the disk is full".into());
    assert_eq!(checked.claim(|_, _| Err(full())), Err(CommandError::Store(full())));
}

#[test]
fn keys_are_hex_or_node_ids_and_nothing_else() {
    let id = key(1).id();
    let hex = hex::encode(id.x_only());
    let parse = |text: &str| text.parse::<OperatorKey>();
    assert_eq!(parse(&hex).unwrap(), OperatorKey::of_node(&id));
    assert_eq!(parse(&id.to_string()).unwrap(), OperatorKey::of_node(&id));
    assert_eq!(parse(&hex).unwrap().as_node().x_only(), id.x_only());
    for bad in ["", "me", &hex[1..], &"f".repeat(64), &hex::encode(id.0)] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(error.contains("64 hex digits") && error.contains("node id"), "{error}");
    }
}

#[test]
fn the_file_is_the_owners_alone_and_survives() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(OPERATORS_FILE);
    assert_eq!(Operators::load(home.path()).unwrap(), Operators::default());
    let mut operators = operators();
    operators.save(home.path()).unwrap();
    assert_eq!(Operators::load(home.path()).unwrap(), operators);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(operators.add(OperatorKey::of_node(&key(1).id()), NOW).unwrap(), Added::Known);
    operators.remove(OperatorKey::of_node(&key(1).id())).unwrap();
    assert!(operators.remove(OperatorKey::of_node(&key(1).id())).unwrap_err().to_string().contains("operator list"));
    operators.save(home.path()).unwrap();
    assert_eq!(Operators::load(home.path()).unwrap().all(), []);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(Operators::load(home.path()).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for (text, expected) in [("[[operator]]\nkey = 'x'\nadded = 1", "no operator key"), ("key = 1", "key"), ("=", "")] {
        fs::write(&path, text).unwrap();
        let error = Operators::load(home.path()).unwrap_err().to_string();
        assert!(error.contains("operators.toml") && error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn operators_are_counted() {
    let mut operators = Operators::default();
    let added = (1..=40).map(|n| operators.add(OperatorKey::of_node(&key(n).id()), NOW)).filter(Result::is_ok).count();
    assert_eq!((added, operators.all().len()), (32, 32));
}
