//! From an input to events and effects. Reads the state, changes nothing.

mod clock;
mod cloud;
mod deadline;
mod instrument;
mod invalid;
mod limits;
mod ordered;
mod probe;
mod ring;
mod told;

use alloc::vec::Vec;

use proto::{
    VERSION,
    id::{DeviceId, SessionId},
    link::{Ask, LedgerRecord, RecordKind},
    message::{
        Closing, CommandAnswer, Fault, Hello, Meter, Receipt, Refusal, RefusalReason, StartProof, Started, Status,
        Stop, StopReason,
    },
    money::{Money, Units},
    tariff::Bill,
    trust::ArtifactKind,
};

pub use self::ring::RingOrder;
use self::told::{grant_of, receipt_of, refusal_of};
use crate::{
    Alarm, Decision, Effect, Gateway, Ignored, Input, Said, Told,
    authorize::{Outcome, Rule},
    event::{
        Asked, AskedAgain, Booted, Closed, CommandAnswered, Event, Granted, Greeted, Heard, Metered, Refused, Reported,
        Started as StartedEvent,
    },
    grounds::{CloudWord, Grounds},
    instrument::Presented,
    ring::sight::InRings,
    session::{Reading, Request, Session, Terms},
    time::{Instant, Now},
    trust::Look,
};

/// A decision in the making.
pub(crate) struct Draft<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) now: &'a Now,
    pub(crate) at: Instant,
    pub(crate) out: Decision,
    pub(crate) sequence: u64,
    /// What the cloud said about the request that is decided, and the code of its error.
    cloud: (CloudWord, u16),
    /// The wall clock was set since it was last read.
    is_clock_set: bool,
    /// By what the request is judged.
    rings: InRings,
    /// What follows the verdict.
    after: Vec<Event>,
    /// The message that is decided, and how many events stood before it.
    pub(crate) heard: Option<(Heard, usize)>,
}

impl Gateway {
    /// What to do about an input. Pure: the same state, time and input give the same decision.
    #[must_use]
    pub fn decide(&self, now: &Now, input: &Input) -> Decision {
        let at = self.time.at(now);
        let mut draft = Draft {
            gateway: self,
            now,
            at,
            out: Decision::default(),
            sequence: self.outbox.head(),
            is_clock_set: false,
            cloud: (CloudWord::NotAsked, 0),
            rings: InRings::NONE,
            after: Vec::new(),
            heard: None,
        };
        if !matches!(input, Input::Boot { .. }) {
            draft.look_at_clock();
        }
        let ignored = match input {
            Input::Boot { boot, epoch } => {
                draft.look_at_first_clock();
                draft.event(Event::Booted(Booted {
                    boot: *boot,
                    epoch: *epoch,
                }));
                Ok(())
            }
            Input::Device { device, counter, said } => draft.device(device, *counter, said),
            Input::Answer(answer) => draft.answer(answer),
            Input::Trouble { ask, code } => draft.trouble(*ask, *code),
            Input::List(list) => {
                let look = Look {
                    at,
                    wall_s: now.wall(),
                    activity: &self.activity,
                    limits: &self.config.limits,
                    spent: &self.risk.spent,
                    leases: &self.leases,
                };
                draft.adopt(self.trust.decide_list(list, &look))
            }
            Input::Revocations(set) => draft.adopt(self.trust.decide_revocations(set).map_err(Ignored::Stale)),
            Input::Tariffs(table) => draft.adopt(self.trust.decide_tariffs(table)),
            Input::Keys(keys) => draft.adopt(self.trust.decide_keys(keys).map_err(Ignored::Stale)),
            Input::Adopt {
                kind: ArtifactKind::Policy,
                revision,
            } => draft.adopt(self.decide_adopt_policy(*revision)),
            Input::Adopt { kind, revision } => draft.adopt(self.trust.decide_adopt(*kind, *revision)),
            Input::RollBack(kind) => draft.roll_back(*kind),
            Input::Ring(what, order) => draft.ring_order(*what, *order),
            Input::Configured(limits) => draft.configured(limits),
            Input::Policy(policy) => draft.policy(policy),
            Input::Disk { is_scarce } => draft.disk(*is_scarce),
            Input::Leases(leases) => draft.leases(leases),
            Input::Welcome(welcome) => draft.welcome(welcome),
            Input::Receipt { receipt, own_hash } => draft.receipt(receipt, own_hash),
            Input::CloudOrder(order) => draft.order(order),
            Input::Echo { nonce } => draft.echo(*nonce),
            Input::Tick => draft.tick(),
        };
        draft.tell_heard();
        draft.witness_artifact(input);
        draft.out.events.append(&mut draft.after);
        draft.out.ignored = ignored.err();
        draft.out
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn event(&mut self, event: Event) {
        self.out.events.push(event);
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.out.effects.push(Effect::Alarm(alarm));
    }

    fn send(&mut self, device: &DeviceId, message: Told) {
        self.out.effects.push(Effect::Send {
            device: *device,
            message,
        });
    }

    fn adopt(&mut self, events: Result<Vec<Event>, Ignored>) -> Result<(), Ignored> {
        if let Err(Ignored::Trailer { revision, base }) = events {
            self.alarm(Alarm::Trailer { revision, base });
        }
        let before = self.out.events.len();
        for event in events? {
            if let Event::Quarantined(q) = &event {
                let (kind, revision, findings) = (q.kind, q.revision, q.findings);
                self.alarm(Alarm::Quarantined {
                    kind,
                    revision,
                    findings,
                });
            }
            if let Err(ignored) = self.staged(event) {
                // No part of it, either.
                self.out.events.truncate(before);
                return Err(ignored);
            }
        }
        Ok(())
    }

    fn device(&mut self, device: &DeviceId, counter: u64, said: &Said) -> Result<(), Ignored> {
        let config = self
            .gateway
            .config
            .devices
            .get(device)
            .ok_or(Ignored::UnknownDevice(*device))?;
        let last = self.gateway.devices.get(device).map_or(0, |known| known.counter);
        if counter <= last {
            return Err(Ignored::Replayed {
                device: *device,
                found: counter,
                last,
            });
        }
        self.hear(*device, counter);
        match said {
            Said::Hello(hello) => self.hello(device, hello),
            Said::Authorize {
                session,
                outlet,
                token,
                units_wished,
                register,
                presented,
            } => {
                let request = Request {
                    session: *session,
                    device: *device,
                    kind: config.kind,
                    outlet: *outlet,
                    token: *token,
                    units_wished: *units_wished,
                    register: *register,
                    counter,
                };
                self.authorize(request, presented);
                Ok(())
            }
            Said::Redeemed {
                redeemed,
                token,
                presented,
            } => self.redeemed(device, (config.kind, counter), redeemed, *token, presented),
            Said::Started(started) => self.started(device, started),
            Said::Meter(meter) => self.meter(device, meter),
            Said::Stop(stop) => {
                self.stop(device, stop);
                Ok(())
            }
            Said::Status(status) => {
                self.status(device, status);
                Ok(())
            }
            Said::CommandAnswer(CommandAnswer { id, outcome, .. }) => {
                self.event(Event::CommandAnswered(CommandAnswered {
                    device: *device,
                    id: *id,
                    outcome: *outcome,
                }));
                Ok(())
            }
        }
    }

    fn hello(&mut self, device: &DeviceId, hello: &Hello) -> Result<(), Ignored> {
        self.out.effects.push(Effect::RaiseCounter {
            device: *device,
            last: hello.down_counter,
        });
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            let refusal = Refusal {
                session: SessionId::ZERO,
                reason: RefusalReason::Version,
                retry_after_s: 0,
            };
            self.send(device, Told::Refusal(refusal));
            return Ok(());
        }
        let config = &self.gateway.config.devices[device];
        if hello.kind != config.kind || hello.outlets < config.outlets {
            return Err(Ignored::Kind(*device));
        }
        let (boot, outlets, firmware) = (hello.boot, hello.outlets, hello.firmware.clone());
        self.event(Event::Greeted(Greeted {
            device: *device,
            boot,
            outlets,
            firmware,
        }));
        self.compare_device(device, hello);
        let clock = self.clock(boot);
        self.send(device, Told::Clock(clock));
        Ok(())
    }

    fn authorize(&mut self, request: Request, presented: &Presented) {
        if let Some(known) = self.gateway.sessions.get(&request.session) {
            return self.answer_again(known);
        }
        let (word, fault) = self.instrument_word(&request, presented);
        let outcome = self.judge(&request, word);
        self.remember_instrument(&request, presented, &word, fault, &outcome);
        self.conclude(request, outcome);
    }

    /// A request that was decided before gets the same answer.
    fn answer_again(&mut self, session: &Session) {
        let request = &session.request;
        let message = match (&session.terms, session.refused, session.closing) {
            (_, _, Some(_)) => Told::Receipt(receipt_of(session)),
            (Some(terms), _, None) => Told::Grant(grant_of(request, terms, session.decision)),
            (None, Some(reason), None) => Told::Refusal(refusal_of(request, reason, session.rule)),
            (None, None, None) => return,
        };
        self.send(&request.device, message);
    }

    fn conclude(&mut self, request: Request, outcome: Outcome) {
        match outcome {
            Outcome::Ask { amount } => {
                let ask = self.gateway.next_ask();
                let until = self.at.plus_ms(self.gateway.config.limits.ask_ms);
                let question = Ask {
                    ask,
                    session: request.session,
                    token: request.token,
                    kind: request.kind,
                    amount,
                };
                self.event(Event::Asked(Asked { request, ask, until }));
                self.out.effects.push(Effect::Ask(question));
            }
            Outcome::Refuse { reason, rule } => {
                let refusal = refusal_of(&request, reason, Some(rule));
                let device = request.device;
                let grounds = self.grounds(&request);
                self.event(Event::Refused(Refused {
                    request,
                    reason,
                    rule,
                    mode: self.gateway.health.authorize.mode,
                    grounds,
                }));
                self.send(&device, Told::Refusal(refusal));
            }
            Outcome::Grant {
                terms,
                rule,
                credential_revision,
            } => self.grant(request, terms, rule, credential_revision),
        }
    }

    fn grant(&mut self, request: Request, terms: Terms, rule: Rule, credential_revision: u64) {
        let mut session = Session::new(request.clone(), self.at);
        session.rule = Some(rule);
        session.online = rule == Rule::Cloud;
        session.terms = Some(terms.clone());
        let record = self.record(RecordKind::Hold, &session, terms.money_max);
        let grounds = self.grounds(&request);
        let grant = grant_of(&request, &terms, grounds.decision);
        let at_risk = if terms.unsecured { terms.money_max } else { Money::ZERO };
        let sight = self.gateway.sight(&request.device, self.rings);
        let (list_revision, _, tariffs_revision) = sight.revisions();
        let device = request.device;
        let asks_again = self.asks_again(&request, &terms);
        let question = Ask {
            ask: 0,
            session: request.session,
            token: request.token,
            kind: request.kind,
            amount: terms.money_max,
        };
        self.event(Event::Granted(Granted {
            request,
            terms,
            rule,
            mode: self.gateway.health.authorize.mode,
            credential_revision,
            list_revision,
            tariffs_revision,
            exposure: self.gateway.risk.exposure().saturating_add(at_risk),
            record,
            grounds,
        }));
        self.send(&device, Told::Grant(grant));
        if asks_again {
            let ask = self.gateway.next_ask();
            let session = question.session;
            self.event(Event::AskedAgain(AskedAgain { session, ask }));
            self.out.effects.push(Effect::Ask(Ask { ask, ..question }));
        }
    }

    fn started(&mut self, device: &DeviceId, started: &Started) -> Result<(), Ignored> {
        let gateway: &'a Gateway = self.gateway;
        let session = gateway
            .sessions
            .get(&started.session)
            .filter(|session| session.is_open() && session.request.device == *device)
            .ok_or(Ignored::NotOpen(started.session))?;
        if !session.started {
            self.prove_start(session, started.register_start, None, Some(started.proof));
        }
        Ok(())
    }

    /// Returns the session as it is with the proof. `end`: where the register stood when it was over.
    fn prove_start(
        &mut self,
        session: &Session,
        register_start: Units,
        end: Option<Units>,
        proof: Option<StartProof>,
    ) -> Session {
        let (device, outlet) = (session.request.device, session.request.outlet);
        let claims = self.gateway.claims(&device, outlet);
        if let Some(claims) = claims.filter(|claims| claims.clashes(register_start, end)) {
            let (found, billed) = (register_start.0, claims.upto.0);
            self.alarm(Alarm::Register {
                device,
                outlet,
                found,
                billed,
            });
        }
        let mut proven = session.clone();
        proven.started = true;
        proven.register_start = register_start;
        proven.register_last = proven.register_start;
        let record = self.record(RecordKind::Started, &proven, Money::ZERO);
        self.event(Event::Started(StartedEvent {
            session: session.request.session,
            register_start: proven.register_start,
            record,
            proof,
            counter: 0,
        }));
        proven
    }

    fn meter(&mut self, device: &DeviceId, meter: &Meter) -> Result<(), Ignored> {
        let Some(session) = self
            .gateway
            .sessions
            .get(&meter.session)
            .filter(|s| s.request.device == *device)
        else {
            return Err(Ignored::NotOpen(meter.session));
        };
        if !session.is_open() {
            // The device repeats what it knows after a boot: it gets the answer that it has missed.
            self.answer_again(session);
            return Ok(());
        }
        if !session.started {
            self.prove_start(session, meter.register_start, None, None);
        }
        self.event(Event::Metered(Metered {
            session: meter.session,
            register: meter.register,
            elapsed_s: meter.elapsed_s,
            idle_s: meter.idle_s,
            power_w: meter.power_w,
            second_of_day: self.now.second_of_day(self.gateway.config.offset_min),
            counter: 0,
        }));
        if session.invalidation.is_some_and(|invalidation| !invalidation.is_heard) {
            self.limit(session);
        }
        Ok(())
    }

    fn stop(&mut self, device: &DeviceId, stop: &Stop) {
        let session = self
            .gateway
            .sessions
            .get(&stop.session)
            .filter(|s| s.request.device == *device);
        let Some(session) = session else {
            return self.receipt_unknown(device, stop.session);
        };
        let Some(terms) = session.terms.as_ref().filter(|_| session.is_open()) else {
            if session.is_asking() {
                // Nobody waits any more; nothing was granted.
                let request = session.request.clone();
                let outcome = Outcome::Refuse {
                    reason: RefusalReason::Other,
                    rule: Rule::Device,
                };
                self.conclude(request, outcome);
                return self.receipt_unknown(device, stop.session);
            }
            if session.refused.is_some() {
                return self.receipt_unknown(device, stop.session);
            }
            return self.answer_again(session);
        };
        let mut session = session.clone();
        let delivered = stop.register_end > stop.register_start;
        if (stop.started || delivered) && !session.started {
            session = self.prove_start(&session, stop.register_start, Some(stop.register_end), None);
        }
        let reading = Reading {
            register: stop.register_end.max(session.register_last),
            elapsed_s: stop.elapsed_s,
            idle_s: stop.idle_s,
            power_w: 0,
        };
        self.close(&session, terms, &reading, Some(stop.shown), stop.reason);
    }

    /// Captures what is evidenced, or voids a session of which the device says that nothing happened.
    fn close(&mut self, session: &Session, terms: &Terms, reading: &Reading, shown: Option<Money>, reason: StopReason) {
        let mut ended = session.clone();
        if self.is_clock_set {
            ended.second_of_day = None;
        }
        let advance = session.advance_to(reading.register);
        ended.pass_over(
            &advance,
            self.gateway.claims(&session.request.device, session.request.outlet),
        );
        let delivered = reading.register.since(ended.register_start);
        let (kind, closing, amount) = if session.started {
            ended.bill = ended.bill_at(terms, reading);
            let charge = ended.bill.total(&terms.tariff).min(terms.money_max);
            (
                RecordKind::Capture,
                Closing::Captured,
                shown.map_or(charge, |shown| charge.min(shown.max(Money::ZERO))),
            )
        } else {
            (RecordKind::Void, Closing::Voided, Money::ZERO)
        };
        ended.amount = amount;
        ended.closing = Some(closing);
        ended.register_last = ended.register_last.max(reading.register);
        ended.units = if session.started {
            delivered.min(terms.units_max)
        } else {
            Units::ZERO
        };
        let booked = if kind == RecordKind::Void {
            terms.money_max
        } else {
            amount
        };
        let mut record = self.record(kind, &ended, booked);
        record.stop_reason = reason;
        self.event(Event::Closed(Closed {
            session: session.request.session,
            closing,
            amount,
            units: ended.units,
            register_end: ended.register_last,
            record,
            shown,
            counter: 0,
        }));
        self.send(&session.request.device, Told::Receipt(receipt_of(&ended)));
    }

    fn receipt_unknown(&mut self, device: &DeviceId, session: SessionId) {
        let receipt = Receipt {
            session,
            closing: Closing::Unknown,
            amount: Money::ZERO,
            units: Units::ZERO,
        };
        self.send(device, Told::Receipt(receipt));
    }

    fn status(&mut self, device: &DeviceId, status: &Status) {
        if status.fault != Fault::None {
            self.alarm(Alarm::DeviceFault {
                device: *device,
                outlet: status.outlet,
                fault: status.fault,
            });
        }
        self.event(Event::Reported(Reported {
            device: *device,
            outlet: status.outlet,
            state: status.state,
            fault: status.fault,
            register: status.register,
        }));
    }

    fn grounds(&self, request: &Request) -> Grounds {
        let (cloud, code) = self.cloud;
        self.gateway.grounds((self.now, self.rings), request, cloud, code)
    }

    fn record(&mut self, kind: RecordKind, session: &Session, amount: Money) -> LedgerRecord {
        self.sequence += 1;
        let terms = session
            .terms
            .as_ref()
            .expect("ledger records are about granted sessions");
        let metered = kind == RecordKind::Capture;
        LedgerRecord {
            sequence: self.sequence,
            kind,
            session: session.request.session,
            device: session.request.device,
            outlet: session.request.outlet,
            device_kind: session.request.kind,
            token: session.request.token,
            account: terms.account,
            amount,
            register_start: session.register_start,
            register_end: session.register_last,
            bill: if metered { session.bill } else { Bill::default() },
            tariff_hash: terms.tariff_hash,
            stop_reason: StopReason::Other,
            rule: session.rule.map_or(0, Rule::step),
            online: session.online,
            at: self.now.stamp(),
            boot: self.gateway.time.boot,
            evidence: terms.evidence,
        }
    }
}
