//! The gateway as the devices' MQTT endpoint: a device logs in as itself, speaks under its own prefix, hears under its
//! own prefix, and gets its PUBACK when its message is in the journal.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use carrier::tls::ServerTls;
use mqtt_endpoint::{Access, Application, ConnectDenied, ConnectRequest, Endpoint, Inbound, NotTaken, Place, Room};
use proto::{
    id::{DeviceId, Name},
    seal::PairSecret,
    topic,
};
use subtle::ConstantTimeEq;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    config::DeviceTls,
    devices::{Ack, Heard, Opener, blocked::Blocked},
    engine::Job,
    firmware::Firmware,
    run::RunError,
};

/// The read-only user for people who look.
pub const MONITOR: &str = "monitor";

/// Who may do what.
#[derive(Debug)]
pub struct DeviceAccess {
    known: RwLock<Known>,
    blocked: Blocked,
}

#[derive(Debug)]
struct Known {
    passwords: BTreeMap<DeviceId, heapless::String<32>>,
    monitor_password: Option<String>,
}

impl Known {
    fn new(secrets: &BTreeMap<DeviceId, PairSecret>, monitor_password: Option<String>) -> Self {
        let passwords = secrets.iter().map(|(id, secret)| (*id, secret.password()));
        Self {
            passwords: passwords.collect(),
            monitor_password,
        }
    }
}

impl DeviceAccess {
    /// For these devices.
    #[must_use]
    pub fn new(secrets: &BTreeMap<DeviceId, PairSecret>, monitor_password: Option<String>) -> Self {
        Self {
            known: RwLock::new(Known::new(secrets, monitor_password)),
            blocked: Blocked::default(),
        }
    }

    /// Other devices, or the same with other secrets, from the next login on.
    pub fn reconfigure(&self, secrets: &BTreeMap<DeviceId, PairSecret>, monitor_password: Option<String>) {
        *self.known.write().expect("no panic happens under this lock") = Known::new(secrets, monitor_password);
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().expect("no panic happens under this lock")
    }

    /// As well, closed to these.
    #[must_use]
    pub fn closed_to(self, blocked: Blocked) -> Self {
        Self { blocked, ..self }
    }
}

impl Access for DeviceAccess {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        // Whoever comes with a certificate is whom it names. It needs no password; a wrong one is wrong all the same.
        let identity = request.identity;
        if identity.is_some_and(|name| name != request.client_id || !self.is_device(name)) {
            return Err(ConnectDenied::ClientIdRejected);
        }
        let has_login = request.username.is_some() || request.password.is_some();
        let user = match identity.filter(|_| !has_login) {
            Some(name) => name,
            None => self.logged_in(request)?,
        };
        // Whoever has proved who he is may be told that he is blocked.
        if Name::new(user).is_ok_and(|device| self.blocked.has(&device)) {
            return Err(ConnectDenied::Banned);
        }
        // A device is its client id; watchers may choose theirs, but not a device's.
        let as_itself = if user == MONITOR {
            !self.is_device(request.client_id)
        } else {
            request.client_id == user
        };
        if as_itself {
            Ok(())
        } else {
            Err(ConnectDenied::ClientIdRejected)
        }
    }

    fn may_publish(&self, client_id: &str, topic: &str) -> bool {
        let spoken = topic::parse_up(topic).map(|(device, _)| device);
        // Its presence goes to whoever watches; who is connected here is known better.
        let speaker = spoken.or_else(|| topic::parse_presence(topic));
        speaker.is_some_and(|device| device.as_str() == client_id)
    }

    fn may_subscribe(&self, client_id: &str, filter: &str) -> bool {
        match Name::new(client_id)
            .ok()
            .filter(|id| self.known().passwords.contains_key(id))
        {
            Some(device) => {
                filter == topic::down_filter(&device).as_str()
                    || topic::parse_down(filter).is_some_and(|(of, _)| of == device)
            }
            None => true, // Whoever is no device logged in as the monitor.
        }
    }

    fn intercepts(&self, topic: &str) -> bool {
        topic::parse_up(topic).is_some()
    }
}

impl DeviceAccess {
    /// The user whose password this is.
    fn logged_in<'a>(&self, request: &ConnectRequest<'a>) -> Result<&'a str, ConnectDenied> {
        let (Some(user), Some(password)) = (request.username, request.password) else {
            return Err(ConnectDenied::BadCredentials);
        };
        let known = self.known();
        let expected = if user == MONITOR {
            known.monitor_password.as_deref()
        } else {
            Name::new(user)
                .ok()
                .and_then(|id| known.passwords.get(&id))
                .map(heapless::String::as_str)
        };
        // The length of the right password is no secret; its content is.
        let fits = expected.is_some_and(|expected| expected.as_bytes().ct_eq(password).into());
        fits.then_some(user).ok_or(ConnectDenied::BadCredentials)
    }

    fn is_device(&self, client_id: &str) -> bool {
        Name::new(client_id).is_ok_and(|id| self.known().passwords.contains_key(&id))
    }
}

/// Opens the listener with TLS.
///
/// # Errors
/// The files make no sense, or the address is not to be had.
pub async fn listen_tls(endpoint: &mut Endpoint, tls: &DeviceTls) -> Result<(), RunError> {
    let server = ServerTls::new(tls.files.clone())?;
    let secure = move |stream| {
        let server = server.clone();
        async move { server.accept(stream).await }
    };
    let address = endpoint
        .bind_secured(tls.listen, secure)
        .await
        .map_err(|error| RunError::Listen {
            address: tls.listen,
            error,
        })?;
    tracing::info!(tls_address = %address, "devices may connect with TLS");
    Ok(())
}

/// Takes what devices say to the engine. Frames are opened in their connection's own task: devices do not wait for each
/// other's seals, and the engine hears only what is genuine.
#[derive(Debug, Clone)]
pub struct Intake {
    opener: Arc<Opener>,
    engine: mpsc::Sender<Job>,
    firmware: Firmware,
}

impl Intake {
    /// For this engine.
    #[must_use]
    pub fn new(opener: Arc<Opener>, engine: mpsc::Sender<Job>, firmware: Firmware) -> Self {
        Self {
            opener,
            engine,
            firmware,
        }
    }

    /// What the engine has to know of an event, if anything.
    fn job(&self, event: Inbound) -> Option<Job> {
        let Inbound::Publish {
            client_id,
            topic,
            payload,
            ack,
            ..
        } = event
        else {
            return None;
        };
        match self.opener.open(Some(&client_id), &topic, &payload) {
            Ok((device, counter, Heard::Core(said))) => Some(Job::Device {
                device,
                counter,
                said,
                ack: Ack::Embedded(ack),
            }),
            Ok((device, counter, Heard::Firmware(update))) => {
                self.firmware.heard(device, counter, update);
                ack.accept();
                None
            }
            Err(bad) => {
                self.opener.complain(&client_id, &bad);
                // It will not get better by repeating: PUBACK, so that the sender goes on.
                ack.accept();
                None
            }
        }
    }
}

impl Application for Intake {
    fn take(&self, event: Inbound) -> Result<(), NotTaken> {
        // The room first: a frame is opened once.
        match self.engine.try_reserve() {
            Ok(permit) => {
                if let Some(job) = self.job(event) {
                    permit.send(job);
                }
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(NotTaken::Full(event)),
            Err(TrySendError::Closed(())) => Err(NotTaken::Closed),
        }
    }

    fn room(&self) -> Room {
        let (intake, permit) = (self.clone(), self.engine.clone().reserve_owned());
        Box::pin(async move {
            let permit = permit.await.ok()?;
            Some(Box::new(move |event| {
                if let Some(job) = intake.job(event) {
                    drop(permit.send(job));
                }
            }) as Place)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mqtt_endpoint::Protocol;

    use super::*;

    #[test]
    fn who_is_blocked_is_blocked_however_he_proves_who_he_is() {
        let id = DeviceId::new("c-1").unwrap();
        let secrets = BTreeMap::from([(id, PairSecret([3; 32]))]);
        let password = secrets[&id].password();
        let blocked = Blocked::default();
        let access = DeviceAccess::new(&secrets, Some("look".to_owned())).closed_to(blocked.clone());
        let ask = |identity: Option<&str>, client_id: &str, login: Option<(&str, &str)>| {
            access.connect(&ConnectRequest {
                client_id,
                client_id_assigned: false,
                username: login.map(|(user, _)| user),
                password: login.map(|(_, password)| password.as_bytes()),
                protocol: Protocol::V5,
                identity,
                peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            })
        };
        let own = Some(("c-1", password.as_str()));
        for is_blocked in [false, true] {
            blocked.set(id, is_blocked);
            let expected = if is_blocked { Err(ConnectDenied::Banned) } else { Ok(()) };
            for (identity, login) in [(None, own), (Some("c-1"), None), (Some("c-1"), own)] {
                assert_eq!(
                    ask(identity, "c-1", login),
                    expected,
                    "{identity:?}, blocked: {is_blocked}"
                );
            }
            assert_eq!(ask(None, "look-1", Some((MONITOR, "look"))), Ok(()));
        }
        blocked.set(id, false);
        let rejected = Err(ConnectDenied::ClientIdRejected);
        assert_eq!(ask(Some("c-2"), "c-2", None), rejected, "no device");
        assert_eq!(ask(Some("c-1"), "c-2", None), rejected, "another's name");
        assert_eq!(ask(None, "c-2", own), rejected);
        assert_eq!(
            ask(Some("c-1"), "c-1", Some(("c-1", "x"))),
            Err(ConnectDenied::BadCredentials)
        );
        assert_eq!(ask(None, "c-1", None), Err(ConnectDenied::BadCredentials));
    }
}
