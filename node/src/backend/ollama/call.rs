//! A request in Ollama's words: `/api/chat`, `/api/generate` for the continuation of a text, `/api/embed`.

use crate::backend::sampling::Sampling;
use base64::{Engine, engine::general_purpose::STANDARD};
use infernet_wire::chat::{ChatMessage, ChatRequest, ResponseFormat, Role, ToolCall, ToolChoice};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What Ollama is asked, and where.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Call<'a> {
    /// `/api/chat`.
    Chat(ChatCall<'a>),
    /// `/api/generate`.
    Generate(GenerateCall<'a>),
}

#[derive(Serialize)]
pub(super) struct ChatCall<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    truncate: bool,
    shift: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(flatten)]
    shared: Shared<'a>,
}

#[derive(Serialize)]
pub(super) struct GenerateCall<'a> {
    model: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    /// Without the chat template. A text with a gap needs the template that says where the gap is.
    raw: bool,
    stream: bool,
    truncate: bool,
    shift: bool,
    #[serde(flatten)]
    shared: Shared<'a>,
}

/// `/api/embed`.
#[derive(Serialize)]
pub(super) struct EmbedCall<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

/// What both kinds of answer may be asked with.
#[derive(Serialize)]
struct Shared<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
    options: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    num_predict: u32,
    #[serde(flatten)]
    sampling: Sampling<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: Role,
    content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A conversation, to be answered.
    pub(super) fn chat(request: &'a ChatRequest) -> Self {
        let tools = if request.tool_choice == Some(ToolChoice::Never) { &[][..] } else { &request.tools };
        Call::Chat(ChatCall {
            model: &request.model,
            messages: request.messages.iter().map(|message| Message::new(message, &request.messages)).collect(),
            stream: true,
            truncate: false,
            shift: false,
            tools: tools.iter().map(tool).collect(),
            shared: Shared::of(request),
        })
    }

    /// A text, to be continued.
    pub(super) fn completion(request: &'a ChatRequest) -> Self {
        Call::Generate(GenerateCall {
            model: &request.model,
            prompt: request.messages.first().map_or("", |message| &message.content),
            suffix: request.suffix.as_deref(),
            raw: request.suffix.is_none(),
            stream: true,
            truncate: false,
            shift: false,
            shared: Shared::of(request),
        })
    }

    /// Where it is asked.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Call::Chat(_) => "/api/chat",
            Call::Generate(_) => "/api/generate",
        }
    }
}

impl<'a> EmbedCall<'a> {
    /// Texts, to become vectors.
    pub(super) fn new(request: &'a ChatRequest) -> Self {
        EmbedCall {
            model: &request.model,
            input: request.messages.iter().map(|message| message.content.as_str()).collect(),
            truncate: false,
            dimensions: request.dimensions,
        }
    }
}

impl<'a> Shared<'a> {
    fn of(request: &'a ChatRequest) -> Self {
        Shared {
            format: request.format.as_ref().map(|format| match format {
                ResponseFormat::JsonObject => json!("json"),
                ResponseFormat::JsonSchema(schema) => json_text(schema),
            }),
            logprobs: request.logprobs.is_some(),
            top_logprobs: request.logprobs.filter(|n| *n > 0),
            options: Options { num_predict: request.max_tokens, sampling: Sampling::of(request) },
        }
    }
}

impl<'a> Message<'a> {
    fn new(message: &'a ChatMessage, conversation: &'a [ChatMessage]) -> Self {
        let answered = |id: &str| conversation.iter().flat_map(|m| &m.tool_calls).find(|call| call.id == id);
        let tool_call_id = message.tool_call_id.as_deref();
        Message {
            role: message.role,
            content: &message.content,
            images: message.images.iter().map(|image| STANDARD.encode(image)).collect(),
            tool_calls: message.tool_calls.iter().map(tool_call).collect(),
            tool_call_id,
            // Ollama's templates know results by the tool's name.
            tool_name: tool_call_id.and_then(answered).map(|call| call.name.as_str()),
        }
    }
}

fn tool(tool: &infernet_wire::chat::Tool) -> Value {
    let mut function =
        Map::from_iter([("name".to_owned(), json!(tool.name)), ("description".to_owned(), json!(tool.description))]);
    let parameters =
        if tool.parameters.is_empty() { json!({ "type": "object", "properties": {} }) } else { json_text(&tool.parameters) };
    function.insert("parameters".into(), parameters);
    json!({ "type": "function", "function": function })
}

/// Ollama wants arguments as an object.
fn tool_call(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str::<Map<String, Value>>(&call.arguments).unwrap_or_default();
    json!({ "id": call.id, "function": { "name": call.name, "arguments": arguments } })
}

/// The JSON in `text`. What is none is passed on as the text it is, for the engine to refuse in its own words.
fn json_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}
