//! A Solana cluster in this process: **LiteSVM**, which is Solana's own runtime with its token programs, behind the JSON-RPC that the
//! node speaks. Signatures and blockhashes are checked.
//!
//! What runs a transaction is real; **what makes blocks is not**. LiteSVM has one state and no votes: [`Cluster`] counts blocks by hand
//! or on a clock, gives each a blockhash that dies after 150 of them as on the real chain, and calls a block confirmed when one is on
//! top of it and finalized when 32 are. Nothing is ever taken back. A transaction lands in the block in which it arrives.
//!
//! [`Cluster::node`] gives any number of endpoints on it, and each can be made to misbehave ([`Faults`]).

mod node;

pub use node::{Faults, Node};

use infernet_node::settlement::solana::{
    key::SolanaKey,
    transaction::{Address, Asset, TxSignature, token_account},
};
use infernet_wire::hash::sha256;
use litesvm::LiteSVM;
use solana_sdk::{
    account::Account,
    hash::Hash,
    instruction::Instruction,
    message::Message,
    program_pack::Pack,
    pubkey::Pubkey,
    signature::{Keypair, Signer},
    transaction::{Transaction, VersionedTransaction},
};
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_token_interface::{instruction as token, state::Mint};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Blocks in which a blockhash is taken after its own (`MAX_PROCESSING_AGE`).
const VALID_BLOCKS: u64 = 150;
/// Blocks on top of one that is final.
const FINAL_DEPTH: u64 = 32;
/// Slots that went by without a block: as on the real chain, a slot is not a height.
const SKIPPED_SLOTS: u64 = 1_000;
/// Transactions that LiteSVM remembers, to refuse them the second time: more than any test makes.
const HISTORY: usize = 4_096;
/// Lamports in one SOL.
const SOL: u64 = 1_000_000_000;

/// What can't be done on the cluster.
#[derive(Debug, thiserror::Error)]
pub enum SvmError {
    /// A transaction was refused.
    #[error("the cluster refuses: {0}")]
    Refused(String),
    /// There is no endpoint.
    #[error("can't listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// A transaction in a block.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Its name.
    pub signature: TxSignature,
    /// Its bytes.
    pub raw: Vec<u8>,
    /// The height of its block.
    pub height: u64,
    /// Why it did nothing.
    pub error: Option<String>,
    /// Compute units that it took.
    pub units: u64,
    /// What it cost, in lamports.
    pub fee: u64,
}

struct State {
    svm: LiteSVM,
    /// Of the newest block.
    height: u64,
    landed: Vec<Landed>,
    /// Taken by a node that does not pass them on yet.
    held: Vec<Vec<u8>>,
    /// Pays for what tests need.
    faucet: Keypair,
}

/// A cluster; a handle to it, cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

/// Makes blocks until it is dropped.
pub struct Clock(tokio::task::AbortHandle);

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// A cluster some hundred blocks old.
    pub fn new() -> Self {
        let svm = LiteSVM::new().with_transaction_history(HISTORY);
        let faucet = Keypair::new_from_array([0xfa; 32]);
        let state = State { svm, height: 200, landed: Vec::new(), held: Vec::new(), faucet };
        let cluster = Cluster { state: Arc::new(Mutex::new(state)) };
        let faucet = Address(cluster.lock().faucet.pubkey().to_bytes());
        cluster.airdrop(&faucet, 100_000 * SOL);
        cluster
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of its first block.
    pub fn genesis(&self) -> Address {
        Address(blockhash(0))
    }

    /// The height of the newest block.
    pub fn height(&self) -> u64 {
        self.lock().height
    }

    /// Makes blocks.
    pub fn advance(&self, blocks: u64) {
        self.lock().height += blocks;
    }

    /// Makes `blocks` every so often, until what is returned is dropped.
    pub fn tick(&self, blocks: u64, every: Duration) -> Clock {
        let cluster = self.clone();
        let ticking = tokio::spawn(async move {
            let mut timer = tokio::time::interval(every);
            loop {
                timer.tick().await;
                cluster.advance(blocks);
            }
        });
        Clock(ticking.abort_handle())
    }

    /// What is in its blocks, oldest first.
    pub fn landed(&self) -> Vec<Landed> {
        self.lock().landed.clone()
    }

    /// Passes on what nodes have held back; returns what became of each.
    pub fn release(&self) -> Vec<Result<TxSignature, String>> {
        let mut state = self.lock();
        let held = std::mem::take(&mut state.held);
        held.iter().map(|raw| state.land(raw)).collect()
    }

    /// Makes SOL for a wallet, in lamports.
    pub fn airdrop(&self, wallet: &Address, lamports: u64) {
        let mut state = self.lock();
        let key = Pubkey::new_from_array(wallet.0);
        let has = state.svm.get_account(&key).unwrap_or_else(|| Account::new(0, 0, &Pubkey::default()));
        let account = Account { lamports: has.lamports.saturating_add(lamports), ..has };
        // A wallet is no account that anything could refuse.
        let _ = state.svm.set_account(key, account);
    }

    /// What an account has, in lamports.
    pub fn lamports(&self, account: &Address) -> u64 {
        self.lock().svm.get_balance(&Pubkey::new_from_array(account.0)).unwrap_or_default()
    }

    /// Tokens that a wallet has, in the smallest unit.
    pub fn tokens(&self, mint: &Address, wallet: &Address) -> u64 {
        self.lock().held_by(&token_account(wallet, mint)).unwrap_or_default()
    }

    /// A new token such as USDC, of which nobody has any.
    pub fn token(&self, seed: u8, decimals: u8) -> Result<Asset, SvmError> {
        let mint = Keypair::new_from_array([seed; 32]);
        let mut state = self.lock();
        let faucet = state.faucet.pubkey();
        let rent = state.svm.minimum_balance_for_rent_exemption(Mint::LEN);
        let (size, program) = (Mint::LEN as u64, spl_token_interface::id());
        let make = solana_system_interface::instruction::create_account(&faucet, &mint.pubkey(), rent, size, &program);
        let begin = token::initialize_mint2(&program, &mint.pubkey(), &faucet, None, decimals).map_err(refused)?;
        state.act(&[make, begin], Some(&mint))?;
        Ok(Asset::Token { mint: Address(mint.pubkey().to_bytes()), decimals })
    }

    /// Gives a wallet tokens.
    pub fn give(&self, mint: &Address, wallet: &Address, amount: u64) -> Result<(), SvmError> {
        let mut state = self.lock();
        let (faucet, program) = (state.faucet.pubkey(), spl_token_interface::id());
        let [mint_key, owner, account] = [*mint, *wallet, token_account(wallet, mint)].map(|key| Pubkey::new_from_array(key.0));
        let make = create_associated_token_account_idempotent(&faucet, &owner, &mint_key, &program);
        let give = token::mint_to(&program, &mint_key, &account, &faucet, &[], amount).map_err(refused)?;
        state.act(&[make, give], None)
    }

    /// A wallet with ten SOL and so many tokens.
    pub fn wallet(&self, seed: u8, mint: &Address, tokens: u64) -> Result<SolanaKey, SvmError> {
        let key = SolanaKey::from_bytes(&[seed; 32]);
        self.airdrop(&key.address(), 10 * SOL);
        self.give(mint, &key.address(), tokens)?;
        Ok(key)
    }
}

fn refused(error: impl std::fmt::Display) -> SvmError {
    SvmError::Refused(error.to_string())
}

/// Of the block at that height.
fn blockhash(height: u64) -> [u8; 32] {
    sha256(&[b"infernet testnet block ", &height.to_be_bytes()[..]].concat()).0
}

impl State {
    /// The height of the block with this hash, if a transaction over it may still land.
    fn age_of(&self, hash: &Hash) -> Option<u64> {
        let oldest = self.height.saturating_sub(VALID_BLOCKS);
        (oldest..=self.height).find(|height| blockhash(*height) == hash.to_bytes())
    }

    /// The height that blocks have at a commitment.
    fn at(&self, commitment: &str) -> u64 {
        match commitment {
            "processed" => self.height,
            "confirmed" => self.height - 1,
            _ => self.height - FINAL_DEPTH,
        }
    }

    fn slot(height: u64) -> u64 {
        height + SKIPPED_SLOTS
    }

    /// Looks at a transaction as a node does before it passes it on, and puts it into the newest block.
    fn land(&mut self, raw: &[u8]) -> Result<TxSignature, String> {
        let transaction = self.checked(raw)?;
        if let Err(failed) = self.svm.simulate_transaction(transaction.clone()) {
            return Err(format!("Transaction simulation failed: {}", failed.err));
        }
        self.execute(raw, transaction)
    }

    /// Reads it, and lets LiteSVM take its blockhash for the newest, if it is recent.
    fn checked(&mut self, raw: &[u8]) -> Result<VersionedTransaction, String> {
        let transaction: VersionedTransaction = bincode::deserialize(raw).map_err(|_| "failed to deserialize".to_owned())?;
        let hash = *transaction.message.recent_blockhash();
        self.age_of(&hash).ok_or("Transaction simulation failed: Blockhash not found")?;
        self.svm.set_latest_blockhash(hash);
        Ok(transaction)
    }

    fn execute(&mut self, raw: &[u8], transaction: VersionedTransaction) -> Result<TxSignature, String> {
        let result = self.svm.send_transaction(transaction);
        let (meta, error) = match result {
            Ok(meta) => (meta, None),
            // One that failed in a block has paid its fee; one that can be in none has not.
            Err(failed) if failed.meta.fee > 0 => (failed.meta, Some(failed.err.to_string())),
            Err(failed) => return Err(failed.err.to_string()),
        };
        let signature = TxSignature(meta.signature.into());
        let (units, fee) = (meta.compute_units_consumed, meta.fee);
        self.landed.push(Landed { signature, raw: raw.to_vec(), height: self.height, error, units, fee });
        Ok(signature)
    }

    /// Does something that tests need, paid by the faucet.
    fn act(&mut self, instructions: &[Instruction], also: Option<&Keypair>) -> Result<(), SvmError> {
        let message = Message::new(instructions, Some(&self.faucet.pubkey()));
        let signers: Vec<&Keypair> = [&self.faucet].into_iter().chain(also).collect();
        let transaction = Transaction::new(&signers, message, Hash::new_from_array(blockhash(self.height)));
        self.svm.set_latest_blockhash(transaction.message.recent_blockhash);
        self.svm.send_transaction(transaction).map(drop).map_err(|failed| refused(failed.err))
    }

    /// What an account of tokens holds.
    fn held_by(&self, account: &Address) -> Option<u64> {
        let account = self.svm.get_account(&Pubkey::new_from_array(account.0))?;
        spl_token_interface::state::Account::unpack(&account.data).ok().map(|account| account.amount)
    }
}
