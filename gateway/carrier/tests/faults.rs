//! Between us and a real mosquitto stands a proxy that cuts, resets, stalls, damages or slows the line, at every packet
//! and every TLS record in either direction, one after the other. Whatever it does, the connection ends in time with a
//! class that fits, or the conversation goes on; it never hangs and never panics.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod common;

use std::{
    collections::BTreeMap,
    panic,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use carrier::{
    Class, Connection, Event, Publish, Qos, Symptom,
    mqtt::{Options, Version},
    tls::{Files, Tls},
};
use common::{
    broker::{Broker, Secured},
    certs::{self, Authority, NOW},
    down,
    proxy::{Direction, Fault, Framing, Kind, Proxy},
    soon, up,
};
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinSet};

/// Messages that go there and come back while units are counted.
const ROUNDS: u8 = 3;
/// Those of a disturbed conversation: even if two packets share a record each time, nothing goes wrong behind its end.
const ROUNDS_DISTURBED: u8 = 2 * ROUNDS + 1;
/// Conversations at a time; most of them wait.
const AT_ONCE: usize = 24;
/// What is damaged on a line without TLS may be damaged beyond what MQTT can notice. Then nothing comes back.
const SILENCE: Duration = Duration::from_secs(3);

/// How a conversation ended.
#[derive(Debug)]
enum End {
    /// Everything came back.
    Completed,
    /// The connection said that it is over.
    Down(Symptom),
    /// It goes on, and what was said does not come back, or not as it was said.
    Astray,
}

async fn converse(options: &Options, rounds: u8) -> End {
    let mut connection = Connection::open(options);
    let topic = options.filters[0].0.clone();
    let mut said = 0;
    let speak = |connection: &Connection, said: u8| connection.sender().publish(&topic, vec![said; 64]);
    loop {
        match tokio::time::timeout(SILENCE * 10, connection.next()).await {
            Ok(Event::Up) => speak(&connection, said).unwrap_or_default(),
            Ok(Event::Message(message)) => {
                if *message.payload != [said; 64] || message.topic != topic {
                    return End::Astray;
                }
                message.ack.accept();
                said += 1;
                if said == rounds {
                    return End::Completed;
                }
                speak(&connection, said).unwrap_or_default();
            }
            Ok(Event::Symptom(_)) => {}
            Ok(Event::Down(symptom)) => return End::Down(symptom),
            Err(_) => panic!("it hangs"),
        }
    }
}

struct Line {
    name: &'static str,
    socket: PathBuf,
    framing: Framing,
    tls: Option<Files>,
}

impl Line {
    fn options(&self, proxy: &Proxy, version: Version, kind: Option<Kind>) -> Options {
        static CLIENTS: AtomicU64 = AtomicU64::new(0);
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        // Who waits for nothing may be given up soon; who is only slow may not.
        let s_max = if matches!(kind, Some(Kind::Stall | Kind::Clog)) {
            1
        } else {
            20
        };
        Options {
            version,
            tls: self.tls.clone().map(Tls::new),
            filters: vec![(format!("echo/{client}"), Qos::AtLeastOnce)],
            connect_s_max: s_max,
            answer_s_max: s_max,
            ..Options::new(proxy.host_port(), format!("client-{client}"))
        }
    }

    /// How many units a conversation has that nothing disturbs.
    async fn units(&self, version: Version) -> (usize, usize) {
        let proxy = Proxy::new(self.socket.clone(), self.framing, None).await;
        let end = converse(&self.options(&proxy, version, None), ROUNDS).await;
        assert!(matches!(end, End::Completed), "{}: {end:?}", self.name);
        proxy.counts()
    }

    async fn disturbed(&self, version: Version, fault: Fault) -> End {
        let proxy = Proxy::new(self.socket.clone(), self.framing, Some(fault)).await;
        let options = self.options(&proxy, version, Some(fault.kind));
        let talk = converse(&options, ROUNDS_DISTURBED);
        if fault.kind != Kind::Corrupt || self.tls.is_some() {
            return soon(&format!("{}, {version:?}, {fault:?}", self.name), talk).await;
        }
        tokio::time::timeout(SILENCE, talk).await.unwrap_or(End::Astray)
    }

    fn check(&self, fault: Fault, end: &End) {
        let fits = match (fault.kind, end) {
            (Kind::Slow, End::Completed) => true,
            (Kind::Cut | Kind::Reset | Kind::Stall | Kind::Clog, End::Down(symptom)) => {
                symptom.class == Class::Partition
            }
            // TLS notices all damage. What the other side makes of ours, it says in alerts of all kinds.
            (Kind::Corrupt, End::Down(symptom)) if self.tls.is_some() => matches!(
                symptom.class,
                Class::Partition | Class::Intercepted | Class::Denied | Class::Protocol
            ),
            // But for the one record that only middle boxes read.
            (Kind::Corrupt, End::Completed) => true,
            // Without TLS, damage can make anything of a packet.
            (Kind::Corrupt, End::Down(_) | End::Astray) => self.tls.is_none(),
            (_, End::Completed | End::Down(_) | End::Astray) => false,
        };
        assert!(fits, "{}: {fault:?}: {end:?}", self.name);
    }
}

/// Sweeps every unit of both directions with every fault, and prints what came of it.
async fn sweep(line: Line, panics: &AtomicUsize) {
    let line = Arc::new(line);
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for version in [Version::V3, Version::V5] {
        let (ups, downs) = line.units(version).await;
        let units = (0..ups).map(|unit| (Direction::Up, unit));
        for (direction, unit) in units.chain((0..downs).map(|unit| (Direction::Down, unit))) {
            for kind in [
                Kind::Cut,
                Kind::Reset,
                Kind::Stall,
                Kind::Clog,
                Kind::Corrupt,
                Kind::Slow,
            ] {
                let (line, turns) = (line.clone(), turns.clone());
                let fault = Fault { kind, direction, unit };
                running.spawn(async move {
                    let _turn = turns.acquire().await.unwrap();
                    (fault, line.disturbed(version, fault).await)
                });
            }
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let (fault, end) = done.unwrap();
        line.check(fault, &end);
        let end = match end {
            End::Completed => "completed".to_owned(),
            End::Astray => "astray".to_owned(),
            End::Down(symptom) => symptom.class.word().to_owned(),
        };
        *counts.entry(format!("{:?}: {end}", fault.kind)).or_default() += 1;
    }
    println!("{}: {counts:?}", line.name);
    assert_eq!(panics.load(Ordering::Relaxed), 0, "something panicked");
}

/// Counts panics of every task from now on.
fn panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static HOOKED: std::sync::Once = std::sync::Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
    &PANICS
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet() {
    let dir = TempDir::new().unwrap();
    let broker = Broker::plain(dir.path()).await;
    let line = Line {
        name: "plain",
        socket: broker.socket.clone(),
        framing: Framing::Mqtt,
        tls: None,
    };
    sweep(line, panics()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_with_client_certificates() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    for (name, version) in [("mTLS 1.2", "tlsv1.2"), ("mTLS 1.3", "tlsv1.3")] {
        let dir = TempDir::new().unwrap();
        let pair = servers.server("localhost", NOW);
        let secured = Secured {
            pair: &pair,
            clients: Some(&clients),
            revoked: None,
            version: Some(version),
        };
        let broker = Broker::secured(dir.path(), secured).await;
        let identity = certs::write_pair(dir.path(), "us", &clients.client("gw-1", 7, NOW));
        let line = Line {
            name,
            socket: broker.socket.clone(),
            framing: Framing::Tls,
            tls: Some(certs::files(dir.path(), &servers, Some(identity))),
        };
        sweep(line, panics()).await;
    }
}

#[tokio::test]
async fn a_port_that_refuses_and_a_name_that_does_not_resolve() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = free.local_addr().unwrap();
    drop(free);
    for broker in [refused.to_string(), "nowhere.invalid:1883".to_owned()] {
        let options = Options {
            connect_s_max: 2,
            ..Options::new(&broker, "client")
        };
        let symptom = down(&mut Connection::open(&options)).await;
        assert_eq!(symptom.class, Class::Partition, "{broker}: {symptom}");
    }
    for broker in ["nowhere", ":1883", "nowhere:0", "nowhere:66000"] {
        let symptom = down(&mut Connection::open(&Options::new(broker, "client"))).await;
        assert_eq!(symptom.class, Class::Protocol, "{broker}: {symptom}");
    }
}

/// Nothing is on its way, so only a ping can notice.
#[tokio::test]
async fn a_line_that_dies_in_silence() {
    let dir = TempDir::new().unwrap();
    let broker = Broker::plain(dir.path()).await;
    let fault = Fault {
        kind: Kind::Stall,
        direction: Direction::Down,
        // After CONNACK and SUBACK.
        unit: 2,
    };
    let proxy = Proxy::new(broker.socket.clone(), Framing::Mqtt, Some(fault)).await;
    let options = Options {
        keep_alive_s: 1,
        answer_s_max: 1,
        filters: vec![("echo".to_owned(), Qos::AtLeastOnce)],
        ..Options::new(proxy.host_port(), "client")
    };
    let mut connection = Connection::open(&options);
    up(&mut connection).await;
    let symptom = down(&mut connection).await;
    assert_eq!(
        (symptom.class, &*symptom.text),
        (Class::Partition, "no PINGRESP in time")
    );
}

/// Nobody acknowledges QoS 0, so only the socket can notice; the owner's queue is full meanwhile, and never blocks.
#[tokio::test]
async fn a_peer_that_takes_no_bytes() {
    let dir = TempDir::new().unwrap();
    let broker = Broker::plain(dir.path()).await;
    let fault = Fault {
        kind: Kind::Clog,
        direction: Direction::Up,
        // After CONNECT and SUBSCRIBE.
        unit: 2,
    };
    let proxy = Proxy::new(broker.socket.clone(), Framing::Mqtt, Some(fault)).await;
    let options = Options {
        answer_s_max: 2,
        filters: vec![("echo".to_owned(), Qos::AtLeastOnce)],
        ..Options::new(proxy.host_port(), "client")
    };
    let mut connection = Connection::open(&options);
    up(&mut connection).await;
    let sender = connection.sender();
    let flood = tokio::spawn(async move {
        loop {
            let sent = sender.send(Publish {
                topic: "elsewhere".to_owned(),
                payload: vec![0; 100_000],
                qos: Qos::AtMostOnce,
                expires: None,
            });
            match sent {
                Err(unsent) if unsent.why == carrier::WhyUnsent::Gone => return,
                Ok(()) | Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let symptom = down(&mut connection).await;
    assert_eq!(
        (symptom.class, &*symptom.text),
        (Class::Partition, "no way for our bytes in time")
    );
    drop(connection);
    soon("the end of the flood", flood).await.unwrap();
}
