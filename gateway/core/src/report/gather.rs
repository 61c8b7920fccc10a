//! Reads a journal for one span: where it begins and ends, and what falls into it.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use proto::{id::SessionId, message::Fault};

use super::{
    Recovery, Report, ReportError, Span,
    window::{At, Window},
};
use crate::{
    Capability, Mode,
    event::{Event, Evidence, ModeChanged},
    health::{Signal, Weight},
    time::Now,
    words,
};

/// What was seen of each capability since its mode last changed, and how often.
#[derive(Clone, Debug, Default)]
struct Seen(BTreeMap<Signal, u64>);

impl Seen {
    /// What was seen of one capability, in words; forgets it.
    fn take(&mut self, capability: Capability) -> String {
        let (own, rest) = core::mem::take(&mut self.0)
            .into_iter()
            .partition(|(signal, _)| signal.capability() == capability);
        self.0 = rest;
        let own: BTreeMap<Signal, u64> = own;
        let parts = own.into_iter().map(|(signal, count)| match count {
            1 => String::from(signal.words()),
            _ => format!("{} ({count} times)", signal.words()),
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Takes the events of a journal in order and makes a report of a span of them.
#[derive(Clone, Debug)]
pub struct Reporter {
    span: Span,
    offset_min: i16,
    boot: u32,
    wall: Option<(u32, u64, u64)>,
    modes: BTreeMap<Capability, Mode>,
    seen: Seen,
    /// What each open session holds, wherever it began.
    holds: BTreeMap<SessionId, i64>,
    window: Option<Window>,
    newest: Option<At>,
    receipted: u64,
    /// The first of the good answers in a row.
    first_good: BTreeMap<Capability, At>,
    /// The change to SUSPECT, which an outage begins with.
    suspect: BTreeMap<Capability, (At, String)>,
}

impl Reporter {
    /// A report of a span. `offset_min`: of local time from UTC, for people.
    #[must_use]
    pub const fn new(span: Span, offset_min: i16) -> Self {
        Self {
            span,
            offset_min,
            boot: 0,
            wall: None,
            modes: BTreeMap::new(),
            seen: Seen(BTreeMap::new()),
            holds: BTreeMap::new(),
            window: None,
            newest: None,
            receipted: 0,
            first_good: BTreeMap::new(),
            suspect: BTreeMap::new(),
        }
    }

    /// The next event, with its place in the journal and its time.
    pub fn take(&mut self, journal: u64, now: &Now, event: &Event) {
        if let Event::Booted(e) = event {
            self.boot = e.boot;
        }
        let at = At {
            journal,
            now: *now,
            boot: self.boot,
            wall_s: self.wall_s(now),
        };
        self.newest = Some(at);
        self.turn(at, event);
        self.inside(at, event);
        self.follow(at, event);
    }

    /// The wall clock; while it cannot be used, what passed since it could.
    fn wall_s(&mut self, now: &Now) -> Option<u64> {
        if let Some(wall_s) = now.wall() {
            self.wall = Some((self.boot, now.mono_ms, wall_s));
            return Some(wall_s);
        }
        let (boot, mono_ms, wall_s) = self.wall?;
        let passed_ms = if boot == self.boot {
            now.mono_ms.saturating_sub(mono_ms)
        } else {
            0
        };
        Some(wall_s + passed_ms / 1000)
    }

    /// Whether the span begins or ends here.
    fn turn(&mut self, at: At, event: &Event) {
        let is_inside = self.window.as_ref().is_some_and(|window| window.ended.is_none());
        match self.span {
            Span::LastOutage => {}
            Span::Between { since_s, until_s } => {
                let from = since_s.is_none_or(|since_s| at.wall_s.is_some_and(|wall_s| wall_s >= since_s));
                let upto = until_s.is_none_or(|until_s| at.wall_s.is_none_or(|wall_s| wall_s <= until_s));
                if !is_inside && self.window.is_none() && from && upto {
                    self.begin(at);
                } else if is_inside && !upto {
                    self.end(at);
                }
            }
        }
        if let Event::Evidence(e) = event {
            self.evidence(at, e);
        }
        if let Event::ModeChanged(e) = event {
            self.mode(at, e);
        }
    }

    fn begin(&mut self, at: At) {
        let mut window = Window::new(at);
        window.ledger.receipted = self.receipted;
        self.window = Some(window);
    }

    fn end(&mut self, at: At) {
        if let Some(window) = &mut self.window {
            window.ended = Some(at);
            window.receipt(at, self.receipted);
        }
    }

    fn evidence(&mut self, at: At, e: &Evidence) {
        let capability = e.signal.capability();
        match e.signal.weight() {
            Weight::Good { .. } => {
                self.first_good.entry(capability).or_insert(at);
            }
            Weight::Failure | Weight::Fatal => drop(self.first_good.remove(&capability)),
            Weight::Neutral => {}
        }
        *self.seen.0.entry(e.signal).or_default() += 1;
    }

    fn mode(&mut self, at: At, e: &ModeChanged) {
        let capability = e.capability;
        let was_out = self.is_out();
        self.modes.insert(capability, e.mode);
        let is_out = self.is_out();
        if self.span == Span::LastOutage && is_out && !was_out {
            self.begin(at);
            if let (Some(window), Some((at, because))) = (&mut self.window, self.suspect.remove(&capability)) {
                window.change(at, capability.word(), Mode::Suspect.word(), because);
            }
        }
        let because = self.seen.take(capability);
        match e.mode {
            Mode::Suspect => self.suspect.insert(capability, (at, because.clone())),
            Mode::Online | Mode::Local | Mode::Recovering => self.suspect.remove(&capability),
        };
        let first_good = self.first_good.get(&capability).copied();
        if let Some(window) = self.window.as_mut().filter(|window| window.ended.is_none()) {
            window.change(at, capability.word(), e.mode.word(), because);
            if was_out && !is_out {
                window.first_good = first_good;
            }
        }
        if self.span == Span::LastOutage && was_out && !is_out {
            self.end(at);
        }
    }

    /// Whether any capability is without the cloud.
    fn is_out(&self) -> bool {
        self.modes.values().any(|mode| !mode.asks())
    }

    /// What counts only inside the span.
    fn inside(&mut self, at: At, event: &Event) {
        let Some(window) = self.window.as_mut().filter(|window| {
            // The change back is the last event of an outage; what a span of time ends with is outside of it.
            window
                .ended
                .is_none_or(|ended| ended.journal == at.journal && self.span == Span::LastOutage)
        }) else {
            return;
        };
        window.last = at;
        if let Some(record) = event.record() {
            window.record(record, self.holds.get(&record.session).copied());
        }
        match event {
            Event::Granted(e) => window.granted(at, e),
            Event::Refused(e) => window.refused(e),
            Event::RingEnded(e) => {
                let (what, revision) = (e.what.word(), e.revision);
                window.alarm(
                    at,
                    format!("{what} of revision {revision} went back from its ring: {}", e.verdict),
                );
            }
            // Nothing is wrong with what is only tried first.
            Event::Quarantined(e) if !e.findings.are_doubtful() => {}
            Event::Quarantined(e) => {
                let (kind, revision) = (e.kind.word(), e.revision);
                window.alarm(
                    at,
                    format!("{kind} of revision {revision} looks wrong and is set aside"),
                );
            }
            Event::Rewound(_) => window.alarm(
                at,
                String::from("the hub lost records that it had acknowledged; they are sent again"),
            ),
            Event::Reported(e) if e.fault != Fault::None => {
                window.alarm(at, format!("{} outlet {}: fault {:?}", e.device, e.outlet, e.fault));
            }
            Event::Silent(e) => {
                window.alarm(at, format!("{} outlet {} is silent", e.record.device, e.record.outlet));
            }
            Event::DiskChanged(e) => {
                let text = match e.is_scarce {
                    true => "the disk's reserve is reached: no new unsecured sessions",
                    false => "the disk has room again",
                };
                window.alarm(at, String::from(text));
            }
            Event::ClockChanged(e) if e.skew_s != 0 => {
                window.alarm(at, format!("the gateway's clock was set by {} s", e.skew_s));
            }
            Event::Noted(e) => {
                if let Some(word) = words::remark(e.mark) {
                    window.alarm(at, format!("record {}: {word}", e.sequence));
                }
            }
            Event::Ordered(e) => window.ordered(e.verb, e.outcome),
            Event::Booted(e) => window.alarm(at, format!("the gateway started again (boot {})", e.boot)),
            Event::Heard(_)
            | Event::Greeted(_)
            | Event::Asked(_)
            | Event::Probed(_)
            | Event::Confirmed(_)
            | Event::Denied(_)
            | Event::Started(_)
            | Event::Metered(_)
            | Event::Closed(_)
            | Event::Reported(_)
            | Event::Commanded(_)
            | Event::CommandAnswered(_)
            | Event::ListStaged(_)
            | Event::ListAdopted(_)
            | Event::RevocationsAdopted(_)
            | Event::TariffsAdopted(_)
            | Event::Evidence(_)
            | Event::ModeChanged(_)
            | Event::Receipted(_)
            | Event::InstrumentAccepted(_)
            | Event::GuessFailed(_)
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::PolicyAdopted(_)
            | Event::PolicySetAside(_)
            | Event::PolicyRolledBack(_)
            | Event::RingBegan(_)
            | Event::RingSeen(_)
            | Event::RingWidened(_)
            | Event::RingHeld(_)
            | Event::LimitsStaged(_)
            | Event::LimitsAdopted(_)
            | Event::AskedAgain(_)
            | Event::Limited(_)
            | Event::ClockChanged(_)
            | Event::Unreserved(_)
            | Event::LeasesRead(_)
            | Event::TariffsStaged(_)
            | Event::Adopted(_)
            | Event::RolledBack(_)
            | Event::KeysAdopted(_)
            | Event::Contested(_)
            | Event::CanaryRight(_)
            | Event::EchoAsked(_)
            | Event::HelloAsked(_)
            | Event::Kept(_) => {}
        }
    }

    /// What became of the sessions of the span, whenever it did.
    fn follow(&mut self, at: At, event: &Event) {
        if let Event::Granted(e) = event {
            self.holds.insert(e.request.session, e.terms.money_max.0);
        }
        if let Event::Closed(e) = event {
            self.holds.remove(&e.session);
        }
        if let Event::Receipted(e) = event {
            self.receipted = e.upto;
        }
        if let Event::Rewound(e) = event {
            self.receipted = e.upto;
        }
        let Some(window) = &mut self.window else { return };
        match event {
            Event::Confirmed(e) => window.secured(&e.session),
            Event::Closed(e) => window.closed(e),
            Event::Silent(e) => window.silent(&e.session, true),
            Event::Started(e) => window.silent(&e.session, false),
            Event::Metered(e) => window.silent(&e.session, false),
            Event::RevocationsAdopted(e) => window.revoked(&e.entries),
            Event::Receipted(e) => window.receipt(at, e.upto),
            Event::Rewound(e) => window.receipt(at, e.upto),
            Event::Booted(_)
            | Event::Heard(_)
            | Event::Greeted(_)
            | Event::Asked(_)
            | Event::Probed(_)
            | Event::Refused(_)
            | Event::Granted(_)
            | Event::Denied(_)
            | Event::Reported(_)
            | Event::Commanded(_)
            | Event::CommandAnswered(_)
            | Event::ListStaged(_)
            | Event::ListAdopted(_)
            | Event::TariffsAdopted(_)
            | Event::Quarantined(_)
            | Event::Evidence(_)
            | Event::ModeChanged(_)
            | Event::InstrumentAccepted(_)
            | Event::GuessFailed(_)
            | Event::Noted(_)
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::PolicyAdopted(_)
            | Event::PolicySetAside(_)
            | Event::PolicyRolledBack(_)
            | Event::RingBegan(_)
            | Event::RingSeen(_)
            | Event::RingWidened(_)
            | Event::RingHeld(_)
            | Event::RingEnded(_)
            | Event::LimitsStaged(_)
            | Event::LimitsAdopted(_)
            | Event::DiskChanged(_)
            | Event::AskedAgain(_)
            | Event::Limited(_)
            | Event::ClockChanged(_)
            | Event::Ordered(_)
            | Event::Unreserved(_)
            | Event::LeasesRead(_)
            | Event::TariffsStaged(_)
            | Event::Adopted(_)
            | Event::RolledBack(_)
            | Event::KeysAdopted(_)
            | Event::Contested(_)
            | Event::CanaryRight(_)
            | Event::EchoAsked(_)
            | Event::HelloAsked(_)
            | Event::Kept(_) => {}
        }
    }

    /// The report, after the last event.
    ///
    /// # Errors
    /// [`ReportError`] if there is nothing to report.
    pub fn finish(self) -> Result<Report, ReportError> {
        let outage = self.span == Span::LastOutage;
        let none = if outage {
            ReportError::NoOutage
        } else {
            ReportError::Empty
        };
        let (window, newest) = self.window.zip(self.newest).ok_or(none)?;
        let offset_min = self.offset_min;
        let (began, ended, last) = (window.began, window.ended, window.last);
        let moment = |at: At| at.moment(offset_min);
        let back = ended.filter(|_| outage);
        let recovery = Recovery {
            first_good: window.first_good.map(moment),
            back: back.map(moment),
            cautious_ms: window
                .first_good
                .zip(back)
                .and_then(|(good, back)| good.until_ms(&back)),
            receipted: window.receipted.map(moment),
            backlog_ms: window.receipted.zip(back).and_then(|(done, back)| back.until_ms(&done)),
        };
        let mode_changes = window.change_count;
        let orders = window.orders.clone();
        let (served, ledger, risk, otherwise, alarms, modes) = window.sums(offset_min);
        Ok(Report {
            outage,
            began: moment(began),
            ended: ended.map(moment),
            duration_ms: began.until_ms(&ended.unwrap_or(newest)),
            journal: (began.journal, last.journal),
            modes,
            mode_changes,
            served,
            ledger,
            risk,
            otherwise,
            orders,
            alarms,
            recovery,
        })
    }
}
