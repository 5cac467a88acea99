//! What no worker of the mesh bid on, given to daemons behind the legacy bridge. It is free of charge: nobody agreed on a price,
//! nobody signs a receipt, so it is in no volume and no reputation.

use super::{Gateway, Live, Outcome};
use crate::{
    legacy::{Job, Legacy, Told},
    store::{JobError, JobRow, JobStatus},
    uuid,
};
use infernet_node::{
    buyer::{ChatError, ChatOrder, Trust},
    clock,
};
use infernet_wire::chat::{ChatMessage, Role, Task};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::debug;

/// How an answer is sampled where the client does not say, as existing clients have it.
const TEMPERATURE: f64 = 0.7;

/// `order` as daemons know it; `None` for what they can't do: tools, schemas, stop words, images, vectors, a seed. And for what
/// its client wants of some workers alone: a daemon is a stranger.
pub(super) fn job(order: &ChatOrder) -> Option<Job> {
    let request = &order.request;
    let anybody = order.trust == Trust::default();
    let chats = anybody && request.task == Task::CHAT && !request.messages.is_empty();
    let sampled = request.seed.is_some() || request.top_p.is_some() || request.logprobs.is_some();
    let penalised = request.presence_penalty.is_some() || request.frequency_penalty.is_some();
    let asked = !request.tools.is_empty() || request.format.is_some() || !request.stop.is_empty() || request.suffix.is_some();
    let plain = chats && !sampled && !penalised && !asked;
    let messages = request.messages.iter().map(message).collect::<Option<Vec<Value>>>()?;
    plain.then(|| Job {
        id: uuid::random(),
        model: request.model.clone(),
        messages: messages.into(),
        max_tokens: request.max_tokens,
        temperature: request.temperature.unwrap_or(TEMPERATURE),
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
    let mut answer = legacy.offer(Job { created: now, ..job }, now)?;
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
    use infernet_wire::chat::ChatRequest;

    #[test]
    fn daemons_get_plain_conversations_only() {
        let request = |messages| ChatOrder::new(ChatRequest::new("m", messages, 7));
        let plain = request(vec![ChatMessage::new(Role::System, "s"), ChatMessage::new(Role::User, "u")]);
        let job = job(&plain).expect("a job");
        assert_eq!(job.messages, json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "u" }]));
        assert_eq!((job.model.as_str(), job.max_tokens, job.temperature), ("m", 7, TEMPERATURE));
        assert_eq!(super::job(&request(vec![ChatMessage::new(Role::Tool, "t")])), None);
        assert_eq!(super::job(&request(Vec::new())), None);
        let with = |change: fn(&mut ChatRequest)| {
            let mut order = plain.clone();
            change(&mut order.request);
            super::job(&order)
        };
        assert_eq!(with(|request| request.seed = Some(1)), None);
        assert_eq!(with(|request| request.top_p = Some(0.5)), None);
        assert_eq!(with(|request| request.stop = vec!["END".into()]), None);
    }

    #[test]
    fn what_one_node_was_asked_for_is_no_strangers() {
        let node = infernet_wire::key::NodeKey::from_bytes(&[7; 32]).expect("a key").id();
        let order = ChatOrder::new(ChatRequest::new("m", vec![ChatMessage::new(Role::User, "u")], 7));
        assert!(job(&order).is_some());
        let trust = Trust { allow: [node].into(), ..Trust::default() };
        assert_eq!(job(&ChatOrder { trust, ..order }), None);
    }
}
