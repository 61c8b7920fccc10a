//! Firmware: the signed image, and how it travels from gateway to device.
//!
//! An image file is made by `holdfast image sign`:
//!
//! ```text
//! offset  length  content
//! 0       4       magic "HFFW"
//! 4       1       version: 1
//! 5       1       0
//! 6       2       length n of the envelope, little endian
//! 8       n       envelope of kind firmware over `manifest` in schema/v1.cddl
//! 8 + n   length  the image, as it lies in flash
//! ```
//! The manifest names the hash of the image, so its signature covers every byte. The device checks the manifest before it
//! erases anything, and the image as it lies in its flash before it runs it.
//!
//! On the wire: the gateway says [`Offer`], the device answers with [`Update`], which names the piece that it wants next; the
//! gateway says that [`Piece`].

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    codec,
    id::{Hash, Kind, Name},
    message::Stamp,
    trust::{self, ArtifactKind, ENVELOPE_OVERHEAD_BYTES, IssuerKey},
    wire::wire_enum,
};

pub use crate::wire::Octets;

#[cfg(feature = "host")]
mod file;
#[cfg(feature = "host")]
pub use file::{FileError, SignedImage, sign, stamp};

/// Most keys that may sign firmware for a device: the present one and the next.
pub const SIGNERS_MAX: usize = 2;
/// Longest envelope of a manifest, in bytes: the largest has 161, the rest is for fields to come.
pub const MANIFEST_BYTES_MAX: usize = 192;
/// Bytes of a piece; the last one is shorter. A page of any flash is a multiple of it, and its frame stays well below
/// [`crate::seal::FRAME_BYTES_MAX`].
pub const PIECE_BYTES: usize = 512;
/// Largest image, in bytes: the whole flash of the largest board.
pub const IMAGE_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// What is signed of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The board that it is linked for.
    pub board: Name,
    /// What it dispenses.
    pub kind: Kind,
    /// Its number, above 0. A device never goes back below one that it confirmed.
    pub version: u32,
    /// Its length in bytes.
    pub length: u32,
    /// SHA-256 of it.
    pub hash: Hash,
}

/// What a device takes firmware for.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its board.
    pub board: &'a Name,
    /// What it dispenses.
    pub kind: Kind,
    /// Only versions above this one.
    pub above: u32,
    /// Longest image that fits, in bytes.
    pub room: u32,
    /// Who may sign.
    pub signers: &'a [IssuerKey],
}

impl Manifest {
    /// Opens the envelope of a manifest and checks that it is for this device.
    ///
    /// # Errors
    /// [`Fault`]: what is wrong first. Beside it the version that the manifest names, as far as it is believed.
    #[inline(never)]
    pub fn open(envelope: &[u8], here: &Here<'_>) -> Result<Self, (Fault, u32)> {
        if here.signers.is_empty() {
            return Err((Fault::Untaken, 0));
        }
        if envelope.len() > MANIFEST_BYTES_MAX {
            return Err((Fault::Forged, 0));
        }
        let mut scratch = [0; MANIFEST_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES];
        let payload = trust::open(ArtifactKind::Firmware, envelope, here.signers, &mut scratch);
        let payload = payload.map_err(|_| (Fault::Forged, 0))?;
        let manifest: Self = codec::decode(payload).map_err(|_| (Fault::Forged, 0))?;
        let fault = if manifest.board != *here.board {
            Fault::Board
        } else if manifest.kind != here.kind {
            Fault::Kind
        } else if manifest.version <= here.above {
            Fault::Old
        } else if manifest.length == 0 || manifest.length > here.room {
            Fault::Long
        } else {
            return Ok(manifest);
        };
        Err((fault, manifest.version))
    }
}

wire_enum! {
    /// How an update stands.
    State {
        /// A state of a newer version.
        Other = 0,
        /// Nothing is under way; `fault` says how the last one ended.
        Idle = 1,
        /// Being fetched: the piece at `offset` is wanted.
        Fetching = 2,
        /// Fetched; installed as soon as nobody draws and nobody has a session.
        Waiting = 3,
        /// Installed, and running on trial.
        Trial = 4,
    } else Other
}

wire_enum! {
    /// Why an image was not taken, or went back.
    Fault {
        /// A reason of a newer version.
        Other = 0,
        /// Nothing is wrong.
        None = 1,
        /// The device was provisioned without a key that may sign firmware.
        Untaken = 2,
        /// The manifest is signed by nobody whom the device believes.
        Forged = 3,
        /// For another board.
        Board = 4,
        /// For another kind.
        Kind = 5,
        /// Not above the version that runs, and above every version that was ever confirmed.
        Old = 6,
        /// Larger than its place in flash.
        Long = 7,
        /// What lies in flash is not what was signed.
        Damaged = 8,
        /// The flash could not be erased or written.
        Flash = 9,
        /// On trial, records could not be written, or an input gave no reading.
        SelfTest = 10,
        /// On trial, the gateway did not answer its hello in time.
        Unheard = 11,
        /// On trial, it was started again before it was confirmed: it crashed, hung, or lost its power.
        Crashed = 12,
    } else Other
}

impl Fault {
    /// The word for people and exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::None => "none",
            Self::Untaken => "no key that may sign firmware was provisioned",
            Self::Forged => "not signed by a key that the device believes",
            Self::Board => "for another board",
            Self::Kind => "for another kind of device",
            Self::Old => "its version is not above what the device runs or once confirmed",
            Self::Long => "larger than its place in flash",
            Self::Damaged => "what the device has in flash is not what was signed",
            Self::Flash => "the device's flash could not be written",
            Self::SelfTest => "the self-test on trial failed",
            Self::Unheard => "on trial the gateway did not answer its hello in time",
            Self::Crashed => "on trial it crashed, hung or lost its power",
        }
    }

    /// Whether it ended a trial: the image ran, and the device went back.
    #[must_use]
    pub const fn is_of_trial(self) -> bool {
        matches!(self, Self::SelfTest | Self::Unheard | Self::Crashed)
    }
}

/// Device to gateway: which firmware it runs, and how its update stands. Said after every hello, and whenever it changes;
/// while an image is being fetched, until the piece is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Version of the image that runs; 0: it was flashed by hand and never given one.
    pub version: u32,
    /// Highest version that was ever confirmed.
    pub floor: u32,
    /// How the update stands.
    pub state: State,
    /// Version that `state` and `fault` speak of; 0: none, or one that was not believed.
    pub offered: u32,
    /// What was wrong with it.
    pub fault: Fault,
    /// The piece that is wanted, as its place in the image in bytes: a multiple of [`PIECE_BYTES`].
    pub offset: u32,
    /// When.
    pub at: Stamp,
}

/// Gateway to device: an image is to be had. Answered by [`Update`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Envelope of its [`Manifest`].
    pub manifest: Octets<MANIFEST_BYTES_MAX>,
}

/// Gateway to device: a piece of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Of which version.
    pub version: u32,
    /// Where it belongs, in bytes from the beginning.
    pub offset: u32,
    /// Its bytes: [`PIECE_BYTES`], or what is left.
    pub bytes: Octets<PIECE_BYTES>,
}

const LABEL_MAGIC: [u8; 16] = *b"holdfast image 1";
const LABEL_BOARD: usize = LABEL_MAGIC.len();
const LABEL_KIND: usize = LABEL_BOARD + 20;
const LABEL_VERSION: usize = LABEL_KIND + 4;
/// Length of a [`Label`], in bytes.
pub const LABEL_BYTES: usize = LABEL_VERSION + 4;

/// What an image says about itself, once, anywhere in it:
/// `"holdfast image 1" | board, 20 bytes, zeros behind it | kind (1) | 0, 0, 0 | version (4, little endian)`.
/// It is built with version 0; signing stamps the version into it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Label([u8; LABEL_BYTES]);

impl Label {
    /// The label of an image without a version.
    ///
    /// # Panics
    /// If the board's name has more than 20 bytes; at compile time.
    #[must_use]
    pub const fn new(board: &str, kind: Kind) -> Self {
        let mut bytes = [0; LABEL_BYTES];
        let (magic, board) = (&LABEL_MAGIC, board.as_bytes());
        assert!(board.len() <= LABEL_KIND - LABEL_BOARD, "a name has at most 20 bytes");
        let mut i = 0;
        while i < magic.len() {
            bytes[i] = magic[i];
            i += 1;
        }
        i = 0;
        while i < board.len() {
            bytes[LABEL_BOARD + i] = board[i];
            i += 1;
        }
        bytes[LABEL_KIND] = kind.code();
        Self(bytes)
    }

    /// As it stands in the image.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; LABEL_BYTES] {
        &self.0
    }

    /// The version that was stamped into it; 0: none. It is read where it lies, as signing left it, and not as it was built.
    #[must_use]
    #[inline(never)]
    pub fn version(&self) -> u32 {
        let bytes = &core::hint::black_box(self).0;
        let mut version = [0; 4];
        version.copy_from_slice(&bytes[LABEL_VERSION..]);
        u32::from_le_bytes(version)
    }
}

/// SHA-256 of an image that is read piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes in what follows.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything.
    #[must_use]
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}
