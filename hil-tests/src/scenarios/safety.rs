//! Every safety trip of every kind: the output goes off without any gateway, what is wrong is told, and the outlet comes
//! back when it is mended.

use anyhow::ensure;
use proto::{
    id::Kind,
    message::{Fault, StopReason},
};

use super::{ALL, Bench, CHARGER, Cast, DISPENSER, ONE, Scenario, WASHER};
use crate::{
    rig::{Skill, words},
    twin::{Battery, Injury, Thing, usual_thing},
};

/// A trip of a running session, and the fault that it is told as.
macro_rules! trip {
    ($name:literal, $kinds:expr, $injury:expr, $fault:expr) => {
        Scenario {
            name: $name,
            cast: Cast::Each($kinds),
            needs: &[Skill::Card, Skill::Things, Skill::Injure($injury)],
            tell: |bench| trip(bench, $injury, $fault),
        }
    };
}

pub(super) const SCENARIOS: &[Scenario] = &[
    trip!("residual current", CHARGER, Injury::Leak, Fault::Leakage),
    trip!(
        "water on the floor",
        &[Kind::Washer, Kind::Dispenser],
        Injury::Leak,
        Fault::Leak
    ),
    trip!("heat", ALL, Injury::Heat, Fault::OverTemperature),
    trip!("too much current", ALL, Injury::Overload, Fault::OverCurrent),
    trip!(
        "a meter falls silent",
        &[Kind::Charger, Kind::Dispenser],
        Injury::SilentMeter,
        Fault::Meter
    ),
    trip!(
        "the door is unlocked in the cycle",
        WASHER,
        Injury::OpenDoor,
        Fault::Door
    ),
    Scenario {
        name: "a meter stands still under load",
        cast: Cast::Each(CHARGER),
        needs: &[
            Skill::Card,
            Skill::BigThings,
            Skill::Power,
            Skill::Injure(Injury::StillMeter),
        ],
        tell: stands_still,
    },
    Scenario {
        name: "a welded contactor",
        cast: Cast::Each(CHARGER),
        needs: &[Skill::Card, Skill::Things, Skill::Stop, Skill::Injure(Injury::Weld)],
        tell: welded,
    },
    Scenario {
        name: "a contactor does not follow, three times",
        cast: Cast::Each(CHARGER),
        needs: &[Skill::Card, Skill::Things, Skill::Power, Skill::Injure(Injury::Stuck)],
        tell: stuck,
    },
    Scenario {
        name: "a washer takes no coin",
        cast: Cast::Each(WASHER),
        needs: &[Skill::Card, Skill::Things, Skill::Injure(Injury::Stuck)],
        tell: |bench| not_started(bench, Injury::Stuck),
    },
    Scenario {
        name: "a tap is dry",
        cast: Cast::Each(DISPENSER),
        needs: &[Skill::Card, Skill::Things, Skill::Injure(Injury::Dry)],
        tell: |bench| not_started(bench, Injury::Dry),
    },
    Scenario {
        name: "water passes a closed valve",
        cast: Cast::Each(DISPENSER),
        needs: &[Skill::BigThings, Skill::Power, Skill::Injure(Injury::Drip)],
        tell: drips,
    },
];

/// Starts in a row that are not followed before the outlet takes a rest.
const STARTS: usize = 3;

/// A thing that is not full before something happens to it.
fn endless(kind: Kind) -> Thing {
    match kind {
        Kind::Charger => Thing::Battery(Battery {
            capacity_wh: 9_000,
            charge_wh: 100,
            power_w: 200,
        }),
        Kind::Dispenser => Thing::Vessel { volume_ml: 1_400 },
        Kind::Washer | Kind::Unknown => usual_thing(kind),
    }
}

/// The session is over by a fault, and the outlet is out of order with it until it is mended.
fn trip(bench: &mut Bench, injury: Injury, fault: Fault) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let thing = endless(bench.board(ONE).kind());
    let at = bench.ask_with(ONE, &card, thing)?;
    bench.deliver(ONE, before)?;
    bench.board(ONE).injure(injury, true)?;
    bench.wait_output(ONE, false)?;
    let told = bench.wait_log(ONE, at, &words::fault(fault))?;
    bench.board(ONE).injure(injury, false)?;
    bench.board(ONE).take_away()?;
    bench.wait_log(ONE, told, words::FREE)?;
    check_stop(bench, at)
}

/// A fault is on the display at once; that the session is over may be seen by its receipt alone.
fn check_stop(bench: &mut Bench, at: usize) -> anyhow::Result<()> {
    let log = bench.board(ONE).log();
    let reasons = log.count(at, words::ENDED) - log.count(at, &words::ended(StopReason::Fault));
    ensure!(reasons == 0, "it ended for another reason");
    Ok(())
}

fn cycle_power(bench: &mut Bench) -> anyhow::Result<()> {
    let at = bench.board(ONE).log().len();
    bench.board(ONE).power(false)?;
    bench.board(ONE).power(true)?;
    let at = bench.wait_log(ONE, at, words::FREE)?;
    bench.wait_log(ONE, at.saturating_sub(1), words::LINKED)?;
    Ok(())
}

/// Energy is drawn and not counted: nobody knows how much, and it holds until somebody came.
fn stands_still(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = bench.ask_with(ONE, &card, endless(Kind::Charger))?;
    bench.deliver(ONE, before)?;
    bench.board(ONE).injure(Injury::StillMeter, true)?;
    bench.wait_output(ONE, false)?;
    bench.wait_log(ONE, at, &words::fault(Fault::Meter))?;
    bench.board(ONE).take_away()?;
    check_stop(bench, at)?;
    bench.board(ONE).injure(Injury::StillMeter, false)?;
    cycle_power(bench)
}

/// It is off, and what the contactor's contacts say is that it is not.
fn welded(bench: &mut Bench) -> anyhow::Result<()> {
    let card = bench.card("good", "always")?;
    let at = bench.begin(ONE, &card)?;
    bench.board(ONE).injure(Injury::Weld, true)?;
    bench.board(ONE).press_stop()?;
    let told = bench.wait_log(ONE, at, &words::fault(Fault::Welded))?;
    ensure!(!bench.board(ONE).is_on()?, "the coil is off");
    bench.board(ONE).injure(Injury::Weld, false)?;
    bench.board(ONE).take_away()?;
    bench.wait_log(ONE, told, words::FREE)?;
    Ok(())
}

/// Granted and switched on, and nothing happens; the number of the line behind the grant.
fn in_vain(bench: &mut Bench) -> anyhow::Result<usize> {
    let card = bench.card("good", "always")?;
    let before = bench.board(ONE).delivered_milli()?;
    let at = bench.ask(ONE, &card)?;
    bench.wait_log(ONE, at, words::RECEIPT)?;
    bench.wait_output(ONE, false)?;
    bench.board(ONE).take_away()?;
    let log = bench.logged(ONE, at);
    ensure!(log.contains("receipt: 0 minor units"), "it was charged: {log}");
    ensure!(bench.board(ONE).delivered_milli()? == before, "something was delivered");
    Ok(at)
}

/// Nobody pays for what does not begin.
fn not_started(bench: &mut Bench, injury: Injury) -> anyhow::Result<()> {
    bench.board(ONE).injure(injury, true)?;
    let at = in_vain(bench)?;
    bench.wait_log(ONE, at, &words::ended(StopReason::NotStarted))?;
    bench.board(ONE).injure(injury, false)
}

fn stuck(bench: &mut Bench) -> anyhow::Result<()> {
    bench.board(ONE).injure(Injury::Stuck, true)?;
    let at = bench.board(ONE).log().len();
    for _ in 1..STARTS {
        let at = in_vain(bench)?;
        bench.wait_log(ONE, at, &words::ended(StopReason::NotStarted))?;
    }
    // The last one takes the outlet out of order, which is shown instead of its end and its receipt.
    let card = bench.card("good", "always")?;
    bench.ask(ONE, &card)?;
    bench.wait_log(ONE, at, &words::fault(Fault::NoStart))?;
    bench.wait_output(ONE, false)?;
    bench.board(ONE).injure(Injury::Stuck, false)?;
    bench.board(ONE).take_away()?;
    cycle_power(bench)
}

/// Nobody asked for this water. Without a cut of the power the outlet would stay out of order for minutes.
fn drips(bench: &mut Bench) -> anyhow::Result<()> {
    let at = bench.board(ONE).log().len();
    bench.board(ONE).bring(Thing::Vessel { volume_ml: 5_000 })?;
    bench.board(ONE).injure(Injury::Drip, true)?;
    bench.wait_log(ONE, at, &words::fault(Fault::Leak))?;
    bench.board(ONE).injure(Injury::Drip, false)?;
    bench.board(ONE).take_away()?;
    cycle_power(bench)
}
