//! Who runs the plane, as its operator writes it and as identities name it. Pure.

use crate::accounts::wallet::{Address, Chain};
use infernet_wire::id::NodeId;

/// `kind:subject` as an [`Identity`](crate::store::Identity) has it, from what people know: a node's id, a wallet's address. A
/// name that nobody could sign in by is refused with what to write.
pub(super) fn read(text: &str) -> Result<String, String> {
    let (kind, who) = text.trim().split_once(':').unwrap_or((text, ""));
    let hexadecimal = |bytes: usize| hex::decode(who).ok().filter(|id| id.len() == bytes).map(hex::encode);
    let wallet = |chain| Address::parse(chain, who).map(|address| address.subject());
    let (subject, fix) = match kind {
        "node" | "operator" => {
            let named = who.parse::<NodeId>().ok().map(|id| hex::encode(id.x_only()));
            (named.or_else(|| hexadecimal(32)), "write its id, such as 16Uiu2H…, or 64 hexadecimal digits of its key")
        }
        "evm" => (wallet(Chain::Evm).or_else(|| hexadecimal(20)), "write its address, such as 0x1a2b…"),
        "solana" => (wallet(Chain::Solana).or_else(|| hexadecimal(32)), "write its address, in base58"),
        "passkey" => {
            let known = hex::decode(who).ok().filter(|id| !id.is_empty()).map(hex::encode);
            (known, "write its credential id, in hexadecimal, as /api/v1/me/identities shows it")
        }
        _ => (None, "write KIND:WHO, where the kind is passkey, evm, solana, node or operator, such as operator:16Uiu2H…"),
    };
    subject.map(|subject| format!("{kind}:{subject}")).ok_or_else(|| format!("{text:?} is nobody who could sign in: {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::key::NodeKey;

    #[test]
    fn who_runs_the_plane_is_named_as_people_know_them() {
        let id = NodeKey::from_bytes(&[4; 32]).expect("a key").id();
        let key = hex::encode(id.x_only());
        assert_eq!(read(&format!("operator:{id}")), Ok(format!("operator:{key}")));
        assert_eq!(read(&format!("node:{}", key.to_uppercase())), Ok(format!("node:{key}")));
        assert_eq!(read(&format!("evm:0x{}", "AB".repeat(20))), Ok(format!("evm:{}", "ab".repeat(20))));
        assert_eq!(read(&format!("solana:{}", "1".repeat(32))), Ok(format!("solana:{}", "00".repeat(32))));
        assert_eq!(read("passkey:0aFF"), Ok("passkey:0aff".into()));
    }

    #[test]
    fn a_name_that_nobody_could_sign_in_by_is_refused() {
        for (text, fix) in [
            ("operator:16Uiu2Hxx", "write its id"),
            ("operator", "write its id"),
            ("evm:0x12", "write its address"),
            ("evm:", "write its address"),
            ("solana:0O", "in base58"),
            ("passkey:", "in hexadecimal"),
            ("operater:ab", "write KIND:WHO"),
            ("", "write KIND:WHO"),
        ] {
            let told = read(text).expect_err("refused");
            assert!(told.contains(fix), "{told}");
        }
    }
}
