//! A real engine, whichever `INFERNET_TEST_ENGINE` names (`KIND=URL`), behind a real worker and a real buyer's OpenAI endpoint.
//! `INFERNET_TEST_MODEL` names its model, else it is the first. Without an engine these tests say so and pass; the scripts in
//! `testnet/engines/` start one.

use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, Opened},
    },
    backend::{self, Backend, BackendSpec, Model},
    clock,
    spend::{Caps, Purse},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    engine::EngineOptions,
};
use infernet_wire::capability::Abilities;
use serde_json::{Value, json};
use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::DEADLINE;

/// For an ad that must be true again: ten seconds, and as long again for a busy machine.
const TRUE_AGAIN: Duration = Duration::from_secs(20);

/// A variable, or a line that says what is skipped.
fn given(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {variable} is not set, see testnet/engines/");
    }
    value
}

/// Its models, when each has shown what it can do.
async fn described(engine: &dyn Backend) -> Vec<Model> {
    engine.models().await.expect("the engine answers");
    while engine.probe(&|_| true).await {}
    engine.models().await.expect("the engine answers still")
}

async fn model_of(spec: &str) -> Model {
    let spec: BackendSpec = spec.parse().expect("KIND=URL");
    let engine = backend::connect(&spec).expect("a client");
    let models = described(&*engine).await;
    let named = std::env::var("INFERNET_TEST_MODEL").ok();
    let wanted = |model: &Model| named.as_ref().map_or(!model.abilities.contains(Abilities::EMBEDS_ONLY), |id| *id == model.id);
    models.into_iter().find(wanted).expect("the engine has the model")
}

/// A worker with the engine, a buyer, and the buyer's endpoint.
struct Mesh {
    worker: Member,
    buyer: Member,
    api: Api,
}

impl Mesh {
    async fn start(engine: &str, model: &str) -> Self {
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let sells = Sells::new(engine, 1_000, 1_000, 2);
        let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
        buyer.knows(model, 1, DEADLINE).await.expect("the worker's ad");
        let opened = Opened::new(buyer.home.path(), ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("an address");
        let purse = Purse::open(Caps::default(), buyer.node.store().clone(), &[buyer.node.id()].into()).expect("a purse");
        let api = opened.serve(&buyer.node, purse, axum::Router::new()).expect("an endpoint");
        Mesh { worker, buyer, api }
    }

    async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        post(&format!("{}{path}", self.api.base_url()), body).await
    }

    async fn is_idle(&self) {
        let idle = async || self.worker.node.status().await.seller.expect("it sells").under_way() == 0;
        eventually("the slot is free", DEADLINE, idle).await.expect("free");
    }
}

async fn post(url: &str, body: &Value) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE * 2).build().expect("a client");
    let response = http.post(url).json(body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// The same question to the engine and through the mesh: the same text, the same counts. Only Modular MAX puts several tokens in
/// a chunk without saying so; then fewer are charged, never more.
async fn check_same(mesh: &Mesh, engine: &str, path: &str, body: Value) {
    let (kind, direct) = engine.split_once('=').expect("KIND=URL");
    let (status, own) = post(&format!("{direct}/v1{path}"), &body).await;
    assert_eq!(status, 200, "{own}");
    let (status, ours) = mesh.ask(path, &body).await;
    assert_eq!(status, 200, "{ours}");
    let text = |answer: &Value| answer.pointer("/choices/0/message/content").or(answer.pointer("/choices/0/text")).cloned();
    assert_eq!(text(&ours), text(&own), "{body}");
    assert!(text(&ours).is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty())), "{ours}");
    let finish = &own["choices"][0]["finish_reason"];
    assert_eq!(&ours["choices"][0]["finish_reason"], finish, "{body}");
    assert_eq!(ours["usage"]["prompt_tokens"], own["usage"]["prompt_tokens"], "{body}");
    let count = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().expect("a count");
    let unsaid = if kind == "max" { count(&own) / 2 } else { 0 };
    assert!((count(&own) - unsaid..=count(&own)).contains(&count(&ours)), "{} of {}: {body}", count(&ours), count(&own));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_through_the_mesh_is_the_engines_own() {
    let Some(engine) = given("INFERNET_TEST_ENGINE") else { return };
    let model = model_of(&engine).await;
    let mesh = Mesh::start(&engine, &model.id).await;
    let chat = |content: &str, more: Value| {
        let mut body = json!({ "model": model.id, "messages": [{ "role": "user", "content": content }], "temperature": 0 });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    for body in [
        chat("Tell me a story about a fox.", json!({ "max_tokens": 12 })),
        chat("What is the capital of France?", json!({ "max_tokens": 64 })),
        chat("Count to 5.", json!({ "max_tokens": 64, "seed": 7 })),
        chat("Tell me a story about a fox.", json!({ "max_tokens": 48, "stop": ["named"] })),
    ] {
        check_same(&mesh, &engine, "/chat/completions", body).await;
    }
    let text = json!({ "model": model.id, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 8 });
    check_same(&mesh, &engine, "/completions", text).await;
    mesh.is_idle().await;
}

/// Needs no engine but the embedded one, which answers as Ollama does.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_embedded_engine_has_its_own_counts_through_the_mesh() {
    let engine = super::engine(EngineOptions::default()).await;
    let mesh = Mesh::start(&format!("ollama={}", engine.url()), "tiny-chat").await;
    for (prompt, most) in [("What is the capital of France?", 64), ("Tell me a story about a fox.", 12)] {
        let messages = json!([{ "role": "user", "content": prompt }]);
        let options = json!({ "temperature": 0, "num_predict": most });
        let ask = json!({ "model": "tiny-chat", "messages": messages, "stream": false, "options": options });
        let (_, own) = post(&format!("{}/api/chat", engine.url()), &ask).await;
        let (_, ours) = mesh
            .ask(
                "/chat/completions",
                &json!({ "model": "tiny-chat", "messages": messages, "temperature": 0, "max_tokens": most }),
            )
            .await;
        assert_eq!(ours["choices"][0]["message"]["content"], own["message"]["content"]);
        assert_eq!(ours["choices"][0]["finish_reason"], own["done_reason"]);
        assert_eq!(ours["usage"]["prompt_tokens"], own["prompt_eval_count"], "{ours} {own}");
        assert_eq!(ours["usage"]["completion_tokens"], own["eval_count"], "{ours} {own}");
    }
    mesh.is_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_can_do_what_its_ad_says() {
    let Some(engine) = given("INFERNET_TEST_ENGINE") else { return };
    let model = model_of(&engine).await;
    let _ = writeln!(std::io::stderr(), "{engine} has {model:?}");
    let mesh = Mesh::start(&engine, &model.id).await;
    let base =
        json!({ "model": model.id, "messages": [{ "role": "user", "content": "Hello" }], "temperature": 0, "max_tokens": 4 });
    let asked = async |key: &str, value: Value| {
        let mut body = base.clone();
        body[key] = value;
        if key == "response_format" {
            body["max_tokens"] = json!(200);
        }
        mesh.ask("/chat/completions", &body).await
    };
    if model.abilities.contains(Abilities::LOGPROBS) {
        eventually("its ad says so", TRUE_AGAIN, async || asked("logprobs", json!(true)).await.0 == 200)
            .await
            .expect("offered");
        let (_, answer) = asked("logprobs", json!(true)).await;
        assert!(answer["choices"][0]["logprobs"]["content"][0]["logprob"].is_number(), "{answer}");
    }
    if model.abilities.contains(Abilities::JSON_SCHEMA) {
        let schema = json!({ "type": "object", "properties": { "n": { "enum": [1] } }, "required": ["n"], "additionalProperties": false });
        let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema } });
        eventually("its ad says so", TRUE_AGAIN, async || asked("response_format", format.clone()).await.0 == 200)
            .await
            .expect("offered");
        let (_, answer) = asked("response_format", format).await;
        let text = answer["choices"][0]["message"]["content"].as_str().expect("text");
        // A small model may fill its tokens with blanks; what there is must be the beginning of the object.
        let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        assert!(!dense.is_empty() && "{\"n\":1}".starts_with(&dense), "{answer}");
    }
    mesh.is_idle().await;
}

/// A llama-server of our own, to be killed.
struct LlamaServer(Child, u16);

impl LlamaServer {
    fn start(binary: &str, port: u16, alias: &str) -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tiny-chat-f16.gguf");
        let child = Command::new(binary)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--alias",
                alias,
                "-c",
                "2048",
                "-np",
                "2",
                "-t",
                "1",
                "-m",
            ])
            .arg(model)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("llama-server starts");
        LlamaServer(child, port)
    }

    async fn ready(self) -> Self {
        let url = format!("http://127.0.0.1:{}/health", self.1);
        eventually("llama-server is ready", DEADLINE, async || reqwest::get(&url).await.is_ok_and(|a| a.status().is_success()))
            .await
            .expect("ready");
        self
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(done.success());
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_hangs_or_changes_its_model_leaves_no_false_ad() {
    let Some(binary) = given("INFERNET_LLAMA_SERVER") else { return };
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port();
    let first = LlamaServer::start(&binary, port, "first").ready().await;
    let mesh = Mesh::start(&format!("llamacpp=http://127.0.0.1:{port}"), "first").await;
    let ask = async |model: &str| {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Count to 5." }], "max_tokens": 16 });
        mesh.ask("/chat/completions", &body).await
    };
    let models = async || mesh.worker.node.status().await.seller.expect("it sells").models;
    assert_eq!(ask("first").await.0, 200);

    // Stopped: it takes connections and says nothing.
    first.signal("-STOP");
    eventually("its models are gone", TRUE_AGAIN, async || models().await.is_empty()).await.expect("gone");
    first.signal("-CONT");
    eventually("they are back", TRUE_AGAIN, async || models().await == ["first"]).await.expect("back");

    // Killed: whoever asks gets an error soon, and the slot is free.
    drop(first);
    let began = clock::instant();
    let (status, answer) = ask("first").await;
    assert!(status >= 500 && answer["error"]["code"].is_string() && began.elapsed() < TRUE_AGAIN, "{status} {answer}");
    mesh.is_idle().await;
    eventually("its models are gone", TRUE_AGAIN, async || models().await.is_empty()).await.expect("gone");

    // Restarted with another model.
    let _second = LlamaServer::start(&binary, port, "second").ready().await;
    eventually("the new one is offered", TRUE_AGAIN, async || models().await == ["second"]).await.expect("offered");
    mesh.buyer.knows("second", 1, DEADLINE).await.expect("the new ad");
    assert_eq!(ask("second").await.0, 200);
}
