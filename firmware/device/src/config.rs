//! What a device is told about itself at manufacture and installation, and every limit of its behaviour.

use proto::{
    id::{DeviceId, Kind, TokenKey},
    identity::Identity,
    message::FIRMWARE_BYTES_MAX,
    seal::PairSecret,
    tariff::Dimension,
};

use crate::alone::Instruments;

/// First wait before an `authorize` is repeated, in ms: the gateway answers within 2 s in every failure shape.
pub const AUTHORIZE_RETRY_FIRST_MS: u64 = 2_000;
/// Longest wait between two attempts of the same `authorize`, in ms: a user is standing there.
pub const AUTHORIZE_RETRY_MAX_MS: u64 = 8_000;
/// After so long without an answer the device gives up for the user, in ms: nobody waits longer at a socket.
pub const AUTHORIZE_GIVE_UP_MS: u64 = 30_000;
/// First wait before a `stop` is repeated, in ms.
pub const STOP_RETRY_FIRST_MS: u64 = 2_000;
/// Longest wait between two attempts of a `stop`, in ms: it is repeated until its receipt, for days if need be.
pub const STOP_RETRY_MAX_MS: u64 = 60_000;
/// First wait before a `hello` is repeated, in ms.
pub const HELLO_RETRY_FIRST_MS: u64 = 1_000;
/// Longest wait between two attempts of a `hello`, in ms.
pub const HELLO_RETRY_MAX_MS: u64 = 30_000;
/// Wait after a refused `hello`, in ms, unless the refusal names another: the gateway has to be changed first.
pub const HELLO_REFUSED_RETRY_MS: u64 = 60_000;
/// A card that rests on the reader is read again and again; further readings within so many ms are the same gesture.
pub const TOKEN_DEBOUNCE_MS: u64 = 2_000;
/// Interval at which a running session is stored, in ms: what a power loss can cost in elapsed time. At one record a
/// minute a wear-levelled 64 KiB of flash lasts for decades.
pub const CHECKPOINT_EVERY_MS: u64 = 60_000;
/// Interval at which the display of a running session is refreshed, in ms.
pub const SHOW_EVERY_MS: u64 = 1_000;
/// How long a notice (refused, ended, receipt) stays on the display, in ms.
pub const NOTICE_MS: u64 = 10_000;
/// A fault input must be quiet for so long before the outlet is free again, in ms.
pub const FAULT_CLEAR_MS: u64 = 10_000;
/// Starts in a row that the contactor did not follow before the outlet is out of order.
pub const NOT_STARTED_MAX: u8 = 3;
/// How long an outlet rests after [`NOT_STARTED_MAX`], in ms; then it is tried again, so that no visit is needed.
pub const NOT_STARTED_REST_MS: u64 = 600_000;
/// How long contactor and valve may take to follow, in ms.
pub const SETTLE_MS: u64 = 2_000;
/// After a boot, how long the first reading of an outlet with an open session is waited for, in ms.
pub const RECOVER_SENSE_MS: u64 = 10_000;
/// After a boot, how long a charger waits for the time of day that decides whether it may resume, in ms.
pub const RECOVER_CLOCK_MS: u64 = 30_000;
/// Longest power loss after which a charger resumes, in s (semantics: under 10 minutes).
pub const RESUME_WITHIN_S: u64 = 600;
/// Energy must be counted within so long under load, in ms: 100 W for 5 minutes are 8 Wh.
pub const METER_STILL_MS: u64 = 300_000;
/// Power that counts as load for [`METER_STILL_MS`], in W.
pub const METER_STILL_POWER_W: u32 = 100;
/// Water that may pass a closed valve before that is a leak, in ml: dripping and the last of the hose.
pub const LEAK_ML: u64 = 200;
/// Within how long [`LEAK_ML`] must pass, in ms, so that a tap that drips for a week is no leak.
pub const LEAK_WINDOW_MS: u64 = 600_000;
/// An over-temperature fault clears so many degrees below its limit.
pub const TEMPERATURE_HYSTERESIS_C: i16 = 10;

/// What one device is. Made at installation; never changes within a boot.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name; also its MQTT client id and user name.
    pub id: DeviceId,
    /// What it dispenses.
    pub kind: Kind,
    /// Number of outlets, 1 to [`proto::message::OUTLETS_MAX`].
    pub outlets: u8,
    /// The secret it shares with its gateway.
    pub secret: PairSecret,
    /// The site's key for id tokens, by which the device knows the tokens of a group and the master tokens that a grant
    /// names. Without it only the token that began a session, and the button, stop it.
    pub site_key: Option<TokenKey>,
    /// Version of the firmware, for people; at most [`FIRMWARE_BYTES_MAX`] bytes.
    pub firmware: heapless::String<FIRMWARE_BYTES_MAX>,
    /// Thresholds of the machine behind it.
    pub tuning: Tuning,
    /// Whom it believes without asking.
    pub instruments: Instruments,
}

/// Thresholds that depend on the machine behind the outlets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Charger: power that proves the start, in W.
    pub start_power_w: u32,
    /// Charger: below this the battery takes nothing, in W.
    pub full_power_w: u32,
    /// Charger: full after so long below [`Self::full_power_w`], in ms.
    pub full_after_ms: u64,
    /// Washer: finished after so long without running, in ms; pauses between phases are shorter.
    pub done_after_ms: u64,
    /// Dispenser: finished after so long without flow, in ms.
    pub flow_stop_after_ms: u64,
    /// Current above which the output is switched off, in mA.
    pub current_ma_max: u32,
    /// Temperature above which the output is switched off, in degrees Celsius.
    pub temperature_c_max: i16,
    /// A delivering outlet without a reading for so long is switched off, in ms: no limit could be enforced.
    pub sense_silent_ms: u64,
}

impl Tuning {
    /// What fits the usual machine of a kind.
    #[must_use]
    pub const fn usual(kind: Kind) -> Self {
        let (current_ma_max, temperature_c_max) = match kind {
            Kind::Charger => (20_000, 85),
            Kind::Washer => (16_000, 95),
            Kind::Dispenser | Kind::Unknown => (4_000, 70),
        };
        Self {
            start_power_w: 10,
            full_power_w: 8,
            full_after_ms: 180_000,
            done_after_ms: 5_000,
            flow_stop_after_ms: 5_000,
            current_ma_max,
            temperature_c_max,
            sense_silent_ms: 10_000,
        }
    }
}

/// Why a device cannot run with its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A kind that this firmware cannot serve.
    #[error("this firmware serves chargers, washers and dispensers")]
    Kind,
    /// No outlet, or more than this firmware has room for.
    #[error("{0} outlets, this firmware serves 1 to {1}")]
    Outlets(u8, usize),
    /// An outlet that no longer exists has sessions that are not closed.
    #[error("outlet {0} has unclosed sessions in storage but is not configured")]
    OutletLost(u8),
}

/// A kind that can be served, its unknown variant parsed away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    Charger,
    Washer,
    Dispenser,
}

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Checked<const OUTLETS: usize> {
    pub(crate) config: Config,
    pub(crate) supply: Supply,
}

impl<const OUTLETS: usize> Checked<OUTLETS> {
    /// What the link needs: the device's name, and the secret from which its password follows.
    #[must_use]
    pub fn link(&self) -> (DeviceId, PairSecret) {
        (self.config.id, self.config.secret.clone())
    }
}

impl Supply {
    /// What the register counts.
    pub(crate) const fn dimension(self) -> Dimension {
        match self {
            Self::Charger => Dimension::Energy,
            Self::Washer => Dimension::Cycle,
            Self::Dispenser => Dimension::Volume,
        }
    }
}

impl Config {
    /// A configuration with the usual thresholds of the kind.
    #[must_use]
    pub fn new(id: DeviceId, kind: Kind, outlets: u8, secret: PairSecret) -> Self {
        Self {
            id,
            kind,
            outlets,
            secret,
            site_key: None,
            firmware: heapless::String::try_from(env!("CARGO_PKG_VERSION")).unwrap_or_default(),
            tuning: Tuning::usual(kind),
            instruments: Instruments::default(),
        }
    }

    /// What was provisioned, with the usual thresholds of the kind.
    #[must_use]
    pub fn provisioned(identity: Identity) -> Self {
        Self {
            site_key: identity.site_key,
            instruments: Instruments {
                site: identity.site,
                currency: identity.currency,
                issuers: identity.issuers,
                enrolments: identity.enrolments,
                keypad: identity.keypad,
            },
            ..Self::new(identity.id, identity.kind, identity.outlets, identity.secret)
        }
    }

    /// Checks that a firmware with room for `OUTLETS` outlets can serve this.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check<const OUTLETS: usize>(self) -> Result<Checked<OUTLETS>, ConfigError> {
        if self.outlets == 0 || usize::from(self.outlets) > OUTLETS {
            return Err(ConfigError::Outlets(self.outlets, OUTLETS));
        }
        let supply = match self.kind {
            Kind::Charger => Supply::Charger,
            Kind::Washer => Supply::Washer,
            Kind::Dispenser => Supply::Dispenser,
            Kind::Unknown => return Err(ConfigError::Kind),
        };
        Ok(Checked { config: self, supply })
    }
}
