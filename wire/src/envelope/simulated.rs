//! Messages of nodes that exist only in a simulation, which can't afford thousands of signatures a second.
//!
//! A simulated node has an **id that is no public key**: it begins with a zero byte, where every key's id begins with 2 or 3. So
//! whatever is made here can neither pass for a real node's message nor be verified by [`Unverified::verify`], and a real node's
//! message can't be made here. Within the simulation a sender is as hard to forge: only who holds the [`SimulatedKey`] makes
//! messages in its name. Everything else is as on the wire: bytes, digests, sizes, fields.

use super::{MINOR, Message, Refusal, Unverified, Verified, digest, seal};
use crate::{
    codec, hash,
    id::{NodeId, Signature},
    topic::NetworkId,
};
use std::sync::Arc;

/// No public key begins like this.
const NO_KEY: u8 = 0;

/// The sender's tag of one simulated node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedKey(NodeId);

impl SimulatedKey {
    /// Node number `n` of the simulation named `world`. Its id looks as random as a key's.
    pub fn new(world: u64, n: u64) -> Self {
        let digest = hash::tagged("infernet/simulated-node/1", &[&world.to_be_bytes(), &n.to_be_bytes()]);
        let mut id = [NO_KEY; 33];
        id.iter_mut().skip(1).zip(digest.0).for_each(|(to, from)| *to = from);
        SimulatedKey(NodeId(id))
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.0
    }

    /// [`crate::key::NodeKey::sign`] without the signature.
    pub fn sign<T: Message>(&self, network: &NetworkId, body: T) -> Result<Verified<T>, Refusal> {
        body.check()?;
        let payload = codec::encode(&body);
        if payload.len() > T::MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        let (signer, signature) = (self.0, Signature([NO_KEY; 64]));
        let digest = digest(T::KIND, MINOR, network, &signer, &payload);
        let raw = seal(T::KIND, MINOR, network, payload, signer, signature);
        Ok(Verified(Arc::new(Unverified { body, digest, signer, signature, raw })))
    }
}

impl<T> Unverified<T> {
    /// Believes a simulated node's message, and nobody else's: for what a simulated node reads back from its disk.
    pub fn verify_simulated(self) -> Result<Verified<T>, Refusal> {
        let is_simulated = self.signer.0.first() == Some(&NO_KEY) && self.signature.0 == [NO_KEY; 64];
        if is_simulated { Ok(Verified(Arc::new(self))) } else { Err(Refusal::BadSignature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bid::{NoBid, NoBidReason},
        envelope::Envelope,
        id::Hash,
        key::NodeKey,
        time::UnixMillis,
    };

    fn body() -> NoBid {
        NoBid { offer: Hash([1; 32]), issued: UnixMillis(5), reason: NoBidReason::NO_SLOT }
    }

    fn open(raw: &[u8]) -> Unverified<NoBid> {
        Envelope::decode(raw).and_then(|envelope| envelope.open(&NetworkId::default(), UnixMillis(5))).expect("well formed")
    }

    #[test]
    fn neither_world_believes_the_other() {
        let network = NetworkId::default();
        let simulated = SimulatedKey::new(1, 7).sign(&network, body()).expect("within limits");
        let real = NodeKey::from_bytes(&[7; 32]).map(|key| key.sign(&network, body())).expect("a key").expect("within");
        assert_eq!(open(simulated.raw()).verify().err(), Some(Refusal::BadSignature));
        assert_eq!(open(real.raw()).verify_simulated().err(), Some(Refusal::BadSignature));
        assert_eq!(open(simulated.raw()).verify_simulated().map(|m| m.digest()), Ok(simulated.digest()));
    }

    #[test]
    fn ids_differ_by_node_and_world() {
        let ids = [SimulatedKey::new(1, 1), SimulatedKey::new(1, 2), SimulatedKey::new(2, 1)].map(|key| key.id());
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert!(ids[0].to_string().starts_with('1'));
    }
}
