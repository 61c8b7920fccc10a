//! The clock that the gateway tells jumps. Nobody may set the clock of the machine that the bench runs on, so the jump is
//! made on the wire: somebody who has the device's key tells it another time and seals it again, as a gateway does whose
//! clock was set. What the gateway itself makes of a step of its clock is proven by the simulation of its core.

use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use proto::{
    codec,
    message::{Clock, ClockQuality, Stop, StopReason},
    seal::{Direction, FRAME_BYTES_MAX, OVERHEAD_BYTES, SealKey},
    topic::{self, Down, Up},
};

use super::{Bench, CHARGER, Cast, ONE, Scenario};
use crate::rig::{
    Skill,
    module::{Message, Module},
    words,
};

const NEEDS: &[Skill] = &[Skill::Card, Skill::Things, Skill::Cable];
const WITH_POWER: &[Skill] = &[Skill::Card, Skill::Things, Skill::Cable, Skill::Power];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the clock jumps forth and back in a session",
        cast: Cast::Each(super::ALL),
        needs: NEEDS,
        tell: jumps,
    },
    Scenario {
        name: "a short power cut, and the charge goes on",
        cast: Cast::Each(CHARGER),
        needs: WITH_POWER,
        tell: |bench| after_a_power_cut(bench, 60, true),
    },
    Scenario {
        name: "a power cut over which the clock ran backwards",
        cast: Cast::Each(CHARGER),
        needs: WITH_POWER,
        tell: |bench| after_a_power_cut(bench, -3_600, false),
    },
    Scenario {
        name: "a power cut of an hour",
        cast: Cast::Each(CHARGER),
        needs: WITH_POWER,
        tell: |bench| after_a_power_cut(bench, 3_600, false),
    },
];

/// How far it jumps, in s.
const DAYS_S: i64 = 3 * 86_400;

/// Tells a device another time than its gateway does.
struct Liar {
    down: SealKey,
    state: Arc<Mutex<Lie>>,
}

#[derive(Default)]
struct Lie {
    shift_s: i64,
    /// Messages that were added to the gateway's: each makes every counter behind it one higher.
    added: u64,
    /// The gateway's last counter, and its last clock with its topic.
    counter: u64,
    clock: Option<(String, Clock)>,
}

impl Lie {
    fn shifted(&self, clock: &Clock) -> Clock {
        Clock {
            wall_s: clock.wall_s.saturating_add_signed(self.shift_s),
            quality: ClockQuality::Synchronised,
            ..clock.clone()
        }
    }
}

impl Liar {
    /// From now on every message goes through the liar's hands.
    fn between(bench: &mut Bench) -> anyhow::Result<Self> {
        let down = bench.secret(ONE)?.key(Direction::Down);
        let state: Arc<Mutex<Lie>> = Arc::default();
        let (key, lie) = (down.clone(), state.clone());
        bench.board(ONE).module().change(Some(Box::new(move |message| {
            let mut lie = lie.lock().expect("nothing panics under this lock");
            let opened = key.open(&message.topic, &message.frame, FRAME_BYTES_MAX).ok()?;
            lie.counter = opened.counter;
            let counter = opened.counter + lie.added;
            if topic::parse_down(&message.topic)?.1 == Down::Clock {
                let clock: Clock = codec::decode(opened.body).ok()?;
                let frame = key.seal_vec(&message.topic, counter, &lie.shifted(&clock));
                lie.clock = Some((message.topic.clone(), clock));
                return Some(frame);
            }
            let mut frame = message.frame.clone();
            let body_len = frame.len() - OVERHEAD_BYTES;
            key.seal_in_place(&message.topic, counter, &mut frame, body_len).ok()?;
            Some(frame)
        })));
        Ok(Self { down, state })
    }

    /// The clock is this much ahead from now on, in s.
    fn shift(&self, shift_s: i64) {
        self.state.lock().expect("nothing panics under this lock").shift_s = shift_s;
    }

    /// Tells it at once, as a gateway does whose clock was set.
    fn tell(&self, module: &Module) -> anyhow::Result<()> {
        let message = {
            let mut lie = self.state.lock().expect("nothing panics under this lock");
            let (topic, clock) = lie.clock.clone().context("the gateway told its clock")?;
            lie.added += 1;
            let frame = self
                .down
                .seal_vec(&topic, lie.counter + lie.added, &lie.shifted(&clock));
            Message { topic, frame }
        };
        module.say(&message)
    }
}

/// Pulls the cable for long enough, so that the device greets anew and is told the time.
fn greet_anew(bench: &mut Bench) -> anyhow::Result<()> {
    let at = bench.board(ONE).log().len();
    bench.board(ONE).module().unplug(true);
    let at = bench.wait_log(ONE, at, words::UNLINKED)?;
    bench.board(ONE).module().unplug(false);
    bench.wait_log(ONE, at, words::LINKED)?;
    Ok(())
}

/// The wall time of the device's last stop.
fn last_stop(bench: &mut Bench) -> anyhow::Result<Stop> {
    let up = bench.secret(ONE)?.key(Direction::Up);
    let stops = bench.board(ONE).module().heard(Up::Stop);
    let stop = stops.last().context("the device told a stop")?;
    let opened = up.open(&stop.topic, &stop.frame, FRAME_BYTES_MAX)?;
    Ok(codec::decode(opened.body)?)
}

/// A session is timed by the device's own clock; a wall clock that jumps neither ends it nor makes it dearer.
fn jumps(bench: &mut Bench) -> anyhow::Result<()> {
    let liar = Liar::between(bench)?;
    greet_anew(bench)?;
    let told_s = {
        let lie = liar.state.lock().expect("nothing panics under this lock");
        lie.clock.as_ref().context("the gateway told its clock")?.1.wall_s
    };
    let card = bench.card("good", "always")?;
    let at = bench.begin(ONE, &card)?;
    for shift_s in [DAYS_S, -DAYS_S] {
        liar.shift(shift_s);
        liar.tell(bench.board(ONE).module())?;
        bench.pass(500, |bench| {
            let log = bench.board(ONE).log();
            let is_over = log.find(at, words::ENDED).is_some();
            ensure!(is_over || bench.board(ONE).is_on()?, "off after a jump by {shift_s} s");
            Ok(())
        })?;
    }
    bench.finish(ONE, at)?;
    let stop = last_stop(bench)?;
    let past_s = told_s.saturating_add_signed(-DAYS_S);
    ensure!(
        stop.at.wall_s.abs_diff(past_s) < 3_600,
        "the device took the jump over: {stop:?}, {past_s}"
    );
    ensure!(stop.elapsed_s < 600, "timed by its own clock: {stop:?}");
    bench.board(ONE).module().change(None);
    // The counters are the gateway's own again, and lower: the device is greeted anew only by a boot or a higher one.
    greet_anew(bench)
}

/// Only a clock that is trusted before and after tells how long the power was away.
fn after_a_power_cut(bench: &mut Bench, away_s: i64, goes_on: bool) -> anyhow::Result<()> {
    let liar = Liar::between(bench)?;
    greet_anew(bench)?;
    let card = bench.card("good", "always")?;
    bench.begin(ONE, &card)?;
    let before = bench.board(ONE).delivered_milli()?;
    bench.board(ONE).power(false)?;
    liar.shift(away_s);
    let at = bench.board(ONE).log().len();
    bench.board(ONE).power(true)?;
    let at = bench.wait_log(ONE, at, words::RECOVERING)?;
    let at = if goes_on {
        bench.wait_output(ONE, true)?;
        bench.deliver(ONE, before)?;
        bench.end(ONE, at)?
    } else {
        let at = bench.wait_log(ONE, at, &words::ended(StopReason::PowerLoss))?;
        ensure!(!bench.board(ONE).is_on()?, "on after {away_s} s without power");
        at
    };
    bench.wait_log(ONE, at, words::RECEIPT)?;
    Ok(())
}
