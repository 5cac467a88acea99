//! What an ERC-20 token is asked, and what it logs. Pure.

use infernet_node::settlement::evm::{contract, rpc::Log, transaction::Call};
use infernet_wire::{
    evm::{EvmAddress, address_word, keccak},
    id::Hash,
};

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

/// Reads a log of a token; `None` if it is no transfer.
pub fn read(log: &Log) -> Option<Transfer> {
    let [first, from, to] = log.topics.as_slice() else { return None };
    let value = number(&log.data).filter(|_| *first == topic())?;
    let (from, to) = (address(from)?, address(to)?);
    Some(Transfer { from, to, value, block: log.block, tx: Hash(log.transaction), log: log.index })
}

fn address(word: &[u8; 32]) -> Option<EvmAddress> {
    let address = EvmAddress(*word.last_chunk()?);
    (address_word(&address) == *word).then_some(address)
}

/// Asks for a token's decimals.
pub fn decimals(token: &EvmAddress) -> Call {
    let [a, b, c, d, ..] = keccak(&[b"decimals()"]);
    Call { to: Some(*token), value: 0, data: vec![a, b, c, d] }
}

/// The answer to a question for a number; `None` if it is none: there is no such contract.
pub fn number(answer: &[u8]) -> Option<u128> {
    contract::number(answer.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::evm::word;

    const TOKEN: EvmAddress = EvmAddress([7; 20]);

    fn log() -> Log {
        let word_of = |address: [u8; 20]| address_word(&EvmAddress(address));
        Log {
            block: 16,
            block_hash: [9; 32],
            transaction: [0xab; 32],
            index: 3,
            topics: vec![topic(), word_of([1; 20]), word_of([2; 20])],
            data: word(1_500_000).to_vec(),
        }
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
        assert_eq!(read(&log()), Some(expected));
        let bad = |change: fn(&mut Log)| {
            let mut log = log();
            change(&mut log);
            assert_eq!(read(&log), None, "{log:?}");
        };
        bad(|log| log.topics.truncate(2));
        bad(|log| log.topics[0] = [0; 32]);
        bad(|log| log.topics[2] = [0xff; 32]);
        bad(|log| log.data.truncate(31));
        bad(|log| log.data = vec![0xff; 32]);
    }

    #[test]
    fn calls_are_those_that_everybody_knows() {
        assert_eq!(hex::encode(topic()), "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
        assert_eq!(hex::encode(decimals(&TOKEN).data), "313ce567");
        assert_eq!((number(&word(6)), number(&[]), number(&[6])), (Some(6), None, None));
    }
}
