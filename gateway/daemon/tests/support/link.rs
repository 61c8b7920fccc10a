//! A hub made of an endpoint, and an engine with a link to it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
    time::Duration,
};

use carrier::mqtt::Version;
use gateway::{
    artifacts::Desk,
    clock::Clock,
    cloud::{
        LinkJob,
        board::{Board, Load},
        link::LINK_JOBS_MAX,
        start::{self, Surroundings},
    },
    config::{CloudConfig, CloudKind, LinkConfig, Pacing, Road},
    devices::{Opener, Port, Sealer, external::Outward},
    engine::{Engine, JOBS_MAX, Job, Position, Shell},
    store::Store,
};
use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, DisconnectReason, Endpoint, Inbound, Limits, Qos};
use proto::{
    codec,
    id::{GatewayId, Hash, Name, TokenKey},
    link::{LINK_FRAME_BYTES_MAX, LedgerReceipt, Telemetry, Upload, Welcome, chain},
    seal::{Counter, Direction, PairSecret, Window},
    topic::{self, Lane, LinkDown, LinkUp},
    trust::Issuer,
};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::support::WALL_S;

/// How long the hub waits for what must come. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn secret() -> PairSecret {
    PairSecret([5; 32])
}

fn names() -> (Name, GatewayId) {
    (Name::new("campus").unwrap(), Name::new("gw-1").unwrap())
}

/// Everybody may say everything; the seals say who is who.
struct Everybody;

impl Access for Everybody {
    fn connect(&self, _: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        Ok(())
    }

    fn may_publish(&self, _: &str, _: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _: &str, _: &str) -> bool {
        true
    }

    fn intercepts(&self, topic: &str) -> bool {
        topic::parse_link_up(topic).is_some()
    }
}

/// A hub that books nothing, commits everything and remembers what it heard in which order.
pub struct FakeHub {
    pub endpoint: Endpoint,
    pub inbound: mpsc::Receiver<Inbound>,
    counter: Counter,
    window: Window,
    pub upto: u64,
    pub hash: Hash,
    /// How often the gateway connected.
    pub connections: u32,
}

impl FakeHub {
    pub async fn start() -> Self {
        let (sender, inbound) = mpsc::channel(64);
        let limits = Limits {
            packet_bytes_max: LINK_FRAME_BYTES_MAX as u32 + 1024,
            ..Limits::default()
        };
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(anywhere, limits, Arc::new(Everybody), sender)
            .await
            .unwrap();
        Self {
            endpoint,
            inbound,
            counter: Counter::of_boot(1),
            window: Window::default(),
            upto: 0,
            hash: Hash::ZERO,
            connections: 0,
        }
    }

    pub fn say<T: Serialize>(&mut self, word: LinkDown, message: &T) {
        let (site, gateway) = names();
        let topic = topic::link_down(&site, &gateway, word, Lane::FIRST);
        let frame = secret()
            .key(Direction::Down)
            .seal_vec(&topic, self.counter.next(), message);
        self.endpoint
            .handle()
            .publish(&topic, &frame, Qos::AtLeastOnce, false)
            .unwrap();
    }

    /// Closes the gateway's connection.
    pub fn disconnect(&self) {
        let (_, gateway) = names();
        let handle = self.endpoint.handle();
        assert!(handle.disconnect(gateway.as_str(), DisconnectReason::Administrative));
    }

    /// The next message: which, its counter and its body.
    pub async fn hear(&mut self) -> (LinkUp, u64, Vec<u8>, Qos) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.inbound.recv()).await;
            let event = event.unwrap().unwrap();
            self.connections += u32::from(matches!(event, Inbound::Connected { .. }));
            let Inbound::Publish {
                topic,
                payload,
                ack,
                qos,
                ..
            } = event
            else {
                continue;
            };
            let opened = secret()
                .key(Direction::Up)
                .open(&topic, &payload, LINK_FRAME_BYTES_MAX)
                .unwrap();
            self.window.check(opened.counter).unwrap();
            self.window.last = opened.counter;
            ack.accept();
            let word = topic::parse_link_up(&topic).unwrap().word;
            return (word, opened.counter, opened.body.to_vec(), qos);
        }
    }

    /// The next report, and with which quality of service it came; whatever comes before it is answered.
    pub async fn report(&mut self) -> (Telemetry, Qos) {
        loop {
            let (word, _, body, qos) = self.hear().await;
            match word {
                LinkUp::Hello => self.say(LinkDown::Welcome, &self.welcome()),
                LinkUp::Records => {
                    let upload: Upload = codec::decode(&body).unwrap();
                    assert_eq!(upload.first, self.upto + 1, "in order, nothing twice");
                    self.upto += upload.records.len() as u64;
                    self.hash = upload
                        .records
                        .iter()
                        .fold(self.hash, |hash, record| chain(&hash, record));
                    let receipt = LedgerReceipt {
                        epoch: 1,
                        upto: self.upto,
                        hash: self.hash,
                        ..LedgerReceipt::default()
                    };
                    self.say(LinkDown::Receipt, &receipt);
                }
                LinkUp::Echo => self.say(LinkDown::Echo, &codec::decode::<proto::link::Echo>(&body).unwrap()),
                LinkUp::Ask | LinkUp::Done => {}
                LinkUp::Telemetry => return (codec::decode(&body).unwrap(), qos),
            }
        }
    }

    pub fn welcome(&self) -> Welcome {
        Welcome {
            version: 1,
            epoch: 1,
            upto: self.upto,
            hash: self.hash,
            wall_s: WALL_S,
            ..Welcome::default()
        }
    }
}

/// One cloud: the hub itself.
fn link_config(broker: String) -> LinkConfig {
    let (_, gateway) = names();
    let client_id = gateway.to_string();
    LinkConfig {
        secret: secret(),
        pacing: Pacing {
            reconnect_s_max: 1,
            telemetry_s: 1,
            ..Pacing::default()
        },
        clouds: vec![CloudConfig {
            name: "main".to_owned(),
            lane: Lane::FIRST,
            carries: vec![Load::Money, Load::Telemetry],
            road: Road {
                broker,
                version: Version::V5,
                keep_alive_s: 30,
                tls: None,
            },
            kind: CloudKind::Hcp {
                user: Some((client_id.clone(), secret().password().to_string())),
                client_id,
            },
        }],
    }
}

/// A link without an engine: what it asks of one, what it is asked, and where the gateway stands.
pub struct Alone {
    pub jobs: mpsc::Receiver<Job>,
    pub link: mpsc::Sender<LinkJob>,
    pub board: Board,
    pub position: watch::Sender<Position>,
    store: Store,
}

impl Alone {
    /// A link to `broker`, with the journal of `dir`.
    pub fn start(dir: &std::path::Path, broker: String) -> Self {
        let (store, _) = Store::open(dir, super::support::config(), 50_000).unwrap();
        let (engine, jobs) = mpsc::channel(JOBS_MAX);
        let (link, link_inbox) = mpsc::channel(LINK_JOBS_MAX);
        let (epoch, boot) = (1, 1);
        let (position, watched) = watch::channel(Position {
            epoch,
            boot,
            ..Position::default()
        });
        let config = link_config(broker);
        let board = start::board(Some(&config), Arc::new(AtomicBool::new(false)));
        let (site, gateway) = names();
        let around = Surroundings {
            site,
            gateway,
            boot,
            desk: Desk::new(engine.clone(), Arc::new(AtomicU64::new(0))),
            engine,
            jobs: link_inbox,
            position: watched,
            reader: store.reader(),
            epoch_expected: Arc::default(),
        };
        start::start(&config, &board, around);
        Self {
            jobs,
            link,
            board,
            position,
            store,
        }
    }

    /// What the link wants of the engine next.
    pub async fn wants(&mut self) -> Job {
        tokio::time::timeout(PATIENCE, self.jobs.recv()).await.unwrap().unwrap()
    }

    /// Greets the link, up to the begin of its uploads.
    pub async fn greet(&mut self, hub: &mut FakeHub) {
        let (word, ..) = hub.hear().await;
        assert_eq!(word, LinkUp::Hello);
        let welcome = hub.welcome();
        hub.say(LinkDown::Welcome, &welcome);
        loop {
            if let Job::Find { ledger, reply } = self.wants().await {
                assert_eq!(ledger, 0);
                reply.send(self.store.mark(0)).unwrap();
                return;
            }
        }
    }
}

/// An engine on the journal of `dir`, and its link to `broker`.
pub fn start(dir: &std::path::Path, broker: String) -> mpsc::Sender<Job> {
    let (store, gateway) = Store::open(dir, super::support::config(), 50_000).unwrap();
    let boot = gateway.timeline().boot + 1;
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let (link_jobs, link_inbox) = mpsc::channel(LINK_JOBS_MAX);
    let (position, watched) = watch::channel(Position::default());
    let up = Arc::new(AtomicBool::new(false));
    let config = link_config(broker);
    let board = start::board(Some(&config), up.clone());
    let epoch_expected = Arc::<AtomicU32>::default();
    let rejected = Arc::new(AtomicU64::new(0));
    let nobody = BTreeMap::new();
    let shell = Shell {
        port: Port::External(Outward::default()),
        link: Some(link_jobs),
        link_up: up,
        board: board.clone(),
        epoch_expected: epoch_expected.clone(),
        position,
        opener: Arc::new(Opener::new(&nobody, TokenKey([0; 32]))),
        issuer_keys: vec![Issuer::from_seed(&[7; 32]).key()],
        rejected: rejected.clone(),
    };
    let reader = store.reader();
    let sealer = Sealer::new(&nobody, boot);
    let engine = Engine::start(gateway, store, sealer, Clock::start(), shell, boot, 1).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(engine.run(inbox)).unwrap();
    });
    let (site, gateway) = names();
    let around = Surroundings {
        site,
        gateway,
        boot,
        desk: Desk::new(jobs.clone(), rejected),
        engine: jobs.clone(),
        jobs: link_inbox,
        position: watched,
        reader,
        epoch_expected,
    };
    start::start(&config, &board, around);
    jobs
}
