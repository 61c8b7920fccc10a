//! What happened to one session, in order.

use alloc::{format, string::String, vec::Vec};

use proto::{
    id::SessionId,
    link::RecordKind,
    message::{Closing, CommandOutcome, Fault, StartProof, StopReason, Verb},
    money::Money,
};

use super::{Happened, Receipted};
use crate::{
    Mode, Terms,
    event::{Closed, Event, Granted, Metered, Refused},
    session::Request,
    time::{Now, Timeline},
    words::{self, Moment},
};

/// A place in the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) journal: u64,
    pub(super) now: Now,
    pub(super) boot: u32,
}

impl At {
    pub(super) fn moment(&self, offset_min: i16) -> Moment {
        Moment::new(&self.now, self.boot, offset_min)
    }
}

/// The verdict.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per question")]
pub(super) enum Verdict {
    Granted(Granted),
    Refused(Refused),
}

/// Facts of one session, as the journal tells them. Readings are counted, not kept: a session has thousands.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) request: Request,
    pub(super) asked: Option<At>,
    pub(super) verdict: Option<(At, Verdict)>,
    pub(super) started: bool,
    pub(super) silent: Option<At>,
    pub(super) secured: Option<At>,
    pub(super) revoked: Option<At>,
    pub(super) closed: Option<(At, Closed)>,
    pub(super) readings: u64,
    pub(super) last_reading: Option<(At, Metered)>,
    pub(super) forgotten: bool,
    command: Option<u64>,
    happened: Vec<(At, String)>,
    pub(super) records: Vec<(u64, RecordKind, Option<At>)>,
}

/// Most lines of a course: a gateway that restarts in a loop while a washer runs must not fill the screen.
const HAPPENED_MAX: usize = 200;

impl Story {
    pub(super) fn new(request: Request) -> Self {
        Self {
            request,
            asked: None,
            verdict: None,
            started: false,
            silent: None,
            secured: None,
            revoked: None,
            closed: None,
            readings: 0,
            last_reading: None,
            forgotten: false,
            command: None,
            happened: Vec::new(),
            records: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> SessionId {
        self.request.session
    }

    pub(super) fn terms(&self) -> Option<&Terms> {
        match &self.verdict {
            Some((_, Verdict::Granted(granted))) => Some(&granted.terms),
            Some((_, Verdict::Refused(_))) | None => None,
        }
    }

    /// Whether the gateway still does something for this session.
    fn is_running(&self) -> bool {
        let refused = matches!(self.verdict, Some((_, Verdict::Refused(_))));
        !refused && self.closed.is_none() && !self.forgotten
    }

    /// The operator had ordered a start for this very token at this outlet.
    pub(super) fn was_ordered(&mut self, at: At, order: u64) {
        self.note(
            at,
            format!("the operator orders a start for this token (order {order})"),
        );
    }

    fn note(&mut self, at: At, text: impl Into<String>) {
        if self.happened.len() < HAPPENED_MAX {
            self.happened.push((at, text.into()));
        }
    }

    pub(super) fn take(&mut self, journal: u64, now: &Now, boot: u32, event: &Event) {
        let at = At {
            journal,
            now: *now,
            boot,
        };
        if let Some(record) = event.record().filter(|record| record.session == self.session()) {
            self.records.push((record.sequence, record.kind, None));
        }
        let (id, token) = (self.session(), self.request.token);
        match event {
            Event::Booted(e) if self.is_running() => {
                if self.verdict.is_none() {
                    self.forgotten = true;
                    self.note(
                        at,
                        format!(
                            "the gateway started again (boot {}) before it had decided; the device asks again",
                            e.boot
                        ),
                    );
                } else {
                    self.note(
                        at,
                        format!("the gateway started again (boot {}); the session goes on", e.boot),
                    );
                }
            }
            Event::Asked(e) if e.request.session == id => {
                self.forgotten = false;
                self.asked = Some(at);
                self.note(
                    at,
                    format!(
                        "the device asks; the cloud is asked (question {})",
                        Timeline::short_ask(e.ask)
                    ),
                );
            }
            Event::Contested(e) if e.session == id => {
                self.note(
                    at,
                    "the cloud says no and backs it with nothing: its canaries are asked",
                );
            }
            Event::Refused(e) if e.request.session == id => {
                self.forgotten = false;
                self.note(at, format!("refused: {}", e.reason.word()));
                self.verdict = Some((at, Verdict::Refused(e.clone())));
            }
            Event::Granted(e) if e.request.session == id => {
                self.forgotten = false;
                self.granted(at, e);
            }
            Event::Confirmed(e) if e.session == id => {
                self.secured = Some(at);
                self.note(at, "the cloud accepts it late: no longer at the site's risk");
            }
            Event::Denied(e) if e.token == token && self.verdict.is_some() && self.is_running() => {
                let revision = e.credential_revision;
                self.note(
                    at,
                    format!("the cloud refuses the token with credential revision {revision}, newer than ours"),
                );
            }
            Event::RevocationsAdopted(e) if self.revoked.is_none() && self.terms().is_some() => {
                let used = self.terms().map_or(0, |terms| terms.evidence.credential_revision);
                let own = |entry: &proto::artifact::Revoked| entry.token == token && entry.credential_revision >= used;
                if e.entries.iter().any(own) {
                    self.revoked = Some(at);
                    self.note(
                        at,
                        format!("the token is revoked (revocations of revision {})", e.revision),
                    );
                }
            }
            Event::Started(e) if e.session == id => {
                self.started = true;
                let proof = e.proof.map_or("a reading that says so", proof_words);
                let register = words::units(self.request.kind, e.register_start);
                self.note(
                    at,
                    format!("delivery begins, proven by {proof}; the register stands at {register}"),
                );
            }
            Event::Metered(e) if e.session == id => self.metered(at, e),
            Event::Closed(e) if e.session == id => self.close(at, e),
            Event::Silent(e) if e.session == id => {
                self.silent = Some(at);
                self.note(at, "the device is silent; the hold stays (indeterminate)");
            }
            Event::Reported(e) if self.is_here(e.device, e.outlet) && self.is_running() && e.fault != Fault::None => {
                self.note(at, format!("the outlet reports a fault: {:?}", e.fault));
            }
            Event::Commanded(e) if e.session == id => {
                self.command = Some(e.id);
                let by = match e.order {
                    0 => String::new(),
                    order => format!(", by order {order} of the operator"),
                };
                self.note(at, format!("the device is told: {}{by}", verb_words(e.verb)));
            }
            Event::CommandAnswered(e) if e.device == self.request.device && self.command == Some(e.id) => {
                self.command = None;
                self.note(
                    at,
                    format!("the device answers the command: {}", outcome_words(e.outcome)),
                );
            }
            Event::AskedAgain(e) if e.session == id => {
                let text = format!(
                    "the token has had many: the cloud is asked once more (question {})",
                    Timeline::short_ask(e.ask)
                );
                self.note(at, text);
            }
            Event::Limited(e) if e.session == id => {
                self.command = Some(e.id);
                let units = words::units(self.request.kind, e.units);
                self.note(at, format!("the device is told to end at {units} in all"));
            }
            Event::ClockChanged(e) if e.skew_s != 0 && self.is_running() => {
                let text = format!(
                    "the gateway's clock was set by {} s; it bills the cheaper time",
                    e.skew_s
                );
                self.note(at, text);
            }
            Event::ModeChanged(e) if self.is_running() && self.verdict.is_some() => self.mode(at, e.mode),
            Event::Receipted(e) => {
                let waiting = self
                    .records
                    .iter_mut()
                    .filter(|(sequence, _, receipt)| *sequence <= e.upto && receipt.is_none());
                waiting.for_each(|(_, _, receipt)| *receipt = Some(at));
            }
            Event::Noted(e) if self.records.iter().any(|(sequence, _, _)| *sequence == e.sequence) => {
                if let Some(word) = words::remark(e.mark) {
                    self.note(at, format!("record {}: {word}", e.sequence));
                }
            }
            Event::Rewound(e) => {
                let lost = self
                    .records
                    .iter_mut()
                    .filter(|(sequence, _, receipt)| *sequence > e.upto && receipt.is_some());
                let mut any = false;
                lost.for_each(|(_, _, receipt)| {
                    *receipt = None;
                    any = true;
                });
                if any {
                    self.note(at, "the hub has lost records of this session; they are sent again");
                }
            }
            Event::Booted(_)
            | Event::Heard(_)
            | Event::Greeted(_)
            | Event::Asked(_)
            | Event::Probed(_)
            | Event::Refused(_)
            | Event::Granted(_)
            | Event::Confirmed(_)
            | Event::Denied(_)
            | Event::Started(_)
            | Event::Metered(_)
            | Event::Closed(_)
            | Event::Silent(_)
            | Event::Reported(_)
            | Event::Commanded(_)
            | Event::CommandAnswered(_)
            | Event::ListStaged(_)
            | Event::ListAdopted(_)
            | Event::RevocationsAdopted(_)
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

    fn is_here(&self, device: proto::id::DeviceId, outlet: u8) -> bool {
        (device, outlet) == (self.request.device, self.request.outlet)
    }

    fn granted(&mut self, at: At, event: &Granted) {
        if self.verdict.is_none() {
            let most = words::units(self.request.kind, event.terms.units_max);
            let hold = event.terms.money_max;
            self.note(at, format!("granted: at most {most} and {hold}; {hold} is held"));
        }
        self.verdict = Some((at, Verdict::Granted(event.clone())));
    }

    fn metered(&mut self, at: At, event: &Metered) {
        if self
            .silent
            .is_some_and(|silent| silent.journal > self.last_reading.as_ref().map_or(0, |(at, _)| at.journal))
        {
            self.note(at, "the device speaks again");
        }
        self.readings += 1;
        self.last_reading = Some((at, event.clone()));
    }

    fn mode(&mut self, at: At, mode: Mode) {
        self.note(at, format!("authorize becomes {}; the session goes on", mode.word()));
    }

    fn close(&mut self, at: At, event: &Closed) {
        let text = match event.closing {
            Closing::Captured => {
                let units = words::units(self.request.kind, event.units);
                format!(
                    "over ({}): {units} delivered, {} charged",
                    stop_words(event.record.stop_reason),
                    event.amount
                )
            }
            Closing::Voided => format!(
                "over ({}): nothing was delivered, the hold of {} is released",
                stop_words(event.record.stop_reason),
                event.record.amount
            ),
            Closing::Other | Closing::Unknown => String::from("over"),
        };
        self.note(at, text);
        self.closed = Some((at, event.clone()));
    }

    /// Whether it was closed because nobody spoke for a week.
    pub(super) fn is_closed_by_silence(&self) -> bool {
        self.closed.as_ref().is_some_and(|(_, closed)| {
            closed.closing == Closing::Captured
                && closed.record.stop_reason == StopReason::Other
                && self.silent.is_some()
                && closed.shown.is_none_or(|shown| shown == Money::ZERO)
        })
    }

    pub(super) fn course(&self, offset_min: i16) -> Vec<Happened> {
        let mut lines: Vec<(At, String)> = self.happened.clone();
        if let Some((at, last)) = &self.last_reading {
            let register = words::units(self.request.kind, last.register);
            let text = format!(
                "{}; the last one after {}: register {register}",
                words::count(self.readings, "reading"),
                words::duration_s(u64::from(last.elapsed_s)),
            );
            lines.push((*at, text));
        }
        lines.sort_by_key(|(at, _)| at.journal);
        let first = self.asked.or(self.verdict.as_ref().map(|(at, _)| *at));
        lines
            .into_iter()
            .map(|(at, text)| Happened {
                journal: at.journal,
                at: at.moment(offset_min),
                after_ms: first
                    .filter(|first| first.boot == at.boot)
                    .map(|first| at.now.mono_ms.saturating_sub(first.now.mono_ms)),
                text,
            })
            .collect()
    }

    pub(super) fn records(&self, offset_min: i16) -> Vec<Receipted> {
        self.records
            .iter()
            .map(|(sequence, kind, receipt)| Receipted {
                sequence: *sequence,
                kind: String::from(record_words(*kind)),
                receipt: receipt.map(|at| at.moment(offset_min)),
            })
            .collect()
    }
}

const fn proof_words(proof: StartProof) -> &'static str {
    match proof {
        StartProof::RelaySense => "the contactor and its current",
        StartProof::DoorLock => "the locked door and the running machine",
        StartProof::Flow => "flow",
        StartProof::Other => "something that this version does not know",
    }
}

const fn verb_words(verb: Verb) -> &'static str {
    match verb {
        Verb::Stop => "stop this session",
        Verb::Report => "report the outlet",
        Verb::Start => "begin a request",
        Verb::Hello => "say hello",
        Verb::Limit => "end at a lower limit",
        Verb::Other => "something that this version does not know",
    }
}

const fn outcome_words(outcome: CommandOutcome) -> &'static str {
    match outcome {
        CommandOutcome::Done => "done",
        CommandOutcome::Repeated => "done before",
        CommandOutcome::Stale => "too late",
        CommandOutcome::Unsupported => "it cannot do that",
        CommandOutcome::NotApplicable => "there is no such session any more",
        CommandOutcome::Other => "something that this version does not know",
    }
}

pub(super) const fn stop_words(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Other => "no word from the device",
        StopReason::User => "ended by the user",
        StopReason::Limit => "the grant was used up",
        StopReason::Finished => "nothing more was drawn",
        StopReason::Unplugged => "unplugged, or the door was opened",
        StopReason::Fault => "the device found a fault",
        StopReason::PowerLoss => "the device lost power",
        StopReason::Remote => "ended by a command",
        StopReason::NotStarted => "the start was never proven",
        StopReason::Abandoned => "the user gave up before the answer came",
    }
}

const fn record_words(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Hold => "hold",
        RecordKind::Started => "started",
        RecordKind::Capture => "capture",
        RecordKind::Void => "void",
        RecordKind::Indeterminate => "indeterminate",
        RecordKind::LeaseReturn => "lease_return",
        RecordKind::LeaseTaken => "lease_taken",
        RecordKind::Other => "other",
    }
}
