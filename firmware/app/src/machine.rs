//! What is behind an outlet, told in pins and counters: the three machines, on any board.

use core::sync::atomic::{AtomicU32, Ordering};

use device::{Screen, Sense};
use embedded_hal::digital::{InputPin, OutputPin};
use proto::{id::OutletId, money::Units};

use crate::control::Machine;

/// What a board has beside the machine.
pub trait Panel {
    /// Shows something to the user.
    fn show(&mut self, screen: &Screen);
    /// The gateway is there, or gone.
    fn linked(&mut self, is_linked: bool);
    /// Feeds the watchdog.
    fn alive(&mut self);
    /// The hottest sensor, in degrees Celsius.
    fn temperature_c(&mut self) -> i16;
}

/// Pulses of a flow meter, counted in an interrupt.
#[derive(Debug)]
pub struct FlowPulses(AtomicU32);

impl FlowPulses {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// One more; for the interrupt.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for FlowPulses {
    fn default() -> Self {
        Self::new()
    }
}

/// A valve, a flow meter, and what looks whether the floor is wet.
#[derive(Debug)]
pub struct Dispenser<'a, O, I, P> {
    /// Opens the valve.
    pub valve: O,
    /// Low: wet.
    pub leak: I,
    /// The flow meter.
    pub pulses: &'a FlowPulses,
    /// Pulses for each litre.
    pub pulses_a_litre: u32,
    /// The rest of the board.
    pub panel: P,
    /// Pulses at the last look.
    pub seen: u32,
    /// Water so far, in thousandths of a millilitre times pulses a litre: nothing is rounded away.
    pub total: u64,
}

impl<O: OutputPin, I: InputPin, P: Panel> Machine for Dispenser<'_, O, I, P> {
    fn switch(&mut self, _outlet: OutletId, on: bool) {
        drop(self.valve.set_state(on.into()));
    }

    fn sense(&mut self, _outlet: OutletId) -> Option<Sense> {
        let pulses = self.pulses.total();
        let new = pulses.wrapping_sub(self.seen);
        self.seen = pulses;
        self.total += u64::from(new) * 1000;
        Some(Sense {
            register: Units(self.total / u64::from(self.pulses_a_litre)),
            temperature_c: self.panel.temperature_c(),
            flowing: new > 0,
            door_locked: true,
            plugged: true,
            leaking: self.leak.is_low().unwrap_or(true),
            ..Sense::default()
        })
    }

    fn show(&mut self, _outlet: OutletId, screen: &Screen) {
        self.panel.show(screen);
    }

    fn linked(&mut self, is_linked: bool) {
        self.panel.linked(is_linked);
    }

    fn alive(&mut self) {
        self.panel.alive();
    }
}
