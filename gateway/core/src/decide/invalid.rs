//! Conflict class 1: the token of a session that runs is revoked, or the cloud denies it with a newer credential. The
//! session stands, the device is told where to end, and is told again with each of its readings until it says that it
//! heard. A wash cycle finishes.

use proto::{
    id::Kind,
    message::{Command, CommandOutcome, Verb},
    money::Units,
};

use super::Draft;
use crate::{
    Gateway, Told,
    event::{CommandAnswered, Event, Limited},
    session::{Invalidation, Session},
};

impl Draft<'_> {
    /// Tells the device where a session ends whose token is no longer valid.
    pub(super) fn limit(&mut self, session: &Session) {
        let (Some(terms), Some(invalidation)) = (&session.terms, session.invalidation) else {
            return;
        };
        let request = &session.request;
        let limits = self.gateway.limits_at(&request.device);
        let more = limits.map_or(Units::ZERO, |limits| limits.invalidation_units);
        let delivered = session.register_last.since(session.register_start);
        let units = match invalidation.command {
            0 => Units(delivered.0.saturating_add(more.0)).min(terms.units_max),
            _ => invalidation.units,
        };
        let id = self.next_command(&request.device);
        let (device, outlet, session) = (request.device, request.outlet, request.session);
        self.event(Event::Limited(Limited {
            session,
            device,
            id,
            units,
        }));
        let command = Command {
            id,
            verb: Verb::Limit,
            outlet,
            session,
            not_after_s: 0,
            token: None,
            units,
        };
        self.send(&device, Told::Command(command));
    }
}

impl Gateway {
    /// Something made tokens invalid: the open sessions of such tokens are to end.
    pub(crate) fn invalidate_open(&mut self) {
        let trust = &self.trust;
        let ends = |session: &&Session| {
            let token = &session.request.token;
            let cuts = match session.request.kind {
                Kind::Charger | Kind::Dispenser => true,
                Kind::Washer | Kind::Unknown => false,
            };
            let account = session.terms.as_ref().map(|terms| terms.account);
            let revoked = trust.is_revoked(token) || account.is_some_and(|account| trust.is_account_revoked(account));
            cuts && session.invalidation.is_none() && (revoked || trust.is_denied(token))
        };
        let ids: alloc::vec::Vec<_> = self.sessions.open().filter(ends).map(|s| s.request.session).collect();
        for id in ids {
            self.sessions
                .update(&id, |session| session.invalidation = Some(Invalidation::default()));
        }
    }

    pub(crate) fn apply_limited(&mut self, event: &Limited) {
        self.devices.entry(event.device).or_default().command = event.id;
        self.sessions.update(&event.session, |session| {
            session.invalidation = Some(Invalidation {
                units: event.units,
                command: event.id,
                is_heard: false,
            });
        });
    }

    pub(crate) fn apply_command_answer(&mut self, event: &CommandAnswered) {
        let heard = match event.outcome {
            CommandOutcome::Done | CommandOutcome::NotApplicable | CommandOutcome::Unsupported => true,
            // It may have executed a later one and never this one.
            CommandOutcome::Repeated | CommandOutcome::Stale | CommandOutcome::Other => false,
        };
        let about = |session: &&Session| {
            let named = session.invalidation.is_some_and(|i| i.command == event.id);
            named && session.request.device == event.device
        };
        let session = self.sessions.open().find(about).filter(|_| heard);
        if let Some(id) = session.map(|session| session.request.session) {
            self.sessions.update(&id, |session| {
                if let Some(invalidation) = &mut session.invalidation {
                    invalidation.is_heard = true;
                }
            });
        }
    }
}
