//! Answers, token by token and whole.

use super::*;

fn parsed(events: &[String]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_has_openais_shape_and_exact_usage() {
    let network = Network::start().await;
    let answer = network.whole(&ask("one two three", json!({}))).await;
    assert!(answer["id"].as_str().expect("an id").starts_with("chatcmpl-"), "{answer}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!(CHAT_MODEL)));
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "message": { "role": "assistant", "content": "one two three", "refusal": null },
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 }));
    let note = &answer["infernet"];
    assert_eq!((&note["amount_micro_usd"], &note["retries"]), (&json!(6), &json!(0)));
    assert_eq!(note["worker"], network.worker.node.id().to_string());
    assert!(note["path"].as_str().expect("a path").starts_with("direct quic"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_chunks_and_done() {
    let network = Network::start().await;
    let events = network.events(&ask("one two", json!({ "stream": true }))).await;
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let chunks = parsed(chunks);
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let expected =
        [json!({ "role": "assistant", "content": "" }), json!({ "content": "one " }), json!({ "content": "two" }), json!({})];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    for chunk in &chunks {
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!((&chunk["object"], &chunk["model"]), (&json!("chat.completion.chunk"), &json!(CHAT_MODEL)));
        assert!(chunk.get("usage").is_none(), "nobody asked: {chunk}");
    }
    let last = chunks.last().expect("a chunk");
    assert_eq!((&last["choices"][0]["finish_reason"], &last["infernet"]["amount_micro_usd"]), (&json!("stop"), &json!(4)));
    assert!(chunks[..3].iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_comes_in_one_chunk_of_its_own_if_asked_for() {
    let network = Network::start().await;
    let events = network.events(&ask("one two", json!({ "stream": true, "stream_options": { "include_usage": true } }))).await;
    let chunks = parsed(&events[..events.len() - 1]);
    let (usage, others) = chunks.split_last().expect("chunks");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], json!({ "prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4 }));
    assert_eq!(usage["infernet"]["amount_micro_usd"], 4);
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()), "null, and there");
    assert_eq!(events.iter().filter(|event| event.contains("prompt_tokens")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_are_several_jobs_with_their_own_seeds() {
    let network = Network::start().await;
    let body = ask("seed?", json!({ "n": 3, "seed": 7 }));
    let answer = network.whole(&body).await;
    let texts: Vec<&Value> = (0..3).map(|n| &answer["choices"][n]["message"]["content"]).collect();
    assert_eq!(texts, [&json!("7"), &json!("8"), &json!("9")]);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let jobs = answer["infernet"]["jobs"].as_array().expect("jobs");
    assert_eq!((jobs.len(), &answer["infernet"]["total_micro_usd"]), (3, &json!(6)));
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let events = network.events(&stream).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks = parsed(&events[..events.len() - 1]);
    for n in 0..3 {
        let own: Vec<&Value> = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == n).collect();
        let text: String = own.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, (7 + n).to_string());
        assert!(own.iter().all(|chunk| chunk["id"] == chunks[0]["id"]), "one request, one id");
    }
}

fn tool(name: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!({ "type": "function", "function": { "name": name, "description": "weather", "parameters": schema } })
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_in_whole_answers_and_streams() {
    let network = Network::start().await;
    let body = ask("weather?", json!({ "tools": [tool("today"), tool("tomorrow")] }));
    let answer = network.whole(&body).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.iter().map(|call| &call["function"]["name"]).collect::<Vec<_>>(), ["today", "tomorrow"]);
    assert_eq!((&calls[0]["type"], &calls[0]["function"]["arguments"]), (&json!("function"), &json!(r#"{"city":"text"}"#)));

    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let events = network.events(&stream).await;
    let chunks = parsed(&events[..events.len() - 1]);
    let pieces: Vec<&Value> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array()?.first()).collect();
    assert_eq!(pieces.iter().map(|piece| &piece["index"]).collect::<Vec<_>>(), [&json!(0), &json!(1)]);
    assert!(pieces.iter().all(|piece| piece["function"]["arguments"].is_string() && piece["id"].is_string()));
    assert_eq!(chunks.last().expect("chunks")["choices"][0]["finish_reason"], "tool_calls");

    let mut one = body;
    one["parallel_tool_calls"] = json!(false);
    let answer = network.whole(&one).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(1));

    let conversation = json!({ "model": CHAT_MODEL, "max_tokens": 64, "tools": [tool("today")], "messages": [
        { "role": "user", "content": "weather?" },
        { "role": "assistant", "content": null, "tool_calls": [calls[0]] },
        { "role": "tool", "tool_call_id": calls[0]["id"], "content": "sunny" },
    ] });
    assert_eq!(network.whole(&conversation).await["choices"][0]["message"]["content"], "The tool said: sunny");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_probabilities_stops_lengths_and_reasoning() {
    let network = Network::start().await;
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": true } });
    let answer = network.whole(&ask("a number", json!({ "response_format": format }))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], r#"{"n":42}"#);

    let answer = network.whole(&ask("a b", json!({ "logprobs": true, "top_logprobs": 2 }))).await;
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().expect("tokens");
    assert_eq!(
        (&tokens[0]["token"], &tokens[0]["logprob"], &tokens[0]["bytes"]),
        (&json!("a "), &json!(-0.25), &json!([97, 32]))
    );
    assert_eq!((tokens.len(), tokens[0]["top_logprobs"].as_array().map(Vec::len)), (2, Some(2)));

    let answer = network.whole(&ask("say END now", json!({ "stop": ["END"] }))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "say ");
    let answer = network.whole(&ask("a b c d", json!({ "max_completion_tokens": 2 }))).await;
    assert_eq!((&answer["choices"][0]["finish_reason"], &answer["usage"]["completion_tokens"]), (&json!("length"), &json!(2)));

    let answer = network.whole(&ask("think well", json!({}))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("well"), &json!("hmm")));
    let events = network.events(&ask("think well", json!({ "stream": true }))).await;
    assert!(events.iter().any(|event| event.contains(r#""delta":{"reasoning_content":"hmm"}"#)), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_with_price_and_context() {
    let network = Network::start().await;
    let list: Value = network.http.get(network.url("/v1/models")).send().await.expect("an answer").json().await.expect("JSON");
    let models = list["data"].as_array().expect("models");
    let model = models.iter().find(|model| model["id"] == CHAT_MODEL).expect("the model");
    assert_eq!((&list["object"], &model["object"], &model["owned_by"]), (&json!("list"), &json!("model"), &json!("infernet")));
    assert_eq!(model["pricing"], json!({ "prompt": "0.000001", "completion": "0.000001" }));
    assert_eq!((&model["context_length"], &model["infernet"]["price_out"]), (&json!(4096), &json!(PRICE)));
    let one = network.http.get(network.url("/v1/models/script")).send().await.expect("an answer");
    assert_eq!(one.json::<Value>().await.expect("JSON")["id"], CHAT_MODEL);
    let none = network.http.get(network.url("/v1/models/some/one%2Felse")).send().await.expect("an answer");
    assert!(error(none, 404, "model_not_found").await["message"].as_str().expect("text").contains(CHAT_MODEL));
    let health = network.http.get(network.url("/healthz")).send().await.expect("an answer");
    assert_eq!((health.status().as_u16(), health.json::<Value>().await.expect("JSON")["peers"].clone()), (200, json!(1)));
}
