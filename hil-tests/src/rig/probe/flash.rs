//! Flashing through a probe, and reading the log that comes back.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use defmt_decoder::Table;
use probe_rs::{
    Permissions, Session,
    flashing::{DownloadOptions, ElfLoader, ElfOptions},
    probe::{DebugProbeInfo, DebugProbeSelector, list::Lister},
    rtt::{Rtt, ScanRegion, find_rtt_control_block_in_raw_file},
};

use crate::rig::log;

/// How long a firmware may take from its reset to its log, in s.
const LOG_S_MAX: u64 = 5;
/// How often the log is looked for, and read, in ms.
const LOOK_MS: u64 = 20;
/// Bytes of the log that are read together.
const READ_BYTES: usize = 1024;
/// Readings in a row that fail before a board counts as lost: a reset of its own disturbs one or two.
const FAILURES_MAX: u32 = 10;

/// What to do when there is no probe.
const HOW_TO_CONNECT: &str = "connect the board's debug USB port; on Linux the probe must be readable by you \
                              (udev rules: https://probe.rs/docs/getting-started/probe-setup)";

/// The probes that are attached, for people.
#[must_use]
pub fn probes(lister: &Lister) -> Vec<String> {
    let named = |info: &DebugProbeInfo| {
        let serial = info.serial_number.as_deref().unwrap_or("no serial number");
        format!(
            "{:04x}:{:04x}:{serial}  {}",
            info.vendor_id, info.product_id, info.identifier
        )
    };
    lister.list_all().iter().map(named).collect()
}

/// The probe with this `VID:PID:serial`; without a wish the only one there is.
///
/// # Errors
/// If there is none, or no wish and several; with what to do.
pub fn find(lister: &Lister, wish: Option<&str>) -> anyhow::Result<DebugProbeSelector> {
    let Some(wish) = wish else {
        let found = lister.list_all();
        return match found.as_slice() {
            [] => bail!("no debug probe is attached: {HOW_TO_CONNECT}"),
            [only] => Ok(only.into()),
            [..] => bail!(
                "several debug probes are attached; choose one with --probe:\n{}",
                probes(lister).join("\n")
            ),
        };
    };
    let selector: DebugProbeSelector = wish.parse().with_context(|| format!("\"{wish}\""))?;
    if lister.list(Some(&selector)).is_empty() {
        let others = probes(lister);
        let others = match others.as_slice() {
            [] => "none is".to_owned(),
            [..] => others.join(", "),
        };
        bail!("no probe {wish} is attached ({others}): {HOW_TO_CONNECT}");
    }
    Ok(selector)
}

/// Connects to the chip under reset.
///
/// # Errors
/// If probe or chip do not answer.
pub fn attach(lister: &Lister, selector: &DebugProbeSelector, chip: &str) -> anyhow::Result<Session> {
    let probe = lister
        .open(selector.clone())
        .with_context(|| format!("the probe {selector} cannot be opened"))?;
    let session = probe.attach_under_reset(chip, Permissions::default());
    session.with_context(|| format!("no {chip} answers behind the probe {selector}"))
}

/// What is written to a board.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The bootloader, on a board that has one.
    pub boot: Option<&'a Path>,
    /// The program.
    pub elf: &'a Path,
    /// The page of an identity, and where it goes.
    pub identity: Option<(u64, &'a [u8])>,
}

/// Writes and verifies programs, and an identity if there is one.
///
/// # Errors
/// If something does not fit the chip's flash, or is not read back as it was written.
pub fn flash(session: &mut Session, programs: &Programs<'_>, dry_run: bool) -> anyhow::Result<()> {
    let mut loader = session.target().flash_loader();
    for elf in programs.boot.into_iter().chain([programs.elf]) {
        let shown = || elf.display().to_string();
        ensure!(elf.is_file(), "{}: no firmware image; build it first", shown());
        let mut file = File::open(elf).with_context(shown)?;
        let format = ElfLoader(ElfOptions::default());
        let loaded = loader.load_image(session, &mut file, format, None);
        loaded.with_context(shown)?;
    }
    if let Some((address, page)) = programs.identity {
        let added = loader.add_data(address, page);
        added.with_context(|| format!("the identity at {address:#x}"))?;
    }
    let mut options = DownloadOptions::default();
    options.verify = !dry_run;
    options.dry_run = dry_run;
    let committed = loader.commit(session, options);
    committed.with_context(|| programs.elf.display().to_string())
}

/// Resets the chip and reads its log until `ended` or until the board is lost; `push` gets every line.
///
/// # Errors
/// If the program logs nothing over RTT, or the board is lost.
pub fn listen(
    session: &mut Session,
    elf: &[u8],
    ended: &AtomicBool,
    mut push: impl FnMut(String),
) -> anyhow::Result<()> {
    let table = Table::parse(elf)?.context("the firmware has no log table")?;
    let mut decoder = table.new_stream_decoder();
    let block = find_rtt_control_block_in_raw_file(elf)?.context("the firmware has no RTT block")?;
    let mut core = session.core(0)?;
    core.reset()?;
    let since = Instant::now();
    let mut rtt = loop {
        match Rtt::attach_region(&mut core, &ScanRegion::Exact(block)) {
            Ok(rtt) => break rtt,
            Err(error) if since.elapsed() >= Duration::from_secs(LOG_S_MAX) => {
                return Err(error).context("the firmware does not log");
            }
            Err(_) if ended.load(Ordering::Relaxed) => return Ok(()),
            Err(_) => thread::sleep(Duration::from_millis(LOOK_MS)), // With the limit above.
        }
    };
    let (mut bytes, mut failures) = ([0; READ_BYTES], 0);
    while !ended.load(Ordering::Relaxed) {
        let channel = rtt.up_channel(0).context("the firmware has no channel for its log")?;
        match channel.read(&mut core, &mut bytes) {
            Ok(0) => {
                failures = 0;
                thread::sleep(Duration::from_millis(LOOK_MS)); // Nothing to read: the pace of a look.
            }
            Ok(read) => {
                failures = 0;
                log::decode(&mut *decoder, &bytes[..read], &mut push);
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    return Err(error).context("the board is lost");
                }
                thread::sleep(Duration::from_millis(LOOK_MS)); // With the limit above.
            }
        }
    }
    Ok(())
}

/// A thread that reads the log of a board.
#[derive(Debug)]
pub(super) struct Listener {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Listener {
    /// Reads into `log` until it is dropped; that the board is lost is a line of the log.
    pub(super) fn start(mut session: Session, elf: Vec<u8>, log: log::Log) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = thread::spawn(move || {
            if let Err(error) = listen(&mut session, &elf, &until, |line| log.push(line)) {
                log.push(format!("the bench: {error:#}"));
            }
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }

    /// Whether it still reads.
    pub(super) fn is_listening(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            drop(thread.join());
        }
    }
}
