//! `/v1/*` at a plane: the node's endpoint, with the plane's keys and balances.

use super::*;

fn chat(text: &str, more: Value) -> Value {
    let mut body = json!({ "model": CHAT_MODEL, "messages": [{ "role": "user", "content": text }], "max_tokens": 64 });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

const PATH: &str = "/v1/chat/completions";

async fn error(request: RequestBuilder, status: u16, code: &str) {
    let body = answered(request.send().await.expect("an answer"), status).await;
    assert_eq!(body["error"]["code"], code, "{body}");
    assert!(body["error"]["type"].is_string(), "OpenAI's shape: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_openais_and_each_is_paid_and_listed() {
    let network = Network::start().await;
    let answer =
        network.post(PATH, &chat("one two three", json!({}))).bearer_auth(&network.key).send().await.expect("an answer");
    let answer = answered(answer, 200).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "one two three");
    assert_eq!(answer["usage"]["total_tokens"], 6);
    eventually("it is paid", || async { network.money(&network.client).await == (BALANCE - 6, 0) }).await;
    let stream = network.post(PATH, &chat("four", json!({ "stream": true }))).bearer_auth(&network.key).send().await;
    assert!(stream.expect("an answer").text().await.expect("a stream").ends_with("data: [DONE]\n\n"));
    eventually("so is the stream", || async { network.money(&network.client).await == (BALANCE - 8, 0) }).await;
    let models = network.get("/v1/models").bearer_auth(&network.key).send().await.expect("an answer");
    assert_eq!(answered(models, 200).await["data"][0]["owned_by"], "infernet");
    let list = || async {
        answered(network.get("/api/v1/jobs").bearer_auth(&network.key).send().await.expect("an answer"), 200).await
    };
    eventually("both are listed", || async {
        let jobs = list().await["jobs"].as_array().expect("jobs").clone();
        jobs.len() == 2 && jobs.iter().all(|job| job["status"] == "completed" && job["result"]["content"].is_null())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_v1_can_be_cancelled_like_any_other() {
    let network = Network::start().await;
    let asked = network.post(PATH, &chat("drone", json!({ "stream": true, "max_tokens": 1_000 }))).bearer_auth(&network.key);
    let mut stream = asked.send().await.expect("an answer");
    stream.chunk().await.expect("it goes on").expect("it has not ended");
    let list = network.get("/api/v1/jobs").bearer_auth(&network.key).send().await.expect("an answer");
    let id = answered(list, 200).await["jobs"][0]["id"].as_str().expect("a job").to_owned();
    let cancel = network.ask(Method::DELETE, &format!("/api/v1/jobs/{id}")).bearer_auth(&network.key);
    assert!(cancel.send().await.expect("an answer").status().is_success());
    while stream.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
    eventually("the engine stops", || async { network.engine.live() == 0 }).await;
    eventually("nothing stays reserved", || async { network.money(&network.client).await.1 == 0 }).await;
    let job = network.get(&format!("/api/v1/jobs/{id}")).bearer_auth(&network.key).send().await.expect("an answer");
    assert_eq!(answered(job, 200).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_or_has_nothing_is_refused_in_openais_shape() {
    let network = Network::start().await;
    error(network.post(PATH, &chat("x", json!({}))), 401, "invalid_api_key").await;
    error(network.post(PATH, &chat("x", json!({}))).bearer_auth("sk-plane-0"), 401, "invalid_api_key").await;
    let (_, poor) = network.client(0, &["jobs"]).await;
    error(network.post(PATH, &chat("x", json!({}))).bearer_auth(&poor), 402, "spend_cap").await;
    let (_, reader) = network.client(BALANCE, &["read"]).await;
    error(network.post(PATH, &chat("x", json!({}))).bearer_auth(&reader), 403, "forbidden").await;
    error(network.post(PATH, &json!({})).bearer_auth(&network.key), 400, "invalid_value").await;
    error(network.get("/v1/nothing").bearer_auth(&network.key), 404, "unknown_url").await;
    assert_eq!(network.engine.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_pays_what_came_and_nothing_stays_reserved() {
    let network = Network::start().await;
    let body = chat("drone", json!({ "stream": true, "max_tokens": 4_000 }));
    let mut response = network.post(PATH, &body).bearer_auth(&network.key).send().await.expect("an answer");
    response.chunk().await.expect("a stream").expect("a first piece");
    assert!(network.money(&network.client).await.1 > 0, "reserved while it runs");
    drop(response);
    eventually("the engine hears of it", || async { network.engine.live() == 0 }).await;
    eventually("it is settled", || async {
        let (balance, reserved) = network.money(&network.client).await;
        reserved == 0 && balance < BALANCE
    })
    .await;
}
