//! The operator's commands on real processes: a site is made, backed up under load, restored elsewhere and not forked;
//! devices are added, rotated and blocked; the books are verified and exported.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use hil_tests::{
    books,
    mqtt_wire::packet,
    process::Process,
    site::{BrokerKind, DevicePlan, Plan, Site, Standing, binary, free_port},
};
use proto::{id::Kind, message::Closing, money::Money, seal::PairSecret};
use serde_json::Value;
use support::{Bytes, PATIENCE};

/// Exit code and what was said, both ways.
fn holdfast(config: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("holdfast").unwrap())
        .arg("--config")
        .arg(config)
        .args(args)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// As well, of a command that succeeds.
fn good(config: &Path, args: &[&str]) -> String {
    let (code, said) = holdfast(config, args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

/// A dispenser and people who may use it as often as they like.
struct Tap {
    device: DevicePlan,
    tokens: Vec<[u8; 7]>,
    sessions: u32,
}

impl Tap {
    fn of(plan: &Plan, number: usize) -> Self {
        let mut dispensers = plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
        let good = plan.users.iter().filter(|user| user.standing == Standing::Good);
        let always = good.filter(|user| user.whitelist == "always");
        Self {
            device: dispensers.nth(number).unwrap().clone(),
            tokens: always.map(|user| user.token).collect(),
            sessions: 0,
        }
    }

    /// Half a litre, after the device has started again; the session's id as books have it.
    fn serve(&mut self, address: SocketAddr) -> String {
        self.sessions += 1;
        let token = self.tokens[self.sessions as usize % self.tokens.len()];
        let mut bytes = Bytes::connect(address, &self.device, self.sessions);
        let receipt = bytes.session(self.sessions, &token);
        assert_eq!((receipt.closing, receipt.amount), (Closing::Captured, Money(15)));
        receipt.session.to_string()
    }
}

fn site(dir: &Path) -> Site {
    let mut plan = Plan::new(61, 12, 40);
    plan.limits = "[limits]\nattempts_a_minute_max = 1000\nstarts_an_hour_max = 100000\n[limits.dispenser]\noutage_count_max = 1000\noutage_money_max = 100000\noutage_count_lower = 1000\n".to_owned();
    let (hub, address) = Site::start_hub(&plan, dir).unwrap();
    let site = Site::start(plan, dir, hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    site
}

fn stop(site: &mut Site) {
    assert_eq!(site.gateway.stop().unwrap(), 0);
}

/// Waits until every record has its receipt. A session that was open in the copy stays open there until its device, which
/// knows that it ended, says so again; the hub has it from the old box.
fn receipted(site: &Site) {
    let since = Instant::now();
    loop {
        let status = site.ask_gateway("status").unwrap();
        if status["waiting"] == 0 {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{status:#}\n{}", site.gateway.log_tail());
        std::thread::yield_now();
    }
}

#[test]
fn a_backup_made_under_load_goes_on_elsewhere_and_the_old_box_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path());
    let (mut tap, mut busy) = (Tap::of(&site.plan, 0), Tap::of(&site.plan, 1));
    let (here, old) = (dir.path().join("gateway"), dir.path().join("the old box"));
    let config = here.join("holdfast.toml");
    let file = dir.path().join("site.backup");
    let mut charged = vec![tap.serve(site.device_address)];

    // Sessions before, during and after the copy; each of them is in it whole up to some record, or not at all.
    let (address, over) = (site.device_address, AtomicBool::new(false));
    charged.extend(std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut served = vec![busy.serve(address)];
            while !over.load(Ordering::Relaxed) {
                served.push(busy.serve(address));
            }
            served
        });
        let said = good(&config, &["backup", file.to_str().unwrap()]);
        assert!(said.contains("every secret of the site"), "{said}");
        over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    }));
    let (code, said) = holdfast(&config, &["backup", file.to_str().unwrap()]);
    assert_eq!(code, Some(73), "a backup is never written over: {said}");
    charged.push(tap.serve(site.device_address));
    site.settle(PATIENCE).unwrap();
    let before = site.ask_hub("ledger").unwrap();
    stop(&mut site);
    let ours = good(&config, &["ledger", "verify"]);
    assert!(ours.starts_with("good: "), "{ours}");

    // Nothing is written over, and nothing that is not whole is believed.
    let path = file.to_str().unwrap();
    let (code, said) = holdfast(&config, &["restore", path, "--dir", here.to_str().unwrap()]);
    assert_eq!(code, Some(73), "{said}");
    let damaged = dir.path().join("damaged");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let (code, said) = holdfast(
        &config,
        &[
            "restore",
            damaged.to_str().unwrap(),
            "--dir",
            elsewhere.to_str().unwrap(),
        ],
    );
    assert_eq!(code, Some(65), "{said}");
    assert!(!elsewhere.exists(), "nothing was made of it");

    // The second machine. The device side is as it was, so the same devices come.
    fs::rename(&here, &old).unwrap();
    let said = good(&config, &["restore", path, "--dir", here.to_str().unwrap()]);
    assert!(said.contains("epoch 2"), "{said}");
    site.boot_gateway(&[]).unwrap();
    receipted(&site);
    let status = site.ask_gateway("status").unwrap();
    assert_eq!((&status["epoch"], &status["epoch_expected"]), (&2.into(), &0.into()));
    charged.push(tap.serve(site.device_address));
    receipted(&site);
    stop(&mut site);

    // Somebody switches the old box on again: it serves people, and the hub takes nothing from it.
    let new = dir.path().join("the new box");
    fs::rename(&here, &new).unwrap();
    fs::rename(&old, &here).unwrap();
    site.boot_gateway(&[]).unwrap();
    let since = Instant::now();
    while site.ask_gateway("status").unwrap()["epoch_expected"] != 2 {
        assert!(since.elapsed() < PATIENCE, "{}", site.gateway.log_tail());
        std::thread::yield_now();
    }
    let (code, said) = holdfast(&config, &["doctor"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("holdfast run --epoch 2"), "{said}");
    let at_hub = site.ask_hub("ledger").unwrap();
    tap.serve(site.device_address);
    assert_ne!(site.ask_gateway("status").unwrap()["waiting"], 0);
    assert_eq!(site.ask_hub("ledger").unwrap(), at_hub, "fenced");
    stop(&mut site);
    fs::rename(&here, &old).unwrap();
    fs::rename(&new, &here).unwrap();
    site.boot_gateway(&[]).unwrap();
    charged.push(busy.serve(site.device_address));
    receipted(&site);

    // The hub has each session once: what it had booked stands, and what the copy did not know is the hub's alone.
    let after = site.ask_hub("ledger").unwrap();
    assert_eq!(after[..before.len()], before, "what was booked stands as it was");
    let ours = &site.gateway_book().unwrap();
    let known = |row: &&Value| ours.iter().any(|line| line["session"] == row["session"]);
    let shared: Vec<Value> = after.iter().filter(known).cloned().collect();
    let books = books::compare(ours, &shared).unwrap();
    assert_eq!((books.records_lost, books.records_doubled), (0, 0), "{books:?}");
    let of_hub = books::compare(&after, &after).unwrap();
    let mut expected: Vec<(String, i64)> = charged.into_iter().map(|session| (session, 15)).collect();
    expected.sort();
    assert_eq!(of_hub.charges.into_iter().collect::<Vec<_>>(), expected, "each once");
    for nothing in ["holds", "quarantine", "disputes"] {
        assert_eq!(site.ask_hub(nothing).unwrap(), Vec::<Value>::new(), "{nothing}");
    }
    assert_eq!(site.stop().unwrap(), (0, 0));
}

/// What a device is told when it logs in: the code of CONNACK in 3.1.1.
fn connack(address: SocketAddr, device: &DevicePlan) -> u8 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let id = device.id.as_str();
    let mut body = vec![0, 4];
    body.extend_from_slice(b"MQTT\x04\xc2\x00\x3c");
    for text in [id, id, &device.secret.password()] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&packet(0x10, &body)).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    connack[3]
}

#[test]
fn devices_are_added_given_new_secrets_and_blocked() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path());
    let mut tap = Tap::of(&site.plan, 0);
    let config = dir.path().join("gateway/holdfast.toml");
    let id = tap.device.id.to_string();
    tap.serve(site.device_address);

    // At once: the open connection is cut, and no other is let in.
    let mut open = Bytes::connect(site.device_address, &tap.device, 9);
    let said = good(&config, &["device", "block", &id]);
    assert!(said.contains("from this moment on"), "{said}");
    let mut rest = Vec::new();
    open.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(connack(site.device_address, &tap.device), 5, "not authorized");
    let row = |site: &Site| {
        let rows = site.ask_gateway("devices").unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["device"] == id.as_str());
        row.unwrap()["blocked"].clone()
    };
    assert_eq!(row(&site), true);
    assert_eq!(site.ask_gateway("status").unwrap()["devices_blocked"], 1);
    // And over restarts.
    site.kill_gateway().unwrap();
    assert_eq!(row(&site), true);
    assert_eq!(connack(site.device_address, &tap.device), 5);
    good(&config, &["device", "unblock", &id]);
    assert_eq!(row(&site), false);
    tap.sessions = 9;
    tap.serve(site.device_address);

    // A new secret holds from the next start on.
    let said = good(&config, &["device", "rotate", &id]);
    assert!(said.contains("ends when the gateway reads its files again"), "{said}");
    assert_eq!(connack(site.device_address, &tap.device), 0);
    good(&config, &["device", "add", "dispenser-900", "--kind", "dispenser"]);
    let (code, said) = holdfast(&config, &["device", "add", "dispenser-900", "--kind", "washer"]);
    assert_eq!(code, Some(73), "{said}");
    assert_eq!(holdfast(&config, &["device", "rotate", "nobody"]).0, Some(66));
    stop(&mut site);
    site.boot_gateway(&[]).unwrap();
    assert_eq!(connack(site.device_address, &tap.device), 4, "the old secret ended");
    let secrets = fs::read_to_string(config.with_file_name("secrets.toml")).unwrap();
    let secret = |id: &str| -> PairSecret {
        let line = secrets
            .lines()
            .find(|line| line.starts_with(&format!("{id} = ")))
            .unwrap();
        line.split('"').nth(1).unwrap().parse().unwrap()
    };
    tap.device.secret = secret(&id);
    tap.serve(site.device_address);
    let mut new = Tap::of(&site.plan, 0);
    new.device.id = "dispenser-900".parse().unwrap();
    new.device.secret = secret("dispenser-900");
    new.serve(site.device_address);
    site.settle(PATIENCE).unwrap();

    look_around(&mut site, &config);
}

/// The commands that only look, at a running gateway and at a stopped one.
fn look_around(site: &mut Site, config: &Path) {
    let screen = good(config, &["status"]);
    assert!(
        screen.contains("authorize   ONLINE for ") && screen.contains("every record has its receipt"),
        "{screen}"
    );
    assert!(!screen.contains('\u{1b}'), "colours are for terminals");
    assert!(screen.lines().count() <= 24, "{screen}");
    let status: Value = serde_json::from_str(&good(config, &["status", "--json"])).unwrap();
    assert_eq!(status["balanced"], true);
    assert!(good(config, &["outbox", "ls"]).contains("Nothing waits"));
    assert!(good(config, &["outbox", "quarantine"]).contains("Nothing"));
    let found: Value = serde_json::from_str(&good(config, &["doctor", "--json"])).unwrap();
    let bad = |row: &&Value| row["verdict"] == "problem";
    assert_eq!(found.as_array().unwrap().iter().find(bad), None);

    let running = good(config, &["ledger", "export", "--format", "csv"]);
    let lines = site.gateway_book().unwrap();
    assert_eq!(running.lines().count(), lines.len() + 1);
    let table = good(config, &["ledger", "export"]);
    assert_eq!(table.lines().count(), lines.len() + 1);
    let verified = good(config, &["ledger", "verify"]);

    // With the hub away, what waits is shown.
    assert_eq!(site.hub.stop().unwrap(), 0);
    let mut tap = Tap::of(&site.plan, 1);
    tap.serve(site.device_address);
    let rows: Value = serde_json::from_str(&good(config, &["outbox", "ls", "--json"])).unwrap();
    let kinds: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["is"].as_str().unwrap())
        .collect();
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"hold"), Some(&"capture")),
        "{kinds:?}"
    );
    let (code, said) = holdfast(config, &["doctor"]);
    assert_eq!(code, Some(0), "a site goes on without its cloud: {said}");
    assert!(said.contains("warning  cloud main"), "{said}");
    stop(site);

    assert!(good(config, &["ledger", "export", "--format", "csv"]).starts_with(running.trim_end()));
    assert_ne!(good(config, &["ledger", "verify"]), verified, "three records more");
    let (code, said) = holdfast(config, &["status"]);
    assert_eq!(code, Some(69));
    assert!(said.contains("systemctl status holdfast"), "{said}");
}

#[test]
fn a_site_is_made_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("new site");
    let config = here.join("holdfast.toml");
    let (at, listen) = (here.to_str().unwrap(), format!("127.0.0.1:{}", free_port().unwrap()));
    let init = ["init", "--dir", at, "--site", "dorm", "--listen", &listen];
    let said = good(&config, &init);
    assert!(said.contains("device add") && said.contains("doctor"), "{said}");
    assert_eq!(holdfast(&config, &init).0, Some(73), "nothing is written over");
    good(&config, &["device", "add", "washer-001", "--kind", "washer"]);
    good(&config, &["check-config"]);
    let before = good(&config, &["device", "list"]);
    assert!(before.contains("washer-001"), "{before}");
    // A site that never ran has something to keep, too.
    let file = dir.path().join("first.backup");
    good(&config, &["backup", file.to_str().unwrap()]);

    let mut command = Command::new(binary("holdfast").unwrap());
    command.arg("--config").arg(&config).arg("run");
    let mut gateway = Process::start("the gateway", command, &dir.path().join("gateway.log")).unwrap();
    gateway.wait_for("ready").unwrap();
    let screen = good(&config, &["status"]);
    assert!(screen.contains("0 connected of 1"), "{screen}");
    assert!(screen.contains("none is configured"), "{screen}");
    good(&config, &["doctor"]);
    assert_eq!(gateway.stop().unwrap(), 0);
}

#[test]
fn the_manual_and_completions_are_made_from_the_commands() {
    let page = good(Path::new("none"), &["generate", "man"]);
    assert!(page.contains(".TH") && page.contains("restore"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = good(Path::new("none"), &["generate", "completions", shell]);
        assert!(script.contains("doctor") && script.contains("ledger"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    good(
        Path::new("none"),
        &["generate", "man", "--dir", dir.path().to_str().unwrap()],
    );
    let pages = fs::read_dir(dir.path()).unwrap().count();
    assert!(pages > 20, "{pages} pages");
    let help = good(Path::new("none"), &["--help"]);
    assert!(!help.contains("generate"), "it is for packages");
}
