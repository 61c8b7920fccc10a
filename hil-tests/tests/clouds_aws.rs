//! AWS IoT Core, as a client that is not ours meets it: everything it checks is refused here once.
#![allow(clippy::unwrap_used)]

#[path = "support/calls.rs"]
#[allow(dead_code, reason = "every test has its share of it")]
mod calls;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use calls::{Caller, Ear, Ended, PATIENCE, gateway};
use hil_tests::cloud_sim::{
    CloudSim, Command, Member, Options, StartError, Way,
    aws::{ALPN, AwsOptions},
    certs::TlsOptions,
    fault::{CertFault, Fault, Of, Stage},
};
use proto::{
    codec,
    id::Name,
    link::ArtifactPart,
    seal::Direction,
    topic::{self, Lane, LinkDown, LinkUp},
    trust::ArtifactKind,
};
use rumqttc::{MqttOptions, QoS, TlsConfiguration, Transport};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

const HOST: &str = "localhost";
const THING: &str = "thing-1";

/// A second on a loaded machine, in ms.
const LONG_SECOND_MS: u64 = 4_000;

struct Rig {
    cloud: CloudSim,
    hub: Ear,
}

async fn rig_with(change: impl FnOnce(&mut AwsOptions)) -> Rig {
    let hub = Ear::open().await;
    let (id, site, secret) = gateway();
    let member = Member {
        gateway: id,
        site,
        password: secret.password().to_string(),
    };
    let mut aws = AwsOptions::new(BTreeMap::from([(THING.to_owned(), id)]));
    aws.rules = vec!["hf_ingest".to_owned()];
    aws.wants_alpn = true;
    change(&mut aws);
    let mut options = Options::new(Way::Aws(aws), hub.address, vec![member]);
    options.tls = Some(TlsOptions {
        name: HOST.to_owned(),
        client_certificates: true,
        alpn: vec![ALPN.to_owned(), "mqtt".to_owned()],
    });
    Rig {
        cloud: CloudSim::start(options).await.unwrap(),
        hub,
    }
}

async fn rig() -> Rig {
    rig_with(|_| {}).await
}

/// How somebody connects.
struct How {
    client_id: &'static str,
    certificate: Option<&'static str>,
    alpn: &'static [&'static str],
    sni: bool,
    clean: bool,
}

const WELL: How = How {
    client_id: THING,
    certificate: Some(THING),
    alpn: &[ALPN],
    sni: true,
    clean: true,
};

fn options(rig: &Rig, how: &How) -> MqttOptions {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(rig.cloud.root_pem().unwrap().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match how.certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let own = rig.cloud.client_certificate(name).unwrap().unwrap();
            let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = how.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_sni = how.sni;
    let mut options = MqttOptions::new(how.client_id, HOST, rig.cloud.address().port());
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
        .set_keep_alive(Duration::from_secs(60))
        .set_clean_session(how.clean);
    options
}

/// Logs in; the cloud takes one login a second.
async fn caller(rig: &Rig, how: &How) -> Caller {
    Caller::login(options(rig, how)).await.unwrap()
}

/// Logs in as soon as the cloud takes another login.
async fn again(rig: &Rig, how: &How) -> Caller {
    let began = Instant::now();
    loop {
        match Caller::login(options(rig, how)).await {
            Ok(caller) => return caller,
            Err(ended) => assert!(began.elapsed() < PATIENCE, "{ended:?}"),
        }
    }
}

fn up(word: LinkUp) -> String {
    let (id, site, _) = gateway();
    topic::link_up(&site, &id, word, Lane::FIRST).to_string()
}

fn down(word: LinkDown) -> String {
    let (id, site, _) = gateway();
    topic::link_down(&site, &id, word, Lane::FIRST).to_string()
}

fn down_filter() -> String {
    let (id, site, _) = gateway();
    topic::link_down_filter(&site, &id, Lane::FIRST).to_string()
}

async fn play(rig: &Rig, faults: Vec<Fault>) {
    rig.cloud.play(faults).unwrap();
    rig.cloud.taken().await;
}

#[tokio::test]
async fn who_gets_in() {
    let rig = rig().await;
    for (what, how, expected) in [
        (
            "no certificate",
            How {
                certificate: None,
                ..WELL
            },
            Ended::Closed,
        ),
        ("no SNI", How { sni: false, ..WELL }, Ended::Closed),
        ("no ALPN", How { alpn: &[], ..WELL }, Ended::Closed),
        (
            "another ALPN",
            How {
                alpn: &["mqtt"],
                ..WELL
            },
            Ended::Closed,
        ),
        (
            "an ALPN that there is not",
            How { alpn: &["h2"], ..WELL },
            Ended::Closed,
        ),
        (
            "another's certificate",
            How {
                certificate: Some("thing-2"),
                ..WELL
            },
            Ended::Refused(7),
        ),
        (
            "another's name",
            How {
                client_id: "thing-2",
                ..WELL
            },
            Ended::Refused(7),
        ),
    ] {
        assert_eq!(Caller::login(options(&rig, &how)).await.err(), Some(expected), "{what}");
    }
    let port_8883 = rig_with(|aws| aws.wants_alpn = false).await;
    caller(&port_8883, &How { alpn: &[], ..WELL }).await;
    let hub = Ear::open().await;
    let plain = CloudSim::start(Options::new(
        Way::Aws(AwsOptions::new(BTreeMap::new())),
        hub.address,
        Vec::new(),
    ))
    .await;
    assert!(matches!(plain, Err(StartError::Plain(_))));
}

#[tokio::test]
async fn certificates_that_are_wrong() {
    let rig = rig().await;
    for fault in [
        CertFault::Expired,
        CertFault::NotYet,
        CertFault::WrongName,
        CertFault::NewRoot,
    ] {
        play(&rig, vec![Fault::Cert(fault)]).await;
        assert_eq!(
            Caller::login(options(&rig, &WELL)).await.err(),
            Some(Ended::Closed),
            "{fault:?}"
        );
    }
    play(&rig, vec![Fault::Captive]).await;
    assert_eq!(
        Caller::login(options(&rig, &WELL)).await.err(),
        Some(Ended::Closed),
        "captive"
    );
    play(&rig, Vec::new()).await;
    caller(&rig, &WELL).await;
}

#[tokio::test]
async fn one_login_a_second_and_the_second_kicks_the_first() {
    let rig = rig_with(|aws| aws.second_ms = LONG_SECOND_MS).await;
    let mut first = caller(&rig, &WELL).await;
    assert_eq!(
        Caller::login(options(&rig, &WELL)).await.err(),
        Some(Ended::Closed),
        "too soon"
    );
    again(&rig, &WELL).await;
    assert!(first.is_closed().await);
}

#[tokio::test]
async fn policies_close_connections() {
    for what in ["publish", "subscribe", "filters", "subscriptions", "payload", "slashes"] {
        let rig = rig().await;
        let mut caller = caller(&rig, &WELL).await;
        let own = |i: usize| format!("$aws/things/{THING}/shadow/name/n{i}/get/accepted");
        let closed = match what {
            "publish" => {
                let (_, site, _) = gateway();
                let other = topic::link_up(&site, &Name::new("gw-2").unwrap(), LinkUp::Echo, Lane::FIRST);
                caller.publish(&other, QoS::AtLeastOnce, "x").await;
                caller.is_closed().await
            }
            "subscribe" => caller.subscribe(&["#"]).await.is_err(),
            "filters" => {
                let nine: Vec<String> = (0..9).map(own).collect();
                let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
                assert_eq!(caller.subscribe(&nine[..8]).await, Ok(vec![true; 8]));
                caller.subscribe(&nine).await.is_err()
            }
            "subscriptions" => {
                for i in 0..50 {
                    assert_eq!(caller.subscribe(&[&own(i)]).await, Ok(vec![true]), "{i}");
                }
                caller.subscribe(&[&own(50)]).await.is_err()
            }
            "payload" => {
                caller
                    .publish(&up(LinkUp::Records), QoS::AtLeastOnce, vec![0; 128 * 1024 + 1])
                    .await;
                caller.is_closed().await
            }
            _ => {
                caller.publish("a/b/c/d/e/f/g/h/i", QoS::AtLeastOnce, "x").await;
                caller.is_closed().await
            }
        };
        assert!(closed, "{what}");
    }
}

#[tokio::test]
async fn frames_travel_on_their_topics_and_by_rules() {
    let mut rig = rig().await;
    let mut caller = caller(&rig, &WELL).await;
    assert_eq!(caller.subscribe(&[&down_filter()]).await, Ok(vec![true]));
    caller.publish(&up(LinkUp::Ask), QoS::AtLeastOnce, "question").await;
    caller
        .publish(
            &format!("$aws/rules/hf_ingest/{}", up(LinkUp::Records)),
            QoS::AtLeastOnce,
            "records",
        )
        .await;
    // A rule that there is not takes everything, and nothing comes of it.
    caller
        .publish(
            &format!("$aws/rules/none/{}", up(LinkUp::Records)),
            QoS::AtLeastOnce,
            "lost",
        )
        .await;
    caller.acknowledged(3).await;
    assert_eq!(rig.hub.hear().await, (up(LinkUp::Ask), b"question".to_vec()));
    assert_eq!(rig.hub.hear().await, (up(LinkUp::Records), b"records".to_vec()));
    rig.hub.say(&down(LinkDown::Answer), b"\"answer\"");
    assert_eq!(caller.hear(&down(LinkDown::Answer)).await.unwrap(), "answer");
    assert!(rig.hub.said.try_recv().is_err());
    // QoS 2 is not answered.
    caller.publish(&up(LinkUp::Ask), QoS::ExactlyOnce, "twice").await;
    let answered = caller.until(|packet| matches!(packet, rumqttc::Packet::PubRec(_)).then_some(()));
    assert!(tokio::time::timeout(calls::NOTHING, answered).await.is_err());
}

#[tokio::test]
async fn more_than_a_hundred_a_second_are_dropped() {
    let rig = rig_with(|aws| aws.second_ms = LONG_SECOND_MS).await;
    let mut caller = caller(&rig, &WELL).await;
    let client = caller.client.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..250 {
            client
                .publish(up(LinkUp::Telemetry), QoS::AtMostOnce, false, "report")
                .await
                .unwrap();
        }
        client
            .publish(up(LinkUp::Echo), QoS::AtLeastOnce, false, "last")
            .await
            .unwrap();
    });
    let acknowledged = caller.until(|packet| matches!(packet, rumqttc::Packet::PubAck(_)).then_some(()));
    // The last one is among those that are dropped, unless the second has changed meanwhile.
    let _ = tokio::time::timeout(calls::NOTHING, acknowledged).await;
    sending.await.unwrap();
    assert!(
        rig.cloud.counters().throttled.get() >= 40,
        "{:?}",
        rig.cloud.counters().rows()
    );
}

#[tokio::test]
async fn a_session_waits_for_its_client() {
    let away = How { clean: false, ..WELL };
    let rig = rig().await;
    let mut first = caller(&rig, &away).await;
    let notice = format!("$aws/things/{THING}/jobs/notify-next");
    first.subscribe(&[&notice]).await.unwrap();
    first.client.disconnect().await.unwrap();
    assert!(first.is_closed().await);
    let document = json!({ "holdfast": 1 });
    let job = Command::Job {
        gateway: gateway().0,
        document: document.clone(),
    };
    rig.cloud.command(job).unwrap();
    let mut second = again(&rig, &away).await;
    assert!(second.session_present, "within the hour");
    let told = second.hear(&notice).await.unwrap();
    assert_eq!(told["execution"]["jobDocument"], document);
}

#[tokio::test]
async fn shadows() {
    let mut rig = rig().await;
    let mut caller = caller(&rig, &WELL).await;
    let place = format!("$aws/things/{THING}/shadow/name/holdfast");
    let filters = [
        "get/accepted",
        "get/rejected",
        "update/accepted",
        "update/rejected",
        "update/delta",
    ];
    let filters: Vec<String> = filters.iter().map(|rest| format!("{place}/{rest}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    caller.subscribe(&filters).await.unwrap();
    let ask = async |caller: &mut Caller, verb: &str, how: &str, document: Value| -> Value {
        caller
            .publish(&format!("{place}/{verb}"), QoS::AtLeastOnce, document.to_string())
            .await;
        caller.hear(&format!("{place}/{verb}/{how}")).await.unwrap()
    };
    let none = ask(&mut caller, "get", "rejected", json!({ "clientToken": "a" })).await;
    assert_eq!((&none["code"], &none["clientToken"]), (&json!(404), &json!("a")));

    // The operator points at what the hub publishes.
    let (_, _, secret) = gateway();
    let part = ArtifactPart {
        kind: ArtifactKind::List,
        revision: 7,
        part: 0,
        parts: 1,
        bytes: ByteBuf::from(vec![1]),
    };
    let topic = down(LinkDown::Artifact);
    let frame = secret.key(Direction::Down).seal_vec(&topic, 1, &part);
    assert!(codec::decode::<ArtifactPart>(&codec::to_vec(&part)).is_ok());
    caller.publish(&up(LinkUp::Hello), QoS::AtLeastOnce, "hello").await;
    rig.hub.hear().await;
    rig.hub.say(&topic, &frame);
    let delta = caller.hear(&format!("{place}/update/delta")).await.unwrap();
    assert_eq!(
        (&delta["state"]["artifacts"], &delta["version"]),
        (&json!({ "list": 7 }), &json!(1))
    );

    let report = |version: u64| json!({ "state": { "reported": { "artifacts": { "list": 7 } } }, "version": version });
    assert_eq!(ask(&mut caller, "update", "rejected", report(9)).await["code"], 409);
    assert_eq!(ask(&mut caller, "update", "accepted", report(1)).await["version"], 2);
    let read = ask(&mut caller, "get", "accepted", json!({})).await;
    assert_eq!(read["state"]["reported"], json!({ "artifacts": { "list": 7 } }));
    assert_eq!(read["state"].get("delta"), None);
    caller.publish(&format!("{place}/get"), QoS::AtLeastOnce, "{").await;
    assert_eq!(
        caller.hear(&format!("{place}/get/rejected")).await.unwrap()["code"],
        400
    );

    play(&rig, vec![Fault::WrongId]).await;
    assert_eq!(
        ask(&mut caller, "get", "accepted", json!({ "clientToken": "a" })).await["clientToken"],
        "another"
    );
}

#[tokio::test]
async fn jobs_are_answered_unasked() {
    let rig = rig().await;
    let mut caller = caller(&rig, &WELL).await;
    let place = format!("$aws/things/{THING}/jobs");
    caller.subscribe(&[&format!("{place}/notify-next")]).await.unwrap();
    let document = json!({ "holdfast": 1, "frames": [] });
    rig.cloud
        .command(Command::Job {
            gateway: gateway().0,
            document: document.clone(),
        })
        .unwrap();
    let told = caller.hear(&format!("{place}/notify-next")).await.unwrap();
    assert_eq!(told["execution"]["jobDocument"], document);
    // Nobody subscribed to the answers.
    caller
        .publish(
            &format!("{place}/start-next"),
            QoS::AtLeastOnce,
            r#"{"clientToken":"1"}"#,
        )
        .await;
    let started = caller.hear(&format!("{place}/start-next/accepted")).await.unwrap();
    assert_eq!(
        (&started["execution"]["status"], &started["clientToken"]),
        (&json!("IN_PROGRESS"), &json!("1"))
    );
    let update = format!("{place}/job-1/update");
    caller
        .publish(
            &update,
            QoS::AtLeastOnce,
            r#"{"status":"SUCCEEDED","expectedVersion":"9"}"#,
        )
        .await;
    assert_eq!(
        caller.hear(&format!("{update}/rejected")).await.unwrap()["code"],
        "VersionMismatch"
    );
    caller
        .publish(
            &update,
            QoS::AtLeastOnce,
            r#"{"status":"SUCCEEDED","expectedVersion":"2"}"#,
        )
        .await;
    caller.hear(&format!("{update}/accepted")).await.unwrap();
    assert_eq!(
        caller
            .hear(&format!("{place}/notify-next"))
            .await
            .unwrap()
            .get("execution"),
        None
    );
    caller
        .publish(&update, QoS::AtLeastOnce, r#"{"status":"FAILED"}"#)
        .await;
    assert_eq!(
        caller.hear(&format!("{update}/rejected")).await.unwrap()["code"],
        "TerminalStateReached"
    );
}

#[tokio::test]
async fn what_the_cloud_does_when_it_is_not_well() {
    let rig = rig().await;
    let deny = Fault::Deny {
        at: Stage::Connack,
        of: Of::Gateway,
        percent: 100,
        code: 7,
        kicks: true,
    };
    let mut first = caller(&rig, &WELL).await;
    play(&rig, vec![deny]).await;
    assert!(first.is_closed().await, "thrown out");
    let began = Instant::now();
    while Caller::login(options(&rig, &WELL)).await.err() != Some(Ended::Refused(7)) {
        assert!(began.elapsed() < PATIENCE, "no denial");
    }
    for stage in [Stage::Tcp, Stage::Tls, Stage::Connack] {
        play(&rig, vec![Fault::Hang(stage)]).await;
        let login = Caller::login(options(&rig, &WELL));
        assert!(tokio::time::timeout(calls::NOTHING, login).await.is_err(), "{stage:?}");
    }
    play(&rig, vec![Fault::CloseAfter(Stage::Tls)]).await;
    assert_eq!(Caller::login(options(&rig, &WELL)).await.err(), Some(Ended::Closed));
}
