//! One outlet as a charger, a washer or a dispenser.

use app::{
    machine::{self, MeterCell},
    transport::Ring,
};
use drivers::{
    coin::{Coin, Shape},
    debounce::{Contact, Polarity},
    flow::{Flow, Pulses, Sensor},
    meter::{
        Parts,
        bl0942::{Address, Bl0942, LEAP_PULSES_MAX, Meter, REFERENCE_MV},
    },
};
use embassy_executor::Spawner;
use embassy_stm32::{
    exti::ExtiInput,
    gpio::{Input, Output},
    interrupt::{self, InterruptExt as _, typelevel::Handler},
    mode,
    usart::BufferedUart,
};
use static_cell::StaticCell;

/// Contacts are looked at every 100 ms; what is shorter than this is a bounce, in ms.
const BOUNCE_MS: u32 = 150;
/// Around the energy meter: five resistors of 390 kOhm over 510 Ohm, and a shunt of 1 mOhm.
const METER_PARTS: Parts = Parts::new(1_950_000, 510_000, 1_000_000).expect("no part is zero");
/// The flow sensor: 450 pulses a litre, at most 30 litres a minute.
const FLOW_SENSOR: Sensor = Sensor {
    pulses: core::num::NonZeroU32::new(450).expect("not zero"),
    litres: core::num::NonZeroU32::new(1).expect("not zero"),
    rate_ml_s_max: 500,
};
/// Coins as most washers take them. Slower than usual: the line is looked at every 100 ms.
const COINS: Shape = Shape {
    active: embedded_hal::digital::PinState::High,
    width_ms: 100,
    gap_ms: 200,
};
/// One coin is one cycle.
const COINS_A_CYCLE: u8 = 1;

static PULSES: Pulses = Pulses::new();
static METER: MeterCell = MeterCell::new();

/// A charger on pins of the microcontroller.
pub type Charger = machine::Charger<'static, Output<'static>, Input<'static>>;
/// A washer on pins of the microcontroller.
pub type Washer = machine::Washer<Output<'static>, Input<'static>>;
/// A dispenser on pins of the microcontroller.
pub type Dispenser = machine::Dispenser<'static, Output<'static>, Input<'static>>;

/// The pins of an outlet; what a machine does not need it leaves alone. Outputs are low, contacts close to ground.
pub struct Outlet {
    /// Contactor, start permit or valve.
    pub output: Output<'static>,
    /// Coin pulses, active high.
    pub coin: Output<'static>,
    /// Unlocks hot water.
    pub hot_unlock: Output<'static>,
    /// A plug is in the socket; the door is locked.
    pub plug_or_door: Input<'static>,
    /// Residual current; water on the floor.
    pub leaking: Input<'static>,
    /// The contactor is closed; the washer runs.
    pub closed_or_running: Input<'static>,
}

impl Outlet {
    /// With an energy meter BL0942 behind `meter`, which it begins to ask.
    ///
    /// # Panics
    /// If called twice.
    #[must_use]
    pub fn charger(self, spawner: Spawner, meter: Ring<BufferedUart<'static>>) -> Charger {
        spawner.spawn(read_meter(meter).expect("once"));
        Charger {
            contactor: self.output,
            closed: contact(self.closed_or_running),
            plugged: contact(self.plug_or_door),
            leaking: contact(self.leaking),
            meter: &METER,
        }
    }

    /// A washer that takes coins, or a start permit.
    #[must_use]
    pub fn washer(self) -> Washer {
        Washer {
            permit: self.output,
            coins: Coin::new(self.coin, COINS).unwrap_or_else(|never| match never {}),
            coins_a_cycle: COINS_A_CYCLE,
            running: contact(self.closed_or_running),
            door_locked: contact(self.plug_or_door),
            leaking: contact(self.leaking),
            cycles: 0,
            permitted: false,
        }
    }

    /// With a flow sensor at `pulse`, on external line 0, whose falling edges [`CountPulses`] counts from now on.
    ///
    /// # Panics
    /// If called twice.
    #[must_use]
    pub fn dispenser(self, pulse: ExtiInput<'static, mode::Blocking>) -> Dispenser {
        static PULSE: StaticCell<ExtiInput<'static, mode::Blocking>> = StaticCell::new();
        PULSE.init(pulse);
        #[expect(unsafe_code, reason = "the board binds the handler to it")]
        // SAFETY: the handler and what it counts in are ready.
        unsafe {
            embassy_stm32::interrupt::EXTI0.enable();
        }
        Dispenser {
            valve: self.output,
            hot_unlock: self.hot_unlock,
            leaking: contact(self.leaking),
            flow: Flow::new(FLOW_SENSOR, &PULSES, 0),
            pulses: &PULSES,
            volume_ml: 0,
        }
    }
}

/// A contact to ground.
fn contact(pin: Input<'static>) -> Contact<Input<'static>> {
    Contact::new(pin, Polarity::Low, BOUNCE_MS).unwrap_or_else(|never| match never {})
}

#[embassy_executor::task]
async fn read_meter(uart: Ring<BufferedUart<'static>>) {
    let meter = Meter::new(METER_PARTS, REFERENCE_MV, LEAP_PULSES_MAX);
    machine::read_meter(Bl0942::new(uart, Address::A0, meter), &METER).await;
}

/// Counts flow pulses on line 0. It has an interrupt of its own: a handler shared with others masks what it does not
/// expect.
pub struct CountPulses;

#[expect(unsafe_code, reason = "embassy's contract with a handler")]
impl Handler<interrupt::typelevel::EXTI0> for CountPulses {
    unsafe fn on_interrupt() {
        embassy_stm32::pac::EXTI.pr(0).write(|lines| lines.0 = 1);
        PULSES.add();
    }
}
