//! Orders of firmware: from the key to the confirmation, over a restart, and every way it ends.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use gateway::{
    engine::Job,
    files::Attached,
    firmware::{self, Firmware, Told, sign},
};
use proto::{
    id::{DeviceId, Kind, Name},
    message::Stamp,
    update::{Fault, Label, PIECE_BYTES, SignedImage, State, Update},
};
use tokio::sync::mpsc;

const IMAGE_BYTES: usize = 1_300;

fn device() -> DeviceId {
    "charger-1".parse().unwrap()
}

fn board() -> Name {
    "some-board".parse().unwrap()
}

/// A key, and an image of this version that it signed.
fn signed(dir: &Path, version: u32) -> PathBuf {
    let key = dir.join("key.toml");
    if !key.exists() {
        sign::make_key(&key).unwrap();
    }
    let mut image = Label::new("some-board", Kind::Charger).bytes().to_vec();
    image.resize(IMAGE_BYTES, version as u8);
    let (raw, out) = (dir.join("image.bin"), dir.join(format!("{version}.hff")));
    std::fs::write(&raw, image).unwrap();
    let issuer = sign::read_key(&key).unwrap();
    sign::sign(&issuer, board(), Kind::Charger, version, &raw, &out).unwrap();
    out
}

fn attached(file: &Path) -> Attached {
    Attached::read(file, 1 << 20).unwrap()
}

struct Site {
    firmware: Firmware,
    jobs: mpsc::Receiver<Job>,
    counter: u64,
}

impl Site {
    fn start(dir: &Path) -> Self {
        let (engine, jobs) = mpsc::channel(16);
        let keys = [sign::read_key(&dir.join("key.toml")).unwrap().key()];
        let devices = [(device(), Kind::Charger), ("washer-1".parse().unwrap(), Kind::Washer)];
        let firmware = firmware::start(dir, devices.into_iter(), &keys, engine).unwrap();
        Self {
            firmware,
            jobs,
            counter: 0,
        }
    }

    fn says(&mut self, version: u32, state: State, (offered, fault): (u32, Fault), offset: u32) {
        self.counter += 1;
        let update = Update {
            version,
            floor: version,
            state,
            offered,
            fault,
            offset,
            at: Stamp::relative(0),
        };
        self.firmware.heard(device(), self.counter, update);
    }

    /// What the device is told next.
    async fn told(&mut self) -> Told {
        match self.jobs.recv().await.unwrap() {
            Job::Firmware(to, told) => {
                assert_eq!(to, device());
                *told
            }
            other => panic!("{other:?}"),
        }
    }

    async fn words(&self) -> String {
        let rows = self.firmware.rows().await.unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["device"] == "charger-1");
        row.unwrap()["update"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_order_is_fetched_piece_by_piece_and_ends_with_the_confirmation() {
    let dir = tempfile::tempdir().unwrap();
    let file = signed(dir.path(), 4);
    let image = SignedImage::read(&std::fs::read(&file).unwrap()).unwrap();
    let mut site = Site::start(dir.path());
    site.says(3, State::Idle, (0, Fault::None), 0);
    let words = site.firmware.order(device(), attached(&file)).await.unwrap();
    assert_eq!(words, "ordered: charger-1 goes from version 3 to 4");
    assert!(matches!(site.told().await, Told::Offer(offer) if offer.manifest.0[..] == image.envelope[..]));
    let mut fetched = Vec::new();
    while fetched.len() < image.image.len() {
        site.says(3, State::Fetching, (4, Fault::None), fetched.len() as u32);
        let Told::Piece(piece) = site.told().await else {
            panic!("no piece")
        };
        assert_eq!((piece.version, piece.offset as usize), (4, fetched.len()));
        assert!(piece.bytes.0.len() == PIECE_BYTES.min(image.image.len() - fetched.len()));
        fetched.extend_from_slice(&piece.bytes.0);
    }
    assert_eq!(fetched, image.image);
    assert_eq!(site.words().await, "version 4: fetched 78 %");
    site.says(3, State::Waiting, (4, Fault::None), 0);
    assert_eq!(
        site.words().await,
        "version 4: fetched, waits until nobody has a session"
    );
    // The gateway is started again meanwhile.
    drop(site);
    let mut site = Site::start(dir.path());
    site.says(4, State::Trial, (4, Fault::None), 0);
    assert_eq!(site.words().await, "version 4: on trial");
    site.says(4, State::Idle, (4, Fault::None), 0);
    assert_eq!(site.words().await, "confirmed version 4");
    let summary = site.firmware.summary().await.unwrap();
    assert_eq!(summary["firmware"], serde_json::json!({"4": 1, "unknown": 1}));
    assert_eq!(summary["updates_open"], 0);
    // It ended for good.
    assert_eq!(Site::start(dir.path()).words().await, "none");
}

#[tokio::test]
async fn how_it_may_end() {
    let rows = [
        // Answers to the offer.
        (
            vec![(State::Idle, 0, Fault::Untaken)],
            "no key that may sign firmware was provisioned",
        ),
        (
            vec![(State::Idle, 0, Fault::Forged)],
            "not signed by a key that the device believes",
        ),
        (vec![(State::Idle, 4, Fault::Board)], "for another board"),
        (vec![(State::Idle, 4, Fault::Long)], "larger than its place in flash"),
        // After it was taken.
        (
            vec![(State::Fetching, 4, Fault::None), (State::Idle, 4, Fault::Damaged)],
            "what the device has in flash is not what was signed",
        ),
        (
            vec![(State::Waiting, 4, Fault::None), (State::Idle, 4, Fault::Unheard)],
            "on trial the gateway did not answer its hello in time",
        ),
    ];
    for (said, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        let file = signed(dir.path(), 4);
        let mut site = Site::start(dir.path());
        // How the last trial of the same version ended is no answer to this order.
        site.says(3, State::Idle, (4, Fault::Crashed), 0);
        site.firmware.order(device(), attached(&file)).await.unwrap();
        assert!(matches!(site.told().await, Told::Offer(_)));
        site.says(3, State::Idle, (4, Fault::Crashed), 0);
        assert!(matches!(site.told().await, Told::Offer(_)));
        for (state, offered, fault) in said {
            site.says(3, state, (offered, fault), 0);
            // A replay changes nothing.
            site.counter -= 1;
            site.says(3, State::Idle, (4, Fault::Kind), 0);
        }
        assert_eq!(site.words().await, format!("failed: version 4: {expected}"));
        assert_eq!(
            site.firmware.summary().await.unwrap()["updates_failed"]["charger-1"],
            format!("failed: version 4: {expected}")
        );
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_not_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let file = signed(dir.path(), 4);
    let mut site = Site::start(dir.path());
    let refused = async |site: &Site, to: &str, file: &Path| {
        site.firmware
            .order(to.parse().unwrap(), attached(file))
            .await
            .unwrap_err()
    };
    let at = file.display();
    assert_eq!(
        refused(&site, "nobody", &file).await,
        "nobody is not a device of this site"
    );
    assert_eq!(
        refused(&site, "washer-1", &file).await,
        format!("{at}: an image for a charger, the device is a washer")
    );
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let tampered = dir.path().join("tampered.hff");
    std::fs::write(&tampered, &bytes).unwrap();
    assert_eq!(
        refused(&site, "charger-1", &tampered).await,
        format!("{}: the image is not the one that was signed", tampered.display())
    );
    let stranger = tempfile::tempdir().unwrap();
    let strange = signed(stranger.path(), 5);
    assert_eq!(
        refused(&site, "charger-1", &strange).await,
        format!("{}: not signed by a key of trust.firmware_keys", strange.display())
    );
    site.says(4, State::Idle, (0, Fault::None), 0);
    assert_eq!(
        refused(&site, "charger-1", &file).await,
        format!("{at}: version 4 is not above 4, which the device runs or once confirmed")
    );
    assert_eq!(site.words().await, "none");
    assert!(site.jobs.try_recv().is_err(), "nobody was told anything");
}

#[test]
fn a_key_and_a_signed_image_are_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = signed(dir.path(), 4);
    let key = dir.path().join("key.toml");
    assert!(sign::make_key(&key).unwrap_err().to_string().contains("File exists"));
    let issuer = sign::read_key(&key).unwrap();
    let again = |kind, board: &str, image: &Path| {
        let out = dir.path().join("new.hff");
        sign::sign(&issuer, board.parse().unwrap(), kind, 5, image, &out)
            .unwrap_err()
            .to_string()
    };
    let raw = dir.path().join("image.bin");
    assert!(again(Kind::Washer, "some-board", &raw).contains("built for a charger, not a washer"));
    assert!(again(Kind::Charger, "other", &raw).contains("built for another board than other"));
    assert!(again(Kind::Charger, "some-board", &key).contains("0 labels"));
    let issuer = sign::read_key(&key).unwrap();
    let taken = sign::sign(&issuer, board(), Kind::Charger, 5, &raw, &file).unwrap_err();
    assert!(taken.to_string().contains("File exists"), "{taken}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(sign::read_key(&key).is_err(), "others may read it");
}
