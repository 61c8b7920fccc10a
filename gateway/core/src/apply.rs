//! The only place where state changes. Everything here must follow from the event alone, so that replay ends in the
//! same state.

use proto::{
    id::{DeviceId, OutletId, TokenHash},
    message::{Closing, Fault, OutletState},
};

use crate::{
    Gateway, Outlet, Probe,
    claims::{Claims, Interval},
    event::{Event, Granted, Kept, KeptDevice, Metered},
    health::Mode,
    risk::Charge,
    session::{INDETERMINATE_MS, METERS_MISSED_MAX, Reading, START_GRACE_MS, Session},
    time::{Instant, Now, SECONDS_A_DAY},
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
            Event::Greeted(e) => {
                let device = self.devices.entry(e.device).or_default();
                device.boot = e.boot;
                // After its hello the device reports every outlet anew; a report that was lost before must not stand.
                for outlet in device.outlets.values_mut() {
                    outlet.state = OutletState::Free;
                    outlet.fault = Fault::None;
                }
            }
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
                self.decisions = e.grounds.decision;
                session.refused = Some(e.reason);
                session.rule = Some(e.rule);
                self.sessions.put(session);
            }
            Event::Granted(e) => self.apply_grant(at, e),
            Event::Confirmed(e) => {
                self.trust.confirm(e.token, at, e.account, e.credential_revision);
                self.secure(&e.session);
            }
            Event::Denied(e) => {
                let denied = self.trust.denied.entry(e.token).or_default();
                *denied = (*denied).max(e.credential_revision);
            }
            Event::Started(e) => self.heard_of(&e.session, at, |session| {
                session.started = true;
                session.register_start = e.register_start;
                session.register_last = e.register_start;
            }),
            Event::Metered(e) => self.apply_meter(at, e),
            Event::Closed(e) => self.apply_close(e),
            Event::Silent(e) => self.sessions.update(&e.session, |session| {
                session.indeterminate = true;
                session.deadline = Some(at.plus_ms(INDETERMINATE_MS));
            }),
            Event::Reported(e) => {
                let outlet = self.outlet(&e.device, e.outlet);
                outlet.state = e.state;
                outlet.fault = e.fault;
            }
            Event::Commanded(e) => {
                self.devices.entry(e.device).or_default().command = e.id;
                if e.order != 0 {
                    self.orders.take(e.order);
                }
            }
            Event::CommandAnswered(_) | Event::Quarantined(_) => {}
            Event::ListStaged(e) => self.trust.stage(e.revision, &e.entries),
            Event::ListAdopted(e) => {
                self.trust.adopt(e.revision, e.issued_s, at);
                let open = self
                    .sessions
                    .open()
                    .filter_map(|s| s.terms.as_ref())
                    // The balance of a list is what is not leased.
                    .filter(|terms| terms.evidence.lease == 0)
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
                    self.sessions.outage_over();
                }
            }
            Event::Receipted(e) => {
                self.outbox.cursor = e.upto;
                self.risk.receipted(e.upto);
            }
            Event::Rewound(e) => self.outbox.cursor = e.upto,
            Event::Noted(e) => self.outbox.note(e.sequence, e.mark, e.quarantined),
            Event::LeaseTaken(e) => self.leases.take(e),
            Event::LeaseReturned(e) => self.leases.give_back(e),
            Event::LeasesRead(e) => self.leases.read(e.revision, at, self.outbox.cursor()),
            Event::Kept(kept) => self.apply_kept(kept),
        }
    }

    fn apply_boot(&mut self, at: Instant) {
        self.sessions.forget_asking();
        self.trust.forget_staged();
        self.risk.forget_attempts();
        self.probe = None;
        self.probed = TokenHash::ZERO;
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
        match terms.evidence.lease {
            0 => self.risk.hold(terms.account, terms.money_max, terms.unsecured),
            lease => self.leases.hold(terms.account, lease, terms.money_max),
        }
        let counted = terms.unsecured && !event.mode.asks();
        if counted {
            self.risk.count(request.token, request.kind, terms.money_max);
        }
        let mut session = Session::new(request.clone(), asked.unwrap_or(at));
        session.rule = Some(event.rule);
        session.online = event.record.online;
        self.decisions = event.grounds.decision;
        session.decision = event.grounds.decision;
        session.deadline = Some(at.plus_ms(u64::from(terms.start_within_s) * 1000 + START_GRACE_MS));
        session.terms = Some(terms.clone());
        session.counted = counted;
        self.sessions.put(session);
    }

    /// The cloud's accept came after the grant.
    fn secure(&mut self, id: &proto::id::SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        if let Some(terms) = session.terms.as_ref().filter(|terms| terms.unsecured) {
            self.risk.secure(terms.money_max);
            if session.counted {
                let request = &session.request;
                self.risk.uncount(request.token, request.kind, terms.money_max);
            }
        }
        self.sessions.update(id, |session| {
            session.online = true;
            session.counted = false;
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
        let Some(session) = self.sessions.get(&event.session) else {
            return;
        };
        let (device, outlet) = (session.request.device, session.request.outlet);
        let advance = session.advance_to(event.register);
        let claims = self.claims(&device, outlet).cloned();
        let mut taken = false;
        self.heard_of(&event.session, at, |session| {
            // A reading that is behind the last one came late; the later one says it all.
            if event.elapsed_s < session.elapsed_s || event.register < session.register_last {
                return;
            }
            taken = true;
            session.pass_over(&advance, claims.as_ref());
            if session.second_of_day.is_none() {
                let slice_s = event.elapsed_s - session.elapsed_s;
                session.second_of_day = event.second_of_day.map(|second| earlier(second, slice_s));
            }
            let reading = Reading {
                register: event.register,
                elapsed_s: event.elapsed_s,
                idle_s: event.idle_s,
                power_w: event.power_w,
            };
            let terms = session.terms.clone().expect("readings are kept for open sessions only");
            session.bill = session.bill_at(&terms, &reading);
            session.register_last = session.register_last.max(event.register);
            session.elapsed_s = event.elapsed_s;
            session.idle_s = event.idle_s.max(session.idle_s);
            session.second_of_day = event.second_of_day;
        });
        if taken {
            self.outlet(&device, outlet).claims.claim(&advance);
        }
    }

    fn apply_close(&mut self, event: &crate::event::Closed) {
        let session = self.sessions.get(&event.session);
        let session = session.expect("a session that closes was open").clone();
        let (request, terms) = (&session.request, session.terms.as_ref().expect("it was granted"));
        let charge = Charge {
            account: terms.account,
            amount: event.amount,
            unsecured: terms.unsecured,
        };
        match terms.evidence.lease {
            0 => self.risk.close(terms.money_max, charge, event.record.sequence),
            lease => self.leases.close(terms.account, lease, terms.money_max, event.amount),
        }
        if session.counted {
            self.risk.uncount(request.token, request.kind, terms.money_max);
            // A session that never began used up nothing.
            if event.closing == Closing::Captured {
                self.risk.count(request.token, request.kind, event.amount);
            }
        }
        let outlet = self.outlet(&request.device, request.outlet);
        if event.closing == Closing::Captured {
            let from = match session.started {
                true => session.register_last,
                false => event.record.register_start,
            };
            let upto = event.register_end;
            outlet.claims.claim(&Interval { from, upto });
        }
        if outlet.state == OutletState::Busy || outlet.state == OutletState::Preparing {
            outlet.state = OutletState::Free;
        }
        self.sessions.update(&event.session, |session| {
            session.closing = Some(event.closing);
            session.closed_by = event.record.sequence;
            session.amount = event.amount;
            session.units = event.units;
            session.register_start = event.record.register_start;
            session.register_last = event.register_end;
            session.bill = event.record.bill;
            session.deadline = None;
            session.indeterminate = false;
        });
    }

    fn outlet(&mut self, device: &DeviceId, outlet: OutletId) -> &mut Outlet {
        self.devices
            .entry(*device)
            .or_default()
            .outlets
            .entry(outlet)
            .or_default()
    }

    pub(crate) fn claims(&self, device: &DeviceId, outlet: OutletId) -> Option<&Claims> {
        let outlet = self.devices.get(device)?.outlets.get(&outlet)?;
        Some(&outlet.claims)
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
            Kept::Note(kept) => self.outbox.note(kept.sequence, kept.mark, kept.quarantined),
            Kept::Orders(orders) => self.orders = *orders,
            Kept::Lease(kept) => {
                self.leases.rows.insert((kept.account, kept.epoch), kept.row);
            }
            Kept::Leases(kept) => self.leases.revision = kept.revision,
            Kept::Decisions(kept) => self.decisions = kept.decisions,
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
                claims: Claims {
                    upto: outlet.billed,
                    gaps: outlet.gaps.clone(),
                },
            };
            device.outlets.insert(outlet.outlet, kept);
        }
    }

    fn keep_session(&mut self, session: &Session) {
        if let Some(terms) = session.terms.as_ref().filter(|_| session.is_open()) {
            let payer = proto::book::Account::payer(terms.account, &terms.evidence);
            self.book.restore_hold(session.request.session, payer, terms.money_max);
            if terms.unsecured {
                self.risk.keep_hold(terms.money_max);
            }
            self.leases.hold(terms.account, terms.evidence.lease, terms.money_max);
        }
        self.sessions.put(session.clone());
    }
}

/// The second of the day so many seconds before `second`.
const fn earlier(second: u32, seconds: u32) -> u32 {
    (second + SECONDS_A_DAY - seconds % SECONDS_A_DAY) % SECONDS_A_DAY
}
