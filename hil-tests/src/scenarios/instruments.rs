//! The device alone: what it believes without asking anybody.

use super::{Bench, Cast, DISPENSER, ONE, Scenario};
use crate::{
    rig::{Skill, words},
    twin::usual_thing,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a voucher without a gateway, once, over a power cut",
        cast: Cast::Each(DISPENSER),
        needs: NEEDS,
        tell: |bench| {
            let kind = bench.board(ONE).kind();
            let envelope = bench.voucher(kind, AMOUNT)?;
            alone(bench, &envelope)
        },
    },
    Scenario {
        name: "a keypad token without a gateway, once, over a power cut",
        cast: Cast::Each(DISPENSER),
        needs: NEEDS,
        tell: |bench| {
            let digits = bench.keypad_token(ONE, AMOUNT)?;
            alone(bench, &digits)
        },
    },
];

const NEEDS: &[Skill] = &[Skill::Card, Skill::Line, Skill::Things, Skill::Cable, Skill::Power];

/// What is paid, in minor units.
const AMOUNT: i64 = 100;

/// With the cable out an instrument is believed by the device alone, once; the gateway hears of it later.
fn alone(bench: &mut Bench, instrument: &str) -> anyhow::Result<()> {
    // A first session brings the price.
    let card = bench.card("good", "always")?;
    bench.serve(ONE, &card)?;
    let kind = bench.board(ONE).kind();
    let at = bench.board(ONE).log().len();
    bench.board(ONE).module().unplug(true);
    bench.wait_log(ONE, at, words::UNLINKED)?;
    let at = bench.board(ONE).log().len();
    bench.board(ONE).bring(usual_thing(kind))?;
    bench.board(ONE).scan(instrument)?;
    let at = bench.wait_log(ONE, at, words::GRANTED)?;
    let at = bench.end(ONE, at)?;
    // Once.
    bench.board(ONE).scan(instrument)?;
    let at = bench.wait_log(ONE, at, words::REFUSED)?;
    // The power fails before the gateway knows of it.
    bench.board(ONE).power(false)?;
    bench.board(ONE).power(true)?;
    let at = bench.wait_log(ONE, at, words::FREE)?;
    bench.board(ONE).scan(instrument)?;
    let at = bench.wait_log(ONE, at, words::REFUSED)?;
    bench.board(ONE).module().unplug(false);
    let at = bench.wait_log(ONE, at, words::LINKED)?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    Ok(())
}
