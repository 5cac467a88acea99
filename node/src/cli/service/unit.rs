//! The text of the unit. Pure.
//!
//! Of systemd's hardening it has what a user's own service manager can do without a mount namespace, which many systems do not
//! let users have: seccomp filters and limits. The node itself needs only its home, sockets, and to talk to its engines.

use crate::cli::exit;
use std::{fmt::Write, path::Path, time::Duration};

/// After the grace, receipts are signed and the store is flushed.
const AFTER_GRACE: Duration = Duration::from_secs(30);

/// What the service is of.
pub(super) struct Service<'a> {
    /// The program, absolute.
    pub(super) program: &'a Path,
    /// The user's home directory, which the unit calls `%h`.
    pub(super) users: &'a Path,
    /// The node's home, if it must be said.
    pub(super) home: Option<&'a Path>,
    /// Where the passphrase of its key is.
    pub(super) passphrase_file: Option<&'a Path>,
    /// How long running jobs may take to end.
    pub(super) grace: Duration,
}

/// The unit of `service`.
pub(super) fn text(service: &Service<'_>) -> String {
    let word = |path| word(path, service.users);
    let mut command = word(service.program);
    if let Some(home) = service.home {
        let _ = write!(command, " --home {}", word(home));
    }
    let environment = service.passphrase_file.map(|file| {
        let file = word(file);
        format!("Environment=\"{}={}\"\n", crate::identity::PASSPHRASE_FILE, file.trim_matches('"'))
    });
    let (usage, config, environment) = (exit::USAGE, exit::CONFIG, environment.unwrap_or_default());
    let stop = (service.grace + AFTER_GRACE).as_secs();
    format!(
        "\
# Written by `infernet service install`, which writes it anew. Change it with `systemctl --user edit infernet`.
# It ends when you log out, unless you say `loginctl enable-linger`.

[Unit]
Description=infernet: a peer of the inference market
# An engine may take its time to start: it is tried again for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command} start
{environment}Restart=on-failure
RestartSec=15
# Usage, and home, key or configuration: they are no better a second time.
RestartPreventExitStatus={usage} {config}
# The first signal lets running jobs end; they have {grace} s.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={stop}
LimitNOFILE=65536
UMask=0077
# What a user's service manager can take away.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
",
        grace = service.grace.as_secs(),
    )
}

/// A path as one word of a command (systemd.service(5), \"Command lines\"), below `%h` if it is in the user's home.
fn word(path: &Path, users: &Path) -> String {
    let below = path.strip_prefix(users).ok().filter(|_| users.is_absolute() && users != Path::new("/"));
    let escape = |path: &Path| {
        let text = path.to_string_lossy();
        text.chars()
            .flat_map(|c| match c {
                '%' => vec!['%', '%'],
                '$' => vec!['$', '$'],
                '"' | '\\' => vec!['\\', c],
                // Nothing that begins another line.
                c if c.is_control() => vec!['?'],
                c => vec![c],
            })
            .collect::<String>()
    };
    let text = below.map_or_else(|| escape(path), |below| format!("%h/{}", escape(below)));
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/%._-+@:,=~".contains(c));
    if is_plain { text } else { format!("\"{text}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn service<'a>(program: &'a str, home: Option<&'a str>) -> Service<'a> {
        Service {
            program: Path::new(program),
            users: Path::new("/home/me"),
            home: home.map(Path::new),
            passphrase_file: None,
            grace: Duration::from_secs(60),
        }
    }

    #[test]
    fn it_waits_longer_than_jobs_may_take_and_does_not_repeat_what_can_not_work() {
        let unit = text(&service("/home/me/.cargo/bin/infernet", None));
        for line in [
            "ExecStart=%h/.cargo/bin/infernet start",
            "Restart=on-failure",
            "RestartPreventExitStatus=2 3",
            "KillSignal=SIGTERM",
            "TimeoutStopSec=90",
            "WantedBy=default.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} in {unit}");
        }
        assert!(unit.contains("enable-linger") && !unit.contains("Environment"));
    }

    #[test]
    fn paths_are_one_word_whatever_is_in_them() {
        let words = |path| word(Path::new(path), Path::new("/home/me"));
        assert_eq!(words("/usr/bin/infernet"), "/usr/bin/infernet");
        assert_eq!(words("/home/me/a b"), "\"%h/a b\"");
        assert_eq!(words("/home/me2/100%$x\"y"), "\"/home/me2/100%%$$x\\\"y\"");
        assert_eq!(words("/a\nExecStartPre=/bin/x"), "\"/a?ExecStartPre=/bin/x\"");
        let mut secret = service("/usr/bin/infernet", Some("/srv/node one"));
        secret.passphrase_file = Some(Path::new("/home/me/pass word"));
        let unit = text(&secret);
        assert!(unit.contains("ExecStart=/usr/bin/infernet --home \"/srv/node one\" start\n"), "{unit}");
        assert!(unit.contains("Environment=\"INFERNET_PASSPHRASE_FILE=%h/pass word\"\n"), "{unit}");
    }

    /// systemd's own judgement, where there is one.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn systemd_understands_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("infernet.service");
        // It must be a program that exists.
        fs::write(&file, text(&service("/bin/true", Some("/srv/node one")))).unwrap();
        let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
        let Ok(verdict) = verify else {
            return eprintln!("SKIPPED systemd_understands_it: there is no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&verdict.stderr);
        assert!(verdict.status.success() && !said.contains("infernet.service:"), "{said}");
    }
}
