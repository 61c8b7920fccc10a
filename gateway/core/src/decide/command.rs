//! What somebody tells a device to do.

use proto::{
    id::DeviceId,
    message::{Command, Verb},
};

use super::Draft;
use crate::{
    Ignored, Told,
    event::{Commanded, Event},
};

impl Draft<'_> {
    pub(super) fn command(&mut self, device: &DeviceId, order: u64, command: Command) -> Result<(), Ignored> {
        if !self.gateway.config.devices.contains_key(device) {
            return Err(Ignored::UnknownDevice(*device));
        }
        if order != 0 && self.gateway.orders.has(order) {
            return Err(Ignored::CommandRepeated(order));
        }
        if self.is_late(&command) {
            return Err(Ignored::CommandStale(order));
        }
        let id = self.next_command(device);
        self.event(Event::Commanded(Commanded {
            device: *device,
            id,
            verb: command.verb,
            session: command.session,
            order,
        }));
        self.send(device, Told::Command(Command { id, ..command }));
        Ok(())
    }

    /// Whether a command must not run any more. A start whose time nobody can tell is too late; a stop too many does
    /// less harm than a start too many.
    const fn is_late(&self, command: &Command) -> bool {
        let starts = matches!(command.verb, Verb::Start);
        if command.not_after_s == 0 {
            return starts;
        }
        match self.now.wall() {
            Some(wall_s) => wall_s > command.not_after_s,
            None => starts,
        }
    }

    pub(super) fn next_command(&self, device: &DeviceId) -> u64 {
        self.gateway.devices.get(device).map_or(0, |known| known.command) + 1
    }
}
