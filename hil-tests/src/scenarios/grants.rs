//! A man between device and gateway: grants come late, twice, for nobody, and from nobody.

use anyhow::{Context, ensure};
use proto::{
    id::Kind,
    message::StopReason,
    seal::{Direction, OVERHEAD_BYTES, PairSecret},
    topic::Down,
};

use super::{ALL, Bench, Cast, ONE, Scenario};
use crate::{
    rig::{Skill, module::Message, words},
    twin::usual_thing,
};

const NEEDS: &[Skill] = &[Skill::Card, Skill::Things, Skill::Cable];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a grant comes late, and twice",
        cast: Cast::Each(ALL),
        needs: NEEDS,
        tell: late_and_twice,
    },
    Scenario {
        name: "a grant comes when nobody waits any more",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things, Skill::Cable, Skill::Stop],
        tell: too_late,
    },
    Scenario {
        name: "a grant is forged",
        cast: Cast::Each(&[Kind::Charger, Kind::Dispenser]),
        needs: NEEDS,
        tell: forged,
    },
];

/// How late, in ms: longer than the device takes to ask again.
const LATE_MS: u64 = 5_000;
/// How long a device is watched that must not do anything, in ms.
const WATCHED_MS: u64 = 3_000;

/// Somebody asks, and the grant is held back.
fn ask_held(bench: &mut Bench, card: &[u8]) -> anyhow::Result<usize> {
    let at = bench.board(ONE).log().len();
    bench.board(ONE).module().hold(Some(Down::Grant))?;
    let thing = usual_thing(bench.board(ONE).kind());
    bench.board(ONE).bring(thing)?;
    bench.present(ONE, card)?;
    bench.wait("a grant on its way", |bench| Ok(bench.board(ONE).module().held() > 0))?;
    Ok(at)
}

fn stays_off(bench: &mut Bench, device_ms: u64, what: &str) -> anyhow::Result<()> {
    bench.pass(device_ms, |bench| {
        ensure!(!bench.board(ONE).is_on()?, "on after {what}");
        Ok(())
    })
}

/// The last grant that came by.
fn last_grant(bench: &mut Bench) -> anyhow::Result<Message> {
    let seen = bench.board(ONE).module().seen(Down::Grant);
    seen.last().cloned().context("a grant came by")
}

fn late_and_twice(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = ask_held(bench, &card)?;
    stays_off(bench, LATE_MS, "a grant that did not arrive")?;
    let held = bench.board(ONE).module().held();
    bench.board(ONE).module().hold(None)?;
    let at = bench.wait_log(ONE, at, words::GRANTED)?;
    bench.deliver(ONE, before)?;
    // The same bytes again, while it delivers and when it is over.
    let grant = last_grant(bench)?;
    bench.board(ONE).module().say(&grant)?;
    bench.finish(ONE, at)?;
    bench.board(ONE).module().say(&grant)?;
    stays_off(bench, WATCHED_MS, "a grant of a session that is over")?;
    let log = bench.board(ONE).log();
    let counts = (log.count(at, words::GRANTED), log.count(at, words::ENDED));
    ensure!(counts == (0, 1), "{held} held back; granted again, ended: {counts:?}");
    Ok(())
}

/// The user has pressed stop; the grant that comes then holds money for nobody, and the device says so.
fn too_late(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = ask_held(bench, &card)?;
    bench.board(ONE).press_stop()?;
    let at = bench.wait_log(ONE, at, &words::ended(StopReason::Abandoned))?;
    bench.board(ONE).module().hold(None)?;
    stays_off(bench, WATCHED_MS, "a grant for who has gone")?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    ensure!(bench.board(ONE).delivered_milli()? == before, "something was delivered");
    Ok(())
}

/// What somebody without the key can say: another key's seal, a flipped bit, an old grant, a grant under another topic.
fn forged(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    bench.serve(ONE, &card)?;
    let old = last_grant(bench)?;
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = ask_held(bench, &card)?;
    let true_one = last_grant(bench)?;
    ensure!(true_one != old, "the new grant came by");
    let mut flipped = true_one.clone();
    let body = flipped.frame.len() / 2;
    flipped.frame[body] ^= 1;
    let elsewhere = Message {
        topic: true_one.topic.replace(Down::Grant.word(), Down::Receipt.word()),
        ..true_one.clone()
    };
    for (what, message) in [
        ("another key's grant", resealed(&true_one)?),
        ("a grant with a flipped bit", flipped),
        ("an old grant", old),
        ("a grant under another topic", elsewhere),
    ] {
        bench.board(ONE).module().say(&message)?;
        stays_off(bench, WATCHED_MS / 3, what)?;
    }
    bench.board(ONE).module().hold(None)?;
    let at = bench.wait_log(ONE, at, words::GRANTED)?;
    bench.deliver(ONE, before)?;
    bench.finish(ONE, at)?;
    Ok(())
}

/// The same message under the seal of somebody who has another key, with a counter that is far ahead.
fn resealed(message: &Message) -> anyhow::Result<Message> {
    let key = PairSecret([0x55; 32]).key(Direction::Down);
    let mut frame = message.frame.clone();
    let body_len = frame.len() - OVERHEAD_BYTES;
    key.seal_in_place(&message.topic, u64::MAX - 1, &mut frame, body_len)?;
    Ok(Message {
        topic: message.topic.clone(),
        frame,
    })
}
