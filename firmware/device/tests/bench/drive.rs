//! A device driven by bytes: they choose the machine, then step by step who presents what, which messages arrive, what is
//! measured, how time passes and where the power fails. After every step the device is held against what it may do:
//! nothing panics, and no output is on without a live grant of the gateway or an instrument that proves itself and was
//! not spent before.

#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a part of the tests and of the fuzz target"
)]

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use device::{Config, Input, Sense};
use proto::{
    codec,
    id::{IdToken, Kind, Name, OutletId, SessionId, TokenKind},
    instrument::{AmountClass, Enrolment, KeypadToken, STEP_S, Scope, TotpKey, Voucher},
    message::*,
    money::{Money, Units},
    topic::Down,
    trust::Issuer,
};

use crate::bench::{Bench, SECRET, Said, WALL_S, config, grant, token};

/// Most steps of one run.
const STEPS_MAX: usize = 2_000;
/// Most frames of the gateway that are kept for being repeated.
const FRAMES_MAX: usize = 32;
const OUTLETS: OutletId = 2;
const ACCOUNT: u64 = 77;
const CODE_KEY: TotpKey = TotpKey([3; 32]);
/// The keypad tokens and vouchers that exist.
const PAPERS: u8 = 8;

/// Something that is spent once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Paper {
    Voucher(u64),
    Keypad(u32),
    /// By its time step.
    Code(u64),
}

/// What a run reached, for those who ask whether the runs prove anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    pub by_grant: u32,
    pub alone: u32,
    pub reboots: u32,
    pub limits: u32,
    pub faults: u32,
}

impl Reached {
    pub fn add(&mut self, other: &Self) {
        self.by_grant += other.by_grant;
        self.alone += other.alone;
        self.reboots += other.reboots;
        self.limits += other.limits;
        self.faults += other.faults;
    }

    pub fn is_everything(&self) -> bool {
        [self.by_grant, self.alone, self.reboots, self.limits, self.faults]
            .iter()
            .all(|count| *count > 0)
    }
}

/// A session as this test knows it.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The most that any grant of the gateway gives: units, and seconds with those that it leaves for the start.
    granted: Option<(u64, u64)>,
    /// What proved itself when it was opened.
    paper: Option<Paper>,
    /// Register and time when its output first went on in this boot.
    on: Option<(u64, u64)>,
}

struct Drive<'a> {
    bench: Bench,
    bytes: Unstructured<'a>,
    known: BTreeMap<SessionId, Known>,
    spent: BTreeMap<Paper, SessionId>,
    frames: Vec<(proto::topic::Topic, Vec<u8>)>,
    vouchers: Vec<Vec<u8>>,
    reached: Reached,
}

/// Runs the device until the bytes are used up.
///
/// # Panics
/// If the device does what it may not.
pub fn drive(bytes: &[u8]) -> Reached {
    let mut bytes = Unstructured::new(bytes);
    let kind = *bytes.choose(&Kind::SERVED).unwrap_or(&Kind::Charger);
    let mut drive = Drive {
        bench: Bench::dark(believing(kind), BTreeMap::new()),
        bytes,
        known: BTreeMap::new(),
        spent: BTreeMap::new(),
        frames: Vec::new(),
        vouchers: vouchers(kind),
        reached: Reached::default(),
    };
    for _ in 0..STEPS_MAX {
        if drive.bytes.is_empty() || drive.step().is_err() {
            break;
        }
    }
    drive.reached
}

fn issuer() -> Issuer {
    Issuer::from_seed(&[0x55; 32])
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn believing(kind: Kind) -> Config {
    let mut config = config(kind);
    let instruments = &mut config.instruments;
    instruments.site = Some(name("campus"));
    instruments.currency = 156;
    instruments.keypad = true;
    instruments.issuers.push(issuer().key()).expect("room for one");
    let enrolment = Enrolment {
        account: ACCOUNT,
        key: CODE_KEY,
        limit: Money(150),
    };
    instruments.enrolments.push(enrolment).expect("room for one");
    config
}

/// The first [`PAPERS`] are good at the right time, each of the others has a flaw of its own.
fn vouchers(kind: Kind) -> Vec<Vec<u8>> {
    let good = |number| Voucher {
        number,
        scope: Scope::Site,
        place: name("campus"),
        kind,
        amount: Money(400),
        currency: 156,
        not_before_s: WALL_S - 1_000,
        not_after_s: WALL_S + 100_000_000,
    };
    let signed = |voucher: &Voucher| voucher.sign(&issuer()).expect("it fits");
    let mut all: Vec<Vec<u8>> = (0..u64::from(PAPERS)).map(|number| signed(&good(number))).collect();
    let flaws: [fn(&mut Voucher); 5] = [
        |v| v.place = name("other"),
        |v| v.scope = Scope::Device,
        |v| v.currency = 978,
        |v| v.not_after_s = WALL_S - 10,
        |v| v.not_before_s = v.not_after_s - 1,
    ];
    for (number, flaw) in (100..).zip(flaws) {
        let mut voucher = good(number);
        flaw(&mut voucher);
        all.push(signed(&voucher));
    }
    all.push(good(200).sign(&Issuer::from_seed(&[9; 32])).expect("it fits"));
    all
}

impl Drive<'_> {
    fn any<T: for<'b> Arbitrary<'b>>(&mut self) -> Result<T> {
        T::arbitrary(&mut self.bytes)
    }

    fn below(&mut self, n: u64) -> Result<u64> {
        self.bytes.int_in_range(0..=n - 1)
    }

    /// One that is there most of the time.
    fn outlet(&mut self) -> Result<OutletId> {
        let any: u8 = self.any()?;
        Ok(if any > 250 { any } else { any % OUTLETS })
    }

    fn step(&mut self) -> Result<()> {
        match self.below(18)? {
            0 | 1 => self.present()?,
            2 | 3 => self.paper()?,
            4 => {
                let outlet = self.outlet()?;
                self.bench.input(Input::Button { outlet });
            }
            5..=8 => self.sense()?,
            9 => self.bench.input(Input::LinkUp),
            10 => self.bench.input(Input::LinkDown),
            11 => self.clock()?,
            12 | 13 => self.grant()?,
            14 => self.message()?,
            15 => self.repeat()?,
            16 => self.pass()?,
            _ => self.cut()?,
        }
        self.audit();
        Ok(())
    }

    /// A card, or anything else that proves nothing.
    fn present(&mut self) -> Result<()> {
        let outlet = self.outlet()?;
        let token = if self.any()? {
            token(self.below(3)? as u8)
        } else {
            let kind = *self.bytes.choose(TokenKind::ALL)?;
            let len = self.bytes.int_in_range(0..=32)?;
            match IdToken::new(kind, self.bytes.bytes(len)?) {
                Ok(token) => token,
                Err(_) => return Ok(()),
            }
        };
        let units_wished = Units(self.any::<u16>()?.into());
        self.opens(None, outlet, |bench| {
            bench.input(Input::Token {
                outlet,
                token,
                units_wished,
            });
        });
        Ok(())
    }

    /// A voucher, a keypad token or a code, most of them genuine.
    fn paper(&mut self) -> Result<()> {
        let outlet = self.outlet()?;
        let units_wished = Units(u64::from(self.any::<u8>()?) * 10);
        match self.below(3)? {
            0 => {
                let i = self.bytes.choose_index(self.vouchers.len())?;
                let mut envelope = self.vouchers[i].clone();
                let flip: u16 = self.any()?;
                let is_damaged = flip > 60_000;
                if is_damaged {
                    let at = usize::from(flip) % envelope.len();
                    envelope[at] ^= 1 << (flip % 8);
                }
                let is_good = !is_damaged && i < usize::from(PAPERS);
                self.opens(is_good.then_some(Paper::Voucher(i as u64)), outlet, |bench| {
                    bench.input(Input::Voucher {
                        outlet,
                        envelope: &envelope,
                        units_wished,
                    });
                });
            }
            1 => {
                let counter = self.bytes.int_in_range(1..=u32::from(PAPERS))?;
                let class = AmountClass::of(Money(300)).expect("an amount that there is");
                let digits = SECRET.keypad_key().digits(KeypadToken { counter, class });
                let token = IdToken::new(TokenKind::Keypad, &digits).expect("it fits");
                self.opens(Some(Paper::Keypad(counter)), outlet, |bench| {
                    bench.input(Input::Token {
                        outlet,
                        token,
                        units_wished,
                    });
                });
            }
            _ => {
                let account = if self.any()? { ACCOUNT } else { self.any()? };
                let late = self.below(5)?;
                let step = (WALL_S + self.bench.now_ms / 1_000) / STEP_S - late;
                let code = format!("{:06}", CODE_KEY.code(step));
                let code = if self.any::<u8>()? > 240 { "000000".into() } else { code };
                self.opens(Some(Paper::Code(step)), outlet, |bench| {
                    bench.input(Input::Code {
                        outlet,
                        account,
                        code: code.as_bytes(),
                        units_wished,
                    });
                });
            }
        }
        Ok(())
    }

    /// Does something at an outlet; a session that it opens was opened by `paper`.
    fn opens(&mut self, paper: Option<Paper>, outlet: OutletId, act: impl FnOnce(&mut Bench)) {
        let before = self.bench.device.session(outlet);
        act(&mut self.bench);
        let session = self.bench.device.session(outlet);
        if let (Some(session), Some(paper)) = (session.filter(|_| session != before), paper) {
            self.known.entry(session).or_default().paper = Some(paper);
        }
    }

    fn sense(&mut self) -> Result<()> {
        let outlet = self.below(OUTLETS.into())? as OutletId;
        let on = self.bench.outputs.get(&outlet) == Some(&true);
        let before = self.bench.senses.get(&outlet).copied().unwrap_or_default();
        let step: u8 = self.any()?;
        let absurd: u8 = self.any()?;
        let flows = on && step > 60;
        let mut sense = Sense {
            register: Units(before.register.0.saturating_add(u64::from(step) * u64::from(flows))),
            power_w: 1_500 * u32::from(flows),
            current_ma: 6_000 * u32::from(flows),
            temperature_c: 30,
            relay_closed: on,
            flowing: flows,
            door_locked: flows,
            running: flows,
            plugged: step != 7,
            leaking: false,
        };
        match absurd {
            0 => sense.register = Units(self.any()?),
            1 => sense.temperature_c = self.any()?,
            2 => sense.power_w = self.any()?,
            3 => sense.current_ma = self.any()?,
            4 => sense.leaking = true,
            5 => sense.relay_closed = !on,
            6 => sense.running = !flows,
            _ => {}
        }
        self.bench.sense(outlet, |s| *s = sense);
        let tuning = self.bench.config.tuning;
        let is_bad = sense.leaking
            || sense.current_ma > tuning.current_ma_max
            || sense.temperature_c > tuning.temperature_c_max
            || sense.register < before.register;
        if is_bad {
            self.reached.faults += 1;
            let is_on = self.bench.outputs.get(&outlet) == Some(&true);
            assert!(!is_on, "outlet {outlet} is on with {sense:?}");
        }
        Ok(())
    }

    fn clock(&mut self) -> Result<()> {
        let boot = if self.any::<u8>()? > 20 {
            self.bench.device.boot_number()
        } else {
            self.any()?
        };
        let clock = Clock {
            version: self.bytes.int_in_range(1..=2)?,
            boot,
            wall_s: WALL_S + self.bench.now_ms / 1_000,
            quality: *self.bytes.choose(ClockQuality::ALL)?,
            offset_min: self.any()?,
        };
        self.send(Down::Clock, &clock);
        Ok(())
    }

    /// The gateway grants the session of an outlet, or one that nobody asked for.
    fn grant(&mut self) -> Result<()> {
        let outlet = self.below(OUTLETS.into())? as OutletId;
        let session = match self.bench.device.session(outlet) {
            Some(session) if self.any::<u8>()? > 20 => session,
            Some(_) | None => SessionId(self.any()?),
        };
        let mut grant = grant(self.bench.kind(), session);
        match self.below(10)? {
            0 => grant.units_max = Units(self.any()?),
            1 => grant.money_max = Money(self.any()?),
            2 => grant.duration_max_s = self.any()?,
            3 => grant.start_within_s = self.any()?,
            4 => grant.meter_every_s = self.any()?,
            5 => grant.tariff.start_fee = Money(self.any()?),
            6 => grant.tariff_hash.0[0] ^= 1,
            7 => grant.duration_max_s = self.bytes.int_in_range(0..=60)?,
            8 => grant.units_max = Units(self.below(500)?),
            _ => {}
        }
        self.granted(&grant);
        self.send(Down::Grant, &grant);
        Ok(())
    }

    fn granted(&mut self, grant: &Grant) {
        let known = self.known.entry(grant.session).or_default();
        let (units, duration_s) = known.granted.unwrap_or_default();
        known.granted = Some((
            units.max(grant.units_max.0),
            duration_s.max(u64::from(grant.duration_max_s) + u64::from(grant.start_within_s)),
        ));
    }

    /// Any message: of the gateway with any content, or sealed by nobody.
    fn message(&mut self) -> Result<()> {
        let word = *self.bytes.choose(Down::ALL)?;
        let session = self.bench.device.session(0).unwrap_or(SessionId(self.any()?));
        match self.below(5)? {
            0 => {
                let refusal = Refusal {
                    session,
                    reason: *self.bytes.choose(RefusalReason::ALL)?,
                    retry_after_s: self.any()?,
                };
                self.send(Down::Refusal, &refusal);
            }
            1 => {
                let receipt = Receipt {
                    session,
                    closing: Closing::Captured,
                    amount: Money(self.any()?),
                    units: Units(self.any()?),
                };
                self.send(Down::Receipt, &receipt);
            }
            2 => {
                let command = Command {
                    id: self.below(64)?,
                    verb: *self.bytes.choose(Verb::ALL)?,
                    outlet: self.outlet()?,
                    session,
                    not_after_s: *self.bytes.choose(&[0, WALL_S, u64::MAX])?,
                    token: Some(token(self.below(3)? as u8)),
                    units: Units(self.below(3_000)?),
                };
                self.send(Down::Command, &command);
            }
            3 => {
                let len = self.bytes.int_in_range(0..=200)?;
                let body = self.bytes.bytes(len)?.to_vec();
                // What the gateway seals is its word, whatever made it.
                if let Ok(grant) = codec::decode::<Grant>(&body) {
                    self.granted(&grant);
                }
                let (topic, frame) = self.bench.frame_of(word, &body);
                self.deliver(&topic, &frame);
            }
            _ => {
                let len = self.bytes.int_in_range(0..=200)?;
                let frame = self.bytes.bytes(len)?.to_vec();
                let topic = proto::topic::down(&self.bench.id(), word);
                self.deliver(&topic, &frame);
            }
        }
        Ok(())
    }

    /// A frame of the gateway once more, perhaps damaged, perhaps on another topic.
    fn repeat(&mut self) -> Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let i = self.bytes.choose_index(self.frames.len())?;
        let (mut topic, mut frame) = self.frames[i].clone();
        match self.below(4)? {
            0 => {
                let at = self.bytes.choose_index(frame.len())?;
                frame[at] ^= 1 << self.below(8)?;
            }
            1 => topic = proto::topic::down(&self.bench.id(), *self.bytes.choose(Down::ALL)?),
            _ => {}
        }
        self.deliver(&topic, &frame);
        Ok(())
    }

    fn send<T: serde::Serialize>(&mut self, word: Down, message: &T) {
        let (topic, frame) = self.bench.frame(word, message);
        self.deliver(&topic, &frame);
        if self.frames.len() == FRAMES_MAX {
            self.frames.remove(0);
        }
        self.frames.push((topic, frame));
    }

    fn deliver(&mut self, topic: &str, frame: &[u8]) {
        self.bench.input(Input::Message { topic, frame });
    }

    fn pass(&mut self) -> Result<()> {
        match self.below(8)? {
            0 => {
                // The next deadline, not a moment before.
                let next_ms = self.bench.device.next_deadline().unwrap_or(self.bench.now_ms);
                self.bench.now_ms = self.bench.now_ms.max(next_ms);
                self.bench.input(Input::Tick);
            }
            1 => {
                // Late by hours: the shell was busy.
                self.bench.now_ms += u64::from(self.any::<u32>()?);
                self.bench.input(Input::Tick);
            }
            _ => {
                let ms = u64::from(self.any::<u16>()?);
                self.bench.wait(ms);
            }
        }
        Ok(())
    }

    /// The power fails after so many effects of what comes next, and comes back.
    fn cut(&mut self) -> Result<()> {
        self.bench.effects_left = Some(self.below(6)? as usize);
        match self.below(3)? {
            0 => self.paper()?,
            1 => self.grant()?,
            _ => self.sense_unjudged()?,
        }
        self.bench.reboot();
        for known in self.known.values_mut() {
            known.on = None;
        }
        self.reached.reboots += 1;
        Ok(())
    }

    /// A reading in the last moment before the power is gone: nothing can be asked of who has no time to act.
    fn sense_unjudged(&mut self) -> Result<()> {
        let outlet = self.below(OUTLETS.into())? as OutletId;
        let more: u8 = self.any()?;
        self.bench
            .sense(outlet, |s| s.register.0 = s.register.0.saturating_add(more.into()));
        Ok(())
    }

    fn audit(&mut self) {
        let now_ms = self.bench.now_ms;
        for (outlet, _) in self.bench.outputs.clone().into_iter().filter(|(_, on)| *on) {
            let session = self.bench.stored_grant(outlet).expect("on without a stored grant");
            assert_eq!(self.bench.device.session(outlet), Some(session), "outlet {outlet}");
            let known = self.known.entry(session).or_default();
            let register = self.bench.senses.get(&outlet).map_or(0, |sense| sense.register.0);
            let (on_register, on_ms) = *known.on.get_or_insert((register, now_ms));
            match (known.granted, known.paper) {
                (Some((units_max, duration_max_s)), _) => {
                    self.reached.by_grant += 1;
                    // A wash cycle is never cut.
                    if self.bench.kind() != Kind::Washer && known.paper.is_none() {
                        assert!(
                            register - on_register < units_max,
                            "outlet {outlet} is on behind its units"
                        );
                        assert!(
                            (now_ms - on_ms) / 1_000 <= duration_max_s,
                            "outlet {outlet} is on behind its time"
                        );
                    }
                }
                (None, Some(paper)) => {
                    self.reached.alone += 1;
                    let first = *self.spent.entry(paper).or_insert(session);
                    assert_eq!(first, session, "{paper:?} was spent twice");
                }
                (None, None) => panic!("outlet {outlet} is on for {session:?}, which nobody granted"),
            }
        }
        self.reached.limits += u32::from(
            self.bench
                .said
                .iter()
                .any(|said| matches!(said, Said::Stop(stop) if stop.reason == StopReason::Limit)),
        );
        self.bench.said.clear();
        self.bench.screens.clear();
        self.bench.order.clear();
    }
}
