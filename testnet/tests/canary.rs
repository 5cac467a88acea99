//! Nothing of a prompt or an answer leaves the chat stream: not into gossip, not into a log, not onto a disk.
//!
//! Two strings that occur nowhere else go through every way that a job can take; then whatever was published, logged or
//! written is searched for them. That the search would find them is shown by planting each leak. In a binary of its own, since
//! it takes the process's log.
#![cfg(test)]

mod support;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use infernet_node::{
    api::open::{ApiConfig, Opened},
    buyer::{ChatError, ChatEvent},
    chat::client::Progress,
    clock,
    report::ChatReport,
    spend::{Caps, Purse},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    demo::order,
};
use infernet_wire::topic;
use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{MODEL, Reply, Scripted};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing_subscriber::EnvFilter;

/// Far above what any step takes; reached only when something hangs.
const SOON: Duration = Duration::from_secs(30);

/// Everything logged, at the finest level for our own crates.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> Self {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("debug,infernet_node=trace,infernet_wire=trace"))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no writer panics").clone()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A string that nobody else writes.
fn canary(what: &str) -> String {
    format!("{what}{}", hex::encode(clock::random::<8>()))
}

/// How a text may be written down: as it is, in hex, in base64 at each of the three offsets.
fn spellings(text: &str) -> Vec<Vec<u8>> {
    let mut all = vec![text.into(), hex::encode(text).into_bytes(), hex::encode_upper(text).into_bytes()];
    for offset in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&vec![0; offset], text.as_bytes()].concat());
        // The first and last characters also depend on what is before and behind.
        all.push(encoded.as_bytes()[if offset == 0 { 0 } else { offset + 1 }..encoded.len() - 2].to_vec());
    }
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    spellings(text).iter().any(|spelling| bytes.windows(spelling.len()).any(|window| window == spelling.as_slice()))
}

/// Where something may have leaked to.
struct Evidence {
    log: Log,
    homes: Vec<PathBuf>,
    tap: mpsc::Receiver<(String, Vec<u8>)>,
    gossip: Vec<(String, Vec<u8>)>,
}

impl Evidence {
    /// The places that hold `text`.
    fn of(&mut self, text: &str) -> Vec<String> {
        while let Ok(message) = self.tap.try_recv() {
            self.gossip.push(message);
        }
        let gossip =
            self.gossip.iter().filter(|(_, bytes)| contains(bytes, text)).map(|(topic, _)| format!("gossip on {topic}"));
        let mut places: Vec<String> = gossip.collect();
        for file in self.homes.iter().flat_map(|home| files(home)) {
            if contains(&fs::read(&file).expect("a readable file"), text) {
                places.push(format!("file {}", file.file_name().unwrap_or_default().display()));
            }
        }
        let log = self.log.bytes();
        places.extend(log.split(|b| *b == b'\n').filter(|line| contains(line, text)).map(|_| "log".to_owned()));
        places.dedup();
        places
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a readable directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Asks `prompt`; cancels after `cancel_after` pieces.
async fn ask(buyer: &Member, model: &str, prompt: &str, cancel_after: Option<usize>) -> (Result<ChatReport, ChatError>, usize) {
    let (events, mut heard) = mpsc::channel(16);
    let (cancel_now, mut cancel) = watch::channel(false);
    let listening = tokio::spawn(async move {
        let (mut pieces, mut retries) = (0, 0);
        while let Some(event) = heard.recv().await {
            pieces += usize::from(matches!(&event, ChatEvent::Stream(Progress::Text { .. })));
            retries += usize::from(matches!(&event, ChatEvent::Retry { .. }));
            if cancel_after.is_some_and(|n| pieces >= n) {
                cancel_now.send_replace(true);
            }
        }
        retries
    });
    let job = timeout(SOON, buyer.node.buyer().chat(order(model, prompt, 1_000), &events, &mut cancel));
    let result = job.await.expect("the job ends");
    drop(events);
    (result, listening.await.expect("the listener ends"))
}

async fn worker(bootstrap: &Member, engine: &Scripted, price: u64, tap: mpsc::Sender<(String, Vec<u8>)>) -> Member {
    let spec = MemberSpec::worker(bootstrap.addresses().await, Sells::new(engine.url(), price, price, 4));
    Member::start(MemberSpec { tap: Some(tap), ..spec }).await.expect("a worker starts")
}

/// Asks by way of the OpenAI endpoint: whole, as a stream, in vain, and with mistakes. What goes wrong quotes nothing either.
async fn ask_api(buyer: &Member, prompt: &str, answer: &str, key: &str) {
    let opened = Opened::new(buyer.home.path(), ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("an address");
    let purse = Purse::open(Caps::default(), buyer.node.store().clone(), &[buyer.node.id()].into()).expect("a purse");
    let api = opened.serve(&buyer.node, purse, axum::Router::new()).expect("an endpoint");
    let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let url = format!("{}/chat/completions", api.base_url());
    let say = async |body: serde_json::Value| {
        let response = http.post(&url).bearer_auth(key).json(&body).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    let body = |text: &str, stream: bool| {
        let message = serde_json::json!({ "role": "user", "content": format!("{text} {prompt}") });
        serde_json::json!({ "model": MODEL, "messages": [message], "stream": stream })
    };
    for stream in [false, true] {
        let (status, text) = say(body("say", stream)).await;
        assert!(status == 200 && text.contains(answer), "{text}");
        let (_, text) = say(body("refuse", stream)).await;
        assert!(text.contains("worker_failed") && !text.contains(answer) && !text.contains(prompt), "{text}");
        let (_, text) = say(body("break", stream)).await;
        assert!(text.contains("worker_failed") && !text.contains(prompt), "{text}");
    }
    for wrong in [serde_json::json!({ "model": MODEL, "messages": prompt }), serde_json::json!([prompt])] {
        let (status, text) = say(wrong).await;
        assert!(status == 400 && !text.contains(prompt), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_and_answer_stay_on_the_stream() {
    let log = Log::capture();
    let (prompt, answer) = (canary("prompt"), canary("answer"));
    // Whoever is asked first gives up, whoever is asked next does not.
    let asked_before = Arc::new(AtomicBool::new(false));
    let script = || {
        let (answer, asked_before) = (answer.clone(), asked_before.clone());
        move |asked: &str| match asked {
            _ if asked.contains("drone") => Reply::Drone(answer.clone()),
            _ if asked.contains("break") => Reply::Fail(vec![answer.clone()], format!("can't go on with {asked}: {answer}")),
            _ if asked.contains("refuse") || asked.contains("elsewhere") && !asked_before.swap(true, Ordering::Relaxed) => {
                Reply::Refuse(format!("can't answer {asked} with {answer}"))
            }
            _ => Reply::Say(vec!["It is ".into(), answer.clone()]),
        }
    };
    let cheap = Scripted::start(script()).await;
    let dear = Scripted::start(script()).await;
    let (tap, tapped) = mpsc::channel(100_000);
    let observer = MemberSpec { tap: Some(tap.clone()), ..MemberSpec::buyer(Vec::new()) };
    let observer = Member::start(observer).await.expect("an observer starts");
    let buyer = MemberSpec { tap: Some(tap.clone()), ..MemberSpec::buyer(observer.addresses().await) };
    let buyer = Member::start(buyer).await.expect("a buyer starts");
    let workers = [worker(&observer, &cheap, 100_000, tap.clone()).await, worker(&observer, &dear, 9_000_000, tap).await];
    buyer.knows(MODEL, 2, SOON).await.expect("the workers are known");

    let (done, _) = ask(&buyer, MODEL, &format!("say {prompt}"), None).await;
    let done = done.expect("an answer");
    assert!(done.answer.contains(&answer) && done.receipt.is_some_and(|r| r.verified));
    let (cancelled, _) = ask(&buyer, MODEL, &format!("drone {prompt}"), Some(3)).await;
    assert_eq!(cancelled.expect("what came until then").stream.finish, "cancelled");
    let (broken, _) = ask(&buyer, MODEL, &format!("break {prompt}"), None).await;
    let broken = broken.expect("what came until then");
    assert_eq!((broken.stream.finish.as_str(), broken.answer == answer), ("error", true));
    let (refused, retries) = ask(&buyer, MODEL, &format!("refuse {prompt}"), None).await;
    let refused = refused.expect_err("no engine answers").to_string();
    assert!(retries > 0 && !refused.contains(&prompt) && !refused.contains(&answer), "{refused}");
    let (moved, retries) = ask(&buyer, MODEL, &format!("elsewhere {prompt}"), None).await;
    assert!(moved.expect("the next one answers").answer.contains(&answer) && retries == 1);

    let key = canary("key");
    ask_api(&buyer, &prompt, &answer, &key).await;

    let members = [&observer, &buyer, &workers[0], &workers[1]];
    let homes = members.map(|member| member.home.path().to_owned()).into();
    let mut evidence = Evidence { log, homes, tap: tapped, gossip: Vec::new() };
    let idle = || async { workers[0].node.status().await.seller.is_some_and(|s| s.under_way() == 0) };
    eventually("the worker is idle", SOON, idle).await.expect("idle");
    for member in members {
        member.node.store().flush().expect("the store is written");
    }
    assert_eq!((evidence.of(&prompt), evidence.of(&answer), evidence.of(&key)), (Vec::new(), Vec::new(), Vec::new()));

    // The search looks everywhere: what may be told is found in each place.
    let places = evidence.of(MODEL);
    for place in ["log", "file", &format!("gossip on {}", topic::RECEIPTS)] {
        assert!(places.iter().any(|found| found.starts_with(place)), "{place} of {places:?}");
    }

    // And it finds each leak, however it is spelled.
    let planted = canary("log");
    tracing::trace!(target: "infernet_node::planted", "the prompt was {planted}");
    assert_eq!(evidence.of(&planted), ["log"]);
    let spellings: [fn(&str) -> String; 5] = [
        |text| format!("...{text}..."),
        |text| hex::encode(text),
        |text| STANDARD_NO_PAD.encode(text),
        |text| STANDARD_NO_PAD.encode(format!("x{text}y")),
        |text| STANDARD_NO_PAD.encode(format!("{{\"{text}\"}}")),
    ];
    for spelling in spellings {
        let planted = canary("file");
        fs::write(buyer.home.path().join("leak"), spelling(&planted)).expect("it is written");
        assert_eq!(evidence.of(&planted), ["file leak"], "{}", spelling(&planted));
    }
    let model = canary("model");
    ask(&buyer, &model, "hello", None).await.0.expect_err("nobody serves it");
    let places = evidence.of(&model);
    assert!(places.contains(&format!("gossip on {}", topic::jobs(topic::INFERENCE))), "{places:?}");
}
