//! The service as an operator has it: packages are installed on machines that a real systemd boots, a site is made, and lives
//! through what happens to one. After each blow the books are those of before.
//!
//! Needs root, systemd-nspawn and the packages that `cargo xtask test --step service` makes (`HOLDFAST_PACKAGES`).
#![allow(clippy::unwrap_used)]

#[path = "support/machine.rs"]
mod machine;
mod support;
#[path = "support/tap.rs"]
mod tap;

use std::{collections::BTreeMap, io::Write as _, path::Path};

use hil_tests::{books, site::Plan};
use machine::Machine;
use proto::{message::RefusalReason, topic::Up};
use serde_json::Value;
use tap::{PORT, PRICE, Tap};

const UNIT: &str = "holdfast.service";
const HUB_UNIT: &str = "holdfast-hub.service";
const HUB: &str = "127.0.0.1:1884";
const HUB_CONFIG: &str = "/etc/holdfast-hub/hub.toml";
const HUB_SECRETS: &str = "/etc/holdfast-hub/hub-secrets.toml";
/// The disk of the journal, and its reserve.
const DISK: &str = "size=64M";
const RESERVE: &str = r"s|^dir = .*|&\nreserve_mib = 16|";
/// In place of the shipped minute, so that nobody waits for it: three beats of the engine.
const WATCHDOG: &str = "[Service]\nWatchdogSec=4\n";
/// As well, in place of 50 starts 2 s apart.
const LIMIT: &str = "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=100ms\n";
/// As docs/install.md says.
const ENCRYPTED: &str = "[Service]\nLoadCredential=\nLoadCredentialEncrypted=secrets.toml:/etc/holdfast/secrets.cred\n";
/// Longer than the watchdog waits, in µs: the engine hangs in its sync while every other thread lives.
const HANG: &str = "inject=fdatasync,fsync,sync_file_range:delay_enter=600000000";

/// The cloud: a hub of the operator's own, on a machine of its own.
struct Hub(Machine);

impl Hub {
    fn install(plan: &Plan) -> Self {
        let machine = Machine::boot();
        bring(&machine, "holdfast-hub_0.1.0_", "hub");
        let hub = Self(machine);
        hub.0.run(&["dpkg", "--install", "/srv/hub.deb"]);
        hub.0.run(&["holdfast-hub", "init", "/etc/holdfast-hub"]);
        let place = r#"s|^data_dir = .*|data_dir = "/var/lib/holdfast-hub"|"#;
        hub.0.run(&["sed", "--in-place", place, HUB_CONFIG]);
        hub.0.write("/etc/holdfast-hub/hub-seed.toml", &plan.hub_seed());
        hub.0.run(&["systemd-tmpfiles", "--create", "holdfast-hub.conf"]);
        let (code, said) = hub.0.try_run(&["systemctl", "start", HUB_UNIT]);
        assert_eq!(code, Some(0), "{said}\n{}", hub.0.log());
        hub
    }

    fn books(&self) -> Vec<Value> {
        let said = self
            .0
            .run(&["holdfast-hub", "ledger", "export", "--json", "--config", HUB_CONFIG]);
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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

    /// As it stands in the file.
    fn secret_of(&self, device: &str) -> String {
        let secrets = self.0.run(&["cat", "/etc/holdfast/secrets.toml"]);
        let begins = format!("{device} = ");
        let line = secrets
            .lines()
            .find(|line| line.starts_with(&begins))
            .expect("a secret");
        line.split('"').nth(1).unwrap().to_owned()
    }

    /// Waits until the hub is reached.
    fn wait_for_hub(&mut self) {
        self.0.wait("the hub", |machine| {
            let said = machine.run(&["systemctl", "show", "--property", "StatusText", UNIT]);
            said.contains("serving 3 devices; the cloud is reached")
        });
    }

    /// Waits until the hub has confirmed every record.
    fn wait_for_receipts(&mut self) {
        self.0.wait("every receipt", |machine| {
            let (code, said) = machine.try_run(&["holdfast", "status", "--json"]);
            let status: Value = serde_json::from_str(&said).unwrap_or_default();
            code == Some(0) && status["waiting"] == 0
        });
    }

    /// The unit with a drop-in, or without it again.
    fn drop_in(&self, name: &str, text: Option<&str>) {
        let path = format!("/etc/systemd/system/holdfast.service.d/{name}.conf");
        match text {
            Some(text) => self.0.write(&path, text),
            None => drop(self.0.run(&["rm", &path])),
        }
        self.0.run(&["systemctl", "daemon-reload"]);
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

/// Brings the package whose name begins so.
fn bring(machine: &Machine, begins: &str, name: &str) {
    let folder = std::env::var_os("HOLDFAST_PACKAGES").expect("cargo xtask test --step service sets it");
    let files = std::fs::read_dir(Path::new(&folder)).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    let package = paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(begins));
    machine.bring(&package.expect("the package"), &format!("srv/{name}.deb"));
}

fn bring_packages(machine: &Machine) {
    bring(machine, "holdfast_0.1.0_", "old");
    bring(machine, "holdfast_0.1.1_", "new");
}

#[test]
fn from_a_clean_machine_to_another_one_and_the_purge_nothing_is_lost() {
    let plan = Plan::new(6, 3, 30);
    let hub = Hub::install(&plan);
    // The three machines are on one network, and this thread is the devices on it.
    hub.0.enter_network();
    let mut site = Operator(Machine::boot_beside(&hub.0));
    bring_packages(&site.0);

    let mut tap = Tap::of(&plan);
    install(&mut site, &hub, &plan, &mut tap);
    tap.serve();
    crash(&mut site);
    tap.serve();
    hang(&mut site, &mut tap);
    tap.serve();
    full_disk(&mut site, &mut tap);
    tap.serve();
    loops(&mut site);
    tap.serve();
    members(&site);
    tap.serve();
    exchange(&mut site, &mut tap);
    encrypt(&site, &hub);
    tap.serve();

    let second = another_machine(site, &hub, &mut tap);
    remove(&second, &plan);
}

/// Installed, it waits to be configured; with a site it is ready when `systemctl start` returns, and the hub is reached.
fn install(site: &mut Operator, hub: &Hub, plan: &Plan, tap: &mut Tap) {
    site.install("old");
    assert_eq!(site.of_unit("ActiveState"), "inactive");
    assert_eq!(site.of_unit("UnitFileState"), "enabled");
    site.0.run(&["systemd-analyze", "--man=no", "verify", UNIT]);
    let manual = site.0.run(&["zcat", "/usr/share/man/man1/holdfast.1.gz"]);
    assert!(manual.contains(".TH holdfast 1"), "{manual}");
    let completions = "/usr/share/bash-completion/completions/holdfast";
    site.0
        .run(&["bash", "-c", &format!(". {completions} && complete -p holdfast")]);

    // A small disk, and what `holdfast init` shall know of it.
    site.0.run(&["install", "-d", "/var/lib/holdfast"]);
    site.0
        .run(&["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", "/var/lib/holdfast"]);
    let carried = site.0.path("srv/hub-secrets.toml");
    std::fs::copy(hub.0.path(HUB_SECRETS), carried).unwrap();
    let mut init = vec!["holdfast", "init", "--hub-secrets", "/srv/hub-secrets.toml"];
    init.extend(["--hub", HUB, "--listen", PORT]);
    let said = site.0.run(&init);
    assert!(said.contains("systemctl enable --now holdfast"), "{said}");
    site.0
        .run(&["sed", "--in-place", RESERVE, "/etc/holdfast/holdfast.toml"]);
    for device in &plan.devices {
        let mut add = vec![
            "holdfast",
            "device",
            "add",
            device.id.as_str(),
            "--kind",
            device.kind.word(),
        ];
        add.extend(["--outlets", "1"]);
        site.0.run(&add);
    }
    tap.device.secret = site.secret_of(&tap.device.id.to_string()).parse().unwrap();
    let mode = site.0.run(&["stat", "--format", "%a %U", "/etc/holdfast/secrets.toml"]);
    assert_eq!(
        mode.trim(),
        "600 root",
        "the gateway has a copy; its user cannot read the file"
    );

    site.systemctl("start");
    site.wait_for_hub();
    site.0.wait("the list", |machine| {
        let log = ["journalctl", "--unit", UNIT, "--no-pager", "--grep", "list adopted"];
        machine.try_run(&log).0 == Some(0)
    });
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
    site.0.run(&["holdfast", "doctor"]);
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
    site.drop_in("quick", Some(WATCHDOG));
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
    site.drop_in("quick", None);
    site.systemctl("restart");
}

/// What goes on is settled, nothing new begins; with room again all is as before.
fn full_disk(site: &mut Operator, tap: &mut Tap) {
    let running = tap.begin();
    let fill = "dd if=/dev/zero of=/var/lib/holdfast/film bs=1M count=52 status=none";
    site.0.run(&["sh", "-c", fill]);
    site.wait_for_disk(true);
    tap.end(running);
    assert_eq!(tap.refused(), RefusalReason::Storage);
    site.0.run(&["rm", "/var/lib/holdfast/film"]);
    site.wait_for_disk(false);
    println!("full disk: the running session was settled, a new one refused, and served when there was room");
}

/// Members of the configured group may ask, nobody else; and who may look never keeps a site dark.
fn members(site: &Operator) {
    let ask = |user: &str| {
        let command = ["runuser", "--user", user, "--", "holdfast", "status", "--json"];
        site.0.try_run(&command)
    };
    site.0.run(&["useradd", "--groups", "holdfast", "alice"]);
    site.0.run(&["useradd", "eve"]);
    let config = "/etc/holdfast/holdfast.toml";
    let group = |name: &str| format!("printf '[control]\\ngroup = \"{name}\"\\n' >> {config}");
    site.0
        .run(&["sh", "-c", &format!("cp --archive {config} /srv/before.toml")]);
    // One that the unit may not give the socket to.
    site.0.run(&["sh", "-c", &group("audio")]);
    site.systemctl("restart");
    site.0.run(&["holdfast", "status", "--json"]);
    let alarm = [
        "journalctl",
        "--unit",
        UNIT,
        "--no-pager",
        "--grep",
        "ALARM the control socket",
    ];
    assert_eq!(site.0.try_run(&alarm).0, Some(0));
    assert_ne!(ask("alice").0, Some(0));
    site.0.run(&["cp", "--archive", "/srv/before.toml", config]);

    site.0.run(&["sh", "-c", &group("holdfast")]);
    let drop_in = site
        .0
        .run(&["cat", "/usr/share/doc/holdfast/examples/control-group.conf"]);
    site.drop_in("control-group", Some(&drop_in));
    site.systemctl("restart");
    let (code, said) = ask("alice");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask("eve");
    assert_ne!(code, Some(0), "{said}");
    site.0.run(&["cp", "--archive", "/srv/before.toml", config]);
    site.drop_in("control-group", None);
    site.systemctl("restart");
    println!("control group: a member may ask, a stranger not, and a group that cannot be served is an alarm");
}

/// What dies at every start is left to a person after so many; what is configured wrongly, at once.
fn loops(site: &mut Operator) {
    let books = site.books();
    assert_eq!(site.of_unit("StartLimitBurst"), "50");
    assert_eq!(site.of_unit("StartLimitIntervalUSec"), "10min");
    site.drop_in("limit", Some(LIMIT));
    site.0.run(&["systemctl", "reset-failed", UNIT]);
    site.systemctl("restart");
    site.0.wait("the limit", |machine| {
        machine.try_run(&["systemctl", "kill", "--signal=KILL", UNIT]);
        let said = machine.run(&["systemctl", "show", "--value", "--property", "ActiveState", UNIT]);
        said.trim() == "failed"
    });
    site.0.run(&[
        "journalctl",
        "--unit",
        UNIT,
        "--grep",
        "Start request repeated too quickly",
    ]);
    assert_ne!(
        site.0.try_run(&["systemctl", "start", UNIT]).0,
        Some(0),
        "still limited"
    );
    site.drop_in("limit", None);
    site.0.run(&["systemctl", "reset-failed", UNIT]);
    site.systemctl("start");
    assert_eq!(site.books(), books);

    let nonsense = "cp /etc/holdfast/holdfast.toml /srv/good && echo '[nonsense]' >> /etc/holdfast/holdfast.toml";
    site.0.run(&["sh", "-c", nonsense]);
    assert_ne!(site.0.try_run(&["systemctl", "restart", UNIT]).0, Some(0));
    let found = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|property| site.of_unit(property));
    assert_eq!(found, ["failed", "78", "0"], "{}", site.0.log());
    site.0.run(&["cp", "/srv/good", "/etc/holdfast/holdfast.toml"]);
    site.systemctl("start");
    assert_eq!(site.books(), books);
    println!("a crash loop ends at its limit, a wrong configuration at once: started again by hand, nothing was lost");
}

/// As install.md says: from now on nobody reads the secrets without this machine.
fn encrypt(site: &Operator, hub: &Hub) {
    let (plain, sealed) = ("/etc/holdfast/secrets.toml", "/etc/holdfast/secrets.cred");
    site.0.run(&["systemd-creds", "setup"]);
    let name = "--name=secrets.toml";
    site.0
        .run(&["systemd-creds", "encrypt", "--with-key=host", name, plain, sealed]);
    site.drop_in("encrypted", Some(ENCRYPTED));
    site.systemctl("restart");
    site.0.run(&["shred", "-u", plain]);
    site.systemctl("restart");
    site.0.run(&["holdfast", "check-config"]);
    // A thief with the disk of the configuration and a machine of his own.
    hub.0.bring(&site.0.path(sealed), "srv/secrets.cred");
    hub.0.run(&["systemd-creds", "setup"]);
    let (code, said) = hub
        .0
        .try_run(&["systemd-creds", "decrypt", name, "/srv/secrets.cred", "-"]);
    assert_ne!(code, Some(0));
    assert!(!said.contains("token_key"));
    println!("encrypted secrets: served with them, and another machine does not open them");
}

/// The first machine is lost after its backup; the second goes on, and with the hub nothing is lost.
fn another_machine(mut site: Operator, hub: &Hub, tap: &mut Tap) -> Operator {
    let backup = "/srv/site.backup";
    site.0.run(&["holdfast", "backup", backup]);
    tap.serve();
    site.wait_for_receipts();
    let first = site.books();
    let mut second = Operator(Machine::boot_beside(&hub.0));
    bring_packages(&second.0);
    second.install("new");
    assert_eq!(second.of_unit("ActiveState"), "inactive");
    second.0.bring(&site.0.path(backup), "srv/site.backup");
    // Its mains fail.
    drop(site);

    // A box that was in use before: the directory is the gateway's already.
    let user = ["-o", "holdfast", "-g", "holdfast", "-m", "700"];
    second
        .0
        .run(&[&["install", "-d"], &user[..], &["/var/lib/holdfast"]].concat());
    let said = second.0.run(&["holdfast", "restore", backup]);
    assert!(said.contains("goes on in epoch 2"), "{said}");
    second.0.run(&["systemd-tmpfiles", "--create", "holdfast.conf"]);
    second.systemctl("start");
    second.wait_for_hub();
    tap.serve();
    second.wait_for_receipts();
    assert_eq!(second.json(&["status"])["epoch"], 2);

    let (at_hub, last) = (hub.books(), second.books());
    let of_hub = books::compare(&at_hub, &at_hub).unwrap();
    let charged: BTreeMap<String, i64> = tap.served.iter().map(|session| (session.clone(), PRICE)).collect();
    assert_eq!(of_hub.charges, charged, "each session once");
    for ours in [&first, &last] {
        let ours = ours.as_array().unwrap();
        let known = |row: &&Value| ours.iter().any(|line| line["session"] == row["session"]);
        let shared: Vec<Value> = at_hub.iter().filter(known).cloned().collect();
        let books = books::compare(ours, &shared).unwrap();
        assert_eq!((books.records_lost, books.records_doubled), (0, 0), "{books:?}");
    }
    let has = |books: &Value, session: &str| {
        let mut lines = books.as_array().unwrap().iter();
        lines.any(|line| line["session"] == session)
    };
    for session in &tap.served {
        assert!(has(&first, session) || has(&last, session), "{session}");
    }
    println!(
        "a second machine: {} sessions, {} lines at the first, {} at the second, each session once at the hub",
        tap.served.len(),
        first.as_array().unwrap().len(),
        last.as_array().unwrap().len()
    );
    second
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
fn remove(site: &Operator, plan: &Plan) {
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
    assert_eq!(plan.devices.len() as u64, site.json(&["status"])["devices"]);
    let answer = "echo holdfast holdfast/purge-books boolean true | debconf-set-selections";
    site.0.run(&["sh", "-c", answer]);
    site.0.run(&["dpkg", "--purge", "holdfast"]);
    assert!(!is_there("/var/lib/holdfast/journal") && !is_there("/etc/holdfast"));
    println!("remove and purge: kept, found again, and gone when told so");
}
