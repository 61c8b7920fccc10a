//! Bad input at every edge of the running binary: each is refused with a word that says what and where, nothing is
//! lost, and the next good device is served.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Instant,
};

use hil_tests::site::{BrokerKind, DevicePlan, Plan, Site, Standing, binary};
use proto::{
    codec,
    id::{IdToken, Kind, SessionId, TokenKind},
    message::{Authorize, Closing, Grant, Stamp},
    money::{Money, Units},
    topic::{self, Down, Up},
};
use support::{Bytes, PATIENCE, packet};

fn closed_by_peer(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // A reset is a close too.
    stream
        .read_to_end(&mut rest)
        .map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |_| true)
}

fn dropped(site: &Site) -> u64 {
    site.ask_gateway("status").unwrap()["messages_dropped"]
        .as_u64()
        .unwrap()
}

fn wait_for_dropped(site: &Site, at_least: u64) {
    let since = Instant::now();
    while dropped(site) < at_least {
        assert!(
            since.elapsed() < PATIENCE,
            "{} messages dropped, expected {at_least}",
            dropped(site)
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_running_gateway_names_what_is_wrong_and_serves_the_next_device() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(7, 6, 40);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let dispensers: Vec<DevicePlan> = site
        .plan
        .devices
        .iter()
        .filter(|device| device.kind == Kind::Dispenser)
        .cloned()
        .collect();
    let mut good = site
        .plan
        .users
        .iter()
        .filter(|user| user.standing == Standing::Good && user.whitelist == "always");
    let (good, other) = (good.next().unwrap(), good.next().unwrap());
    let to = site.device_address;
    let mut first = Bytes::connect(to, &dispensers[0], 1);
    assert_eq!(first.session(1, &good.token).closing, Closing::Captured);

    // On an open connection of a good device: dropped, counted, logged once, acknowledged so that it goes on.
    let (topic, mut forged) = first.seal(Up::Meter, &"not a meter message");
    assert!(
        first.publish_raw(&topic, &forged).is_empty(),
        "sealed, but not the message"
    );
    let (_, replayed) = first.seal(Up::Meter, &"again");
    first.publish_raw(&topic, &replayed);
    first.publish_raw(&topic, &replayed);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    first.publish_raw(&topic, &forged);
    first.publish_raw(&topic, &[0xff; 300]);
    first.publish_raw(&topic, &[]);
    let (_, mut newer) = first.seal(Up::Meter, &"of tomorrow");
    newer[0] = 2;
    first.publish_raw(&topic, &newer);
    wait_for_dropped(&site, 7);
    assert_eq!(
        first.session(2, &good.token).amount,
        Money(15),
        "the same device goes on"
    );

    // A frame of before, word for word: its seal fits, its counter does not.
    let authorize = Authorize {
        session: SessionId::mint(&dispensers[0].id, 1, 77),
        outlet: 0,
        token: IdToken::new(TokenKind::Card, &good.token).unwrap(),
        units_wished: Units::ZERO,
        register: Units(90_000),
        at: Stamp::relative(9),
        instrument: proto::instrument::Instrument::NONE,
    };
    let (topic, frame) = first.seal(Up::Authorize, &authorize);
    let heard = first.publish_raw(&topic, &frame);
    let _: Grant = first.hear(Down::Grant, heard);
    let before = dropped(&site);
    assert!(first.publish_raw(&topic, &frame).is_empty(), "a replay gets no answer");
    wait_for_dropped(&site, before + 1);

    // Connections that cannot go on are closed; the reason is in the log.
    let attacks: [(&str, Vec<u8>); 6] = [
        (
            "a topic of 1 MB",
            packet(0x30, &[&[0xff, 0xff][..], &vec![b'a'; 1 << 20]].concat()),
        ),
        ("an oversize packet", packet(0x32, &vec![7; 64 * 1024])),
        ("no CONNECT first", packet(0xc0, &[])),
        ("protocol level 9", packet(0x10, b"\0\x04MQTT\x09\x02\0\x3c\0\x01x")),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n".to_vec()),
        (
            "a wrong password",
            packet(0x10, b"\0\x04MQTT\x04\xc2\0\x3c\0\x0dcharger-001\0\0\0\x01x"),
        ),
    ];
    for (what, bytes) in attacks {
        let mut stream = TcpStream::connect(to).unwrap();
        // The gateway may close before everything is written.
        let _ = stream.write_all(&bytes);
        assert!(closed_by_peer(&mut stream), "{what}: the connection stays open");
    }
    // Somebody else's topic: a 3.1.1 client that speaks as another is cut.
    let mut second = Bytes::connect(to, &dispensers[1], 1);
    let foreign = topic::up(&dispensers[0].id, Up::Stop);
    second.packet_id += 1;
    let mut body = (foreign.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(foreign.as_bytes());
    body.extend_from_slice(&[0, 9, 1, 2, 3]);
    second.stream.write_all(&packet(0x32, &body)).unwrap();
    assert!(closed_by_peer(&mut second.stream), "a device may not speak as another");

    let mut second = Bytes::connect(to, &dispensers[1], 2);
    assert_eq!(
        second.session(1, &other.token).closing,
        Closing::Captured,
        "after all this the next device is served"
    );
    let log = fs::read_to_string(dir.path().join("gateway.log")).unwrap();
    for word in ["message dropped", dispensers[0].id.as_str(), "meter"] {
        assert!(log.contains(word), "the log says {word}");
    }
    assert!(!log.contains(&hil_tests::site::hex(&good.token)), "no token is logged");
    assert_eq!(site.stop().unwrap(), (0, 0));
}

fn holdfast(dir: &Path, args: &[&str]) -> Output {
    Command::new(binary("holdfast").unwrap())
        .arg("--config")
        .arg(dir.join("holdfast.toml"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn a_gateway_that_cannot_run_says_why_and_ends_with_the_code_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = include_str!("../../deploy/config/holdfast.toml")
        .replace("dir = \"/var/lib/holdfast\"", "dir = \"data\"")
        .replace("listen = \"0.0.0.0:1883\"", "listen = \"127.0.0.1:0\"");
    let secrets = dir.path().join("secrets.toml");
    fs::write(&secrets, include_str!("../../deploy/config/secrets.toml")).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let check = |text: &str, args: &[&str], code: i32, words: &[&str]| {
        fs::write(dir.path().join("holdfast.toml"), text).unwrap();
        let output = holdfast(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "\"{said}\" does not say \"{word}\"");
        }
    };
    check(&config, &["check-config"], 0, &["good", "3 devices"]);
    check("[site", &["check-config"], 78, &["holdfast.toml", "line 1"]);
    check(
        &config.replace("[trust]", "[thrust]"),
        &["run"],
        78,
        &["unknown field `thrust`"],
    );
    check(&config, &["status"], 69, &["no gateway answers", "is it running"]);
    check(&config, &["walk"], 64, &["unrecognized subcommand 'walk'"]);

    // A journal of a newer version, of another program, and of no kind.
    let data = dir.path().join("data");
    fs::create_dir_all(&data).unwrap();
    let newer = journal::Options::new("holdfast gateway", 99).create();
    journal::Journal::open(data.join("journal"), &newer)
        .unwrap()
        .close()
        .unwrap();
    check(&config, &["run"], 74, &["99", "journal"]);
    fs::remove_dir_all(data.join("journal")).unwrap();
    let other = journal::Options::new("another program", 1).create();
    journal::Journal::open(data.join("journal"), &other)
        .unwrap()
        .close()
        .unwrap();
    check(&config, &["run"], 74, &["another program"]);
    fs::remove_dir_all(data.join("journal")).unwrap();

    // A record of a newer version in a journal of this one.
    let ours = journal::Options::new("holdfast gateway", 1).create();
    let mut journal = journal::Journal::open(data.join("journal"), &ours).unwrap();
    let now: [u64; 0] = [];
    let record = codec::to_vec(&(120_u8, std::collections::BTreeMap::from([(0, 1), (1, 2), (2, 0)]), now));
    journal.append(&[&record]).unwrap();
    journal.close().unwrap();
    check(&config, &["run"], 74, &["record 1", "kind 120", "newer version"]);
    fs::remove_dir_all(data.join("journal")).unwrap();

    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    check(
        &config.replace("127.0.0.1:0", &address.to_string()),
        &["run"],
        69,
        &[&address.to_string()],
    );
}
