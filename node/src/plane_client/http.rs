//! Signed HTTP to a control plane: deadlines, bounds, one sentence for what goes wrong. Besides engines and the control socket the
//! only file that names `reqwest`.

use crate::{cause, clock};
use infernet_wire::{
    http_auth::{self, HEADER},
    key::NodeKey,
};
use reqwest::{Client, Method, Response, Url, redirect::Policy};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr, time::Duration};
use tokio::time::timeout;

/// To accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// From request to the end of the answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer that is read: ten commands with their signatures are some tens of kilobytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Characters of a plane's message that are kept: two sentences.
const MAX_MESSAGE_CHARS: usize = 300;

/// A plane's public origin, such as `https://plane.example`: what requests name as their audience.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fix = || "write scheme and host of the plane, without a path, such as https://plane.example".to_owned();
        let url = Url::parse(text).map_err(|_| fix())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let open = url.username().is_empty() && url.password().is_none();
        let known = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
        if bare && open && known { Ok(Origin(url.origin().ascii_serialization())) } else { Err(fix()) }
    }
}

/// Why a plane did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaneError {
    /// There can't be a client.
    #[error("can't use TLS here: {0}")]
    Client(String),
    /// It can't be reached.
    #[error("{plane} can't be reached: {reason}; is its address right, and does it run?")]
    Unreachable {
        /// Which.
        plane: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{plane} did not answer within {} s", ANSWER.as_secs())]
    Silent {
        /// Which.
        plane: String,
    },
    /// It refused.
    #[error("{plane} refused ({status}): {message}")]
    Refused {
        /// Which.
        plane: String,
        /// The HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
    /// It speaks of something else.
    #[error("{plane} does not answer as a plane does; is the address right?")]
    Malformed {
        /// Which.
        plane: String,
    },
}

impl PlaneError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            PlaneError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A plane, asked with one key. Cheap to clone.
#[derive(Clone)]
pub struct Plane {
    origin: Origin,
    key: NodeKey,
    client: Client,
}

impl Plane {
    /// The plane at `origin`, asked with `key`. It is not contacted yet.
    pub fn new(origin: Origin, key: NodeKey) -> Result<Self, PlaneError> {
        let builder = Client::builder()
            // What is signed for one origin goes nowhere else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")));
        let builder = if origin.0.starts_with("http:") {
            // A host without CA certificates can still reach a plane on its own network, and no proxy is between.
            builder.tls_certs_only([]).no_proxy()
        } else {
            builder
        };
        let client = builder.build().map_err(|error| PlaneError::Client(cause::root(&error)))?;
        Ok(Plane { origin, key, client })
    }

    /// Which one it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// POSTs `body`, with the audience in it, and returns the `data` of the answer.
    pub async fn post(&self, path: &str, mut body: Map<String, Value>) -> Result<Value, PlaneError> {
        body.insert("aud".into(), self.origin.0.clone().into());
        self.ask(Method::POST, path, Value::Object(body).to_string()).await
    }

    /// GETs `path`, with the audience in its query.
    pub async fn get(&self, path: &str) -> Result<Value, PlaneError> {
        self.ask(Method::GET, &self.addressed(path), String::new()).await
    }

    /// DELETEs `path`, likewise.
    pub async fn delete(&self, path: &str) -> Result<Value, PlaneError> {
        self.ask(Method::DELETE, &self.addressed(path), String::new()).await
    }

    fn addressed(&self, path: &str) -> String {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("{path}{sign}aud={}", self.origin)
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Value, PlaneError> {
        let request = http_auth::Request { method: method.as_str(), path, body: body.as_bytes() };
        let header = http_auth::sign(&self.key, request, clock::now().0 / 1000, &clock::random());
        let mut request = self.client.request(method, format!("{}{path}", self.origin)).header(HEADER, header);
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        let answered = async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body: Value = serde_json::from_slice(&self.read(response).await?).unwrap_or_default();
            if !status.is_success() {
                let message = message(&body).unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason").into());
                return Err(PlaneError::Refused { plane: self.name(), status: status.as_u16(), message });
            }
            body.get("data").cloned().ok_or_else(|| PlaneError::Malformed { plane: self.name() })
        };
        timeout(ANSWER, answered).await.map_err(|_| PlaneError::Silent { plane: self.name() })?
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, PlaneError> {
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if read.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(PlaneError::Malformed { plane: self.name() });
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    }

    fn name(&self) -> String {
        self.origin.to_string()
    }

    fn unreachable(&self, error: &reqwest::Error) -> PlaneError {
        PlaneError::Unreachable { plane: self.name(), reason: cause::root(error) }
    }
}

/// `{"error":"text"}` or `{"error":{"message":"text"}}`, without what a terminal would obey.
fn message(body: &Value) -> Option<String> {
    let error = body.get("error")?;
    let text = error.as_str().or_else(|| error.get("message")?.as_str())?;
    Some(text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_path_and_no_secret() {
        let check = |text: &str, expected: &str| assert_eq!(text.parse::<Origin>().map(|o| o.to_string()), Ok(expected.into()));
        check("https://Plane.Example/", "https://plane.example");
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080");
        check("https://plane.example:443", "https://plane.example");
        for bad in ["plane.example", "ftp://a", "https://a/b", "https://a?b", "https://u:p@a", "", "https://"] {
            let error = bad.parse::<Origin>().expect_err(bad);
            assert!(error.contains("https://plane.example"), "{error}");
        }
    }

    #[test]
    fn what_a_plane_says_is_cut_and_plain() {
        let said = |body: Value| message(&body);
        assert_eq!(said(serde_json::json!({ "error": "no\u{1b}[2J" })), Some("no[2J".into()));
        assert_eq!(said(serde_json::json!({ "error": { "message": "why" } })), Some("why".into()));
        assert_eq!(said(serde_json::json!({ "error": "x".repeat(999) })).map(|text| text.len()), Some(MAX_MESSAGE_CHARS));
        assert_eq!(said(serde_json::json!([])), None);
    }
}
