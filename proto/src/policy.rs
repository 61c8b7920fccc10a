//! The operator's limits as a signed artifact (semantics, section 4). A policy is whole: it names every limit of the
//! site, and for each class of outlet it names all or none. What it names stands above the gateway's own configuration.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    id::Kind,
    money::{Money, Units},
    wire::wire_enum,
};

/// Most classes that a policy names, known or not: it is kept as one record of the gateway's journal.
pub const CLASSES_MAX: usize = 16;
/// Most free-vend windows of one policy.
pub const FREE_VEND_MAX: usize = 8;
/// Longest free-vend window, in s: what is meant for longer is a price of zero.
pub const FREE_VEND_S_MAX: u64 = 7 * 24 * 3600;

wire_enum! {
    /// A column of the table of limits: a kind of outlet, with chargers of cars apart from those of e-bikes.
    Class {
        /// Charger of e-bikes.
        Charger = 0,
        /// Washer.
        Washer = 1,
        /// Water dispenser.
        Dispenser = 2,
        /// Charger of cars.
        Car = 3,
        /// A class of a newer version; its limits are passed over.
        Unknown = 255,
    } else Unknown
}

impl Class {
    /// The classes this version knows.
    pub const SERVED: [Self; 4] = [Self::Charger, Self::Washer, Self::Dispenser, Self::Car];

    /// The word in configurations and seed files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Charger => "charger",
            Self::Washer => "washer",
            Self::Dispenser => "dispenser",
            Self::Car => "car",
            Self::Unknown => "unknown",
        }
    }

    /// What it dispenses.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Charger | Self::Car => Kind::Charger,
            Self::Washer => Kind::Washer,
            Self::Dispenser => Kind::Dispenser,
            Self::Unknown => Kind::Unknown,
        }
    }
}

wire_enum! {
    /// What an unsigned denial may do to a token that the list vouches for. It never evicts.
    UnsignedDisable {
        /// Tell the operator; the local verdict stands.
        Alert = 0,
        /// As well, and refuse once the cloud has denied the token for `unsigned_disable_s` without an accept.
        SuspendAfter = 1,
        /// Refuse at once.
        Immediate = 2,
    } else Alert
}

/// Limits of one class of outlets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassLimits {
    /// Whose.
    pub class: Class,
    /// Most units of a session; above zero.
    pub units_max: Units,
    /// Most money of a session; above zero.
    pub money_max: Money,
    /// Longest session, in s; above zero.
    pub duration_max_s: u32,
    /// From so many unsecured sessions of a token in one outage on, the cloud is asked once more.
    pub outage_count_lower: u32,
    /// Most unsecured sessions of a token in one outage; at least the lower count.
    pub outage_count_upper: u32,
    /// Most unsecured money of a token in one outage.
    pub outage_money_max: Money,
    /// Emergency credit: most units a day for a token that nobody knows; zero: none.
    pub emergency_units: Units,
    /// How much more an open session may draw once its token is revoked. Means nothing to a washer, which finishes.
    pub invalidation_units: Units,
}

/// A time in which a class is free for whoever nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeVend {
    /// Which outlets.
    pub class: Class,
    /// From (seconds since 1970 UTC).
    pub from_s: u64,
    /// Until before (seconds since 1970 UTC); at most [`FREE_VEND_S_MAX`] after `from_s`.
    pub until_s: u64,
    /// Most units of a session; above zero.
    pub units_max: Units,
}

/// All limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Grows with every policy.
    pub revision: u64,
    /// When it was made (seconds since 1970 UTC).
    pub issued_s: u64,
    /// At most one of each class and [`CLASSES_MAX`], in any order. A class that is not here keeps the gateway's own limits.
    pub classes: Vec<ClassLimits>,
    /// Most money at risk at a site.
    pub site_budget: Money,
    /// A list up to this age gives full caps, in s.
    pub list_full_s: u64,
    /// Up to this age half caps, in s; at least `list_full_s`.
    pub list_half_s: u64,
    /// How long a cloud's accept is remembered, in s.
    pub confirmation_s: u64,
    /// Most requests of a token within a minute; above zero.
    pub attempts_a_minute_max: u32,
    /// Most sessions of a token that begin within an hour; above zero.
    pub starts_an_hour_max: u32,
    /// Nobody is at two devices within so many ms; 0: not looked at.
    pub device_change_ms: u64,
    /// Tokens of this group may stop every session; 0: none.
    pub master_group: u64,
    /// What an unsigned denial may do.
    pub unsigned_disable: UnsignedDisable,
    /// For [`UnsignedDisable::SuspendAfter`], in s.
    pub unsigned_disable_s: u64,
    /// At most [`FREE_VEND_MAX`].
    pub free_vend: Vec<FreeVend>,
}

/// Why a policy is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More columns than the limit.
    #[error("{0} classes are more than {CLASSES_MAX}")]
    Long(usize),
    /// Two columns for one class.
    #[error("classes[{0}]: this class has its limits already")]
    ClassTwice(usize),
    /// A cap that lets nobody draw, or a negative amount, or counts that contradict each other.
    #[error("classes[{at}].{field} is out of its range")]
    Class {
        /// Position.
        at: usize,
        /// Which limit.
        field: &'static str,
    },
    /// A limit of the site that nobody could live with.
    #[error("{0} is out of its range")]
    Site(&'static str),
    /// A window without end, or without units.
    #[error("free_vend[{0}] is empty, too long, or one too many")]
    FreeVend(usize),
}

impl Policy {
    /// Checks every range.
    ///
    /// # Errors
    /// [`PolicyError`], the first that is found.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.classes.len() > CLASSES_MAX {
            return Err(PolicyError::Long(self.classes.len()));
        }
        for (at, limits) in self.classes.iter().enumerate() {
            let known = limits.class != Class::Unknown;
            if known && self.classes[..at].iter().any(|before| before.class == limits.class) {
                return Err(PolicyError::ClassTwice(at));
            }
            limits.check().map_err(|field| PolicyError::Class { at, field })?;
        }
        let rules = [
            (self.site_budget.0 >= 0, "site_budget"),
            (self.list_full_s > 0, "list_full_s"),
            (self.list_half_s >= self.list_full_s, "list_half_s"),
            (self.attempts_a_minute_max > 0, "attempts_a_minute_max"),
            (self.starts_an_hour_max > 0, "starts_an_hour_max"),
        ];
        if let Some((_, field)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(PolicyError::Site(field));
        }
        for (at, window) in self.free_vend.iter().enumerate() {
            let long_s = window.until_s.checked_sub(window.from_s);
            let fits = long_s.is_some_and(|long_s| (1..=FREE_VEND_S_MAX).contains(&long_s));
            if at >= FREE_VEND_MAX || !fits || window.units_max == Units::ZERO {
                return Err(PolicyError::FreeVend(at));
            }
        }
        Ok(())
    }

    /// The limits of a class.
    #[must_use]
    pub fn class(&self, class: Class) -> Option<&ClassLimits> {
        self.classes.iter().find(|limits| limits.class == class)
    }
}

impl ClassLimits {
    fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.units_max > Units::ZERO, "units_max"),
            (self.money_max.0 > 0, "money_max"),
            (self.duration_max_s > 0, "duration_max_s"),
            (self.outage_count_lower <= self.outage_count_upper, "outage_count_lower"),
            (self.outage_money_max.0 >= 0, "outage_money_max"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, field)) => Err(field),
            None => Ok(()),
        }
    }
}
