//! What no worker of the mesh bid on, given to daemons behind the legacy bridge. It is free of charge: nobody agreed on a price,
//! nobody signs a receipt, so it is in no volume and no reputation.

use super::{Gateway, Live, Outcome};
use crate::{
    legacy::{Job, Legacy, Told},
    store::{JobError, JobRow, JobStatus},
    uuid,
};
use infernet_node::{buyer::ChatError, clock};
use infernet_wire::chat::{ChatMessage, ChatRequest, Role, Task};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::{debug, warn};

/// How an answer is sampled where the client does not say, as existing clients have it.
const TEMPERATURE: f64 = 0.7;

/// `request` as daemons know it; `None` for what they can't do: tools, schemas, stop words, images, vectors.
pub(super) fn job(request: &ChatRequest) -> Option<Job> {
    let chats = request.task == Task::CHAT && !request.messages.is_empty();
    let plain = chats && request.tools.is_empty() && request.format.is_none() && request.stop.is_empty();
    let messages = request.messages.iter().map(message).collect::<Option<Vec<Value>>>()?;
    plain.then(|| Job {
        id: uuid::random(),
        model: request.model.clone(),
        messages: messages.into(),
        max_tokens: request.max_tokens,
        temperature: request.temperature.unwrap_or(TEMPERATURE),
        only: None,
        created: clock::now(),
    })
}

fn message(message: &ChatMessage) -> Option<Value> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => return None,
    };
    let text = message.images.is_empty() && message.tool_calls.is_empty();
    text.then(|| json!({ "role": role, "content": message.content }))
}

/// Whether the mesh had nobody for the job, so that no worker is passed over.
pub(super) fn is_unwanted(error: &ChatError) -> bool {
    matches!(error, ChatError::NoBids(_) | ChatError::NoPeers)
}

/// Lets a daemon answer `job` into `live`; `None` if none takes it.
pub(super) async fn run(gateway: &Gateway, legacy: &Arc<Legacy>, live: &Live, job: Job) -> Option<Outcome> {
    let now = clock::now();
    let mut answer = match legacy.offer(Job { created: now, ..job }, now).await {
        Ok(answer) => answer?,
        Err(error) => {
            warn!(job = %live.id().0, "no daemon was asked: {error}");
            return None;
        }
    };
    let (mut cancel, mut begun) = (live.cancelled(), false);
    loop {
        let told = tokio::select! {
            biased;
            _ = cancel.wait_for(|cancel| *cancel) => return Some(Outcome { cancelled: true, ..Outcome::default() }),
            told = answer.next() => told,
        };
        match told {
            Some(Told::Assigned(daemon)) => {
                let assigned = |row: &mut JobRow| (row.status, row.legacy) = (JobStatus::Assigned, Some(daemon));
                gateway.change(live, assigned).await;
            }
            Some(Told::Text(text)) => {
                if !live.push(&text) {
                    debug!(job = %live.id().0, "an answer is longer than any may be: cancelled");
                    live.cancel();
                }
                if !begun {
                    let now = clock::now();
                    let running = |row: &mut JobRow| {
                        (row.status, row.started) = (JobStatus::Running, Some(now));
                        row.ttft_ms = Some(now.since(row.created));
                    };
                    gateway.change(live, running).await;
                    begun = true;
                }
            }
            Some(Told::Done) => return Some(Outcome { finish: Some("stop"), ..Outcome::default() }),
            Some(Told::Failed { code: "no_capacity", .. }) => return None,
            Some(Told::Failed { code, message }) => return Some(failed(code, message)),
            None => return Some(failed("node_disconnected", "the node's answer was lost".into())),
        }
    }
}

fn failed(code: &str, message: String) -> Outcome {
    Outcome { error: Some(JobError { code: code.into(), message }), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_get_plain_conversations_only() {
        let request = |messages| ChatRequest::new("m", messages, 7);
        let plain = request(vec![ChatMessage::new(Role::System, "s"), ChatMessage::new(Role::User, "u")]);
        let job = job(&plain).expect("a job");
        assert_eq!(job.messages, json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "u" }]));
        assert_eq!((job.model.as_str(), job.max_tokens, job.temperature), ("m", 7, TEMPERATURE));
        assert_eq!(super::job(&request(vec![ChatMessage::new(Role::Tool, "t")])), None);
        assert_eq!(super::job(&request(Vec::new())), None);
    }
}
