//! The ways to ask: the engine itself, a buyer in this process, and a node's OpenAI endpoint.

use super::super::BenchError;
use crate::demo::order;
use futures::StreamExt;
use infernet_node::{
    buyer::{Buyer, ChatEvent},
    chat::client::Progress,
    clock,
};
use serde::Deserialize;
use std::{ops::ControlFlow, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// What everybody serves and asks for.
const MODEL: &str = "tiny-chat";
/// Output tokens of a stream that ends when it is stopped: more than it can have by then, few enough for any context.
const ENDLESS: u32 = 1_000_000;
/// Between two starts, and between two questions: below the rate at which a worker takes jobs of one known buyer.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// For one whole answer that is not stopped.
const ANSWER: Duration = Duration::from_secs(60);

/// Whom to ask.
#[derive(Clone)]
pub(super) enum Way {
    /// The engine, over HTTP.
    Engine { http: reqwest::Client, url: String },
    /// A buyer's role in this process.
    Buyer(Buyer),
    /// A node's OpenAI endpoint.
    Api { http: reqwest::Client, url: String },
}

/// Ends an answer early.
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// When `sender` says so.
    pub(super) fn when(sender: &watch::Sender<bool>) -> Self {
        Stop(sender.subscribe())
    }
}

type Sink<'a> = &'a mut (dyn FnMut(&str) + Send);

impl Way {
    /// Straight to the engine at `url`.
    pub(super) fn direct(url: &str) -> Result<Self, BenchError> {
        Ok(Way::Engine { http: http()?, url: format!("{url}/api/chat") })
    }

    /// Through the endpoint at `base`, such as `http://127.0.0.1:46339/v1`.
    pub(super) fn api(base: &str) -> Result<Self, BenchError> {
        Ok(Way::Api { http: http()?, url: format!("{base}/chat/completions") })
    }

    /// From the call to the first token of an answer of one token.
    pub(super) async fn ask_shortly(&self) -> Result<Duration, BenchError> {
        let (started, mut first) = (clock::instant(), None);
        self.ask_whole(1, &mut |_| first = first.or_else(|| Some(started.elapsed()))).await?;
        first.ok_or_else(|| BenchError::Options("an answer without a token".into()))
    }

    /// The mean time per token of one answer.
    pub(super) async fn time_per_token(&self, tokens: u32) -> Result<Duration, BenchError> {
        let (mut first, mut last, mut seen) = (None, None, 0u32);
        self.ask_whole(tokens, &mut |_| {
            last = Some(clock::instant());
            first = first.or(last);
            seen += 1;
        })
        .await?;
        match (first, last) {
            (Some(first), Some(last)) if seen > 1 => Ok((last - first) / (seen - 1)),
            _ => Err(BenchError::Options(format!("an answer of {seen} tokens"))),
        }
    }

    async fn ask_whole(&self, tokens: u32, sink: Sink<'_>) -> Result<(), BenchError> {
        let never = watch::channel(false).0;
        let asked = timeout(ANSWER, self.ask(tokens, sink, Stop::when(&never))).await;
        asked.map_err(|_| BenchError::Options(format!("no answer within {} s", ANSWER.as_secs())))?
    }

    /// Asks for `tokens` and gives each to `sink`, until the end or the stop.
    pub(super) async fn ask(&self, tokens: u32, sink: Sink<'_>, stop: Stop) -> Result<(), BenchError> {
        let tokens = tokens.min(ENDLESS);
        match self {
            Way::Engine { http, url } => {
                let body = serde_json::json!({
                    "model": MODEL, "messages": [{ "role": "user", "content": "Go." }], "options": { "num_predict": tokens },
                });
                read_lines(http.post(url).json(&body), stop, |line| engine_line(line, &mut *sink)).await
            }
            Way::Api { http, url } => {
                let body = serde_json::json!({
                    "model": MODEL, "messages": [{ "role": "user", "content": "Go." }], "max_tokens": tokens,
                    "stream": true, "temperature": 0,
                });
                read_lines(http.post(url).json(&body), stop, |line| api_line(line, &mut *sink)).await
            }
            Way::Buyer(buyer) => ask_buyer(buyer, tokens, sink, stop).await,
        }
    }
}

fn http() -> Result<reqwest::Client, BenchError> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

async fn ask_buyer(buyer: &Buyer, tokens: u32, sink: Sink<'_>, Stop(mut stop): Stop) -> Result<(), BenchError> {
    let (events, mut heard) = mpsc::channel(16);
    let running = async {
        let result = buyer.chat(order(MODEL, "Go.", tokens), &events, &mut stop).await;
        drop(events);
        result
    };
    let watching = async {
        while let Some(event) = heard.recv().await {
            if let ChatEvent::Stream(Progress::Text { text, .. }) = event {
                sink(&text);
            }
        }
    };
    let (result, ()) = tokio::join!(running, watching);
    Ok(result.map(|_| ())?)
}

/// Reads a streamed body line by line, until it ends, a line is the last, or the stop.
async fn read_lines(
    request: reqwest::RequestBuilder,
    Stop(mut stop): Stop,
    mut line: impl FnMut(&[u8]) -> Result<ControlFlow<()>, BenchError>,
) -> Result<(), BenchError> {
    let answer = request.send().await?;
    if !answer.status().is_success() {
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        return Err(BenchError::Options(format!("HTTP {status}: {text}")));
    }
    let (mut body, mut buffer) = (answer.bytes_stream(), Vec::new());
    loop {
        let chunk = tokio::select! {
            chunk = body.next() => chunk,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let Some(chunk) = chunk else { return Err(BenchError::Options("an answer was cut off".into())) };
        buffer.extend_from_slice(&chunk?);
        let whole = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for one in buffer.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if line(one)?.is_break() {
                return Ok(());
            }
        }
        buffer.drain(..whole);
    }
}

#[derive(Deserialize)]
struct EngineLine<'a> {
    #[serde(borrow)]
    message: EngineMessage<'a>,
    done: bool,
}

#[derive(Deserialize)]
struct EngineMessage<'a> {
    content: &'a str,
}

fn engine_line(line: &[u8], sink: Sink<'_>) -> Result<ControlFlow<()>, BenchError> {
    let EngineLine { message, done } = serde_json::from_slice(line).map_err(|e| BenchError::Options(e.to_string()))?;
    if done {
        return Ok(ControlFlow::Break(()));
    }
    sink(message.content);
    Ok(ControlFlow::Continue(()))
}

#[derive(Deserialize)]
struct ApiEvent<'a> {
    #[serde(borrow, default)]
    choices: Vec<ApiChoice<'a>>,
}

#[derive(Deserialize)]
struct ApiChoice<'a> {
    #[serde(borrow)]
    delta: ApiDelta<'a>,
}

#[derive(Deserialize)]
struct ApiDelta<'a> {
    #[serde(default)]
    content: Option<&'a str>,
}

fn api_line(line: &[u8], sink: Sink<'_>) -> Result<ControlFlow<()>, BenchError> {
    let Some(data) = line.strip_prefix(b"data: ") else { return Ok(ControlFlow::Continue(())) };
    if data == b"[DONE]" {
        return Ok(ControlFlow::Break(()));
    }
    let event: ApiEvent<'_> =
        serde_json::from_slice(data).map_err(|e| BenchError::Options(format!("{e} in {}", String::from_utf8_lossy(data))))?;
    event.choices.iter().filter_map(|choice| choice.delta.content).filter(|text| !text.is_empty()).for_each(sink);
    Ok(ControlFlow::Continue(()))
}
