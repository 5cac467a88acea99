//! What an ERC-20 token is asked, and what it logs. Pure.

use infernet_node::settlement::evm::{contract, rpc::quantity, transaction::Call};
use infernet_wire::{
    evm::{EvmAddress, address_word, keccak, word},
    id::Hash,
};
use serde_json::Value;

/// A `Transfer` of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Who paid.
    pub from: EvmAddress,
    /// Who got it.
    pub to: EvmAddress,
    /// How much, in units of the token.
    pub value: u128,
    /// In which block.
    pub block: u64,
    /// In which transaction.
    pub tx: Hash,
    /// Its place among all logs of its block.
    pub log: u64,
}

/// The first topic of a transfer.
pub fn topic() -> [u8; 32] {
    keccak(&[b"Transfer(address,address,uint256)"])
}

/// Reads a log; `None` if it is no transfer of `token`, or was undone.
pub fn read(log: &Value, token: &EvmAddress) -> Option<Transfer> {
    let field = |name: &str| log.get(name);
    let number = |name: &str| u64::try_from(quantity(field(name)?)?).ok();
    if bytes::<20>(field("address")?)? != token.0 || field("removed").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let [first, from, to] = field("topics")?.as_array()?.as_slice() else { return None };
    if bytes::<32>(first)? != topic() {
        return None;
    }
    Some(Transfer {
        from: address(bytes(from)?)?,
        to: address(bytes(to)?)?,
        value: contract::number(&bytes(field("data")?)?)?,
        block: number("blockNumber")?,
        tx: Hash(bytes(field("transactionHash")?)?),
        log: number("logIndex")?,
    })
}

fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()?.try_into().ok()
}

fn address(word: [u8; 32]) -> Option<EvmAddress> {
    let address = EvmAddress(*word.last_chunk()?);
    (address_word(&address) == word).then_some(address)
}

fn call(token: &EvmAddress, signature: &str, words: &[[u8; 32]]) -> Call {
    let [a, b, c, d, ..] = keccak(&[signature.as_bytes()]);
    Call { to: Some(*token), value: 0, data: [&[a, b, c, d][..], words.as_flattened()].concat() }
}

/// Asks for a token's decimals.
pub fn decimals(token: &EvmAddress) -> Call {
    call(token, "decimals()", &[])
}

/// Sends `amount` of a token.
pub fn send(token: &EvmAddress, to: &EvmAddress, amount: u128) -> Call {
    call(token, "transfer(address,uint256)", &[address_word(to), word(amount)])
}

/// The answer to a question for a number; `None` if it is none: there is no such contract.
pub fn number(answer: &[u8]) -> Option<u128> {
    contract::number(answer.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOKEN: EvmAddress = EvmAddress([7; 20]);

    fn log() -> Value {
        let word = |address: [u8; 20]| format!("0x{}", hex::encode(address_word(&EvmAddress(address))));
        json!({
            "address": format!("0x{}", hex::encode(TOKEN.0)),
            "topics": [format!("0x{}", hex::encode(topic())), word([1; 20]), word([2; 20])],
            "data": format!("0x{}", hex::encode(super::word(1_500_000))),
            "blockNumber": "0x10",
            "transactionHash": format!("0x{}", "ab".repeat(32)),
            "logIndex": "0x3",
            "removed": false,
        })
    }

    #[test]
    fn a_transfer_is_read_and_nothing_else_is_one() {
        let expected = Transfer {
            from: EvmAddress([1; 20]),
            to: EvmAddress([2; 20]),
            value: 1_500_000,
            block: 16,
            tx: Hash([0xab; 32]),
            log: 3,
        };
        assert_eq!(read(&log(), &TOKEN), Some(expected));
        assert_eq!(read(&log(), &EvmAddress([8; 20])), None, "another token's");
        let bad = |field: &str, value: Value| {
            let mut log = log();
            log[field] = value;
            assert_eq!(read(&log, &TOKEN), None, "{field}");
        };
        bad("removed", json!(true));
        bad("topics", json!([]));
        bad("topics", json!([log()["topics"][0], log()["topics"][1], format!("0x{}", "ff".repeat(32))]));
        bad("data", json!("0x"));
        bad("data", json!(format!("0x{}", "ff".repeat(32))));
        bad("logIndex", json!(null));
        bad("blockNumber", json!("0xffffffffffffffffff"));
    }

    #[test]
    fn calls_are_those_that_everybody_knows() {
        assert_eq!(hex::encode(topic()), "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
        assert_eq!(hex::encode(decimals(&TOKEN).data), "313ce567");
        assert!(hex::encode(send(&TOKEN, &EvmAddress([9; 20]), 5).data).starts_with("a9059cbb"));
        assert_eq!((number(&super::word(6)), number(&[]), number(&[6])), (Some(6), None, None));
    }
}
