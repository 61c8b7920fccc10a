//! Byte streams to the gateway.

use embassy_time::{Duration, Timer, with_timeout};
use embedded_io_async::{ErrorType, Read, ReadReady, Write};

/// How long the module takes to close a connection whose peer it has offended, in ms.
const CLOSE_MS: u64 = 400;
/// After so long without a byte, what the old connection left over is read, in ms.
const QUIET_MS: u64 = 20;
/// Most bytes of an old connection that are thrown away; a peer that sends more is none of ours.
const LEFT_OVER_BYTES_MAX: usize = 16 * 1024;
/// An MQTT DISCONNECT. To a broker that waits for CONNECT it is an offence; either way the broker closes.
const DISCONNECT: [u8; 2] = [0xe0, 0x00];

/// A byte stream to the gateway.
pub trait Transport: Read + Write {
    /// Ends whatever connection there is and begins a fresh one; `Err` if that is not possible now.
    fn renew(&mut self) -> impl Future<Output = Result<(), ()>>;
}

/// A UART whose ring for sending holds so many bytes. Such a ring takes a write whole or, if it has no room, forgets to say
/// when it has; so it is written to only when it is empty, and never more than it holds.
#[derive(Debug)]
pub struct Ring<U> {
    uart: U,
    bytes: usize,
}

impl<U> Ring<U> {
    /// `bytes`: what fits into the ring.
    pub const fn new(uart: U, bytes: usize) -> Self {
        Self { uart, bytes }
    }
}

impl<U: ErrorType> ErrorType for Ring<U> {
    type Error = U::Error;
}

impl<U: Read> Read for Ring<U> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.uart.read(bytes).await
    }
}

impl<U: ReadReady> ReadReady for Ring<U> {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        self.uart.read_ready()
    }
}

impl<U: Write> Write for Ring<U> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.uart.flush().await?;
        self.uart.write(bytes.get(..self.bytes).unwrap_or(bytes)).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.uart.flush().await
    }
}

/// A UART with a transparent serial-to-TCP module behind it. The module connects by itself, and nobody tells this side
/// when the connection ends; so a fresh one is forced by making the broker close the old.
#[derive(Debug)]
pub struct Module<U>(pub U);

impl<U: ErrorType> ErrorType for Module<U> {
    type Error = U::Error;
}

impl<U: Read> Read for Module<U> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(bytes).await
    }
}

impl<U: Write> Write for Module<U> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.0.flush().await
    }
}

impl<U: Read + Write> Transport for Module<U> {
    async fn renew(&mut self) -> Result<(), ()> {
        self.write_all(&DISCONNECT).await.map_err(|_| ())?;
        self.flush().await.map_err(|_| ())?;
        Timer::after_millis(CLOSE_MS).await;
        let mut left_over = [0; 64];
        let mut thrown = 0;
        // A read error is what a UART says of bytes that it lost: they were to be thrown away.
        while let Ok(read) = with_timeout(Duration::from_millis(QUIET_MS), self.read(&mut left_over)).await {
            thrown += read.unwrap_or(1).max(1);
            if thrown > LEFT_OVER_BYTES_MAX {
                return Err(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use embassy_futures::block_on;

    use super::*;

    /// A ring as some HALs have it: what does not fit is refused, or never taken.
    #[derive(Debug, Default)]
    struct Uart {
        waiting: usize,
        sent: Vec<u8>,
    }

    const RING_BYTES: usize = 16;

    impl ErrorType for Uart {
        type Error = embedded_io_async::ErrorKind;
    }

    impl Read for Uart {
        async fn read(&mut self, _: &mut [u8]) -> Result<usize, Self::Error> {
            Ok(0)
        }
    }

    impl Write for Uart {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
            if bytes.len() > RING_BYTES {
                return Err(embedded_io_async::ErrorKind::OutOfMemory);
            }
            assert!(self.waiting + bytes.len() <= RING_BYTES, "it would never be taken");
            self.waiting += bytes.len();
            self.sent.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        async fn flush(&mut self) -> Result<(), Self::Error> {
            self.waiting = 0;
            Ok(())
        }
    }

    #[test]
    fn a_ring_is_never_given_more_than_it_takes() {
        let mut ring = Ring::new(Uart::default(), RING_BYTES);
        let message: Vec<u8> = (0..=255).collect();
        for end in [1, 15, 16, 17, 40, 256] {
            block_on(ring.write_all(&message[..end])).unwrap();
        }
        let wanted: Vec<u8> = [1, 15, 16, 17, 40, 256]
            .iter()
            .flat_map(|end| message[..*end].to_vec())
            .collect();
        assert_eq!(ring.uart.sent, wanted);
    }
}
