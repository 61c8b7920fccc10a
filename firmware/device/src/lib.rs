//! The state machines of charger, washer and dispenser.
//!
//! Sans-I/O: the shell feeds an [`Input`] with the time, and carries out the [`Effect`]s that come out, in order:
//!
//! ```text
//! let mut device = Device::boot(config, stored, now)?;
//! for effect in device.effects() { .. }                    // outputs off, boot number stored
//! loop {
//!     let input = next input, or Input::Tick at device.next_deadline();
//!     for effect in device.handle(now, input) { .. }       // Store: durable before the next effect is begun
//! }
//! ```
//!
//! Every `handle` yields its effects in this order: outputs off, records stored, outputs on, messages, displays. So
//! switching off waits for nobody, and nothing is on or said that is not stored. The power may fail between any two
//! effects; so may the shell drop the iterator: what was not taken comes out of the next call.
//!
//! Invariants: no clock, no random number, no allocation, no panic on any input; no output is on without a stored grant
//! that is neither ended nor used up; a session id or seal counter is never used twice (see [`stored`]).
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

mod answers;
mod charger;
mod command;
pub mod config;
mod deadline;
mod dispenser;
mod fault;
pub mod io;
mod link;
mod outlet;
mod output;
mod progress;
mod recovery;
mod rules;
mod stopping;
pub mod stored;
mod voice;
mod washer;

use heapless::{Deque, Vec};
use proto::{
    VERSION,
    id::{IdToken, OutletId, SessionId, TokenKey},
    message::{Clock, CommandAnswer, CommandOutcome, Grant, Hello, OUTLETS_MAX, OutletState, Receipt, Refusal},
    money::Units,
    topic::{Down, Up},
};

pub use config::{Config, ConfigError, Tuning};
pub use io::{Effect, Input, Now, Screen, Sense};
pub use link::Rejected;
pub use stored::{Record, RecordKey, Stored, StoredError};

use config::Supply;
use link::Link;
use outlet::{Context, Outlet, Presented};
use stored::DeviceRecord;
use voice::Message;

/// Later than any device lives, in ms since boot: a time beyond it is a fault of the shell, and would leave no room for
/// the deadlines that are counted from it.
const MONO_MS_MAX: u64 = u64::MAX / 2;
/// Answers to commands that may wait for the link; the gateway repeats a command whose answer it misses.
const ANSWERS_MAX: usize = 4;

/// One controller and its outlets.
#[derive(Debug)]
pub struct Device {
    config: Config,
    supply: Supply,
    token_key: TokenKey,
    now_ms: u64,
    record: DeviceRecord,
    unstored: bool,
    /// Number of the last session minted in this boot.
    session_number: u32,
    link: Link,
    outlets: Vec<Outlet, OUTLETS_MAX>,
    answers: Deque<(u64, CommandOutcome), ANSWERS_MAX>,
}

impl Device {
    /// Starts a device from what was stored. Take [`Self::effects`] before the first input: they switch the outputs off
    /// and store the number of this boot.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration cannot be served with this storage.
    pub fn boot(config: Config, stored: Stored, now: Now) -> Result<Self, ConfigError> {
        let supply = config.check()?;
        let now_ms = now.mono_ms.min(MONO_MS_MAX);
        let Stored { device, mut outlets } = stored;
        let lost = outlets.iter().skip(usize::from(config.outlets));
        if let Some(i) = lost.clone().position(|r| r.open.is_some() || !r.closed.is_empty()) {
            return Err(ConfigError::OutletLost(config.outlets + i as u8));
        }
        outlets.truncate(usize::from(config.outlets));
        while outlets.len() < usize::from(config.outlets) {
            outlets
                .push(stored::OutletRecord::default())
                .expect("the number of outlets was checked");
        }
        let record = DeviceRecord {
            boot: device.boot.saturating_add(1),
            ..device
        };
        let link = Link::new(&config, record.boot);
        let context = context(&config, supply, &link, now_ms);
        let outlets = outlets
            .into_iter()
            .enumerate()
            .map(|(i, record)| Outlet::boot(i as OutletId, record, &context))
            .collect();
        Ok(Self {
            supply,
            token_key: config.secret.token_key(),
            now_ms,
            record,
            unstored: true,
            session_number: 0,
            link,
            outlets,
            answers: Deque::new(),
            config,
        })
    }

    /// Takes an input in and returns what is to be done. Inputs for outlets that do not exist, and messages that are
    /// not for this device, not sealed for it or not new, are ignored (and counted: [`Self::rejected`]).
    pub fn handle(&mut self, now: Now, input: Input<'_>) -> Effects<'_> {
        // A clock that runs backwards is a fault of the shell; standing still is the safest thing to do.
        self.now_ms = self.now_ms.max(now.mono_ms.min(MONO_MS_MAX));
        match input {
            Input::Token {
                outlet,
                token,
                units_wished,
            } => self.present(outlet, &token, units_wished),
            Input::Button { outlet } => self.at(outlet, |o, ctx| o.button(ctx)).unwrap_or(()),
            Input::Sense { outlet, sense } => self.at(outlet, |o, ctx| o.sensed(ctx, sense)).unwrap_or(()),
            Input::LinkUp => self.link.up(self.now_ms),
            Input::LinkDown => self.link.down(),
            Input::Message { topic, frame } => self.message(topic, frame),
            Input::Tick => {}
        }
        self.each(|o, ctx| o.clockwork(ctx));
        self.effects()
    }

    /// What is still to be done.
    pub fn effects(&mut self) -> Effects<'_> {
        Effects { device: self }
    }

    /// When [`Input::Tick`] is due at the latest, in ms since boot; `None`: not before another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let linked = self.link.is_ready();
        let outlets = self
            .outlets
            .iter()
            .filter_map(|o| o.deadline_ms(&self.config.tuning, self.supply, linked));
        outlets.chain(self.link.deadline_ms()).min()
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Number of this boot.
    #[must_use]
    pub const fn boot_number(&self) -> u32 {
        self.record.boot
    }

    /// Whether the gateway answered the hello.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        self.link.is_ready()
    }

    /// How many messages were not accepted.
    #[must_use]
    pub const fn rejected(&self) -> Rejected {
        self.link.rejected()
    }

    /// State of an outlet; `None` if there is no such outlet.
    #[must_use]
    pub fn state(&self, outlet: OutletId) -> Option<OutletState> {
        self.outlets.get(usize::from(outlet)).map(Outlet::state)
    }

    /// The open session of an outlet.
    #[must_use]
    pub fn session(&self, outlet: OutletId) -> Option<SessionId> {
        self.outlets.get(usize::from(outlet))?.session()
    }

    /// Closed sessions that wait for their receipts, over all outlets.
    #[must_use]
    pub fn unreceipted(&self) -> usize {
        self.outlets.iter().map(|o| o.record.closed.len()).sum()
    }

    fn present(&mut self, outlet: OutletId, token: &IdToken, units_wished: Units) {
        let presented = Presented {
            token,
            hash: token.hash(&self.token_key),
            site_hash: self.config.site_key.as_ref().map(|key| token.hash(key)),
        };
        let (boot, mut number) = (self.record.boot, self.session_number);
        let id = self.config.id;
        self.at(outlet, |o, ctx| {
            o.present(ctx, &presented, units_wished, || mint(id, boot, &mut number));
        });
        self.session_number = number;
    }

    fn message(&mut self, topic: &str, frame: &[u8]) {
        let Some((word, body)) = self.link.open(&self.config, topic, frame) else {
            return;
        };
        match word {
            Down::Clock => {
                let Some(clock) = self.link.decode::<Clock>(body) else {
                    return;
                };
                if self.link.clock(self.now_ms, self.record.boot, &clock) {
                    self.each(|o, ctx| o.announce(ctx));
                }
            }
            Down::Grant => {
                let Some(grant) = self.link.decode::<Grant>(body) else {
                    return;
                };
                self.owner(grant.session, |o, ctx| o.grant(ctx, grant));
            }
            Down::Refusal => {
                let Some(refusal) = self.link.decode::<Refusal>(body) else {
                    return;
                };
                if refusal.session == SessionId::ZERO {
                    self.link.hello_refused(self.now_ms, refusal.retry_after_s);
                } else {
                    self.owner(refusal.session, |o, ctx| o.refusal(ctx, &refusal));
                }
            }
            Down::Receipt => {
                let Some(receipt) = self.link.decode::<Receipt>(body) else {
                    return;
                };
                self.owner(receipt.session, |o, ctx| o.receipt(ctx, &receipt));
            }
            Down::Command => {
                let Some(command) = self.link.decode(body) else { return };
                self.command(&command);
            }
        }
    }

    /// Runs `step` on one outlet, if there is such an outlet.
    fn at<T>(&mut self, outlet: OutletId, step: impl FnOnce(&mut Outlet, &Context<'_>) -> T) -> Option<T> {
        let context = context(&self.config, self.supply, &self.link, self.now_ms);
        let outlet = self.outlets.get_mut(usize::from(outlet))?;
        Some(step(outlet, &context))
    }

    fn each(&mut self, mut step: impl FnMut(&mut Outlet, &Context<'_>)) {
        for i in 0..self.config.outlets {
            self.at(i, &mut step);
        }
    }

    /// Runs `step` on the outlet that has or had this session.
    fn owner(&mut self, session: SessionId, step: impl FnOnce(&mut Outlet, &Context<'_>)) {
        let owner = self
            .outlets
            .iter()
            .find(|o| o.session() == Some(session) || o.record.closed.iter().any(|stop| stop.session == session));
        if let Some(id) = owner.map(|o| o.id) {
            self.at(id, step);
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            kind: self.config.kind,
            outlets: self.config.outlets,
            boot: self.record.boot,
            down_counter: self.link.down_counter(),
            firmware: self.config.firmware.clone(),
            at: self.link.stamp(self.now_ms),
        }
    }

    fn next_effect(&mut self) -> Option<Effect> {
        let now_ms = self.now_ms;
        if let Some(o) = self.outlets.iter_mut().find_map(|o| o.take_off(now_ms).then_some(o.id)) {
            return Some(Effect::Switch { outlet: o, on: false });
        }
        if core::mem::take(&mut self.unstored) {
            return Some(Effect::Store(stored::encode(RecordKey::Device, &self.record)));
        }
        if let Some(record) = self.outlets.iter_mut().find_map(Outlet::take_store) {
            return Some(Effect::Store(record));
        }
        if let Some(o) = self.outlets.iter_mut().find_map(|o| o.take_on(now_ms).then_some(o.id)) {
            return Some(Effect::Switch { outlet: o, on: true });
        }
        if let Some(publish) = self.next_publish() {
            return Some(publish);
        }
        let mut screens = self.outlets.iter_mut();
        screens.find_map(|o| {
            let screen = o.take_screen(now_ms)?;
            Some(Effect::Show { outlet: o.id, screen })
        })
    }

    fn next_publish(&mut self) -> Option<Effect> {
        if self.link.take_hello(self.now_ms) {
            let hello = self.hello();
            return Some(self.link.seal(&self.config, Up::Hello, &hello));
        }
        if !self.link.is_ready() {
            return None;
        }
        if let Some((id, outcome)) = self.answers.pop_front() {
            let at = self.link.stamp(self.now_ms);
            let answer = CommandAnswer { id, outcome, at };
            return Some(self.link.seal(&self.config, Up::CommandAnswer, &answer));
        }
        let spread = self.link.spread();
        for i in 0..self.config.outlets {
            let message = self.at(i, |o, ctx| o.take_message(ctx, spread)).flatten();
            let Some(message) = message else { continue };
            return Some(match message {
                Message::Stop(stop) => self.link.seal(&self.config, Up::Stop, &stop),
                Message::Authorize(authorize) => self.link.seal(&self.config, Up::Authorize, &authorize),
                Message::Started(started) => self.link.seal(&self.config, Up::Started, &started),
                Message::Meter(meter) => self.link.seal(&self.config, Up::Meter, &meter),
                Message::Status(status) => self.link.seal(&self.config, Up::Status, &status),
            });
        }
        None
    }
}

fn context<'a>(config: &'a Config, supply: Supply, link: &Link, now_ms: u64) -> Context<'a> {
    Context {
        now_ms,
        stamp: link.stamp(now_ms),
        second_of_day: link.second_of_day(now_ms),
        supply,
        tuning: &config.tuning,
    }
}

fn mint(id: proto::id::DeviceId, boot: u32, number: &mut u32) -> Option<SessionId> {
    *number = number.checked_add(1)?;
    Some(SessionId::mint(&id, boot, *number))
}

/// What is to be done, in order. Dropping it early loses nothing.
#[derive(Debug)]
#[must_use = "outputs stay as they are until the effects are carried out"]
pub struct Effects<'a> {
    device: &'a mut Device,
}

impl Iterator for Effects<'_> {
    type Item = Effect;

    fn next(&mut self) -> Option<Effect> {
        self.device.next_effect()
    }
}
