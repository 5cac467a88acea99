//! The wallet on Solana: its keys hold together, or not at all.

use super::{ConfigError, Partial, Secret, parse::Parser};
use crate::settlement::{
    json_rpc::Endpoint,
    solana::{
        account::{Account, POLL},
        payment::Rules,
        rpc::Genesis,
        wallet::MAX_NODES,
    },
};
use infernet_wire::{
    limits,
    money::MicroUsd,
    solana::{BadSolanaText, Coin, MAX_SOL_RATE, SolanaAddress},
};

/// The cluster where money is real.
pub(super) const DEFAULT_CLUSTER: &str = "mainnet-beta";
/// Those of USDC.
pub(super) const DEFAULT_DECIMALS: u8 = 6;
/// Five cents: a hundred times what its transaction costs, and little to lose.
pub(super) const DEFAULT_TRANCHE: u64 = 50_000;
/// A thousandth of a cent for a transfer, as long as nobody else is in a hurry.
pub(super) const DEFAULT_PRIORITY_FEE: u64 = 10_000;
/// A hundredth of a SOL for a transfer: whoever allows more has mistaken the unit.
const MAX_PRIORITY_FEE: u64 = 100_000_000;

/// SOL where a token's mint is named.
const SOL: &str = "SOL";
const NO_RATE: &str = "write how many lamports a dollar is, such as 6666667 if a SOL costs 150 dollars";

/// Clusters by name: the hash of the first block, and USDC there.
const CLUSTERS: [(&str, &str, Option<&str>); 3] = [
    (DEFAULT_CLUSTER, "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d", Some("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")),
    ("devnet", "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG", Some("4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU")),
    ("testnet", "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY", None),
];

impl Parser<'_> {
    /// `None` if no key says where Solana is.
    pub(super) fn solana(&self, p: &Partial) -> Result<Option<Account>, ConfigError> {
        let tranche =
            self.within("solana_tranche", p.solana_tranche.unwrap_or(DEFAULT_TRANCHE), 1, limits::MAX_SOLANA_TRANCHE)?;
        let decimals = p.solana_decimals.unwrap_or(DEFAULT_DECIMALS.into());
        let decimals = self.within("solana_decimals", decimals, 0, limits::MAX_SOLANA_DECIMALS.into())?;
        let fee = p.solana_priority_fee.unwrap_or(DEFAULT_PRIORITY_FEE);
        let unit_price = self.within("solana_priority_fee", fee, 0, MAX_PRIORITY_FEE)?;
        let (genesis, usdc) = self.one("solana_cluster", p.solana_cluster.as_deref().unwrap_or(DEFAULT_CLUSTER), cluster)?;
        let named = self.maybe("solana_mint", p.solana_mint.clone(), mint)?;
        let rate = p.solana_rate.map(|rate| self.within("solana_rate", rate, 1, MAX_SOL_RATE)).transpose()?;
        let payout = self.maybe("payout_solana", p.payout_solana.clone(), wallet)?;
        let rpc = self.endpoints(p.solana_rpc.as_deref().unwrap_or_default())?;
        if rpc.is_empty() {
            return Ok(None);
        }
        let fix = "write the address of the token of dollars that this cluster has, or SOL";
        let coin = match (named.or(usdc.map(Mint::Token)), rate) {
            (Some(Mint::Token(mint)), _) => Coin::Token { mint, decimals: u8::try_from(decimals).unwrap_or(DEFAULT_DECIMALS) },
            (Some(Mint::Sol), Some(rate)) => Coin::Sol { rate },
            (Some(Mint::Sol), None) => return Err(self.bad("solana_rate", &"missing", NO_RATE)),
            (None, _) => return Err(self.bad("solana_mint", &"missing", fix)),
        };
        Ok(Some(Account {
            rpc,
            genesis,
            coin,
            tranche: MicroUsd(tranche),
            unit_price,
            payout,
            rules: Rules::default(),
            poll: POLL,
        }))
    }

    /// A text that can't be used may be the secret all the same: it is not repeated.
    fn endpoints(&self, urls: &[Secret]) -> Result<Vec<Endpoint>, ConfigError> {
        if urls.len() > MAX_NODES {
            return Err(self.bad("solana_rpc", &format_args!("{} URLs", urls.len()), format!("write {MAX_NODES} at most")));
        }
        let read = |Secret(url): &Secret| url.parse().map_err(|fix: String| self.bad("solana_rpc", &"what it is", fix));
        urls.iter().map(read).collect()
    }
}

/// A cluster's first block, and USDC on it if its name is known.
fn cluster(text: &str) -> Result<(Genesis, Option<SolanaAddress>), String> {
    let known = CLUSTERS.iter().find(|(name, ..)| *name == text);
    let (genesis, usdc) = known.map_or((text, None), |(_, genesis, usdc)| (*genesis, *usdc));
    let names = "write mainnet-beta, devnet, testnet, or the hash of the cluster's first block in base58";
    let genesis = genesis.parse().map_err(|_| names.to_owned())?;
    Ok((genesis, usdc.and_then(|usdc| usdc.parse().ok())))
}

/// `solana_mint` as it is written.
pub(super) fn mint_text(coin: &Coin) -> String {
    match coin {
        Coin::Token { mint, .. } => mint.to_string(),
        Coin::Sol { .. } => SOL.into(),
    }
}

/// What `solana_mint` names.
enum Mint {
    Token(SolanaAddress),
    Sol,
}

fn mint(text: &str) -> Result<Mint, String> {
    if text == SOL { Ok(Mint::Sol) } else { address(text).map(Mint::Token).map_err(|error| format!("{error}, or {SOL}")) }
}

fn address(text: &str) -> Result<SolanaAddress, String> {
    text.parse().map_err(|error: BadSolanaText| error.to_string())
}

/// An address whose key somebody can have.
pub(crate) fn wallet(text: &str) -> Result<SolanaAddress, String> {
    let fix = "write the address of a wallet: this one is of a program's account, such as one that holds a wallet's tokens";
    address(text).and_then(|address| if address.is_wallet() { Ok(address) } else { Err(fix.into()) })
}
