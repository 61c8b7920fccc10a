//! What the operator set. Checked by the shell before it comes here.

use alloc::collections::BTreeMap;

use proto::{
    id::{DeviceId, GatewayId, Kind},
    money::{Money, Units},
};

/// Limits of one kind of device. Defaults: semantics, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// All limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of chargers.
    pub charger: KindLimits,
    /// Of washers.
    pub washer: KindLimits,
    /// Of dispensers.
    pub dispenser: KindLimits,
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
    /// The authorize capability is ONLINE again after three good probes over at least so long, in ms.
    pub recover_ms: u64,
    /// First interval between probes of a cloud that failed, in ms; doubles up to `probe_max_ms`.
    pub probe_ms: u64,
    /// Longest interval between probes, in ms.
    pub probe_max_ms: u64,
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
            },
            washer: KindLimits {
                units_max: Units(1),
                money_max: Money(600),
                duration_max_s: 3 * HOUR_S as u32,
                outage_count_max: 2,
                outage_money_max: Money(1_200),
                start_within_s: 120,
                meter_every_s: 60,
            },
            dispenser: KindLimits {
                units_max: Units(5_000),
                money_max: Money(200),
                duration_max_s: 600,
                outage_count_max: 10,
                outage_money_max: Money(1_000),
                start_within_s: 60,
                meter_every_s: 10,
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
        }
    }
}

impl Limits {
    /// Limits of a kind; none for one this version cannot serve.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Option<&KindLimits> {
        match kind {
            Kind::Charger => Some(&self.charger),
            Kind::Washer => Some(&self.washer),
            Kind::Dispenser => Some(&self.dispenser),
            Kind::Unknown => None,
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
}

/// Everything the core is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The site's devices.
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    /// Limits.
    pub limits: Limits,
    /// Offset of local time from UTC, in minutes.
    pub offset_min: i16,
    /// The gateway's own name: leases for another one are not taken. `None`: leases are not taken at all.
    pub gateway: Option<GatewayId>,
}
