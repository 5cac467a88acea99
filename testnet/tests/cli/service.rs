//! `infernet service`, with a `systemctl` that only notes what it is told.

use super::{Reply, Started, command, daily::check_schema, ended, home, infernet, mistakes::check};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;

/// A user with a service manager of their own.
struct User {
    home: TempDir,
    folder: TempDir,
}

impl User {
    fn new() -> Self {
        let user = User { home: home(), folder: home() };
        let log = user.folder.path().join("log");
        // It runs what was enabled, and knows nothing of anything else.
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> '{0}'\ncase \"$*\" in\n*'show infernet.service'*)\n\
             if grep -q 'enable --now' '{0}' && ! grep -q 'disable --now' '{0}'; then\n\
             printf 'ActiveState=active\\nSubState=running\\nUnitFileState=enabled\\nMainPID=42\\nNRestarts=1\\n'\n\
             else printf 'ActiveState=inactive\\nSubState=dead\\nUnitFileState=\\nMainPID=0\\nNRestarts=0\\n'; fi;;\nesac\n",
            log.display()
        );
        let path = user.folder.path().join("systemctl");
        fs::write(&path, script).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("chmod");
        user
    }

    fn unit(&self) -> PathBuf {
        self.folder.path().join("config/systemd/user/infernet.service")
    }

    async fn run(&self, args: &[&str]) -> Reply {
        let mut command = command(self.home.path(), &[&["service"], args].concat());
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).env("XDG_CONFIG_HOME", self.folder.path().join("config")).env("USER", "nobody-that-lingers");
        ended(command.spawn().expect("starts")).await
    }

    /// What `systemctl` was told since the last time, but for questions.
    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().filter(|line| !line.contains("show ")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn it_is_installed_once_and_uninstalled_without_a_trace() {
    let user = User::new();
    infernet(user.home.path(), &["init"]).await.fine();
    let reply = user.run(&["status"]).await;
    assert!(reply.code == 11 && reply.err.contains("infernet service install"), "{reply:?}");

    let installed: Value = user.run(&["install", "--json"]).await.json();
    let schema = infernet(user.home.path(), &["schema", "service", "install"]).await.json();
    check_schema("service install", &installed, &schema, &schema);
    assert_eq!((&installed["changed"], &installed["active"]), (&true.into(), &true.into()), "{installed}");
    let unit = fs::read_to_string(user.unit()).expect("a unit where XDG_CONFIG_HOME says");
    assert_eq!(installed["text"], unit.as_str());
    let home = format!("--home {} start", user.home.path().display());
    assert!(unit.contains(&home) && unit.contains("RestartPreventExitStatus=2 3"), "{unit}");
    let expected = ["--user daemon-reload", "--user enable --now infernet.service"];
    assert_eq!(user.told(), expected);

    let again = user.run(&["install"]).await;
    assert!(again.code == 0 && again.err.contains("as it should be") && again.err.contains("enable-linger"), "{again:?}");
    assert_eq!(user.told(), [&expected[..], &["--user enable --now infernet.service"]].concat());
    let status = user.run(&["status"]).await.fine();
    assert!(status.contains("active (running), process 42, 1 restart"), "{status}");

    let gone = user.run(&["uninstall"]).await;
    assert!(gone.code == 0 && gone.err.contains("stay in"), "{gone:?}");
    assert!(!user.unit().exists() && user.home.path().join("identity.key").exists());
    assert_eq!(user.told()[3..], ["--user disable --now infernet.service", "--user daemon-reload"]);
    let again: Value = user.run(&["uninstall", "--json"]).await.json();
    assert_eq!(again["removed"], false);
    assert_eq!(user.told().len(), 5, "nothing more was done");
}

#[tokio::test]
async fn printing_changes_nothing() {
    let user = User::new();
    let text = user.run(&["install", "--print"]).await.fine();
    assert!(text.contains("[Service]") && text.contains("TimeoutStopSec=90"), "{text}");
    assert!(!user.unit().exists() && user.told().is_empty());
}

#[tokio::test]
async fn what_can_not_run_as_a_service_is_not_installed() {
    let user = User::new();
    let reply = user.run(&["install"]).await;
    assert!(reply.code == 3 && reply.err.contains("infernet init"), "there is no key: {reply:?}");
    let node = Started::new(user.home.path(), &["--no-serve"]).await;
    let reply = user.run(&["install"]).await;
    assert!(reply.code == 4 && reply.err.contains("--no-start"), "{reply:?}");
    assert!(!user.unit().exists());
    node.stop().await;
}

#[tokio::test]
async fn a_system_without_systemd_is_told_what_else_to_do() {
    let (home, empty) = (home(), home());
    infernet(home.path(), &["init"]).await.fine();
    for args in [["service", "install"], ["service", "status"], ["service", "logs"], ["service", "uninstall"]] {
        let mut command = command(home.path(), &args);
        command.env("PATH", empty.path()).env("XDG_CONFIG_HOME", empty.path());
        let reply = ended(command.spawn().expect("starts")).await;
        assert_eq!((reply.code, reply.out.as_str()), (15, ""), "{args:?}: {reply:?}");
        assert!(reply.err.contains("infernet start") && reply.err.contains("--print"), "{reply:?}");
    }
    check(home.path(), &["service", "dance"], 2, &["dance"]).await;
}
