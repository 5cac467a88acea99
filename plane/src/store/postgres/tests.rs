//! The store on a real PostgreSQL, which the tests start by themselves.

use super::{PostgresStore, connect};
use crate::store::{ClientId, Clients, Jobs, Nodes, Notice, Notices, Pubkey, Store, StoreError, conformance::conforms};
use futures::StreamExt;
use infernet_node::clock;
use infernet_wire::{id::Hash, time::UnixMillis, topic::NetworkId};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Where distributions keep the server's programs.
const PLACES: [&str; 4] = ["/usr/lib/postgresql", "/usr/pgsql-16", "/opt/homebrew/opt/postgresql", "/usr/local/pgsql"];
const PORT: u16 = 5432;

/// A throw-away server, reached by its socket alone. The directory of one that runs as another user is open to it.
struct Server {
    home: TempDir,
    programs: PathBuf,
}

/// The directory with `initdb` and `pg_ctl`: the newest of a distribution's, else the one that a shell would find.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for place in PLACES.map(Path::new) {
        found.extend(fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")));
        found.push(place.join("bin"));
    }
    let is_whole = |bin: &PathBuf| bin.join("initdb").exists() && bin.join("pg_ctl").exists();
    found.retain(is_whole);
    found.sort();
    found.pop().or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).find(is_whole))
}

impl Server {
    /// Starts one; `None` where there is none to start, which is said, and is a failure where `INFERNET_NEEDS_POSTGRES` is set.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let told = "SKIPPED: PostgreSQL is not installed (Debian: apt-get install postgresql); its store was not tested";
            assert!(std::env::var_os("INFERNET_NEEDS_POSTGRES").is_none(), "{told}");
            eprintln_all(told);
            return None;
        };
        let home = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        // The server refuses to run as root, so its directory is another user's then.
        run(Command::new("chmod").arg("777").arg(home.path()));
        let server = Server { home, programs };
        let data = server.data();
        server.tool("initdb", &["-D", &data, "-A", "trust", "-U", "plane", "--no-sync", "-E", "UTF8"]);
        server.resume();
        Some(server)
    }

    fn data(&self) -> String {
        self.home.path().join("data").display().to_string()
    }

    fn resume(&self) {
        let socket = self.home.path().display();
        let options = format!("-p {PORT} -k {socket} -c listen_addresses= -c fsync=off");
        let log = self.home.path().join("log").display().to_string();
        self.tool("pg_ctl", &["-D", &self.data(), "-w", "-l", &log, "-o", &options, "start"]);
    }

    fn stop(&self) {
        self.tool("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
    }

    /// Runs one of the server's programs, as user postgres where we are root.
    fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        let program = self.programs.join(name);
        let is_root = run(Command::new("id").arg("-u")).stdout.starts_with(b"0\n");
        let mut command = if is_root { Command::new("setpriv") } else { Command::new(&program) };
        if is_root {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(&program);
        }
        run(command.args(arguments).current_dir("/tmp"))
    }

    fn url(&self, database: &str) -> String {
        let socket = self.home.path().display().to_string().replace('/', "%2F");
        format!("postgres://plane:not-needed@{socket}:{PORT}/{database}")
    }

    async fn open(&self) -> Result<PostgresStore, StoreError> {
        PostgresStore::open(&self.url("postgres"), &NetworkId::default()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let program = self.programs.join("pg_ctl");
        if std::thread::panicking() {
            // A second panic would hide the first.
            let arguments = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
            let stop = ["-D", &self.data(), "-m", "immediate", "stop"].map(str::to_owned);
            let _ = Command::new("setpriv").args(arguments).arg(program).args(stop).output();
        } else {
            self.stop();
        }
        // The files are another user's.
        let _ = Command::new("rm").arg("-rf").arg(self.data()).output();
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn eprintln_all(text: &str) {
    eprintln!("{text}");
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {told}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_alone_and_as_two_instances() {
    let Some(server) = Server::start() else { return };
    let store: Arc<dyn Store> = Arc::new(server.open().await.expect("a store"));
    conforms(store.clone(), store.clone()).await;
    let other: Arc<dyn Store> = Arc::new(server.open().await.expect("a second instance"));
    conforms(store, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_may_start_at_once() {
    let Some(server) = Server::start() else { return };
    let starts = futures::future::join_all((0..8).map(|_| server.open())).await;
    let errors: Vec<String> = starts.iter().filter_map(|start| start.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_one_networks() {
    let Some(server) = Server::start() else { return };
    server.open().await.expect("a store");
    let other: NetworkId = "test".parse().expect("a name");
    let told = PostgresStore::open(&server.url("postgres"), &other).await.err().expect("refused").to_string();
    assert!(told.contains("give each network a database"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_used_again_and_its_notices_heard() {
    let Some(server) = Server::start() else { return };
    let store = server.open().await.expect("a store");
    assert_eq!(store.use_nonce(Pubkey([1; 32]), "n", UnixMillis(9)).await, Ok(true));
    server.stop();
    let told = store.ready().await.expect_err("nobody is there");
    assert!(matches!(told, StoreError::Unreachable(_)), "{told}");
    server.resume();
    let deadline = clock::deadline(Duration::from_secs(20));
    let back = async { while store.ready().await.is_err() {} };
    tokio::time::timeout_at(deadline, back).await.expect("it is back");
    assert_eq!(store.use_nonce(Pubkey([1; 32]), "n", UnixMillis(9)).await, Ok(false), "what it was told it still knows");
    let notice = Notice::Node { pubkey: Pubkey([7; 32]) };
    let mut heard = store.notices();
    let hears = async {
        loop {
            store.notify(&notice).await.expect("notices are taken");
            let next = tokio::time::timeout(Duration::from_millis(100), heard.next()).await;
            if next == Ok(Some(notice.clone())) {
                return;
            }
        }
    };
    tokio::time::timeout_at(deadline, hears).await.expect("notices are heard again");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_and_no_place_tells_the_password() {
    let Some(server) = Server::start() else { return };
    let store = server.open().await.expect("a store");
    assert!(!store.place().contains("not-needed"), "{}", store.place());
    assert!(store.place().starts_with("PostgreSQL postgres at /tmp/"), "{}", store.place());
    let told = PostgresStore::open(&server.url("nowhere"), &NetworkId::default()).await.err().expect("refused").to_string();
    assert!(told.contains("\"nowhere\" does not exist") && !told.contains("not-needed"), "{told}");
    let nul = store.take_challenge("a\0b", UnixMillis(0)).await;
    assert_eq!(nul, Ok(None), "text that PostgreSQL does not have is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_takes_its_connection_with_it() {
    let Some(server) = Server::start() else { return };
    let store = server.open().await.expect("a store");
    store.ready().await.expect("it answers");
    assert_eq!(store.connections.open(), 1, "what has its answer is used again");
    let slow = connect::within(Duration::from_millis(100), store.rows("select pg_sleep(5)", &[])).await;
    assert_eq!(slow.err(), Some(StoreError::Timeout(100)));
    assert_eq!(store.connections.open(), 0, "nobody waits behind it");
    let begun = clock::instant();
    store.ready().await.expect("it answers");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_on_while_a_newer_one_changes_the_schema() {
    let Some(server) = Server::start() else { return };
    let store = server.open().await.expect("a store");
    let (client, key) = (ClientId("cl_1".into()), Hash([1; 32]));
    let read = async || (store.client(&client).await, store.key(key).await, store.stranded(UnixMillis(9), 1).await);
    let before = read().await;
    assert!(before.0.is_ok() && before.1.is_ok() && before.2.is_ok(), "{before:?}");
    for change in [
        "alter table clients add column later text",
        "alter table jobs add column later text",
        // Nothing that a release would do to those that run; statements are prepared anew.
        "alter table api_keys alter column name type varchar(99)",
    ] {
        store.execute(change, &[]).await.expect("changed");
        assert_eq!(read().await, before, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_make_nothing_may_use_what_is_there() {
    let Some(server) = Server::start() else { return };
    let store = server.open().await.expect("a store");
    for grant in [
        "create role guest login",
        "grant usage on schema infernet to guest",
        "grant select, insert, update, delete on all tables in schema infernet to guest",
    ] {
        store.execute(grant, &[]).await.expect("granted");
    }
    let url = server.url("postgres").replace("plane:not-needed", "guest:not-needed");
    let guest = PostgresStore::open(&url, &NetworkId::default()).await.map_err(|error| error.to_string()).expect("a store");
    guest.ready().await.expect("it answers");
}
