//! `POST /v1/chat/completions` in: OpenAI's body as a [`ChatRequest`].
//!
//! Fields that say nothing about the answer (`user`, `metadata`, `store`, …) and unknown ones are ignored; a wrong type is a
//! 400 that names the field. Images are `data:` URLs only: this endpoint never fetches an address that a request names.

use crate::api::{
    error::ApiError,
    fields::{Fields, wrong},
    sampling,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, ResponseFormat, Role, Tool, ToolCall, ToolChoice},
    limits,
};
use serde_bytes::ByteBuf;
use serde_json::Value;

/// Answers to one request: OpenAI allows 128, but each is a job of its own here, with its own slot.
const MAX_CHOICES: u32 = 8;

/// A request, and how its answers are to be told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// What each job is asked; `max_tokens` is 0 where the client named none.
    pub(super) request: ChatRequest,
    /// How many answers.
    pub(super) choices: u32,
    /// Token by token.
    pub(super) stream: bool,
    /// One more chunk with the usage.
    pub(super) include_usage: bool,
    /// More than one tool call is welcome.
    pub(super) parallel: bool,
}

impl Asked {
    /// Reads the body.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let model = fields.required("model", fields.text("model")?)?;
        let messages = fields.required("messages", fields.list("messages")?)?;
        let messages = numbered("messages", messages).map(|(place, value)| message(value, &place)).collect::<Result<_, _>>()?;
        let newer = fields.count_in("max_completion_tokens", 1..=limits::MAX_OUTPUT_TOKENS)?;
        let older = fields.count_in("max_tokens", 1..=limits::MAX_OUTPUT_TOKENS)?;
        refuse_legacy(fields)?;
        let request = ChatRequest {
            tools: tools(fields)?,
            tool_choice: tool_choice(fields)?,
            format: format(fields)?,
            logprobs: logprobs(fields)?,
            ..sampling::read(fields, ChatRequest::new(model, messages, newer.or(older).unwrap_or(0)))?
        };
        Ok(Asked {
            request,
            choices: fields.count_in("n", 1..=MAX_CHOICES)?.unwrap_or(1),
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage: sampling::include_usage(fields)?,
            parallel: fields.flag("parallel_tool_calls")?.unwrap_or(true),
        })
    }
}

/// What would be lost unseen if it were ignored.
fn refuse_legacy(fields: &Fields<'_>) -> Result<(), ApiError> {
    match ["functions", "function_call"].into_iter().find(|name| fields.value(name).is_some()) {
        Some(name) => Err(ApiError::field(name, format!("{name} is not supported any more: use tools and tool_choice"))),
        None => Ok(()),
    }
}

fn numbered<'a>(name: &str, values: &'a [Value]) -> impl Iterator<Item = (String, &'a Value)> {
    let name = name.to_owned();
    values.iter().enumerate().map(move |(n, value)| (format!("{name}[{n}]"), value))
}

fn message(value: &Value, place: &str) -> Result<ChatMessage, ApiError> {
    let fields = Fields::new(value, place)?;
    let role = role(&fields)?;
    let mut message = ChatMessage::new(role, "");
    content(&fields, &mut message)?;
    if role == Role::Assistant {
        let calls = fields.list("tool_calls")?.unwrap_or_default();
        let read = |(place, value): (String, &Value)| tool_call(value, &place);
        message.tool_calls = numbered(&fields.place("tool_calls"), calls).map(read).collect::<Result<_, _>>()?;
    }
    if role == Role::Tool {
        message.tool_call_id = Some(fields.required("tool_call_id", fields.text("tool_call_id")?)?.to_owned());
    }
    Ok(message)
}

fn role(fields: &Fields<'_>) -> Result<Role, ApiError> {
    match fields.required("role", fields.text("role")?)? {
        // What OpenAI calls developer since its reasoning models.
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => {
            let place = fields.place("role");
            Err(ApiError::field(&place, format!("{place} must be system, developer, user, assistant or tool")))
        }
    }
}

/// Text, a list of parts, or nothing in an assistant's message that calls tools.
fn content(fields: &Fields<'_>, message: &mut ChatMessage) -> Result<(), ApiError> {
    let place = fields.place("content");
    match fields.value("content") {
        Some(Value::String(text)) => message.content.clone_from(text),
        Some(Value::Array(parts)) => {
            for (place, value) in numbered(&place, parts) {
                part(&Fields::new(value, &place)?, message)?;
            }
        }
        Some(other) => return Err(wrong(&place, "a string or a list of parts", other)),
        None if message.role == Role::Assistant => {}
        None => return Err(ApiError::field(&place, format!("{place} is missing"))),
    }
    Ok(())
}

fn part(fields: &Fields<'_>, message: &mut ChatMessage) -> Result<(), ApiError> {
    match fields.required("type", fields.text("type")?)? {
        kind @ ("text" | "refusal") => {
            let text = fields.required(kind, fields.text(kind)?)?;
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message.content.push_str(text);
            Ok(())
        }
        "image_url" => {
            let place = fields.place("image_url");
            let url = match fields.value("image_url") {
                Some(Value::String(url)) => url,
                Some(object) => {
                    let image = Fields::new(object, &place)?;
                    image.required("url", image.text("url")?)?
                }
                None => return Err(ApiError::field(&place, format!("{place} is missing"))),
            };
            message.images.push(ByteBuf::from(image(url, &place)?));
            Ok(())
        }
        _ => {
            let place = fields.place("type");
            Err(ApiError::field(&place, format!("{place} must be text or image_url: no worker takes other parts")))
        }
    }
}

fn image(url: &str, place: &str) -> Result<Vec<u8>, ApiError> {
    let bad = |text: &str| ApiError::field(place, format!("{place} {text}"));
    let Some(data) = url.strip_prefix("data:") else {
        return Err(bad("must be a data: URL with the image in base64: addresses are never fetched from here"));
    };
    let Some((_, encoded)) = data.split_once(";base64,").filter(|(kind, _)| kind.starts_with("image/")) else {
        return Err(bad("must look like data:image/png;base64,…"));
    };
    STANDARD.decode(encoded.trim()).map_err(|_| bad("holds no valid base64"))
}

fn tool_call(value: &Value, place: &str) -> Result<ToolCall, ApiError> {
    let fields = Fields::new(value, place)?;
    let at = fields.place("function");
    let function = Fields::new(fields.required("function", fields.value("function"))?, &at)?;
    Ok(ToolCall {
        id: fields.required("id", fields.text("id")?)?.to_owned(),
        name: function.required("name", function.text("name")?)?.to_owned(),
        arguments: function.text("arguments")?.unwrap_or("{}").to_owned(),
    })
}

fn tools(fields: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    let tools = fields.list("tools")?.unwrap_or_default();
    numbered("tools", tools).map(|(place, value)| tool(value, &place)).collect()
}

fn tool(value: &Value, place: &str) -> Result<Tool, ApiError> {
    let fields = Fields::new(value, place)?;
    if fields.text("type")? != Some("function") {
        let place = fields.place("type");
        return Err(ApiError::field(&place, format!("{place} must be function")));
    }
    let at = fields.place("function");
    let function = Fields::new(fields.required("function", fields.value("function"))?, &at)?;
    let parameters = match function.value("parameters") {
        None => String::new(),
        Some(schema @ Value::Object(_)) => schema.to_string(),
        Some(other) => return Err(wrong(&function.place("parameters"), "a JSON schema", other)),
    };
    Ok(Tool {
        name: function.required("name", function.text("name")?)?.to_owned(),
        description: function.text("description")?.unwrap_or_default().to_owned(),
        parameters,
    })
}

fn tool_choice(fields: &Fields<'_>) -> Result<Option<ToolChoice>, ApiError> {
    let bad = || ApiError::field("tool_choice", "tool_choice must be none, auto, required, or an object that names a function");
    match fields.value("tool_choice") {
        None => Ok(None),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(None),
            "none" => Ok(Some(ToolChoice::Never)),
            "required" => Ok(Some(ToolChoice::Required)),
            _ => Err(bad()),
        },
        Some(object) => {
            let name = object.pointer("/function/name").and_then(Value::as_str).ok_or_else(bad)?;
            Ok(Some(ToolChoice::Named(name.to_owned())))
        }
    }
}

fn format(fields: &Fields<'_>) -> Result<Option<ResponseFormat>, ApiError> {
    let Some(value) = fields.value("response_format") else { return Ok(None) };
    let format = Fields::new(value, "response_format")?;
    match format.required("type", format.text("type")?)? {
        "text" => Ok(None),
        "json_object" => Ok(Some(ResponseFormat::JsonObject)),
        "json_schema" => {
            let named = format.required("json_schema", format.value("json_schema"))?;
            let named = Fields::new(named, "response_format.json_schema")?;
            let schema = named.required("schema", named.value("schema"))?;
            Ok(Some(ResponseFormat::JsonSchema(schema.to_string())))
        }
        _ => Err(ApiError::field("response_format.type", "response_format.type must be text, json_object or json_schema")),
    }
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<u8>, ApiError> {
    let top = fields.count_in("top_logprobs", 0..=limits::MAX_TOP_LOGPROBS.into())?;
    match (fields.flag("logprobs")?.unwrap_or(false), top) {
        (true, top) => Ok(Some(u8::try_from(top.unwrap_or(0)).unwrap_or(limits::MAX_TOP_LOGPROBS))),
        (false, Some(1..)) => Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs to be true")),
        (false, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Asked, ApiError> {
        Asked::read(&Fields::new(body, "")?)
    }

    /// A request with one message and `more`.
    fn with(more: Value) -> Value {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        body
    }

    fn refused(body: &Value, param: &str) -> String {
        let error = read(body).expect_err("a refusal");
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{error}");
        error.message
    }

    #[test]
    fn the_least_request_has_defaults() {
        let asked = read(&with(json!({ "user": "u", "store": true, "metadata": {}, "what_is_this": [1] }))).unwrap();
        let request = ChatRequest::new("m", vec![ChatMessage::new(Role::User, "hi")], 0);
        assert_eq!(asked, Asked { request, choices: 1, stream: false, include_usage: false, parallel: true });
    }

    #[test]
    fn every_field_has_its_place() {
        let asked = read(&with(json!({
            "n": 2, "stream": true, "stream_options": { "include_usage": true }, "temperature": 0, "top_p": 0.5, "seed": -3,
            "stop": "END", "max_tokens": 5, "max_completion_tokens": 7, "presence_penalty": 1, "frequency_penalty": -1.5,
            "logprobs": true, "top_logprobs": 3, "parallel_tool_calls": false,
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
            "tool_choice": { "type": "function", "function": { "name": "f" } },
            "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } },
        })))
        .unwrap();
        let request = &asked.request;
        assert_eq!((asked.choices, asked.stream, asked.include_usage, asked.parallel), (2, true, true, false));
        assert_eq!((request.max_tokens, request.seed, request.stop.as_slice()), (7, Some(-3), &["END".to_owned()][..]));
        assert_eq!((request.temperature, request.top_p), (Some(0.0), Some(0.5)));
        assert_eq!((request.presence_penalty, request.frequency_penalty, request.logprobs), (Some(1.0), Some(-1.5), Some(3)));
        let tool = Tool { name: "f".into(), description: String::new(), parameters: r#"{"type":"object"}"#.into() };
        assert_eq!((request.tools.as_slice(), &request.tool_choice), (&[tool][..], &Some(ToolChoice::Named("f".into()))));
        assert_eq!(request.format, Some(ResponseFormat::JsonSchema(r#"{"type":"object"}"#.into())));
    }

    #[test]
    fn usage_is_included_only_when_literally_true() {
        for (value, expected) in [(json!(true), true), (json!(false), false), (json!(null), false)] {
            let body = with(json!({ "stream": true, "stream_options": { "include_usage": value } }));
            assert_eq!(read(&body).unwrap().include_usage, expected);
        }
        assert!(!read(&with(json!({ "stream": true, "stream_options": {} }))).unwrap().include_usage);
        refused(&with(json!({ "stream_options": { "include_usage": "true" } })), "stream_options.include_usage");
    }

    #[test]
    fn a_conversation_with_tools_and_images_is_read() {
        let body = json!({ "model": "m", "messages": [
            { "role": "developer", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "look" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAEC", "detail": "low" } },
                { "type": "text", "text": "here" },
            ] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } } ] },
            { "role": "tool", "tool_call_id": "c1", "content": "2" },
        ] });
        let messages = read(&body).unwrap().request.messages;
        assert_eq!(messages[0], ChatMessage::new(Role::System, "be brief"));
        assert_eq!((messages[1].content.as_str(), messages[1].images[0].as_ref()), ("look\nhere", &[0, 1, 2][..]));
        assert_eq!(messages[2].tool_calls, [ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
        assert_eq!(messages[3].tool_call_id.as_deref(), Some("c1"));
    }

    #[test]
    fn addresses_are_never_fetched() {
        for url in ["http://169.254.169.254/latest", "https://example.org/a.png", "file:///etc/passwd", "//x/y"] {
            let part = json!([{ "type": "image_url", "image_url": { "url": url } }]);
            let body = json!({ "model": "m", "messages": [{ "role": "user", "content": part }] });
            assert!(refused(&body, "messages[0].content[0].image_url").contains("data: URL"));
        }
        for url in ["data:image/png,raw", "data:text/plain;base64,AA==", "data:image/png;base64,***"] {
            let part = json!([{ "type": "image_url", "image_url": url }]);
            refused(
                &json!({ "model": "m", "messages": [{ "role": "user", "content": part }] }),
                "messages[0].content[0].image_url",
            );
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        refused(&json!({ "messages": [] }), "model");
        refused(&json!({ "model": "m" }), "messages");
        refused(&json!({ "model": 3, "messages": [] }), "model");
        refused(&json!({ "model": "m", "messages": [{ "role": "user" }] }), "messages[0].content");
        refused(&json!({ "model": "m", "messages": [{ "role": "robot", "content": "" }] }), "messages[0].role");
        refused(&json!({ "model": "m", "messages": [{ "role": "tool", "content": "" }] }), "messages[0].tool_call_id");
        refused(&json!({ "model": "m", "messages": [{ "role": "user", "content": 1 }] }), "messages[0].content");
        refused(&json!({ "model": "m", "messages": ["hi"] }), "messages[0]");
        for (field, value) in [
            ("n", json!(9)),
            ("n", json!(0)),
            ("stream", json!("yes")),
            ("temperature", json!("warm")),
            ("max_tokens", json!(0)),
            ("seed", json!(1.5)),
            ("stop", json!([1])),
            ("top_logprobs", json!(3)),
            ("tool_choice", json!("maybe")),
            ("functions", json!([])),
        ] {
            refused(&with(json!({ field: value })), field);
        }
        refused(&with(json!({ "tools": [{ "type": "browser" }] })), "tools[0].type");
        refused(&with(json!({ "response_format": { "type": "xml" } })), "response_format.type");
    }
}
