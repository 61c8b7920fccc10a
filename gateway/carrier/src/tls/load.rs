//! From files to what rustls wants.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Content, Error, Files, Good, Identity, Validity};

/// Longest file, in bytes: every public authority there is takes a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a protocol, in bytes (RFC 7301).
const ALPN_BYTES_MAX: usize = 255;
/// Bits of a mode that let somebody else than the owner in.
const MODE_OTHERS: u32 = 0o077;

/// Reads every file.
pub(super) fn read(files: &Files) -> Result<Content, Error> {
    let mut roots = Vec::new();
    for path in &files.roots {
        roots.extend(certificates(path, &bytes(path, false)?)?);
    }
    if files.system_roots {
        roots.extend(system_roots()?);
    }
    if roots.is_empty() {
        return Err(Error::NobodyTrusted);
    }
    let identity = match &files.identity {
        Some(Identity { certificate, key }) => Some((bytes(certificate, false)?, bytes(key, true)?)),
        None => None,
    };
    Ok(Content { roots, identity })
}

pub(super) fn bytes(path: &Path, is_secret: bool) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::Read {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if is_secret && mode & MODE_OTHERS != 0 {
        let path = path.to_owned();
        return Err(Error::Mode { path, mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLong {
            path: path.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

pub(super) fn content(path: &Path, why: impl ToString) -> Error {
    Error::Content {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// At least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(content(path, "no certificate in it"));
    }
    Ok(found)
}

/// What the system trusts. Single ones that cannot be read do not matter as long as there are others.
fn system_roots() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let none = || "there are none; is ca-certificates installed?".to_owned();
        return Err(Error::System(if why.is_empty() { none() } else { why.join("; ") }));
    }
    Ok(found.certs)
}

/// Makes of the files what connections are made with.
pub(super) fn make(files: &Files, found: Content) -> Result<Good, Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_root_certificates(trusted(files, &found)?);
    let (mut config, validity) = match (&files.identity, &found.identity) {
        (Some(paths), Some((certificate, key))) => {
            let chain = certificates(&paths.certificate, certificate)?;
            let validity = validity(&paths.certificate, &chain[0])?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| content(&paths.key, format!("no private key in it: {error}")))?;
            let config = builder.with_client_auth_cert(chain, key).map_err(|error| Error::Pair {
                certificate: paths.certificate.clone(),
                key: paths.key.clone(),
                why: error.to_string(),
            })?;
            (config, Some(validity))
        }
        (None, _) | (_, None) => (builder.with_no_client_auth(), None),
    };
    config.alpn_protocols = alpn(&files.alpn)?;
    Ok(Good {
        content: found,
        config: Arc::new(config),
        identity: validity,
    })
}

/// Public bundles hold a few that nobody can parse; a bundle of which nothing can be used is an error.
fn trusted(files: &Files, found: &Content) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let (added, ignored) = store.add_parsable_certificates(found.roots.iter().cloned());
    if added == 0 {
        let path = files
            .roots
            .first()
            .cloned()
            .unwrap_or_else(|| PathBuf::from("the system"));
        return Err(content(
            &path,
            format!("none of {ignored} certificates can be an authority's"),
        ));
    }
    Ok(store)
}

fn alpn(names: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    names
        .iter()
        .map(|name| match name.len() {
            1..=ALPN_BYTES_MAX => Ok(name.clone().into_bytes()),
            _ => Err(Error::Alpn(name.clone())),
        })
        .collect()
}

pub(super) fn validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<Validity, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| content(path, format!("the certificate cannot be parsed: {error}")))?;
    Ok(Validity {
        subject: parsed.subject().to_string(),
        not_before_s: parsed.validity().not_before.timestamp(),
        not_after_s: parsed.validity().not_after.timestamp(),
    })
}
