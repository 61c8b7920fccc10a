//! Telemetry of a real engine over a real link: it arrives, it says what `status` says, and no report goes before a
//! record that waits.
#![allow(clippy::unwrap_used)]

#[path = "support/link.rs"]
mod link;
#[path = "support/site.rs"]
mod support;

use gateway::{control::Query, engine::Job};
use link::{FakeHub, start};
use mqtt_endpoint::Qos;
use proto::link::Mode;
use support::Site;
use tokio::sync::oneshot;

/// Three records each: more than two uploads, so that the backlog goes at a pace.
const SESSIONS: u64 = 130;

/// So many reports later all is quiet.
const REPORTS_AT_MOST: u32 = 20;

#[tokio::test]
async fn a_report_arrives_says_what_status_says_and_never_before_the_backlog_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    for _ in 0..SESSIONS {
        site.draw();
        site.pass(130_000);
    }
    let head = site.gateway.outbox().head();
    assert_eq!(head, 3 * SESSIONS);
    site.store.commit().unwrap();
    let gateway = site.gateway.clone();
    site.store.close(&gateway).unwrap();

    let mut hub = FakeHub::start().await;
    let jobs = start(dir.path(), hub.endpoint.local_addr().to_string());
    let (first, qos) = hub.report().await;
    assert_eq!(hub.upto, head, "not before the last record of the backlog");
    assert!(
        first.shed > 0,
        "the backlog goes for seconds, and a report is due every second"
    );
    assert_eq!(qos, Qos::AtMostOnce);
    assert_eq!((first.list_revision, first.tariffs_revision), (1, 1));
    assert_eq!((first.sessions_open, first.devices_connected), (0, None));

    // The receipt of the last upload may still be on its way to the engine, and a busy machine may have shed one more; one
    // that comes later has the receipt and nothing to say of that.
    let mut told = hub.report().await.0;
    for _ in 0..REPORTS_AT_MOST {
        if (told.waiting, told.shed) == (0, 0) {
            break;
        }
        told = hub.report().await.0;
    }
    assert_eq!((told.shed, told.waiting_s), (0, 0));
    assert_eq!(told.commit.mode, Mode::Online);
    let (reply, answer) = oneshot::channel();
    jobs.send(Job::Query(Query::Status, reply)).await.unwrap();
    let status = answer.await.unwrap();
    for (key, value) in [
        ("exposure", told.exposure.0),
        ("budget_left", told.budget_left.0),
        ("list_revision", told.list_revision as i64),
        ("waiting", told.waiting as i64),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert!(status["up_s"].as_u64().unwrap() >= told.up_s);
    assert_eq!(status["sessions_open"], told.sessions_open);
    jobs.send(Job::Shutdown).await.unwrap();
}
