//! `holdfast device authority` and `holdfast device certificate`: what TLS with client certificates needs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proto::id::DeviceId;

use super::{Place, backup::make_private, fail, show};
use crate::{
    config::{Config, DeviceSide},
    exit, files,
    pki::{AUTHORITY_FILE, AUTHORITY_KEY_FILE, Authority, Pair, PkiError},
};

/// Names of the gateway's own pair.
const GATEWAY_NAME: &str = "gateway";

/// `holdfast device authority`.
#[derive(Args, Debug)]
#[command(
    after_help = "The key of the authority makes certificates and does nothing else: keep the directory on a stick in a drawer, not on the gateway."
)]
pub(super) struct AuthorityCommand {
    /// The directory to make it in; nothing in it is written over
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A host name or address under which devices find this gateway; may be repeated
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
}

/// `holdfast device certificate`.
#[derive(Args, Debug)]
pub(super) struct CertificateCommand {
    /// Which device
    device: DeviceId,
    /// The directory of the authority, as `holdfast device authority` made it
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// The directory to write to; nothing in it is written over
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("{0} is not a device of this site; holdfast device list shows them")]
    Unknown(DeviceId),
    #[error("{} is there already; nothing was made. Move it away, or name another --out", .0.display())]
    Exists(PathBuf),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl Failed {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Unknown(_) => exit::NOT_FOUND,
            Self::Exists(_) | Self::Pki(PkiError::Exists(_)) => exit::EXISTS,
            Self::Pki(PkiError::Make { .. }) => exit::USAGE,
            Self::Pki(PkiError::Key { .. }) => exit::DATA,
            Self::Pki(PkiError::File { .. }) | Self::Io { .. } => exit::UNAVAILABLE,
        }
    }
}

fn done(made: Result<String, Failed>) -> ExitCode {
    match made {
        Ok(text) => {
            show::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error.exit_code(), &error),
    }
}

impl AuthorityCommand {
    pub(super) fn run(&self, place: &Place) -> ExitCode {
        place.with(|config| done(self.make(place, config)))
    }

    fn make(&self, place: &Place, config: &Config) -> Result<String, Failed> {
        let dir = &self.out;
        let [certificate, key] = pair_in(dir, GATEWAY_NAME);
        let authority = [AUTHORITY_FILE, AUTHORITY_KEY_FILE].map(|name| dir.join(name));
        refuse_what_is_there(&[&certificate, &key, &authority[0], &authority[1]])?;
        make_private(dir).map_err(at(dir))?;
        let pair = Authority::create(dir, &config.site)?.gateway(&config.gateway, &self.hosts)?;
        write(&pair, &certificate, &key)?;
        let beside = place.config.parent().unwrap_or(Path::new("."));
        Ok(format!(
            "{}: the authority of site {}, and the certificate that this gateway shows as {}.\n\
             What to do next:\n\
             - Copy {GATEWAY_NAME}.pem, {GATEWAY_NAME}.key and {AUTHORITY_FILE} to {}, readable by the gateway's user: chgrp holdfast, chmod 640\n\
             - Add to {}:\n\
             \x20   [devices.tls]\n\
             \x20   listen = \"0.0.0.0:8883\"\n\
             \x20   certificate = \"{GATEWAY_NAME}.pem\"\n\
             \x20   key = \"{GATEWAY_NAME}.key\"\n\
             \x20   clients = \"{AUTHORITY_FILE}\"\n\
             - Start the gateway again: systemctl restart holdfast\n\
             - Make each device its own: holdfast device certificate ID --authority {} --out DIR\n\
             - Then take {} off this machine\n",
            dir.display(),
            config.site,
            self.hosts.join(", "),
            beside.display(),
            place.config.display(),
            dir.display(),
            authority[1].display(),
        ))
    }
}

impl CertificateCommand {
    pub(super) fn run(&self, place: &Place) -> ExitCode {
        place.with(|config| done(self.make(config)))
    }

    fn make(&self, config: &Config) -> Result<String, Failed> {
        let device = &self.device;
        if !config.core.devices.contains_key(device) {
            return Err(Failed::Unknown(*device));
        }
        let [certificate, key] = pair_in(&self.out, device.as_str());
        refuse_what_is_there(&[&certificate, &key])?;
        let pair = Authority::open(&self.authority, &config.site)?.device(device)?;
        make_private(&self.out).map_err(at(&self.out))?;
        write(&pair, &certificate, &key)?;
        let listens = match &config.device_side {
            DeviceSide::Embedded { tls: Some(tls), .. } => format!("port {}", tls.listen.port()),
            DeviceSide::Embedded { tls: None, .. } | DeviceSide::External { .. } => {
                "the listener of [devices.tls], which this configuration does not have yet".to_owned()
            }
        };
        Ok(format!(
            "{device}: {} and {}, for their owner alone.\n\
             What to do next:\n\
             - Carry both into the device, with {} as what it trusts\n\
             - It connects with TLS 1.3 to {listens}, with client id {device}; the certificate lets it in\n\
             - Delete both here: whoever has the key is {device}, until holdfast device block {device}\n",
            certificate.display(),
            key.display(),
            self.authority.join(AUTHORITY_FILE).display(),
        ))
    }
}

fn pair_in(dir: &Path, name: &str) -> [PathBuf; 2] {
    ["pem", "key"].map(|ending| dir.join(format!("{name}.{ending}")))
}

fn refuse_what_is_there(paths: &[&PathBuf]) -> Result<(), Failed> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(Failed::Exists((*path).clone())),
        None => Ok(()),
    }
}

/// Both for their owner alone; a certificate whose key could not be written would only mislead.
fn write(pair: &Pair, certificate: &Path, key: &Path) -> Result<(), Failed> {
    files::create(key, files::PRIVATE, pair.key.as_bytes()).map_err(at(key))?;
    files::create(certificate, files::PRIVATE, pair.certificate.as_bytes()).map_err(|error| {
        drop(fs::remove_file(key));
        at(certificate)(error)
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.to_owned();
    move |error| Failed::Io { path, error }
}
