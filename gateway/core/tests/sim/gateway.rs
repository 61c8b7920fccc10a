//! The gateway in the world: decide, append, apply, act; and the power that goes in between.

use gateway_core::{Alarm, Decision, Effect, Event, Ignored, Input, Now, Said, Told};
use proto::id::SessionId;

use crate::{
    marks::Mark,
    world::{MINUTE_MS, Next, SECOND_MS, World},
};

impl World {
    /// An input reaches the gateway; nothing, if it is down.
    pub(crate) fn put(&mut self, input: &Input) {
        if !self.shell.is_up {
            return;
        }
        let now = self.now();
        let decision = self.shell.gateway.decide(&now, input);
        self.ignored = decision.ignored;
        let settled = self.shell.staged() == 0;
        self.auditor
            .heard(input, &decision, self.shell.gateway.trust(), settled);
        self.note(input, &decision);
        if self.trace {
            self.print(input, &decision);
        }
        if decision.events.is_empty() && decision.effects.is_empty() {
            return;
        }
        // Long decisions are rare, and what they leave half done must be seen.
        let often = if crate::shell::Shell::is_long(&decision) { 20 } else { 1 };
        let dies = !self.calm && self.random.chance(self.climate.crash * often);
        if self.climate.commit_ms > 0 {
            if self.shell.staged() > 0 {
                self.hit(Mark::GroupCommit);
            }
            self.shell.stage(&now, decision);
            if !self.commit_due {
                self.commit_due = true;
                self.after(self.climate.commit_ms, Next::Commit);
            }
        } else if dies && self.random.chance(6_000) {
            self.die_at_append(&now, decision);
        } else if !self.calm && self.random.chance(self.climate.append_fails) {
            // Nothing was decided: nothing leaves, and whoever asked asks again.
            self.hit(Mark::AppendFailed);
        } else {
            self.shell.stage(&now, decision);
            self.commit(dies);
        }
        self.plan_gateway_wake(if self.shell.staged() == 0 {
            0
        } else {
            self.climate.commit_ms
        });
    }

    fn die_at_append(&mut self, now: &Now, decision: Decision) {
        let grants = decision.events.iter().any(|event| matches!(event, Event::Granted(_)));
        let all = decision.events.len();
        let durable = match self.random.below(2) {
            0 => 0,
            _ if crate::shell::Shell::is_long(&decision) => self.random.below(all as u64) as usize,
            _ => all,
        };
        let mark = match durable {
            0 => Mark::CrashBeforeAppend,
            durable if durable < all => Mark::ListHalfWritten,
            _ => Mark::CrashAfterAppend,
        };
        self.hit(mark);
        if grants && durable == all {
            self.hit(Mark::GrantDurableButUnsent);
        }
        let first = self.shell.write_and_die(now, decision, durable);
        self.audit(first);
        self.gateway_died();
    }

    /// One flush for everything staged; then the effects leave. `dies`: the power goes among them.
    fn commit(&mut self, dies: bool) {
        let (first, effects) = self.shell.commit();
        self.audit(first);
        let gauge = self.shell.gateway.risk().exposure();
        assert_eq!(
            gauge.0,
            self.auditor.exposure(),
            "the exposure gauge and the auditor's sum"
        );
        let release = match dies {
            true => self.random.below(effects.len() as u64 + 1) as usize,
            false => effects.len(),
        };
        for (i, effect) in effects.into_iter().enumerate() {
            if i < release {
                self.act(effect);
            } else if let Effect::Send {
                message: Told::Grant(_),
                ..
            } = effect
            {
                self.hit(Mark::GrantDurableButUnsent);
            }
        }
        if dies {
            self.hit(Mark::CrashAmongEffects);
            self.shell.die();
            self.gateway_died();
        }
    }

    /// The common flush of a group.
    pub(crate) fn commit_group(&mut self) {
        self.commit_due = false;
        if !self.shell.is_up || self.shell.staged() == 0 {
            return;
        }
        let dies = !self.calm && self.random.chance(self.climate.crash * 2);
        if dies && self.random.chance(5_000) {
            self.hit(Mark::CrashInGroupCommit);
            self.shell.die();
            return self.gateway_died();
        }
        self.commit(dies);
    }

    fn audit(&mut self, first: usize) {
        for (now, event) in &self.shell.journal[first..] {
            self.auditor.clock(now);
            let at = self.shell.gateway.timeline().at(now);
            self.auditor.line(at.0);
            let lived = self.shell.gateway.health();
            self.auditor.modes.durable(at.0, event, lived, &mut self.marks);
            self.auditor.durable(self.t_ms, event, &mut self.marks);
        }
        let waiting = self.shell.records.len() as u64 > self.shell.gateway.outbox().cursor();
        if waiting && self.cloud_link && !self.upload_due {
            self.upload_due = true;
            self.after(SECOND_MS, Next::UploadDue);
        }
    }

    fn gateway_died(&mut self) {
        self.gateway_generation += 1;
        self.gateway_wakes_ms = u64::MAX;
        self.commit_due = false;
        self.cloud_link = false;
        if self.trace {
            eprintln!("{:>10} the gateway dies", self.t_ms);
        }
        for at in 0..self.twins.len() {
            let ms = self.random.below(10_000);
            self.after(ms, Next::LinkCut { at });
        }
        let ms = match self.random.below(5) {
            0..2 => self.random.range(100, 3_000),
            2..4 => self.random.range(3_000, MINUTE_MS),
            _ => self.random.range(MINUTE_MS, 20 * MINUTE_MS),
        };
        self.after(ms, Next::Restart);
    }

    pub(crate) fn restart(&mut self) {
        if self.shell.is_up {
            return;
        }
        // The monotonic clock counts from the boot of the machine; the process came a little later.
        let started_ms = self.random.below(2_000.min(self.t_ms + 1));
        self.shell.booted_ms = self.t_ms - started_ms;
        let now = self.now();
        let from_snapshot = self.shell.has_snapshot() && self.random.chance(5_000);
        self.hit(if from_snapshot {
            Mark::BootFromSnapshot
        } else {
            Mark::BootFromJournal
        });
        if self.shell.gateway.sessions().open().next().is_some() {
            self.hit(Mark::SessionAcrossGatewayBoot);
        }
        let first = self.shell.boot(self.t_ms, &now, from_snapshot);
        self.audit(first);
        self.after(SECOND_MS, Next::CloudLink);
        self.plan_gateway_wake(0);
    }

    /// Carries out what a durable decision wants.
    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Send { device, message } => {
                self.auditor.told(&message);
                let (to, frame) = self.shell.seal(&device, &message);
                self.send_down(to, frame);
            }
            Effect::RaiseCounter { device, last } => self.shell.raise_counter(&device, last),
            Effect::Ask(question) => {
                if self.cloud_link {
                    let ms = self.random.range(10, 100);
                    self.after(ms, Next::AskArrives(question));
                }
            }
            Effect::Echo(echo) => {
                let says = Input::Echo { nonce: echo.nonce };
                self.ask_backend(says);
            }
            Effect::Hello => {
                let says = Input::Welcome(self.hub.welcome());
                self.ask_backend(says);
            }
            Effect::OrderDone(done) => self.answer_order(done),
            Effect::Alarm(alarm) => match alarm {
                Alarm::Quarantined { .. } => {}
                Alarm::Trailer { .. } => panic!("the hub knows what it published: {alarm}"),
                Alarm::HubRegressed { .. } => self.hit(Mark::HubPutBack),
                Alarm::Redeemed { number, fault, .. } => {
                    self.auditor.redeemed_wrongly(number, fault);
                    self.hit(Mark::RedeemedSpentAlready);
                }
                Alarm::DeviceFault { .. } | Alarm::Clock { .. } | Alarm::DiskScarce => {}
                Alarm::Mode { capability, mode } => self.auditor.alarmed(capability, mode),
                Alarm::MassDenial => self.hit(Mark::MassDenial),
                Alarm::TokenDenied { .. } => self.hit(Mark::TokenDenied),
                Alarm::PolicySetAside { .. } => self.hit(Mark::PolicySetAside),
                Alarm::RingBack { .. } => panic!("rings are off here: {alarm}"),
                Alarm::RecordQuarantined { .. } => self.hit(Mark::RecordSetAside),
                Alarm::RecordDisputed { .. } => self.hit(Mark::RecordDisputed),
                Alarm::RedeemedRevoked { device, number } => {
                    let of_account = number == 0 && self.auditor.is_any_code_revoked();
                    assert!(
                        of_account || self.auditor.is_device_revoked(&device),
                        "an alarm without a cause: {alarm}"
                    );
                    self.hit(Mark::RedeemedRevoked);
                }
                Alarm::Diverged { .. } | Alarm::Epoch { .. } | Alarm::Register { .. } => {
                    panic!("an alarm without a cause: {alarm}")
                }
            },
        }
    }

    fn ask_backend(&mut self, says: Input) {
        if self.cloud_link {
            let ms = self.random.range(10, 100);
            self.after(ms, Next::BackendAsked(Box::new(says)));
        }
    }

    /// `later_ms`: what is staged must be durable before more is decided.
    pub(crate) fn plan_gateway_wake(&mut self, later_ms: u64) {
        if !self.shell.is_up {
            return;
        }
        let due_ms = self.shell.gateway.next_deadline().map(|ms| self.shell.booted_ms + ms);
        let Some(due_ms) = due_ms.map(|ms| ms.max(self.t_ms + later_ms)) else {
            return;
        };
        if due_ms != self.gateway_wakes_ms {
            self.gateway_wakes_ms = due_ms;
            self.gateway_generation += 1;
            let generation = self.gateway_generation;
            self.at(due_ms, Next::GatewayWake { generation });
        }
    }

    pub(crate) fn gateway_wakes(&mut self, generation: u32) {
        if generation != self.gateway_generation || !self.shell.is_up {
            return;
        }
        self.gateway_wakes_ms = u64::MAX;
        self.put(&Input::Tick);
        self.plan_gateway_wake(0);
    }

    pub(crate) fn frame_up(&mut self, frame: &crate::shell::Frame) {
        if !self.shell.is_up {
            return;
        }
        let input = self.shell.open(frame).expect("nobody forges here");
        self.put(&input);
    }

    /// The operator does something.
    pub(crate) fn operator(&mut self) {
        self.operator_looks_at_lists();
        for _ in 0..self.random.range(1, 4) {
            self.give_order();
        }
        self.sometime(self.climate.operator_ms, Next::Operator);
    }

    /// Marks that show in the decision itself.
    fn note(&mut self, input: &Input, decision: &Decision) {
        let sessions = self.shell.gateway.sessions();
        let known = |session: &SessionId| sessions.get(session);
        let mark = match (input, decision.ignored) {
            (_, Some(Ignored::OrderRepeated(_))) => Mark::OrderRepeated,
            (_, Some(Ignored::Replayed { .. })) => Mark::FrameReplayedUp,
            (Input::Answer(answer), Some(Ignored::NotAsked(_))) => match known(&answer.session) {
                Some(session) if session.request.token == answer.token => Mark::LateAnswerIgnored,
                Some(_) | None => Mark::WrongAnswerIgnored,
            },
            (Input::Device { said, .. }, None) => match said {
                Said::Stop(stop) => match known(&stop.session) {
                    None => Mark::StopOfUnknown,
                    Some(session) if session.is_asking() => Mark::StopWhileAsking,
                    Some(session) if session.closing.is_some() => Mark::StopRepeated,
                    Some(session) if session.indeterminate && !session.started && !stop.started => {
                        Mark::VoidedAfterSilence
                    }
                    Some(session) if session.is_open() && !session.started && stop.started => {
                        Mark::CapturedWithoutStartMessage
                    }
                    Some(_) => return,
                },
                Said::Authorize { session, .. } => match known(session) {
                    Some(session) if session.terms.is_some() => Mark::GrantRepeated,
                    Some(session) if session.refused.is_some() => Mark::RefusalRepeated,
                    Some(_) | None => return,
                },
                _ => return,
            },
            _ => return,
        };
        self.hit(mark);
    }

    fn print(&self, input: &Input, decision: &Decision) {
        eprintln!("{:>10} <- {input:?}", self.t_ms);
        for event in &decision.events {
            eprintln!("{:>10}    {event:?}", "");
        }
        for effect in &decision.effects {
            eprintln!("{:>10} -> {effect:?}", "");
        }
        if let Some(ignored) = decision.ignored {
            eprintln!("{:>10}    {ignored}", "");
        }
    }
}
