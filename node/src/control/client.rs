//! The commands' end of the control socket.

use super::{
    SOCKET,
    schema::{ChatOrderBody, ChatStep, ErrorReport},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use std::{ops::ControlFlow, os::unix::net::UnixStream, path::Path, time::Duration};
use tokio::time::timeout;

/// A node answers a question about itself at once, unless it is stuck.
const ANSWER: Duration = Duration::from_secs(10);
/// A step of a chat is one delta of at most 64 KiB, but the last holds the whole answer.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// The running node can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It does not answer.
    #[error("the running node does not answer: {0}; see its log, or stop it")]
    Http(#[from] reqwest::Error),
    /// It answers nonsense.
    #[error("the running node answers in another format; is it of another version?")]
    Malformed,
    /// It is stuck.
    #[error("the running node does not answer within {} s; see its log, or stop it", ANSWER.as_secs())]
    Silent,
    /// It closed the line.
    #[error("the running node ended the answer early; see its log")]
    Cut,
}

/// A connection to the node that runs in a home.
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// The node in `home`; `None` if none runs there.
    pub fn connect(home: &Path) -> Option<Self> {
        let path = home.join(SOCKET);
        UnixStream::connect(&path).ok()?;
        let http = reqwest::Client::builder().unix_socket(path).no_proxy().build().ok()?;
        Some(Client { http })
    }

    /// Asks for `path` below `/v0/`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let answer = self.http.get(format!("http://node/v0/{path}")).timeout(ANSWER).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// As [`Client::get`], for what may take as long as `limit`, or be refused in the node's own words.
    pub async fn ask<T: DeserializeOwned>(&self, limit: Duration, path: &str) -> Result<Result<T, ErrorReport>, AskError> {
        self.answer(self.http.get(format!("http://node/v0/{path}")).timeout(limit)).await
    }

    /// Posts `body` to `path` below `/v0/`. The inner error is the node's own, for people.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<Result<T, ErrorReport>, AskError> {
        self.post_within(ANSWER, path, body).await
    }

    /// As [`Client::post`], for what may take as long as `limit`.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        path: &str,
        body: String,
    ) -> Result<Result<T, ErrorReport>, AskError> {
        let request = self.http.post(format!("http://node/v0/{path}")).header("content-type", "application/json");
        self.answer(request.timeout(limit).body(body)).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<Result<T, ErrorReport>, AskError> {
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(Ok(answer.json().await?));
        }
        Ok(Err(answer.json().await.map_err(|_| AskError::Malformed)?))
    }

    /// Runs a chat; `on_step` sees each step. Returns the last one; `None` if `on_step` broke off. Then, or when this future is
    /// dropped, the node cancels the job and settles what had arrived.
    pub async fn chat(
        &self,
        order: &ChatOrderBody,
        mut on_step: impl FnMut(&ChatStep) -> ControlFlow<()>,
    ) -> Result<Option<ChatStep>, AskError> {
        let sending = timeout(ANSWER, self.http.post("http://node/v0/chat").json(order).send());
        let answer = sending.await.map_err(|_| AskError::Silent)??.error_for_status()?;
        let mut bytes = answer.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(chunk) = bytes.next().await {
            buffer.extend_from_slice(&chunk?);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let step: ChatStep = serde_json::from_slice(&line).map_err(|_| AskError::Malformed)?;
                if matches!(step, ChatStep::Done(_) | ChatStep::Error(_)) {
                    return Ok(Some(step));
                }
                if on_step(&step).is_break() {
                    return Ok(None);
                }
            }
            if buffer.len() > MAX_LINE {
                return Err(AskError::Malformed);
            }
        }
        Err(AskError::Cut)
    }
}
