//! `POST /v1/embeddings`: vectors of texts.
//!
//! A worker takes [`limits::MAX_EMBEDDING_INPUTS`] texts at once; more become several jobs, one after the other, and one answer.

use super::{
    asking::{self, Asking},
    error::ApiError,
    fields::{Fields, wrong},
    job::{Choices, Job, Known},
    note::{Note, Usage},
};
use crate::chat::client::Progress;
use axum::response::Response;
use base64::{Engine, engine::general_purpose::STANDARD};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Embedding, Role, Task},
    limits,
    money::MicroUsd,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Texts of one request, as OpenAI has it: eight jobs.
const MAX_INPUTS: usize = 2_048;
/// Numbers of a vector; no model known has a quarter of that.
const MAX_DIMENSIONS: u32 = 65_536;

/// A request, as jobs.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    requests: Vec<ChatRequest>,
    inputs: usize,
    base64: bool,
}

impl Asked {
    fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let model = fields.required("model", fields.text("model")?)?;
        let texts = inputs(fields)?;
        let dimensions = fields.count_in("dimensions", 1..=MAX_DIMENSIONS)?;
        let base64 = match fields.text("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(ApiError::field("encoding_format", "encoding_format must be float or base64")),
        };
        let request = |texts: &[&str]| ChatRequest {
            task: Task::EMBEDDINGS,
            dimensions,
            // Vectors have no output tokens; the field must not be zero.
            ..ChatRequest::new(model, texts.iter().map(|text| ChatMessage::new(Role::User, *text)).collect(), 1)
        };
        let requests = texts.chunks(limits::MAX_EMBEDDING_INPUTS).map(request).collect();
        Ok(Asked { requests, inputs: texts.len(), base64 })
    }
}

fn inputs<'a>(fields: &Fields<'a>) -> Result<Vec<&'a str>, ApiError> {
    let what = "a string or a list of strings; lists of tokens are not supported";
    match fields.required("input", fields.value("input"))? {
        Value::String(text) => Ok(vec![text]),
        Value::Array(texts) if !(1..=MAX_INPUTS).contains(&texts.len()) => {
            Err(ApiError::field("input", format!("input must have 1 to {MAX_INPUTS} texts, not {}", texts.len())))
        }
        Value::Array(texts) => texts.iter().map(|text| text.as_str().ok_or_else(|| wrong("input", what, text))).collect(),
        other => Err(wrong("input", what, other)),
    }
}

/// Embeds texts.
pub(super) async fn answer(asking: Asking) -> Result<Response, ApiError> {
    let (asked, options) = asking.read(Asked::read)?;
    let (jobs, capped, recorder) = asking.buy(&options, asked.requests).await?;
    let (mut vectors, mut known) = (vec![None; asked.inputs], Vec::new());
    for (job, part) in jobs.into_iter().zip(vectors.chunks_mut(limits::MAX_EMBEDDING_INPUTS)) {
        known.push(vectors_of(job, part, capped).await?);
    }
    Ok(asking::whole(whole(&vectors, asked.base64, &known.iter().collect::<Vec<_>>()), recorder))
}

/// Puts the vectors of a job into their places.
async fn vectors_of(job: Job, places: &mut [Option<Embedding>], capped: Option<MicroUsd>) -> Result<Known, ApiError> {
    let take = |_, progress| {
        if let Progress::Embedding(embedding) = progress
            && let Some(place) = places.get_mut(embedding.index as usize)
        {
            *place = Some(embedding);
        }
    };
    let known = Choices::new(vec![job]).collect(capped, take).await.map_err(|(_, error)| error)?;
    let missing = || ApiError::cut("the worker sent fewer vectors than texts; try again");
    if places.iter().any(Option::is_none) { Err(missing()) } else { known.into_iter().next().ok_or_else(missing) }
}

#[derive(Serialize)]
struct Whole<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Tokens,
    infernet: Note<'a>,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
struct Tokens {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// A vector as the client wants it.
enum Vector<'a> {
    Numbers(&'a Embedding),
    Base64(&'a Embedding),
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Vector::Numbers(embedding) => serializer.collect_seq(embedding.numbers()),
            // As on the wire: 32-bit floats, little endian.
            Vector::Base64(embedding) => serializer.serialize_str(&STANDARD.encode(&embedding.vector)),
        }
    }
}

fn whole(vectors: &[Option<Embedding>], base64: bool, known: &[&Known]) -> Vec<u8> {
    let item = |(index, embedding)| Item {
        object: "embedding",
        index,
        embedding: if base64 { Vector::Base64(embedding) } else { Vector::Numbers(embedding) },
    };
    let opened = known.iter().find_map(|known| known.opened.as_ref());
    let input = Usage::of(known).input();
    let whole = Whole {
        object: "list",
        data: vectors.iter().flatten().enumerate().map(item).collect(),
        model: opened.map_or("", |opened| &opened.agreed.model),
        usage: Tokens { prompt_tokens: input, total_tokens: input },
        infernet: Note::all(known),
    };
    serde_json::to_vec(&whole).unwrap_or_default()
}

#[cfg(any(test, fuzzing))]
pub(super) fn requests_of(fields: &Fields<'_>) -> Result<Vec<ChatRequest>, ApiError> {
    Asked::read(fields).map(|asked| asked.requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Asked, ApiError> {
        Asked::read(&Fields::new(body, "")?)
    }

    #[test]
    fn many_texts_become_several_jobs_in_order() {
        let texts: Vec<String> = (0..600).map(|n| n.to_string()).collect();
        let asked = read(&json!({ "model": "m", "input": texts, "dimensions": 64, "encoding_format": "base64" })).unwrap();
        assert_eq!(asked.requests.iter().map(|r| r.messages.len()).collect::<Vec<_>>(), [256, 256, 88]);
        assert_eq!((asked.requests[1].messages[0].content.as_str(), asked.inputs, asked.base64), ("256", 600, true));
        assert!(asked.requests.iter().all(|r| r.task == Task::EMBEDDINGS && r.dimensions == Some(64)));
    }

    #[test]
    fn mistakes_name_the_field() {
        for (more, param) in [
            (json!({ "input": [1, 2] }), "input"),
            (json!({ "input": [[1, 2]] }), "input"),
            (json!({ "input": [] }), "input"),
            (json!({ "input": vec!["x"; MAX_INPUTS + 1] }), "input"),
            (json!({}), "input"),
            (json!({ "input": "a", "encoding_format": "hex" }), "encoding_format"),
            (json!({ "input": "a", "dimensions": 0 }), "dimensions"),
        ] {
            let mut body = json!({ "model": "m" });
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
                body.extend(more);
            }
            assert_eq!(read(&body).unwrap_err().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn vectors_are_numbers_or_base64() {
        let embedding = Embedding { seq: 0, index: 0, vector: Embedding::pack(&[0.5, -1.25]) };
        let numbers = serde_json::to_value(Vector::Numbers(&embedding)).unwrap();
        assert_eq!(numbers, json!([0.5, -1.25]));
        assert_eq!(serde_json::to_value(Vector::Base64(&embedding)).unwrap(), json!("AAAAPwAAoL8="));
    }
}
