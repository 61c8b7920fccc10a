//! Rigs: the same scenario on a twin, on the flashed image in QEMU, on a board.
//!
//! A scenario sees a [`Rig`], a device and the hands around it, and knows nothing of what it is made of. What a rig
//! cannot do its supplier says beforehand ([`Supplier::can`]); such a scenario is reported as not run, with the reason.

pub mod chips;
pub mod emulated;
pub mod image;
pub mod line;
pub mod log;
pub mod module;
pub mod pins;
pub mod probe;
pub mod qemu;
pub mod qtest;
mod stack;
pub mod twin;
pub mod words;
pub mod world;

use std::path::Path;

use proto::id::Kind;

use crate::{
    rig::{log::Log, module::Module},
    site::DevicePlan,
    twin::{Injury, Thing},
};

/// Why something is not done here, for people: "no probe is attached".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Not(pub String);

impl Not {
    /// A reason.
    #[must_use]
    pub fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What a scenario may need of a rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skill {
    /// Holding a card to the reader.
    Card,
    /// Typing or scanning a line.
    Line,
    /// Pressing the stop button.
    Stop,
    /// Bringing things and taking them away.
    Things,
    /// Bringing more than the usual thing: a battery or a vessel that no limit of the bench fills.
    BigThings,
    /// Cutting the power.
    Power,
    /// Pulling the network cable, and standing between device and gateway.
    Cable,
    /// Breaking something.
    Injure(Injury),
    /// Seeing what the processor does.
    Processor,
}

/// A device, powered or not, and the hands around it. Everything here is done at once; whoever waits calls
/// [`Self::step`] meanwhile.
pub trait Rig {
    /// What the device is made of: `twin`, `qemu`, `probe`.
    fn kind_of_rig(&self) -> &'static str;

    /// What it dispenses.
    fn kind(&self) -> Kind;

    /// How much faster the device's clock runs than the world's, at least 1.
    fn haste(&self) -> u32;

    /// What the device logs.
    fn log(&self) -> &Log;

    /// The cable to the gateway.
    fn module(&self) -> &Module;

    /// Lets the world around it go on.
    ///
    /// # Errors
    /// If the device is gone.
    fn step(&mut self) -> anyhow::Result<()>;

    /// Holds a card to the reader.
    ///
    /// # Errors
    /// If there is no power or no reader.
    fn tap(&mut self, uid: &[u8]) -> anyhow::Result<()>;

    /// Types or scans a line.
    ///
    /// # Errors
    /// If there is no power or no keypad.
    fn scan(&mut self, line: &str) -> anyhow::Result<()>;

    /// Presses the stop button.
    ///
    /// # Errors
    /// If there is no power or no button.
    fn press_stop(&mut self) -> anyhow::Result<()>;

    /// Plugs a battery in, fills the drum and closes its door, or holds a vessel under the tap.
    ///
    /// # Errors
    /// If nobody can.
    fn bring(&mut self, thing: Thing) -> anyhow::Result<()>;

    /// Pulls the plug, opens the door, takes the vessel away.
    ///
    /// # Errors
    /// If nobody can.
    fn take_away(&mut self) -> anyhow::Result<()>;

    /// Switches the power on or off.
    ///
    /// # Errors
    /// If there is no switch, or the device does not start.
    fn power(&mut self, on: bool) -> anyhow::Result<()>;

    /// Breaks something, or mends it.
    ///
    /// # Errors
    /// If nobody can.
    fn injure(&mut self, injury: Injury, is_injured: bool) -> anyhow::Result<()>;

    /// Whether contactor, permit or valve is on; without power it is off.
    ///
    /// # Errors
    /// If the device is gone.
    fn is_on(&mut self) -> anyhow::Result<bool>;

    /// All that was delivered, as the world saw it: mWh, thousandths of a cycle, or ul.
    ///
    /// # Errors
    /// If the device is gone.
    fn delivered_milli(&mut self) -> anyhow::Result<u64>;

    /// How much of this delivery, in the same unit, the board may have missed because its world is imperfect.
    fn missed_milli(&self, _delivered_milli: u64) -> u64 {
        0
    }

    /// Whether the machine goes on by itself: a washing machine does for a while when its session is over, and nobody is
    /// served meanwhile. A rig that cannot see it says no.
    fn is_running(&mut self) -> bool;

    /// Coins that a washer was given; `None`: this rig gives none.
    fn coins(&mut self) -> Option<u32>;

    /// Processor time that it has used, in ms.
    ///
    /// # Errors
    /// If nobody can tell.
    fn cpu_ms(&self) -> anyhow::Result<u64>;
}

/// A device that is to be put on a desk.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Where its files go.
    pub dir: &'a Path,
    /// Which.
    pub device: &'a DevicePlan,
    /// Its identity: the page that `holdfast device provision` wrote.
    pub page: &'a [u8],
    /// Where the gateway listens.
    pub gateway: std::net::SocketAddr,
}

/// Where rigs of one sort come from.
pub trait Supplier {
    /// `twin`, `qemu`, or the board's name.
    fn name(&self) -> &str;

    /// Whether there can be a device of this kind here.
    ///
    /// # Errors
    /// The reason.
    fn has(&self, kind: Kind) -> Result<(), Not>;

    /// Whether a device of this kind can do this.
    ///
    /// # Errors
    /// The reason.
    fn can(&self, kind: Kind, skill: Skill) -> Result<(), Not>;

    /// A device, provisioned and switched on.
    ///
    /// # Errors
    /// If it does not come up.
    fn supply(&self, order: &Order<'_>) -> anyhow::Result<Box<dyn Rig>>;
}
