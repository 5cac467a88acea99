//! Keys on Solana bound to nodes, terms and tranches: the bytes, and everything that must be refused.

use crate::{
    samples::{key, network},
    vectors::check_file,
};
use ed25519_dalek::{Signer, SigningKey};
use infernet_wire::{
    codec,
    envelope::Refusal,
    id::NodeId,
    limits,
    money::MicroUsd,
    solana::{
        BadBinding, Coin, MAX_SOL_RATE, SolanaAddress, SolanaBinding, SolanaSignature, SolanaTerms, Tranche, tranche_hash,
        units, worth,
    },
    topic::NetworkId,
};
use proptest::prelude::*;
use serde_json::json;

/// USDC on the main cluster.
const USDC: &str = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";

fn seed(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn address(n: u8) -> SolanaAddress {
    SolanaAddress(seed(n).verifying_key().to_bytes())
}

fn bound(n: u8, network: &NetworkId, node: &NodeId) -> SolanaBinding {
    let address = address(n);
    let message = SolanaBinding::message(network, node, &address);
    SolanaBinding { address, proof: SolanaSignature(seed(n).sign(message.as_bytes()).to_bytes()) }
}

fn terms() -> SolanaTerms {
    let coin = Coin::Token { mint: USDC.parse().unwrap(), decimals: 6 };
    SolanaTerms::new(bound(3, &network(), &key(2).id()), coin, MicroUsd(50_000))
}

/// A SOL is worth 150 dollars.
const RATE: u64 = 6_666_667;

fn in_sol() -> SolanaTerms {
    SolanaTerms::new(bound(3, &network(), &key(2).id()), Coin::Sol { rate: RATE }, MicroUsd(200_000))
}

fn tranche() -> Tranche {
    let payer = bound(4, &network(), &key(1).id());
    Tranche { number: 7, amount: MicroUsd(50_000), transaction: SolanaSignature([9; 64]), payer, rate: None }
}

#[test]
fn solana() {
    let (binding, tranche) = (bound(3, &network(), &key(2).id()), tranche());
    let cold = SolanaTerms { proof: None, ..terms() };
    let sold = Tranche { rate: Some(RATE), ..tranche };
    for terms in [terms(), cold, in_sol()] {
        assert_eq!((terms.check(), terms.verify(&network(), &key(2).id())), (Ok(()), Ok(())));
        assert_eq!(codec::decode::<SolanaTerms>(&codec::encode(&terms)), Ok(terms));
    }
    assert_eq!((tranche.check(), tranche.payer.verify(&network(), &key(1).id())), (Ok(()), Ok(())));
    for tranche in [tranche, sold] {
        assert_eq!(codec::decode::<Tranche>(&codec::encode(&tranche)), Ok(tranche));
    }
    check_file(
        "solana.json",
        json!({
            "network": network(),
            "binding": {
                "seed": hex::encode([3; 32]),
                "node": key(2).id(),
                "message": SolanaBinding::message(&network(), &key(2).id(), &binding.address),
                "address": binding.address,
                "proof": binding.proof,
            },
            "terms": { "body": terms(), "cbor": hex::encode(codec::encode(&terms())) },
            "terms_of_a_cold_address": { "body": cold, "cbor": hex::encode(codec::encode(&cold)) },
            "tranche": {
                "buyer": key(1).id(),
                "worker": key(2).id(),
                "body": tranche,
                "cbor": hex::encode(codec::encode(&tranche)),
                "hash": tranche.hash(&network(), &key(1).id(), &key(2).id()),
            },
            "terms_in_sol": { "body": in_sol(), "cbor": hex::encode(codec::encode(&in_sol())) },
            "tranche_in_sol": {
                "lamports": in_sol().coin().units(sold.amount),
                "body": sold,
                "cbor": hex::encode(codec::encode(&sold)),
                "hash": sold.hash(&network(), &key(1).id(), &key(2).id()),
            },
        }),
    );
}

#[test]
fn a_binding_counts_for_its_key_its_node_and_its_network_alone() {
    let (network, node) = (network(), key(2).id());
    let binding = bound(3, &network, &node);
    let refused = Err(BadBinding::Signature(binding.address));
    assert_eq!(binding.verify(&network, &node), Ok(()));
    assert_eq!(binding.verify(&NetworkId::default(), &node), refused);
    assert_eq!(binding.verify(&network, &key(1).id()), refused);
    let stolen = SolanaBinding { address: address(4), ..binding };
    assert_eq!(stolen.verify(&network, &node), Err(BadBinding::Signature(address(4))));
    let forged = |at: usize| {
        let mut proof = binding.proof;
        proof.0[at] ^= 1;
        SolanaBinding { proof, ..binding }.verify(&network, &node)
    };
    assert_eq!((forged(0), forged(32), forged(63)), (refused, refused, refused));
    // The identity point signs anything, for whom weak keys are let in.
    let mut weak = [0; 32];
    weak[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let weak = SolanaBinding { address: SolanaAddress(weak), proof: SolanaSignature(signature) };
    assert_eq!(weak.verify(&network, &node), Err(BadBinding::Signature(weak.address)));
    assert!(!weak.address.is_wallet());
}

#[test]
fn terms_that_could_lose_money_are_refused() {
    let check = |terms: SolanaTerms, field| assert_eq!(terms.check(), Err(Refusal::Field(field)));
    check(SolanaTerms { decimals: limits::MAX_SOLANA_DECIMALS + 1, ..terms() }, "solana.decimals");
    check(SolanaTerms { tranche: MicroUsd(0), ..terms() }, "solana.tranche");
    check(SolanaTerms { tranche: MicroUsd(limits::MAX_SOLANA_TRANCHE + 1), ..terms() }, "solana.tranche");
    check(SolanaTerms { address: terms().mint, ..terms() }, "solana.address");
    check(SolanaTerms { rate: Some(RATE), ..terms() }, "solana.rate");
    check(SolanaTerms { rate: Some(0), ..in_sol() }, "solana.rate");
    check(SolanaTerms { rate: Some(MAX_SOL_RATE + 1), ..in_sol() }, "solana.rate");
    check(SolanaTerms { decimals: 6, ..in_sol() }, "solana.rate");
    check(SolanaTerms { rate: None, ..in_sol() }, "solana.mint");
    // The account that holds a wallet's tokens is not a wallet: nobody has its key.
    let program = (0u8..).map(|n| SolanaAddress([n; 32])).find(|address| !address.is_wallet()).unwrap();
    let lost = SolanaTerms { address: program, proof: None, ..terms() };
    assert_eq!(lost.verify(&network(), &key(2).id()), Err(BadBinding::NoWallet(program)));
    let theirs = SolanaTerms { address: address(5), ..terms() };
    assert_eq!(theirs.verify(&network(), &key(2).id()), Err(BadBinding::Signature(address(5))));
}

#[test]
fn a_tranche_has_a_number_and_an_amount_and_one_hash() {
    assert_eq!(Tranche { number: 0, ..tranche() }.check(), Err(Refusal::Field("tranche.number")));
    assert_eq!(Tranche { amount: MicroUsd(0), ..tranche() }.check(), Err(Refusal::Field("tranche.amount")));
    assert_eq!(Tranche { rate: Some(0), ..tranche() }.check(), Err(Refusal::Field("tranche.rate")));
    let [a, b] = [key(1).id(), key(2).id()];
    let hash = tranche_hash(&network(), &a, &b, 1, MicroUsd(5), None);
    for other in [
        tranche_hash(&NetworkId::default(), &a, &b, 1, MicroUsd(5), None),
        tranche_hash(&network(), &b, &a, 1, MicroUsd(5), None),
        tranche_hash(&network(), &a, &b, 2, MicroUsd(5), None),
        tranche_hash(&network(), &a, &b, 1, MicroUsd(6), None),
        tranche_hash(&network(), &a, &b, 1, MicroUsd(5), Some(1)),
        tranche_hash(&network(), &a, &b, 1, MicroUsd(5), Some(2)),
    ] {
        assert_ne!(hash, other);
    }
}

#[test]
fn dollars_become_units_rounded_up_or_not_at_all() {
    assert_eq!(units(MicroUsd(1), 6), Some(1));
    assert_eq!(units(MicroUsd(1_000_001), 9), Some(1_000_001_000));
    assert_eq!(units(MicroUsd(1_000_001), 2), Some(101));
    assert_eq!(units(MicroUsd(1), 0), Some(1));
    assert_eq!(units(MicroUsd(u64::MAX), 7), None);
    assert_eq!(units(MicroUsd(1), 255), None);
    assert_eq!(
        [(7, 6), (1_999, 9), (1, 2), (u64::MAX, 0), (5, 255)].map(|(units, decimals)| worth(units, decimals).0),
        [7, 1, 10_000, u64::MAX, 0]
    );
}

#[test]
fn dollars_become_lamports_at_a_rate_that_tells_a_cent_from_the_next() {
    let at = |rate| Coin::Sol { rate };
    assert_eq!([50_000, 1, 0].map(|micro| at(RATE).units(MicroUsd(micro))), [333_334, 7, 0].map(Some));
    assert_eq!([333_334, 333_333, 6, 0].map(|lamports| at(RATE).worth(lamports).0), [50_000, 49_999, 0, 0]);
    assert_eq!((at(MAX_SOL_RATE).units(MicroUsd(u64::MAX)), at(1).worth(u64::MAX)), (None, MicroUsd(u64::MAX)));
    for (amount, rate) in [(1, 1), (12_345, 6_543_210), (1 << 40, 3)] {
        let units = at(rate).units(MicroUsd(amount)).unwrap();
        assert!(at(rate).worth(units) >= MicroUsd(amount), "who pays the units has paid the amount");
    }
}

#[test]
fn addresses_are_read_as_wallets_show_them() {
    let usdc: SolanaAddress = USDC.parse().unwrap();
    assert_eq!(usdc.to_string(), USDC);
    assert_eq!(SolanaAddress([0; 32]).to_string(), "1".repeat(32));
    // RFC 8032, 7.1, test 1.
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let secret: [u8; 32] = hex::decode(secret).unwrap().try_into().unwrap();
    assert_eq!(hex::encode(SigningKey::from_bytes(&secret).verifying_key().to_bytes()), public);
    for bad in ["", "0", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4w", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"] {
        let told = bad.parse::<SolanaAddress>().unwrap_err().to_string();
        assert!(told.contains("base58"), "{told}");
    }
    assert!("1".repeat(100_000).parse::<SolanaAddress>().unwrap_err().to_string().len() < 200);
}

proptest! {
    #[test]
    fn any_address_and_signature_round_trips(address in any::<[u8; 32]>(), half in any::<[u8; 32]>()) {
        let address = SolanaAddress(address);
        prop_assert_eq!(address.to_string().parse::<SolanaAddress>(), Ok(address));
        let signature = SolanaSignature([address.0, half].concat().try_into().unwrap());
        prop_assert_eq!(signature.to_string().parse::<SolanaSignature>(), Ok(signature));
    }
}
