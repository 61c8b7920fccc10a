//! A journal that was put back from a backup, over a real link: it goes on above the counter that the hub remembers, and
//! says nothing that would follow on records which the hub has and it has not.
#![allow(clippy::unwrap_used)]

#[path = "support/link.rs"]
mod link;
#[path = "support/site.rs"]
mod support;

use gateway::{control::Query, engine::Job};
use link::{FakeHub, PATIENCE, start};
use proto::{
    id::Hash,
    link::CounterSeen,
    topic::{LinkDown, LinkUp},
};
use support::Site;
use tokio::sync::{mpsc, oneshot};

/// Waits until the status says that the hub expects this epoch.
async fn wait_for(jobs: &mpsc::Sender<Job>, epoch_expected: u64) {
    let asked = async {
        loop {
            let (reply, answer) = oneshot::channel();
            jobs.send(Job::Query(Query::Status, reply)).await.unwrap();
            if answer.await.unwrap()["epoch_expected"] == epoch_expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
}

/// The next hello, and its counter; nothing else may be said before it is agreed to.
async fn hello(hub: &mut FakeHub) -> u64 {
    loop {
        let (word, counter, _, _) = hub.hear().await;
        match word {
            LinkUp::Hello => return counter,
            LinkUp::Done | LinkUp::Ask | LinkUp::Echo => {}
            LinkUp::Records | LinkUp::Telemetry => panic!("{word:?} before an agreement"),
        }
    }
}

/// Two sessions are in the journal; the hub has `upto` records of another line.
async fn check(upto: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    site.draw();
    site.draw();
    let head = site.gateway.outbox().head();
    site.store.commit().unwrap();
    let gateway = site.gateway.clone();
    site.store.close(&gateway).unwrap();

    let mut hub = FakeHub::start().await;
    let jobs = start(dir.path(), hub.endpoint.local_addr().to_string());
    hello(&mut hub).await;
    // It was at boot 9 when it wrote what it has forgotten: that hello is not taken.
    let last = 9 << 32;
    hub.say(LinkDown::Counter, &CounterSeen { last });
    assert!(hello(&mut hub).await > last);
    (hub.upto, hub.hash) = (upto, Hash([9; 32]));
    let welcome = hub.welcome();
    hub.say(LinkDown::Welcome, &welcome);
    wait_for(&jobs, 2).await;
    // Every connection begins with a hello, so nothing else was said on this one.
    hub.disconnect();
    hello(&mut hub).await;

    // The same line as ours.
    (hub.upto, hub.hash) = (0, Hash::ZERO);
    let welcome = hub.welcome();
    hub.say(LinkDown::Welcome, &welcome);
    wait_for(&jobs, 0).await;
    hub.report().await;
    assert_eq!(hub.upto, head, "every record arrives");
    jobs.send(Job::Shutdown).await.unwrap();
}

#[tokio::test]
async fn a_hub_with_fewer_other_records_gets_none_and_the_operator_is_told() {
    check(1).await;
}

#[tokio::test]
async fn a_hub_with_as_many_other_records_gets_none_and_the_operator_is_told() {
    check(6).await;
}

#[tokio::test]
async fn a_hub_with_more_records_gets_none_and_the_operator_is_told() {
    check(7).await;
}
