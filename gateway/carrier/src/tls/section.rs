//! TLS as operators write it in a configuration file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Files, Identity};

/// A table of the configuration. Paths are relative to the configuration's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// PEM files with certificates of authorities that are trusted.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
    /// Whether the system's authorities are trusted, too.
    #[serde(default)]
    pub system_roots: bool,
    /// Our certificate; it comes with [`Self::key`].
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Names of protocols to offer, the preferred one first.
    #[serde(default)]
    pub alpn: Vec<String>,
}

/// One of two that belong together is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate and key belong together")]
pub struct Unpaired;

impl Section {
    /// Which files these are, `base` being the configuration's folder.
    ///
    /// # Errors
    /// [`Unpaired`].
    pub fn files(&self, base: &Path) -> Result<Files, Unpaired> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: base.join(certificate),
                key: base.join(key),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Unpaired),
        };
        Ok(Files {
            roots: self.roots.iter().map(|path| base.join(path)).collect(),
            system_roots: self.system_roots,
            identity,
            alpn: self.alpn.clone(),
        })
    }
}
