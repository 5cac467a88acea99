//! Signing in by a passkey (WebAuthn, level 3). Pure.
//!
//! The page gives what its browser gives: `clientDataJSON`, the authenticator's data, and, when a passkey is made, its public
//! key as `getPublicKey()` tells it. No attestation is asked for or checked: it would tell who made the device, not who holds
//! it. Taken are ES256 and EdDSA, which all of today's authenticators have.
//!
//! Checked: what was asked for (`type`), our challenge, our origin, our host, that somebody was there and was verified, the
//! signature, and that the counter, if the device has one, went up.

use super::signature::PublicKey;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use infernet_wire::hash;
use serde::{Deserialize, Serialize};

/// ES256 and EdDSA, as COSE numbers them.
pub const ALGORITHMS: [i32; 2] = [-7, -8];
/// A person touched the device.
const USER_PRESENT: u8 = 1;
/// And showed to it who they are.
const USER_VERIFIED: u8 = 4;
/// Bytes of the host's hash, the flags and the counter.
const DATA: usize = 37;
/// The longest credential id (WebAuthn 4, credential ID).
const MAX_ID: usize = 1023;
/// The longest part that is looked at.
const MAX_PART: usize = 16 * 1024;

/// Why a passkey does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyError {
    /// Not what a browser sends.
    #[error("this is not what a browser sends for a passkey")]
    Malformed,
    /// Another kind of key.
    #[error("this passkey's kind is not taken: it must be ES256 or EdDSA")]
    Algorithm,
    /// Made for something else.
    #[error("this passkey was asked by another page, or for something else")]
    Context,
    /// Nobody was verified.
    #[error("the device has not verified who holds it: use its PIN, finger or face")]
    Unverified,
    /// It does not verify.
    #[error("the passkey's signature does not verify")]
    Signature,
    /// Its counter went back: somebody has a copy.
    #[error("this passkey was used elsewhere since: it may have been copied")]
    Counter,
}

/// What is kept of a passkey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its public key, as `SubjectPublicKeyInfo` in base64url.
    pub key: String,
    /// Its counter when it was last used; 0 if it has none.
    pub counter: u32,
}

/// Where a passkey must have been used.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The plane's origin.
    pub origin: &'a str,
    /// Its host.
    pub host: &'a str,
    /// The challenge that it gave.
    pub challenge: &'a str,
}

#[derive(Deserialize)]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
}

/// A part in base64url, as browsers' `toJSON()` writes it.
pub fn decode(text: &str) -> Result<Vec<u8>, PasskeyError> {
    if text.len() > MAX_PART {
        return Err(PasskeyError::Malformed);
    }
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| PasskeyError::Malformed)
}

/// A part to be sent.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The credential's id as an identity's subject.
pub fn subject(id: &[u8]) -> Result<String, PasskeyError> {
    if (1..=MAX_ID).contains(&id.len()) { Ok(hex::encode(id)) } else { Err(PasskeyError::Malformed) }
}

/// Checks a new passkey.
pub fn register(place: Place<'_>, client_data: &[u8], data: &[u8], info: &[u8]) -> Result<Kept, PasskeyError> {
    check_client(place, "webauthn.create", client_data)?;
    let counter = check_data(place, data)?;
    PublicKey::from_info(info).ok_or(PasskeyError::Algorithm)?;
    Ok(Kept { key: encode(info), counter })
}

/// Checks a signature of a passkey that is known as `kept`; returns it with its new counter.
pub fn verify(place: Place<'_>, kept: &Kept, client_data: &[u8], data: &[u8], signature: &[u8]) -> Result<Kept, PasskeyError> {
    check_client(place, "webauthn.get", client_data)?;
    let counter = check_data(place, data)?;
    let key = PublicKey::from_info(&decode(&kept.key)?).ok_or(PasskeyError::Algorithm)?;
    let signed = [data, hash::sha256(client_data).as_ref()].concat();
    if !key.verifies(&signed, signature) {
        return Err(PasskeyError::Signature);
    }
    if (counter > 0 || kept.counter > 0) && counter <= kept.counter {
        return Err(PasskeyError::Counter);
    }
    Ok(Kept { counter, ..kept.clone() })
}

fn check_client(place: Place<'_>, wanted: &str, json: &[u8]) -> Result<(), PasskeyError> {
    let said: ClientData = serde_json::from_slice(json).map_err(|_| PasskeyError::Malformed)?;
    let fits = said.r#type == wanted
        && said.challenge.trim_end_matches('=') == place.challenge
        && said.origin.eq_ignore_ascii_case(place.origin)
        && !said.cross_origin;
    if fits { Ok(()) } else { Err(PasskeyError::Context) }
}

/// The counter, if the data is of our host and somebody was verified.
fn check_data(place: Place<'_>, data: &[u8]) -> Result<u32, PasskeyError> {
    let head: &[u8; DATA] = data.first_chunk().ok_or(PasskeyError::Malformed)?;
    let (host, rest) = head.split_at(32);
    let (flags, counter) = rest.split_first().ok_or(PasskeyError::Malformed)?;
    if host != hash::sha256(place.host.as_bytes()).as_ref() {
        return Err(PasskeyError::Context);
    }
    if flags & USER_PRESENT == 0 || flags & USER_VERIFIED == 0 {
        return Err(PasskeyError::Unverified);
    }
    Ok(u32::from_be_bytes(counter.try_into().map_err(|_| PasskeyError::Malformed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::signature::tests::Authenticator;
    use serde_json::json;

    const PLACE: Place<'static> = Place { origin: "https://plane.example", host: "plane.example", challenge: "Y2hhbGxlbmdl" };

    fn client(kind: &str, challenge: &str, origin: &str) -> Vec<u8> {
        json!({ "type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false }).to_string().into_bytes()
    }

    fn data(host: &str, flags: u8, counter: u32) -> Vec<u8> {
        [hash::sha256(host.as_bytes()).as_ref(), &[flags], &counter.to_be_bytes()].concat()
    }

    fn good(kind: &str) -> Vec<u8> {
        client(kind, PLACE.challenge, PLACE.origin)
    }

    fn signed_in(device: &Authenticator, kept: &Kept, client: &[u8], data: &[u8]) -> Result<Kept, PasskeyError> {
        let signature = device.sign(&[data, hash::sha256(client).as_ref()].concat());
        verify(PLACE, kept, client, data, &signature)
    }

    #[test]
    fn a_passkey_is_made_and_signs_in() {
        let device = Authenticator::new();
        let kept = register(PLACE, &good("webauthn.create"), &data(PLACE.host, 5, 0), &device.info()).unwrap();
        let again = signed_in(&device, &kept, &good("webauthn.get"), &data(PLACE.host, 5, 0)).unwrap();
        assert_eq!(again, kept, "a device without a counter stays at 0");
        let counted = signed_in(&device, &kept, &good("webauthn.get"), &data(PLACE.host, 5, 7)).unwrap();
        assert_eq!(counted.counter, 7);
        let copied = signed_in(&device, &counted, &good("webauthn.get"), &data(PLACE.host, 5, 7));
        assert_eq!(copied, Err(PasskeyError::Counter));
    }

    #[test]
    fn another_place_person_or_key_does_not_sign_in() {
        let (device, other) = (Authenticator::new(), Authenticator::new());
        let kept = register(PLACE, &good("webauthn.create"), &data(PLACE.host, 5, 0), &device.info()).unwrap();
        let check = |client: Vec<u8>, data: Vec<u8>, expected| {
            assert_eq!(signed_in(&device, &kept, &client, &data), Err(expected));
        };
        let fine = || data(PLACE.host, 5, 0);
        check(client("webauthn.get", PLACE.challenge, "https://evil.example"), fine(), PasskeyError::Context);
        check(client("webauthn.get", "b3RoZXI", PLACE.origin), fine(), PasskeyError::Context);
        check(good("webauthn.create"), fine(), PasskeyError::Context);
        check(good("webauthn.get"), data("evil.example", 5, 0), PasskeyError::Context);
        check(good("webauthn.get"), data(PLACE.host, 1, 0), PasskeyError::Unverified);
        check(good("webauthn.get"), vec![0; 36], PasskeyError::Malformed);
        check(b"{}".to_vec(), fine(), PasskeyError::Malformed);
        let forged = signed_in(&other, &kept, &good("webauthn.get"), &fine());
        assert_eq!(forged, Err(PasskeyError::Signature));
        let rsa = register(PLACE, &good("webauthn.create"), &fine(), &[0x30, 0x82]);
        assert_eq!(rsa, Err(PasskeyError::Algorithm));
    }
}
