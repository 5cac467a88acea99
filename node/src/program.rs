//! What the programs beside `infernet`, the plane and the relay, have in common: how their settings are read, where their home
//! is, and how they log.

use crate::config::{home_by_default, in_one_line};
use clap::{Command, Parser, builder::Resettable};
use std::{
    ffi::OsString,
    fmt::Display,
    io::{ErrorKind, IsTerminal},
    path::{Path, PathBuf},
};
use tracing_subscriber::EnvFilter;

/// The longest that a stop may take, in seconds: nothing that runs takes longer, and whoever waits for it takes it for dead.
const MAX_GRACE: u64 = 3_600;

/// The operator's settings are wrong, or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write.
        reason: String,
    },
}

/// A value is wrong; `reason` says what to write.
pub fn wrong(key: &'static str, reason: impl Into<String>) -> SettingsError {
    SettingsError::Value { key, reason: reason.into() }
}

/// A command line, with the environment. A variable that is empty is one that is not set: compose files and units have such, and
/// an empty list, number or address is nobody's wish.
pub fn parse<C: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<C, clap::Error> {
    let matches = without_empty(C::command()).try_get_matches_from(arguments)?;
    C::from_arg_matches(&matches)
}

fn without_empty(command: Command) -> Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(Resettable::Reset),
        _ => arg,
    });
    command.mut_subcommands(without_empty)
}

/// What the file at `path` says; nothing, if there is none.
pub fn read<K: Default, E: Display>(path: &Path, parse: impl FnOnce(&str) -> Result<K, E>) -> Result<K, SettingsError> {
    let failed = |reason: String| SettingsError::File { path: path.into(), reason };
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|error| failed(in_one_line(&error.to_string()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(K::default()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// How much is logged; `info` unless set.
pub fn level(set: Option<String>) -> Result<String, SettingsError> {
    let log = set.unwrap_or_else(|| "info".into());
    if ["error", "warn", "info", "debug", "trace"].contains(&log.as_str()) {
        return Ok(log);
    }
    Err(wrong("log", format!("{log:?} is none of error, warn, info, debug and trace")))
}

/// Seconds that what runs has at a stop.
pub fn grace(set: Option<u64>, usual: u64) -> Result<u64, SettingsError> {
    match set.unwrap_or(usual) {
        grace if grace <= MAX_GRACE => Ok(grace),
        grace => Err(wrong("grace", format!("{grace} s is longer than anything takes: write {MAX_GRACE} at most"))),
    }
}

/// `--home`, else `program`'s folder in `~/.local/share` or what the system has in its place. The error says what to write.
pub fn home(named: Option<PathBuf>, program: &str) -> Result<PathBuf, String> {
    let beside = || home_by_default().map(|home| home.with_file_name(program));
    let home = named.filter(|path| !path.as_os_str().is_empty()).or_else(beside);
    let home = home.ok_or("there is no home directory: name one with --home")?;
    std::path::absolute(&home).map_err(|error| format!("{}: {error}", home.display()))
}

/// Logs to stderr, of this crate and `of` at `level`, unless `RUST_LOG` says otherwise.
pub fn log(level: &str, of: &str) {
    let fallback = format!("error,infernet_node={level},{of}={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    // Fails only if there is a log already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).try_init();
}

/// Makes `Keys`: each key is a flag, a variable and a line of a file, and may be left out. Needs clap's `Args` and serde's
/// `Deserialize` in scope.
#[macro_export]
macro_rules! program_keys {
    ($($(#[doc = $doc:literal])+ $(#[arg($($arg:tt)*)])? $key:ident: $kind:ty = $env:literal,)+) => {
        /// Some of the keys: those of a file, or those of command line and environment.
        #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
        #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
        pub struct Keys {
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $env, hide_env_values = true $(, $($arg)*)?)]
                pub $key: Option<$kind>,
            )+
        }

        impl Keys {
            /// These, and where they say nothing `others`.
            #[must_use]
            pub fn or(self, others: Keys) -> Keys {
                Keys { $($key: self.$key.or(others.$key),)+ }
            }

            #[cfg(test)]
            const NAMES: &'static [&'static str] = &[$(stringify!($key)),+];
        }
    };
}
