//! Frames between host and PN532.
//!
//! ```text
//! data    00.. 00 FF  LEN LCS  TFI PAYLOAD..  DCS  00      LEN + LCS = 0, TFI + PAYLOAD + DCS = 0 (modulo 256)
//! ACK     00.. 00 FF  00 FF  00
//! NACK    00.. 00 FF  FF 00  00
//! error   00.. 00 FF  01 FF  7F  81  00
//! ```
//!
//! LEN counts TFI and payload; TFI says who speaks. Extended frames (LEN and LCS both FF) are longer than anything that
//! is asked for here, and are noise.

use heapless::Vec;

/// TFI of what the host says.
pub const TO_READER: u8 = 0xD4;
/// TFI of what the reader says.
pub const FROM_READER: u8 = 0xD5;
/// TFI of an error frame.
const ERROR: u8 = 0x7F;
/// The longest payload that is understood. A card's answer has 17 bytes, and up to 40 more if it speaks ISO 14443-4.
pub const PAYLOAD_BYTES_MAX: usize = 64;
/// The longest frame that is understood, from `00 FF` to DCS, and with all around it.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 8;

/// Understood.
pub const ACK: [u8; 6] = [0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00];
/// Say again.
pub const NACK: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00];
/// Not a command.
pub const ERROR_FRAME: [u8; 8] = [0x00, 0x00, 0xFF, 0x01, 0xFF, 0x7F, 0x81, 0x00];

/// What a frame carries, beginning with the code of the command.
pub type Payload = Vec<u8, PAYLOAD_BYTES_MAX>;
/// A frame on the wire.
pub type FrameBytes = Vec<u8, FRAME_BYTES_MAX>;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Understood.
    Ack,
    /// Say again.
    Nack,
    /// Not a command.
    Error,
    /// A command or an answer.
    Data(Payload),
}

/// A data frame; `None` if the payload is empty or too long.
#[must_use]
pub fn encode(tfi: u8, payload: &[u8]) -> Option<FrameBytes> {
    let len = u8::try_from(payload.len() + 1).ok()?;
    if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut bytes = FrameBytes::new();
    bytes
        .extend_from_slice(&[0x00, 0x00, 0xFF, len, len.wrapping_neg(), tfi])
        .ok()?;
    bytes.extend_from_slice(payload).ok()?;
    let sum = payload.iter().fold(tfi, |sum, byte| sum.wrapping_add(*byte));
    bytes.extend_from_slice(&[sum.wrapping_neg(), 0x00]).ok()?;
    Some(bytes)
}

/// What the beginning of a row of bytes is.
enum Found {
    /// It may become a frame.
    Begun,
    /// It is none.
    Noise,
    /// A frame of so many bytes.
    Frame(Frame, usize),
}

/// Finds frames in a stream of bytes. What cannot be the beginning of a frame is dropped byte by byte, so a frame is
/// found wherever it begins, and a bad checksum costs this frame only.
#[derive(Clone, Debug)]
pub struct Decoder {
    tfi: u8,
    bytes: FrameBytes,
    dropped: u32,
}

impl Decoder {
    /// A decoder for what this side says: [`FROM_READER`] or [`TO_READER`].
    #[must_use]
    pub const fn new(tfi: u8) -> Self {
        Self {
            tfi,
            bytes: FrameBytes::new(),
            dropped: 0,
        }
    }

    /// Takes the next byte in. Take all of [`Self::frame`] after each.
    pub fn push(&mut self, byte: u8) {
        if self.bytes.is_full() {
            // Only if the frames were not taken.
            self.drop_first(1);
        }
        // There is room.
        let _ = self.bytes.push(byte);
    }

    /// The next frame that is complete.
    pub fn frame(&mut self) -> Option<Frame> {
        while !self.bytes.is_empty() {
            match self.find() {
                Found::Begun => return None,
                Found::Noise => self.drop_first(1),
                Found::Frame(frame, len) => {
                    self.take_first(len);
                    return Some(frame);
                }
            }
        }
        None
    }

    /// Forgets what has begun.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Bytes that belonged to no frame. Preambles and postambles are zeros, as many as the sender likes, and count here
    /// only where something else is among them.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Looks at the beginning, which for a frame is `00 FF`; the zeros around are skipped like noise.
    fn find(&self) -> Found {
        match &self.bytes[..] {
            [0x00] | [0x00, 0xFF] | [0x00, 0xFF, _] => Found::Begun,
            [0x00, 0xFF, 0x00, 0xFF, ..] => Found::Frame(Frame::Ack, 4),
            [0x00, 0xFF, 0xFF, 0x00, ..] => Found::Frame(Frame::Nack, 4),
            [0x00, 0xFF, len, lcs, rest @ ..] if *len > 0 && len.wrapping_add(*lcs) == 0 => {
                self.find_data(usize::from(*len), rest)
            }
            _ => Found::Noise,
        }
    }

    /// `rest` begins with TFI, and DCS follows after `len` bytes.
    fn find_data(&self, len: usize, rest: &[u8]) -> Found {
        if len > PAYLOAD_BYTES_MAX + 1 {
            return Found::Noise;
        }
        let Some(summed) = rest.get(..=len) else {
            return Found::Begun;
        };
        if summed.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
            return Found::Noise;
        }
        let frame = match summed {
            [ERROR, _] => Some(Frame::Error),
            [tfi, payload @ .., _] if *tfi == self.tfi && !payload.is_empty() => {
                Payload::from_slice(payload).ok().map(Frame::Data)
            }
            _ => None,
        };
        frame.map_or(Found::Noise, |frame| Found::Frame(frame, len + 5))
    }

    /// Noise, if it is more than a zero around a frame.
    fn drop_first(&mut self, len: usize) {
        if self.bytes.first() != Some(&0x00) {
            self.dropped = self.dropped.saturating_add(len as u32);
        }
        self.take_first(len);
    }

    fn take_first(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
    }
}
