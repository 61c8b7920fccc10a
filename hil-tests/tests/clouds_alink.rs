//! The platform of Alibaba Cloud IoT, as a client that is not ours meets it: everything it checks is refused here once.
#![allow(clippy::unwrap_used)]

#[path = "support/calls.rs"]
#[allow(dead_code, reason = "every test has its share of it")]
mod calls;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use calls::{Caller, Ear, Ended, gateway};
use hil_tests::{
    cloud_sim::{
        CloudSim, Command, Member, Options, Way,
        alink::{AlinkOptions, Home, Triple},
        fault::{Fault, Of, Stage},
    },
    site::hex,
};
use hmac::{Hmac, KeyInit, Mac};
use proto::topic::{self, Lane, LinkDown, LinkUp};
use rumqttc::{MqttOptions, QoS};
use serde_json::{Value, json};
use sha2::Sha256;

const PK: &str = "a1Bc2De3Fg4";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OWN: &str = "/sys/a1Bc2De3Fg4/gw-0001/thing";
const SESSION: &str = "/ext/session/a1Bc2De3Fg4/gw-0001/combine";
const ERROR: &str = "/ext/error/a1Bc2De3Fg4/gw-0001";
const SUB_PK: &str = "a1Zz9Yy8Xx7";

fn triple(product_key: &str, device_name: &str, device_secret: &str) -> Triple {
    Triple {
        product_key: product_key.to_owned(),
        device_name: device_name.to_owned(),
        device_secret: device_secret.to_owned(),
    }
}

fn sub(i: usize) -> Triple {
    triple(SUB_PK, &format!("washer-{i:02}"), &format!("secret of washer {i}"))
}

struct Rig {
    cloud: CloudSim,
    hub: Ear,
}

async fn rig(change: impl FnOnce(&mut AlinkOptions)) -> Rig {
    let hub = Ear::open().await;
    let (id, site, secret) = gateway();
    let home = Home {
        gateway: id,
        triple: triple(PK, "gw-0001", SECRET),
    };
    let mut alink = AlinkOptions::new(vec![home], (0..60).map(sub).collect());
    (alink.acknowledged_a_second_max, alink.unacknowledged_a_second_max) = (1_000, 1_000);
    change(&mut alink);
    let member = Member {
        gateway: id,
        site,
        password: secret.password().to_string(),
    };
    let cloud = CloudSim::start(Options::new(Way::Alink(alink), hub.address, vec![member]));
    Rig {
        cloud: cloud.await.unwrap(),
        hub,
    }
}

fn sign(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn login(rig: &Rig, change: impl FnOnce(&mut MqttOptions, &mut String, &mut String)) -> MqttOptions {
    let mut client = format!("{PK}.gw-0001|securemode=3,signmethod=hmacsha256,timestamp=2524608000000|");
    let text = format!("clientId{PK}.gw-0001deviceNamegw-0001productKey{PK}timestamp2524608000000");
    let mut password = sign(SECRET, &text);
    let mut user = format!("gw-0001&{PK}");
    let address = rig.cloud.address();
    let mut options = MqttOptions::new("", address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(60));
    change(&mut options, &mut client, &mut password);
    if let Some(other) = options.credentials() {
        user = other.username;
    }
    let keep_alive = options.keep_alive();
    let mut options = MqttOptions::new(client, address.ip().to_string(), address.port());
    options.set_keep_alive(keep_alive).set_credentials(user, password);
    options
}

async fn caller(rig: &Rig) -> Caller {
    let mut caller = Caller::login(login(rig, |_, _, _| {})).await.unwrap();
    let filters = [
        "/sys/a1Bc2De3Fg4/gw-0001/#",
        "/ext/session/a1Bc2De3Fg4/gw-0001/combine/+",
        ERROR,
        "/ext/ntp/a1Bc2De3Fg4/gw-0001/response",
        "/ota/device/upgrade/a1Bc2De3Fg4/gw-0001",
        "/sys/a1Zz9Yy8Xx7/+/thing/#",
    ];
    assert_eq!(caller.subscribe(&filters).await.unwrap(), [true; 6]);
    caller
}

/// Asks something; the code of the answer, and its data.
async fn ask(caller: &mut Caller, topic: &str, params: Value) -> (i64, Value) {
    let id = caller.id();
    let qos = if topic.starts_with("/ext/session") {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    };
    let said = json!({ "id": id, "version": "1.0", "sys": { "ack": 1 }, "params": params, "method": "thing" });
    caller.publish(topic, qos, said.to_string()).await;
    let reply = caller.hear(&format!("{topic}_reply")).await.unwrap();
    assert_eq!(reply["id"], json!(id), "{reply}");
    let code = reply["code"].as_i64().or_else(|| reply["code"].as_str()?.parse().ok());
    (code.unwrap(), reply["data"].clone())
}

/// A device's entry in a request, signed.
fn entry(device: &Triple) -> Value {
    let client = format!("{}&{}", device.product_key, device.device_name);
    let text = format!(
        "clientId{client}deviceName{}productKey{}timestamp1700000000000",
        device.device_name, device.product_key
    );
    json!({
        "productKey": device.product_key, "deviceName": device.device_name, "clientId": client,
        "timestamp": "1700000000000", "signMethod": "hmacSha256", "sign": sign(&device.device_secret, &text),
        "cleanSession": "true",
    })
}

fn entries(devices: std::ops::Range<usize>) -> Vec<Value> {
    devices.map(|i| entry(&sub(i))).collect()
}

/// Takes devices into the topology, and logs them in.
async fn online(caller: &mut Caller, devices: std::ops::Range<usize>) {
    let (code, _) = ask(caller, &format!("{OWN}/topo/add"), json!(entries(devices.clone()))).await;
    assert_eq!(code, 200);
    let list = json!({ "deviceList": entries(devices) });
    let (code, _) = ask(caller, &format!("{SESSION}/batch_login"), list).await;
    assert_eq!(code, 200);
}

fn frame_event(word: &str, frame: &[u8]) -> Value {
    json!({ "value": { "w": word, "l": 1, "f": STANDARD.encode(frame) }, "time": 1_700_000_000_000_u64 })
}

#[tokio::test]
async fn logins() {
    let rig = rig(|_| {}).await;
    let cases: [(&str, MqttOptions, Ended); 8] = [
        (
            "no parameters",
            login(&rig, |_, client, _| *client = "gw".into()),
            Ended::Refused(2),
        ),
        (
            "TLS said where there is none",
            login(&rig, |_, client, _| {
                *client = client.replace("securemode=3", "securemode=2")
            }),
            Ended::Refused(2),
        ),
        (
            "no such algorithm",
            login(&rig, |_, client, _| *client = client.replace("hmacsha256", "sha3")),
            Ended::Refused(2),
        ),
        (
            "a user name of another shape",
            login(&rig, |options, _, _| {
                options.set_credentials("gw-0001", "");
            }),
            Ended::Refused(4),
        ),
        (
            "a stranger",
            login(&rig, |options, _, _| {
                options.set_credentials(format!("gw-0002&{PK}"), "");
            }),
            Ended::Refused(5),
        ),
        (
            "a signature",
            login(&rig, |_, _, password| password.replace_range(0..1, "x")),
            Ended::Refused(5),
        ),
        (
            "a keep-alive of 29 s",
            login(&rig, |options, _, _| {
                options.set_keep_alive(Duration::from_secs(29));
            }),
            Ended::Closed,
        ),
        (
            "a keep-alive of 1201 s",
            login(&rig, |options, _, _| {
                options.set_keep_alive(Duration::from_secs(1201));
            }),
            Ended::Closed,
        ),
    ];
    for (what, options, expected) in cases {
        assert_eq!(Caller::login(options).await.err(), Some(expected), "{what}");
    }
    let capitals = login(&rig, |_, _, password| *password = password.to_uppercase());
    assert!(Caller::login(capitals).await.is_ok());
}

#[tokio::test]
async fn a_second_login_kicks_the_first_and_the_sixth_in_a_minute_is_closed() {
    let rig = rig(|_| {}).await;
    let mut callers = Vec::new();
    for _ in 0..5 {
        callers.push(caller(&rig).await);
    }
    assert!(callers[0].is_closed().await);
    assert_eq!(rig.cloud.counters().taken_over.get(), 4);
    assert_eq!(
        Caller::login(login(&rig, |_, _, _| {})).await.err(),
        Some(Ended::Closed)
    );
}

#[tokio::test]
async fn qos_2_is_closed() {
    let rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    caller
        .publish(&format!("{OWN}/event/property/post"), QoS::ExactlyOnce, "{}")
        .await;
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn envelopes() {
    let rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    let (topic, reply) = (
        format!("{OWN}/event/property/post"),
        format!("{OWN}/event/property/post_reply"),
    );
    for (said, code) in [
        ("{", 6207),
        (r#"{"id":"x","params":{}}"#, 460),
        (r#"{"id":"4294967296","params":{}}"#, 460),
        (r#"{"id":5,"params":{}}"#, 200),
        (r#"{"id":"5","sys":{"ack":1},"params":{}}"#, 200),
    ] {
        caller.publish(&topic, QoS::AtLeastOnce, said).await;
        assert_eq!(caller.hear(&reply).await.unwrap()["code"], json!(code), "{said}");
    }
    caller
        .publish(&topic, QoS::AtLeastOnce, r#"{"id":"6","sys":{"ack":0},"params":{}}"#)
        .await;
    assert!(caller.hears_nothing(&reply).await, "nobody asked for a reply");
    let (code, _) = ask(&mut caller, &format!("{OWN}/nothing"), json!({})).await;
    assert_eq!(code, 6203);
}

#[tokio::test]
async fn the_topology() {
    let rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    let add = format!("{OWN}/topo/add");
    let mut forged = entry(&sub(1));
    forged["sign"] = json!("00");
    let own = entry(&triple(PK, "gw-0001", SECRET));
    let stranger = entry(&triple(SUB_PK, "washer-99", "secret"));
    for (what, params, code) in [
        ("31 devices", json!(entries(0..31)), 460),
        ("none", json!([]), 460),
        ("one that is not signed by itself", json!([entry(&sub(0)), forged]), 401),
        ("a stranger", json!([stranger]), 6100),
        ("itself", json!([own]), 6402),
    ] {
        assert_eq!(ask(&mut caller, &add, params).await.0, code, "{what}");
    }
    let (code, data) = ask(&mut caller, &format!("{OWN}/topo/get"), json!({})).await;
    assert_eq!((code, data), (200, json!([])), "of a bad request nothing is kept");
    assert_eq!(ask(&mut caller, &add, json!(entries(0..30))).await.0, 200);
    let (_, data) = ask(&mut caller, &format!("{OWN}/topo/get"), json!({})).await;
    assert_eq!(data.as_array().unwrap().len(), 30);
}

#[tokio::test]
async fn sub_devices_log_in() {
    let rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    let (single, batch) = (format!("{SESSION}/login"), format!("{SESSION}/batch_login"));
    let post = format!("/sys/{SUB_PK}/washer-00/thing/event/property/post");
    assert_eq!(
        ask(&mut caller, &single, entry(&sub(0))).await.0,
        6401,
        "not in the topology"
    );
    let first = json!(entries(0..30));
    assert_eq!(ask(&mut caller, &format!("{OWN}/topo/add"), first).await.0, 200);
    assert_eq!(ask(&mut caller, &post, json!({})).await.0, 520, "not logged in");
    let error = caller.hear(ERROR).await.unwrap();
    assert_eq!(
        (&error["code"], &error["data"]["deviceName"]),
        (&json!(520), &json!("washer-00"))
    );

    let mut unclean = entry(&sub(0));
    unclean["cleanSession"] = json!(true);
    assert_eq!(ask(&mut caller, &single, unclean).await.0, 460, "a flag is a text");
    let mut forged = entry(&sub(1));
    forged["sign"] = json!("00");
    let list = json!({ "deviceList": [entry(&sub(0)), forged] });
    let (code, data) = ask(&mut caller, &batch, list).await;
    assert_eq!(
        (code, &data[0]["deviceName"], data.as_array().unwrap().len()),
        (6287, &json!("washer-01"), 1)
    );
    assert_eq!(ask(&mut caller, &post, json!({})).await.0, 520, "all or none");
    assert_eq!(
        ask(&mut caller, &batch, json!({ "deviceList": entries(0..51) }))
            .await
            .0,
        460,
        "51 at once"
    );
    // A login with QoS 1 is not answered.
    let said = json!({ "id": "900", "params": entry(&sub(0)) });
    caller.publish(&single, QoS::AtLeastOnce, said.to_string()).await;
    assert!(caller.hears_nothing(&format!("{single}_reply")).await);

    assert_eq!(
        ask(&mut caller, &batch, json!({ "deviceList": entries(0..30) }))
            .await
            .0,
        200
    );
    assert_eq!(ask(&mut caller, &post, json!({})).await.0, 200);
    assert_eq!(
        ask(&mut caller, &format!("{SESSION}/logout"), entry(&sub(0))).await.0,
        200
    );
    assert_eq!(ask(&mut caller, &post, json!({})).await.0, 520);
}

#[tokio::test]
async fn the_sixth_login_in_a_minute_is_too_many() {
    let rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    online(&mut caller, 0..1).await;
    for _ in 0..4 {
        assert_eq!(
            ask(&mut caller, &format!("{SESSION}/login"), entry(&sub(0))).await.0,
            200
        );
    }
    assert_eq!(
        ask(&mut caller, &format!("{SESSION}/login"), entry(&sub(0))).await.0,
        429
    );
}

#[tokio::test]
async fn a_gateway_has_so_many_sub_devices() {
    let rig = rig(|alink| alink.subs_max = 3).await;
    let mut caller = caller(&rig).await;
    assert_eq!(
        ask(&mut caller, &format!("{OWN}/topo/add"), json!(entries(0..4)))
            .await
            .0,
        200
    );
    let list = json!({ "deviceList": entries(0..4) });
    assert_eq!(ask(&mut caller, &format!("{SESSION}/batch_login"), list).await.0, 428);
}

#[tokio::test]
async fn frames_travel_in_events_and_services() {
    let mut rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    let event = format!("{OWN}/event/hf_up/post");
    assert_eq!(ask(&mut caller, &event, frame_event("ask", b"question")).await.0, 200);
    let (_, site, _) = gateway();
    let lane = Lane::new(1).unwrap();
    let up = topic::link_up(&site, &gateway().0, LinkUp::Ask, lane);
    assert_eq!(rig.hub.hear().await, (up.to_string(), b"question".to_vec()));

    rig.hub.say(
        &topic::link_down(&site, &gateway().0, LinkDown::Answer, lane),
        b"answer",
    );
    let service = caller.hear(&format!("{OWN}/service/hf_down")).await.unwrap();
    assert_eq!(service["method"], "thing.service.hf_down");
    assert_eq!(
        service["params"],
        json!({ "w": "answer", "l": 1, "f": STANDARD.encode(b"answer") })
    );

    for bad in [
        json!({}),
        json!({ "value": { "w": "shout", "l": 0, "f": "" }, "time": 1 }),
        json!({ "value": {} }),
    ] {
        assert!(ask(&mut caller, &event, bad.clone()).await.0 >= 400, "{bad}");
    }
}

#[tokio::test]
async fn the_past_has_limits() {
    let mut rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    online(&mut caller, 0..25).await;
    let history = format!("{OWN}/event/property/history/post");
    let identity = |i: usize| json!({ "productKey": SUB_PK, "deviceName": sub(i).device_name });
    let event = |i: u64| {
        json!({ "hf_order": { "value": { "seq": i, "session": format!("s{i}"), "kind": "washer", "fen": 1, "units": 1,
            "offline": true }, "time": 1_700_000_000_000_u64 } })
    };
    let many = |devices: usize, events: u64| -> Value {
        let entry = |i: usize| json!({ "identity": identity(i), "events": (0..events).map(event).collect::<Vec<_>>() });
        (0..devices).map(entry).collect()
    };
    let properties: serde_json::Map<String, Value> = (0..201)
        .map(|i| (format!("p{i}"), json!({ "value": 1, "time": 1 })))
        .collect();
    let untimed = json!([{ "identity": identity(0), "events": [{ "hf_order": { "value": { "seq": 1 } } }] }]);
    let gateway_part = json!([{ "identity": { "productKey": "", "deviceName": "" },
        "events": [{ "hf_up": frame_event("records", b"past") }] }]);
    for (what, params, code) in [
        ("21 devices", many(21, 0), 6357),
        ("21 events", many(1, 21), 6104),
        (
            "201 properties",
            json!([{ "identity": identity(0), "properties": [properties] }]),
            6106,
        ),
        ("no time", untimed, 460),
        (
            "a device of nobody's",
            json!([{ "identity": identity(40), "events": [] }]),
            6401,
        ),
        ("20 devices with an event each", many(20, 1), 200),
        ("the same again", many(20, 1), 200),
        ("a frame", gateway_part, 200),
    ] {
        assert_eq!(ask(&mut caller, &history, params).await.0, code, "{what}");
    }
    assert_eq!(rig.hub.hear().await.1, b"past");
    let counters = rig.cloud.counters();
    assert_eq!((counters.orders.get(), counters.orders_again.get()), (20, 20));
    let pack = format!("{OWN}/event/property/pack/post");
    let subs = |n: usize| -> Value {
        (0..n)
            .map(|i| json!({ "identity": identity(i), "properties": {} }))
            .collect()
    };
    assert_eq!(
        ask(&mut caller, &pack, json!({ "properties": {}, "subDevices": subs(19) }))
            .await
            .0,
        200
    );
    assert_eq!(
        ask(&mut caller, &pack, json!({ "properties": {}, "subDevices": subs(20) }))
            .await
            .0,
        6357
    );
}

#[tokio::test]
async fn too_many_messages_are_dropped() {
    let mut rig = rig(|alink| (alink.acknowledged_a_second_max, alink.second_ms) = (3, 3_600_000)).await;
    let mut caller = caller(&rig).await;
    for i in 0..4 {
        let said = json!({ "id": i.to_string(), "params": frame_event("echo", b"echo") });
        caller
            .publish(&format!("{OWN}/event/hf_up/post"), QoS::AtLeastOnce, said.to_string())
            .await;
    }
    let mut codes = Vec::new();
    for _ in 0..4 {
        let reply = caller.hear(&format!("{OWN}/event/hf_up/post_reply")).await.unwrap();
        codes.push(reply["code"].as_i64().unwrap());
    }
    assert_eq!(codes, [200, 200, 200, 429]);
    for _ in 0..3 {
        rig.hub.hear().await;
    }
    assert!(rig.hub.said.try_recv().is_err());
}

#[tokio::test]
async fn time_firmware_and_configuration() {
    let rig = rig(|alink| (alink.store, alink.firmware) = (Some("http://oss".into()), Some("2.0.0".into()))).await;
    let mut caller = caller(&rig).await;
    let ntp = |caller: &mut Caller| {
        let client = caller.client.clone();
        async move {
            let topic = format!("/ext/ntp/{PK}/gw-0001/request");
            let said = r#"{"deviceSendTime":"1571724098000"}"#;
            client.publish(topic, QoS::AtMostOnce, false, said).await.unwrap();
        }
    };
    ntp(&mut caller).await;
    let said = caller.hear(&format!("/ext/ntp/{PK}/gw-0001/response")).await.unwrap();
    let server_ms: i64 = said["serverRecvTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(said["deviceSendTime"], "1571724098000");
    rig.cloud.play(vec![Fault::ClockSkew(-86_400_000)]).unwrap();
    rig.cloud.taken().await;
    ntp(&mut caller).await;
    let said = caller.hear(&format!("/ext/ntp/{PK}/gw-0001/response")).await.unwrap();
    let skewed: i64 = said["serverSendTime"].as_str().unwrap().parse().unwrap();
    assert!((server_ms - skewed - 86_400_000).abs() < 10_000);

    let inform = format!("/ota/device/inform/{PK}/gw-0001");
    caller
        .publish(&inform, QoS::AtLeastOnce, r#"{"id":"1","params":{"version":"1.0.0"}}"#)
        .await;
    let offer = caller.hear(&format!("/ota/device/upgrade/{PK}/gw-0001")).await.unwrap();
    assert_eq!(
        (&offer["code"], &offer["data"]["version"]),
        (&json!("1000"), &json!("2.0.0"))
    );
    assert!(offer["data"]["url"].as_str().unwrap().contains("OSSAccessKeyId="));
    let wanted = json!({ "configScope": "product", "getType": "file" });
    assert_eq!(ask(&mut caller, &format!("{OWN}/config/get"), wanted).await.0, 200);
    rig.cloud.command(Command::PushConfig).unwrap();
    assert_eq!(
        caller.hear(&format!("{OWN}/config/push")).await.unwrap()["method"],
        "thing.config.push"
    );
}

/// Plays faults, and waits until the cloud has taken them.
async fn play(rig: &Rig, faults: Vec<Fault>) {
    rig.cloud.play(faults).unwrap();
    rig.cloud.taken().await;
}

#[tokio::test]
async fn what_the_platform_does_when_it_is_not_well() {
    let mut rig = rig(|_| {}).await;
    let mut caller = caller(&rig).await;
    online(&mut caller, 0..10).await;
    let deny = |of, percent, code| Fault::Deny {
        at: Stage::Reply,
        of,
        percent,
        code,
        kicks: false,
    };
    let event = format!("{OWN}/event/hf_up/post");
    let frame = frame_event("echo", b"echo");

    play(&rig, vec![deny(Of::Gateway, 100, 6313)]).await;
    assert_eq!(ask(&mut caller, &event, frame.clone()).await.0, 6313);
    play(&rig, vec![Fault::Billing]).await;
    assert_eq!(ask(&mut caller, &event, frame.clone()).await.0, 403);
    play(&rig, vec![deny(Of::Device, 100, 6287)]).await;
    assert_eq!(
        ask(&mut caller, &format!("{SESSION}/login"), entry(&sub(0))).await.0,
        6287
    );
    assert_eq!(
        ask(&mut caller, &event, frame.clone()).await.0,
        200,
        "frames do not wait for devices"
    );
    rig.hub.hear().await;

    play(&rig, vec![deny(Of::Device, 100, 520)]).await;
    assert_eq!(
        ask(&mut caller, &format!("{SESSION}/login"), entry(&sub(1))).await.0,
        200
    );
    assert_eq!(caller.hear(ERROR).await.unwrap()["code"], 520, "let in and thrown out");

    play(&rig, vec![Fault::MassDisable(3)]).await;
    for i in 0..3 {
        let topic = format!("/sys/{SUB_PK}/washer-{i:02}/thing/disable");
        assert_eq!(caller.hear(&topic).await.unwrap()["method"], "thing.disable");
    }
    assert_eq!(
        ask(&mut caller, &format!("{SESSION}/login"), entry(&sub(2))).await.0,
        522
    );

    play(&rig, vec![Fault::TopoWipe]).await;
    let change = caller.hear(&format!("{OWN}/topo/change")).await.unwrap();
    assert_eq!(change["params"]["status"], 1);
    assert_eq!(
        ask(&mut caller, &format!("{OWN}/topo/get"), json!({})).await.1,
        json!([])
    );

    play(&rig, vec![Fault::HalfDead]).await;
    assert_eq!(ask(&mut caller, &event, frame.clone()).await.0, 200);
    assert!(rig.hub.said.try_recv().is_err(), "nobody is behind it");

    play(&rig, vec![Fault::WrongId]).await;
    let said = json!({ "id": "77", "params": frame });
    caller.publish(&event, QoS::AtLeastOnce, said.to_string()).await;
    assert_eq!(caller.hear(&format!("{event}_reply")).await.unwrap()["id"], "78");
    play(&rig, vec![Fault::DropReply(100)]).await;
    caller.publish(&event, QoS::AtLeastOnce, said.to_string()).await;
    assert!(caller.hears_nothing(&format!("{event}_reply")).await);
}
