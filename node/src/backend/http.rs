//! HTTP to an engine: deadlines, bounds and typed errors. The only file that names `reqwest`.
//!
//! What is sent is ours alone: our own headers, the operator's key, a body that an adapter made. A connection that an engine
//! closes before its first byte is tried once more, since some close kept-alive ones between requests; after the first byte
//! it is an error.

use super::{
    BackendError, BackendKind, BackendSpec, BadSpec, Stage, address,
    ndjson::{self, LineBuffer},
};
use crate::{cause, clock};
use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// The longest description of a model: metadata of a large one with its licence and tensor list is a few hundred kilobytes.
const MAX_DESCRIPTION_BYTES: usize = 8 * 1024 * 1024;
/// The longest answer in one piece: 256 vectors of 4096 numbers, each of some twelve characters.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Characters of an engine's message that are kept: two sentences.
const MAX_MESSAGE_CHARS: usize = 300;

/// How long an engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// To accept a connection. It is local, or one hop away.
    pub connect: Duration,
    /// To answer one question about its models.
    pub describe: Duration,
    /// From request to response, and again to the first line: loading a large model from a disk takes a minute.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub between: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            connect: Duration::from_secs(2),
            describe: Duration::from_secs(4),
            first_byte: Duration::from_secs(120),
            between: Duration::from_secs(30),
        }
    }
}

/// An http or https URL with a host and nothing secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineUrl(Url);

impl EngineUrl {
    /// Reads a URL; without a scheme it is `http://` and `default_port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Self, BadSpec> {
        let bare = !text.contains("://");
        let full = if bare { format!("http://{text}") } else { text.to_owned() };
        let bad = |reason: &dyn fmt::Display| BadSpec::Url { url: text.into(), reason: reason.to_string() };
        let mut url = match Url::parse(&full) {
            Err(_) if full.contains('@') => return Err(BadSpec::Credentials),
            Err(error) => return Err(bad(&error)),
            Ok(url) => url,
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadSpec::Scheme(url.scheme().into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadSpec::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadSpec::Extra(text.into()));
        }
        if bare && url.port().is_none() {
            url.set_port(Some(default_port)).map_err(|()| bad(&"no host"))?;
        }
        Ok(EngineUrl(url))
    }

    /// A port of this machine.
    pub(super) fn loopback(port: u16) -> Self {
        EngineUrl(Url::parse(&format!("http://127.0.0.1:{port}")).expect("an address and a port are a URL"))
    }

    /// The same, with this machine for an address that one can listen on, but not reach.
    #[must_use]
    pub(super) fn reachable(mut self) -> Self {
        let own: Option<IpAddr> = match self.ip() {
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
            _ => None,
        };
        if let Some(own) = own {
            // Works for every URL that has a host.
            let _ = self.0.set_ip_host(own);
        }
        self
    }

    /// The host, if it is an address. The URL's parser has made one of every way to write it.
    fn ip(&self) -> Option<IpAddr> {
        self.0.host_str()?.trim_matches(['[', ']']).parse().ok()
    }

    /// Whether it is this machine.
    pub(super) fn is_local(&self) -> bool {
        self.ip().map_or_else(|| self.0.host_str() == Some("localhost"), |ip| ip.is_loopback())
    }

    /// The host, if clouds tell secrets there: see [`address`]. A name is looked at again when it is resolved.
    pub(super) fn suspicious(&self) -> Option<String> {
        let host = self.0.host_str()?;
        let suspicious = self.ip().map_or_else(|| address::is_metadata_name(host), address::tells_secrets);
        suspicious.then(|| host.to_owned())
    }

    fn join(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// One engine's HTTP side.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    spec: BackendSpec,
    deadlines: Deadlines,
}

impl Http {
    /// A client for the engine that `spec` names.
    pub(super) fn new(spec: &BackendSpec, deadlines: Deadlines) -> Result<Self, BackendError> {
        let BackendSpec { url, link_local, .. } = spec;
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(deadlines.connect)
            .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")));
        if url.0.scheme() == "http" {
            // Else a host without CA certificates, such as a slim container, could not even reach its own loopback.
            builder = builder.tls_certs_only([]);
        }
        if !*link_local {
            if let Some(host) = url.suspicious() {
                return Err(BackendError::LinkLocal { host });
            }
            builder = builder.dns_resolver(Guarded);
        }
        let client = builder.build().map_err(|error| BackendError::Client(clean(&cause::root(&error))))?;
        Ok(Http { client, spec: spec.clone(), deadlines })
    }

    /// The engine, as it was configured.
    pub(super) fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    /// Where the engine is.
    fn url(&self) -> String {
        self.spec.url()
    }

    /// GETs a description.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BackendError> {
        self.describe(self.request(Method::GET, path)).await
    }

    /// GETs a text, such as metrics.
    pub(super) async fn text(&self, path: &str) -> Result<String, BackendError> {
        let limit = self.deadlines.describe;
        let read = self.read(self.request(Method::GET, path), MAX_DESCRIPTION_BYTES);
        let bytes = timeout(limit, read).await.map_err(|_| BackendError::Timeout { stage: Stage::Describe, limit })??;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// POSTs a question and reads a description.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, BackendError> {
        self.describe(self.request(Method::POST, path).json(body)).await
    }

    /// DELETEs what `body` names. Whatever a good answer says is not read.
    pub(super) async fn delete(&self, path: &str, body: &impl Serialize) -> Result<(), BackendError> {
        let limit = self.deadlines.describe;
        let deleted = self.accepted(self.request(Method::DELETE, path).json(body));
        timeout(limit, deleted).await.map_err(|_| BackendError::Timeout { stage: Stage::Describe, limit })?.map(drop)
    }

    async fn describe<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, BackendError> {
        let limit = self.deadlines.describe;
        let read = self.read_json(request, MAX_DESCRIPTION_BYTES);
        timeout(limit, read).await.map_err(|_| BackendError::Timeout { stage: Stage::Describe, limit })?
    }

    async fn read_json<T: DeserializeOwned>(&self, request: RequestBuilder, limit: usize) -> Result<T, BackendError> {
        serde_json::from_slice(&self.read(request, limit).await?).map_err(|_| self.malformed())
    }

    async fn read(&self, request: RequestBuilder, limit: usize) -> Result<Vec<u8>, BackendError> {
        let mut response = self.accepted(request).await?;
        self.read_up_to(&mut response, limit).await?.ok_or(BackendError::TooLarge { limit })
    }

    /// POSTs a job whose answer comes in one piece, and may take as long as a first byte.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, BackendError> {
        let limit = self.deadlines.first_byte;
        let request = self.request(Method::POST, path).json(body);
        let read = self.read_json(request, MAX_ANSWER_BYTES);
        timeout(limit, read).await.map_err(|_| BackendError::Timeout { stage: Stage::FirstByte, limit })?
    }

    /// POSTs a job. Resolves with the response's headers; the body follows piece by piece.
    pub(super) async fn start(&self, path: &str, body: &impl Serialize) -> Result<Body, BackendError> {
        let request = self.request(Method::POST, path).json(body);
        let limit = self.deadlines.first_byte;
        let response = timeout(limit, self.accepted(request))
            .await
            .map_err(|_| BackendError::Timeout { stage: Stage::FirstByte, limit })??;
        Ok(Body { response, http: self.clone(), started: false, timer: Box::pin(sleep_until(clock::deadline(limit))) })
    }

    /// Something other than this engine answers there.
    pub(super) fn malformed(&self) -> BackendError {
        BackendError::Malformed { kind: self.spec.kind.name(), url: self.url() }
    }

    /// It is `found` that answers there.
    pub(super) fn is_another(&self, found: BackendKind) -> BackendError {
        BackendError::WrongEngine { url: self.url(), configured: self.spec.kind, found }
    }

    /// What the first question of all means when it is refused: whoever lacks the path is another program. Failures and
    /// refusals that pass stay what they are.
    pub(super) fn foreign_unless_gone(&self, error: BackendError) -> BackendError {
        match error {
            BackendError::Status { status: 300..=407 | 409..=424, .. } => self.malformed(),
            error => error,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.spec.url.join(path));
        match &self.spec.key {
            // Marked as sensitive by reqwest, so not even its own logs hold it.
            Some(key) => request.bearer_auth(key.secret()),
            None => request,
        }
    }

    async fn accepted(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        let mut response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(BackendError::Unauthorized { url: self.url(), variable: self.spec.kind.facts().key_variable });
        }
        let body = self.read_up_to(&mut response, MAX_ERROR_BYTES).await.ok().flatten().unwrap_or_default();
        let message = error_message(&body).unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").into());
        Err(BackendError::Status { status: status.as_u16(), message })
    }

    /// Sends it, and once more if the engine closes the connection before its first byte.
    async fn send(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        let again = request.try_clone();
        match (request.send().await, again) {
            (Err(error), Some(again)) if was_closed(&error) => again.send().await.map_err(|error| self.failure(&error)),
            (sent, _) => sent.map_err(|error| self.failure(&error)),
        }
    }

    /// The whole body, or `None` if it is longer than `limit`.
    async fn read_up_to(&self, response: &mut Response, limit: usize) -> Result<Option<Vec<u8>>, BackendError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failure(&error))? {
            body.extend_from_slice(&piece);
            if body.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(body))
    }

    fn failure(&self, error: &reqwest::Error) -> BackendError {
        if error.is_timeout() {
            BackendError::Timeout { stage: Stage::Connect, limit: self.deadlines.connect }
        } else if error.is_body() || error.is_decode() {
            BackendError::Truncated
        } else if let Some(host) = refused_host(error) {
            BackendError::LinkLocal { host }
        } else {
            BackendError::Unreachable { url: self.url(), reason: clean(&cause::root(error)) }
        }
    }
}

/// Whether a connection was made and then closed before an answer began.
fn was_closed(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// Resolves names, and refuses those that mean an address where clouds tell secrets: a name may change what it means.
pub(crate) struct Guarded;

/// The name that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a link-local or metadata address")]
struct Refused(String);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            // The port is set by whoever asked.
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(admitted(host, found)?.into_iter()) as Addrs)
        })
    }
}

/// What a name means, if nothing of it tells secrets: a name with one such address is somebody's trick.
fn admitted(host: String, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    if found.iter().any(|address| address::tells_secrets(address.ip())) { Err(Refused(host)) } else { Ok(found) }
}

/// The name that [`Guarded`] refused, if that is why a request failed.
pub(crate) fn refused_host(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(error) = cause {
        if let Some(Refused(host)) = error.downcast_ref() {
            return Some(host.clone());
        }
        cause = error.source();
    }
    None
}

/// A running response. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    http: Http,
    started: bool,
    /// One timer for all reads: it is set anew only when it rings too early, not with every token.
    timer: Pin<Box<Sleep>>,
}

impl Body {
    /// The next bytes, `Some(None)` at the end; `None` if nothing came until `due`.
    pub(super) async fn read_until(&mut self, due: Instant) -> Result<Option<Option<Bytes>>, BackendError> {
        let Body { response, http, timer, .. } = self;
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            tokio::select! {
                biased;
                read = response.chunk() => return read.map(Some).map_err(|error| http.failure(&error)),
                () = &mut *timer => {
                    if due <= timer.deadline() {
                        return Ok(None);
                    }
                    timer.as_mut().reset(due);
                }
            }
        }
    }

    /// The next line, as JSON. An answer that ends in half a line is cut off.
    pub(super) async fn read_json<T: DeserializeOwned>(&mut self, lines: &mut LineBuffer) -> Result<T, BackendError> {
        let (stage, limit) = self.deadline();
        let due = clock::deadline(limit);
        loop {
            let next = lines.next_line();
            if let Some(line) = next.map_err(|_| BackendError::LineTooLong { limit: ndjson::MAX_LINE_BYTES })? {
                self.started();
                return serde_json::from_slice(&line).map_err(|_| self.malformed());
            }
            match self.read_until(due).await?.ok_or(BackendError::Timeout { stage, limit })? {
                Some(bytes) => lines.push(&bytes),
                // The last line may lack its line feed; half a line is no line.
                None => {
                    let rest = lines.rest().ok_or(BackendError::Truncated)?;
                    self.started();
                    return serde_json::from_slice(&rest).map_err(|_| BackendError::Truncated);
                }
            }
        }
    }

    /// How long the next line may take, and what it is; the first takes longer.
    pub(super) fn deadline(&self) -> (Stage, Duration) {
        let deadlines = &self.http.deadlines;
        if self.started { (Stage::NextChunk, deadlines.between) } else { (Stage::FirstByte, deadlines.first_byte) }
    }

    /// Says that a line was read.
    pub(super) fn started(&mut self) {
        self.started = true;
    }

    /// Something other than this engine answers there.
    pub(super) fn malformed(&self) -> BackendError {
        self.http.malformed()
    }
}

/// What an error's body says, be it `{"error":"…"}`, `{"error":{"message":"…"}}`, `{"message":"…"}` (SGLang), `{"detail":"…"}`
/// (FastAPI) or plain text.
fn error_message(body: &[u8]) -> Option<String> {
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(json) => ["error", "detail"].into_iter().find_map(|key| error_text(json.get(key)?)).or_else(|| error_text(&json))?,
        Err(_) => clean(&String::from_utf8_lossy(body)),
    };
    (!message.is_empty()).then_some(message)
}

/// The text of an `error` value, bounded and without control characters.
pub(super) fn error_text(error: &Value) -> Option<String> {
    error.as_str().or_else(|| error.get("message")?.as_str()).map(clean)
}

/// `text`, bounded and without control characters.
pub(super) fn clean(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        assert_eq!(error_message(body.as_bytes()).as_deref(), expected, "{body}");
    }

    #[test]
    fn a_name_that_means_a_secret_address_is_refused() {
        let means = |addresses: &[&str]| {
            let found = addresses.iter().map(|address| address.parse().expect("an address")).collect();
            admitted("gpu-box".into(), found).is_ok()
        };
        assert!(means(&["10.0.0.5:0", "[fd00::1]:0"]));
        assert!(!means(&["10.0.0.5:0", "169.254.169.254:0"]));
        assert!(!means(&["[fe80::1]:0"]));
    }

    #[test]
    fn engines_messages_are_found_bounded_and_harmless() {
        check(r#"{"error":"model 'nope' not found"}"#, Some("model 'nope' not found"));
        check(r#"{"error":{"message":"unexpected EOF","type":"x"}}"#, Some("unexpected EOF"));
        check(r#"{"object":"error","message":"too long","type":"BadRequestError","code":400}"#, Some("too long"));
        check(r#"{"detail":"Not Found"}"#, Some("Not Found"));
        check("404 page not found\n", Some("404 page not found"));
        check("a\u{1b}[31mred\u{7}", Some("a [31mred"));
        check("", None);
        check("{}", None);
        check(&"x".repeat(1000), Some(&"x".repeat(MAX_MESSAGE_CHARS)));
    }
}
