//! A device with the real bootloader, and a gateway that updates it.

use app::{
    store::Store,
    update::{Home, Next, Scene, Updater},
};
use embassy_boot::{BootLoader, BootLoaderConfig};
use embassy_futures::block_on;
use proto::{
    id::{Kind, Name},
    trust::Issuer,
    update::{Fault, Label, Octets, Offer, PIECE_BYTES, Piece, SignedImage, State, sign},
};

use crate::flash::{Flash, PAGE, Part};

pub(crate) const ACTIVE: std::ops::Range<usize> = 0..2;
pub(crate) const SPARE: std::ops::Range<usize> = 2..5;
const STATE: std::ops::Range<usize> = 5..6;
const RECORDS: std::ops::Range<usize> = 6..9;
pub(crate) const IMAGE_BYTES: usize = 3_000;
/// Seconds that a trial may take.
const TRIAL_S: u64 = 60;
/// A device that neither updates nor gives up within so many seconds hangs.
const PATIENCE_S: u64 = 300;
/// A device that restarts more often turns in circles.
const BOOTS_MAX: usize = 8;

pub(crate) fn board() -> Name {
    Name::new("fake-board").unwrap()
}

pub(crate) fn issuer() -> Issuer {
    Issuer::from_seed(&[0x42; 32])
}

/// An image of this version, signed; its content differs everywhere from that of any other version.
pub(crate) fn image(version: u32) -> SignedImage {
    let mut image: Vec<u8> = (0..IMAGE_BYTES)
        .map(|at| (at as u32 * 7 + version * 13) as u8)
        .collect();
    let label = *Label::new(board().as_str(), Kind::Charger).bytes();
    image[200..200 + label.len()].copy_from_slice(&label);
    sign(&issuer(), image, board(), Kind::Charger, version).unwrap()
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Failed(Fault),
    PowerLost,
}

pub(crate) struct World {
    pub(crate) flash: Flash,
    images: Vec<SignedImage>,
    /// Whether an image on trial reaches the gateway.
    pub(crate) heard: bool,
    /// Whether somebody has a session.
    pub(crate) busy: bool,
    /// Highest version that the gateway was told is confirmed.
    pub(crate) confirmed: u32,
    again: bool,
}

impl World {
    /// A device that was flashed with version 1.
    pub(crate) fn new(images: &[SignedImage]) -> Self {
        let flash = Flash::erased(RECORDS.end);
        flash.part(ACTIVE).put(0, &images[0].image);
        Self {
            flash,
            images: images.to_vec(),
            heard: true,
            busy: false,
            confirmed: 0,
            again: false,
        }
    }

    /// The same device again, as a copy.
    pub(crate) fn copied(&self) -> Self {
        Self {
            flash: self.flash.copied(),
            images: self.images.clone(),
            ..*self
        }
    }

    pub(crate) fn store(&self) -> Store<Part> {
        Store::new(self.flash.part(RECORDS), 0..(RECORDS.len() * PAGE) as u32)
    }

    pub(crate) fn updater(&self, version: u32) -> Updater<Part> {
        let home = Home {
            board: board(),
            kind: Kind::Charger,
            version,
            signers: [*issuer().key().as_bytes()].into_iter().collect(),
            trial_ms: TRIAL_S * 1000,
        };
        Updater::new(home, self.flash.part(SPARE), self.flash.part(STATE))
    }

    /// The bootloader; which version it starts. `None`: the power failed.
    pub(crate) fn boot(&self) -> Option<u32> {
        let config = BootLoaderConfig {
            active: self.flash.part(ACTIVE),
            dfu: self.flash.part(SPARE),
            state: self.flash.part(STATE),
        };
        let booted = BootLoader::new(config).prepare_boot(&mut [0; PAGE]);
        if self.flash.is_dead() {
            return None;
        }
        booted.unwrap();
        let active = self.flash.part(ACTIVE).bytes();
        let whole = self.images.iter().find(|image| active.starts_with(&image.image));
        Some(whole.expect("a whole image boots").manifest.version)
    }

    /// The same order a second time: what became of the first is no answer to it.
    pub(crate) fn order_again(&mut self, wanted: &SignedImage) -> Outcome {
        self.again = true;
        let outcome = self.run(wanted);
        self.again = false;
        outcome
    }

    /// The device from power-on until the update to `wanted` ended, or the power did.
    pub(crate) fn run(&mut self, wanted: &SignedImage) -> Outcome {
        for _ in 0..BOOTS_MAX {
            let Some(version) = self.boot() else {
                return Outcome::PowerLost;
            };
            assert!(
                version >= self.confirmed,
                "{version} boots, {} was confirmed",
                self.confirmed
            );
            match block_on(self.live(version, wanted)) {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(()) => {
                    assert!(self.flash.is_dead(), "an error under power");
                    return Outcome::PowerLost;
                }
            }
        }
        panic!("it restarts again and again");
    }

    /// One boot of the application; `None`: it wants to restart.
    async fn live(&mut self, version: u32, wanted: &SignedImage) -> Result<Option<Outcome>, ()> {
        let (mut store, mut updater) = (self.store(), self.updater(version));
        updater.boot(&mut store, 0).await.map_err(drop)?;
        let mut offered = false;
        for second in 0..PATIENCE_S {
            let on_trial = updater.update().state == State::Trial;
            let is_linked = self.heard || !on_trial;
            while let Some(update) = updater.unsaid().filter(|_| is_linked) {
                updater.said(second * 1000);
                assert!(
                    version >= update.floor,
                    "version {version} runs below the floor {}",
                    update.floor
                );
                if update.state == State::Idle {
                    self.confirmed = self.confirmed.max(version);
                }
                match update.state {
                    State::Idle if version == wanted.manifest.version => return Ok(Some(Outcome::Confirmed)),
                    // How it ended is told at boot; after an offer it is the answer to that.
                    State::Idle if offered || !self.again && update.offered == wanted.manifest.version => {
                        return Ok(Some(Outcome::Failed(update.fault)));
                    }
                    State::Idle => {
                        (offered, self.again) = (true, false);
                        let manifest = Octets::new(&wanted.envelope).unwrap();
                        updater.offer(&Offer { manifest });
                    }
                    State::Fetching => {
                        let rest = &wanted.image[update.offset as usize..];
                        let piece = Piece {
                            version: update.offered,
                            offset: update.offset,
                            bytes: Octets::new(&rest[..PIECE_BYTES.min(rest.len())]).unwrap(),
                        };
                        updater.piece(&piece, second * 1000).await;
                    }
                    State::Waiting | State::Trial => {}
                    State::Other => unreachable!("nobody says that"),
                }
            }
            let scene = Scene {
                now_ms: second * 1000,
                is_idle: !self.busy,
                is_linked,
                is_sane: true,
            };
            if updater.tend(&mut store, &scene).await.map_err(drop)? == Next::Restart {
                return Ok(None);
            }
            if self.flash.is_dead() {
                return Err(());
            }
        }
        panic!("version {version} hangs in {:?}", updater.update());
    }
}
