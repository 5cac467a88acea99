//! Browsers that have signed in: a cookie of 256 random bits, of which the store keeps a hash.

use crate::store::{ClientId, SessionRow};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash, time::UnixMillis};
use zeroize::Zeroizing;

/// How long a session lives: a month, so that a dashboard is not a nuisance.
pub const LIFE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// A new session of `client`, and the cookie's text.
pub fn new(client: &ClientId, until: UnixMillis) -> (Zeroizing<String>, SessionRow) {
    let text = Zeroizing::new(hex::encode(clock::random::<32>()));
    let row = SessionRow { hash: hash_of(&text), client: client.clone(), until };
    (text, row)
}

/// What the store knows a cookie by.
pub fn hash_of(cookie: &str) -> Hash {
    hash::tagged("infernet/session/1", &[cookie.as_bytes()])
}

/// What a page of ours shows beside the cookie: known to whoever can read answers, which pages of others can't.
pub fn csrf(cookie: &str) -> String {
    hash::tagged("infernet/csrf/1", &[cookie.as_bytes()]).to_string()
}

/// Whether `token` is the one beside `cookie`. Looks at every byte, whatever the first ones say.
pub fn is_csrf(cookie: &str, token: &str) -> bool {
    let expected = csrf(cookie);
    expected.len() == token.len() && expected.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The cookie's name: one that browsers accept from this host alone, where there is TLS.
pub fn cookie_name(origin: &str) -> &'static str {
    if origin.starts_with("https://") { "__Host-infernet" } else { "infernet" }
}

/// The header that gives a browser its cookie, or with no text takes it away.
pub fn set_cookie(origin: &str, text: Option<&str>) -> String {
    let (name, seconds) = (cookie_name(origin), if text.is_some() { LIFE_MS / 1_000 } else { 0 });
    let secure = if origin.starts_with("https://") { "; Secure" } else { "" };
    format!("{name}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_beside_a_cookie_is_its_own() {
        let (text, row) = new(&ClientId("cl_x".into()), UnixMillis(1));
        assert_eq!(row.hash, hash_of(&text));
        assert!(is_csrf(&text, &csrf(&text)));
        assert!(!is_csrf(&text, &csrf("another")) && !is_csrf(&text, "") && !is_csrf(&text, &text));
    }

    #[test]
    fn cookies_are_for_this_host_and_no_script() {
        let set = set_cookie("https://plane.example", Some("abc"));
        assert!(set.starts_with("__Host-infernet=abc; Path=/; HttpOnly; SameSite=Lax") && set.ends_with("; Secure"), "{set}");
        assert!(set_cookie("http://127.0.0.1", None).contains("infernet=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"));
    }
}
