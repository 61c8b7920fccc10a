//! More than fits a batch: the next one is decided while the one before is being written, and nothing is let out that is
//! not durable.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

#[path = "support/site.rs"]
mod support;

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    task::{Context, Poll, Wake, Waker},
};

use gateway::{
    clock::Clock,
    cloud::start,
    devices::{Opener, Port, Sealer, external::Outward},
    engine::{Engine, JOBS_MAX, Job, Position, Shell},
    store::Store,
};
use gateway_core::Input;
use journal::Reader;
use proto::id::TokenKey;
use support::{Site, config, state};
use tokio::sync::{mpsc, oneshot, watch};

/// Several full batches.
const ORDERS: usize = 900;

/// Notes how much is durable at the moment at which an answer is let out.
struct Noting {
    reader: Reader,
    durable: Mutex<Option<u64>>,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        *self.durable.lock().unwrap() = Some(self.reader.head().sequence);
    }
}

fn engine(dir: &Path) -> (Engine, Reader, watch::Receiver<Position>) {
    let (store, gateway) = Store::open(dir, config(), u64::MAX).unwrap();
    let boot = gateway.timeline().boot + 1;
    let nobody = BTreeMap::new();
    let (position, watched) = watch::channel(Position::default());
    let shell = Shell {
        port: Port::External(Outward::default()),
        link: None,
        link_up: Arc::new(AtomicBool::new(false)),
        board: start::board(None, Arc::default()),
        epoch_expected: Arc::default(),
        position,
        opener: Arc::new(Opener::new(&nobody, TokenKey([0; 32]))),
        issuer_keys: Vec::new(),
        rejected: Arc::new(AtomicU64::new(0)),
    };
    let (reader, sealer) = (store.reader(), Sealer::new(&nobody, boot));
    let engine = Engine::start(gateway, store, sealer, Clock::start(), shell, boot, 1).unwrap();
    (engine, reader, watched)
}

#[test]
fn nothing_leaves_a_crowded_engine_that_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, reader, position) = engine(dir.path());
    let before = reader.head().sequence;
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    // Each changes something, so each is a record.
    let mut answers = Vec::new();
    for number in 0..ORDERS {
        let (reply, answer) = oneshot::channel();
        let is_scarce = number % 2 == 0;
        jobs.try_send(Job::Order(Box::new(Input::Disk { is_scarce }), reply))
            .unwrap();
        let noting = Arc::new(Noting {
            reader: reader.clone(),
            durable: Mutex::new(None),
        });
        answers.push((answer, noting));
    }
    for (answer, noting) in &mut answers {
        let waker = Waker::from(noting.clone());
        let polled = pin!(answer).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "nobody has decided anything yet");
    }
    jobs.try_send(Job::Shutdown).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(engine.run(inbox)).unwrap();
    for (number, (answer, noting)) in answers.iter_mut().enumerate() {
        let polled = pin!(answer).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(_))), "order {number}: {polled:?}");
        let durable = noting.durable.lock().unwrap().unwrap();
        let own = before + number as u64 + 1;
        assert!(
            durable >= own,
            "order {number} is record {own}, and {durable} were durable"
        );
    }
    assert_eq!(reader.head().sequence, before + ORDERS as u64);
    assert_eq!(position.borrow().boot, 1);
}

#[test]
fn what_is_written_beside_the_next_batch_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    for _ in 0..20 {
        site.pass(60_000);
        site.draw();
        site.store.lend().unwrap();
    }
    site.draw();
    site.store.settle().unwrap();
    site.store.commit().unwrap();
    let kept = state(&site.gateway);
    // And one that nobody waits for any more: it is written whole, before the journal is let go.
    site.pass(60_000);
    site.draw();
    site.store.lend().unwrap();
    let lent = state(&site.gateway);
    drop(site.store);
    let (_, gateway) = Store::open(dir.path(), config(), u64::MAX).unwrap();
    assert_ne!(kept, lent);
    assert_eq!(state(&gateway), lent);
}
