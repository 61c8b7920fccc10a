//! The service as an operator has it: the package is installed on a machine that a real systemd boots, and lives through
//! what a site does to it. After each blow the books are those of before.
//!
//! Needs root, systemd-nspawn and the packages that `cargo xtask test --step service` makes (`HOLDFAST_PACKAGES`).
#![allow(clippy::unwrap_used)]

#[path = "support/machine.rs"]
mod machine;
mod support;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use hil_tests::site::{BrokerKind, DevicePlan, Plan, Site, Standing, Ways, binary};
use machine::Machine;
use proto::{
    id::{IdToken, Kind, SessionId, TokenKind},
    instrument::Instrument,
    message::{
        Authorize, Closing, Grant, Hello, Receipt, Refusal, RefusalReason, Stamp, StartProof, Started, Stop, StopReason,
    },
    money::{Money, Units},
    topic::{Down, Up},
};
use serde_json::Value;
use support::Bytes;

const UNIT: &str = "holdfast.service";
/// Where devices find the gateway in there; nobody else has ports there.
const PORT: &str = "127.0.0.1:1883";
/// The disk of the journal, and its reserve.
const DISK: &str = "size=64M";
const RESERVE: &str = "reserve_mib = 16";
/// In place of the shipped minute, so that nobody waits for it: three beats of the engine.
const WATCHDOG: &str = "[Service]\nWatchdogSec=4\n";
/// Longer than the watchdog waits, in µs: the engine hangs in its sync while every other thread lives.
const HANG: &str = "inject=fdatasync,fsync,sync_file_range:delay_enter=600000000";

/// What the site is made of: the files of the gateway, and signed artifacts for it.
struct Made {
    config: String,
    secrets: String,
    artifacts: PathBuf,
    plan: Plan,
    _dir: tempfile::TempDir,
}

/// THE CONFIGURATION BY HAND: a hub signs list and prices, as it would for any site; the gateway's files are those of the
/// bench, with the places of the package. No cloud: the site decides alone.
fn make() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(6, 3, 30);
    let (hub, _) = Site::start_hub(&plan, dir.path()).unwrap();
    let site = Site::start_through(plan.clone(), dir.path(), hub, &Ways::default(), BrokerKind::Embedded).unwrap();
    let artifacts = dir.path().join("artifacts.bin");
    let mut export = Command::new(binary("holdfast-hub").unwrap());
    export.arg("export-artifacts").arg(&artifacts);
    let output = export
        .arg("--config")
        .arg(dir.path().join("hub/hub.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let address = site.device_address.to_string();
    let read = |file: &str| std::fs::read_to_string(dir.path().join("gateway").join(file)).unwrap();
    let store = format!("dir = \"/var/lib/holdfast\"\n{RESERVE}");
    let config = read("holdfast.toml")
        .replace("dir = \"data\"", &store)
        .replace(&address, PORT);
    let secrets = read("secrets.toml");
    assert_eq!(site.stop().unwrap(), (0, 0));
    Made {
        config,
        secrets,
        artifacts,
        plan,
        _dir: dir,
    }
}

/// A tap and somebody with a good card.
struct Tap {
    device: DevicePlan,
    token: [u8; 7],
    boots: u32,
}

/// A session that goes on.
struct Running {
    bytes: Bytes,
    session: SessionId,
    start: Units,
}

impl Tap {
    fn of(plan: &Plan) -> Self {
        let mut dispensers = plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
        let mut good = plan.users.iter().filter(|user| user.standing == Standing::Good);
        Self {
            device: dispensers.next().unwrap().clone(),
            token: good.find(|user| user.whitelist == "always").unwrap().token,
            boots: 0,
        }
    }

    /// Somebody presents the card; the request, not yet said.
    fn asked(&mut self) -> (Running, Authorize) {
        self.boots += 1;
        let address: SocketAddr = PORT.parse().unwrap();
        let mut bytes = Bytes::connect(address, &self.device, self.boots);
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            kind: self.device.kind,
            outlets: 1,
            boot: self.boots,
            down_counter: 0,
            firmware: "bytes".parse().unwrap(),
            at: Stamp::relative(1),
        };
        bytes.say(Up::Hello, &hello);
        let session = SessionId::mint(&self.device.id, self.boots, 1);
        let start = Units(u64::from(self.boots) * 1_000);
        let authorize = Authorize {
            session,
            outlet: 0,
            token: IdToken::new(TokenKind::Card, &self.token).unwrap(),
            units_wished: Units::ZERO,
            register: start,
            at: Stamp::relative(2),
            instrument: Instrument::NONE,
        };
        (Running { bytes, session, start }, authorize)
    }

    /// As far as the water runs.
    fn begin(&mut self) -> Running {
        let (mut running, authorize) = self.asked();
        let heard = running.bytes.say(Up::Authorize, &authorize);
        let grant: Grant = running.bytes.hear(Down::Grant, heard);
        assert_eq!(grant.session, running.session);
        let started = Started {
            session: running.session,
            outlet: 0,
            register_start: running.start,
            proof: StartProof::Flow,
            at: Stamp::relative(3),
        };
        running.bytes.say(Up::Started, &started);
        running
    }

    /// Why not.
    fn refused(&mut self) -> RefusalReason {
        let (mut running, authorize) = self.asked();
        let heard = running.bytes.say(Up::Authorize, &authorize);
        let refusal: Refusal = running.bytes.hear(Down::Refusal, heard);
        refusal.reason
    }

    /// Half a litre; the books have its session.
    fn serve(&mut self) -> String {
        self.begin().end()
    }
}

impl Running {
    fn end(mut self) -> String {
        let stop = Stop {
            session: self.session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: self.start,
            register_end: Units(self.start.0 + 500),
            elapsed_s: 5,
            idle_s: 0,
            shown: Money(15),
            at: Stamp::relative(9),
        };
        let heard = self.bytes.say(Up::Stop, &stop);
        let receipt: Receipt = self.bytes.hear(Down::Receipt, heard);
        assert_eq!((receipt.closing, receipt.amount), (Closing::Captured, Money(15)));
        receipt.session.to_string()
    }
}

/// The operator's view.
struct Operator(Machine);

impl Operator {
    fn package(&self, package: &str) -> (Option<i32>, String) {
        self.0.try_run(&["dpkg", "--install", &format!("/srv/{package}.deb")])
    }

    fn install(&self, package: &str) {
        let (code, said) = self.package(package);
        assert_eq!(code, Some(0), "{said}");
    }

    fn of_unit(&self, property: &str) -> String {
        let said = self
            .0
            .run(&["systemctl", "show", "--value", "--property", property, UNIT]);
        said.trim().to_owned()
    }

    fn systemctl(&self, verb: &str) {
        let (code, said) = self.0.try_run(&["systemctl", verb, UNIT]);
        assert_eq!(code, Some(0), "{verb}: {said}\n{}", self.0.log());
    }

    fn json(&self, command: &[&str]) -> Value {
        serde_json::from_str(&self.0.run(&[&["holdfast"], command, &["--json"]].concat())).unwrap()
    }

    fn books(&self) -> Value {
        self.json(&["ledger", "export"])
    }

    /// The service ends and comes back by itself; what stood in the books stands there. What was on its way to the disk may
    /// have come there: nobody was told, and the device asks again.
    fn survives(&mut self, blow: &str, strike: impl FnOnce(&mut Self)) {
        let (books, before) = (self.books(), self.of_unit("NRestarts").parse::<u32>().unwrap());
        let pid = self.of_unit("MainPID");
        strike(self);
        let unit = |machine: &Machine, property: &str| {
            machine
                .try_run(&["systemctl", "show", "--value", "--property", property, UNIT])
                .1
        };
        self.0.wait(blow, |machine| {
            unit(machine, "NRestarts")
                .trim()
                .parse::<u32>()
                .is_ok_and(|n| n > before)
                && unit(machine, "ActiveState").trim() == "active"
        });
        assert_ne!(self.of_unit("MainPID"), pid, "{blow}");
        let (books, after) = (books.as_array().unwrap().clone(), self.books());
        assert!(after.as_array().unwrap().starts_with(&books), "{blow}: {after:#}");
        println!("{blow}: back by itself, {} lines in the books", books.len());
    }

    /// Waits until the gateway has looked at its disk.
    fn wait_for_disk(&mut self, is_scarce: bool) {
        self.0.wait("a look at the disk", |machine| {
            let said = machine.run(&["holdfast", "status", "--json"]);
            let status: Value = serde_json::from_str(&said).unwrap();
            status["disk_scarce"] == is_scarce
        });
    }
}

fn bring_packages(machine: &Machine) {
    let folder = std::env::var_os("HOLDFAST_PACKAGES").expect("cargo xtask test --step service sets it");
    for (version, name) in [("0.1.0", "old"), ("0.1.1", "new")] {
        let begins = format!("holdfast_{version}_");
        let files = std::fs::read_dir(Path::new(&folder)).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&begins);
        machine.bring(&paths.find(is_it).expect("the package"), &format!("srv/{name}.deb"));
    }
}

#[test]
fn from_a_clean_machine_to_the_purge_nothing_is_lost() {
    let made = make();
    let mut tap = Tap::of(&made.plan);
    let mut site = Operator(Machine::boot());
    bring_packages(&site.0);
    site.0.enter_network();

    install(&site, &made);
    let mut served = vec![tap.serve()];

    crash(&mut site);
    served.push(tap.serve());
    hang(&mut site, &mut tap);
    served.push(tap.serve());
    full_disk(&mut site, &mut tap);
    served.push(tap.serve());

    let books = site.books();
    let lines = books.as_array().unwrap();
    for session in &served {
        assert!(
            lines.iter().any(|line| line["session"] == session.as_str()),
            "{session}"
        );
    }
    exchange(&mut site, &mut tap);
    remove(&site, &made);
}

/// Installed, it waits to be configured; started, it is ready when `systemctl start` returns.
fn install(site: &Operator, made: &Made) {
    site.install("old");
    assert_eq!(site.of_unit("ActiveState"), "inactive");
    assert_eq!(site.of_unit("UnitFileState"), "enabled");
    site.0.run(&["systemd-analyze", "--man=no", "verify", UNIT]);
    site.0.run(&["install", "-d", "/var/lib/holdfast"]);
    site.0
        .run(&["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", "/var/lib/holdfast"]);
    site.0.write("/etc/holdfast/holdfast.toml", &made.config);
    site.0.write("/etc/holdfast/secrets.toml", &made.secrets);
    site.0.run(&["systemd-tmpfiles", "--create", "holdfast.conf"]);
    let mode = site.0.run(&["stat", "--format", "%a %U", "/etc/holdfast/secrets.toml"]);
    assert_eq!(
        mode.trim(),
        "600 root",
        "the gateway has a copy; its user cannot read the file"
    );
    site.systemctl("start");
    assert_eq!(site.of_unit("StatusText"), "serving 3 devices; no cloud is configured");
    let log = site
        .0
        .run(&["journalctl", "--unit", UNIT, "--output=json", "--no-pager"]);
    let ready = log
        .lines()
        .find(|line| line.contains("\"ready site="))
        .expect("a line of the log");
    assert!(
        ready.contains("\"PRIORITY\":\"6\""),
        "the level is journald's, and no time is in the text: {ready}"
    );
    site.0.bring(&made.artifacts, "srv/artifacts.bin");
    site.0.run(&["holdfast", "trust", "import", "/srv/artifacts.bin"]);
    let rated = site
        .0
        .run(&["systemd-analyze", "security", "--no-pager", "--threshold=12", UNIT]);
    println!("booted: {}", rated.lines().last().unwrap_or_default());
}

fn crash(site: &mut Operator) {
    site.survives("SIGKILL", |site| {
        site.0.run(&["systemctl", "kill", "--signal=KILL", UNIT]);
    });
}

/// How often the watchdog bit.
fn watchdogs(machine: &Machine) -> usize {
    let log = machine.run(&["journalctl", "--unit", UNIT, "--no-pager"]);
    log.matches("Watchdog timeout").count()
}

/// A process that stands still, and an engine that stands still in a process that does not.
fn hang(site: &mut Operator, tap: &mut Tap) {
    site.0
        .write("/etc/systemd/system/holdfast.service.d/quick.conf", WATCHDOG);
    site.0.run(&["systemctl", "daemon-reload"]);
    site.systemctl("restart");
    site.survives("SIGSTOP", |site| {
        site.0.run(&["kill", "-STOP", &site.of_unit("MainPID")]);
    });
    let mut held = None;
    let mut strace = None;
    let (mut asked, authorize) = tap.asked();
    site.survives("a sync that never ends", |site| {
        let pid = site.of_unit("MainPID");
        let script = format!("grep --files-with-matches --line-regexp engine /proc/{pid}/task/*/comm");
        let comm = site.0.run(&["sh", "-c", &script]);
        let thread = comm.trim().split('/').nth_back(1).unwrap().to_owned();
        let script = format!("echo $$ > /srv/tracer; exec strace -o /srv/trace -p {thread} -e {HANG}");
        strace = Some(site.0.command(&["sh", "-c", &script]).spawn().unwrap());
        site.0.wait("the tracer", |machine| {
            let status = machine.run(&["grep", "TracerPid", &format!("/proc/{pid}/task/{thread}/status")]);
            !status.trim().ends_with("\t0")
        });
        // Not waited for: it is not acknowledged, for it is not durable.
        let (topic, frame) = asked.bytes.seal(Up::Authorize, &authorize);
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&[0xff, 0xff]);
        body.extend_from_slice(&frame);
        asked.bytes.stream.write_all(&support::packet(0x32, &body)).unwrap();
        held = Some(asked);
        site.0.wait("the watchdog", |machine| watchdogs(machine) == 2);
        // A tracer keeps even what is killed.
        site.0.run(&["sh", "-c", "kill -KILL $(cat /srv/tracer)"]);
    });
    drop(held);
    let _ = strace.unwrap().wait();
    assert_eq!(watchdogs(&site.0), 2);
    site.0.run(&["rm", "/etc/systemd/system/holdfast.service.d/quick.conf"]);
    site.0.run(&["systemctl", "daemon-reload"]);
    site.systemctl("restart");
}

/// What goes on is settled, nothing new begins; with room again all is as before.
fn full_disk(site: &mut Operator, tap: &mut Tap) {
    let running = tap.begin();
    let fill = "dd if=/dev/zero of=/var/lib/holdfast/film bs=1M count=52 status=none";
    site.0.run(&["sh", "-c", fill]);
    site.wait_for_disk(true);
    running.end();
    assert_eq!(tap.refused(), RefusalReason::Storage);
    site.0.run(&["rm", "/var/lib/holdfast/film"]);
    site.wait_for_disk(false);
    println!("full disk: the running session was settled, a new one refused, and served when there was room");
}

/// Up and down again, with what the operator changed.
fn exchange(site: &mut Operator, tap: &mut Tap) {
    site.0
        .run(&["sh", "-c", "echo HOLDFAST_LOG=debug >> /etc/default/holdfast"]);
    for package in ["new", "old"] {
        let (books, pid) = (site.books(), site.of_unit("MainPID"));
        site.install(package);
        assert_ne!(site.of_unit("MainPID"), pid, "{package}");
        assert_eq!(site.of_unit("ActiveState"), "active", "{}", site.0.log());
        assert_eq!(site.books(), books, "{package}");
        site.0.run(&["grep", "HOLDFAST_LOG=debug", "/etc/default/holdfast"]);
        tap.serve();
    }
    println!(
        "upgrade and downgrade: {} lines in the books",
        site.books().as_array().unwrap().len()
    );
}

/// Removal and purge keep the ledger, unless somebody said otherwise.
fn remove(site: &Operator, made: &Made) {
    let books = site.books();
    let is_there = |path: &str| site.0.try_run(&["test", "-e", path]).0 == Some(0);
    site.0.run(&["dpkg", "--remove", "holdfast"]);
    assert!(!is_there("/usr/bin/holdfast") && is_there("/etc/default/holdfast"));
    let said = site.0.run(&["dpkg", "--purge", "holdfast"]);
    assert!(said.contains("kept: /var/lib/holdfast"), "{said}");
    assert!(!is_there("/etc/default/holdfast") && is_there("/etc/holdfast/secrets.toml"));
    // Whoever comes back finds all of it, and needs to do nothing but install.
    site.install("new");
    assert_eq!(site.of_unit("ActiveState"), "active", "{}", site.0.log());
    assert_eq!(site.books(), books);
    assert_eq!(made.plan.devices.len() as u64, site.json(&["status"])["devices"]);
    let answer = "echo holdfast holdfast/purge-books boolean true | debconf-set-selections";
    site.0.run(&["sh", "-c", answer]);
    site.0.run(&["dpkg", "--purge", "holdfast"]);
    assert!(!is_there("/var/lib/holdfast/journal") && !is_there("/etc/holdfast"));
    println!("remove and purge: kept, found again, and gone when told so");
}
