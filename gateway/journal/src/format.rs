//! Bytes of the store: its keys, the header, groups of records, checksummed cells.
//!
//! One tree, told apart by the first byte of the key:
//! `f` floor, `h` header, `m`+name meta cells, `r`+sequence groups, `s`+id+index snapshot chunks, `t`+id snapshot
//! trailers. Integers in keys are big-endian so that key order is number order; integers in values are little-endian.
//!
//! A group is the value of one key and holds consecutive records of one append:
//! crc u32 over the frame | first sequence u64 | last sequence of the whole append u64 | chain hash before the first
//! record, 32 bytes | count u16 | then per record: length u16 | crc u32 over sequence and bytes | bytes.

use crate::error::ReadError;

/// Largest value stored in sled. Larger ones make its nodes spill to files under `blobs/`, which it never syncs.
pub(crate) const VALUE_BYTES_MAX: usize = 4096;
/// Layout version of everything in this module; raised when an older program would misread it.
pub(crate) const LAYOUT_VERSION: u32 = 1;
/// First bytes of the header.
const MAGIC: &[u8; 8] = b"HFJOURNL";
/// The kind is a short word; the limit keeps the header one small value.
pub(crate) const KIND_BYTES_MAX: usize = 32;

const FRAME_BYTES: usize = 4 + 8 + 8 + 32 + 2;
const RECORD_OVERHEAD_BYTES: usize = 2 + 4;

pub(crate) const HEADER_KEY: &[u8] = b"h";
pub(crate) const FLOOR_KEY: &[u8] = b"f";

const GROUP_PREFIX: u8 = b'r';
const CHUNK_PREFIX: u8 = b's';
const TRAILER_PREFIX: u8 = b't';
const META_PREFIX: u8 = b'm';

pub(crate) fn group_key(first_sequence: u64) -> [u8; 9] {
    numbered(GROUP_PREFIX, first_sequence)
}

pub(crate) fn trailer_key(snapshot_id: u64) -> [u8; 9] {
    numbered(TRAILER_PREFIX, snapshot_id)
}

pub(crate) fn chunk_key(snapshot_id: u64, index: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[..9].copy_from_slice(&numbered(CHUNK_PREFIX, snapshot_id));
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn meta_key(name: &str) -> Vec<u8> {
    let mut key = vec![META_PREFIX];
    key.extend_from_slice(name.as_bytes());
    key
}

fn numbered(prefix: u8, number: u64) -> [u8; 9] {
    let mut key = [prefix; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number after the prefix of a group, chunk or trailer key; `None` for a key of another shape.
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
}

/// A value guarded by a crc that also covers its key, so that a cell in another's place is noticed.
pub(crate) fn seal_cell(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = cell_crc(key, content).to_le_bytes().to_vec();
    value.extend_from_slice(content);
    value
}

/// The content of a sealed cell, `None` if its crc does not fit.
pub(crate) fn open_cell<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let mut fields = Fields(value);
    let crc = fields.u32()?;
    (crc == cell_crc(key, fields.0)).then_some(fields.0)
}

fn cell_crc(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// What the header says about a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) layout_version: u32,
    pub(crate) format_version: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) kind: String,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(&self.layout_version.to_le_bytes());
        content.extend_from_slice(&self.format_version.to_le_bytes());
        content.extend_from_slice(&self.store_id);
        content.extend_from_slice(self.kind.as_bytes());
        seal_cell(HEADER_KEY, &content)
    }

    /// `None` if this is not a header of ours. A newer layout may only append fields before `kind` by raising the
    /// magic; its version is readable here either way.
    pub(crate) fn decode(value: &[u8]) -> Option<Header> {
        let mut fields = Fields(open_cell(HEADER_KEY, value)?);
        if fields.bytes(MAGIC.len())? != MAGIC {
            return None;
        }
        Some(Header {
            layout_version: fields.u32()?,
            format_version: fields.u32()?,
            store_id: fields.array()?,
            kind: String::from_utf8(fields.0.to_vec()).ok()?,
        })
    }
}

/// Packs consecutive records into one value.
pub(crate) struct GroupWriter {
    first_sequence: u64,
    count: u16,
    value: Vec<u8>,
}

impl GroupWriter {
    pub(crate) fn new(first_sequence: u64, batch_last: u64, previous: &[u8; 32]) -> GroupWriter {
        let mut value = Vec::with_capacity(VALUE_BYTES_MAX);
        value.extend_from_slice(&[0; 4]);
        value.extend_from_slice(&first_sequence.to_le_bytes());
        value.extend_from_slice(&batch_last.to_le_bytes());
        value.extend_from_slice(previous);
        value.extend_from_slice(&[0; 2]);
        GroupWriter {
            first_sequence,
            count: 0,
            value,
        }
    }

    pub(crate) fn has_room_for(&self, record: &[u8]) -> bool {
        self.value.len() + RECORD_OVERHEAD_BYTES + record.len() <= VALUE_BYTES_MAX
    }

    pub(crate) fn push(&mut self, record: &[u8]) {
        assert!(
            self.has_room_for(record),
            "the caller starts a new group when a record does not fit"
        );
        let sequence = self.first_sequence + u64::from(self.count);
        let length = u16::try_from(record.len()).expect("a value is at most 4 KiB");
        self.value.extend_from_slice(&length.to_le_bytes());
        self.value
            .extend_from_slice(&record_crc(sequence, record).to_le_bytes());
        self.value.extend_from_slice(record);
        self.count += 1;
    }

    pub(crate) fn finish(mut self) -> ([u8; 9], Vec<u8>) {
        self.value[FRAME_BYTES - 2..FRAME_BYTES].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32fast::hash(&self.value[4..FRAME_BYTES]);
        self.value[..4].copy_from_slice(&crc.to_le_bytes());
        (group_key(self.first_sequence), self.value)
    }
}

fn record_crc(sequence: u64, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// A group whose frame is intact; its records are checked as they are read.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) first_sequence: u64,
    pub(crate) batch_last: u64,
    pub(crate) previous: [u8; 32],
    pub(crate) count: u16,
    records: Fields<'a>,
    next: u64,
}

impl<'a> Group<'a> {
    /// Checks the frame of the group found at the key of `sequence`.
    pub(crate) fn decode(sequence: u64, value: &'a [u8]) -> Result<Group<'a>, ReadError> {
        let damaged = |what| ReadError::GroupDamaged { sequence, what };
        let mut fields = Fields(value);
        let frame = value
            .get(4..FRAME_BYTES)
            .ok_or_else(|| damaged("shorter than its frame"))?;
        let crc = fields.u32().ok_or_else(|| damaged("shorter than its frame"))?;
        if crc != crc32fast::hash(frame) {
            return Err(damaged("its frame does not match its checksum"));
        }
        let group = (|| {
            let (first_sequence, batch_last) = (fields.u64()?, fields.u64()?);
            let (previous, count) = (fields.array()?, fields.u16()?);
            Some(Group {
                first_sequence,
                batch_last,
                previous,
                count,
                records: fields,
                next: first_sequence,
            })
        })()
        .ok_or_else(|| damaged("shorter than its frame"))?;
        if group.first_sequence != sequence {
            return Err(ReadError::Misplaced {
                expected: sequence,
                found: group.first_sequence,
            });
        }
        if group.count == 0 || group.first_sequence == 0 {
            return Err(damaged("it holds no record"));
        }
        if group.first_sequence.checked_add(u64::from(group.count)).is_none() {
            return Err(damaged("its sequences overflow"));
        }
        Ok(group)
    }

    /// Sequence of the last record, as the frame has it.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.count) - 1
    }

    fn next_record(&mut self) -> Result<(u64, &'a [u8]), ReadError> {
        let sequence = self.next;
        let damaged = |what| ReadError::GroupDamaged {
            sequence: self.first_sequence,
            what,
        };
        let (length, crc) = self
            .records
            .u16()
            .zip(self.records.u32())
            .ok_or_else(|| damaged("it ends inside a record"))?;
        // A length that lies is damage of this record as much as a flipped byte in its content.
        let bytes = self
            .records
            .bytes(usize::from(length))
            .ok_or(ReadError::RecordChecksum { sequence })?;
        if crc != record_crc(sequence, bytes) {
            return Err(ReadError::RecordChecksum { sequence });
        }
        if sequence == self.last_sequence() && !self.records.0.is_empty() {
            return Err(damaged("bytes follow its last record"));
        }
        self.next += 1;
        Ok((sequence, bytes))
    }
}

impl<'a> Iterator for Group<'a> {
    type Item = Result<(u64, &'a [u8]), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next <= self.last_sequence()).then(|| self.next_record())
    }
}
