//! The node's key on Solana: it signs transactions, and that it belongs to the node. Where it is kept is [`crate::identity`]'s.

use super::transaction::{Address, TxSignature};
use infernet_wire::{id::NodeId, solana::SolanaBinding, topic::NetworkId};
use solana_sdk::signature::{Keypair, Signer};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// An ed25519 key. Cheap to clone; shown as its address.
#[derive(Clone)]
pub struct SolanaKey(Arc<Keypair>);

impl fmt::Debug for SolanaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SolanaKey({})", self.address())
    }
}

impl SolanaKey {
    /// The key of a seed; any 32 bytes are one.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        SolanaKey(Arc::new(Keypair::new_from_array(*seed)))
    }

    /// The key of a seed with its public key behind it, as wallets keep it; `None` if the two don't belong together.
    pub fn from_keypair_bytes(bytes: &[u8; 64]) -> Option<Self> {
        Some(SolanaKey(Arc::new(Keypair::try_from(&bytes[..]).ok()?)))
    }

    /// Seed and public key.
    pub fn to_keypair_bytes(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// What [`SolanaKey::from_bytes`] makes it of.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.0.secret_bytes())
    }

    /// The wallet's address.
    pub fn address(&self) -> Address {
        Address(self.0.pubkey().to_bytes())
    }

    /// The statement that this key is `node`'s on `network`.
    pub fn bind(&self, network: &NetworkId, node: &NodeId) -> SolanaBinding {
        let address = self.address();
        let message = SolanaBinding::message(network, node, &address);
        SolanaBinding { address, proof: TxSignature(self.0.sign_message(message.as_bytes()).into()) }
    }

    pub(super) fn keypair(&self) -> &Keypair {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{key::NodeKey, solana::BadBinding};

    #[test]
    fn a_key_is_bound_to_one_node_on_one_network_and_shows_no_secret() {
        let (key, network) = (SolanaKey::from_bytes(&[3; 32]), NetworkId::default());
        let [node, other] = [1, 2].map(|n| NodeKey::from_bytes(&[n; 32]).expect("a key").id());
        let binding = key.bind(&network, &node);
        let refused = Err(BadBinding::Signature(key.address()));
        assert_eq!(binding.verify(&network, &node), Ok(()));
        assert_eq!(binding.verify(&network, &other), refused);
        assert_eq!(binding.verify(&"other".parse().expect("a name"), &node), refused);
        let stolen = SolanaBinding { address: SolanaKey::from_bytes(&[4; 32]).address(), ..binding };
        assert_eq!(stolen.verify(&network, &node), Err(BadBinding::Signature(stolen.address)));
        assert_eq!(format!("{key:?}"), format!("SolanaKey({})", key.address()));
    }
}
