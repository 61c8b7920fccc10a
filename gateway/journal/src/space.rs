//! Disk space, for the rule that new unsecured sessions stop before the disk is full.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::reader::Reader;

/// What `st_blocks` counts in, on every file system.
const BLOCK_BYTES: u64 = 512;

impl Reader {
    /// Bytes allocated on disk for the journal, witness and engine files included.
    ///
    /// # Errors
    /// A directory or file that cannot be examined.
    pub fn size_on_disk(&self) -> io::Result<u64> {
        allocated_bytes(&self.shared.dir)
    }

    /// Bytes still free for this process on the journal's file system.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free_disk(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.shared.dir)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

fn allocated_bytes(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += allocated_bytes(&entry.path())?,
            Ok(metadata) => total += metadata.blocks() * BLOCK_BYTES,
            // The engine removes files of its own while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
