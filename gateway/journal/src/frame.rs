//! Frames: what one append writes, whole or not at all.
//!
//! A frame is a header of 68 bytes and a body, filled up to a multiple of four. Integers are little-endian. Header: magic
//! `HFf2` | crc u32 over store id and the rest of the header | crc u32 over the body | body length u32 | ordinal u64 |
//! first sequence u64 | records u16 | cells u16 | chain hash before the first record, 32 bytes. Body: per cell name length
//! u8, name, content length u16, content; then per record length u16, bytes. Checksums are CRC-32 (IEEE 802.3).
//!
//! Ordinals count the frames of a store from 1 without a gap, those that hold cells alone included. The store's id in the
//! checksum keeps frames of another store from ever counting, the ordinal those that a reused segment still holds.

use crate::chain::Head;
use crate::format::Fields;

const MAGIC: [u8; 4] = *b"HFf2";
/// Bytes before the body.
pub(crate) const FRAME_HEADER_BYTES: usize = 68;
/// Frames begin at multiples of this, so that a search for the next whole one may take steps.
pub(crate) const FRAME_ALIGN_BYTES: usize = 4;

/// The checked header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) ordinal: u64,
    /// Sequence of its first record; of the next one if it holds cells alone.
    pub(crate) first: u64,
    pub(crate) records: u16,
    pub(crate) cells: u16,
    pub(crate) previous: [u8; 32],
    pub(crate) body_bytes: u32,
    body_crc: u32,
}

impl FrameHeader {
    /// Reads what stands at the front of `bytes`; `None` if it is no header of this store.
    pub(crate) fn decode(store_id: &[u8; 16], bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC || fields.u32()? != header_crc(store_id, bytes) {
            return None;
        }
        let (body_crc, body_bytes) = (fields.u32()?, fields.u32()?);
        let (ordinal, first) = (fields.u64()?, fields.u64()?);
        let header = FrameHeader {
            ordinal,
            first,
            records: fields.u16()?,
            cells: fields.u16()?,
            previous: fields.array()?,
            body_bytes,
            body_crc,
        };
        let is_sane = first > 0 && first.checked_add(u64::from(header.records)).is_some();
        is_sane.then_some(header)
    }

    /// Sequence of the next frame's first record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.records)
    }

    /// The head before it.
    pub(crate) fn before(&self) -> Head {
        Head {
            sequence: self.first - 1,
            hash: self.previous,
        }
    }

    /// Bytes up to where the next frame may begin.
    pub(crate) fn frame_bytes(&self) -> usize {
        (FRAME_HEADER_BYTES + self.body_bytes as usize).next_multiple_of(FRAME_ALIGN_BYTES)
    }

    /// The body's cells and records, if it is the one that was written.
    pub(crate) fn open<'a>(&self, body: &'a [u8]) -> Option<Body<'a>> {
        if body.len() != self.body_bytes as usize || crc32fast::hash(body) != self.body_crc {
            return None;
        }
        let mut fields = Fields(body);
        let mut cells = Vec::with_capacity(usize::from(self.cells));
        for _ in 0..self.cells {
            let [length] = fields.array()?;
            let name = std::str::from_utf8(fields.bytes(usize::from(length))?).ok()?;
            let length = fields.u16()?;
            cells.push((name, fields.bytes(usize::from(length))?));
        }
        let records = fields.0;
        for _ in 0..self.records {
            let length = fields.u16()?;
            fields.bytes(usize::from(length))?;
        }
        fields.0.is_empty().then_some(Body { cells, records })
    }
}

/// What a checked frame holds.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) cells: Vec<(&'a str, &'a [u8])>,
    records: &'a [u8],
}

impl<'a> Body<'a> {
    /// The records in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut fields = Fields(self.records);
        std::iter::from_fn(move || {
            let length = fields.u16()?;
            fields.bytes(usize::from(length))
        })
    }
}

/// Packs one frame into a buffer that is kept from one append to the next.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    bytes: Vec<u8>,
    records: u16,
    cells: u16,
    before: Option<Head>,
    head: Option<Head>,
}

impl FrameWriter {
    /// Begins a frame that follows `head`.
    pub(crate) fn begin(&mut self, head: Head) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES, 0);
        (self.records, self.cells) = (0, 0);
        (self.before, self.head) = (Some(head), Some(head));
    }

    /// Adds a cell; all cells come before the first record. The caller has checked the limits.
    pub(crate) fn cell(&mut self, name: &str, content: &[u8]) {
        let length = u8::try_from(name.len()).expect("a cell's name is 64 bytes at most");
        self.bytes.push(length);
        self.bytes.extend_from_slice(name.as_bytes());
        let length = u16::try_from(content.len()).expect("a cell is 1 KiB at most");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(content);
        self.cells += 1;
    }

    /// Adds a record. The caller has checked the limits.
    pub(crate) fn record(&mut self, record: &[u8]) {
        let length = u16::try_from(record.len()).expect("a record is 3.5 KiB at most");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
        self.head = self.head.map(|head| head.next(record));
    }

    /// Ends the frame: its bytes, and the head after it.
    pub(crate) fn finish(&mut self, store_id: &[u8; 16], ordinal: u64) -> (&[u8], Head) {
        let (before, head) = self.before.zip(self.head).expect("a frame was begun");
        let body_bytes = self.bytes.len() - FRAME_HEADER_BYTES;
        let length = u32::try_from(body_bytes).expect("a frame is 4 MiB at most");
        let body_crc = crc32fast::hash(&self.bytes[FRAME_HEADER_BYTES..]);
        let header = &mut self.bytes[..FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&body_crc.to_le_bytes());
        header[12..16].copy_from_slice(&length.to_le_bytes());
        header[16..24].copy_from_slice(&ordinal.to_le_bytes());
        header[24..32].copy_from_slice(&(before.sequence + 1).to_le_bytes());
        header[32..34].copy_from_slice(&self.records.to_le_bytes());
        header[34..36].copy_from_slice(&self.cells.to_le_bytes());
        header[36..].copy_from_slice(&before.hash);
        let crc = header_crc(store_id, header);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        let filled = self.bytes.len().next_multiple_of(FRAME_ALIGN_BYTES);
        self.bytes.resize(filled, 0);
        (&self.bytes, head)
    }

    /// Sequence of its first record, or of the next one.
    pub(crate) fn first(&self) -> u64 {
        self.before.map_or(1, |before| before.sequence + 1)
    }

    /// Bytes of the frame so far, as it will be written.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.bytes.len().next_multiple_of(FRAME_ALIGN_BYTES)
    }
}

fn header_crc(store_id: &[u8; 16], header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(store_id);
    hasher.update(&header[8..FRAME_HEADER_BYTES]);
    hasher.finalize()
}
