//! What is asked for, read and checked.

use super::MAX_BATCH;
use crate::{gateway::GatewayConfig, http::error::Refusal, store::StoredText};
use axum::http::StatusCode;
use infernet_node::{
    api::error::ApiError,
    buyer::{ChatOrder, Trust},
};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Role},
    id::NodeId,
    limits,
    money::{MicroUsd, Price},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest answer where nobody names one.
const MAX_TOKENS: u32 = 512;
/// The longest answer: as the log of a job holds it.
const MOST_TOKENS: u32 = limits::MAX_OUTPUT_TOKENS;
/// The longest wait, in seconds: as long as a job may take.
const MAX_WAIT: u64 = 600;

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// One text, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// How an answer is to be made, and what it may cost.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct Settings {
    /// The model, by any of its usual names.
    pub model: String,
    /// The longest answer, in tokens; 512 unless said.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// 0 to 2.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Where to stop.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Makes an answer repeatable, as far as the engine goes.
    #[serde(default)]
    pub seed: Option<i64>,
    /// The only node that will do, by its id.
    #[serde(default)]
    pub node_id: Option<String>,
    /// The most to pay per million tokens, in micro-USD.
    #[serde(default)]
    pub max_price: Option<u64>,
    /// The most to pay for the job, in micro-USD.
    #[serde(default)]
    pub budget: Option<u64>,
    /// Seconds to wait while nobody has room, at most 600.
    #[serde(default)]
    pub wait: Option<u64>,
    /// Whether the plane keeps request and answer. Without it they are in memory alone, until some minutes after the end.
    #[serde(default)]
    pub store: Option<bool>,
}

/// A job: a conversation or a prompt, and settings.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct JobRequest {
    /// A conversation; or else `prompt`.
    #[serde(default)]
    pub messages: Option<Vec<Message>>,
    /// A single question; or else `messages`.
    #[serde(default)]
    pub prompt: Option<String>,
    /// How it is answered.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Many jobs with the same settings.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct BatchRequest {
    /// Questions, each a job; at most 64.
    pub prompts: Vec<String>,
    /// How all are answered.
    #[serde(flatten)]
    pub settings: Settings,
}

/// A job that was checked.
pub(in crate::http) struct Asked {
    pub(in crate::http) order: ChatOrder,
    pub(in crate::http) text: Option<StoredText>,
}

impl JobRequest {
    /// The order that it is.
    pub(in crate::http) fn check(self, config: &GatewayConfig) -> Result<Asked, Refusal> {
        let messages = match (self.messages, self.prompt) {
            (Some(messages), None) => messages,
            (None, Some(prompt)) => vec![Message { role: "user".into(), content: prompt }],
            (Some(_), Some(_)) => return Err(Refusal::bad("messages and prompt exclude each other: send one of them")),
            (None, None) => return Err(Refusal::bad("messages or prompt is missing")),
        };
        self.settings.asked(messages, config)
    }
}

impl BatchRequest {
    /// The orders that it is.
    pub(super) fn check(self, config: &GatewayConfig) -> Result<Vec<Asked>, Refusal> {
        if !(1..=MAX_BATCH).contains(&self.prompts.len()) {
            return Err(Refusal::bad(format!("prompts must be a list of 1 to {MAX_BATCH} texts")));
        }
        let settings = self.settings;
        let message = |content| vec![Message { role: "user".into(), content }];
        self.prompts.into_iter().map(|prompt| settings.clone().asked(message(prompt), config)).collect()
    }
}

impl Settings {
    fn asked(self, messages: Vec<Message>, config: &GatewayConfig) -> Result<Asked, Refusal> {
        let max_tokens = self.max_tokens.unwrap_or(MAX_TOKENS);
        if !(1..=MOST_TOKENS).contains(&max_tokens) {
            return Err(Refusal::bad(format!("max_tokens must be 1 to {MOST_TOKENS}")));
        }
        if self.wait.is_some_and(|seconds| seconds > MAX_WAIT) {
            return Err(Refusal::bad(format!("wait must be at most {MAX_WAIT} seconds")));
        }
        let text = self.store.unwrap_or(false).then(|| StoredText { request: kept(&messages), answer: String::new() });
        let messages =
            messages.into_iter().enumerate().map(|(place, message)| read(place, message)).collect::<Result<_, _>>()?;
        let trust = self.node_id.as_deref().map(only).transpose()?.unwrap_or_default();
        let request = ChatRequest {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            stop: match self.stop {
                None => Vec::new(),
                Some(Stop::One(text)) => vec![text],
                Some(Stop::Several(texts)) => texts,
            },
            ..ChatRequest::new(self.model, messages, max_tokens)
        };
        // The wire's own checks, so that what can't be sent is refused now and not in a moment.
        request.encode().map_err(|bad| refused(&ApiError::of_request(&bad)))?;
        let most = self.max_price.map_or(config.max_price, MicroUsd);
        let order = ChatOrder {
            ceiling: Price { input: most, output: most },
            budget: self.budget.map(MicroUsd),
            trust,
            wait_ms: self.wait.map_or(config.wait_ms, |seconds| seconds * 1_000),
            ..ChatOrder::new(request)
        };
        Ok(Asked { order, text })
    }
}

fn refused(error: &ApiError) -> Refusal {
    let code = if error.status == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "bad_request" };
    Refusal::new(error.status, code, error.message.clone())
}

fn kept(messages: &[Message]) -> String {
    serde_json::to_string(messages).unwrap_or_default()
}

fn read(place: usize, message: Message) -> Result<ChatMessage, Refusal> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(Refusal::bad(format!("messages[{place}].role must be system, user or assistant"))),
    };
    Ok(ChatMessage::new(role, message.content))
}

fn only(node: &str) -> Result<Trust, Refusal> {
    let id: NodeId =
        node.parse().map_err(|_| Refusal::bad("node_id must be a node's id, such as 16Uiu2H…: see /api/v1/nodes"))?;
    Ok(Trust { allow: [id].into(), ..Trust::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;
    use serde_json::{Value, json};

    fn check(body: &Value) -> Result<Asked, Refusal> {
        parse::<JobRequest>(body.to_string().as_bytes())?.check(&GatewayConfig::default())
    }

    fn refused(body: Value, says: &str) {
        let refusal = check(&body).err().expect("a refusal");
        assert_eq!(refusal.status.as_u16(), 400, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
        assert!(!refusal.message.contains("secret"), "{refusal}");
    }

    #[test]
    fn the_least_job_has_defaults() {
        let asked = check(&json!({ "model": "m", "prompt": "hi", "unknown": [1] })).expect("a job");
        let config = GatewayConfig::default();
        assert_eq!((asked.order.request.max_tokens, asked.order.wait_ms), (MAX_TOKENS, config.wait_ms));
        assert_eq!((asked.order.ceiling.output, asked.text), (config.max_price, None));
        assert_eq!(asked.order.request.messages, [ChatMessage::new(Role::User, "hi")]);
    }

    #[test]
    fn every_field_has_its_place() {
        let node = infernet_wire::key::NodeKey::from_bytes(&[7; 32]).unwrap().id();
        let asked = check(&json!({
            "model": "m", "messages": [{ "role": "system", "content": "s" }, { "role": "user", "content": "u" }],
            "max_tokens": 7, "temperature": 0, "top_p": 0.5, "stop": "END", "seed": -3, "node_id": node.to_string(),
            "max_price": 9, "budget": 5, "wait": 2, "store": true,
        }))
        .expect("a job");
        let (order, request) = (&asked.order, &asked.order.request);
        assert_eq!((request.max_tokens, request.seed, request.top_p, request.temperature), (7, Some(-3), Some(0.5), Some(0.0)));
        assert_eq!((request.stop.as_slice(), request.messages.len()), (&["END".to_owned()][..], 2));
        assert_eq!((order.ceiling.input, order.budget, order.wait_ms), (MicroUsd(9), Some(MicroUsd(5)), 2_000));
        assert_eq!(order.trust.allow, [node].into());
        assert!(asked.text.is_some_and(|text| text.request.contains(r#""content":"u""#)));
    }

    #[test]
    fn nonsense_names_the_field_and_quotes_nothing() {
        refused(json!({ "prompt": "secret" }), "missing field `model`");
        refused(json!({ "model": "m" }), "messages or prompt is missing");
        refused(json!({ "model": "m", "prompt": "secret", "messages": [] }), "exclude each other");
        refused(json!({ "model": "m", "messages": [] }), "message");
        refused(json!({ "model": "m", "messages": [{ "role": "secret", "content": "" }] }), "messages[0].role");
        refused(json!({ "model": "m", "prompt": "x", "max_tokens": 0 }), "max_tokens");
        refused(json!({ "model": "m", "prompt": "x", "max_tokens": "secret" }), "wrong value");
        refused(json!({ "model": "m", "prompt": "x", "temperature": 9 }), "temperature");
        refused(json!({ "model": "m", "prompt": "x", "node_id": "secret" }), "node_id");
        refused(json!({ "model": "m", "prompt": "x", "wait": 601 }), "wait");
        refused(json!({ "model": "m", "prompt": ["secret"] }), "wrong value");
    }

    #[test]
    fn batches_are_bounded() {
        let batch = |count: usize| {
            let body = json!({ "model": "m", "prompts": vec!["x"; count] }).to_string();
            parse::<BatchRequest>(body.as_bytes())
                .unwrap()
                .check(&GatewayConfig::default())
                .map(|all| all.len())
                .map_err(|e| e.code)
        };
        assert_eq!((batch(1), batch(MAX_BATCH)), (Ok(1), Ok(MAX_BATCH)));
        assert_eq!((batch(0), batch(MAX_BATCH + 1)), (Err("bad_request"), Err("bad_request")));
    }
}
