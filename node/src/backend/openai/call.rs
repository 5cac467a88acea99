//! A request in OpenAI's words: `/v1/chat/completions`, `/v1/completions` for the continuation of a text, `/v1/embeddings`.
//!
//! Only what every engine takes, and what [`Facts`] say it takes: Modular MAX refuses a request with a field that it doesn't
//! know.

use super::started;
use crate::backend::{
    facts::{Facts, Started},
    sampling::Sampling,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use infernet_wire::chat::{ChatMessage, ChatRequest, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What an engine is asked, and where.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Call<'a> {
    /// `/v1/chat/completions`.
    Chat(Box<ChatCall<'a>>),
    /// `/v1/completions`.
    Completion(CompletionCall<'a>),
}

#[derive(Serialize)]
pub(super) struct ChatCall<'a> {
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_final_message: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add_generation_prompt: Option<bool>,
    #[serde(flatten)]
    shared: Shared<'a>,
}

#[derive(Serialize)]
pub(super) struct CompletionCall<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    /// Here it is the number of alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u8>,
    #[serde(flatten)]
    shared: Shared<'a>,
}

/// `/v1/embeddings`.
#[derive(Serialize)]
pub(super) struct EmbedCall<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

/// What both kinds of answer may be asked with.
#[derive(Serialize)]
struct Shared<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(flatten)]
    sampling: Sampling<'a>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continuous_usage_stats: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: Role,
    content: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A conversation, to be answered, or its last message, to be continued.
    pub(super) fn chat(request: &'a ChatRequest, facts: &Facts) -> Self {
        let tools = if request.tool_choice == Some(ToolChoice::Never) { &[][..] } else { &request.tools };
        let continues = facts.started == Started::Continues && started(request).is_some();
        Call::Chat(Box::new(ChatCall {
            messages: request.messages.iter().map(Message::new).collect(),
            tools: tools.iter().map(tool).collect(),
            tool_choice: request.tool_choice.as_ref().filter(|_| !tools.is_empty()).map(tool_choice),
            response_format: request.format.as_ref().map(response_format),
            logprobs: request.logprobs.is_some(),
            top_logprobs: alternatives(request, facts),
            continue_final_message: continues.then_some(true),
            add_generation_prompt: continues.then_some(false),
            shared: Shared::of(request, facts),
        }))
    }

    /// A text, to be continued.
    pub(super) fn completion(request: &'a ChatRequest, facts: &Facts) -> Self {
        Call::Completion(CompletionCall {
            prompt: request.messages.first().map_or("", |message| &message.content),
            suffix: request.suffix.as_deref(),
            logprobs: alternatives(request, facts),
            shared: Shared::of(request, facts),
        })
    }

    /// Where it is asked.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Call::Chat(_) => "/v1/chat/completions",
            Call::Completion(_) => "/v1/completions",
        }
    }
}

impl<'a> EmbedCall<'a> {
    /// Texts, to become vectors.
    pub(super) fn new(request: &'a ChatRequest) -> Self {
        EmbedCall {
            model: &request.model,
            input: request.messages.iter().map(|message| message.content.as_str()).collect(),
            encoding_format: "float",
            dimensions: request.dimensions,
        }
    }
}

impl<'a> Shared<'a> {
    fn of(request: &'a ChatRequest, facts: &Facts) -> Self {
        Shared {
            model: &request.model,
            max_tokens: request.max_tokens,
            stream: true,
            stream_options: StreamOptions { include_usage: true, continuous_usage_stats: facts.counts_in_chunks },
            sampling: Sampling::of(request),
        }
    }
}

impl<'a> Message<'a> {
    fn new(message: &'a ChatMessage) -> Self {
        Message {
            role: message.role,
            content: content(message),
            tool_calls: message.tool_calls.iter().map(tool_call).collect(),
            tool_call_id: message.tool_call_id.as_deref(),
        }
    }
}

/// Alternatives of each token to ask for; the answer is cut to those that were wanted.
fn alternatives(request: &ChatRequest, facts: &Facts) -> Option<u8> {
    request.logprobs.map(|wanted| wanted.max(facts.least_alternatives))
}

/// Text, or text and images; null where only tools are called.
fn content(message: &ChatMessage) -> Value {
    if message.images.is_empty() {
        let silent = message.content.is_empty() && !message.tool_calls.is_empty();
        return if silent { Value::Null } else { json!(message.content) };
    }
    let text = (!message.content.is_empty()).then(|| json!({ "type": "text", "text": message.content }));
    let images = message.images.iter().map(|image| json!({ "type": "image_url", "image_url": { "url": data_url(image) } }));
    text.into_iter().chain(images).collect()
}

/// The image itself in a URL: an engine must fetch nothing.
fn data_url(image: &[u8]) -> String {
    let format = if image.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
    format!("data:image/{format};base64,{}", STANDARD.encode(image))
}

fn tool(tool: &Tool) -> Value {
    let mut function = Map::from_iter([("name".to_owned(), json!(tool.name))]);
    if !tool.description.is_empty() {
        function.insert("description".into(), json!(tool.description));
    }
    if !tool.parameters.is_empty() {
        function.insert("parameters".into(), json_text(&tool.parameters));
    }
    json!({ "type": "function", "function": function })
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Never => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

fn tool_call(call: &ToolCall) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

fn response_format(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::JsonObject => json!({ "type": "json_object" }),
        ResponseFormat::JsonSchema(schema) => {
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": json_text(schema) } })
        }
    }
}

/// The JSON in `text`. What is none is passed on as the text it is, for the engine to refuse in its own words.
fn json_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}
