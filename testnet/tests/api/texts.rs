//! Texts continued, and vectors of texts.

use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use infernet_testnet::scripted::{DIMENSIONS, EMBED_MODEL};

async fn post(network: &Network, path: &str, body: Value) -> Value {
    let response = network.post(path, &body).send().await.expect("an answer");
    let status = response.status();
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_continued() {
    let network = Network::start().await;
    let path = "/v1/completions";
    let answer = post(&network, path, json!({ "model": CHAT_MODEL, "prompt": "sun" })).await;
    assert!(answer["id"].as_str().expect("an id").starts_with("cmpl-"));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"], json!([{ "text": " and sun again", "index": 0, "logprobs": null, "finish_reason": "stop" }]));
    let body = json!({ "model": CHAT_MODEL, "prompt": ["a", "b"], "n": 2, "echo": true, "max_tokens": 9 });
    let answer = post(&network, path, body).await;
    let texts: Vec<&Value> = (0..4).map(|n| &answer["choices"][n]["text"]).collect();
    assert_eq!(texts, ["a and a again", "a and a again", "b and b again", "b and b again"]);
    let answer = post(&network, path, json!({ "model": CHAT_MODEL, "prompt": "a", "suffix": "z" })).await;
    assert_eq!(answer["choices"][0]["text"], "(between a and z)");
    let answer = post(&network, path, json!({ "model": CHAT_MODEL, "prompt": "a", "logprobs": 2 })).await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!((&logprobs["tokens"][1], &logprobs["text_offset"][2]), (&json!("and "), &json!(5)), "{logprobs}");
    assert_eq!(logprobs["top_logprobs"][0].as_object().map(serde_json::Map::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_streamed() {
    let network = Network::start().await;
    let body = json!({ "model": CHAT_MODEL, "prompt": "sun", "stream": true, "echo": true, "stream_options": { "include_usage": true } });
    let response = network.post("/v1/completions", &body).send().await.expect("an answer");
    let events = events(&response.text().await.expect("text"));
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "sun and sun again");
    let (usage, others) = chunks.split_last().expect("chunks");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(4)), "{usage}");
    assert_eq!(others.last().expect("one")["choices"][0]["finish_reason"], "stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_come_in_order_in_both_encodings() {
    let network = Network::start().await;
    let texts: Vec<String> = (0..300).map(|n| format!("text {n}")).collect();
    let body = |encoding: &str| json!({ "model": EMBED_MODEL, "input": texts, "encoding_format": encoding });
    let floats = post(&network, "/v1/embeddings", body("float")).await;
    let data = floats["data"].as_array().expect("data");
    assert_eq!((data.len(), data[299]["index"].clone()), (300, json!(299)), "two jobs, one answer");
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 600, "total_tokens": 600 }));
    assert_eq!(floats["infernet"]["jobs"].as_array().map(Vec::len), Some(2));
    let packed = post(&network, "/v1/embeddings", body("base64")).await;
    for n in [0, 255, 256, 299] {
        let numbers: Vec<f64> = data[n]["embedding"].as_array().expect("numbers").iter().filter_map(Value::as_f64).collect();
        let bytes = STANDARD.decode(packed["data"][n]["embedding"].as_str().expect("text")).expect("base64");
        let unpacked: Vec<f64> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
        assert_eq!((numbers.len(), &numbers), (DIMENSIONS, &unpacked));
    }
    let one = post(&network, "/v1/embeddings", json!({ "model": EMBED_MODEL, "input": "text 256", "dimensions": 3 })).await;
    assert_eq!(one["data"][0]["embedding"].as_array().map(Vec::len), Some(3));
    assert_eq!(one["data"][0]["embedding"][0], data[256]["embedding"][0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_only_embeds_does_not_chat_and_the_other_way_round() {
    let network = Network::start().await;
    error(network.chat(&ask("hi", json!({ "model": EMBED_MODEL }))).await, 400, "unsupported_ability").await;
    let body = json!({ "model": CHAT_MODEL, "input": "hi" });
    let response = network.post("/v1/embeddings", &body).send().await.expect("an answer");
    error(response, 400, "unsupported_ability").await;
}
