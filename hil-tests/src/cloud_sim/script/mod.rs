//! What a cloud does in the course of a day: faults with their times, as a file. A day of the world passes so many times
//! faster; what a gateway measures with its own clock - rates, delays - does not.

mod parse;
pub mod shipped;

use std::time::Duration;

pub use self::parse::{ScriptError, parse};
use super::{Vendor, fault::Fault};

/// A file, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// One line.
    pub title: String,
    /// What happened, or what it is for.
    pub about: String,
    /// Clouds that can play it; the first is the one it is about.
    pub clouds: Vec<Vendor>,
    /// Whether they are served over TLS, where they can be had without.
    pub tls: bool,
    /// How long it lasts in the world, in ms.
    pub lasts_ms: u64,
    /// How many times faster it passes.
    pub times: u64,
    /// When it begins on the local clock, in s of the day.
    pub(crate) clock_s: u64,
    /// What holds when.
    pub(crate) spans: Vec<Span>,
    /// What the operator does.
    pub deeds: Vec<Deed>,
    /// How many gateways there are, if more than one.
    pub gateways: u32,
    /// What must hold at the end beside what always must.
    pub checks: Vec<Check>,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    /// Which clouds do it.
    pub(crate) clouds: Vec<Vendor>,
    pub(crate) fault: Fault,
}

/// Something that is brought to the gateway past the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When, in ms of the world since the beginning.
    pub at_ms: u64,
    /// Tokens that are revoked.
    pub revokes: u32,
    /// Whether it is signed by somebody who may not.
    pub forged: bool,
}

/// How a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Relation {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
    /// Exactly.
    Equal(f64),
}

/// Something that must hold at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Of what.
    pub key: String,
    /// How it must be.
    pub relation: Relation,
}

impl Relation {
    /// Whether a value is so.
    #[must_use]
    pub fn holds(self, found: f64) -> bool {
        match self {
            Self::AtLeast(wanted) => found >= wanted,
            Self::AtMost(wanted) => found <= wanted,
            Self::Equal(wanted) => (found - wanted).abs() < f64::EPSILON,
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(wanted) => write!(f, ">= {wanted}"),
            Self::AtMost(wanted) => write!(f, "<= {wanted}"),
            Self::Equal(wanted) => write!(f, "= {wanted}"),
        }
    }
}

impl Script {
    /// How long it takes here.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.wall(self.lasts_ms)
    }

    /// When a moment of the world comes here.
    #[must_use]
    pub fn wall(&self, world_ms: u64) -> Duration {
        Duration::from_millis(world_ms / self.times)
    }

    /// A moment of the world on the local clock, as people write it.
    #[must_use]
    pub fn clock(&self, world_ms: u64) -> String {
        crate::drill::when::clock(self.clock_s, world_ms)
    }

    /// Every moment at which something changes for this cloud, with what holds from then on; the beginning and the end
    /// included.
    #[must_use]
    pub fn acts(&self, vendor: Vendor) -> Vec<(u64, Vec<Fault>)> {
        let own: Vec<&Span> = self.spans.iter().filter(|span| span.clouds.contains(&vendor)).collect();
        let edges = own.iter().flat_map(|span| [span.from_ms, span.until_ms]);
        let mut edges: Vec<u64> = edges.chain([0, self.lasts_ms]).collect();
        edges.sort_unstable();
        edges.dedup();
        let holds = |at_ms: u64| {
            let now = own.iter().filter(|span| (span.from_ms..span.until_ms).contains(&at_ms));
            now.map(|span| span.fault.clone()).collect()
        };
        edges.into_iter().map(|at_ms| (at_ms, holds(at_ms))).collect()
    }

    /// When the cloud was not well, in ms of the world: from the first fault to the end of the last.
    #[must_use]
    pub fn outage(&self, vendor: Vendor) -> Option<(u64, u64)> {
        let own = self.spans.iter().filter(|span| span.clouds.contains(&vendor));
        let (from, until): (Vec<u64>, Vec<u64>) = own.map(|span| (span.from_ms, span.until_ms)).unzip();
        Some((from.into_iter().min()?, until.into_iter().max()?))
    }
}
