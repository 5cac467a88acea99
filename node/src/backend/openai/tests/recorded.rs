//! Every recorded answer becomes the right stream, usage, end or error.

use super::*;

const ENGINES: [(&str, &str); 3] = [("llama-server", "llamacpp"), ("vllm", "vllm"), ("modular-max", "max")];
const CAPITAL: &str = "The capital of France is Paris.";

/// What comes of a recorded stream, whatever is asked.
async fn replay(directory: &str, kind: &str, name: &str) -> (Vec<Chunk>, Option<BackendError>) {
    let recording = Recording::read(directory, name);
    let task = if recording.request["path"] == "/v1/completions" { Task::COMPLETION } else { Task::CHAT };
    let engine = serve(kind, move |_, _, _| recording.clone().into_response()).await;
    let seen = ask(&*engine, ChatRequest { task, logprobs: Some(2), ..request() }).await;
    check_counts(&seen.0);
    seen
}

#[tokio::test]
async fn streams_have_their_text_their_end_and_their_usage() {
    for (directory, kind) in ENGINES {
        let (chunks, error) = replay(directory, kind, "chat-stream-usage").await;
        assert_eq!((text(&chunks).as_str(), error), (CAPITAL, None), "{directory}");
        assert_eq!(chunks.last().cloned(), done(Some(27), Some(16), FinishReason::STOP), "{directory}");

        let (chunks, error) = replay(directory, kind, "chat-stream-length").await;
        assert_eq!((text(&chunks).as_str(), error), ("Once upon a time", None), "{directory}");
        assert_eq!(chunks.last().cloned(), done(Some(17), Some(4), FinishReason::LENGTH), "{directory}");
        assert!(matches!(chunks.iter().rev().nth(1), Some(Chunk::Text { tokens: 4, .. })), "{directory}: {chunks:?}");
    }
}

#[tokio::test]
async fn streams_without_usage_end_all_the_same() {
    for (directory, kind) in ENGINES {
        let (chunks, error) = replay(directory, kind, "chat-stream").await;
        assert!(error.is_none() && text(&chunks).starts_with("Once upon a time there was"), "{directory}: {error:?}");
        assert!(matches!(chunks.last(), Some(Chunk::Done { output_tokens: None, .. })), "{directory}: {:?}", chunks.last());
        let (chunks, error) = replay(directory, kind, "chat-stop").await;
        assert!(error.is_none() && text(&chunks).starts_with("Once upon a time"), "{directory}: {error:?}");
        assert_eq!(chunks.last().cloned(), done(None, None, FinishReason::STOP), "{directory}");
        let (chunks, error) = replay(directory, kind, "completion-stream").await;
        assert_eq!((text(&chunks).as_str(), error), (" there was. Max had is. Anna", None), "{directory}");
        assert!(matches!(chunks.last(), Some(Chunk::Done { finish: FinishReason::LENGTH, .. })), "{directory}");
    }
}

#[tokio::test]
async fn probabilities_stay_with_their_tokens() {
    for (directory, kind) in ENGINES {
        let (chunks, error) = replay(directory, kind, "chat-logprobs").await;
        assert_eq!(error, None, "{directory}");
        let Some(Chunk::Text { text, logprobs, .. }) = chunks.first() else { panic!("{directory}: {chunks:?}") };
        let [first] = &logprobs[..] else { panic!("{directory}: {logprobs:?}") };
        assert_eq!((text.as_str(), first.token.as_str()), ("The", "The"), "{directory}");
        assert!(first.logprob < 0.0 && first.logprob > -0.01, "{directory}");
        assert_eq!(first.top.iter().map(|t| t.token.as_str()).collect::<Vec<_>>(), ["The", "Hello"], "{directory}");
    }
}

#[tokio::test]
async fn a_forced_call_has_its_name_first_and_others_answer_in_text() {
    let (chunks, error) = replay("vllm", "vllm", "chat-tools-stream").await;
    assert_eq!(error, None);
    let [Chunk::ToolCall { index: 0, id: Some(id), name: Some(name), arguments, .. }, Chunk::Done { finish, .. }] = &chunks[..]
    else {
        panic!("{chunks:?}")
    };
    assert_eq!((name.as_str(), arguments.as_str(), *finish), ("get_weather", "", FinishReason::LENGTH));
    assert!(id.starts_with("chatcmpl-tool-"));
    for (directory, kind) in [("llama-server", "llamacpp"), ("modular-max", "max")] {
        let (chunks, error) = replay(directory, kind, "chat-tools-stream").await;
        assert_eq!((text(&chunks).as_str(), error), ("Hello! How can I help you today?", None), "{directory}");
    }
}

#[tokio::test]
async fn refusals_carry_the_engines_words_and_are_final_where_the_request_is_to_blame() {
    for (directory, kind) in ENGINES {
        for entry in fs::read_dir(format!("{}/tests/fixtures/{directory}", env!("CARGO_MANIFEST_DIR"))).expect("recordings") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let name = name.strip_suffix(".json").expect("JSON");
            let recording = Recording::read(directory, name);
            if recording.status < 400 {
                continue;
            }
            let (chunks, error) = replay(directory, kind, name).await;
            let Some(BackendError::Status { status, message }) = &error else { panic!("{directory}/{name}: {error:?}") };
            assert!(chunks.is_empty() && *status == recording.status, "{directory}/{name}");
            let own = message.split_whitespace().next().unwrap_or_default();
            assert!(message.len() > 5 && recording.text().contains(own), "{directory}/{name}: {message}");
            let retryable = *status == 404 || *status >= 500;
            assert_eq!(error.map(|error| error.retryable()), Some(retryable), "{directory}/{name}");
        }
    }
}

/// An engine that answers each path with what was recorded there.
async fn recorded_engine(directory: &'static str, kind: &str) -> Box<dyn Backend> {
    serve(kind, move |path, _, _| {
        let name = match path {
            "/v1/models" => "models",
            "/props" => "props",
            "/metrics" => "metrics",
            "/slots" => "slots",
            "/v1/embeddings" => "embeddings",
            _ => return missing(),
        };
        Recording::find(directory, name).map_or_else(missing, IntoResponse::into_response)
    })
    .await
}

#[tokio::test]
async fn models_are_described_by_what_their_engine_tells() {
    for (directory, kind) in ENGINES {
        let engine = recorded_engine(directory, kind).await;
        let mut models = engine.models().await.expect("models");
        let model = models.pop().expect("one");
        assert!(models.is_empty());
        assert_eq!(
            (model.id.as_str(), model.context, model.abilities),
            ("tiny-chat", 1024, Abilities::default()),
            "{directory}"
        );
        let (parameters, quantisation) = if kind == "llamacpp" { (820_352, "F16") } else { (0, "") };
        assert_eq!((model.parameters, model.quantisation.as_str()), (parameters, quantisation), "{directory}");
        let template = (kind == "llamacpp").then_some("f91864928fccff928b3068ca784db6275e655e400ccbb28f61d92c0090caf3b3");
        assert_eq!(model.template.map(|digest| digest.to_string()).as_deref(), template, "{directory}");
    }
}

#[tokio::test]
async fn load_is_read_where_it_is_told() {
    let idle = Some(Load { running: 0, waiting: Some(0) });
    for (directory, kind, expected) in
        [("llama-server", "llamacpp", idle), ("vllm", "vllm", idle), ("modular-max", "max", None)]
    {
        let engine = recorded_engine(directory, kind).await;
        engine.models().await.expect("models");
        assert_eq!(engine.load().await, expected, "{directory}");
    }
    let slots = |path: &str, _: &Value, _: &HeaderMap| match path {
        "/v1/models" => Recording::read("llama-server", "models").into_response(),
        "/slots" => Json(json!([{ "is_processing": true }, { "is_processing": false }])).into_response(),
        _ => missing(),
    };
    let engine = serve("llamacpp", slots).await;
    engine.models().await.expect("models");
    assert_eq!(engine.load().await, Some(Load { running: 1, waiting: None }));
}

#[tokio::test]
async fn an_engine_is_known_by_what_it_answers() {
    let ollama = |path: &str, _: &Value, _: &HeaderMap| match path {
        "/v1/models" => {
            Json(json!({ "object": "list", "data": [{ "id": "tiny-chat:latest", "owned_by": "library" }] })).into_response()
        }
        "/api/tags" => Json(json!({ "models": [] })).into_response(),
        _ => missing(),
    };
    let at = |directory: &'static str| {
        listen(move |path, _, _| match path {
            "/v1/models" => Recording::read(directory, "models").into_response(),
            // llama-server has Ollama's path too, with its own answer.
            "/api/tags" if directory == "llama-server" => Recording::read(directory, "models").into_response(),
            "/props" if directory == "llama-server" => Recording::read(directory, "props").into_response(),
            _ => missing(),
        })
    };
    let addresses = [
        ("ollama", listen(ollama).await),
        ("vllm", at("vllm").await),
        ("max", at("modular-max").await),
        ("llamacpp", at("llama-server").await),
    ];
    for (found, address) in &addresses {
        for configured in ["ollama", "vllm", "sglang", "max", "llamacpp"] {
            let answered = engine(configured, address).models().await;
            if configured == *found {
                assert!(answered.is_ok(), "{configured} at {found}: {answered:?}");
                continue;
            }
            let error = answered.expect_err("another engine").to_string();
            let fix = format!("--backend {found}=http://{address}");
            assert!(error.contains(&fix) && error.contains(&format!("not {configured}")), "{configured} at {found}: {error}");
        }
    }
    let stranger = |path: &str, _: &Value, _: &HeaderMap| match path {
        "/v1/models" => Json(json!({ "data": [{ "id": "x", "owned_by": "somebody" }] })).into_response(),
        _ => missing(),
    };
    for script in ["<html>hello</html>", "{}", "[]"] {
        let error = serve("vllm", move |_, _, _| script.into_response()).await.models().await.expect_err("no engine");
        assert!(matches!(error, BackendError::Malformed { kind: "vllm", .. }), "{error}");
    }
    for kind in ["vllm", "llamacpp", "ollama"] {
        let error = serve(kind, stranger).await.models().await.expect_err("no engine");
        assert!(matches!(error, BackendError::Malformed { .. }), "{error}");
    }
}
