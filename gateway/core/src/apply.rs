//! The only place where state changes. Everything here must follow from the event alone, so that replay ends in the
//! same state.

use proto::{
    id::{DeviceId, OutletId},
    message::{Closing, OutletState},
    money::Units,
};

use crate::{
    Gateway, Outlet, Probe,
    event::{Event, Granted, Kept, KeptDevice, Metered},
    health::Mode,
    risk::Charge,
    session::{INDETERMINATE_MS, METERS_MISSED_MAX, Reading, START_GRACE_MS, Session},
    time::{Instant, Now},
    trust::Confirmation,
};

impl Gateway {
    /// Makes an event part of the state. `now` is the time that stands with it in the journal.
    ///
    /// # Panics
    /// If the event cannot follow from this state: a damaged journal, or a bug. The shell stops; nothing is granted.
    pub fn apply(&mut self, now: &Now, event: &Event) {
        if let Event::Booted(booted) = event {
            self.time.boot(booted.boot, booted.epoch, now);
        }
        self.time.see(now);
        let at = self.time.at(now);
        if let Some(record) = event.record() {
            self.book.book(record).expect("the gateway's own records fit its book");
            self.outbox.push(record);
        }
        match event {
            Event::Booted(_) => self.apply_boot(at),
            Event::Heard(e) => self.devices.entry(e.device).or_default().counter = e.counter,
            Event::Greeted(e) => self.devices.entry(e.device).or_default().boot = e.boot,
            Event::Asked(e) => {
                self.ask = e.ask;
                self.risk.attempt(e.request.token, at);
                let mut session = Session::new(e.request.clone(), at);
                session.ask = Some(e.ask);
                session.deadline = Some(e.until);
                self.sessions.put(session);
            }
            Event::Probed(e) => {
                self.ask = e.ask;
                self.probed = e.token;
                self.probe = Some(Probe {
                    ask: e.ask,
                    token: e.token,
                    until: e.until,
                });
            }
            Event::Refused(e) => {
                let session = self.sessions.get(&e.request.session);
                if session.is_none() {
                    self.risk.attempt(e.request.token, at);
                }
                let mut session = Session::new(e.request.clone(), session.map_or(at, |s| s.requested_at));
                session.refused = Some(e.reason);
                session.rule = Some(e.rule);
                self.sessions.put(session);
            }
            Event::Granted(e) => self.apply_grant(at, e),
            Event::Confirmed(e) => {
                let (account, credential_revision) = (e.account, e.credential_revision);
                self.trust.confirmed.insert(
                    e.token,
                    Confirmation {
                        at,
                        account,
                        credential_revision,
                    },
                );
                self.secure(&e.session);
            }
            Event::Denied(e) => {
                self.trust.denied.insert(e.token, e.credential_revision);
            }
            Event::Started(e) => {
                let second_of_day = now.second_of_day(self.config.offset_min);
                self.heard_of(&e.session, at, |session| {
                    session.started = true;
                    session.register_start = e.register_start;
                    session.register_last = e.register_start;
                    session.second_of_day = second_of_day;
                });
            }
            Event::Metered(e) => self.apply_meter(at, e),
            Event::Closed(e) => {
                self.sessions.update(&e.session, |session| {
                    session.closing = Some(e.closing);
                    session.amount = e.amount;
                    session.units = e.units;
                    session.register_last = e.register_end;
                    session.bill = e.record.bill;
                    session.deadline = None;
                    session.indeterminate = false;
                });
                self.apply_close(e);
            }
            Event::Silent(e) => self.sessions.update(&e.session, |session| {
                session.indeterminate = true;
                session.deadline = Some(at.plus_ms(INDETERMINATE_MS));
            }),
            Event::Reported(e) => {
                let outlet = self.outlet(&e.device, e.outlet);
                outlet.state = e.state;
                outlet.fault = e.fault;
            }
            Event::Commanded(e) => self.devices.entry(e.device).or_default().command = e.id,
            Event::CommandAnswered(_) | Event::Quarantined(_) => {}
            Event::ListStaged(e) => self.trust.stage(e.revision, &e.entries),
            Event::ListAdopted(e) => {
                self.trust.adopt(e.revision, e.issued_s, at);
                let open = self
                    .sessions
                    .open()
                    .filter_map(|s| s.terms.as_ref())
                    .map(|t| (t.account, t.money_max));
                self.risk.new_balances(open);
            }
            Event::RevocationsAdopted(e) => self.trust.revoke(e.revision, &e.entries),
            Event::TariffAdopted(e) => {
                self.trust.tariffs_revision = e.revision;
                self.trust.tariffs.insert(e.entry.kind, e.entry.tariff.clone());
            }
            Event::Evidence(e) => {
                if e.probe {
                    self.probe = None;
                }
                self.health.apply_evidence(at, e.good, &self.config.limits);
            }
            Event::ModeChanged(e) => {
                self.health.apply_mode(at, e.mode, &self.config.limits);
                if e.mode == Mode::Online {
                    self.risk.outage_over();
                }
            }
            Event::Receipted(e) => {
                self.outbox.cursor = e.upto;
                self.risk.receipted(e.upto);
            }
            Event::Rewound(e) => self.outbox.cursor = e.upto,
            Event::Kept(kept) => self.apply_kept(kept),
        }
    }

    fn apply_boot(&mut self, at: Instant) {
        self.sessions.forget_asking();
        self.probe = None;
        self.ask = 0;
        self.health.boot(at, &self.config.limits);
    }

    fn apply_grant(&mut self, at: Instant, event: &Granted) {
        let request = &event.request;
        let asked = self.sessions.get(&request.session).map(|session| session.requested_at);
        if asked.is_none() {
            self.risk.attempt(request.token, at);
        }
        let terms = &event.terms;
        self.risk.hold(terms.account, terms.money_max, terms.unsecured);
        if terms.unsecured && !event.mode.asks() {
            self.risk.count(request.token, request.kind, terms.money_max);
        }
        let mut session = Session::new(request.clone(), asked.unwrap_or(at));
        session.rule = Some(event.rule);
        session.online = event.record.online;
        session.decision = event.record.sequence;
        session.deadline = Some(at.plus_ms(u64::from(terms.start_within_s) * 1000 + START_GRACE_MS));
        session.terms = Some(terms.clone());
        self.sessions.put(session);
    }

    /// The cloud's accept came after the grant.
    fn secure(&mut self, id: &proto::id::SessionId) {
        let held = self
            .sessions
            .get(id)
            .and_then(|s| s.terms.as_ref())
            .filter(|t| t.unsecured)
            .map(|t| t.money_max);
        if let Some(hold) = held {
            self.risk.secure(hold);
        }
        self.sessions.update(id, |session| {
            session.online = true;
            if let Some(terms) = &mut session.terms {
                terms.unsecured = false;
            }
        });
    }

    /// The device spoke of an open session: it is not silent, and its next word is due in a while.
    fn heard_of(&mut self, id: &proto::id::SessionId, at: Instant, change: impl FnOnce(&mut Session)) {
        self.sessions.update(id, |session| {
            change(session);
            session.indeterminate = false;
            let every_s = session.terms.as_ref().map_or(0, |terms| u64::from(terms.meter_every_s));
            session.deadline = Some(at.plus_ms(every_s * 1000 * METERS_MISSED_MAX + START_GRACE_MS));
        });
    }

    fn apply_meter(&mut self, at: Instant, event: &Metered) {
        self.heard_of(&event.session, at, |session| {
            // A reading that is behind the last one came late; the later one says it all.
            if event.elapsed_s < session.elapsed_s || event.register < session.register_last {
                return;
            }
            let reading = Reading {
                register: event.register,
                elapsed_s: event.elapsed_s,
                idle_s: event.idle_s,
                power_w: event.power_w,
            };
            let terms = session.terms.clone().expect("readings are kept for open sessions only");
            session.bill = session.bill_at(&terms, &reading);
            session.register_last = event.register;
            session.elapsed_s = event.elapsed_s;
            session.idle_s = event.idle_s;
            session.second_of_day = event.second_of_day;
        });
    }

    fn apply_close(&mut self, event: &crate::event::Closed) {
        let session = self
            .sessions
            .get(&event.session)
            .expect("a session that closes was open");
        let (request, terms) = (session.request.clone(), session.terms.clone().expect("it was granted"));
        let charge = Charge {
            account: terms.account,
            amount: event.amount,
            unsecured: terms.unsecured,
        };
        self.risk.close(
            terms.money_max,
            charge,
            event.record.sequence,
            request.token,
            request.kind,
        );
        let outlet = self.outlet(&request.device, request.outlet);
        if event.closing == Closing::Captured {
            outlet.billed = outlet.billed.max(event.register_end);
        }
        if outlet.state == OutletState::Busy || outlet.state == OutletState::Preparing {
            outlet.state = OutletState::Free;
        }
    }

    fn outlet(&mut self, device: &DeviceId, outlet: OutletId) -> &mut Outlet {
        self.devices
            .entry(*device)
            .or_default()
            .outlets
            .entry(outlet)
            .or_default()
    }

    pub(crate) fn billed(&self, device: &DeviceId, outlet: OutletId) -> Units {
        self.devices
            .get(device)
            .and_then(|d| d.outlets.get(&outlet))
            .map_or(Units::ZERO, |outlet| outlet.billed)
    }

    fn apply_kept(&mut self, kept: &Kept) {
        match kept {
            Kept::Timeline(timeline) => self.time = timeline.clone(),
            Kept::Device(kept) => self.keep_device(kept),
            Kept::Session(session) => self.keep_session(session),
            Kept::Balance(kept) => {
                if let Some((account, balance)) = kept.account() {
                    self.book.restore_balance(account, balance);
                }
            }
            Kept::Confirmation(kept) => {
                self.trust.confirmed.insert(kept.token, kept.confirmation);
            }
            Kept::Denial(kept) => {
                self.trust.denied.insert(kept.token, kept.credential_revision);
            }
            Kept::Tally(kept) => {
                self.risk.outage.insert((kept.token, kept.kind), kept.tally);
            }
            Kept::Charge(kept) => {
                let charge = Charge {
                    account: kept.account,
                    amount: kept.amount,
                    unsecured: kept.unsecured,
                };
                self.risk.put_charge(kept.sequence, charge);
            }
            Kept::Spent(kept) => {
                self.risk.spent.insert(kept.account, kept.amount);
            }
            Kept::Outbox(kept) => {
                self.outbox.head = kept.head;
                self.outbox.chain = kept.chain;
                self.outbox.cursor = kept.cursor;
            }
            Kept::Trust(kept) => {
                self.trust
                    .adopt(kept.list_revision, kept.list_issued_s, kept.list_adopted);
                self.trust.revocations_revision = kept.revocations_revision;
                self.trust.tariffs_revision = kept.tariffs_revision;
            }
            Kept::Health(health) => self.health = health.clone(),
        }
    }

    fn keep_device(&mut self, kept: &KeptDevice) {
        let device = self.devices.entry(kept.device).or_default();
        device.counter = kept.counter;
        device.boot = kept.boot;
        device.command = kept.command;
        for outlet in &kept.outlets {
            let kept = Outlet {
                state: outlet.state,
                fault: outlet.fault,
                billed: outlet.billed,
            };
            device.outlets.insert(outlet.outlet, kept);
        }
    }

    fn keep_session(&mut self, session: &Session) {
        if let Some(terms) = session.terms.as_ref().filter(|_| session.is_open()) {
            self.book
                .restore_hold(session.request.session, terms.account, terms.money_max);
            if terms.unsecured {
                self.risk.keep_hold(terms.money_max);
            }
        }
        self.sessions.put(session.clone());
    }
}
