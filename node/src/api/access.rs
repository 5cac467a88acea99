//! Who may ask: by which name, from which page, with which key. Pure.
//!
//! A page in a browser can send requests to loopback, and a hostile name server can make a page's own name mean 127.0.0.1. So
//! the `Host` must be a name of this endpoint, and an `Origin`, which only browsers send, one that the operator allowed.

use super::error::ApiError;
use crate::spend::{ALL, Caps};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// What a page may send, besides what all may.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, x-infernet-max-price, x-infernet-budget, \
     x-infernet-rule, x-infernet-wait, x-infernet-path";
/// How long a browser may believe a preflight: ten minutes, which is the most that Chromium takes twelve times over.
const PREFLIGHT_SECONDS: &str = "600";

/// Who asks, and what that key may spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The API key's name; [`ALL`] for whoever needs none.
    pub key: String,
    /// Its caps, besides the node's.
    pub caps: Caps,
}

impl Caller {
    /// The operator of this node: nobody's caps but the node's.
    pub fn operator() -> Self {
        Caller { key: ALL.into(), caps: Caps::default() }
    }
}

/// The names and pages that are let in.
#[derive(Debug, Clone)]
pub struct Doors {
    listen: SocketAddr,
    hosts: BTreeSet<String>,
    origins: BTreeSet<String>,
}

impl Doors {
    /// An endpoint that listens at `listen` and is asked for by `hosts`, too, from pages of `origins`.
    pub fn new(listen: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.trim_end_matches('/').to_ascii_lowercase()).collect();
        Doors { listen, hosts: lower(hosts), origins: lower(origins) }
    }

    /// Whether a request with these headers comes in; with the origin that the answer must name.
    pub fn admit(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<Option<HeaderValue>, ApiError> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(authority).unwrap_or_default();
        if !self.is_ours(host) {
            let shown = host.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
            let fix = "ask for it by its address, or put the name into api_hosts";
            return Err(ApiError::forbidden("unknown_host", format!("this endpoint is not called {shown:?}: {fix}")));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
        let known = origin.to_str().is_ok_and(|origin| self.origins.contains(&origin.to_ascii_lowercase()));
        let fix = "pages of that origin may not use this endpoint: put it into api_origins if they should";
        if known { Ok(Some(origin.clone())) } else { Err(ApiError::forbidden("unknown_origin", fix)) }
    }

    /// Any port is fine: names are what can be forged. An IP address can't be, since a browser puts there what it dialled.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let listens_at = |ip: IpAddr| {
            ip.is_loopback() || ip == self.listen.ip() || (self.listen.ip().is_unspecified() && !ip.is_unspecified())
        };
        name == "localhost" || self.hosts.contains(&name) || self.hosts.contains(host) || name.parse().is_ok_and(listens_at)
    }
}

/// `[::1]:80` is `::1`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, _)) => ip,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// The key in `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Whether a browser asks if it may ask.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What tells a browser that pages of `origin` may read the answer.
pub(super) fn cors(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let said: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    for (name, value) in said.into_iter().filter(|_| preflight) {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, host: &str, origin: Option<&str>, expected: Result<bool, &str>) {
        let hosts = ["gpu.lan".to_owned()];
        let origins = ["https://chat.example.org".to_owned()];
        let doors = Doors::new(listen.parse().unwrap(), &hosts, &origins);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let admitted = doors.admit(&headers, None);
        assert_eq!(admitted.map(|origin| origin.is_some()).map_err(|error| error.code), expected, "{host} {origin:?}");
    }

    #[test]
    fn names_of_the_endpoint_come_in_and_others_do_not() {
        let listen = "127.0.0.1:46339";
        for host in ["localhost:46339", "LOCALHOST", "127.0.0.1:1", "[::1]:46339", "gpu.lan", "GPU.lan:80"] {
            check(listen, host, None, Ok(false));
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.1", ""] {
            check(listen, host, None, Err("unknown_host"));
        }
        check("192.0.2.1:80", "192.0.2.1", None, Ok(false));
        check("0.0.0.0:80", "192.0.2.7:80", None, Ok(false));
        check("0.0.0.0:80", "evil.example", None, Err("unknown_host"));
    }

    #[test]
    fn pages_need_to_be_allowed() {
        let listen = "127.0.0.1:46339";
        check(listen, "localhost", Some("https://chat.example.org"), Ok(true));
        for origin in ["https://evil.example", "null", "http://localhost:46339", "https://chat.example.org.evil"] {
            check(listen, "localhost", Some(origin), Err("unknown_origin"));
        }
    }

    #[test]
    fn bearers_are_read() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), expected, "{value}");
        }
    }
}
