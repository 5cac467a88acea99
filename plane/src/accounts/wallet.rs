//! Signing in by a wallet. The plane writes the text, the wallet shows it and signs it: an EIP-4361 message by a personal
//! signature (EIP-191) on EVM chains, the same text by Ed25519 on Solana. Pure.
//!
//! The text names this plane and holds a nonce that counts once, so that a signature made for another site, or seen before,
//! is of no use here.

use super::signature;
use infernet_node::date;
use infernet_wire::{evm::EvmAddress, time::UnixMillis};
use serde::{Deserialize, Serialize};

/// The time in which a wallet must have signed.
pub const LIFE_MS: u64 = 10 * 60_000;

/// Which kind of wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Chain {
    /// Ethereum and its like.
    Evm,
    /// Solana.
    Solana,
}

impl Chain {
    /// As identities name it.
    pub fn name(self) -> &'static str {
        match self {
            Chain::Evm => "evm",
            Chain::Solana => "solana",
        }
    }
}

/// A wallet's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// 20 bytes.
    Evm([u8; 20]),
    /// An Ed25519 key.
    Solana([u8; 32]),
}

impl Address {
    /// Reads `text`; `None` if it is no address of that chain.
    pub fn parse(chain: Chain, text: &str) -> Option<Self> {
        match chain {
            // Wallets write it as they like.
            Chain::Evm => EvmAddress::from_lower(text).ok().map(|address| Address::Evm(address.0)),
            Chain::Solana => {
                let mut bytes = [0; 32];
                // Base58 of 32 bytes is never longer.
                let text = Some(text).filter(|text| text.len() <= 44)?;
                let length = bs58::decode(text).onto(&mut bytes[..]).ok()?;
                (length == bytes.len()).then_some(Address::Solana(bytes))
            }
        }
    }

    /// As people know it.
    pub fn shown(&self) -> String {
        match self {
            Address::Evm(bytes) => EvmAddress(*bytes).to_string(),
            Address::Solana(bytes) => bs58::encode(bytes).into_string(),
        }
    }

    /// As identities name it.
    pub fn subject(&self) -> String {
        match self {
            Address::Evm(bytes) => hex::encode(bytes),
            Address::Solana(bytes) => hex::encode(bytes),
        }
    }

    /// Whether it signed `message`. EVM signatures are hexadecimal, Solana's base58 or hexadecimal.
    pub fn signed(&self, message: &str, signature: &str) -> bool {
        let signature = signature.trim();
        let from_hex = || hex::decode(signature.strip_prefix("0x").unwrap_or(signature)).ok();
        match self {
            Address::Evm(address) => {
                from_hex().and_then(|bytes| signature::evm_signer(message, &bytes)).is_some_and(|signer| signer.0 == *address)
            }
            Address::Solana(key) => {
                let short = Some(signature).filter(|text| text.len() <= 90);
                let bytes = short.and_then(|text| bs58::decode(text).into_vec().ok()).filter(|bytes| bytes.len() == 64);
                bytes.or_else(from_hex).is_some_and(|bytes| signature::ed25519(key, message.as_bytes(), &bytes))
            }
        }
    }
}

/// What the wallet is asked to sign.
pub fn message(origin: &str, chain: Chain, address: &Address, nonce: &str, now: UnixMillis) -> String {
    let domain = origin.split_once("://").map_or(origin, |(_, host)| host);
    let (account, id) = match chain {
        Chain::Evm => ("Ethereum", "1"),
        Chain::Solana => ("Solana", "mainnet"),
    };
    format!(
        "{domain} wants you to sign in with your {account} account:\n{}\n\nSign in to this infernet plane. It costs nothing and \
         moves nothing.\n\nURI: {origin}\nVersion: 1\nChain ID: {id}\nNonce: {nonce}\nIssued At: {}\nExpiration Time: {}",
        address.shown(),
        iso(now),
        iso(now.after(LIFE_MS)),
    )
}

/// RFC 3339, to the second.
pub(crate) fn iso(at: UnixMillis) -> String {
    format!("{}Z", date::time(at).replace(' ', "T"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::signature::tests::solana;

    #[test]
    fn a_solana_wallet_signs_in_for_this_plane_alone() {
        let (key, sign) = solana();
        let address = Address::parse(Chain::Solana, &bs58::encode(key).into_string()).unwrap();
        let text = message("https://plane.example", Chain::Solana, &address, "n0nce123", UnixMillis(1_795_000_000_000));
        assert!(text.starts_with("plane.example wants you to sign in with your Solana account:\n"), "{text}");
        assert!(text.contains("\nNonce: n0nce123\nIssued At: 2026-11-18T11:06:40Z\n"), "{text}");
        let signature = bs58::encode(sign(text.as_bytes())).into_string();
        assert!(address.signed(&text, &signature));
        let elsewhere = message("https://evil.example", Chain::Solana, &address, "n0nce123", UnixMillis(1_795_000_000_000));
        assert!(!address.signed(&elsewhere, &signature) && !address.signed(&text, "") && !address.signed(&text, "0x00"));
    }

    #[test]
    fn an_evm_wallets_text_is_eip_4361() {
        let address = Address::parse(Chain::Evm, "0x14791697260e4c9a71f18484c9f997b308e59325").unwrap();
        let text = message("https://plane.example", Chain::Evm, &address, "n0nce123", UnixMillis(0));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "plane.example wants you to sign in with your Ethereum account:");
        assert_eq!(lines[1], "0x14791697260E4c9A71f18484C9f997B308e59325");
        assert_eq!((lines[2], lines[4], lines[5]), ("", "", "URI: https://plane.example"));
        assert_eq!(lines[7], "Chain ID: 1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (chain, text) in [
            (Chain::Evm, "14791697260e4c9a71f18484c9f997b308e59325"),
            (Chain::Evm, "0x1479"),
            (Chain::Solana, "abc"),
            (Chain::Solana, "0OIl"),
            (Chain::Solana, ""),
        ] {
            assert_eq!(Address::parse(chain, text), None, "{text}");
        }
    }
}
