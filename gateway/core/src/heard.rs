//! The last message of each device. What it led to carries its counter, where it can: an authorize or a stop is one record
//! of the journal, and not two.

use proto::id::{DeviceId, SessionId};

use crate::{
    Gateway,
    decide::Draft,
    event::{Event, Heard},
};

impl Draft<'_> {
    /// A message of `device` is decided.
    pub(crate) fn hear(&mut self, device: DeviceId, counter: u64) {
        self.heard = Some((Heard { device, counter }, self.out.events.len()));
    }

    /// Sees to it that the message that is decided is remembered, by one of its events or one of its own.
    pub(crate) fn tell_heard(&mut self) {
        let Some((heard, at)) = self.heard.take() else { return };
        let sessions = &self.gateway.sessions;
        let is_own = |id: &SessionId| {
            sessions
                .get(id)
                .is_some_and(|known| known.request.device == heard.device)
        };
        let is_told = self.out.events.iter_mut().any(|event| {
            if let Some(request) = event.request() {
                return (request.device, request.counter) == (heard.device, heard.counter);
            }
            let (session, counter) = match event {
                Event::Started(e) => (&e.session, &mut e.counter),
                Event::Metered(e) => (&e.session, &mut e.counter),
                Event::Closed(e) => (&e.session, &mut e.counter),
                _ => return false,
            };
            let is_own = is_own(session);
            if is_own {
                *counter = heard.counter;
            }
            is_own
        });
        if !is_told {
            self.out.events.insert(at, Event::Heard(heard));
        }
    }
}

impl Gateway {
    /// Remembers the message of which an event tells.
    pub(crate) fn hear(&mut self, event: &Event) {
        let (session, counter) = match event {
            Event::Heard(e) => return self.hear_from(e.device, e.counter),
            Event::Started(e) => (&e.session, e.counter),
            Event::Metered(e) => (&e.session, e.counter),
            Event::Closed(e) => (&e.session, e.counter),
            event => {
                if let Some(request) = event.request() {
                    self.hear_from(request.device, request.counter);
                }
                return;
            }
        };
        if counter > 0
            && let Some(session) = self.sessions.get(session)
        {
            self.hear_from(session.request.device, counter);
        }
    }

    /// A request that waited for the cloud is granted after later messages of its device.
    fn hear_from(&mut self, device: DeviceId, counter: u64) {
        let last = &mut self.devices.entry(device).or_default().counter;
        *last = counter.max(*last);
    }
}
