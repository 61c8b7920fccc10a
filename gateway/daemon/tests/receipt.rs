//! A receipt that is lost on its way, when nothing new follows that would bring another one; and an upload that is.
#![allow(clippy::unwrap_used)]

#[path = "support/link.rs"]
mod link;
#[path = "support/site.rs"]
mod support;

use gateway::{control::Query, engine::Job};
use gateway_core::Input;
use link::{Alone, FakeHub, PATIENCE, start};
use proto::{
    codec,
    id::Hash,
    link::{LedgerReceipt, Upload, chain},
    topic::{LinkDown, LinkUp},
};
use support::Site;
use tokio::sync::{mpsc, oneshot};

async fn waiting(jobs: &mpsc::Sender<Job>) -> u64 {
    let (reply, answer) = oneshot::channel();
    jobs.send(Job::Query(Query::Status, reply)).await.unwrap();
    answer.await.unwrap()["waiting"].as_u64().unwrap()
}

/// The next message with this word; hellos before it are answered.
async fn hear(hub: &mut FakeHub, wanted: LinkUp) -> Vec<u8> {
    loop {
        let (word, _, body, _) = hub.hear().await;
        if word == wanted {
            return body;
        }
        if word == LinkUp::Hello {
            hub.say(LinkDown::Welcome, &hub.welcome());
        }
    }
}

/// A gateway with records that nobody heard yet, before a hub; and the newest record.
async fn begin(dir: &std::path::Path) -> (FakeHub, mpsc::Sender<Job>, u64) {
    let mut site = Site::new(dir);
    site.draw();
    let head = site.gateway.outbox().head();
    site.store.commit().unwrap();
    let gateway = site.gateway.clone();
    site.store.close(&gateway).unwrap();
    let hub = FakeHub::start().await;
    let jobs = start(dir, hub.endpoint.local_addr().to_string());
    (hub, jobs, head)
}

#[tokio::test]
async fn an_upload_that_the_hub_never_heard_goes_up_again_on_the_same_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, jobs, _) = begin(dir.path()).await;
    let lost: Upload = codec::decode(&hear(&mut hub, LinkUp::Records).await).unwrap();
    assert_eq!(lost.first, 1);
    // What a hub says to one that does not follow on what it has.
    let receipt = proto::link::LedgerReceipt {
        epoch: 1,
        ..proto::link::LedgerReceipt::default()
    };
    hub.say(LinkDown::Receipt, &receipt);
    loop {
        let (word, _, body, _) = hub.hear().await;
        assert_ne!(word, LinkUp::Hello, "the connection is good");
        if word == LinkUp::Records {
            let again: Upload = codec::decode(&body).unwrap();
            assert_eq!(again.first, 1);
            break;
        }
    }
    jobs.send(Job::Shutdown).await.unwrap();
}

/// How long we were without the hub sets the pace of the backlog: only what the hub really committed ends that time.
#[tokio::test]
async fn a_receipt_counts_when_it_says_something_new_about_our_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    site.draw();
    let head = site.gateway.outbox().head();
    site.store.commit().unwrap();
    let gateway = site.gateway.clone();
    site.store.close(&gateway).unwrap();
    let mut hub = FakeHub::start().await;
    let mut alone = Alone::start(dir.path(), hub.endpoint.local_addr().to_string());
    alone.position.send_modify(|position| position.head = head);
    alone.greet(&mut hub).await;
    let upload: Upload = codec::decode(&hear(&mut hub, LinkUp::Records).await).unwrap();
    let records = upload.records.iter();
    let own = records.fold(Hash::ZERO, |hash, record| chain(&hash, record));
    let upto = upload.records.len() as u64;
    let began = alone.board.receipted_at();
    let table = [
        ("nothing new", 0, Hash::ZERO, false),
        ("another's hash", upto, Hash([9; 32]), false),
        ("ours", upto, own, true),
    ];
    for (what, upto, hash, counts) in table {
        let receipt = LedgerReceipt {
            epoch: 1,
            upto,
            hash,
            ..LedgerReceipt::default()
        };
        hub.say(LinkDown::Receipt, &receipt);
        while !matches!(alone.wants().await, Job::Cloud(Input::Receipt { .. })) {}
        assert_eq!(alone.board.receipted_at() > began, counts, "{what}");
    }
}

#[tokio::test]
async fn what_a_lost_receipt_was_for_is_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, jobs, head) = begin(dir.path()).await;
    // Everything is committed there, and the connection breaks before anybody hears of it.
    while hub.upto < head {
        let upload: Upload = codec::decode(&hear(&mut hub, LinkUp::Records).await).unwrap();
        assert_eq!(upload.first, hub.upto + 1);
        hub.upto += upload.records.len() as u64;
        hub.hash = upload
            .records
            .iter()
            .fold(hub.hash, |hash, record| chain(&hash, record));
    }
    assert_eq!(waiting(&jobs).await, head);
    hub.disconnect();

    let again: Upload = codec::decode(&hear(&mut hub, LinkUp::Records).await).unwrap();
    assert_eq!(again.first, 1, "from the cursor, though the hub's welcome is further");
    let receipt = proto::link::LedgerReceipt {
        epoch: 1,
        upto: hub.upto,
        hash: hub.hash,
        ..proto::link::LedgerReceipt::default()
    };
    hub.say(LinkDown::Receipt, &receipt);
    let gone = async {
        while waiting(&jobs).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    jobs.send(Job::Shutdown).await.unwrap();
}
