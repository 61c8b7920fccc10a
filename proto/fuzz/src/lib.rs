//! What every target asserts: reading never panics, and what was read can be written and read again.

use std::fmt::Debug;

use proto::codec::{self, CodecError};
use serde::{Serialize, de::DeserializeOwned};

/// The value of these bytes, if they are one.
///
/// # Panics
/// If the value does not survive being written and read, or the error says what cannot be.
pub fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    match codec::decode::<T>(bytes) {
        Ok(value) => {
            assert_eq!(codec::decode::<T>(&codec::to_vec(&value)).as_ref(), Ok(&value));
            Some(value)
        }
        Err(CodecError::Malformed { at, .. }) => {
            assert!(at <= bytes.len() as u64, "an error behind the end");
            None
        }
        Err(CodecError::Overflow(_)) => panic!("reading cannot overflow"),
    }
}
