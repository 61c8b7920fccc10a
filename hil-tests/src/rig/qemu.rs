//! A board in QEMU: the real image on an emulated B-L475E-IOT01A, its link at the real gateway, its pins and serial lines
//! in the hands of the bench.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use defmt_decoder::{DecodeError, Table};
use proto::identity::Identity;

use crate::rig::{
    image::Image,
    module::Module,
    qtest::{Port, Qtest},
};

/// The emulator.
const PROGRAM: &str = "qemu-system-arm";
/// The board, as QEMU calls it.
const MACHINE: &str = "b-l475e-iot01a";
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
    logs: Arc<Logs>,
    table: Arc<Table>,
    qtest_listener: UnixListener,
    power: Option<Power>,
}

/// What is there only while the board has power.
#[derive(Debug)]
struct Power {
    process: Child,
    pins: Qtest,
}

#[derive(Debug, Default)]
struct Logs {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// One serial line of the board; what is written while it has no power is lost, as on a desk.
#[derive(Debug)]
struct Line {
    path: PathBuf,
    stream: Arc<Mutex<Option<UnixStream>>>,
}

impl Line {
    /// `hear` gets every byte that the board sends, with a way to answer.
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        let listener = listen(&path)?;
        let stream: Arc<Mutex<Option<UnixStream>>> = Arc::default();
        let latest = stream.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *latest.lock().expect("nothing panics under this lock") = Some(stream);
            }
        });
        Ok(Self { path, stream })
    }

    fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.stream.lock().expect("nothing panics under this lock");
        let stream = stream.as_mut().context("the board has no power")?;
        Ok(stream.write_all(bytes)?)
    }
}

fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    // Left over from a board of the same name.
    drop(fs::remove_file(path));
    UnixListener::bind(path).with_context(|| path.display().to_string())
}

impl Board {
    /// A board that was flashed and provisioned, without power; its module connects to `gateway`.
    ///
    /// # Errors
    /// If a file or socket cannot be made.
    pub fn new(dir: &Path, image: &Image, identity: &Identity, gateway: SocketAddr) -> anyhow::Result<Self> {
        let dir = dir.join(identity.id.as_str());
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("flash.img"), image.provisioned(identity)?)?;
        let table = Table::parse(image.elf())?.context("the firmware has no log table")?;
        Ok(Self {
            module: Module::start(gateway)?,
            codes: Line::new(dir.join("codes.sock"))?,
            qtest_listener: listen(&dir.join("qtest.sock"))?,
            logs: Arc::default(),
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
        command.args(["-chardev", &socket("codes", &self.codes.path), "-serial", "chardev:codes"]);
        command.args(["-serial", "null", "-serial", "null"]);
        let module = self.module.address();
        let (host, port) = (module.ip(), module.port());
        let module = format!("socket,id=module,host={host},port={port},reconnect-ms=200,nodelay=on");
        command.args(["-chardev", &module, "-serial", "chardev:module"]);
        command.args(["-qtest", "unix:qtest.sock", "-qtest-log", "/dev/null"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::OpenOptions::new().create(true).append(true).open(self.dir.join("qemu.log"))?);
        let mut process = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
        let stdout = process.stdout.take().expect("it was asked for");
        self.read_logs(stdout);
        let pins = Qtest::new(accept(&self.qtest_listener, &mut process)?)?;
        self.power = Some(Power { process, pins });
        Ok(())
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
        *self.codes.stream.lock().expect("nothing panics under this lock") = None;
        Ok(())
    }

    fn read_logs(&self, mut from: impl Read + Send + 'static) {
        let (table, logs) = (self.table.clone(), self.logs.clone());
        let copy = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("firmware.log"));
        thread::spawn(move || {
            let mut decoder = table.new_stream_decoder();
            let mut copy = copy.ok();
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                decoder.received(&bytes[..read]);
                loop {
                    match decoder.decode() {
                        Ok(frame) => {
                            let line = frame.display(false).to_string();
                            if let Some(copy) = &mut copy {
                                // The copy is for people; a full disk does not stop the bench.
                                drop(writeln!(copy, "{line}"));
                            }
                            logs.lines.lock().expect("nothing panics under this lock").push(line);
                            logs.changed.notify_all();
                        }
                        Err(DecodeError::UnexpectedEof) => break,
                        Err(DecodeError::Malformed) => {}
                    }
                }
            }
        });
    }

    /// Waits until the firmware has logged a line with `text` at or behind line `from`; returns the number of the line
    /// behind it.
    ///
    /// # Errors
    /// If it does not within `limit`; with everything that it logged.
    pub fn wait_for_log(&self, from: usize, text: &str, limit: Duration) -> anyhow::Result<usize> {
        let lines = self.logs.lines.lock().expect("nothing panics under this lock");
        let found = |lines: &Vec<String>| lines.iter().skip(from).position(|line| line.contains(text));
        let (lines, _) = self
            .logs
            .changed
            .wait_timeout_while(lines, limit, |lines| found(lines).is_none())
            .expect("nothing panics under this lock");
        match found(&lines) {
            Some(at) => Ok(from + at + 1),
            None => bail!(
                "{} did not log \"{text}\" within {} s:\n{}",
                self.dir.display(),
                limit.as_secs(),
                lines.join("\n")
            ),
        }
    }

    /// How many lines the firmware has logged.
    #[must_use]
    pub fn logged(&self) -> usize {
        self.logs.lines.lock().expect("nothing panics under this lock").len()
    }

    /// Everything that the firmware logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.logs.lines.lock().expect("nothing panics under this lock").join("\n")
    }

    /// The serial-to-TCP module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// Types or scans a line.
    ///
    /// # Errors
    /// If the board has no power.
    pub fn scan(&self, line: &str) -> anyhow::Result<()> {
        self.codes.send(format!("{line}\r").as_bytes())
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
            Some(power) => power.pins.pin(Port::A, 5),
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
        let fields: Vec<&str> = stat.rsplit_once(')').context("a name in brackets")?.1.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok()).context("a number");
        Ok((ticks(11)? + ticks(12)?) * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        drop(self.power_off());
    }
}

fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},path={}", path.display())
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
        ensure!(since.elapsed() < Duration::from_secs(START_S_MAX), "{PROGRAM} does not connect");
        thread::sleep(Duration::from_millis(10)); // A poll of another process, with its limit above.
    }
}
