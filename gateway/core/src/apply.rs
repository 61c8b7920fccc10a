//! The only place where state changes. Everything here must follow from the event alone, so that replay ends in the
//! same state.

use alloc::collections::BTreeMap;

use proto::{
    artifact::TariffTable,
    id::{AccountId, DeviceId, OutletId, TokenHash},
    link::{Gift, OrderOutcome, OrderVerb},
    message::{Closing, Fault, OutletState},
    money::Money,
    trust::ArtifactKind,
};

use crate::{
    AwaitedEcho, Canaries, Gateway, Outlet,
    charges::Charge,
    claims::{Claims, Interval},
    event::{Event, Evidence, Granted, Kept, KeptCharge, KeptDevice, Metered, Ordered},
    health::{Capability, Mode, Signal},
    orders::{Fate, Reservation},
    session::{Contest, INDETERMINATE_MS, METERS_MISSED_MAX, Reading, START_GRACE_MS, Session},
    stoppers::Groups,
    time::{Instant, Now, earlier},
};

impl Gateway {
    /// Makes an event part of the state. `now` is the time that stands with it in the journal.
    ///
    /// # Panics
    /// If the event cannot follow from this state: a damaged journal, or a bug. The shell stops; nothing is granted.
    pub fn apply(&mut self, now: &Now, event: &Event) {
        if let Event::Booted(booted) = event {
            if booted.epoch != self.time.epoch {
                self.outbox.begin_epoch();
            }
            self.time.boot(booted.boot, booted.epoch, now);
        }
        self.time.see(now);
        let at = self.time.at(now);
        if let Some(record) = event.record() {
            self.book.book(record).expect("the gateway's own records fit its book");
            self.outbox.push(record);
            self.health.records_wait(at, true, false, &self.config.limits);
        }
        self.hear(event);
        match event {
            Event::Booted(_) => self.apply_boot(at),
            Event::Heard(_) => {}
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
                self.ask = e.ask + 1;
                self.probed = e.token;
                self.canaries = Some(Canaries {
                    ask: e.ask,
                    good: e.token,
                    bad: e.bad,
                    until: e.until,
                    good_right: e.token == TokenHash::ZERO,
                    bad_right: false,
                });
            }
            Event::Refused(e) => {
                let session = self.sessions.get(&e.request.session);
                if session.is_none() {
                    self.risk.attempt(e.request.token, at);
                }
                let mut session = Session::new(e.request.clone(), session.map_or(at, |s| s.requested_at));
                self.decisions = e.grounds.decision;
                self.course(&e.request.device).requests += 1;
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
                self.invalidate_open();
            }
            Event::Started(e) => self.heard_of(&e.session, at, |session| {
                session.started = true;
                session.register_start = e.register_start;
                session.register_last = e.register_start;
            }),
            Event::Metered(e) => self.apply_meter(at, e),
            Event::Closed(e) => self.apply_close(e),
            Event::Silent(e) => {
                self.sessions.update(&e.session, |session| {
                    session.indeterminate = true;
                    session.deadline = Some(at.plus_ms(INDETERMINATE_MS));
                });
                self.course(&e.record.device).troubles += 1;
            }
            Event::Reported(e) => {
                let outlet = self.outlet(&e.device, e.outlet);
                outlet.state = e.state;
                let before = core::mem::replace(&mut outlet.fault, e.fault);
                let is_new = e.fault != Fault::None && before == Fault::None;
                self.course(&e.device).troubles += u64::from(is_new);
            }
            Event::Commanded(e) => self.devices.entry(e.device).or_default().command = e.id,
            Event::Ordered(e) => self.apply_ordered(now, e),
            Event::Unreserved(e) => drop(self.reservations.0.remove(&(e.device, e.outlet))),
            Event::CommandAnswered(e) => self.apply_command_answer(e),
            Event::ListStaged(e) => self.trust.stage(e.revision, &e.entries, &e.removed),
            Event::ListAdopted(e) => {
                self.trust.adopt(e, at);
                self.list_changed();
                let (fresh, has_aside) = (self.not_in_balances(), self.trust.aside.is_some());
                let has_previous = self.trust.previous.is_some();
                self.risk.spent.adopted(fresh, has_previous, has_aside);
            }
            Event::RevocationsAdopted(e) => {
                self.trust.revocations_revision = e.revision;
                self.trust.revoked.add(&e.entries, &e.scopes);
                self.invalidate_open();
            }
            Event::TariffsAdopted(e) => {
                let entries = e.entries.iter().cloned().map(|entry| (entry.kind, entry.tariff));
                self.trust.price(e.revision, entries);
            }
            Event::TariffsStaged(e) => {
                let (revision, entries) = (e.revision, e.entries.clone());
                self.trust.tariffs_staged = Some(TariffTable { revision, entries });
            }
            Event::Quarantined(e) => {
                self.trust.set_aside(e, at);
                if e.kind == ArtifactKind::List {
                    let fresh = self.not_in_balances();
                    self.risk.spent.set_aside(fresh);
                }
            }
            Event::Adopted(e) if e.kind == ArtifactKind::Policy => self.apply_policy_adopted_aside(),
            Event::Adopted(e) => {
                self.trust.adopt_aside(e.kind);
                self.list_changed();
                if e.kind == ArtifactKind::List {
                    self.risk.spent.adopted_aside(self.trust.previous.is_some());
                }
            }
            Event::RolledBack(_) => {
                self.trust.roll_back();
                self.groups = Groups::of_list(self.trust.list.rows().iter());
                if let Some(aside) = &self.trust.aside {
                    self.strangers.list_changed(&aside.list, &self.trust.list);
                }
                self.risk.spent.rolled_back();
            }
            Event::KeysAdopted(e) => {
                self.trust.keys.epoch = e.epoch;
                self.trust.keys.set.clone_from(&e.keys);
            }
            Event::Evidence(e) => self.apply_evidence(at, e),
            Event::ModeChanged(e) => {
                if (e.capability, e.mode) == (Capability::Authorize, Mode::Online) {
                    self.risk.outage_over();
                    self.sessions.outage_over();
                }
            }
            Event::Receipted(e) => {
                self.outbox.cursor = e.upto;
                self.risk.receipted(e.upto);
                let waiting = self.outbox.waiting() > 0;
                self.health.records_wait(at, waiting, true, &self.config.limits);
            }
            Event::InstrumentAccepted(e) => self.spent.accept(e, self.time.wall_high_s),
            Event::GuessFailed(e) => self.spent.failed(&e.device, e.account, at),
            Event::PolicyAdopted(e) => self.apply_policy(&e.policy),
            Event::PolicySetAside(e) => self.policies.aside = Some(e.policy.clone()),
            Event::PolicyRolledBack(_) => self.apply_policy_rolled_back(),
            Event::RingBegan(_)
            | Event::RingSeen(_)
            | Event::RingWidened(_)
            | Event::RingHeld(_)
            | Event::RingEnded(_) => self.apply_ring(at, event),
            Event::LimitsStaged(e) => self.apply_limits_staged(e),
            Event::LimitsAdopted(e) => self.apply_limits_adopted(e),
            Event::DiskChanged(e) => self.is_disk_scarce = e.is_scarce,
            Event::AskedAgain(e) => self.ask = e.ask,
            Event::Limited(e) => self.apply_limited(e),
            Event::ClockChanged(e) => {
                self.time.quality = e.quality;
                if e.skew_s != 0 {
                    self.sessions.forget_seconds();
                }
            }
            Event::Noted(e) => self.outbox.note(e.sequence, e.mark, e.quarantined),
            Event::LeaseTaken(e) => self.leases.take(e),
            Event::LeaseReturned(e) => self.leases.give_back(e),
            Event::LeasesRead(e) => self.leases.read(e.revision, at, self.outbox.cursor()),
            Event::Rewound(e) => {
                self.outbox.cursor = e.upto;
                let waiting = self.outbox.waiting() > 0;
                self.health.records_wait(at, waiting, false, &self.config.limits);
            }
            Event::Contested(e) => self.sessions.update(&e.session, |session| {
                session.contest = Contest::Waiting;
                session.contested = (e.cloud, e.code);
                session.deadline = Some(e.until);
            }),
            Event::CanaryRight(e) => {
                if let Some(pair) = &mut self.canaries {
                    pair.good_right |= e.ask == pair.ask;
                    pair.bad_right |= e.ask != pair.ask;
                }
            }
            Event::EchoAsked(e) => {
                self.echo = Some(AwaitedEcho {
                    nonce: e.nonce,
                    until: e.until,
                });
            }
            Event::HelloAsked(e) => self.hello_until = Some(e.until),
            Event::Kept(kept) => self.apply_kept(kept),
        }
        self.forget_rings();
    }

    fn apply_boot(&mut self, at: Instant) {
        self.sessions.forget_asking();
        self.trust.forget_staged();
        self.risk.forget_attempts();
        (self.canaries, self.echo, self.hello_until) = (None, None, None);
        self.velocity.forget();
        self.probed = TokenHash::ZERO;
        self.ask = 0;
        self.health.boot(at, &self.config.limits);
        let waiting = self.outbox.waiting() > 0;
        self.health.records_wait(at, waiting, true, &self.config.limits);
    }

    fn apply_evidence(&mut self, at: Instant, event: &Evidence) {
        let signal = event.signal;
        self.health.apply(at, event, &self.config.limits);
        if !signal.ends_probe() {
            return;
        }
        match signal.capability() {
            Capability::Authorize => {
                self.canaries = None;
                let verdict = match signal == Signal::CanariesRight {
                    true => Contest::Upheld,
                    false => Contest::Overturned,
                };
                self.sessions.conclude_contests(at, verdict);
            }
            Capability::Commit => self.echo = None,
            Capability::Control => self.hello_until = None,
        }
    }

    /// What no list of now can have in its balances: what is held, and what is charged and has no receipt.
    fn not_in_balances(&self) -> BTreeMap<AccountId, Money> {
        let open = self.sessions.open().filter_map(|session| session.terms.as_ref());
        // The balance of a list is what is not leased.
        let open = open.filter(|terms| terms.evidence.lease == 0);
        let open = open.map(|terms| (terms.account, terms.money_max));
        self.risk.not_in_balances(open)
    }

    fn apply_grant(&mut self, at: Instant, event: &Granted) {
        let request = &event.request;
        self.course(&request.device).requests += 1;
        let asked = self.sessions.get(&request.session).map(|session| session.requested_at);
        if asked.is_none() {
            self.risk.attempt(request.token, at);
        }
        self.activity.granted(request.token, at, &self.config.limits);
        let terms = &event.terms;
        self.velocity.started(request.token, request.device, at);
        if terms.evidence.gift == Gift::Emergency {
            self.strangers.draw(request.token, terms.units_max, at);
        }
        let class = self.class_of(&request.device);
        match terms.evidence.lease {
            0 => self.risk.hold(terms.account, terms.money_max, terms.unsecured),
            lease => self.leases.hold(terms.account, lease, terms.money_max),
        }
        self.spent.hold(terms);
        self.reservations.used(&request.device, request.outlet, &request.token);
        let counted = terms.unsecured && !event.mode.asks();
        if counted {
            self.risk.count(request.token, class, terms.money_max);
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
                let class = self.class_of(&request.device);
                self.risk.uncount(request.token, class, terms.money_max);
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

    /// Another list is the active one.
    fn list_changed(&mut self) {
        self.groups = Groups::of_list(self.trust.list.rows().iter());
        if let Some(before) = &self.trust.previous {
            self.strangers.list_changed(before, &self.trust.list);
        }
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
            // Where the clock was set, two times of the day contend for the slice: it takes its cheapest price.
            let contended = core::mem::take(&mut session.is_time_contended);
            if session.second_of_day.is_none() && !contended {
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
        self.spent.close(terms, event.amount);
        if session.counted {
            let class = self.class_of(&request.device);
            self.risk.uncount(request.token, class, terms.money_max);
            // A session that never began used up nothing.
            if event.closing == Closing::Captured {
                self.risk.count(request.token, class, event.amount);
            }
        }
        if terms.evidence.gift == Gift::Emergency {
            let unused = terms.units_max.since(event.units);
            self.strangers.give_back(&request.token, unused, session.requested_at);
        }
        let never_began = event.closing == Closing::Voided;
        self.course(&request.device).troubles += u64::from(never_began);
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

    fn apply_ordered(&mut self, now: &Now, event: &Ordered) {
        let (id, outcome, at) = (event.id, event.outcome, now.stamp());
        self.orders.take(Fate { id, outcome, at });
        if outcome != OrderOutcome::Done {
            return;
        }
        let place = event.device.map(|device| (device, event.outlet));
        match (event.verb, place) {
            (OrderVerb::Reserve, Some(place)) => {
                let (token, until, order) = (event.whose, event.until, event.id);
                self.reservations.0.insert(place, Reservation { token, until, order });
            }
            (OrderVerb::Release, Some(place)) => drop(self.reservations.0.remove(&place)),
            (OrderVerb::TelemetryEvery, _) => self.orders.telemetry_every_s = Some(event.value),
            // What a device is told stands in an event of its own.
            (
                OrderVerb::Start
                | OrderVerb::Stop
                | OrderVerb::Report
                | OrderVerb::Reserve
                | OrderVerb::Release
                | OrderVerb::Withdraw
                | OrderVerb::Other,
                _,
            ) => {}
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

    pub(crate) fn claims(&self, device: &DeviceId, outlet: OutletId) -> Option<&Claims> {
        let outlet = self.devices.get(device)?.outlets.get(&outlet)?;
        Some(&outlet.claims)
    }

    fn keep_charge(&mut self, kept: &KeptCharge) {
        let charge = Charge {
            account: kept.account,
            amount: kept.amount,
            unsecured: kept.unsecured,
        };
        self.risk.put_charge(kept.sequence, charge);
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
                self.risk.outage.insert((kept.token, kept.class), kept.tally);
            }
            Kept::Charge(kept) => self.keep_charge(kept),
            Kept::Charges(kept) => kept.rows.iter().for_each(|row| self.keep_charge(row)),
            Kept::Spent(kept) => {
                self.risk.spent.keep(kept.slot, kept.account, kept.amount);
            }
            Kept::Outbox(kept) => {
                self.outbox.head = kept.head;
                self.outbox.chain = kept.chain;
                self.outbox.cursor = kept.cursor;
            }
            Kept::Trust(kept) => {
                self.trust.list_newest = kept.list_newest;
                self.trust.revocations_revision = kept.revocations_revision;
                self.trust.tariffs_revision = kept.tariffs_revision;
            }
            Kept::Purse(kept) => self.spent.keep_purse(kept),
            Kept::Pad(kept) => self.spent.keep_pad(kept),
            Kept::Codes(kept) => self.spent.keep_codes(kept),
            Kept::Forgotten(kept) => self.spent.keep_forgotten(kept),
            Kept::Health(health) => self.health = (**health).clone(),
            Kept::List(kept) => {
                self.trust.keep_list(kept);
                self.groups = Groups::of_list(self.trust.list.rows().iter());
                self.risk.spent.keep_list(kept.slot);
            }
            Kept::Tariffs(kept) => {
                let (revision, entries) = (kept.revision, kept.entries.clone());
                self.trust.tariffs_aside = Some(TariffTable { revision, entries });
            }
            Kept::Drawn(kept) => {
                self.strangers.drawn.insert(kept.token, kept.drawn);
            }
            Kept::Gone(kept) => self.strangers.gone.extend(&kept.tokens),
            Kept::Note(kept) => self.outbox.note(kept.sequence, kept.mark, kept.quarantined),
            Kept::Orders(orders) => self.orders = orders.clone(),
            Kept::Reservation(kept) => {
                let place = (kept.device, kept.outlet);
                self.reservations.0.insert(place, kept.reservation);
            }
            Kept::Lease(kept) => {
                self.leases.put(kept.account, kept.epoch, kept.row);
            }
            Kept::Leases(kept) => self.leases.revision = kept.revision,
            Kept::Decisions(kept) => self.decisions = kept.decisions,
            Kept::Activity(kept) => self.activity.keep(kept),
            Kept::Ring(kept) => self.keep_ring(kept),
        }
    }

    fn keep_device(&mut self, kept: &KeptDevice) {
        let device = self.devices.entry(kept.device).or_default();
        device.counter = kept.counter;
        device.boot = kept.boot;
        device.command = kept.command;
        device.course = kept.course;
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
