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

mod alone;
mod answers;
mod charger;
mod command;
pub mod config;
mod deadline;
mod dispenser;
mod fault;
pub mod io;
mod link;
mod load;
mod outlet;
mod output;
mod progress;
mod recovery;
mod rules;
mod stopping;
pub mod stored;
pub mod update;
mod voice;
mod washer;

use heapless::{Deque, Vec};
use proto::{
    VERSION,
    id::{IdToken, OutletId, SessionId, TokenKey},
    instrument::{Enrolment, Instrument, KeypadKey, Voucher},
    message::{
        Clock, CommandAnswer, CommandOutcome, Grant, Hello, OUTLETS_MAX, OutletState, Receipt, Refusal, RefusalReason,
    },
    money::Units,
    topic::{Down, Up},
};

pub use alone::Instruments;
pub use config::{Checked, Config, ConfigError, Tuning};
pub use io::{Effect, Input, Now, Screen, Sense};
pub use link::Rejected;
pub use stored::{Record, RecordKey, Stored, StoredError};

use alone::{Alone, AskedAlone, Place};
use config::Supply;
use link::Link;
use outlet::{Context, Outlet, Presented};
use stored::{DeviceRecord, OutletRecord};
use voice::Message;

/// Later than any device lives, in ms since boot: a time beyond it is a fault of the shell, and would leave no room for
/// the deadlines that are counted from it.
const MONO_MS_MAX: u64 = u64::MAX / 2;
/// Answers to commands that may wait for the link; the gateway repeats a command whose answer it misses.
const ANSWERS_MAX: usize = 4;

/// One controller and its outlets. `OUTLETS`: for how many there is room; each takes 2 KiB of memory.
#[derive(Debug)]
pub struct Device<const OUTLETS: usize = OUTLETS_MAX> {
    config: Config,
    supply: Supply,
    token_key: TokenKey,
    now_ms: u64,
    record: DeviceRecord,
    unstored: bool,
    /// Number of the last session minted in this boot.
    session_number: u32,
    link: Link,
    outlets: Vec<Outlet, OUTLETS>,
    answers: Deque<(u64, CommandOutcome), ANSWERS_MAX>,
    alone: Alone,
    keypad_key: KeypadKey,
}

impl<const OUTLETS: usize> Device<OUTLETS> {
    /// Starts a device from what was stored. Take [`Self::effects`] before the first input: they switch the outputs off
    /// and store the number of this boot.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration cannot be served with this storage.
    pub fn boot(config: Config, stored: Stored<OUTLETS>, now: Now) -> Result<Self, ConfigError> {
        let mut device = Self::new(config.check()?);
        let Stored {
            device: record,
            outlets,
            instruments,
            price,
            redeemed,
        } = stored;
        device.record = record;
        for (i, record) in outlets.into_iter().enumerate() {
            if !device.take_outlet(i as OutletId, record) {
                return Err(ConfigError::OutletLost(i as OutletId));
            }
        }
        device.alone.take_instruments(instruments);
        device.alone.take_price(price);
        for (slot, record) in redeemed.into_iter().enumerate() {
            device.alone.take_slot(slot, record);
        }
        device.start(now);
        Ok(device)
    }

    /// A device that has not started, for a microcontroller: made where it is to live, because it is large, then given
    /// its records one by one ([`Self::load`]), then started ([`Self::start`]).
    #[inline(never)]
    #[must_use]
    pub fn new(Checked { config, supply }: Checked<OUTLETS>) -> Self {
        Self {
            alone: Alone::default(),
            keypad_key: config.secret.keypad_key(),
            supply,
            token_key: config.secret.token_key(),
            now_ms: 0,
            record: DeviceRecord::default(),
            unstored: true,
            session_number: 0,
            link: Link::new(&config, 0),
            outlets: Vec::new(),
            answers: Deque::new(),
            config,
        }
    }

    /// The last register reading stored for an outlet: where a counter that loses its value without power goes on.
    #[must_use]
    pub fn register(&self, outlet: OutletId) -> Units {
        let outlet = self.outlets.get(usize::from(outlet));
        outlet.map_or(Units::ZERO, |outlet| outlet.record.register)
    }

    /// Starts it, with what was loaded. Take [`Self::effects`] before the first input: they switch the outputs off and
    /// store the number of this boot.
    #[inline(never)]
    pub fn start(&mut self, now: Now) {
        self.now_ms = now.mono_ms.min(MONO_MS_MAX);
        self.record.boot = self.record.boot.saturating_add(1);
        self.link = Link::new(&self.config, self.record.boot);
        self.make_outlets(usize::from(self.config.outlets));
        self.alone.start(self.now_ms);
        self.each(Outlet::start);
        self.tidy();
    }

    /// Whether there is room for it, or nothing of it is open.
    fn take_outlet(&mut self, outlet: OutletId, record: OutletRecord) -> bool {
        if outlet >= self.config.outlets {
            return record.open.is_none() && record.closed.is_empty();
        }
        self.make_outlets(usize::from(outlet) + 1);
        self.outlets[usize::from(outlet)].record = record;
        true
    }

    #[inline(never)]
    fn make_outlets(&mut self, wanted: usize) {
        while self.outlets.len() < wanted {
            let outlet = Outlet::new(self.outlets.len() as OutletId);
            self.outlets.push(outlet).expect("the number of outlets was checked");
        }
    }

    /// Takes an input in and returns what is to be done. Inputs for outlets that do not exist, and messages that are
    /// not for this device, not sealed for it or not new, are ignored (and counted: [`Self::rejected`]).
    pub fn handle(&mut self, now: Now, input: Input<'_>) -> Effects<'_, OUTLETS> {
        // A clock that runs backwards is a fault of the shell; standing still is the safest thing to do.
        self.now_ms = self.now_ms.max(now.mono_ms.min(MONO_MS_MAX));
        match input {
            Input::Token {
                outlet,
                token,
                units_wished,
            } => self.present(outlet, &token, &Instrument::NONE, units_wished),
            Input::Voucher {
                outlet,
                envelope,
                units_wished,
            } => self.present_voucher(outlet, envelope, units_wished),
            Input::Code {
                outlet,
                account,
                code,
                units_wished,
            } => match Instrument::new(code) {
                Some(code) => self.present(outlet, &Enrolment::id_token(account), &code, units_wished),
                None => self.show_refused(outlet, RefusalReason::Forged),
            },
            Input::Button { outlet } => self.at(outlet, |o, ctx| o.button(ctx)).unwrap_or(()),
            Input::Sense { outlet, sense } => self.at(outlet, |o, ctx| o.sensed(ctx, sense)).unwrap_or(()),
            Input::LinkUp => self.link.up(self.now_ms),
            Input::LinkDown => self.link.down(),
            Input::Message { topic, frame } => self.message(topic, frame),
            Input::Tick => {}
        }
        self.each(|o, ctx| o.clockwork(ctx));
        self.tidy();
        self.effects()
    }

    /// What is still to be done.
    pub fn effects(&mut self) -> Effects<'_, OUTLETS> {
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
        let redeemed = self.alone.deadline_ms().filter(|_| linked);
        outlets.chain(self.link.deadline_ms()).chain(redeemed).min()
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

    fn present(&mut self, outlet: OutletId, token: &IdToken, instrument: &Instrument, units_wished: Units) {
        if self.link.is_ready() && self.alone.owes(token) && self.session(outlet).is_none() {
            // The gateway does not know yet that this is drawn upon, and would grant it a second time.
            return self.show_refused(outlet, RefusalReason::Concurrent);
        }
        let presented = Presented {
            token,
            instrument,
            hash: token.hash(&self.token_key),
            site_hash: self.config.site_key.as_ref().map(|key| token.hash(key)),
        };
        let (boot, mut number) = (self.record.boot, self.session_number);
        let id = self.config.id;
        let minted = self.at(outlet, |o, ctx| {
            let before = o.session();
            o.present(ctx, &presented, units_wished, || mint(id, boot, &mut number));
            o.session().filter(|session| Some(*session) != before)
        });
        self.session_number = number;
        if let Some(Some(session)) = minted
            && !self.link.is_ready()
            && alone::proves_itself(token, instrument)
        {
            self.decide_alone(outlet, session, token, instrument);
        }
    }

    fn present_voucher(&mut self, outlet: OutletId, envelope: &[u8], units_wished: Units) {
        match (Voucher::peek(envelope), Instrument::new(envelope)) {
            (Some(number), Some(instrument)) => {
                self.present(outlet, &Voucher::id_token(number), &instrument, units_wished);
            }
            (None, _) | (_, None) => self.show_refused(outlet, RefusalReason::Forged),
        }
    }

    /// Nobody can be asked, and the token proves itself.
    fn decide_alone(&mut self, outlet: OutletId, session: SessionId, token: &IdToken, instrument: &Instrument) {
        let register = self.at(outlet, |o, _| o.record.register).unwrap_or_default();
        let asked = AskedAlone {
            session,
            outlet,
            token,
            instrument,
            register,
        };
        let place = place(&self.config, &self.keypad_key, &self.link, self.now_ms);
        match self.alone.decide(&place, self.supply, &asked) {
            Ok(grant) => {
                self.hush();
                self.at(outlet, |o, ctx| o.grant(ctx, grant));
            }
            Err(reason) => {
                self.at(outlet, |o, ctx| o.refuse_alone(ctx, reason));
            }
        }
    }

    fn show_refused(&mut self, outlet: OutletId, reason: RefusalReason) {
        let retry_after_s = 0;
        self.at(outlet, |o, ctx| {
            o.notify(ctx, Screen::Refused { reason, retry_after_s });
        });
    }

    /// Keeps what was granted here as long as it matters, and quiet as long as the gateway does not know of it.
    fn tidy(&mut self) {
        let outlets = &self.outlets;
        self.alone.tidy(|session| outlets.iter().any(|o| o.traces(session)));
        self.hush();
    }

    fn hush(&mut self) {
        let alone = &self.alone;
        for outlet in &mut self.outlets {
            let open = outlet.session();
            let closed = outlet.record.closed.iter().map(|stop| stop.session);
            outlet.untold = closed.chain(open).filter(|session| !alone.is_told(session)).collect();
        }
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
                    self.alone.announce(self.now_ms);
                    self.each(|o, ctx| o.announce(ctx));
                }
            }
            Down::Grant => {
                let Some(grant) = self.link.decode::<Grant>(body) else {
                    return;
                };
                self.granted(grant);
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
                self.alone.answered(&receipt.session);
                self.owner(receipt.session, |o, ctx| o.receipt(ctx, &receipt));
            }
            Down::Command => {
                let Some(command) = self.link.decode(body) else { return };
                self.command(&command);
            }
            // The shell's matter: see `hear_update`.
            Down::Offer | Down::Piece => {}
        }
    }

    fn granted(&mut self, grant: Grant) {
        if self.alone.has(&grant.session) {
            // The answer to `redeemed`: the gateway holds the money, and hears the rest now.
            return self.alone.answered(&grant.session);
        }
        let asked = self.outlets.iter().find(|o| o.session() == Some(grant.session));
        if let Some(outlet::Phase::Asking(asking)) = asked.map(|o| &o.phase) {
            let place = place(&self.config, &self.keypad_key, &self.link, self.now_ms);
            self.alone.granted(&place, &grant, &asking.token, &asking.instrument);
        }
        self.owner(grant.session, |o, ctx| o.grant(ctx, grant));
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
        if let Some(record) = self.alone.take_store() {
            return Some(Effect::Store(record));
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
        if let Some(redeemed) = self.alone.take_redeemed(self.now_ms, spread) {
            return Some(self.link.seal(&self.config, Up::Redeemed, &redeemed));
        }
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

fn place<'a>(config: &'a Config, keypad_key: &'a KeypadKey, link: &Link, now_ms: u64) -> Place<'a> {
    Place {
        device: &config.id,
        kind: config.kind,
        instruments: &config.instruments,
        keypad_key,
        stamp: link.stamp(now_ms),
        now_ms,
        clock_age_s: link.clock_age_s(now_ms),
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
pub struct Effects<'a, const OUTLETS: usize = OUTLETS_MAX> {
    device: &'a mut Device<OUTLETS>,
}

impl<const OUTLETS: usize> Iterator for Effects<'_, OUTLETS> {
    type Item = Effect;

    fn next(&mut self) -> Option<Effect> {
        self.device.next_effect()
    }
}
