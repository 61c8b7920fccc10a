//! Programs that are not ours talk to the running gateway: a device written in Python from the published contract, with
//! another CBOR library and another MQTT client, and mosquitto's tools.
//!
//! `HOLDFAST_PYTHON` names an interpreter with hil-tests/python/requirements.txt installed; `cargo xtask test` makes one.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use hil_tests::site::{BrokerKind, Plan, Site, Standing, hex};

fn python() -> String {
    std::env::var("HOLDFAST_PYTHON")
        .expect("HOLDFAST_PYTHON names a Python with hil-tests/python/requirements.txt; cargo xtask test sets it")
}

fn scripted(site: &Site, device: usize, mqtt: &str, token: &[u8], more: &[&str]) -> Output {
    let plan = &site.plan.devices[device];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/scripted_device.py");
    Command::new(python())
        .arg(script)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &site.device_address.port().to_string(),
            "--mqtt",
            mqtt,
        ])
        .args([
            "--device",
            plan.id.as_str(),
            "--secret",
            &hex(&plan.secret.0),
            "--kind",
            plan.kind.word(),
        ])
        .args(["--token", &hex(token), "--seconds", "1", "--timeout", "30"])
        .args(more)
        .output()
        .unwrap()
}

fn check(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{what}: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{what}: {}", said.lines().last().unwrap_or_default());
}

#[test]
fn a_device_from_the_published_contract_alone_completes_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(11, 6, 80);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let of = |standing: Standing| site.plan.users.iter().filter(move |user| user.standing == standing);
    let good: Vec<_> = of(Standing::Good).map(|user| user.token).collect();
    for (device, mqtt) in [(0, "5"), (1, "3.1.1"), (2, "5"), (3, "3.1.1")] {
        check(
            &scripted(&site, device, mqtt, &good[device], &[]),
            &format!("device {device} over MQTT {mqtt}"),
        );
    }
    let revoked = of(Standing::Revoked).next().unwrap().token;
    let args = ["--refuse-expected", "--reason", "revoked"];
    check(&scripted(&site, 4, "5", &revoked, &args), "a revoked token");
    let unexpected = scripted(&site, 5, "5", &revoked, &[]);
    assert!(
        !unexpected.status.success(),
        "the script notices a refusal it does not expect"
    );
    site.settle(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(site.stop().unwrap(), (0, 0));
}

#[test]
fn mosquitto_tools_listen_and_speak() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(12, 3, 40);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let port = site.device_address.port().to_string();
    let secrets = std::fs::read_to_string(dir.path().join("gateway/secrets.toml")).unwrap();
    let monitor = secrets
        .lines()
        .find_map(|line| line.strip_prefix("monitor_password = \""))
        .unwrap()
        .trim_end_matches('"');
    for version in ["mqttv311", "mqttv5"] {
        // A person watches what devices are told, and sees the clock that a device gets for its hello.
        // Into a pipe mosquitto_sub writes only when its buffer is full, unless stdbuf tells it to write every line.
        let mut watcher = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-u",
                "monitor",
                "-P",
                monitor,
                "-i",
                "watcher",
            ])
            .args(["-t", "dev/1/+/down/#", "-F", "%t", "-C", "1", "-W", "60", "-d"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
        // Its debug output tells when the subscription stands.
        lines
            .by_ref()
            .find(|line| line.as_ref().unwrap().contains("SUBACK"))
            .unwrap()
            .unwrap();
        let device = usize::from(version == "mqttv5");
        check(
            &scripted(&site, device, "5", &site.plan.users[device].token, &[]),
            "a device while somebody watches",
        );
        assert!(
            lines.map(Result::unwrap).any(|line| line.contains("/down/clock")),
            "{version}: the watcher sees the clock"
        );
        watcher.wait().unwrap();

        // A device that publishes garbage is heard out and goes on; without its password it does not get in.
        let plan = &site.plan.devices[2];
        let topic = proto::topic::up(&plan.id, proto::topic::Up::Meter);
        let publish = |password: &str| {
            Command::new("mosquitto_pub")
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-V",
                    version,
                    "-q",
                    "1",
                    "-i",
                    plan.id.as_str(),
                ])
                .args(["-u", plan.id.as_str(), "-P", password, "-t", &topic, "-m", "garbage"])
                .output()
                .unwrap()
        };
        let spoken = publish(&plan.secret.password());
        assert!(
            spoken.status.success(),
            "{version}: {}",
            String::from_utf8_lossy(&spoken.stderr)
        );
        assert!(!publish("wrong").status.success(), "{version}: a wrong password");
    }
    let status = site.ask_gateway("status").unwrap();
    assert!(status["messages_dropped"].as_u64().unwrap() >= 2, "{status}");
    assert_eq!(site.stop().unwrap(), (0, 0));
}

/// Behind a broker a device's last will is all that tells its end.
#[test]
fn a_broker_tells_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(13, 3, 40);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Mosquitto).unwrap();
    let device = site.plan.devices[1].clone();
    let (port, presence) = (
        site.device_address.port().to_string(),
        proto::topic::presence(&device.id),
    );
    let tool = |program: &str, id: &str| {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-i", id]);
        command.args(["-u", device.id.as_str(), "-P", &device.secret.password()]);
        command
    };
    let connected = |site: &Site, wanted: u64| loop {
        let status = site.ask_gateway("status").unwrap();
        if status["devices_connected"] == wanted {
            break;
        }
        // Asking is the synchronisation; whoever runs the tests limits it. This only spares the processor.
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    connected(&site, 0);
    let mut alive = tool("mosquitto_sub", device.id.as_str())
        .args(["--will-topic", &presence, "--will-retain"])
        .args(["-t", &proto::topic::down_filter(&device.id)])
        .spawn()
        .unwrap();
    let said = tool("mosquitto_pub", "its-voice")
        .args(["-r", "-q", "1", "-t", &presence, "-m", "1"])
        .status();
    assert!(said.unwrap().success());
    connected(&site, 1);
    // The broker tells a gateway that comes back.
    site.kill_gateway().unwrap();
    connected(&site, 1);
    alive.kill().unwrap();
    alive.wait().unwrap();
    connected(&site, 0);
    assert_eq!(site.stop().unwrap(), (0, 0));
}
