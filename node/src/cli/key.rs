//! `infernet key`: look at it, back it up, bring it back, put it under a passphrase, replace it.

use super::{Context, exit, exit::Exit, query};
use crate::{
    clock,
    config::{Config, Partial},
    control::{Control, client::Client},
    date::{self, Day},
    identity::{self, IdentityError, KEY_FILE, Source},
    settlement::unsettled::{Unsettled, unsettled},
    store,
};
use clap::Subcommand;
use infernet_wire::{id::NodeId, key::NodeKey, solana::SolanaAddress};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a passphrase is asked for.
const THIS_KEY: &str = "this node's key";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show the public half, and the keys before it.
    Show,
    /// Write the key to a file, encrypted with a passphrase.
    Backup {
        /// A new file, best on another disk.
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Bring the key of a backup into this home.
    Restore {
        /// What `key backup` wrote.
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Encrypt the key file of this home; `start` then asks for the passphrase.
    Encrypt(PassphraseArgs),
    /// Keep the key file of this home in plain again.
    Decrypt(PassphraseArgs),
    /// Replace the key by a new one; both sign that they belong together. The node must be stopped.
    Rotate {
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Though this key still has money on a chain, which the new one can't move.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct PassphraseArgs {
    /// File whose first line is the passphrase [default: passphrase_file of the configuration, else the terminal is asked] [env: INFERNET_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    fn source(self, context: &Context) -> Source {
        self.passphrase_file.map_or_else(|| context.passphrase(), |file| Source::new(Some(file)))
    }
}

/// `infernet key show --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeyReport {
    /// The node id: the libp2p PeerId.
    #[schemars(with = "String")]
    id: NodeId,
    /// The compressed public key, in hex.
    public_key: String,
    /// The x-only public key (BIP-340), in hex.
    x_only: String,
    /// Whether the key file is encrypted; absent if there is none, and the running node has its key from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted: Option<bool>,
    /// The address of its wallet on Solana, in base58; absent until that key was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    solana: Option<String>,
    /// How this key came to be, oldest first.
    rotations: Vec<RotationReport>,
}

/// A rotation: `infernet key rotate --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RotationReport {
    /// The key until then.
    #[schemars(with = "String")]
    old: NodeId,
    /// The key from then on.
    #[schemars(with = "String")]
    new: NodeId,
    /// When, in unix milliseconds.
    at: u64,
    /// The statement that both keys signed, in hex.
    statement: String,
}

impl RotationReport {
    fn new(signed: &infernet_wire::rotation::SignedRotation) -> Self {
        let said = signed.statement();
        RotationReport { old: said.old, new: said.new, at: said.issued.0, statement: hex::encode(signed.encode()) }
    }
}

pub(super) async fn run(context: &Context, command: KeyCommand) -> Result<(), Exit> {
    match command {
        KeyCommand::Show => show(context).await,
        KeyCommand::Backup { file, passphrase } => backup(context, file, &passphrase.source(context)),
        KeyCommand::Restore { file, passphrase } => restore(context, file, &passphrase.source(context)),
        KeyCommand::Encrypt(passphrase) => rewrite(context, &passphrase.source(context), true),
        KeyCommand::Decrypt(passphrase) => rewrite(context, &passphrase.source(context), false),
        KeyCommand::Rotate { passphrase, force } => rotate(context, &passphrase.source(context), force),
    }
}

async fn show(context: &Context) -> Result<(), Exit> {
    let runs = match Client::connect(&context.home) {
        Some(node) => Some(query::who(&node, None).await?),
        None => None,
    };
    let mut network = Config::load(&context.home, Partial::default())?.network;
    let (id, encrypted) = match (identity::public(&context.home), runs) {
        (Err(IdentityError::Missing { .. }), Some((its, id))) => {
            network = its;
            (id, None)
        }
        (key, _) => key.map(|(id, encrypted)| (id, Some(encrypted)))?,
    };
    let rotations: Vec<_> = identity::history(&context.home, &id, &network)?.iter().map(RotationReport::new).collect();
    let (public_key, x_only) = (hex::encode(id.as_bytes()), hex::encode(id.x_only()));
    let solana = identity::existing_solana_key(&context.home)?.map(|key| key.address().to_string());
    if context.json {
        return context.print_json(&KeyReport { id, public_key, x_only, encrypted, solana, rotations });
    }
    context.print(format!("node id     {id}"));
    context.print(format!("public key  {public_key}"));
    context.print(format!("x-only      {x_only}"));
    context.print(format!(
        "key file    {}",
        match encrypted {
            Some(true) => "encrypted",
            Some(false) => "in plain, readable by its owner alone",
            None => "none here: the running node has its key from elsewhere",
        }
    ));
    if let Some(address) = solana {
        context.print(format!("solana      {address}"));
    }
    for rotation in &rotations {
        let at = date::time(infernet_wire::time::UnixMillis(rotation.at));
        context.print(format!("rotated     {at} UTC, from {}", rotation.old));
    }
    Ok(())
}

fn backup(context: &Context, file: PathBuf, passphrase: &Source) -> Result<(), Exit> {
    let key = context.key()?;
    let solana = identity::existing_solana_key(&context.home)?;
    let chosen = passphrase.choose("the backup")?;
    identity::backup(&key, solana.as_ref(), &file, &chosen, &Day::of(clock::now()).to_string())?;
    context.note("keep file and passphrase apart: whoever has both has the key, and whoever loses one has no backup");
    let wallet = solana.map(|key| key.address());
    if let Some(address) = &wallet {
        context.note(format!("the key of the wallet on Solana is in it too, {address}"));
    }
    context.tell_both(&key.id(), wallet, &file)
}

fn restore(context: &Context, file: PathBuf, passphrase: &Source) -> Result<(), Exit> {
    context.may_make_key()?;
    let (id, wallet) = identity::restore(&context.home, &file, || passphrase.ask(&file.display().to_string()))?;
    context.note(format!("the key is in {}", context.home.display()));
    if let Some(address) = &wallet {
        context.note(format!("and the key of the wallet on Solana, {address}"));
    }
    context.tell_both(&id, wallet, &context.home.join(KEY_FILE))
}

fn rewrite(context: &Context, passphrase: &Source, encrypt: bool) -> Result<(), Exit> {
    let (what, path) = ("the key file", context.home.join(KEY_FILE));
    if identity::public(&context.home)?.1 == encrypt {
        return Err(IdentityError::Already { path, sealed: encrypt }.into());
    }
    let key = identity::load_with(&context.home, || passphrase.ask(what))?;
    let chosen = if encrypt { Some(passphrase.choose(what)?) } else { None };
    identity::rewrite(&context.home, &key, chosen.as_ref().map(|text| text.as_str()))?;
    context.note(if encrypt {
        "the key file is encrypted; without a backup, whoever forgets the passphrase loses the node's name and earnings"
    } else {
        "the key file is in plain, readable by its owner alone"
    });
    context.tell(&key.id(), &path)
}

/// What is named of what a key has left.
const NAMED: usize = 8;

/// Refuses if the key of `id` has anything on a chain that only it can move, on whichever network of ours.
fn nothing_left(context: &Context, id: &NodeId) -> Result<(), Exit> {
    let mut left = Vec::new();
    for network in store::networks(&context.home) {
        left.extend(unsettled(&*store::open(&context.home, &network)?, (&network, id))?);
    }
    if left.is_empty() {
        return Ok(());
    }
    let more = left.len().saturating_sub(NAMED);
    let more = (more > 0).then(|| format!("and {more} more")).into_iter();
    let named: Vec<String> = left.iter().take(NAMED).map(Unsettled::to_string).chain(more).collect();
    let message = format!(
        "this key still has money on a chain, which no other key can move: {}; end that first, or leave it with --force",
        named.join("; ")
    );
    Err(Exit::new(exit::FAILED, message))
}

fn rotate(context: &Context, passphrase: &Source, force: bool) -> Result<(), Exit> {
    let (id, encrypted) = identity::public(&context.home)?;
    let network = Config::load(&context.home, Partial::default())?.network;
    // A node that runs would go on with the old key. Holding its socket keeps one from starting, too.
    let _alone = Control::bind(&context.home)
        .map_err(|error| Exit { message: format!("the key can't be rotated now: {error}"), ..Exit::from(error) })?;
    if !force {
        nothing_left(context, &id)?;
    }
    let asked = if encrypted { Some(passphrase.ask("the key file")?) } else { None };
    let old = identity::load_with(&context.home, || Ok(asked.clone().unwrap_or_default()))?;
    let rotated = identity::rotate(&context.home, &old, asked.as_ref().map(|text| text.as_str()), &network, clock::now())?;
    let report = RotationReport::new(&rotated.statement);
    if context.json {
        return context.print_json(&report);
    }
    context.print(report.statement);
    context.note(format!(
        "the key is now {}; the old one is kept in {}; above is the statement that both signed; make a new backup",
        report.new,
        rotated.backup.display()
    ));
    Ok(())
}

/// What the commands that change the key file say.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeyFileReport {
    /// The node id.
    #[schemars(with = "String")]
    id: NodeId,
    /// The file that was written.
    file: Option<PathBuf>,
    /// The address of its wallet on Solana, in base58; absent if no key of one is in the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    solana: Option<String>,
}

impl Context {
    fn tell(&self, id: &NodeId, file: &Path) -> Result<(), Exit> {
        self.tell_both(id, None, file)
    }

    fn tell_both(&self, id: &NodeId, wallet: Option<SolanaAddress>, file: &Path) -> Result<(), Exit> {
        if self.json {
            let solana = wallet.map(|address| address.to_string());
            return self.print_json(&KeyFileReport { id: *id, file: Some(file.into()), solana });
        }
        self.print(id.to_string());
        Ok(())
    }

    /// The key of this home, which must exist. Whoever has encrypted it is asked.
    pub(super) fn key(&self) -> Result<NodeKey, Exit> {
        Ok(identity::load_with(&self.home, || self.passphrase().ask(THIS_KEY))?)
    }

    /// As [`Context::key`], made if there is none: then it is told, as a mistyped home would otherwise be another node unnoticed.
    pub(super) fn key_or_new(&self, config: &Config) -> Result<NodeKey, Exit> {
        self.may_make_key()?;
        let is_new = !self.home.join(KEY_FILE).exists();
        let key = identity::init_with(&self.home, || Source::new(config.passphrase_file.clone()).ask(THIS_KEY))?;
        if is_new {
            let (id, home) = (key.id(), self.home.display());
            self.note(format!("made a new key, of node {id}, in {home}; if you have one elsewhere, name its --home"));
        }
        Ok(key)
    }

    /// Where the configuration says that passphrases are. One that can't be used says nothing; whoever needs it tells why.
    fn passphrase(&self) -> Source {
        let config = Config::load(&self.home, Partial::default());
        Source::new(config.ok().and_then(|config| config.passphrase_file))
    }
}

impl Context {
    /// A node may run here with a key from elsewhere: another one in its home would not be its, and look as if it were.
    pub(super) fn may_make_key(&self) -> Result<(), Exit> {
        if self.home.join(KEY_FILE).exists() || Client::connect(&self.home).is_none() {
            return Ok(());
        }
        let text = format!(
            "a node runs in {} with a key that is not there (`infernet key show` tells which), and another would not be its: stop the node, or name another --home",
            self.home.display()
        );
        Err(Exit::new(exit::CONFIG, text))
    }
}

/// The same sentence wherever a node is needed.
impl Exit {
    pub(super) fn not_running(home: &std::path::Path) -> Self {
        let text = format!("no node runs in {}; start it with `infernet start`", home.display());
        Exit::new(exit::NOT_RUNNING, text)
    }
}
