//! The payee's side: does this transaction pay this tranche? **Pure**, over what a chain's node answers to `getTransaction`.
//!
//! Little of the answer is believed. The transaction's bytes are read here: they must carry the payer's own signature, and the
//! transfer and its memo must stand in them. So a node can't invent a payment, change its amount or its destination. It can say
//! that a transaction landed which did not; who fears that asks two nodes.
//!
//! A transfer pays one tranche: that of the memo right after it. That a tranche counts once is seen to where the money is kept:
//! [`PayeeTab::prepay`](crate::settlement::tab::PayeeTab::prepay).

use super::{
    payment::Seen,
    transaction::{Address, Asset, Transfer, TxSignature, from_bytes, memo, token_account},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use solana_sdk::{
    message::{Message, compiled_instruction::CompiledInstruction},
    pubkey::Pubkey,
    transaction::Transaction,
};
use solana_system_interface::instruction::SystemInstruction;
use spl_token_interface::instruction::TokenInstruction;

/// Characters of a chain's reason for a failure that are kept.
const MAX_REASON_CHARS: usize = 200;

/// What a tranche is expected to be paid with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Whose key signs: the one bound to the buyer.
    pub payer: Address,
    /// To whom, in what, how much at least, for what.
    pub transfer: Transfer,
}

/// Why a transaction does not pay a tranche.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPaid {
    /// The node does not know it as final.
    #[error("the transaction is not final yet, or does not exist: ask again in half a minute")]
    NotFinal,
    /// The answer is none.
    #[error("the chain's node answers getTransaction with something else")]
    Malformed,
    /// It is another transaction, or one that nobody signed.
    #[error("the chain's node shows another transaction than the one it was asked for, or one with a wrong signature")]
    Forged,
    /// Somebody else paid.
    #[error("the transaction is of another payer, {0}")]
    Payer(Address),
    /// It did nothing.
    #[error("the transaction failed: {0}")]
    Failed(String),
    /// Nothing in it has the tranche's memo.
    #[error("no transfer in the transaction has the tranche's memo right after it")]
    Memo,
    /// Its transfer is in something else.
    #[error("the transfer is not in what was agreed")]
    Asset,
    /// Its transfer goes elsewhere.
    #[error("the transfer goes to another account, {0}")]
    Destination(Address),
    /// Too little.
    #[error("the transfer is of {found}, less than the tranche's {wanted}")]
    Amount {
        /// What it moves.
        found: u64,
        /// What the tranche costs.
        wanted: u64,
    },
}

impl NotPaid {
    /// Whether the same may be a payment later.
    pub fn retryable(&self) -> bool {
        matches!(self, NotPaid::NotFinal | NotPaid::Malformed)
    }
}

/// Whether `answer`, the result of `getTransaction` for `signature` at "finalized" in base64, shows what is expected.
pub fn verify(expected: &Expected, signature: TxSignature, answer: &Value) -> Result<(), NotPaid> {
    if answer.is_null() {
        return Err(NotPaid::NotFinal);
    }
    let transaction = read(answer).ok_or(NotPaid::Malformed)?;
    if transaction.signatures.first().map(|first| first.as_ref()) != Some(&signature.0[..]) || transaction.verify().is_err() {
        return Err(NotPaid::Forged);
    }
    let message = &transaction.message;
    let payer = message.account_keys.first().map(Pubkey::to_bytes).map(Address).ok_or(NotPaid::Malformed)?;
    if payer != expected.payer {
        return Err(NotPaid::Payer(payer));
    }
    match answer.pointer("/meta/err") {
        Some(Value::Null) => {}
        Some(reason) => return Err(NotPaid::Failed(shortened(reason))),
        None => return Err(NotPaid::Malformed),
    }
    pays(expected, message)
}

fn read(answer: &Value) -> Option<Transaction> {
    let text = answer.pointer("/transaction/0")?.as_str()?;
    from_bytes(&BASE64_STANDARD.decode(text).ok()?)
}

fn pays(expected: &Expected, message: &Message) -> Result<(), NotPaid> {
    let wanted = memo(&expected.transfer.hash);
    let is_memo = |instruction: &CompiledInstruction| {
        instruction.data == wanted.as_bytes() && program(message, instruction) == Some(&spl_memo_interface::v3::id())
    };
    let pairs = message.instructions.windows(2);
    let found: Vec<_> =
        pairs.filter_map(|pair| if let [first, second] = pair { is_memo(second).then_some(first) } else { None }).collect();
    // The first that is wrong tells why, unless another one is right.
    let mut reason = NotPaid::Memo;
    for (at, transfer) in found.into_iter().enumerate() {
        match check(expected, message, transfer) {
            Ok(()) => return Ok(()),
            Err(why) if at == 0 => reason = why,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// Whether the transfer is the one that is expected.
fn check(expected: &Expected, message: &Message, instruction: &CompiledInstruction) -> Result<(), NotPaid> {
    let Transfer { to, asset, amount: wanted, .. } = &expected.transfer;
    let account = |place: usize| {
        let index = usize::from(*instruction.accounts.get(place)?);
        message.account_keys.get(index).map(Pubkey::to_bytes).map(Address)
    };
    let (destination, source, from, target, amount) = match asset {
        Asset::Token { mint, decimals } => {
            let amount = token_amount(message, instruction, *decimals).ok_or(NotPaid::Asset)?;
            if account(1).as_ref() != Some(mint) {
                return Err(NotPaid::Asset);
            }
            (account(2), account(0), account(3), token_account(to, mint), amount)
        }
        Asset::Sol => {
            let amount = lamports(message, instruction).ok_or(NotPaid::Asset)?;
            (account(1), account(0), account(0), *to, amount)
        }
    };
    let destination = destination.ok_or(NotPaid::Malformed)?;
    // From the payee's own account to itself, which nobody gains by.
    if destination != target || source == Some(destination) {
        return Err(NotPaid::Destination(destination));
    }
    match from {
        Some(from) if from == expected.payer => {}
        Some(other) => return Err(NotPaid::Payer(other)),
        None => return Err(NotPaid::Malformed),
    }
    if amount < *wanted { Err(NotPaid::Amount { found: amount, wanted: *wanted }) } else { Ok(()) }
}

fn token_amount(message: &Message, instruction: &CompiledInstruction, wanted: u8) -> Option<u64> {
    if program(message, instruction)? != &spl_token_interface::id() {
        return None;
    }
    match TokenInstruction::unpack(&instruction.data).ok()? {
        TokenInstruction::TransferChecked { amount, decimals } if decimals == wanted => Some(amount),
        _ => None,
    }
}

fn lamports(message: &Message, instruction: &CompiledInstruction) -> Option<u64> {
    if program(message, instruction)? != &solana_system_interface::program::id() {
        return None;
    }
    match bincode::deserialize(&instruction.data).ok()? {
        SystemInstruction::Transfer { lamports } => Some(lamports),
        _ => None,
    }
}

fn program<'a>(message: &'a Message, instruction: &CompiledInstruction) -> Option<&'a Pubkey> {
    message.account_keys.get(usize::from(instruction.program_id_index))
}

fn shortened(reason: &Value) -> String {
    reason.to_string().chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
}

/// What the answer to `getSignatureStatuses` says of `signatures`, which it was asked about in this order; `None` if it is no answer.
pub fn statuses(signatures: &[TxSignature], answer: &Value) -> Option<Vec<Seen>> {
    let all = answer.get("value")?.as_array()?;
    if all.len() != signatures.len() {
        return None;
    }
    let known = signatures.iter().zip(all).filter(|(_, status)| !status.is_null());
    known.map(|(signature, status)| seen(*signature, status)).collect()
}

fn seen(signature: TxSignature, status: &Value) -> Option<Seen> {
    let finalized = status.get("confirmationStatus")?.as_str()? == "finalized";
    let failed = match status.get("err")? {
        Value::Null => None,
        reason => Some(shortened(reason)),
    };
    Some(Seen { signature, slot: status.get("slot")?.as_u64()?, finalized, failed })
}

#[cfg(test)]
mod tests;
