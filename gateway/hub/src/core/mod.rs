//! The hub's decisions, pure: accounts, tokens, what was published, the gateways' watermarks and the book.
//!
//! [`Hub::decide`] reads, [`Hub::apply`] is the only mutator, recovery is replaying it. No clock, no I/O, no unordered
//! map. Every input may arrive twice: what was committed is acknowledged again and never booked again.

mod ask;
mod catalogue;
mod changes;
pub mod conflict;
mod dispatch;
mod event;
mod hello;
mod lease;
mod policy;
mod publish;
mod release;
mod revocation;
mod settle;
mod state;
mod upload;

use proto::{
    artifact::{IssuerKeys, PublicKey, Revocations, TariffTable},
    id::{AccountId, GatewayId},
    link::{self, Answer, Ask, Echo, LedgerReceipt, LinkHello, OrderDone, Upload, Welcome},
    money::Money,
    policy::Policy,
    trust::ArtifactKind,
};

pub use catalogue::{Catalogue, ImportRefusal, ImportSummary, RevocationSpec, SHRINK_TOKENS_FREE, TokenSpec};
pub use changes::{ListChanges, ListStep};
pub use conflict::{About, Adjustment, Case, Class, Conflicts, Order, OrderRefusal};
pub use dispatch::{
    DISPATCHES_AHEAD_MAX, DISPATCHES_KEPT_MAX, DispatchRefusal, DispatchRow, DispatchState, Dispatches, withdrawn,
};
pub use event::{Event, RecordKey};
pub use lease::{LeaseKey, LeaseRow};
pub use publish::{LIST_LEAST_S, PublishedList};
pub use release::{ReleaseRefusal, Released};
pub use revocation::LogEntry;
pub use settle::Settling;
pub use state::{
    Dispute, GatewayRow, Hub, Quarantined, REVOCATION_WINDOW, SESSIONS_CLOSED_MAX, SessionPhase, SessionRow, TokenRow,
};
pub use upload::{QUARANTINE_PART_BYTES, QUARANTINE_ROWS_MAX, RECORD_AMOUNT_MAX};

/// What the shell's clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970 UTC.
    pub wall_s: u64,
}

/// What may be set from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Longest age of the published list before the same content is published anew, in s; 0: never.
    pub list_every_s: u64,
    /// Size of a lease, if the account has so much.
    pub lease_slice: Money,
    /// How long a lease may be spent, in s.
    pub lease_s: u64,
}

/// Something that happened. Frames of gateways are here after their seal and counter were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The process started.
    Start,
    /// The keys of this start of the process. Whichever signs is published, unless it is the root alone, which gateways
    /// have pinned.
    Keys {
        /// Signs lists, tariffs and revocations.
        signing: PublicKey,
        /// Signs sets of keys.
        root: PublicKey,
    },
    /// A gateway connected and introduced itself.
    Hello {
        /// Who.
        gateway: GatewayId,
        /// The counter of the frame.
        counter: u64,
        /// Its words.
        hello: LinkHello,
    },
    /// A gateway asks about a token.
    Ask {
        /// Who.
        gateway: GatewayId,
        /// The question.
        ask: Ask,
    },
    /// A gateway uploads ledger records.
    Upload {
        /// Who.
        gateway: GatewayId,
        /// The records.
        upload: Upload,
    },
    /// A gateway wants to know whether this hub is alive.
    Echo {
        /// Who.
        gateway: GatewayId,
        /// To be returned.
        echo: Echo,
    },
    /// The operator's accounts, tokens, tariffs and revocations, as they should be.
    Import(Catalogue),
    /// The operator corrects the books, closes a session, or settles what cannot be booked.
    Order(Order),
    /// The operator has looked at a gateway that was put back: what it could have spent in former epochs is free again.
    ReleaseLeases {
        /// Which.
        gateway: GatewayId,
        /// It never comes back with what it knew: its present epoch is over, too.
        gone: bool,
    },
    /// The operator wants something done at a site.
    Dispatch {
        /// By which gateway.
        gateway: GatewayId,
        /// What; its number is given by the hub, and its raw token is kept elsewhere.
        order: Box<link::Order>,
    },
    /// A gateway says what became of an order.
    Done {
        /// Who.
        gateway: GatewayId,
        /// What became of it.
        done: OrderDone,
    },
    /// Time passed.
    Tick,
}

/// What the shell has to do after the events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say where the hub stands.
    Welcome {
        /// To whom.
        gateway: GatewayId,
        /// What.
        welcome: Welcome,
        /// Whether the two agree on version and epoch, so that artifacts and receipts may follow.
        is_agreed: bool,
    },
    /// Answer a question.
    Answer(GatewayId, Answer),
    /// Acknowledge records.
    Receipt(GatewayId, LedgerReceipt),
    /// Return an echo.
    Echo(GatewayId, Echo),
    /// Send one artifact to one gateway.
    Artifact {
        /// To whom.
        gateway: GatewayId,
        /// What.
        kind: ArtifactKind,
        /// Which.
        revision: u64,
        /// What the gateway has of this kind: changes to it are enough. 0: nothing.
        base: u64,
    },
    /// Send a new artifact to every connected gateway.
    Announce {
        /// What.
        kind: ArtifactKind,
        /// Which.
        revision: u64,
        /// What gateways that are up to date have of this kind. 0: nothing.
        base: u64,
    },
    /// Count records that were committed before.
    Duplicates(GatewayId, u64),
    /// The import is done.
    Imported(ImportSummary),
    /// The import changes nothing, because it looks wrong.
    ImportRefused(ImportRefusal),
    /// The operator's entry has this number.
    Ordered(u64),
    /// So many quarantined records of a gateway are settled.
    Settled(GatewayId, u64),
    /// The operator's wish changes nothing.
    OrderRefused(OrderRefusal),
    /// Leases were released.
    Released(Released),
    /// Nothing is released.
    ReleaseRefused(ReleaseRefusal),
    /// Send an order, to every way on which its gateway was greeted, or as an answer to a hello. The raw token of a start
    /// is added on the way out.
    Order(GatewayId, Box<link::Order>),
    /// The order has this number.
    Dispatched {
        /// Whose.
        gateway: GatewayId,
        /// It.
        id: u64,
    },
    /// The order is not given.
    DispatchRefused(DispatchRefusal),
    /// Tell the operator.
    Alarm(Alarm),
}

/// What an operator has to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// A record was kept, but not booked.
    #[error("record {at} is quarantined: {reason}")]
    Quarantined {
        /// Which.
        at: RecordKey,
        /// Why.
        reason: String,
    },
    /// A charge is not what bill and tariff give.
    #[error("record {at} charges {charged}, bill and tariff give {}", computed.map_or_else(|| "nothing: the tariff is unknown here".to_owned(), |money| money.to_string()))]
    Disputed {
        /// Which.
        at: RecordKey,
        /// What the gateway charged, and what was booked.
        charged: Money,
        /// What the hub computes; `None`: it has no tariff with that hash.
        computed: Option<Money>,
    },
    /// A gateway speaks for an epoch that is over: it runs on a restored copy.
    #[error(
        "gateway {gateway} speaks in epoch {found}, expected {expected}: a restored copy, fenced; stop it and begin that epoch there: holdfast run --epoch {expected}"
    )]
    Fenced {
        /// Who.
        gateway: GatewayId,
        /// Its epoch.
        found: u32,
        /// The epoch it has to reach.
        expected: u32,
    },
    /// A gateway speaks no version that this hub speaks.
    #[error(
        "gateway {gateway} speaks versions {version_min} to {version_max}, this hub {}",
        proto::VERSION
    )]
    Version {
        /// Who.
        gateway: GatewayId,
        /// Its lowest version.
        version_min: u8,
        /// Its highest version.
        version_max: u8,
    },
    /// A gateway was put back from a backup: nobody knows what it had spent of its leases.
    #[error(
        "gateway {gateway} was put back: {amount} of its leases stay withheld until you release them: holdfast-hub release --gateway {gateway}"
    )]
    Withheld {
        /// Who.
        gateway: GatewayId,
        /// What of its leases is not accounted for.
        amount: Money,
    },
    /// An upload that cannot be committed as it stands.
    #[error("gateway {gateway}: {reason}")]
    Upload {
        /// Who.
        gateway: GatewayId,
        /// Why.
        reason: String,
    },
    /// A gateway has a newer artifact than this hub ever made: the hub is a restored copy, or was set up anew.
    #[error("gateway {gateway} holds {} revision {found}, the newest here is {newest}: this hub forgot something", kind.word())]
    Ahead {
        /// Who.
        gateway: GatewayId,
        /// What.
        kind: ArtifactKind,
        /// Its revision.
        found: u64,
        /// Ours.
        newest: u64,
    },
    /// Two claims on one session: one is booked, the other kept.
    #[error("record {at}: session {session} is claimed twice; both claims are kept, one is booked")]
    Claimed {
        /// The record of the claim that is not booked, or that displaces the other.
        at: RecordKey,
        /// Which session.
        session: proto::id::SessionId,
    },
    /// A gateway's clock is wrong.
    #[error("record {at}: the clock of the gateway is off by {off_s} s; order follows device and sequence")]
    Clock {
        /// The record that shows it.
        at: RecordKey,
        /// By how much, in s; above zero: ahead.
        off_s: i64,
    },
    /// Something a person should look at.
    #[error("{}, session {}, account {}: {}", .0.class.word(), .0.about.session, .0.about.account, .0.what)]
    Case(Case),
    /// The hub corrected its books.
    #[error("adjustment {number}, {}: {total} of session {}, account {}", class.word(), about.session, about.account)]
    Adjusted {
        /// Its number.
        number: u64,
        /// Which conflict.
        class: Class,
        /// Whom it concerns.
        about: About,
        /// What the correction amounts to now.
        total: Money,
    },
}

/// Events to make durable and effects to run after that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub events: Vec<Event>,
    /// In order.
    pub effects: Vec<Effect>,
}

impl Hub {
    /// What `input` means. Reads only: nothing has happened until the events are durable and applied.
    #[must_use]
    pub fn decide(&self, now: Now, settings: &Settings, input: &Input) -> Decision {
        match input {
            Input::Start => Decision {
                events: vec![Event::Booted {
                    boot: self.boot().saturating_add(1),
                }],
                effects: Vec::new(),
            },
            Input::Keys { signing, root } => self.decide_keys(*signing, *root),
            Input::Hello {
                gateway,
                counter,
                hello,
            } => self.decide_hello(now, *gateway, *counter, hello),
            Input::Ask { gateway, ask } => self.decide_ask(now, settings, *gateway, ask),
            Input::Upload { gateway, upload } => self.decide_upload(now, settings, *gateway, upload),
            Input::ReleaseLeases { gateway, gone } => self.decide_release(*gateway, *gone),
            Input::Echo { gateway, echo } => Decision {
                events: Vec::new(),
                effects: vec![Effect::Echo(*gateway, echo.clone())],
            },
            Input::Import(catalogue) => self.decide_import(now, catalogue),
            Input::Order(order) => self.decide_order(now, order),
            Input::Dispatch { gateway, order } => self.decide_dispatch(now, *gateway, order),
            Input::Done { gateway, done } => self.decide_done(*gateway, done),
            Input::Tick => {
                let mut decision = self.decide_publication(now, settings);
                self.decide_overdue(now, &mut decision);
                decision
            }
        }
    }

    /// Decides and applies, conflicts included. What it returns shares one commit.
    pub fn step(&mut self, now: Now, settings: &Settings, input: &Input) -> Decision {
        let mut decision = self.decide(now, settings, input);
        let touched = self.touched_before(&decision.events);
        for event in &decision.events {
            self.apply(event);
        }
        let Decision { events, effects } = self.adjudicate(now, touched, &decision.events);
        decision.events.extend(events);
        decision.effects.extend(effects);
        self.note(&mut decision);
        decision
    }

    /// What is left of an account: deposits less everything spent, held and leased. Negative: overdrawn.
    #[must_use]
    pub fn available(&self, account: AccountId) -> Money {
        let sums = self.book().balance(&proto::book::Account::Customer(account));
        self.posted(account)
            .saturating_sub(sums.debits_pending)
            .saturating_sub(self.untaken(account))
    }

    /// What an account has, open holds aside. Negative: overdrawn.
    #[must_use]
    pub fn posted(&self, account: AccountId) -> Money {
        let sums = self.book().balance(&proto::book::Account::Customer(account));
        self.deposit(account)
            .saturating_add(sums.credits_posted)
            .saturating_sub(sums.debits_posted)
    }

    /// What an account owes; zero: nothing. Whatever is paid in repays it first.
    #[must_use]
    pub fn arrears(&self, account: AccountId) -> Money {
        Money::ZERO.saturating_sub(self.posted(account)).max(Money::ZERO)
    }

    /// The content of a published artifact; `None` if this hub has no such revision any more. `base`: the list that
    /// whoever gets it has, 0: none.
    #[must_use]
    pub fn artifact(&self, kind: ArtifactKind, revision: u64, base: u64) -> Option<Content> {
        match kind {
            ArtifactKind::List => {
                let list = self.list().filter(|list| list.revision == revision)?;
                let changes = self.list_changes(base).map(Content::ListChanges);
                Some(changes.unwrap_or_else(|| Content::List(list.clone())))
            }
            ArtifactKind::Revocations => self.revocations(revision).map(Content::Revocations),
            ArtifactKind::Tariffs => self
                .tariff_table()
                .filter(|table| table.revision == revision)
                .cloned()
                .map(Content::Tariffs),
            ArtifactKind::Keys => self
                .keys()
                .filter(|keys| keys.epoch == revision)
                .cloned()
                .map(Content::Keys),
            ArtifactKind::Policy => self
                .policy()
                .filter(|policy| policy.revision == revision)
                .cloned()
                .map(Content::Policy),
            ArtifactKind::Other | ArtifactKind::Lease | ArtifactKind::Voucher | ArtifactKind::Firmware => None,
        }
    }
}

/// The content of an artifact, to be signed by the shell. Signing it again gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A full list.
    List(PublishedList),
    /// A list as changes.
    ListChanges(ListChanges),
    /// Revocations.
    Revocations(Revocations),
    /// Price tables.
    Tariffs(TariffTable),
    /// A set of keys.
    Keys(IssuerKeys),
    /// Limits.
    Policy(Policy),
}
