//! Names that nobody can guess, as RFC 9562 writes them.

use infernet_node::clock;
use infernet_wire::id::Hash;

/// A random UUID (version 4).
pub(crate) fn random() -> String {
    written(clock::random(), 0x40)
}

/// The UUID of a digest (version 8): the same for the same.
pub(crate) fn of_digest(digest: &Hash) -> String {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(byte, from)| *byte = *from);
    written(bytes, 0x80)
}

fn written(mut bytes: [u8; 16], version: u8) -> String {
    let [.., v, _, r, _, _, _, _, _, _, _] = &mut bytes;
    *v = *v & 0x0f | version;
    *r = *r & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_version_and_variant() {
        assert_eq!(written([0xff; 16], 0x40), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(of_digest(&Hash([0; 32])), "00000000-0000-8000-8000-000000000000");
        assert_ne!(random(), random());
    }
}
