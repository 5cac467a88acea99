//! Transactions that pay a tranche, and those that don't.

use super::*;
use crate::settlement::solana::{
    key::SolanaKey,
    transaction::{Blockhash, Order, key},
};
use serde_json::json;
use solana_sdk::{
    hash::Hash,
    instruction::Instruction,
    signature::{Keypair, Signer},
};

const MINT: Address = Address([8; 32]);
const USDC: Asset = Asset::Token { mint: MINT, decimals: 6 };

fn payer() -> Keypair {
    Keypair::new_from_array([3; 32])
}

fn payer_key() -> SolanaKey {
    SolanaKey::from_bytes(&[3; 32])
}

fn transfer() -> Transfer {
    Transfer { to: Address([1; 32]), asset: USDC, amount: 5_000, hash: [7; 32] }
}

fn expected() -> Expected {
    Expected { payer: Address(payer().pubkey().to_bytes()), transfer: transfer() }
}

fn shown(raw: &[u8]) -> Value {
    json!({ "slot": 9, "meta": { "err": null }, "transaction": [BASE64_STANDARD.encode(raw), "base64"] })
}

/// What a node shows of these transfers by that payer.
fn paid_by(payer: &SolanaKey, transfers: &[Transfer]) -> (TxSignature, Value) {
    let order = Order { transfers: transfers.to_vec(), unit_price: 5 };
    let signed = order.sign(payer, &Blockhash([4; 32])).expect("signed");
    (signed.signature, shown(&signed.raw))
}

fn paid(transfers: &[Transfer]) -> (TxSignature, Value) {
    paid_by(&payer_key(), transfers)
}

/// A transaction of the payer with other instructions.
fn made_of(instructions: &[Instruction]) -> (TxSignature, Value) {
    let message = Message::new(instructions, Some(&payer().pubkey()));
    let transaction = Transaction::new(&[&payer()], message, Hash::new_from_array([4; 32]));
    (TxSignature(transaction.signatures[0].into()), shown(&bincode::serialize(&transaction).expect("bytes")))
}

fn check(what: &(TxSignature, Value)) -> Result<(), NotPaid> {
    verify(&expected(), what.0, &what.1)
}

fn memo_of(hash: [u8; 32]) -> Instruction {
    spl_memo_interface::instruction::build_memo(&spl_memo_interface::v3::id(), memo(&hash).as_bytes(), &[])
}

fn token_transfer(source: Address, destination: Address, authority: &Pubkey) -> Instruction {
    let program = spl_token_interface::id();
    let [source, mint, destination] = [source, MINT, destination].map(|address| key(&address));
    spl_token_interface::instruction::transfer_checked(&program, &source, &mint, &destination, authority, &[], 5_000, 6)
        .expect("a transfer")
}

#[test]
fn what_was_agreed_is_a_payment_alone_or_in_a_batch_in_a_token_or_in_sol() {
    assert_eq!(check(&paid(&[transfer()])), Ok(()));
    let other = Transfer { to: Address([2; 32]), hash: [9; 32], ..transfer() };
    assert_eq!(check(&paid(&[other, transfer(), other])), Ok(()));
    assert_eq!(check(&paid(&[Transfer { amount: 5_001, ..transfer() }])), Ok(()), "more is welcome");
    let sol = Transfer { asset: Asset::Sol, ..transfer() };
    let (signature, answer) = paid(&[sol]);
    assert_eq!(verify(&Expected { transfer: sol, ..expected() }, signature, &answer), Ok(()));
}

#[test]
fn wrong_amount_mint_decimals_destination_memo_and_asset_are_refused() {
    let with = |wrong: Transfer| check(&paid(&[wrong]));
    assert_eq!(with(Transfer { amount: 4_999, ..transfer() }), Err(NotPaid::Amount { found: 4_999, wanted: 5_000 }));
    let mint = Address([9; 32]);
    assert_eq!(with(Transfer { asset: Asset::Token { mint, decimals: 6 }, ..transfer() }), Err(NotPaid::Asset));
    assert_eq!(with(Transfer { asset: Asset::Token { mint: MINT, decimals: 9 }, ..transfer() }), Err(NotPaid::Asset));
    assert_eq!(with(Transfer { asset: Asset::Sol, ..transfer() }), Err(NotPaid::Asset));
    let to = Address([2; 32]);
    assert_eq!(with(Transfer { to, ..transfer() }), Err(NotPaid::Destination(token_account(&to, &MINT))));
    assert_eq!(with(Transfer { hash: [6; 32], ..transfer() }), Err(NotPaid::Memo));
}

#[test]
fn in_a_batch_a_memo_belongs_to_the_transfer_before_it_alone() {
    let small = Transfer { amount: 1, ..transfer() };
    let large_for_another = Transfer { hash: [9; 32], ..transfer() };
    assert_eq!(check(&paid(&[large_for_another, small])), Err(NotPaid::Amount { found: 1, wanted: 5_000 }));
    let [from, to] = [expected().payer, transfer().to].map(|wallet| token_account(&wallet, &MINT));
    let pay = token_transfer(from, to, &payer().pubkey());
    assert_eq!(check(&made_of(&[pay.clone(), memo_of([7; 32])])), Ok(()));
    let one_for_two = made_of(&[pay.clone(), memo_of([9; 32]), memo_of([7; 32])]);
    assert_eq!(check(&one_for_two), Err(NotPaid::Asset), "one transfer, two memos");
    assert_eq!(check(&made_of(&[memo_of([7; 32]), pay])), Err(NotPaid::Memo));
}

#[test]
fn a_transfer_from_the_payees_account_to_itself_is_no_payment() {
    let own = token_account(&transfer().to, &MINT);
    let round = made_of(&[token_transfer(own, own, &payer().pubkey()), memo_of([7; 32])]);
    assert_eq!(check(&round), Err(NotPaid::Destination(own)));
}

#[test]
fn what_is_not_final_failed_or_of_somebody_else_is_refused() {
    let (signature, answer) = paid(&[transfer()]);
    assert_eq!(verify(&expected(), signature, &Value::Null), Err(NotPaid::NotFinal));
    let mut failed = answer.clone();
    failed["meta"]["err"] = json!({ "InstructionError": [3, { "Custom": 1 }] });
    let told = verify(&expected(), signature, &failed).expect_err("failed");
    assert_eq!(told, NotPaid::Failed(r#"{"InstructionError":[3,{"Custom":1}]}"#.into()));
    let stranger = SolanaKey::from_bytes(&[5; 32]);
    let payer = stranger.address();
    assert_eq!(check(&paid_by(&stranger, &[transfer()])), Err(NotPaid::Payer(payer)));
}

#[test]
fn a_node_cant_invent_a_payment() {
    let (signature, answer) = paid(&[transfer()]);
    let (_, other) = paid(&[Transfer { amount: 9_000, ..transfer() }]);
    assert_eq!(verify(&expected(), signature, &other), Err(NotPaid::Forged), "another transaction");
    let mut raw = BASE64_STANDARD.decode(answer["transaction"][0].as_str().expect("text")).expect("base64");
    let last = raw.len() - 70;
    raw[last] ^= 1;
    assert!(matches!(verify(&expected(), signature, &shown(&raw)), Err(NotPaid::Forged | NotPaid::Malformed)));
    for bad in [json!({}), json!([]), json!({ "transaction": ["!", "base64"] }), json!({ "transaction": ["", "base64"] })] {
        assert_eq!(verify(&expected(), signature, &bad), Err(NotPaid::Malformed), "{bad}");
    }
    let mut silent = answer;
    silent["meta"] = json!({});
    assert_eq!(verify(&expected(), signature, &silent), Err(NotPaid::Malformed), "success has to be said");
}

#[test]
fn a_transfer_pays_no_other_tranche() {
    let (signature, answer) = paid(&[transfer()]);
    assert_eq!(verify(&expected(), signature, &Value::Null), Err(NotPaid::NotFinal));
    assert_eq!(verify(&expected(), signature, &answer), Ok(()));
    let next = Expected { transfer: Transfer { hash: [6; 32], ..transfer() }, ..expected() };
    assert_eq!(verify(&next, signature, &answer), Err(NotPaid::Memo));
}

#[test]
fn statuses_are_read_in_the_order_that_was_asked() {
    let [one, two] = [TxSignature([1; 64]), TxSignature([2; 64])];
    let answer = json!({ "value": [null, { "slot": 5, "err": null, "confirmationStatus": "finalized" }] });
    let known = Seen { signature: two, slot: 5, finalized: true, failed: None };
    assert_eq!(statuses(&[one, two], &answer), Some(vec![known]));
    assert_eq!(statuses(&[one], &answer), None, "an answer to something else");
    for bad in [json!({}), json!({ "value": [5] }), json!({ "value": [{ "slot": 5, "confirmationStatus": "finalized" }] })] {
        assert_eq!(statuses(&[one], &bad), None, "what is not understood is not taken for unknown: {bad}");
    }
}
