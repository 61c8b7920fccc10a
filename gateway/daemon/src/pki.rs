//! The site's own certificate authority: it signs the certificate that the gateway shows to devices, and one for each device.
//! The key of the authority is needed to make certificates and for nothing else; it may lie on a stick in a drawer.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use proto::id::{DeviceId, Name};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// File of the authority's certificate: `clients` of `[devices.tls]`, and what devices trust.
pub const AUTHORITY_FILE: &str = "site-ca.pem";
/// File of the authority's key.
pub const AUTHORITY_KEY_FILE: &str = "site-ca.key";

/// A certificate of a device has no end that anybody waits for: a device has no clock, a stolen one is taken out of the
/// configuration, and the authority is changed by changing the file.
const YEARS: (i32, i32) = (2020, 2100);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There is an authority, and devices that trust it.
    #[error("{} is there already; a new authority would lock every device out that has a certificate of this one", .0.display())]
    Exists(PathBuf),
    /// Not a key, or not one that signs.
    #[error("{}: {error}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: rcgen::Error,
    },
    /// A name that no certificate can carry.
    #[error("a certificate for {name:?} cannot be made: {error}")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        error: rcgen::Error,
    },
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// PEM: may be shown to anybody.
    pub certificate: String,
    /// PEM: for nobody but its owner.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key` (mode 600) into a folder; files of these names are replaced.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write(&self, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), PkiError> {
        let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        write(&key, &self.key, 0o600)?;
        write(&certificate, &self.certificate, 0o644)?;
        Ok((certificate, key))
    }
}

/// The authority of a site.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// Makes the authority of a site and writes its two files into a folder.
    ///
    /// # Errors
    /// There is one already, or a file cannot be written.
    pub fn create(dir: &Path, site: &Name) -> Result<Self, PkiError> {
        let (certificate, key_file) = (dir.join(AUTHORITY_FILE), dir.join(AUTHORITY_KEY_FILE));
        for path in [&certificate, &key_file] {
            if path.exists() {
                return Err(PkiError::Exists(path.clone()));
            }
        }
        let make = |error| PkiError::Make {
            name: site.to_string(),
            error,
        };
        let key = KeyPair::generate().map_err(make)?;
        let params = authority(site).map_err(make)?;
        let pem = params.self_signed(&key).map_err(make)?.pem();
        write(&key_file, &key.serialize_pem(), 0o600)?;
        write(&certificate, &pem, 0o644)?;
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer })
    }

    /// The authority whose files are in a folder; the site is that for which it was made.
    ///
    /// # Errors
    /// There is no key, or it is none.
    pub fn open(dir: &Path, site: &Name) -> Result<Self, PkiError> {
        let path = dir.join(AUTHORITY_KEY_FILE);
        let pem = fs::read_to_string(&path).map_err(|error| PkiError::File {
            path: path.clone(),
            error,
        })?;
        let failed = |error| PkiError::Key {
            path: path.clone(),
            error,
        };
        let key = KeyPair::from_pem(&pem).map_err(failed)?;
        let issuer = Issuer::new(authority(site).map_err(failed)?, key);
        Ok(Self { issuer })
    }

    /// A certificate by which a device is let in, as itself and as nobody else.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn device(&self, device: &DeviceId) -> Result<Pair, PkiError> {
        self.pair(device.as_str(), &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The certificate that the gateway shows, under these host names and addresses.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn gateway(&self, gateway: &Name, hosts: &[String]) -> Result<Pair, PkiError> {
        self.pair(gateway.as_str(), hosts, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn pair(&self, name: &str, hosts: &[String], purpose: ExtendedKeyUsagePurpose) -> Result<Pair, PkiError> {
        let make = |error| PkiError::Make {
            name: name.to_owned(),
            error,
        };
        let mut params = CertificateParams::new(hosts.to_vec()).map_err(make)?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        (params.not_before, params.not_after) = (date_time_ymd(YEARS.0, 1, 1), date_time_ymd(YEARS.1, 1, 1));
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?.pem();
        Ok(Pair {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn authority(site: &Name) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(&format!("holdfast site {site}"));
    // It signs leaves: a device's certificate is nobody's authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(YEARS.0, 1, 1), date_time_ymd(YEARS.1, 1, 1));
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let failed = |error| PkiError::File {
        path: path.to_owned(),
        error,
    };
    // An old file keeps its mode when it is opened again, and its readers.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}
