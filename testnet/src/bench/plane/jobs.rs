//! From asking to the first token: over the plane's API, and straight over libp2p, one after the other in the same run.

use crate::{
    bench::BenchError,
    cluster::{Member, MemberSpec, Sells, eventually},
    demo::order,
    engine::{EngineOptions, EngineServer},
    plane::Beside,
};
use infernet_node::{
    buyer::{Buyer, ChatEvent},
    chat::client::Progress,
    clock,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the worker charges per million tokens, and how many jobs it runs at once.
const PRICE: u64 = 100_000;
const SLOTS: u16 = 4;
/// Tokens of each answer.
const TOKENS: u32 = 8;
/// How long the network may take to form: who comes late hears a worker's next ad after up to 45 s.
const FORM: Duration = Duration::from_secs(120);

/// The result, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct JobsResult {
    /// Of each kind.
    pub jobs: usize,
    /// `POST /api/v1/jobs` to the first event of its stream with text.
    pub plane_p50_us: u64,
    /// The same.
    pub plane_p99_us: u64,
    /// An order to the node's buyer to the first text.
    pub direct_p50_us: u64,
    /// The same.
    pub direct_p99_us: u64,
}

pub(super) async fn run(jobs: usize) -> Result<JobsResult, BenchError> {
    let engine = EngineServer::start(EngineOptions::default()).await?;
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await?;
    let sells = Sells::new(engine.url(), PRICE, PRICE, SLOTS);
    let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await?;
    let model = EngineOptions::default().name;
    buyer.knows(&model, 1, FORM).await?;
    let plane = Beside::start(buyer.addresses().await).await?;
    let heard = || async {
        match &plane.running.plane.gateway {
            Some(gateway) => !gateway.through().buyer.known_models().await.is_empty(),
            None => false,
        }
    };
    eventually("the plane's own buyer hearing of the worker", FORM, heard).await?;
    let client = reqwest::Client::builder().no_proxy().timeout(FORM).build()?;
    let (mut by_plane, mut direct) = (Vec::new(), Vec::new());
    // The first of each makes connections, and is an auction.
    for n in 0..=jobs {
        let (one, other) = (over_http(&client, &plane, &model).await?, over_mesh(buyer.node.buyer(), &model).await?);
        if n > 0 {
            by_plane.push(one);
            direct.push(other);
        }
    }
    plane.stop().await;
    worker.node.shutdown(Duration::from_secs(1)).await;
    buyer.node.shutdown(Duration::from_secs(1)).await;
    let at = |times: &mut Vec<u64>, permille: usize| {
        times.sort_unstable();
        times.get((times.len() * permille / 1000).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Ok(JobsResult {
        jobs,
        plane_p50_us: at(&mut by_plane, 500),
        plane_p99_us: at(&mut by_plane, 990),
        direct_p50_us: at(&mut direct, 500),
        direct_p99_us: at(&mut direct, 990),
    })
}

async fn over_http(client: &reqwest::Client, plane: &Beside, model: &str) -> Result<u64, BenchError> {
    let url = format!("http://{}", plane.running.addr);
    let asked = json!({ "model": model, "prompt": "Go.", "max_tokens": TOKENS, "temperature": 0 });
    let begin = clock::instant();
    let accepted = client.post(format!("{url}/api/v1/jobs")).bearer_auth(plane.key()).json(&asked).send().await?;
    let job: Value = accepted.error_for_status()?.json().await?;
    let path = job.get("stream_url").and_then(Value::as_str).unwrap_or_default();
    let mut stream = client.get(format!("{url}{path}")).bearer_auth(plane.key()).send().await?.error_for_status()?;
    let (mut seen, mut first) = (String::new(), None);
    while let Some(chunk) = stream.chunk().await? {
        seen.push_str(&String::from_utf8_lossy(&chunk));
        if first.is_none() && seen.contains("data: {\"text\"") {
            first = Some(begin.elapsed());
        }
    }
    match first {
        Some(first) if seen.contains("data: [DONE]") => Ok(first.as_micros() as u64),
        _ => Err(BenchError::Options(format!("a job over the plane ended with {seen:?}"))),
    }
}

async fn over_mesh(buyer: &Buyer, model: &str) -> Result<u64, BenchError> {
    let (events, mut heard) = mpsc::channel(64);
    let (_never, mut cancel) = watch::channel(false);
    let begin = clock::instant();
    let reading = async {
        let mut first = None;
        while let Some(event) = heard.recv().await {
            if matches!(event, ChatEvent::Stream(Progress::Text { .. })) {
                first.get_or_insert_with(|| begin.elapsed());
            }
        }
        first
    };
    let buying = async {
        let result = buyer.chat(order(model, "Go.", TOKENS), &events, &mut cancel).await;
        drop(events);
        result
    };
    let (result, first) = tokio::join!(buying, reading);
    result?;
    first.map(|first| first.as_micros() as u64).ok_or_else(|| BenchError::Options("a job had no text".into()))
}
