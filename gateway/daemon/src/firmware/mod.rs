//! Firmware of devices: what they run, and which image each of them is to get. No decision about money hangs on it, so the
//! core knows nothing of it, and nothing of it is in the journal.
//!
//! An order is a signed image in `firmware/DEVICE.hff` of the store's directory; it outlives a restart of the gateway. It
//! ends when the device confirms the image, or says why not.

pub mod command;
pub mod elf;
mod order;
pub mod sign;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use proto::{
    id::{DeviceId, Kind},
    seal::Window,
    trust::IssuerKey,
    update::{Offer, Piece, SignedImage, State, Update},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use self::order::{Answer, Order};
use crate::{
    engine::Job,
    files::{self, Attached},
};

/// Questions that may wait; beyond it a device's is dropped, and asked again.
const ASKED_MAX: usize = 256;
/// An offer that nobody answered is made again after so long: the device was not there, or its window was full.
const OFFER_EVERY: Duration = Duration::from_secs(30);
/// Folder of the orders, in the store's directory.
const FOLDER: &str = "firmware";
/// Largest file that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = proto::update::IMAGE_BYTES_MAX as u64 + 1024;

/// What a device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "pieces are what is told most")]
pub enum Told {
    /// An image is to be had.
    Offer(Offer),
    /// A piece of it.
    Piece(Piece),
}

enum Asked {
    Heard(DeviceId, u64, Update),
    Order(DeviceId, Attached, oneshot::Sender<Result<String, String>>),
    Rows(oneshot::Sender<Value>),
    Summary(oneshot::Sender<Value>),
    Devices(Vec<(DeviceId, Kind)>),
}

/// The way to the keeper.
#[derive(Clone, Debug)]
pub struct Firmware(mpsc::Sender<Asked>);

impl Firmware {
    /// A device said how it stands. What finds no room is dropped: the device says it again.
    pub fn heard(&self, device: DeviceId, counter: u64, update: Update) {
        let _ = self.0.try_send(Asked::Heard(device, counter, update));
    }

    /// Orders an update from a file; what comes next, in words.
    ///
    /// # Errors
    /// A text that says why it cannot be; then nothing was changed.
    pub async fn order(&self, device: DeviceId, file: Attached) -> Result<String, String> {
        self.ask(|reply| Asked::Order(device, file, reply)).await?
    }

    /// A row for each device.
    ///
    /// # Errors
    /// If the gateway is stopping.
    pub async fn rows(&self) -> Result<Value, String> {
        self.ask(Asked::Rows).await
    }

    /// How many devices run which version, how many updates are open, and which failed.
    ///
    /// # Errors
    /// If the gateway is stopping.
    pub async fn summary(&self) -> Result<Value, String> {
        self.ask(Asked::Summary).await
    }

    /// These are the devices of the site now. What is ordered for one that is gone stays in its folder.
    pub async fn reconfigure(&self, devices: Vec<(DeviceId, Kind)>) {
        // A keeper that is gone keeps nothing.
        let _ = self.0.send(Asked::Devices(devices)).await;
    }

    async fn ask<T>(&self, asked: impl FnOnce(oneshot::Sender<T>) -> Asked) -> Result<T, String> {
        let stopping = || "the gateway is stopping".to_owned();
        let (reply, answer) = oneshot::channel();
        self.0.send(asked(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

/// What is known of a device.
struct Row {
    kind: Kind,
    window: Window,
    heard: Option<Update>,
    order: Option<Order>,
    /// How the last order ended, in words, and whether it failed.
    ended: Option<(String, bool)>,
}

impl Row {
    fn new(folder: &Path, device: &DeviceId, kind: Kind) -> Self {
        Self {
            kind,
            window: Window::default(),
            heard: None,
            order: kept(folder, device),
            ended: None,
        }
    }
}

/// Owns the orders.
struct Keeper {
    folder: PathBuf,
    signers: Vec<IssuerKey>,
    rows: BTreeMap<DeviceId, Row>,
    engine: mpsc::Sender<Job>,
}

/// Starts the keeper for these devices, with the orders that are in the store's directory. `signers`: who may sign.
///
/// # Errors
/// If the folder cannot be made or read.
pub fn start(
    dir: &Path,
    devices: impl Iterator<Item = (DeviceId, Kind)>,
    signers: &[IssuerKey],
    engine: mpsc::Sender<Job>,
) -> std::io::Result<Firmware> {
    let folder = dir.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let rows = devices.map(|(device, kind)| (device, Row::new(&folder, &device, kind)));
    let keeper = Keeper {
        rows: rows.collect(),
        signers: signers.to_vec(),
        folder,
        engine,
    };
    let (sender, asked) = mpsc::channel(ASKED_MAX);
    tokio::spawn(keeper.run(asked));
    Ok(Firmware(sender))
}

/// Does what takes the disk's time, on a thread where nobody's authorization waits behind it.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

/// The order that was given before a restart.
fn kept(folder: &Path, device: &DeviceId) -> Option<Order> {
    let path = order::path(folder, device);
    match order::read(&path) {
        Ok(image) => {
            tracing::info!(%device, version = image.manifest.version, "an update is still ordered");
            Some(Order::new(image))
        }
        Err(_) if !path.exists() => None,
        Err(error) => {
            tracing::warn!(%device, error, "an ordered update is left out");
            None
        }
    }
}

impl Keeper {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        let first = tokio::time::Instant::now() + OFFER_EVERY;
        let mut offers = tokio::time::interval_at(first, OFFER_EVERY);
        loop {
            tokio::select! {
                asked = asked.recv() => match asked {
                    Some(asked) => self.answer(asked).await,
                    None => return,
                },
                _ = offers.tick() => self.offer_again().await,
            }
        }
    }

    async fn answer(&mut self, asked: Asked) {
        // Who asked may have gone away.
        match asked {
            Asked::Heard(device, counter, update) => self.heard(device, counter, update).await,
            Asked::Order(device, file, reply) => {
                let result = self.order(device, file).await;
                drop(reply.send(result));
            }
            Asked::Rows(reply) => drop(reply.send(self.rows())),
            Asked::Summary(reply) => drop(reply.send(self.summary())),
            Asked::Devices(devices) => {
                let mut before = std::mem::take(&mut self.rows);
                let row = |(device, kind)| {
                    let known = before.remove(&device).filter(|row: &Row| row.kind == kind);
                    (device, known.unwrap_or_else(|| Row::new(&self.folder, &device, kind)))
                };
                self.rows = devices.into_iter().map(row).collect();
            }
        }
    }

    /// Engine and devices are told; whoever does not hear it asks again.
    async fn tell(&self, device: DeviceId, told: Told) {
        let _ = self.engine.send(Job::Firmware(device, Box::new(told))).await;
    }

    async fn offer_again(&mut self) {
        let open = self.rows.iter_mut().filter_map(|(device, row)| {
            let order = row.order.as_mut().filter(|order| !order.is_accepted())?;
            Some((*device, order.offer()))
        });
        for (device, offer) in open.collect::<Vec<_>>() {
            self.tell(device, Told::Offer(offer)).await;
        }
    }

    async fn heard(&mut self, device: DeviceId, counter: u64, update: Update) {
        let Some(row) = self.rows.get_mut(&device) else { return };
        if row.window.check(counter).is_err() {
            return;
        }
        row.window.last = counter;
        let before = row.heard.as_ref().map(|update| update.version);
        if before != Some(update.version) {
            tracing::info!(%device, version = update.version, floor = update.floor, "firmware");
        }
        let answer = row.order.as_mut().map_or(Answer::Nothing, |order| order.heard(&update));
        row.heard = Some(update);
        let told = match answer {
            Answer::Nothing => return,
            Answer::Offer(offer) => Told::Offer(offer),
            Answer::Piece(piece) => Told::Piece(piece),
            Answer::Confirmed(version) => {
                return self.end(device, format!("confirmed version {version}"), false).await;
            }
            Answer::Failed(version, fault) => {
                let how = format!("failed: version {version}: {}", fault.word());
                return self.end(device, how, true).await;
            }
        };
        self.tell(device, told).await;
    }

    async fn end(&mut self, device: DeviceId, how: String, failed: bool) {
        if failed {
            tracing::warn!(%device, how, "ALARM the update ended");
        } else {
            tracing::info!(%device, how, "the update ended");
        }
        if let Some(row) = self.rows.get_mut(&device) {
            (row.order, row.ended) = (None, Some((how, failed)));
        }
        let path = order::path(&self.folder, &device);
        if let Err(error) = beside(move || files::remove(&path).map_err(|error| error.to_string())).await {
            tracing::warn!(%device, error, "the order stays in its folder and is given again at the next start");
        }
    }

    async fn order(&mut self, device: DeviceId, file: Attached) -> Result<String, String> {
        let row = self.rows.get(&device);
        let row = row.ok_or_else(|| format!("{device} is not a device of this site"))?;
        let from = row.heard.as_ref().map(|update| update.version);
        let (kind, heard, signers) = (row.kind, row.heard.clone(), self.signers.clone());
        let path = order::path(&self.folder, &device);
        let image = beside(move || {
            let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", file.name.display());
            let image = SignedImage::read(&file.bytes).map_err(|error| failed(&error))?;
            order::check(&image, kind, heard.as_ref(), &signers).map_err(|why| failed(&why))?;
            order::keep(&path, &image)?;
            Ok(image)
        })
        .await?;
        let version = image.manifest.version;
        tracing::info!(%device, version, "an update is ordered");
        let mut order = Order::new(image);
        let offer = order.offer();
        if let Some(row) = self.rows.get_mut(&device) {
            (row.order, row.ended) = (Some(order), None);
        }
        self.tell(device, Told::Offer(offer)).await;
        Ok(match from {
            Some(from) => format!("ordered: {device} goes from version {from} to {version}"),
            None => format!("ordered: {device} gets version {version} when it connects"),
        })
    }

    fn rows(&self) -> Value {
        let rows = self.rows.iter().map(|(device, row)| {
            json!({
                "device": device.as_str(),
                "kind": row.kind.word(),
                "version": row.heard.as_ref().map(|update| update.version),
                "confirmed": row.heard.as_ref().map(|update| update.floor),
                "update": row.words(),
            })
        });
        Value::Array(rows.collect())
    }

    fn summary(&self) -> Value {
        let mut versions: BTreeMap<String, u32> = BTreeMap::new();
        for row in self.rows.values() {
            let version = row.heard.as_ref().map(|update| update.version.to_string());
            *versions
                .entry(version.unwrap_or_else(|| "unknown".to_owned()))
                .or_default() += 1;
        }
        let failed = self
            .rows
            .iter()
            .filter(|(_, row)| row.ended.as_ref().is_some_and(|(_, failed)| *failed));
        let failed: BTreeMap<&str, String> = failed.map(|(device, row)| (device.as_str(), row.words())).collect();
        json!({
            "firmware": versions,
            "updates_open": self.rows.values().filter(|row| row.order.is_some()).count(),
            "updates_failed": failed,
        })
    }
}

impl Row {
    /// How its update stands.
    fn words(&self) -> String {
        let Some(order) = &self.order else {
            return self
                .ended
                .as_ref()
                .map_or_else(|| "none".to_owned(), |(how, _)| how.clone());
        };
        let (version, length) = (order.version(), u64::from(order.length()));
        let of_order = self
            .heard
            .as_ref()
            .filter(|update| update.offered == version && order.is_accepted());
        match of_order.map(|update| (update.state, update.offset)) {
            Some((State::Fetching, offset)) => {
                format!("version {version}: fetched {} %", u64::from(offset) * 100 / length)
            }
            Some((State::Waiting, _)) => format!("version {version}: fetched, waits until nobody has a session"),
            Some((State::Trial, _)) => format!("version {version}: on trial"),
            Some((State::Idle | State::Other, _)) | None => format!("version {version}: ordered, waits for the device"),
        }
    }
}
