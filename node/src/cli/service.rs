//! `infernet service`: the node under systemd, as a service of this user.
//!
//! `unit` is the text of the unit, pure; `systemd` runs `systemctl --user`, each time with a deadline. Installing again changes
//! only what is different and never stops a running node; uninstalling leaves key, configuration and receipts.

mod systemd;
mod unit;

use self::systemd::{Systemd, UNIT};
use super::{Context, exit, exit::Exit};
use crate::{
    config::{self, Config, Partial},
    control::client::Client,
    identity::{self, PASSPHRASE_FILE},
};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Write the unit, start it, and start it again whenever you log in.
    Install(InstallArgs),
    /// Say whether the service is installed and runs.
    Status,
    /// Show what the service wrote to systemd's journal.
    Logs(LogsArgs),
    /// Stop the service and remove its unit; key, configuration and receipts stay.
    Uninstall,
}

#[derive(Debug, Default, Args)]
pub(super) struct InstallArgs {
    /// Only print the unit; change nothing.
    #[arg(long)]
    print: bool,
    /// Don't start it now.
    #[arg(long)]
    no_start: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    lines: u32,
}

/// `infernet service install --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InstalledReport {
    /// Where the unit is, or would be.
    unit: PathBuf,
    /// Its text.
    text: String,
    /// Whether it was written: it was not there, or different.
    changed: bool,
    /// Whether the service runs now.
    active: bool,
    /// Whether it goes on when you log out.
    lingers: bool,
}

/// `infernet service status --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServiceReport {
    /// Where the unit is, or would be.
    unit: PathBuf,
    /// Whether it is there.
    installed: bool,
    /// Whether it is started when you log in.
    enabled: bool,
    /// Whether it runs.
    active: bool,
    /// In systemd's words, such as `active (running)`.
    state: String,
    /// Its process, if it runs.
    pid: Option<u32>,
    /// How often it was started again after it failed.
    restarts: u32,
    /// Whether it goes on when you log out.
    lingers: bool,
}

/// `infernet service uninstall --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct UninstalledReport {
    /// Where the unit was.
    unit: PathBuf,
    /// Whether there was one.
    removed: bool,
}

pub(super) async fn run(context: &Context, command: ServiceCommand) -> Result<(), Exit> {
    match command {
        ServiceCommand::Install(args) => install(context, &args).await,
        ServiceCommand::Status => status(context).await,
        ServiceCommand::Logs(args) => logs(context, &args).await,
        ServiceCommand::Uninstall => uninstall(context).await,
    }
}

/// Whether this user can have services here.
pub(super) async fn is_possible() -> bool {
    Systemd::find().await.is_ok()
}

/// Writes and starts the unit; also the last step of `infernet setup`.
pub(super) async fn install(context: &Context, args: &InstallArgs) -> Result<(), Exit> {
    let (path, config) = (path()?, Config::load(&context.home, Partial::default())?);
    let text = text(&context.home, config.grace)?;
    let key = identity::public(&context.home);
    if matches!(key, Ok((_, true))) && config.passphrase_file.is_none() {
        let text = format!(
            "the key is encrypted, and a service can't ask for its passphrase: name a file with it as passphrase_file in \
             config.toml, or in {PASSPHRASE_FILE}"
        );
        return Err(Exit::new(exit::CONFIG, text));
    }
    if args.print {
        return print(context, path, text);
    }
    let systemd = Systemd::find().await?;
    key?;
    let was_active = systemd.state().await?.active;
    if !args.no_start && !was_active && Client::connect(&context.home).is_some() {
        let text = format!("a node runs in {} already; stop it first, or use --no-start", context.home.display());
        return Err(Exit::new(exit::ADDRESS, text));
    }
    let changed = fs::read_to_string(&path).ok().as_ref() != Some(&text);
    if changed {
        write(&path, &text)?;
        systemd.reload().await?;
    }
    systemd.enable(!args.no_start).await?;
    let report = InstalledReport { unit: path, text, changed, active: systemd.state().await?.active, lingers: lingers() };
    told(context, &report, was_active)
}

fn print(context: &Context, unit: PathBuf, text: String) -> Result<(), Exit> {
    if context.json {
        return context.print_json(&InstalledReport { unit, text, changed: false, active: false, lingers: lingers() });
    }
    context.print(text.trim_end());
    context.note(format!("it would be in {}", unit.display()));
    Ok(())
}

fn told(context: &Context, report: &InstalledReport, was_active: bool) -> Result<(), Exit> {
    if context.json {
        return context.print_json(report);
    }
    let unit = report.unit.display();
    context.note(if report.changed { format!("wrote {unit}") } else { format!("{unit} is as it should be") });
    context.note(match (report.active, was_active && report.changed) {
        (true, true) => format!("the service runs on as it was; `systemctl --user restart {UNIT}` starts it anew"),
        (true, false) => "the service runs; `infernet service status` and `infernet logs -f` tell how".into(),
        (false, _) => format!("the service does not run; `systemctl --user start {UNIT}` starts it"),
    });
    if !report.lingers {
        context.note("it ends when you log out; `loginctl enable-linger` lets it go on, and start with the machine");
    }
    Ok(())
}

async fn status(context: &Context) -> Result<(), Exit> {
    let (path, systemd) = (path()?, Systemd::find().await?);
    let state = systemd.state().await?;
    let report = ServiceReport {
        installed: path.exists(),
        unit: path,
        enabled: state.enabled,
        active: state.active,
        state: state.shown,
        pid: state.pid,
        restarts: state.restarts,
        lingers: lingers(),
    };
    if context.json {
        context.print_json(&report)?;
    } else {
        context.print(sentence(&report));
    }
    match (report.active, report.installed) {
        (true, _) => Ok(()),
        (false, true) => Err(Exit::new(exit::NOT_RUNNING, "the service does not run; `infernet service logs` may tell why")),
        (false, false) => Err(Exit::new(exit::NOT_RUNNING, "the service is not installed; `infernet service install` does it")),
    }
}

fn sentence(report: &ServiceReport) -> String {
    let pid = report.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let enabled = if report.enabled { "starts at login" } else { "is not started at login" };
    let restarts = super::counted(usize::try_from(report.restarts).unwrap_or(usize::MAX), "restart");
    let lingers = if report.lingers { "goes on" } else { "ends" };
    format!("{UNIT}: {}{pid}, {restarts}; it {enabled}, and {lingers} when you log out", report.state)
}

async fn logs(context: &Context, args: &LogsArgs) -> Result<(), Exit> {
    if context.json {
        return Err(Exit::new(exit::USAGE, "systemd's journal is text; `infernet logs --json` has the node's log as JSON"));
    }
    Systemd::find().await?.journal(args.lines, args.follow).await
}

async fn uninstall(context: &Context) -> Result<(), Exit> {
    let (unit, systemd) = (path()?, Systemd::find().await?);
    let removed = unit.exists();
    if removed {
        let grace = Config::load(&context.home, Partial::default()).map_or(Duration::ZERO, |config| config.grace);
        context.during("stopping; running jobs may end", systemd.disable(grace)).await?;
        fs::remove_file(&unit).map_err(|error| unusable("remove", &unit, &error))?;
        systemd.reload().await?;
    }
    let home = context.home.display();
    context.note(match removed {
        true => format!("the service is gone; key, configuration and receipts stay in {home}"),
        false => format!("there is no {}, so nothing was done", unit.display()),
    });
    if context.json {
        return context.print_json(&UninstalledReport { unit, removed });
    }
    Ok(())
}

/// The unit's place: systemd's own rule.
fn path() -> Result<PathBuf, Exit> {
    let dirs = directories::BaseDirs::new();
    let dirs =
        dirs.ok_or_else(|| Exit::new(exit::CONFIG, "this user has no home directory, so there is no place for a unit"))?;
    Ok(dirs.config_dir().join("systemd/user").join(UNIT))
}

fn text(home: &Path, grace: Duration) -> Result<String, Exit> {
    let program =
        std::env::current_exe().map_err(|error| Exit::new(exit::FAILED, format!("where this program is: {error}")))?;
    let users = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    // Said only if it is not where a node looks anyway.
    let named = config::home_by_default().is_none_or(|usual| usual != home);
    Ok(unit::text(&unit::Service {
        program: &program,
        users: &users,
        home: named.then_some(home),
        passphrase_file: passphrase_file().as_deref(),
        grace,
    }))
}

fn passphrase_file() -> Option<PathBuf> {
    let named = std::env::var_os(PASSPHRASE_FILE).filter(|name| !name.is_empty())?;
    std::path::absolute(PathBuf::from(named)).ok()
}

fn write(path: &Path, text: &str) -> Result<(), Exit> {
    let folder = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map_err(|error| unusable("write", path, &error))
}

fn unusable(action: &str, path: &Path, error: &io::Error) -> Exit {
    Exit::new(exit::CONFIG, format!("can't {action} {}: {error}", path.display()))
}

/// Whether this user's services outlive the session: logind keeps a file for each who asked for that.
fn lingers() -> bool {
    std::env::var("USER").is_ok_and(|user| !user.contains('/') && Path::new("/var/lib/systemd/linger").join(user).exists())
}
