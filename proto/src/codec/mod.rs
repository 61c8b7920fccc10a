//! CBOR. The only file that names `serde_cbor`; the wire itself is defined by `schema/v1.cddl` and the frozen vectors,
//! so that another implementation could stand here. serde_cbor writes; what reads is `read.rs`, for the room of a
//! microcontroller.
//!
//! Structs travel packed: maps keyed by field position. Decoding accepts unknown keys (a newer writer), refuses
//! trailing bytes, a known key twice, indefinite-length strings and more than 127 levels.

mod read;

use serde::{Deserialize, Serialize};

use read::{Fault, Reader};

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

/// What most messages and records fit into, in bytes: a buffer that grows is copied.
#[cfg(feature = "host")]
const USUAL_BYTES_MAX: usize = 512;

/// Encodes into a new vector.
///
/// # Panics
/// Never for the types of this crate: none of them has a map with keys that cannot be written.
#[cfg(feature = "host")]
#[must_use]
pub fn to_vec<T: Serialize>(value: &T) -> alloc::vec::Vec<u8> {
    let mut bytes = alloc::vec::Vec::with_capacity(USUAL_BYTES_MAX);
    let mut serializer = serde_cbor::Serializer::new(serde_cbor::ser::IoWrite::new(&mut bytes)).packed_format();
    value.serialize(&mut serializer).expect("writing to memory cannot fail");
    bytes
}

/// Decodes a whole body.
///
/// # Errors
/// [`CodecError::Malformed`], with the offset.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let mut reader = Reader::new(bytes);
    let value = T::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|fault| CodecError::Malformed {
        what: match fault {
            Fault::Early => "the input ends early",
            Fault::Bad => "bad CBOR",
            Fault::Field => "a field has the wrong form or is missing",
            Fault::Indefinite => "an indefinite-length string",
        },
        at: reader.at() as u64,
    })
}
