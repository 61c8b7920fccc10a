//! What happens every day: people are served, refused, stop, reach their limit; and the gateway dies meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;
use proto::{
    id::Kind,
    message::{RefusalReason, StopReason},
};

use super::{
    ALL, Bench, Cast, ONE, Scenario,
    bench::{CHARGER_LIMIT_MILLI, DISPENSER_LIMIT_MILLI},
};
use crate::{
    cloud_sim::Mode,
    rig::{Skill, words},
    twin::{Battery, Thing},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "served by a healthy cloud",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things],
        tell: healthy,
    },
    Scenario {
        name: "served behind a dark cloud",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things],
        tell: dark,
    },
    Scenario {
        name: "a revoked card is refused",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things],
        tell: revoked,
    },
    Scenario {
        name: "the same card stops",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things],
        tell: same_card,
    },
    Scenario {
        name: "the button stops",
        cast: Cast::Each(ALL),
        needs: &[Skill::Card, Skill::Things, Skill::Stop],
        tell: button,
    },
    Scenario {
        name: "the limit is reached",
        cast: Cast::Each(&[Kind::Charger, Kind::Dispenser]),
        needs: &[Skill::Card, Skill::Things, Skill::BigThings],
        tell: limit,
    },
    Scenario {
        name: "the gateway is killed in the middle of sessions",
        cast: Cast::Together(ALL),
        needs: &[Skill::Card, Skill::Things],
        tell: killed,
    },
    Scenario {
        name: "devices that wait sleep",
        cast: Cast::Together(ALL),
        needs: &[Skill::Processor],
        tell: asleep,
    },
];

/// Over its limit by no more than what a reading takes: the valve's lag, or 100 ms of a charge that runs 120 times too
/// fast.
const OVERRUN_MILLI: u64 = 60_000;
/// The unit that was begun, and what a board reads too late to bill it.
const BEGUN_MILLI: u64 = 5_000;
/// A card is read again and again while it rests; the second gesture comes later, in ms.
const GESTURE_MS: u64 = 2_500;
/// How long a device is watched that must not do anything, in ms.
const WATCHED_MS: u64 = 3_000;
/// How long sleep is measured, and how much of a processor of the host it may take, in percent.
const ASLEEP_FOR: Duration = Duration::from_secs(10);
const ASLEEP_PERCENT_MAX: f64 = 10.0;

fn healthy(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "allowed_offline")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = bench.begin(ONE, &card)?;
    bench.finish(ONE, at)?;
    let delivered = bench.board(ONE).delivered_milli()? - before;
    let units = billed_units(&bench.logged(ONE, at))?;
    // What is billed is what was delivered, but for the unit that was begun, and never more.
    let kind = bench.board(ONE).kind();
    let slack = match kind {
        Kind::Charger => OVERRUN_MILLI,
        Kind::Dispenser | Kind::Washer | Kind::Unknown => BEGUN_MILLI,
    };
    let slack = slack + bench.board(ONE).missed_milli(delivered);
    ensure!(
        units * 1_000 <= delivered + 1_000 && delivered <= units * 1_000 + slack,
        "{delivered} thousandths were delivered and {units} units billed"
    );
    let coins = bench.board(ONE).coins();
    if kind == Kind::Washer {
        ensure!(coins.is_none_or(|coins| coins > 0), "a wash without a coin");
    }
    Ok(())
}

/// The units of the first session that ended in a log.
fn billed_units(log: &str) -> anyhow::Result<u64> {
    let line = log.lines().find(|line| line.contains(words::ENDED));
    let units = line.and_then(|line| line.split(": ").last()?.split(' ').next()?.parse().ok());
    units.ok_or_else(|| anyhow::anyhow!("no units in {line:?}"))
}

fn dark(bench: &mut Bench) -> anyhow::Result<()> {
    bench.cloud.set(Mode::Dark);
    let card = bench.card("good", "allowed")?;
    bench.serve(ONE, &card)
}

fn revoked(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("revoked", "allowed")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = bench.board(ONE).log().len();
    let thing = crate::twin::usual_thing(bench.board(ONE).kind());
    bench.board(ONE).bring(thing)?;
    bench.present(ONE, &card)?;
    bench.wait_log(ONE, at, &words::refused(RefusalReason::Revoked))?;
    bench.pass(WATCHED_MS, |bench| {
        ensure!(!bench.board(ONE).is_on()?, "on for a revoked card");
        Ok(())
    })?;
    ensure!(bench.board(ONE).delivered_milli()? == before, "something was delivered");
    Ok(())
}

fn same_card(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let at = bench.begin(ONE, &card)?;
    bench.pass(GESTURE_MS, |_| Ok(()))?;
    bench.tap_until(ONE, &card, "stopped", |bench| {
        Ok(bench.board(ONE).log().find(at, words::ENDED).is_some())
    })?;
    stopped(bench, at)
}

fn button(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let at = bench.begin(ONE, &card)?;
    bench.board(ONE).press_stop()?;
    stopped(bench, at)
}

/// It is over by its user, and paid.
fn stopped(bench: &mut Bench, at: usize) -> anyhow::Result<()> {
    let at = bench.wait_log(ONE, at, &words::ended(StopReason::User))?;
    bench.wait_output(ONE, false)?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    Ok(())
}

fn limit(bench: &mut Bench) -> anyhow::Result<()> {
    let (thing, limit_milli) = match bench.board(ONE).kind() {
        Kind::Dispenser => (Thing::Vessel { volume_ml: 20_000 }, DISPENSER_LIMIT_MILLI),
        Kind::Charger | Kind::Washer | Kind::Unknown => (
            Thing::Battery(Battery {
                capacity_wh: 20_000,
                charge_wh: 100,
                power_w: 1_500,
            }),
            CHARGER_LIMIT_MILLI,
        ),
    };
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = bench.ask_with(ONE, &card, thing)?;
    let at = bench.wait_log(ONE, at, &words::ended(StopReason::Limit))?;
    bench.wait_output(ONE, false)?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    let delivered = bench.board(ONE).delivered_milli()? - before;
    ensure!(
        (limit_milli - OVERRUN_MILLI / 2..=limit_milli + 5 * OVERRUN_MILLI).contains(&delivered),
        "{delivered} thousandths under a limit of {limit_milli}"
    );
    Ok(())
}

/// Sessions of all devices are under way when the gateway dies; they end without it, and are told to the next one.
fn killed(bench: &mut Bench) -> anyhow::Result<()> {
    bench.cloud.set(Mode::Dark);
    let mut grants = Vec::new();
    for i in 0..bench.len() {
        let card = bench.card("good", "always")?;
        grants.push(bench.begin(i, &card)?);
    }
    bench.site.kill_gateway()?;
    for (i, at) in grants.into_iter().enumerate() {
        bench.finish(i, at)?;
    }
    Ok(())
}

fn asleep(bench: &mut Bench) -> anyhow::Result<()> {
    let used =
        |bench: &mut Bench| -> anyhow::Result<Vec<u64>> { (0..bench.len()).map(|i| bench.board(i).cpu_ms()).collect() };
    let before = used(bench)?;
    let since = Instant::now();
    // What is measured is that nothing happens meanwhile: not even the world's steps, which ask the board.
    std::thread::sleep(ASLEEP_FOR);
    let after = used(bench)?;
    for (i, (before, after)) in before.into_iter().zip(after).enumerate() {
        let percent = (after - before) as f64 / since.elapsed().as_millis() as f64 * 100.0;
        let word = bench.board(i).kind().word();
        println!("a {word} that waits takes {percent:.1} % of a processor of the host");
        ensure!(percent < ASLEEP_PERCENT_MAX, "a {word} that waits takes {percent:.1} %");
    }
    Ok(())
}
