//! How much an engine has to do: its own gauges, or llama-server's slots.

use super::describe::Flavour;
use crate::backend::{
    Load,
    facts::{BackendKind, Facts},
    http::Http,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Slot {
    is_processing: bool,
}

/// `None` if the engine does not tell: it need not have been told to.
pub(super) async fn load(http: &Http, facts: &Facts, flavour: Flavour) -> Option<Load> {
    // Several models share these, each with gauges of its own.
    if flavour != Flavour::Plain {
        return None;
    }
    let gauges = facts.gauges?;
    if let Ok(text) = http.text("/metrics").await
        && let Some(running) = gauge(&text, gauges.running)
    {
        return Some(Load { running, waiting: gauge(&text, gauges.waiting) });
    }
    if facts.kind != BackendKind::LlamaCpp {
        return None;
    }
    let slots: Vec<Slot> = http.get("/slots").await.ok()?;
    let running = slots.iter().filter(|slot| slot.is_processing).count();
    Some(Load { running: u32::try_from(running).unwrap_or(u32::MAX), waiting: None })
}

/// The sum of a gauge's samples in Prometheus' text format, over all labels; `None` if it has none.
fn gauge(text: &str, name: &str) -> Option<u32> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = samples.filter_map(|rest| match rest.split_once('}') {
        Some((labels, value)) if labels.starts_with('{') => value.split_whitespace().next()?.parse::<f64>().ok(),
        // Without labels; a longer name goes on here.
        _ if rest.starts_with(' ') => rest.split_whitespace().next()?.parse().ok(),
        _ => None,
    });
    // Rounded and within bounds: floats become integers by saturation.
    values.reduce(|sum, value| sum + value).map(|sum| sum.round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u32>) {
        assert_eq!(gauge(text, "vllm:num_requests_waiting"), expected, "{text}");
    }

    #[test]
    fn gauges_are_summed_over_their_labels() {
        check("# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} 2.0\n", Some(2));
        check("vllm:num_requests_waiting{engine=\"0\"} 2.0\nvllm:num_requests_waiting{engine=\"1\"} 1.0 1795359922\n", Some(3));
        check("vllm:num_requests_waiting 7\n", Some(7));
        check("vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 5.0\n", None);
        check("vllm:num_requests_waiting{engine=\"0\"} NaN\n", Some(0));
        check("vllm:num_requests_waiting{engine=\"0\"} -3\n", Some(0));
        check("vllm:num_requests_waiting{\n", None);
        check("<html>", None);
    }
}
