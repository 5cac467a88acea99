//! A node for tests: a worker in the middle of its work, among strangers of whom some are hostile.

use super::state::Snapshot;
use serde_json::json;

/// What a stranger may call itself: it clears a screen, turns text around, is wide, and long.
pub(super) const HOSTILE: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}evil\u{4e2d}\u{6587}\u{200d}\n-model-of-a-name-without-end";

/// One answer of such a node.
pub(super) fn snapshot() -> Snapshot {
    let id = infernet_wire::key::NodeKey::from_bytes(&[1; 32]).expect("a key").id().to_string();
    let job = |state: &str, model: &str, tokens: u32| {
        json!({"id": hex::encode([tokens as u8; 16]), "role": "sold", "state": state, "peer": id, "model": model,
            "tokens": tokens, "started": 900_000, "ms": 2_500, "ttft_ms": 120, "tokens_per_second": 42,
            "amount_micro_usd": if state == "settled" { json!(1_234) } else { json!(null) }, "path": "direct quic 10.0.0.9:46337", "error": null})
    };
    let outcome = |reason: &str, bid: bool, model: &str| {
        json!({"at": 999_990_000, "offer": hex::encode([3; 32]), "model": model, "reason": reason, "bid": bid,
            "ceiling": {"price_in": 900_000, "price_out": 900_000}, "ours": {"price_in": 100_000, "price_out": 400_000},
            "winner": if reason == "dearer" { json!({"price_in": 90_000, "price_out": 350_000}) } else { json!(null) }})
    };
    let peer = |n: u8, agent: &str| {
        let id = infernet_wire::key::NodeKey::from_bytes(&[n; 32]).expect("a key").id().to_string();
        json!({"id": id, "remote": format!("/ip4/10.0.0.{n}/tcp/46337"), "transport": "tcp", "direction": "inbound",
            "path": if n == 3 { "relayed" } else { "direct" }, "via": (n == 3).then_some("16Uiu2HAmRelay"),
            "why_not_direct": (n == 3).then_some("hole punching failed"), "rtt_ms": n, "agent": agent, "score": if n == 3 { -1.5 } else { 2.0 }, "connected_ms": 61_000})
    };
    let status = json!({
        "version": "0.1.0", "id": id, "network": "main", "listen": ["/ip4/10.0.0.1/tcp/46337"], "chat": "10.0.0.1:46337",
        "api": "http://127.0.0.1:46339/v1", "peers": 2,
        "paths": {"direct": 1, "punched": 0, "relayed": 1, "relays": [
            {"relay": "16Uiu2HAmRelay", "peers": 1, "rtt_ms": 3, "why_not_direct": "hole punching failed"}]},
        "reach": {"mode": "auto", "state": "behind_nat", "why": "a peer could not reach it", "advertised": [],
            "relays": [{"id": "16Uiu2HAmPlace", "state": "held", "configured": false, "rtt_ms": 21, "failures": 0}]},
        "uptime_ms": 11_520_000, "price_in": 100_000, "price_out": 400_000,
        "planes": [{"url": "https://plane.example", "told": 999_988_000, "error": null},
            {"url": "https://other.example", "error": "https://other.example can't be reached"}],
        "seller": {"running": 1, "settling": 0, "held": 1, "slots": 4, "models": ["llama3.1:8b", HOSTILE],
            "counters": {"offers": 12, "bids": 9, "claims": 3, "standing": 2, "lost": 5, "lost.dearer": 4, "lost.slower": 1,
                "lapsed": 1, "no_bid.no_slot": 3},
            "recent": [outcome("won", true, "llama3.1:8b"), outcome("standing", true, "llama3.1:8b"), outcome("dearer", true, HOSTILE), outcome("no_slot", false, "x")],
            "wanted": {}, "draining": false},
        "engines": [{"engine": "ollama at http://127.0.0.1:11434", "models": 2, "running": 3, "waiting": 1},
            {"engine": "ollama at http://10.0.0.5:11434", "models": 0, "error": "can't reach the engine"}],
        "machine": {"gpus": [{"vendor": "nvidia", "model": "NVIDIA RTX 4090", "memory_bytes": 25_769_803_776u64,
            "used_bytes": 9_663_676_416u64, "busy_percent": 97, "celsius": 71, "watts": 388}], "load_percent": 12},
        "store": {"receipts": 7, "unacknowledged": 1, "unreadable": 0},
        "today": {"day": "2026-11-25",
            "earned": {"jobs": 5, "input_tokens": 1, "output_tokens": 2, "acknowledged_micro_usd": 1_234, "unacknowledged_micro_usd": 5},
            "spent": {"jobs": 0, "input_tokens": 0, "output_tokens": 0, "acknowledged_micro_usd": 0, "unacknowledged_micro_usd": 0}},
        "jobs": [],
        "warnings": [{"code": "engine_down", "blocks": false, "offers": 0, "seen": "1 of 2 engines down",
            "means": "its models are not offered until it answers again", "change": "ollama serve"}],
    });
    Snapshot {
        status: serde_json::from_value(status).expect("a status"),
        peers: serde_json::from_value(json!([peer(2, "infernet/0.1.0"), peer(3, HOSTILE)])).expect("peers"),
        jobs: serde_json::from_value(json!([job("streaming", HOSTILE, 17), job("settled", "llama3.1:8b", 200)])).expect("jobs"),
    }
}
