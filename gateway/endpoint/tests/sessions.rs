//! Sessions: what survives a connection, who holds it, and what is sent again.

mod common;

use common::{
    BOTH, Connect, DISCONNECT, DUP, PUBACK, PUBCOMP, PUBREC, PUBREL, QOS1, QOS2, Rig, ack, connect, packet, persistent,
    publish, sized, string, unsubscribe, v5, v311,
};
use mqtt_endpoint::{DisconnectReason, Inbound, Limits, Protocol, PublishError, Published, Qos};

/// CONNECT, and whether the session was there.
async fn present(rig: &Rig, connect: &Connect) -> (common::Raw, bool) {
    let mut raw = rig.raw().await;
    raw.send(&connect.bytes()).await;
    let (present, _) = raw.accepted(connect.protocol).await;
    (raw, present)
}

#[tokio::test]
async fn session_present_follows_clean_and_expiry() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let id = format!("device-{protocol:?}");
        for (what, hello, expected) in [
            ("a stranger", persistent(protocol, &id), false),
            ("one who comes back", persistent(protocol, &id), true),
            (
                "one who starts clean",
                Connect {
                    clean: true,
                    ..persistent(protocol, &id)
                },
                false,
            ),
            ("and comes back", persistent(protocol, &id), protocol == Protocol::V5),
            (
                "one whose session ends with the connection",
                connect(protocol, &id),
                false,
            ),
            ("and is forgotten", persistent(protocol, &id), false),
        ] {
            let (mut raw, present) = present(&rig, &hello).await;
            assert_eq!(present, expected, "{protocol:?}: {what}");
            let Inbound::Connected { session_present, .. } = rig.event().await else {
                panic!()
            };
            assert_eq!(
                session_present, expected,
                "{protocol:?}: {what}, as told to the application"
            );
            raw.send(&DISCONNECT).await;
            raw.closed().await;
            assert_eq!(rig.departure().await.1, DisconnectReason::ByClient);
        }
    }
}

#[tokio::test]
async fn messages_wait_for_a_persistent_session_within_its_queue() {
    let limits = Limits {
        offline_queue_max: 3,
        ..Limits::default()
    };
    let rig = Rig::with(limits, common::INBOUND_CAPACITY).await;
    for protocol in BOTH {
        let hello = persistent(protocol, "away");
        let mut client = rig.client(&hello).await;
        client.subscribe(protocol, &[("t", 2)]).await;
        client.send(&DISCONNECT).await;
        client.closed().await;
        assert_eq!(
            rig.handle.publish("t", b"zero", Qos::AtMostOnce, false),
            Ok(Published::NoSubscriber)
        );
        for (text, qos) in [
            ("one", Qos::AtLeastOnce),
            ("two", Qos::ExactlyOnce),
            ("three", Qos::AtLeastOnce),
        ] {
            assert_eq!(
                rig.handle.publish("t", text.as_bytes(), qos, false),
                Ok(Published::Queued)
            );
        }
        assert_eq!(
            rig.handle.publish("t", b"four", Qos::AtLeastOnce, false),
            Err(PublishError::QueueFull)
        );

        let (mut client, present) = present(&rig, &hello).await;
        assert!(present);
        for (text, flags) in [("one", QOS1), ("two", QOS2), ("three", QOS1)] {
            let got = client.publish(protocol).await;
            assert_eq!((got.payload.as_str(), got.flags), (text, flags));
        }
        client.nothing_before_pingresp().await;
        client.send(&unsubscribe(protocol, 5, &["t"])).await;
        client.packet().await;
        assert_eq!(
            rig.handle.publish("t", b"x", Qos::AtLeastOnce, false),
            Ok(Published::NoSubscriber)
        );
        client
            .send(
                &Connect {
                    clean: true,
                    ..connect(protocol, "away")
                }
                .bytes(),
            )
            .await;
        rig.client(&connect(protocol, "away")).await;
    }
}

#[tokio::test]
async fn what_is_in_flight_is_sent_again_in_order_and_marked() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let hello = persistent(protocol, "device");
        let mut client = rig.client(&hello).await;
        client.subscribe(protocol, &[("t", 2)]).await;
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
        for (at, qos) in qos.into_iter().enumerate() {
            rig.handle
                .publish("t", format!("m{at}").as_bytes(), qos, false)
                .unwrap();
        }
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(client.publish(protocol).await.id);
        }
        // The third is done, the second half way.
        client.send(&ack(PUBACK, ids[2])).await;
        client.send(&ack(PUBREC, ids[1])).await;
        client.expect(&ack(PUBREL, ids[1])).await;
        drop(client);
        rig.handle.publish("t", b"m4", Qos::AtLeastOnce, false).unwrap();

        let (mut client, present) = present(&rig, &hello).await;
        assert!(present);
        let first = client.publish(protocol).await;
        assert_eq!(
            (first.flags, first.id, first.payload.as_str()),
            (QOS1 | DUP, ids[0], "m0")
        );
        client.expect(&ack(PUBREL, ids[1])).await;
        let fourth = client.publish(protocol).await;
        assert_eq!(
            (fourth.flags, fourth.id, fourth.payload.as_str()),
            (QOS2 | DUP, ids[3], "m3")
        );
        // This one was sent into a connection that had just died, or never: only the order is certain.
        let fifth = client.publish(protocol).await;
        assert_eq!((fifth.flags & !DUP, fifth.payload.as_str()), (QOS1, "m4"));
        for (first, id) in [
            (PUBACK, ids[0]),
            (PUBCOMP, ids[1]),
            (PUBREC, ids[3]),
            (PUBACK, fifth.id),
        ] {
            client.send(&ack(first, id)).await;
        }
        client.expect(&ack(PUBREL, ids[3])).await;
        client.send(&ack(PUBCOMP, ids[3])).await;
        client.nothing_before_pingresp().await;
        drop(client);
        let (mut client, present) = self::present(&rig, &hello).await;
        assert!(present);
        client.nothing_before_pingresp().await;
        client.send(&DISCONNECT).await;
        client.closed().await;
        // Not part of the next round.
        rig.client(&connect(protocol, "device")).await.send(&DISCONNECT).await;
    }
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let mut rig = Rig::new().await;
    for (old, new) in [
        (Protocol::V311, Protocol::V5),
        (Protocol::V5, Protocol::V311),
        (Protocol::V5, Protocol::V5),
    ] {
        let mut first = rig.client(&persistent(old, "device")).await;
        assert_eq!(first.subscribe(old, &[("t", 1)]).await, [1]);
        let (mut second, present) = present(&rig, &persistent(new, "device")).await;
        assert!(present);
        first.closed_with(old, 0x8E).await;
        // In this order, so that the application never takes the new connection for the one that ended.
        let Inbound::Connected { .. } = rig.event().await else {
            panic!()
        };
        let Inbound::Disconnected { reason, .. } = rig.event().await else {
            panic!()
        };
        assert_eq!(reason, DisconnectReason::TakenOver);
        let Inbound::Connected {
            protocol,
            session_present: true,
            ..
        } = rig.event().await
        else {
            panic!()
        };
        assert_eq!(protocol, new);
        assert_eq!(
            rig.handle.publish("t", b"x", Qos::AtLeastOnce, false),
            Ok(Published::Delivered)
        );
        let got = second.publish(new).await;
        second.send(&ack(PUBACK, got.id)).await;
        second
            .send(
                &Connect {
                    clean: true,
                    ..connect(new, "device")
                }
                .bytes(),
            )
            .await;
        rig.departure().await;
        rig.client(&connect(new, "device")).await.send(&DISCONNECT).await;
        rig.departure().await;
    }
}

#[tokio::test]
async fn many_connections_of_one_client_leave_one() {
    let rig = Rig::new().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut raw = rig.raw().await;
        raw.send(&v5("device").bytes()).await;
        clients.push(raw);
    }
    let mut open = Vec::new();
    for mut raw in clients {
        raw.accepted(Protocol::V5).await;
        open.push(raw);
    }
    // All were accepted, one after the other; each but the last was told why it had to go.
    let mut alive = 0;
    for mut raw in open {
        raw.send(&common::PINGREQ).await;
        match raw.packet().await {
            (0xE0, body) => assert_eq!(body, [0x8E]),
            (0xD0, _) => alive += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((alive, rig.handle.counters().sessions), (1, 1));
}

#[tokio::test]
async fn a_client_without_an_identifier_gets_one() {
    let mut rig = Rig::new().await;
    let mut client = rig.raw().await;
    client.send(&v5("").bytes()).await;
    let (_, properties) = client.accepted(Protocol::V5).await;
    let Inbound::Connected { client_id, .. } = rig.event().await else {
        panic!()
    };
    let assigned = [vec![0x12], string(&client_id)].concat();
    assert!(
        properties.windows(assigned.len()).any(|window| window == assigned),
        "{properties:?}"
    );
    rig.client(&v311("")).await;
    let Inbound::Connected { client_id: other, .. } = rig.event().await else {
        panic!()
    };
    assert_ne!(client_id, other);
    // 3.1.1 demands a clean session for it.
    let mut refused = rig.raw().await;
    refused.send(&persistent(Protocol::V311, "").bytes()).await;
    refused.expect(&[0x20, 2, 0, 2]).await;
    refused.closed().await;
}

#[tokio::test]
async fn a_client_is_sent_no_more_than_its_receive_maximum() {
    let rig = Rig::new().await;
    let hello = Connect {
        properties: [vec![0x21, 0, 2], vec![0x11, 0, 0, 1, 0]].concat(),
        ..v5("slow")
    };
    let mut client = rig.client(&hello).await;
    client.subscribe(Protocol::V5, &[("t", 2)]).await;
    for at in 0..6 {
        let qos = if at % 2 == 0 {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        };
        rig.handle
            .publish("t", format!("m{at}").as_bytes(), qos, false)
            .unwrap();
    }
    let (zero, one) = (client.publish(Protocol::V5).await, client.publish(Protocol::V5).await);
    client.nothing_before_pingresp().await;
    client.send(&ack(PUBACK, zero.id)).await;
    let two = client.publish(Protocol::V5).await;
    assert_eq!(two.payload, "m2");
    // PUBREC does not open the window, PUBCOMP does; a failing PUBREC does at once.
    client.send(&ack(PUBREC, one.id)).await;
    client.expect(&ack(PUBREL, one.id)).await;
    client.nothing_before_pingresp().await;
    client.send(&ack(PUBCOMP, one.id)).await;
    let three = client.publish(Protocol::V5).await;
    assert_eq!(three.payload, "m3");
    client
        .send(&packet(PUBREC, &[three.id.to_be_bytes().to_vec(), vec![0x80]].concat()))
        .await;
    assert_eq!(client.publish(Protocol::V5).await.payload, "m4");
    drop(client);
    // The window counts again from nothing after a reconnect.
    let (mut client, _) = present(&rig, &Connect { clean: false, ..hello }).await;
    let again = client.publish(Protocol::V5).await;
    assert_eq!((again.payload.as_str(), again.flags & DUP), ("m2", DUP));
    assert_eq!(client.publish(Protocol::V5).await.payload, "m4");
    client.nothing_before_pingresp().await;
    client.send(&ack(PUBACK, again.id)).await;
    assert_eq!(client.publish(Protocol::V5).await.payload, "m5");
}

#[tokio::test]
async fn an_mqtt_5_client_that_exceeds_our_receive_maximum_is_cut_and_a_311_client_is_not() {
    let limits = Limits {
        inflight_max: 2,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits, common::INBOUND_CAPACITY).await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "eager")).await;
        let mut promises = Vec::new();
        for id in 1..=3 {
            client.send(&publish(protocol, QOS1, "up/a", id, "x")).await;
            if id < 3 || protocol == Protocol::V311 {
                promises.push(rig.message().await.2);
            }
        }
        match protocol {
            Protocol::V5 => client.closed_with(protocol, 0x93).await,
            Protocol::V311 => {
                promises.into_iter().for_each(|promise| promise.accept());
                for id in 1..=3 {
                    client.expect(&ack(PUBACK, id)).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn disconnect_of_mqtt_5_can_shorten_a_session_but_not_invent_one() {
    let rig = Rig::new().await;
    let expiry = |seconds: u8| packet(0xE0, &[vec![0], sized(&[0x11, 0, 0, 0, seconds])].concat());
    let mut client = rig.client(&persistent(Protocol::V5, "device")).await;
    client.send(&expiry(0)).await;
    client.closed().await;
    let (mut client, found) = present(
        &rig,
        &Connect {
            clean: false,
            ..v5("device")
        },
    )
    .await;
    assert!(!found);
    client.send(&expiry(9)).await;
    client.closed_with(Protocol::V5, 0x82).await;
}

#[tokio::test]
async fn sessions_are_counted_and_limited() {
    let rig = Rig::with(
        Limits {
            sessions_max: 1,
            ..Limits::default()
        },
        common::INBOUND_CAPACITY,
    )
    .await;
    let _first = rig.client(&v311("first")).await;
    for (protocol, connack) in [
        (Protocol::V311, vec![0x20, 2, 0, 3]),
        (Protocol::V5, vec![0x20, 3, 0, 0x97, 0]),
    ] {
        let mut raw = rig.raw().await;
        raw.send(&connect(protocol, "second").bytes()).await;
        raw.expect(&connack).await;
        raw.closed().await;
    }
    assert_eq!(rig.handle.counters().sessions, 1);
}

#[tokio::test]
async fn shutdown_tells_clients_and_the_application() {
    let mut rig = Rig::new().await;
    let mut five = rig.client(&v5("five")).await;
    let will = Some(("up/will", "lost", 1, false));
    let mut three = rig
        .client(&Connect {
            will,
            ..persistent(Protocol::V311, "three")
        })
        .await;
    // One that has not said CONNECT does not hold it up.
    let mut silent = rig.raw().await;
    let clients = tokio::spawn(async move {
        five.closed_with(Protocol::V5, 0x8B).await;
        three.closed().await;
        silent.closed().await;
    });
    common::soon("shutdown", rig.endpoint.shutdown()).await;
    clients.await.unwrap();
    let mut departed = Vec::new();
    while let Some(event) = common::soon("the end", rig.inbound.recv()).await {
        match event {
            Inbound::Connected { .. } => {}
            Inbound::Disconnected { client_id, reason } => {
                assert_eq!(reason, DisconnectReason::ShuttingDown);
                departed.push(client_id.to_string());
            }
            Inbound::Publish { topic, .. } => panic!("{topic}: wills are not for our own end"),
        }
    }
    departed.sort();
    assert_eq!(departed, ["five", "three"]);
}

#[tokio::test]
async fn the_application_can_disconnect_a_client() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        assert!(rig.handle.is_connected("device"));
        assert!(rig.handle.disconnect("device", DisconnectReason::Administrative));
        client.closed_with(protocol, 0x98).await;
        assert_eq!(
            rig.departure().await,
            ("device".into(), DisconnectReason::Administrative)
        );
        assert!(!rig.handle.disconnect("device", DisconnectReason::Administrative));
    }
}
