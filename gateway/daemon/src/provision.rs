//! What a new device is told: its identity, as a file for whatever flashes it.

use std::{
    io,
    path::{Path, PathBuf},
};

use proto::{
    id::{DeviceId, Kind},
    identity::{ENROLMENTS_MAX, ISSUERS_MAX, Identity},
    update::SIGNERS_MAX,
};

use crate::{config::Config, files};

/// Length of the file, in bytes: one page of the flash, erased behind the identity.
pub const PAGE_BYTES: usize = 2048;

/// Where it goes: board, chip and address.
pub const BOARDS: [(&str, &str, u32); 2] = [
    ("B-L475E-IOT01A", "STM32L475VG", 0x080f_f800),
    ("NUCLEO-F429ZI", "STM32F429ZITx", 0x0811_0000),
];

/// What may go into a device that a thief can open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// The site's key of id tokens, so that other tokens of a group stop a session without the gateway. Who has it can
    /// try card numbers against the hashes of this site.
    pub groups: bool,
    /// The secrets of one-time codes, so that they are taken without the gateway. Who has them can make codes.
    pub codes: bool,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Not in the configuration.
    #[error("{0} is not a device of this site; add it to the configuration and its secret to the secrets file")]
    Unknown(DeviceId),
    /// The configuration has none.
    #[error("{device} has kind {}, which no firmware serves", kind.word())]
    Kind {
        /// Which.
        device: DeviceId,
        /// Its kind.
        kind: Kind,
    },
    /// More than a device pins.
    #[error("{found} {what} are more than the {most} that a device keeps")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many fit.
        most: usize,
    },
    /// The file cannot be written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The identity of a device of the configuration.
///
/// # Errors
/// [`ProvisionError`].
pub fn identity(config: &Config, device: &DeviceId, trusted: Trusted) -> Result<Identity, ProvisionError> {
    let unknown = || ProvisionError::Unknown(*device);
    let known = config.core.devices.get(device).ok_or_else(unknown)?;
    let secret = config.device_secrets.get(device).ok_or_else(unknown)?;
    if !Kind::SERVED.contains(&known.kind) {
        let (device, kind) = (*device, known.kind);
        return Err(ProvisionError::Kind { device, kind });
    }
    let instruments = &config.core.instruments;
    let mut identity = Identity {
        site: instruments.site,
        currency: instruments.currency,
        keypad: instruments.keypads.contains_key(device),
        site_key: trusted.groups.then(|| config.token_key.clone()),
        ..Identity::new(*device, known.kind, known.outlets, secret.clone())
    };
    for key in &instruments.issuers {
        identity.issuers.push(*key).map_err(|_| ProvisionError::Many {
            what: "issuer keys",
            found: instruments.issuers.len(),
            most: ISSUERS_MAX,
        })?;
    }
    for key in &config.firmware_keys {
        identity.signers.push(*key).map_err(|_| ProvisionError::Many {
            what: "keys that sign firmware",
            found: config.firmware_keys.len(),
            most: SIGNERS_MAX,
        })?;
    }
    if trusted.codes {
        for enrolment in instruments.enrolments.values() {
            identity
                .enrolments
                .push(enrolment.clone())
                .map_err(|_| ProvisionError::Many {
                    what: "accounts with one-time codes",
                    found: instruments.enrolments.len(),
                    most: ENROLMENTS_MAX,
                })?;
        }
    }
    Ok(identity)
}

/// Writes the page of an identity to a new file that only its owner reads.
///
/// # Errors
/// [`ProvisionError::File`]; a file that is there already is never written over.
///
/// # Panics
/// Never: the largest identity fits a page.
pub fn write(identity: &Identity, path: &Path) -> Result<(), ProvisionError> {
    let mut page = [0xff; PAGE_BYTES];
    identity.write(&mut page).expect("the largest identity fits a page");
    files::create(path, files::PRIVATE, &page).map_err(|error| ProvisionError::File {
        path: path.to_owned(),
        error,
    })
}
