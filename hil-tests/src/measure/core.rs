//! `core`: what one decision costs without a network: time and allocations of each step between the frame that arrives and
//! the frame that leaves, and how many a second become durable when many share a sync.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway::{
    config::Config,
    devices::{Heard, Opener, Sealer},
    engine::BATCH_JOBS_MAX,
    record,
    store::Store,
};
use gateway_core::{Decision, Effect, Gateway, Input, Now, Said};
use proto::{
    id::{DeviceId, SessionId},
    money::Units,
    topic::Topic,
};

use super::{
    Size, floor,
    post::{self, USERS},
    seat::Seat,
    stat::{Spread, thousands},
    stock,
    table::{Table, at_least},
};
use crate::{
    mqtt_wire::Publish,
    site::{Plan, Ways},
};

/// Tokens of the list.
const TOKENS: u32 = 100_000;
/// Devices that take turns.
const DEVICES: usize = 100;
/// Decisions that share a sync.
const BATCHES: [usize; 4] = [1, 16, 64, BATCH_JOBS_MAX];
/// Durable decisions a second that are wanted.
const WANTED: f64 = 100_000.0;

/// Allocations of this process so far.
pub type Allocations = fn() -> usize;

struct Scale {
    rounds: usize,
    sessions: usize,
    time: Duration,
}

/// One step of a grant's way.
#[derive(Default)]
struct Step {
    nanos: Vec<f64>,
    allocations: f64,
}

/// Time of all calls of a step in one round.
#[derive(Default)]
struct Clock {
    took: Duration,
    allocations: usize,
    calls: usize,
}

impl Clock {
    fn time<T>(&mut self, allocations: Allocations, what: impl FnOnce() -> T) -> T {
        let before = allocations();
        let since = Instant::now();
        let result = what();
        self.took += since.elapsed();
        self.allocations += allocations() - before;
        self.calls += 1;
        result
    }
}

const STEPS: [&str; 6] = [
    "open: seal, decode, token hash",
    "decide",
    "note and apply",
    "encode the journal's record",
    "encode and seal the answer",
    "all of it",
];

/// Runs it; prints its tables.
///
/// # Errors
/// If anything is refused, or a file fails.
pub fn run(size: Size, dir: &Path, allocations: Allocations) -> anyhow::Result<()> {
    let (scale, tokens) = match size {
        Size::Quick => (
            Scale {
                rounds: 1,
                sessions: 500,
                time: Duration::from_millis(200),
            },
            TOKENS / 20,
        ),
        Size::Full => (
            Scale {
                rounds: 5,
                sessions: 20_000,
                time: Duration::from_secs(2),
            },
            TOKENS,
        ),
    };
    let plan = post::plan(11, DEVICES, USERS.min(tokens as usize));
    post::write(
        &plan,
        dir,
        &Ways {
            link: String::new(),
            ..Ways::default()
        },
    )?;
    let config = gateway::config::load(&dir.join("gateway/holdfast.toml"), None)?;
    steps(&scale, &plan, &config, tokens, allocations)?;
    durable(&scale, &plan, &config, tokens, dir)
}

/// The frames of a session as a device seals them.
struct Frames {
    authorize: (Topic, Vec<u8>),
    stop: (Topic, Vec<u8>),
}

fn frames(plan: &Plan, count: usize, boot: u32) -> anyhow::Result<Vec<Frames>> {
    let mut seats: Vec<Seat> = plan.devices.iter().map(|device| Seat::new(device, boot)).collect();
    (0..count)
        .map(|number| {
            let at = number % seats.len();
            let seat = &mut seats[at];
            seat.authorize(&plan.users[number % plan.users.len()].token)?;
            let authorize = taken(seat)?;
            seat.stop(false);
            Ok(Frames {
                authorize,
                stop: taken(seat)?,
            })
        })
        .collect()
}

/// What the seat would write, as topic and frame.
fn taken(seat: &mut Seat) -> anyhow::Result<(Topic, Vec<u8>)> {
    let packet = std::mem::take(&mut seat.out);
    let publish = Publish::parse(&packet, 4).context("a PUBLISH")?;
    let topic = publish.topic.try_into().ok().context("a topic longer than any")?;
    Ok((topic, publish.payload.to_vec()))
}

fn steps(scale: &Scale, plan: &Plan, config: &Config, tokens: u32, allocations: Allocations) -> anyhow::Result<()> {
    let opener = Opener::new(&config.device_secrets, config.token_key.clone());
    let mut sealer = Sealer::new(&config.device_secrets, 1);
    let mut gateway = stock::in_memory(config, plan, tokens)?;
    let mut grants: [Step; STEPS.len()] = Default::default();
    let mut stops: [Step; STEPS.len()] = Default::default();
    let now = stock::now(1);
    for round in 0..scale.rounds {
        let frames = frames(plan, scale.sessions, round as u32 + 1)?;
        let mut clocks: [[Clock; STEPS.len()]; 2] = Default::default();
        for session in &frames {
            for ((topic, frame), clocks) in [&session.authorize, &session.stop].into_iter().zip(&mut clocks) {
                pass(
                    &opener,
                    &mut sealer,
                    &mut gateway,
                    &now,
                    topic,
                    frame,
                    clocks,
                    allocations,
                )?;
            }
        }
        for (steps, clocks) in [&mut grants, &mut stops].into_iter().zip(&clocks) {
            for (step, clock) in steps.iter_mut().zip(clocks) {
                step.nanos.push(clock.took.as_nanos() as f64 / clock.calls as f64);
                step.allocations = clock.allocations as f64 / clock.calls as f64;
            }
        }
    }
    println!(
        "One decision without network and disk: nanoseconds and allocations of each step, {} tokens in the list, {} devices in \
         turn, {} sessions a round, {} rounds; the median of the rounds, in brackets least and most. Each step includes the \
         two readings of the clock that time it.\n",
        thousands(tokens.into()),
        DEVICES,
        thousands(scale.sessions as u64),
        scale.rounds
    );
    let mut table = Table::new(&[
        "step",
        "grant, ns",
        "allocations",
        "stop and receipt, ns",
        "allocations",
    ]);
    for ((name, grant), stop) in STEPS.iter().zip(&grants).zip(&stops) {
        let cells = |step: &Step| {
            [
                Spread::of(step.nanos.clone()).text(),
                format!("{:.1}", step.allocations),
            ]
        };
        let ([grant, grant_allocations], [stop, stop_allocations]) = (cells(grant), cells(stop));
        table.row(&[(*name).to_owned(), grant, grant_allocations, stop, stop_allocations]);
    }
    println!("{}", table.text());
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the steps of one way, in order")]
fn pass(
    opener: &Opener,
    sealer: &mut Sealer,
    gateway: &mut Gateway,
    now: &Now,
    topic: &Topic,
    frame: &[u8],
    clocks: &mut [Clock; STEPS.len()],
    allocations: Allocations,
) -> anyhow::Result<()> {
    let [open, decide, apply, encode, seal, all] = clocks;
    all.time(allocations, || {
        let (device, counter, heard) = open.time(allocations, || opener.open(None, topic, frame))?;
        let Heard::Core(said) = heard else {
            anyhow::bail!("the core hears this")
        };
        let input = Input::Device { device, counter, said };
        let decision = decide.time(allocations, || gateway.decide(now, &input));
        apply.time(allocations, || {
            for event in &decision.events {
                gateway.apply(now, event);
            }
        });
        encode.time(allocations, || {
            for event in &decision.events {
                black_box(record::encode(now, event));
            }
        });
        let sent = seal.time(allocations, || {
            let mut sent = 0;
            for effect in &decision.effects {
                if let Effect::Send { device, message } = effect {
                    sent += usize::from(black_box(sealer.seal(device, message)).is_some());
                }
            }
            sent
        });
        ensure!(sent == 1, "{decision:?}");
        Ok(())
    })
}

/// Decisions a second through the store, beside a log with as many bytes.
fn durable(scale: &Scale, plan: &Plan, config: &Config, tokens: u32, dir: &Path) -> anyhow::Result<()> {
    let (mut store, mut gateway) = Store::open(&config.dir, config.core.clone(), config.snapshot_every)?;
    let now = stock::now(1);
    let boot = [Input::Boot { boot: 1, epoch: 1 }];
    for input in boot.into_iter().chain(stock::artifacts(plan, tokens)?) {
        for event in gateway.decide(&now, &input).events {
            store.stage(&mut gateway, &now, event);
        }
        store.commit()?;
    }
    // A token begins at most 128 sessions in an hour, so everybody comes.
    let people = stock::tokens(plan, tokens)?;
    let mut log = floor::Log::create(dir)?;
    let mut rates: [[Vec<f64>; 2]; BATCHES.len()] = Default::default();
    let (mut number, mut bytes) = (0, [0; BATCHES.len()]);
    let mut session = SessionId::ZERO;
    for _ in 0..scale.rounds {
        for (at, together) in BATCHES.into_iter().enumerate() {
            bytes[at] = 0;
            let since = Instant::now();
            let mut decided = 0_usize;
            while since.elapsed() < scale.time {
                let mut batch = 0;
                while batch < together {
                    let device = stock::device(plan, number / 2);
                    let said = if number % 2 == 0 {
                        // What a device does is not measured: once a session is enough.
                        session = SessionId::mint(&device, 1, (number / 2) as u32 + 1);
                        stock::authorize(session, people[number / 2 % people.len()], Units::ZERO)
                    } else {
                        stock::void(session, Units::ZERO)
                    };
                    number += 1;
                    batch += 1;
                    let weighed = (decided == 0).then_some(&mut bytes[at]);
                    one(&mut store, &mut gateway, &now, (device, number as u64, said), weighed)?;
                }
                // As the engine does: beside a full batch that is being written, the next one is decided.
                store.settle()?;
                if together >= BATCH_JOBS_MAX && !store.is_due() {
                    store.lend()?;
                } else {
                    store.commit()?;
                    store.tend(&gateway);
                }
                decided += batch;
            }
            store.settle()?;
            rates[at][0].push(decided as f64 / since.elapsed().as_secs_f64());
            let entry = vec![0x5a; bytes[at]];
            let (since, mut appended) = (Instant::now(), 0);
            while since.elapsed() < scale.time / 2 {
                log.append(&entry)?;
                appended += together;
            }
            rates[at][1].push(appended as f64 / since.elapsed().as_secs_f64());
        }
    }
    println!(
        "Core and journal without a network: decisions a second, each applied, encoded and durable, grants and ends of sessions \
         in turn. Beside it a preallocated log that is given as many bytes and synced as often, and does nothing else.\n"
    );
    let mut table = Table::new(&[
        "decisions a sync",
        "durable decisions a second",
        "bytes a sync",
        "the log alone",
    ]);
    for ((together, [ours, raw]), bytes) in BATCHES.iter().zip(&rates).zip(bytes) {
        let text = |rates: &Vec<f64>| Spread::of(rates.clone()).text();
        table.row(&[together.to_string(), text(ours), bytes.to_string(), text(raw)]);
    }
    println!("{}", table.text());
    let best = rates.iter().map(|[ours, _]| Spread::of(ours.clone()).median);
    let best = best.fold(0.0, f64::max);
    let [ratio, judged] = at_least(best / WANTED, 1.0);
    let mut table = Table::new(&["wanted", "ratio", ""]);
    table.row(&["durable decisions a second to 100,000".to_owned(), ratio, judged]);
    println!("{}", table.text());
    store.close(&gateway)?;
    Ok(())
}

/// Decides and stages one; `weighed`: the bytes of the records it made are added here.
fn one(
    store: &mut Store,
    gateway: &mut Gateway,
    now: &Now,
    (device, counter, said): (DeviceId, u64, Said),
    weighed: Option<&mut usize>,
) -> anyhow::Result<()> {
    let Decision { events, effects, .. } = gateway.decide(now, &Input::Device { device, counter, said });
    let answers = effects.iter().filter(|effect| matches!(effect, Effect::Send { .. }));
    ensure!(answers.count() == 1 && !events.is_empty(), "no answer: {events:?}");
    if let Some(bytes) = weighed {
        *bytes += events
            .iter()
            .map(|event| record::encode(now, event).len())
            .sum::<usize>();
    }
    for event in events {
        store.stage(gateway, now, event);
    }
    Ok(())
}
