//! What the configuration says, at the start and whenever it is read again.

use gateway_core::{
    Input,
    config::{DeviceConfig, Limits},
};
use proto::id::DeviceId;

use super::Engine;
use crate::{reload::Taken, store::StoreError};

impl Engine {
    /// Tells the core what the file says of limits, which are adopted by rings where these are on.
    ///
    /// # Errors
    /// If an event cannot be made durable.
    pub fn configured(mut self, limits: Limits) -> Result<Self, StoreError> {
        self.take(&Input::Configured(Box::new(limits)));
        self.commit()?;
        Ok(self)
    }

    /// Nothing of it is durable but the limits, and these are with the next commit: a gateway that dies before it starts
    /// with the same files.
    pub(super) fn reconfigure(&mut self, taken: Taken) -> Result<(), String> {
        let goes = |device: &DeviceId, known: &DeviceConfig| {
            let new = taken.core.devices.get(device);
            new.is_none_or(|new| new.class() != known.class() || new.outlets < known.outlets)
        };
        let devices = &self.gateway.config().devices;
        let mut open = self.gateway.sessions().open().map(|session| session.request.device);
        let kept = open.find(|device| devices.get(device).is_some_and(|known| goes(device, known)));
        drop(open);
        if let Some(device) = kept {
            return Err(format!(
                "a session is open at {device}, which is taken away or becomes something else; nothing is taken over. \
                 Block it (holdfast device block {device}), wait until holdfast sessions shows none of it, and reload"
            ));
        }
        let limits = taken.core.limits.clone();
        self.gateway.reconfigure(taken.core);
        self.sealer.reconfigure(&taken.secrets);
        self.shell.issuer_keys = taken.issuer_keys;
        self.take(&Input::Configured(Box::new(limits)));
        Ok(())
    }
}
