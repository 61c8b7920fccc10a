//! What is behind an outlet, told in pins and counters: the three machines, on any board. Each serves one outlet.

use core::cell::Cell;

use device::Sense;
use drivers::{
    coin::Coin,
    debounce::{Contact, Edge},
    flow::{Flow, Pulses},
    meter::{Reading, bl0942::Bl0942},
};
use embassy_sync::blocking_mutex::{Mutex, raw::CriticalSectionRawMutex};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_hal::digital::{InputPin, OutputPin};
use embedded_io_async::{Read, ReadReady, Write};
use proto::{id::OutletId, money::Units};

use crate::control::Machine;

/// An answer of the meter takes 55 ms at its slowest speed.
const METER_ANSWER_MS: u64 = 200;
/// How often the meter is asked while the contactor is on, and while it is off, in ms.
const METER_BUSY_MS: u64 = 100;
const METER_IDLE_MS: u64 = 1_000;
/// A reading older than this is none, in ms.
const METER_SILENT_MS: u64 = 3_000;
const UWH_PER_WH: u64 = 1_000_000;

fn now_ms() -> u64 {
    Instant::now().as_millis()
}

/// A contact whose pin fails is as it was.
fn is_on<I: InputPin>(contact: &mut Contact<I>) -> bool {
    drop(contact.look(now_ms()));
    contact.is_on()
}

/// The latest word of a meter, from the task that asks it to the one that owns the machine.
#[derive(Debug)]
pub struct MeterCell(Mutex<CriticalSectionRawMutex, Cell<Metered>>);

#[derive(Clone, Copy, Debug)]
struct Metered {
    reading: Reading,
    /// Since this boot.
    energy_uwh: u64,
    /// `None`: it has not answered yet.
    at_ms: Option<u64>,
    busy: bool,
}

impl MeterCell {
    /// No word yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Cell::new(Metered {
            reading: Reading {
                voltage_mv: 0,
                current_ma: 0,
                power_mw: 0,
                energy_uwh_delta: 0,
            },
            energy_uwh: 0,
            at_ms: None,
            busy: false,
        })))
    }

    fn get(&self) -> Metered {
        self.0.lock(Cell::get)
    }

    fn change(&self, change: impl FnOnce(&mut Metered)) {
        self.0.lock(|cell| {
            let mut metered = cell.get();
            change(&mut metered);
            cell.set(metered);
        });
    }
}

impl Default for MeterCell {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks a meter for good.
pub async fn read_meter<U: Read + ReadReady + Write>(mut meter: Bl0942<U>, cell: &MeterCell) -> ! {
    loop {
        // A meter that is silent, or disturbed, is asked again; nothing is lost, it counts by itself.
        if let Ok(Ok(reading)) = with_timeout(Duration::from_millis(METER_ANSWER_MS), meter.read()).await {
            cell.change(|metered| {
                metered.reading = reading;
                metered.energy_uwh = metered.energy_uwh.saturating_add(reading.energy_uwh_delta);
                metered.at_ms = Some(now_ms());
            });
        }
        let busy = cell.get().busy;
        Timer::after_millis(if busy { METER_BUSY_MS } else { METER_IDLE_MS }).await;
    }
}

/// A contactor with a sense contact, a meter, and a socket that knows whether a plug is in it.
#[derive(Debug)]
pub struct Charger<'a, O, I> {
    /// Closes the contactor.
    pub contactor: O,
    /// The contactor is closed.
    pub closed: Contact<I>,
    /// A plug is in the socket.
    pub plugged: Contact<I>,
    /// Residual current.
    pub leaking: Contact<I>,
    /// The meter.
    pub meter: &'a MeterCell,
}

impl<O: OutputPin, I: InputPin> Machine for Charger<'_, O, I> {
    fn switch(&mut self, _outlet: OutletId, on: bool) {
        drop(self.contactor.set_state(on.into()));
        self.meter.change(|metered| metered.busy = on);
    }

    fn sense(&mut self, _outlet: OutletId) -> Option<Sense> {
        let metered = self.meter.get();
        if now_ms() - metered.at_ms? > METER_SILENT_MS {
            return None;
        }
        Some(Sense {
            register: Units(metered.energy_uwh / UWH_PER_WH),
            power_w: metered.reading.power_mw / 1_000,
            current_ma: metered.reading.current_ma,
            relay_closed: is_on(&mut self.closed),
            plugged: is_on(&mut self.plugged),
            leaking: is_on(&mut self.leaking),
            door_locked: true,
            ..Sense::default()
        })
    }
}

/// A washing machine that takes coins, or a start permit, and tells when it runs and when its door is locked.
#[derive(Debug)]
pub struct Washer<O: OutputPin, I> {
    /// The start permit.
    pub permit: O,
    /// The coin line.
    pub coins: Coin<O>,
    /// Coins of one cycle.
    pub coins_a_cycle: u8,
    /// The machine runs.
    pub running: Contact<I>,
    /// Its door is locked.
    pub door_locked: Contact<I>,
    /// Water on the floor.
    pub leaking: Contact<I>,
    /// Cycles begun since this boot.
    pub cycles: u64,
    /// Whether the permit is given.
    pub permitted: bool,
}

impl<O: OutputPin, I: InputPin> Machine for Washer<O, I> {
    fn switch(&mut self, _outlet: OutletId, on: bool) {
        drop(self.permit.set_state(on.into()));
        if on && !self.permitted && !self.running.is_on() {
            // A row that is still being sent is for this permit, too: the one before was given moments ago.
            let _ = self.coins.start(self.coins_a_cycle);
        }
        if !on {
            drop(self.coins.abort(now_ms()));
        }
        self.permitted = on;
    }

    fn sense(&mut self, _outlet: OutletId) -> Option<Sense> {
        // A pin that fails ends the row; the start is not proven then, and nobody pays.
        drop(self.coins.tick(now_ms()));
        if let Ok(Some(Edge::On)) = self.running.look(now_ms()) {
            self.cycles += 1;
        }
        Some(Sense {
            register: Units(self.cycles),
            door_locked: is_on(&mut self.door_locked),
            running: self.running.is_on(),
            leaking: is_on(&mut self.leaking),
            plugged: true,
            ..Sense::default()
        })
    }
}

/// A valve, a flow meter, a lock on hot water, and what looks whether the floor is wet.
#[derive(Debug)]
pub struct Dispenser<'a, O, I> {
    /// Opens the valve.
    pub valve: O,
    /// Unlocks hot water: only while water may flow.
    pub hot_unlock: O,
    /// Water on the floor.
    pub leaking: Contact<I>,
    /// Pulses of the flow meter.
    pub pulses: &'a Pulses,
    /// The flow meter.
    pub flow: Flow,
    /// Water since this boot, in ml.
    pub volume_ml: u64,
}

impl<O: OutputPin, I: InputPin> Machine for Dispenser<'_, O, I> {
    fn switch(&mut self, _outlet: OutletId, on: bool) {
        drop(self.valve.set_state(on.into()));
        drop(self.hot_unlock.set_state(on.into()));
    }

    fn sense(&mut self, _outlet: OutletId) -> Option<Sense> {
        let flowed = self.flow.look(now_ms(), self.pulses);
        self.volume_ml = self.volume_ml.saturating_add(flowed.volume_ml_delta);
        if flowed.fault {
            // Faster than water can be: the counter cannot be believed, and without it nothing may flow.
            return None;
        }
        Some(Sense {
            register: Units(self.volume_ml),
            flowing: flowed.flowing,
            leaking: is_on(&mut self.leaking),
            door_locked: true,
            plugged: true,
            ..Sense::default()
        })
    }
}
