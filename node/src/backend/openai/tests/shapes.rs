//! What engines are asked, and how they are run: keys, routers, llama-swap, probes, the first that answers.

use super::*;
use crate::backend::manage::manage_with;
use infernet_wire::chat::ToolCall;
use serde_bytes::ByteBuf;

/// What the engine is asked for `request`, as JSON with its path.
async fn asked(kind: &str, request: ChatRequest) -> Value {
    let heard = Arc::new(Mutex::new(Value::Null));
    let ears = heard.clone();
    let engine = serve(kind, move |path, body, _| {
        let mut body = body.clone();
        body["path"] = json!(path);
        *ears.lock().unwrap() = body;
        events(&[piece("x"), end("stop"), usage(1, 1)]).into_response()
    })
    .await;
    ask(&*engine, request).await;
    let heard = heard.lock().unwrap();
    heard.clone()
}

fn weather() -> Tool {
    let parameters = r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.into();
    Tool { name: "weather".into(), description: String::new(), parameters }
}

#[tokio::test]
async fn a_plain_request_says_only_what_every_engine_knows() {
    let wanted = ChatRequest { temperature: Some(0.0), seed: Some(7), stop: vec!["\n\n".into()], ..request() };
    let expected = |options: Value| {
        json!({
            "path": "/v1/chat/completions", "model": "tiny-chat", "max_tokens": 32, "stream": true, "stream_options": options,
            "messages": [{ "role": "user", "content": "Tell me a story about a fox." }],
            "temperature": 0.0, "seed": 7, "stop": ["\n\n"],
        })
    };
    for kind in ["max", "llamacpp"] {
        assert_eq!(asked(kind, wanted.clone()).await, expected(json!({ "include_usage": true })), "{kind}");
    }
    let counting = json!({ "include_usage": true, "continuous_usage_stats": true });
    for kind in ["vllm", "sglang"] {
        assert_eq!(asked(kind, wanted.clone()).await, expected(counting.clone()), "{kind}");
    }
}

#[tokio::test]
async fn tools_schemas_images_and_probabilities_are_asked_for_in_openais_words() {
    let mut wanted = ChatRequest {
        tools: vec![weather()],
        tool_choice: Some(ToolChoice::Named("weather".into())),
        format: Some(ResponseFormat::JsonSchema(r#"{"type":"object"}"#.into())),
        logprobs: Some(2),
        ..request()
    };
    let call = ToolCall { id: "c1".into(), name: "weather".into(), arguments: r#"{"city":"Oslo"}"#.into() };
    wanted.messages.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, "") });
    wanted.messages.push(ChatMessage { tool_call_id: Some("c1".into()), ..ChatMessage::new(Role::Tool, "rain") });
    wanted
        .messages
        .push(ChatMessage { images: vec![ByteBuf::from(vec![1, 2, 3])], ..ChatMessage::new(Role::User, "And here?") });
    let body = asked("vllm", wanted.clone()).await;
    assert_eq!(body["tools"][0]["function"]["parameters"]["properties"]["city"]["type"], "string");
    assert_eq!(body["tool_choice"]["function"]["name"], "weather");
    assert_eq!(body["response_format"]["json_schema"]["schema"]["type"], "object");
    assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(2)));
    let arguments =
        json!({ "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } });
    assert_eq!((&body["messages"][1]["tool_calls"][0], &body["messages"][1]["content"]), (&arguments, &Value::Null));
    assert_eq!(body["messages"][2], json!({ "role": "tool", "content": "rain", "tool_call_id": "c1" }));
    assert_eq!(body["messages"][3]["content"][1]["image_url"]["url"], "data:image/jpeg;base64,AQID");
    let none = ChatRequest { logprobs: Some(0), ..request() };
    for (kind, least) in [("vllm", 0), ("llamacpp", 1)] {
        assert_eq!(asked(kind, none.clone()).await["top_logprobs"], least, "{kind}");
    }
    let never = asked("vllm", ChatRequest { tool_choice: Some(ToolChoice::Never), ..wanted }).await;
    assert_eq!((never.get("tools"), never.get("tool_choice")), (None, None), "none may be called");
}

#[tokio::test]
async fn max_goes_on_past_a_stop_sequence_and_is_cut_there() {
    let stops = ChatRequest { stop: vec!["named".into()], ..request() };
    let stream = [piece("a fox "), piece("na"), piece("med Anna"), end("stop"), usage(17, 9)];
    for (kind, expected) in [("max", "a fox "), ("vllm", "a fox named Anna")] {
        let stream = events(&stream);
        let engine = serve(kind, move |_, _, _| stream.clone().into_response()).await;
        let (chunks, error) = ask(&*engine, stops.clone()).await;
        check_counts(&chunks);
        assert_eq!((text(&chunks).as_str(), error), (expected, None), "{kind}");
        assert_eq!(chunks.last().cloned(), done(Some(17), Some(9), FinishReason::STOP), "{kind}");
    }
}

#[tokio::test]
async fn texts_are_continued_and_become_vectors() {
    let text = ChatRequest { task: Task::COMPLETION, suffix: Some("}".into()), ..request() };
    let body = asked("vllm", text).await;
    assert_eq!(
        (&body["path"], &body["prompt"], &body["suffix"]),
        (&json!("/v1/completions"), &json!("Tell me a story about a fox."), &json!("}"))
    );
    let mut texts = ChatRequest { task: Task::EMBEDDINGS, ..request() };
    texts.messages.push(ChatMessage::new(Role::User, "second"));
    let vectors = |data: Value| {
        serve("vllm", move |_, _, _| Json(json!({ "data": data, "usage": { "prompt_tokens": 7 } })).into_response())
    };
    let swapped = json!([{ "index": 1, "embedding": [2.0] }, { "index": 0, "embedding": [0.5] }]);
    let (chunks, error) = ask(&*vectors(swapped).await, texts.clone()).await;
    assert_eq!(error, None);
    let vector = |index, number| Chunk::Embedding { index, vector: vec![number] };
    assert_eq!(chunks, [vector(0, 0.5), vector(1, 2.0), done(Some(7), Some(0), FinishReason::STOP).unwrap()]);
    for short in [
        json!([{ "index": 0, "embedding": [0.5] }]),
        json!([{ "index": 0, "embedding": [1.0] }, { "index": 2, "embedding": [1.0] }]),
    ] {
        assert_eq!(ask(&*vectors(short).await, texts.clone()).await.1, Some(BackendError::Truncated));
    }
}

#[tokio::test]
async fn parallel_calls_are_kept_apart() {
    let call = |calls: Value| json!({ "choices": [{ "index": 0, "delta": { "tool_calls": calls } }] });
    let stream = [
        call(json!([{ "index": 0, "id": "a", "function": { "name": "one", "arguments": "" } }])),
        call(json!([{ "index": 0, "function": { "arguments": "{\"x\":" } }])),
        call(json!([{ "index": 0, "function": { "name": null, "arguments": "1}" } }])),
        call(json!([{ "index": 5, "id": "", "function": { "name": "two", "arguments": "{}" } }])),
        end("tool_calls"),
    ];
    let (chunks, error) = ask_for(events(&stream)).await;
    assert_eq!(error, None);
    let brief: Vec<_> = chunks
        .iter()
        .filter_map(|c| {
            if let Chunk::ToolCall { index, name, arguments, .. } = c {
                Some((*index, name.as_deref(), arguments.as_str()))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(brief, [(0, Some("one"), ""), (0, None, "{\"x\":"), (0, None, "1}"), (1, Some("two"), "{}")]);
    assert_eq!(chunks.last().cloned(), done(None, None, FinishReason::TOOL_CALLS));
    let nameless = call(json!([{ "index": 0, "function": { "arguments": "{}" } }]));
    assert!(matches!(ask_for(events(&[nameless])).await.1, Some(BackendError::Malformed { .. })));
}

/// What comes of an answer that repeats its start, in these pieces.
fn continued(pieces: &[&str]) -> String {
    let mut said = Said::new(Default::default(), Some("Once upon".into()), None);
    let stream = pieces.iter().map(|text| piece(text)).chain([end("stop"), usage(1, 1)]);
    for data in stream {
        let event = sse::Event { is_error: false, data: data.to_string().into_bytes() };
        said.absorb(&event).expect("an answer");
    }
    assert!(said.done);
    let chunks: Vec<Chunk> = said.pending.into();
    check_counts(&chunks);
    text(&chunks)
}

#[tokio::test]
async fn a_started_answer_goes_on_without_what_was_there() {
    assert_eq!(continued(&["Once upon a time"]), " a time");
    assert_eq!(continued(&["On", "ce up", "on a", " time"]), " a time");
    assert_eq!(continued(&[" a", " time"]), " a time");
    assert_eq!(continued(&["Once", " more"]), "Once more");
    assert_eq!(continued(&["Once"]), "Once");
    assert_eq!(continued(&["Once upon"]), "");
    let mut started = request();
    started.messages.push(ChatMessage::new(Role::Assistant, "Once upon"));
    for (kind, fields) in [("vllm", Some(true)), ("sglang", Some(true)), ("llamacpp", Some(true)), ("max", None)] {
        let body = asked(kind, started.clone()).await;
        assert_eq!(body.get("continue_final_message").and_then(Value::as_bool), fields, "{kind}");
    }
}

#[tokio::test]
async fn a_key_is_told_to_the_engine_and_to_nobody_else() {
    let address = listen(|_, _, headers| match headers.get("authorization").and_then(|value| value.to_str().ok()) {
        Some("Bearer hunter2") => Recording::read("vllm", "models").into_response(),
        _ => (StatusCode::UNAUTHORIZED, Json(json!({ "error": "Unauthorized" }))).into_response(),
    })
    .await;
    let spec: BackendSpec = format!("vllm={address}").parse().expect("a spec");
    let error = connect_with(&spec, patient()).expect("a client").models().await.expect_err("no key");
    assert!(error.to_string().contains("set VLLM_API_KEY") && error.retryable(), "{error}");
    let variables = crate::backend::EngineVariables::read(|name| (name == "VLLM_API_KEY").then(|| "hunter2".into())).unwrap();
    let with_key = connect_with(&spec.clone().with_key(variables.key(BackendKind::Vllm)), patient()).expect("a client");
    assert_eq!(with_key.models().await.map(|models| models.len()), Ok(1));
    let wrong = crate::backend::EngineVariables::read(|name| (name == "VLLM_API_KEY").then(|| "swordfish".into())).unwrap();
    let with_wrong = connect_with(&spec.with_key(wrong.key(BackendKind::Vllm)), patient()).expect("a client");
    let error = with_wrong.models().await.expect_err("the wrong key");
    assert!(!format!("{error} {error:?}").contains("swordfish"), "{error:?}");
}

#[tokio::test]
async fn only_what_is_sent_by_us_reaches_the_engine() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ears = seen.clone();
    let engine = serve("vllm", move |_, _, headers| {
        ears.lock().unwrap().extend(headers.keys().map(|name| name.as_str().to_owned()));
        events(&[piece("x"), end("stop")]).into_response()
    })
    .await;
    ask(&*engine, request()).await;
    let mut names = seen.lock().unwrap().clone();
    names.sort();
    assert_eq!(names, ["accept", "content-length", "content-type", "host", "user-agent"]);
}

#[test]
fn a_secret_address_is_refused_before_it_is_asked() {
    let spec: BackendSpec = "vllm=http://169.254.169.254".parse().expect("a spec");
    assert!(matches!(connect_with(&spec, patient()), Err(BackendError::LinkLocal { .. })));
    assert!(connect_with(&spec.allowed(true).expect("allowed"), patient()).is_ok());
}

#[tokio::test]
async fn a_llama_server_with_another_model_than_asked_for_is_found_out() {
    let engine = serve("llamacpp", |path, _, _| match path {
        "/v1/models" => Recording::read("llama-server", "models").into_response(),
        "/props" => Recording::read("llama-server", "props").into_response(),
        _ => {
            let other = json!({ "model": "other", "choices": [{ "index": 0, "delta": { "content": "x" } }] });
            events(&[other, end("stop")]).into_response()
        }
    })
    .await;
    engine.models().await.expect("models");
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((chunks.len(), error), (0, Some(BackendError::OtherModel { model: "other".into() })));
}

#[tokio::test]
async fn a_router_tells_of_loaded_models_and_wakes_none() {
    let paths = Arc::new(Mutex::new(Vec::new()));
    let ears = paths.clone();
    let engine = serve("llamacpp", move |path, _, _| {
        ears.lock().unwrap().push(path.to_owned());
        match path {
            "/v1/models" => Json(json!({ "object": "list", "data": [
                { "id": "org/a:Q4", "owned_by": "llamacpp", "status": { "value": "loaded" } },
                { "id": "b", "owned_by": "llamacpp", "status": { "value": "unloaded" } },
                { "id": "broken", "owned_by": "llamacpp", "status": { "value": "unloaded", "failed": true } },
            ] }))
            .into_response(),
            "/props" => Json(json!({ "role": "router", "model_alias": "llama-server" })).into_response(),
            "/props?model=org%2Fa%3AQ4&autoload=false" => Recording::read("llama-server", "props").into_response(),
            _ => missing(),
        }
    })
    .await;
    let models = engine.models().await.expect("models");
    let brief: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.context, m.quantisation.as_str())).collect();
    assert_eq!(brief, [("org/a:Q4", 1024, "F16"), ("b", 0, "")]);
    assert_eq!(engine.load().await, None);
    assert_eq!(*paths.lock().unwrap(), ["/v1/models", "/props", "/props?model=org%2Fa%3AQ4&autoload=false"]);
}

#[tokio::test]
async fn a_recorded_router_has_both_models_and_describes_the_loaded_one() {
    let engine = serve("llamacpp", |path, _, _| {
        let name = match path {
            "/v1/models" => "models",
            "/props" => "props",
            "/props?model=a&autoload=false" => "props-loaded",
            "/v1/chat/completions" => "chat-stream",
            _ => return missing(),
        };
        Recording::read("llama-router", name).into_response()
    })
    .await;
    let models = engine.models().await.expect("models");
    let brief: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.context, m.parameters, m.quantisation.as_str())).collect();
    assert_eq!(brief, [("a", 1024, 820_352, "F16"), ("b", 0, 0, "")]);
    let (chunks, error) = ask(&*engine, ChatRequest { model: "a".into(), ..request() }).await;
    assert_eq!((text(&chunks).as_str(), error), ("Hello! How", None));
}

#[tokio::test]
async fn llama_swap_keeps_what_it_knew_of_a_model_that_sleeps() {
    let awake = Arc::new(Mutex::new(true));
    let switch = awake.clone();
    let engine = serve("llamacpp", move |path, _, _| {
        let running = if *switch.lock().unwrap() { json!([{ "model": "a", "state": "ready" }]) } else { json!([]) };
        match path {
            "/v1/models" => Json(json!({ "data": [
                { "id": "a", "object": "model", "owned_by": "llama-swap" },
                { "id": "far", "owned_by": "llama-swap", "meta": { "llamaswap": { "peerID": "titan" } } },
            ] }))
            .into_response(),
            "/running" => Json(json!({ "running": running })).into_response(),
            "/upstream/a/props" => Recording::read("llama-server", "props").into_response(),
            _ => missing(),
        }
    })
    .await;
    let brief = async || engine.models().await.expect("models").into_iter().map(|m| (m.id, m.context)).collect::<Vec<_>>();
    assert_eq!(brief().await, [("a".to_owned(), 1024)], "peers' models are left out");
    *awake.lock().unwrap() = false;
    assert_eq!(brief().await, [("a".to_owned(), 1024)]);
}

/// An engine that can do everything that is asked of it.
fn able(path: &str, body: &Value, _: &HeaderMap) -> Response {
    let words = body["messages"].to_string().split_whitespace().count() as u64;
    match path {
        "/v1/models" => Recording::read("vllm", "models").into_response(),
        "/v1/embeddings" => Json(json!({ "data": [{ "index": 0, "embedding": [1.0] }] })).into_response(),
        "/v1/completions" => {
            let words = body["prompt"].as_str().unwrap_or_default().split_whitespace().count() as u64;
            events(&[json!({ "choices": [{ "index": 0, "text": "x" }] }), end("length"), usage(words, 1)]).into_response()
        }
        _ if body["tools"].is_array() => {
            let call = json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "tell_time" } }] } }] });
            events(&[call, end("tool_calls")]).into_response()
        }
        _ if body["response_format"].is_object() => events(&[piece(" {"), end("length")]).into_response(),
        _ => {
            let mut first = piece("x");
            if body["logprobs"] == true {
                first["choices"][0]["logprobs"] = json!({ "content": [{ "token": "x", "logprob": -0.5 }] });
            }
            // An image is worth ten words.
            let image = if body["messages"].to_string().contains("image_url") { 10 } else { 0 };
            events(&[first, end("length"), usage(words + image, 1)]).into_response()
        }
    }
}

#[tokio::test]
async fn a_model_is_asked_once_what_it_can_do() {
    let asked = Arc::new(Mutex::new(0));
    let counter = asked.clone();
    let engine = serve("vllm", move |path, body, headers| {
        *counter.lock().unwrap() += usize::from(path != "/v1/models");
        able(path, body, headers)
    })
    .await;
    assert!(!engine.probe(&|_| true).await, "nothing is known yet");
    assert_eq!(engine.models().await.expect("models")[0].abilities, Abilities::default());
    assert!(engine.probe(&|_| true).await, "something was found");
    let all = [
        Abilities::TOOLS,
        Abilities::FORCED_TOOLS,
        Abilities::JSON_SCHEMA,
        Abilities::VISION,
        Abilities::EMBEDDINGS,
        Abilities::LOGPROBS,
        Abilities::CONTINUES_TEXT,
    ];
    let all = all.into_iter().fold(Abilities::default(), Abilities::with);
    assert_eq!(engine.models().await.expect("models")[0].abilities, all);
    let so_far = *asked.lock().unwrap();
    assert!(so_far <= 8, "{so_far} questions");
    assert!(!engine.probe(&|_| true).await);
    assert_eq!(*asked.lock().unwrap(), so_far, "once is enough");
}

#[tokio::test]
async fn what_an_engine_takes_and_ignores_is_not_an_ability() {
    // As Modular MAX was recorded: plain text to everything, and refusals.
    let engine = serve("max", |path, body, _| match path {
        "/v1/models" => Recording::read("modular-max", "models").into_response(),
        "/v1/embeddings" => Recording::read("modular-max", "embeddings").into_response(),
        _ if body["response_format"].is_object() => Recording::read("modular-max", "chat-json-schema").into_response(),
        _ if body["logprobs"] == true => Recording::read("modular-max", "chat-logprobs").into_response(),
        _ if body["tools"].is_array() => Recording::read("modular-max", "chat-tools-stream").into_response(),
        _ => Recording::read("modular-max", "chat-stream-usage").into_response(),
    })
    .await;
    engine.models().await.expect("models");
    assert!(engine.probe(&|_| true).await);
    assert_eq!(engine.models().await.expect("models")[0].abilities, Abilities::LOGPROBS);
}

#[tokio::test]
async fn what_only_embeds_is_found_out_and_trouble_is_asked_about_again() {
    let engine = serve("vllm", |path, _, _| match path {
        "/v1/models" => Recording::read("vllm", "models").into_response(),
        "/v1/embeddings" => Json(json!({ "data": [{ "index": 0, "embedding": [1.0] }] })).into_response(),
        _ => missing(),
    })
    .await;
    engine.models().await.expect("models");
    assert!(engine.probe(&|_| true).await);
    let embeds = Abilities::EMBEDDINGS.with(Abilities::EMBEDS_ONLY);
    assert_eq!(engine.models().await.expect("models")[0].abilities, embeds);

    let busy = Arc::new(Mutex::new(0));
    let counter = busy.clone();
    let engine = serve("vllm", move |path, body, headers| match path {
        "/v1/models" => able(path, body, headers),
        _ => {
            *counter.lock().unwrap() += 1;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    })
    .await;
    engine.models().await.expect("models");
    for _ in 0..5 {
        assert!(!engine.probe(&|_| true).await);
    }
    assert_eq!(*busy.lock().unwrap(), 1, "it is left alone for a while");
}

#[tokio::test]
async fn what_was_found_before_the_engine_was_busy_is_kept() {
    let engine = serve("vllm", |path, body, headers| match path {
        "/v1/chat/completions" if body["tools"].is_array() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => able(path, body, headers),
    })
    .await;
    engine.models().await.expect("models");
    assert!(engine.probe(&|_| true).await, "something was found");
    let before = Abilities::EMBEDDINGS.with(Abilities::LOGPROBS).with(Abilities::JSON_SCHEMA);
    assert_eq!(engine.models().await.expect("models")[0].abilities, before);
    assert!(!engine.probe(&|_| true).await);
    assert_eq!(engine.models().await.expect("models")[0].abilities, before);
}

#[tokio::test]
async fn an_engine_that_is_another_now_is_asked_nothing_until_it_is_itself_again() {
    let asked = Arc::new(Mutex::new((false, 0)));
    let state = asked.clone();
    let engine = serve("vllm", move |path, body, headers| {
        let mut state = state.lock().unwrap();
        match path {
            "/v1/models" if state.0 => "<html>no</html>".into_response(),
            "/v1/models" => able(path, body, headers),
            _ => {
                state.1 += 1;
                able(path, body, headers)
            }
        }
    })
    .await;
    engine.models().await.expect("models");
    assert!(!engine.probe(&|_| false).await, "nobody could buy it");
    asked.lock().unwrap().0 = true;
    engine.models().await.expect_err("it is another");
    assert!(!engine.probe(&|_| true).await);
    assert_eq!(asked.lock().unwrap().1, 0);
    asked.lock().unwrap().0 = false;
    engine.models().await.expect("models");
    assert!(engine.probe(&|_| true).await, "and then at once");
}

fn kind(engine: &dyn Backend) -> Option<BackendKind> {
    engine.spec().map(|spec| spec.kind)
}

#[tokio::test]
async fn one_that_hangs_keeps_no_other_from_being_found_and_one_that_fails_is_asked_once() {
    let asked = Arc::new(Mutex::new((0, true)));
    let counted = asked.clone();
    let vllm = listen(move |path, _, _| match path {
        "/v1/models" => {
            let mut state = counted.lock().unwrap();
            state.0 += 1;
            if state.1 { Recording::read("vllm", "models").into_response() } else { StatusCode::BAD_GATEWAY.into_response() }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    // Connections to this one are made, and never answered.
    let hangs = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let silent = hangs.local_addr().expect("an address");
    let specs = [format!("ollama={silent}"), format!("sglang={silent}"), format!("vllm={vllm}")];
    let specs: Vec<BackendSpec> = specs.iter().map(|text| text.parse().expect("a spec")).collect();
    let limit = std::time::Duration::from_millis(500);
    let engine = first_of(&specs, Deadlines { describe: limit, ..patient() }).expect("clients");
    let found = tokio::time::timeout(2 * limit, engine.models()).await.expect("all are asked at once");
    assert_eq!((found.map(|models| models.len()), kind(&*engine)), (Ok(1), Some(BackendKind::Vllm)));
    *asked.lock().unwrap() = (0, false);
    assert!(engine.models().await.is_err());
    assert_eq!((asked.lock().unwrap().0, kind(&*engine)), (1, None));
    // Whoever gives up in the middle leaves no dead engine behind.
    asked.lock().unwrap().1 = true;
    engine.models().await.expect("found again");
    *asked.lock().unwrap() = (0, false);
    assert!(tokio::time::timeout(limit / 2, engine.models()).await.is_err(), "the others hang");
    assert_eq!(kind(&*engine), None);
}

#[tokio::test]
async fn an_engine_of_another_kind_says_what_to_write() {
    let vllm = listen(|path, _, _| match path {
        "/v1/models" => Recording::read("vllm", "models").into_response(),
        _ => missing(),
    })
    .await;
    // As OLLAMA_HOST would have it.
    let spec: BackendSpec = format!("ollama={vllm}").parse().expect("a spec");
    let error = first_of(&[spec], patient()).expect("a client").models().await.expect_err("another kind").to_string();
    assert!(error.contains(&format!("write --backend vllm=http://{vllm}")), "{error}");
}

#[tokio::test]
async fn an_engine_may_list_more_models_than_an_ad_holds() {
    let cards: Vec<Value> = (0..70).map(|n| json!({ "id": format!("m{n}"), "owned_by": "vllm" })).collect();
    let engine = serve("vllm", move |path, _, _| match path {
        "/v1/models" => Json(json!({ "data": cards })).into_response(),
        _ => missing(),
    })
    .await;
    let models = engine.models().await.expect("models");
    assert_eq!((models.len(), models.last().map(|model| model.id.as_str())), (70, Some("m69")));
}

#[tokio::test]
async fn a_key_is_told_when_a_model_is_removed_too() {
    let address = listen(|_, _, headers| match headers.get("authorization").and_then(|value| value.to_str().ok()) {
        Some("Bearer hunter2") => StatusCode::OK.into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    })
    .await;
    let spec: BackendSpec = format!("ollama={address}").parse().expect("a spec");
    let keys = crate::backend::EngineVariables::read(|name| (name == "OLLAMA_API_KEY").then(|| "hunter2".into())).unwrap();
    let keyed = spec.clone().with_key(keys.key(BackendKind::Ollama));
    // As commands of an operator reach it: by what the running engine says of itself.
    let known = connect_with(&keyed, patient()).expect("a client").spec().expect("known");
    let remove = async |spec: &BackendSpec| manage_with(spec, patient()).expect("a client").remove("m".into()).await;
    assert_eq!(remove(&known).await, Ok(()));
    let refused = remove(&spec).await.expect_err("no key").to_string();
    assert!(refused.contains("set OLLAMA_API_KEY"), "{refused}");
}

#[tokio::test]
async fn the_first_engine_that_answers_is_used_and_kept_until_it_fails() {
    let healthy = Arc::new(Mutex::new((false, true)));
    let (first, second) = (healthy.clone(), healthy.clone());
    let down = || StatusCode::BAD_GATEWAY.into_response();
    let max = listen(move |path, body, headers| match path {
        _ if !second.lock().unwrap().1 => down(),
        "/v1/models" => Recording::read("modular-max", "models").into_response(),
        _ => able(path, body, headers),
    })
    .await;
    let vllm =
        listen(move |path, body, headers| if first.lock().unwrap().0 { able(path, body, headers) } else { down() }).await;
    // Nobody listens at the first; MAX is asked as if it were vLLM too, since they share a port.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("an address").to_string();
    let specs: Vec<BackendSpec> =
        [format!("ollama={free}"), format!("vllm={vllm}"), format!("vllm={max}"), format!("max={max}")]
            .iter()
            .map(|text| text.parse().expect("a spec"))
            .collect();
    let engine = first_of(&specs, patient()).expect("clients");
    assert_eq!(engine.spec(), None);
    assert_eq!(engine.models().await.map(|models| models.len()), Ok(1));
    assert_eq!(engine.name(), format!("max at http://{max}"));
    *healthy.lock().unwrap() = (true, true);
    engine.models().await.expect("models");
    assert_eq!(kind(&*engine), Some(BackendKind::Max), "kept while it answers");
    *healthy.lock().unwrap() = (true, false);
    engine.models().await.expect("models");
    assert_eq!(kind(&*engine), Some(BackendKind::Vllm));
    let (chunks, error) = ask(&*engine, request()).await;
    assert_eq!((text(&chunks).as_str(), error), ("x", None));
    *healthy.lock().unwrap() = (false, false);
    let error = engine.models().await.expect_err("none answers").to_string();
    assert!(error.contains("no engine answers") && error.contains("--backend KIND=URL") && error.contains(&vllm), "{error}");
    assert!(matches!(ask(&*engine, request()).await.1, Some(BackendError::NoEngine { .. })));
}
