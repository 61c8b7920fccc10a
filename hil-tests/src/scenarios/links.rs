//! The cable to the gateway: out while a session ends, out while somebody asks, in and out.

use anyhow::ensure;
use proto::{id::Kind, message::StopReason, topic::Up};

use super::{ALL, Bench, Cast, ONE, Scenario};
use crate::{
    rig::{Skill, words},
    twin::usual_thing,
};

const NEEDS: &[Skill] = &[Skill::Card, Skill::Things, Skill::Cable];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "unplugged and ended while the cable is out",
        cast: Cast::Each(ALL),
        needs: NEEDS,
        tell: ends_offline,
    },
    Scenario {
        name: "asked while the cable is out",
        cast: Cast::Each(&[Kind::Charger]),
        needs: NEEDS,
        tell: asks_offline,
    },
    Scenario {
        name: "the link flaps",
        cast: Cast::Each(ALL),
        needs: NEEDS,
        tell: flaps,
    },
];

/// How often it flaps, and for how long it is out and in, in ms.
const FLAPS: u64 = 8;
const OUT_MS: std::ops::Range<u64> = 50..1_200;
const IN_MS: std::ops::Range<u64> = 100..2_500;

/// The session ends by itself, and the stop is told when the cable is back.
fn ends_offline(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let kind = bench.board(ONE).kind();
    let at = bench.begin(ONE, &card)?;
    bench.board(ONE).module().unplug(true);
    let ended = bench.end(ONE, at)?;
    let reason = match kind {
        Kind::Charger => StopReason::Unplugged,
        Kind::Washer | Kind::Dispenser | Kind::Unknown => StopReason::Finished,
    };
    let found = bench.board(ONE).log().find(at, &words::ended(reason));
    ensure!(found == Some(ended), "it did not end as {reason:?}");
    bench.wait_log(ONE, at, words::UNLINKED)?;
    ensure!(
        bench.board(ONE).log().find(at, words::RECEIPT).is_none(),
        "a receipt without a cable"
    );
    bench.board(ONE).module().unplug(false);
    bench.wait_log(ONE, ended, words::RECEIPT)?;
    Ok(())
}

/// Nobody answers; the device asks again, in the name of the same session, when the cable is back.
fn asks_offline(bench: &mut Bench) -> anyhow::Result<()> {
    let at = bench.board(ONE).log().len();
    bench.board(ONE).module().unplug(true);
    bench.wait_log(ONE, at, words::UNLINKED)?;
    let card = bench.card("good", "always")?;
    let at = bench.board(ONE).log().len();
    let thing = usual_thing(bench.board(ONE).kind());
    bench.board(ONE).bring(thing)?;
    bench.board(ONE).tap(&card)?;
    bench.pass(2_000, |bench| {
        ensure!(!bench.board(ONE).is_on()?, "on without an answer");
        Ok(())
    })?;
    bench.board(ONE).module().unplug(false);
    let at = bench.wait_log(ONE, at, words::GRANTED)?;
    bench.finish(ONE, at)?;
    ensure!(
        !bench.board(ONE).module().heard(Up::Authorize).is_empty(),
        "nobody asked"
    );
    Ok(())
}

/// One session, one receipt, whatever the cable does.
fn flaps(bench: &mut Bench) -> anyhow::Result<()> {
    let mut rng = fastrand::Rng::with_seed(bench.site.plan.seed);
    let card = bench.card("good", "always")?;
    let at = bench.begin(ONE, &card)?;
    for _ in 0..FLAPS {
        bench.board(ONE).module().unplug(true);
        bench.pass(rng.u64(OUT_MS), |_| Ok(()))?;
        bench.board(ONE).module().unplug(false);
        bench.pass(rng.u64(IN_MS), |_| Ok(()))?;
    }
    bench.finish(ONE, at)?;
    let log = bench.board(ONE).log();
    let counts = (
        log.count(at, words::GRANTED),
        log.count(at, words::ENDED),
        log.count(at, words::RECEIPT),
    );
    ensure!(counts == (0, 1, 1), "granted again, ended, receipts: {counts:?}");
    Ok(())
}
