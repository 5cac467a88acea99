//! From a URL to connections: who, where, with which TLS.

use super::super::StoreError;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName, pki_types::pem::PemObject};
use rustls_platform_verifier::BuilderVerifierExt;
use std::{
    fmt,
    future::Future,
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};

/// Connections of one instance: a small Supabase database has 60 in all, and no call holds one for long.
const MAX_CONNECTIONS: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the server is told to do with each connection. Its deadline is a little less than ours, so that it says what it was.
const SETTINGS: &str = "set search_path = infernet; set statement_timeout = '9s'; set lock_timeout = '8s'; \
     set idle_in_transaction_session_timeout = '30s'";

/// How long nothing may be heard of a server that has nothing to say, and how it is asked then. The kernel's own defaults are
/// two hours.
const SILENCE: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 3;
/// How long what was sent may go without a sign that it came: then the connection is broken, as a call that waits is told.
const UNHEARD: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// Whether the call that runs was given up, and is being dropped.
    static GIVEN_UP: Arc<AtomicBool>;
}

/// Waits for `work` no longer than `wait`. Connections that it has at that time are closed.
pub(super) async fn within<T>(wait: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let given_up = Arc::new(AtomicBool::new(false));
    // What is dropped in the scope can ask.
    let mut work = Box::pin(GIVEN_UP.scope(given_up.clone(), work));
    match tokio::time::timeout(wait, &mut work).await {
        Ok(told) => told,
        Err(_) => {
            given_up.store(true, Ordering::Relaxed);
            Err(StoreError::Timeout(wait.as_millis() as u64))
        }
    }
}

/// Connections, opened when they are needed.
pub(super) struct Connections(Pool);

impl Connections {
    /// One of them, given back when it is dropped.
    pub(super) async fn lend(&self) -> Result<Lent, StoreError> {
        Ok(Lent(Some(self.0.get().await?)))
    }

    /// Statements are prepared anew, on all of them.
    pub(super) fn forget_statements(&self) {
        self.0.manager().statement_caches.clear();
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.status().size
    }
}

/// A connection that goes back to the others, unless its call was given up: then a statement may still be under way on it, or it
/// leads nowhere.
pub(super) struct Lent(Option<Object>);

impl Deref for Lent {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Object {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_given_up = GIVEN_UP.try_with(|given_up| given_up.load(Ordering::Relaxed)).unwrap_or_default();
        if let Some(object) = self.0.take().filter(|_| is_given_up) {
            drop(Object::take(object));
        }
    }
}

/// Where a database is. Shown without its password.
#[derive(Clone)]
pub(super) struct Target {
    config: Config,
    tls: Tls,
}

impl Target {
    /// Reads a URL. What is wrong with it is told without quoting it: it holds a password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let refused = |what: &str| StoreError::Refused(format!("--store {what}"));
        let (url, options) = split_options(url);
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            refused(&format!("is not a URL such as postgres://user:password@host:5432/database: {cause}"))
        })?;
        if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(refused("needs user, host and database: postgres://user:password@host:5432/database"));
        }
        let is_near = config.get_hosts().iter().all(is_near);
        let mode = match options.mode.as_deref() {
            Some("disable") => SslMode::Disable,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            None if is_near && options.roots.is_none() => SslMode::Disable,
            None => SslMode::Require,
            Some(_) => return Err(refused("has an sslmode other than disable, require and verify-full")),
        };
        config.ssl_mode(mode).connect_timeout(CONNECT_TIMEOUT).application_name("infernet-plane");
        config.keepalives(true).keepalives_idle(SILENCE).keepalives_interval(ASK_AGAIN).keepalives_retries(ASK_TIMES);
        config.tcp_user_timeout(UNHEARD);
        let tls = Tls::new(options.roots.as_deref())?;
        Ok(Target { config, tls })
    }

    /// Connections to it, opened when they are needed.
    pub(super) fn connections(&self) -> Result<Connections, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let settle = Hook::async_fn(|connection: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move { connection.batch_execute(SETTINGS).await.map_err(HookError::Backend) })
        });
        Pool::builder(manager)
            .max_size(MAX_CONNECTIONS)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .post_create(settle)
            .build()
            .map(Connections)
            .map_err(|error| StoreError::Refused(error.to_string()))
    }

    /// One connection apart from the pool, and what drives it.
    pub(super) async fn connect(
        &self,
    ) -> Result<
        (tokio_postgres::Client, tokio_postgres::Connection<tokio_postgres::Socket, Stream<tokio_postgres::Socket>>),
        StoreError,
    > {
        Ok(self.config.connect(self.tls.clone()).await?)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host).collect();
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        write!(f, "{} at {}:{port}", self.config.get_dbname().unwrap_or("?"), hosts.join(","))
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Whether nobody is in between.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// What of libpq's options the driver does not know.
#[derive(Default)]
struct Options {
    mode: Option<String>,
    roots: Option<String>,
}

fn split_options(url: &str) -> (String, Options) {
    let mut options = Options::default();
    let Some((base, query)) = url.split_once('?') else { return (url.into(), options) };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => options.mode = Some(mode.into()),
            Some(("sslrootcert", path)) => options.roots = Some(path.replace("%2F", "/").replace("%20", " ")),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.into() } else { format!("{base}?{}", rest.join("&")) };
    (url, options)
}

/// TLS by rustls.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    fn new(roots: Option<&str>) -> Result<Self, StoreError> {
        let refused = |error: &dyn fmt::Display| StoreError::Refused(format!("TLS to the store: {error}"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| refused(&error))?;
        let builder = match roots {
            Some(path) => builder.with_root_certificates(read_roots(path)?),
            None => builder.with_platform_verifier().map_err(|error| refused(&error))?,
        };
        Ok(Tls(Arc::new(builder.with_no_client_auth())))
    }
}

fn read_roots(path: &str) -> Result<RootCertStore, StoreError> {
    let refused = |error: &dyn fmt::Display| StoreError::Refused(format!("sslrootcert {path}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))? {
        roots.add(certificate.map_err(|error| refused(&error))?).map_err(|error| refused(&error))?;
    }
    if roots.is_empty() { Err(refused(&"no certificate in it")) } else { Ok(roots) }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        // A Unix socket has no name. This is asked even where there will be no TLS.
        let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other);
        Ok(Handshake { config: self.0.clone(), name })
    }
}

/// A handshake with one server.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    name: io::Result<ServerName<'static>>,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = futures::future::BoxFuture<'static, io::Result<Stream<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connect = tokio_rustls::TlsConnector::from(self.config).connect(self.name?, stream);
            connect.await.map(|stream| Stream(Box::new(stream)))
        })
    }
}

/// A stream in TLS.
pub(super) struct Stream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<(SslMode, &str), &str>) {
        match (Target::parse(url), expected) {
            (Ok(target), Ok((mode, shown))) => {
                assert_eq!(target.config.get_ssl_mode(), mode, "{url}");
                let silence = (target.config.get_keepalives_idle(), target.config.get_tcp_user_timeout());
                assert_eq!(silence, (SILENCE, Some(&UNHEARD)), "a network that is silent is noticed");
                assert_eq!(target.to_string(), shown);
            }
            (Err(error), Err(part)) => {
                let told = error.to_string();
                assert!(told.contains(part), "{told}");
                assert!(!told.contains("secret"), "no password in {told}");
            }
            (other, expected) => panic!("{url}: {:?} for {expected:?}", other.map(|target| target.to_string())),
        }
    }

    #[test]
    fn a_password_goes_over_a_network_in_tls_alone() {
        check("postgres://u:secret@db.example.com/plane", Ok((SslMode::Require, "plane at db.example.com:5432")));
        check(
            "postgres://u:secret@db.example.com:6000/plane?sslmode=disable",
            Ok((SslMode::Disable, "plane at db.example.com:6000")),
        );
        check("postgresql://u:secret@127.0.0.1/plane", Ok((SslMode::Disable, "plane at 127.0.0.1:5432")));
        check("postgres://u:secret@localhost/plane?sslmode=verify-full", Ok((SslMode::Require, "plane at localhost:5432")));
        check("postgres://u:secret@h/plane?sslmode=prefer", Err("sslmode other than"));
    }

    #[test]
    fn a_bad_url_is_told_without_its_password() {
        check("postgres://u:secret@h:port/plane", Err("is not a URL"));
        check("postgres://u:secret@h", Err("needs user, host and database"));
        check("postgres://u:secret@h/plane?sslrootcert=/no/such/file", Err("sslrootcert /no/such/file"));
        check("postgres://u:secret@h/plane?colour=red", Err("is not a URL"));
    }
}
