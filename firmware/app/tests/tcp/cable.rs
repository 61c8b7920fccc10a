//! Two network interfaces and the cable between them, in memory; and time that passes only here.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use embassy_net::driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_time::{Duration, MockDriver};

/// Longest Ethernet frame, without its check sum.
const FRAME_BYTES: usize = 1514;
/// No scenario takes longer, in ms of its own time.
const SCENARIO_MS_MAX: u64 = 600_000;

/// What may be wrong with a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Fine,
    /// Nothing arrives, and nobody is told.
    Lossy,
    /// Both ends see that there is no link.
    Out,
}

pub(crate) struct Cable {
    state: State,
    /// Towards each end.
    frames: [VecDeque<Vec<u8>>; 2],
}

/// One end.
pub(crate) struct End {
    cable: Rc<RefCell<Cable>>,
    side: usize,
}

pub(crate) fn cable() -> (Rc<RefCell<Cable>>, End, End) {
    let cable = Rc::new(RefCell::new(Cable {
        state: State::Fine,
        frames: [VecDeque::new(), VecDeque::new()],
    }));
    let end = |side| End {
        cable: cable.clone(),
        side,
    };
    (cable.clone(), end(0), end(1))
}

impl Cable {
    pub(crate) fn set(&mut self, state: State) {
        self.state = state;
        if state != State::Fine {
            self.frames = [VecDeque::new(), VecDeque::new()];
        }
    }
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        f(&mut self.0)
    }
}

pub(crate) struct Sending<'a>(&'a End);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let mut cable = self.0.cable.borrow_mut();
        if cable.state == State::Fine {
            cable.frames[1 - self.0.side].push_back(frame);
        }
        result
    }
}

// Wakers are not needed: `run` polls everything.
impl Driver for End {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Received, Sending<'_>)> {
        let frame = self.cable.borrow_mut().frames[self.side].pop_front()?;
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        match self.cable.borrow().state {
            State::Fine | State::Lossy => LinkState::Up,
            State::Out => LinkState::Down,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, self.side as u8 + 1])
    }
}

/// Runs a scenario beside what never ends, a millisecond at a time.
pub(crate) fn run<T>(scenario: impl Future<Output = T>, beside: impl Future) -> T {
    let (mut scenario, mut beside) = (pin!(scenario), pin!(beside));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..SCENARIO_MS_MAX {
        if let Poll::Ready(result) = scenario.as_mut().poll(&mut context) {
            return result;
        }
        assert!(beside.as_mut().poll(&mut context).is_pending(), "a network never ends");
        MockDriver::get().advance(Duration::from_millis(1));
    }
    panic!("the scenario has not ended after {SCENARIO_MS_MAX} ms");
}
