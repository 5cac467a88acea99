//! What a plane is told of a node: key (in the signature), address, port, GPUs, models, load. Pure.
//!
//! It is what the ad says to everybody, and how busy the machine is; its memory, so that a command to fetch what can't run is
//! stopped early, is rounded to what thousands of machines have. No secret, no product's name, no host name, no serial, no path.

use crate::{control::schema::StatusReport, hardware::Reading, operator::Operators};
use infernet_wire::{capability::SocketAddrText, time::UnixMillis};
use serde_json::{Map, Value, json};
use std::{net::SocketAddr, path::Path};

const GIB: u64 = 1 << 30;
/// Memory is sold in multiples of it.
const BOX_GIB: u64 = 8;
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
        "mesh": status.reach.advertised.iter().map(|address| format!("{address}/p2p/{}", status.id)).take(MAX_MESH).collect::<Vec<_>>(),
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
        "vram_tier": gpu.memory_bytes.map_or("unknown", crate::hardware::vram_class),
        "busy_percent": gpu.busy_percent,
    })
}

/// Of all, what is printed on the boxes, rounded up; of what is free, whole gigabytes, rounded down.
fn memory(total: Option<u64>, free: Option<u64>) -> Value {
    let boxes = |bytes: u64| bytes.div_ceil(GIB).next_multiple_of(BOX_GIB);
    json!({ "total_gb": total.map(boxes), "free_gb": free.map(|bytes| bytes / GIB) })
}

fn vram(machine: &Reading) -> Value {
    let used: u64 = machine.gpus.iter().filter_map(|gpu| gpu.used_bytes).fold(0, u64::saturating_add);
    let total = machine.gpu_memory();
    memory(total, total.map(|total| total.saturating_sub(used)))
}

fn iso(time: UnixMillis) -> String {
    let text = crate::date::time(time).to_string();
    format!("{}Z", text.replace(' ', "T"))
}

/// `text` without the places of the node's home and of its engines (`KIND=URL`): errors name them, and a plane need not know.
pub(super) fn without_places(text: String, home: &Path, engines: &[String]) -> String {
    let urls = engines.iter().filter_map(|spec| spec.split_once('=')).map(|(_, url)| url.trim_end_matches('/'));
    let text = urls.filter(|url| !url.is_empty()).fold(text, |text, url| text.replace(url, "its address"));
    let home = home.to_string_lossy();
    if home.len() > 1 { text.replace(&*home, "HOME") } else { text }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Gpu, Vendor};

    #[test]
    fn memory_is_told_as_thousands_of_machines_have_it() {
        let check = |total: u64, free: u64, expected: Value| assert_eq!(memory(Some(total), Some(free)), expected);
        check(25_284_612_096, 22_624_567_296, json!({ "total_gb": 24, "free_gb": 21 }));
        check(8_585_740_288, 5, json!({ "total_gb": 8, "free_gb": 0 }));
        assert_eq!(memory(None, None), json!({ "total_gb": null, "free_gb": null }));
    }

    #[test]
    fn a_gpu_is_told_by_vendor_and_class_alone() {
        let card = Gpu {
            vendor: Vendor::Nvidia,
            model: "NVIDIA GeForce RTX 4090".into(),
            memory_bytes: Some(24_564 << 20),
            used_bytes: Some(1),
            busy_percent: Some(7),
            celsius: Some(61),
            watts: Some(300),
        };
        assert_eq!(gpu(&card), json!({ "vendor": "nvidia", "vram_tier": "24-48gb", "busy_percent": 7 }));
    }

    #[test]
    fn an_error_names_no_place() {
        let engines = ["vllm=http://10.0.0.5:8000".to_owned()];
        let said = |text: &str| without_places(text.into(), Path::new("/srv/anna/infernet"), &engines);
        assert_eq!(said("can't use /srv/anna/infernet/config.toml: no space"), "can't use HOME/config.toml: no space");
        assert_eq!(said("vllm at http://10.0.0.5:8000 is down"), "vllm at its address is down");
    }
}
