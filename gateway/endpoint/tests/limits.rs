//! Limits of one peer that leave the others alone: places by address, places without CONNECT, connections in a minute, packets
//! and bytes in a second, bytes that wait.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{
    BOTH, Connect, INBOUND_CAPACITY, PATIENCE, PUBACK, QOS0, QOS1, Raw, Rig, ack, connect, packet, persistent, publish,
    v5, v311,
};
use mqtt_endpoint::{DisconnectReason, Limits, Protocol, Published, Qos, limits::QUEUE_BYTES_SHARE};
use tokio::io::DuplexStream;
use tokio::time::Instant;

/// A stream from an address; `None` if there was no place for it.
fn from(rig: &Rig, host: u8) -> Option<Raw<DuplexStream>> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let peer = SocketAddr::from((IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 1));
    rig.endpoint.attach(theirs, peer).then_some(Raw { stream: ours })
}

#[tokio::test(start_paused = true)]
async fn one_address_fills_its_own_places_alone() {
    let limits = Limits {
        connections_per_address_max: 3,
        pending_per_address_max: 2,
        pending_max: 4,
        ..Limits::default()
    };
    let rig = Rig::with(limits, INBOUND_CAPACITY).await;
    let silent: Vec<_> = (0..3).map(|_| from(&rig, 1)).collect();
    assert_eq!(silent.iter().flatten().count(), 2, "two may be silent");
    assert_eq!(rig.handle.counters().over_pending_limit, 1);
    // The good ones come from elsewhere, and are no strangers for long.
    let mut good = Vec::new();
    for (host, name) in [(2, "a"), (2, "b"), (2, "c")] {
        let mut raw = from(&rig, host).expect("a place");
        raw.send(&v311(name).bytes()).await;
        raw.accepted(Protocol::V311).await;
        good.push(raw);
    }
    assert!(from(&rig, 2).is_none(), "three of one address");
    let counters = rig.handle.counters();
    assert_eq!((counters.over_address_limit, counters.pending), (1, 2));
    let all = [from(&rig, 3), from(&rig, 3), from(&rig, 4)];
    assert_eq!(all.iter().flatten().count(), 2, "four strangers in all");
    // The deadline of the silent ones frees their places.
    for mut raw in silent.into_iter().flatten() {
        raw.closed().await;
    }
    assert!(from(&rig, 1).is_some());
    assert_eq!(rig.handle.counters().connect_timeouts, 4, "of three addresses");
    for client in &mut good {
        client.nothing_before_pingresp().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_connects_too_often_waits() {
    let limits = Limits {
        connects_a_minute_max: 3,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits, INBOUND_CAPACITY).await;
    for protocol in BOTH {
        let id = format!("{protocol:?}");
        for _ in 0..3 {
            let client = rig.attached(&connect(protocol, &id)).await;
            drop(client);
            rig.departure().await;
        }
        let mut refused = rig.attach(4096);
        refused.send(&connect(protocol, &id).bytes()).await;
        match protocol {
            Protocol::V311 => refused.expect(&[0x20, 2, 0, 3]).await,
            Protocol::V5 => refused.expect(&[0x20, 3, 0, 0x88, 0]).await,
        }
        refused.closed().await;
        // Wrong passwords are not held against the right one.
        tokio::time::advance(Duration::from_secs(21)).await;
        for _ in 0..10 {
            let mut wrong = rig.attach(4096);
            let connect = Connect {
                username: Some("user"),
                password: Some("wrong"),
                ..connect(protocol, &id)
            };
            wrong.send(&connect.bytes()).await;
            wrong.read().await;
        }
        rig.attached(&connect(protocol, &id))
            .await
            .nothing_before_pingresp()
            .await;
    }
    assert_eq!(rig.handle.counters().connects_too_often, 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_too_fast_is_read_at_its_rate_and_loses_nothing() {
    let limits = Limits {
        packets_a_second_max: 10,
        bytes_a_second_max: 10_000,
        ..Limits::default()
    };
    for (payload, packets, seconds) in [(1, 120, 9..=11), (1_000, 120, 9..=11)] {
        let mut rig = Rig::with(limits.clone(), INBOUND_CAPACITY).await;
        let mut fast = rig.attached(&v5("fast")).await;
        let mut good = rig.attached(&v5("good")).await;
        rig.event().await;
        rig.event().await;
        let start = Instant::now();
        let payload = "x".repeat(payload);
        for _ in 0..packets {
            fast.send(&publish(Protocol::V5, QOS0, "up/fast", 0, &payload)).await;
            // Nobody else waits for it.
            if start.elapsed() < Duration::from_millis(1) {
                good.nothing_before_pingresp().await;
            }
        }
        for _ in 0..packets {
            rig.message().await;
        }
        let took = start.elapsed().as_secs();
        assert!(
            seconds.contains(&took),
            "{packets} of {} bytes took {took} s",
            payload.len()
        );
        assert!(rig.handle.counters().throttled > 50);
        // Being held back is not silence.
        fast.nothing_before_pingresp().await;
    }
}

#[tokio::test]
async fn deaf_clients_cannot_fill_the_memory_of_a_good_one() {
    let limits = Limits {
        queued_bytes_max: 100_000,
        ..Limits::default()
    };
    let rig = Rig::with(limits, INBOUND_CAPACITY).await;
    // Five sessions whose clients are away take what there is.
    for id in ["a", "b", "c", "d", "e"] {
        let mut away = rig.client(&persistent(Protocol::V5, id)).await;
        away.subscribe(Protocol::V5, &[(&format!("down/{id}"), 1)]).await;
        drop(away);
        while rig.handle.is_connected(id) {
            tokio::task::yield_now().await;
        }
    }
    let payload = vec![b'x'; 1_000];
    for id in ["a", "b", "c", "d", "e"] {
        while rig
            .handle
            .publish(&format!("down/{id}"), &payload, Qos::AtLeastOnce, false)
            == Ok(Published::Queued)
        {}
    }
    let queued = rig.handle.counters().queued_bytes;
    let most = 100_000 + 5 * QUEUE_BYTES_SHARE as u64;
    assert!((90_000..=most).contains(&queued), "{queued} bytes wait");
    let mut good = rig.client(&v5("good")).await;
    good.subscribe(Protocol::V5, &[("down/good", 1)]).await;
    assert_eq!(
        rig.handle.publish("down/good", &payload, Qos::AtLeastOnce, false),
        Ok(Published::Delivered)
    );
    let told = tokio::time::timeout(PATIENCE, good.read()).await;
    assert_eq!(told.unwrap().unwrap().0 >> 4, 3, "a PUBLISH");
    // What ends gives back what it held.
    for id in ["a", "b", "c", "d", "e"] {
        let mut back = rig.client(&connect(Protocol::V5, id)).await;
        back.nothing_before_pingresp().await;
    }
    good.send(&packet(0x40, &[0, 1])).await;
    good.nothing_before_pingresp().await;
    assert_eq!(rig.handle.counters().queued_bytes, 0);
}

#[tokio::test]
async fn who_asks_much_waits_for_the_answers() {
    let limits = Limits {
        unsettled_max: 2,
        ..Limits::default()
    };
    for protocol in BOTH {
        let mut rig = Rig::with(limits.clone(), INBOUND_CAPACITY).await;
        let mut greedy = rig.client(&connect(protocol, "greedy")).await;
        let mut good = rig.client(&connect(protocol, "good")).await;
        let asked = (1..=5).map(|id| publish(protocol, QOS1, "up/x", id, "greedy"));
        greedy.send(&asked.collect::<Vec<_>>().concat()).await;
        let (_, _, first) = rig.message().await;
        let (_, _, second) = rig.message().await;
        // The third is not read; the good one's question is next.
        good.send(&publish(protocol, QOS1, "up/x", 1, "good")).await;
        let (payload, _, promise) = rig.message().await;
        assert_eq!(payload, b"good");
        promise.accept();
        first.accept();
        second.accept();
        for _ in 3..=5 {
            let (payload, _, promise) = rig.message().await;
            assert_eq!(payload, b"greedy");
            promise.accept();
        }
        for id in 1..=5 {
            greedy.expect(&ack(PUBACK, id)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_silent_for_ever() {
    let limits = Limits {
        silence_s_max: 3_600,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits, INBOUND_CAPACITY).await;
    let client = Connect {
        keep_alive_s: 0,
        ..v311("dead")
    };
    let mut dead = rig.attached(&client).await;
    let since = Instant::now();
    assert_eq!(dead.read().await, None);
    assert_eq!(since.elapsed().as_secs(), 3_600);
    assert_eq!(rig.departure().await.1, DisconnectReason::KeepAliveExpired);
}
