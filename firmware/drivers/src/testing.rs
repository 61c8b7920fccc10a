//! What the tests of several modules need.

use core::convert::Infallible;
use std::{cell::RefCell, collections::VecDeque, println, rc::Rc, vec::Vec};

use embedded_hal::digital::{ErrorType, InputPin, OutputPin, PinState};
use embedded_io_async::{Read, ReadReady, Write};
use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

/// The same cases in every run unless `HOLDFAST_SEED` says otherwise; the seed is printed, and a failure prints its
/// smallest case.
pub(crate) fn config(test: &str, cases: u32) -> ProptestConfig {
    let seed = std::env::var("HOLDFAST_SEED").map_or(20_231_112, |seed| seed.parse().expect("a number"));
    println!("{test}: HOLDFAST_SEED={seed}");
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Both ends of a UART: what will be read, in pieces, and what was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) to_read: Rc<RefCell<VecDeque<Result<u8, WireError>>>>,
    pub(crate) written: Rc<RefCell<Vec<u8>>>,
    pub(crate) piece_max: usize,
}

/// What a [`Wire`] can be told to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireError;

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("parity")
    }
}

impl core::error::Error for WireError {}

impl embedded_io_async::Error for WireError {
    fn kind(&self) -> embedded_io_async::ErrorKind {
        embedded_io_async::ErrorKind::Other
    }
}

impl Wire {
    pub(crate) fn new(piece_max: usize) -> Self {
        Self {
            piece_max,
            ..Self::default()
        }
    }

    pub(crate) fn feed(&self, bytes: &[u8]) {
        self.to_read.borrow_mut().extend(bytes.iter().map(|byte| Ok(*byte)));
    }

    pub(crate) fn fail(&self) {
        self.to_read.borrow_mut().push_back(Err(WireError));
    }
}

impl embedded_io_async::ErrorType for Wire {
    type Error = WireError;
}

impl Read for Wire {
    /// Waits for ever when nothing is there, as a UART does.
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, WireError> {
        core::future::poll_fn(|_| {
            if self.to_read.borrow().is_empty() {
                core::task::Poll::Pending
            } else {
                core::task::Poll::Ready(())
            }
        })
        .await;
        let mut queue = self.to_read.borrow_mut();
        if queue.front() == Some(&Err(WireError)) {
            queue.pop_front();
            return Err(WireError);
        }
        let mut len = 0;
        for slot in buf.iter_mut().take(self.piece_max) {
            let Some(Ok(byte)) = queue.front().copied() else { break };
            queue.pop_front();
            *slot = byte;
            len += 1;
        }
        Ok(len)
    }
}

impl ReadReady for Wire {
    fn read_ready(&mut self) -> Result<bool, WireError> {
        Ok(!self.to_read.borrow().is_empty())
    }
}

impl Write for Wire {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, WireError> {
        self.written.borrow_mut().extend_from_slice(buf);
        Ok(buf.len())
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        Ok(())
    }
}

/// An output whose every change is written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(pub(crate) Rc<RefCell<Vec<PinState>>>);

impl ErrorType for Line {
    type Error = Infallible;
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().push(PinState::Low);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().push(PinState::High);
        Ok(())
    }
}

/// An input that asks a closure.
pub(crate) struct Asked<F>(pub(crate) F);

impl<F> ErrorType for Asked<F> {
    type Error = Infallible;
}

impl<F: FnMut() -> bool> InputPin for Asked<F> {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok((self.0)())
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(!(self.0)())
    }
}
