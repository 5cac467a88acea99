//! `X-Infernet-Auth`: how a node signs HTTP requests to a control plane, byte-compatible with existing infernet clients.
//!
//! The header is unpadded base64url of `{"v":1,"pubkey","created_at","nonce","sig"}`; the signature is BIP-340 over the SHA-256 of
//! `METHOD\npath?query\ncreated_at\nnonce\nhex(sha256(body))`. Host and other headers are not signed, so callers put the
//! audience into the body. Replay protection (by key *and* nonce) is the verifier's caller's: this module keeps no state.
//!
//! Like the existing verifier, [`verify`] takes padded or standard base64, extra fields, upper-case hex, any non-empty nonce
//! and a fractional `created_at`; unlike it, it returns the key in lower case, so that it can be a lookup key.

use crate::{
    hash,
    id::{Hash, Signature},
    key::{self, NodeKey},
};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use serde::Deserialize;
use serde_json::Value;

/// Name of the header.
pub const HEADER: &str = "x-infernet-auth";
/// How far a request's time may be from ours, in seconds, either way.
pub const WINDOW_SECONDS: u64 = 60;
/// Longest header value that is looked at.
pub const MAX_HEADER_BYTES: usize = 4096;

/// The signed parts of an HTTP request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method; its case does not matter.
    pub method: &'a str,
    /// Path and query as on the request line.
    pub path: &'a str,
    /// The exact body, empty if there is none.
    pub body: &'a [u8],
}

/// Who signed a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    /// The signer's x-only public key.
    pub pubkey: [u8; 32],
    /// The nonce, as sent. Remember `(pubkey, nonce)` for 120 s, to refuse a replay.
    pub nonce: String,
    /// Unix seconds, as sent.
    pub created_at: f64,
}

/// Why a request is not authentic. The texts are those of the existing verifier, which clients show.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// No header.
    #[error("missing X-Infernet-Auth header")]
    Missing,
    /// Not base64 of a JSON object.
    #[error("malformed X-Infernet-Auth header: {0}")]
    Malformed(&'static str),
    /// Another version.
    #[error("unsupported envelope version: {0}")]
    Version(String),
    /// The key is not 64 hex digits.
    #[error("envelope pubkey must be 64-char hex")]
    Pubkey,
    /// The time is not a number.
    #[error("envelope created_at must be a number")]
    CreatedAt,
    /// The nonce is missing or empty.
    #[error("envelope nonce must be a non-empty string")]
    Nonce,
    /// The signature is not 128 hex digits.
    #[error("envelope sig must be a 128-char hex string")]
    Sig,
    /// Too far from our clock.
    #[error("timestamp outside replay window (skew={0}s)")]
    Skew(u64),
    /// It does not verify.
    #[error("signature verification failed")]
    BadSignature,
}

/// The header's value for `request`. `created_at` is unix seconds, `nonce` 16 fresh random bytes.
pub fn sign(key: &NodeKey, request: Request<'_>, created_at: u64, nonce: &[u8; 16]) -> String {
    let nonce = hex::encode(nonce);
    let signature = key.sign_digest(&digest(request, &created_at.to_string(), &nonce));
    let pubkey = hex::encode(key.id().x_only());
    let json = format!(r#"{{"v":1,"pubkey":"{pubkey}","created_at":{created_at},"nonce":"{nonce}","sig":"{signature}"}}"#);
    URL_SAFE_NO_PAD.encode(json)
}

/// Checks `header` against `request` at `now` (unix seconds).
pub fn verify(header: Option<&str>, request: Request<'_>, now: u64) -> Result<Authenticated, AuthError> {
    let Claim { pubkey, created_at, created_text, nonce, signature } = claim(header, now)?;
    key::verify(&pubkey, digest(request, &created_text, &nonce).as_bytes(), &signature).map_err(|_| AuthError::BadSignature)?;
    Ok(Authenticated { pubkey, nonce, created_at })
}

/// What [`verify`] says of the header alone, before there is a body to check its signature by.
pub fn check_header(header: Option<&str>, now: u64) -> Result<(), AuthError> {
    claim(header, now).map(drop)
}

/// What a header says, which is still to be believed.
struct Claim {
    pubkey: [u8; 32],
    created_at: f64,
    created_text: String,
    nonce: String,
    signature: Signature,
}

fn claim(header: Option<&str>, now: u64) -> Result<Claim, AuthError> {
    let header = header.filter(|h| !h.is_empty()).ok_or(AuthError::Missing)?;
    let fields = Fields::parse(header)?;
    let pubkey = fields.pubkey()?;
    let (created_at, created_text) = fields.created_at()?;
    let nonce = fields.nonce.as_str().filter(|n| !n.is_empty()).ok_or(AuthError::Nonce)?;
    let signature = fields.signature()?;
    let skew = (now as f64 - created_at).abs();
    if skew.is_nan() || skew > WINDOW_SECONDS as f64 {
        return Err(AuthError::Skew(skew.round() as u64));
    }
    let signature = signature.ok_or(AuthError::BadSignature)?;
    Ok(Claim { pubkey, created_at, created_text, nonce: nonce.into(), signature })
}

/// SHA-256 of the canonical string.
fn digest(request: Request<'_>, created_at: &str, nonce: &str) -> Hash {
    let method = request.method.to_ascii_uppercase();
    let body = hash::sha256(request.body);
    hash::sha256(format!("{method}\n{}\n{created_at}\n{nonce}\n{body}", request.path).as_bytes())
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    v: Value,
    #[serde(default)]
    pubkey: Value,
    #[serde(default)]
    created_at: Value,
    #[serde(default)]
    nonce: Value,
    #[serde(default)]
    sig: Value,
}

impl Fields {
    fn parse(header: &str) -> Result<Self, AuthError> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(AuthError::Malformed("too long"));
        }
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let json = GeneralPurpose::new(&URL_SAFE, lenient)
            .decode(header)
            .or_else(|_| GeneralPurpose::new(&STANDARD, lenient).decode(header))
            .map_err(|_| AuthError::Malformed("not base64"))?;
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| AuthError::Malformed("not a JSON object"))?;
        if fields.v == 1 { Ok(fields) } else { Err(AuthError::Version(fields.v.to_string())) }
    }

    fn pubkey(&self) -> Result<[u8; 32], AuthError> {
        let mut key = [0; 32];
        let text = self.pubkey.as_str().ok_or(AuthError::Pubkey)?;
        hex::decode_to_slice(text, &mut key).map_err(|_| AuthError::Pubkey)?;
        Ok(key)
    }

    /// The number, and the text that was signed: as JavaScript prints a number, which for the times in question is also how
    /// JSON holds it.
    fn created_at(&self) -> Result<(f64, String), AuthError> {
        match &self.created_at {
            Value::Number(number) => Ok((number.as_f64().ok_or(AuthError::CreatedAt)?, number.to_string())),
            _ => Err(AuthError::CreatedAt),
        }
    }

    /// `Ok(None)` for 128 characters that are not hex: those fail like a wrong signature, after the time was checked.
    fn signature(&self) -> Result<Option<Signature>, AuthError> {
        let text = self.sig.as_str().filter(|s| s.encode_utf16().count() == 128).ok_or(AuthError::Sig)?;
        Ok(text.parse().ok())
    }
}
