//! What the operator set. Checked by the shell before it comes here.

use alloc::collections::BTreeMap;

use proto::{
    id::{DeviceId, GatewayId, Kind},
    money::{Money, Units},
    policy::Class,
};
use serde::{Deserialize, Serialize};

/// Limits of one kind of device. Defaults: semantics, section 4. They stand in the journal: append, with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindLimits {
    /// Most units of a session.
    pub units_max: Units,
    /// Most money of a session.
    pub money_max: Money,
    /// Longest session, in s.
    pub duration_max_s: u32,
    /// Most unsecured sessions of a token in one outage.
    pub outage_count_max: u32,
    /// Most unsecured money of a token in one outage.
    pub outage_money_max: Money,
    /// The start must be proven within so many seconds.
    pub start_within_s: u16,
    /// Interval between meter messages, in s.
    pub meter_every_s: u16,
    /// From so many unsecured sessions of a token in one outage on, the cloud is asked once more, in the background.
    pub outage_count_lower: u32,
    /// Emergency credit: most units a day for a token that nobody knows; zero: none.
    pub emergency_units: Units,
    /// How much more an open session may draw once its token is revoked; a wash cycle finishes.
    pub invalidation_units: Units,
}

/// All limits. They stand in the journal: append, with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of chargers.
    pub charger: KindLimits,
    /// Of washers.
    pub washer: KindLimits,
    /// Of dispensers.
    pub dispenser: KindLimits,
    /// Of chargers of cars.
    pub car: KindLimits,
    /// Most money at risk at this site in one outage.
    pub site_budget: Money,
    /// A list up to this age gives full caps, in s.
    pub list_full_s: u64,
    /// Up to this age half caps; beyond, none. In s.
    pub list_half_s: u64,
    /// How long a cloud's accept is remembered, in s.
    pub confirmation_s: u64,
    /// How long the cloud may take to answer before the local verdict stands, in ms.
    pub ask_ms: u64,
    /// Most requests of a token within a minute.
    pub attempts_a_minute_max: u32,
    /// A capability is ONLINE again after enough proofs over at least so long, in ms; up to a third more is added.
    pub recover_ms: u64,
    /// First interval between probes of a cloud that failed, in ms; doubles up to `probe_max_ms`.
    pub probe_ms: u64,
    /// Longest interval between probes, in ms.
    pub probe_max_ms: u64,
    /// Two failures within this time make LOCAL, in ms.
    pub failures_window_ms: u64,
    /// Proofs in a row (canary pairs, echoes, hellos) needed to leave LOCAL.
    pub recover_proofs: u32,
    /// How long the answers to a pair of canaries may take, in ms.
    pub canary_ms: u64,
    /// A mass denial: so many distinct known-good tokens, active here, ...
    pub mass_tokens_min: u32,
    /// ... are denied within this time, in ms, ...
    pub mass_window_ms: u64,
    /// ... and these denials are more than so many hundredths of all answers about such tokens.
    pub mass_percent: u32,
    /// A token counts as active for so long after its last grant, in s.
    pub active_s: u64,
    /// The breaker that a mass denial latches lets go after so long without a denial and without a missed echo, in ms.
    pub breaker_ms: u64,
    /// Interval between echoes while nothing else is heard of the backend, in ms; 0: none, for a site without a cloud.
    pub echo_ms: u64,
    /// How long an echo, or the answer to a hello, may take, in ms.
    pub echo_wait_ms: u64,
    /// The backend counts as healthy for so long after it was heard, in ms.
    pub echo_fresh_ms: u64,
    /// Records that wait so long with none acknowledged are a failure, in ms; 0: never.
    pub receipt_ms: u64,
    /// Interval between hellos on a link that stands, in ms; 0: none, for a site without a cloud.
    pub hello_ms: u64,
    /// Makes this gateway's jitter its own; the shell derives it from the gateway's name.
    pub jitter_seed: u64,
    /// What a denial that nothing backs may do to a token that the list vouches for. Anything but the default comes from
    /// a signed policy only.
    #[serde(skip)]
    pub unsigned_disable: UnsignedDisable,
    /// Most sessions of a token that begin within an hour.
    pub starts_an_hour_max: u32,
    /// Nobody is at two devices within so many ms; 0: not looked at.
    pub device_change_ms: u64,
}

/// What an unsigned denial of one known-good token may do, if both canaries are answered right and no mass denial is
/// about. It never evicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsignedDisable {
    /// Tell the operator; the local verdict stands.
    #[default]
    Alert,
    /// As well, and refuse once the cloud has denied the token for so long without an accept.
    SuspendAfter {
        /// How long, in s.
        s: u64,
    },
    /// Refuse at once.
    Immediate,
}

const HOUR_S: u64 = 3600;

impl Default for Limits {
    fn default() -> Self {
        Self {
            charger: KindLimits {
                units_max: Units(3_000),
                money_max: Money(300),
                duration_max_s: 8 * HOUR_S as u32,
                outage_count_max: 2,
                outage_money_max: Money(600),
                start_within_s: 60,
                meter_every_s: 60,
                outage_count_lower: 1,
                emergency_units: Units::ZERO,
                invalidation_units: Units(50),
            },
            washer: KindLimits {
                units_max: Units(1),
                money_max: Money(600),
                duration_max_s: 3 * HOUR_S as u32,
                outage_count_max: 2,
                outage_money_max: Money(1_200),
                start_within_s: 120,
                meter_every_s: 60,
                outage_count_lower: 1,
                emergency_units: Units::ZERO,
                invalidation_units: Units::ZERO,
            },
            dispenser: KindLimits {
                units_max: Units(5_000),
                money_max: Money(200),
                duration_max_s: 600,
                outage_count_max: 10,
                outage_money_max: Money(1_000),
                start_within_s: 60,
                meter_every_s: 10,
                outage_count_lower: 6,
                emergency_units: Units(2_000),
                invalidation_units: Units(100),
            },
            car: KindLimits {
                units_max: Units(20_000),
                money_max: Money(4_000),
                duration_max_s: 8 * HOUR_S as u32,
                outage_count_max: 1,
                outage_money_max: Money(4_000),
                start_within_s: 60,
                meter_every_s: 60,
                outage_count_lower: 1,
                emergency_units: Units::ZERO,
                invalidation_units: Units(200),
            },
            site_budget: Money(200_000),
            list_full_s: 72 * HOUR_S,
            list_half_s: 7 * 24 * HOUR_S,
            confirmation_s: 72 * HOUR_S,
            ask_ms: 1_200,
            attempts_a_minute_max: 10,
            recover_ms: 30_000,
            probe_ms: 2_000,
            probe_max_ms: 30_000,
            failures_window_ms: 10_000,
            recover_proofs: 3,
            canary_ms: 500,
            mass_tokens_min: 3,
            mass_window_ms: 60_000,
            mass_percent: 20,
            active_s: 7 * 24 * HOUR_S,
            breaker_ms: 600_000,
            echo_ms: 30_000,
            echo_wait_ms: 3_000,
            echo_fresh_ms: 90_000,
            receipt_ms: 60_000,
            hello_ms: 300_000,
            jitter_seed: 0,
            unsigned_disable: UnsignedDisable::Alert,
            // A wash room's regular makes four or five; a card that is passed around makes more.
            starts_an_hour_max: 30,
            // How far apart devices stand only the operator knows.
            device_change_ms: 0,
        }
    }
}

impl Limits {
    /// Limits of a class; none for one this version cannot serve.
    #[must_use]
    pub const fn of(&self, class: Class) -> Option<&KindLimits> {
        match class {
            Class::Charger => Some(&self.charger),
            Class::Washer => Some(&self.washer),
            Class::Dispenser => Some(&self.dispenser),
            Class::Car => Some(&self.car),
            Class::Unknown => None,
        }
    }

    pub(crate) const fn of_mut(&mut self, class: Class) -> Option<&mut KindLimits> {
        match class {
            Class::Charger => Some(&mut self.charger),
            Class::Washer => Some(&mut self.washer),
            Class::Dispenser => Some(&mut self.dispenser),
            Class::Car => Some(&mut self.car),
            Class::Unknown => None,
        }
    }
}

/// One device of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What it dispenses.
    pub kind: Kind,
    /// Number of its outlets.
    pub outlets: u8,
    /// A charger of cars: other limits apply than to one of e-bikes.
    pub car: bool,
}

impl DeviceConfig {
    /// The column of the table of limits that applies to it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match (self.kind, self.car) {
            (Kind::Charger, false) => Class::Charger,
            (Kind::Charger, true) => Class::Car,
            (Kind::Washer, _) => Class::Washer,
            (Kind::Dispenser, _) => Class::Dispenser,
            (Kind::Unknown, _) => Class::Unknown,
        }
    }
}

/// How what is new is adopted by rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// Whether anything is; otherwise the whole site adopts what passes the gate.
    pub is_on: bool,
    /// Where a ring begins; `None`: at the device that was asked most often.
    pub device: Option<DeviceId>,
    /// A ring widens once it has seen so many requests ...
    pub requests_min: u32,
    /// ... over so long, in s ...
    pub dwell_s: u64,
    /// ... or after so long with fewer, in s, if nothing spoke against it: what is never adopted grows old.
    pub patience_s: u64,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self {
            is_on: false,
            device: None,
            requests_min: 10,
            dwell_s: 600,
            patience_s: 24 * HOUR_S,
        }
    }
}

/// Everything the core is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The site's devices.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    /// The limits in force: the operator's file, and above it the signed policy.
    pub limits: Limits,
    /// Offset of local time from UTC, in minutes.
    pub offset_min: i16,
    /// Whom to believe about instruments.
    pub instruments: crate::instrument::Instruments,
    /// The gateway's own name: leases for another one are not taken. `None`: leases are not taken at all.
    pub gateway: Option<GatewayId>,
    /// How what is new is adopted by rings.
    pub ring: RingLimits,
}
