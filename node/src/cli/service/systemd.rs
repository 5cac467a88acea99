//! `systemctl --user` and `journalctl --user`, each with a deadline, and what they answer.

use crate::cli::{exit, exit::Exit};
use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// The unit's name.
pub(super) const UNIT: &str = "infernet.service";
/// systemd answers at once; starting waits until the program runs.
const ANSWER: Duration = Duration::from_secs(30);
/// After the jobs: what a unit has to end.
const STOP: Duration = Duration::from_secs(60);

/// The service manager of this user.
pub(super) struct Systemd(());

/// The unit as systemd sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) active: bool,
    pub(super) enabled: bool,
    /// Such as `active (running)`.
    pub(super) shown: String,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u32,
}

impl Systemd {
    /// If there is one that answers.
    pub(super) async fn find() -> Result<Self, Exit> {
        if cfg!(target_os = "macos") {
            let text = "services of macOS (launchd) are not supported yet: run `infernet start` under a supervisor of your own";
            return Err(Exit::new(exit::NO_SERVICES, text));
        }
        let systemd = Systemd(());
        systemd.systemctl(&["show", "--property=Version"], ANSWER).await?;
        Ok(systemd)
    }

    pub(super) async fn reload(&self) -> Result<(), Exit> {
        self.systemctl(&["daemon-reload"], ANSWER).await.map(drop)
    }

    pub(super) async fn enable(&self, now: bool) -> Result<(), Exit> {
        let args: &[&str] = if now { &["enable", "--now", UNIT] } else { &["enable", UNIT] };
        self.systemctl(args, ANSWER).await.map(drop)
    }

    /// Stops it, too, for which running jobs have `grace`.
    pub(super) async fn disable(&self, grace: Duration) -> Result<(), Exit> {
        self.systemctl(&["disable", "--now", UNIT], grace + STOP).await.map(drop)
    }

    pub(super) async fn state(&self) -> Result<State, Exit> {
        const WANTED: &str = "--property=ActiveState,SubState,UnitFileState,MainPID,NRestarts";
        self.systemctl(&["show", UNIT, WANTED], ANSWER).await.map(|text| state(&text))
    }

    /// Shows the journal's last lines, and what comes, on our own stdout.
    pub(super) async fn journal(&self, lines: u32, follow: bool) -> Result<(), Exit> {
        let mut command = Command::new("journalctl");
        command.args(["--user", "--unit", UNIT, "--lines", &lines.to_string(), "--no-pager"]);
        if follow {
            command.arg("--follow");
        }
        let mut shown = command.kill_on_drop(true).spawn().map_err(|error| missing("journalctl", &error))?;
        tokio::select! {
            // It gets the same signal; the end of looking is no failure.
            _ = tokio::signal::ctrl_c() => Ok(()),
            ended = shown.wait() => match ended {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(Exit::new(exit::FAILED, format!("journalctl failed ({status})"))),
                Err(error) => Err(Exit::new(exit::FAILED, format!("journalctl: {error}"))),
            },
        }
    }

    async fn systemctl(&self, args: &[&str], deadline: Duration) -> Result<String, Exit> {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(args).stdin(Stdio::null()).kill_on_drop(true);
        let ended = timeout(deadline, command.output()).await;
        let ended = ended.map_err(|_| {
            let text = format!("`systemctl --user {}` did not end within {} s", args.join(" "), deadline.as_secs());
            Exit::new(exit::FAILED, text)
        })?;
        let output = ended.map_err(|error| missing("systemctl", &error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(refused(args, &output))
    }
}

fn missing(program: &str, error: &std::io::Error) -> Exit {
    let text = format!(
        "there is no systemd here that could run a service ({program}: {error}): let another supervisor run `infernet start`; \
         `infernet service install --print` shows what systemd would do"
    );
    Exit::new(exit::NO_SERVICES, text)
}

fn refused(args: &[&str], output: &Output) -> Exit {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if said.contains("connect to bus") || said.contains("not been booted with systemd") || said.contains("XDG_RUNTIME_DIR") {
        let text = format!(
            "systemd runs no services for this user here ({said}): log in as the user itself, not through su or sudo; \
             `infernet service install --print` shows the unit"
        );
        return Exit::new(exit::NO_SERVICES, text);
    }
    Exit::new(exit::FAILED, format!("`systemctl --user {}` failed: {said}", args.join(" ")))
}

/// What `systemctl show` says.
fn state(text: &str) -> State {
    let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |key| values.get(key).copied().unwrap_or_default();
    let number = |key| value(key).parse::<u32>().ok();
    State {
        active: matches!(value("ActiveState"), "active" | "reloading" | "activating"),
        enabled: value("UnitFileState") == "enabled",
        shown: format!("{} ({})", value("ActiveState"), value("SubState")),
        pid: number("MainPID").filter(|pid| *pid > 0),
        restarts: number("NRestarts").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read() {
        let text = "MainPID=4711\nNRestarts=2\nActiveState=active\nSubState=running\nUnitFileState=enabled\n";
        let running = State { active: true, enabled: true, shown: "active (running)".into(), pid: Some(4711), restarts: 2 };
        assert_eq!(state(text), running);
        let none = state("MainPID=0\nNRestarts=0\nActiveState=inactive\nSubState=dead\nUnitFileState=\n");
        assert_eq!((none.active, none.enabled, none.pid), (false, false, None));
    }
}
