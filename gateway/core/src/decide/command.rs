//! What somebody tells a device to do.

use proto::{
    id::{DeviceId, OutletId, SessionId},
    message::{Command, Verb},
    money::Units,
};

use super::Draft;
use crate::{
    Ignored, Told,
    event::{Commanded, Event},
};

impl Draft<'_> {
    pub(super) fn command(
        &mut self,
        device: &DeviceId,
        verb: Verb,
        outlet: OutletId,
        session: SessionId,
        not_after_s: u64,
    ) -> Result<(), Ignored> {
        if !self.gateway.config.devices.contains_key(device) {
            return Err(Ignored::UnknownDevice(*device));
        }
        let id = self.next_command(device);
        self.event(Event::Commanded(Commanded {
            device: *device,
            id,
            verb,
            session,
        }));
        self.send(
            device,
            Told::Command(Command {
                id,
                verb,
                outlet,
                session,
                not_after_s,
                token: None,
                units: Units::ZERO,
            }),
        );
        Ok(())
    }

    pub(super) fn next_command(&self, device: &DeviceId) -> u64 {
        self.gateway.devices.get(device).map_or(0, |known| known.command) + 1
    }
}
