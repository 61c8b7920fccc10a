//! Two gateways and a hub, real cores all three, for 72 virtual hours: partitions, lost messages, crashes, random
//! spending at both, answers that are recorded and played again after a start, one gateway that is put back from an old
//! backup, and one that the operator believes gone: its
//! leases are released, and it comes back after all, in a new epoch. Whatever happens, what is delivered on an account
//! that is never served on credit is at most what was paid in.
//!
//! `HOLDFAST_LEASE_SEEDS=N` runs N seeds, `HOLDFAST_LEASE_FIRST=K` begins at seed K. A failing seed is printed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use gateway_core::{
    Config, Effect, Event, Gateway, Input, Now, Said, Told,
    config::{DeviceConfig, Limits},
};
use hub::core::{Catalogue, Content, Effect as HubEffect, Hub, Input as HubInput, Now as HubNow, Settings, TokenSpec};
use proto::{
    VERSION,
    artifact::{self, Whitelist},
    book::Account,
    codec,
    id::{DeviceId, GatewayId, Hash, Kind, Name, SessionId, TokenHash},
    link::{Answer, Ask, LedgerReceipt, LedgerRecord, LinkHello, RecordKind, Upload, chain},
    message::{ClockQuality, Stamp, Stop, StopReason},
    money::{Money, Units},
    tariff::{Dimension, PriceElement, Tariff},
    trust::{ArtifactKind, Issuer},
};
use serde_bytes::ByteBuf;

/// Seeds in an optimised build; an unoptimised one runs a few.
const SEEDS_DEFAULT: u64 = if cfg!(debug_assertions) { 200 } else { 10_000 };
const HOURS: u64 = 72;
const BEGIN_S: u64 = 1_768_464_000;
const ACCOUNTS: u64 = 3;
const SETTINGS: Settings = Settings {
    list_every_s: 0,
    lease_slice: Money(400),
    lease_s: 20 * 3_600,
};
/// One fen for ten millilitres.
const ML_PER_FEN: u64 = 10;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn token(account: u64) -> TokenHash {
    TokenHash([account as u8; 16])
}

fn tariff() -> Tariff {
    let mut elements = heapless::Vec::new();
    let element = PriceElement {
        dimension: Dimension::Volume,
        price_milli: 100_000,
        minute_from: 0,
        minute_to: 1_440,
        power_w_min: 0,
        power_w_max: 0,
    };
    elements.push(element).unwrap();
    Tariff {
        id: 1,
        start_fee: Money::ZERO,
        minimum: Money::ZERO,
        cap: Money::ZERO,
        elements,
    }
}

/// A session that runs.
#[derive(Clone)]
struct Open {
    session: SessionId,
    account: u64,
    money_max: Money,
    units_max: Units,
}

/// A tap behind a gateway. It is not part of what a backup puts back.
#[derive(Default)]
struct Tap {
    counter: u64,
    number: u32,
    register: u64,
    open: Option<Open>,
    /// Stops without a receipt; said again after every boot of the gateway.
    stops: Vec<Stop>,
}

struct Place {
    id: GatewayId,
    config: Config,
    gateway: Gateway,
    journal: Vec<(Now, Event)>,
    records: Vec<(Vec<u8>, Hash)>,
    backup: usize,
    boot: u32,
    epoch: u32,
    booted_s: u64,
    is_linked: bool,
    /// It has no power; its taps go on with what was granted.
    is_gone: bool,
    taps: Vec<Tap>,
    granted: Vec<Told>,
    asks: Vec<Ask>,
}

struct World {
    seconds: u64,
    hub: Hub,
    places: Vec<Place>,
    deposits: BTreeMap<u64, i64>,
    /// What physically flowed, at its price, by account.
    delivered: BTreeMap<u64, i64>,
    /// Captures that the hub booked, by account.
    captured: BTreeMap<u64, i64>,
    hellos: u64,
    /// Answers with a lease, as whoever stands between could record them.
    recorded: Vec<(GatewayId, Answer)>,
    rng: fastrand::Rng,
    seen: Seen,
}

/// What must have happened over a run.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    grants: u64,
    grants_alone: u64,
    refusals: u64,
    leases: u64,
    returns: u64,
    recalls: u64,
    restores: u64,
    gone: u64,
    spent_behind_backup: u64,
    released: u64,
    held_at_release: u64,
    crashes: u64,
    quarantined: u64,
    lost_answers: u64,
    /// Recorded answers that were played to a process that had just begun.
    played_again: u64,
}

impl Place {
    fn new(number: usize) -> Self {
        let taps = [0, 1].map(|tap| name(&format!("tap-{number}{tap}")));
        let device = DeviceConfig {
            kind: Kind::Dispenser,
            outlets: 1,
            car: false,
        };
        let id = name(&format!("gw-{number}"));
        let config = Config {
            devices: taps.map(|tap| (tap, device)).into(),
            limits: Limits {
                attempts_a_minute_max: 1_000,
                starts_an_hour_max: 100_000,
                ..Limits::default()
            },
            offset_min: 480,
            gateway: Some(id),
            instruments: gateway_core::Instruments::default(),
            ring: gateway_core::config::RingLimits::default(),
        };
        Self {
            id,
            gateway: Gateway::new(config.clone()),
            config,
            journal: Vec::new(),
            records: Vec::new(),
            backup: 0,
            boot: 0,
            epoch: 1,
            booted_s: 0,
            is_linked: false,
            is_gone: false,
            taps: vec![Tap::default(), Tap::default()],
            granted: Vec::new(),
            asks: Vec::new(),
        }
    }

    fn device(&self, tap: usize) -> DeviceId {
        *self.config.devices.keys().nth(tap).unwrap()
    }

    fn now(&self, seconds: u64) -> Now {
        Now {
            mono_ms: (seconds - self.booted_s) * 1_000,
            wall_s: BEGIN_S + seconds,
            quality: ClockQuality::Synchronised,
        }
    }

    fn put(&mut self, seconds: u64, input: &Input, seen: &mut Seen) {
        let now = self.now(seconds);
        let decision = self.gateway.decide(&now, input);
        for event in decision.events {
            self.gateway.apply(&now, &event);
            match &event {
                Event::LeaseTaken(_) => seen.leases += 1,
                Event::LeaseReturned(_) => seen.returns += 1,
                _ => {}
            }
            self.keep(event.record());
            self.journal.push((now, event));
        }
        for effect in decision.effects {
            match effect {
                Effect::Send { message, .. } => self.granted.push(message),
                Effect::Ask(ask) => self.asks.push(ask),
                Effect::RaiseCounter { .. }
                | Effect::Alarm(_)
                | Effect::Echo(_)
                | Effect::Hello
                | Effect::OrderDone(_) => {}
            }
        }
    }

    fn keep(&mut self, record: Option<&LedgerRecord>) {
        if let Some(record) = record {
            let bytes = codec::to_vec(record);
            let previous = self.records.last().map_or(Hash::ZERO, |(_, hash)| *hash);
            let hash = chain(&previous, &bytes);
            self.records.push((bytes, hash));
        }
    }

    /// Starts from the journal; what was asked and not answered is gone.
    fn boot(&mut self, seconds: u64, seen: &mut Seen) {
        self.gateway = Gateway::new(self.config.clone());
        self.records.clear();
        for (now, event) in std::mem::take(&mut self.journal) {
            self.gateway.apply(&now, &event);
            self.keep(event.record());
            self.journal.push((now, event));
        }
        self.boot += 1;
        self.booted_s = seconds;
        self.asks.clear();
        let (boot, epoch) = (self.boot, self.epoch);
        self.put(seconds, &Input::Boot { boot, epoch }, seen);
    }

    fn say(&mut self, seconds: u64, tap: usize, said: Said, seen: &mut Seen) {
        let device = self.device(tap);
        self.taps[tap].counter += 1;
        let counter = self.taps[tap].counter;
        self.put(seconds, &Input::Device { device, counter, said }, seen);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let deposits: BTreeMap<u64, i64> = (1..=ACCOUNTS).map(|account| (account, rng.i64(100..3_000))).collect();
        let tokens = deposits.keys().map(|account| {
            let spec = TokenSpec {
                account: *account,
                group: 0,
                valid: true,
                whitelist: [Whitelist::Always, Whitelist::Allowed, Whitelist::AllowedOffline][*account as usize % 3],
                not_after_s: 0,
                credential_revision: 0,
            };
            (token(*account), spec)
        });
        let catalogue = Catalogue {
            accounts: deposits
                .iter()
                .map(|(account, deposit)| (*account, Money(*deposit)))
                .collect(),
            lease_only: deposits.keys().copied().collect(),
            tokens: Some(tokens.collect()),
            tariffs: [(Kind::Dispenser, tariff())].into(),
            ..Catalogue::default()
        };
        let mut world = Self {
            seconds: 0,
            hub: Hub::default(),
            places: vec![Place::new(0), Place::new(1)],
            delivered: deposits.keys().map(|account| (*account, 0)).collect(),
            captured: deposits.keys().map(|account| (*account, 0)).collect(),
            deposits,
            hellos: 0,
            recorded: Vec::new(),
            rng,
            seen: Seen::default(),
        };
        world.hub(&HubInput::Start);
        world.hub(&HubInput::Import(catalogue));
        for at in 0..2 {
            let seconds = world.seconds;
            world.places[at].boot(seconds, &mut world.seen);
            world.publish(at);
            world.connect(at);
        }
        world
    }

    fn hub(&mut self, input: &HubInput) -> Vec<HubEffect> {
        let now = HubNow {
            wall_s: BEGIN_S + self.seconds,
        };
        let decision = self.hub.step(now, &SETTINGS, input);
        for event in &decision.events {
            match event {
                hub::core::Event::Booked { record, .. } if record.kind == RecordKind::Capture => {
                    *self.captured.get_mut(&record.account).unwrap() += record.amount.0;
                }
                hub::core::Event::Quarantined { .. } => self.seen.quarantined += 1,
                hub::core::Event::LeaseRecalled { .. } => self.seen.recalls += 1,
                _ => {}
            }
        }
        decision.effects
    }

    /// List and prices reach a gateway once, while it is installed.
    fn publish(&mut self, at: usize) {
        let Some(Content::List(list)) = self.hub.artifact(ArtifactKind::List, 1, 0) else {
            panic!("published at import");
        };
        let issuer = Issuer::from_seed(&[7; 32]);
        let (envelope, chunks) = artifact::sign_list(&issuer, 1, list.issued_s, list.entries).unwrap();
        let verified = artifact::verify_list(&envelope, &chunks, &[issuer.key()]).unwrap();
        let Some(Content::Tariffs(table)) = self.hub.artifact(ArtifactKind::Tariffs, 1, 0) else {
            panic!("published at import");
        };
        self.tell_gateway(at, &Input::List(verified));
        self.tell_gateway(at, &Input::Tariffs(table));
    }

    fn tell_gateway(&mut self, at: usize, input: &Input) {
        let seconds = self.seconds;
        self.places[at].put(seconds, input, &mut self.seen);
    }

    fn connect(&mut self, at: usize) {
        self.hellos += 1;
        let place = &mut self.places[at];
        place.is_linked = true;
        let (list_revision, revocations_revision, tariffs_revision) = place.gateway.trust().revisions();
        let hello = LinkHello {
            version_min: VERSION,
            version_max: VERSION,
            epoch: place.epoch,
            boot: place.boot,
            head: place.gateway.outbox().head(),
            cursor: place.gateway.outbox().cursor(),
            list_revision,
            revocations_revision,
            tariffs_revision,
            down_counter: 0,
            leases_revision: place.gateway.leases().revision(),
            policy_revision: place.gateway.policy_revision(),
        };
        let (gateway, counter) = (place.id, self.hellos);
        let effects = self.hub(&HubInput::Hello {
            gateway,
            counter,
            hello,
        });
        self.carry(effects);
    }

    /// What the hub says reaches whom it is for, if there is a line and the message is not lost.
    fn carry(&mut self, effects: Vec<HubEffect>) {
        for effect in effects {
            let (gateway, input) = match effect {
                HubEffect::Welcome { gateway, welcome, .. } => (gateway, Some(Input::Welcome(welcome))),
                HubEffect::Answer(gateway, answer) => {
                    if answer.lease.epoch != 0 {
                        self.recorded.push((gateway, answer.clone()));
                    }
                    (gateway, Some(Input::Answer(answer)))
                }
                HubEffect::Receipt(gateway, receipt) => (gateway, self.receipt(gateway, receipt)),
                HubEffect::Artifact {
                    gateway,
                    kind: ArtifactKind::Lease,
                    ..
                } => (gateway, self.hub.leases_of(gateway).map(Input::Leases)),
                _ => continue,
            };
            let at = self.places.iter().position(|place| place.id == gateway).unwrap();
            if !self.places[at].is_linked || self.rng.u32(0..10) == 0 {
                self.seen.lost_answers += 1;
                continue;
            }
            if let Some(input) = input {
                self.tell_gateway(at, &input);
            }
        }
    }

    fn receipt(&self, gateway: GatewayId, receipt: LedgerReceipt) -> Option<Input> {
        let place = self.places.iter().find(|place| place.id == gateway)?;
        let own = receipt
            .upto
            .checked_sub(1)
            .and_then(|at| place.records.get(at as usize));
        let own_hash = own.map_or(Hash::ZERO, |(_, hash)| *hash);
        Some(Input::Receipt { receipt, own_hash })
    }

    fn upload(&mut self, at: usize) {
        let place = &self.places[at];
        let cursor = place.gateway.outbox().cursor() as usize;
        if !place.is_linked || cursor >= place.records.len() {
            return;
        }
        let upto = place.records.len().min(cursor + 20);
        let part = place.records[cursor..upto].iter();
        let upload = Upload {
            epoch: place.epoch,
            first: cursor as u64 + 1,
            records: part.map(|(bytes, _)| ByteBuf::from(bytes.clone())).collect(),
        };
        let gateway = place.id;
        let effects = self.hub(&HubInput::Upload { gateway, upload });
        self.carry(effects);
    }

    /// Somebody wants water.
    fn come(&mut self, at: usize, tap: usize, account: u64) {
        if self.places[at].taps[tap].open.is_some() {
            return;
        }
        let seconds = self.seconds;
        let place = &mut self.places[at];
        let device = place.device(tap);
        place.taps[tap].number += 1;
        let session = SessionId::mint(&device, 1, place.taps[tap].number);
        let said = Said::Authorize {
            session,
            outlet: 0,
            token: token(account),
            units_wished: Units::ZERO,
            register: Units(place.taps[tap].register),
            presented: gateway_core::Presented::Token,
        };
        place.granted.clear();
        place.say(seconds, tap, said, &mut self.seen);
        if let Some(ask) = self.places[at].asks.pop() {
            self.ask(at, ask);
        }
        let answers = std::mem::take(&mut self.places[at].granted);
        let grant = answers.into_iter().find_map(|told| match told {
            Told::Grant(grant) if grant.session == session => Some(grant),
            _ => None,
        });
        match grant {
            None => self.seen.refusals += 1,
            Some(grant) => {
                self.seen.grants += 1;
                self.seen.grants_alone += u64::from(!self.places[at].is_linked);
                self.places[at].taps[tap].open = Some(Open {
                    session,
                    account,
                    money_max: grant.money_max,
                    units_max: grant.units_max,
                });
            }
        }
    }

    fn ask(&mut self, at: usize, ask: Ask) {
        let lost = !self.places[at].is_linked || self.rng.u32(0..10) == 0;
        if !lost {
            let gateway = self.places[at].id;
            let effects = self.hub(&HubInput::Ask { gateway, ask });
            self.carry(effects);
        }
        // No answer in time is an answer too.
        self.seconds += 2;
        self.tick(at);
    }

    fn tick(&mut self, at: usize) {
        let seconds = self.seconds;
        if self.places[at].is_gone {
            return;
        }
        while self.places[at]
            .gateway
            .next_deadline()
            .is_some_and(|due_ms| due_ms <= self.places[at].now(seconds).mono_ms)
        {
            self.places[at].put(seconds, &Input::Tick, &mut self.seen);
            self.places[at].asks.retain(|ask| ask.session != SessionId::ZERO);
        }
    }

    /// Water flows within the grant, and the tap says so; the gateway may be told later.
    fn draw(&mut self, at: usize, tap: usize) {
        let Some(open) = self.places[at].taps[tap].open.take() else {
            return;
        };
        let units = self
            .rng
            .u64(0..=open.units_max.0.min(open.money_max.0 as u64 * ML_PER_FEN));
        let cost = (units + ML_PER_FEN / 2) / ML_PER_FEN;
        *self.delivered.get_mut(&open.account).unwrap() += cost as i64;
        let state = &mut self.places[at].taps[tap];
        let register_start = Units(state.register);
        state.register += units;
        state.stops.push(Stop {
            session: open.session,
            outlet: 0,
            reason: StopReason::User,
            started: units > 0,
            register_start,
            register_end: Units(state.register),
            elapsed_s: 30,
            idle_s: 0,
            shown: Money(cost as i64),
            at: Stamp::relative(0),
        });
        self.tell(at, tap);
    }

    fn tell(&mut self, at: usize, tap: usize) {
        let seconds = self.seconds;
        if self.places[at].is_gone {
            return;
        }
        for stop in self.places[at].taps[tap].stops.clone() {
            self.places[at].granted.clear();
            self.places[at].say(seconds, tap, Said::Stop(stop.clone()), &mut self.seen);
            let receipted = self.places[at]
                .granted
                .iter()
                .any(|told| matches!(told, Told::Receipt(receipt) if receipt.session == stop.session));
            // A tap forgets a receipted session; a gateway that is put back later never hears of it again.
            if receipted {
                self.places[at].taps[tap]
                    .stops
                    .retain(|kept| kept.session != stop.session);
            }
        }
    }

    /// The gateway's disk is replaced by an old copy of it, with the procedure for that: a new epoch.
    fn put_back(&mut self, at: usize) {
        let place = &mut self.places[at];
        let lost = &place.journal[place.backup..];
        let spent = lost
            .iter()
            .any(|(_, event)| matches!(event, Event::Granted(granted) if granted.terms.evidence.lease != 0));
        self.seen.restores += 1;
        self.seen.spent_behind_backup += u64::from(spent);
        place.journal.truncate(place.backup);
        place.epoch += 1;
        place.is_linked = false;
        let seconds = self.seconds;
        place.boot(seconds, &mut self.seen);
        self.play_again(at);
    }

    /// The hub has all that a gateway wrote, and hears no more of it: the operator takes it for gone for good.
    fn give_up(&mut self, at: usize) {
        let place = &mut self.places[at];
        (place.is_linked, place.is_gone) = (false, true);
        let (gateway, gone) = (place.id, true);
        let held = |world: &Self| world.hub.book().holds().count() as u64;
        self.seen.held_at_release += held(self);
        let effects = self.hub(&HubInput::ReleaseLeases { gateway, gone });
        let released = effects.iter().find_map(|effect| match effect {
            HubEffect::Released(released) => Some(released.leases as u64),
            _ => None,
        });
        self.seen.released += released.expect("a gateway that said hello");
        self.seen.gone += 1;
        assert!(self.hub.leases().values().all(|row| row.gateway != gateway));
    }

    /// It is found again, with its disk. It has to begin a new epoch, and knows nothing of the release.
    fn come_back(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.is_gone = false;
        place.epoch += 1;
        let seconds = self.seconds;
        place.boot(seconds, &mut self.seen);
        self.play_again(at);
        self.tell(at, 0);
        self.tell(at, 1);
    }

    /// A process that has just begun knows of no counter: whoever stands between may play what he recorded.
    fn play_again(&mut self, at: usize) {
        let of_place = |(gateway, _): &&(GatewayId, Answer)| *gateway == self.places[at].id;
        let recorded: Vec<Answer> = self.recorded.iter().filter(of_place).map(|(_, a)| a.clone()).collect();
        for _ in 0..self.rng.usize(0..4).min(recorded.len()) {
            let answer = recorded[self.rng.usize(0..recorded.len())].clone();
            self.seen.played_again += 1;
            self.tell_gateway(at, &Input::Answer(answer));
        }
    }

    fn step(&mut self) {
        self.seconds += self.rng.u64(30..1_800);
        let at = self.rng.usize(0..2);
        let tap = self.rng.usize(0..2);
        for at in 0..2 {
            self.tick(at);
        }
        match self.rng.u32(0..100) {
            35..60 if self.places[at].is_gone => self.draw(at, tap),
            60..65 if self.places[at].is_gone => self.come_back(at),
            _ if self.places[at].is_gone => {}
            0..35 => {
                let account = self.rng.u64(1..=ACCOUNTS);
                self.come(at, tap, account);
            }
            35..60 => self.draw(at, tap),
            60..80 => self.upload(at),
            80..88 => self.connect(at),
            88..95 => self.places[at].is_linked = false,
            95..97 => {
                self.seen.crashes += 1;
                let seconds = self.seconds;
                self.places[at].boot(seconds, &mut self.seen);
                self.play_again(at);
                self.tell(at, tap);
            }
            _ => self.places[at].backup = self.places[at].journal.len(),
        }
        self.audit();
    }

    fn audit(&self) {
        for (account, deposit) in &self.deposits {
            let delivered = self.delivered[account];
            assert!(
                delivered <= *deposit,
                "account {account}: delivered {delivered}, paid in {deposit}: overspent by {}",
                delivered - deposit
            );
            // What is leased and what is not add up to the balance.
            let rows = self.hub.leases().range((*account, 0)..=(*account, u64::MAX));
            let leased: i64 = rows.map(|(_, row)| row.left().0 + row.held.0).sum();
            let leased = leased + self.held_of_released(*account);
            let available = self.hub.available(*account).0;
            assert!(available >= 0, "account {account} has {available} left");
            assert_eq!(
                available + leased + self.captured[account],
                *deposit,
                "account {account}: {available} free, {leased} leased, {} spent",
                self.captured[account]
            );
        }
        assert!(self.hub.book().is_balanced());
        for place in &self.places {
            assert!(place.gateway.book().is_balanced());
            assert_eq!(
                place.gateway.risk().exposure(),
                Money::ZERO,
                "nothing of this is credit"
            );
        }
    }

    /// What the book has of leases that nobody has any more: it is held by open sessions.
    fn held_of_released(&self, account: u64) -> i64 {
        let book = self.hub.book().balances();
        book.filter_map(|(of, sums)| match of {
            Account::Lease(of, epoch) if *of == account && !self.hub.leases().contains_key(&(account, *epoch)) => {
                let rest = sums.credits_posted.0 - sums.debits_posted.0;
                assert_eq!(
                    rest, sums.debits_pending.0,
                    "lease {epoch} of account {account} is over"
                );
                Some(rest)
            }
            _ => None,
        })
        .sum()
    }

    /// Everything heals: every tap is heard, every record arrives. Without a restore both books agree.
    fn settle(&mut self) {
        self.rng = fastrand::Rng::with_seed(0);
        for at in 0..2 {
            if self.places[at].is_gone {
                self.come_back(at);
            }
        }
        for _ in 0..200 {
            self.seconds += 600;
            for at in 0..2 {
                self.tick(at);
                self.draw(at, 0);
                self.draw(at, 1);
                self.tell(at, 0);
                self.tell(at, 1);
                // The link says hello until it is welcomed.
                if !self.places[at].is_linked || self.places[at].gateway.outbox().waiting() > 0 {
                    self.connect(at);
                }
                self.upload(at);
            }
            self.audit();
            if self.is_at_rest() {
                break;
            }
        }
        assert!(self.is_at_rest(), "every record has its receipt, and every tap its own");
        if self.seen.restores == 0 {
            let both_say = if self.seen.gone == 0 { &self.places[..] } else { &[] };
            for place in both_say {
                for (&account, sums) in place.gateway.book().balances() {
                    if let Account::Lease(..) = account {
                        assert_eq!(*sums, self.hub.book().balance(&account), "{account}");
                    }
                }
            }
            let (delivered, captured): (i64, i64) = (self.delivered.values().sum(), self.captured.values().sum());
            assert_eq!(captured, delivered, "what flowed is paid");
        }
    }
}

impl World {
    fn is_at_rest(&self) -> bool {
        self.places.iter().all(|place| {
            let taps_done = place.taps.iter().all(|tap| tap.stops.is_empty() && tap.open.is_none());
            taps_done && place.gateway.outbox().waiting() == 0
        })
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    let chosen = world.rng.usize(0..6);
    let (at, is_put_back) = (chosen % 2, chosen < 2);
    let chosen_s = world.rng.u64(HOURS * 900..HOURS * 3_600);
    let mut done = chosen > 3;
    while world.seconds < HOURS * 3_600 {
        world.step();
        if done || world.seconds < chosen_s {
            continue;
        }
        if is_put_back {
            done = true;
            world.put_back(at);
        } else if world.places[at].gateway.outbox().waiting() == 0 {
            done = true;
            world.give_up(at);
        }
    }
    world.settle();
    world.seen
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.grants += other.grants;
        self.grants_alone += other.grants_alone;
        self.refusals += other.refusals;
        self.leases += other.leases;
        self.returns += other.returns;
        self.recalls += other.recalls;
        self.restores += other.restores;
        self.gone += other.gone;
        self.spent_behind_backup += other.spent_behind_backup;
        self.released += other.released;
        self.held_at_release += other.held_at_release;
        self.crashes += other.crashes;
        self.quarantined += other.quarantined;
        self.lost_answers += other.lost_answers;
        self.played_again += other.played_again;
    }
}

/// Runs seeds until none is left.
fn work(next: &AtomicU64, end: u64) -> Seen {
    let mut all = Seen::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return all;
        }
        let seen = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            eprintln!("seed {seed} failed; again: HOLDFAST_LEASE_FIRST={seed} HOLDFAST_LEASE_SEEDS=1");
            std::panic::resume_unwind(panic)
        });
        all.add(&seen);
    }
}

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().unwrap())
}

#[test]
fn leased_accounts_are_never_overspent() {
    let (first, count) = (
        number("HOLDFAST_LEASE_FIRST", 1),
        number("HOLDFAST_LEASE_SEEDS", SEEDS_DEFAULT),
    );
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&next, first + count)))
            .collect();
        for worker in workers {
            all.add(&worker.join().expect("every seed passes"));
        }
    });
    println!("seeds {first} to {}: {all:?}; overspent 0", first + count - 1);
    if count >= 100 {
        let marks = [
            all.grants,
            all.grants_alone,
            all.refusals,
            all.leases,
            all.returns,
            all.recalls,
            all.restores,
            all.spent_behind_backup,
            all.released,
            all.held_at_release,
            all.crashes,
            all.quarantined,
            all.lost_answers,
            all.played_again,
        ];
        assert!(marks.iter().all(|mark| *mark > 0), "something never happened: {all:?}");
    }
}
