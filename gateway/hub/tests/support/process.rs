//! A real hub process and a raw gateway: an MQTT client that seals and opens frames itself.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use hub::control::{self, CallError, Request};
use proto::{
    artifact::{self, VerifiedList},
    codec,
    id::{GatewayId, Name},
    link::{ArtifactPart, LedgerReceipt, LinkHello, Upload, Welcome},
    seal::{Counter, Direction, PairSecret, Window},
    topic::{self, Lane, LinkDown, LinkTopic, LinkUp},
    trust::{ArtifactKind, Issuer},
};
use rumqttc::{Client, ConnectReturnCode, Event, Incoming, MqttOptions, Packet, QoS};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

/// How long a test waits for what must come. Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);
pub const ISSUER_SEED: [u8; 32] = [0x11; 32];
pub const GATEWAYS: [&str; 2] = ["gw-1", "gw-2"];

pub fn secret_of(gateway: &str) -> PairSecret {
    PairSecret([gateway.as_bytes()[3]; 32])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub const SEED: &str = r#"
accounts = [{ id = 7, deposit = 10000 }]
tokens = [
  { hash = "01010101010101010101010101010101", account = 7 },
  { kind = "card", raw = "04a1b2c3", account = 7, whitelist = "never" },
]
[[tariffs]]
kind = "charger"
id = 1
elements = [{ dimension = "energy", price_milli = 120000 }]
"#;

/// A directory with everything a hub needs.
pub struct Site {
    pub dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let gateways: String = GATEWAYS
            .iter()
            .map(|id| format!("[[gateways]]\nid = \"{id}\"\nsite = \"campus\"\n"))
            .collect();
        site.write(
            "hub.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\nsecrets_file = \"secrets.toml\"\nseed_file = \"seed.toml\"\n\
                 list_every_s = 0\n[log]\nformat = \"json\"\n{gateways}"
            ),
        );
        let secrets: String = GATEWAYS
            .iter()
            .map(|id| format!("{id} = \"{}\"\n", hex(&secret_of(id).0)))
            .collect();
        site.write(
            "secrets.toml",
            &format!(
                "issuer_seed = \"{}\"\ntoken_key = \"{}\"\n[gateways]\n{secrets}",
                hex(&ISSUER_SEED),
                hex(&[0x22; 32])
            ),
        );
        site.write("seed.toml", SEED);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_holdfast-hub"))
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<Vec<T>, CallError> {
        let mut rows = Vec::new();
        control::call(&control::socket_in(&self.path("data")), request, |row| rows.push(row))?;
        Ok(rows)
    }

    pub fn status(&self) -> hub::export::Status {
        self.call(&Request::new("status")).unwrap().remove(0)
    }

    pub fn start(&self) -> Process {
        Process::start(self.dir.path())
    }
}

/// A running hub; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast-hub"))
            .args(["run", "--config", "hub.toml"])
            .current_dir(dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("the hub says where it listens").unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if event["fields"]["message"] == "listening" {
                break event["fields"]["address"].as_str().unwrap().parse().unwrap();
            }
        };
        thread::spawn(move || log.map_while(Result::ok).for_each(|line| println!("hub: {line}")));
        Self { child, address }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// SIGTERM; the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client's thread saw.
#[derive(Debug)]
pub enum Seen {
    Connected,
    Subscribed(bool),
    Acknowledged,
    Publish(String, Vec<u8>),
    Lost(String),
}

/// A gateway at the level of frames.
pub struct Gateway {
    pub id: GatewayId,
    pub client: Client,
    secret: PairSecret,
    seen: mpsc::Receiver<Seen>,
    pub counter: Counter,
    window: Window,
    waiting: Vec<(LinkDown, Vec<u8>)>,
}

pub fn site_name() -> Name {
    Name::new("campus").unwrap()
}

impl Gateway {
    /// Connects and subscribes as boot `boot`.
    pub fn connect(hub: &Process, id: &str, boot: u32) -> Self {
        let mut gateway = Self::open(hub, id, id, &secret_of(id), boot);
        assert!(matches!(gateway.see(), Seen::Connected));
        let filter = topic::link_down_filter(&site_name(), &gateway.id, Lane::FIRST);
        gateway.client.subscribe(filter.as_str(), QoS::AtLeastOnce).unwrap();
        assert!(matches!(gateway.see(), Seen::Subscribed(true)));
        gateway
    }

    /// Opens a connection with these credentials, whatever comes of it.
    pub fn open(hub: &Process, id: &str, user: &str, secret: &PairSecret, boot: u32) -> Self {
        let mut options = MqttOptions::new(id, hub.address.ip().to_string(), hub.address.port());
        options.set_credentials(user, secret.password().as_str());
        options.set_max_packet_size(1 << 20, 1 << 20);
        options.set_inflight(100);
        let (client, mut connection) = Client::new(options, 256);
        let (sender, seen) = mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                let (seen, last) = match event {
                    Ok(Event::Incoming(Packet::ConnAck(ack))) if ack.code == ConnectReturnCode::Success => {
                        (Seen::Connected, false)
                    }
                    Ok(Event::Incoming(Incoming::SubAck(ack))) => {
                        let granted = |code: &_| matches!(code, rumqttc::SubscribeReasonCode::Success(_));
                        (Seen::Subscribed(ack.return_codes.iter().all(granted)), false)
                    }
                    Ok(Event::Incoming(Incoming::PubAck(_))) => (Seen::Acknowledged, false),
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        (Seen::Publish(publish.topic, publish.payload.to_vec()), false)
                    }
                    Ok(_) => continue,
                    Err(error) => (Seen::Lost(error.to_string()), true),
                };
                if sender.send(seen).is_err() || last {
                    return;
                }
            }
        });
        Self {
            id: Name::new(id).unwrap(),
            client,
            secret: secret.clone(),
            seen,
            counter: Counter::of_boot(boot),
            window: Window::default(),
            waiting: Vec::new(),
        }
    }

    pub fn see(&mut self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something must come")
    }

    pub fn topic(&self, word: LinkUp) -> topic::Topic {
        topic::link_up(&site_name(), &self.id, word, Lane::FIRST)
    }

    pub fn frame<T: Serialize>(&mut self, word: LinkUp, message: &T) -> Vec<u8> {
        let topic = self.topic(word);
        self.secret
            .key(Direction::Up)
            .seal_vec(&topic, self.counter.next(), message)
    }

    pub fn publish(&self, topic: &str, frame: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, frame).unwrap();
    }

    pub fn say<T: Serialize>(&mut self, word: LinkUp, message: &T) {
        let frame = self.frame(word, message);
        self.publish(&self.topic(word), frame);
    }

    /// The next message of a word; others wait for their turn.
    pub fn hear<T: DeserializeOwned>(&mut self, word: LinkDown) -> T {
        loop {
            if let Some(i) = self.waiting.iter().position(|(waiting, _)| *waiting == word) {
                return codec::decode(&self.waiting.remove(i).1).unwrap();
            }
            match self.see() {
                Seen::Publish(topic, frame) => self.take(&topic, &frame),
                Seen::Lost(why) => panic!("lost while waiting for {word:?}: {why}"),
                Seen::Connected | Seen::Subscribed(_) | Seen::Acknowledged => {}
            }
        }
    }

    fn take(&mut self, topic: &str, frame: &[u8]) {
        let LinkTopic {
            site, gateway, word, ..
        } = topic::parse_link_down(topic).unwrap();
        assert_eq!((site, gateway), (site_name(), self.id));
        let opened = self
            .secret
            .key(Direction::Down)
            .open(topic, frame, proto::link::LINK_FRAME_BYTES_MAX)
            .unwrap();
        self.window.check(opened.counter).expect("the hub's counters grow");
        self.window.last = opened.counter;
        self.waiting.push((word, opened.body.to_vec()));
    }

    /// Waits until everything that was published is acknowledged, `count` times.
    pub fn acknowledged(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            match self.see() {
                Seen::Acknowledged => left -= 1,
                Seen::Publish(topic, frame) => self.take(&topic, &frame),
                Seen::Lost(why) => panic!("lost while waiting for PUBACK: {why}"),
                Seen::Connected | Seen::Subscribed(_) => {}
            }
        }
    }

    pub fn hello(&mut self, hello: &LinkHello) -> Welcome {
        self.say(LinkUp::Hello, hello);
        self.hear(LinkDown::Welcome)
    }

    pub fn upload(&mut self, epoch: u32, first: u64, records: &[Vec<u8>]) {
        let records = records.iter().cloned().map(ByteBuf::from).collect();
        self.say(LinkUp::Records, &Upload { epoch, first, records });
    }

    pub fn receipt(&mut self) -> LedgerReceipt {
        self.hear(LinkDown::Receipt)
    }

    /// All parts of the next artifact: kind, revision, envelope, chunks.
    pub fn artifact(&mut self) -> (ArtifactKind, u64, Vec<u8>, Vec<Vec<u8>>) {
        let head: ArtifactPart = self.hear(LinkDown::Artifact);
        assert_eq!(head.part, 0);
        let chunks = (1..head.parts)
            .map(|n| {
                let part: ArtifactPart = self.hear(LinkDown::Artifact);
                assert_eq!((part.kind, part.revision, part.part), (head.kind, head.revision, n));
                part.bytes.into_vec()
            })
            .collect();
        (head.kind, head.revision, head.bytes.into_vec(), chunks)
    }

    /// The next list, verified under the issuer's key; other artifacts are passed over.
    pub fn list(&mut self) -> VerifiedList {
        loop {
            let (kind, revision, envelope, chunks) = self.artifact();
            if kind == ArtifactKind::List {
                let keys = [Issuer::from_seed(&ISSUER_SEED).key()];
                let list = artifact::verify_list(&envelope, &chunks, &keys).unwrap();
                assert_eq!(list.manifest().revision, revision);
                return list;
            }
        }
    }
}
