//! Artifacts from a file, through the desk and the engine, to the journal; and what an operator may do with them.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gateway::{
    artifacts::Desk,
    clock::Clock,
    control::{self, Gated, Query},
    devices::{Opener, Port, Sealer, blocked::Blocked, external::Outward},
    door::Door,
    engine::{Engine, JOBS_MAX, Job, Position, Shell},
    files::Attached,
    store::Store,
};
use proto::{
    artifact::{
        IssuerKeys, ListEntry, PublicKey, Reason, Revocations, RevokedScope, Subject, Whitelist, sign, sign_list,
        sign_list_changes, write_bundle,
    },
    id::{TokenHash, TokenKey},
    link::ArtifactPart,
    money::Money,
    trust::{ArtifactKind, Issuer},
};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

const ENTRIES: u32 = 100_000;

fn issuer(seed: u8) -> Issuer {
    Issuer::from_seed(&[seed; 32])
}

fn entries(count: u32) -> Vec<ListEntry> {
    let entry = |n: u32| {
        let mut token = TokenHash::ZERO;
        token.0[..4].copy_from_slice(&n.to_be_bytes());
        ListEntry {
            token,
            account: u64::from(n),
            group: 0,
            valid: true,
            whitelist: Whitelist::Allowed,
            credential_revision: 1,
            balance: Money(1_000),
            not_after_s: 0,
            lease_only: false,
        }
    };
    (0..count).map(entry).collect()
}

fn parts(kind: ArtifactKind, revision: u64, (envelope, chunks): (Vec<u8>, Vec<Vec<u8>>)) -> Vec<ArtifactPart> {
    let count = 1 + chunks.len() as u32;
    let all = std::iter::once(envelope).chain(chunks).zip(0..);
    all.map(|(bytes, part)| ArtifactPart {
        kind,
        revision,
        part,
        parts: count,
        bytes: bytes.into(),
    })
    .collect()
}

fn list(signer: u8, revision: u64, entries: Vec<ListEntry>) -> Vec<ArtifactPart> {
    let signed = sign_list(&issuer(signer), revision, 1_768_464_000, entries).unwrap();
    parts(ArtifactKind::List, revision, signed)
}

fn small<T: serde::Serialize>(signer: u8, kind: ArtifactKind, revision: u64, content: &T) -> Vec<ArtifactPart> {
    parts(
        kind,
        revision,
        (sign(&issuer(signer), kind, content).unwrap(), Vec::new()),
    )
}

fn keys(signer: u8, epoch: u64, seeds: &[u8]) -> Vec<ArtifactPart> {
    let keys = seeds.iter().map(|&seed| PublicKey::from(issuer(seed).key())).collect();
    small(signer, ArtifactKind::Keys, epoch, &IssuerKeys { epoch, keys })
}

fn revoked_account(signer: u8, revision: u64, account: u64) -> Vec<ArtifactPart> {
    let scope = RevokedScope::new(Subject::Account(account), Reason::Fraud);
    let content = Revocations {
        revision,
        entries: vec![],
        scopes: vec![scope],
    };
    small(signer, ArtifactKind::Revocations, revision, &content)
}

/// A gateway without devices and without a cloud.
struct Site {
    dir: tempfile::TempDir,
    jobs: mpsc::Sender<Job>,
    rejected: Arc<AtomicU64>,
    engine: std::thread::JoinHandle<()>,
    /// Of this start alone: whatever still holds the journal ends with it.
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn start(dir: tempfile::TempDir) -> Self {
        let (store, gateway) = Store::open(dir.path(), gateway_core::Config::default(), 50_000).unwrap();
        let boot = gateway.timeline().boot + 1;
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let rejected = Arc::new(AtomicU64::new(0));
        let nobody = std::collections::BTreeMap::new();
        let shell = Shell {
            port: Port::External(Outward::default()),
            link: None,
            link_up: Arc::new(AtomicBool::new(false)),
            board: gateway::cloud::start::board(None, Arc::default()),
            epoch_expected: Arc::default(),
            position: watch::channel(Position::default()).0,
            opener: Arc::new(Opener::new(&nobody, TokenKey([0; 32]))),
            issuer_keys: vec![issuer(1).key()],
            rejected: rejected.clone(),
        };
        let sealer = Sealer::new(&nobody, boot);
        let reader = store.reader();
        let engine = Engine::start(gateway, store, sealer, Clock::start(), shell, boot, 1).unwrap();
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let thread = std::thread::spawn(move || runtime().block_on(engine.run(inbox)).unwrap());
        let desk = Desk::new(jobs.clone(), rejected.clone());
        let path = dir.path().to_owned();
        let control = {
            let jobs = jobs.clone();
            async move {
                let firmware = gateway::firmware::start(&path, std::iter::empty(), &[], jobs.clone()).unwrap();
                let sources = control::Sources {
                    reader,
                    engine: jobs,
                    desk,
                    firmware,
                    blocked: Blocked::default(),
                    reloader: None,
                };
                control::serve(&path, Door::new(None).unwrap(), sources).await.unwrap();
            }
        };
        let serving = runtime();
        serving.block_on(control);
        Self {
            dir,
            jobs,
            rejected,
            engine: thread,
            runtime: serving,
        }
    }

    fn stop(self) -> tempfile::TempDir {
        self.jobs.blocking_send(Job::Shutdown).unwrap();
        self.engine.join().unwrap();
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        self.dir
    }

    fn ask(&self, query: Query) -> Value {
        self.runtime.block_on(control::ask(self.dir.path(), &query)).unwrap()
    }

    fn take_in(&self, file: &Path) -> Value {
        let file = Attached::read(file, 64 << 20).unwrap();
        self.runtime.block_on(control::import(self.dir.path(), &file)).unwrap()
    }

    fn file(&self, parts: &[Vec<ArtifactPart>]) -> PathBuf {
        let file = self.dir.path().join("artifacts");
        std::fs::write(&file, write_bundle(parts.iter().flatten())).unwrap();
        file
    }

    /// What became of each artifact.
    fn import(&self, parts: &[Vec<ArtifactPart>]) -> Vec<String> {
        let file = self.file(parts);
        let answer = self.take_in(&file);
        let rows = answer.as_array().unwrap_or_else(|| panic!("{answer}"));
        rows.iter()
            .map(|row| row["result"].as_str().unwrap().to_owned())
            .collect()
    }

    fn status(&self, field: &str) -> u64 {
        self.ask(Query::Status)[field].as_u64().unwrap()
    }
}

#[test]
fn a_file_is_believed_as_far_as_it_is_signed() {
    let site = Site::start(tempfile::tempdir().unwrap());
    let all = [keys(1, 1, &[2]), revoked_account(2, 1, 9), list(2, 5, entries(100))];
    assert_eq!(site.import(&all), ["done"; 3]);
    // Forged: an alarm, and nothing else.
    let before = site.ask(Query::Lists);
    let unknown = |key: &Issuer| format!("rejected: no pinned issuer key has the id {:02x?}", key.key().id());
    let forged = [revoked_account(7, 2, 8), list(1, 6, entries(100)), keys(7, 2, &[7])];
    let results = site.import(&forged);
    assert_eq!(
        results,
        [unknown(&issuer(7)), unknown(&issuer(1)), unknown(&issuer(7))],
        "1 is retired"
    );
    let mut cut = list(2, 6, entries(100));
    cut[1].bytes.truncate(50);
    let mut other = list(2, 6, entries(100));
    other[0].bytes.reverse();
    let results = site.import(&[cut, other]);
    assert_eq!(results[0], "rejected: chunk 0 does not have the signed hash");
    assert!(results[1].starts_with("rejected: not a signed envelope"), "{results:?}");
    assert_eq!(site.rejected.load(Ordering::Relaxed), 5);
    assert_eq!(site.status("artifacts_rejected"), 5);
    assert_eq!(site.status("revocations_revision"), 1);
    assert_eq!(site.ask(Query::Lists)["revision"], before["revision"]);
    // Older, and the same again.
    let results = site.import(&[list(2, 4, entries(100)), list(2, 5, entries(100))]);
    let stale = |found| format!("ignored: list revision {found} is not newer than the active 5");
    assert_eq!(results, [stale(4), stale(5)]);
    // Not a file of artifacts at all.
    let file = site.dir.path().join("artifacts");
    std::fs::write(&file, "something else").unwrap();
    let answer = site.take_in(&file);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .ends_with("not a file of signed artifacts"),
        "{answer}"
    );
    let mut half = list(2, 6, entries(1_000));
    half.pop();
    std::fs::write(&file, write_bundle(&half)).unwrap();
    let answer = site.take_in(&file);
    assert!(
        answer["error"].as_str().unwrap().ends_with("lacks some of its parts"),
        "{answer}"
    );
    site.stop();
}

#[test]
fn an_operator_looks_adopts_and_goes_back() {
    let site = Site::start(tempfile::tempdir().unwrap());
    let (before, mut after) = (entries(100), entries(60));
    after[0].valid = false;
    after[1].balance = Money(5);
    site.import(&[list(1, 1, before.clone())]);
    let nothing = site.ask(Query::Diff { what: Gated::List });
    assert_eq!(nothing["error"], "no list is set aside");
    let results = site.import(&[list(1, 2, after.clone())]);
    assert_eq!(results, ["list revision 2 is set aside: 60 entries instead of 100"]);
    assert_eq!((site.status("list_revision"), site.status("list_aside")), (1, 2));
    let diff = site.ask(Query::Diff { what: Gated::List });
    let counts = ["left", "joined", "blocked", "poorer", "richer"].map(|word| diff[word].as_u64().unwrap());
    assert_eq!(counts, [40, 0, 1, 1, 0], "{diff}");
    assert_eq!(diff["left_tokens"].as_array().unwrap().len(), 20);
    let adopt = |revision| Query::Adopt {
        what: Gated::List,
        revision,
    };
    assert_eq!(site.ask(adopt(9))["error"], "ignored: no such list is set aside");
    assert_eq!(site.ask(adopt(2))["result"], "done");
    // All of it lives in the journal.
    let site = Site::start(site.stop());
    assert_eq!((site.status("list_revision"), site.status("tokens")), (2, 60));
    assert_eq!(site.ask(Query::RollBack { what: Gated::List })["result"], "done");
    assert_eq!(
        site.ask(Query::RollBack { what: Gated::List })["error"],
        "ignored: there is no list to go back to"
    );
    let site = Site::start(site.stop());
    assert_eq!((site.status("list_revision"), site.status("tokens")), (1, 100));
    let lists = site.ask(Query::Lists);
    assert_eq!(lists[1]["why"], "an operator went back from it");
    let tariffs = Query::Diff { what: Gated::Tariffs };
    assert_eq!(site.ask(tariffs)["error"], "no tariffs are set aside");
    // Changes to a list that is not ours.
    let signed = sign_list_changes(&issuer(1), (2, &after), (3, &before), 0).unwrap();
    let results = site.import(&[parts(ArtifactKind::List, 3, signed)]);
    assert_eq!(
        results,
        ["ignored: list revision 3 comes as changes to revision 2, the active one is 1"]
    );
    site.stop();
}

/// The scale of semantics, section 10. The times are those of an unoptimised build on a shared machine; what a release
/// build needs is in docs/measurements.md.
#[test]
fn a_hundred_thousand_tokens_and_the_way_back() {
    let site = Site::start(tempfile::tempdir().unwrap());
    let mut after = entries(ENTRIES);
    after.truncate(ENTRIES as usize * 97 / 100);
    for (revision, entries) in [(1, entries(ENTRIES)), (2, after.clone())] {
        let begun = Instant::now();
        assert_eq!(site.import(&[list(1, revision, entries)]), ["done"]);
        println!(
            "list {revision}: read, checked, adopted and durable in {:?}",
            begun.elapsed()
        );
    }
    let begun = Instant::now();
    assert_eq!(site.ask(Query::RollBack { what: Gated::List })["result"], "done");
    let took = begun.elapsed();
    println!("rolled back and durable in {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(site.status("tokens"), u64::from(ENTRIES));
    site.stop();
}
