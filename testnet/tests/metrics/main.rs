//! What real nodes tell Prometheus after a busy minute, and whether the dashboard asks for just that.

mod dashboard;
mod scraped;

use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, Opened},
    },
    api_keys,
    hardware::{Gpu, Reading, Sensors, Vendor},
    metrics,
    node::Node,
    spend::Caps,
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    scripted::{CHAT_MODEL, EMBED_MODEL, ScriptedEngine},
};
use reqwest::{Client, Response};
use scraped::Scraped;
use serde_json::{Value, json};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use tempfile::TempDir;

/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The cheap worker charges one micro-USD a token.
const PRICE: u64 = 1_000_000;
/// Families that a day without trouble leaves without a series. Every other one must have some.
const QUIET: [&str; 12] = [
    "infernet_answers_refused",
    "infernet_left_out",
    "infernet_retries",
    "infernet_stream_resumed",
    "infernet_events",
    "infernet_claims_refused",
    "infernet_chat_streams_refused",
    "infernet_chat_messages_refused",
    "infernet_relay_places",
    "infernet_relayed_peers",
    "infernet_reach_tests",
    "infernet_punches",
];

/// Prices: a winner, two runners-up whose bids still count, and one who loses.
const PRICES: [u64; 4] = [PRICE, 2 * PRICE, 3 * PRICE, 4 * PRICE];
/// Jobs at once at each worker.
const SLOTS: u16 = 4;

/// A machine with a GPU that tells everything.
struct OneGpu;

impl Sensors for OneGpu {
    fn read(&mut self) -> Reading {
        let gpu = Gpu {
            vendor: Vendor::Nvidia,
            model: "a GPU".into(),
            memory_bytes: Some(24 << 30),
            used_bytes: Some(6 << 30),
            busy_percent: Some(50),
            celsius: Some(61),
            watts: Some(200),
        };
        Reading { gpus: vec![gpu], load_percent: Some(25), ..Reading::default() }
    }
}

/// A buyer with its endpoint, and workers at [`PRICES`].
struct Network {
    buyer: Arc<Node>,
    api: Api,
    workers: Vec<Member>,
    /// An API key that is not the operator's.
    guest: String,
    http: Client,
    _home: TempDir,
    _engine: ScriptedEngine,
}

impl Network {
    async fn start() -> Self {
        let engine = ScriptedEngine::start().await.expect("an engine");
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let mut workers = Vec::new();
        for price in PRICES {
            let sells = Sells { sensors: Some(|| Box::new(OneGpu)), ..Sells::new(engine.url(), price, price, SLOTS) };
            workers.push(Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker"));
        }
        buyer.knows(CHAT_MODEL, workers.len(), SOON).await.expect("the workers' ads");
        let Member { node, home } = buyer;
        let buyer = Arc::new(node);
        let guest = api_keys::add(home.path(), "guest", None, None).expect("a key").to_string();
        let opened = Opened::new(home.path(), ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("an address");
        let purse = buyer.limit(Caps::default()).await.expect("a purse");
        let api = opened.serve(&buyer, purse, metrics::route(buyer.clone())).expect("an endpoint");
        let http = Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        Network { buyer, api, workers, guest, http, _home: home, _engine: engine }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api.addr())
    }

    /// Asks for a chat, by this path.
    async fn chat(&self, model: &str, text: &str, path: &str) -> Response {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": text }], "max_tokens": 64 });
        let request = self.http.post(self.url("/v1/chat/completions")).header("X-Infernet-Path", path);
        request.json(&body).send().await.expect("an answer")
    }

    async fn answered(&self, text: &str, path: &str) -> Value {
        let response = self.chat(CHAT_MODEL, text, path).await;
        assert_eq!(response.status(), 200);
        response.json().await.expect("JSON")
    }

    /// Auctions, jobs at a standing price, vectors, failures, a model that nobody has.
    async fn busy(&self) {
        for path in ["auction", "auction", "standing"] {
            self.answered("one two three", path).await;
        }
        let vectors = json!({ "model": EMBED_MODEL, "input": ["a", "b"] });
        let vectors = self.http.post(self.url("/v1/embeddings")).json(&vectors).send().await.expect("an answer");
        assert_eq!(vectors.status(), 200);
        assert_eq!(self.chat(CHAT_MODEL, "fail 3", "auction").await.status(), 502);
        assert_eq!(self.chat("nobody/has-it", "hi", "auction").await.status(), 404);
        let dear =
            json!({ "model": CHAT_MODEL, "messages": [{ "role": "user", "content": "hi" }], "infernet": { "budget": 1 } });
        let dear = self.http.post(self.url("/v1/chat/completions")).header("X-Infernet-Path", "auction").json(&dear);
        assert_eq!(dear.send().await.expect("an answer").status(), 402);
    }

    /// What the buyer tells over HTTP.
    async fn bought(&self) -> Scraped {
        let response = self.http.get(self.url("/metrics")).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Scraped::parse(&response.text().await.expect("text"))
    }

    /// What the workers tell, all together.
    async fn sold(&self) -> Scraped {
        let mut all = Vec::new();
        for worker in &self.workers {
            all.push(Scraped::parse(&metrics::text(&worker.node).await.expect("metrics")));
        }
        Scraped::merged(&all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_minute_is_told_and_the_dashboard_shows_it() {
    let network = Network::start().await;
    network.busy().await;
    // The worker hears of the last countersignature after the client has its answer.
    eventually("every receipt is signed, and a loser knows why", SOON, async || {
        let (bought, sold) = (network.bought().await, network.sold().await);
        let spent = bought.sum("infernet_spent_micro_usd_total", &[]);
        let earned = sold.sum("infernet_earned_micro_usd_total", &[("state", "acknowledged")]);
        // So it is with news of who won.
        let lost = sold.sum("infernet_bids_lost_total", &[("reason", "dearer")]);
        spent > 0.0 && earned == spent && lost > 0.0
    })
    .await
    .expect("both sides agree");
    let (bought, sold) = (network.bought().await, network.sold().await);

    let model = ("gen_ai_request_model", CHAT_MODEL);
    let asked = bought.sum("gen_ai_client_operation_duration_seconds_count", &[model]);
    assert_eq!(asked, 5.0, "three answers, one failure, one too poor");
    assert_eq!(bought.sum("gen_ai_client_operation_duration_seconds_count", &[model, ("error_type", "")]), 3.0);
    assert_eq!(bought.sum("gen_ai_client_operation_duration_seconds_count", &[("gen_ai_request_model", "other")]), 1.0);
    let embeddings = [("gen_ai_operation_name", "embeddings"), ("error_type", "")];
    assert_eq!(sold.sum("gen_ai_server_request_duration_seconds_count", &embeddings), 1.0);
    assert!(sold.sum("gen_ai_server_time_to_first_token_seconds_count", &[model]) >= 4.0);
    assert!(sold.sum("gen_ai_server_time_per_output_token_seconds_count", &[model]) >= 3.0);
    for kind in ["input", "output"] {
        assert!(bought.sum("gen_ai_client_token_usage_sum", &[("gen_ai_token_type", kind)]) > 0.0, "{kind}");
    }
    let tokens = bought.sum("infernet_tokens_bought_total", &[]);
    assert!(tokens > 9.0 && tokens == sold.sum("infernet_tokens_sold_total", &[]), "{tokens}");

    for (started, ended) in [
        ("infernet_jobs_bought_started_total", "infernet_jobs_bought_ended_total"),
        ("infernet_auctions_started_total", "infernet_auctions_closed_total"),
    ] {
        assert_eq!(bought.sum(started, &[]), bought.sum(ended, &[]), "{started}");
    }
    assert_eq!(sold.sum("infernet_chat_streams_started_total", &[]), sold.sum("infernet_chat_endings_total", &[]));
    assert_eq!(bought.sum("infernet_peers", &[]), 4.0);
    assert_eq!(bought.sum("infernet_peer_paths", &[("path", "direct")]), 4.0);
    assert_eq!(sold.sum("infernet_slots", &[]), 16.0);
    let gpu = [("gpu", "0"), ("vendor", "nvidia")];
    let told = ["busy_ratio", "temperature_celsius", "power_watts"].map(|what| sold.sum(&format!("infernet_gpu_{what}"), &gpu));
    assert_eq!(told, [2.0, 244.0, 800.0], "four workers with one each");
    assert_eq!((sold.sum("infernet_host_load_ratio", &[]), sold.sum("infernet_closed", &[])), (1.0, 0.0));
    assert!(bought.sum("infernet_api_requests_total", &[("route", "chat"), ("status", "200")]) >= 3.0);
    assert!(sold.sum("infernet_journal_commit_duration_seconds_count", &[]) > 0.0);

    let all = Scraped::merged([&bought, &sold]);
    let silent: Vec<&str> = all.families().filter(|name| all.is_empty(name)).collect();
    assert!(silent.iter().all(|name| QUIET.contains(name)), "families that nothing was counted in: {silent:?}");
    assert_eq!(all.events(), Vec::<String>::new(), "every count has a family of its own");
    dashboard::check(&all);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_the_operator_alone() {
    let network = Network::start().await;
    let asked = network.http.get(network.url("/metrics")).bearer_auth(&network.guest).send().await.expect("an answer");
    let status = asked.status();
    let error: Value = asked.json().await.expect("JSON");
    assert_eq!((status.as_u16(), &error["error"]["code"]), (403, &json!("operator_only")), "{error}");
    let text = metrics::text(&network.buyer).await.expect("metrics");
    assert!(text.ends_with("# EOF\n"));
}
