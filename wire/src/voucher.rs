//! Vouchers: a buyer's signed promise of a channel's total so far, of which only the highest ever matters.
//!
//! A voucher is **cumulative** over its channel: one that says 900 covers all that was promised before, for whatever job. So a
//! repeated or older one is worth nothing more, one that is lost is covered by the next, and a chain sees one transaction for any
//! number of jobs. It is EIP-712 typed data, signed by the buyer's own node key, so that the contract `Channels` can check it; a
//! wallet would show its user the same fields. That is why it is no envelope: see [`crate::evm::typed_digest`].
//!
//! Off-chain, on the ledger between two nodes, the chain is 0, the contract is nobody, and amounts are micro-USD; the same bytes are
//! then evidence of a debt, and no contract anywhere has the domain they were signed in.
//!
//! A reader goes through [`UnverifiedVoucher::decode`] (size, canonical form, fields) → [`UnverifiedVoucher::verify`] (signature) →
//! [`SignedVoucher`]. Whether the channel is the agreed one, its deposit suffices, and the amount is what was delivered, is for the
//! receiver to judge.

use crate::{
    codec,
    envelope::Refusal,
    evm::{EvmAddress, address_word, amount, keccak, typed_digest, word},
    hash,
    id::{ChannelId, EvmSignature, JobId, NodeId},
    key::{self, NodeKey, RecoverError, Signer},
    limits,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use std::{ops::Deref, sync::LazyLock};

/// The chain id of vouchers that no chain settles.
pub const LEDGER: u64 = 0;
/// The largest amount: what the contract keeps, 96 bits. It is 79 billion coins of 18 decimals.
pub const MAX_AMOUNT: u128 = (1 << 96) - 1;

static VOUCHER: LazyLock<[u8; 32]> = LazyLock::new(|| keccak(&[b"Voucher(bytes32 channel,bytes16 job,uint96 amount)"]));
static CLOSE: LazyLock<[u8; 32]> = LazyLock::new(|| keccak(&[b"Close(bytes32 channel,uint96 amount)"]));

/// What a buyer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// The chain, as EIP-155 numbers it; [`LEDGER`] for none.
    pub chain: u64,
    /// The contract that holds the deposit; nobody for the ledger.
    pub contract: EvmAddress,
    /// The channel.
    pub channel: ChannelId,
    /// The job that was paid for last: for the books, it does not change what is owed.
    pub job: JobId,
    /// All that was promised on this channel so far, in the token's smallest unit; micro-USD on the ledger.
    #[serde(with = "amount")]
    pub amount: u128,
}

impl Voucher {
    /// What is signed.
    pub fn digest(&self) -> [u8; 32] {
        let mut job = [0; 32];
        // Fixed bytes are left-aligned, unlike numbers (EIP-712, encodeData).
        job[..16].copy_from_slice(&self.job.0);
        typed_digest(self.chain, &self.contract, &VOUCHER, &[self.channel.0, job, word(self.amount)])
    }

    /// Checks what can be checked without knowing the channel.
    pub fn check(&self) -> Result<(), BadVoucher> {
        let ledger = self.chain == LEDGER;
        if ledger != (self.contract == EvmAddress::ZERO) {
            return Err(BadVoucher::Contract);
        }
        let most = if ledger { u64::MAX.into() } else { MAX_AMOUNT };
        if self.amount > most { Err(BadVoucher::Amount(self.amount)) } else { Ok(()) }
    }
}

/// What both sides sign to close a channel at once, without the wait of an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// The chain.
    pub chain: u64,
    /// The contract.
    pub contract: EvmAddress,
    /// The channel.
    pub channel: ChannelId,
    /// What the seller has then received in total; the rest of the deposit goes back.
    pub amount: u128,
}

impl Close {
    /// What is signed.
    pub fn digest(&self) -> [u8; 32] {
        typed_digest(self.chain, &self.contract, &CLOSE, &[self.channel.0, word(self.amount)])
    }

    /// One side's agreement.
    pub fn sign(&self, key: &NodeKey) -> EvmSignature {
        key.sign_evm(&self.digest())
    }

    /// Checks that `signer` agreed.
    pub fn verify(&self, signature: &EvmSignature, signer: &EvmAddress) -> Result<(), BadVoucher> {
        verify(&self.digest(), signature, signer)
    }
}

/// Why a voucher is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadVoucher {
    /// Not the bytes of a voucher.
    #[error(transparent)]
    Bytes(#[from] Refusal),
    /// A chain without a contract, or a contract without a chain.
    #[error("a voucher names both chain and contract, or neither (the ledger)")]
    Contract,
    /// More than a channel can hold.
    #[error("the amount {0} is more than a channel can hold")]
    Amount(u128),
    /// Whoever signed it, it was not the payer.
    #[error("the voucher is not signed by {payer}, who pays on this channel")]
    Signer {
        /// Who should have.
        payer: EvmAddress,
    },
    /// The signature has a twin.
    #[error("the voucher's signature is refused: its s is in the upper half of the group order (EIP-2)")]
    HighS,
}

fn verify(digest: &[u8; 32], signature: &EvmSignature, payer: &EvmAddress) -> Result<(), BadVoucher> {
    let point = key::recover_compact(digest, signature).map_err(|error| match error {
        RecoverError::HighS => BadVoucher::HighS,
        RecoverError::Bad(_) => BadVoucher::Signer { payer: *payer },
    })?;
    if EvmAddress::of_key(&point) == *payer { Ok(()) } else { Err(BadVoucher::Signer { payer: *payer }) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Repr {
    chain: u64,
    contract: EvmAddress,
    channel: ChannelId,
    job: JobId,
    #[serde(with = "amount")]
    amount: u128,
    signature: EvmSignature,
}

/// A voucher that was signed here, or whose signature was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedVoucher {
    voucher: Voucher,
    signature: EvmSignature,
}

impl Deref for SignedVoucher {
    type Target = Voucher;

    fn deref(&self) -> &Voucher {
        &self.voucher
    }
}

impl SignedVoucher {
    /// Signs a promise to pay.
    pub fn sign(key: &NodeKey, voucher: Voucher) -> Result<Self, BadVoucher> {
        voucher.check()?;
        Ok(SignedVoucher { voucher, signature: key.sign_evm(&voucher.digest()) })
    }

    /// A voucher without a signature, for simulated nodes, which have no such keys: no node takes it. See
    /// [`crate::envelope::SimulatedKey`].
    pub fn simulated(voucher: Voucher) -> Self {
        SignedVoucher { voucher, signature: EvmSignature([0; 64]) }
    }

    /// The same with the bit that the contract needs to find out who signed: a signer may have set it wrong, and the signature is
    /// good nevertheless. `None` if `payer` did not sign it.
    pub fn for_contract(&self, payer: &EvmAddress) -> Option<Self> {
        let digest = self.voucher.digest();
        let mut other = self.signature;
        other.0[32] ^= 0x80;
        let right = [self.signature, other].into_iter().find(|signature| verify(&digest, signature, payer).is_ok())?;
        Some(SignedVoucher { voucher: self.voucher, signature: right })
    }

    /// The signature. Who shows it to the contract takes [`SignedVoucher::for_contract`].
    pub fn signature(&self) -> &EvmSignature {
        &self.signature
    }

    /// The one form in which it is sent and stored.
    pub fn encode(&self) -> Vec<u8> {
        let Voucher { chain, contract, channel, job, amount } = self.voucher;
        codec::encode(&Repr { chain, contract, channel, job, amount, signature: self.signature })
    }
}

/// A voucher as it was read: nothing to act on.
#[derive(Debug, Clone, Copy)]
pub struct UnverifiedVoucher(SignedVoucher);

impl UnverifiedVoucher {
    /// Reads the bytes of [`SignedVoucher::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadVoucher> {
        if bytes.len() > limits::MAX_VOUCHER_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        let repr: Repr = codec::decode(bytes).map_err(|_| Refusal::Malformed)?;
        // A bearer of money has one form: no field that we don't know may ride along.
        if codec::encode(&repr) != bytes {
            return Err(Refusal::NotCanonical.into());
        }
        let Repr { chain, contract, channel, job, amount, signature } = repr;
        let voucher = Voucher { chain, contract, channel, job, amount };
        voucher.check()?;
        Ok(UnverifiedVoucher(SignedVoucher { voucher, signature }))
    }

    /// What it claims to promise, to look up who pays on that channel.
    pub fn claim(&self) -> &Voucher {
        &self.0.voucher
    }

    /// As it was kept by whoever had checked it; for nobody else.
    pub fn as_kept(self) -> SignedVoucher {
        self.0
    }

    /// Checks that the node `payer` signed it, which is known and need not be found out: half of what [`UnverifiedVoucher::verify`]
    /// takes. The bit of the signature that helps to find it out is not looked at: see [`SignedVoucher::for_contract`].
    pub fn verify_by(self, payer: &Signer) -> Result<SignedVoucher, BadVoucher> {
        match payer.verify_compact(&self.0.voucher.digest(), &self.0.signature) {
            Ok(()) => Ok(self.0),
            Err(RecoverError::HighS) => Err(BadVoucher::HighS),
            Err(RecoverError::Bad(_)) => Err(BadVoucher::Signer { payer: payer.id().evm_address() }),
        }
    }

    /// Checks that `payer` signed it. About 60 µs.
    pub fn verify(self, payer: &EvmAddress) -> Result<SignedVoucher, BadVoucher> {
        verify(&self.0.voucher.digest(), &self.0.signature, payer)?;
        Ok(self.0)
    }
}

/// Whom a channel of the contract binds; its id is the digest of all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTerms {
    /// The chain.
    pub chain: u64,
    /// The contract.
    pub contract: EvmAddress,
    /// Who deposits and signs vouchers.
    pub payer: EvmAddress,
    /// Who is paid.
    pub payee: EvmAddress,
    /// The token; [`EvmAddress::ZERO`] for the native coin.
    pub token: EvmAddress,
    /// Chosen by the payer, so that the same two can have another channel.
    #[serde(with = "serde_bytes")]
    pub salt: [u8; 32],
}

impl ChannelTerms {
    /// The channel's id, as the contract computes it.
    pub fn id(&self) -> ChannelId {
        let address = |address: &EvmAddress| address_word(address);
        ChannelId(keccak(&[
            &word(self.chain.into()),
            &address(&self.contract),
            &address(&self.payer),
            &address(&self.payee),
            &address(&self.token),
            &self.salt,
        ]))
    }
}

/// The one channel between a buyer and a seller on the ledger of a network.
pub fn ledger_channel(network: &NetworkId, buyer: &NodeId, seller: &NodeId) -> ChannelId {
    let parts: [&[u8]; 3] = [network.as_str().as_bytes(), buyer.as_ref(), seller.as_ref()];
    ChannelId(hash::tagged("infernet/ledger-channel/1", &parts).0)
}
