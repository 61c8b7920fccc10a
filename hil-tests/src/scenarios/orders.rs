//! The operator does at a distance what people do at the device: begins a session, ends it, keeps the outlet free.

use anyhow::ensure;
use proto::{
    id::Kind,
    message::{RefusalReason, StopReason},
};

use super::{ALL, Bench, Cast, ONE, Scenario};
use crate::{
    orders::{card, give_at, state},
    rig::{Skill, words},
    twin::usual_thing,
};

const NEEDS: &[Skill] = &[Skill::Card, Skill::Things];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "started and stopped from afar",
        cast: Cast::Each(&[Kind::Charger]),
        needs: NEEDS,
        tell: from_afar,
    },
    Scenario {
        name: "kept free for somebody",
        cast: Cast::Each(ALL),
        needs: NEEDS,
        tell: kept_free,
    },
];

/// Orders live so long: the clock of a device on a bench may run ahead of the world's.
const SOON: [&str; 2] = ["--not-after", "1h"];

/// Orders something of the only device, and waits for what becomes of it.
fn order(bench: &mut Bench, verb: &str, more: &[&str]) -> anyhow::Result<()> {
    let device = bench.name(ONE)?;
    let order = give_at(&bench.site, verb, &device, &[more, &SOON[..]].concat())?;
    bench.wait("an answer to an order", |bench| {
        Ok(state(&bench.site, order)? != "waits")
    })?;
    let found = state(&bench.site, order)?;
    ensure!(found == "done", "{verb} is {found}");
    Ok(())
}

fn from_afar(bench: &mut Bench) -> anyhow::Result<()> {
    let user = bench.card("good", "always")?;
    let (before, at) = (bench.board(ONE).delivered_milli()?, bench.board(ONE).log().len());
    let thing = usual_thing(bench.board(ONE).kind());
    bench.board(ONE).bring(thing)?;
    order(bench, "start", &["--token", &card(&user)])?;
    let at = bench.wait_log(ONE, at, words::GRANTED)?;
    bench.deliver(ONE, before)?;
    order(bench, "stop", &[])?;
    let at = bench.wait_log(ONE, at, &words::ended(StopReason::Remote))?;
    bench.wait_output(ONE, false)?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    Ok(())
}

/// Somebody else is refused, and sees why; the one for whom it is kept is served.
fn kept_free(bench: &mut Bench) -> anyhow::Result<()> {
    let (owner, other) = (bench.card("good", "always")?, bench.card("good", "always")?);
    order(bench, "reserve", &["--token", &card(&owner)])?;
    let at = bench.board(ONE).log().len();
    bench.present(ONE, &other)?;
    let at = bench.wait_log(ONE, at, &words::refused(RefusalReason::Reserved))?;
    bench.serve(ONE, &owner)?;
    ensure!(
        bench.board(ONE).log().find(at, words::REFUSED).is_none(),
        "its owner was refused"
    );
    // Used: whoever comes next is served.
    bench.serve(ONE, &other)
}
