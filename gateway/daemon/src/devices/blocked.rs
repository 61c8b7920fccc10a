//! Devices that the operator has blocked: stolen, or not believed any more. They neither log in nor are heard nor told
//! anything; what is open there stays open until its evidence decides, as with any device that is silent.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, OnceLock},
};

use mqtt_endpoint::{DisconnectReason, Handle};
use proto::id::DeviceId;
use tokio::sync::watch;

/// Which devices are blocked now; shared by whoever lets in, opens and seals.
#[derive(Clone, Default)]
pub struct Blocked {
    devices: Arc<watch::Sender<BTreeSet<DeviceId>>>,
    endpoint: Arc<OnceLock<Handle>>,
}

impl fmt::Debug for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.devices.borrow().iter()).finish()
    }
}

impl Blocked {
    /// These, at the start.
    #[must_use]
    pub fn new(devices: BTreeSet<DeviceId>) -> Self {
        Self {
            devices: Arc::new(watch::Sender::new(devices)),
            endpoint: Arc::default(),
        }
    }

    /// Whether this one is.
    #[must_use]
    pub fn has(&self, device: &DeviceId) -> bool {
        self.devices.borrow().contains(device)
    }

    /// How many are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.devices.borrow().len()
    }

    /// Blocks a device and cuts its connection, or lets it in again. Returns whether that changed anything.
    pub fn set(&self, device: DeviceId, blocked: bool) -> bool {
        let changed = self.devices.send_if_modified(|devices| match blocked {
            true => devices.insert(device),
            false => devices.remove(&device),
        });
        if let Some(endpoint) = self.endpoint.get().filter(|_| blocked) {
            endpoint.disconnect(device.as_str(), DisconnectReason::Administrative);
        }
        changed
    }

    /// Cuts the connection of a device, which may come again if it knows what it must know.
    pub fn cut(&self, device: &DeviceId) {
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.disconnect(device.as_str(), DisconnectReason::Administrative);
        }
    }

    /// Where connections are cut. Without it, a broker has them, and the device is only not heard.
    pub(crate) fn cuts_at(&self, endpoint: Handle) {
        // There is one endpoint in a gateway's life.
        let _ = self.endpoint.set(endpoint);
    }
}
