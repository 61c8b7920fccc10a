//! Images: what is signed is read and believed; everything else is refused by name.

use proto::{
    codec,
    id::{Kind, Name},
    trust::{ArtifactKind, Issuer, TrustError},
    update::{Fault, FileError, Here, LABEL_BYTES, Label, Manifest, SignedImage, sign, stamp},
};

const LABEL: Label = Label::new("b-l475e-iot01a", Kind::Charger);

fn board() -> Name {
    Name::new("b-l475e-iot01a").expect("a name")
}

fn issuer() -> Issuer {
    Issuer::from_seed(&[7; 32])
}

/// As the documentation says, byte by byte.
fn label_bytes() -> Vec<u8> {
    let mut bytes = b"holdfast image 1b-l475e-iot01a".to_vec();
    bytes.resize(LABEL_BYTES, 0);
    assert_eq!(bytes, LABEL.bytes());
    bytes
}

fn image() -> Vec<u8> {
    let mut image = vec![0xa5; 1_000];
    image.extend_from_slice(&label_bytes());
    image.extend_from_slice(&[0x5a; 500]);
    image
}

fn signed() -> SignedImage {
    sign(&issuer(), image(), board(), Kind::Charger, 7).expect("a good image")
}

#[test]
fn what_is_signed_is_read_and_believed() {
    let signed = signed();
    let read = SignedImage::read(&signed.write()).expect("as written");
    assert_eq!(read, signed);
    assert_eq!(read.manifest.version, 7);
    assert_eq!(read.image[1_000 + LABEL_BYTES - 4..1_000 + LABEL_BYTES], [7, 0, 0, 0]);
    assert_eq!(LABEL.version(), 0);
    let keys = [issuer().key()];
    let here = Here {
        board: &board(),
        kind: Kind::Charger,
        above: 6,
        room: read.manifest.length,
        signers: &keys,
    };
    assert_eq!(Manifest::open(&read.envelope, &here), Ok(read.manifest));
}

#[test]
fn a_device_refuses_by_name() {
    let (envelope, keys) = (signed().envelope, [issuer().key()]);
    let other = [Issuer::from_seed(&[8; 32]).key()];
    let (mine, elsewhere) = (board(), Name::new("another").expect("a name"));
    let here = Here {
        board: &mine,
        kind: Kind::Charger,
        above: 6,
        room: 4_096,
        signers: &keys,
    };
    let rows = [
        (Here { signers: &[], ..here }, (Fault::Untaken, 0)),
        (
            Here {
                signers: &other,
                ..here
            },
            (Fault::Forged, 0),
        ),
        (
            Here {
                board: &elsewhere,
                ..here
            },
            (Fault::Board, 7),
        ),
        (
            Here {
                kind: Kind::Washer,
                ..here
            },
            (Fault::Kind, 7),
        ),
        (Here { above: 7, ..here }, (Fault::Old, 7)),
        (
            Here {
                above: u32::MAX,
                ..here
            },
            (Fault::Old, 7),
        ),
        (Here { room: 1_000, ..here }, (Fault::Long, 7)),
    ];
    for (row, (here, expected)) in rows.into_iter().enumerate() {
        assert_eq!(Manifest::open(&envelope, &here), Err(expected), "row {row}");
    }
    for bit in 0..envelope.len() * 8 {
        let mut envelope = envelope.clone();
        envelope[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Manifest::open(&envelope, &here), Err((Fault::Forged, 0)), "bit {bit}");
    }
    // Signed by the right key, for another purpose.
    let payload = codec::to_vec(&signed().manifest);
    for kind in ArtifactKind::ALL.iter().filter(|kind| **kind != ArtifactKind::Firmware) {
        let envelope = issuer().sign(*kind, &payload).expect("small");
        assert_eq!(Manifest::open(&envelope, &here), Err((Fault::Forged, 0)), "{kind:?}");
    }
}

#[test]
fn a_damaged_file_is_refused_by_name() {
    let file = signed().write();
    assert_eq!(SignedImage::read(&file[..7]), Err(FileError::Magic));
    assert_eq!(SignedImage::read(b"\x7fELF\x01\x01\x01\x00"), Err(FileError::Magic));
    let mut newer = file.clone();
    newer[4] = 2;
    assert_eq!(SignedImage::read(&newer), Err(FileError::Version(2)));
    for len in 0..file.len() {
        assert!(SignedImage::read(&file[..len]).is_err(), "cut to {len} bytes");
    }
    let long = [&file[..], &[0]].concat();
    assert!(matches!(SignedImage::read(&long), Err(FileError::Length { .. })));
    let mut changed = file.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    assert_eq!(SignedImage::read(&changed), Err(FileError::Hash));
    let mut no_envelope = file;
    no_envelope[8] = 0;
    assert!(matches!(
        SignedImage::read(&no_envelope),
        Err(FileError::Envelope(TrustError::Malformed(_)))
    ));
}

#[test]
fn what_is_no_image_of_this_board_is_not_signed() {
    let twice = [image(), image()].concat();
    let washer = Kind::Washer;
    let elsewhere = Name::new("b-l475e-iot01").expect("a name");
    let rows = [
        (vec![0; 4_096], board(), Kind::Charger, 1, FileError::Labels(0)),
        (twice, board(), Kind::Charger, 1, FileError::Labels(2)),
        (image(), elsewhere, Kind::Charger, 1, FileError::Board(elsewhere)),
        (
            image(),
            board(),
            washer,
            1,
            FileError::Kind {
                built: Kind::Charger,
                wanted: washer,
            },
        ),
        (image(), board(), Kind::Charger, 0, FileError::Zero),
        (vec![], board(), Kind::Charger, 1, FileError::Size(0)),
    ];
    for (image, board, kind, version, expected) in rows {
        assert_eq!(sign(&issuer(), image, board, kind, version), Err(expected));
    }
    // What is stamped once may be stamped again: nothing but the version changes.
    let mut image = image();
    stamp(&mut image, board(), Kind::Charger, 3).expect("a good image");
    stamp(&mut image, board(), Kind::Charger, u32::MAX).expect("a good image");
}
