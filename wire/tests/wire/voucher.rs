//! Vouchers against signatures that another implementation made (see `testnet/contracts/build.sh`), and everything that must be
//! refused.

use crate::samples::key;
use infernet_wire::{
    envelope::Refusal,
    evm::EvmAddress,
    id::{ChannelId, EvmSignature, JobId},
    key::{NodeKey, Signer},
    limits,
    voucher::{BadVoucher, ChannelTerms, Close, LEDGER, MAX_AMOUNT, SignedVoucher, UnverifiedVoucher, Voucher},
};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/voucher.json")).unwrap()
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap()
}

fn bytes<const N: usize>(of: &Value, field: &str) -> [u8; N] {
    hex::decode(text(of, field)).unwrap().try_into().unwrap()
}

fn address(of: &Value, field: &str) -> EvmAddress {
    text(of, field).parse().unwrap()
}

fn signer(key: &NodeKey) -> Signer {
    Signer::of(&key.id()).unwrap()
}

fn contract() -> EvmAddress {
    "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().unwrap()
}

fn voucher() -> Voucher {
    Voucher { chain: 31_337, contract: contract(), channel: ChannelId([7; 32]), job: JobId([8; 16]), amount: 1_000 }
}

#[test]
fn our_signatures_are_those_that_ethers_makes() {
    let vectors = vectors();
    let (mut even, mut odd) = (0, 0);
    for vector in vectors["signed"].as_array().unwrap() {
        let key = NodeKey::from_bytes(&bytes(vector, "secret_key")).unwrap();
        let (chain, contract) = (vector["chain"].as_u64().unwrap(), address(vector, "contract"));
        let (channel, amount) = (ChannelId(bytes(vector, "channel")), text(vector, "amount").parse().unwrap());
        let signature = EvmSignature(bytes(vector, "signature"));
        assert_eq!(key.id().evm_address(), address(vector, "signer"));
        if signature.0[32] & 0x80 == 0 {
            even += 1
        } else {
            odd += 1
        }
        if text(vector, "kind") == "close" {
            let close = Close { chain, contract, channel, amount };
            assert_eq!((close.digest(), close.sign(&key)), (bytes(vector, "digest"), signature));
            assert_eq!(close.verify(&signature, &key.id().evm_address()), Ok(()));
            continue;
        }
        let voucher = Voucher { chain, contract, channel, job: JobId(bytes(vector, "job")), amount };
        let signed = SignedVoucher::sign(&key, voucher).unwrap();
        assert_eq!((voucher.digest(), signed.signature()), (bytes(vector, "digest"), &signature));
        let read = UnverifiedVoucher::decode(&signed.encode()).unwrap();
        assert_eq!(read.verify(&address(vector, "signer")), Ok(signed));
    }
    assert!(even > 3 && odd > 3, "both parities: {even} and {odd}");
}

#[test]
fn a_channels_id_is_what_the_contract_computes() {
    let vectors = vectors();
    for vector in vectors["channels"].as_array().unwrap() {
        let terms = ChannelTerms {
            chain: vector["chain"].as_u64().unwrap(),
            contract: address(vector, "contract"),
            payer: address(vector, "payer"),
            payee: address(vector, "payee"),
            token: address(vector, "token"),
            salt: bytes(vector, "salt"),
        };
        assert_eq!(terms.id(), ChannelId(bytes(vector, "id")));
    }
}

/// The bytes between two nodes: a change here is a change of protocol.
#[test]
fn a_voucher_on_the_wire() {
    let signed = SignedVoucher::sign(&key(2), voucher()).unwrap();
    let expected = "a600197a6901545fbdb2315678afecb367f032d93f642f64180aa3025820".to_owned()
        + &"07".repeat(32)
        + "0350"
        + &"08".repeat(16)
        + "0450000000000000000000000000000003e8055840"
        + &signed.signature().to_string();
    assert_eq!(hex::encode(signed.encode()), expected);
    let largest = Voucher { chain: u64::MAX, amount: MAX_AMOUNT, ..voucher() };
    assert!(SignedVoucher::sign(&key(2), largest).unwrap().encode().len() <= limits::MAX_VOUCHER_BYTES);
}

#[test]
fn a_voucher_counts_for_its_payer_chain_contract_channel_job_and_amount_alone() {
    let (payer, signed) = (key(2).id().evm_address(), SignedVoucher::sign(&key(2), voucher()).unwrap());
    let with = |changed: Voucher| {
        let theirs = hex::encode(SignedVoucher::sign(&key(3), changed).unwrap().encode());
        let forged = theirs[..theirs.len() - 128].to_owned() + &signed.signature().to_string();
        UnverifiedVoucher::decode(&hex::decode(forged).unwrap()).unwrap().verify(&payer)
    };
    assert_eq!(with(voucher()), Ok(signed));
    let refused = Err(BadVoucher::Signer { payer });
    assert_eq!(with(Voucher { chain: 1, ..voucher() }), refused);
    assert_eq!(with(Voucher { contract: payer, ..voucher() }), refused);
    assert_eq!(with(Voucher { channel: ChannelId([9; 32]), ..voucher() }), refused);
    assert_eq!(with(Voucher { job: JobId([9; 16]), ..voucher() }), refused);
    assert_eq!(with(Voucher { amount: 1_001, ..voucher() }), refused);
    assert_eq!(with(Voucher { chain: LEDGER, contract: EvmAddress::ZERO, ..voucher() }), refused);
    let stranger = key(3).id().evm_address();
    assert_eq!(
        UnverifiedVoucher::decode(&signed.encode()).unwrap().verify(&stranger),
        Err(BadVoucher::Signer { payer: stranger })
    );
}

#[test]
fn a_close_is_no_voucher_and_a_voucher_no_close() {
    let Voucher { chain, contract, channel, amount, .. } = voucher();
    let (close, payer) = (Close { chain, contract, channel, amount }, key(2).id().evm_address());
    let signed = SignedVoucher::sign(&key(2), voucher()).unwrap();
    assert_eq!(close.verify(signed.signature(), &payer), Err(BadVoucher::Signer { payer }));
}

#[test]
fn a_signature_has_no_twin() {
    let (payer, signed) = (key(2).id().evm_address(), SignedVoucher::sign(&key(2), voucher()).unwrap());
    let end = signed.encode().len();
    let with = |s: [u8; 32]| {
        let mut bytes = signed.encode();
        bytes[end - 32..].copy_from_slice(&s);
        UnverifiedVoucher::decode(&bytes).unwrap().verify(&payer)
    };
    // Half of the order plus one: the lowest that has a lower twin; and the highest that 255 bits can say.
    let mut above: [u8; 32] =
        hex::decode("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1").unwrap().try_into().unwrap();
    assert_eq!(with(above), Err(BadVoucher::HighS));
    above[0] |= 0x80;
    assert_eq!(with(above), Err(BadVoucher::HighS));
    assert_eq!(with([0xff; 32]), Err(BadVoucher::HighS));
    assert_eq!(with([0; 32]), Err(BadVoucher::Signer { payer }));
}

#[test]
fn what_no_channel_can_hold_is_not_signed_and_not_read() {
    let check = |voucher: Voucher, refusal: BadVoucher| {
        assert_eq!(voucher.check(), Err(refusal));
        assert_eq!(SignedVoucher::sign(&key(2), voucher), Err(refusal));
    };
    let ledger = Voucher { chain: LEDGER, contract: EvmAddress::ZERO, ..voucher() };
    assert_eq!(ledger.check(), Ok(()));
    check(Voucher { amount: MAX_AMOUNT + 1, ..voucher() }, BadVoucher::Amount(MAX_AMOUNT + 1));
    check(Voucher { amount: 1 << 64, ..ledger }, BadVoucher::Amount(1 << 64));
    check(Voucher { chain: LEDGER, ..voucher() }, BadVoucher::Contract);
    check(Voucher { contract: EvmAddress::ZERO, ..voucher() }, BadVoucher::Contract);
    // The same from the wire: the amount's highest byte.
    let mut bytes = SignedVoucher::sign(&key(2), voucher()).unwrap().encode();
    let at = bytes.len() - 64 - 3 - 16;
    bytes[at] = 1;
    assert_eq!(UnverifiedVoucher::decode(&bytes).unwrap_err(), BadVoucher::Amount((1 << 120) + 1_000));
}

#[test]
fn a_voucher_has_one_form() {
    let bytes = SignedVoucher::sign(&key(2), voucher()).unwrap().encode();
    let check = |bytes: &[u8], refusal: Refusal| {
        assert_eq!(UnverifiedVoucher::decode(bytes).unwrap_err(), BadVoucher::Bytes(refusal));
    };
    check(&[], Refusal::Malformed);
    check(&[&bytes[..], &[0]].concat(), Refusal::Malformed);
    check(&[0; limits::MAX_VOUCHER_BYTES + 1], Refusal::TooLarge);
    // One more field, and the chain id in more bytes than it needs.
    let more = [&[0xa7], &bytes[1..], &[0x06, 0x00]].concat();
    check(&more, Refusal::NotCanonical);
    let long = [&bytes[..2], &[0x1a, 0, 0], &bytes[3..]].concat();
    check(&long, Refusal::NotCanonical);
}

proptest! {
    #[test]
    fn any_voucher_round_trips(chain in 1u64.., channel in any::<[u8; 32]>(), job in any::<[u8; 16]>(), amount in 0..=MAX_AMOUNT) {
        let voucher = Voucher { chain, contract: contract(), channel: ChannelId(channel), job: JobId(job), amount };
        let signed = SignedVoucher::sign(&key(2), voucher).unwrap();
        let read = UnverifiedVoucher::decode(&signed.encode()).unwrap();
        prop_assert_eq!(read.claim(), &voucher);
        prop_assert_eq!(read.verify(&key(2).id().evm_address()), Ok(signed));
        let shown = serde_json::to_string(&voucher).unwrap();
        prop_assert_eq!(serde_json::from_str::<Voucher>(&shown).unwrap(), voucher);
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused(bit in 0usize..8 * 172) {
        let mut bytes = SignedVoucher::sign(&key(2), voucher()).unwrap().encode();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = UnverifiedVoucher::decode(&bytes).and_then(|read| read.verify(&key(2).id().evm_address()));
        prop_assert!(read.is_err());
    }
}

#[test]
fn a_known_payers_signature_is_good_whichever_bit_it_carries_and_the_contract_gets_the_right_one() {
    let (payer, other) = (key(1), key(3));
    for amount in 1..9 {
        let signed = SignedVoucher::sign(&payer, Voucher { amount, ..voucher() }).unwrap();
        let mut bytes = signed.encode();
        let read = |bytes: &[u8]| UnverifiedVoucher::decode(bytes).unwrap();
        assert_eq!(read(&bytes).verify_by(&signer(&payer)), Ok(signed));
        let wrong = BadVoucher::Signer { payer: other.id().evm_address() };
        assert_eq!(read(&bytes).verify_by(&signer(&other)), Err(wrong));
        // The bit that tells which of two keys signed is the highest of the signature's second half.
        let at = bytes.len() - 32;
        bytes[at] ^= 0x80;
        let flipped = read(&bytes);
        assert!(flipped.verify(&payer.id().evm_address()).is_err(), "the contract would refuse it");
        let kept = flipped.verify_by(&signer(&payer)).unwrap();
        assert_eq!(kept.for_contract(&payer.id().evm_address()), Some(signed));
        assert_eq!(kept.for_contract(&other.id().evm_address()), None);
        bytes[at - 1] ^= 1;
        assert!(read(&bytes).verify_by(&signer(&payer)).is_err());
    }
}

#[test]
fn a_high_s_is_refused_from_a_known_payer_too() {
    let signed = SignedVoucher::sign(&key(1), voucher()).unwrap();
    let mut bytes = signed.encode();
    let at = bytes.len() - 32;
    // The largest s that fits beside the bit, above half of the order.
    bytes[at..].fill(0xff);
    bytes[at] = 0x7f;
    assert_eq!(UnverifiedVoucher::decode(&bytes).unwrap().verify_by(&signer(&key(1))), Err(BadVoucher::HighS));
}
