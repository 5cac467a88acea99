//! The keys of a chain, put together: all of what it takes, or none of it.

use super::{Keys, SettingsError, wrong};
use crate::cashier::CashierConfig;
use infernet_node::settlement::evm::rpc::Endpoint;
use infernet_wire::money::MicroUsd;

/// What is set of a chain; `None` if nothing is.
pub(super) fn read(keys: &Keys) -> Result<Option<CashierConfig>, SettingsError> {
    // Whatever is wrong with it, its text is a secret.
    let rpc = keys.evm_rpc.as_deref().map(|text| text.parse::<Endpoint>().map_err(|reason| wrong("evm-rpc", reason)));
    let Some(rpc) = rpc.transpose()? else {
        let others = [keys.evm_chain.is_some(), keys.evm_token.is_some(), keys.evm_cold.is_some(), keys.evm_hot_cap.is_some()];
        let half = others.contains(&true);
        return if half {
            Err(wrong("evm-rpc", "a chain is asked through its node: name the node's URL, too"))
        } else {
            Ok(None)
        };
    };
    let chain = keys.evm_chain.filter(|chain| (1..=i64::MAX as u64).contains(chain));
    let chain = chain.ok_or_else(|| wrong("evm-chain", "name the chain that the node must be on, such as 8453 for Base"))?;
    let token = keys.evm_token.ok_or_else(|| wrong("evm-token", "name the token that is taken, such as USDC's contract"))?;
    let mut config = CashierConfig::new(rpc, chain, token);
    config.depth = keys.evm_depth.unwrap_or(config.depth);
    if config.depth == 0 {
        return Err(wrong("evm-depth", "a transfer is in one block at least: write 1 or more"));
    }
    config.cold = match (keys.evm_cold, keys.evm_hot_cap) {
        (Some(cold), Some(cap)) => Some((cold, MicroUsd(cap))),
        (None, None) => None,
        (Some(_), None) => {
            return Err(wrong("evm-hot-cap", "say how much stays at hand, in micro-USD, before the rest goes to evm-cold"));
        }
        (None, Some(_)) => return Err(wrong("evm-cold", "say to which address goes what is above evm-hot-cap")),
    };
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";

    fn keys() -> Keys {
        let token = TOKEN.parse().ok();
        Keys {
            evm_rpc: Some("http://127.0.0.1:8545/secret-secret".into()),
            evm_chain: Some(31_337),
            evm_token: token,
            ..Keys::default()
        }
    }

    #[test]
    fn a_chain_is_set_as_a_whole_or_not_at_all() {
        assert_eq!(read(&Keys::default()).expect("good"), None);
        let config = read(&keys()).expect("good").expect("a chain");
        assert_eq!((config.chain, config.depth, config.cold), (31_337, 12, None));
        assert!(!format!("{config:?}").contains("secret"));
        let check = |keys: Keys, part: &str| {
            let told = read(&keys).expect_err("refused").to_string();
            assert!(told.contains(part) && !told.contains("secret"), "{told}");
        };
        check(Keys { evm_rpc: None, ..keys() }, "evm-rpc");
        check(Keys { evm_rpc: Some("secret-secret".into()), ..keys() }, "evm-rpc");
        check(Keys { evm_chain: None, ..keys() }, "evm-chain");
        check(Keys { evm_token: None, ..keys() }, "evm-token");
        check(Keys { evm_depth: Some(0), ..keys() }, "evm-depth");
        check(Keys { evm_hot_cap: Some(5), ..keys() }, "evm-cold");
        check(Keys { evm_cold: TOKEN.parse().ok(), ..keys() }, "evm-hot-cap");
        let swept = read(&Keys { evm_cold: TOKEN.parse().ok(), evm_hot_cap: Some(5), ..keys() }).expect("good");
        assert_eq!(swept.expect("a chain").cold.map(|(_, cap)| cap), Some(MicroUsd(5)));
    }
}
