//! Commands: each once by its id, never too late, always answered.

use proto::{
    id::SessionId,
    instrument::Instrument,
    message::{ClockQuality, Command, CommandOutcome, Verb},
    money::Units,
};

use crate::{
    Device, mint,
    outlet::{Phase, Presented},
};

impl<const OUTLETS: usize> Device<OUTLETS> {
    pub(crate) fn command(&mut self, command: &Command) {
        let outcome = if command.id <= self.record.command {
            CommandOutcome::Repeated
        } else {
            // Stored before anything but switching off comes of it: see the order of effects.
            self.record.command = command.id;
            self.unstored = true;
            self.execute(command)
        };
        if self.answers.is_full() {
            self.answers.pop_front();
        }
        self.answers
            .push_back((command.id, outcome))
            .expect("room was made for it");
    }

    fn execute(&mut self, command: &Command) -> CommandOutcome {
        if self.is_late(command) {
            return CommandOutcome::Stale;
        }
        match command.verb {
            Verb::Other => CommandOutcome::Unsupported,
            Verb::Hello => {
                self.link.greet(self.now_ms);
                CommandOutcome::Done
            }
            Verb::Report => done(self.at(command.outlet, |o, _| o.voice.forget()).is_some()),
            Verb::Stop => done(self.stop(command.session)),
            Verb::Start => done(self.command_start(command)),
            Verb::Limit => done(self.limit(command.session, command.units)),
        }
    }

    fn is_late(&self, command: &Command) -> bool {
        if command.not_after_s == 0 {
            return false;
        }
        let stamp = self.link.stamp(self.now_ms);
        match stamp.quality {
            // A stop too many does less harm than a start too many.
            ClockQuality::Unknown | ClockQuality::Relative => command.verb == Verb::Start,
            ClockQuality::Informative | ClockQuality::Synchronised => stamp.wall_s > command.not_after_s,
        }
    }

    fn stop(&mut self, session: SessionId) -> bool {
        let outlet = self.outlets.iter().find(|o| o.session() == Some(session)).map(|o| o.id);
        outlet
            .and_then(|outlet| self.at(outlet, |o, ctx| o.command_stop(ctx)))
            .unwrap_or(false)
    }

    /// A lower limit than the granted one. Told again it changes nothing.
    fn limit(&mut self, session: SessionId, units: Units) -> bool {
        let outlet = self.outlets.iter().find(|o| o.session() == Some(session)).map(|o| o.id);
        outlet
            .and_then(|outlet| self.at(outlet, |o, ctx| o.command_limit(ctx, units)))
            .unwrap_or(false)
    }

    fn command_start(&mut self, command: &Command) -> bool {
        let Some(token) = &command.token else { return false };
        let presented = Presented {
            token,
            instrument: &Instrument::NONE,
            hash: token.hash(&self.token_key),
            site_hash: None,
        };
        let (id, boot, mut number) = (self.config.id, self.record.boot, self.session_number);
        let asked = self.at(command.outlet, |o, ctx| {
            if !matches!(o.phase, Phase::Idle) {
                return false;
            }
            o.ask(ctx, &presented, Units::ZERO, || mint(id, boot, &mut number));
            o.session().is_some()
        });
        self.session_number = number;
        asked.unwrap_or(false)
    }
}

fn done(done: bool) -> CommandOutcome {
    if done {
        CommandOutcome::Done
    } else {
        CommandOutcome::NotApplicable
    }
}
