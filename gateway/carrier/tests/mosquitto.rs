//! Against a real mosquitto: MQTT 3.1.1 and 5, plain, with TLS and with client certificates, good ones and all the bad
//! ones, and certificates that are renewed while we run.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod common;

use std::{os::unix::fs::PermissionsExt, path::Path};

use carrier::{
    Class, Connection, Event, Publish, Qos, WhyUnsent,
    mqtt::{Options, Version},
    tls::{Error, Files, Tls},
};
use common::{
    broker::{Broker, Secured},
    certs::{self, Authority, FUTURE, NOW, PAST, Years},
    down, message,
    proxy::{Framing, Proxy},
    soon, up,
};
use tempfile::TempDir;

const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

fn options(proxy: &Proxy, version: Version, tls: Option<Files>) -> Options {
    Options {
        version,
        tls: tls.map(Tls::new),
        filters: vec![("echo/#".to_owned(), Qos::AtLeastOnce)],
        ..Options::new(proxy.host_port(), "client")
    }
}

/// A message goes there and comes back.
async fn converses(connection: &mut Connection) {
    connection.sender().publish("echo/1", b"payload".to_vec()).unwrap();
    assert_eq!(message(connection).await, ("echo/1".to_owned(), b"payload".to_vec()));
}

async fn plain(dir: &Path) -> (Broker, Proxy) {
    let broker = Broker::plain(dir).await;
    let proxy = Proxy::new(broker.socket.clone(), Framing::Mqtt, None).await;
    (broker, proxy)
}

#[tokio::test]
async fn both_versions_plain() {
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    for version in VERSIONS {
        let mut connection = Connection::open(&options(&proxy, version, None));
        up(&mut connection).await;
        converses(&mut connection).await;
    }
}

#[tokio::test]
async fn more_filters_than_one_subscribe_holds() {
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    for version in VERSIONS {
        for count in [0, 1, 8, 9, 17] {
            let mut wanted = options(&proxy, version, None);
            wanted.filters = (0..count).map(|at| (format!("echo/{at}"), Qos::AtLeastOnce)).collect();
            let mut connection = Connection::open(&wanted);
            up(&mut connection).await;
            // CONNECT, and one SUBSCRIBE for every eight.
            assert_eq!(proxy.counts().0, 1 + usize::div_ceil(count, 8), "{count} filters");
            for at in 0..count {
                connection.sender().publish(&format!("echo/{at}"), vec![1]).unwrap();
                assert_eq!(message(&mut connection).await.0, format!("echo/{at}"));
            }
        }
    }
}

#[tokio::test]
async fn hundreds_of_messages_with_a_small_window_arrive_once_each_in_order() {
    const MESSAGES: u32 = 500;
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    for version in VERSIONS {
        let wanted = Options {
            inflight_max: 3,
            ..options(&proxy, version, None)
        };
        let mut connection = Connection::open(&wanted);
        up(&mut connection).await;
        let sender = connection.sender();
        let (mut sent, mut heard, mut refused) = (0, 0, 0);
        while heard < MESSAGES {
            while sent < MESSAGES {
                let publish = Publish {
                    topic: "echo/n".to_owned(),
                    payload: sent.to_be_bytes().to_vec(),
                    qos: Qos::AtLeastOnce,
                    expires: None,
                };
                match sender.send(publish.clone()) {
                    Ok(()) => sent += 1,
                    Err(unsent) => {
                        // It comes back whole, and nothing of it was queued.
                        assert_eq!((unsent.publish, unsent.why), (publish, WhyUnsent::Full));
                        refused += 1;
                        break;
                    }
                }
            }
            assert_eq!(message(&mut connection).await.1, heard.to_be_bytes());
            heard += 1;
        }
        assert!(refused > 0, "the queue was never full");
    }
}

/// While the owner does not listen nothing is read, so that PUBACKs and answers to pings lie unread, too: nobody's fault.
#[tokio::test]
async fn an_owner_that_takes_its_time_loses_nothing() {
    /// More than events and socket hold at a time.
    const MESSAGES: u8 = 200;
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    for version in VERSIONS {
        let wanted = Options {
            keep_alive_s: 2,
            answer_s_max: 1,
            ..options(&proxy, version, None)
        };
        let mut connection = Connection::open(&wanted);
        up(&mut connection).await;
        for at in 0..MESSAGES {
            connection.sender().publish("echo/n", vec![at]).unwrap();
        }
        // Time is what this is about: longer than an answer may take, and than a broker bears silence.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        for at in 0..MESSAGES {
            assert_eq!(message(&mut connection).await.1, [at]);
        }
        converses(&mut connection).await;
    }
}

#[tokio::test]
async fn what_does_not_fit_comes_back() {
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    let wanted = Options {
        packet_bytes_max: 1_000,
        ..options(&proxy, Version::V5, None)
    };
    let mut connection = Connection::open(&wanted);
    up(&mut connection).await;
    let sender = connection.sender();
    let why = |topic: &str, bytes: usize| {
        let publish = Publish {
            topic: topic.to_owned(),
            payload: vec![0; bytes],
            qos: Qos::AtLeastOnce,
            expires: None,
        };
        sender.send(publish).err().map(|unsent| unsent.why)
    };
    let large = WhyUnsent::TooLarge {
        bytes: 1_021,
        bytes_max: 1_000,
    };
    assert_eq!(why("echo/1", 1_000), Some(large));
    for topic in ["", "echo/#", "echo/+", "e\0"] {
        assert_eq!(why(topic, 1), Some(WhyUnsent::Topic), "{topic:?}");
    }
    // The connection has not suffered.
    converses(&mut connection).await;
    // Nor does what others send that is too long for us take it down silently.
    let mut other = Connection::open(&Options {
        client_id: "other".to_owned(),
        ..options(&proxy, Version::V5, None)
    });
    up(&mut other).await;
    other.sender().publish("echo/long", vec![0; 2_000]).unwrap();
    assert_eq!(message(&mut other).await.1.len(), 2_000);
    converses(&mut connection).await;
    drop(connection);
    // The task ends as soon as it is its turn.
    let refused = soon("the end", async {
        loop {
            match sender.publish("echo/1", vec![1]) {
                Ok(()) => tokio::task::yield_now().await,
                Err(why) => return why,
            }
        }
    });
    assert_eq!(refused.await, "the connection is over");
}

#[tokio::test]
async fn a_message_that_expired_is_not_delivered() {
    let dir = TempDir::new().unwrap();
    let (broker, proxy) = plain(dir.path()).await;
    let absent = Options {
        persistent: true,
        ..options(&proxy, Version::V5, None)
    };
    let mut connection = Connection::open(&absent);
    up(&mut connection).await;
    drop(connection);
    broker.says("closed its connection").await;
    let mut other = Connection::open(&Options {
        client_id: "other".to_owned(),
        filters: Vec::new(),
        ..options(&proxy, Version::V5, None)
    });
    up(&mut other).await;
    for (topic, expires_s) in [("echo/short", Some(1)), ("echo/long", Some(3600)), ("echo/ever", None)] {
        let sent = other.sender().send(Publish {
            topic: topic.to_owned(),
            payload: vec![1],
            qos: Qos::AtLeastOnce,
            expires: expires_s.map(std::time::Duration::from_secs),
        });
        sent.unwrap();
    }
    broker.says("'echo/ever'").await;
    // Time is what this is about: mosquitto counts whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let mut connection = Connection::open(&absent);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        match soon("what was kept", connection.next()).await {
            Event::Message(message) => {
                heard.push(message.topic);
                message.ack.accept();
            }
            Event::Up => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, ["echo/long", "echo/ever"]);
}

#[tokio::test]
async fn what_is_not_accepted_comes_again() {
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    for version in VERSIONS {
        let kept = Options {
            client_id: format!("{version:?}"),
            persistent: true,
            ..options(&proxy, version, None)
        };
        let mut connection = Connection::open(&kept);
        up(&mut connection).await;
        connection.sender().publish("echo/1", b"once".to_vec()).unwrap();
        let Event::Message(unsafe_yet) = soon("a message", connection.next()).await else {
            panic!("no message");
        };
        drop(connection);
        drop(unsafe_yet);
        let mut connection = Connection::open(&kept);
        let (mut heard, mut is_up) = (None, false);
        while heard.is_none() || !is_up {
            match soon("the message again", connection.next()).await {
                Event::Message(message) => heard = Some(message),
                Event::Up => is_up = true,
                other => panic!("{other:?}"),
            }
        }
        let again = heard.unwrap();
        assert_eq!(&*again.payload, b"once");
        again.ack.accept();
        converses(&mut connection).await;
    }
}

#[tokio::test]
async fn a_second_client_of_the_same_name_ends_the_first() {
    let dir = TempDir::new().unwrap();
    let (_broker, proxy) = plain(dir.path()).await;
    let mut first = Connection::open(&options(&proxy, Version::V5, None));
    up(&mut first).await;
    let mut second = Connection::open(&options(&proxy, Version::V5, None));
    up(&mut second).await;
    let symptom = down(&mut first).await;
    // mosquitto 2.0.11 only closes; who says why is heard (tests/transcripts).
    assert!(
        matches!(symptom.class, Class::Partition | Class::Duplicate),
        "{symptom}"
    );
    converses(&mut second).await;
}

/// A TLS broker with one bad thing about it or about us, and what we make of it.
struct Case {
    what: &'static str,
    server: (&'static str, Years),
    /// Whether we trust who signed it.
    trusted: bool,
    /// Our certificate: by whom the clients' authority trusts, valid when.
    client: Option<(bool, Years)>,
    revoked: bool,
    class: Option<Class>,
}

const GOOD: Case = Case {
    what: "everything is good",
    server: ("localhost", NOW),
    trusted: true,
    client: Some((true, NOW)),
    revoked: false,
    class: None,
};

#[rustfmt::skip]
const CASES: [Case; 9] = [
    GOOD,
    Case { what: "an authority we do not know", trusted: false, class: Some(Class::Intercepted), ..GOOD },
    Case { what: "another name", server: ("elsewhere.example", NOW), class: Some(Class::Intercepted), ..GOOD },
    Case { what: "expired", server: ("localhost", PAST), class: Some(Class::Clock), ..GOOD },
    Case { what: "not yet valid", server: ("localhost", FUTURE), class: Some(Class::Clock), ..GOOD },
    Case { what: "we show no certificate", client: None, class: Some(Class::Denied), ..GOOD },
    Case { what: "ours is by a foreign authority", client: Some((false, NOW)), class: Some(Class::Denied), ..GOOD },
    Case { what: "ours has expired", client: Some((true, PAST)), class: Some(Class::Clock), ..GOOD },
    Case { what: "ours is revoked", revoked: true, class: Some(Class::Denied), ..GOOD },
];

#[tokio::test]
async fn certificates_of_all_kinds() {
    let (servers, clients, foreign) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("foreign"),
    );
    for case in &CASES {
        for tls_version in ["tlsv1.2", "tlsv1.3"] {
            let dir = TempDir::new().unwrap();
            let pair = servers.server(case.server.0, case.server.1);
            let secured = Secured {
                pair: &pair,
                clients: Some(&clients),
                revoked: case.revoked.then(|| clients.revoke(7)),
                version: Some(tls_version),
            };
            let broker = Broker::secured(dir.path(), secured).await;
            let proxy = Proxy::new(broker.socket.clone(), Framing::Tls, None).await;
            let identity = case.client.map(|(is_known, years)| {
                let authority = if is_known { &clients } else { &foreign };
                certs::write_pair(dir.path(), "us", &authority.client("gw-1", 7, years))
            });
            let trusted = if case.trusted { &servers } else { &foreign };
            let files = certs::files(dir.path(), trusted, identity);
            for version in VERSIONS {
                let name = format!("{} ({tls_version}, {version:?})", case.what);
                let mut connection = Connection::open(&options(&proxy, version, Some(files.clone())));
                match (soon(&name, connection.next()).await, case.class) {
                    (Event::Up, None) => converses(&mut connection).await,
                    (Event::Down(symptom), Some(class)) => assert_eq!(symptom.class, class, "{name}: {symptom}"),
                    (other, expected) => panic!("{name}: {other:?} instead of {expected:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_the_next_connect() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let dir = TempDir::new().unwrap();
    let pair = servers.server("localhost", NOW);
    let secured = Secured {
        pair: &pair,
        clients: Some(&clients),
        revoked: None,
        version: None,
    };
    let broker = Broker::secured(dir.path(), secured).await;
    let proxy = Proxy::new(broker.socket.clone(), Framing::Tls, None).await;
    let identity = certs::write_pair(dir.path(), "us", &clients.client("gw-old", 1, NOW));
    let files = certs::files(dir.path(), &servers, Some(identity.clone()));
    let wanted = options(&proxy, Version::V5, Some(files));
    let tls = wanted.tls.clone().unwrap();

    let mut before = Connection::open(&wanted);
    up(&mut before).await;
    broker.says("u'gw-old'").await;

    // Half a renewal is no renewal: the certificate is there, its key is not yet.
    let renewed = clients.client("gw-new", 2, (2001, 2090));
    certs::write(dir.path(), "us.pem", &renewed.certificate);
    let problem = tls.status().problem.expect("certificate and key are no pair");
    assert!(matches!(*problem, Error::Pair { .. }), "{problem}");
    assert!(problem.to_string().contains("us.pem"), "{problem}");
    assert_eq!(tls.status().identity.unwrap().subject, "CN=gw-old");
    converses(&mut before).await;
    drop(before);
    let mut between = Connection::open(&wanted);
    up(&mut between).await;
    converses(&mut between).await;

    // The whole of it.
    certs::write(dir.path(), "us.key", &renewed.key);
    converses(&mut between).await;
    drop(between);
    let mut after = Connection::open(&wanted);
    up(&mut after).await;
    broker.says("u'gw-new'").await;
    converses(&mut after).await;
    let status = tls.status();
    assert!(status.problem.is_none());
    let validity = status.identity.unwrap();
    assert_eq!(validity.subject, "CN=gw-new");
    // 2090-01-01; a day before it, one day is left.
    assert_eq!(validity.not_after_s, 3_786_912_000);
    assert_eq!(validity.days_left(3_786_912_000 - 24 * 3600), 1);
    assert_eq!(validity.days_left(3_786_912_000 + 1), -1);
}

#[tokio::test]
async fn bad_files_are_named_and_what_was_good_stays() {
    let authority = Authority::new("authority");
    let dir = TempDir::new().unwrap();
    let pair = authority.client("gw-1", 1, NOW);
    let identity = certs::write_pair(dir.path(), "us", &pair);
    let files = certs::files(dir.path(), &authority, Some(identity.clone()));
    let tls = Tls::new(files.clone());
    assert!(tls.config().is_ok());
    let open_to_all = || std::fs::set_permissions(&identity.key, PermissionsExt::from_mode(0o644)).unwrap();
    let break_it = |what: &str| match what {
        "gone" => std::fs::remove_file(&identity.certificate).unwrap(),
        "empty" => drop(certs::write(dir.path(), "us.pem", "")),
        "no PEM" => drop(certs::write(dir.path(), "us.pem", "-----BEGIN CERTIFICATE-----\n*\n")),
        "too long" => drop(certs::write(dir.path(), "trusted.pem", &"x".repeat(2 << 20))),
        "no key" => drop(certs::write(dir.path(), "us.key", &pair.certificate)),
        "readable" => open_to_all(),
        "no roots" => drop(certs::write(dir.path(), "trusted.pem", "nothing")),
        other => panic!("{other}"),
    };
    for (what, part) in [
        ("gone", "us.pem"),
        ("empty", "us.pem: no certificate"),
        ("no PEM", "us.pem: not PEM"),
        ("too long", "trusted.pem: longer than 1048576 bytes"),
        ("no key", "us.key: no private key"),
        ("readable", "us.key: mode 644 lets others read the key"),
        ("no roots", "trusted.pem: no certificate"),
    ] {
        break_it(what);
        let kept = tls.config();
        assert!(kept.is_ok(), "{what}: what was good is kept");
        let problem = tls.status().problem.unwrap().to_string();
        assert!(problem.contains(part), "{what}: {problem}");
        // Who never had good ones has none.
        let error = Tls::new(files.clone()).config().unwrap_err().to_string();
        assert!(error.contains(part), "{what}: {error}");
        std::fs::remove_file(&identity.key).unwrap();
        certs::write_pair(dir.path(), "us", &pair);
        certs::files(dir.path(), &authority, None);
        assert!(tls.status().problem.is_none(), "{what} is mended");
    }
    for (bad, part) in [
        (Files::default(), "neither files"),
        (
            Files {
                alpn: vec![String::new()],
                ..files.clone()
            },
            "ALPN",
        ),
    ] {
        let error = Tls::new(bad).config().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // A connection that cannot have TLS says so, and does not go without.
    let mut connection = Connection::open(&Options {
        tls: Some(Tls::new(Files::default())),
        ..Options::new("localhost:1", "client")
    });
    let symptom = down(&mut connection).await;
    assert_eq!(symptom.class, Class::Protocol, "{symptom}");
}
