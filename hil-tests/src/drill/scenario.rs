//! What a drill replays: a site, what the cloud does when, what the operator does meanwhile, and what must hold at the
//! end. Everything is checked; [`super::parse`] makes one from a file.

use gateway_core::Capability;
use proto::id::Kind;

/// Milliseconds of an hour.
pub const HOUR_MS: u64 = 3_600_000;

/// A replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Short name: the file's, without its ending.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// What happened really, and what is asked of the gateway.
    pub about: String,
    /// When it begins: seconds since 1970 UTC.
    pub begins_s: u64,
    /// Offset of local time from UTC, in minutes.
    pub offset_min: i16,
    /// How long people come, in ms. After it everything must come to rest.
    pub lasts_ms: u64,
    /// The campus.
    pub site: Site,
    /// What the cloud does. Where two hold at once, the one further down in the file counts.
    pub cloud: Vec<Condition>,
    /// What the operator, or somebody who would like to be taken for him, publishes.
    pub events: Vec<Happening>,
    /// What must hold at the end.
    pub checks: Vec<Check>,
}

/// The model campus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Devices per kind, in the order of [`Kind::SERVED`]: chargers with two outlets, washers and dispensers with one.
    pub devices: [u32; 3],
    /// People with a token of the operator.
    pub users: u32,
    /// Visits a day.
    pub sessions_a_day: u32,
    /// How the visits are spread over the kinds, as weights in the order of [`Kind::SERVED`].
    pub share: [u32; 3],
    /// How the visits are spread over the hours of the local day, as weights.
    pub demand: [u32; 24],
    /// Cloud regions; each has its own gateway, with an equal part of the devices and people.
    pub regions: Vec<String>,
    /// Money at risk allowed for the whole campus, in minor units.
    pub budget: i64,
    /// The list and the tariffs were adopted so long before the beginning, in ms.
    pub list_age_ms: u64,
    /// The hub publishes its list anew so often, in s.
    pub list_every_s: u64,
    /// Who the people are.
    pub people: People,
}

/// Shares of people, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct People {
    /// Policy ALWAYS.
    pub always: u8,
    /// Policy ALLOWED.
    pub allowed: u8,
    /// Policy NEVER. Everybody else has ALLOWED_OFFLINE.
    pub never: u8,
    /// Listed as not valid.
    pub invalid: u8,
    /// Revoked before the beginning.
    pub revoked: u8,
    /// Nearly without money.
    pub poor: u8,
    /// Whose account is spent by leases alone.
    pub leased: u8,
    /// Visits by tokens that nobody issued.
    pub strangers: u8,
}

/// For a while the cloud does something else than its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Since when, in ms after the beginning.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
    /// To which gateways, by position in [`Site::regions`].
    pub regions: Vec<usize>,
    /// To what.
    pub capabilities: Vec<Capability>,
    /// What it does.
    pub fault: Fault,
}

/// What a cloud can do instead of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its work: ends an earlier condition for some regions or capabilities.
    Honest,
    /// The connection is gone and cannot be had.
    Dark,
    /// The connection is accepted and closed at once, again and again.
    LoginLoop,
    /// Connections are not answered; what is sent is swallowed.
    Hang,
    /// Connections and PUBACKs are fine, and nobody is behind them.
    HalfDead,
    /// Every request gets an error.
    Error {
        /// Codes in turn.
        codes: Vec<u16>,
        /// The cloud's own words.
        text: String,
    },
    /// A stable part of all identities is said not to exist.
    Deny {
        /// How many of a hundred.
        percent: u8,
        /// Whether the denial comes from the hub itself, under its seal, or from whatever stands before it.
        sealed: bool,
        /// Code of an unsealed one.
        code: u16,
        /// The words of an unsealed one.
        text: String,
    },
    /// So many requests a second pass; the others are told to slow down.
    Throttle {
        /// How many.
        rate_a_second: u32,
    },
    /// Some backends are well and some are not: the same request is answered now and fails then.
    Flap {
        /// How many of a hundred requests fail.
        percent: u8,
        /// Fails for so long, is well for so long, and so on, in ms; 0: all the time.
        period_ms: u64,
        /// Code of a failure.
        code: u16,
    },
    /// Everything is right, and late.
    Slow {
        /// How late, in ms.
        delay_ms: u64,
    },
}

impl Fault {
    /// Its word in a file and in the table.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Dark => "dark",
            Self::LoginLoop => "login-loop",
            Self::Hang => "hang",
            Self::HalfDead => "half-dead",
            Self::Error { .. } => "error",
            Self::Deny { .. } => "deny",
            Self::Throttle { .. } => "throttle",
            Self::Flap { .. } => "flap",
            Self::Slow { .. } => "slow",
        }
    }
}

/// Something is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, in ms after the beginning.
    pub at_ms: u64,
    /// What.
    pub what: Published,
    /// Whether it comes as a file (or by another broker), past the cloud's conditions.
    pub by_file: bool,
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// A genuine list of the hub as it is now.
    List,
    /// A genuine list from which so many of a hundred people have left. They come no more.
    Leavers {
        /// How many.
        percent: u8,
    },
    /// A list that must not be adopted.
    BadList(ListFlaw),
    /// The operator revokes tokens of people who could use them until then. They try on.
    Revocations {
        /// How many.
        count: u32,
    },
    /// Somebody without the issuer's key revokes tokens.
    ForgedRevocations {
        /// How many.
        count: u32,
    },
}

/// What can be wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFlaw {
    /// Genuine, and so many of a hundred entries are missing.
    Short(u8),
    /// Genuine, and without a single entry.
    Empty,
    /// Genuine, and so many of a hundred balances are zero.
    Zeroed(u8),
    /// Not signed by the issuer.
    Forged,
    /// Genuine, and not newer than the adopted one.
    Older,
    /// Genuine, and a chunk of it is missing.
    Miscounted,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which number of the result.
    pub key: String,
    /// How it is compared.
    pub relation: Relation,
    /// With what.
    pub value: i64,
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
}

impl Check {
    /// Whether a number passes.
    #[must_use]
    pub const fn holds(&self, found: i64) -> bool {
        match self.relation {
            Relation::Equal => found == self.value,
            Relation::AtMost => found <= self.value,
            Relation::AtLeast => found >= self.value,
        }
    }
}

impl Scenario {
    /// The same at another size: devices, people, visits and budget in parts of a million, at least one of each.
    #[must_use]
    pub fn scaled(mut self, millionths: u64) -> Self {
        let scale = |n: u64| ((u128::from(n) * u128::from(millionths)).div_ceil(1_000_000) as u64).max(1);
        let site = &mut self.site;
        let regions = site.regions.len() as u64;
        for devices in &mut site.devices {
            // Each gateway keeps at least one of each kind that the campus has.
            if *devices > 0 {
                *devices = scale(u64::from(*devices)).max(regions) as u32;
            }
        }
        site.users = scale(u64::from(site.users)) as u32;
        site.sessions_a_day = scale(u64::from(site.sessions_a_day)) as u32;
        site.budget = scale(site.budget.unsigned_abs()) as i64;
        self
    }

    /// What the cloud does to one capability of one region; `None`: its work.
    #[must_use]
    pub fn condition(&self, at_ms: u64, region: usize, capability: Capability) -> Option<&Condition> {
        let holds = |condition: &&Condition| {
            (condition.from_ms..condition.until_ms).contains(&at_ms)
                && condition.regions.contains(&region)
                && condition.capabilities.contains(&capability)
        };
        self.cloud
            .iter()
            .rev()
            .find(holds)
            .filter(|condition| condition.fault != Fault::Honest)
    }
}

/// The place of a kind in tables per kind.
#[must_use]
pub const fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Charger => 0,
        Kind::Washer => 1,
        Kind::Dispenser | Kind::Unknown => 2,
    }
}
