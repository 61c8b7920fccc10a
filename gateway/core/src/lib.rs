//! The gateway's decisions.
//!
//! [`Gateway::decide`] reads, [`Gateway::apply`] alone changes, and what was decided is a list of [`Event`]s that the
//! shell makes durable before any [`Effect`] leaves. Recovery is replaying the events. There is no clock, no I/O, no
//! random number and no unordered map here, so the same inputs give the same state, in a test, in a simulation of a
//! thousand evenings and after a crash.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

mod activity;
mod alarm;
mod apply;
mod authorize;
mod charges;
mod claims;
pub mod config;
mod decide;
pub mod event;
mod frames;
mod grounds;
pub mod health;
mod heard;
mod instrument;
mod lease;
mod orders;
mod outbox;
pub mod pace;
mod policy;
pub mod report;
pub mod ring;
mod risk;
mod session;
mod snapshot;
mod spent;
mod stoppers;
mod strangers;
mod time;
mod trust;
mod velocity;
pub mod why;
pub mod words;

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{
    artifact::{IssuerKeys, Revocations, TariffTable, VerifiedList},
    book::Book,
    id::{DeviceId, GatewayId, Hash, OutletId, SessionId, TokenHash},
    link::{Answer, Ask, Echo, LedgerReceipt, Order, OrderDone, Welcome},
    message::{
        Clock, Command, CommandAnswer, Fault, Grant, Hello, Meter, OutletState, Receipt, Refusal, Started, Status, Stop,
    },
    money::Units,
    policy::Policy,
    trust::ArtifactKind,
};

pub use crate::{
    activity::Activity,
    alarm::{Alarm, Whose},
    authorize::Rule,
    claims::Interval,
    config::Config,
    decide::RingOrder,
    event::Event,
    grounds::{Caps, CloudWord, Grounds, Listed},
    health::{Capability, Health, Mode},
    instrument::{Instruments, PURSES_MAX, Presented, Purse, Spent},
    lease::{LeaseRow, Leases},
    orders::{Fate, Orders, Reservation, Reservations},
    outbox::Outbox,
    policy::Suspect,
    risk::{Risk, Tally},
    session::{Contest, Invalidation, Request, Session, Sessions, Terms},
    strangers::Drawn,
    time::{Instant, Now, Timeline},
    trust::{Aside, Confirmation, Findings, List, ListHead, PriceChange, Rows, Stale, Trust},
};
use crate::{claims::Claims, policy::Policies, stoppers::Groups, strangers::Strangers, velocity::Velocity};

/// Something from outside. Whatever could be wrong with its form was found before it became an `Input`.
#[derive(Clone, Debug)]
pub enum Input {
    /// The shell started; journal and clocks are ready. The first input of every boot.
    Boot {
        /// Number of this boot, above every earlier one.
        boot: u32,
        /// Epoch of the journal.
        epoch: u32,
    },
    /// A device said something; its seal fits.
    Device {
        /// Who.
        device: DeviceId,
        /// The counter under the seal.
        counter: u64,
        /// What.
        said: Said,
    },
    /// The hub answered; its seal fits.
    Answer(Answer),
    /// Something between us and the hub reported an error. Anybody may have said it.
    Trouble {
        /// Which question; 0: none in particular.
        ask: u64,
        /// As in HTTP.
        code: u16,
    },
    /// A list passed every check of its form.
    List(VerifiedList),
    /// Signed revocations.
    Revocations(Revocations),
    /// Signed prices.
    Tariffs(TariffTable),
    /// A set of keys, signed by one of [`Trust::signers`].
    Keys(IssuerKeys),
    /// An operator takes what the gate set aside.
    Adopt {
        /// What it is about.
        kind: ArtifactKind,
        /// Its revision; 0: whichever it is.
        revision: u64,
    },
    /// An operator goes back to the list, or the policy, before the active one.
    RollBack(ArtifactKind),
    /// The limits of the configuration, after the boot and whenever it is read again.
    Configured(alloc::boxed::Box<config::Limits>),
    /// An operator has a say about what is adopted by rings.
    Ring(ring::Staged, RingOrder),
    /// Signed leases for this gateway.
    Leases(proto::artifact::Leases),
    /// Signed limits.
    Policy(Policy),
    /// The shell looked at the disk of the journal.
    Disk {
        /// Whether no more is free than the reserve.
        is_scarce: bool,
    },
    /// The hub's answer to our hello.
    Welcome(Welcome),
    /// The hub has committed records.
    Receipt {
        /// Its word.
        receipt: LedgerReceipt,
        /// The chain hash at `receipt.upto` as the uploader computed it from the journal.
        own_hash: Hash,
    },
    /// The operator wants something done, and says so through his hub; its seal fits.
    CloudOrder(alloc::boxed::Box<Order>),
    /// The operator's backend returned an echo; its seal fits.
    Echo {
        /// What it returned.
        nonce: u64,
    },
    /// [`Gateway::next_deadline`] has passed. Does one thing; call again while it is still due.
    Tick,
}

/// What a device said.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is named after its message")]
pub enum Said {
    Hello(Hello),
    /// `authorize`, with the token replaced by its hash.
    Authorize {
        session: SessionId,
        outlet: OutletId,
        token: TokenHash,
        units_wished: Units,
        register: Units,
        presented: Presented,
    },
    /// `redeemed`, with the token's hash beside it.
    Redeemed {
        redeemed: alloc::boxed::Box<proto::message::Redeemed>,
        token: TokenHash,
        presented: Presented,
    },
    Started(Started),
    Meter(Meter),
    Stop(Stop),
    Status(Status),
    CommandAnswer(CommandAnswer),
}

/// Something the shell must do, after the events of the same decision are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "grants are what is sent most")]
pub enum Effect {
    /// Tell a device.
    Send {
        /// Whom.
        device: DeviceId,
        /// What.
        message: Told,
    },
    /// Its counter as the device remembers it: seal above it from now on.
    RaiseCounter {
        /// Whose.
        device: DeviceId,
        /// Highest counter the device accepted.
        last: u64,
    },
    /// Ask the hub. No answer in time is an answer too: the core keeps the deadline.
    Ask(Ask),
    /// Ask the operator's backend for an echo. None in time is an answer too.
    Echo(Echo),
    /// Ask the hub where it stands, on a link that stands already.
    Hello,
    /// Tell the hub what became of an order.
    OrderDone(OrderDone),
    /// Tell the operator.
    Alarm(Alarm),
}

/// What a device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named after its message")]
#[expect(clippy::large_enum_variant, reason = "grants are what is sent most")]
pub enum Told {
    Clock(Clock),
    Grant(Grant),
    Refusal(Refusal),
    Receipt(Receipt),
    Command(Command),
}

/// Why an input changed nothing. Not an error of ours; worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Not one of the site's devices.
    #[error("{0} is not a device of this site")]
    UnknownDevice(DeviceId),
    /// A counter that was accepted before.
    #[error("{device} repeats counter {found}, {last} was accepted: a replay, or a late duplicate")]
    Replayed {
        /// Who.
        device: DeviceId,
        /// The counter.
        found: u64,
        /// The highest accepted.
        last: u64,
    },
    /// The device is configured as another kind, or with fewer outlets.
    #[error("{0} says it is another kind of device than the configuration says")]
    Kind(DeviceId),
    /// A reading for a session that is not open here.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// An answer that nobody waits for.
    #[error("question {0} is not open")]
    NotAsked(u64),
    /// An artifact that is not newer.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// An artifact that was set aside comes again.
    #[error("{} revision {revision} is set aside already", kind.word())]
    Aside {
        /// What it is about.
        kind: ArtifactKind,
        /// Its revision.
        revision: u64,
    },
    /// Changes to a list that is not the active one. The whole list is needed.
    #[error("list revision {revision} comes as changes to revision {base}, the active one is {active}")]
    Base {
        /// Its revision.
        revision: u64,
        /// The list that it changes.
        base: u64,
        /// The active list.
        active: u64,
    },
    /// Changes to the active list that make another one than the signed one. The whole list is needed.
    #[error("list revision {revision} is not what its changes make of revision {base}")]
    Trailer {
        /// Its revision.
        revision: u64,
        /// The active list.
        base: u64,
    },
    /// Nothing of this kind, or not this revision, is set aside.
    #[error("no such {} is set aside", .0.word())]
    NothingAside(ArtifactKind),
    /// There is none before the active one.
    #[error("there is no {} to go back to", .0.word())]
    NothingBefore(ArtifactKind),
    /// Nothing of this kind is on its way.
    #[error("no {} is in a ring", .0.word())]
    NoRing(ring::Staged),
    /// A receipt that changes nothing: it repeats an earlier one.
    #[error("receipt up to {upto}, the cursor is at {cursor}")]
    OldReceipt {
        /// Its word.
        upto: u64,
        /// Ours.
        cursor: u64,
    },
    /// A hub that expects another epoch agrees to nothing of this one.
    #[error("a welcome to epoch {0}")]
    OtherEpoch(u32),
    /// A receipt for records that do not exist, or of another epoch.
    #[error("receipt up to {upto} of epoch {epoch} for records that this journal does not have")]
    ForeignReceipt {
        /// Its word.
        upto: u64,
        /// Its epoch.
        epoch: u32,
    },
    /// An order that has come before, or has no number.
    #[error("order {0} has come before, or is older than any that is remembered")]
    OrderRepeated(u64),
    /// Leases of another gateway.
    #[error("leases for gateway {0}")]
    OtherGateway(GatewayId),
    /// Nothing is due.
    #[error("nothing is due")]
    NotDue,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be made durable, then applied, in order.
    pub events: Vec<Event>,
    /// To be carried out after that, in order.
    pub effects: Vec<Effect>,
    /// Why there is nothing to do.
    pub ignored: Option<Ignored>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Device {
    counter: u64,
    boot: u32,
    command: u64,
    course: ring::Course,
    outlets: BTreeMap<OutletId, Outlet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Outlet {
    state: OutletState,
    fault: Fault,
    /// What of its register belongs to a bill.
    claims: Claims,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            state: OutletState::Free,
            fault: Fault::None,
            claims: Claims::default(),
        }
    }
}

/// A pair of canaries on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Canaries {
    /// Number of the question about the good one; the bad one has the next.
    ask: u64,
    good: TokenHash,
    bad: TokenHash,
    until: Instant,
    good_right: bool,
    bad_right: bool,
}

impl Canaries {
    const fn is_about(&self, ask: u64) -> bool {
        ask == self.ask || ask == self.ask + 1
    }

    const fn token(&self, ask: u64) -> TokenHash {
        if ask == self.ask { self.good } else { self.bad }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AwaitedEcho {
    nonce: u64,
    until: Instant,
}

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    config: Config,
    time: Timeline,
    devices: BTreeMap<DeviceId, Device>,
    trust: Trust,
    risk: Risk,
    leases: Leases,
    sessions: Sessions,
    book: Book,
    outbox: Outbox,
    orders: Orders,
    reservations: Reservations,
    health: Health,
    activity: Activity,
    canaries: Option<Canaries>,
    echo: Option<AwaitedEcho>,
    /// Until when the answer to a hello is awaited.
    hello_until: Option<Instant>,
    /// The last good canary, so that canaries go round the list.
    probed: TokenHash,
    /// Number of the last question to the cloud in this boot; 0: there was none.
    ask: u64,
    /// What was spent of instruments.
    spent: Spent,
    /// Grants and refusals so far.
    decisions: u64,
    policies: Policies,
    rings: ring::Rings,
    velocity: Velocity,
    strangers: Strangers,
    groups: Groups,
    /// The disk has no room for new unsecured sessions.
    is_disk_scarce: bool,
}

impl Gateway {
    /// The number of the next question to the cloud.
    pub(crate) fn next_ask(&self) -> u64 {
        self.ask.max(self.time.asks_from()) + 1
    }

    /// A gateway that has seen nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            policies: Policies::new(config.limits.clone()),
            config,
            ..Self::default()
        }
    }

    /// When [`Input::Tick`] is due, on this boot's monotonic clock; `None`: never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let health = &self.health;
        let timers = [
            self.sessions.next_timer(),
            self.sessions.invalid().map(|_| Instant::default()),
            self.canaries.map(|pair| pair.until).or(health.authorize.probe_at),
            self.echo.map(|echo| echo.until).or(health.commit.probe_at),
            self.hello_until.or(health.control.probe_at),
            health.receipt_look_at,
            self.leases.next_end(self.time.epoch),
            self.reservations.next_end(),
            self.rings.next_due(&self.config.ring),
        ];
        let at = timers.into_iter().flatten().min()?;
        Some(self.time.mono_ms(at))
    }

    /// Where we are in time.
    #[must_use]
    pub const fn timeline(&self) -> &Timeline {
        &self.time
    }

    /// The sessions.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The book.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// The outbox.
    #[must_use]
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Which orders of the operator have come, and what they set.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Outlets that are kept free for somebody.
    #[must_use]
    pub const fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// What is trusted.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What may be spent without credit.
    #[must_use]
    pub const fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Money at risk.
    #[must_use]
    pub const fn risk(&self) -> &Risk {
        &self.risk
    }

    /// What is known of the cloud.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Who was served here lately.
    #[must_use]
    pub const fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Whether the disk has no room for new unsecured sessions.
    #[must_use]
    pub const fn is_disk_scarce(&self) -> bool {
        self.is_disk_scarce
    }

    /// Outlets that a device has told of, and what it said last.
    pub fn outlets(&self) -> impl Iterator<Item = (&DeviceId, OutletId, OutletState, Fault)> {
        self.devices.iter().flat_map(|(id, device)| {
            let outlets = device.outlets.iter();
            outlets.map(move |(outlet, row)| (id, *outlet, row.state, row.fault))
        })
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }
}
