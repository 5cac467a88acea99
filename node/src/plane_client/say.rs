//! What a plane is told of a node: key (in the signature), address, port, GPUs, models, load. Pure.
//!
//! It is what the ad says to everybody, and how busy the machine is. No secret, no host name, no serial, no path.

use crate::{control::schema::StatusReport, hardware::Reading, operator::Operators};
use infernet_wire::{capability::SocketAddrText, time::UnixMillis};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

const GIB: f64 = (1u64 << 30) as f64;
/// Addresses of the mesh that are told.
const MAX_MESH: usize = 8;
/// Models that are told: what a plane keeps.
const MAX_MODELS: usize = 50;

/// What is known of the node now.
pub(super) struct Facts<'a> {
    pub(super) status: &'a StatusReport,
    pub(super) sold_at: &'a [SocketAddrText],
    pub(super) operators: &'a Operators,
    pub(super) now: UnixMillis,
}

/// The role, which every message names.
pub(super) fn role(status: &StatusReport) -> &'static str {
    if status.seller.is_some() { "provider" } else { "client" }
}

/// The body of a registration.
pub(super) fn registration(facts: &Facts<'_>) -> Map<String, Value> {
    let mut body = heartbeat(facts, true);
    body.insert("node_id".into(), facts.status.id.to_string().into());
    if let Some(gpu) = facts.status.machine.as_ref().and_then(|machine| machine.gpus.first()) {
        body.insert("gpu_model".into(), gpu.model.clone().into());
    }
    body
}

/// The body of a heartbeat.
pub(super) fn heartbeat(facts: &Facts<'_>, available: bool) -> Map<String, Value> {
    let status = if available { "available" } else { "offline" };
    let body = json!({ "role": role(facts.status), "status": status, "specs": specs(facts) });
    let Value::Object(mut body) = body else { return Map::new() };
    if let Some(SocketAddrText(address)) = facts.sold_at.first() {
        let SocketAddrParts { ip, port } = parts(address);
        body.insert("address".into(), ip.into());
        body.insert("port".into(), port.into());
    }
    body
}

struct SocketAddrParts {
    ip: String,
    port: u16,
}

fn parts(address: &SocketAddr) -> SocketAddrParts {
    SocketAddrParts { ip: address.ip().to_string(), port: address.port() }
}

fn specs(facts: &Facts<'_>) -> Value {
    let status = facts.status;
    let none = Reading::default();
    let machine = status.machine.as_ref().unwrap_or(&none);
    let seller = status.seller.as_ref();
    let models: Vec<&String> = seller.iter().flat_map(|seller| &seller.models).take(MAX_MODELS).collect();
    let operators: Vec<String> = facts.operators.all().iter().map(|operator| operator.key.to_string()).collect();
    json!({
        "node_id": status.id,
        "network": status.network,
        "cli_version": status.version,
        "mesh": status.listen.iter().take(MAX_MESH).collect::<Vec<_>>(),
        "gpu_count": machine.gpus.len(),
        "gpus": machine.gpus.iter().map(gpu).collect::<Vec<_>>(),
        "served_models": models,
        "slots": seller.map(|seller| seller.slots),
        "draining": seller.map(|seller| seller.draining),
        "uptime_ms": status.uptime_ms,
        "operators": operators,
        "load": {
            "active_jobs": seller.map(|seller| seller.running),
            "ram": memory(machine.memory_bytes, machine.available_bytes),
            "vram": vram(machine),
            "gpu_utilization_max": machine.gpu_percent(),
            "measured_at": iso(facts.now),
        },
    })
}

fn gpu(gpu: &crate::hardware::Gpu) -> Value {
    json!({
        "vendor": gpu.vendor,
        "model": gpu.model,
        "vram_tier": gpu.memory_bytes.map_or("unknown", crate::hardware::vram_class),
        "busy_percent": gpu.busy_percent,
        "celsius": gpu.celsius,
        "watts": gpu.watts,
    })
}

fn memory(total: Option<u64>, free: Option<u64>) -> Value {
    json!({ "total_gb": total.map(gigabytes), "free_gb": free.map(gigabytes) })
}

fn vram(machine: &Reading) -> Value {
    let used: u64 = machine.gpus.iter().filter_map(|gpu| gpu.used_bytes).fold(0, u64::saturating_add);
    let total = machine.gpu_memory();
    memory(total, total.map(|total| total.saturating_sub(used)))
}

/// To a hundredth.
fn gigabytes(bytes: u64) -> f64 {
    (bytes as f64 / GIB * 100.0).round() / 100.0
}

fn iso(time: UnixMillis) -> String {
    let text = crate::date::time(time).to_string();
    format!("{}Z", text.replace(' ', "T"))
}

/// A failed command, for the plane.
pub(super) fn failed(error: impl ToString) -> Map<String, Value> {
    ended(json!({ "status": "failed", "error": error.to_string() }))
}

/// One that was carried out.
pub(super) fn completed(result: &Value) -> Map<String, Value> {
    ended(json!({ "status": "completed", "result": result }))
}

fn ended(body: Value) -> Map<String, Value> {
    match body {
        Value::Object(body) => body,
        _ => Map::new(),
    }
}
