//! Byte streams to the gateway.

use embassy_time::{Duration, Timer, with_timeout};
use embedded_io_async::{Read, Write};

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

/// A UART with a transparent serial-to-TCP module behind it. The module connects by itself, and nobody tells this side
/// when the connection ends; so a fresh one is forced by making the broker close the old.
#[derive(Debug)]
pub struct Module<U>(pub U);

impl<U: embedded_io_async::ErrorType> embedded_io_async::ErrorType for Module<U> {
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
        self.0.write_all(&DISCONNECT).await.map_err(|_| ())?;
        self.0.flush().await.map_err(|_| ())?;
        Timer::after_millis(CLOSE_MS).await;
        let mut left_over = [0; 64];
        let mut thrown = 0;
        // A read error is what a UART says of bytes that it lost: they were to be thrown away.
        while let Ok(read) = with_timeout(Duration::from_millis(QUIET_MS), self.0.read(&mut left_over)).await {
            thrown += read.unwrap_or(1).max(1);
            if thrown > LEFT_OVER_BYTES_MAX {
                return Err(());
            }
        }
        Ok(())
    }
}
