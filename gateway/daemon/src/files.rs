//! Files that are written whole or not at all.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// For what nobody but the owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// For what everybody may.
pub(crate) const PUBLIC: u32 = 0o644;

/// A file as a command read it, for a gateway that sees neither the operator's folders nor his private files.
#[derive(Clone, PartialEq, Eq)]
pub struct Attached {
    /// How it is called where it was read.
    pub name: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Attached {
    /// Reads a regular file of at most `bytes_max`.
    ///
    /// # Errors
    /// Also if it is longer, or no file: a pipe has no end, and a device none either.
    pub fn read(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let bytes = read(path, bytes_max)?;
        let name = path.to_owned();
        Ok(Self { name, bytes })
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name.display(), self.bytes.len())
    }
}

/// Reads a regular file of at most `bytes_max`.
///
/// # Errors
/// As [`Attached::read`].
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    if !fs::metadata(path)?.is_file() {
        return Err(refused("not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(refused(format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Writes a file that is not there yet.
///
/// # Errors
/// Also if it is there already: it is never written over.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file by one that only its owner reads. A power cut leaves the old one or the new one.
///
/// # Errors
/// The old one stands.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder_of(path)
}

/// Removes a file, for good.
///
/// # Errors
/// It may still be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder_of(path)
}

/// Makes what happened in the folder of a file durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_has_no_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seven");
        create(&path, PUBLIC, b"1234567").unwrap();
        let read = |bytes_max| Attached::read(&path, bytes_max).map(|attached| attached.bytes);
        assert_eq!(read(7).unwrap(), b"1234567");
        assert_eq!(read(6).unwrap_err().to_string(), "more than 6 bytes");
        for other in [dir.path(), Path::new("/dev/zero")] {
            assert_eq!(Attached::read(other, 10).unwrap_err().to_string(), "not a file");
        }
    }

    #[test]
    fn what_is_there_is_kept_or_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("order");
        create(&path, PUBLIC, b"first").unwrap();
        let error = create(&path, PUBLIC, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        remove(&path).unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left beside it"
        );
    }
}
