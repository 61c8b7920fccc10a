//! The reason this endpoint exists: a message is acknowledged when the application says so, in order, or not at all.

mod common;

use common::{
    BOTH, DISCONNECT, DUP, PUBACK, PUBCOMP, PUBREC, PUBREL, QOS0, QOS1, QOS2, Raw, Rig, ack, connect, packet,
    persistent, publish,
};
use mqtt_endpoint::{DisconnectReason, Inbound, Protocol, Published, Qos, Refusal};

#[tokio::test]
async fn puback_waits_for_the_application_in_both_versions_on_one_port() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        for (flags, answer) in [(QOS1, PUBACK), (QOS2, PUBREC)] {
            let mut client = rig.client(&connect(protocol, "device")).await;
            client.send(&publish(protocol, flags, "up/a", 7, "hello")).await;
            let (payload, dup, promise) = rig.message().await;
            assert_eq!((payload.as_slice(), dup), (&b"hello"[..], false));
            // The message has been processed, and a later packet is answered before it.
            client.nothing_before_pingresp().await;
            promise.accept();
            client.expect(&ack(answer, 7)).await;
            client.send(&DISCONNECT).await;
            client.closed().await;
        }
    }
}

#[tokio::test]
async fn events_of_a_client_come_in_order() {
    let mut rig = Rig::new().await;
    for (protocol, qos, flags) in [
        (Protocol::V311, Qos::AtMostOnce, QOS0),
        (Protocol::V5, Qos::AtLeastOnce, QOS1),
    ] {
        let mut client = rig.client(&connect(protocol, "device")).await;
        client.send(&publish(protocol, flags, "up/a", 1, "x")).await;
        client.send(&DISCONNECT).await;
        assert!(matches!(rig.event().await,
            Inbound::Connected { client_id, protocol: p, session_present: false } if &*client_id == "device" && p == protocol));
        let Inbound::Publish {
            client_id,
            topic,
            qos: q,
            retain,
            ack,
            ..
        } = rig.event().await
        else {
            panic!()
        };
        assert_eq!((&*client_id, &*topic, q, retain), ("device", "up/a", qos, false));
        // Too late: the connection is gone. It must not disturb anything.
        assert_eq!(rig.departure().await, ("device".into(), DisconnectReason::ByClient));
        ack.accept();
    }
}

#[tokio::test]
async fn acknowledgements_leave_in_the_order_of_the_messages() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        for (id, flags) in [(1, QOS1), (2, QOS2), (3, QOS1), (4, QOS1)] {
            client.send(&publish(protocol, flags, "up/a", id, "x")).await;
        }
        // Routed, not intercepted: settled at once, but it has to wait for its turn as well.
        client.send(&publish(protocol, QOS1, "routed", 5, "x")).await;
        let mut promises = Vec::new();
        for _ in 0..4 {
            promises.push(rig.message().await.2);
        }
        client.nothing_before_pingresp().await;
        let first = promises.remove(0);
        promises.into_iter().rev().for_each(|promise| promise.accept());
        client.nothing_before_pingresp().await;
        first.accept();
        for (id, answer) in [(1, PUBACK), (2, PUBREC), (3, PUBACK), (4, PUBACK)] {
            client.expect(&ack(answer, id)).await;
        }
        // Nobody subscribed to "routed", of which only MQTT 5 knows to tell.
        let (first, body) = client.packet().await;
        let expected: &[u8] = if protocol == Protocol::V5 {
            &[0, 5, 0x10]
        } else {
            &[0, 5]
        };
        assert_eq!((first, body.as_slice()), (PUBACK, expected));
        client.send(&DISCONNECT).await;
    }
}

#[tokio::test]
async fn refusal_is_told_to_mqtt_5_and_settles_the_message_in_both() {
    let mut rig = Rig::new().await;
    for (refusal, code) in [
        (Refusal::Unspecified, 0x80),
        (Refusal::ImplementationSpecific, 0x83),
        (Refusal::NotAuthorized, 0x87),
        (Refusal::TopicNameInvalid, 0x90),
        (Refusal::QuotaExceeded, 0x97),
        (Refusal::PayloadFormatInvalid, 0x99),
    ] {
        for protocol in BOTH {
            for (flags, answer) in [(QOS1, PUBACK), (QOS2, PUBREC)] {
                let mut client = rig.client(&connect(protocol, "device")).await;
                client.send(&publish(protocol, flags, "up/a", 9, "x")).await;
                rig.message().await.2.refuse(refusal);
                match protocol {
                    Protocol::V311 => client.expect(&ack(answer, 9)).await,
                    Protocol::V5 => client.expect(&packet(answer, &[0, 9, code])).await,
                }
                client.send(&DISCONNECT).await;
                client.closed().await;
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_ack_closes_the_connection_and_the_message_comes_again() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        for (flags, client_id) in [(QOS1, format!("one-{protocol:?}")), (QOS2, format!("two-{protocol:?}"))] {
            let mut client = rig.client(&persistent(protocol, &client_id)).await;
            client.send(&publish(protocol, flags, "up/a", 3, "first")).await;
            client.send(&publish(protocol, flags, "up/a", 4, "second")).await;
            let (first, second) = (rig.message().await.2, rig.message().await.2);
            // Accepted, but behind the one that was not: it is not acknowledged either.
            second.accept();
            drop(first);
            client.closed_with(protocol, 0x83).await;
            assert_eq!(rig.departure().await, (client_id.clone(), DisconnectReason::AckDropped));

            let mut again = rig.client(&persistent(protocol, &client_id)).await;
            for (id, text) in [(3, "first"), (4, "second")] {
                again.send(&publish(protocol, flags | DUP, "up/a", id, text)).await;
                let (payload, dup, promise) = rig.message().await;
                assert_eq!((payload.as_slice(), dup), (text.as_bytes(), true));
                promise.accept();
                again
                    .expect(&ack(if flags == QOS1 { PUBACK } else { PUBREC }, id))
                    .await;
            }
            again.send(&DISCONNECT).await;
            again.closed().await;
        }
    }
}

#[tokio::test]
async fn qos2_hands_a_message_over_once() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&persistent(protocol, "device")).await;
        client.send(&publish(protocol, QOS2, "up/a", 3, "once")).await;
        let promise = rig.message().await.2;
        // Sent again while the application has it, after PUBREC, and on another connection: handed over once.
        client.send(&publish(protocol, QOS2 | DUP, "up/a", 3, "once")).await;
        client.nothing_before_pingresp().await;
        promise.accept();
        client.expect(&ack(PUBREC, 3)).await;
        client.send(&publish(protocol, QOS2 | DUP, "up/a", 3, "once")).await;
        client.expect(&ack(PUBREC, 3)).await;
        drop(client);
        let mut client = rig.client(&persistent(protocol, "device")).await;
        client.send(&publish(protocol, QOS2 | DUP, "up/a", 3, "once")).await;
        client.expect(&ack(PUBREC, 3)).await;
        client.send(&ack(PUBREL, 3)).await;
        client.expect(&ack(PUBCOMP, 3)).await;
        // Released: the id is free for a new message.
        client.send(&publish(protocol, QOS2, "up/a", 3, "new")).await;
        let (payload, _, promise) = rig.message().await;
        assert_eq!(payload, b"new");
        promise.accept();
        client.expect(&ack(PUBREC, 3)).await;
        client.send(&ack(PUBREL, 3)).await;
        client.expect(&ack(PUBCOMP, 3)).await;
        client.send(&ack(PUBREL, 3)).await;
        match protocol {
            Protocol::V311 => client.expect(&ack(PUBCOMP, 3)).await,
            Protocol::V5 => client.expect(&packet(PUBCOMP, &[0, 3, 0x92])).await,
        }
        client.send(&DISCONNECT).await;
        client.closed().await;
    }
}

/// The whole path of an authorization: device, application on a plain thread, answer before PUBACK.
#[tokio::test]
async fn the_answer_can_be_published_from_a_plain_thread_before_the_ack() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig.client(&connect(protocol, "device")).await;
        assert_eq!(client.subscribe(protocol, &[("down/device", 1)]).await, [1]);
        client.send(&publish(protocol, QOS1, "up/a", 1, "may I?")).await;
        let (payload, _, promise) = rig.message().await;
        let handle = rig.handle.clone();
        let worker = std::thread::spawn(move || {
            assert_eq!(payload, b"may I?");
            assert_eq!(
                handle.publish("down/device", b"yes", Qos::AtLeastOnce, false),
                Ok(Published::Delivered)
            );
            promise.accept();
        });
        worker.join().expect("the worker passed");
        let (answer, acknowledged) = both_orders(&mut client, protocol).await;
        assert_eq!((answer.as_str(), acknowledged), ("yes", true));
        client.send(&DISCONNECT).await;
        client.closed().await;
    }
}

/// One PUBLISH and one PUBACK, in whichever order they come.
async fn both_orders(client: &mut Raw, protocol: Protocol) -> (String, bool) {
    let (mut answer, mut acknowledged) = (String::new(), false);
    for _ in 0..2 {
        let (first, body) = client.packet().await;
        match first & 0xF0 {
            0x30 => {
                let skip = 2 + "down/device".len() + 2 + usize::from(protocol == Protocol::V5);
                answer = String::from_utf8(body[skip..].to_vec()).expect("text");
            }
            0x40 => acknowledged = body == [0, 1],
            _ => panic!("{first:#x} {body:?}"),
        }
    }
    (answer, acknowledged)
}
