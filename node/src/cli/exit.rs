//! How a command ends: one sentence, and a code that scripts can rely on.

use crate::{
    api::open::OpenError,
    api_keys::KeyError,
    buyer::ChatError,
    config::ConfigError,
    control::{ControlError, client::AskError, schema::ErrorReport},
    identity::IdentityError,
    node::StartError,
    operator::OperatorsError,
    spend::CapError,
    store::StoreError,
};
use std::io::Write;

/// Something else went wrong.
pub const FAILED: u8 = 1;
/// The command line is not understood.
pub const USAGE: u8 = 2;
/// Home, key or configuration can't be used.
pub const CONFIG: u8 = 3;
/// A socket can't be opened, or another node runs in this home.
pub const ADDRESS: u8 = 4;
/// No engine answers.
pub const NO_ENGINE: u8 = 5;
/// No peers.
pub const NO_PEERS: u8 = 6;
/// Nobody bid.
pub const NO_BIDS: u8 = 7;
/// Nobody bid at that price, or a spend cap leaves nothing.
pub const TOO_CHEAP: u8 = 8;
/// A worker failed and no other could take over.
pub const WORKER: u8 = 9;
/// A signature does not verify.
pub const UNVERIFIED: u8 = 10;
/// No node runs in this home.
pub const NOT_RUNNING: u8 = 11;
/// Busy: try again later.
pub const BUSY: u8 = 12;
/// The node refuses the operator's command.
pub const REFUSED: u8 = 13;

/// `infernet doctor` found a problem.
pub const UNHEALTHY: u8 = 14;
/// This system has no service manager that we know.
pub const NO_SERVICES: u8 = 15;

/// Interrupted by Ctrl-C, as shells say it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// What `infernet --help` says about all of these.
pub(super) const HELP: &str = "\
Exit codes:
  0 fine               6 no peers                    12 busy
  1 anything else      7 no bids                     13 command refused
  2 usage              8 price, cap too low          14 doctor found a problem
  3 home, key, config  9 worker failed               15 no service manager
  4 address in use    10 a signature does not verify
  5 no engine         11 no node running            130 interrupted";

/// A command's failure.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// The sentence.
    pub message: String,
}

impl Exit {
    /// Ends with `code` and says `message`.
    pub fn new(code: u8, message: impl ToString) -> Self {
        Exit { code, message: message.to_string() }
    }

    /// What clap says in paragraphs, in one line.
    pub(super) fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let said: Vec<&str> = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
        let said = said.into_iter().filter(|line| !line.is_empty() && !line.starts_with("For more")).collect::<Vec<_>>();
        let said = said.join(" ").replacen("error: ", "", 1).replace(" tip: ", "; ");
        Exit::new(USAGE, format!("{said}; see `infernet --help`, or --help after a command"))
    }

    /// Tells stderr; with `json` as an object.
    pub fn show(&self, json: bool) {
        let mut stderr = std::io::stderr().lock();
        let _ = if json {
            let report = ErrorReport { exit: self.code, message: self.message.clone(), partial: None };
            writeln!(stderr, "{}", serde_json::json!({ "error": report }))
        } else {
            writeln!(stderr, "infernet: {}", self.message)
        };
    }
}

/// The exit code of a chat that failed.
pub fn of_chat(error: &ChatError) -> u8 {
    match error {
        ChatError::Request(_) | ChatError::Offer(_) => USAGE,
        ChatError::NoPeers => NO_PEERS,
        ChatError::Cap(_) => TOO_CHEAP,
        ChatError::NoBids(no) if no.is_too_cheap() => TOO_CHEAP,
        ChatError::NoBids(_) => NO_BIDS,
        ChatError::Busy => BUSY,
        ChatError::Failed { .. } => WORKER,
        ChatError::ShuttingDown => FAILED,
    }
}

impl From<ErrorReport> for Exit {
    fn from(error: ErrorReport) -> Self {
        Exit::new(error.exit, error.message)
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Exit::new(CONFIG, error)
    }
}

impl From<IdentityError> for Exit {
    fn from(error: IdentityError) -> Self {
        Exit::new(CONFIG, error)
    }
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        let code = if matches!(error, StoreError::Locked { .. }) { ADDRESS } else { CONFIG };
        Exit::new(code, error)
    }
}

impl From<OperatorsError> for Exit {
    fn from(error: OperatorsError) -> Self {
        let code = if matches!(error, OperatorsError::Key(_) | OperatorsError::Unknown(_)) { USAGE } else { CONFIG };
        Exit::new(code, error)
    }
}

impl From<ControlError> for Exit {
    fn from(error: ControlError) -> Self {
        let code = if matches!(error, ControlError::PathTooLong(_)) { CONFIG } else { ADDRESS };
        Exit::new(code, error)
    }
}

impl From<AskError> for Exit {
    fn from(error: AskError) -> Self {
        Exit::new(FAILED, error)
    }
}

impl From<KeyError> for Exit {
    fn from(error: KeyError) -> Self {
        let usage = matches!(error, KeyError::Name | KeyError::Taken(_) | KeyError::Unknown(_) | KeyError::Full);
        Exit::new(if usage { USAGE } else { CONFIG }, error)
    }
}

impl From<CapError> for Exit {
    fn from(error: CapError) -> Self {
        Exit::new(if matches!(error, CapError::Store(_)) { CONFIG } else { TOO_CHEAP }, error)
    }
}

impl From<OpenError> for Exit {
    fn from(error: OpenError) -> Self {
        let code = if matches!(error, OpenError::Bind(_) | OpenError::Address(_)) { ADDRESS } else { CONFIG };
        Exit::new(code, error)
    }
}

impl From<StartError> for Exit {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Net(_) | StartError::Chat(_) | StartError::Address(_) => ADDRESS,
            StartError::Store(_) | StartError::KeyLog => CONFIG,
        };
        Exit::new(code, error)
    }
}
