//! Reads a journal for one span: where it begins and ends, and what falls into it.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use proto::{id::SessionId, message::Fault};

use super::{
    Recovery, Report, ReportError, Span,
    window::{At, Window, some},
};
use crate::{
    Mode,
    event::{Event, Evidence, ModeChanged},
    time::Now,
    words,
};

/// What was seen of the cloud since a capability changed its mode.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    good: u64,
    bad: u64,
    probes_good: u64,
    probes_bad: u64,
}

impl Seen {
    fn words(&self) -> String {
        let parts: Vec<String> = [
            some(self.bad, "failed answer"),
            some(self.probes_bad, "failed probe"),
            some(self.good, "good answer"),
            some(self.probes_good, "good probe"),
        ]
        .into_iter()
        .flatten()
        .collect();
        parts.join(", ")
    }
}

/// Takes the events of a journal in order and makes a report of a span of them.
#[derive(Clone, Debug)]
pub struct Reporter {
    span: Span,
    offset_min: i16,
    boot: u32,
    wall: Option<(u32, u64, u64)>,
    modes: BTreeMap<&'static str, Mode>,
    seen: Seen,
    /// What each open session holds, wherever it began.
    holds: BTreeMap<SessionId, i64>,
    window: Option<Window>,
    newest: Option<At>,
    receipted: u64,
    first_good: Option<At>,
    /// The change to SUSPECT, which an outage begins with.
    suspect: Option<(At, String)>,
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
            seen: Seen {
                good: 0,
                bad: 0,
                probes_good: 0,
                probes_bad: 0,
            },
            holds: BTreeMap::new(),
            window: None,
            newest: None,
            receipted: 0,
            first_good: None,
            suspect: None,
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
        let count = match (e.good, e.probe) {
            (true, false) => &mut self.seen.good,
            (true, true) => &mut self.seen.probes_good,
            (false, false) => &mut self.seen.bad,
            (false, true) => &mut self.seen.probes_bad,
        };
        *count += 1;
        self.first_good = if e.good { self.first_good.or(Some(at)) } else { None };
    }

    fn mode(&mut self, at: At, e: &ModeChanged) {
        const CAPABILITY: &str = "authorize";
        let was_out = self.is_out();
        self.modes.insert(CAPABILITY, e.mode);
        let is_out = self.is_out();
        if self.span == Span::LastOutage && is_out && !was_out {
            self.begin(at);
            if let (Some(window), Some((at, because))) = (&mut self.window, self.suspect.take()) {
                window.change(at, CAPABILITY, Mode::Suspect.word(), because);
            }
        }
        let because = core::mem::take(&mut self.seen).words();
        self.suspect = (e.mode == Mode::Suspect).then(|| (at, because.clone()));
        let first_good = self.first_good;
        if let Some(window) = self.window.as_mut().filter(|window| window.ended.is_none()) {
            window.change(at, CAPABILITY, e.mode.word(), because);
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
            Event::Noted(e) => {
                if let Some(word) = words::remark(e.mark) {
                    window.alarm(at, format!("record {}: {word}", e.sequence));
                }
            }
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
            | Event::TariffAdopted(_)
            | Event::Evidence(_)
            | Event::ModeChanged(_)
            | Event::Receipted(_)
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::LeasesRead(_)
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
            | Event::TariffAdopted(_)
            | Event::Quarantined(_)
            | Event::Evidence(_)
            | Event::ModeChanged(_)
            | Event::Noted(_)
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::LeasesRead(_)
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
            alarms,
            recovery,
        })
    }
}
