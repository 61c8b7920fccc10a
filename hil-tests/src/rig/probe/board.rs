//! Real boards as rigs.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use probe_rs::probe::{DebugProbeSelector, list::Lister};
use proto::id::Kind;

use super::{
    config::Board,
    flash::{self, Listener, Programs},
};
use crate::{
    rig::{Not, Order, Rig, Skill, Supplier, log::Log, module::Module},
    site::hex,
    twin::{Battery, Injury, Thing},
};

/// How long a command of the wiring may take, in s.
const COMMAND_S_MAX: u64 = 10;
/// How often a command is looked at, in ms.
const LOOK_MS: u64 = 5;
/// What a command may print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 4096;

/// One board of `bench.toml`.
#[derive(Debug)]
pub struct Probed {
    board: Board,
    lister: fn() -> Lister,
}

impl Probed {
    /// With the probes of this machine.
    #[must_use]
    pub fn new(board: Board) -> Self {
        Self::with_lister(board, Lister::new)
    }

    /// With probes of one's own.
    #[must_use]
    pub const fn with_lister(board: Board, lister: fn() -> Lister) -> Self {
        Self { board, lister }
    }

    /// The board.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }
}

/// Why a board cannot be moved in this way.
fn wired<'a>(command: Option<&'a Vec<String>>, what: &str) -> Result<&'a Vec<String>, Not> {
    command.ok_or_else(|| Not(format!("not wired: {what}")))
}

fn can(board: &Board, skill: Skill) -> Result<(), Not> {
    let wiring = &board.wiring;
    let wired = |command: Option<&Vec<String>>, what| wired(command, what).map(drop);
    match skill {
        Skill::Card => wired(wiring.card.as_ref(), "card"),
        Skill::Line => wired(wiring.line.as_ref(), "line"),
        Skill::Stop => wired(wiring.stop.as_ref(), "stop"),
        // Whoever waits for a delivery must see it.
        Skill::Things | Skill::BigThings => wired(wiring.bring.as_ref(), "bring")
            .and_then(|()| wired(wiring.take_away.as_ref(), "take_away"))
            .and_then(|()| wired(wiring.output.as_ref(), "output"))
            .and_then(|()| wired(wiring.delivered.as_ref(), "delivered")),
        Skill::Power if board.power.is_none() => Err(Not::because("not wired: power")),
        Skill::Injure(injury) if wiring.injuries.of(injury).is_none() => {
            Err(Not(format!("not wired: {}", injury.word())))
        }
        Skill::Processor => Err(Not::because("a board sleeps by itself; measure its supply")),
        Skill::Power | Skill::Cable | Skill::Injure(_) => Ok(()),
    }
}

impl Supplier for Probed {
    fn name(&self) -> &str {
        &self.board.name
    }

    fn has(&self, kind: Kind) -> Result<(), Not> {
        let board = &self.board;
        if let Some(quarantine) = &board.quarantine {
            return Err(Not(format!(
                "in quarantine until {}: {} ({})",
                quarantine.until, quarantine.reason, quarantine.owner
            )));
        }
        if kind != board.kind {
            return Err(Not(format!("this board is a {}", board.kind.word())));
        }
        flash::find(&(self.lister)(), Some(&board.probe)).map_err(|error| Not(error.to_string()))?;
        for image in board.boot.iter().chain([&board.image]) {
            if !image.is_file() {
                return Err(Not(format!("{} was not built", image.display())));
            }
        }
        Ok(())
    }

    fn can(&self, _kind: Kind, skill: Skill) -> Result<(), Not> {
        can(&self.board, skill)
    }

    fn supply(&self, order: &Order<'_>) -> anyhow::Result<Box<dyn Rig>> {
        let lister = (self.lister)();
        let selector = flash::find(&lister, Some(&self.board.probe))?;
        if let Some(power) = &self.board.power {
            run(&power.on, &[])?;
        }
        let module = Module::listen(self.board.link, order.gateway)
            .with_context(|| format!("{}: the address for the board's module", self.board.link))?;
        let mut session = flash::attach(&lister, &selector, &self.board.chip)?;
        let programs = Programs {
            boot: self.board.boot.as_deref(),
            elf: &self.board.image,
            identity: Some((self.board.identity_at, order.page)),
        };
        flash::flash(&mut session, &programs, false)?;
        let (log, elf) = (Log::default(), fs::read(&self.board.image)?);
        Ok(Box::new(ProbeRig {
            listener: Some(Listener::start(session, elf.clone(), log.clone())),
            board: self.board.clone(),
            lister: self.lister,
            selector,
            module,
            log,
            elf,
        }))
    }
}

/// A board, flashed and connected.
#[derive(Debug)]
struct ProbeRig {
    board: Board,
    lister: fn() -> Lister,
    selector: DebugProbeSelector,
    module: Module,
    log: Log,
    elf: Vec<u8>,
    /// `None`: it has no power.
    listener: Option<Listener>,
}

/// Fills in the words in braces and runs a command; what it prints.
fn run(command: &[String], words: &[(&str, String)]) -> anyhow::Result<String> {
    let filled = command.iter().map(|part| {
        words.iter().fold(part.clone(), |part, (word, value)| {
            part.replace(&format!("{{{word}}}"), value)
        })
    });
    let filled: Vec<String> = filled.collect();
    let (program, arguments) = filled.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let end = Instant::now() + Duration::from_secs(COMMAND_S_MAX);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("{filled:?} does not end within {COMMAND_S_MAX} s");
        }
        thread::sleep(Duration::from_millis(LOOK_MS)); // A poll of another process, with its limit above.
    };
    ensure!(status.success(), "{filled:?} fails: {status}");
    let mut printed = String::new();
    let stdout = child.stdout.take().expect("it was asked for");
    stdout.take(OUTPUT_BYTES_MAX).read_to_string(&mut printed)?;
    Ok(printed.trim().to_owned())
}

impl ProbeRig {
    fn wire(&self, command: Option<&Vec<String>>, what: &str, words: &[(&str, String)]) -> anyhow::Result<String> {
        run(wired(command, what)?, words)
    }
}

impl Rig for ProbeRig {
    fn kind_of_rig(&self) -> &'static str {
        "probe"
    }

    fn kind(&self) -> Kind {
        self.board.kind
    }

    fn haste(&self) -> u32 {
        1
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn module(&self) -> &Module {
        &self.module
    }

    fn step(&mut self) -> anyhow::Result<()> {
        // The world around a real board goes on by itself.
        let is_lost = self.listener.as_ref().is_some_and(|listener| !listener.is_listening());
        ensure!(
            !is_lost,
            "{}: {}",
            self.board.name,
            self.log.text(self.log.len().saturating_sub(1))
        );
        Ok(())
    }

    fn tap(&mut self, uid: &[u8]) -> anyhow::Result<()> {
        self.wire(self.board.wiring.card.as_ref(), "card", &[("uid", hex(uid))])?;
        Ok(())
    }

    fn scan(&mut self, line: &str) -> anyhow::Result<()> {
        self.wire(self.board.wiring.line.as_ref(), "line", &[("line", line.to_owned())])?;
        Ok(())
    }

    fn press_stop(&mut self) -> anyhow::Result<()> {
        self.wire(self.board.wiring.stop.as_ref(), "stop", &[])?;
        Ok(())
    }

    fn bring(&mut self, thing: Thing) -> anyhow::Result<()> {
        let words = match thing {
            Thing::Battery(Battery {
                capacity_wh,
                charge_wh,
                power_w,
            }) => vec![
                ("capacity_wh", capacity_wh.to_string()),
                ("charge_wh", charge_wh.to_string()),
                ("power_w", power_w.to_string()),
            ],
            Thing::Laundry => Vec::new(),
            Thing::Vessel { volume_ml } => vec![("volume_ml", volume_ml.to_string())],
        };
        self.wire(self.board.wiring.bring.as_ref(), "bring", &words)?;
        Ok(())
    }

    fn take_away(&mut self) -> anyhow::Result<()> {
        self.wire(self.board.wiring.take_away.as_ref(), "take_away", &[])?;
        Ok(())
    }

    fn power(&mut self, on: bool) -> anyhow::Result<()> {
        let power = self.board.power.clone().context("not wired: power")?;
        if on {
            run(&power.on, &[])?;
            let session = flash::attach(&(self.lister)(), &self.selector, &self.board.chip)?;
            self.listener = Some(Listener::start(session, self.elf.clone(), self.log.clone()));
        } else {
            // Who holds the probe lets go of the chip first.
            self.listener = None;
            run(&power.off, &[])?;
        }
        Ok(())
    }

    fn injure(&mut self, injury: Injury, is_injured: bool) -> anyhow::Result<()> {
        let switch = self.board.wiring.injuries.of(injury);
        let switch = switch.with_context(|| format!("not wired: {}", injury.word()))?;
        run(if is_injured { &switch.on } else { &switch.off }, &[])?;
        Ok(())
    }

    fn is_on(&mut self) -> anyhow::Result<bool> {
        match self.wire(self.board.wiring.output.as_ref(), "output", &[])?.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            other => bail!("output: \"{other}\" is neither on nor off"),
        }
    }

    fn delivered_milli(&mut self) -> anyhow::Result<u64> {
        let printed = self.wire(self.board.wiring.delivered.as_ref(), "delivered", &[])?;
        printed.parse().with_context(|| format!("delivered: \"{printed}\""))
    }

    fn is_running(&mut self) -> bool {
        false
    }

    fn coins(&mut self) -> Option<u32> {
        None
    }

    fn cpu_ms(&self) -> anyhow::Result<u64> {
        bail!("a board sleeps by itself; measure its supply")
    }
}
