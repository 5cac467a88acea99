//! A client's jobs, and a place to ask.

use super::{Ask, Part, words};
use crate::{
    http::{
        error::Refusal,
        jobs::{self as api, JobView},
    },
    query,
    store::{JobQuery, JobRow, JobStatus, WebJobId},
};
use infernet_wire::money::MicroUsd;
use maud::{Markup, html};

/// Rows of a page.
const PAGE: usize = 50;

const STATUSES: [JobStatus; 6] = [
    JobStatus::Pending,
    JobStatus::Assigned,
    JobStatus::Running,
    JobStatus::Completed,
    JobStatus::Failed,
    JobStatus::Cancelled,
];

/// The newest jobs of who has signed in.
pub(super) async fn list(ask: &Ask<'_>, status: Option<JobStatus>, before: Option<&str>) -> Result<Vec<Part>, Refusal> {
    let client = ask.must()?.client.id.clone();
    let before = before.map(api::place).transpose()?;
    let wanted = JobQuery { client: Some(client), status, before, limit: PAGE, ..JobQuery::default() };
    let rows = ask.plane.store.jobs(&wanted).await?;
    let next = rows.last().filter(|_| rows.len() == PAGE).map(api::place_of);
    let filter = html! {
        form.row action="/jobs" {
            label { "Status"
                select name="status" {
                    option value="" { "all" }
                    @for one in STATUSES { option value=(api::status(one)) selected[status == Some(one)] { (api::status(one)) } }
                }
            }
            button { "Show" }
        }
    };
    let more = html! {
        @if let Some(next) = next {
            p { a href={ "/jobs?before=" (next) @if let Some(status) = status { "&status=" (api::status(status)) } } { "Older" } }
        }
    };
    let shown: Vec<Markup> = rows.iter().map(row).collect();
    let head = ["Job", "Asked", "Model", "Status", "Node", "#Tokens, in / out", "#First token", "#Cost"];
    let none = "None yet. Ask something on the chat page, or make an API key.";
    Ok(vec![Part::fixed(filter), Part::live("jobs", html! { (words::table(&head, &shown, none)) (more) })])
}

fn row(row: &JobRow) -> Markup {
    html! {
        tr {
            td { a.id href={ "/jobs/" (row.id.0) } { (row.id.0.get(4..12).unwrap_or_default()) } }
            td { (words::time(row.created)) }
            td { (row.model) }
            td { (badge(row.status)) }
            td { @match (&row.worker, &row.legacy) {
                (Some(worker), _) => (words::node(worker)),
                (None, Some(_)) => "a daemon",
                (None, None) => (words::dash()),
            } }
            td.n { @match row.input_tokens.zip(row.output_tokens) { Some((i, o)) => { (i) " / " (o) }, None => (words::dash()) } }
            td.n { @match row.ttft_ms { Some(ms) => { (ms) " ms" }, None => (words::dash()) } }
            td.n { @match row.cost { Some(cost) => (words::dollars(cost)), None => (words::dash()) } }
        }
    }
}

fn badge(status: JobStatus) -> Markup {
    let kind = match status {
        JobStatus::Completed => "good",
        JobStatus::Failed => "bad",
        JobStatus::Pending | JobStatus::Assigned | JobStatus::Running => "wait",
        JobStatus::Cancelled => "",
    };
    words::badge(kind, api::status(status))
}

/// One job of who has signed in.
pub(super) async fn one(ask: &Ask<'_>, id: &WebJobId) -> Result<Vec<Part>, Refusal> {
    let client = &ask.must()?.client.id;
    let row = ask.plane.store.job(id).await?.filter(|row| row.client == *client).ok_or_else(|| Refusal::not_found("job"))?;
    let status = row.status;
    let (created, ended) = (row.created, row.ended);
    let view = api::viewed(ask.plane, row);
    let facts = html! {
        dl.facts {
            dt { "Job" } dd.wrap { code { (view.id) } }
            dt { "Status" } dd { (badge(status)) }
            dt { "Model" } dd { (view.model) }
            dt { "Node" } dd.wrap { (words::or_dash(view.node_id.clone())) }
            dt { "Asked" } dd { (words::moment(created)) }
            dt { "Ended" } dd { (ended.map_or_else(words::dash, words::moment)) }
            dt { "First token" } dd { (words::or_dash(view.ttft_ms.map(|ms| format!("{ms} ms")))) }
            dt { "Tokens" } dd { (tokens(&view)) }
            dt { "Cost" } dd {
                (words::or_dash(view.cost_micro_usd.map(|cost| words::dollars(MicroUsd(cost)))))
                " of at most " (words::dollars(MicroUsd(view.budget_micro_usd)))
            }
            @if let Some(digest) = &view.receipt { dt { "Receipt" } dd.wrap { a href={ "/receipts/" (digest) } { (digest) } } }
            @if let Some(error) = &view.error { dt { "Error" } dd { (error.message) " " code { (error.code) } } }
        }
        @match view.result.as_ref().and_then(|result| result.content.as_deref()) {
            Some(text) => { h2 { "Answer" } pre.wrap.answer { (text) } }
            None if status.is_over() => p.note { "The answer is not kept: it was in memory for some minutes after the end, and its client did not ask for more." },
            None => {}
        }
    };
    let cancel = html! {
        @if !status.is_over() {
            form data-api={ "DELETE /api/v1/jobs/" (view.id) } { button.danger { "Cancel" } output {} }
        }
    };
    Ok(vec![Part::live("job", html! { (facts) (cancel) })])
}

fn tokens(view: &JobView) -> Markup {
    match view.result.as_ref().and_then(|result| result.usage) {
        Some(usage) => html! { (usage.prompt_tokens) " in, " (usage.completion_tokens) " out" },
        None => words::dash(),
    }
}

/// A place to ask a model, with the answer as it comes.
pub(super) fn chat(ask: &Ask<'_>, model: Option<&str>) -> Vec<Part> {
    let models = ask.plane.index.read(|book| query::models(book, ask.now));
    // Its jobs go through `/api/v1/jobs`, which is for clients, even where those who are nobody may use `/api/chat`.
    let may = ask.somebody.is_some();
    let page = html! {
        @if ask.plane.gateway.is_none() {
            p.note { "This plane buys nothing for clients: it only shows. Run a node, or ask at another." }
        } @else if !may {
            p { "To ask, " a href="/signin?next=/chat" { "sign in" } "." }
        } @else if models.is_empty() {
            p.note { "No node serves a model now. This page does not need to be loaded again when one does: choose it below." }
        }
        div #talk aria-live="polite" {}
        form #chat {
            label { "Model"
                input name="model" list="models" required value=[model.or_else(|| models.first().map(|model| model.id.as_str()))] autocomplete="off" spellcheck="false";
                datalist #models { @for model in &models { option value=(model.id) {
                    (model.nodes) " nodes" @if let Some(price) = model.output_price { ", from " (words::dollars(MicroUsd(price.min))) }
                } } }
            }
            label { "Message" textarea name="message" rows="4" required placeholder="Ask something. Ctrl+Enter sends." {} }
            details {
                summary { "Settings" }
                div.row {
                    label { "Tokens at most" input name="max_tokens" type="number" min="1" max="131072" value="512"; }
                    label { "Temperature" input name="temperature" type="number" min="0" max="2" step="0.1" value="0.7"; }
                    label { "Most to pay, $ per million tokens" input name="max_price" type="number" min="0" step="0.000001"; }
                }
            }
            div.row {
                button type="submit" disabled[!may || ask.plane.gateway.is_none()] { "Ask" }
                button type="button" #stop hidden { "Stop" }
                output {}
            }
        }
        p.note { "Prompts and answers pass through this plane, and are in its memory for some minutes. A node of your own has no such middleman." }
    };
    vec![Part::fixed(page)]
}
