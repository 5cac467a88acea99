//! CBOR in one canonical form. The only file that names `serde_cbor`.
//!
//! Structs are maps from ascending small integers, in the order of their fields (RFC 8949 §4.2.1 deterministic encoding, as
//! far as these types need it). So: **append fields at the end, never reorder, never reuse**. An absent optional field is left
//! out. Unknown keys are skipped on decoding, which is what lets an older node read a newer minor version.

use crate::envelope::Refusal;
use serde::{Serialize, de::DeserializeOwned};

/// The bytes are not the CBOR of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed CBOR")]
pub struct Malformed;

/// The canonical bytes of `value`.
///
/// # Panics
/// Never for wire types: they hold only integers, text, bytes, options and sequences of those, which always encode.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::ser::to_vec_packed(value).expect("wire types always encode to memory")
}

/// Reads one value; trailing bytes are an error. Allocates no more than the input's size.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    serde_cbor::from_slice(bytes).map_err(|_| Malformed)
}

/// Reads a message that is not signed, of at most `most` bytes, in its one form.
pub(crate) fn canonical<T: Serialize + DeserializeOwned>(bytes: &[u8], most: usize) -> Result<T, Refusal> {
    if bytes.len() > most {
        return Err(Refusal::TooLarge);
    }
    let value: T = decode(bytes).map_err(|_| Refusal::Malformed)?;
    if encode(&value) == bytes { Ok(value) } else { Err(Refusal::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u8,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        b: Option<u8>,
        c: String,
    }

    #[derive(Serialize, Deserialize)]
    struct New {
        a: u8,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        b: Option<u8>,
        c: String,
        d: Vec<u8>,
    }

    #[test]
    fn keys_are_field_positions_even_after_an_absent_one() {
        let bytes = encode(&Old { a: 1, b: None, c: "x".into() });
        assert_eq!(hex::encode(bytes), "a200010261".to_owned() + "78");
    }

    #[test]
    fn older_reader_skips_newer_fields() {
        let bytes = encode(&New { a: 1, b: Some(2), c: "x".into(), d: vec![3] });
        assert_eq!(decode::<Old>(&bytes), Ok(Old { a: 1, b: Some(2), c: "x".into() }));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u8);
        bytes.push(0);
        assert_eq!(decode::<u8>(&bytes), Err(Malformed));
    }

    #[test]
    fn claimed_lengths_do_not_allocate() {
        // A byte string that claims 2^62 bytes.
        assert_eq!(decode::<serde_bytes::ByteBuf>(&[0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed));
    }
}
