//! A link that has much to do: it goes on with the rest, and takes what does not fit for what it is.
#![allow(clippy::unwrap_used)]

#[path = "support/link.rs"]
mod link;
#[path = "support/site.rs"]
mod support;

use gateway::{cloud::LinkJob, engine::Job};
use gateway_core::Input;
use link::{Alone, FakeHub};
use proto::{
    codec,
    id::{Kind, SessionId, TokenHash},
    link::{ArtifactPart, Ask, Echo},
    money::Money,
    topic::{LinkDown, LinkUp},
    trust::ArtifactKind,
};

/// More questions than fit every queue on the way.
const ASKS_MAX: u64 = 5_000;

/// Waits until the hub hears this echo.
async fn hear_echo(hub: &mut FakeHub, nonce: u64) {
    loop {
        let (word, _, body, _) = hub.hear().await;
        if word == LinkUp::Echo && codec::decode::<Echo>(&body).unwrap().nonce == nonce {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_checked_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = FakeHub::start().await;
    let mut alone = Alone::start(dir.path(), hub.endpoint.local_addr().to_string());
    alone.greet(&mut hub).await;
    let part = ArtifactPart {
        kind: ArtifactKind::Revocations,
        revision: 1,
        part: 0,
        parts: 1,
        bytes: vec![0; 8].into(),
    };
    hub.say(LinkDown::Artifact, &part);
    // The check begins and does not end: nobody says under which keys.
    let _keys = loop {
        if let Job::Signers(kind, reply) = alone.wants().await {
            assert_eq!(kind, ArtifactKind::Revocations);
            break reply;
        }
    };
    alone.link.send(LinkJob::Echo(Echo { nonce: 7 })).await.unwrap();
    hear_echo(&mut hub, 7).await;
    hub.say(LinkDown::Echo, &Echo { nonce: 7 });
    loop {
        if let Job::Cloud(Input::Echo { nonce }) = alone.wants().await {
            assert_eq!(nonce, 7);
            break;
        }
    }
}

#[tokio::test]
async fn a_full_queue_costs_the_question_and_not_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = FakeHub::start().await;
    let mut alone = Alone::start(dir.path(), hub.endpoint.local_addr().to_string());
    alone.greet(&mut hub).await;
    let ask = |ask| {
        LinkJob::Ask(Ask {
            ask,
            session: SessionId::ZERO,
            token: TokenHash([1; 16]),
            kind: Kind::Charger,
            amount: Money(1),
        })
    };
    // The hub hears nothing of all this for now.
    let mut asked = 0;
    let lost = 'asking: loop {
        asked += 1;
        assert!(asked < ASKS_MAX, "it fits");
        alone.link.send(ask(asked)).await.unwrap();
        // The link takes it, on this very thread: what gets full is the queue of the connection.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        while let Ok(job) = alone.jobs.try_recv() {
            if let Job::Cloud(Input::Trouble { ask, code }) = job {
                assert_eq!(code, 429, "no failure of the cloud's");
                break 'asking ask;
            }
        }
    };
    assert!((1..=asked).contains(&lost));
    let mut heard = 0;
    while heard < lost - 1 {
        let (word, _, body, _) = hub.hear().await;
        if word == LinkUp::Ask {
            heard += 1;
            assert_eq!(
                codec::decode::<Ask>(&body).unwrap().ask,
                heard,
                "in order, none missing"
            );
        }
    }
    alone.link.send(LinkJob::Echo(Echo { nonce: 7 })).await.unwrap();
    hear_echo(&mut hub, 7).await;
    assert_eq!(hub.connections, 1);
}
