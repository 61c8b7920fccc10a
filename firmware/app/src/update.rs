//! New firmware: fetched piece by piece into the spare slot, checked, swapped in by the bootloader, kept only after it has
//! proven itself. `embassy-boot` does the swap and the way back; what is here decides when.
//!
//! ```text
//! Idle -> Fetching -> Waiting -> restart, swap -> Trial -> confirmed: Idle
//!                                                       -> restart, swapped back: Idle, with the reason
//! ```
//! Invariants, at every cut of the power:
//! - Nothing is erased before the manifest's signature, board, kind, version and length were checked, nothing is swapped in
//!   before the hash of what lies in flash was.
//! - What boots is the image before or the new one, whole. A new one that was not confirmed in its first boot goes back.
//! - The floor, the highest version that was ever confirmed, never falls; only versions above it are taken.
//! - Neither the swap nor the way back begins while somebody has a session.

use embassy_boot::{AlignedBuffer, FirmwareState, State as Slot};
use embedded_storage_async::nor_flash::NorFlash;
use heapless::Vec;
use proto::{
    id::{Kind, Name},
    message::Stamp,
    trust::IssuerKey,
    update::{Fault, Hasher, Here, Manifest, Offer, PIECE_BYTES, Piece, SIGNERS_MAX, State, Update},
};

use crate::store::{Store, StoreError};

/// A piece that does not come is asked for again after so long, in ms.
const ASK_AGAIN_MS: u64 = 5_000;
/// After so many questions without an answer the update is given up: ten minutes with the link up.
const ASKS_MAX: u32 = 120;
/// From the last piece to the restart, in ms: time for the gateway to hear of it.
const INSTALL_AFTER_MS: u64 = 3_000;
/// Largest word that any flash writes at once, in bytes.
const WORD_BYTES_MAX: usize = 32;
/// Bytes that are hashed together.
const HASHED_BYTES: usize = 256;
/// How long an image on trial may take to hear from the gateway, in ms: a gateway restarts within a minute, a site's
/// network within a few.
pub const TRIAL_MS: u64 = 600_000;

/// Public keys, as they are provisioned: unpacked they are six times as large, and needed once an update.
pub type Signers = Vec<[u8; 32], SIGNERS_MAX>;

/// What runs here, and whose images are taken.
#[derive(Clone, Debug)]
pub struct Home {
    /// The board.
    pub board: Name,
    /// What it dispenses.
    pub kind: Kind,
    /// Version of the image that runs: [`proto::update::Label::version`].
    pub version: u32,
    /// Who may sign; nobody: no update is taken.
    pub signers: Signers,
    /// How long a trial may take, in ms; usually [`TRIAL_MS`].
    pub trial_ms: u64,
}

/// What the device looks like at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Milliseconds since boot.
    pub now_ms: u64,
    /// Nobody would be cut off by a restart.
    pub is_idle: bool,
    /// The gateway answered the hello.
    pub is_linked: bool,
    /// Every outlet, and its thermometer, gave a reading since boot.
    pub is_sane: bool,
}

/// What is to be done with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Stay,
    /// Restart: the bootloader swaps the images.
    Restart,
}

/// What survives a power cut, as 13 bytes; appended to, never changed: images of every age read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    /// Highest version that was confirmed.
    floor: u32,
    /// Version that the bootloader was told to swap in; 0: none.
    trying: u32,
    /// Version whose trial ended last; 0: none.
    ended: u32,
    /// How it ended, or is about to end.
    fault: Fault,
}

const NOTED_BYTES: usize = 13;

impl Noted {
    const NOTHING: Self = Self {
        floor: 0,
        trying: 0,
        ended: 0,
        fault: Fault::None,
    };

    fn read(bytes: &[u8; NOTED_BYTES]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            floor: number(0),
            trying: number(4),
            ended: number(8),
            fault: Fault::from_code(bytes[12]),
        }
    }

    fn write(&self) -> [u8; NOTED_BYTES] {
        let mut bytes = [0; NOTED_BYTES];
        for (place, number) in bytes.chunks_exact_mut(4).zip([self.floor, self.trying, self.ended]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[12] = self.fault.code();
        bytes
    }
}

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Fetching {
        manifest: Manifest,
        offset: u32,
        asked_ms: u64,
        asks: u32,
    },
    Waiting {
        manifest: Manifest,
        since_ms: u64,
    },
    Trial {
        until_ms: u64,
    },
}

/// The keeper of the spare slot.
#[derive(Debug)]
pub struct Updater<F> {
    home: Home,
    /// Where the new image is written: one page larger than the slot that is booted.
    spare: F,
    /// Where the bootloader is told what to do.
    state: F,
    noted: Noted,
    phase: Phase,
    /// What was wrong with an offer that was not taken, and its version.
    refused: Option<(Fault, u32)>,
    unsaid: bool,
}

impl<F: NorFlash> Updater<F> {
    /// On the two partitions that the bootloader knows, too.
    #[must_use]
    pub const fn new(home: Home, spare: F, state: F) -> Self {
        Self {
            home,
            spare,
            state,
            noted: Noted::NOTHING,
            phase: Phase::Idle,
            refused: None,
            unsaid: false,
        }
    }

    /// Finds out what the last boot was about; before anything else.
    ///
    /// # Errors
    /// [`StoreError`]; the device must restart: what is on trial then goes back.
    pub async fn boot<S: NorFlash>(&mut self, store: &mut Store<S>, now_ms: u64) -> Result<(), StoreError<S::Error>> {
        let stored = store.update().await?;
        self.noted = stored.as_ref().map_or(Noted::NOTHING, Noted::read);
        self.unsaid = true;
        let before = self.noted;
        let Home { version, trial_ms, .. } = self.home;
        let slot = self.slot().await;
        if slot == Some(Slot::Swap) {
            let until_ms = now_ms + trial_ms;
            self.phase = Phase::Trial { until_ms };
            return Ok(());
        }
        let Noted { trying, fault, .. } = before;
        if trying != 0 {
            if trying == version {
                // Confirmed, and the power failed before that was noted.
                (self.noted.ended, self.noted.fault) = (trying, Fault::None);
            } else if fault != Fault::None {
                self.noted.ended = trying;
            } else if slot == Some(Slot::Revert) {
                (self.noted.ended, self.noted.fault) = (trying, Fault::Crashed);
            }
            // Otherwise the bootloader was never told: nothing was tried.
            self.noted.trying = 0;
        }
        self.noted.floor = before.floor.max(version);
        if self.noted != before {
            store.save_update(&self.noted.write()).await?;
        }
        if slot == Some(Slot::Revert) {
            // What it had to say is noted; the next one must not be taken for it. If it fails, the next boot does it.
            let _ = self.mark(false).await;
        }
        Ok(())
    }

    /// The gateway answered a hello: it is told how things stand. What was wrong with an offer of an earlier connection
    /// is of no interest any more.
    pub fn linked(&mut self) {
        self.unsaid = true;
        self.refused = None;
    }

    /// Takes an offer, or finds out why not.
    pub fn offer(&mut self, offer: &Offer) {
        self.unsaid = true;
        let keys = self.home.signers.iter().flat_map(IssuerKey::from_bytes);
        let signers: Vec<IssuerKey, SIGNERS_MAX> = keys.collect();
        let here = Here {
            board: &self.home.board,
            kind: self.home.kind,
            above: self.home.version.max(self.noted.floor),
            room: (self.spare.capacity() - F::ERASE_SIZE) as u32,
            signers: &signers,
        };
        let under_way = match &self.phase {
            Phase::Idle => None,
            Phase::Fetching { manifest, .. } | Phase::Waiting { manifest, .. } => Some(manifest),
            Phase::Trial { .. } => return,
        };
        match Manifest::open(&offer.manifest.0, &here) {
            // The same again: it goes on where it is.
            Ok(manifest) if under_way == Some(&manifest) => {}
            Ok(manifest) => {
                self.refused = None;
                self.phase = Phase::Fetching {
                    manifest,
                    offset: 0,
                    asked_ms: 0,
                    asks: 0,
                };
            }
            Err(refused) => self.refused = Some(refused),
        }
    }

    /// Writes a piece that was asked for; any other is ignored.
    pub async fn piece(&mut self, piece: &Piece, now_ms: u64) {
        let Phase::Fetching {
            manifest, offset: at, ..
        } = &self.phase
        else {
            return;
        };
        let (at, left) = (*at, manifest.length - *at);
        let bytes = &piece.bytes.0[..];
        let is_whole = bytes.len() == PIECE_BYTES.min(left as usize);
        if piece.version != manifest.version || piece.offset != at || !is_whole {
            return;
        }
        let version = manifest.version;
        if self.write(at, bytes).await.is_err() {
            return self.give_up(Fault::Flash, version);
        }
        self.unsaid = true;
        if let Phase::Fetching {
            manifest, offset, asks, ..
        } = &mut self.phase
        {
            (*offset, *asks) = (at + bytes.len() as u32, 0);
            if *offset == manifest.length {
                self.phase = Phase::Waiting {
                    manifest: manifest.clone(),
                    since_ms: now_ms,
                };
            }
        }
    }

    /// Does what is due; at least every few seconds.
    ///
    /// # Errors
    /// [`StoreError`]; the device must restart.
    pub async fn tend<S: NorFlash>(
        &mut self,
        store: &mut Store<S>,
        scene: &Scene,
    ) -> Result<Next, StoreError<S::Error>> {
        match &mut self.phase {
            Phase::Idle => Ok(Next::Stay),
            Phase::Fetching { asked_ms, asks, .. } => {
                if scene.is_linked && !self.unsaid && scene.now_ms >= *asked_ms + ASK_AGAIN_MS {
                    *asks += 1;
                    self.unsaid = true;
                    if *asks > ASKS_MAX {
                        self.phase = Phase::Idle;
                    }
                }
                Ok(Next::Stay)
            }
            Phase::Waiting { since_ms, .. } if scene.is_idle && scene.now_ms >= *since_ms + INSTALL_AFTER_MS => {
                self.install(store).await
            }
            Phase::Waiting { .. } => Ok(Next::Stay),
            Phase::Trial { until_ms } => {
                let is_over = scene.now_ms >= *until_ms;
                if scene.is_linked && scene.is_sane {
                    self.confirm(store, scene.is_idle).await
                } else if is_over && scene.is_idle {
                    let fault = if scene.is_linked {
                        Fault::SelfTest
                    } else {
                        Fault::Unheard
                    };
                    self.go_back(store, fault).await
                } else {
                    Ok(Next::Stay)
                }
            }
        }
    }

    /// What is to be told to the gateway, if anything is.
    #[must_use]
    pub fn unsaid(&self) -> Option<Update> {
        self.unsaid.then(|| self.update())
    }

    /// It was told.
    pub fn said(&mut self, now_ms: u64) {
        self.unsaid = false;
        if let Phase::Fetching { asked_ms, .. } = &mut self.phase {
            *asked_ms = now_ms;
        }
    }

    /// How the update stands; without a time.
    #[must_use]
    pub fn update(&self) -> Update {
        let (state, offered, offset) = match &self.phase {
            Phase::Idle => (State::Idle, self.noted.ended, 0),
            Phase::Fetching { manifest, offset, .. } => (State::Fetching, manifest.version, *offset),
            Phase::Waiting { manifest, .. } => (State::Waiting, manifest.version, manifest.length),
            Phase::Trial { .. } => (State::Trial, self.home.version, 0),
        };
        let (fault, offered) = match (state, self.refused) {
            (State::Idle, Some(refused)) => refused,
            (State::Idle, None) => (self.noted.fault, offered),
            (State::Fetching | State::Waiting | State::Trial | State::Other, _) => (Fault::None, offered),
        };
        Update {
            version: self.home.version,
            floor: self.noted.floor,
            state,
            offered,
            fault,
            offset,
            at: Stamp::relative(0),
        }
    }

    /// Checks what lies in flash and has it swapped in. The hash is taken now and not earlier: from here to the restart
    /// nothing comes in between.
    async fn install<S: NorFlash>(&mut self, store: &mut Store<S>) -> Result<Next, StoreError<S::Error>> {
        let Phase::Waiting { manifest, .. } = &self.phase else {
            return Ok(Next::Stay);
        };
        let manifest = manifest.clone();
        match self.hash(manifest.length).await {
            Ok(hash) if hash == manifest.hash => {}
            Ok(_) => {
                self.give_up(Fault::Damaged, manifest.version);
                return Ok(Next::Stay);
            }
            Err(_) => {
                self.give_up(Fault::Flash, manifest.version);
                return Ok(Next::Stay);
            }
        }
        // Noted first: whoever boots next has to know what was tried.
        (self.noted.trying, self.noted.fault) = (manifest.version, Fault::None);
        store.save_update(&self.noted.write()).await?;
        if self.mark(true).await.is_err() {
            self.give_up(Fault::Flash, manifest.version);
            return Ok(Next::Stay);
        }
        Ok(Next::Restart)
    }

    /// The trial is passed, unless a record cannot be written. The bootloader is told before the floor is raised: the other
    /// way round a power cut would take the device back below its floor. If it cannot be told, the way back waits for the
    /// end of a session, and meanwhile it is told again.
    async fn confirm<S: NorFlash>(
        &mut self,
        store: &mut Store<S>,
        is_idle: bool,
    ) -> Result<Next, StoreError<S::Error>> {
        store.save_update(&self.noted.write()).await?;
        if self.mark(false).await.is_err() {
            return match is_idle {
                true => self.go_back(store, Fault::Flash).await,
                false => Ok(Next::Stay),
            };
        }
        self.noted = Noted {
            floor: self.noted.floor.max(self.home.version),
            trying: 0,
            ended: self.home.version,
            fault: Fault::None,
        };
        self.phase = Phase::Idle;
        self.unsaid = true;
        store.save_update(&self.noted.write()).await?;
        Ok(Next::Stay)
    }

    async fn go_back<S: NorFlash>(&mut self, store: &mut Store<S>, fault: Fault) -> Result<Next, StoreError<S::Error>> {
        (self.noted.trying, self.noted.fault) = (self.home.version, fault);
        store.save_update(&self.noted.write()).await?;
        Ok(Next::Restart)
    }

    fn give_up(&mut self, fault: Fault, version: u32) {
        self.phase = Phase::Idle;
        self.refused = Some((fault, version));
        self.unsaid = true;
    }

    async fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), F::Error> {
        const { assert!(F::ERASE_SIZE.is_multiple_of(PIECE_BYTES) && PIECE_BYTES.is_multiple_of(F::WRITE_SIZE)) };
        if at.is_multiple_of(F::ERASE_SIZE as u32) {
            self.spare.erase(at, at + F::ERASE_SIZE as u32).await?;
        }
        let mut whole = AlignedBuffer([0xff; PIECE_BYTES]);
        whole.0[..bytes.len()].copy_from_slice(bytes);
        self.spare.write(at, &whole.0).await
    }

    async fn hash(&mut self, length: u32) -> Result<proto::id::Hash, F::Error> {
        let mut hasher = Hasher::default();
        let mut bytes = AlignedBuffer([0; HASHED_BYTES]);
        let mut at = 0;
        while at < length {
            self.spare.read(at, &mut bytes.0).await?;
            hasher.add(&bytes.0[..HASHED_BYTES.min((length - at) as usize)]);
            at += HASHED_BYTES as u32;
        }
        Ok(hasher.finish())
    }

    /// What the bootloader was told; `None`: it cannot be read.
    async fn slot(&mut self) -> Option<Slot> {
        let mut word = AlignedBuffer([0; WORD_BYTES_MAX]);
        let mut state = FirmwareState::new(&mut self.state, &mut word.0[..F::WRITE_SIZE]);
        state.get_state().await.ok()
    }

    /// Tells the bootloader to swap, or that all is well.
    async fn mark(&mut self, swap: bool) -> Result<(), ()> {
        const { assert!(F::WRITE_SIZE <= WORD_BYTES_MAX) };
        let mut word = AlignedBuffer([0; WORD_BYTES_MAX]);
        let mut state = FirmwareState::new(&mut self.state, &mut word.0[..F::WRITE_SIZE]);
        let marked = match swap {
            true => state.mark_updated().await,
            false => state.mark_booted().await,
        };
        marked.map_err(|_| ())
    }
}
