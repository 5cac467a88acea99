//! What goes over Solana's wire: an order of transfers becomes one signed transaction, each transfer followed by its memo.
//!
//! A transfer pays a wallet in an SPL token (`transfer_checked` into its associated token account, which is made if it is missing)
//! or in SOL. Its memo is [`memo`] of a tranche's or receipt's hash, and stands **right after** it: so in a batch it is clear which
//! memo belongs to which transfer. The payer signs, and pays the fee.

pub use infernet_wire::solana::{SolanaAddress as Address, SolanaSignature as TxSignature};

use super::key::SolanaKey;
use infernet_wire::solana::Coin;
use serde::{Deserialize, Serialize};
use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_sdk::{
    hash::Hash, instruction::Instruction, message::Message, pubkey::Pubkey, sanitize::Sanitize, signature::Signer,
    transaction::Transaction,
};
use spl_associated_token_account_interface::{
    address::get_associated_token_address, instruction::create_associated_token_account_idempotent,
};
use spl_token_interface::instruction::transfer_checked;

/// The longest transaction that validators take (`PACKET_DATA_SIZE`): 1280 bytes of IPv6, less 48 of headers.
pub const MAX_BYTES: usize = 1232;
/// Compute units of what comes before the transfers: 150 for each of two instructions.
const BASE_UNITS: u32 = 1_000;
/// Compute units of one transfer with its memo. Measured on Solana's own runtime (`testnet/tests/solana/units.rs`): 49 439 with an
/// account that has to be made, 40 351 without, 28 459 in SOL, of which the memo is nearly all. An account's address takes 1 500 more for
/// each number that has to be tried for it, so a million payments have one that takes 30 000 more. Too much costs more of the priority
/// fee, too little fails the transaction.
const TRANSFER_UNITS: u32 = 80_000;

/// An account's key, as the SDK has it.
pub(super) fn key(address: &Address) -> Pubkey {
    Pubkey::new_from_array(address.0)
}

/// Where `wallet` holds tokens of `mint`.
pub fn token_account(wallet: &Address, mint: &Address) -> Address {
    Address(get_associated_token_address(&key(wallet), &key(mint)).to_bytes())
}

/// A block's hash, over which a transaction is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blockhash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// In what is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asset {
    /// An SPL token, such as USDC. Token-2022 is another program, whose tokens may keep a part: it is not spoken.
    Token {
        /// Which.
        mint: Address,
        /// Decimals of the mint; the chain refuses others.
        decimals: u8,
    },
    /// SOL, in lamports.
    Sol,
}

impl From<Coin> for Asset {
    fn from(coin: Coin) -> Self {
        match coin {
            Coin::Token { mint, decimals } => Asset::Token { mint, decimals },
            Coin::Sol { .. } => Asset::Sol,
        }
    }
}

/// One transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The wallet that is paid.
    pub to: Address,
    /// In what.
    pub asset: Asset,
    /// How much, in the asset's smallest unit.
    pub amount: u64,
    /// The hash of the tranche or receipt that is paid.
    #[serde(with = "serde_bytes")]
    pub hash: [u8; 32],
}

/// The text in the chain that says what a transfer pays.
pub fn memo(hash: &[u8; 32]) -> String {
    format!("infernet:1:{}", hex::encode(hash))
}

/// Why there is no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing is to be paid.
    #[error("there is no transfer to make")]
    Empty,
    /// A transfer of nothing.
    #[error("transfer {0} pays nothing")]
    NoAmount(usize),
    /// Too many at once.
    #[error("the transaction would take {found} bytes, more than {MAX_BYTES}: pay fewer at once")]
    TooLong {
        /// Its bytes.
        found: usize,
    },
}

/// What one transaction is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// In this order.
    pub transfers: Vec<Transfer>,
    /// What a million compute units may cost above the base fee, in lamports ("micro-lamports per unit"): who pays more goes first.
    pub unit_price: u64,
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Its name.
    pub signature: TxSignature,
    /// Its bytes.
    pub raw: Vec<u8>,
}

impl Order {
    /// The transaction, signed by its payer.
    pub fn sign(&self, payer: &SolanaKey, blockhash: &Blockhash) -> Result<Signed, OrderError> {
        let payer = payer.keypair();
        let instructions = self.instructions(&payer.pubkey())?;
        let message = Message::new(&instructions, Some(&payer.pubkey()));
        let transaction = Transaction::new(&[payer], message, Hash::new_from_array(blockhash.0));
        let raw = to_bytes(&transaction);
        if raw.len() > MAX_BYTES {
            return Err(OrderError::TooLong { found: raw.len() });
        }
        let signature = transaction.signatures.first().expect("the payer signed");
        Ok(Signed { signature: TxSignature((*signature).into()), raw })
    }

    /// Whether it is one transaction of `payer` that validators take.
    pub fn fits(&self, payer: &Address) -> bool {
        let payer = key(payer);
        let unsigned = self.instructions(&payer).map(|all| Transaction::new_unsigned(Message::new(&all, Some(&payer))));
        unsigned.is_ok_and(|transaction| to_bytes(&transaction).len() <= MAX_BYTES)
    }

    fn units(&self) -> u32 {
        let count = u32::try_from(self.transfers.len()).unwrap_or(u32::MAX);
        TRANSFER_UNITS.saturating_mul(count).saturating_add(BASE_UNITS)
    }

    /// What its priority fee is, in lamports.
    pub fn priority_fee(&self) -> u64 {
        let fee = (u128::from(self.unit_price) * u128::from(self.units())).div_ceil(1_000_000);
        u64::try_from(fee).unwrap_or(u64::MAX)
    }

    fn instructions(&self, payer: &Pubkey) -> Result<Vec<Instruction>, OrderError> {
        if self.transfers.is_empty() {
            return Err(OrderError::Empty);
        }
        if let Some(at) = self.transfers.iter().position(|transfer| transfer.amount == 0) {
            return Err(OrderError::NoAmount(at));
        }
        let mut all = vec![ComputeBudgetInstruction::set_compute_unit_limit(self.units())];
        if self.unit_price > 0 {
            all.push(ComputeBudgetInstruction::set_compute_unit_price(self.unit_price));
        }
        self.transfers.iter().for_each(|transfer| all.extend(transfer.instructions(payer)));
        Ok(all)
    }
}

impl Transfer {
    fn instructions(&self, payer: &Pubkey) -> Vec<Instruction> {
        let to = key(&self.to);
        let mut all = match &self.asset {
            Asset::Sol => vec![solana_system_interface::instruction::transfer(payer, &to, self.amount)],
            Asset::Token { mint, decimals } => {
                let (mint, program) = (key(mint), spl_token_interface::id());
                let [source, destination] = [payer, &to].map(|wallet| get_associated_token_address(wallet, &mint));
                let transfer = transfer_checked(&program, &source, &mint, &destination, payer, &[], self.amount, *decimals);
                vec![
                    create_associated_token_account_idempotent(payer, &to, &mint, &program),
                    transfer.expect("the program is the token program"),
                ]
            }
        };
        // Unsigned: the payer signs the whole.
        let memo = memo(&self.hash);
        all.push(spl_memo_interface::instruction::build_memo(&spl_memo_interface::v3::id(), memo.as_bytes(), &[]));
        all
    }
}

fn to_bytes(transaction: &Transaction) -> Vec<u8> {
    bincode::serialize(transaction).expect("a transaction of our own is plain data")
}

/// Reads a transaction, within [`MAX_BYTES`] and without anything behind it. `None` if it is none, or of a newer version.
pub(super) fn from_bytes(raw: &[u8]) -> Option<Transaction> {
    if raw.len() > MAX_BYTES {
        return None;
    }
    let transaction: Transaction = bincode::deserialize(raw).ok()?;
    // What is not read back the same is not ours.
    (bincode::serialize(&transaction).ok()? == raw && transaction.sanitize().is_ok()).then_some(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINT: Asset = Asset::Token { mint: Address([8; 32]), decimals: 6 };

    fn transfer(n: u8, asset: Asset) -> Transfer {
        Transfer { to: Address([n; 32]), asset, amount: 5_000, hash: [n; 32] }
    }

    fn sign(transfers: Vec<Transfer>, unit_price: u64) -> Result<Signed, OrderError> {
        Order { transfers, unit_price }.sign(&SolanaKey::from_bytes(&[3; 32]), &Blockhash([4; 32]))
    }

    #[test]
    fn an_order_is_the_same_bytes_each_time_and_another_blockhash_another_signature() {
        let order = Order { transfers: vec![transfer(1, MINT), transfer(2, Asset::Sol)], unit_price: 7 };
        let sign = |hash| order.sign(&SolanaKey::from_bytes(&[3; 32]), &Blockhash([hash; 32])).expect("signed");
        assert_eq!(sign(4), sign(4));
        assert_ne!(sign(4).signature, sign(5).signature);
        let read = from_bytes(&sign(4).raw).expect("a transaction");
        assert!(read.verify().is_ok());
        let mut longer = sign(4).raw;
        longer.push(0);
        assert_eq!(from_bytes(&longer), None);
    }

    #[test]
    fn the_priority_fee_is_in_the_bytes_and_only_if_it_is_set() {
        let price = [&[3][..], &77_777u64.to_le_bytes()].concat();
        let has = |signed: Signed| signed.raw.windows(price.len()).any(|window| window == price);
        assert!(has(sign(vec![transfer(1, MINT)], 77_777).expect("signed")));
        assert!(!has(sign(vec![transfer(1, MINT)], 0).expect("signed")));
    }

    #[test]
    fn a_batch_fits_a_packet_or_is_refused() {
        let batch = |count: u8, asset| sign((1..=count).map(|n| transfer(n, asset)).collect(), 1);
        let most = |asset| (1..30).take_while(|count| batch(*count, asset).is_ok()).last();
        assert_eq!((most(MINT), most(Asset::Sol)), (Some(5), Some(7)));
        let payer = SolanaKey::from_bytes(&[3; 32]).address();
        let fits =
            |count: u8| Order { transfers: (1..=count).map(|n| transfer(n, MINT)).collect(), unit_price: 1 }.fits(&payer);
        assert_eq!([0, 1, 5, 6].map(fits), [false, true, true, false]);
        assert!(matches!(batch(20, MINT), Err(OrderError::TooLong { found }) if found > MAX_BYTES));
        assert_eq!(sign(vec![], 0), Err(OrderError::Empty));
        let nothing = Transfer { amount: 0, ..transfer(2, MINT) };
        assert_eq!(sign(vec![transfer(1, MINT), nothing], 0), Err(OrderError::NoAmount(1)));
    }
}
