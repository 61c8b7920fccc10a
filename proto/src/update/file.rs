//! The image file: what an operator signs, keeps, and gives to the gateway.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::{
    IMAGE_BYTES_MAX, LABEL_BOARD, LABEL_BYTES, LABEL_KIND, LABEL_MAGIC, LABEL_VERSION, MANIFEST_BYTES_MAX, Manifest,
};
use crate::{
    codec::{self, CodecError},
    id::{Hash, Kind, Name},
    trust::{self, ArtifactKind, Issuer, TrustError},
};

const MAGIC: [u8; 4] = *b"HFFW";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8;

/// Why bytes are no image, or no signed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not one of ours.
    #[error("not a signed image")]
    Magic,
    /// Written by a newer version.
    #[error("a signed image of version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// Cut short, or something behind its end.
    #[error("{found} bytes of image, the manifest says {named}")]
    Length {
        /// In the file.
        found: usize,
        /// In the manifest.
        named: u32,
    },
    /// Changed since it was signed.
    #[error("the image is not the one that was signed")]
    Hash,
    /// Its envelope is none.
    #[error("the manifest: {0}")]
    Envelope(TrustError),
    /// The payload of the envelope is none.
    #[error("the manifest: {0}")]
    Manifest(CodecError),
    /// Empty, or too large for any board.
    #[error("an image of {0} bytes; there must be some, and at most {IMAGE_BYTES_MAX}")]
    Size(usize),
    /// No image of ours.
    #[error("the image carries {0} labels of board, kind and version, one is expected")]
    Labels(usize),
    /// Built for another board.
    #[error("the image was built for another board than {0}")]
    Board(Name),
    /// Built for another kind.
    #[error("the image was built for a {}, not a {}", built.word(), wanted.word())]
    Kind {
        /// In its label.
        built: Kind,
        /// Asked for.
        wanted: Kind,
    },
    /// Zero is what an image has that was never given a version.
    #[error("a version is above 0")]
    Zero,
}

/// A signed image, taken apart. Whether the signature is good only a key can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedImage {
    /// What is signed.
    pub manifest: Manifest,
    /// The envelope, as devices get it.
    pub envelope: Vec<u8>,
    /// The image.
    pub image: Vec<u8>,
}

impl SignedImage {
    /// Takes a file apart, and checks everything but the signature.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(file: &[u8]) -> Result<Self, FileError> {
        let head = file.get(..HEAD_BYTES).ok_or(FileError::Magic)?;
        if head[..4] != MAGIC {
            return Err(FileError::Magic);
        }
        if head[4] != VERSION {
            return Err(FileError::Version(head[4]));
        }
        let end = HEAD_BYTES + usize::from(u16::from_le_bytes([head[6], head[7]]));
        let envelope = file.get(HEAD_BYTES..end).ok_or(FileError::Magic)?;
        let image = &file[end..];
        if envelope.len() > MANIFEST_BYTES_MAX {
            return Err(FileError::Envelope(TrustError::Long(envelope.len())));
        }
        let payload = trust::peek(envelope).map_err(FileError::Envelope)?;
        let manifest: Manifest = codec::decode(payload).map_err(FileError::Manifest)?;
        if image.len() != manifest.length as usize {
            let (found, named) = (image.len(), manifest.length);
            return Err(FileError::Length { found, named });
        }
        if Hash(Sha256::digest(image).into()) != manifest.hash {
            return Err(FileError::Hash);
        }
        Ok(Self {
            manifest,
            envelope: envelope.to_vec(),
            image: image.to_vec(),
        })
    }

    /// The file.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let length = self.envelope.len() as u16;
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&[VERSION, 0]);
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(&self.envelope);
        file.extend_from_slice(&self.image);
        file
    }
}

/// Checks that an image says that it is of this board and kind, and stamps its version into it.
///
/// # Errors
/// [`FileError`].
pub fn stamp(image: &mut [u8], board: Name, kind: Kind, version: u32) -> Result<(), FileError> {
    if version == 0 {
        return Err(FileError::Zero);
    }
    let places: Vec<usize> = image
        .windows(LABEL_BYTES)
        .enumerate()
        .filter_map(|(at, bytes)| bytes.starts_with(&LABEL_MAGIC).then_some(at))
        .collect();
    let [at] = places[..] else {
        return Err(FileError::Labels(places.len()));
    };
    let label = &mut image[at..at + LABEL_BYTES];
    let mut name = [0; LABEL_KIND - LABEL_BOARD];
    name[..board.as_str().len()].copy_from_slice(board.as_str().as_bytes());
    if label[LABEL_BOARD..LABEL_KIND] != name {
        return Err(FileError::Board(board));
    }
    let built = Kind::from_code(label[LABEL_KIND]);
    if built != kind {
        return Err(FileError::Kind { built, wanted: kind });
    }
    label[LABEL_VERSION..].copy_from_slice(&version.to_le_bytes());
    Ok(())
}

/// Signs an image, with its version stamped into it.
///
/// # Errors
/// [`FileError`].
pub fn sign(
    issuer: &Issuer,
    mut image: Vec<u8>,
    board: Name,
    kind: Kind,
    version: u32,
) -> Result<SignedImage, FileError> {
    let length = u32::try_from(image.len())
        .ok()
        .filter(|length| (1..=IMAGE_BYTES_MAX).contains(length));
    let length = length.ok_or(FileError::Size(image.len()))?;
    stamp(&mut image, board, kind, version)?;
    let manifest = Manifest {
        board,
        kind,
        version,
        length,
        hash: Hash(Sha256::digest(&image).into()),
    };
    let envelope = issuer.sign(ArtifactKind::Firmware, &codec::to_vec(&manifest));
    Ok(SignedImage {
        envelope: envelope.map_err(FileError::Envelope)?,
        manifest,
        image,
    })
}
