//! Twins: the real `device` code on a model of the machine around it, with memory for flash.
//!
//! The device sees real time; the machine's own time runs `speed` times faster, so that a battery fills within a
//! minute. Everything is a function of the seed and of what is done to the twin when.

mod drum;
pub(crate) mod machine;
mod socket;
mod tap;
mod truth;
mod visit;

use std::collections::{BTreeMap, VecDeque};

use device::{Config, ConfigError, Device, Effect, Input, Now, RecordKey, Screen, Stored};
use proto::{
    id::{IdToken, OutletId, SessionId},
    money::Units,
};

pub use machine::{Injury, usual_thing};
pub use socket::Battery;
pub use truth::{SessionTruth, Truth, Verdict};
pub use visit::{Leaves, Plan, Thing, Visit};

use machine::Machine;

/// Interval of readings while something may be delivered, in ms.
const SENSE_BUSY_MS: u64 = 100;
/// Interval of readings of an idle outlet, in ms.
const SENSE_IDLE_MS: u64 = 1_000;
/// What was shown is kept for who asks within so many screens.
const SHOWN_MAX: usize = 64;

/// A message that the device wants published with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// On which topic.
    pub topic: String,
    /// The sealed frame.
    pub frame: Vec<u8>,
}

#[derive(Debug)]
struct Place {
    machine: Machine,
    on: bool,
    sense_ms: u64,
    screen: Screen,
}

/// One device and its surroundings.
#[derive(Debug)]
pub struct Twin {
    config: Config,
    /// `None` while the power is off.
    device: Option<Device>,
    booted_ms: u64,
    now_ms: u64,
    flash: BTreeMap<RecordKey, Vec<u8>>,
    places: Vec<Place>,
    truth: Truth,
    fails_after: Option<u64>,
    outgoing: Vec<Outgoing>,
    shown: VecDeque<(OutletId, Screen)>,
}

impl Twin {
    /// A new device, powered on at `now_ms`. `speed`: how much faster the machine's time runs, at least 1.
    ///
    /// # Errors
    /// [`ConfigError`] as the device gives it.
    pub fn new(config: Config, seed: u64, speed: u32, now_ms: u64) -> Result<Self, ConfigError> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let speed = u64::from(speed.max(1));
        let places = (0..config.outlets).map(|_| Place {
            machine: Machine::new(config.kind, speed, rng.u64(0..500_000)),
            on: false,
            sense_ms: now_ms,
            screen: Screen::Free,
        });
        let places = places.collect();
        let mut twin = Self {
            truth: Truth::new(&config.secret),
            config,
            device: None,
            booted_ms: now_ms,
            now_ms,
            flash: BTreeMap::new(),
            places,
            fails_after: None,
            outgoing: Vec::new(),
            shown: VecDeque::new(),
        };
        twin.boot()?;
        Ok(twin)
    }

    /// Lets time pass until `now_ms`: machines run, the device reads, ticks and acts. Returns what it says.
    pub fn step(&mut self, now_ms: u64) -> Vec<Outgoing> {
        self.pass(now_ms);
        for outlet in 0..self.config.outlets {
            if self.now_ms >= self.places[usize::from(outlet)].sense_ms {
                self.read(outlet);
            }
        }
        let due = self.device.as_ref().and_then(Device::next_deadline);
        if due.is_some_and(|at_ms| at_ms <= self.now_ms - self.booted_ms) {
            self.input(Input::Tick);
        }
        self.take()
    }

    /// When [`Self::step`] should be called at the latest.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let device = self.device.as_ref()?;
        let deadline_ms = device.next_deadline().map(|at_ms| at_ms.saturating_add(self.booted_ms));
        let sense_ms = self.places.iter().map(|place| place.sense_ms).min();
        deadline_ms.into_iter().chain(sense_ms).min()
    }

    /// The connection to the broker stands, or is gone.
    pub fn link(&mut self, now_ms: u64, up: bool) -> Vec<Outgoing> {
        self.pass(now_ms);
        self.input(if up { Input::LinkUp } else { Input::LinkDown });
        self.take()
    }

    /// A message arrived.
    pub fn message(&mut self, now_ms: u64, topic: &str, frame: &[u8]) -> Vec<Outgoing> {
        self.pass(now_ms);
        if self.device.is_some() {
            self.truth.heard(self.now_ms, topic, frame);
            self.input(Input::Message { topic, frame });
        }
        self.take()
    }

    /// A user presents a token; returns the session that it opened, if it opened one.
    pub fn present(
        &mut self,
        now_ms: u64,
        outlet: OutletId,
        token: IdToken,
        units_wished: Units,
    ) -> (Option<SessionId>, Vec<Outgoing>) {
        self.pass(now_ms);
        let before = self.session(outlet);
        self.read(outlet);
        self.input(Input::Token {
            outlet,
            token,
            units_wished,
        });
        let session = self.session(outlet).filter(|session| Some(*session) != before);
        if let Some(session) = session {
            self.truth.asked(self.now_ms, outlet, session);
        }
        (session, self.take())
    }

    /// A user presents a voucher: its signed envelope.
    pub fn present_voucher(&mut self, now_ms: u64, outlet: OutletId, envelope: &[u8]) -> Vec<Outgoing> {
        self.pass(now_ms);
        let before = self.session(outlet);
        self.read(outlet);
        self.input(Input::Voucher {
            outlet,
            envelope,
            units_wished: Units::ZERO,
        });
        let session = self.session(outlet).filter(|session| Some(*session) != before);
        if let Some(session) = session {
            self.truth.asked(self.now_ms, outlet, session);
        }
        self.take()
    }

    /// A user presses the stop button.
    pub fn press_stop(&mut self, now_ms: u64, outlet: OutletId) -> Vec<Outgoing> {
        self.pass(now_ms);
        self.input(Input::Button { outlet });
        self.take()
    }

    /// A user puts the thing to be served in its place: plugs the battery in, fills the drum and closes the door, holds
    /// the vessel under the tap. A thing that does not fit the kind does nothing.
    pub fn bring(&mut self, now_ms: u64, outlet: OutletId, thing: Thing) -> Vec<Outgoing> {
        self.pass(now_ms);
        if let Some(machine) = self.machine(outlet) {
            machine.bring(thing);
        }
        self.read(outlet);
        self.take()
    }

    /// A user presses the start button of a washer.
    pub fn press_start(&mut self, now_ms: u64, outlet: OutletId) -> Vec<Outgoing> {
        self.pass(now_ms);
        if let Some(machine) = self.machine(outlet) {
            machine.press_start();
        }
        self.take()
    }

    /// A user takes the thing away: unplugs, opens the door (if it is not locked), takes the vessel.
    pub fn take_away(&mut self, now_ms: u64, outlet: OutletId) -> Vec<Outgoing> {
        self.pass(now_ms);
        if let Some(machine) = self.machine(outlet) {
            machine.take_away();
        }
        self.read(outlet);
        self.take()
    }

    /// Injures the machine of an outlet, or heals it.
    pub fn injure(&mut self, now_ms: u64, outlet: OutletId, injury: Injury, is_injured: bool) -> Vec<Outgoing> {
        self.pass(now_ms);
        if let Some(machine) = self.machine(outlet) {
            machine.injure(injury, is_injured);
        }
        self.take()
    }

    /// The power fails, for device and machines.
    pub fn power_cut(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.die();
    }

    /// The power fails after so many more effects of the device, between two of them.
    pub fn fail_after(&mut self, effects: u64) {
        self.fails_after = Some(effects);
    }

    /// The power comes back: the device boots from its flash, without a link.
    ///
    /// # Errors
    /// [`ConfigError`] as the device gives it.
    pub fn power_restore(&mut self, now_ms: u64) -> Result<Vec<Outgoing>, ConfigError> {
        // Nothing ran meanwhile.
        self.now_ms = self.now_ms.max(now_ms);
        if self.device.is_none() {
            self.boot()?;
        }
        Ok(self.take())
    }

    /// Whether the device has power.
    #[must_use]
    pub const fn is_powered(&self) -> bool {
        self.device.is_some()
    }

    /// The device; `None` without power.
    #[must_use]
    pub const fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What the display of an outlet says; `None` without power or if there is no such outlet.
    #[must_use]
    pub fn screen(&self, outlet: OutletId) -> Option<Screen> {
        self.device.as_ref()?;
        self.places.get(usize::from(outlet)).map(|place| place.screen)
    }

    /// What was shown since the last time this was asked, oldest first.
    pub fn take_shown(&mut self) -> impl Iterator<Item = (OutletId, Screen)> {
        self.shown.drain(..)
    }

    /// Whether the output of an outlet is on; without power it is off.
    #[must_use]
    pub fn is_on(&self, outlet: OutletId) -> bool {
        self.places.get(usize::from(outlet)).is_some_and(|place| place.on)
    }

    /// Whether the machine of an outlet goes on by itself: a washing machine, with or without a session.
    #[must_use]
    pub fn is_running(&self, outlet: OutletId) -> bool {
        let place = self.places.get(usize::from(outlet));
        place.is_some_and(|place| place.machine.is_running())
    }

    /// Everything that was ever delivered, in thousandths of the base unit.
    #[must_use]
    pub fn delivered_milli(&self) -> u64 {
        let sessions = self.truth.sessions().map(|s| s.delivered_milli + s.ungranted_milli);
        sessions.sum::<u64>() + self.truth.stray_milli()
    }

    /// The session that an outlet has open.
    #[must_use]
    pub fn session(&self, outlet: OutletId) -> Option<SessionId> {
        self.device.as_ref()?.session(outlet)
    }

    /// What really happened.
    #[must_use]
    pub const fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Wash cycles that ended before their time.
    #[must_use]
    pub fn cycles_cut(&self) -> u64 {
        self.places.iter().map(|place| place.machine.cycles_cut()).sum()
    }

    fn boot(&mut self) -> Result<(), ConfigError> {
        let mut stored = Stored::new();
        for (key, bytes) in &self.flash {
            stored
                .load(*key, bytes)
                .expect("the twin's flash keeps what it is given");
        }
        self.booted_ms = self.now_ms;
        self.fails_after = None;
        self.device = Some(Device::boot(self.config.clone(), stored, Now { mono_ms: 0 })?);
        for place in &mut self.places {
            place.sense_ms = self.now_ms;
        }
        self.carry_out();
        Ok(())
    }

    fn die(&mut self) {
        self.device = None;
        for (place, outlet) in self.places.iter_mut().zip(0..) {
            place.machine.power_lost();
            if place.on {
                place.on = false;
                self.truth.switched(self.now_ms, outlet, false);
            }
        }
    }

    /// Machines run until `now_ms`. Without power nothing runs.
    fn pass(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        if self.device.is_none() {
            return;
        }
        for (place, outlet) in self.places.iter_mut().zip(0..) {
            let milli = place.machine.advance(passed_ms, place.on);
            self.truth.delivered(self.now_ms, outlet, milli);
        }
    }

    fn machine(&mut self, outlet: OutletId) -> Option<&mut Machine> {
        self.places.get_mut(usize::from(outlet)).map(|place| &mut place.machine)
    }

    /// The device reads an outlet's inputs.
    fn read(&mut self, outlet: OutletId) {
        let Some(place) = self.places.get_mut(usize::from(outlet)) else {
            return;
        };
        if let Some(sense) = place.machine.sense() {
            self.input(Input::Sense { outlet, sense });
        }
        let place = &mut self.places[usize::from(outlet)];
        place.sense_ms = self.now_ms + if place.on { SENSE_BUSY_MS } else { SENSE_IDLE_MS };
    }

    fn input(&mut self, input: Input<'_>) {
        let mono_ms = self.now_ms - self.booted_ms;
        if let Some(device) = &mut self.device {
            // The effects are taken one by one below.
            let _ = device.handle(Now { mono_ms }, input);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        loop {
            if self.fails_after == Some(0) {
                return self.die();
            }
            let Some(effect) = self.device.as_mut().and_then(|device| device.effects().next()) else {
                return;
            };
            self.fails_after = self.fails_after.map(|left| left - 1);
            match effect {
                Effect::Switch { outlet, on } => {
                    let place = &mut self.places[usize::from(outlet)];
                    place.on = on;
                    place.sense_ms = place.sense_ms.min(self.now_ms + SENSE_BUSY_MS);
                    self.truth.switched(self.now_ms, outlet, on);
                    let milli = place.machine.advance(0, on);
                    self.truth.delivered(self.now_ms, outlet, milli);
                }
                Effect::Store(record) => {
                    self.flash.insert(record.key, record.bytes.to_vec());
                }
                Effect::Publish { topic, frame } => {
                    self.truth.said(self.now_ms, &topic, &frame);
                    self.outgoing.push(Outgoing {
                        topic: topic.as_str().to_owned(),
                        frame: frame.to_vec(),
                    });
                }
                Effect::Show { outlet, screen } => {
                    self.places[usize::from(outlet)].screen = screen;
                    self.shown.push_back((outlet, screen));
                    if self.shown.len() > SHOWN_MAX {
                        self.shown.pop_front();
                    }
                }
            }
        }
    }

    fn take(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }
}
