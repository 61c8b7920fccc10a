//! Golden transcripts: what clouds say when something is wrong, played as bytes to real connections, and the class that
//! each of them has. See transcripts/README.md.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod common;

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use carrier::{
    Class::{
        self, Billing, Broken, Claimed, Clock, Denied, Duplicate, HalfDead, Intercepted, Partition, Protocol, Throttled,
    },
    Connection, Event, Qos, Symptom, http,
    mqtt::{Options, Version},
    tls::Tls,
};
use common::{certs, soon};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What is made of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The connection goes on.
    Told(Class, u16),
    /// It is over.
    Ends(Class, u16),
}
use Verdict::{Ends, Told};

/// Which MQTT we speak; with HTTP neither.
const V3: Option<Version> = Some(Version::V3);
const V5: Option<Version> = Some(Version::V5);

/// Every transcript there is, the symptom of the catalogue that it shows, and what it means.
#[rustfmt::skip]
const TABLE: [(&str, &str, Option<Version>, Verdict); 76] = [
    ("S1", "s1-oss-key-unknown.http", None, Ends(Denied, 403)),
    ("S2", "s2-pop-key-not-found.http", None, Ends(Denied, 404)),
    ("S2", "s2-pop-key-invalid.http", None, Ends(Denied, 400)),
    ("S2", "s2-pop-key-message-only.http", None, Ends(Denied, 400)),
    ("S3", "s3-oss-key-disabled.http", None, Ends(Denied, 403)),
    ("S3", "s3-pop-key-inactive.http", None, Ends(Denied, 400)),
    ("S4", "s4-oss-internal.http", None, Ends(Broken, 500)),
    ("S4", "s4-pop-internal.http", None, Ends(Broken, 500)),
    ("S4", "s4-pop-internal-error-error.http", None, Ends(Broken, 500)),
    ("S4", "s4-pop-unavailable.http", None, Ends(Broken, 503)),
    ("S4", "s4-balancer-page.http", None, Ends(Broken, 502)),
    ("S4", "connack-3.mqtt", V3, Ends(Broken, 503)),
    ("S4", "connack-v5-unavailable.mqtt", V5, Ends(Broken, 503)),
    ("S4", "connack-v5-busy.mqtt", V5, Ends(Broken, 503)),
    ("S4", "disconnect-before-connack.mqtt", V5, Ends(Broken, 503)),
    ("S4", "disconnect-shutting-down.mqtt", V5, Ends(Broken, 503)),
    ("S4", "disconnect-elsewhere.mqtt", V5, Ends(Broken, 503)),
    ("S4", "puback-implementation.mqtt", V5, Told(Broken, 500)),
    ("S4", "alert-internal-error.tls", V5, Ends(Partition, 0)),
    ("S5", "hang-tls.tls", V5, Ends(Partition, 0)),
    ("S5", "hang-connack.mqtt", V3, Ends(Partition, 0)),
    ("S5", "hang-suback.mqtt", V3, Ends(Partition, 0)),
    ("S5", "hang-puback.mqtt", V3, Ends(Partition, 0)),
    ("S6", "login-loop.mqtt", V3, Ends(Partition, 0)),
    ("S6", "disconnect-taken-over.mqtt", V5, Ends(Duplicate, 409)),
    ("S7", "connack-4.mqtt", V3, Ends(Denied, 401)),
    ("S7", "connack-5.mqtt", V3, Ends(Denied, 403)),
    ("S7", "connack-7.mqtt", V3, Ends(Denied, 403)),
    ("S7", "connack-v5-user.mqtt", V5, Ends(Denied, 401)),
    ("S7", "connack-v5-not-authorized.mqtt", V5, Ends(Denied, 403)),
    ("S7", "suback-refused-v3.mqtt", V3, Ends(Denied, 403)),
    ("S7", "suback-refused-v5.mqtt", V5, Ends(Denied, 403)),
    ("S7", "puback-not-authorized.mqtt", V5, Told(Denied, 403)),
    ("S7", "disconnect-not-authorized.mqtt", V5, Ends(Denied, 403)),
    ("S7", "alert-certificate-revoked.tls", V5, Ends(Denied, 0)),
    ("S7", "alert-bad-certificate.tls", V5, Ends(Denied, 0)),
    ("S7", "alert-access-denied.tls", V5, Ends(Denied, 0)),
    ("S7", "alert-unknown-ca.tls", V5, Ends(Denied, 0)),
    ("S7", "alert-handshake-failure.tls", V5, Ends(Denied, 0)),
    ("S7", "aws-forbidden.http", None, Ends(Denied, 403)),
    ("S8", "puback-nobody.mqtt", V5, Told(HalfDead, 503)),
    ("S10", "s10-pop-throttling-user.http", None, Ends(Throttled, 400)),
    ("S10", "s10-429-retry-after.http", None, Ends(Throttled, 429)),
    ("S10", "s10-s3-slow-down.http", None, Ends(Throttled, 503)),
    ("S10", "connack-v5-quota.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "connack-v5-rate.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "connack-v5-banned.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "connack-v5-said.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "puback-quota.mqtt", V5, Told(Throttled, 429)),
    ("S10", "suback-quota-v5.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "disconnect-quota.mqtt", V5, Ends(Throttled, 429)),
    ("S10", "disconnect-rate.mqtt", V5, Ends(Throttled, 429)),
    ("S11", "disconnect-administrative.mqtt", V5, Ends(Claimed, 403)),
    ("S12", "s12-oss-clock.http", None, Ends(Clock, 403)),
    ("S12", "alert-certificate-expired.tls", V5, Ends(Clock, 0)),
    ("S13", "s13-portal-page.http", None, Ends(Intercepted, 200)),
    ("S13", "s13-portal-redirect.http", None, Ends(Intercepted, 302)),
    ("S13", "s13-portal-511.http", None, Ends(Intercepted, 511)),
    ("S13", "s13-isp-block-page.http", None, Ends(Intercepted, 403)),
    ("S13", "s13-answer-of-nobody.http", None, Ends(Intercepted, 200)),
    ("S13", "http-instead.mqtt", V5, Ends(Intercepted, 0)),
    ("S13", "http-instead.tls", V5, Ends(Intercepted, 0)),
    ("S14", "s14-oss-arrears.http", None, Ends(Billing, 403)),
    ("S14", "s14-pop-balance.http", None, Ends(Billing, 403)),
    ("S14", "s14-iot-overdue.http", None, Ends(Billing, 403)),
    ("S14", "s14-payment-required.http", None, Ends(Billing, 402)),
    ("-", "connack-v3-to-v5.mqtt", V5, Ends(Protocol, 400)),
    ("-", "suback-lower-v5.mqtt", V5, Told(Protocol, 0)),
    ("-", "puback-format.mqtt", V5, Told(Protocol, 400)),
    ("-", "disconnect-too-large.mqtt", V5, Ends(Protocol, 413)),
    ("-", "disconnect-one-byte.mqtt", V5, Ends(Protocol, 400)),
    ("-", "disconnect-bare.mqtt", V5, Ends(Partition, 0)),
    ("-", "alert-no-application-protocol.tls", V5, Ends(Protocol, 0)),
    ("-", "alert-protocol-version.tls", V5, Ends(Protocol, 0)),
    ("-", "not-found-page-of-json.http", None, Ends(Protocol, 404)),
    ("-", "connack-v3-to-v5.mqtt", V3, Ends(Protocol, 400)),
];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"))
}

#[tokio::test]
async fn every_transcript_means_what_the_table_says() {
    let mut playing = JoinSet::new();
    for (symptom, name, version, expected) in TABLE {
        playing.spawn(async move {
            let (verdict, text) = match version {
                None => play_http(name).await,
                Some(version) => play_mqtt(name, version).await,
            };
            (symptom, name, expected, verdict, text)
        });
    }
    let mut rows = playing.join_all().await;
    rows.sort_by_key(|row| TABLE.iter().position(|(_, name, ..)| *name == row.1));
    for (symptom, name, _, verdict, text) in &rows {
        println!("{symptom:>4} {name:<36} {verdict:?}: {text}");
    }
    for (_, name, expected, verdict, text) in rows {
        assert_eq!(verdict, expected, "{name}: {text}");
    }
}

#[test]
fn no_transcript_is_left_out() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| [".http", ".mqtt", ".tls"].iter().any(|end| name.ends_with(end)))
        .collect();
    let played = TABLE.iter().map(|(_, name, ..)| (*name).to_owned()).collect();
    assert_eq!(files, played);
}

fn verdict(of: impl Fn(Class, u16) -> Verdict, symptom: Symptom) -> (Verdict, String) {
    (of(symptom.class, symptom.code), symptom.text)
}

async fn play_http(name: &'static str) -> (Verdict, String) {
    let answer = fs::read(folder().join(name)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let playing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\nrecords") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(&answer).await.unwrap();
        drained(stream).await;
    });
    let mut connection = Connection::open_http(&http::Options::new(url, b"key".to_vec()));
    common::up(&mut connection).await;
    connection
        .sender()
        .publish("/v1/gateways/gw-1/messages", b"records".to_vec())
        .unwrap();
    let symptom = common::down(&mut connection).await;
    let asked_to_wait = name.contains("retry-after");
    assert_eq!(symptom.retry_after.is_some(), asked_to_wait, "{name}");
    drop(connection);
    soon("the player", playing).await.unwrap();
    verdict(Ends, symptom)
}

async fn play_mqtt(name: &'static str, version: Version) -> (Verdict, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = fs::read_to_string(folder().join(name)).unwrap();
    let playing = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        play(stream, &script).await;
    });
    let dir = TempDir::new().unwrap();
    let mut connection = Connection::open(&options(address, version, name.ends_with(".tls"), dir.path()));
    let found = loop {
        match soon(name, connection.next()).await {
            // Some are over at once.
            Event::Up => drop(connection.sender().publish("up", b"records".to_vec())),
            Event::Symptom(symptom) => break verdict(Told, symptom),
            Event::Down(symptom) => break verdict(Ends, symptom),
            Event::Message(message) => panic!("{message:?}"),
        }
    };
    drop(connection);
    soon("the player", playing).await.unwrap();
    found
}

fn options(address: SocketAddr, version: Version, is_tls: bool, dir: &Path) -> Options {
    let files = || certs::files(dir, &certs::Authority::new("nobody"), None);
    Options {
        version,
        tls: is_tls.then(|| Tls::new(files())),
        filters: vec![("down".to_owned(), Qos::AtLeastOnce)],
        connect_s_max: 1,
        answer_s_max: 1,
        ..Options::new(address.to_string(), "gw-1")
    }
}

async fn play(mut stream: TcpStream, script: &str) {
    for line in script.lines() {
        match line.split_at_checked(1) {
            Some(("#", _)) => {}
            Some((">", _)) => packet(&mut stream).await,
            Some(("<", hex)) => {
                let bytes: Vec<u8> = hex
                    .split_whitespace()
                    .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                    .collect();
                stream.write_all(&bytes).await.unwrap();
            }
            _ if line == "tls" => {
                let mut head = [0; 5];
                stream.read_exact(&mut head).await.unwrap();
                let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
                stream.read_exact(&mut rest).await.unwrap();
            }
            _ if line == "hang" => return drained(stream).await,
            _ => panic!("{line:?}"),
        }
    }
    stream.shutdown().await.unwrap();
    drained(stream).await;
}

/// Reads one packet; all of ours are short.
async fn packet(stream: &mut TcpStream) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head[1] < 0x80, "a long packet");
    stream.read_exact(&mut vec![0; usize::from(head[1])]).await.unwrap();
}

/// Closed too early, a socket takes back what it sent.
async fn drained(mut stream: TcpStream) {
    while matches!(stream.read(&mut [0; 1024]).await, Ok(bytes) if bytes > 0) {}
}
