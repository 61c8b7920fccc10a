//! The configuration is read again while a real gateway runs: devices stay connected, sessions run on, and a file that is
//! wrong changes nothing. What is adopted by rings is tried by one device, goes back by itself, and outlives kill -9.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use hil_tests::site::{BrokerKind, DevicePlan, Plan, Site, Standing, binary};
use proto::{id::Kind, message::Closing, money::Money, seal::PairSecret};
use serde_json::Value;
use support::{Bytes, PATIENCE};

/// A dispenser's cap without a line about it (semantics, section 4).
const CAP: Money = Money(200);

const LIMITS: &str = "[limits]\nattempts_a_minute_max = 1000\nstarts_an_hour_max = 100000\n[limits.dispenser]\n\
                      outage_count_max = 1000\noutage_money_max = 100000\noutage_count_lower = 1000\n";

struct Bed {
    site: Site,
    config: PathBuf,
    tokens: Vec<[u8; 7]>,
    taps: Vec<DevicePlan>,
}

fn bed(seed: u64, dir: &Path, more: &str) -> Bed {
    let mut plan = Plan::new(seed, 12, 40);
    plan.limits = format!("{LIMITS}{more}");
    let (hub, address) = Site::start_hub(&plan, dir).unwrap();
    let site = Site::start(plan, dir, hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let dispensers = site.plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
    let users = site.plan.users.iter();
    let good = users.filter(|user| user.standing == Standing::Good && user.whitelist == "always");
    Bed {
        config: site.dir.join("gateway/holdfast.toml"),
        tokens: good.map(|user| user.token).collect(),
        taps: dispensers.cloned().collect(),
        site,
    }
}

impl Bed {
    /// Exit code and what was said, both ways.
    fn holdfast(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(binary("holdfast").unwrap())
            .arg("--config")
            .arg(&self.config)
            .args(args)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    /// As well, of a command that succeeds.
    fn good(&self, args: &[&str]) -> String {
        let (code, said) = self.holdfast(args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        said
    }

    /// One of the people who may come as often as they like.
    fn token(&self, number: usize) -> [u8; 7] {
        self.tokens[number % self.tokens.len()]
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
    }

    fn connect(&self, tap: usize, boot: u32) -> Bytes {
        Bytes::connect(self.site.device_address, &self.taps[tap], boot)
    }

    /// Waits until the status is so; asking is the synchronisation.
    fn wait(&self, is: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let status = self.site.ask_gateway("status").unwrap();
            if is(&status) {
                return status;
            }
            let log = self.site.gateway.log_tail();
            assert!(since.elapsed() < PATIENCE, "{status:#}\n{log}");
            std::thread::yield_now();
        }
    }
}

/// What the file gives a dispenser's session at most.
fn with_cap(text: &str, cap: i64) -> String {
    text.replace(
        "[limits.dispenser]\n",
        &format!("[limits.dispenser]\nmoney_max = {cap}\n"),
    )
}

#[test]
fn a_good_file_is_taken_over_while_a_session_runs_and_nobody_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let bed = bed(71, dir.path(), "");
    let mut tap = bed.connect(0, 1);
    let (first, _) = tap.granted_session(1, &bed.token(0));
    assert_eq!(first.money_max, CAP);
    let open = tap.begin(2, &bed.token(1));

    bed.good(&["device", "add", "dispenser-900", "--kind", "dispenser"]);
    let old = bed.text();
    bed.write(&with_cap(&old, 150));
    let would = bed.good(&["reload", "--check"]);
    assert!(
        would.starts_with("would be taken over: device[dispenser-900], limits.dispenser.money_max, secrets: devices."),
        "{would}"
    );
    assert_eq!(bed.wait(|_| true)["devices"], bed.taps_and_others(), "only looked at");
    let done = bed.good(&["reload"]);
    assert!(done.starts_with("taken over: device[dispenser-900]"), "{done}");
    assert!(bed.good(&["reload"]).contains("nothing changes"));

    // The same connection, the same session: it ends as it was granted, and the next one is under the new limit.
    let receipt = tap.end(2);
    assert_eq!((receipt.session, receipt.closing), (open.session, Closing::Captured));
    assert_eq!(tap.granted_session(3, &bed.token(2)).0.money_max, Money(150));
    // Who is new comes in at once.
    let secrets = fs::read_to_string(bed.config.with_file_name("secrets.toml")).unwrap();
    let line = secrets
        .lines()
        .find(|line| line.starts_with("dispenser-900 = "))
        .unwrap();
    let secret: PairSecret = line.split('"').nth(1).unwrap().parse().unwrap();
    let mut new = bed.taps[0].clone();
    new.id = "dispenser-900".parse().unwrap();
    new.secret = secret;
    let mut newcomer = Bytes::connect(bed.site.device_address, &new, 1);
    assert_eq!(newcomer.granted_session(1, &bed.token(3)).0.money_max, Money(150));

    // A session is open at a device that is to go: nothing is taken over, and nothing is lost.
    newcomer.begin(2, &bed.token(4));
    let with_both = bed.text();
    let (before, row) = with_both.split_once("id = \"dispenser-900\"").unwrap();
    let row = row.replacen("dispenser", "washer", 1);
    bed.write(&format!("{before}id = \"dispenser-900\"{row}"));
    let (code, said) = bed.holdfast(&["reload"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("a session is open at dispenser-900"), "{said}");
    bed.write(&with_both);
    bed.good(&["reload"]);
    assert_eq!(newcomer.end(2).closing, Closing::Captured);
    // Block and unblock by the file.
    bed.write(&with_both.replace("id = \"dispenser-900\"", "id = \"dispenser-900\"\nblocked = true"));
    bed.good(&["reload"]);
    bed.wait(|status| status["devices_blocked"] == 1);
    assert_eq!(
        tap.granted_session(4, &bed.token(5)).0.money_max,
        Money(150),
        "the others do not notice"
    );
    assert_eq!(bed.site.stop().unwrap(), (0, 0));
}

impl Bed {
    /// Devices that the gateway was started with.
    fn taps_and_others(&self) -> Value {
        Value::from(self.site.plan.devices.len())
    }
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let bed = bed(72, dir.path(), "");
    let mut tap = bed.connect(0, 1);
    tap.granted_session(1, &bed.token(0));
    tap.begin(2, &bed.token(1));
    let good = bed.text();
    let path = bed.config.display().to_string();
    let failed = |status: &Value| status["reload"]["failed"] == true;

    // Broken, of a wrong value, and with a key that nobody knows: each names the file and what is wrong in it.
    for (text, part) in [
        (format!("{good}\n[[device\n"), "TOML"),
        (
            good.replace("[limits]\n", "[limits]\nask_ms = 60000\n"),
            "limits.ask_ms",
        ),
        (good.replace("[limits]\n", "[limits]\nsite_bugdet = 7\n"), "site_bugdet"),
    ] {
        bed.write(&text);
        let (code, said) = bed.holdfast(&["reload"]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(&path) && said.contains(part), "{part}: {said}");
        let status = bed.wait(failed);
        assert!(status["reload"]["why"].as_str().unwrap().contains(part), "{status:#}");
        // Whoever looks is told, although the file is spoiled.
        let screen = bed.good(&["status"]);
        assert!(screen.contains("not taken over") && screen.contains(part), "{screen}");
    }
    // What needs a restart is named, and nothing else of the file is taken over, either.
    let dir_line = good.lines().find(|line| line.starts_with("dir = ")).unwrap();
    bed.write(&with_cap(&good, 150).replace(dir_line, &format!("{dir_line}\nkeep_d = 91")));
    let (code, said) = bed.holdfast(&["reload", "--check", "--json"]);
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &answer["restart"]),
        (Some(78), &serde_json::json!(["store.keep_d"]))
    );
    assert_eq!(answer["changed"], serde_json::json!(["limits.dispenser.money_max"]));
    let (code, said) = bed.holdfast(&["reload"]);
    assert_eq!(code, Some(78));
    assert!(said.contains("needs a restart: [store.keep_d]"), "{said}");

    // Everything goes on on the same connection.
    assert_eq!(tap.end(2).closing, Closing::Captured);
    assert_eq!(tap.granted_session(3, &bed.token(2)).0.money_max, CAP);
    // By a signal, too; and a good file ends the alarm.
    bed.write(&with_cap(&good, 150));
    let pid = bed.site.gateway.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    bed.wait(|status| !failed(status));
    assert_eq!(tap.granted_session(4, &bed.token(3)).0.money_max, Money(150));
    assert_eq!(bed.site.stop().unwrap(), (0, 0));
}

#[test]
fn a_bad_push_reaches_one_device_and_goes_back_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Plan::new(73, 12, 40);
    let first = probe
        .devices
        .iter()
        .find(|device| device.kind == Kind::Dispenser)
        .unwrap();
    // `[limits]` of the plan is the last table of the file before the devices.
    let ring = format!("[ring]\ndevice = \"{}\"\nrequests_min = 3\ndwell_s = 0\n", first.id);
    let mut bed = bed(73, dir.path(), &ring);
    let (mut here, mut elsewhere) = (bed.connect(0, 1), bed.connect(1, 1));
    here.granted_session(1, &bed.token(0));
    let good = bed.text();

    // Three fen buy nothing much: nobody would be served for it.
    bed.write(&with_cap(&good, 3));
    bed.good(&["reload"]);
    let reach = |status: &Value| status["rings"][0]["reach"] == "device";
    let status = bed.wait(reach);
    assert_eq!(status["rings"][0]["device"], first.id.as_str());
    assert!(bed.good(&["status"]).contains("config 2 is tried"), "{status:#}");
    assert_eq!(
        elsewhere.granted_session(1, &bed.token(1)).0.money_max,
        CAP,
        "the others never see it"
    );
    assert_eq!(
        here.granted_session(2, &bed.token(2)).0.money_max,
        CAP,
        "nobody fares worse"
    );
    let status = bed.wait(|status| status["rings"][0]["worse"] == 1);
    assert_eq!(status["rings"][0]["requests"], 1);

    // kill -9 in the middle: it is where it was, and counts on, although the file at the start is the bad one.
    bed.site.kill_gateway().unwrap();
    let status = bed.wait(reach);
    assert_eq!(
        (&status["rings"][0]["worse"], &status["rings"][0]["requests"]),
        (&1.into(), &1.into())
    );
    let (mut here, mut elsewhere) = (bed.connect(0, 2), bed.connect(1, 2));
    assert_eq!(here.granted_session(1, &bed.token(3)).0.money_max, CAP);
    bed.site
        .gateway
        .wait_for("config revision 2 went back from its ring")
        .unwrap();
    let status = bed.wait(|status| status["rings"] == serde_json::json!([]));
    assert_eq!(status["rings_back"][0]["what"], "config");
    assert!(bed.good(&["status"]).contains("went back"), "{status:#}");
    assert_eq!(elsewhere.granted_session(1, &bed.token(4)).0.money_max, CAP);
    // Reading the same file again, or starting with it, does not make it better.
    bed.good(&["reload"]);
    bed.site.kill_gateway().unwrap();
    assert_eq!(bed.wait(|_| true)["rings"], serde_json::json!([]));

    // A good one goes its way: one device, its kind, the site; an operator may hold it, and let it go on.
    bed.write(&with_cap(&good, 190));
    bed.good(&["reload"]);
    let (mut here, mut elsewhere) = (bed.connect(0, 3), bed.connect(1, 3));
    bed.good(&["list", "hold", "config"]);
    for n in 1..=3 {
        assert_eq!(here.granted_session(n, &bed.token(n as usize)).0.money_max, Money(190));
    }
    assert_eq!(elsewhere.granted_session(1, &bed.token(5)).0.money_max, CAP);
    assert_eq!(bed.wait(reach)["rings"][0]["held"], true);
    bed.good(&["list", "release", "config"]);
    bed.wait(|status| status["rings"][0]["reach"] == "kind");
    assert_eq!(elsewhere.granted_session(2, &bed.token(6)).0.money_max, Money(190));
    bed.good(&["list", "adopt", "config"]);
    assert_eq!(
        bed.wait(|status| status["rings"] == serde_json::json!([]))["config_aside"],
        0
    );
    assert_eq!(bed.site.stop().unwrap(), (0, 0));
}
