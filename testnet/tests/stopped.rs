//! A command that is stopped takes the processes that it started with it.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// How long processes may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = infernet_node::clock::instant();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux has it");
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn flood() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.args(["flood", "--minutes", "5"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary is built")
}

#[test]
fn a_stopped_command_leaves_no_process_behind() {
    let mut flood = flood();
    let mut started = Vec::new();
    until("it starts a worker and a buyer", || {
        started = children(flood.id());
        started.len() >= 2
    });
    let sent = Command::new("kill").args(["-TERM", &flood.id().to_string()]).status().expect("kill is there");
    assert!(sent.success());
    let status = flood.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
    until("its processes end", || started.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}
