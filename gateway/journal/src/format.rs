//! Bytes that are not frames: segment headers, and the checksummed rows of the snapshots' storage engine.
//!
//! Integers in files and values are little-endian; in keys they are big-endian, so that key order is number order.

use std::collections::BTreeMap;

use crate::chain::Head;

/// Layout version of everything on disk; raised when another program would misread it. Layout 1 kept records in sled.
pub(crate) const LAYOUT_VERSION: u32 = 2;
/// The kind is a short word; the limit keeps the header one small block.
pub(crate) const KIND_BYTES_MAX: usize = 32;
/// Largest value stored in sled. Larger ones make its nodes spill to files under `blobs/`, which it never syncs.
pub(crate) const VALUE_BYTES_MAX: usize = 4096;
/// Room for one copy of a segment's header, with all meta cells at their largest.
pub(crate) const HEADER_ROOM_BYTES: u64 = 20 << 10;
/// Copies of a segment's header at its beginning: one flipped bit must not cost the cells.
pub(crate) const HEADER_COPIES: u64 = 2;
/// Where the first frame of a segment begins.
pub(crate) const FRAMES_AT: u64 = HEADER_COPIES * HEADER_ROOM_BYTES;

/// First bytes of a segment.
const MAGIC: &[u8; 8] = b"HFSEGMNT";

/// Key of the row that says whose the storage engine is.
pub(crate) const OWNER_KEY: &[u8] = b"h";
const CHUNK_PREFIX: u8 = b'c';
const NAMES_PREFIX: u8 = b'n';
const TRAILER_PREFIX: u8 = b'u';

/// Bytes of a chunk's name: the first ones of its SHA-256.
pub(crate) const NAME_BYTES: usize = 16;
/// What a chunk is called: equal chunks have one name, and are stored once.
pub(crate) type ChunkName = [u8; NAME_BYTES];

pub(crate) fn trailer_key(snapshot_id: u64) -> [u8; 9] {
    numbered(TRAILER_PREFIX, snapshot_id)
}

/// Where a snapshot keeps the names of its chunks; `index` counts rows of many names.
pub(crate) fn names_key(snapshot_id: u64, index: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[..9].copy_from_slice(&numbered(NAMES_PREFIX, snapshot_id));
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn chunk_key(name: &ChunkName) -> [u8; 1 + NAME_BYTES] {
    let mut key = [CHUNK_PREFIX; 1 + NAME_BYTES];
    key[1..].copy_from_slice(name);
    key
}

fn numbered(prefix: u8, number: u64) -> [u8; 9] {
    let mut key = [prefix; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number after the prefix of a trailer key; `None` for a key of another shape.
pub(crate) fn key_number(key: &[u8]) -> Option<u64> {
    key.get(1..9)
        .map(|number| u64::from_be_bytes(number.try_into().expect("a range of eight")))
}

/// Reads fields off the front of a value; `None` when it is too short.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N).map(|front| front.try_into().expect("split at N"))
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn head(&mut self) -> Option<Head> {
        Some(Head {
            sequence: self.u64()?,
            hash: self.array()?,
        })
    }
}

/// Writes a head as [`Fields::head`] reads it.
pub(crate) fn put_head(bytes: &mut Vec<u8>, head: Head) {
    bytes.extend_from_slice(&head.sequence.to_le_bytes());
    bytes.extend_from_slice(&head.hash);
}

/// A value guarded by a crc that also covers its key, so that a row in another's place is noticed.
pub(crate) fn seal_row(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = row_crc(key, content).to_le_bytes().to_vec();
    value.extend_from_slice(content);
    value
}

/// The content of a sealed row, `None` if its crc does not fit.
pub(crate) fn open_row<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let mut fields = Fields(value);
    let crc = fields.u32()?;
    (crc == row_crc(key, fields.0)).then_some(fields.0)
}

fn row_crc(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// Whose a journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) format_version: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) kind: String,
}

/// What a segment begins with: enough to go on from it without the segments before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) owner: Owner,
    /// The head before its first frame.
    pub(crate) before: Head,
    /// Ordinal of its first frame.
    pub(crate) ordinal: u64,
    /// All meta cells as they were then.
    pub(crate) cells: BTreeMap<String, Vec<u8>>,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It does not check.
    Damaged,
    /// It is whole, and of this newer layout.
    Newer(u32),
}

impl SegmentHeader {
    /// magic | crc u32 over what follows | length of what follows the length u32 | layout u32 | format u32 | store id |
    /// head before | ordinal u64 | kind length u8, kind | cells u16, each as in a frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        content.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
        content.extend_from_slice(&self.owner.format_version.to_le_bytes());
        content.extend_from_slice(&self.owner.store_id);
        put_head(&mut content, self.before);
        content.extend_from_slice(&self.ordinal.to_le_bytes());
        content.push(u8::try_from(self.owner.kind.len()).expect("a kind is a short word"));
        content.extend_from_slice(self.owner.kind.as_bytes());
        let count = u16::try_from(self.cells.len()).expect("cells are few");
        content.extend_from_slice(&count.to_le_bytes());
        for (name, cell) in &self.cells {
            content.push(u8::try_from(name.len()).expect("a cell's name is 64 bytes at most"));
            content.extend_from_slice(name.as_bytes());
            let length = u16::try_from(cell.len()).expect("a cell is 1 KiB at most");
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(cell);
        }
        let length = u32::try_from(content.len()).expect("a header is a few KiB");
        let mut bytes = MAGIC.to_vec();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&length.to_le_bytes());
        hasher.update(&content);
        bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&content);
        debug_assert!(
            bytes.len() as u64 <= HEADER_ROOM_BYTES,
            "the cells' limits bound a header"
        );
        bytes
    }

    /// Reads one copy.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let content = checked(bytes).ok_or(HeaderFault::Damaged)?;
        let mut fields = Fields(content);
        let layout_version = fields.u32().ok_or(HeaderFault::Damaged)?;
        if layout_version > LAYOUT_VERSION {
            return Err(HeaderFault::Newer(layout_version));
        }
        Self::decode_content(fields).ok_or(HeaderFault::Damaged)
    }

    fn decode_content(mut fields: Fields<'_>) -> Option<SegmentHeader> {
        let format_version = fields.u32()?;
        let store_id = fields.array()?;
        let before = fields.head()?;
        let ordinal = fields.u64()?;
        let [length] = fields.array()?;
        let kind = String::from_utf8(fields.bytes(usize::from(length))?.to_vec()).ok()?;
        let mut cells = BTreeMap::new();
        for _ in 0..fields.u16()? {
            let [length] = fields.array()?;
            let name = String::from_utf8(fields.bytes(usize::from(length))?.to_vec()).ok()?;
            let length = fields.u16()?;
            cells.insert(name, fields.bytes(usize::from(length))?.to_vec());
        }
        let owner = Owner {
            format_version,
            store_id,
            kind,
        };
        Some(SegmentHeader {
            owner,
            before,
            ordinal,
            cells,
        })
    }
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(bytes);
    if fields.bytes(MAGIC.len())? != MAGIC {
        return None;
    }
    let crc = fields.u32()?;
    let length = fields.u32()?;
    let content = fields.bytes(length as usize)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(content);
    (hasher.finalize() == crc).then_some(content)
}
