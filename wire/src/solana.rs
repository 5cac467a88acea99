//! What Solana adds: its addresses and signatures, how a key there is bound to a node, and what a prepaid tranche is. The only file
//! that names `ed25519_dalek`.
//!
//! Solana's keys are ed25519, so a node has one more for it. [`SolanaBinding`] is that key's statement "I belong to this node on this
//! network"; the other half is the node's own signature over the message that carries it. Whoever pays, or is paid, checks both. A
//! payee may name a cold address, whose key is nowhere near: then the ad's signature alone says where its money goes.
//!
//! **A tranche** is money that a buyer pays a worker before its jobs, in a token of dollars, or in SOL at a rate that both have signed:
//! the worker in its ad, the buyer in the transaction, whose memo covers it. The two count theirs: 1, 2, 3 … Its [`tranche_hash`] stands in
//! the chain beside the transfer, so that a transfer pays one tranche of one buyer to one worker on one network, and no other. What
//! either side can lose by the other is one tranche.

use crate::{
    envelope::{Refusal, field},
    hash,
    id::{Hash, NodeId, bytes_id},
    limits,
    money::MicroUsd,
    topic::NetworkId,
};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

bytes_id!(
    /// An account on Solana; of a wallet, its ed25519 public key. Shown in base58.
    SolanaAddress, 32
);
bytes_id!(
    /// An ed25519 signature; a transaction is named by its payer's. Shown in base58.
    SolanaSignature, 64
);

/// Text that is not what Solana writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSolanaText {
    /// No address.
    #[error("{0:?} is not a Solana address: write its 32 bytes in base58, as wallets show it")]
    Address(String),
    /// No signature.
    #[error("{0:?} is not a Solana signature: write its 64 bytes in base58, as explorers show it")]
    Signature(String),
}

macro_rules! base58_text {
    ($name:ident, $variant:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&bs58::encode(&self.0).into_string())
            }
        }

        impl FromStr for $name {
            type Err = BadSolanaText;

            fn from_str(text: &str) -> Result<Self, BadSolanaText> {
                // Base58 takes quadratic time, and nothing longer can fit.
                let fits = text.len() <= limits::MAX_BASE58_BYTES;
                let read = fits.then(|| bs58::decode(text).into_vec().ok()).flatten();
                let bytes = read.and_then(|bytes| bytes.try_into().ok());
                bytes.map($name).ok_or_else(|| BadSolanaText::$variant(text.chars().take(limits::MAX_BASE58_BYTES).collect()))
            }
        }
    };
}

base58_text!(SolanaAddress, Address);
base58_text!(SolanaSignature, Signature);

/// Of a SOL.
const SOL_DECIMALS: u8 = 9;
/// What [`Coin::Sol`]'s rate may be at most: a SOL that is worth a tenth of a cent.
pub const MAX_SOL_RATE: u64 = 1_000_000_000_000;

/// Whether a rate can be one.
pub fn check_rate(rate: u64) -> bool {
    (1..=MAX_SOL_RATE).contains(&rate)
}

impl SolanaAddress {
    /// SOL where a mint is named: the address of the program that moves it, which can be no mint.
    pub const SOL: Self = SolanaAddress([0; 32]);

    /// Whether somebody can have its key: a point of the curve, and none of the few weak ones. Accounts of programs, such as those
    /// that hold a wallet's tokens, are off the curve: what is sent to one of these as if it was a wallet may be lost.
    pub fn is_wallet(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// Checks that this key signed `message`. About 50 µs.
    fn verify(&self, message: &Hash, signature: &SolanaSignature) -> Result<(), BadBinding> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadBinding::NoWallet(*self))?;
        // Strict: one signature has one meaning, and weak keys sign nothing.
        key.verify_strict(message.as_bytes(), &Signature::from_bytes(&signature.0)).map_err(|_| BadBinding::Signature(*self))
    }
}

/// Why a key on Solana is not a node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBinding {
    /// Nobody can have signed for it.
    #[error("{0} is no wallet on Solana, but an account of a program, or no key at all")]
    NoWallet(SolanaAddress),
    /// The signature is another's, or over something else.
    #[error("the key {0} did not sign that it belongs to that node on this network")]
    Signature(SolanaAddress),
}

/// A key's statement that it belongs to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolanaBinding {
    /// The key.
    pub address: SolanaAddress,
    /// Its signature over [`SolanaBinding::message`].
    pub proof: SolanaSignature,
}

impl SolanaBinding {
    /// What the key `address` signs to belong to `node`. 32 bytes, which no transaction is: a signature over one can't pass as
    /// the other.
    pub fn message(network: &NetworkId, node: &NodeId, address: &SolanaAddress) -> Hash {
        hash::tagged("infernet/solana-binding/1", &[network.as_str().as_bytes(), node.as_bytes(), &address.0])
    }

    /// Checks that the key belongs to `node` on `network`.
    pub fn verify(&self, network: &NetworkId, node: &NodeId) -> Result<(), BadBinding> {
        self.address.verify(&Self::message(network, node, &self.address), &self.proof)
    }
}

/// In what tranches are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coin {
    /// A token, worth a dollar for each of its whole units, such as USDC.
    Token {
        /// Which.
        mint: SolanaAddress,
        /// The mint's decimals.
        decimals: u8,
    },
    /// SOL.
    Sol {
        /// Lamports for a dollar: for a micro-USD they would be six or seven, which is no price.
        rate: u64,
    },
}

/// Micro-USD in a dollar.
const DOLLAR: u128 = 1_000_000;

impl Coin {
    /// `amount` in its smallest unit, rounded up; `None` if that does not fit in 64 bits.
    pub fn units(&self, amount: MicroUsd) -> Option<u64> {
        match self {
            Coin::Token { decimals, .. } => units(amount, *decimals),
            Coin::Sol { rate } => u64::try_from((u128::from(amount.0) * u128::from(*rate)).div_ceil(DOLLAR)).ok(),
        }
    }

    /// What `units` of it are worth, rounded down.
    pub fn worth(&self, units: u64) -> MicroUsd {
        match self {
            Coin::Token { decimals, .. } => worth(units, *decimals),
            Coin::Sol { rate } => {
                let micro = (u128::from(units) * DOLLAR).checked_div((*rate).into()).unwrap_or_default();
                MicroUsd(u64::try_from(micro).unwrap_or(u64::MAX))
            }
        }
    }

    /// What is agreed besides the coin itself; `None` for a token, of which a dollar is a dollar.
    pub fn rate(&self) -> Option<u64> {
        match self {
            Coin::Token { .. } => None,
            Coin::Sol { rate } => Some(*rate),
        }
    }
}

impl fmt::Display for Coin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Coin::Token { mint, decimals } => write!(f, "the token {mint} with {decimals} decimals"),
            Coin::Sol { rate } => write!(f, "SOL at {rate} lamports for a dollar"),
        }
    }
}

/// How a worker wants to be paid on Solana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolanaTerms {
    /// The wallet that is paid.
    pub address: SolanaAddress,
    /// Its half of the [`SolanaBinding`], unless it is a cold address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<SolanaSignature>,
    /// The token, see [`Coin::Token`]; [`SolanaAddress::SOL`] for SOL.
    pub mint: SolanaAddress,
    /// The mint's decimals; nine for SOL.
    pub decimals: u8,
    /// What the worker would like to be paid at once: less costs more in fees, more is a greater risk for the buyer.
    pub tranche: MicroUsd,
    /// Lamports for a dollar, if it is SOL, see [`Coin::Sol`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<u64>,
}

impl SolanaTerms {
    /// A wallet that is paid in `coin`.
    pub fn new(SolanaBinding { address, proof }: SolanaBinding, coin: Coin, tranche: MicroUsd) -> Self {
        let (mint, decimals) = match coin {
            Coin::Token { mint, decimals } => (mint, decimals),
            Coin::Sol { .. } => (SolanaAddress::SOL, SOL_DECIMALS),
        };
        SolanaTerms { address, proof: Some(proof), mint, decimals, tranche, rate: coin.rate() }
    }

    /// In what it is paid.
    pub fn coin(&self) -> Coin {
        self.rate.map_or(Coin::Token { mint: self.mint, decimals: self.decimals }, |rate| Coin::Sol { rate })
    }

    /// Checks what can be checked without knowing whose they are.
    pub fn check(&self) -> Result<(), Refusal> {
        let is_sol = (self.mint, self.decimals) == (SolanaAddress::SOL, SOL_DECIMALS);
        field::ensure(self.rate.is_none_or(|rate| is_sol && check_rate(rate)), "solana.rate")?;
        field::ensure(self.rate.is_some() || self.mint != SolanaAddress::SOL, "solana.mint")?;
        field::ensure(self.decimals <= limits::MAX_SOLANA_DECIMALS, "solana.decimals")?;
        field::ensure((1..=limits::MAX_SOLANA_TRANCHE).contains(&self.tranche.0), "solana.tranche")?;
        field::ensure(self.address != self.mint, "solana.address")
    }

    /// Checks that the wallet that is paid can have an owner, and is `worker`'s if it says so.
    pub fn verify(&self, network: &NetworkId, worker: &NodeId) -> Result<(), BadBinding> {
        if !self.address.is_wallet() {
            return Err(BadBinding::NoWallet(self.address));
        }
        let binding = |proof| SolanaBinding { address: self.address, proof };
        self.proof.map_or(Ok(()), |proof| binding(proof).verify(network, worker))
    }
}

/// `amount` in the smallest unit of a token of dollars with these decimals, rounded up; `None` if that does not fit in 64 bits.
pub fn units(amount: MicroUsd, decimals: u8) -> Option<u64> {
    match decimals.checked_sub(6) {
        Some(more) => amount.0.checked_mul(10u64.checked_pow(more.into())?),
        None => Some(amount.0.div_ceil(10u64.checked_pow(6 - u32::from(decimals))?)),
    }
}

/// What `units` of the smallest unit of a token of dollars with these decimals are worth, rounded down.
pub fn worth(units: u64, decimals: u8) -> MicroUsd {
    let power = |n: u8| 10u64.checked_pow(n.into());
    MicroUsd(match decimals.checked_sub(6) {
        Some(more) => power(more).map_or(0, |scale| units / scale),
        None => power(6 - decimals).and_then(|scale| units.checked_mul(scale)).unwrap_or(u64::MAX),
    })
}

/// What stands in the chain beside the transfer that pays a tranche; `rate` is that of its [`Coin`], so its buyer has signed it.
pub fn tranche_hash(
    network: &NetworkId,
    buyer: &NodeId,
    worker: &NodeId,
    number: u64,
    amount: MicroUsd,
    rate: Option<u64>,
) -> Hash {
    let (number, amount, rate) = (number.to_be_bytes(), amount.0.to_be_bytes(), rate.map(u64::to_be_bytes));
    let parts: [&[u8]; 5] = [network.as_str().as_bytes(), buyer.as_bytes(), worker.as_bytes(), &number, &amount];
    let parts: Vec<&[u8]> = parts.into_iter().chain(rate.as_ref().map(<[u8; 8]>::as_slice)).collect();
    hash::tagged("infernet/solana-tranche/1", &parts)
}

/// What a buyer shows its worker of a tranche it has paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tranche {
    /// Which: 1, 2, 3 … between these two.
    pub number: u64,
    /// How much.
    pub amount: MicroUsd,
    /// The transaction that pays it.
    pub transaction: SolanaSignature,
    /// Whose key paid.
    pub payer: SolanaBinding,
    /// At how many lamports for a dollar, if it is SOL, as the worker's ad said then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<u64>,
}

impl Tranche {
    /// Checks what can be checked without knowing whose it is.
    pub fn check(&self) -> Result<(), Refusal> {
        field::ensure(self.number > 0, "tranche.number")?;
        field::ensure(self.rate.is_none_or(check_rate), "tranche.rate")?;
        field::ensure(self.amount > MicroUsd(0), "tranche.amount")
    }

    /// What must stand beside its transfer.
    pub fn hash(&self, network: &NetworkId, buyer: &NodeId, worker: &NodeId) -> Hash {
        tranche_hash(network, buyer, worker, self.number, self.amount, self.rate)
    }
}
