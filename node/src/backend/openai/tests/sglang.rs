//! SGLang, by the shapes of its source (`entrypoints/openai/protocol.py`, `serving_chat.py`, `http_server.py`); no recording.

use super::*;

fn delta(delta: Value, finish: Value, usage: Value) -> Value {
    let mut whole = json!({ "role": null, "content": null, "reasoning_content": null, "tool_calls": null });
    for (key, value) in delta.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    json!({
        "id": "0a1b", "object": "chat.completion.chunk", "created": 1_795_359_969, "model": "tiny-chat",
        "choices": [{ "index": 0, "delta": whole, "logprobs": null, "finish_reason": finish, "matched_stop": null }],
        "usage": usage,
    })
}

fn counted(output: u32) -> Value {
    json!({ "prompt_tokens": 17, "total_tokens": 17 + output, "completion_tokens": output, "prompt_tokens_details": null, "reasoning_tokens": 0 })
}

fn sglang(path: &str, body: &Value, _: &HeaderMap) -> Response {
    match path {
        "/v1/models" => Json(json!({ "object": "list", "data": [{
            "id": "tiny-chat", "object": "model", "created": 1, "owned_by": "sglang", "root": "tiny-chat", "parent": null, "max_model_len": 1024,
        }] }))
        .into_response(),
        "/server_info" => Json(json!({ "model_path": "tiny-chat", "quantization": "fp8", "internal_states": [] })).into_response(),
        "/get_model_info" => Json(json!({ "model_path": "tiny-chat", "is_generation": true })).into_response(),
        "/metrics" => "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{model_name=\"tiny-chat\",tp_rank=\"0\"} 8.0\nsglang:num_queue_reqs{model_name=\"tiny-chat\"} 4.0\n".into_response(),
        "/v1/chat/completions" if body["temperature"] == 2.0 => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "object": "error", "message": "temperature is too high", "type": "BadRequest", "param": null, "code": 400 })),
        )
            .into_response(),
        "/v1/chat/completions" => {
            assert_eq!(body["stream_options"], json!({ "include_usage": true, "continuous_usage_stats": true }));
            let stream = [
                delta(json!({ "role": "assistant", "content": "" }), Value::Null, counted(0)),
                delta(json!({ "reasoning_content": "Hm." }), Value::Null, counted(2)),
                delta(json!({ "content": "Once upon" }), Value::Null, counted(4)),
                delta(json!({ "content": "!" }), Value::Null, counted(90)),
                delta(json!({}), json!("stop"), Value::Null),
                json!({ "id": "0a1b", "object": "chat.completion.chunk", "created": 1, "model": "tiny-chat", "choices": [], "usage": counted(6) }),
            ];
            (events(&stream) + "data: [DONE]\n\n").into_response()
        }
        _ => missing(),
    }
}

#[tokio::test]
async fn its_answers_are_read_with_reasoning_and_its_own_counts() {
    let (chunks, error) = ask(&*serve("sglang", sglang).await, request()).await;
    assert_eq!(error, None);
    check_counts(&chunks);
    assert_eq!((text_on(&chunks, Channel::REASONING).as_str(), text(&chunks).as_str()), ("Hm.", "Once upon!"));
    let counts: Vec<u32> =
        chunks.iter().filter_map(|c| if let Chunk::Text { tokens, .. } = c { Some(*tokens) } else { None }).collect();
    // By its count while it is possible: ninety tokens are no thirteen bytes.
    assert_eq!(counts, [2, 4, 13]);
    assert_eq!(chunks.last().cloned(), done(Some(17), Some(6), FinishReason::STOP));
}

#[tokio::test]
async fn it_is_described_with_its_quantisation_and_load() {
    let engine = serve("sglang", sglang).await;
    let models = engine.models().await.expect("models");
    let brief: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.context, m.quantisation.as_str())).collect();
    assert_eq!(brief, [("tiny-chat", 1024, "fp8")]);
    assert_eq!(engine.load().await, Some(Load { running: 8, waiting: Some(4) }));
}

#[tokio::test]
async fn its_refusals_and_aborts_are_errors() {
    let hot = ChatRequest { temperature: Some(2.0), ..request() };
    let (_, error) = ask(&*serve("sglang", sglang).await, hot).await;
    assert_eq!(error, Some(BackendError::Status { status: 400, message: "temperature is too high".into() }));
    let aborted =
        [delta(json!({ "content": "Once" }), Value::Null, Value::Null), delta(json!({}), json!("abort"), Value::Null)];
    let (chunks, error) = ask_for(events(&aborted) + "data: [DONE]\n\n").await;
    assert_eq!(text(&chunks), "Once");
    assert!(matches!(error, Some(BackendError::Engine(_))), "{error:?}");
    let told = json!({ "error": { "object": "error", "message": "out of memory", "type": "InternalServerError", "param": null, "code": 500 } });
    let (_, error) = ask_for(events(&[piece("Once"), told]) + "data: [DONE]\n\n").await;
    assert_eq!(error, Some(BackendError::Engine("out of memory".into())));
}
