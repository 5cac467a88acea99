//! Both ends of a chat stream over a wire that changes, drops, repeats and makes up frames.

use super::Ops;
use crate::chat::session::{BuyerSession, Paid, Terms, WorkerSession};
use infernet_wire::{
    chat::{Channel, Delta, FinishReason, Frame, ToolCallDelta},
    id::{Hash, JobId},
    key::NodeKey,
    money::{MicroUsd, Price},
    time::UnixMillis,
    topic::NetworkId,
};
use std::sync::OnceLock;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const OPEN: &[u8] = b"open frame";
const REQUEST: &[u8] = b"request";

/// The buyer's key and the worker's.
fn keys() -> &'static [NodeKey; 2] {
    static KEYS: OnceLock<[NodeKey; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [1, 2].map(|n| NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")))
}

fn terms(ops: &mut Ops<'_>) -> Terms {
    static IDS: OnceLock<[infernet_wire::id::NodeId; 2]> = OnceLock::new();
    let [buyer, worker] = *IDS.get_or_init(|| keys().each_ref().map(NodeKey::id));
    Terms {
        job: JobId([1; 16]),
        accept: Hash([2; 32]),
        buyer,
        worker,
        workload: "infernet.inference".into(),
        model: "tiny".into(),
        weights: None,
        price: Price { input: MicroUsd(ops.number()), output: MicroUsd(ops.number()) },
        budget: MicroUsd(ops.number()),
        input_tokens: count(ops),
        output_tokens: count(ops),
        rate: 1,
    }
}

fn count(ops: &mut Ops<'_>) -> u32 {
    u32::try_from(ops.number()).unwrap_or(u32::MAX)
}

fn text(ops: &mut Ops<'_>) -> String {
    let length = usize::from(ops.below(24));
    String::from_utf8_lossy(ops.bytes(length)).into_owned()
}

/// What goes over the wire, and what is left of it.
struct Wire {
    buyer: BuyerSession,
    /// Whether the buyer saw what the worker said, and all of it.
    faithful: bool,
    /// Whether the buyer has found something wrong, after which it listens no more.
    over: bool,
    text: u64,
}

impl Wire {
    fn carry(&mut self, frame: Vec<u8>, ops: &mut Ops<'_>) {
        match ops.below(16) {
            0 => self.faithful = false,
            1 => {
                self.faithful = false;
                self.deliver(&frame);
                self.deliver(&frame);
            }
            2 => {
                self.faithful = false;
                let mut changed = frame;
                let at = usize::from(ops.byte()) % changed.len().max(1);
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= ops.byte() | 1;
                }
                self.deliver(&changed);
            }
            _ => self.deliver(&frame),
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        if self.over {
            return;
        }
        let Ok(frame) = Frame::decode(bytes) else {
            self.over = true;
            return;
        };
        if let Frame::Delta(Delta { text, .. }) = &frame {
            self.text += text.len() as u64;
        }
        if let Frame::ToolCall(call) = &frame {
            self.text += call.text_bytes() as u64;
        }
        let result = self.buyer.on_frame(frame, bytes);
        assert!(result.is_ok() || !self.faithful, "an honest frame was refused: {result:?}");
        self.over |= result.is_err();
    }
}

pub(super) fn run(data: &[u8]) {
    let mut ops = Ops::new(data);
    let terms = terms(&mut ops);
    let budget = terms.budget;
    assert!(terms.engine_limit() >= 1);
    let (mut worker, opened) = WorkerSession::open(terms.clone(), OPEN, REQUEST, ops.below(2) == 1, NOW);
    let mut wire = Wire { buyer: BuyerSession::new(terms, OPEN, REQUEST), faithful: true, over: false, text: 0 };
    wire.carry(opened, &mut ops);
    while let Some(op) = ops.next() {
        // A worker that is full ends the job.
        if worker.is_full() {
            break;
        }
        let frame = match op % 8 {
            0..=2 => worker.delta(Channel(ops.byte()), text(&mut ops), count(&mut ops), Vec::new()),
            3 => {
                let (id, name) = (Some(text(&mut ops)), Some(text(&mut ops)));
                let (index, arguments, tokens) = (count(&mut ops), text(&mut ops), count(&mut ops));
                worker.tool_call(ToolCallDelta { seq: 0, index, id, name, arguments, tokens })
            }
            4 => worker.embedding(ops.byte().into(), &[f32::from(ops.byte()); 3]),
            5 => Frame::KeepAlive.encode(),
            6 => {
                let length = ops.byte().into();
                wire.faithful = false;
                wire.deliver(ops.bytes(length));
                continue;
            }
            _ => break,
        };
        wire.carry(frame, &mut ops);
    }
    end(worker, wire, budget, &mut ops);
}

/// Usage and receipt. What the buyer agrees to is within the budget, and no more tokens than bytes that it saw.
fn end(worker: WorkerSession, mut wire: Wire, budget: MicroUsd, ops: &mut Ops<'_>) {
    let finish = FinishReason(ops.below(8));
    let told = |ops: &mut Ops<'_>| (ops.below(2) == 1).then(|| count(ops));
    let finished = worker.finish(finish, (told(ops), told(ops)), Paid::default(), NOW.after(ops.byte().into()));
    wire.carry(finished.usage, ops);
    let Some(mut body) = finished.receipt else { return };
    assert!(body.amount <= budget, "{} of {budget}", body.amount);
    let honest = ops.below(4) != 0;
    if !honest {
        body.output_tokens = body.output_tokens.wrapping_add(count(ops));
        body.input_tokens = body.input_tokens.wrapping_add(count(ops));
        body.amount = body.price.cost(body.input_tokens, body.output_tokens).unwrap_or(body.amount);
    }
    let Ok(receipt) = keys()[1].sign(&NetworkId::default(), body) else { return };
    match wire.buyer.check_receipt(&receipt, Paid::default()) {
        Ok(()) => {
            assert!(receipt.amount <= budget, "agreed to {} of {budget}", receipt.amount);
            assert!(u64::from(receipt.output_tokens) <= wire.text, "{} tokens in {} bytes", receipt.output_tokens, wire.text);
        }
        Err(violation) => assert!(!wire.faithful || !honest || wire.over, "an honest receipt was refused: {violation}"),
    }
}
