//! The task that owns the device: it alone reads the machine, switches, stores and shows.

use device::{Device, Effect, Input, Now, Screen, Sense};
use embassy_futures::select::{Either3, select3};
use embassy_time::{Duration, Instant, Timer};
use embedded_storage_async::nor_flash::NorFlash;
use proto::{
    id::{IdToken, OutletId},
    money::Units,
};

use crate::{
    link::{Event, Wires},
    store::Store,
};

/// How often the machine is looked at, in ms: limits are enforced on readings, and water runs fast.
const SENSE_EVERY_MS: u64 = 100;
/// A record that cannot be written is tried again so often; then the device restarts, with its outputs off.
const STORE_TRIES: u32 = 3;

/// The machine behind the outlets.
pub trait Machine {
    /// Switches an output.
    fn switch(&mut self, outlet: OutletId, on: bool);
    /// One look at everything that surrounds an outlet.
    fn sense(&mut self, outlet: OutletId) -> Sense;
    /// Shows something to the user.
    fn show(&mut self, outlet: OutletId, screen: &Screen);
    /// The device is alive: feeds the watchdog.
    fn alive(&mut self);
}

/// What people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gesture {
    /// A token at the reader of an outlet.
    Token(OutletId, IdToken),
    /// The stop button of an outlet.
    Button(OutletId),
}

/// Waits for people.
pub trait Readers {
    /// The next gesture; may be dropped and called again without losing one.
    fn next(&mut self) -> impl Future<Output = Gesture>;
}

/// Why a device cannot go on; whoever called [`run`] restarts it.
#[derive(Debug)]
pub enum Stopped {
    /// The configuration does not fit the storage.
    Config(device::ConfigError),
    /// A record could not be read or written.
    Storage,
}

/// Runs the device for good.
///
/// # Errors
/// [`Stopped`]: outputs are off then, and a restart is the only way on.
pub async fn run<M: Machine, R: Readers, F: NorFlash>(
    config: device::Config,
    mut machine: M,
    mut readers: R,
    mut store: Store<F>,
    wires: &Wires,
) -> Stopped {
    let outlets = config.outlets;
    for outlet in 0..outlets {
        machine.switch(outlet, false);
    }
    let Ok(stored) = store.load().await else {
        return Stopped::Storage;
    };
    let mut device = match Device::boot(config, stored, now()) {
        Ok(device) => device,
        Err(error) => return Stopped::Config(error),
    };
    let mut input = None;
    let mut sense_at = Instant::now();
    loop {
        if carry_out(&mut device, input.take(), &mut machine, &mut store, wires).await.is_err() {
            for outlet in 0..outlets {
                machine.switch(outlet, false);
            }
            return Stopped::Storage;
        }
        machine.alive();
        let tick = device.next_deadline().map_or(Instant::MAX, Instant::from_millis);
        if Instant::now() >= sense_at {
            sense_at = Instant::now() + Duration::from_millis(SENSE_EVERY_MS);
            for outlet in 0..outlets {
                let sense = machine.sense(outlet);
                let sensed = Some(Happening::Sense(outlet, sense));
                if carry_out(&mut device, sensed, &mut machine, &mut store, wires).await.is_err() {
                    return Stopped::Storage;
                }
            }
            continue;
        }
        input = match select3(wires.down.receive(), readers.next(), Timer::at(tick.min(sense_at))).await {
            Either3::First(event) => Some(Happening::Link(event)),
            Either3::Second(gesture) => Some(Happening::Gesture(gesture)),
            Either3::Third(()) => None,
        };
    }
}

enum Happening {
    Link(Event),
    Gesture(Gesture),
    Sense(OutletId, Sense),
}

fn now() -> Now {
    Now {
        mono_ms: Instant::now().as_millis(),
    }
}

async fn carry_out<M: Machine, F: NorFlash>(
    device: &mut Device,
    happening: Option<Happening>,
    machine: &mut M,
    store: &mut Store<F>,
    wires: &Wires,
) -> Result<(), ()> {
    let input = match &happening {
        None => Input::Tick,
        Some(Happening::Link(Event::Up)) => Input::LinkUp,
        Some(Happening::Link(Event::Down)) => Input::LinkDown,
        Some(Happening::Link(Event::Message(message))) => Input::Message {
            topic: &message.topic,
            frame: &message.frame,
        },
        Some(Happening::Gesture(Gesture::Button(outlet))) => Input::Button { outlet: *outlet },
        Some(Happening::Gesture(Gesture::Token(outlet, token))) => Input::Token {
            outlet: *outlet,
            token: token.clone(),
            units_wished: Units::ZERO,
        },
        Some(Happening::Sense(outlet, sense)) => Input::Sense {
            outlet: *outlet,
            sense: *sense,
        },
    };
    for effect in device.handle(now(), input) {
        match effect {
            Effect::Switch { outlet, on } => machine.switch(outlet, on),
            Effect::Store(record) => {
                let mut tries = 0;
                while store.save(&record).await.is_err() {
                    tries += 1;
                    if tries == STORE_TRIES {
                        return Err(());
                    }
                }
            }
            // A full channel is a link that does not move: the device says everything again.
            Effect::Publish { topic, frame } => drop(wires.up.try_send((topic, frame))),
            Effect::Show { outlet, screen } => machine.show(outlet, &screen),
        }
    }
    Ok(())
}
