//! One seed: a hostile time, then a quiet one in which everything must come to rest, then the last audit.

use std::fmt;

use gateway_core::{
    Capability, Gateway, Input,
    config::{Limits, UnsignedDisable},
};
use proto::{
    book::{Account, Loss},
    id::Kind,
    message::{ClockQuality, OutletState},
    money::Money,
};

use crate::{
    hub::{Mood, Wrong},
    marks::{Mark, Marks},
    random::Random,
    shell::same,
    world::{Climate, DAY_MS, HOUR_MS, MINUTE_MS, Next, SECOND_MS, World},
};

/// Longest quiet time before everything must be at rest, in ms: a washer's programme and every retry fit in.
const REST_MS: u64 = 3 * HOUR_MS;

/// What a run amounted to.
#[derive(Default)]
pub(crate) struct Totals {
    seeds: u64,
    virtual_ms: u64,
    events: u64,
    records: u64,
    steps: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.events += other.events;
        self.records += other.records;
        self.steps += other.steps;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_ms / HOUR_MS;
        write!(f, "{hours} virtual hours, {} steps, ", self.steps)?;
        write!(f, "{} events and {} records in the journals", self.events, self.records)
    }
}

/// How much time a seed gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Hours, or days.
    Whole,
    /// Minutes.
    Brief,
}

pub(crate) fn run(seed: u64, length: Length, trace: bool, marks: &mut Marks) -> Totals {
    let mut random = Random::new(seed);
    let long = random.chance(800) && length == Length::Whole;
    let climate = climate(&mut random, long);
    let limits = limits(&mut random, long);
    let hostile_ms = match (length, long) {
        (Length::Whole, true) => random.range(6 * DAY_MS, 11 * DAY_MS),
        (Length::Whole, false) => random.range(HOUR_MS, 4 * HOUR_MS),
        (Length::Brief, _) => random.range(5 * MINUTE_MS, 30 * MINUTE_MS),
    };
    let mut world = World::new(climate, random, limits);
    world.trace = trace;
    begin(&mut world, long);
    let mut steps = go(&mut world, hostile_ms, |_| false);
    calm(&mut world, length);
    let lost = world.twins.iter().any(|twin| twin.is_lost);
    let end_ms = world.t_ms + if lost { 9 * DAY_MS } else { REST_MS };
    steps += go(&mut world, end_ms, is_at_rest);
    last_audit(&mut world);
    marks.add(&world.marks);
    Totals {
        seeds: 1,
        virtual_ms: world.t_ms,
        events: world.shell.journal.len() as u64,
        records: world.shell.records.len() as u64,
        steps,
    }
}

/// How hostile: each fault is absent, mild or wild, each for itself.
fn climate(random: &mut Random, long: bool) -> Climate {
    let mut degree = |mild: u32, wild: u32| match random.below(4) {
        0 | 1 => mild,
        2 => wild,
        _ => 0,
    };
    let mut climate = Climate {
        frame_lost: degree(100, 1_500),
        frame_twice: degree(50, 1_000),
        frame_overtaken: degree(20, 300),
        frame_replayed: degree(20, 200),
        power_cut: degree(3, 40),
        crash: degree(30, 200),
        append_fails: degree(20, 200),
        delay_ms: u64::from(degree(100, 3_000)),
        commit_ms: u64::from(degree(0, 40)),
        link_cut_ms: u64::from(degree(30, 5)) * MINUTE_MS,
        cloud_link_ms: u64::from(degree(60, 10)) * MINUTE_MS,
        mood_ms: u64::from(degree(20, 4)) * MINUTE_MS,
        hub_backup_ms: u64::from(degree(40, 10)) * MINUTE_MS,
        clock_ms: u64::from(degree(60, 10)) * MINUTE_MS,
        publish_ms: u64::from(degree(20, 4)) * MINUTE_MS,
        operator_ms: u64::from(degree(20, 5)) * MINUTE_MS,
        disk_ms: u64::from(degree(0, 60)) * MINUTE_MS,
        snapshot_ms: u64::from(degree(20, 5)) * MINUTE_MS,
        arrival_ms: u64::from(degree(60, 15)).max(30) * SECOND_MS,
    };
    if long {
        // Days in the dark, with few visitors.
        climate.arrival_ms = 2 * HOUR_MS;
        climate.link_cut_ms = 12 * HOUR_MS;
        climate.cloud_link_ms = 0;
        climate.mood_ms = 0;
        climate.publish_ms = 0;
        climate.clock_ms = climate.clock_ms.min(1) * DAY_MS;
        climate.operator_ms = 12 * HOUR_MS;
        climate.disk_ms = climate.disk_ms.min(1) * 2 * DAY_MS;
        climate.power_cut = climate.power_cut.min(2);
        climate.crash = climate.crash.min(30);
        climate.snapshot_ms = DAY_MS;
    }
    climate
}

fn limits(random: &mut Random, long: bool) -> Limits {
    let mut limits = Limits {
        site_budget: Money(random.pick(&[200_000, 200_000, 3_000, 1_000])),
        attempts_a_minute_max: random.pick(&[10, 3]),
        // Few people come here; a longer window lets three of them meet in it.
        mass_window_ms: random.pick(&[60_000, 1_800_000]),
        breaker_ms: random.pick(&[600_000, 120_000]),
        jitter_seed: random.below(u64::MAX),
        unsigned_disable: random.pick(&[
            UnsignedDisable::Alert,
            UnsignedDisable::Alert,
            UnsignedDisable::SuspendAfter { s: 120 },
            UnsignedDisable::Immediate,
        ]),
        ..Limits::default()
    };
    limits.dispenser.outage_count_max = random.pick(&[10, 2]);
    limits.dispenser.outage_count_lower = random.pick(&[6, 1]);
    limits.starts_an_hour_max = random.pick(&[30, 30, 3]);
    limits.device_change_ms = random.pick(&[0, 0, 90_000]);
    if long {
        limits.probe_max_ms = 20 * MINUTE_MS;
        limits.echo_ms = 20 * MINUTE_MS;
        limits.hello_ms = HOUR_MS;
    }
    limits
}

fn begin(world: &mut World, long: bool) {
    let all = world.random.chance(9_400);
    let kinds: &[Kind] = if all {
        &Kind::SERVED
    } else {
        &[Kind::Charger, Kind::Dispenser]
    };
    world.hub.publish_tariffs(kinds, &mut world.random);
    world.hub.publish_list(1_768_000_000, Wrong::Nothing);
    for content in [world.hub.tariffs.clone(), world.hub.list.clone()]
        .into_iter()
        .flatten()
    {
        world.announce(&content);
    }
    world.after(0, Next::Restart);
    for at in 0..world.twins.len() {
        let ms = world.random.below(30 * SECOND_MS);
        world.after(ms, Next::PowerOn { at });
    }
    let climate = world.climate;
    world.sometime(climate.mood_ms, Next::Mood);
    world.sometime(climate.publish_ms, Next::Publish);
    world.sometime(climate.hub_backup_ms, Next::HubBackup);
    world.sometime(climate.clock_ms, Next::Clock);
    world.sometime(climate.operator_ms, Next::Operator);
    world.sometime(climate.disk_ms, Next::Disk);
    world.sometime(climate.snapshot_ms, Next::Snapshot);
    world.sometime(climate.link_cut_ms, Next::Storm);
    world.after(MINUTE_MS, Next::Arrival);
    if long {
        world.after(2 * HOUR_MS, Next::Mood);
    }
}

/// Lets things happen until `end_ms` or until `done`, which is asked once in a while; returns how many did.
fn go(world: &mut World, end_ms: u64, done: fn(&World) -> bool) -> u64 {
    let mut steps = 0;
    let mut asks_ms = world.t_ms + MINUTE_MS;
    while let Some(next) = world.pop(end_ms) {
        steps += 1;
        happen(world, next);
        if world.t_ms >= asks_ms {
            if done(world) {
                break;
            }
            asks_ms = world.t_ms + MINUTE_MS;
        }
    }
    steps
}

fn happen(world: &mut World, next: Next) {
    match next {
        // What was still to come when the faults ended.
        Next::Mood
        | Next::Publish
        | Next::HubBackup
        | Next::Clock
        | Next::Operator
        | Next::Storm
        | Next::Arrival
        | Next::Disk
        | Next::Snapshot
            if world.calm => {}
        Next::GatewayWake { generation } => world.gateway_wakes(generation),
        Next::Commit => world.commit_group(),
        Next::Restart => world.restart(),
        Next::FrameUp(frame) => world.frame_up(&frame),
        Next::FrameDown { to, frame } => world.frame_down(to, &frame),
        Next::DeviceWake { at, generation } => world.device_wakes(at, generation),
        Next::PowerOn { at } => world.power_on(at),
        Next::LinkCut { at } => world.link_cut(at),
        Next::Storm => {
            let at = world.random.below(world.twins.len() as u64) as usize;
            world.link_cut(at);
            world.sometime(world.climate.link_cut_ms, Next::Storm);
        }
        Next::LinkTry { at } => world.link_try(at),
        Next::AskArrives(ask) => world.ask_arrives(&ask),
        Next::BackendAsked(says) => world.backend_asked(*says),
        Next::CloudSays(input) => world.cloud_says(&input),
        Next::ArtifactArrives(signed) => world.artifact_arrives(&signed),
        Next::UploadDue => world.upload(),
        Next::UploadArrives { first, records } => world.upload_arrives(first, &records),
        Next::ReceiptArrives(receipt) => world.receipt_arrives(receipt),
        Next::HelloArrives => world.hello_arrives(),
        Next::OrderOver { id } => world.order_over(id),
        Next::DoneArrives(done) => world.done_arrives(done),
        Next::CloudLink => world.cloud_link(),
        Next::Mood => world.change_mood(),
        Next::Publish => world.publish(),
        Next::HubBackup => world.hub_backup(),
        Next::Clock => world.change_clock(),
        Next::Disk => world.change_disk(),
        Next::Operator => world.operator(),
        Next::Snapshot => {
            world.shell.take_snapshot();
            world.sometime(world.climate.snapshot_ms, Next::Snapshot);
        }
        Next::Arrival => world.arrival(),
        Next::Visit { at, outlet, number } => world.visit(at, outlet, number),
    }
}

/// The faults are over. One device in some runs is lost for good, and seven days must pass; a brief run has no days.
fn calm(world: &mut World, length: Length) {
    if length == Length::Whole && world.random.chance(1_500) {
        let at = world.random.below(world.twins.len() as u64) as usize;
        world.power_cut(at);
        world.twins[at].is_lost = true;
        world.hit(Mark::DeviceLostForGood);
    }
    world.calm = true;
    world.climate = Climate::default();
    world.mood = Mood::Healthy;
    (world.wall_skew_s, world.wall_drift_ppm, world.quality) = (0, 0, ClockQuality::Synchronised);
    world.put(&Input::Disk { is_scarce: false });
    world.cloud_link = false;
    world.after(SECOND_MS, Next::Restart);
    world.after(2 * SECOND_MS, Next::CloudLink);
    for at in 0..world.twins.len() {
        world.after(SECOND_MS, Next::PowerOn { at });
        world.after(10 * SECOND_MS, Next::LinkCut { at });
        for outlet in 0..world.twins[at].places.len() {
            if let Some(visit) = &world.twins[at].places[outlet].visit {
                let number = visit.number;
                world.after(20 * SECOND_MS, Next::Visit { at, outlet, number });
            }
        }
    }
}

/// Every session closed, every receipt there, every record at the hub, the cloud trusted again.
fn is_at_rest(world: &World) -> bool {
    let gateway = &world.shell.gateway;
    let devices_rest = world.twins.iter().filter(|twin| !twin.is_lost).all(|twin| {
        let outlets = 0..twin.places.len() as u8;
        let rests = |device: &device::Device| {
            device.is_linked()
                && device.unreceipted() == 0
                && outlets
                    .clone()
                    .all(|i| device.session(i).is_none() && device.state(i) != Some(OutletState::Busy))
        };
        twin.device.as_ref().is_some_and(rests)
    });
    world.shell.is_up
        && devices_rest
        && gateway.sessions().iter().all(|session| session.has_ended())
        && gateway.outbox().waiting() == 0
        && gateway.reservations().iter().next().is_none()
        && world.desk.is_answered()
        && Capability::ALL.iter().all(|&of| gateway.health().of(of).mode.asks())
}

fn last_audit(world: &mut World) {
    let gateway = &world.shell.gateway;
    if !is_at_rest(world) {
        let open: Vec<_> = gateway
            .sessions()
            .iter()
            .filter(|session| !session.has_ended())
            .collect();
        let devices: Vec<_> = world
            .twins
            .iter()
            .map(|twin| {
                twin.device
                    .as_ref()
                    .map(|d| (d.is_linked(), d.unreceipted(), d.session(0)))
            })
            .collect();
        panic!(
            "not at rest after {} ms: up {}, open {open:?}, waiting {}, mode {:?}, devices {devices:?}",
            world.t_ms,
            world.shell.is_up,
            gateway.outbox().waiting(),
            gateway.health().authorize.mode,
        );
    }
    let (customers, revenue, gifts) = world.auditor.at_rest(world.hub.records(), &world.shell.records);
    world.auditor.reports(&world.shell.journal, &mut world.marks);
    world.auditor.instruments_at_rest();
    let prepaid = world.auditor.prepaid();
    for book in [gateway.book(), world.hub.book()] {
        assert!(book.is_balanced());
        assert_eq!(book.holds().count(), 0, "nothing is held at rest");
        for (account, balance) in book.balances() {
            let expected = match account {
                Account::Customer(number) => customers.get(number).copied().unwrap_or(0),
                Account::Clearing => customers.values().sum::<i64>() + prepaid + gifts,
                Account::Prepaid => prepaid,
                Account::Loss(Loss::Emergency) => gifts,
                Account::Revenue(_) | Account::Lease(..) | Account::Loss(_) | Account::Dispute => 0,
            };
            assert_eq!(balance.debits_posted.0, expected, "debits of {account}");
            let credited = match account {
                Account::Customer(_) | Account::Lease(..) | Account::Prepaid | Account::Loss(_) | Account::Dispute => 0,
                Account::Clearing => customers.values().sum::<i64>() + prepaid + gifts,
                Account::Revenue(kind) => revenue.get(kind).copied().unwrap_or(0),
            };
            assert_eq!(balance.credits_posted.0, credited, "credits of {account}");
        }
    }
    let lines = |book: &proto::book::Book| book.balances().map(|(a, b)| (*a, *b)).collect::<Vec<_>>();
    assert_eq!(
        lines(gateway.book()),
        lines(world.hub.book()),
        "the hub's book is the gateway's, line by line"
    );
    let replayed: Gateway = world.shell.replay();
    same(
        "the journal leads to another state than the one that was lived",
        &replayed,
        gateway,
    );
    assert_eq!(gateway.risk().exposure(), Money::ZERO, "everything has its receipt");
}
