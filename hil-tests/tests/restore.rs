//! A gateway's data directory is put back from an old backup. The hub, which has records that the gateway forgot, takes
//! nothing more of that epoch; devices are served meanwhile. Then the operator begins the epoch that he is told, and the
//! books close: what the hub had booked stands as it was, what the site did since is booked once.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path, process::Command, time::Instant};

use hil_tests::{
    books,
    site::{BrokerKind, DevicePlan, Plan, Site, Standing, binary},
};
use proto::{id::Kind, message::Closing, money::Money};
use serde_json::Value;
use support::{Bytes, PATIENCE};

/// What everybody who looks is told.
const COMMAND: &str = "holdfast run --epoch 2";

/// Copies a directory of files and directories; a socket in it is nothing that a backup keeps.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let target = to.join(path.file_name().unwrap());
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Waits until the gateway says that the hub expects this epoch; asking is the synchronisation.
fn wait_for(site: &Site, epoch_expected: u64) -> Value {
    let since = Instant::now();
    loop {
        let status = site.ask_gateway("status").unwrap();
        if status["epoch_expected"] == epoch_expected {
            return status;
        }
        assert!(since.elapsed() < PATIENCE, "{status:#}\n{}", site.gateway.log_tail());
        std::thread::yield_now();
    }
}

/// The operator's command at the gateway: its exit code, and what it says.
fn holdfast(site: &Site, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("holdfast").unwrap())
        .arg("--config")
        .arg(site.dir.join("gateway/holdfast.toml"))
        .args(args)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// A device and its one user.
struct Tap {
    device: DevicePlan,
    token: [u8; 7],
    sessions: u32,
}

impl Tap {
    fn of(plan: &Plan) -> Self {
        let mut dispensers = plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
        let mut good = plan.users.iter().filter(|user| user.standing == Standing::Good);
        Self {
            device: dispensers.next().unwrap().clone(),
            token: good.find(|user| user.whitelist == "always").unwrap().token,
            sessions: 0,
        }
    }

    /// Half a litre, after the device has started again; the session's id as books have it.
    fn serve(&mut self, site: &Site) -> String {
        self.sessions += 1;
        let mut bytes = Bytes::connect(site.device_address, &self.device, self.sessions);
        let receipt = bytes.session(self.sessions, &self.token);
        assert_eq!((receipt.closing, receipt.amount), (Closing::Captured, Money(15)));
        receipt.session.to_string()
    }
}

fn stop(site: &mut Site) {
    assert_eq!(site.gateway.stop().unwrap(), 0);
}

fn epoch_at_hub(site: &Site) -> (Value, Value) {
    let row = &site.ask_hub("gateways").unwrap()[0];
    (row["epoch"].clone(), row["upto"].clone())
}

#[test]
fn a_backup_that_is_put_back_goes_on_in_the_epoch_that_the_operator_begins() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(12, 3, 30);
    let mut tap = Tap::of(&plan);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let (data, backup) = (dir.path().join("gateway/data"), dir.path().join("backup"));

    let kept = tap.serve(&site);
    site.settle(PATIENCE).unwrap();
    stop(&mut site);
    copy(&data, &backup);
    site.boot_gateway(&[]).unwrap();
    let forgotten = tap.serve(&site);
    site.settle(PATIENCE).unwrap();
    stop(&mut site);
    let before = site.ask_hub("ledger").unwrap();

    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    site.boot_gateway(&[]).unwrap();
    let status = wait_for(&site, 2);
    assert_eq!(status["epoch"], 1, "nothing begins by itself");
    // It came to say anything at all by going on above the counters of the boot that it forgot.
    site.gateway.wait_for("the hub remembers more of this link").unwrap();
    site.gateway.wait_for(COMMAND).unwrap();
    site.hub.wait_for(COMMAND).unwrap();
    let (code, said) = holdfast(&site, &["status"]);
    assert_eq!(code, Some(0));
    assert!(said.contains(COMMAND), "{said}");
    let since = tap.serve(&site);
    let status = site.ask_gateway("status").unwrap();
    assert_ne!(status["waiting"], 0, "the hub takes nothing: {status:#}");
    assert_eq!(site.ask_hub("ledger").unwrap(), before);
    assert_eq!(epoch_at_hub(&site), (2.into(), 0.into()));
    stop(&mut site);

    let (code, said) = holdfast(&site, &["run", "--epoch", "0"]);
    assert_eq!(code, Some(64), "{said}");
    site.boot_gateway(&["--epoch", "2"]).unwrap();
    site.settle(PATIENCE).unwrap();
    let status = wait_for(&site, 0);
    assert_eq!(
        (&status["epoch"], &status["remarks"]),
        (&2.into(), &Value::Array(Vec::new()))
    );
    assert_eq!(epoch_at_hub(&site), (2.into(), status["records"].clone()));
    // In a unit file the argument may stay.
    stop(&mut site);
    site.boot_gateway(&["--epoch", "2"]).unwrap();
    let last = tap.serve(&site);
    site.settle(PATIENCE).unwrap();
    assert_eq!(site.ask_gateway("status").unwrap()["epoch"], 2);

    let after = site.ask_hub("ledger").unwrap();
    assert_eq!(after[..before.len()], before, "what was booked stands as it was");
    let ours = site.gateway_book().unwrap();
    let of_forgotten = |row: &&Value| row["session"] == forgotten.as_str();
    assert_eq!(before.iter().filter(of_forgotten).count(), 3, "held, charged, paid out");
    let others: Vec<Value> = after.iter().filter(|row| !of_forgotten(row)).cloned().collect();
    let books = books::compare(&ours, &others).unwrap();
    assert!(books.hub_gateway_equal && books.ledger_balanced, "{books:?}");
    assert_eq!((books.records_doubled, books.adjustments), (0, 0), "{books:?}");
    let charges = [kept, since, last].map(|session| (session, 15));
    assert_eq!(books.charges, charges.into());
    for nothing in ["holds", "quarantine", "disputes"] {
        assert_eq!(site.ask_hub(nothing).unwrap(), Vec::<Value>::new(), "{nothing}");
    }
    assert_eq!(site.stop().unwrap(), (0, 0));
}
