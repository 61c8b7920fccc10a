//! The device by itself: with the link down, an instrument that proves itself opens a session within its face value.
//!
//! What is stored, in this order, before the output goes on: that the instrument is spent ([`InstrumentRecord`]), what
//! has to be told ([`RedeemedRecord`], one slot a session), the granted session (`OutletRecord`). A power cut after the
//! first leaves an instrument that only the gateway still takes; after the second a slot without a session, which is
//! emptied; after the third a session like any other. An instrument is accepted once here; what a session leaves of it
//! can be drawn where the gateway answers.
//!
//! When the link is back each slot is told as `redeemed` until it is answered, oldest session first, and only then
//! anything else of its session: so the gateway places the hold before it hears of start and end. A slot is emptied when
//! its session has its receipt.

use heapless::Vec;
use proto::{
    id::{DeviceId, IdToken, Kind, Name, SessionId, TokenKind},
    identity::{ENROLMENTS_MAX, ISSUERS_MAX},
    instrument::{Enrolment, Fault, Here, Instrument, KeypadKey, Today, TotpClock, Voucher, keypad_number, parse_code},
    message::{ClockQuality, Grant, Redeemed, Stamp},
    money::{Money, Units},
    tariff::Dimension,
    trust::IssuerKey,
};

use crate::{
    config::{AUTHORIZE_RETRY_FIRST_MS, STOP_RETRY_MAX_MS, Supply},
    link::Retry,
    progress,
    stored::{
        CodeMark, InstrumentRecord, Price, PriceRecord, REDEEMED_MAX, Record, RecordKey, RedeemedRecord,
        STORED_VERSION, encode,
    },
};

/// Whom a device believes without asking. Made at installation; empty: nobody, and instruments go to the gateway only.
#[derive(Clone, Debug, Default)]
pub struct Instruments {
    /// The site that vouchers name; none: no voucher is redeemed without the gateway.
    pub site: Option<Name>,
    /// The site's currency, as the number of ISO 4217.
    pub currency: u16,
    /// Keys of voucher issuers.
    pub issuers: Vec<IssuerKey, ISSUERS_MAX>,
    /// Accounts whose one-time codes are taken.
    pub enrolments: Vec<Enrolment, ENROLMENTS_MAX>,
    /// Whether keypad tokens are taken.
    pub keypad: bool,
}

/// What a device knows of itself when it judges an instrument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) kind: Kind,
    pub(crate) instruments: &'a Instruments,
    pub(crate) keypad_key: &'a KeypadKey,
    pub(crate) stamp: Stamp,
    pub(crate) now_ms: u64,
    /// How long ago the clock was set, in s.
    pub(crate) clock_age_s: u64,
}

/// What an instrument proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    number: u64,
    face: Money,
    spend: Spend,
}

/// How an instrument is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spend {
    Voucher { not_after_s: u64 },
    Keypad { counter: u32 },
    Code { account: u64, step: u64 },
}

#[derive(Debug)]
struct Slot {
    record: RedeemedRecord,
    unstored: bool,
    told: bool,
    retry: Retry,
}

/// The memory of a device that decides by itself.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    record: InstrumentRecord,
    unstored: bool,
    price: PriceRecord,
    price_unstored: bool,
    slots: Vec<Slot, REDEEMED_MAX>,
}

impl Alone {
    /// What was stored of instruments.
    pub(crate) fn take_instruments(&mut self, record: InstrumentRecord) {
        self.record = record;
    }

    /// The price that was stored.
    pub(crate) fn take_price(&mut self, price: PriceRecord) {
        self.price = price;
    }

    /// What was stored in a slot; `false`: there is no such slot.
    pub(crate) fn take_slot(&mut self, slot: usize, record: RedeemedRecord) -> bool {
        if slot >= REDEEMED_MAX {
            return false;
        }
        self.make_slots(slot + 1);
        self.slots[slot].record = record;
        true
    }

    /// After a boot, with what was stored.
    pub(crate) fn start(&mut self, now_ms: u64) {
        self.record.lockout.restart(now_ms);
        self.make_slots(REDEEMED_MAX);
        for slot in &mut self.slots {
            slot.retry = Retry::at(now_ms);
        }
    }

    fn make_slots(&mut self, wanted: usize) {
        while self.slots.len() < wanted {
            let slot = Slot {
                record: RedeemedRecord::default(),
                unstored: false,
                told: false,
                retry: Retry::at(0),
            };
            self.slots.push(slot).expect("there is room for all slots");
        }
    }

    /// Decides about a request that nobody else can be asked about. The spend is marked and the slot is filled: both are
    /// stored before anything that follows from the grant.
    ///
    /// # Errors
    /// [`Refused`]. A wrong guess is marked, too.
    pub(crate) fn decide(
        &mut self,
        place: &Place<'_>,
        supply: Supply,
        ask: &AskedAlone<'_>,
    ) -> Result<Grant, proto::message::RefusalReason> {
        use proto::message::RefusalReason;
        let Some(price) = self.price.price.clone() else {
            return Err(RefusalReason::NoTariff);
        };
        let proof = self.verify(place, ask.token, ask.instrument).map_err(|fault| {
            if fault.is_guess() && ask.token.kind != TokenKind::Voucher {
                self.record.lockout.failed(place.now_ms);
                self.unstored = true;
            }
            fault.reason()
        })?;
        let free = self.slots.iter().position(|slot| slot.record.redeemed.is_none());
        let free = free.ok_or(RefusalReason::Storage)?;
        let grant = grant_of(ask.session, &price, supply, proof.face);
        if !progress::is_usable(&grant, supply) {
            return Err(RefusalReason::NoCredit);
        }
        self.mark(proof.number, &proof.spend, wall(&place.stamp))
            .map_err(Fault::reason)?;
        let slot = &mut self.slots[free];
        slot.record = RedeemedRecord {
            version: STORED_VERSION,
            redeemed: Some(Redeemed {
                session: ask.session,
                outlet: ask.outlet,
                token: ask.token.clone(),
                instrument: ask.instrument.clone(),
                number: proof.number,
                units_max: grant.units_max,
                money_max: grant.money_max,
                duration_max_s: grant.duration_max_s,
                meter_every_s: grant.meter_every_s,
                tariff: grant.tariff.clone(),
                register: ask.register,
                at: place.stamp,
            }),
        };
        slot.unstored = true;
        slot.told = false;
        Ok(grant)
    }

    fn verify(&self, place: &Place<'_>, token: &IdToken, instrument: &Instrument) -> Result<Proof, Fault> {
        if token.kind != TokenKind::Voucher && self.record.lockout.wait_ms(place.now_ms) > 0 {
            return Err(Fault::LockedOut);
        }
        let proof = self.read(place, token, instrument)?;
        match proof.spend {
            Spend::Voucher { not_after_s } => {
                let site = place.instruments.site.as_ref().ok_or(Fault::Elsewhere)?;
                let here = Here {
                    site,
                    device: place.device,
                    kind: place.kind,
                    currency: place.instruments.currency,
                };
                let wall_s = wall(&place.stamp);
                let voucher = Voucher::open(instrument.as_slice(), &place.instruments.issuers)?;
                voucher.check(&here, wall_s.map_or(Today::AtLeast(0), Today::Known))?;
                self.record.used.check(proof.number, not_after_s, wall_s)?;
            }
            Spend::Keypad { counter } if self.record.window.is_used(counter) => return Err(Fault::Spent),
            Spend::Keypad { .. } | Spend::Code { .. } => {}
        }
        Ok(proof)
    }

    /// What an instrument proves by its form, wherever, whenever and however often it was presented.
    fn read(&self, place: &Place<'_>, token: &IdToken, instrument: &Instrument) -> Result<Proof, Fault> {
        match token.kind {
            TokenKind::Voucher => {
                let voucher = Voucher::open(instrument.as_slice(), &place.instruments.issuers)?;
                let not_after_s = voucher.not_after_s;
                Ok(Proof {
                    number: voucher.number,
                    face: voucher.amount,
                    spend: Spend::Voucher { not_after_s },
                })
            }
            TokenKind::Keypad if place.instruments.keypad => {
                let typed = place.keypad_key.open(token.bytes.as_slice(), &self.record.window)?;
                let counter = typed.counter;
                Ok(Proof {
                    number: keypad_number(place.device, counter),
                    face: typed.class.amount(),
                    spend: Spend::Keypad { counter },
                })
            }
            TokenKind::Keypad => Err(Fault::Elsewhere),
            TokenKind::Pin => self.read_code(place, token, instrument),
            TokenKind::Card | TokenKind::App | TokenKind::Unknown => Err(Fault::Malformed),
        }
    }

    fn read_code(&self, place: &Place<'_>, token: &IdToken, instrument: &Instrument) -> Result<Proof, Fault> {
        let account = Enrolment::account_of(token).ok_or(Fault::Malformed)?;
        let code = parse_code(instrument.as_slice()).ok_or(Fault::Malformed)?;
        let mut enrolments = place.instruments.enrolments.iter();
        let enrolment = enrolments.find(|enrolment| enrolment.account == account);
        let enrolment = enrolment.ok_or(Fault::Elsewhere)?;
        let clock = TotpClock {
            wall_s: place.stamp.wall_s,
            quality: place.stamp.quality,
            since_set_s: place.clock_age_s,
        };
        let step = enrolment.key.verify(code, &clock, self.record.last_step(account))?;
        Ok(Proof {
            number: 0,
            face: enrolment.limit,
            spend: Spend::Code { account, step },
        })
    }

    fn mark(&mut self, number: u64, spend: &Spend, wall_s: Option<u64>) -> Result<(), Fault> {
        match *spend {
            Spend::Voucher { not_after_s } => self.record.used.mark(number, not_after_s, wall_s)?,
            Spend::Keypad { counter } => self.record.window.accept(counter)?,
            Spend::Code { account, step } => self.record.mark_step(account, step)?,
        }
        self.unstored = true;
        Ok(())
    }

    /// The gateway granted a session: its price is the one to go by when it is away, and an instrument that it took is
    /// not taken again without it.
    pub(crate) fn granted(&mut self, place: &Place<'_>, grant: &Grant, token: &IdToken, instrument: &Instrument) {
        let price = Price {
            tariff: grant.tariff.clone(),
            duration_max_s: grant.duration_max_s,
            start_within_s: grant.start_within_s,
            meter_every_s: grant.meter_every_s,
        };
        if self.price.price.as_ref() != Some(&price) && grant.tariff.check().is_ok() {
            self.price.price = Some(price);
            self.price_unstored = true;
        }
        if let Ok(proof) = self.read(place, token, instrument) {
            // It may be marked already, for its remainder; or the memory is full, and takes nothing else either.
            let _ = self.mark(proof.number, &proof.spend, wall(&place.stamp));
        }
    }

    /// Whether the session was granted here.
    pub(crate) fn has(&self, session: &SessionId) -> bool {
        self.slots.iter().any(|slot| slot.session() == Some(*session))
    }

    /// Whether the gateway knows of the session: of any that was not granted here it does.
    pub(crate) fn is_told(&self, session: &SessionId) -> bool {
        let untold = |slot: &Slot| slot.session() == Some(*session) && !slot.told;
        !self.slots.iter().any(untold)
    }

    /// Whether a session that was granted here on this token has still to be told.
    pub(crate) fn owes(&self, token: &IdToken) -> bool {
        let same = |slot: &Slot| {
            slot.record
                .redeemed
                .as_ref()
                .is_some_and(|redeemed| redeemed.token == *token)
        };
        self.slots.iter().any(|slot| !slot.told && same(slot))
    }

    /// The gateway answered.
    pub(crate) fn answered(&mut self, session: &SessionId) {
        for slot in self.slots.iter_mut().filter(|slot| slot.session() == Some(*session)) {
            slot.told = true;
        }
    }

    /// Empties the slots of sessions that left no trace at any outlet.
    pub(crate) fn tidy(&mut self, traced: impl Fn(&SessionId) -> bool) {
        for slot in &mut self.slots {
            if slot.session().is_some_and(|session| !traced(&session)) {
                slot.record.redeemed = None;
                slot.unstored = true;
            }
        }
    }

    /// The link is ready: everything is told again.
    pub(crate) fn announce(&mut self, now_ms: u64) {
        for slot in &mut self.slots {
            slot.retry = Retry::at(now_ms);
        }
    }

    /// The next record to be stored.
    pub(crate) fn take_store(&mut self) -> Option<Record> {
        if core::mem::take(&mut self.unstored) {
            return Some(encode(RecordKey::Instruments, &self.record));
        }
        if core::mem::take(&mut self.price_unstored) {
            return Some(encode(RecordKey::Price, &self.price));
        }
        let (i, slot) = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.unstored)?;
        slot.unstored = false;
        Some(encode(RecordKey::Redeemed(i as u8), &slot.record))
    }

    /// The next session to be told; counts as said. One at a time, oldest first.
    pub(crate) fn take_redeemed(&mut self, now_ms: u64, spread: u8) -> Option<Redeemed> {
        let slot = self.oldest_untold()?;
        let slot = &mut self.slots[slot];
        if !slot.retry.due(now_ms) {
            return None;
        }
        slot.retry
            .said(now_ms, AUTHORIZE_RETRY_FIRST_MS, STOP_RETRY_MAX_MS, spread);
        slot.record.redeemed.clone()
    }

    /// When the next one is due; `None`: never.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.oldest_untold().map(|slot| self.slots[slot].retry.next_ms())
    }

    fn oldest_untold(&self) -> Option<usize> {
        let untold = self.slots.iter().enumerate().filter(|(_, slot)| !slot.told);
        // Boot and number stand in the lower half of a session id, so ids of one device are in order.
        let (i, _) = untold
            .filter_map(|(i, slot)| Some((i, slot.session()?)))
            .min_by_key(|(_, session)| *session)?;
        Some(i)
    }
}

impl Slot {
    fn session(&self) -> Option<SessionId> {
        self.record.redeemed.as_ref().map(|redeemed| redeemed.session)
    }
}

/// A request that the device decides about.
pub(crate) struct AskedAlone<'a> {
    pub(crate) session: SessionId,
    pub(crate) outlet: u8,
    pub(crate) token: &'a IdToken,
    pub(crate) instrument: &'a Instrument,
    pub(crate) register: Units,
}

/// Whether a token brings its own proof.
pub(crate) fn proves_itself(token: &IdToken, instrument: &Instrument) -> bool {
    match token.kind {
        TokenKind::Keypad => true,
        TokenKind::Voucher | TokenKind::Pin => !instrument.is_none(),
        TokenKind::Card | TokenKind::App | TokenKind::Unknown => false,
    }
}

/// The limits are the face value and what was usual with the gateway.
fn grant_of(session: SessionId, price: &Price, supply: Supply, face: Money) -> Grant {
    let affordable = price.tariff.units_within(supply.dimension(), face);
    let units_max = match supply.dimension() {
        // A session is one cycle, as everywhere.
        Dimension::Cycle => affordable.map_or(Units(1), |units| units.min(Units(1))),
        _ => affordable.unwrap_or(Units(u64::MAX)),
    };
    Grant {
        session,
        units_max,
        money_max: face,
        duration_max_s: price.duration_max_s,
        start_within_s: price.start_within_s,
        meter_every_s: price.meter_every_s,
        tariff_hash: price.tariff.hash(),
        tariff: price.tariff.clone(),
        decision: 0,
        // Nobody is at hand who knows the site's tokens.
        stop_tokens: heapless::Vec::new(),
    }
}

/// The wall clock, if it may be used.
fn wall(stamp: &Stamp) -> Option<u64> {
    match stamp.quality {
        ClockQuality::Informative | ClockQuality::Synchronised => Some(stamp.wall_s),
        ClockQuality::Unknown | ClockQuality::Relative => None,
    }
}

impl InstrumentRecord {
    fn last_step(&self, account: u64) -> u64 {
        let mark = self.codes.iter().find(|mark| mark.0 == account);
        mark.map_or(0, |mark| mark.1)
    }

    fn mark_step(&mut self, account: u64, step: u64) -> Result<(), Fault> {
        if let Some(mark) = self.codes.iter_mut().find(|mark| mark.0 == account) {
            mark.1 = mark.1.max(step);
            return Ok(());
        }
        // One for each enrolment, so it is full only after enrolments were exchanged: the least recent one goes.
        if self.codes.is_full()
            && let Some((i, _)) = self.codes.iter().enumerate().min_by_key(|(_, mark)| mark.1)
        {
            self.codes.swap_remove(i);
        }
        self.codes.push(CodeMark(account, step)).map_err(|_| Fault::Full)
    }
}
