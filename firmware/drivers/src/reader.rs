//! Card readers, all of them giving the same [`Uid`].
//!
//! A card that rests on a reader is read again and again; which readings are one gesture is decided by the device.
//!
//! There is no driver for the MFRC522. The published one panics on a card that claims a fourth cascade level, which
//! anybody can build, and waits in a loop for every card that is not there.

pub mod pn532;

use core::future::Future;

/// The number of a card: 4, 7 or 10 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uid {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl Uid {
    /// The longest.
    pub const BYTES_MAX: usize = 10;

    /// A number of 4, 7 or 10 bytes; `None` if it has others.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if !matches!(bytes.len(), 4 | 7 | 10) {
            return None;
        }
        let mut uid = Self {
            bytes: [0; Self::BYTES_MAX],
            len: bytes.len() as u8,
        };
        uid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(uid)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Why there is no card to be known of. The next call begins afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    /// The UART reports an error.
    #[error("the wire to the reader is disturbed")]
    Io,
    /// The stream of bytes has ended.
    #[error("the wire to the reader gives no more bytes")]
    Ended,
    /// The reader does not answer.
    #[error("the reader is silent")]
    Silent,
    /// The reader does not understand.
    #[error("the reader rejects a command")]
    Rejected,
}

/// A reader.
pub trait Cards {
    /// Waits for a card. A dropped future may lose a card that was just read, and nothing else; the card that rests is
    /// read again.
    fn next(&mut self) -> impl Future<Output = Result<Uid, ReaderError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for len in 0..=16 {
            let bytes = [7; 16];
            let uid = Uid::new(&bytes[..len]);
            assert_eq!(uid.is_some(), [4, 7, 10].contains(&len), "{len}");
            assert!(uid.is_none_or(|uid| uid.as_bytes() == &bytes[..len]));
        }
    }
}
