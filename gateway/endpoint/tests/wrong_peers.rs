//! Peers that are wrong, forbidden, greedy or deaf: a reason and a close, and nobody else notices.

mod common;

use common::{
    BOTH, Connect, DISCONNECT, PUBACK, QOS0, QOS1, QOS2, Rig, ack, connect, packet, publish, publish_with, sized,
    string, subscribe, subscribe_with, unsubscribe, v5, v311,
};
use mqtt_endpoint::{DisconnectReason, Limits, Protocol, PublishError, Published, Qos};
use tokio::io::AsyncWriteExt;

/// A client of each version is served as if nothing had happened.
async fn still_serving(rig: &mut Rig) {
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "good")).await;
        client.send(&publish(protocol, QOS1, "up/good", 1, "served")).await;
        loop {
            let (payload, _, promise) = rig.message().await;
            promise.accept();
            if payload == b"served" {
                break;
            }
        }
        client.expect(&ack(PUBACK, 1)).await;
        client.send(&DISCONNECT).await;
        client.closed().await;
    }
}

#[tokio::test]
async fn each_refusal_of_a_connection_has_its_code() {
    let rig = Rig::new().await;
    for (username, password, v311_code, v5_code) in [
        ("bad", None, 4, 0x86),
        ("user", Some("wrong"), 4, 0x86),
        ("unauthorized", None, 5, 0x87),
        ("id", None, 2, 0x85),
        ("later", None, 3, 0x88),
        ("banned", None, 5, 0x8A),
    ] {
        for protocol in BOTH {
            let mut raw = rig.raw().await;
            raw.send(
                &Connect {
                    username: Some(username),
                    password,
                    ..connect(protocol, "device")
                }
                .bytes(),
            )
            .await;
            match protocol {
                Protocol::V311 => raw.expect(&[0x20, 2, 0, v311_code]).await,
                Protocol::V5 => raw.expect(&[0x20, 3, 0, v5_code, 0]).await,
            }
            raw.closed().await;
        }
    }
    let mut good = rig
        .client(&Connect {
            username: Some("user"),
            password: Some("pw"),
            ..v311("device")
        })
        .await;
    good.nothing_before_pingresp().await;
    let counters = rig.handle.counters();
    assert_eq!((counters.connects_refused, counters.sessions), (12, 1));
}

#[tokio::test]
async fn forbidden_topics() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let mut witness = rig.client(&connect(protocol, "witness")).await;
        witness.subscribe(protocol, &[("#", 0)]).await;
        let mut client = rig.client(&connect(protocol, "device")).await;
        client.send(&publish(protocol, QOS0, "forbidden/x", 0, "x")).await;
        client.nothing_before_pingresp().await;
        for (flags, answer) in [(QOS1, PUBACK), (QOS2, common::PUBREC)] {
            client.send(&publish(protocol, flags, "forbidden/x", 5, "x")).await;
            match protocol {
                Protocol::V5 => client.expect(&packet(answer, &[0, 5, 0x87])).await,
                Protocol::V311 => {
                    client.closed().await;
                    client = rig.client(&connect(protocol, "device")).await;
                }
            }
        }
        witness.nothing_before_pingresp().await;
        witness.send(&DISCONNECT).await;
        witness.closed().await;
    }
    assert_eq!(rig.handle.counters().forbidden, 6);
}

#[tokio::test]
async fn what_is_not_a_connect() {
    let mut rig = Rig::new().await;
    let connect_named =
        |name: &str, level: u8| packet(0x10, &[string(name), vec![level, 2, 0, 60, 0, 1, b'x']].concat());
    let cut = |bytes: Vec<u8>| packet(0x10, &bytes[2..bytes.len() - 1]);
    let will_qos3 = Connect {
        will: Some(("w", "x", 3, false)),
        ..v311("x")
    };
    for (what, bytes, answer) in [
        (
            "PUBLISH before CONNECT",
            publish(Protocol::V311, QOS0, "up/a", 0, "x"),
            None,
        ),
        ("PINGREQ before CONNECT", common::PINGREQ.to_vec(), None),
        ("garbage of a serial module", vec![0xE0, 0], None),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1], None),
        ("wrong protocol name", connect_named("MQXX", 4), None),
        ("long protocol name", connect_named("MQTTMQTT", 4), None),
        ("MQTT 3.1", connect_named("MQIsdp", 3), Some(vec![0x20, 2, 0, 1])),
        ("version 3", connect_named("MQTT", 3), Some(vec![0x20, 2, 0, 1])),
        ("version 0", connect_named("MQTT", 0), Some(vec![0x20, 2, 0, 1])),
        ("version 6", connect_named("MQTT", 6), Some(vec![0x20, 3, 0, 0x84, 0])),
        ("empty CONNECT", vec![0x10, 0], None),
        (
            "flags in the header of CONNECT",
            [&[0x11], &v311("x").bytes()[1..]].concat(),
            None,
        ),
        ("cut off, 3.1.1", cut(v311("xyz").bytes()), None),
        ("cut off, 5", cut(v5("xyz").bytes()), Some(vec![0x20, 3, 0, 0x85, 0])),
        (
            "more than it says",
            packet(0x10, &[&v311("x").bytes()[2..], &[0]].concat()),
            None,
        ),
        (
            "reserved connect flag",
            {
                let mut b = v311("x").bytes();
                b[9] |= 1;
                b
            },
            None,
        ),
        ("will of QoS 3", will_qos3.bytes(), None),
        (
            "will flags without a will",
            {
                let mut b = v311("x").bytes();
                b[9] |= 0x20;
                b
            },
            None,
        ),
        ("NUL in the client id", v311("a\0b").bytes(), None),
        (
            "enhanced authentication",
            Connect {
                properties: [vec![0x15], string("SCRAM")].concat(),
                ..v5("x")
            }
            .bytes(),
            Some(vec![0x20, 3, 0, 0x8C, 0]),
        ),
        (
            "receive maximum of 0",
            Connect {
                properties: vec![0x21, 0, 0],
                ..v5("x")
            }
            .bytes(),
            Some(vec![0x20, 3, 0, 0x82, 0]),
        ),
        (
            "too long a client id",
            v311(&"x".repeat(129)).bytes(),
            Some(vec![0x20, 2, 0, 2]),
        ),
        ("length of five bytes", vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 1], None),
        ("256 MB announced", vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F], None),
    ] {
        let mut raw = rig.raw().await;
        raw.send(&bytes).await;
        if let Some(answer) = answer {
            let (first, body) = raw.next().await.unwrap_or_else(|| panic!("{what}: no answer"));
            assert_eq!(packet(first, &body), answer, "{what}");
        }
        assert_eq!(raw.next().await, None, "{what}");
    }
    still_serving(&mut rig).await;
}

#[tokio::test]
async fn what_a_client_must_not_send() {
    let mut rig = Rig::new().await;
    let (old, new) = (Protocol::V311, Protocol::V5);
    let long = "x".repeat(300);
    let bad_response_topic = [vec![0x08], string("a/#")].concat();
    for (what, protocol, bytes, code) in [
        ("second CONNECT", old, v311("x").bytes(), 0x82),
        ("second CONNECT", new, v5("x").bytes(), 0x82),
        ("packet id 0", old, publish(old, QOS1, "up/a", 0, "x"), 0),
        ("packet id 0", new, publish(new, QOS1, "up/a", 0, "x"), 0x82),
        ("packet id 0", new, publish(new, QOS2, "up/a", 0, "x"), 0x82),
        ("packet id 0 in SUBSCRIBE", old, subscribe(old, 0, &[("a", 0)]), 0),
        ("packet id 0 in SUBSCRIBE", new, subscribe(new, 0, &[("a", 0)]), 0x82),
        ("packet id 0 in UNSUBSCRIBE", new, unsubscribe(new, 0, &["a"]), 0x82),
        ("packet id 0 in PUBACK", new, ack(PUBACK, 0), 0x81),
        ("QoS 3", old, publish(old, 6, "up/a", 1, "x"), 0),
        ("QoS 3", new, publish(new, 6, "up/a", 1, "x"), 0x81),
        ("DUP with QoS 0", new, publish(new, 8, "up/a", 0, "x"), 0x81),
        ("PUBLISH to a wildcard", old, publish(old, QOS0, "up/#", 0, "x"), 0),
        ("PUBLISH to a wildcard", new, publish(new, QOS0, "up/+", 0, "x"), 0x90),
        ("PUBLISH to nothing", old, publish(old, QOS0, "", 0, "x"), 0),
        ("NUL in a topic", new, publish(new, QOS0, "a\0", 0, "x"), 0x81),
        (
            "topic that is not UTF-8",
            new,
            packet(0x30, &[0, 2, 0xC3, 0x28, 0]),
            0x81,
        ),
        ("topic too long", new, publish(new, QOS0, &long, 0, "x"), 0x90),
        (
            "response topic with a wildcard",
            new,
            publish_with(new, QOS0, "t", 0, "x", &bad_response_topic),
            0x82,
        ),
        (
            "subscription identifier in PUBLISH",
            new,
            publish_with(new, QOS0, "t", 0, "x", &[0x0B, 1]),
            0x82,
        ),
        (
            "same property twice",
            new,
            publish_with(new, QOS0, "t", 0, "x", &[1, 0, 1, 0]),
            0x82,
        ),
        (
            "unknown property",
            new,
            publish_with(new, QOS0, "t", 0, "x", &[0x7E, 0]),
            0x81,
        ),
        (
            "properties beyond the end",
            new,
            packet(0x30, &[0, 1, b't', 100, 1]),
            0x81,
        ),
        (
            "SUBSCRIBE without its flags",
            old,
            [&[0x80], &subscribe(old, 1, &[("a", 0)])[1..]].concat(),
            0,
        ),
        ("SUBSCRIBE to nothing", old, packet(0x82, &[0, 1]), 0),
        ("SUBSCRIBE to nothing", new, packet(0x82, &[0, 1, 0]), 0x82),
        ("SUBSCRIBE with QoS 3", old, subscribe(old, 1, &[("a", 3)]), 0),
        ("SUBSCRIBE with reserved bits", old, subscribe(old, 1, &[("a", 4)]), 0),
        (
            "subscription identifier 0",
            new,
            subscribe_with(new, 1, &[("a", 0)], &[0x0B, 0]),
            0x82,
        ),
        (
            "two subscription identifiers",
            new,
            subscribe_with(new, 1, &[("a", 0)], &[0x0B, 1, 0x0B, 2]),
            0x82,
        ),
        (
            "no local on a shared subscription",
            new,
            subscribe(new, 1, &[("$share/g/a", 4)]),
            0x82,
        ),
        ("UNSUBSCRIBE from nothing", old, packet(0xA2, &[0, 1]), 0),
        ("PUBREL without its flags", new, packet(0x60, &[0, 1]), 0x81),
        ("PUBACK of one byte", old, packet(PUBACK, &[1]), 0),
        ("PINGREQ with a body", old, packet(0xC0, &[1]), 0),
        ("packet of a server", old, packet(0x20, &[0, 0]), 0),
        ("packet of a server", new, packet(0x90, &[0, 1, 0, 0]), 0x82),
        ("AUTH", old, packet(0xF0, &[]), 0),
        ("AUTH", new, packet(0xF0, &[0x18, 0]), 0x82),
        ("packet type 0", new, packet(0x00, &[]), 0x82),
        ("DISCONNECT with a body", old, packet(0xE0, &[0]), 0),
        (
            "oversize packet",
            old,
            publish(old, QOS0, "up/a", 0, &"x".repeat(17_000)),
            0,
        ),
        (
            "oversize packet",
            new,
            publish(new, QOS0, "up/a", 0, &"x".repeat(17_000)),
            0x95,
        ),
        ("length of five bytes", new, vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81),
    ] {
        let mut raw = rig.client(&connect(protocol, "bad")).await;
        raw.send(&bytes).await;
        let told = match raw.next().await {
            Some((0xE0, body)) if protocol == new => body.first().copied(),
            Some(other) => panic!("{what}: {other:?}"),
            None => None,
        };
        assert_eq!(told, (protocol == new).then_some(code), "{what}");
        let (client_id, reason) = rig.departure().await;
        let violation = matches!(
            reason,
            DisconnectReason::ProtocolViolation(_) | DisconnectReason::PacketTooLarge
        );
        assert!(client_id == "bad" && violation, "{what}: {client_id} {reason:?}");
    }
    assert_eq!(rig.handle.counters().violations, 44);
    still_serving(&mut rig).await;
}

#[tokio::test]
async fn a_topic_of_a_megabyte_is_refused_before_it_is_read() {
    let mut rig = Rig::with(
        Limits {
            packet_bytes_max: 4 * 1024 * 1024,
            ..Limits::default()
        },
        64,
    )
    .await;
    let mut small = Rig::new().await;
    for protocol in BOTH {
        // The length of a topic is two bytes, so a megabyte of topic is a lie in one of two ways: 65,535 bytes are said, or
        // the packet is longer than it may be.
        let mut body = string(&"t".repeat(65_535));
        body.resize(1024 * 1024, b't');
        let bytes = packet(0x30, &body);
        for rig in [&mut rig, &mut small] {
            let mut raw = rig.client(&connect(protocol, "long")).await;
            // The endpoint may close before it was sent all.
            let _ = raw.stream.write_all(&bytes).await;
            let (client_id, reason) = rig.departure().await;
            assert_eq!(client_id, "long");
            assert!(
                matches!(
                    reason,
                    DisconnectReason::PacketTooLarge | DisconnectReason::ProtocolViolation(_)
                ),
                "{reason:?}"
            );
        }
    }
    still_serving(&mut rig).await;
    still_serving(&mut small).await;
}

#[tokio::test]
async fn a_packet_may_arrive_byte_by_byte_or_many_at_once() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.raw().await;
        let mut bytes = connect(protocol, "device").bytes();
        bytes.extend((1..=50).flat_map(|id| publish(protocol, QOS1, "up/a", id, "x")));
        for byte in &bytes[..60] {
            client.send(&[*byte]).await;
        }
        client.send(&bytes[60..]).await;
        client.accepted(protocol).await;
        for id in 1..=50 {
            rig.message().await.2.accept();
            client.expect(&ack(PUBACK, id)).await;
        }
    }
}

#[tokio::test]
async fn a_slow_consumer_is_cut_while_others_are_served() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut deaf = rig.client(&connect(protocol, "deaf")).await;
        deaf.subscribe(protocol, &[("flood", 1)]).await;
        let mut good = rig.client(&connect(protocol, "good")).await;
        good.subscribe(protocol, &[("calm", 1)]).await;
        // It acknowledges nothing, so its window and then its queue fill up.
        let mut sent = 0;
        loop {
            match rig.handle.publish("flood", &[b'x'; 100], Qos::AtLeastOnce, false) {
                Ok(Published::Delivered) => sent += 1,
                Err(PublishError::QueueFull) => break,
                other => panic!("{other:?}"),
            }
            if sent % 50 == 0 {
                rig.handle.publish("calm", b"calm", Qos::AtLeastOnce, false).unwrap();
                let got = good.publish(protocol).await;
                good.send(&ack(PUBACK, got.id)).await;
            }
        }
        let limits = Limits::default();
        assert!(sent >= limits.outbound_queue_max, "cut after {sent}");
        assert!(
            sent <= limits.outbound_queue_max + usize::from(limits.inflight_max),
            "cut after {sent}"
        );
        assert_eq!(rig.departure().await, ("deaf".into(), DisconnectReason::SlowConsumer));
        good.nothing_before_pingresp().await;
        good.send(&DISCONNECT).await;
        assert_eq!(rig.departure().await, ("good".into(), DisconnectReason::ByClient));
    }
    assert_eq!(rig.handle.counters().slow_consumers, 2);
    still_serving(&mut rig).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_a_free_place_is_used() {
    let mut rig = Rig::with(
        Limits {
            connections_max: 2,
            ..Limits::default()
        },
        64,
    )
    .await;
    let first = rig.client(&v311("first")).await;
    let mut silent = rig.raw().await;
    silent.send(&[0x10]).await;
    while rig.handle.connections() < 2 {
        tokio::task::yield_now().await;
    }
    rig.raw().await.closed().await;
    assert_eq!(rig.handle.counters().over_limit, 1);
    drop(first);
    rig.departure().await;
    while rig.handle.connections() > 1 {
        tokio::task::yield_now().await;
    }
    rig.client(&v5("second")).await.nothing_before_pingresp().await;
}

#[tokio::test]
async fn a_client_that_floods_is_held_back_by_the_application() {
    let mut rig = Rig::with(Limits::default(), 4).await;
    let mut client = rig.client(&v311("eager")).await;
    let writer = tokio::spawn(async move {
        for id in 1..=2_000u16 {
            client
                .send(&publish(Protocol::V311, QOS1, "up/a", id, &id.to_string()))
                .await;
        }
        for id in 1..=2_000u16 {
            client.expect(&ack(PUBACK, id)).await;
        }
    });
    for id in 1..=2_000u16 {
        let (payload, _, promise) = rig.message().await;
        assert_eq!(payload, id.to_string().as_bytes());
        promise.accept();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn retained_messages_may_exceed_the_queue_but_not_again_and_again() {
    let mut rig = Rig::new().await;
    for at in 0..1_000 {
        let topic = format!("r/{at}");
        rig.handle
            .publish(&topic, &[b'x'; 1_000], Qos::AtMostOnce, true)
            .unwrap();
    }
    // Twice the queue in number and in bytes, with a live message behind: a client that reads gets them all.
    let mut client = rig.client(&v5("reader")).await;
    client.subscribe(Protocol::V5, &[("r/+", 0)]).await;
    rig.handle.publish("r/0", b"live", Qos::AtMostOnce, false).unwrap();
    for _ in 0..1_000 {
        assert_eq!(client.publish(Protocol::V5).await.flags, common::RETAIN);
    }
    assert_eq!(client.publish(Protocol::V5).await.payload, "live");

    let mut greedy = rig.client(&v5("greedy")).await;
    for id in 1..=60_000u16 {
        let bytes = subscribe(Protocol::V5, id, &[("r/+", 0)]);
        if greedy.stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    assert_eq!(rig.departure().await, ("greedy".into(), DisconnectReason::SlowConsumer));
    still_serving(&mut rig).await;
}

#[tokio::test]
async fn a_v5_property_block_may_be_large_but_not_endless() {
    let rig = Rig::new().await;
    let mut client = rig.client(&v5("device")).await;
    client.subscribe(Protocol::V5, &[("t", 0)]).await;
    let user = [vec![0x26], string(""), string("")].concat();
    let properties = user.repeat(3_000);
    let mut body = string("t");
    body.extend(sized(&properties));
    client.send(&packet(0x30, &body)).await;
    let (first, body) = client.packet().await;
    assert_eq!((first, body.len()), (0x30, 3 + 2 + properties.len()));
    client.nothing_before_pingresp().await;
}
