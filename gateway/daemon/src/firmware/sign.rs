//! `holdfast image`: the key that signs firmware, and the signing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proto::{
    id::{Hash, Kind, Name},
    trust::Issuer,
    update::{self, FileError, SignedImage},
};
use serde::Deserialize;

use super::elf;
use crate::files;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key's file holds none.
    #[error("{}: {why}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not an ELF that can be flattened.
    #[error("{}: {why}", path.display())]
    Elf {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not an image of this board and kind.
    #[error("{}: {error}", path.display())]
    Image {
        /// Which.
        path: PathBuf,
        /// Why.
        error: FileError,
    },
}

/// The key's file: like the hub's secrets, a seed in hexadecimal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    firmware_seed: String,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_owned();
    move |error| SignError::Io { path, error }
}

/// Makes a key in a new file that only its owner reads; its public half, as configurations name it.
///
/// # Errors
/// [`SignError::Io`]; a file that is there already is never written over.
pub fn make_key(path: &Path) -> Result<Hash, SignError> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed(Path::new("the system's random numbers"))(error.into()))?;
    }
    let text = format!(
        "# Signs firmware: who has it decides what devices run.\nfirmware_seed = \"{}\"\n",
        Hash(seed)
    );
    files::create(path, files::PRIVATE, text.as_bytes()).map_err(failed(path))?;
    Ok(Hash(*Issuer::from_seed(&seed).key().as_bytes()))
}

/// Reads a key that [`make_key`] wrote.
///
/// # Errors
/// [`SignError`]; also if others may read it.
pub fn read_key(path: &Path) -> Result<Issuer, SignError> {
    let key = |why: String| SignError::Key {
        path: path.to_owned(),
        why,
    };
    crate::config::check_mode(path).map_err(|error| key(error.to_string()))?;
    let text = fs::read_to_string(path).map_err(failed(path))?;
    let file: KeyFile = toml::from_str(&text).map_err(|error| key(error.to_string()))?;
    let seed: Result<Hash, _> = file.firmware_seed.parse();
    let seed = seed.map_err(|error| key(format!("firmware_seed: 32 bytes are 64 hexadecimal digits; {error}")))?;
    Ok(Issuer::from_seed(&seed.0))
}

/// Signs an image, an ELF or what lies in flash of it, and writes it to a new file.
///
/// # Errors
/// [`SignError`]; a file that is there already is never written over.
pub fn sign(
    issuer: &Issuer,
    board: Name,
    kind: Kind,
    version: u32,
    image: &Path,
    out: &Path,
) -> Result<SignedImage, SignError> {
    let bytes = fs::read(image).map_err(failed(image))?;
    let bytes = if elf::is_elf(&bytes) {
        let flat = elf::flatten(&bytes).map_err(|why| SignError::Elf {
            path: image.to_owned(),
            why,
        })?;
        flat.1
    } else {
        bytes
    };
    let signed = update::sign(issuer, bytes, board, kind, version).map_err(|error| SignError::Image {
        path: image.to_owned(),
        error,
    })?;
    files::create(out, files::PUBLIC, &signed.write()).map_err(failed(out))?;
    Ok(signed)
}
