//! The power fails. What a charger does depends on a clock: see there.

use anyhow::ensure;
use proto::{message::StopReason, topic::Down};

use super::{ALL, Bench, Cast, DISPENSER, ONE, Scenario, WASHER};
use crate::{
    rig::{Skill, words},
    twin::usual_thing,
};

const NEEDS: &[Skill] = &[Skill::Card, Skill::Things, Skill::Power];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the power fails in the middle of a wash",
        cast: Cast::Each(WASHER),
        needs: NEEDS,
        tell: wash,
    },
    Scenario {
        name: "the power fails while water runs",
        cast: Cast::Each(DISPENSER),
        needs: NEEDS,
        tell: water,
    },
    Scenario {
        name: "the power fails while somebody waits for the answer",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things, Skill::Power, Skill::Cable],
        tell: asking,
    },
];

/// How long a device is watched that must not do anything, in ms.
const WATCHED_MS: u64 = 3_000;

fn cycle_power(bench: &mut Bench) -> anyhow::Result<usize> {
    bench.board(ONE).power(false)?;
    ensure!(!bench.board(ONE).is_on()?, "on without power");
    let at = bench.board(ONE).log().len();
    bench.board(ONE).power(true)?;
    Ok(at)
}

/// The machine rides through, and the session with it: one cycle, one charge.
fn wash(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    bench.begin(ONE, &card)?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = cycle_power(bench)?;
    let at = bench.wait_log(ONE, at, words::RECOVERING)?;
    bench.wait_output(ONE, true)?;
    let ended = bench.wait_log(ONE, at, &words::ended(StopReason::Finished))?;
    bench.wait_log(ONE, ended, words::RECEIPT)?;
    ensure!(bench.board(ONE).delivered_milli()? == before, "a second cycle began");
    Ok(())
}

/// Nobody knows who stands there now: what ran is charged, and it is over.
fn water(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    bench.begin(ONE, &card)?;
    let at = cycle_power(bench)?;
    let at = bench.wait_log(ONE, at, &words::ended(StopReason::PowerLoss))?;
    ensure!(!bench.board(ONE).is_on()?, "the valve is open");
    bench.wait_log(ONE, at, words::RECEIPT)?;
    Ok(())
}

/// A grant that comes to a device that has forgotten why is for nobody.
fn asking(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    bench.board(ONE).module().hold(Some(Down::Grant))?;
    let thing = usual_thing(bench.board(ONE).kind());
    bench.board(ONE).bring(thing)?;
    bench.present(ONE, &card)?;
    bench.wait("a grant on its way", |bench| Ok(bench.board(ONE).module().held() > 0))?;
    let at = cycle_power(bench)?;
    bench.wait_log(ONE, at, words::LINKED)?;
    bench.board(ONE).module().hold(None)?;
    bench.pass(WATCHED_MS, |bench| {
        ensure!(!bench.board(ONE).is_on()?, "on after a grant that nobody waits for");
        Ok(())
    })?;
    ensure!(bench.board(ONE).delivered_milli()? == before, "something was delivered");
    Ok(())
}
