//! The broker's half: who gets a message, with which QoS, flags and properties.

mod common;

use common::{
    BOTH, Connect, DISCONNECT, PUBACK, QOS0, QOS1, QOS2, RETAIN, Raw, Rig, ack, connect, packet, publish, publish_with,
    string, subscribe_with, unsubscribe, v5, v311,
};
use mqtt_endpoint::{Limits, Protocol, PublishError, Published, Qos};

/// Options of an MQTT 5 subscription.
const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
const RETAINED_IF_NEW: u8 = 0x10;
const RETAINED_NEVER: u8 = 0x20;

/// Payloads until the answer to a ping.
async fn until_pingresp(client: &mut Raw, protocol: Protocol) -> Vec<String> {
    client.send(&common::PINGREQ).await;
    let mut payloads = Vec::new();
    loop {
        let (first, body) = client.packet().await;
        if first == 0xD0 {
            return payloads;
        }
        assert_eq!(first & 0xF6, 0x30, "QoS 0 PUBLISH");
        let start = 2 + usize::from(body[1]) + usize::from(protocol == Protocol::V5);
        payloads.push(String::from_utf8(body[start..].to_vec()).expect("text"));
    }
}

#[tokio::test]
async fn wildcards_between_both_versions() {
    let rig = Rig::new().await;
    for (from, to) in [(Protocol::V311, Protocol::V5), (Protocol::V5, Protocol::V311)] {
        let mut publisher = rig.client(&connect(from, "publisher")).await;
        for (filter, expected) in [
            ("a/b", vec!["a/b"]),
            ("a/+", vec!["a/b", "a/"]),
            ("a/#", vec!["a", "a/b", "a/", "a/b/c"]),
            ("+/b/#", vec!["a/b", "a/b/c"]),
            ("#", vec!["a", "a/b", "a/", "a/b/c", "/a"]),
            ("+/+", vec!["a/b", "a/", "/a"]),
            ("$x/#", vec!["$x/y"]),
        ] {
            let mut subscriber = rig.client(&connect(to, "subscriber")).await;
            assert_eq!(subscriber.subscribe(to, &[(filter, 0)]).await, [0]);
            for topic in ["a", "a/b", "a/", "a/b/c", "/a", "$x/y"] {
                publisher.send(&publish(from, QOS0, topic, 0, topic)).await;
            }
            publisher.nothing_before_pingresp().await;
            assert_eq!(until_pingresp(&mut subscriber, to).await, expected, "{filter}");
            subscriber.send(&unsubscribe(to, 9, &[filter, "never"])).await;
            let codes: &[u8] = if to == Protocol::V5 {
                &[0, 9, 0, 0, 0x11]
            } else {
                &[0, 9]
            };
            subscriber.expect(&packet(0xB0, codes)).await;
            publisher.send(&publish(from, QOS0, "a/b", 0, "late")).await;
            publisher.nothing_before_pingresp().await;
            assert!(until_pingresp(&mut subscriber, to).await.is_empty());
            subscriber.send(&DISCONNECT).await;
            subscriber.closed().await;
        }
        publisher.send(&DISCONNECT).await;
        publisher.closed().await;
    }
    assert_eq!(rig.handle.counters().subscriptions, 0);
}

#[tokio::test]
async fn qos_is_the_lower_of_both_ends() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        for granted in 0..=2u8 {
            assert_eq!(client.subscribe(protocol, &[("t", granted)]).await, [granted]);
            for (qos, sent) in [(Qos::AtMostOnce, 0u8), (Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
                assert_eq!(rig.handle.publish("t", b"x", qos, false), Ok(Published::Delivered));
                let got = client.publish(protocol).await;
                assert_eq!(got.flags, sent.min(granted) << 1);
                match sent.min(granted) {
                    0 => {}
                    1 => client.send(&ack(PUBACK, got.id)).await,
                    _ => {
                        client.send(&ack(common::PUBREC, got.id)).await;
                        client.expect(&ack(common::PUBREL, got.id)).await;
                        client.send(&ack(common::PUBCOMP, got.id)).await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn retained_messages_are_kept_replaced_and_removed() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let mut publisher = rig.client(&connect(protocol, "publisher")).await;
        for (topic, payload) in [("r/a", "old"), ("r/a", "a"), ("r/b", "b"), ("r/c", "c"), ("r/c", "")] {
            publisher
                .send(&publish(protocol, QOS1 | RETAIN, topic, 1, payload))
                .await;
            assert_eq!(publisher.packet().await.0, PUBACK);
        }
        assert_eq!(rig.handle.counters().retained, 2);
        let mut client = rig.client(&connect(protocol, "device")).await;
        assert_eq!(client.subscribe(protocol, &[("r/+", 0)]).await, [0]);
        let mut got = [client.publish(protocol).await, client.publish(protocol).await];
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        for (received, text) in got.iter().zip(["a", "b"]) {
            assert_eq!((received.payload.as_str(), received.flags), (text, RETAIN));
        }
        // A live one is not marked as retained.
        rig.handle.publish("r/a", b"live", Qos::AtMostOnce, true).unwrap();
        assert_eq!(client.publish(protocol).await.flags, 0);
        client.subscribe(protocol, &[("r/a", 0)]).await;
        let exact = client.publish(protocol).await;
        assert_eq!((exact.payload.as_str(), exact.flags), ("live", RETAIN));
        for topic in ["r/a", "r/b"] {
            rig.handle.publish(topic, b"", Qos::AtMostOnce, true).unwrap();
        }
        assert_eq!(rig.handle.counters().retained, 0);
        client.send(&DISCONNECT).await;
    }
}

#[tokio::test]
async fn retained_messages_are_limited_in_number_and_bytes() {
    let limits = Limits {
        retained_max: 2,
        retained_bytes_max: 1_500,
        ..Limits::default()
    };
    let rig = Rig::with(limits, common::INBOUND_CAPACITY).await;
    for (topic, bytes, kept) in [
        ("a", 10, 1),
        ("b", 10, 2),
        ("c", 10, 2),
        ("b", 2_000, 1),
        ("b", 20, 2),
        ("a", 1_300, 1),
    ] {
        rig.handle
            .publish(topic, &vec![b'x'; bytes], Qos::AtMostOnce, true)
            .unwrap();
        assert_eq!(rig.handle.counters().retained, kept, "{topic} of {bytes} bytes");
    }
    assert_eq!(rig.handle.counters().dropped, 3);
}

#[tokio::test]
async fn subscription_options_of_mqtt_5() {
    let rig = Rig::new().await;
    rig.handle.publish("t", b"kept", Qos::AtMostOnce, true).unwrap();
    let mut client = rig.client(&v5("device")).await;
    for (options, retained) in [
        (RETAINED_NEVER, None),
        (RETAINED_IF_NEW, None),
        (0, Some("kept")),
        (NO_LOCAL | RETAINED_IF_NEW | RETAIN_AS_PUBLISHED, None),
    ] {
        assert_eq!(client.subscribe(Protocol::V5, &[("t", options)]).await, [0]);
        match retained {
            Some(text) => assert_eq!(client.publish(Protocol::V5).await.payload, text),
            None => client.nothing_before_pingresp().await,
        }
    }
    // No local: not one's own messages, but those of others, here with the flag they were published with.
    client.send(&publish(Protocol::V5, QOS0, "t", 0, "own")).await;
    client.nothing_before_pingresp().await;
    rig.handle.publish("t", b"other", Qos::AtMostOnce, true).unwrap();
    let other = client.publish(Protocol::V5).await;
    assert_eq!((other.payload.as_str(), other.flags), ("other", RETAIN));
    // A subscription that is new, after one that was not.
    client.subscribe(Protocol::V5, &[("+", RETAINED_IF_NEW)]).await;
    assert_eq!(client.publish(Protocol::V5).await.payload, "other");
}

#[tokio::test]
async fn properties_travel_with_the_message_and_identifiers_with_the_subscription() {
    let rig = Rig::new().await;
    let mut client = rig.client(&v5("device")).await;
    client
        .send(&subscribe_with(Protocol::V5, 1, &[("t/#", 0)], &[0x0B, 5]))
        .await;
    client.packet().await;
    client
        .send(&subscribe_with(Protocol::V5, 2, &[("t/a", 1)], &[0x0B, 0x80, 1]))
        .await;
    client.packet().await;
    let travelling = [
        vec![0x01, 1],
        [vec![0x03], string("text")].concat(),
        [vec![0x08], string("answer/here")].concat(),
        [vec![0x09], string("correlation")].concat(),
        [vec![0x26], string("key"), string("value")].concat(),
        [vec![0x26], string("key"), string("again")].concat(),
    ]
    .concat();
    let mut publisher = rig.client(&v5("publisher")).await;
    publisher
        .send(&publish_with(Protocol::V5, QOS1, "t/a", 1, "x", &travelling))
        .await;
    // Overlapping subscriptions: one copy, the highest QoS, both identifiers.
    let got = client.publish(Protocol::V5).await;
    assert_eq!(got.flags, QOS1);
    let (properties, identifiers) = got.properties.split_at(travelling.len());
    assert_eq!(properties, travelling);
    assert!(
        identifiers == [0x0B, 5, 0x0B, 0x80, 1] || identifiers == [0x0B, 0x80, 1, 0x0B, 5],
        "{identifiers:?}"
    );
    client.nothing_before_pingresp().await;
    // A 3.1.1 subscriber gets the same message without them.
    let mut old = rig.client(&v311("old")).await;
    old.subscribe(Protocol::V311, &[("t/a", 0)]).await;
    publisher
        .send(&publish_with(Protocol::V5, QOS0, "t/a", 0, "y", &travelling))
        .await;
    assert_eq!(old.publish(Protocol::V311).await.payload, "y");
}

#[tokio::test]
async fn topic_aliases_are_resolved() {
    let rig = Rig::new().await;
    let mut client = rig.client(&v5("device")).await;
    client.subscribe(Protocol::V5, &[("#", 0)]).await;
    let alias = |id: u8| [0x23, 0, id];
    for (topic, id, expected) in [
        ("one", 1, "one"),
        ("", 1, "one"),
        ("two", 16, "two"),
        ("three", 1, "three"),
        ("", 1, "three"),
    ] {
        client
            .send(&publish_with(Protocol::V5, QOS0, topic, 0, "x", &alias(id)))
            .await;
        let got = client.publish(Protocol::V5).await;
        assert_eq!((got.topic.as_str(), got.properties.as_slice()), (expected, &[][..]));
    }
    for (topic, id, code) in [("", 2, 0x94), ("", 0, 0x82), ("x", 0, 0x82), ("x", 17, 0x94)] {
        let mut client = rig.client(&v5("wrong")).await;
        client
            .send(&publish_with(Protocol::V5, QOS0, topic, 0, "x", &alias(id)))
            .await;
        client.closed_with(Protocol::V5, code).await;
    }
    let mut client = rig.client(&v5("wrong")).await;
    client.send(&publish(Protocol::V5, QOS0, "", 0, "x")).await;
    client.closed_with(Protocol::V5, 0x90).await;
}

#[tokio::test]
async fn a_message_larger_than_the_client_takes_is_not_sent() {
    let rig = Rig::new().await;
    let mut client = rig
        .client(&Connect {
            properties: vec![0x27, 0, 0, 0, 40],
            ..v5("small")
        })
        .await;
    client.subscribe(Protocol::V5, &[("t", 1)]).await;
    for payload in [&[b'x'; 64][..], b"fits"] {
        rig.handle.publish("t", payload, Qos::AtLeastOnce, false).unwrap();
    }
    assert_eq!(client.publish(Protocol::V5).await.payload, "fits");
    assert_eq!(rig.handle.counters().dropped, 1);
}

#[tokio::test]
async fn subscriptions_that_cannot_be_are_refused_one_by_one() {
    let limits = Limits {
        subscriptions_per_client_max: 2,
        ..Limits::default()
    };
    let rig = Rig::with(limits, common::INBOUND_CAPACITY).await;
    let long = "x".repeat(257);
    let filters = [
        ("ok", 1, 1),
        ("forbidden/x", 1, 0x80),
        ("$share/g/forbidden/x", 1, 0x80),
        ("a#", 1, 0x8F),
        (long.as_str(), 1, 0x8F),
        ("ok", 2, 2),
        ("two", 0, 0),
        ("three", 0, 0x97),
        ("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", 0, 0x8F),
    ];
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        let entries = filters.map(|(filter, options, _)| (filter, options));
        let expected =
            filters.map(|(_, _, code): (_, _, u8)| if protocol == Protocol::V5 { code } else { code.min(0x80) });
        assert_eq!(client.subscribe(protocol, &entries).await, expected);
        client.send(&DISCONNECT).await;
        client.closed().await;
    }
}

#[tokio::test]
async fn members_of_a_shared_subscription_take_turns() {
    let rig = Rig::new().await;
    rig.handle.publish("jobs/0", b"kept", Qos::AtMostOnce, true).unwrap();
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let mut client = rig.client(&v5(name)).await;
        assert_eq!(
            client.subscribe(Protocol::V5, &[("$share/workers/jobs/+", 1)]).await,
            [1]
        );
        // Retained messages are not for shares.
        client.nothing_before_pingresp().await;
        members.push(client);
    }
    let mut witness = rig.client(&v5("witness")).await;
    witness
        .subscribe(Protocol::V5, &[("jobs/#", 0), ("$share/others/jobs/#", 0)])
        .await;
    // What was retained goes to the ordinary subscription only.
    assert_eq!(witness.publish(Protocol::V5).await.payload, "kept");
    for turn in 0..6 {
        assert_eq!(
            rig.handle.publish("jobs/1", b"job", Qos::AtLeastOnce, false),
            Ok(Published::Delivered)
        );
        let got = members[turn % 3].publish(Protocol::V5).await;
        members[turn % 3].send(&ack(PUBACK, got.id)).await;
        // The ordinary subscription and the other group get theirs, one each.
        for _ in 0..2 {
            assert_eq!(witness.publish(Protocol::V5).await.payload, "job");
        }
    }
    for client in &mut members {
        client.nothing_before_pingresp().await;
    }
    // One leaves, one unsubscribes: the last one gets everything.
    members[0].send(&DISCONNECT).await;
    members[0].closed().await;
    members[1]
        .send(&unsubscribe(
            Protocol::V5,
            9,
            &["$share/workers/jobs/+", "$share/never/jobs/+"],
        ))
        .await;
    members[1].expect(&packet(0xB0, &[0, 9, 0, 0, 0x11])).await;
    for _ in 0..2 {
        rig.handle.publish("jobs/1", b"job", Qos::AtMostOnce, false).unwrap();
        assert_eq!(members[2].publish(Protocol::V5).await.payload, "job");
    }
    members[2].send(&DISCONNECT).await;
    members[2].closed().await;
    assert_eq!(rig.handle.counters().subscriptions, 2);
    for (protocol, filter) in [
        (Protocol::V311, "$share/g/t"),
        (Protocol::V5, "$share//t"),
        (Protocol::V5, "$share/g"),
    ] {
        let mut client = rig.client(&connect(protocol, "other")).await;
        client.send(&common::subscribe(protocol, 1, &[(filter, 0)])).await;
        match client.packet().await {
            (0x90, body) => assert!(*body.last().unwrap() >= 0x80, "{filter}"),
            (0xE0, _) => {}
            other => panic!("{filter}: {other:?}"),
        }
        client.send(&DISCONNECT).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_aliases_gets_each_topic_once() {
    let rig = Rig::new().await;
    let aliases_and_expiry = [vec![0x22, 0, 2], vec![0x11, 0, 0, 0, 9]].concat();
    let hello = Connect {
        properties: aliases_and_expiry,
        ..common::persistent(Protocol::V5, "device")
    };
    for _ in 0..2 {
        let mut client = rig.client(&hello).await;
        client.subscribe(Protocol::V5, &[("#", 1)]).await;
        // Two aliases for three topics; the third is sent in full each time.
        for (topic, sent, properties) in [
            ("one", "one", vec![0x23, 0, 1]),
            ("one", "", vec![0x23, 0, 1]),
            ("two", "two", vec![0x23, 0, 2]),
            ("three", "three", vec![]),
            ("two", "", vec![0x23, 0, 2]),
            ("three", "three", vec![]),
        ] {
            rig.handle.publish(topic, b"x", Qos::AtMostOnce, false).unwrap();
            let got = client.publish(Protocol::V5).await;
            assert_eq!((got.topic.as_str(), got.properties), (sent, properties), "{topic}");
        }
        // In flight when the connection is lost: the next one must not rely on aliases of this one.
        rig.handle.publish("one", b"again", Qos::AtLeastOnce, false).unwrap();
        assert_eq!(client.publish(Protocol::V5).await.topic, "");
        drop(client);
        let mut client = rig.client(&common::persistent(Protocol::V5, "device")).await;
        let got = client.publish(Protocol::V5).await;
        assert_eq!((got.topic.as_str(), got.payload.as_str()), ("one", "again"));
        client.send(&ack(PUBACK, got.id)).await;
        client.nothing_before_pingresp().await;
    }
}

#[tokio::test]
async fn the_handle_checks_what_it_is_given() {
    let rig = Rig::new().await;
    for topic in ["", "a/+", "#", "a\0b", &"x".repeat(257)] {
        assert_eq!(
            rig.handle.publish(topic, b"x", Qos::AtMostOnce, false),
            Err(PublishError::TopicInvalid),
            "{topic:?}"
        );
    }
    let large = vec![0; 16 * 1024];
    let error = rig.handle.publish("t", &large, Qos::AtMostOnce, false);
    assert_eq!(error, Err(PublishError::PayloadTooLarge { bytes: large.len() }));
    assert_eq!(
        rig.handle.publish("t", b"x", Qos::ExactlyOnce, false),
        Ok(Published::NoSubscriber)
    );
}

#[tokio::test]
async fn qos2_from_the_publisher_to_the_subscriber() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        client.subscribe(protocol, &[("t", 2)]).await;
        client.send(&publish(protocol, QOS2, "t", 11, "x")).await;
        let (mut received, mut recorded) = (0, false);
        for _ in 0..2 {
            match client.packet().await {
                (common::PUBREC, body) => recorded = body == [0, 11],
                (0x34, body) => received = u16::from_be_bytes([body[3], body[4]]),
                other => panic!("{other:?}"),
            }
        }
        assert!(recorded && received != 0);
        client.send(&ack(common::PUBREL, 11)).await;
        client.expect(&ack(common::PUBCOMP, 11)).await;
        client.send(&ack(common::PUBREC, received)).await;
        client.expect(&ack(common::PUBREL, received)).await;
        client.send(&ack(common::PUBCOMP, received)).await;
        client.nothing_before_pingresp().await;
    }
}
