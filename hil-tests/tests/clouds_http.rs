//! The clouds that speak HTTP, as a client that is not ours meets them: the operator's own interface, object storage and a
//! control plane.
#![allow(clippy::unwrap_used)]

#[path = "support/calls.rs"]
#[allow(dead_code, reason = "every test has its share of it")]
mod calls;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use calls::{Ear, gateway};
use hil_tests::{
    cloud_sim::{
        CloudSim, Member, Mode, Options, Way,
        fault::{Body, Fault, Of, Stage},
        webhook::WebhookOptions,
    },
    site::hex,
};
use hmac::{Hmac, KeyInit, Mac};
use proto::topic::{self, Lane, LinkDown, LinkUp};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const KEY: &[u8] = b"the key of the two";
const PATH: &str = "/hooks/v1/gateways/gw-1/messages";

/// What came back: status, headers and body.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            line.split_once(": ")
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, v)| v)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// One request on a connection of its own; `None`: closed without an answer.
async fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> Option<Answered> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A connection that is reset has no answer either.
    let _ = stream.read_to_string(&mut answer).await;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answered {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

fn mac(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn nonce() -> String {
    hex(&fastrand::u128(..).to_be_bytes())
}

/// A signed request.
async fn signed(to: SocketAddr, method: &str, path: &str, time_s: u64, nonce: &str, body: &str) -> Option<Answered> {
    let headers = [
        ("X-Holdfast-Time", time_s.to_string()),
        ("X-Holdfast-Nonce", nonce.to_owned()),
        (
            "X-Holdfast-Sign",
            mac(&format!("{method}\n{path}\n{time_s}.{nonce}.{body}")),
        ),
    ];
    request(to, method, path, &headers, body).await
}

/// As well, now, once; the answer must be signed for this request.
async fn ask(to: SocketAddr, method: &str, path: &str, body: &str) -> Answered {
    let nonce = nonce();
    let answered = signed(to, method, path, now_s(), &nonce, body).await.unwrap();
    let expected = mac(&format!("answer\n{nonce}\n{}.{}", answered.status, answered.body));
    assert_eq!(
        answered.header("x-holdfast-sign"),
        Some(expected.as_str()),
        "{answered:?}"
    );
    answered
}

async fn webhook(hub: SocketAddr) -> CloudSim {
    let (id, site, secret) = gateway();
    let member = Member {
        gateway: id,
        site,
        password: secret.password().to_string(),
    };
    let keys = BTreeMap::from([(id, KEY.to_vec())]);
    let way = Way::Webhook(WebhookOptions { keys });
    CloudSim::start(Options::new(way, hub, vec![member])).await.unwrap()
}

fn post(id: u64, word: &str, frame: &[u8]) -> String {
    json!({ "id": id.to_string(), "lane": 0, "word": word, "frame": STANDARD.encode(frame) }).to_string()
}

#[tokio::test]
async fn what_is_not_signed_new_and_timely_is_refused() {
    let hub = Ear::open().await;
    let cloud = webhook(hub.address).await;
    let to = cloud.address();
    let body = post(1, "echo", b"echo");
    assert_eq!(
        request(to, "POST", PATH, &[], &body).await.unwrap().status,
        401,
        "unsigned"
    );
    let used = nonce();
    let answered = signed(to, "POST", PATH, now_s(), &used, &body).await.unwrap();
    assert_eq!(answered.status, 200, "{answered:?}");
    for (what, path, time_s, nonce) in [
        ("a nonce again", PATH, now_s(), used),
        ("an old time", PATH, now_s() - 301, nonce()),
        ("a time to come", PATH, now_s() + 302, nonce()),
        ("a nonce that is none", PATH, now_s(), "short".to_owned()),
        ("a stranger", "/v1/gateways/gw-2/messages", now_s(), nonce()),
    ] {
        let answered = signed(to, "POST", path, time_s, &nonce, &body).await.unwrap();
        assert_eq!(
            (answered.status, answered.header("x-holdfast-sign")),
            (401, None),
            "{what}"
        );
    }
    let no_clock = signed(to, "POST", PATH, 0, &nonce(), &body).await.unwrap();
    assert_eq!(no_clock.status, 200, "a gateway without a fit clock may speak");
    let elsewhere = signed(to, "POST", "/v1/other", now_s(), &nonce(), &body).await.unwrap();
    assert_eq!(elsewhere.status, 404);
    for bad in [
        "{}",
        &post(1, "shout", b""),
        &post(1, "echo", b"").replace("\"1\"", "\"x\""),
    ] {
        assert_eq!(ask(to, "POST", PATH, bad).await.status, 400, "{bad}");
    }
    let poll = format!("{PATH}?lane=9&wait_s=0");
    assert_eq!(ask(to, "GET", &poll, "").await.status, 400);
}

#[tokio::test]
async fn frames_go_up_and_come_down() {
    let mut hub = Ear::open().await;
    let cloud = webhook(hub.address).await;
    let to = cloud.address();
    let (id, site, _) = gateway();
    let orders = json!([{ "id": "gw-1/1/1", "type": "order.held" }, { "id": "gw-1/1/2", "type": "order.started" }]);
    let mut body: Value = serde_json::from_str(&post(7, "records", b"records")).unwrap();
    body["orders"] = orders;
    for _ in 0..2 {
        assert_eq!(
            ask(to, "POST", PATH, &body.to_string()).await.json(),
            json!({ "frames": [] })
        );
        let up = topic::link_up(&site, &id, LinkUp::Records, Lane::FIRST);
        assert_eq!(hub.hear().await, (up.to_string(), b"records".to_vec()));
    }
    let counters = cloud.counters();
    assert_eq!((counters.orders.get(), counters.orders_again.get()), (2, 2));

    // One that waits gets it at once.
    let poll = format!("{PATH}?lane=0&wait_s=20");
    let (asked, answered) = (Instant::now(), ask(to, "GET", &poll, ""));
    hub.say(
        &topic::link_down(&site, &id, LinkDown::Receipt, Lane::FIRST),
        b"receipt",
    );
    let frame = json!({ "frames": [{ "word": "receipt", "frame": STANDARD.encode(b"receipt") }] });
    assert_eq!(answered.await.json(), frame);
    assert!(asked.elapsed() < Duration::from_secs(10));
    let nothing = format!("{PATH}?lane=0&wait_s=0");
    assert_eq!(ask(to, "GET", &nothing, "").await.json(), json!({ "frames": [] }));
}

#[tokio::test]
async fn what_the_interface_does_when_it_is_not_well() {
    let mut hub = Ear::open().await;
    let cloud = webhook(hub.address).await;
    let to = cloud.address();
    let body = post(1, "echo", b"echo");
    let deny = Fault::Deny {
        at: Stage::Http,
        of: Of::Gateway,
        percent: 100,
        code: 403,
        kicks: false,
    };
    for (fault, status, text) in [
        (deny, 403, "InvalidAccessKeyId.NotFound"),
        (
            Fault::Http {
                status: 400,
                body: Body::S3,
            },
            400,
            "Specified access key is disabled.",
        ),
        (
            Fault::Http {
                status: 500,
                body: Body::S4,
            },
            500,
            "InternalError",
        ),
        (
            Fault::Http {
                status: 503,
                body: Body::S4,
            },
            503,
            "ServiceUnavailable",
        ),
        (Fault::Billing, 403, "overdue"),
        (Fault::Throttle(0), 429, "Throttling.User"),
        (Fault::Captive, 200, "<!DOCTYPE html>"),
    ] {
        cloud.play(vec![fault.clone()]).unwrap();
        let answered = signed(to, "POST", PATH, now_s(), &nonce(), &body).await.unwrap();
        let said = (
            answered.status,
            answered.body.contains(text),
            answered.header("x-holdfast-sign"),
        );
        assert_eq!(said, (status, true, None), "{fault:?}: {answered:?}");
    }
    assert!(hub.said.try_recv().is_err(), "nothing of it is carried");

    cloud.play(vec![Fault::HalfDead]).unwrap();
    assert_eq!(ask(to, "POST", PATH, &body).await.json(), json!({ "frames": [] }));
    assert!(hub.said.try_recv().is_err(), "nobody is behind it");

    cloud.play(vec![Fault::ClockSkew(3_600_000)]).unwrap();
    let answered = signed(to, "POST", PATH, now_s(), &nonce(), &body).await.unwrap();
    assert_eq!(answered.status, 401);

    cloud.play(vec![Fault::WrongId]).unwrap();
    let own = nonce();
    let answered = signed(to, "POST", PATH, now_s(), &own, &body).await.unwrap();
    let right = mac(&format!("answer\n{own}\n200.{}", answered.body));
    assert_ne!(answered.header("x-holdfast-sign"), Some(right.as_str()));
    hub.hear().await;

    for fault in [Fault::CloseAfter(Stage::Tcp), Fault::CloseAfter(Stage::Http)] {
        cloud.play(vec![fault.clone()]).unwrap();
        assert!(
            signed(to, "POST", PATH, now_s(), &nonce(), &body).await.is_none(),
            "{fault:?}"
        );
    }
    hub.hear().await; // The second was carried out, and its answer lost.
    for fault in [Fault::Hang(Stage::Tcp), Fault::Hang(Stage::Http)] {
        cloud.play(vec![fault.clone()]).unwrap();
        let nonce = nonce();
        let asked = signed(to, "POST", PATH, now_s(), &nonce, &body);
        assert!(tokio::time::timeout(calls::NOTHING, asked).await.is_err(), "{fault:?}");
    }
    cloud.set(Mode::Honest);
    assert_eq!(ask(to, "POST", PATH, &body).await.status, 200);
}

#[tokio::test]
async fn stores_know_keys_and_forget_them() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    for (way, known, unknown, s1) in [
        (Way::Oss, "/fw.bin?OSSAccessKeyId=LTAI&Signature=x", 403, Body::S1),
        (Way::Pop, "/?Action=Pub&AccessKeyId=LTAI", 404, Body::S2),
    ] {
        let vendor = way.vendor();
        let cloud = CloudSim::start(Options::new(way, nowhere, Vec::new())).await.unwrap();
        let to = cloud.address();
        assert_eq!(
            request(to, "GET", known, &[], "").await.unwrap().status,
            200,
            "{vendor}"
        );
        assert_eq!(
            request(to, "GET", "/", &[], "").await.unwrap().status,
            unknown,
            "{vendor}"
        );
        cloud
            .play(vec![Fault::Http {
                status: unknown,
                body: s1,
            }])
            .unwrap();
        let answered = request(to, "GET", known, &[], "").await.unwrap();
        assert!(answered.body.contains("InvalidAccessKeyId"), "{vendor}: {answered:?}");
        assert!(cloud.play(vec![Fault::HalfDead]).is_err(), "{vendor}");
    }
}
