//! The door: every request passes it, whatever its route.
//!
//! 1. **Name.** `Host` must be a name of this plane, so that no page can reach it under a name of its own (DNS rebinding).
//! 2. **Page.** An `Origin`, which browsers send, must be the plane's own or one that is configured; there is no wildcard, and
//!    pages of other origins never get cookies. They may only show keys.
//! 3. **Turns.** So many requests a minute for each address, and for each key as many as it may; the answer tells what is left
//!    (`X-RateLimit-*`). Addresses are counted in memory, keys in the store, too, so that a restart gives nobody a fresh start.
//! 4. **Who.** Key or cookie are looked up once ([`super::caller`]); routes that need somebody ask for it.
//! 5. **Answer.** Headers that keep browsers from doing what a page did not mean.
//!
//! `X-Forwarded-For` counts only from a configured proxy, and then only its last address that is no proxy.

use super::{
    caller::{self, By, Known},
    error::Refusal,
};
use crate::state::Plane;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use infernet_node::{api::access::Doors, clock};
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// Requests a minute from one address: a page with its parts, or a busy program; a household or office shares one.
const PER_MINUTE: u32 = 600;
/// Sign-ins and other things that make something out of nothing, from one address, a minute.
const SIGN_INS_PER_MINUTE: u32 = 20;
/// Nodes a minute that were never here, from all addresses: a network of thousands is here within the hour when a plane begins
/// anew, and keys that somebody makes up by the million are some hundred thousand rows until they are forgotten, a day later.
const NEW_NODES_PER_MINUTE: u32 = 240;
/// Where nodes and daemons speak, which sign every request.
const NODES: &str = "/api/v1/node/";
/// How many times a page's turns they have: a daemon sends what it has of an answer four times a second, and some share an address.
const NODE_TURNS: u32 = 10;
/// Addresses and keys that are counted at once. An attacker with more addresses shares one count with all whom it displaces.
const MAX_COUNTED: usize = 65_536;
/// A turn's window.
const MINUTE_MS: u64 = 60_000;
/// Hops of `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 16;
/// How long a browser may believe a preflight.
const PREFLIGHT_SECONDS: &str = "600";
/// What pages of configured origins may send.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id, x-csrf-token";
/// What they may read of an answer.
const EXPOSED_HEADERS: &str = "retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset";
/// Pages load nothing from elsewhere, run no script in the page itself, and are in nobody's frame.
const CSP: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Who is let in, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// More names that the plane is asked for by, besides its origin's.
    pub hosts: Vec<String>,
    /// Pages of these origins may use the API, with a key.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
    /// Requests a minute for each address.
    pub per_minute: u32,
    /// Sign-ins a minute for each address.
    pub sign_ins_per_minute: u32,
    /// Whether whoever signs in becomes a client.
    pub sign_up: bool,
    /// Who runs the plane, as `kind:subject` of an [`Identity`](crate::store::Identity).
    pub admins: Vec<String>,
    /// What each address may spend a day without being anybody, of the balance of `cl_anonymous`; `None`: nothing.
    pub anonymous_per_day: Option<MicroUsd>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            hosts: Vec::new(),
            origins: Vec::new(),
            proxies: Vec::new(),
            per_minute: PER_MINUTE,
            sign_ins_per_minute: SIGN_INS_PER_MINUTE,
            sign_up: true,
            admins: Vec::new(),
            anonymous_per_day: None,
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From(pub IpAddr);

impl From {
    /// What is counted: one IPv4 address, or the network that an IPv6 customer is given.
    pub fn counted(self) -> String {
        match self.0 {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => ip.to_string(),
                None => {
                    let bits = ip.to_bits() >> 64 << 64;
                    format!("{}/64", Ipv6Addr::from_bits(bits))
                }
            },
        }
    }
}

/// What the door knows. One for each router.
pub(super) struct Door {
    plane: Plane,
    doors: Doors,
    own: String,
    turns: Arc<Turns>,
}

impl Door {
    pub(super) fn new(plane: Plane, turns: Arc<Turns>) -> Self {
        let config = &plane.config;
        let own = config.origin.to_ascii_lowercase();
        let mut hosts = config.http.hosts.clone();
        hosts.extend(host_of(&own).map(str::to_owned));
        let mut origins = config.http.origins.clone();
        origins.push(own.clone());
        // An address counts as a name only if it is a loopback one or configured.
        let doors = Doors::new((Ipv4Addr::LOCALHOST, 0).into(), &hosts, &origins);
        Door { doors, own, turns, plane }
    }
}

/// The host in an origin, without its port.
pub(crate) fn host_of(origin: &str) -> Option<&str> {
    let (_, rest) = origin.split_once("://")?;
    let rest = rest.split('/').next()?;
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => rest.split(':').next(),
    }
    .filter(|host| !host.is_empty())
}

/// Lets a request in, or not.
pub(super) async fn enter(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_https = door.own.starts_with("https://");
    let foreign = foreign_origin(&door, request.headers());
    let mut response = match admitted(&door, request, &path).await {
        Ok((request, shown)) => {
            let mut response = next.run(request).await;
            shown.write(response.headers_mut());
            response
        }
        Err(denied) => *denied,
    };
    if let Some(origin) = foreign {
        cors(response.headers_mut(), origin);
    }
    secure(response.headers_mut(), &path, is_https);
    response
}

/// The request with what is known of its sender, and what is left of its turns.
async fn admitted(door: &Door, mut request: Request, path: &str) -> Result<(Request, Left), Box<Response>> {
    let denied = |refusal: Refusal| Box::new(refusal.shaped_for(path));
    if !super::jobs::is_text(path) {
        return Err(denied(Refusal::bad("the path holds what is no UTF-8: escape its bytes as that")));
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let admitted = door.doors.admit(request.headers(), authority);
    // The node's words, where they name a setting that has another name here.
    let told = |message: String| message.replace("api_hosts", "hosts").replace("api_origins", "origins");
    admitted.map_err(|error| denied(Refusal::forbidden(error.code, told(error.message))))?;
    if request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return Err(Box::new(StatusCode::NO_CONTENT.into_response()));
    }
    let from = From(address(&request, &door.plane.config.http.proxies));
    let now = clock::now();
    let most = door.plane.config.http.per_minute;
    let left = if path.starts_with(NODES) {
        door.turns.take(&format!("node-ip:{}", from.counted()), most.saturating_mul(NODE_TURNS), now)
    } else {
        door.turns.take(&format!("ip:{}", from.counted()), most, now)
    };
    let left = left.map_err(|left| Box::new(left.refused(path)))?;
    let known = caller::look_up(&door.plane, request.headers(), now).await;
    let left = match &known {
        Known::Somebody(somebody) => match &somebody.by {
            By::Key(key) => {
                let who = format!("key:{}", key.hash);
                let left = door.turns.take(&who, key.per_minute, now).map_err(|left| Box::new(left.refused(path)))?;
                let passes = door.plane.store.take_turn(&who, key.per_minute, now).await.map_err(|e| denied(e.into()))?;
                if !passes {
                    return Err(Box::new(Left { remaining: 0, ..left }.refused(path)));
                }
                if key.used.is_none_or(|used| now.since(used) >= MINUTE_MS) {
                    door.plane.store.touch_key(key.hash, now).await.map_err(|error| denied(error.into()))?;
                }
                left
            }
            By::Session(..) => left,
        },
        _ => left,
    };
    request.extensions_mut().insert(from);
    request.extensions_mut().insert(known);
    request.extensions_mut().insert(door.turns.clone());
    Ok((request, left))
}

/// A turn of what makes something out of nothing.
pub(super) fn sign_in_turn(plane: &Plane, turns: &Turns, from: From) -> Result<(), Refusal> {
    let most = plane.config.http.sign_ins_per_minute;
    turns.take(&format!("sign-in:{}", from.counted()), most, clock::now()).map(drop).map_err(|left| left.refusal())
}

/// A turn of a node that was never here: of its address, and of all that come to this instance.
pub(super) fn new_node_turn(plane: &Plane, turns: &Turns, from: From) -> Result<(), Refusal> {
    sign_in_turn(plane, turns, from)?;
    turns.take("new-node", NEW_NODES_PER_MINUTE, clock::now()).map(drop).map_err(|left| left.refusal())
}

/// The address that a request comes from: the connection's, or the one that a trusted proxy names.
fn address(request: &Request, proxies: &[IpAddr]) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if proxies.contains(&peer.to_canonical()) { forwarded(request.headers(), proxies).unwrap_or(peer) } else { peer }
}

/// The last address of `X-Forwarded-For` that is no proxy of ours: those before it are the client's own words.
fn forwarded(headers: &HeaderMap, proxies: &[IpAddr]) -> Option<IpAddr> {
    let all: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut hops = all.iter().rev().flat_map(|value| value.rsplit(',')).take(MAX_HOPS);
    // What is no address breaks the chain: nobody may hide behind it.
    hops.find_map(|hop| match hop.trim().parse::<IpAddr>() {
        Ok(ip) if proxies.contains(&ip.to_canonical()) => None,
        Ok(ip) => Some(Some(ip)),
        Err(_) => Some(None),
    })
    .flatten()
}

fn foreign_origin(door: &Door, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    let configured = door.plane.config.http.origins.iter().any(|known| known.trim_end_matches('/').eq_ignore_ascii_case(&text));
    (configured && text != door.own).then(|| origin.clone())
}

fn cors(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let said = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    for (name, value) in said {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn secure(headers: &mut HeaderMap, path: &str, is_https: bool) {
    let always: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in always {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if path.starts_with("/api/") || path.starts_with("/v1/") {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if is_https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

/// What is left of somebody's minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    limit: u32,
    remaining: u32,
    /// When the next minute begins, in seconds from now.
    reset: u64,
}

impl Left {
    fn write(self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("x-ratelimit-limit"), self.limit.into());
        headers.insert(HeaderName::from_static("x-ratelimit-remaining"), self.remaining.into());
        headers.insert(HeaderName::from_static("x-ratelimit-reset"), self.reset.into());
    }

    fn refusal(self) -> Refusal {
        let text = format!("more than {} requests in a minute: wait {} s", self.limit, self.reset);
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text);
        Refusal { retry_after: Some(self.reset), ..refusal }
    }

    fn refused(self, path: &str) -> Response {
        let mut response = self.refusal().shaped_for(path);
        self.write(response.headers_mut());
        response
    }
}

/// Requests of the running minute, by who sends them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    counts: Mutex<HashMap<String, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    minute: u64,
    used: u32,
}

impl Turns {
    /// One more turn of `who`: what is left then, or, if nothing was, when there is.
    pub(super) fn take(&self, who: &str, most: u32, now: UnixMillis) -> Result<Left, Left> {
        let minute = now.0 / MINUTE_MS;
        // Nothing in here panics while it holds the lock.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_COUNTED && !counts.contains_key(who) {
            counts.retain(|_, window| window.minute == minute);
        }
        // Whoever comes when all places are taken shares one with all who do.
        let who = if counts.len() >= MAX_COUNTED && !counts.contains_key(who) { "" } else { who };
        let window = counts.entry(who.to_owned()).or_insert(Window { minute, used: 0 });
        if window.minute != minute {
            *window = Window { minute, used: 0 };
        }
        let reset = (MINUTE_MS - now.0 % MINUTE_MS).div_ceil(1_000);
        if window.used >= most {
            return Err(Left { limit: most, remaining: 0, reset });
        }
        window.used += 1;
        Ok(Left { limit: most, remaining: most - window.used, reset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: &str, forwarded: &[&str]) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        for value in forwarded {
            request.headers_mut().append("x-forwarded-for", value.parse().unwrap());
        }
        request
    }

    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let proxies = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!(address(&request(peer, forwarded), &proxies).to_string(), expected, "{peer} {forwarded:?}");
    }

    #[test]
    fn forwarded_addresses_count_from_a_proxy_of_ours_alone() {
        check("192.0.2.9", &["1.1.1.1"], "192.0.2.9");
        check("10.0.0.1", &["1.1.1.1"], "1.1.1.1");
        check("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1");
        check("10.0.0.1", &["6.6.6.6", "1.1.1.1"], "1.1.1.1");
        check("10.0.0.1", &["1.1.1.1, nonsense"], "10.0.0.1");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn a_minute_has_its_turns_and_the_next_has_new_ones() {
        let turns = Turns::default();
        let at = |second: u64| UnixMillis(600_000 + second * 1_000);
        assert_eq!(turns.take("a", 2, at(10)), Ok(Left { limit: 2, remaining: 1, reset: 50 }));
        assert_eq!(turns.take("a", 2, at(20)), Ok(Left { limit: 2, remaining: 0, reset: 40 }));
        assert_eq!(turns.take("a", 2, at(59)), Err(Left { limit: 2, remaining: 0, reset: 1 }));
        assert_eq!(turns.take("b", 2, at(59)).map(|left| left.remaining), Ok(1), "others have their own");
        assert_eq!(turns.take("a", 2, at(60)).map(|left| left.remaining), Ok(1));
    }

    #[test]
    fn counts_are_bounded_and_latecomers_share_one() {
        let turns = Turns::default();
        for n in 0..MAX_COUNTED {
            turns.take(&n.to_string(), 1, UnixMillis(0)).unwrap();
        }
        assert!(turns.take("x", 1, UnixMillis(1)).is_ok());
        assert!(turns.take("y", 1, UnixMillis(1)).is_err(), "they share one place");
        assert!(turns.counts.lock().unwrap().len() <= MAX_COUNTED + 1);
        assert!(turns.take("y", 1, UnixMillis(MINUTE_MS)).is_ok(), "the next minute has room");
    }

    #[test]
    fn networks_of_ipv6_count_as_one() {
        let counted = |ip: &str| From(ip.parse().unwrap()).counted();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), counted("2001:db8:1:2::9"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn an_origin_has_a_host() {
        for (origin, host) in
            [("https://a.example", "a.example"), ("http://127.0.0.1:80", "127.0.0.1"), ("https://[::1]:1", "::1")]
        {
            assert_eq!(host_of(origin), Some(host));
        }
        assert_eq!(host_of("nonsense"), None);
    }
}
