//! The machine behind an outlet, sound or injured: what a twin's `device` looks at, and what the bench wires to the pins of
//! a board.

use std::collections::BTreeSet;

use device::Sense;
use proto::id::Kind;

use super::{Battery, Thing, drum::Drum, socket::Socket, tap::Tap};

/// Hotter than any limit, in degrees Celsius.
const HOT_C: i16 = 120;
/// More than any limit, in mA.
const OVERLOAD_MA: u32 = 32_000;

/// Something that is broken, wet or hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Injury {
    /// Residual current, or water on the floor.
    Leak,
    /// The hottest sensor is far above its limit.
    Heat,
    /// More current than the outlet may give.
    Overload,
    /// The contactor's contacts are welded: closed, whatever its coil says.
    Weld,
    /// Contactor or valve does not follow, the washer takes no coin.
    Stuck,
    /// Whoever counts does not answer.
    SilentMeter,
    /// Whoever counts stands still.
    StillMeter,
    /// The washer's door is unlocked while it runs.
    OpenDoor,
    /// Water passes the closed valve.
    Drip,
    /// The tap is dry.
    Dry,
}

impl Injury {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Leak,
        Self::Heat,
        Self::Overload,
        Self::Weld,
        Self::Stuck,
        Self::SilentMeter,
        Self::StillMeter,
        Self::OpenDoor,
        Self::Drip,
        Self::Dry,
    ];

    /// For people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Leak => "a leak",
            Self::Heat => "heat",
            Self::Overload => "an overload",
            Self::Weld => "welded contacts",
            Self::Stuck => "a machine that does not follow",
            Self::SilentMeter => "a silent meter",
            Self::StillMeter => "a meter that stands still",
            Self::OpenDoor => "an unlocked door",
            Self::Drip => "a dripping valve",
            Self::Dry => "a dry tap",
        }
    }
}

#[derive(Debug)]
enum Model {
    Socket(Socket),
    Drum(Drum),
    Tap(Tap),
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    model: Model,
    injuries: BTreeSet<Injury>,
    /// The register at which the meter stood still.
    still: Option<proto::money::Units>,
}

impl Machine {
    /// A machine that has been used before: its register does not stand at zero.
    pub(crate) fn new(kind: Kind, speed: u64, register: u64) -> Self {
        let model = match kind {
            Kind::Washer => Model::Drum(Drum::new(speed, register / 1_000)),
            Kind::Dispenser => Model::Tap(Tap::new(speed, register)),
            Kind::Charger | Kind::Unknown => Model::Socket(Socket::new(speed, register)),
        };
        Self {
            model,
            injuries: BTreeSet::new(),
            still: None,
        }
    }

    /// Injures it, or heals it.
    pub(crate) fn injure(&mut self, injury: Injury, is_injured: bool) {
        if is_injured {
            self.injuries.insert(injury);
        } else {
            self.injuries.remove(&injury);
        }
    }

    pub(crate) fn has(&self, injury: Injury) -> bool {
        self.injuries.contains(&injury)
    }

    /// Plugs a battery in, fills the drum and closes its door, holds a vessel under the tap. What does not fit the kind
    /// does nothing.
    pub(crate) fn bring(&mut self, thing: Thing) {
        match (&mut self.model, thing) {
            (Model::Socket(socket), Thing::Battery(battery)) => socket.plug(battery),
            (Model::Drum(drum), Thing::Laundry) => drum.close_door(),
            (Model::Tap(tap), Thing::Vessel { volume_ml }) => tap.hold(volume_ml),
            (Model::Socket(_) | Model::Drum(_) | Model::Tap(_), _) => {}
        }
    }

    /// Pulls the plug, opens the door if it is not locked, takes the vessel away.
    pub(crate) fn take_away(&mut self) {
        match &mut self.model {
            Model::Socket(socket) => {
                socket.unplug();
            }
            Model::Drum(drum) => {
                drum.open_door();
            }
            Model::Tap(tap) => tap.take_away(),
        }
    }

    /// Presses a washer's start button, or gives it a coin.
    pub(crate) fn press_start(&mut self) {
        let stuck = self.has(Injury::Stuck);
        if let Model::Drum(drum) = &mut self.model
            && !stuck
        {
            drum.press_start();
        }
    }

    /// Whether it goes on by itself: a washing machine, with or without a session.
    pub(crate) fn is_running(&self) -> bool {
        match &self.model {
            Model::Drum(drum) => drum.sense().running,
            Model::Socket(_) | Model::Tap(_) => false,
        }
    }

    pub(crate) fn cycles_cut(&self) -> u64 {
        match &self.model {
            Model::Drum(drum) => drum.cut(),
            Model::Socket(_) | Model::Tap(_) => 0,
        }
    }

    pub(crate) fn power_lost(&mut self) {
        match &mut self.model {
            Model::Socket(socket) => socket.power_lost(),
            Model::Drum(drum) => drum.power_lost(),
            Model::Tap(tap) => tap.power_lost(),
        }
    }

    /// Lets `real_ms` pass with the output on or off; returns what was delivered, in thousandths of the base unit.
    pub(crate) fn advance(&mut self, real_ms: u64, on: bool) -> u64 {
        let (stuck, weld, dry) = (self.has(Injury::Stuck), self.has(Injury::Weld), self.has(Injury::Dry));
        let drip = self.has(Injury::Drip);
        match &mut self.model {
            Model::Socket(socket) => socket.advance(real_ms, (on && !stuck) || weld),
            Model::Drum(drum) => drum.advance(real_ms, on),
            Model::Tap(tap) => tap.advance(if dry { 0 } else { real_ms }, (on && !stuck) || drip),
        }
    }

    /// One look at it; `None`: whoever counts does not answer.
    pub(crate) fn sense(&mut self) -> Option<Sense> {
        let mut sense = match &mut self.model {
            Model::Socket(socket) => socket.sense(),
            Model::Drum(drum) => drum.sense(),
            Model::Tap(tap) => tap.sense(),
        };
        self.still = self
            .has(Injury::StillMeter)
            .then(|| self.still.unwrap_or(sense.register));
        sense.register = self.still.unwrap_or(sense.register);
        for injury in &self.injuries {
            match injury {
                Injury::Leak => sense.leaking = true,
                Injury::Heat => sense.temperature_c = HOT_C,
                Injury::Overload => sense.current_ma = OVERLOAD_MA,
                Injury::OpenDoor => sense.door_locked = false,
                Injury::SilentMeter => return None,
                Injury::Weld | Injury::Stuck | Injury::StillMeter | Injury::Drip | Injury::Dry => {}
            }
        }
        Some(sense)
    }
}

/// What usually is brought to a machine of a kind: served within a minute.
#[must_use]
pub const fn usual_thing(kind: Kind) -> Thing {
    match kind {
        Kind::Washer => Thing::Laundry,
        Kind::Dispenser => Thing::Vessel { volume_ml: 500 },
        Kind::Charger | Kind::Unknown => Thing::Battery(Battery {
            capacity_wh: 500,
            charge_wh: 100,
            power_w: 200,
        }),
    }
}
