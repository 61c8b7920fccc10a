//! CBOR. The only file that names `serde_cbor`; the wire itself is defined by `schema/v1.cddl` and the frozen vectors,
//! so that another implementation could stand here.
//!
//! Structs travel packed: maps keyed by field position. Decoding accepts unknown keys (a newer writer), refuses
//! trailing bytes, a known key twice, indefinite-length strings and more than 127 levels.

use serde::{Deserialize, Serialize};

/// The largest encoding of a tariff, in bytes.
pub(crate) const TARIFF_BYTES_MAX: usize = 384;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not CBOR, or CBOR of another shape.
    #[error("not a valid message: {what} at byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Offset in the body: of the fault, or just behind it.
        at: u64,
    },
    /// The output buffer is too small.
    #[error("the message does not fit the buffer of {0} bytes")]
    Overflow(usize),
}

/// Encodes into `out`; returns the length.
///
/// # Errors
/// [`CodecError::Overflow`] if `out` is too small.
pub fn encode<T: Serialize>(value: &T, out: &mut [u8]) -> Result<usize, CodecError> {
    let len = out.len();
    let mut writer = serde_cbor::ser::SliceWrite::new(out);
    value
        .serialize(&mut serde_cbor::Serializer::new(&mut writer).packed_format())
        .map_err(|_| CodecError::Overflow(len))?;
    Ok(writer.bytes_written())
}

/// Encodes into a new vector.
///
/// # Panics
/// Never for the types of this crate: none of them has a map with keys that cannot be written.
#[cfg(feature = "host")]
#[must_use]
pub fn to_vec<T: Serialize>(value: &T) -> alloc::vec::Vec<u8> {
    serde_cbor::ser::to_vec_packed(value).expect("writing to memory cannot fail")
}

/// Decodes a whole body.
///
/// # Errors
/// [`CodecError::Malformed`], with the offset.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    // Only indefinite-length strings need scratch space; without any they are refused.
    let mut scratch = [];
    let mut deserializer = serde_cbor::de::Deserializer::from_slice_with_scratch(bytes, &mut scratch);
    let value = T::deserialize(&mut deserializer);
    let end = deserializer.end();
    match (value, end) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(malformed(&error, error.offset())),
        (Err(error), _) if error.classify() != serde_cbor::error::Category::Data => {
            Err(malformed(&error, error.offset()))
        }
        // An error about a field has no offset; the byte that follows it has, and without one all was read.
        (Err(error), Ok(())) => Err(malformed(&error, bytes.len() as u64)),
        (Err(error), Err(rest)) => Err(malformed(&error, rest.offset().saturating_sub(1))),
    }
}

fn malformed(error: &serde_cbor::Error, at: u64) -> CodecError {
    let what = match error.classify() {
        serde_cbor::error::Category::Eof => "the input ends early",
        serde_cbor::error::Category::Syntax => "bad CBOR",
        serde_cbor::error::Category::Data => "a field has the wrong form or is missing",
        serde_cbor::error::Category::Io => "an indefinite-length string",
    };
    CodecError::Malformed { what, at }
}
