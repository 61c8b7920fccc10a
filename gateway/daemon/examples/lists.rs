//! Measures what a list costs at scale: checking, deciding and applying, the journal, lookup, rollback, snapshot, boot.
//! `cargo run --release -p gateway --example lists [tokens]`; results are kept in docs/measurements.md.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use gateway::{record, store::Store};
use gateway_core::{Config, Gateway, Input, Now};
use proto::{
    artifact::{ListEntry, VerifiedList, Whitelist, sign_list, sign_list_changes, verify_list},
    id::TokenHash,
    message::ClockQuality,
    money::Money,
    trust::{ArtifactKind, Issuer},
};

/// Lookups measured.
const LOOKUPS: u32 = 1_000_000;
const NOW: Now = Now {
    mono_ms: 0,
    wall_s: 1_768_464_000,
    quality: ClockQuality::Synchronised,
};

/// Tokens spread like hashes, so that neighbours in a list are not neighbours in memory.
fn token(n: u32) -> TokenHash {
    let mut token = TokenHash::ZERO;
    token.0[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b1).to_be_bytes());
    token.0[4..8].copy_from_slice(&n.to_be_bytes());
    token
}

fn entries(count: u32) -> Vec<ListEntry> {
    let entry = |n: u32| ListEntry {
        token: token(n),
        account: u64::from(n),
        group: 0,
        valid: true,
        whitelist: Whitelist::Allowed,
        credential_revision: 7,
        balance: Money(12_345),
        not_after_s: 0,
        lease_only: false,
    };
    let mut entries: Vec<ListEntry> = (0..count).map(entry).collect();
    entries.sort_by_key(|entry| entry.token);
    entries
}

fn row(what: &str, took: Duration, note: &str) {
    println!("| {what} | {:.2} ms | {note} |", took.as_secs_f64() * 1_000.0);
}

/// Decides and applies; returns how many events it took.
fn put(gateway: &mut Gateway, input: &Input) -> usize {
    let decision = gateway.decide(&NOW, input);
    for event in &decision.events {
        gateway.apply(&NOW, event);
    }
    decision.events.len()
}

fn checked(signed: &(Vec<u8>, Vec<Vec<u8>>), issuer: &Issuer) -> VerifiedList {
    verify_list(&signed.0, &signed.1, &[issuer.key()]).expect("signed just now")
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = what();
    (result, begun.elapsed())
}

fn main() -> anyhow::Result<()> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let issuer = Issuer::from_seed(&[1; 32]);
    let first = entries(count);
    let mut second = first.clone();
    second.iter_mut().for_each(|entry| entry.balance = Money(12_000));
    second.truncate(count as usize * 97 / 100);
    let mut third = second.clone();
    third
        .iter_mut()
        .step_by(100)
        .for_each(|entry| entry.balance = Money(11_000));

    println!("{count} tokens\n\n| step | time | |\n|---|---|---|");
    let (signed, took) = timed(|| sign_list(&issuer, 1, 0, first.clone()).expect("it fits"));
    let bytes: usize = signed.1.iter().map(Vec::len).sum();
    row("sign a full list (hub)", took, &format!("{bytes} bytes"));
    let (list, took) = timed(|| checked(&signed, &issuer));
    row("check a full list", took, "signature, hashes, order, digest");
    let mut gateway = Gateway::new(Config::default());
    put(&mut gateway, &Input::Boot { boot: 1, epoch: 1 });
    let input = Input::List(list);
    let (events, took) = timed(|| put(&mut gateway, &input));
    row(
        "adopt the first list",
        took,
        &format!("decide and apply {events} events"),
    );
    let input = Input::List(checked(&sign_list(&issuer, 2, 0, second.clone())?, &issuer));
    let (events, took) = timed(|| put(&mut gateway, &input));
    row(
        "adopt a list 3 % shorter",
        took,
        &format!("compared with the active one, {events} events"),
    );
    let signed = sign_list_changes(&issuer, (2, &second), (3, &third), 0)?;
    let input = Input::List(checked(&signed, &issuer));
    let (events, took) = timed(|| put(&mut gateway, &input));
    row("adopt changes to 1 % of it", took, &format!("{events} events"));

    let (found, took) = timed(|| {
        let trust = gateway.trust();
        (0..LOOKUPS)
            .filter(|n| trust.entry(black_box(&token(n % (count + count / 4)))).is_some())
            .count()
    });
    let each_ns = took.as_nanos() / u128::from(LOOKUPS);
    println!(
        "| look up a token | {:.3} us | of {LOOKUPS}, {found} found |",
        each_ns as f64 / 1_000.0
    );
    let (events, took) = timed(|| put(&mut gateway, &Input::RollBack(ArtifactKind::List)));
    row("roll back", took, &format!("{events} event"));
    let (snapshot, took) = timed(|| gateway.snapshot());
    row("take a snapshot", took, "");
    let (snapshot, took) = timed(|| snapshot.into_iter().collect::<Vec<_>>());
    let bytes: usize = snapshot.iter().map(|event| record::encode(&NOW, event).len()).sum();
    row(
        "snapshot of all lists",
        took,
        &format!("{} events, {bytes} bytes", snapshot.len()),
    );
    let (restored, took) = timed(|| {
        let mut made = Gateway::new(Config::default());
        snapshot.iter().for_each(|event| made.apply(&NOW, event));
        made
    });
    anyhow::ensure!(restored == gateway, "a snapshot is the state");
    row("apply that snapshot", took, "");
    journal(&Input::List(checked(&sign_list(&issuer, 1, 0, first)?, &issuer)))
}

/// The same with a journal on disk.
fn journal(input: &Input) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut store, mut gateway) = Store::open(dir.path(), Config::default(), u64::MAX)?;
    let boot = gateway.decide(&NOW, &Input::Boot { boot: 1, epoch: 1 });
    let (_, took) = timed(|| -> anyhow::Result<()> {
        let decision = gateway.decide(&NOW, input);
        for event in boot.events.into_iter().chain(decision.events) {
            store.stage(&mut gateway, &NOW, event);
        }
        Ok(store.commit()?)
    });
    row("adopt it, durably", took, "decide, apply, encode, append, fdatasync");
    store.close(&gateway)?;
    let (opened, took) = timed(|| Store::open(dir.path(), Config::default(), u64::MAX));
    anyhow::ensure!(opened?.1 == gateway, "a boot leads to the same state");
    row("boot from the snapshot", took, "");
    Ok(())
}
