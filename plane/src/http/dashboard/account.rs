//! Keys, identities, and signing in.

use super::{Ask, Part, words};
use crate::{
    http::error::Refusal,
    query,
    store::{Identity, KeyRow},
};
use infernet_wire::id::NodeId;
use maud::{Markup, html};

/// API keys of who has signed in.
pub(super) async fn keys(ask: &Ask<'_>) -> Result<Vec<Part>, Refusal> {
    let rows = ask.plane.store.keys(&ask.must()?.client.id).await?;
    let make = html! {
        form.row data-api="POST /api/v1/keys" data-shape="key" {
            label { "Name" input name="name" maxlength="80" required autocomplete="off" placeholder="my app"; }
            fieldset {
                legend { "It may" }
                label.check { input type="checkbox" name="scopes" value="jobs" checked; "buy jobs" }
                label.check { input type="checkbox" name="scopes" value="read" checked; "read my jobs" }
                label.check { input type="checkbox" name="scopes" value="manage"; "manage my account" }
            }
            label { "Dollars a day at most" input name="per_day" type="number" min="0" step="0.01" placeholder="no cap"; }
            label { "Days it is good" input name="days" type="number" min="1" max="3650" placeholder="for ever"; }
            button { "Make a key" }
            output {}
        }
        p.note { "The key is shown once. This plane keeps only its hash." }
    };
    let shown: Vec<Markup> = rows.iter().map(|row| key(ask, row)).collect();
    let head = ["Key", "Name", "May", "#A day at most", "Made", "Last used", "State", ""];
    Ok(vec![Part::fixed(make), Part::live("keys", words::table(&head, &shown, "None yet."))])
}

fn key(ask: &Ask<'_>, row: &KeyRow) -> Markup {
    let over = row.expires.is_some_and(|at| at <= ask.now);
    html! {
        tr {
            td { code { (row.prefix) "…" } }
            td { (row.name) }
            td { (row.scopes.join(", ")) }
            td.n { (words::or_dash(row.per_day.map(words::dollars))) }
            td { (words::time(row.created)) }
            td { (words::maybe_time(row.used)) }
            td {
                @match (row.revoked, over, row.expires) {
                    (Some(at), _, _) => { (words::badge("bad", "revoked")) " " (words::time(at)) }
                    (None, true, _) => (words::badge("bad", "expired")),
                    (None, false, Some(at)) => { (words::badge("good", "good")) " until " (words::time(at)) }
                    (None, false, None) => (words::badge("good", "good")),
                }
            }
            td {
                @if row.revoked.is_none() {
                    form data-api={ "DELETE /api/v1/keys/" (row.prefix) } data-sure={ "Revoke " (row.prefix) "…? What uses it stops at once." } {
                        button.danger { "Revoke" } output {}
                    }
                }
            }
        }
    }
}

/// Nodes among identities. Two node ids have the same x-only key: it is the one that the index knows.
pub(super) fn nodes_of(ask: &Ask<'_>, identities: &[Identity]) -> Vec<NodeId> {
    let with = |parity: u8, x: &[u8]| {
        let mut bytes = [parity; 33];
        bytes.iter_mut().skip(1).zip(x).for_each(|(byte, from)| *byte = *from);
        NodeId(bytes)
    };
    let node = |identity: &Identity| {
        let x = hex::decode(&identity.subject).ok().filter(|x| identity.kind == "node" && x.len() == 32)?;
        let (even, odd) = (with(2, &x), with(3, &x));
        let odd_is_known = ask.plane.index.read(|book| query::node(book, &odd, ask.now).is_some());
        Some(if odd_is_known { odd } else { even })
    };
    identities.iter().filter_map(node).collect()
}

/// By what one signs in, and what this plane is.
pub(super) async fn settings(ask: &Ask<'_>) -> Result<Vec<Part>, Refusal> {
    let client = &ask.must()?.client;
    let rows = ask.plane.store.identities(&client.id).await?;
    let row = |identity: &Identity| {
        html! {
            tr { td { (identity.kind) } td { (identity.label) } td { code { (words::cut(&identity.subject)) "…" } } td { (words::time(identity.added)) } }
        }
    };
    let shown: Vec<Markup> = rows.iter().map(row).collect();
    let page = html! {
        dl.facts {
            dt { "Name" } dd { (client.name) }
            dt { "Account" } dd.wrap { code { (client.id.0) } }
            dt { "Since" } dd { (words::moment(client.created)) }
            @if client.admin { dt { "Role" } dd { "runs this plane" } }
        }
        h2 { "I sign in by" }
        (words::table(&["What", "Name", "Key", "Added"], &shown, "Nothing."))
        p.note { "Two are better than one: whoever loses all of them loses the account." }
        (ways(true))
        h2 { "This plane" }
        dl.facts {
            dt { "Address" } dd { (ask.plane.config.origin) }
            dt { "Network" } dd { (ask.plane.config.network) }
            dt { "Buys for clients" } dd { (if ask.plane.gateway.is_some() { "yes" } else { "no" }) }
            dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
        }
        form data-api="POST /api/v1/auth/logout" data-then="/" { button { "Sign out" } output {} }
    };
    Ok(vec![Part::fixed(page)])
}

/// The page on which somebody signs in.
pub(super) fn sign_in(ask: &Ask<'_>, next: &str) -> Vec<Part> {
    let page = html! {
        @if let Some(somebody) = ask.somebody {
            p { "You are signed in as " (somebody.client.name) ". " a href=(next) { "Go on" } }
        }
        p { "There are no passwords." }
        div #signin data-next=(next) { (ways(false)) }
        form.row data-key data-next=(next) {
            label { "Or with an API key that may do all" input name="key" type="password" required autocomplete="off" placeholder="sk-plane-…"; }
            button { "Sign in" }
            output {}
        }
        h2 { "In a terminal" }
        pre { code { "infernet login " (ask.plane.config.origin) } }
        p.note { "That signs in with the node's key, or with " code { "--key" } " an operator's, and gives the terminal a key for this plane." }
    };
    vec![Part::fixed(page)]
}

fn ways(more: bool) -> Markup {
    html! {
        div.row.ways {
            @if !more { button type="button" data-sign="passkey" { "Sign in with a passkey" } }
            button type="button" data-sign="register" { (if more { "Add a passkey" } else { "Make a passkey" }) }
            button type="button" data-sign="evm" { (if more { "Add an Ethereum wallet" } else { "Ethereum wallet" }) }
            button type="button" data-sign="solana" { (if more { "Add a Solana wallet" } else { "Solana wallet" }) }
            output {}
        }
    }
}
