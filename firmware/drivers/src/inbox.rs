//! Bytes from a UART one by one, whatever the size of the pieces they come in.

use embedded_io_async::Read;

/// Bytes taken from the UART at once: a little more than the longest frame that a meter sends.
const PIECE_BYTES: usize = 32;

/// Why no byte came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing<E> {
    /// The UART reports an error; the next byte may be good again.
    Io(E),
    /// The stream has ended, which a UART does not do.
    Ended,
}

/// A UART and what was taken from it but not looked at. Dropping a future of [`Self::byte`] loses nothing as long as
/// that holds for the `read` of the UART.
#[derive(Debug)]
pub(crate) struct Inbox<U> {
    pub(crate) uart: U,
    piece: [u8; PIECE_BYTES],
    at: usize,
    len: usize,
}

impl<U: Read> Inbox<U> {
    pub(crate) const fn new(uart: U) -> Self {
        Self {
            uart,
            piece: [0; PIECE_BYTES],
            at: 0,
            len: 0,
        }
    }

    pub(crate) async fn byte(&mut self) -> Result<u8, Missing<U::Error>> {
        loop {
            if let Some(byte) = self.piece.get(..self.len).and_then(|piece| piece.get(self.at)) {
                self.at += 1;
                return Ok(*byte);
            }
            (self.at, self.len) = (0, 0);
            match self.uart.read(&mut self.piece).await {
                Ok(0) => return Err(Missing::Ended),
                Ok(len) => self.len = len.min(PIECE_BYTES),
                Err(error) => return Err(Missing::Io(error)),
            }
        }
    }

    /// Forgets what was taken and not looked at.
    pub(crate) const fn clear(&mut self) {
        (self.at, self.len) = (0, 0);
    }
}
