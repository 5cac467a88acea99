//! A request's body: read within a bound and a time, and turned into a type without quoting it in errors.

use super::error::Refusal;
use crate::{gateway::Gateway, shares::Share, store::ClientRow};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Bodies of all routes but those that carry prompts.
pub const SMALL: usize = 64 * 1024;
/// Bodies with prompts: what the node's own endpoint takes.
pub const LARGE: usize = infernet_node::api::service::MAX_BODY;
/// What is read and thrown away of a body that is too large, so that its sender hears why instead of a broken connection.
const DISCARDED: usize = 2;
/// From the head of a request to the last byte of its body: 12 MiB at half a megabyte a second.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A body of at most [`SMALL`] bytes, as `T`.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        parse(&read(&parts.headers, body, SMALL).await?).map(Json)
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    within_time(collect(headers, body, limit, |_| Ok(()))).await
}

async fn within_time(arrives: impl Future<Output = Result<Bytes, Refusal>>) -> Result<Bytes, Refusal> {
    let seconds = ARRIVAL.as_secs();
    let slow = |_| {
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!("the body did not arrive within {seconds} s: send it faster"),
        )
    };
    timeout(ARRIVAL, arrives).await.map_err(slow)?
}

/// Whose room a client's requests take: its own, or that of all who have nothing to pay with.
pub(super) fn payer(client: &ClientRow) -> &str {
    if client.available().0 > 0 { &client.id.0 } else { "" }
}

/// Reads a body with prompts into room that is taken as it comes: who only promises one takes none. The room is held until the
/// job ends.
pub(super) async fn read_into(
    gateway: &Gateway,
    who: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Arc<Share>), Refusal> {
    let mut room = gateway.room(who);
    let bytes = within_time(collect(headers, body, LARGE, |bytes| Gateway::widen(&mut room, bytes))).await?;
    Ok((bytes, Arc::new(room)))
}

/// Reads at most `limit` bytes; `grow` is told of how many there are before each piece is kept.
async fn collect(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    mut grow: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal> {
    let large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("this route takes at most {limit} bytes: send less"))
    };
    let said: usize = headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok()).unwrap_or(0);
    if said > limit.saturating_mul(DISCARDED) {
        return Err(large());
    }
    let (mut chunks, mut bytes, mut seen) = (body.into_data_stream(), Vec::new(), 0usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::bad("the body broke off"))?;
        seen = seen.saturating_add(chunk.len());
        if seen > limit.saturating_mul(DISCARDED) {
            break;
        }
        if seen <= limit {
            grow(seen)?;
            bytes.extend_from_slice(&chunk);
        }
    }
    if seen > limit { Err(large()) } else { Ok(bytes.into()) }
}

/// `bytes` as `T`; an empty body is an empty object.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Refusal::bad(reason(&error)))
}

/// What is wrong, in our words and never the client's: those may be a piece of the prompt.
fn reason(error: &serde_json::Error) -> String {
    let (line, column, text) = (error.line(), error.column(), error.to_string());
    let place = format!("at line {line}, column {column}");
    if !error.is_data() {
        return format!("the body is not JSON: {place}");
    }
    let text = text.rsplit_once(" at line").map_or(text.as_str(), |(text, _)| text);
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("the body has a wrong value {place}: expected {expected}"),
        None if text.starts_with("missing field") => format!("the body is incomplete: {text}"),
        None => format!("the body has a wrong value {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Asked {
        #[expect(dead_code, reason = "only its type counts")]
        n: u32,
    }

    fn check(body: &str, says: &str) {
        let error = parse::<Asked>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status.as_u16(), 400);
        assert!(error.message.contains(says), "{error}");
        assert!(!error.message.contains("secret"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_it() {
        check("{secret", "not JSON");
        check(r#"{"n":"secret"}"#, "expected u32");
        check("{}", "missing field `n`");
        check("", "missing field `n`");
        check(r#"["secret"]"#, "wrong value");
        check(r#"{"n":-1}"#, "wrong value");
    }

    #[tokio::test]
    async fn room_is_taken_for_what_came_and_not_for_what_was_promised() {
        let promised = HeaderMap::from_iter([(header::CONTENT_LENGTH, "10".parse().unwrap())]);
        let mut told = Vec::new();
        let pieces = |sizes: &[usize]| {
            let pieces: Vec<_> = sizes.iter().map(|size| Ok::<_, std::io::Error>(vec![b'x'; *size])).collect();
            Body::from_stream(futures::stream::iter(pieces))
        };
        let mut tell = |bytes| {
            told.push(bytes);
            Ok(())
        };
        collect(&promised, Body::empty(), 10, &mut tell).await.unwrap();
        collect(&promised, pieces(&[3, 4]), 10, &mut tell).await.unwrap();
        assert_eq!(told, [3, 7]);
        let full = |bytes| if bytes > 3 { Err(Refusal::busy("full")) } else { Ok(()) };
        assert_eq!(collect(&promised, pieces(&[3, 4]), 10, full).await.unwrap_err().status.as_u16(), 429);
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused_and_one_at_it_is_not() {
        let headers = HeaderMap::new();
        assert_eq!(read(&headers, Body::from(vec![b'x'; 10]), 10).await.unwrap().len(), 10);
        for size in [11, 1000] {
            assert_eq!(read(&headers, Body::from(vec![b'x'; size]), 10).await.unwrap_err().status.as_u16(), 413);
        }
        let mut said = HeaderMap::new();
        said.insert(header::CONTENT_LENGTH, "999999999".parse().unwrap());
        assert_eq!(read(&said, Body::empty(), 10).await.unwrap_err().status.as_u16(), 413);
    }
}
