//! What EVM chains add to a node's key: its address there, Keccak-256, and how typed data is hashed (EIP-712). The only file that
//! names `sha3`.
//!
//! An address read from a person must carry its checksum (EIP-55): a mistyped one is money sent to nobody. What a chain's node
//! answers has none, and is read by [`EvmAddress::from_lower`].

use crate::id::bytes_id;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha3::{Digest, Keccak256};
use std::{fmt, str::FromStr, sync::LazyLock};

bytes_id!(
    /// An account or contract on an EVM chain. Shown with its checksum, as EIP-55 writes it.
    EvmAddress, 20
);

/// Text that is no address, or one that may be mistyped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not 20 bytes in hex.
    #[error("{0:?} is not an EVM address: write 0x and 40 hex digits")]
    Form(String),
    /// The case of its letters is not that of its checksum.
    #[error(
        "{given} fails its checksum (EIP-55): a letter is mistyped, or its case was changed; copy the address again from its source"
    )]
    Checksum {
        /// What was read.
        given: String,
    },
    /// All its letters are of one case.
    #[error(
        "{given} has no checksum, so a typo in it can't be seen: copy it with mixed case, or, if you are sure of it, write {with}"
    )]
    NoChecksum {
        /// What was read.
        given: String,
        /// The same with its checksum.
        with: EvmAddress,
    },
}

impl EvmAddress {
    /// Nobody: the native coin where a token is named, and no contract at all for the ledger.
    pub const ZERO: Self = EvmAddress([0; 20]);

    /// The address of a public key, x and y.
    pub fn of_key(point: &[u8; 64]) -> Self {
        let digest = keccak(&[point]);
        EvmAddress(*digest.last_chunk().expect("a digest has 32 bytes"))
    }

    /// Reads an address as programs write it, without looking at the case of its letters.
    pub fn from_lower(text: &str) -> Result<Self, BadAddress> {
        let mut bytes = [0; 20];
        let digits = text.strip_prefix("0x").ok_or_else(|| BadAddress::Form(text.into()))?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadAddress::Form(text.into()))?;
        Ok(EvmAddress(bytes))
    }
}

impl fmt::Display for EvmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = hex::encode(self.0);
        let sums = hex::encode(keccak(&[lower.as_bytes()]));
        let cased = lower.chars().zip(sums.chars()).map(|(c, sum)| if sum >= '8' { c.to_ascii_uppercase() } else { c });
        write!(f, "0x{}", cased.collect::<String>())
    }
}

impl FromStr for EvmAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let address = EvmAddress::from_lower(text)?;
        if address.to_string() == text {
            return Ok(address);
        }
        let digits = text.trim_start_matches("0x");
        let mixed = digits.chars().any(|c| c.is_ascii_uppercase()) && digits.chars().any(|c| c.is_ascii_lowercase());
        let given = text.to_owned();
        Err(if mixed { BadAddress::Checksum { given } } else { BadAddress::NoChecksum { given, with: address } })
    }
}

/// Keccak-256 of all parts, one after the other.
pub fn keccak(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// A number as one word of the chain's ABI: 32 bytes, big-endian.
pub fn word(number: u128) -> [u8; 32] {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&number.to_be_bytes());
    word
}

/// An address as one word of the chain's ABI: right-aligned.
pub fn address_word(address: &EvmAddress) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address.0);
    word
}

/// What a wallet signs for `contract` on `chain`: `keccak(0x1901 ‖ domain ‖ keccak(kind ‖ fields))` (EIP-712). `kind` is the hash of the
/// type as EIP-712 writes it, `fields` its members, a word each.
pub fn typed_digest(chain: u64, contract: &EvmAddress, kind: &[u8; 32], fields: &[[u8; 32]]) -> [u8; 32] {
    let parts: Vec<&[u8]> = std::iter::once(kind).chain(fields).map(|word| &word[..]).collect();
    keccak(&[&[0x19, 0x01], &domain(chain, contract), &keccak(&parts)])
}

fn domain(chain: u64, contract: &EvmAddress) -> [u8; 32] {
    const KIND: &[u8] = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
    // Half of all hashing of a voucher, and always the same: type, name and version.
    static ALIKE: LazyLock<[u8; 96]> = LazyLock::new(|| {
        let mut alike = [0; 96];
        let words = [KIND, b"infernet channels", b"1"].map(|text| keccak(&[text]));
        alike.copy_from_slice(words.as_flattened());
        alike
    });
    keccak(&[&*ALIKE, &word(chain.into()), &address_word(contract)])
}

/// How an amount of 128 bits is written, since CBOR's integers end at 64: sixteen bytes, big-endian; in JSON a text, which no reader
/// rounds. For `#[serde(with = "amount")]`.
pub mod amount {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use serde_bytes::ByteArray;

    /// Writes one.
    pub fn serialize<S: Serializer>(amount: &u128, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(amount) } else { s.serialize_bytes(&amount.to_be_bytes()) }
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        if d.is_human_readable() {
            return String::deserialize(d)?.parse().map_err(D::Error::custom);
        }
        Ok(u128::from_be_bytes(ByteArray::<16>::deserialize(d)?.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EIP-55's own examples.
    #[test]
    fn an_address_carries_its_checksum() {
        for text in ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"] {
            let address: EvmAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
            assert_eq!(EvmAddress::from_lower(&text.to_lowercase()), Ok(address));
        }
    }

    #[test]
    fn a_wrong_address_is_refused_in_a_sentence_that_helps() {
        let check = |text: &str, says: &str| {
            let error = text.parse::<EvmAddress>().expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        };
        check("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "mistyped");
        check("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAee", "mistyped");
        check("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "write 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
        check("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x and 40 hex digits");
        check("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA", "0x and 40 hex digits");
        check("", "0x and 40 hex digits");
    }

    /// The key 1, whose address is well known.
    #[test]
    fn a_nodes_key_has_an_address() {
        let mut one = [0; 32];
        one[31] = 1;
        let key = crate::key::NodeKey::from_bytes(&one).expect("a scalar");
        assert_eq!(key.id().evm_address().to_string(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    }

    #[test]
    fn keccak_is_not_sha3() {
        let empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(hex::encode(keccak(&[])), empty);
        assert_eq!(keccak(&[b"ab", b"c"]), keccak(&[b"abc"]));
    }
}
