//! A board in QEMU: the real image on an emulated B-L475E-IOT01A, its link at the real gateway, its pins and serial lines
//! in the hands of the bench.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use defmt_decoder::Table;
use drivers::reader::Uid;
use proto::{id::Kind, identity::Identity};

use crate::rig::{
    chips::{MeterChip, Reader, Wire},
    image::Image,
    line::{Deaf, Line, listen},
    log::{self, Log},
    module::Module,
    pins,
    qtest::Qtest,
    stack,
    world::World,
};

/// The emulator.
const PROGRAM: &str = "qemu-system-arm";
/// The board, as QEMU calls it.
const MACHINE: &str = "b-l475e-iot01a";
/// How much faster batteries fill and washers wash than in the world.
const SPEED: u32 = 120;
/// Pace of the world around a board, in ms.
const STEP_MS: u64 = 5;
/// 9,600 baud, ten bits a byte.
const CODES_BYTES_A_SECOND: u64 = 960;
/// Bytes that a scanner sends together.
const SCAN_BYTES: usize = 8;
/// How long QEMU may take to connect its channels, in s.
const START_S_MAX: u64 = 20;

/// Why this rig cannot run here; `None`: it can.
#[must_use]
pub fn missing() -> Option<String> {
    let output = Command::new(PROGRAM).args(["-machine", "help"]).output();
    match output {
        Err(_) => Some(format!("{PROGRAM} is not installed")),
        Ok(output) if !String::from_utf8_lossy(&output.stdout).contains(MACHINE) => {
            Some(format!("this {PROGRAM} does not know the machine {MACHINE}"))
        }
        Ok(_) => None,
    }
}

/// A board: what is on the desk, powered or not.
#[derive(Debug)]
pub struct Board {
    dir: PathBuf,
    module: Module,
    /// The line of scanner or keypad.
    codes: Line,
    reader: Line,
    card: Arc<Mutex<Option<Uid>>>,
    meter: Line,
    wire: Arc<Mutex<Wire>>,
    world: World,
    log: Log,
    table: Arc<Table>,
    qtest_listener: UnixListener,
    monitor_listener: UnixListener,
    power: Option<Power>,
}

/// What is there only while the board has power.
#[derive(Debug)]
struct Power {
    process: Child,
    pins: Qtest,
}

impl Board {
    /// A board that was flashed and provisioned with a page, without power; its module connects to `gateway`.
    ///
    /// # Errors
    /// If the page is no identity, or a file or socket cannot be made.
    pub fn new(dir: &Path, image: &Image, page: &[u8], gateway: SocketAddr) -> anyhow::Result<Self> {
        let identity = Identity::read(page)?;
        let dir = dir.join(identity.id.as_str());
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("flash.img"), image.provisioned(page)?)?;
        let table = Table::parse(image.elf())?.context("the firmware has no log table")?;
        let (reader, card) = Reader::new();
        let (meter, wire) = MeterChip::new(SPEED);
        Ok(Self {
            module: Module::start(gateway)?,
            codes: Line::new(dir.join("codes.sock"), Deaf)?,
            reader: Line::new(dir.join("reader.sock"), reader)?,
            card,
            meter: Line::new(dir.join("meter.sock"), meter)?,
            wire,
            world: World::new(identity.kind, SPEED),
            qtest_listener: listen(&dir.join("qtest.sock"))?,
            monitor_listener: listen(&dir.join("monitor.sock"))?,
            log: Log::default(),
            table: Arc::new(table),
            power: None,
            dir,
        })
    }

    /// Switches the power on.
    ///
    /// # Errors
    /// If QEMU does not start.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        ensure!(self.power.is_none(), "the power is on");
        let mut command = Command::new(PROGRAM);
        command.current_dir(&self.dir);
        command.args(["-M", MACHINE, "-display", "none", "-monitor", "none"]);
        command.args(["-semihosting-config", "enable=on,target=native", "-kernel", "flash.img"]);
        // USART1, USART2, USART3, UART4.
        for (id, line) in [("codes", &self.codes), ("reader", &self.reader), ("meter", &self.meter)] {
            command.args(["-chardev", &line.chardev(id), "-serial", &format!("chardev:{id}")]);
        }
        let module = self.module.address();
        let (host, port) = (module.ip(), module.port());
        let module = format!("socket,id=module,host={host},port={port},reconnect-ms=200,nodelay=on");
        command.args(["-chardev", &module, "-serial", "chardev:module"]);
        command.args([
            "-qtest",
            "unix:qtest.sock",
            "-qtest-log",
            "/dev/null",
            "-S",
            "-qmp",
            "unix:monitor.sock",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.dir.join("qemu.log"))?,
        );
        let mut process = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
        let stdout = process.stdout.take().expect("it was asked for");
        self.read_logs(stdout);
        let pins = Qtest::new(accept(&self.qtest_listener, &mut process)?)?;
        self.power = Some(Power { process, pins });
        self.world.powered();
        // The pins are as they are before the first instruction.
        self.step()?;
        let process = &mut self.power.as_mut().expect("it was just switched on").process;
        go(&accept(&self.monitor_listener, process)?)
    }

    /// Cuts the power, between any two instructions.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        if let Some(mut power) = self.power.take() {
            power.process.kill()?;
            power.process.wait()?;
        }
        self.world.power_lost();
        Ok(())
    }

    fn read_logs(&self, mut from: impl Read + Send + 'static) {
        let (table, log) = (self.table.clone(), self.log.clone());
        let copy = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("firmware.log"));
        thread::spawn(move || {
            let mut decoder = table.new_stream_decoder();
            let mut copy = copy.ok();
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                log::decode(&mut *decoder, &bytes[..read], |line| {
                    if let Some(copy) = &mut copy {
                        // The copy is for people; a full disk does not stop the bench.
                        drop(writeln!(copy, "{line}"));
                    }
                    log.push(line);
                });
            }
        });
    }

    /// Lets the world around the board go on: what flows, runs, or is drawn.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn step(&mut self) -> anyhow::Result<()> {
        match &mut self.power {
            Some(power) => {
                let stepped = self.world.step(&mut power.pins, &self.wire);
                stepped.with_context(|| format!("{}: the firmware logged:\n{}", self.dir.display(), self.log()))
            }
            None => Ok(()),
        }
    }

    /// Lets the world go on until `is` says so.
    ///
    /// # Errors
    /// If it does not within `limit`; with everything that the firmware logged.
    pub fn wait(&mut self, what: &str, limit: Duration, mut is: impl FnMut(&mut Self) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        loop {
            self.step()?;
            if is(self) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{}: not {what} within {} s; the firmware logged:\n{}",
                self.dir.display(),
                limit.as_secs(),
                self.log()
            );
            thread::sleep(Duration::from_millis(STEP_MS)); // The world's own pace, with the limit above.
        }
    }

    /// Waits until the firmware has logged a line with `text` at or behind line `from`; returns the number of the line
    /// behind it.
    ///
    /// # Errors
    /// If it does not within `limit`; with everything that it logged.
    pub fn wait_for_log(&mut self, from: usize, text: &str, limit: Duration) -> anyhow::Result<usize> {
        let mut at = from;
        self.wait(&format!("\"{text}\""), limit, |board| {
            let found = board.log.find(from, text);
            at = found.unwrap_or(at);
            found.is_some()
        })?;
        Ok(at)
    }

    /// How many lines the firmware has logged.
    #[must_use]
    pub fn logged(&self) -> usize {
        self.log.len()
    }

    /// Everything that the firmware logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text(0)
    }

    /// The log itself.
    #[must_use]
    pub const fn lines(&self) -> &Log {
        &self.log
    }

    /// The serial-to-TCP module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// Holds a card to the reader.
    pub fn tap(&self, uid: &[u8]) {
        *self.card.lock().expect("nothing panics under this lock") = Uid::new(uid);
    }

    /// What is around the board.
    pub const fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// What its meter looks at.
    #[must_use]
    pub const fn wire(&self) -> &Arc<Mutex<Wire>> {
        &self.wire
    }

    /// What the board dispenses.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.world.kind()
    }

    /// Presses the stop button.
    ///
    /// # Errors
    /// If the board has no power.
    pub fn press_stop(&mut self) -> anyhow::Result<()> {
        for released in [true, false, true] {
            self.pins()?.set_pin(pins::STOP, released)?;
        }
        Ok(())
    }

    /// Types or scans a line.
    ///
    /// # Errors
    /// If the board has no power.
    pub fn scan(&self, line: &str) -> anyhow::Result<()> {
        // At the pace of the line: an emulated one has none, and the firmware's ring is as long as a real one needs.
        for bytes in format!("{line}\r").as_bytes().chunks(SCAN_BYTES) {
            self.codes.send(bytes)?;
            thread::sleep(Duration::from_millis(SCAN_BYTES as u64 * 1000 / CODES_BYTES_A_SECOND));
        }
        Ok(())
    }

    /// The pins.
    ///
    /// # Errors
    /// If the board has no power.
    pub fn pins(&mut self) -> anyhow::Result<&mut Qtest> {
        Ok(&mut self.power.as_mut().context("the board has no power")?.pins)
    }

    /// Whether contactor, permit or valve is on.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn is_on(&mut self) -> anyhow::Result<bool> {
        match &mut self.power {
            Some(power) => power.pins.pin(pins::OUTPUT),
            None => Ok(false),
        }
    }

    /// Processor time that the emulator has used, in ms.
    ///
    /// # Errors
    /// If the board has no power.
    pub fn cpu_ms(&self) -> anyhow::Result<u64> {
        let power = self.power.as_ref().context("the board has no power")?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", power.process.id()))?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("a name in brackets")?
            .1
            .split_whitespace()
            .collect();
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|field| field.parse::<u64>().ok())
                .context("a number")
        };
        Ok((ticks(11)? + ticks(12)?) * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        drop(self.power_off());
        let lines: Vec<String> = self.log.text(0).lines().map(str::to_owned).collect();
        stack::record(self.kind(), &lines);
    }
}

/// Lets a machine that was started in stillness run (QEMU's machine protocol).
fn go(mut monitor: &UnixStream) -> anyhow::Result<()> {
    let mut answers = BufReader::new(monitor);
    let mut answer = String::new();
    // The greeting, then an answer to each.
    answers.read_line(&mut answer)?;
    for order in ["qmp_capabilities", "cont"] {
        writeln!(monitor, "{{\"execute\":\"{order}\"}}")?;
        loop {
            answer.clear();
            ensure!(answers.read_line(&mut answer)? > 0, "the machine is gone");
            if answer.contains("\"return\"") {
                break;
            }
            ensure!(!answer.contains("\"error\""), "{order}: {answer}");
        }
    }
    Ok(())
}

/// Waits until QEMU connects, or ends.
fn accept(listener: &UnixListener, process: &mut Child) -> anyhow::Result<UnixStream> {
    let since = Instant::now();
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = process.try_wait()? {
            bail!("{PROGRAM} ended at once: {status}; see qemu.log");
        }
        ensure!(
            since.elapsed() < Duration::from_secs(START_S_MAX),
            "{PROGRAM} does not connect"
        );
        thread::sleep(Duration::from_millis(10)); // A poll of another process, with its limit above.
    }
}
