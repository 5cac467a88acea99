//! What is around every page.

use super::{Ask, Part, View, assets, words};
use crate::{
    accounts::session,
    http::{
        caller::{By, Somebody},
        error::Refusal,
    },
};
use maud::{DOCTYPE, Markup, html};

/// Pages that everybody finds, and their names.
const PLACES: [(&str, &str); 8] = [
    ("/", "Network"),
    ("/nodes", "Nodes"),
    ("/models", "Models"),
    ("/chat", "Chat"),
    ("/jobs", "Jobs"),
    ("/receipts", "Receipts"),
    ("/money", "Money"),
    ("/keys", "API keys"),
];

/// A page with everything around it.
pub(super) fn whole(ask: &Ask<'_>, view: &View, parts: &[Part]) -> Markup {
    let is_live = parts.iter().any(|part| part.id.is_some());
    let body = html! {
        @for part in parts {
            @match part.id {
                Some(id) => section id=(id) data-live { (part.markup) }
                None => (part.markup)
            }
        }
    };
    let csrf = ask.somebody.and_then(csrf);
    framed(
        &view.title(),
        here(view),
        ask.somebody,
        csrf.as_deref(),
        html! {
            h1 { (view.title()) }
            (body)
            p.asof role="status" {
                @if is_live {
                    span #live .dot {} span #live-text { "as of " (words::time(ask.now)) }
                } @else {
                    "as of " (words::time(ask.now))
                }
            }
        },
    )
}

/// What could not be shown.
pub(super) fn failed(ask: &Ask<'_>, refusal: &Refusal) -> Markup {
    framed(
        "Not here",
        "",
        ask.somebody,
        None,
        html! {
            h1 { (refusal.status.as_u16()) }
            p { (refusal.message) }
            p { a href="/" { "To the network" } }
        },
    )
}

/// A page of other routes, such as the one that approves a terminal.
pub(in crate::http) fn plain(title: &str, somebody: Option<&Somebody>, body: Markup) -> Markup {
    framed(title, "", somebody, None, html! { h1 { (title) } (body) })
}

/// What a script sends with what changes something.
fn csrf(somebody: &Somebody) -> Option<String> {
    match &somebody.by {
        By::Session(_, cookie) => Some(session::csrf(cookie)),
        By::Key(_) => None,
    }
}

fn here(view: &View) -> &'static str {
    match view {
        View::Overview => "/",
        View::Nodes { .. } | View::Node(_) => "/nodes",
        View::Models => "/models",
        View::Chat { .. } => "/chat",
        View::Jobs { .. } | View::Job(_) => "/jobs",
        View::Receipts { .. } | View::Receipt(_) => "/receipts",
        View::Money { .. } => "/money",
        View::Keys => "/keys",
        View::Settings | View::SignIn { .. } => "/settings",
    }
}

fn framed(title: &str, here: &str, somebody: Option<&Somebody>, csrf: Option<&str>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(csrf) = csrf { meta name="csrf" content=(csrf); }
                title { (title) " · infernet" }
                link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
                link rel="stylesheet" href=(assets::url("app.css"));
                script type="module" src=(assets::url("app.js")) {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    a.name href="/" { "infernet" }
                    nav aria-label="Pages" {
                        @for (path, name) in PLACES {
                            a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                        }
                    }
                    @match somebody {
                        Some(somebody) => a.who href="/settings" aria-current=[(here == "/settings").then_some("page")] { (somebody.client.name) }
                        None => a.who href="/signin" { "Sign in" }
                    }
                }
                main #main tabindex="-1" { (body) }
                footer {
                    a href="/docs/api" { "API reference" } " · "
                    "This plane only follows the network: nothing on the mesh needs it."
                }
            }
        }
    }
}
