//! SHA-256 (FIPS 180-4), from ring: it has assembly for each processor, and a quarter of a decision was hashing.

use ring::digest::{Context, SHA256};

/// SHA-256 over what comes piece by piece.
pub(crate) struct Sha256(Context);

impl Sha256 {
    pub(crate) fn new() -> Sha256 {
        Sha256(Context::new(&SHA256))
    }

    /// The digest of `parts`, one behind the other.
    pub(crate) fn of(parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        digest.finish()
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}
