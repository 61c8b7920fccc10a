//! The task that owns the device: it alone reads the machine, switches, stores and shows.

use device::{Device, Effect, Input, Now, Screen, Sense, update::Told};
use embassy_futures::{
    block_on,
    select::{Either3, select3},
};
use embassy_time::{Instant, Timer};
use embedded_storage_async::nor_flash::NorFlash;
use proto::{
    id::{Kind, OutletId},
    message::OutletState,
    money::Units,
    update::Update,
};

use crate::{
    gesture::{Desk, Gesture},
    link::{Event, Wires},
    store::Store,
    update::{Next, Scene, Updater},
};

/// How often an outlet in use is looked at, in ms: limits are enforced on readings, and water runs fast.
const SENSE_BUSY_MS: u64 = 100;
/// How often an idle outlet is looked at, in ms.
const SENSE_IDLE_MS: u64 = 1_000;
/// A record that cannot be written is tried again so often; then the device restarts, with its outputs off.
const STORE_TRIES: u32 = 3;

/// The machine behind the outlets.
pub trait Machine {
    /// Switches an output.
    fn switch(&mut self, outlet: OutletId, on: bool);
    /// One look at everything that surrounds an outlet, but its temperature; `register` counts from this boot. `None`:
    /// whoever counts does not answer, and the device switches off in time.
    fn sense(&mut self, outlet: OutletId) -> Option<Sense>;
}

/// What a board has beside the machine.
pub trait Panel {
    /// Shows something to the user.
    fn show(&mut self, outlet: OutletId, screen: &Screen);
    /// The gateway is there, or gone.
    fn linked(&mut self, is_linked: bool);
    /// The device is alive: feeds the watchdog. Called at least every second.
    fn alive(&mut self);
    /// The hottest sensor of an outlet, in degrees Celsius; one that is broken is as hot as can be.
    fn temperature_c(&mut self, outlet: OutletId) -> i16;
    /// The gateway was told how the firmware's update stands.
    fn update(&mut self, _update: &Update) {}
}

/// Why a device cannot go on; whoever called [`run`] restarts it.
#[derive(Debug)]
pub enum Stopped {
    /// A record could not be read.
    Unreadable,
    /// A record could not be written.
    Unwritable,
    /// Nothing is wrong: the bootloader has a new image to swap in, or one on trial to swap back.
    Update,
}

/// A counter that begins anew at each boot, carried on over power cuts. What was counted since the last saving is lost
/// with the power, in the customer's favour.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    /// At boot.
    base: u64,
    /// In flash.
    saved: u64,
    now: u64,
}

/// How much may be counted before it is saved: a fen or two. At 7 kW, 16 bytes of flash each 5 seconds.
const fn save_every(kind: Kind) -> u64 {
    match kind {
        Kind::Charger => 10,
        Kind::Dispenser => 100,
        Kind::Washer | Kind::Unknown => 1,
    }
}

/// A device that knows what was stored, and its counters.
#[derive(Debug)]
pub struct Booted<'a, const OUTLETS: usize> {
    device: &'a mut Device<OUTLETS>,
    registers: [Register; OUTLETS],
}

impl<'a, const OUTLETS: usize> Booted<'a, OUTLETS> {
    /// Reads everything out of the flash into a new device and starts it; blocks meanwhile. Outputs are off: the board has
    /// not switched anything on, and the device begins by saying so.
    ///
    /// # Errors
    /// [`Stopped::Unreadable`].
    #[inline(never)]
    pub fn boot<F: NorFlash>(device: &'a mut Device<OUTLETS>, store: &mut Store<F>) -> Result<Self, Stopped> {
        block_on(store.load(device)).map_err(|_| Stopped::Unreadable)?;
        let mut registers = [Register::default(); OUTLETS];
        for (outlet, register) in (0..device.config().outlets).zip(&mut registers) {
            let saved = block_on(store.register(outlet)).map_err(|_| Stopped::Unreadable)?;
            // A session's record may be newer.
            let base = saved.max(device.register(outlet)).0;
            *register = Register {
                base,
                saved: saved.0,
                now: base,
            };
        }
        device.start(now());
        Ok(Self { device, registers })
    }
}

/// The device and what it works on. Everything but waiting for something to happen is done without a pause: the flash of
/// a microcontroller blocks anyway, and what is held across a pause would take its place in RAM for good. Its parts are not
/// inlined: together they would take all their room on the stack at once.
struct Control<'a, const OUTLETS: usize, M, P, F: NorFlash> {
    device: &'a mut Device<OUTLETS>,
    registers: [Register; OUTLETS],
    machine: M,
    panel: P,
    store: Store<F>,
    wires: &'a Wires,
    is_linked: bool,
    /// None: the board takes no updates.
    updater: Option<Updater<F>>,
    /// Outlets that gave a reading of everything since boot, as bits.
    read: u32,
}

/// Runs the device until it cannot go on. Not `async`: such a function keeps what it is given twice, in scarce memory.
pub fn run<'a, const OUTLETS: usize, M: Machine + 'a, P: Panel + 'a, F: NorFlash + 'a>(
    booted: Booted<'a, OUTLETS>,
    machine: M,
    panel: P,
    store: Store<F>,
    updater: Option<Updater<F>>,
    desk: &'a Desk,
    wires: &'a Wires,
) -> impl Future<Output = Stopped> {
    let config = booted.device.config();
    let (outlets, kind) = (config.outlets, config.kind);
    let mut control = Control {
        device: booted.device,
        registers: booted.registers,
        machine,
        panel,
        store,
        wires,
        is_linked: false,
        updater,
        read: 0,
    };
    async move {
        let stopped = control.serve(outlets, kind, desk).await;
        for outlet in 0..outlets {
            control.machine.switch(outlet, false);
        }
        stopped
    }
}

fn now() -> Now {
    Now {
        mono_ms: Instant::now().as_millis(),
    }
}

impl<const OUTLETS: usize, M: Machine, P: Panel, F: NorFlash> Control<'_, OUTLETS, M, P, F> {
    async fn serve(&mut self, outlets: u8, kind: Kind, desk: &Desk) -> Stopped {
        let mut sense_ms = now().mono_ms;
        if let Some(updater) = &mut self.updater
            && block_on(updater.boot(&mut self.store, sense_ms)).is_err()
        {
            return Stopped::Unreadable;
        }
        // What the boot wants done: outputs off, its number stored.
        if self.carry_out(None).is_err() {
            return Stopped::Unwritable;
        }
        loop {
            self.panel.alive();
            if self.device.is_linked() != self.is_linked {
                self.is_linked = !self.is_linked;
                self.panel.linked(self.is_linked);
                if let Some(updater) = self.updater.as_mut().filter(|_| self.is_linked) {
                    updater.linked();
                }
            }
            if now().mono_ms >= sense_ms {
                for outlet in 0..outlets {
                    if self.look(outlet, kind).is_err() {
                        return Stopped::Unwritable;
                    }
                }
                sense_ms = now().mono_ms + self.pace();
            }
            match self.tend_firmware() {
                Ok(Next::Stay) => {}
                Ok(Next::Restart) => return Stopped::Update,
                Err(()) => return Stopped::Unwritable,
            }
            let due_ms = self.device.next_deadline().unwrap_or(u64::MAX).min(sense_ms);
            let due = Timer::at(Instant::from_millis(due_ms));
            let done = match select3(self.wires.down.ready_to_receive(), desk.receive(), due).await {
                Either3::First(()) => self.hear(),
                Either3::Second(gesture) => self.gesture(&gesture),
                Either3::Third(()) => self.carry_out(Some(Input::Tick)),
            };
            if done.is_err() {
                return Stopped::Unwritable;
            }
        }
    }

    /// How long until the next look, in ms.
    fn pace(&self) -> u64 {
        let outlets = 0..self.device.config().outlets;
        let idle = |outlet| matches!(self.device.state(outlet), Some(OutletState::Free) | None);
        if outlets.clone().all(idle) {
            SENSE_IDLE_MS
        } else {
            SENSE_BUSY_MS
        }
    }

    #[inline(never)]
    fn look(&mut self, outlet: OutletId, kind: Kind) -> Result<(), ()> {
        let Some(mut sense) = self.machine.sense(outlet) else {
            return Ok(());
        };
        let Some(register) = self.registers.get_mut(usize::from(outlet)) else {
            return Ok(());
        };
        register.now = register.base.saturating_add(sense.register.0);
        sense.register = Units(register.now);
        sense.temperature_c = self.panel.temperature_c(outlet);
        if sense.temperature_c < i16::MAX {
            self.read |= 1 << outlet;
        }
        if register.now - register.saved >= save_every(kind) {
            register.saved = register.now;
            let reading = sense.register;
            // A reading that cannot be saved is saved with the next one; sessions have records of their own.
            drop(block_on(self.store.save_register(outlet, reading)));
        }
        self.carry_out(Some(Input::Sense { outlet, sense }))
    }

    /// What the link has to say.
    #[inline(never)]
    fn hear(&mut self) -> Result<(), ()> {
        match self.wires.down.try_receive() {
            Ok(Event::Up) => self.carry_out(Some(Input::LinkUp)),
            Ok(Event::Down) => self.carry_out(Some(Input::LinkDown)),
            Ok(Event::Message(message)) => {
                let (topic, frame) = (message.topic.as_str(), message.frame.as_slice());
                if Device::<OUTLETS>::is_update(topic) {
                    self.hear_update(topic, frame);
                    Ok(())
                } else {
                    self.carry_out(Some(Input::Message { topic, frame }))
                }
            }
            // Nobody else receives.
            Err(_) => Ok(()),
        }
    }

    #[inline(never)]
    fn hear_update(&mut self, topic: &str, frame: &[u8]) {
        let told = self.device.hear_update(topic, frame);
        match (told, &mut self.updater) {
            (Some(Told::Offer(offer)), Some(updater)) => updater.offer(&offer),
            (Some(Told::Piece(piece)), Some(updater)) => block_on(updater.piece(&piece, now().mono_ms)),
            (None, _) | (_, None) => {}
        }
    }

    /// What is due for the firmware, and what the gateway has to know of it.
    #[inline(never)]
    fn tend_firmware(&mut self) -> Result<Next, ()> {
        let now_ms = now().mono_ms;
        let Some(updater) = &mut self.updater else {
            return Ok(Next::Stay);
        };
        // Sessions first: what they have to say finds the channel as it was.
        if self.wires.up.is_empty()
            && let Some(update) = updater.unsaid()
            && let Some(up) = self.device.tell_update(update.clone())
            && self.wires.up.try_send(up).is_ok()
        {
            updater.said(now_ms);
            self.panel.update(&update);
        }
        let outlets = self.device.config().outlets;
        let scene = Scene {
            now_ms,
            is_idle: self.device.is_idle(),
            is_linked: self.device.is_linked(),
            is_sane: self.read.count_ones() == u32::from(outlets),
        };
        block_on(updater.tend(&mut self.store, &scene)).map_err(|_| ())
    }

    #[inline(never)]
    fn gesture(&mut self, gesture: &Gesture) -> Result<(), ()> {
        let units_wished = Units::ZERO;
        let outlet = match gesture {
            Gesture::Token(outlet, _)
            | Gesture::Voucher(outlet, _)
            | Gesture::Code(outlet, ..)
            | Gesture::Button(outlet) => *outlet,
        };
        let kind = self.device.config().kind;
        // What is presented is judged by how things stand now, not a second ago.
        self.look(outlet, kind)?;
        let input = match gesture {
            Gesture::Token(_, token) => Input::Token {
                outlet,
                token: token.clone(),
                units_wished,
            },
            Gesture::Voucher(_, envelope) => Input::Voucher {
                outlet,
                envelope,
                units_wished,
            },
            Gesture::Code(_, account, code) => Input::Code {
                outlet,
                account: *account,
                code,
                units_wished,
            },
            Gesture::Button(_) => Input::Button { outlet },
        };
        self.carry_out(Some(input))
    }

    #[inline(never)]
    fn carry_out(&mut self, input: Option<Input<'_>>) -> Result<(), ()> {
        let effects = match input {
            Some(input) => self.device.handle(now(), input),
            None => self.device.effects(),
        };
        for effect in effects {
            match effect {
                Effect::Switch { outlet, on } => self.machine.switch(outlet, on),
                Effect::Store(record) => {
                    let mut tries = 1;
                    while block_on(self.store.save(&record)).is_err() {
                        if tries == STORE_TRIES {
                            return Err(());
                        }
                        tries += 1;
                    }
                }
                // A full channel is a link that does not move: the device says everything again.
                Effect::Publish { topic, frame } => drop(self.wires.up.try_send((topic, frame))),
                Effect::Show { outlet, screen } => self.panel.show(outlet, &screen),
            }
        }
        Ok(())
    }
}
