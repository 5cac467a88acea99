//! Who the clients are: identities, keys, sessions, and the money that they may spend.
//!
//! | module | what |
//! |---|---|
//! | [`key`] | API keys: made, hashed, checked |
//! | [`session`] | browsers that have signed in |
//! | [`wallet`] | signing in by a wallet's signature, **pure** |
//! | [`passkey`] | signing in by a passkey, **pure** |
//!
//! A client has any number of identities, and no password. What it may spend is what its plane's operator has granted, or a
//! chain has brought, less what its jobs have cost; the store keeps the sum.

pub mod key;
pub mod passkey;
pub mod session;
pub mod signature;
pub mod wallet;

use crate::{
    http::{HttpConfig, error::Refusal},
    store::{ClientId, ClientRow, Entry, EntryKind, Identity, KeyRow, MAX_PAGE, Store},
};
use infernet_node::clock;
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use zeroize::Zeroizing;

/// Whoever comes without a key, where the plane's operator pays for that.
pub const ANONYMOUS: &str = "cl_anonymous";
/// The longest name of a client, key or identity.
pub const MAX_NAME: usize = 64;
/// Keys of one client that are not revoked: one for each of its programs.
pub const MAX_KEYS: usize = 64;
/// Keys of one client that are over and still shown, the newest: with the good ones on one page of the store's, so that whoever
/// makes and revokes many hides none.
const MAX_OVER: usize = 64;
/// Identities of one client: its devices and wallets.
pub const MAX_IDENTITIES: usize = 16;
/// The longest word that a grant is for.
const MAX_REFERENCE: usize = 128;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Ask for jobs, and read its client's.
    Jobs,
    /// Read its client's jobs.
    Read,
    /// Change its client's keys, and see its money.
    Manage,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Scope::Jobs, Scope::Read, Scope::Manage];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Jobs => "jobs",
            Scope::Read => "read",
            Scope::Manage => "manage",
        }
    }

    /// Whether a key with `scopes` may do this. Who may ask for jobs may read them.
    pub fn is_in(self, scopes: &[String]) -> bool {
        let has = |scope: Scope| scopes.iter().any(|name| name == scope.name());
        has(self) || self == Scope::Read && has(Scope::Jobs)
    }
}

/// `cl_` and 32 random hexadecimal digits.
fn new_id() -> ClientId {
    ClientId(format!("cl_{}", hex::encode(clock::random::<16>())))
}

/// A name that people will read: bounded, one line, not empty.
pub fn name(text: &str, or: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let kept = kept.trim();
    if kept.is_empty() { or.to_owned() } else { kept.to_owned() }
}

/// Makes a client that nobody can sign in as yet.
pub async fn new_client(store: &dyn Store, called: &str, admin: bool) -> Result<ClientRow, Refusal> {
    let row = ClientRow {
        id: new_id(),
        name: name(called, "client"),
        created: clock::now(),
        balance: MicroUsd(0),
        reserved: MicroUsd(0),
        admin,
    };
    store.put_client(&row).await?;
    Ok(row)
}

/// All clients.
pub async fn clients(store: &dyn Store) -> Result<Vec<ClientRow>, Refusal> {
    let mut all: Vec<ClientRow> = Vec::new();
    loop {
        let page = store.clients(all.last().map(|row| &row.id), MAX_PAGE).await?;
        let is_last = page.len() < MAX_PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// A way to sign in that was proven a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// As [`Identity::kind`].
    pub kind: &'static str,
    /// As [`Identity::subject`].
    pub subject: String,
    /// As [`Identity::data`].
    pub data: String,
    /// What to call it.
    pub label: String,
}

/// The client of a proven identity: its own; or the one signed in, to whom it is added; or a new one.
pub async fn sign_in(
    store: &dyn Store,
    config: &HttpConfig,
    proven: Proven,
    signed_in: Option<&ClientId>,
) -> Result<ClientRow, Refusal> {
    let admin = config.admins.iter().any(|known| *known == format!("{}:{}", proven.kind, proven.subject));
    let known = store.identity(proven.kind, &proven.subject).await?;
    if let Some(identity) = known {
        if signed_in.is_some_and(|client| *client != identity.client) {
            return Err(Refusal::conflict("this identity belongs to another client: sign out first"));
        }
        return raised(store, &identity.client, admin).await;
    }
    let client = match signed_in {
        Some(client) => {
            if store.identities(client).await?.len() >= MAX_IDENTITIES {
                return Err(Refusal::conflict(format!("a client has at most {MAX_IDENTITIES} identities")));
            }
            client.clone()
        }
        None if !config.sign_up && !admin => {
            return Err(Refusal::forbidden("forbidden", "this plane takes no new clients: ask who runs it"));
        }
        None => new_client(store, &proven.label, admin).await?.id,
    };
    let identity = Identity {
        kind: proven.kind.into(),
        subject: proven.subject,
        data: proven.data,
        client,
        label: name(&proven.label, proven.kind),
        added: clock::now(),
    };
    // Of two who come at once with the same new identity one is first, and both are its client.
    let owner = store.put_identity(&identity).await?;
    raised(store, &owner, admin).await
}

/// The client, an admin from now on if the configuration says so.
async fn raised(store: &dyn Store, id: &ClientId, admin: bool) -> Result<ClientRow, Refusal> {
    let row = store.client(id).await?.ok_or_else(|| Refusal::unauthorized("this identity's client is gone"))?;
    if admin && !row.admin {
        let row = ClientRow { admin, ..row };
        store.put_client(&row).await?;
        return Ok(row);
    }
    Ok(row)
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct KeyWish {
    /// For people.
    pub name: String,
    /// What it may do; empty: ask for jobs.
    pub scopes: Vec<String>,
    /// The most it may spend a day.
    pub per_day: Option<MicroUsd>,
    /// Requests a minute.
    pub per_minute: Option<u32>,
    /// When it is no longer good.
    pub expires: Option<UnixMillis>,
}

/// Makes a key; its text can't be shown again.
pub async fn new_key(store: &dyn Store, client: &ClientId, wish: KeyWish) -> Result<(Zeroizing<String>, KeyRow), Refusal> {
    let unknown = wish.scopes.iter().any(|name| Scope::ALL.iter().all(|scope| scope.name() != name));
    if unknown {
        return Err(Refusal::bad("scopes are jobs, read and manage"));
    }
    let now = clock::now();
    let rows = store.keys(client).await?.into_iter();
    let (live, over): (Vec<KeyRow>, Vec<KeyRow>) = rows.partition(|row| key::check(Some(row.clone()), now).is_ok());
    for old in over.iter().skip(MAX_OVER) {
        store.forget_key(old.hash).await?;
    }
    if live.len() >= MAX_KEYS {
        return Err(Refusal::conflict(format!("a client has at most {MAX_KEYS} keys: revoke some")));
    }
    let (text, row) = key::new(client, wish, now);
    store.put_key(&row).await?;
    Ok((text, row))
}

/// Gives `amount` to a client; the same `reference` counts once. Whether it was new.
pub async fn grant(store: &dyn Store, client: &ClientId, amount: MicroUsd, reference: &str) -> Result<bool, Refusal> {
    let signed = i64::try_from(amount.0).ok().filter(|amount| *amount > 0);
    let amount = signed.ok_or_else(|| Refusal::bad("the amount must be a whole number of micro-USD above 0"))?;
    if reference.is_empty() || reference.len() > MAX_REFERENCE {
        return Err(Refusal::bad(format!(
            "the reference must have 1 to {MAX_REFERENCE} bytes: it makes the same grant count once"
        )));
    }
    store.client(client).await?.ok_or_else(|| Refusal::not_found("client"))?;
    let entry = Entry {
        number: 0,
        client: client.clone(),
        kind: EntryKind::Grant,
        amount,
        reference: reference.into(),
        key: None,
        at: clock::now(),
    };
    Ok(store.add_entry(&entry).await?)
}

/// Makes the client of those who are nobody, if it is not there.
pub async fn ensure_anonymous(store: &dyn Store) -> Result<(), Refusal> {
    let id = ClientId(ANONYMOUS.into());
    if store.client(&id).await?.is_none() {
        let (balance, reserved) = (MicroUsd(0), MicroUsd(0));
        let row = ClientRow { id, name: "anonymous".into(), created: clock::now(), balance, reserved, admin: false };
        store.put_client(&row).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_for_jobs_may_read_them_and_no_more() {
        let scopes = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(Scope::Read.is_in(&scopes(&["jobs"])));
        assert!(!Scope::Jobs.is_in(&scopes(&["read"])));
        assert!(!Scope::Manage.is_in(&scopes(&["jobs", "read"])));
        assert!(Scope::Manage.is_in(&scopes(&["manage"])));
    }

    #[test]
    fn names_are_one_short_line() {
        assert_eq!(name(" my\nkey\u{7} ", "x"), "mykey");
        assert_eq!(name("\n", "x"), "x");
        assert_eq!(name(&"é".repeat(100), "x").chars().count(), MAX_NAME);
    }
}
