//! Wills: published when a client is lost, not when it says goodbye; as if the client had published them.

mod common;

use common::{BOTH, Connect, DISCONNECT, QOS1, RETAIN, Rig, ack, connect, packet, persistent, publish, v5, v311};
use mqtt_endpoint::{DisconnectReason, Inbound, Protocol};

fn with_will(hello: Connect) -> Connect {
    Connect {
        will: Some(("wills/device", "lost", 1, false)),
        ..hello
    }
}

#[tokio::test]
async fn a_lost_client_leaves_its_will_and_one_that_says_goodbye_does_not() {
    let rig = Rig::new().await;
    for protocol in BOTH {
        let mut witness = rig.client(&connect(protocol, "witness")).await;
        witness.subscribe(protocol, &[("wills/+", 1)]).await;

        let mut polite = rig.client(&with_will(connect(protocol, "device"))).await;
        polite.send(&DISCONNECT).await;
        polite.closed().await;
        witness.nothing_before_pingresp().await;

        drop(rig.client(&with_will(connect(protocol, "device"))).await);
        let will = witness.publish(protocol).await;
        assert_eq!(
            (will.topic.as_str(), will.payload.as_str(), will.flags),
            ("wills/device", "lost", QOS1)
        );
        witness.send(&ack(common::PUBACK, will.id)).await;

        let mut rude = rig.client(&with_will(connect(protocol, "device"))).await;
        rude.send(&publish(protocol, 0, "a/#", 0, "wildcard")).await;
        assert_eq!(witness.publish(protocol).await.payload, "lost");

        // Taken over: the old connection is lost, so says the standard.
        let _old = rig.client(&with_will(connect(protocol, "device"))).await;
        let mut new = rig.client(&connect(protocol, "device")).await;
        assert_eq!(witness.publish(protocol).await.payload, "lost");
        new.send(&DISCONNECT).await;
        new.closed().await;
        witness.nothing_before_pingresp().await;
        witness.send(&DISCONNECT).await;
        witness.closed().await;
    }
}

#[tokio::test]
async fn an_intercepted_will_goes_to_the_application_before_the_departure() {
    let mut rig = Rig::new().await;
    for protocol in BOTH {
        let will = Some(("up/will", "lost", 1, true));
        drop(
            rig.client(&Connect {
                will,
                ..connect(protocol, "device")
            })
            .await,
        );
        let Inbound::Connected { .. } = rig.event().await else {
            panic!()
        };
        let Inbound::Publish {
            client_id,
            topic,
            payload,
            retain,
            ack,
            ..
        } = rig.event().await
        else {
            panic!()
        };
        assert_eq!(
            (&*client_id, &*topic, &*payload, retain),
            ("device", "up/will", &b"lost"[..], true)
        );
        // Nobody waits for it; whatever is done with it does no harm.
        drop(ack);
        let Inbound::Disconnected { reason, .. } = rig.event().await else {
            panic!()
        };
        assert_eq!(reason, DisconnectReason::ConnectionLost);
    }
}

#[tokio::test]
async fn a_retained_will_is_retained() {
    let rig = Rig::new().await;
    let mut witness = rig.client(&v311("witness")).await;
    witness.subscribe(Protocol::V311, &[("status", 0)]).await;
    drop(
        rig.client(&Connect {
            will: Some(("status", "lost", 0, true)),
            ..v5("device")
        })
        .await,
    );
    assert_eq!(witness.publish(Protocol::V311).await.payload, "lost");
    witness.subscribe(Protocol::V311, &[("status", 0)]).await;
    assert_eq!(witness.publish(Protocol::V311).await.flags, RETAIN);
}

#[tokio::test]
async fn mqtt_5_can_disconnect_and_ask_for_the_will() {
    let mut rig = Rig::new().await;
    let mut client = rig
        .client(&Connect {
            will: Some(("up/will", "asked for", 0, false)),
            ..v5("device")
        })
        .await;
    client.send(&packet(0xE0, &[0x04])).await;
    assert_eq!(rig.message().await.0, b"asked for");
    assert_eq!(rig.departure().await.1, DisconnectReason::ByClientWithWill);
}

#[tokio::test]
async fn a_will_that_may_not_be_published_refuses_the_connection() {
    let rig = Rig::new().await;
    for (protocol, topic, connack) in [
        (Protocol::V311, "forbidden/will", Some(vec![0x20, 2, 0, 5])),
        (Protocol::V5, "forbidden/will", Some(vec![0x20, 3, 0, 0x87, 0])),
        (Protocol::V311, "will/#", None),
        (Protocol::V5, "will/#", Some(vec![0x20, 3, 0, 0x90, 0])),
    ] {
        let mut raw = rig.raw().await;
        raw.send(
            &Connect {
                will: Some((topic, "x", 0, false)),
                ..connect(protocol, "device")
            }
            .bytes(),
        )
        .await;
        if let Some(connack) = connack {
            raw.expect(&connack).await;
        }
        raw.closed().await;
    }
}

/// Will delay of one minute.
const DELAY: [u8; 5] = [0x18, 0, 0, 0, 60];

#[tokio::test(start_paused = true)]
async fn a_delayed_will_waits_for_the_client_to_come_back() {
    let mut rig = Rig::new().await;
    let will = Some(("up/will", "lost", 1, false));
    let hello = Connect {
        will,
        will_properties: DELAY.to_vec(),
        ..persistent(Protocol::V5, "device")
    };
    let began = tokio::time::Instant::now();

    drop(rig.attached(&hello).await);
    assert_eq!(rig.departure().await.1, DisconnectReason::ConnectionLost);
    tokio::time::advance(std::time::Duration::from_secs(59)).await;
    let mut back = rig.attached(&hello).await;
    back.send(&DISCONNECT).await;
    assert_eq!(rig.departure().await.1, DisconnectReason::ByClient);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    assert!(
        rig.inbound.try_recv().is_err(),
        "it came back in time and then said goodbye"
    );

    drop(rig.attached(&hello).await);
    rig.departure().await;
    let lost = tokio::time::Instant::now();
    // Nothing else happens, so time passes until the will does.
    let Inbound::Publish { payload, .. } = rig.inbound.recv().await.unwrap() else {
        panic!()
    };
    assert_eq!((&*payload, lost.elapsed().as_secs()), (&b"lost"[..], 60));

    // A clean start ends the session, and with it the wait.
    drop(rig.attached(&hello).await);
    rig.departure().await;
    drop(
        rig.attached(&Connect {
            clean: true,
            will: None,
            ..hello.clone()
        })
        .await,
    );
    assert_eq!(rig.message().await.0, b"lost");
    rig.departure().await;

    // So does the end of the session's life.
    let short = Connect {
        properties: vec![0x11, 0, 0, 0, 5],
        ..hello
    };
    drop(rig.attached(&short).await);
    rig.departure().await;
    let lost = tokio::time::Instant::now();
    let Inbound::Publish { .. } = rig.inbound.recv().await.unwrap() else {
        panic!()
    };
    assert_eq!(lost.elapsed().as_secs(), 5);
    assert!(began.elapsed().as_secs() > 180, "time was made to pass");
}
