//! Artifacts in a file, for a gateway that no network reaches. The file begins with [`BUNDLE_MAGIC`]; then come parts of
//! artifacts, as they travel on the link, each behind its length in four bytes, big-endian. Nothing in it is secret and
//! nothing is believed for being in it: every artifact is signed.

use alloc::vec::Vec;

use crate::{
    codec::{self, CodecError},
    link::{ArtifactPart, PART_BYTES_MAX},
};

/// The first bytes of the file.
pub const BUNDLE_MAGIC: &[u8; 8] = b"HOLDFST1";
/// What a part adds to its bytes, at most.
const PART_OVERHEAD_BYTES: usize = 64;

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Another file.
    #[error("not a file of signed artifacts")]
    Magic,
    /// The file ends in the middle of a part, or a part is longer than any may be.
    #[error("part {0} is cut short, or longer than a part may be")]
    Length(usize),
    /// A part cannot be read.
    #[error("part {at}: {error}")]
    Part {
        /// Which, from 0.
        at: usize,
        /// Why.
        error: CodecError,
    },
}

/// The file of these parts, in this order.
#[must_use]
pub fn write_bundle<'a>(parts: impl IntoIterator<Item = &'a ArtifactPart>) -> Vec<u8> {
    let mut file = BUNDLE_MAGIC.to_vec();
    for part in parts {
        let bytes = codec::to_vec(part);
        file.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        file.extend_from_slice(&bytes);
    }
    file
}

/// The parts in a file.
///
/// # Errors
/// [`BundleError`].
pub fn read_bundle(file: &[u8]) -> Result<Vec<ArtifactPart>, BundleError> {
    let mut rest = file.strip_prefix(BUNDLE_MAGIC).ok_or(BundleError::Magic)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let at = parts.len();
        let (len, behind) = rest.split_first_chunk().ok_or(BundleError::Length(at))?;
        let len = u32::from_be_bytes(*len) as usize;
        if len > PART_BYTES_MAX + PART_OVERHEAD_BYTES || len > behind.len() {
            return Err(BundleError::Length(at));
        }
        let (bytes, behind) = behind.split_at(len);
        parts.push(codec::decode(bytes).map_err(|error| BundleError::Part { at, error })?);
        rest = behind;
    }
    Ok(parts)
}
