//! Telemetry of a real engine over a real link: it arrives, it says what `status` says, and no report goes before a
//! record that waits.
#![allow(clippy::unwrap_used)]

#[path = "support/site.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use gateway::{
    artifacts::Desk,
    clock::Clock,
    cloud::link::{LINK_JOBS_MAX, Link},
    config::LinkConfig,
    control::Query,
    devices::{Opener, Port, Sealer, external::Outward},
    engine::{Engine, JOBS_MAX, Job, Position, Shell},
    store::Store,
};
use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Inbound, Limits, Qos};
use proto::{
    codec,
    id::{GatewayId, Hash, Name, TokenKey},
    link::{LINK_FRAME_BYTES_MAX, LedgerReceipt, Mode, Telemetry, Upload, Welcome, chain},
    seal::{Counter, Direction, PairSecret, Window},
    topic::{self, LinkDown, LinkUp},
    trust::Issuer,
};
use serde::Serialize;
use support::{Site, WALL_S};
use tokio::sync::{mpsc, oneshot, watch};

/// Three records each: more than two uploads, so that the backlog goes at a pace.
const SESSIONS: u64 = 130;
/// How long the hub waits for what must come. Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

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
struct FakeHub {
    endpoint: Endpoint,
    inbound: mpsc::Receiver<Inbound>,
    counter: Counter,
    window: Window,
    upto: u64,
    hash: Hash,
}

impl FakeHub {
    async fn start() -> Self {
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
        }
    }

    fn say<T: Serialize>(&mut self, word: LinkDown, message: &T) {
        let (site, gateway) = names();
        let topic = topic::link_down(&site, &gateway, word);
        let frame = secret()
            .key(Direction::Down)
            .seal_vec(&topic, self.counter.next(), message);
        self.endpoint
            .handle()
            .publish(&topic, &frame, Qos::AtLeastOnce, false)
            .unwrap();
    }

    /// The next report, and with which quality of service it came; whatever comes before it is answered.
    async fn report(&mut self) -> (Telemetry, Qos) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.inbound.recv()).await;
            let Inbound::Publish {
                topic,
                payload,
                ack,
                qos,
                ..
            } = event.unwrap().unwrap()
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
            let (_, _, word) = topic::parse_link_up(&topic).unwrap();
            match word {
                LinkUp::Hello => self.say(LinkDown::Welcome, &self.welcome()),
                LinkUp::Records => {
                    let upload: Upload = codec::decode(opened.body).unwrap();
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
                LinkUp::Echo => self.say(
                    LinkDown::Echo,
                    &codec::decode::<proto::link::Echo>(opened.body).unwrap(),
                ),
                LinkUp::Ask => {}
                LinkUp::Telemetry => return (codec::decode(opened.body).unwrap(), qos),
            }
        }
    }

    fn welcome(&self) -> Welcome {
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

/// An engine on the journal of `dir`, and its link to `broker`.
fn start(dir: &std::path::Path, broker: String) -> mpsc::Sender<Job> {
    let (store, gateway) = Store::open(dir, support::config(), 50_000).unwrap();
    let boot = gateway.timeline().boot + 1;
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let (link_jobs, link_inbox) = mpsc::channel(LINK_JOBS_MAX);
    let (position, watched) = watch::channel(Position::default());
    let up = Arc::new(AtomicBool::new(false));
    let rejected = Arc::new(AtomicU64::new(0));
    let nobody = BTreeMap::new();
    let shell = Shell {
        port: Port::External(Outward::default()),
        link: Some(link_jobs),
        link_up: up.clone(),
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
    let link = Link {
        site,
        gateway,
        config: LinkConfig {
            broker,
            secret: secret(),
            keep_alive_s: 30,
            batches_a_second_max: 20,
            reconnect_s_max: 1,
            telemetry_s: 1,
        },
        desk: Desk::new(jobs.clone(), rejected),
        engine: jobs.clone(),
        jobs: link_inbox,
        position: watched,
        reader,
        up,
        receipted: tokio::time::Instant::now(),
    };
    tokio::spawn(link.run());
    jobs
}

#[tokio::test]
async fn a_report_arrives_says_what_status_says_and_never_before_the_backlog_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    for _ in 0..SESSIONS {
        site.draw();
        site.pass(130_000);
    }
    let head = site.gateway.outbox().head();
    assert_eq!(head, 3 * SESSIONS);
    site.store.commit().unwrap();
    let (gateway, now) = (site.gateway.clone(), site.now);
    site.store.close(&gateway, &now).unwrap();

    let mut hub = FakeHub::start().await;
    let jobs = start(dir.path(), hub.endpoint.local_addr().to_string());
    let (first, qos) = hub.report().await;
    assert_eq!(hub.upto, head, "not before the last record of the backlog");
    assert!(
        first.shed > 0,
        "the backlog goes for seconds, and a report is due every second"
    );
    assert_eq!(qos, Qos::AtMostOnce);
    assert_eq!((first.list_revision, first.tariffs_revision), (1, 1));
    assert_eq!((first.sessions_open, first.devices_connected), (0, None));

    // The receipt of the last upload may still be on its way to the engine; one that comes later has it.
    let mut told = hub.report().await.0;
    while told.waiting > 0 {
        told = hub.report().await.0;
    }
    assert_eq!((told.shed, told.waiting_s), (0, 0));
    assert_eq!(told.commit.mode, Mode::Online);
    let (reply, answer) = oneshot::channel();
    jobs.send(Job::Query(Query::Status, reply)).await.unwrap();
    let status = answer.await.unwrap();
    for (key, value) in [
        ("exposure", told.exposure.0),
        ("budget_left", told.budget_left.0),
        ("list_revision", told.list_revision as i64),
        ("waiting", told.waiting as i64),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert!(status["up_s"].as_u64().unwrap() >= told.up_s);
    assert_eq!(status["sessions_open"], told.sessions_open);
    jobs.send(Job::Shutdown).await.unwrap();
}
