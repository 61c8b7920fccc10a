//! A backup: configuration, secrets and journal of a gateway in one file.
//!
//! The file: `MAGIC`; then parts, each a letter, a length (4 bytes, little endian) and as many bytes; then the SHA-256 of
//! all of it. `n` names a file and `f` is its content; `r` is one record of the journal, in order; `z`, empty, is the last.
//!
//! A restored journal never goes on in the epoch of the one it was copied from: the two would write different records
//! under the same numbers. It begins the next one, and the hub fences whoever still speaks in the old one.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use journal::RECORD_BYTES_MAX;
use sha2::{Digest, Sha256};

use crate::{files, record};

/// How such a file begins.
const MAGIC: &[u8] = b"HOLDFAST BACKUP 1\n";
/// Length of the hash at the end, in bytes.
const HASH_BYTES: usize = 32;
/// Longest file beside the journal, in bytes: configurations and certificates are far smaller.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Most files beside the journal.
pub const FILES_MAX: usize = 64;

/// Why there is no backup, or it is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not what was written.
    #[error("{}: not a whole backup: {why}; nothing was restored", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// More than a backup holds.
    #[error("{name}: more than the {most} bytes that a file in a backup may have")]
    TooLarge {
        /// Which file.
        name: String,
        /// The limit.
        most: usize,
    },
}

struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

/// A backup that is being written.
pub struct Writer {
    path: PathBuf,
    out: Hashing<BufWriter<File>>,
}

impl Writer {
    /// A new file that only its owner reads.
    ///
    /// # Errors
    /// Also if it is there already.
    pub fn create(path: &Path) -> Result<Self, BackupError> {
        let failed = |error| BackupError::Io {
            path: path.to_owned(),
            error,
        };
        files::create(path, files::PRIVATE, b"").map_err(failed)?;
        let file = File::options().write(true).open(path).map_err(failed)?;
        let mut writer = Self {
            path: path.to_owned(),
            out: Hashing {
                inner: BufWriter::new(file),
                hash: Sha256::new(),
            },
        };
        writer.out.write_all(MAGIC).map_err(failed)?;
        Ok(writer)
    }

    fn part(&mut self, letter: u8, bytes: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(bytes.len()).expect("every part has a limit far below 4 GiB");
        let out = &mut self.out;
        let written = out
            .write_all(&[letter])
            .and_then(|()| out.write_all(&length.to_le_bytes()))
            .and_then(|()| out.write_all(bytes));
        written.map_err(|error| BackupError::Io {
            path: self.path.clone(),
            error,
        })
    }

    /// A file beside the journal, by the name under which it is restored.
    ///
    /// # Errors
    /// If it is too large, or cannot be written.
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        if content.len() > FILE_BYTES_MAX {
            let (name, most) = (name.to_owned(), FILE_BYTES_MAX);
            return Err(BackupError::TooLarge { name, most });
        }
        self.part(b'n', name.as_bytes())?;
        self.part(b'f', content)
    }

    /// The next record of the journal.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.part(b'r', bytes)
    }

    /// Ends it: on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<(), BackupError> {
        self.part(b'z', b"")?;
        let hash = self.out.hash.clone().finalize();
        let written = self.out.write_all(&hash).and_then(|()| self.out.flush());
        let synced = written.and_then(|()| self.out.inner.get_ref().sync_all());
        synced
            .and_then(|()| files::sync_folder_of(&self.path))
            .map_err(|error| BackupError::Io {
                path: self.path.clone(),
                error,
            })
    }
}

/// One part of a backup.
enum Part {
    File(String, Vec<u8>),
    Record(Vec<u8>),
    End,
}

struct Parts {
    path: PathBuf,
    from: Hashing<BufReader<File>>,
}

impl Parts {
    fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(|error| BackupError::Io {
            path: path.to_owned(),
            error,
        })?;
        let mut parts = Self {
            path: path.to_owned(),
            from: Hashing {
                inner: BufReader::new(file),
                hash: Sha256::new(),
            },
        };
        let mut magic = [0; MAGIC.len()];
        let read = parts.from.read_exact(&mut magic);
        if read.is_err() || magic != MAGIC {
            return Err(parts.damaged("it does not begin as one of this version"));
        }
        Ok(parts)
    }

    fn damaged(&self, why: impl ToString) -> BackupError {
        BackupError::Damaged {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }

    fn raw(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let mut head = [0; 5];
        let read = self.from.read_exact(&mut head);
        read.map_err(|error| self.damaged(error))?;
        let [letter, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        let most = match letter {
            b'r' => RECORD_BYTES_MAX,
            b'n' => 255,
            b'f' => FILE_BYTES_MAX,
            _ => 0,
        };
        if length > most {
            return Err(self.damaged(format_args!("a part '{}' of {length} bytes", letter.escape_ascii())));
        }
        let mut bytes = vec![0; length];
        let read = self.from.read_exact(&mut bytes);
        read.map_err(|error| self.damaged(error))?;
        Ok((letter, bytes))
    }

    fn next(&mut self) -> Result<Part, BackupError> {
        match self.raw()? {
            (b'r', bytes) => Ok(Part::Record(bytes)),
            (b'n', name) => {
                let name = String::from_utf8(name).map_err(|error| self.damaged(error))?;
                match self.raw()? {
                    (b'f', content) if is_inside(&name) => Ok(Part::File(name, content)),
                    _ => Err(self.damaged(format_args!("{name:?} is not a file of a site"))),
                }
            }
            (b'z', _) => Ok(Part::End),
            (letter, _) => Err(self.damaged(format_args!("an unknown part '{}'", letter.escape_ascii()))),
        }
    }

    /// Compares the hash, and that nothing follows.
    fn end(mut self) -> Result<(), BackupError> {
        let expected: [u8; HASH_BYTES] = self.from.hash.clone().finalize().into();
        let mut found = Vec::new();
        let rest = (&mut self.from).take(HASH_BYTES as u64 + 1).read_to_end(&mut found);
        rest.map_err(|error| self.damaged(error))?;
        if found == expected {
            Ok(())
        } else {
            Err(self.damaged("its hash is another one than that of its content"))
        }
    }
}

/// Whether a name stays in the directory to which it is restored.
#[must_use]
pub fn is_inside(name: &str) -> bool {
    use std::path::Component;
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// A backup that was read through once and is whole.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// Files beside the journal, by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// How many records the journal has.
    pub records: u64,
    /// The epoch in which the journal ends; 0: it never ran.
    pub epoch: u32,
}

impl Backup {
    /// Reads all of it.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] if it is not exactly what was written, or holds a record that this version cannot read.
    pub fn verify(path: &Path) -> Result<Self, BackupError> {
        let mut parts = Parts::open(path)?;
        let mut backup = Self {
            path: path.to_owned(),
            files: Vec::new(),
            records: 0,
            epoch: 0,
        };
        loop {
            match parts.next()? {
                Part::File(..) if backup.files.len() == FILES_MAX => {
                    return Err(parts.damaged(format_args!("more than {FILES_MAX} files")));
                }
                Part::File(name, content) => backup.files.push((name, content)),
                Part::Record(bytes) => {
                    backup.records += 1;
                    let (_, event) = record::decode(backup.records, &bytes).map_err(|error| parts.damaged(error))?;
                    backup.epoch = backup.epoch.max(record::epoch(&event));
                }
                Part::End => break,
            }
        }
        parts.end()?;
        Ok(backup)
    }

    /// The records, read again.
    ///
    /// # Errors
    /// If the file cannot be opened any more.
    pub fn records(&self) -> Result<impl Iterator<Item = Vec<u8>> + use<>, BackupError> {
        let mut parts = Parts::open(&self.path)?;
        // Whatever went missing since the first reading shows in the count of records.
        Ok(std::iter::from_fn(move || {
            loop {
                match parts.next() {
                    Ok(Part::Record(bytes)) => return Some(bytes),
                    Ok(Part::File(..)) => {}
                    Ok(Part::End) | Err(_) => return None,
                }
            }
        }))
    }

    /// A file of it.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let found = self.files.iter().find(|(known, _)| known == name);
        found.map(|(_, content)| content.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use gateway_core::{Event, Now, event::Booted};

    use super::*;

    fn written(dir: &Path, records: u32) -> PathBuf {
        let path = dir.join("backup");
        let mut writer = Writer::create(&path).unwrap();
        writer.file("holdfast.toml", b"[site]\n").unwrap();
        let now = Now {
            mono_ms: 0,
            wall_s: 0,
            quality: proto::message::ClockQuality::Unknown,
        };
        for boot in 1..=records {
            let event = Event::Booted(Booted { boot, epoch: 3 });
            writer.record(&record::encode(&now, &event)).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 5);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let backup = Backup::verify(&path).unwrap();
        assert_eq!((backup.records, backup.epoch), (5, 3));
        assert_eq!(backup.file("holdfast.toml"), Some(&b"[site]\n"[..]));
        assert_eq!(backup.records().unwrap().count(), 5);
        assert!(Writer::create(&path).is_err(), "a backup is not written over");
    }

    #[test]
    fn a_byte_that_differs_or_is_missing_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 3);
        let good = fs::read(&path).unwrap();
        let is_believed = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Backup::verify(&path).is_ok()
        };
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert!(!is_believed(&bad), "byte {i} flipped");
            assert!(!is_believed(&good[..i]), "cut at {i}");
        }
        assert!(!is_believed(&[&good[..], b"x"].concat()), "more behind it");
        assert!(is_believed(&good));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for (name, inside) in [
            ("tls/ca.pem", true),
            ("holdfast.toml", true),
            ("/etc/passwd", false),
            ("a/../../b", false),
            ("", false),
        ] {
            assert_eq!(is_inside(name), inside, "{name}");
        }
    }
}
