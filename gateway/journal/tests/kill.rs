//! kill -9 at random moments: no acknowledged record is lost, no batch is torn, no snapshot is half there.

#![allow(clippy::unwrap_used)]

mod support;

use support::writer::{Writer, append_until_stopped, check};
use support::{Random, open};

const KILLS: u32 = 40;

#[test]
#[ignore = "the writer that the test below kills"]
fn appends_until_it_is_killed() {
    append_until_stopped();
}

#[test]
fn kill_nine_loses_no_acknowledged_record_and_tears_no_batch() {
    let mut random = Random::from_env();
    let dir = tempfile::tempdir().unwrap();
    let (mut total, mut unacknowledged, mut early) = (0, 0, 0);
    for round in 0..KILLS {
        let mut writer = Writer::start("appends_until_it_is_killed", dir.path(), &mut random);
        // One in eight dies while starting or opening; the others after some acknowledgements.
        let lines = if random.below(8) == 0 { 0 } else { 4 + random.below(60) };
        writer.work(lines, &mut random);
        let acknowledged = writer.kill();
        let journal = open(dir.path());
        let head = check(&journal);
        assert!(
            head >= acknowledged.unwrap_or(0).max(total),
            "round {round}: {acknowledged:?} acknowledged, {head} found"
        );
        early += u32::from(acknowledged.is_none());
        unacknowledged += head - acknowledged.unwrap_or(total);
        total = head;
    }
    let oldest = open(dir.path()).oldest_sequence();
    println!(
        "{KILLS} kills ({early} before the first acknowledgement), {total} records, {unacknowledged} of them found \
         though not acknowledged, pruned below {oldest}"
    );
    assert!(total > 1000 && early < KILLS / 2, "the writer hardly ran");
    assert!(oldest > 1, "no snapshot was completed, so nothing was pruned");
}
