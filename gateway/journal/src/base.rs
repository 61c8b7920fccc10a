//! The base: the state that pruned records led to, in a file beside the log, so that base and segments always rebuild
//! everything without the storage engine.
//!
//! `base` is written whole under another name, synced and renamed. Header: magic | crc u32 over the rest | store id | head
//! it stands at | chunks u32 | their bytes u64 | SHA-256 over lengths and chunks. From byte 4096 on per chunk: length u32 |
//! crc u32 | bytes. Integers are little-endian.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::Head;
use crate::digest::Sha256;
use crate::disk::{Disk, DiskFile};
use crate::format::{Fields, VALUE_BYTES_MAX, put_head};

const MAGIC: &[u8; 8] = b"HFBASE01";
const HEADER_BYTES: usize = 8 + 4 + 16 + 40 + 4 + 8 + 32;
const CHUNKS_AT: u64 = 4096;
/// Written at once.
const WRITE_BYTES: usize = 256 << 10;

/// An open base whose header checks.
pub(crate) struct Base {
    file: Arc<dyn DiskFile>,
    pub(crate) at: Head,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
    pub(crate) digest: [u8; 32],
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("base")
}

impl Base {
    /// The base of a directory: `None` if there is none, an inner error if it is damaged or another store's.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        store_id: &[u8; 16],
    ) -> io::Result<Option<Result<Base, &'static str>>> {
        let file: Arc<dyn DiskFile> = match disk.open(&path(dir)) {
            Ok(file) => Arc::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; HEADER_BYTES];
        let count = file.fill_at(&mut bytes, 0)?;
        Ok(Some(Self::decode(file, &bytes[..count], store_id)))
    }

    fn decode(file: Arc<dyn DiskFile>, bytes: &[u8], store_id: &[u8; 16]) -> Result<Base, &'static str> {
        const SHORT: &str = "its header is cut short";
        let mut fields = Fields(bytes);
        if fields.bytes(MAGIC.len()).ok_or(SHORT)? != MAGIC {
            return Err("its header is foreign");
        }
        let crc = fields.u32().ok_or(SHORT)?;
        if crc != crc32fast::hash(fields.0) {
            return Err("its header fails its checksum");
        }
        if fields.array().ok_or(SHORT)? != *store_id {
            return Err("it belongs to another journal");
        }
        Ok(Base {
            file,
            at: fields.head().ok_or(SHORT)?,
            count: fields.u32().ok_or(SHORT)?,
            bytes: fields.u64().ok_or(SHORT)?,
            digest: fields.array().ok_or(SHORT)?,
        })
    }

    /// The chunks in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Result<Vec<u8>, &'static str>> + use<> {
        let (file, mut at) = (Arc::clone(&self.file), CHUNKS_AT);
        (0..self.count).map(move |_| {
            let mut frame = [0; 8];
            let read = |buffer: &mut [u8], at| match file.fill_at(buffer, at) {
                Ok(count) if count == buffer.len() => Ok(()),
                Ok(_) => Err("it is cut short"),
                Err(_) => Err("it cannot be read"),
            };
            read(&mut frame, at)?;
            let mut fields = Fields(&frame);
            let (length, crc) = fields.u32().zip(fields.u32()).expect("a frame of eight bytes");
            if length as usize > VALUE_BYTES_MAX {
                return Err("a chunk's length is damaged");
            }
            let mut chunk = vec![0; length as usize];
            read(&mut chunk, at + 8)?;
            at += 8 + u64::from(length);
            if crc32fast::hash(&chunk) == crc {
                Ok(chunk)
            } else {
                Err("a chunk fails its checksum")
            }
        })
    }
}

/// Writes a base in place of the one before, durable when this returns. An error of `chunks` ends it, and leaves the old.
pub(crate) fn write<E>(
    disk: &dyn Disk,
    dir: &Path,
    store_id: &[u8; 16],
    at: Head,
    chunks: impl Iterator<Item = Result<Vec<u8>, E>>,
) -> Result<io::Result<u64>, E> {
    let staged = dir.join("base.new");
    let mut digest = Sha256::new();
    let (mut count, mut total) = (0u32, 0u64);
    let mut buffer: Vec<u8> = Vec::with_capacity(WRITE_BYTES + VALUE_BYTES_MAX + 8);
    let file = match disk.create(&staged) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut offset = CHUNKS_AT;
    for chunk in chunks {
        let chunk = chunk?;
        buffer.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&crc32fast::hash(&chunk).to_le_bytes());
        buffer.extend_from_slice(&chunk);
        digest_chunk(&mut digest, &chunk);
        count += 1;
        total += chunk.len() as u64;
        if buffer.len() >= WRITE_BYTES {
            if let Err(error) = file.write_all_at(&buffer, offset) {
                return Ok(Err(error));
            }
            offset += buffer.len() as u64;
            buffer.clear();
        }
    }
    let mut content = store_id.to_vec();
    put_head(&mut content, at);
    content.extend_from_slice(&count.to_le_bytes());
    content.extend_from_slice(&total.to_le_bytes());
    content.extend_from_slice(&digest.finish());
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
    header.extend_from_slice(&content);
    Ok(file
        .write_all_at(&buffer, offset)
        .and_then(|()| file.write_all_at(&header, 0))
        .and_then(|()| file.sync())
        .and_then(|()| disk.rename(&staged, &path(dir)))
        .and_then(|()| disk.sync_directory(dir))
        .map(|()| offset + buffer.len() as u64))
}

/// Lengths are part of the hash, so that moved chunk boundaries are noticed.
pub(crate) fn digest_chunk(digest: &mut Sha256, chunk: &[u8]) {
    digest.update(&(chunk.len() as u32).to_le_bytes());
    digest.update(chunk);
}
