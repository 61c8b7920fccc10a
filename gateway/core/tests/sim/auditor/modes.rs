//! The modes, computed a second time from the evidence alone; and what evidence must be there for.

use std::collections::BTreeMap;

use gateway_core::{Capability, Event, Health, Mode, config::Limits, health::Signal};
use proto::id::{SessionId, TokenHash};

use crate::marks::{Mark, Marks};

/// One capability.
#[derive(Clone, Debug, Default)]
struct One {
    mode: Mode,
    failed_at: Option<u64>,
    proofs: Vec<u64>,
}

/// What a mode may be after a piece of evidence: two only while the jitter decides.
type Allowed = Vec<Mode>;

pub(crate) struct Modes {
    limits: Limits,
    of: BTreeMap<Capability, One>,
    /// What the last piece of evidence allows; settled by the event after it.
    pending: Option<(Capability, Allowed)>,
    /// Time, token, whether it was denied.
    answers: Vec<(u64, TokenHash, bool)>,
    granted_at: BTreeMap<TokenHash, u64>,
    latched: bool,
    denied_at: u64,
    seen_at: u64,
    echoing: Option<u64>,
    /// Sessions that wait for canaries, and what these said.
    contested: BTreeMap<SessionId, Option<bool>>,
}

impl Modes {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            of: Capability::ALL.iter().map(|&of| (of, One::default())).collect(),
            pending: None,
            answers: Vec::new(),
            granted_at: BTreeMap::new(),
            latched: false,
            denied_at: 0,
            seen_at: 0,
            echoing: None,
            contested: BTreeMap::new(),
        }
    }

    pub(super) fn authorize(&self) -> Mode {
        self.of[&Capability::Authorize].mode
    }

    pub(super) fn is_latched(&self) -> bool {
        self.latched
    }

    /// Whether the canaries upheld the denial of this session.
    pub(super) fn upheld(&self, session: &SessionId) -> bool {
        self.contested.get(session) == Some(&Some(true))
    }

    pub(super) fn is_contested(&self, session: &SessionId) -> bool {
        self.contested.contains_key(session)
    }

    /// An event is durable; `at` on the gateway's own line of time.
    /// `lived`: what the gateway believes by now.
    pub(crate) fn durable(&mut self, at: u64, event: &Event, lived: &Health, marks: &mut Marks) {
        self.settle(event, lived, marks);
        match event {
            Event::Booted(_) => {
                self.answers.clear();
                self.contested.clear();
            }
            Event::Granted(e) => drop(self.granted_at.insert(e.request.token, at)),
            Event::Contested(e) => {
                marks.hit(Mark::Contested);
                assert!(
                    !self.latched,
                    "somebody waits for canaries while the breaker is latched"
                );
                assert!(
                    self.authorize().asks(),
                    "somebody waits for canaries while authorize is LOCAL"
                );
                self.contested.insert(e.session, None);
            }
            Event::Evidence(e) => self.seen(at, e.signal, e.token, marks),
            _ => {}
        }
    }

    /// The event after a piece of evidence tells what became of the mode.
    fn settle(&mut self, event: &Event, lived: &Health, marks: &mut Marks) {
        let changed = match (event, &self.pending) {
            (Event::ModeChanged(e), _) => Some((e.capability, e.mode)),
            // Death came between the evidence and its announcement: the evidence alone counts.
            (Event::Booted(_), Some((capability, _))) => Some((*capability, lived.of(*capability).mode)),
            _ => None,
        };
        let Some((capability, allowed)) = self.pending.take() else {
            assert!(changed.is_none(), "a mode changes without evidence: {event:?}");
            return;
        };
        let one = self.of.get_mut(&capability).expect("one of three");
        let mode = changed.map_or(one.mode, |(of, mode)| {
            assert_eq!(of, capability, "the evidence was about another capability");
            mode
        });
        assert!(
            allowed.contains(&mode),
            "{} is {mode:?} after {one:?}; the evidence allows {allowed:?}; then {event:?}",
            capability.word()
        );
        let before = std::mem::replace(&mut one.mode, mode);
        self.release(marks);
        let one = self.of.get_mut(&capability).expect("one of three");
        if mode == Mode::Online && before != mode {
            (one.failed_at, one.proofs) = (None, Vec::new());
        }
        let mark = match (capability, before, mode) {
            (Capability::Authorize, Mode::Recovering, Mode::Online) => Mark::LocalLeft,
            (Capability::Authorize, Mode::Recovering, Mode::Local) => Mark::RecoveringFellBack,
            (Capability::Authorize, Mode::Online | Mode::Suspect, Mode::Local) => Mark::LocalEntered,
            (Capability::Commit, Mode::Recovering, Mode::Online) => Mark::CommitBack,
            (Capability::Commit, Mode::Online | Mode::Suspect, Mode::Local) => Mark::CommitLocal,
            (Capability::Control, Mode::Recovering, Mode::Online) => Mark::ControlBack,
            (Capability::Control, Mode::Online | Mode::Suspect, Mode::Local) => Mark::ControlLocal,
            _ => return,
        };
        marks.hit(mark);
    }

    /// Denials are long over, the backend is long back, and users ask it again: the breaker lets go.
    fn release(&mut self, marks: &mut Marks) {
        let long_ms = self.limits.breaker_ms;
        let quiet = self.seen_at - self.denied_at >= long_ms;
        let echoes = self.echoing.is_some_and(|since| self.seen_at - since >= long_ms);
        if self.latched && quiet && echoes && self.authorize() == Mode::Online {
            marks.hit(Mark::BreakerReleased);
            self.latched = false;
        }
    }

    fn seen(&mut self, at: u64, signal: Signal, token: TokenHash, marks: &mut Marks) {
        self.seen_at = at;
        let mass = self.note_answers(at, signal, token);
        self.breaker(at, signal, token, mass);
        let capability = match signal {
            Signal::Echoed | Signal::EchoedOnly | Signal::EchoMissed | Signal::Receipted | Signal::ReceiptOverdue => {
                Capability::Commit
            }
            Signal::Welcomed | Signal::HelloUnanswered | Signal::Artifact | Signal::Implausible | Signal::Refused => {
                Capability::Control
            }
            _ => Capability::Authorize,
        };
        let local = matches!(self.of[&capability].mode, Mode::Local | Mode::Recovering);
        let one = self.of.get_mut(&capability).expect("one of three");
        let failed = |one: &mut One| {
            one.proofs.clear();
            one.failed_at.replace(at)
        };
        let allowed = match signal {
            _ if mass => {
                failed(one);
                vec![Mode::Local]
            }
            Signal::CanariesWrong | Signal::CanariesSilent => {
                failed(one);
                vec![Mode::Local]
            }
            Signal::NoAnswer
            | Signal::Failed
            | Signal::EchoMissed
            | Signal::ReceiptOverdue
            | Signal::HelloUnanswered
            | Signal::Implausible
            | Signal::Refused => {
                let last = failed(one);
                let twice = last.is_some_and(|last| at - last <= self.limits.failures_window_ms);
                let falls = local || (one.mode == Mode::Suspect && twice);
                vec![if falls { Mode::Local } else { Mode::Suspect }]
            }
            Signal::CanariesRight | Signal::Echoed | Signal::Welcomed => {
                one.proofs.push(at);
                let least_ms = self.limits.recover_ms;
                let took_ms = at - one.proofs[0];
                match local {
                    false => vec![Mode::Online],
                    true if one.proofs.len() < 3 || took_ms < least_ms => vec![Mode::Recovering],
                    true if took_ms > least_ms + least_ms / 3 => vec![Mode::Online],
                    true => vec![Mode::Recovering, Mode::Online],
                }
            }
            Signal::Accepted | Signal::Answered | Signal::Receipted | Signal::Artifact if !local => vec![Mode::Online],
            _ => vec![one.mode],
        };
        self.pending = Some((capability, allowed));
        self.canaries(signal, token, marks);
        let mark = match signal {
            Signal::NoAnswer => Mark::AskTimedOut,
            Signal::EchoMissed => Mark::EchoMissed,
            Signal::EchoedOnly => Mark::EchoedOnly,
            Signal::ReceiptOverdue => Mark::ReceiptOverdue,
            Signal::HelloUnanswered => Mark::HelloUnanswered,
            Signal::Refused => Mark::ControlRefused,
            Signal::Implausible => Mark::ImplausibleArtifact,
            Signal::Denied | Signal::DeniedIdle if self.latched => Mark::DeniedWhileLatched,
            _ => return,
        };
        marks.hit(mark);
    }

    /// What the canaries said, for those who wait for them.
    fn canaries(&mut self, signal: Signal, token: TokenHash, marks: &mut Marks) {
        let (mark, right) = match signal {
            Signal::CanariesRight => (Mark::CanariesRight, true),
            Signal::CanariesWrong if token == TokenHash::ZERO => (Mark::AcceptorCaught, false),
            Signal::CanariesWrong => (Mark::DenierCaught, false),
            Signal::CanariesSilent => (Mark::CanariesSilent, false),
            Signal::CanariesThrottled => (Mark::CanariesThrottled, false),
            _ => return,
        };
        marks.hit(mark);
        for verdict in self.contested.values_mut().filter(|verdict| verdict.is_none()) {
            *verdict = Some(right);
            marks.hit(if right {
                Mark::ContestUpheld
            } else {
                Mark::ContestOverturned
            });
        }
    }

    /// Returns whether this completes a mass denial.
    fn note_answers(&mut self, at: u64, signal: Signal, token: TokenHash) -> bool {
        let denied = match signal {
            Signal::Accepted => false,
            Signal::Denied => true,
            _ => return false,
        };
        let granted_at = self.granted_at.get(&token);
        if denied {
            let active = granted_at.is_some_and(|granted| (at - granted) / 1000 <= self.limits.active_s);
            assert!(active, "{token} was never granted here and counts as active");
        }
        self.answers.push((at, token, denied));
        let window_ms = self.limits.mass_window_ms;
        self.answers.retain(|(then, ..)| at - then < window_ms);
        let denials = self.answers.iter().filter(|(_, _, denied)| *denied);
        let mut tokens: Vec<TokenHash> = denials.clone().map(|(_, token, _)| *token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        denied && tokens.len() >= 3 && denials.count() * 5 > self.answers.len()
    }

    fn breaker(&mut self, at: u64, signal: Signal, token: TokenHash, mass: bool) {
        match signal {
            Signal::Denied | Signal::DeniedIdle => self.denied_at = at,
            Signal::CanariesWrong if token != TokenHash::ZERO => self.denied_at = at,
            Signal::Echoed | Signal::EchoedOnly => self.echoing = Some(self.echoing.unwrap_or(at)),
            Signal::EchoMissed => self.echoing = None,
            _ => {}
        }
        self.latched |= mass;
    }
}
