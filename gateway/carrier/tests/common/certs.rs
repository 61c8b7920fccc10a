//! Authorities and certificates, made anew for every test.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use carrier::tls::{Files, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// Years between which a certificate is valid.
pub type Years = (i32, i32);
/// Valid now, whenever that is.
pub const NOW: Years = (2000, 2100);
/// No more.
pub const PAST: Years = (2000, 2001);
/// Not yet.
pub const FUTURE: Years = (2099, 2100);

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn pair(&self, name: &str, serial: u64, purpose: ExtendedKeyUsagePurpose, years: Years) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![purpose];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// For a server of this name.
    pub fn server(&self, name: &str, years: Years) -> Pair {
        self.pair(name, 1, ExtendedKeyUsagePurpose::ServerAuth, years)
    }

    /// For a client of this name.
    pub fn client(&self, name: &str, serial: u64, years: Years) -> Pair {
        self.pair(name, serial, ExtendedKeyUsagePurpose::ClientAuth, years)
    }

    /// A list that revokes the certificate with this serial number, PEM.
    pub fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// Writes a file that nobody else may read.
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path
}

/// Writes a pair; the files of the same name are replaced.
pub fn write_pair(dir: &Path, name: &str, pair: &Pair) -> Identity {
    Identity {
        certificate: write(dir, &format!("{name}.pem"), &pair.certificate),
        key: write(dir, &format!("{name}.key"), &pair.key),
    }
}

/// Files of a client that trusts this authority, and identifies itself so.
pub fn files(dir: &Path, trusted: &Authority, identity: Option<Identity>) -> Files {
    Files {
        roots: vec![write(dir, "trusted.pem", trusted.pem())],
        identity,
        ..Files::default()
    }
}
