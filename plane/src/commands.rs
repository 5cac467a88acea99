//! Operators' commands on their way to nodes. Pure; the routes are in [`crate::http::commands`].
//!
//! An operator signs a command for one node; the plane carries it and the node verifies it. So a plane can lose or hold back a
//! command, and can't make one up, change it, send it elsewhere or send it twice. What is checked here saves the operator a
//! wait: a signature that the node would refuse, a node that is not there, a model that it has no room for.
//!
//! `pending` → (the node asks) `running` until its lease ends → `completed` | `failed`; `cancelled` by its operator before that;
//! `expired` if the node did not ask in time. A lease that ends without a word gives the command to the node again, which
//! refuses to do it twice and says so.

use crate::{
    http::node::specs,
    store::{CommandRow, CommandStatus, NodeRow, Pubkey},
    uuid,
};
use infernet_node::fit::{self, Fit};
use infernet_wire::{
    command::{BadVerb, OperatorCommand, Verb},
    envelope::{Envelope, Refusal},
    id::NodeId,
    time::UnixMillis,
    topic::NetworkId,
};
use serde_json::{Map, Value, json};

const GIB: f64 = (1u64 << 30) as f64;
/// How long a node is believed to be at a command without a word: three heartbeats.
pub const LEASE_MS: u64 = 90_000;
/// Commands of a node that may wait: more is nobody's wish.
pub const MAX_PENDING: usize = 32;
/// The longest reason why a command failed.
pub const MAX_ERROR: usize = 1_024;
/// The largest result, as JSON.
const MAX_RESULT_BYTES: usize = 4_096;

/// A signed command that its plane may carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// The row to keep.
    pub row: CommandRow,
    /// What it says to do.
    pub verb: Verb,
}

/// Why a plane does not carry a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncarried {
    /// Not hexadecimal.
    #[error("signed must be the hexadecimal of a signed command, as `infernet operator sign` prints it")]
    NotHex,
    /// Not a signed command, not for this network, or not in time.
    #[error("this is no valid command: {0}; sign a new one, it counts for at most five minutes")]
    Refused(#[from] Refusal),
    /// It is for another node.
    #[error("this command is for node {0}, not for this one")]
    OtherNode(NodeId),
    /// It says nothing that nodes do.
    #[error(transparent)]
    Verb(#[from] BadVerb),
    /// Its signer is no operator of the node.
    #[error("{0} is no operator of this node; its owner can run `infernet operator add {0}` there")]
    Stranger(NodeId),
}

/// Reads and verifies the command `hex` for `node` at `now`.
pub fn read(text: &str, node: &NodeRow, network: &NetworkId, now: UnixMillis) -> Result<Carried, Uncarried> {
    let raw = hex::decode(text).map_err(|_| Uncarried::NotHex)?;
    let command = Envelope::decode(&raw)?.open::<OperatorCommand>(network, now)?;
    let signer = command.signer();
    if !obeys(node, &signer) {
        return Err(Uncarried::Stranger(signer));
    }
    let command = command.verify()?;
    if command.node.x_only() != node.pubkey.0 {
        return Err(Uncarried::OtherNode(command.node));
    }
    let verb = Verb::parse(&command.verb, &command.argument)?;
    let row = CommandRow {
        // The same command has the same name, however often it is given.
        id: uuid::of_digest(&command.digest()),
        node: node.pubkey,
        verb: verb.name().into(),
        args: args(&verb),
        signed: Some(raw),
        operator: Some(signer),
        status: CommandStatus::Pending,
        progress: None,
        result: None,
        error: None,
        issued: command.issued,
        expires: command.expires,
        started: None,
        lease: None,
        ended: None,
    };
    Ok(Carried { row, verb })
}

/// Whether the node said that it obeys this key.
pub fn obeys(node: &NodeRow, signer: &NodeId) -> bool {
    let key = hex::encode(signer.x_only());
    let said = node.specs.get("operators").and_then(Value::as_array);
    said.is_some_and(|operators| operators.iter().any(|operator| operator.as_str() == Some(&key)))
}

/// Bytes that `model` needs, if the node has less; `None` if it fits, or nobody knows.
pub fn lacks(node: &NodeRow, model: &str) -> Option<u64> {
    let memory = |kind: &str| {
        let gigabytes = node.specs.get("load")?.get(kind)?.get("total_gb")?.as_f64()?;
        (gigabytes > 0.0).then_some((gigabytes * GIB) as u64)
    };
    let needs = fit::memory(fit::file_size(model)?, 0, 0);
    let (gpu, machine) = (memory("vram"), memory("ram"));
    (fit::fit_within(needs, gpu, machine) == Fit::Nowhere).then_some(needs)
}

/// A command for a daemon that knows no signatures: its owner's session is all that vouches for it.
pub fn unsigned(node: Pubkey, verb: &Verb, now: UnixMillis, expires: UnixMillis) -> CommandRow {
    CommandRow {
        id: uuid::random(),
        node,
        verb: verb.name().into(),
        args: args(verb),
        signed: None,
        operator: None,
        status: CommandStatus::Pending,
        progress: None,
        result: None,
        error: None,
        issued: now,
        expires,
        started: None,
        lease: None,
        ended: None,
    }
}

/// The argument as existing daemons and pages know it.
fn args(verb: &Verb) -> Value {
    match verb {
        Verb::Drain | Verb::Resume => json!({}),
        Verb::ModelInstall(model) | Verb::ModelRemove(model) => json!({ "model": model }),
        Verb::SetPrice { model, price } => {
            let mut args = json!({ "in": price.input.0, "out": price.output.0 });
            if let (Some(model), Some(args)) = (model, args.as_object_mut()) {
                args.insert("model".into(), model.as_str().into());
            }
            args
        }
    }
}

/// How far a command is at `now`, whether or not its node has asked since.
pub fn status(row: &CommandRow, now: UnixMillis) -> CommandStatus {
    match row.status {
        CommandStatus::Pending if row.expires <= now => CommandStatus::Expired,
        status => status,
    }
}

/// What of a node's progress is kept; `None` if it says none.
pub fn progress(given: &Value) -> Option<Value> {
    let given = given.as_object()?;
    let text = |key: &str, most| given.get(key).and_then(Value::as_str).map(|text| specs::plain(text, most).into());
    let number = |key: &str, most: f64| {
        let n = given.get(key).filter(|n| n.as_f64().is_some_and(|n| (0.0..=most).contains(&n)));
        n.cloned()
    };
    // 2^53: the largest whole number that JavaScript counts to.
    let whole = |key: &str| number(key, 9_007_199_254_740_992.0);
    let fields = [
        ("status", text("status", 64)),
        ("phase", text("phase", 32)),
        ("step", whole("step")),
        ("steps", whole("steps")),
        ("total", whole("total")),
        ("completed", whole("completed")),
        ("pct", number("pct", 100.0)),
    ];
    let kept: Map<String, Value> = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// A result, if it is of reasonable size.
pub fn kept_result(given: &Value) -> Option<Value> {
    (given.to_string().len() <= MAX_RESULT_BYTES).then(|| given.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Role;
    use infernet_wire::key::NodeKey;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a key")
    }

    /// Node 2, which obeys operator 1.
    fn node() -> NodeRow {
        NodeRow {
            pubkey: Pubkey(key(2).id().x_only()),
            role: Role::Provider,
            id: "id".into(),
            node_id: "n".into(),
            name: String::new(),
            address: String::new(),
            port: 0,
            available: true,
            specs: json!({ "operators": [hex::encode(key(1).id().x_only())] }),
            public: true,
            names_audience: true,
            registered: NOW,
            seen: NOW,
        }
    }

    fn command(verb: &str, argument: &str) -> OperatorCommand {
        let (verb, argument) = (verb.into(), argument.into());
        OperatorCommand { node: key(2).id(), sequence: 1, issued: NOW, expires: NOW.after(60_000), verb, argument }
    }

    fn signed(signer: u8, command: OperatorCommand) -> String {
        hex::encode(key(signer).sign(&NetworkId::default(), command).expect("within limits").raw())
    }

    fn read_at(text: &str, now: UnixMillis) -> Result<Carried, Uncarried> {
        read(text, &node(), &NetworkId::default(), now)
    }

    #[test]
    fn a_command_is_carried_as_it_was_signed() {
        let text = signed(1, command("set_price", "m:1b=5/7"));
        let carried = read_at(&text, NOW).expect("carried");
        assert_eq!(carried.row.args, json!({ "model": "m:1b", "in": 5, "out": 7 }));
        assert_eq!(carried.row.signed.as_deref().map(hex::encode), Some(text.clone()));
        assert_eq!(carried.row.id, read_at(&text, NOW.after(1)).expect("again").row.id, "given twice it is one");
        assert_eq!(read_at(&signed(1, command("drain", "")), NOW).map(|c| c.row.args), Ok(json!({})));
    }

    #[test]
    fn what_the_node_would_refuse_is_refused_at_once() {
        let check = |text: &str, now, expected: Uncarried| assert_eq!(read_at(text, now), Err(expected));
        check("xyz", NOW, Uncarried::NotHex);
        check("00", NOW, Uncarried::Refused(Refusal::Malformed));
        check(&signed(3, command("drain", "")), NOW, Uncarried::Stranger(key(3).id()));
        check(&signed(1, command("drain", "")), NOW.after(80_000), Uncarried::Refused(Refusal::Expired));
        let elsewhere = OperatorCommand { node: key(4).id(), ..command("drain", "") };
        check(&signed(1, elsewhere), NOW, Uncarried::OtherNode(key(4).id()));
        check(&signed(1, command("dance", "")), NOW, BadVerb::Unknown("dance".into()).into());
        let mut forged = hex::decode(signed(1, command("drain", ""))).expect("hex");
        *forged.last_mut().expect("bytes") ^= 1;
        check(&hex::encode(forged), NOW, Uncarried::Refused(Refusal::BadSignature));
    }

    #[test]
    fn a_model_that_the_machine_has_no_memory_for_is_known() {
        let with = |load: Value| NodeRow { specs: json!({ "load": load }), ..node() };
        let small = with(json!({ "ram": { "total_gb": 16.0 }, "vram": { "total_gb": 8.0 } }));
        assert_eq!((lacks(&small, "llama3.1:8b"), lacks(&small, "mystery")), (None, None));
        assert!(lacks(&small, "llama3.1:70b").is_some_and(|needs| needs > 40_000_000_000));
        let silent = with(json!({ "ram": { "total_gb": null }, "vram": {} }));
        assert_eq!(lacks(&silent, "llama3.1:405b"), None, "what is not known is let pass");
    }

    #[test]
    fn progress_is_cut_to_what_is_known() {
        let given =
            json!({ "status": "x".repeat(99), "phase": "download\u{7}", "total": 7, "completed": -1, "pct": 101, "z": {} });
        assert_eq!(progress(&given), Some(json!({ "status": "x".repeat(64), "phase": "download", "total": 7 })));
        assert_eq!((progress(&json!({})), progress(&json!("half"))), (None, None));
    }

    #[test]
    fn a_command_that_nobody_asked_for_in_time_is_expired() {
        let row = read_at(&signed(1, command("drain", "")), NOW).expect("carried").row;
        assert_eq!(status(&row, NOW.after(59_999)), CommandStatus::Pending);
        assert_eq!(status(&row, NOW.after(60_000)), CommandStatus::Expired);
        let running = CommandRow { status: CommandStatus::Running, ..row };
        assert_eq!(status(&running, NOW.after(60_000)), CommandStatus::Running);
    }
}
