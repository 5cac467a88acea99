//! A page's address, as URL and as multiaddr, and its fetch: one GET with a deadline and a bound, no redirects, no proxy.

use super::Document;
use crate::{
    backend::{Guarded, address, refused_host},
    cause,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde::Deserialize;
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};
use tokio::time::timeout;

/// What a relay serves.
const PATH: &str = "/bootstrap.json";
/// The longest path of a page.
const MAX_PATH_BYTES: usize = 256;
/// To accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// From request to the end of the answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest page that is read: sixteen peers with eight addresses each are some ten kilobytes.
const MAX_PAGE_BYTES: usize = 64 * 1024;
const FIX: &str = "write a multiaddr, such as /dns4/example.org/tcp/46337/p2p/16Uiu2H..., or a relay's page, such as http://example.org:46382/bootstrap.json";

/// Where to begin: a peer's multiaddr, or the URL of a page that names peers. The URL is kept as a multiaddr, too:
/// `/dns/example.org/tcp/46382/http/http-path/bootstrap.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BootstrapAddress(Multiaddr);

impl From<BootstrapAddress> for Multiaddr {
    fn from(address: BootstrapAddress) -> Multiaddr {
        address.0
    }
}

impl From<Multiaddr> for BootstrapAddress {
    fn from(address: Multiaddr) -> Self {
        BootstrapAddress(address)
    }
}

impl TryFrom<String> for BootstrapAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for BootstrapAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = Url::parse(text).map_err(|_| FIX.to_owned())?;
            return page_address(&url).map(BootstrapAddress);
        }
        let address: Multiaddr = text.parse().map_err(|_| FIX.to_owned())?;
        if address.is_empty() {
            return Err(FIX.into());
        }
        match is_page(&address).then(|| url(&address)) {
            // Both ways to write it are held to the same rules.
            Some(url) => page_address(&url.ok_or(FIX)?).map(BootstrapAddress),
            None => Ok(BootstrapAddress(address)),
        }
    }
}

/// As an operator writes it.
impl fmt::Display for BootstrapAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match url(&self.0) {
            Some(url) => url.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// Whether it is a page's and no peer's.
pub(crate) fn is_page(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Http | Protocol::Https))
}

/// Whether TLS is spoken there.
pub(super) fn is_encrypted(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::Https)
}

fn page_address(url: &Url) -> Result<Multiaddr, String> {
    let host = url.host_str().ok_or(FIX)?.trim_matches(['[', ']']);
    let ip: Option<IpAddr> = host.parse().ok();
    if ip.map_or_else(|| address::is_metadata_name(host), address::tells_secrets) {
        return Err(format!("{host} is a link-local or metadata address, where clouds tell secrets: no relay is there"));
    }
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(FIX)?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("a page's URL has no name, password, query or fragment: leave them out".into());
    }
    let path = if url.path() == "/" { PATH } else { url.path() };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    if path.len() > MAX_PATH_BYTES || !path.bytes().all(is_plain) {
        return Err(format!("a page's path has only letters, digits and /._-~, and {MAX_PATH_BYTES} bytes at most"));
    }
    let host = ip.map_or_else(|| Protocol::Dns(Cow::Borrowed(host)), Protocol::from);
    let scheme = if url.scheme() == "https" { Protocol::Https } else { Protocol::Http };
    let address = Multiaddr::empty().with(host).with(Protocol::Tcp(port)).with(scheme);
    Ok(address.with(Protocol::HttpPath(Cow::Borrowed(path.trim_start_matches('/')))))
}

fn url(address: &Multiaddr) -> Option<Url> {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let (host, port, scheme, path) = match parts.as_slice() {
        [host, Protocol::Tcp(port), scheme] => (host, port, scheme, ""),
        [host, Protocol::Tcp(port), scheme, Protocol::HttpPath(path)] => (host, port, scheme, path.as_ref()),
        _ => return None,
    };
    let host = match host {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => format!("[{ip}]"),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.to_string(),
        _ => return None,
    };
    let scheme = match scheme {
        Protocol::Http => "http",
        Protocol::Https => "https",
        _ => return None,
    };
    Url::parse(&format!("{scheme}://{host}:{port}/{path}")).ok()
}

/// A page could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    #[error("can't use TLS here: {0}")]
    Client(String),
    #[error("{0} is no page's address: {FIX}")]
    Address(String),
    #[error("{url} can't be reached: {reason}; is the address right, and does the relay run?")]
    Unreachable { url: String, reason: String },
    #[error("{url} did not answer within {} s", ANSWER.as_secs())]
    Silent { url: String },
    #[error("{url} answers {status}: {fix}")]
    Status { url: String, status: u16, fix: &'static str },
    #[error("{url} is longer than {MAX_PAGE_BYTES} bytes, as no page of a relay is")]
    TooLong { url: String },
    #[error("{url} is not a relay's bootstrap.json; is the address right?")]
    Malformed { url: String },
}

impl PageError {
    /// What to do about it.
    pub(super) fn fix(&self) -> &'static str {
        match self {
            PageError::Client(_) => "install the CA certificates of your system, such as the package ca-certificates",
            PageError::Unreachable { .. } | PageError::Silent { .. } => {
                "start that relay, open its TCP 46382, or name another in config.toml"
            }
            PageError::Status { fix, .. } => fix,
            PageError::Address(_) | PageError::TooLong { .. } | PageError::Malformed { .. } => {
                "name a relay's page, such as http://relay.example:46382/bootstrap.json"
            }
        }
    }
}

/// What was told, and by whom.
pub(super) struct Fetched {
    pub(super) document: Document,
    pub(super) from: IpAddr,
}

/// Asks pages.
pub(super) struct Fetcher(Client);

impl Fetcher {
    /// `encrypted` if any page is.
    pub(super) fn new(encrypted: bool) -> Result<Self, PageError> {
        let builder = Client::builder()
            // Whom the operator named is asked, and nobody else.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .dns_resolver(Guarded)
            .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")));
        // A host without CA certificates can still reach a page on its own network.
        let builder = if encrypted { builder } else { builder.tls_certs_only([]) };
        builder.build().map(Fetcher).map_err(|error| PageError::Client(cause::root(&error)))
    }

    /// The page at `address`.
    pub(super) async fn fetch(&self, address: &Multiaddr) -> Result<Fetched, PageError> {
        let url = url(address).ok_or_else(|| PageError::Address(address.to_string()))?;
        let silent = || PageError::Silent { url: url.to_string() };
        timeout(ANSWER, self.read(&url)).await.map_err(|_| silent())?
    }

    async fn read(&self, at: &Url) -> Result<Fetched, PageError> {
        let url = at.to_string();
        let unreachable = |error: &reqwest::Error| PageError::Unreachable { url: url.clone(), reason: reason(error) };
        let mut response = self.0.get(at.clone()).send().await.map_err(|error| unreachable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(refused(url, response.status()));
        }
        // A page that came from nowhere may name only what the whole internet reaches.
        let from = response.remote_addr().map_or(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), |from| from.ip());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + piece.len() > MAX_PAGE_BYTES {
                return Err(PageError::TooLong { url });
            }
            body.extend_from_slice(&piece);
        }
        let document = serde_json::from_slice(&body).map_err(|_| PageError::Malformed { url })?;
        Ok(Fetched { document, from })
    }
}

fn refused(url: String, status: StatusCode) -> PageError {
    let fix = match status.as_u16() {
        300..=399 => "it is somewhere else, name that address",
        404 => "no relay's page is there, check the path",
        503 => "the relay is about to stop, name another one, too",
        _ => "name another relay",
    };
    PageError::Status { url, status: status.as_u16(), fix }
}

fn reason(error: &reqwest::Error) -> String {
    match refused_host(error) {
        Some(host) => format!("{host} is a link-local or metadata address"),
        None => cause::root(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_url_is_kept_as_a_multiaddr_and_shown_as_a_url() {
        let check = |text: &str, kept: &str, shown: &str| {
            let address: BootstrapAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((address.0.to_string().as_str(), address.to_string().as_str()), (kept, shown));
            assert_eq!(kept.parse(), Ok(address), "the multiaddr means the same");
        };
        let kept = "/ip4/127.0.0.1/tcp/46382/http/http-path/bootstrap.json";
        check("http://127.0.0.1:46382", kept, "http://127.0.0.1:46382/bootstrap.json");
        check("http://127.0.0.1:46382/bootstrap.json", kept, "http://127.0.0.1:46382/bootstrap.json");
        let kept = "/dns/relay.example/tcp/443/https/http-path/a%2Fb.json";
        check("https://Relay.example/a/b.json", kept, "https://relay.example/a/b.json");
        let kept = "/ip6/2001:db8::1/tcp/80/http/http-path/bootstrap.json";
        check("http://[2001:db8::1]", kept, "http://[2001:db8::1]/bootstrap.json");
        check("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1");
    }

    /// What a server that answers every request with `answer` is to us.
    async fn fetched(answer: String) -> Result<Fetched, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse::<BootstrapAddress>().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        Fetcher::new(false).unwrap().fetch(&address.0).await.map_err(|error| error.to_string())
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn what_a_page_answers_is_bounded_and_followed_nowhere() {
        let page = r#"{"version":1,"network":"n","protocol_id":"p","peers":[{"id":"i","addrs":["a"],"more":1}],"more":1}"#;
        let Fetched { document, from } = fetched(answer("200 OK", page)).await.unwrap();
        assert_eq!((document.peers.len(), from), (1, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        for (answer, words) in [
            (answer("302 Found\r\nlocation: http://127.0.0.1:1/", ""), "somewhere else"),
            (answer("404 Not Found", ""), "check the path"),
            (answer("503 Service Unavailable", ""), "about to stop"),
            (answer("200 OK", "{}"), "not a relay's bootstrap.json"),
            (answer("200 OK", &"x".repeat(MAX_PAGE_BYTES + 1)), "longer than 65536 bytes"),
            (String::new(), "can't be reached"),
        ] {
            let said = fetched(answer).await.map(|_| ()).expect_err(words);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_is_no_place_to_begin_is_refused_with_the_fix() {
        let check = |text: &str, words: &str| {
            let said = text.parse::<BootstrapAddress>().expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        };
        for text in ["example.org", "", "ftp://a/", "http://", "http://a:0/"] {
            check(text, "write a multiaddr");
        }
        for text in ["http://169.254.169.254/", "http://[fe80::1]/", "http://metadata.google.internal", "http://2852039166/"] {
            check(text, "link-local or metadata");
        }
        check("/ip4/169.254.169.254/tcp/80/http", "link-local or metadata");
        for text in ["http://u:p@a/", "http://a/?b", "http://a/#b"] {
            check(text, "leave them out");
        }
        check("http://a/%00", "only letters");
        check(&format!("http://a/{}", "x".repeat(300)), "256 bytes");
    }
}
