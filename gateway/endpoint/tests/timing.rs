//! Everything that depends on time, under a clock that the tests move.

mod common;

use std::time::Duration;

use common::{BOTH, Connect, DISCONNECT, QOS0, Rig, connect, persistent, publish, publish_with, v5};
use mqtt_endpoint::{DisconnectReason, Limits, Protocol, Published, Qos};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn silence_of_one_and_a_half_keep_alives_is_the_end() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let mut client = rig
            .attached(&Connect {
                keep_alive_s: 20,
                ..connect(protocol, "device")
            })
            .await;
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(29)).await;
            client.nothing_before_pingresp().await;
        }
        let silent_since = Instant::now();
        let end = client.read().await;
        assert_eq!(end, (protocol == Protocol::V5).then_some((0xE0, vec![0x8D])));
        assert_eq!(silent_since.elapsed().as_secs(), 30);
        assert_eq!(rig.departure().await.1, DisconnectReason::KeepAliveExpired);
    }
}

#[tokio::test(start_paused = true)]
async fn mqtt_5_is_told_a_keep_alive_and_311_keeps_its_own() {
    let limits = Limits {
        keep_alive_s_max: 100,
        ..Limits::default()
    };
    let rig = Rig::with(limits, common::INBOUND_CAPACITY).await;
    for (asked, told) in [(0, Some(100u8)), (99, None), (101, Some(100))] {
        let mut client = rig.attach(4096);
        client
            .send(
                &Connect {
                    keep_alive_s: asked,
                    ..v5("device")
                }
                .bytes(),
            )
            .await;
        let (_, properties) = client.accepted(Protocol::V5).await;
        let server_keep_alive = properties
            .windows(3)
            .find(|window| window[..2] == [0x13, 0])
            .map(|window| window[2]);
        assert_eq!(server_keep_alive, told, "asked for {asked}: {properties:?}");
    }
    // A 3.1.1 client that wants none is not cut for silence.
    let mut client = rig
        .attached(&Connect {
            keep_alive_s: 0,
            ..connect(Protocol::V311, "other")
        })
        .await;
    tokio::time::advance(Duration::from_secs(100_000)).await;
    client.nothing_before_pingresp().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_say_connect_is_closed() {
    let rig = Rig::new().await;
    for bytes in [&[][..], &[0x10], &[0x10, 30, 0, 4, b'M']] {
        let mut client = rig.attach(4096);
        client.send(bytes).await;
        let began = Instant::now();
        assert_eq!(client.read().await, None);
        assert_eq!(
            began.elapsed().as_millis(),
            u128::from(Limits::default().connect_timeout_ms)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_partial_packet_does_not_count_as_a_sign_of_life() {
    let rig = Rig::new().await;
    let mut client = rig
        .attached(&Connect {
            keep_alive_s: 10,
            ..connect(Protocol::V311, "slow")
        })
        .await;
    let began = Instant::now();
    for byte in [0x30, 100, 0, 50] {
        client.send(&[byte]).await;
        tokio::time::advance(Duration::from_secs(3)).await;
    }
    assert_eq!(client.read().await, None);
    assert_eq!(began.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_life_is_over() {
    let mut rig = Rig::with(
        Limits {
            session_expiry_s_max: 1_000,
            ..Limits::default()
        },
        64,
    )
    .await;
    for (hello, life_s) in [
        (persistent(Protocol::V311, "three"), 1_000),
        (
            Connect {
                properties: vec![0x11, 0, 0, 0, 50],
                ..persistent(Protocol::V5, "short")
            },
            50,
        ),
        (persistent(Protocol::V5, "long"), 1_000),
    ] {
        for (away_s, expected) in [(life_s - 1, 1), (life_s + 1, 0)] {
            let mut client = rig.attached(&hello).await;
            client.subscribe(hello.protocol, &[("t", 1)]).await;
            client.send(&DISCONNECT).await;
            rig.departure().await;
            tokio::time::advance(Duration::from_secs(away_s)).await;
            // Let the timer's task run.
            tokio::task::yield_now().await;
            let counters = rig.handle.counters();
            assert_eq!(
                (counters.sessions, counters.subscriptions),
                (expected, expected),
                "after {away_s} s"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mqtt_5_messages_expire_and_say_how_long_they_have() {
    let mut rig = Rig::new().await;
    let hello = persistent(Protocol::V5, "device");
    let mut client = rig.attached(&hello).await;
    client.subscribe(Protocol::V5, &[("t", 1)]).await;
    client.send(&DISCONNECT).await;
    rig.departure().await;
    let mut publisher = rig.attached(&v5("publisher")).await;
    for (text, seconds) in [("short", 10), ("long", 60)] {
        publisher
            .send(&publish_with(Protocol::V5, 2, "t", 1, text, &[0x02, 0, 0, 0, seconds]))
            .await;
        assert_eq!(publisher.packet().await.0, common::PUBACK);
        let retained = publish_with(
            Protocol::V5,
            1,
            &format!("r/{text}"),
            1,
            text,
            &[0x02, 0, 0, 0, seconds],
        );
        publisher.send(&retained).await;
    }
    publisher.nothing_before_pingresp().await;
    tokio::time::advance(Duration::from_secs(15)).await;
    let mut client = rig.attached(&hello).await;
    let got = client.publish(Protocol::V5).await;
    assert_eq!(
        (got.payload.as_str(), got.properties),
        ("long", vec![0x02, 0, 0, 0, 45])
    );
    client.nothing_before_pingresp().await;
    client.subscribe(Protocol::V5, &[("r/#", 0)]).await;
    let got = client.publish(Protocol::V5).await;
    assert_eq!(
        (got.topic.as_str(), got.properties),
        ("r/long", vec![0x02, 0, 0, 0, 45])
    );
    client.nothing_before_pingresp().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_bytes_is_cut_in_time() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        // A stream that holds 256 bytes, and a client that pings to live but never reads.
        let mut client = rig.attach(256);
        client
            .send(
                &Connect {
                    keep_alive_s: 5,
                    ..connect(protocol, "deaf")
                }
                .bytes(),
            )
            .await;
        client.accepted(protocol).await;
        client.subscribe(protocol, &[("t", 0)]).await;
        assert_eq!(
            rig.handle.publish("t", &[b'x'; 1_000], Qos::AtMostOnce, false),
            Ok(Published::Delivered)
        );
        let began = Instant::now();
        let pinging = tokio::spawn(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut client.stream, &common::PINGREQ)
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_secs(4)).await; // Of tokio's paused clock.
            }
        });
        let Some(mqtt_endpoint::Inbound::Connected { .. }) = rig.inbound.recv().await else {
            panic!()
        };
        let Some(mqtt_endpoint::Inbound::Disconnected { reason, .. }) = rig.inbound.recv().await else {
            panic!()
        };
        assert_eq!(reason, DisconnectReason::SlowConsumer);
        assert_eq!(
            began.elapsed().as_millis(),
            u128::from(Limits::default().write_stall_ms)
        );
        pinging.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_application_is_not_the_clients_silence() {
    let mut rig = Rig::with(Limits::default(), 2).await;
    let mut client = rig
        .attached(&Connect {
            keep_alive_s: 10,
            ..connect(Protocol::V311, "device")
        })
        .await;
    // `Connected` and one message fill the queue; the next is held, and nothing behind it is read.
    for text in ["1", "2", "3"] {
        client.send(&publish(Protocol::V311, QOS0, "up/a", 0, text)).await;
    }
    client.send(&common::PINGREQ).await;
    tokio::time::sleep(Duration::from_secs(1_000)).await; // Of tokio's paused clock.
    assert_eq!(rig.handle.counters().received, 2, "the third was not read");
    for text in ["1", "2", "3"] {
        assert_eq!(rig.message().await.0, text.as_bytes());
    }
    client.expect(&common::PINGRESP).await;
    let silent_since = Instant::now();
    assert_eq!(client.read().await, None);
    assert_eq!(silent_since.elapsed().as_secs(), 15);
}
