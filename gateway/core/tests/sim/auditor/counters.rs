//! No message of a device is accepted twice, whichever event tells of it.

use gateway_core::Event;

use super::Auditor;

impl Auditor {
    pub(super) fn remember(&mut self, event: &Event) {
        let (device, counter) = match event {
            Event::Heard(e) => (e.device, e.counter),
            Event::Asked(e) => (e.request.device, e.request.counter),
            // What the cloud was asked about was heard then.
            Event::Refused(e) if self.waiting.contains_key(&e.request.session) => return,
            Event::Granted(e) if self.waiting.contains_key(&e.request.session) => return,
            Event::Refused(e) => (e.request.device, e.request.counter),
            Event::Granted(e) => (e.request.device, e.request.counter),
            Event::Started(e) => (e.record.device, e.counter),
            Event::Closed(e) => (e.record.device, e.counter),
            Event::Metered(e) => (self.holds[&e.session].device, e.counter),
            _ => return,
        };
        if counter == 0 {
            return;
        }
        let last = self.counters.insert(device, counter).unwrap_or(0);
        assert!(
            counter > last,
            "{device} is heard with counter {counter} after {last}: {event:?}"
        );
    }
}
