//! EIP-1559 transactions: the bytes that are signed, and those that are sent.

use infernet_wire::{
    evm::{EvmAddress, amount, keccak},
    key::NodeKey,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The envelope type of EIP-1559 transactions (EIP-2718).
const TYPE: u8 = 2;

/// A transaction's hash, by which its receipt is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Display for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a gas unit may cost, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fees {
    /// In all.
    #[serde(with = "amount")]
    pub max: u128,
    /// Of it, to whoever makes the block.
    #[serde(with = "amount")]
    pub tip: u128,
}

/// What is to be done on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// To whom; `None` makes a new contract.
    pub to: Option<EvmAddress>,
    /// With how much of the chain's coin, in wei.
    #[serde(with = "amount")]
    pub value: u128,
    /// With which words.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// All that is signed.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// The chain: a signature counts on no other.
    pub chain: u64,
    /// How many this account has sent before.
    pub nonce: u64,
    /// What gas may cost.
    pub fees: Fees,
    /// How much gas at most.
    pub gas: u64,
    /// What it does.
    pub call: &'a Call,
}

impl Transaction<'_> {
    /// The bytes to send, and their hash. The same every time: the nonce of the signature is deterministic.
    pub fn sign(&self, key: &NodeKey) -> (Vec<u8>, TxHash) {
        let mut fields = self.fields();
        let (r, mut s) = halves(&key.sign_evm(&keccak(&[&[TYPE], &list(&fields)])).0);
        let odd = s[0] >> 7;
        s[0] &= 0x7f;
        fields.extend([number(&[odd]), number(&r), number(&s)]);
        let raw = [&[TYPE][..], &list(&fields)].concat();
        let hash = TxHash(keccak(&[&raw]));
        (raw, hash)
    }

    fn fields(&self) -> Vec<Vec<u8>> {
        vec![
            number(&self.chain.to_be_bytes()),
            number(&self.nonce.to_be_bytes()),
            number(&self.fees.tip.to_be_bytes()),
            number(&self.fees.max.to_be_bytes()),
            number(&self.gas.to_be_bytes()),
            self.call.to.map_or_else(|| string(&[]), |to| string(&to.0)),
            number(&self.call.value.to_be_bytes()),
            string(&self.call.data),
            // No access list.
            list(&[]),
        ]
    }
}

fn halves(compact: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (r, s) = compact.split_at(32);
    (r.try_into().expect("half of 64 bytes"), s.try_into().expect("half of 64 bytes"))
}

/// A number in RLP: big-endian, without leading zeros.
fn number(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    string(bytes.get(first..).unwrap_or_default())
}

/// A byte string in RLP (yellow paper, appendix B).
fn string(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [byte @ 0..0x80] => vec![*byte],
        _ => [&head(0x80, bytes.len())[..], bytes].concat(),
    }
}

/// A list of what is in RLP already.
fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let inside = items.concat();
    [&head(0xc0, inside.len())[..], &inside].concat()
}

fn head(kind: u8, length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short @ 0..56) => vec![kind + short],
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let bytes = bytes.get(zeros..).unwrap_or_default();
            // Up to eight bytes of length.
            let count = u8::try_from(bytes.len()).expect("a length has at most eight bytes");
            [&[kind + 55 + count][..], bytes].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlp_as_the_yellow_paper_has_it() {
        let check = |encoded: Vec<u8>, expected: &str| assert_eq!(hex::encode(encoded), expected);
        check(string(b"dog"), "83646f67");
        check(list(&[string(b"cat"), string(b"dog")]), "c88363617483646f67");
        check(string(&[]), "80");
        check(list(&[]), "c0");
        check(number(&[0, 0]), "80");
        check(number(&[0, 15]), "0f");
        check(number(&[4, 0]), "820400");
        check(string(&[0x80]), "8180");
        check(string(&[7; 56]), &("b838".to_owned() + &"07".repeat(56)));
        check(list(&vec![string(&[7; 55]); 5]), &("f90118".to_owned() + &("b7".to_owned() + &"07".repeat(55)).repeat(5)));
    }

    /// Made with ethers 6.17: `new Wallet(key).signTransaction({type: 2, …})`.
    #[test]
    fn a_transaction_as_ethers_signs_it() {
        let key = NodeKey::from_bytes(&[2; 32]).expect("a scalar");
        let to = EvmAddress::from_lower("0x5fbdb2315678afecb367f032d93f642f64180aa3").expect("an address");
        let call = Call { to: Some(to), value: 10u128.pow(18), data: vec![1, 2, 3] };
        let fees = Fees { max: 30_000_000_000, tip: 1_000_000_000 };
        let signed = Transaction { chain: 31_337, nonce: 7, fees, gas: 100_000, call: &call }.sign(&key);
        assert_eq!(hex::encode(&signed.0), SIGNED);
        let new = Call { to: None, value: 0, data: vec![0x60] };
        let signed = Transaction { chain: 1, nonce: 0, fees: Fees { max: 1, tip: 0 }, gas: 21_000, call: &new }.sign(&key);
        assert_eq!(hex::encode(&signed.0), SIGNED_NEW);
    }

    const SIGNED: &str = "02f879827a6907843b9aca008506fc23ac00830186a0945fbdb2315678afecb367f032d93f642f64180aa3880de0b6b3a764000083010203c080a04cefdc73346715924359eb3a177a80809598dccddb22ad32c6c013a75e80bf88a061540b641349afd2b208f9b86dffc2fc0911007e9aca4f9003e0e07b02a6ae48";
    const SIGNED_NEW: &str = "02f84e01808001825208808060c001a0c6727fc7969c80eb0ab7b7a413a147411c29f039a9e5d1a96d8d61ece820f645a079f42125addcca8a4cb9fbbd7f0173e9f4d7a001580e4c7d599ada13e664e677";
}
