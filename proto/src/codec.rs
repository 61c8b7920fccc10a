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
        /// How many bytes of the body had been read by then.
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
/// [`CodecError::Malformed`], with how far the reader came.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    // Only indefinite-length strings need scratch space; without any they are refused.
    let mut scratch = [];
    let mut deserializer = serde_cbor::de::Deserializer::from_slice_with_scratch(bytes, &mut scratch);
    let value = match T::deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(error) => return Err(malformed(&error, read_bytes(&deserializer))),
    };
    match deserializer.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(malformed(&error, read_bytes(&deserializer))),
    }
}

type Reader<'a, 's> = serde_cbor::Deserializer<serde_cbor::de::SliceReadFixed<'a, 's>>;

#[cfg(feature = "host")]
fn read_bytes(reader: &Reader<'_, '_>) -> usize {
    reader.byte_offset()
}

/// Without `std`, `serde_cbor` does not tell how far it came; an error about a field is then at byte 0.
#[cfg(not(feature = "host"))]
const fn read_bytes(_: &Reader<'_, '_>) -> usize {
    0
}

/// `read_bytes`: how far the reader came; an error about a field has no offset of its own.
fn malformed(error: &serde_cbor::Error, read_bytes: usize) -> CodecError {
    let what = match error.classify() {
        serde_cbor::error::Category::Eof => "the input ends early",
        serde_cbor::error::Category::Syntax => "bad CBOR",
        serde_cbor::error::Category::Data => "a field has the wrong form or is missing",
        serde_cbor::error::Category::Io => "an indefinite-length string",
    };
    CodecError::Malformed {
        what,
        at: error.offset().max(read_bytes as u64),
    }
}
