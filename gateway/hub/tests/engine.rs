//! The engine says nothing before its events are durable, and ends when they cannot be.
#![allow(clippy::unwrap_used)]

#[path = "support/process.rs"]
mod process_support;
mod support;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use hub::{
    config,
    core::{Event, GatewayRow, Hub, Input},
    engine::{Ack, Engine, Work},
    links::{FrameError, Links, Route},
    store::{Store, StoreError},
};
use process_support::{Site, secret_of, site_name};
use proto::{
    codec,
    link::{CounterSeen, Echo, LedgerReceipt, RecordKind, Upload},
    seal::Direction,
    topic::{self, Lane, LinkDown, LinkUp},
};
use support::{NOW, SETTINGS, bytes, gateway, greet, hello, record, upload};
use tokio::sync::mpsc;

type Sent = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn frame(word: LinkUp, counter: u64, message: &impl serde::Serialize, acks: &Arc<Mutex<Vec<bool>>>) -> Work {
    frame_by(Route::Endpoint, word, counter, message, acks)
}

fn frame_by(
    route: Route,
    word: LinkUp,
    counter: u64,
    message: &impl serde::Serialize,
    acks: &Arc<Mutex<Vec<bool>>>,
) -> Work {
    let topic = topic::link_up(&site_name(), &gateway(), word, Lane::FIRST);
    let frame = secret_of("gw-1").key(Direction::Up).seal_vec(&topic, counter, message);
    let acks = Arc::clone(acks);
    Work::Frame {
        client: (gateway(), Lane::FIRST),
        route,
        topic: topic.to_string(),
        frame: frame.into(),
        ack: Ack::new(move |taken| acks.lock().unwrap().push(taken)),
    }
}

fn receipts(sent: &Sent) -> Vec<LedgerReceipt> {
    said(sent, LinkDown::Receipt)
}

fn said<T: serde::de::DeserializeOwned>(sent: &Sent, word: LinkDown) -> Vec<T> {
    let topic = topic::link_down(&site_name(), &gateway(), word, Lane::FIRST);
    let key = secret_of("gw-1").key(Direction::Down);
    let sent = sent.lock().unwrap();
    let opened = sent
        .iter()
        .filter(|(to, _)| *to == topic.as_str())
        .map(|(to, frame)| key.open(to, frame, proto::link::LINK_FRAME_BYTES_MAX).unwrap());
    opened.map(|opened| codec::decode(opened.body).unwrap()).collect()
}

#[test]
fn a_failed_sync_lets_nothing_out_and_ends_the_engine() {
    let site = Site::new();
    let config = config::load(&site.path("hub.toml")).unwrap();
    let (sent, acks) = (Sent::default(), Arc::new(Mutex::new(Vec::new())));
    let broken = Arc::new(AtomicBool::new(false));
    for fails in [false, true] {
        broken.store(false, Ordering::SeqCst);
        let mut options = Store::options().create();
        let hook = Arc::clone(&broken);
        options.sync_hook = Some(Arc::new(move |_| {
            if hook.load(Ordering::SeqCst) {
                Err(io::Error::other("the disk is gone"))
            } else {
                Ok(())
            }
        }));
        let (store, hub) = Store::open_with(&site.path("data"), &options).unwrap();
        let sender = Arc::clone(&sent);
        let send =
            move |_: &_, _: Route, topic: topic::Topic, frame| sender.lock().unwrap().push((topic.to_string(), frame));
        let upto = hub.gateways().get(&gateway()).map_or(0, |row| row.upto);
        let engine = Engine::start(&config, store, hub, String::new(), Box::new(send)).unwrap();
        let (queue, work) = mpsc::channel(8);
        let counter = u64::from(fails) * 10;
        queue
            .try_send(frame(LinkUp::Hello, counter + 1, &hello(1, 9), &acks))
            .unwrap();
        let records = vec![bytes(&record(upto + 1, RecordKind::Hold, upto, 12)).into()];
        let first = upto + 1;
        let message = Upload {
            epoch: 1,
            first,
            records,
        };
        queue
            .try_send(frame(LinkUp::Records, counter + 2, &message, &acks))
            .unwrap();
        queue.try_send(Work::Stop).unwrap();
        broken.store(fails, Ordering::SeqCst);
        let ended = engine.run(work);
        if fails {
            assert!(matches!(ended, Err(StoreError::Append(_))), "{ended:?}");
        } else {
            ended.unwrap();
        }
        // Only the first time anything was said or acknowledged.
        assert_eq!(receipts(&sent).len(), 1, "fails: {fails}");
        assert_eq!(receipts(&sent)[0].upto, 1);
        assert_eq!(*acks.lock().unwrap(), [true, true], "fails: {fails}");
    }
}

/// Behind a broker a gateway's connection outlives the hub's: whoever is heard and never said hello to this process is
/// asked to, once.
#[test]
fn a_hub_that_begins_anew_asks_whom_it_hears_to_say_hello() {
    let site = Site::new();
    let config = config::load(&site.path("hub.toml")).unwrap();
    let acks = Arc::new(Mutex::new(Vec::new()));
    let asked = |works: Vec<Work>| -> Vec<CounterSeen> {
        let sent = Sent::default();
        let sender = Arc::clone(&sent);
        let send =
            move |_: &_, _: Route, topic: topic::Topic, frame| sender.lock().unwrap().push((topic.to_string(), frame));
        let (store, hub) = Store::open(&site.path("data"), true).unwrap();
        let engine = Engine::start(&config, store, hub, String::new(), Box::new(send)).unwrap();
        let (queue, work) = mpsc::channel(8);
        for one in works {
            queue.try_send(one).unwrap();
        }
        queue.try_send(Work::Stop).unwrap();
        engine.run(work).unwrap();
        said(&sent, LinkDown::Counter)
    };
    let by_broker = |word, counter, message: &Echo| frame_by(Route::Broker(0), word, counter, message, &acks);
    let greeting = frame_by(Route::Broker(0), LinkUp::Hello, 1, &hello(1, 0), &acks);
    let echo = Echo { nonce: 5 };
    assert_eq!(asked(vec![greeting, by_broker(LinkUp::Echo, 2, &echo)]), []);
    let heard = vec![by_broker(LinkUp::Echo, 3, &echo), by_broker(LinkUp::Echo, 4, &echo)];
    assert_eq!(asked(heard), [CounterSeen { last: 3 }]);
    assert_eq!(
        asked(vec![frame(LinkUp::Echo, 5, &echo, &acks)]),
        [],
        "its own connection ends with the hub's"
    );
}

/// What one lane brings may be overtaken on another; only a hello that would fence has to be the newest of all.
#[test]
fn a_slow_lane_is_greeted_while_a_fast_one_is_busy() {
    let site = Site::new();
    let config = config::load(&site.path("hub.toml")).unwrap();
    let row = GatewayRow {
        epoch: 1,
        upto: 5,
        counter_epoch: 1,
        ..GatewayRow::default()
    };
    let mut links = Links::new(&config.gateways, &BTreeMap::from([(gateway(), row)]), 1);
    const DOUBTED: u64 = 20 + (1 << 20);
    let [fast, slow] = [Lane::FIRST, Lane::new(1).unwrap()];
    let table = [
        ("the fast lane", fast, LinkUp::Hello, 10, 5, None),
        ("and its work", fast, LinkUp::Echo, 15, 5, None),
        ("overtaken by the fast lane", slow, LinkUp::Hello, 11, 5, None),
        ("the same again", slow, LinkUp::Hello, 11, 5, Some(11)),
        ("older on its lane", slow, LinkUp::Hello, 9, 5, Some(11)),
        ("old, and it would fence", slow, LinkUp::Hello, 12, 4, Some(15)),
        (
            "the newest, and it would fence: say it again",
            slow,
            LinkUp::Hello,
            20,
            4,
            Some(DOUBTED),
        ),
        (
            "what was on its way before that",
            fast,
            LinkUp::Hello,
            21,
            5,
            Some(DOUBTED),
        ),
        ("it meant it", slow, LinkUp::Hello, DOUBTED + 1, 4, None),
    ];
    for (what, lane, word, counter, head, behind) in table {
        let topic = topic::link_up(&site_name(), &gateway(), word, lane);
        let key = secret_of("gw-1").key(Direction::Up);
        let frame = match word {
            LinkUp::Hello => key.seal_vec(&topic, counter, &hello(1, head)),
            _ => key.seal_vec(&topic, counter, &Echo { nonce: 5 }),
        };
        let found = match links.open((gateway(), lane), (1, 5), &topic, &frame) {
            Ok(_) => None,
            Err(FrameError::Behind { last, .. }) => Some(last),
            Err(other) => panic!("{what}: {other}"),
        };
        assert_eq!(found, behind, "{what}");
    }
}

/// Refused, it would look like a denial to whoever reads MQTT only.
#[test]
fn a_hello_that_comes_late_is_acknowledged_and_answered() {
    let site = Site::new();
    let config = config::load(&site.path("hub.toml")).unwrap();
    let (sent, acks) = (Sent::default(), Arc::new(Mutex::new(Vec::new())));
    let sender = Arc::clone(&sent);
    let send =
        move |_: &_, _: Route, topic: topic::Topic, frame| sender.lock().unwrap().push((topic.to_string(), frame));
    let (store, hub) = Store::open(&site.path("data"), true).unwrap();
    let engine = Engine::start(&config, store, hub, String::new(), Box::new(send)).unwrap();
    let (queue, work) = mpsc::channel(8);
    for counter in [7, 6] {
        queue
            .try_send(frame(LinkUp::Hello, counter, &hello(1, 0), &acks))
            .unwrap();
    }
    queue
        .try_send(frame(LinkUp::Echo, 5, &Echo { nonce: 5 }, &acks))
        .unwrap();
    queue.try_send(Work::Stop).unwrap();
    engine.run(work).unwrap();
    assert_eq!(*acks.lock().unwrap(), [true, true, false]);
    assert_eq!(said::<CounterSeen>(&sent, LinkDown::Counter), [CounterSeen { last: 7 }]);
}

#[test]
fn a_snapshot_is_written_beside_the_batches_and_holds_the_state_at_its_begin() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut hub) = Store::open(dir.path(), true).unwrap();
    let tokens = (0..4_000_u16).map(|n| {
        let mut token = support::token(1);
        token.0[..2].copy_from_slice(&n.to_be_bytes());
        (token, support::spec())
    });
    let imported = hub.step(NOW, &SETTINGS, &Input::Import(support::catalogue(tokens)));
    store.append(&imported.events).unwrap();
    store.snapshot_when_due(&hub);
    assert!(!store.is_snapshot_under_way(), "not due");
    let due = vec![Event::Dated { wall_s: 1 }; 50_000];
    due.iter().for_each(|event| hub.apply(event));
    store.append(&due).unwrap();

    let at = store.reader().head().sequence;
    store.snapshot_when_due(&hub);
    assert!(store.is_snapshot_under_way());
    while store.is_snapshot_under_way() {
        let booted = hub.step(NOW, &SETTINGS, &Input::Start);
        store.append(&booted.events).unwrap();
        store.snapshot_when_due(&hub);
    }
    let written_at = store.reader().latest_snapshot().unwrap().unwrap().at_sequence();
    assert_eq!(written_at, at, "as it was when it was begun");
    assert!(store.reader().head().sequence > at, "nobody waited for it");
    store.close().unwrap();
    let (again, restored) = Store::open(dir.path(), false).unwrap();
    assert_eq!(restored, hub, "the snapshot, and what was appended meanwhile");
    drop(again);
}

#[test]
fn a_store_gives_back_what_it_took_with_and_without_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut hub) = Store::open(dir.path(), true).unwrap();
    assert_eq!(hub, Hub::default());
    let step = |hub: &mut Hub, store: &mut Store, input: &Input| {
        let decision = hub.step(NOW, &SETTINGS, input);
        store.append(&decision.events).unwrap();
    };
    step(
        &mut hub,
        &mut store,
        &Input::Import(support::catalogue([(support::token(1), support::spec())])),
    );
    step(&mut hub, &mut store, &greet(hello(1, 0), 1));
    for n in 1..=40 {
        let poison = n % 10 == 0;
        let sent = if poison {
            vec![0xff; 9000]
        } else {
            bytes(&record(n, RecordKind::Hold, n, 12))
        };
        step(&mut hub, &mut store, &upload(1, n, [sent]));
        if n % 7 == 0 {
            store.snapshot(&hub).unwrap();
        }
        if n % 5 == 0 {
            store.close().unwrap();
            let (again, restored) = Store::open(dir.path(), false).unwrap();
            assert_eq!(restored, hub, "after record {n}");
            store = again;
        }
    }
    assert_eq!((hub.quarantine().len(), hub.book().holds().count()), (4, 36));
    drop(store);
    let other = Store::open_with(dir.path(), &journal::Options::new("gateway", 1));
    assert!(matches!(
        other,
        Err(StoreError::Open(journal::OpenError::WrongKind { .. }))
    ));
}
