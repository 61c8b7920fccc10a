//! One order: an image for one device, and what the device says to it.

use std::path::{Path, PathBuf};

use proto::{
    id::{DeviceId, Kind},
    trust::IssuerKey,
    update::{Fault, Here, IMAGE_BYTES_MAX, Manifest, Octets, Offer, PIECE_BYTES, Piece, SignedImage, State, Update},
};

use super::FILE_BYTES_MAX;
use crate::files;

/// What is answered to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "pieces are what is answered most")]
pub(super) enum Answer {
    Nothing,
    Offer(Offer),
    Piece(Piece),
    Confirmed(u32),
    Failed(u32, Fault),
}

pub(super) struct Order {
    image: SignedImage,
    offered: bool,
    accepted: bool,
}

impl Order {
    pub(super) const fn new(image: SignedImage) -> Self {
        Self {
            image,
            offered: false,
            accepted: false,
        }
    }

    pub(super) const fn version(&self) -> u32 {
        self.image.manifest.version
    }

    pub(super) const fn length(&self) -> u32 {
        self.image.manifest.length
    }

    pub(super) const fn is_accepted(&self) -> bool {
        self.accepted
    }

    pub(super) fn offer(&mut self) -> Offer {
        self.offered = true;
        Offer {
            manifest: Octets::new(&self.image.envelope).expect("reading the file refused a longer one"),
        }
    }

    pub(super) fn heard(&mut self, update: &Update) -> Answer {
        let version = self.version();
        let is_ours = update.offered == version;
        match update.state {
            State::Fetching if is_ours => {
                self.accepted = true;
                self.piece(update.offset).map_or(Answer::Nothing, Answer::Piece)
            }
            State::Waiting | State::Trial if is_ours => {
                self.accepted = true;
                Answer::Nothing
            }
            State::Idle if update.version == version => Answer::Confirmed(version),
            State::Idle if self.is_refused(update) => Answer::Failed(version, update.fault),
            // It does not know of the order, or is at another one.
            State::Idle | State::Fetching | State::Waiting => Answer::Offer(self.offer()),
            State::Trial | State::Other => Answer::Nothing,
        }
    }

    /// Whether an idle device speaks of this order. How a trial of the same version ended once before is no answer to it,
    /// and said at every hello.
    fn is_refused(&self, update: &Update) -> bool {
        match update.fault {
            Fault::None => false,
            // An offer that was not believed names no version.
            Fault::Untaken | Fault::Forged => self.offered && update.offered == 0,
            fault if fault.is_of_trial() => self.accepted && update.offered == self.version(),
            Fault::Board
            | Fault::Kind
            | Fault::Old
            | Fault::Long
            | Fault::Damaged
            | Fault::Flash
            | Fault::SelfTest
            | Fault::Unheard
            | Fault::Crashed
            | Fault::Other => self.offered && update.offered == self.version(),
        }
    }

    fn piece(&self, offset: u32) -> Option<Piece> {
        let rest = self
            .image
            .image
            .get(offset as usize..)
            .filter(|rest| !rest.is_empty())?;
        Some(Piece {
            version: self.version(),
            offset,
            bytes: Octets::new(&rest[..rest.len().min(PIECE_BYTES)])?,
        })
    }
}

/// Whether an order makes sense at all; the device judges again, and for itself.
pub(super) fn check(
    image: &SignedImage,
    kind: Kind,
    heard: Option<&Update>,
    signers: &[IssuerKey],
) -> Result<(), String> {
    let here = Here {
        board: &image.manifest.board,
        kind,
        above: heard.map_or(0, |update| update.version.max(update.floor)),
        room: IMAGE_BYTES_MAX,
        signers,
    };
    let version = image.manifest.version;
    match Manifest::open(&image.envelope, &here) {
        Ok(_) => Ok(()),
        Err((Fault::Untaken, _)) => Err("trust.firmware_keys of the configuration names no key".to_owned()),
        Err((Fault::Forged, _)) => Err("not signed by a key of trust.firmware_keys".to_owned()),
        Err((Fault::Kind, _)) => Err(format!(
            "an image for a {}, the device is a {}",
            image.manifest.kind.word(),
            kind.word()
        )),
        Err((Fault::Old, _)) => Err(format!(
            "version {version} is not above {}, which the device runs or once confirmed",
            here.above
        )),
        Err((fault, _)) => Err(fault.word().to_owned()),
    }
}

pub(super) fn path(folder: &Path, device: &DeviceId) -> PathBuf {
    folder.join(format!("{device}.hff"))
}

pub(super) fn read(path: &Path) -> Result<SignedImage, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
    SignedImage::read(&bytes).map_err(|error| failed(&error))
}

/// Writes the order whole or not at all.
pub(super) fn keep(path: &Path, image: &SignedImage) -> Result<(), String> {
    files::replace(path, &image.write()).map_err(|error| format!("{}: {error}", path.display()))
}
