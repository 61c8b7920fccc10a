//! A sealed frame as text, for clouds that carry JSON: its word, its lane, and the frame in base64. Nothing here opens a
//! seal: whoever reads the frame finds out whether it is what its wrapping says.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use carrier::{Class, Symptom};
use proto::{
    link::LINK_FRAME_BYTES_MAX,
    topic::{Lane, LinkDown},
};
use serde::{Deserialize, Serialize};

use crate::cloud::adapter::{Heard, Up};

/// The standard alphabet. We write the padding, and read with and without it: backends are written in many languages.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// HTTP's code for a request that is wrong in itself.
pub(super) const CODE_MALFORMED: u16 = 400;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    /// The word of its canonical topic.
    pub w: String,
    /// The number of its lane.
    pub l: u8,
    /// The frame in base64.
    pub f: String,
}

/// Why a wrapping is not unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// No frame of the backend's is called so. `trouble` is none: it is not sealed, and a cloud has words of its own.
    #[error("{0:?} is no frame from the hub")]
    Word(String),
    /// Meant for another link.
    #[error("a frame of lane {found} on lane {own}")]
    Lane {
        /// Which lane it names.
        found: u8,
        /// Ours.
        own: u8,
    },
    /// Not base64.
    #[error("a frame that is not base64")]
    Base64,
    /// More bytes than a frame may have.
    #[error("a frame of {0} bytes is longer than {LINK_FRAME_BYTES_MAX}")]
    Long(usize),
}

impl From<BadFrame> for Heard {
    fn from(bad: BadFrame) -> Self {
        Self::Symptom(Symptom::new(Class::Protocol, CODE_MALFORMED, bad.to_string()))
    }
}

impl Wrapped {
    /// A frame of ours.
    #[must_use]
    pub fn of(up: &Up<'_>, lane: Lane) -> Self {
        Self {
            w: up.meaning.word().word().to_owned(),
            l: lane.number(),
            f: text(up.frame),
        }
    }

    /// A frame for us.
    ///
    /// # Errors
    /// [`BadFrame`] if it is none for this lane.
    pub fn open(&self, lane: Lane) -> Result<Heard, BadFrame> {
        if self.l != lane.number() {
            return Err(BadFrame::Lane {
                found: self.l,
                own: lane.number(),
            });
        }
        open(&self.w, &self.f)
    }
}

/// Reads JSON, all of which is UTF-8: of what is skipped the library would not look at that.
///
/// # Errors
/// Why it is none, in a sentence.
pub(super) fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The frame as text.
#[must_use]
pub fn text(frame: &[u8]) -> String {
    BASE64.encode(frame)
}

/// A frame for us, from its word and its text.
///
/// # Errors
/// [`BadFrame`] if it is none.
pub fn open(word: &str, text: &str) -> Result<Heard, BadFrame> {
    let sealed = |candidate: &&LinkDown| **candidate != LinkDown::Trouble && candidate.word() == word;
    let word = *LinkDown::ALL
        .iter()
        .find(sealed)
        .ok_or_else(|| BadFrame::Word(word.chars().take(WORD_CHARS_SHOWN).collect()))?;
    let frame = BASE64.decode(text).map_err(|_| BadFrame::Base64)?;
    if frame.len() > LINK_FRAME_BYTES_MAX {
        return Err(BadFrame::Long(frame.len()));
    }
    Ok(Heard::Frame {
        word,
        frame: Bytes::from(frame),
    })
}

/// Characters of an unknown word that are shown.
const WORD_CHARS_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_for_this_lane_is_named() {
        let check = |w: &str, l: u8, f: &str, expected: Result<&[u8], &str>| {
            let lane = Lane::new(1).unwrap();
            let (w, f) = (w.to_owned(), f.to_owned());
            let opened = Wrapped { w, l, f }.open(lane);
            match (&opened, expected) {
                (Ok(Heard::Frame { frame, .. }), Ok(bytes)) => assert_eq!(frame, bytes),
                (Err(bad), Err(sentence)) => assert_eq!(bad.to_string(), sentence),
                _ => panic!("{opened:?} instead of {expected:?}"),
            }
        };
        check("receipt", 1, "AQID", Ok(&[1, 2, 3]));
        check("receipt", 1, "AQIDBA==", Ok(&[1, 2, 3, 4]));
        check("receipt", 1, "AQIDBA", Ok(&[1, 2, 3, 4]));
        check("receipt", 0, "AQID", Err("a frame of lane 0 on lane 1"));
        check("trouble", 1, "AQID", Err("\"trouble\" is no frame from the hub"));
        check("hello", 1, "AQID", Err("\"hello\" is no frame from the hub"));
        check("receipt", 1, "<html>", Err("a frame that is not base64"));
        let long = text(&vec![0; LINK_FRAME_BYTES_MAX + 1]);
        check("receipt", 1, &long, Err("a frame of 65537 bytes is longer than 65536"));
    }
}
