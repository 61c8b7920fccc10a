//! From pins to traits.

use app::{
    control::{self, Booted, Panel, Stopped},
    gesture::{self, Desk},
    link::{self, Wires},
    machine::{self, Charger, Dispenser, MeterCell, Washer},
    store::Store,
    transport::{Module, Ring},
};
use device::{Checked, Config, Screen};
use drivers::{
    coin::{Coin, Shape},
    debounce::{Contact, Polarity},
    flow::{Flow, Pulses, Sensor},
    meter::{
        Parts,
        bl0942::{Address, Bl0942, LEAP_PULSES_MAX, Meter, REFERENCE_MV},
    },
    ntc::Ntc,
    reader::pn532::Pn532,
};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_stm32::{
    Peri, Peripherals,
    adc::{Adc, SampleTime},
    bind_interrupts,
    exti::{self, ExtiInput},
    flash::{Blocking, Flash},
    gpio::{Input, Level, Output, Pull, Speed},
    interrupt::{self, InterruptExt as _, typelevel::Handler},
    mode, peripherals,
    usart::{self, BufferedUart, BufferedUartRx},
    wdg::IndependentWatchdog,
};
use embassy_time::{Delay, Timer};
use proto::{
    id::{DeviceId, Kind, OutletId},
    identity::Identity,
    seal::PairSecret,
};
use static_cell::StaticCell;

/// Clock of core and SysTick, in Hz.
const CORE_HZ: u32 = 80_000_000;
/// The control task feeds the watchdog every second at least, also while flash is erased.
const WATCHDOG_US: u32 = 8_000_000;
/// Flash of the records, as offsets.
const RECORDS: core::ops::Range<u32> = 0x8_0000..0x9_0000;
/// Flash of the identity, as an address.
const IDENTITY: *const [u8; 2048] = core::ptr::without_provenance(0x080f_f800);
/// Rings for sending of the UARTs.
const LINK_TX_BYTES: usize = 256;
const CARDS_TX_BYTES: usize = 32;
const METER_TX_BYTES: usize = 4;
/// This board has one.
const OUTLET: OutletId = 0;
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

static DESK: Desk = Desk::new();
static WIRES: Wires = Wires::new();
static PULSES: Pulses = Pulses::new();
static METER: MeterCell = MeterCell::new();
static BOOTED: StaticCell<Booted<1>> = StaticCell::new();

bind_interrupts!(struct Irqs {
    UART4 => usart::BufferedInterruptHandler<peripherals::UART4>;
    USART1 => usart::BufferedInterruptHandler<peripherals::USART1>;
    USART2 => usart::BufferedInterruptHandler<peripherals::USART2>;
    USART3 => usart::BufferedInterruptHandler<peripherals::USART3>;
    EXTI0 => CountPulses;
    EXTI15_10 => exti::InterruptHandler<interrupt::typelevel::EXTI15_10>;
});

/// Counts flow pulses. Line 0 has an interrupt of its own: a handler shared with others masks what it does not expect.
struct CountPulses;

#[expect(unsafe_code, reason = "embassy's contract with a handler")]
impl Handler<interrupt::typelevel::EXTI0> for CountPulses {
    unsafe fn on_interrupt() {
        embassy_stm32::pac::EXTI.pr(0).write(|lines| lines.0 = 1);
        PULSES.add();
    }
}

type Uart = Ring<BufferedUart<'static>>;
type RecordFlash = BlockingAsync<Flash<'static, Blocking>>;

/// The board, up and running; what a machine does not need it leaves alone.
struct Board {
    device: Device,
    output: Output<'static>,
    coin: Output<'static>,
    hot_unlock: Output<'static>,
    plug_or_door: Contact<Input<'static>>,
    leaking: Contact<Input<'static>>,
    closed_or_running: Contact<Input<'static>>,
    pulse: (Peri<'static, peripherals::PB0>, Peri<'static, peripherals::EXTI0>),
    meter: (
        Peri<'static, peripherals::USART3>,
        Peri<'static, peripherals::PC4>,
        Peri<'static, peripherals::PC5>,
    ),
}

/// What every machine's control task owns.
struct Device {
    booted: &'static mut Booted<1>,
    store: Store<RecordFlash>,
    panel: Lights,
}

/// Lamps, watchdog and thermometer.
struct Lights {
    busy: Output<'static>,
    watchdog: IndependentWatchdog<'static, peripherals::IWDG>,
    adc: Adc<'static, peripherals::ADC1>,
    ntc: Peri<'static, peripherals::PC3>,
}

impl Panel for Lights {
    fn show(&mut self, _outlet: OutletId, screen: &Screen) {
        let busy = matches!(
            screen,
            Screen::Asking | Screen::Begin { .. } | Screen::Delivering { .. }
        );
        self.busy.set_level(busy.into());
        match screen {
            Screen::Refused { reason, .. } => defmt::info!("refused, reason {=u8}", reason.code()),
            Screen::Begin { units_max, money_max } => {
                defmt::info!("granted: {=u64} units, {=i64} minor units", units_max.0, money_max.0);
            }
            Screen::Ended { reason, units, money } => {
                defmt::info!(
                    "ended, reason {=u8}: {=u64} units, {=i64} minor units",
                    reason.code(),
                    units.0,
                    money.0
                );
            }
            Screen::Receipt { amount } => defmt::info!("receipt: {=i64} minor units", amount.0),
            Screen::Faulted(fault) => defmt::warn!("fault {=u8}", fault.code()),
            Screen::Free => defmt::info!("free"),
            Screen::Recovering => defmt::info!("recovering"),
            Screen::Unavailable => defmt::info!("unavailable"),
            Screen::Asking | Screen::Delivering { .. } => {}
        }
    }

    fn linked(&mut self, is_linked: bool) {
        defmt::info!("{=str}", if is_linked { "linked" } else { "unlinked" });
    }

    fn alive(&mut self) {
        self.watchdog.pet();
    }

    fn temperature_c(&mut self, _outlet: OutletId) -> i16 {
        let count = self.adc.blocking_read(&mut self.ntc, SampleTime::CYCLES47_5);
        Ntc::USUAL.celsius(count).unwrap_or(i16::MAX)
    }
}

/// Runs a charger for good.
pub fn charger() -> ! {
    crate::executor::run(|spawner| {
        let board = init(spawner, Kind::Charger);
        let (uart, tx_pin, rx_pin) = board.meter;
        static TX: StaticCell<[u8; METER_TX_BYTES]> = StaticCell::new();
        static RX: StaticCell<[u8; 64]> = StaticCell::new();
        let (tx, rx) = (TX.init([0; METER_TX_BYTES]), RX.init([0; 64]));
        let uart = BufferedUart::new(uart, rx_pin, tx_pin, tx, rx, Irqs, serial(9_600)).expect("pins of USART3");
        spawner.spawn(read_meter(Ring::new(uart, METER_TX_BYTES)).expect("once"));
        let machine = Charger {
            contactor: board.output,
            closed: board.closed_or_running,
            plugged: board.plug_or_door,
            leaking: board.leaking,
            meter: &METER,
        };
        spawner.spawn(control_charger(board.device, machine).expect("once"));
    })
}

/// Runs a washer for good.
pub fn washer() -> ! {
    crate::executor::run(|spawner| {
        let board = init(spawner, Kind::Washer);
        let machine = Washer {
            permit: board.output,
            coins: Coin::new(board.coin, COINS).unwrap_or_else(|never| match never {}),
            coins_a_cycle: COINS_A_CYCLE,
            running: board.closed_or_running,
            door_locked: board.plug_or_door,
            leaking: board.leaking,
            cycles: 0,
            permitted: false,
        };
        spawner.spawn(control_washer(board.device, machine).expect("once"));
    })
}

/// Runs a dispenser for good.
pub fn dispenser() -> ! {
    crate::executor::run(|spawner| {
        let board = init(spawner, Kind::Dispenser);
        let (pin, line) = board.pulse;
        static PULSE: StaticCell<ExtiInput<'static, mode::Blocking>> = StaticCell::new();
        PULSE.init(ExtiInput::new_blocking(pin, line, Pull::Up, exti::TriggerEdge::Falling));
        #[expect(unsafe_code, reason = "the handler is bound above")]
        // SAFETY: the handler and what it counts in are ready.
        unsafe {
            embassy_stm32::interrupt::EXTI0.enable();
        }
        let machine = Dispenser {
            valve: board.output,
            hot_unlock: board.hot_unlock,
            leaking: board.leaking,
            flow: Flow::new(FLOW_SENSOR, &PULSES, 0),
            pulses: &PULSES,
            volume_ml: 0,
        };
        spawner.spawn(control_dispenser(board.device, machine).expect("once"));
    })
}

type ThisCharger = Charger<'static, Output<'static>, Input<'static>>;
type ThisWasher = Washer<Output<'static>, Input<'static>>;
type ThisDispenser = Dispenser<'static, Output<'static>, Input<'static>>;

#[embassy_executor::task]
async fn control_charger(device: Device, machine: ThisCharger) {
    restart(control::run(device.booted, machine, device.panel, device.store, &DESK, &WIRES).await);
}

#[embassy_executor::task]
async fn control_washer(device: Device, machine: ThisWasher) {
    restart(control::run(device.booted, machine, device.panel, device.store, &DESK, &WIRES).await);
}

#[embassy_executor::task]
async fn control_dispenser(device: Device, machine: ThisDispenser) {
    restart(control::run(device.booted, machine, device.panel, device.store, &DESK, &WIRES).await);
}

#[embassy_executor::task]
async fn run_link(id: DeviceId, secret: PairSecret, uart: Uart) {
    link::run(&id, &secret, Module(uart), &WIRES).await;
}

#[embassy_executor::task]
async fn read_meter(uart: Uart) {
    let meter = Meter::new(METER_PARTS, REFERENCE_MV, LEAP_PULSES_MAX);
    machine::read_meter(Bl0942::new(uart, Address::A0, meter), &METER).await;
}

#[embassy_executor::task]
async fn read_cards(uart: Uart) {
    gesture::read_cards(Pn532::new(uart, Delay), OUTLET, &DESK).await;
}

#[embassy_executor::task]
async fn read_codes(uart: BufferedUartRx<'static>) {
    gesture::read_lines(uart, OUTLET, &DESK).await;
}

#[embassy_executor::task]
async fn watch_button(mut button: ExtiInput<'static, mode::Async>) {
    loop {
        button.wait_for_falling_edge().await;
        DESK.send(gesture::Gesture::Button(OUTLET)).await;
        // Contacts bounce.
        Timer::after_millis(200).await;
    }
}

/// Sets everything up; the control task is the caller's. Not inlined: what it needs of the stack is needed only now.
#[inline(never)]
fn init(spawner: Spawner, kind: Kind) -> Board {
    #[cfg(feature = "emulated")]
    crate::emulated::install();
    let p = clocks();
    let core = cortex_m::Peripherals::take().expect("taken once");
    crate::systick::start(core.SYST, CORE_HZ);
    let config = identity(kind);
    let (id, secret) = config.link();
    defmt::info!("{=str} boots", id.as_str());

    static LINK_TX: StaticCell<[u8; LINK_TX_BYTES]> = StaticCell::new();
    static LINK_RX: StaticCell<[u8; 1024]> = StaticCell::new();
    let (tx, rx) = (LINK_TX.init([0; LINK_TX_BYTES]), LINK_RX.init([0; 1024]));
    let uart = BufferedUart::new(p.UART4, p.PA1, p.PA0, tx, rx, Irqs, serial(115_200)).expect("pins of UART4");
    spawner.spawn(run_link(id, secret, Ring::new(uart, LINK_TX_BYTES)).expect("once"));

    static CARDS_TX: StaticCell<[u8; CARDS_TX_BYTES]> = StaticCell::new();
    static CARDS_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CARDS_TX.init([0; CARDS_TX_BYTES]), CARDS_RX.init([0; 64]));
    let uart = BufferedUart::new(p.USART2, p.PA3, p.PA2, tx, rx, Irqs, serial(115_200)).expect("pins of USART2");
    spawner.spawn(read_cards(Ring::new(uart, CARDS_TX_BYTES)).expect("once"));

    static CODES_TX: StaticCell<[u8; 1]> = StaticCell::new();
    static CODES_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CODES_TX.init([0; 1]), CODES_RX.init([0; 64]));
    let uart = BufferedUart::new(p.USART1, p.PB7, p.PB6, tx, rx, Irqs, serial(9_600)).expect("pins of USART1");
    spawner.spawn(read_codes(uart.split().1).expect("once"));

    let button = ExtiInput::new(p.PC13, p.EXTI13, Pull::Up, Irqs);
    spawner.spawn(watch_button(button).expect("once"));

    let mut store = Store::new(BlockingAsync::new(Flash::new_blocking(p.FLASH)), RECORDS);
    let booted = make(config);
    if let Err(stopped) = booted.boot(&mut store) {
        restart(stopped);
    }
    let mut watchdog = IndependentWatchdog::new(p.IWDG, WATCHDOG_US);
    watchdog.unleash();
    let panel = Lights {
        busy: Output::new(p.PB14, Level::Low, Speed::Low),
        watchdog,
        adc: Adc::new(p.ADC1),
        ntc: p.PC3,
    };
    Board {
        device: Device { booted, store, panel },
        output: Output::new(p.PA5, Level::Low, Speed::Low),
        coin: Output::new(p.PA7, Level::Low, Speed::Low),
        hot_unlock: Output::new(p.PA6, Level::Low, Speed::Low),
        plug_or_door: contact(Input::new(p.PB4, Pull::Up)),
        leaking: contact(Input::new(p.PB1, Pull::Up)),
        closed_or_running: contact(Input::new(p.PA15, Pull::Up)),
        pulse: (p.PB0, p.EXTI0),
        meter: (p.USART3, p.PC4, p.PC5),
    }
}

/// A contact to ground.
fn contact(pin: Input<'static>) -> Contact<Input<'static>> {
    Contact::new(pin, Polarity::Low, BOUNCE_MS).unwrap_or_else(|never| match never {})
}

/// Makes the device where it lives.
#[inline(never)]
fn make(config: Checked<1>) -> &'static mut Booted<1> {
    BOOTED.init_with(|| Booted::new(config))
}

/// 80 MHz from the internal oscillator.
fn clocks() -> Peripherals {
    use embassy_stm32::rcc::{Pll, PllMul, PllPreDiv, PllRDiv, PllSource, Sysclk};
    let mut config = embassy_stm32::Config::default();
    config.rcc.hsi = true;
    config.rcc.pll = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV1,
        mul: PllMul::MUL10,
        divp: None,
        divq: None,
        divr: Some(PllRDiv::DIV2),
    });
    config.rcc.sys = Sysclk::PLL1_R;
    embassy_stm32::init(config)
}

fn serial(baudrate: u32) -> usart::Config {
    let mut config = usart::Config::default();
    config.baudrate = baudrate;
    // Bytes are handed on as they come: an emulated line is never idle.
    config.eager_reads = Some(1);
    config
}

/// Who this is. Without an identity, or with one of another kind, nothing is ever switched on.
#[inline(never)]
fn identity(kind: Kind) -> Checked<1> {
    #[expect(unsafe_code, reason = "flash is read in place")]
    // SAFETY: a page of the flash that nothing writes while the firmware runs.
    let page = unsafe { &*IDENTITY };
    match Identity::read(page) {
        Ok(identity) if identity.kind == kind => match Config::provisioned(identity).check() {
            Ok(config) => config,
            Err(error) => {
                defmt::error!("{}", defmt::Display2Format(&error));
                halt()
            }
        },
        Ok(identity) => {
            let found = identity.kind.code();
            defmt::error!(
                "provisioned as kind {=u8}, this image serves kind {=u8}",
                found,
                kind.code()
            );
            halt()
        }
        Err(error) => {
            defmt::error!("{}", defmt::Display2Format(&error));
            halt()
        }
    }
}

fn halt() -> ! {
    #[cfg(feature = "emulated")]
    semihosting::process::exit(78);
    #[cfg(not(feature = "emulated"))]
    loop {
        cortex_m::asm::wfi();
    }
}

fn restart(stopped: Stopped) -> ! {
    match stopped {
        Stopped::Unreadable => defmt::error!("stopped: a record in flash cannot be read"),
        Stopped::Unwritable => defmt::error!("stopped: a record cannot be written to flash"),
    }
    cortex_m::peripheral::SCB::sys_reset()
}
