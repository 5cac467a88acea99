//! `X-Infernet-Auth` against vectors made by the existing JavaScript client, in both directions.

use infernet_wire::{
    http_auth::{self, AuthError, Request},
    id::Signature,
    key::NodeKey,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/http_auth.json")).expect("the vectors are JSON")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is text"))
}

#[test]
fn we_sign_as_the_existing_client_does() {
    for vector in vectors()["sign_vectors"].as_array().unwrap() {
        let secret: [u8; 32] = hex::decode(text(vector, "private_key")).unwrap().try_into().unwrap();
        let nonce: [u8; 16] = hex::decode(text(vector, "nonce")).unwrap().try_into().unwrap();
        let body = hex::decode(text(vector, "body_hex")).unwrap();
        let request = Request { method: text(vector, "method"), path: text(vector, "path"), body: &body };
        let created_at = vector["created_at"].as_u64().unwrap();
        let header = http_auth::sign(&NodeKey::from_bytes(&secret).unwrap(), request, created_at, &nonce);
        if vector["bip340_aux_rand"].as_str() == Some(&"00".repeat(32)) {
            assert_eq!(header, text(vector, "header_value"), "{}", vector["name"]);
        }
        let read = http_auth::verify(Some(&header), request, created_at).unwrap();
        assert_eq!(hex::encode(read.pubkey), text(vector, "public_key_xonly"));
    }
}

#[test]
fn we_read_what_the_existing_client_signs() {
    for vector in vectors()["sign_vectors"].as_array().unwrap() {
        let body = hex::decode(text(vector, "body_hex")).unwrap();
        let request = Request { method: text(vector, "method"), path: text(vector, "path"), body: &body };
        let read = http_auth::verify(Some(text(vector, "header_value")), request, vector["created_at"].as_u64().unwrap());
        assert_eq!(hex::encode(read.unwrap().pubkey), text(vector, "public_key_xonly"), "{}", vector["name"]);
    }
}

#[test]
fn we_judge_as_the_existing_server_does() {
    for vector in vectors()["verify_vectors"].as_array().unwrap() {
        let input = &vector["input"];
        let request =
            Request { method: text(input, "method"), path: text(input, "path"), body: text(input, "body").as_bytes() };
        let result = http_auth::verify(Some(text(input, "header_value")), request, input["now"].as_u64().unwrap());
        let expected = &vector["expect"];
        match result {
            Ok(read) => {
                assert_eq!(expected["ok"], true, "{}", vector["name"]);
                assert_eq!(hex::encode(read.pubkey), text(expected, "pubkey").to_lowercase());
                assert_eq!(read.nonce, text(expected, "nonce"));
                assert_eq!(Some(read.created_at), expected["createdAt"].as_f64());
            }
            Err(error) => assert_eq!(error.to_string(), text(expected, "error"), "{}", vector["name"]),
        }
    }
}

#[test]
fn raw_signatures_verify() {
    for vector in vectors()["raw_sign_message_vectors"].as_array().unwrap() {
        let x_only: [u8; 32] = hex::decode(text(vector, "public_key_xonly")).unwrap().try_into().unwrap();
        let digest = infernet_wire::hash::sha256(text(vector, "message_utf8").as_bytes());
        let signature: Signature = text(vector, "sig").parse().unwrap();
        assert_eq!(infernet_wire::key::verify(&x_only, digest.as_bytes(), &signature), Ok(()));
    }
}

#[test]
fn hostile_headers_are_refused_without_a_panic() {
    let request = Request { method: "GET", path: "/", body: b"" };
    let long = "A".repeat(100_000);
    for header in ["", "%%%", "e30", "bnVsbA", "W10", &long] {
        assert!(http_auth::verify(Some(header), request, 0).is_err());
    }
    assert_eq!(http_auth::verify(None, request, 0), Err(AuthError::Missing));
}
