//! Who may ask, how often, and for how much.

use super::*;
use infernet_node::{
    api_keys,
    store::{Page, SpendRecord},
};
use infernet_wire::money::MicroUsd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// What a server answers to these bytes until it closes; `None` if it does not close in time.
async fn raw(api: &Api, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(api.addr()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut text = String::new();
    // A reset after the answer is an end, too.
    let read = timeout(SOON, stream.read_to_string(&mut text)).await.ok()?;
    read.is_ok().then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_and_pages_are_turned_away() {
    let network = Network::with(|setup| {
        setup.config.hosts = vec!["gpu.lan".into()];
        setup.config.origins = vec!["https://chat.example.org".into()];
    })
    .await;
    let get = |host: &'static str, origin: Option<&'static str>| {
        let request = network.http.get(network.url("/v1/models")).header("Host", host);
        if let Some(origin) = origin { request.header("Origin", origin) } else { request }
    };
    error(get("evil.example", None).send().await.expect("an answer"), 403, "unknown_host").await;
    error(get("localhost", Some("https://evil.example")).send().await.expect("an answer"), 403, "unknown_origin").await;
    assert_eq!(get("gpu.lan:1", None).send().await.expect("an answer").status(), 200);
    let page = get("localhost", Some("https://chat.example.org")).send().await.expect("an answer");
    assert_eq!(
        (page.status().as_u16(), &page.headers()["access-control-allow-origin"]),
        (200, &"https://chat.example.org".parse().expect("a header"))
    );

    let preflight = |origin: &str| {
        let request = network.http.request(reqwest::Method::OPTIONS, network.url("/v1/chat/completions"));
        request.header("Origin", origin).header("Access-Control-Request-Method", "POST").send()
    };
    let allowed = preflight("https://chat.example.org").await.expect("an answer");
    assert_eq!(allowed.status(), 204);
    assert!(allowed.headers()["access-control-allow-headers"].to_str().expect("text").contains("authorization"));
    let refused = preflight("https://evil.example").await.expect("an answer");
    assert!(refused.status() == 403 && !refused.headers().contains_key("access-control-allow-origin"));
    let nameless = raw(&network.api, "GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n").await.expect("an answer");
    assert!(nameless.starts_with("HTTP/1.1 403"), "{nameless}");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_a_key_is_required() {
    let network = Network::with(|setup| setup.config.listen = (Ipv4Addr::UNSPECIFIED, 0).into()).await;
    let url = format!("http://127.0.0.1:{}", network.api.addr().port());
    let get = |key: Option<&str>| {
        let request = network.http.get(format!("{url}/v1/models"));
        if let Some(key) = key { request.bearer_auth(key) } else { request }
    };
    let nobody = get(None).send().await.expect("an answer");
    assert_eq!(nobody.headers()["www-authenticate"], "Bearer");
    error(nobody, 401, "invalid_api_key").await;
    error(get(Some("sk-wrong")).send().await.expect("an answer"), 401, "invalid_api_key").await;
    let token = std::fs::read_to_string(network.buyer.home.path().join(api_keys::TOKEN_FILE)).expect("a token");
    assert_eq!(get(Some(token.trim())).send().await.expect("an answer").status(), 200);
    assert_eq!(network.http.get(format!("{url}/healthz")).send().await.expect("an answer").status(), 200, "probes need none");
}

fn cap(per_request: Option<u64>, per_day: Option<u64>) -> Caps {
    Caps { per_request: per_request.map(MicroUsd), per_day: per_day.map(MicroUsd) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_costs_at_most_its_cap() {
    let network = Network::with(|setup| setup.caps = cap(Some(40), None)).await;
    assert_eq!(network.whole(&ask("one two", json!({ "max_tokens": 8 }))).await["infernet"]["amount_micro_usd"], 4);
    let dear = error(network.chat(&ask("one two", json!({ "max_tokens": 64 }))).await, 402, "spend_cap").await;
    assert!(dear["message"].as_str().expect("text").contains("40 micro-USD"), "{dear}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_cap_holds_over_a_crash() {
    let network = Network::with(|setup| setup.caps = cap(None, Some(100))).await;
    let body = ask("one two three", json!({ "max_tokens": 16 }));
    let mut bought = 0;
    let last = loop {
        let response = network.chat(&body).await;
        if response.status() != 200 {
            break error(response, 402, "spend_cap").await;
        }
        bought += 1;
    };
    assert!(last["message"].as_str().expect("text").contains("spend cap"), "{last}");
    infernet_testnet::cluster::eventually("all receipts", SOON, async || receipts_of(&network).len() == bought)
        .await
        .expect("kept");
    let paid: u64 = receipts_of(&network).iter().map(|receipt| receipt.receipt().amount.0).sum();
    assert!(paid <= 100 && bought >= 8, "{bought} jobs for {paid}");

    // A node that was killed finds only what was written down: all of it counts as spent.
    let written: Vec<SpendRecord> = network.buyer.node.store().spend_since(0).expect("records");
    assert!(written.iter().map(|record| record.authorised.0).max() >= Some(paid), "{written:?}");
    let again = open(&network.buyer, |setup| setup.caps = cap(None, Some(100))).await;
    let response =
        network.http.post(format!("{}/chat/completions", again.base_url())).json(&body).send().await.expect("an answer");
    error(response, 402, "spend_cap").await;
}

fn receipts_of(network: &Network) -> Vec<infernet_wire::receipt::SignedReceipt> {
    network.buyer.node.store().receipts(Page::newest(1_000)).expect("receipts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_own_cap() {
    let network = Network::start().await;
    let poor = api_keys::add(network.buyer.home.path(), "poor", None, Some(30)).expect("a key");
    let rich = api_keys::add(network.buyer.home.path(), "rich", None, None).expect("a key");
    // The endpoint looks for new keys once a second.
    infernet_testnet::cluster::eventually("the keys", SOON, async || {
        network.http.get(network.url("/v1/models")).bearer_auth(&*rich).send().await.expect("an answer").status() == 200
    })
    .await
    .expect("known");
    let with =
        |key: &str| network.post("/v1/chat/completions", &ask("one", json!({ "max_tokens": 4 }))).bearer_auth(key).send();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(with(&poor).await.expect("an answer").status().as_u16());
    }
    assert_eq!((statuses[0], *statuses.last().expect("some")), (200, 402), "{statuses:?}");
    assert_eq!(with(&rich).await.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_request_are_paid_for_once() {
    let network = Network::start().await;
    let send =
        |key: &'static str, body: &Value| network.post("/v1/chat/completions", body).header("Idempotency-Key", key).send();
    for stream in [false, true] {
        let body = ask("one two", json!({ "stream": stream }));
        let key = if stream { "s" } else { "w" };
        let before = network.engine.asked();
        let (first, second) = tokio::join!(send(key, &body), send(key, &body));
        let (first, second) = (first.expect("an answer"), second.expect("an answer"));
        let kinds = [&first, &second].map(|response| response.headers()["content-type"].clone());
        assert_eq!(kinds[0], kinds[1]);
        let texts = [first.text().await.expect("text"), second.text().await.expect("text")];
        assert_eq!(texts[0], texts[1], "to the byte");
        assert_eq!(network.engine.asked() - before, 1);
        let later = send(key, &body).await.expect("an answer");
        assert_eq!(later.headers()["x-infernet-replayed"], "true");
        assert_eq!(later.text().await.expect("text"), texts[0]);
        error(send(key, &ask("other", json!({}))).await.expect("an answer"), 422, "idempotency_key_reused").await;
    }
    let failing = ask("fail 1", json!({}));
    for _ in 0..2 {
        error(send("f", &failing).await.expect("an answer"), 502, "worker_failed").await;
    }
    assert_eq!(send("f", &ask("one", json!({}))).await.expect("an answer").status(), 200, "a failure frees its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so() {
    let network = Network::with(|setup| setup.config.max_requests = 1).await;
    let response = network.chat(&ask("drone", json!({ "stream": true, "max_tokens": 3_000 }))).await;
    assert_eq!(response.status(), 200);
    let full = network.chat(&ask("hi", json!({}))).await;
    assert!(full.headers().contains_key("retry-after"));
    error(full, 429, "busy").await;
    assert_eq!(network.http.get(network.url("/livez")).send().await.expect("an answer").status(), 200);
    drop(response);
    infernet_testnet::cluster::eventually("room", SOON, async || network.chat(&ask("hi", json!({}))).await.status() == 200)
        .await
        .expect("free again when the first is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_vast_clients_are_cut_off() {
    let network = Network::start().await;
    let host = "Host: localhost\r\n";
    let vast = format!("GET /livez HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(70_000));
    let half = format!("POST /v1/chat/completions HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\n{{");
    let (head, body, vast) = tokio::join!(
        raw(&network.api, "POST /v1/chat/completions HTTP/1.1\r\nHo"),
        raw(&network.api, &half),
        raw(&network.api, &vast),
    );
    assert!(head.is_some(), "half a head does not hold a connection");
    assert!(body.expect("an answer").starts_with("HTTP/1.1 408"));
    assert!(vast.is_none_or(|answer| answer.starts_with("HTTP/1.1 431")), "a vast head is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off_and_its_job_settled() {
    let network = Network::start().await;
    let body = ask("flood", json!({ "stream": true, "max_tokens": 3_000 })).to_string();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8_192).expect("a small buffer");
    let mut stream = socket.connect(network.api.addr()).await.expect("a connection");
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("writes");
    stream.write_all(body.as_bytes()).await.expect("writes");
    infernet_testnet::cluster::eventually("a receipt", SOON, async || receipts_of(&network).len() == 1).await.expect("settled");
    drop(stream);
}
