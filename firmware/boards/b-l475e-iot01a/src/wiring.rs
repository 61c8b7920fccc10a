//! From pins to traits.

use core::ops::Range;

use app::{
    link,
    transport::{Module, Ring},
    update::Updater,
};
use board::{Charger, CountPulses, Device, Dispenser, Outlet, Panel, People, Washer};
use embassy_embedded_hal::{adapter::BlockingAsync, flash::partition::Partition};
use embassy_executor::Spawner;
use embassy_stm32::{
    Peri, Peripherals,
    adc::{Adc, AdcChannel as _, SampleTime},
    bind_interrupts,
    exti::{self, ExtiInput},
    flash::{Blocking, Flash},
    gpio::{Input, Level, Output, Pull, Speed},
    interrupt, peripherals,
    usart::{self, BufferedUart},
};
use embassy_sync::{blocking_mutex::raw::NoopRawMutex, mutex::Mutex};
use proto::{
    id::{DeviceId, Kind},
    seal::PairSecret,
    update::Label,
};
use static_cell::StaticCell;

use crate::map;

/// Clock of core and SysTick, in Hz.
const CORE_HZ: u32 = 80_000_000;
/// As images and their manifests name it.
const BOARD: &str = "b-l475e-iot01a";
/// Rings for sending of the UARTs.
const LINK_TX_BYTES: usize = 256;
const CARDS_TX_BYTES: usize = 32;
const METER_TX_BYTES: usize = 4;

bind_interrupts!(struct Irqs {
    UART4 => usart::BufferedInterruptHandler<peripherals::UART4>;
    USART1 => usart::BufferedInterruptHandler<peripherals::USART1>;
    USART2 => usart::BufferedInterruptHandler<peripherals::USART2>;
    USART3 => usart::BufferedInterruptHandler<peripherals::USART3>;
    EXTI0 => CountPulses;
    EXTI15_10 => exti::InterruptHandler<interrupt::typelevel::EXTI15_10>;
});

type Uart = Ring<BufferedUart<'static>>;
type WholeFlash = BlockingAsync<Flash<'static, Blocking>>;
type RecordFlash = Partition<'static, NoopRawMutex, WholeFlash>;

/// The board, up and running.
struct Board {
    device: Device<RecordFlash>,
    outlet: Outlet,
    pulse: (Peri<'static, peripherals::PB0>, Peri<'static, peripherals::EXTI0>),
    meter: (
        Peri<'static, peripherals::USART3>,
        Peri<'static, peripherals::PC4>,
        Peri<'static, peripherals::PC5>,
    ),
}

/// Runs a charger for good.
pub fn charger() -> ! {
    static LABEL: Label = Label::new(BOARD, Kind::Charger);
    board::run(|spawner| {
        let board = init(spawner, Kind::Charger, &LABEL);
        let (uart, tx_pin, rx_pin) = board.meter;
        static TX: StaticCell<[u8; METER_TX_BYTES]> = StaticCell::new();
        static RX: StaticCell<[u8; 64]> = StaticCell::new();
        let (tx, rx) = (TX.init([0; METER_TX_BYTES]), RX.init([0; 64]));
        let config = board::serial(9_600);
        let uart = BufferedUart::new(uart, rx_pin, tx_pin, tx, rx, Irqs, config).expect("pins of USART3");
        let machine = board.outlet.charger(spawner, Ring::new(uart, METER_TX_BYTES));
        spawner.spawn(control_charger(board.device, machine).expect("once"));
    })
}

/// Runs a washer for good.
pub fn washer() -> ! {
    static LABEL: Label = Label::new(BOARD, Kind::Washer);
    board::run(|spawner| {
        let board = init(spawner, Kind::Washer, &LABEL);
        spawner.spawn(control_washer(board.device, board.outlet.washer()).expect("once"));
    })
}

/// Runs a dispenser for good.
pub fn dispenser() -> ! {
    static LABEL: Label = Label::new(BOARD, Kind::Dispenser);
    board::run(|spawner| {
        let board = init(spawner, Kind::Dispenser, &LABEL);
        let (pin, line) = board.pulse;
        let pulse = ExtiInput::new_blocking(pin, line, Pull::Up, exti::TriggerEdge::Falling);
        let machine = board.outlet.dispenser(pulse);
        spawner.spawn(control_dispenser(board.device, machine).expect("once"));
    })
}

#[embassy_executor::task]
async fn control_charger(device: Device<RecordFlash>, machine: Charger) {
    board::restart(&device.run(machine).await);
}

#[embassy_executor::task]
async fn control_washer(device: Device<RecordFlash>, machine: Washer) {
    board::restart(&device.run(machine).await);
}

#[embassy_executor::task]
async fn control_dispenser(device: Device<RecordFlash>, machine: Dispenser) {
    board::restart(&device.run(machine).await);
}

#[embassy_executor::task]
async fn run_link(id: DeviceId, secret: PairSecret, uart: Uart) {
    link::run(&id, &secret, Module(uart), &board::WIRES).await;
}

/// Sets everything up; the control task is the caller's. Not inlined: what it needs of the stack is needed only now.
#[inline(never)]
fn init(spawner: Spawner, kind: Kind, label: &Label) -> Board {
    #[cfg(feature = "emulated")]
    crate::emulated::install();
    let p = clocks();
    let core = cortex_m::Peripherals::take().expect("taken once");
    crate::systick::start(core.SYST, CORE_HZ);
    // The module connects by itself.
    let (config, _, signers) = board::identity(board::flash_page((map::FLASH + map::IDENTITY) as usize), kind);
    let (id, secret) = config.link();

    static LINK_TX: StaticCell<[u8; LINK_TX_BYTES]> = StaticCell::new();
    static LINK_RX: StaticCell<[u8; 1024]> = StaticCell::new();
    let (tx, rx) = (LINK_TX.init([0; LINK_TX_BYTES]), LINK_RX.init([0; 1024]));
    let link = BufferedUart::new(p.UART4, p.PA1, p.PA0, tx, rx, Irqs, board::serial(115_200));
    let link = Ring::new(link.expect("pins of UART4"), LINK_TX_BYTES);
    spawner.spawn(run_link(id, secret, link).expect("once"));

    static CARDS_TX: StaticCell<[u8; CARDS_TX_BYTES]> = StaticCell::new();
    static CARDS_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CARDS_TX.init([0; CARDS_TX_BYTES]), CARDS_RX.init([0; 64]));
    let cards = BufferedUart::new(p.USART2, p.PA3, p.PA2, tx, rx, Irqs, board::serial(115_200));

    static CODES_TX: StaticCell<[u8; 1]> = StaticCell::new();
    static CODES_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CODES_TX.init([0; 1]), CODES_RX.init([0; 64]));
    let codes = BufferedUart::new(p.USART1, p.PB7, p.PB6, tx, rx, Irqs, board::serial(9_600));
    let people = People {
        cards: Ring::new(cards.expect("pins of USART2"), CARDS_TX_BYTES),
        codes: codes.expect("pins of USART1").split().1,
        button: ExtiInput::new(p.PC13, p.EXTI13, Pull::Up, Irqs),
        pressed: Level::Low,
    };
    people.listen(spawner);

    static FLASH: StaticCell<Mutex<NoopRawMutex, WholeFlash>> = StaticCell::new();
    let flash = FLASH.init(Mutex::new(BlockingAsync::new(Flash::new_blocking(p.FLASH))));
    let part = |range: Range<u32>| Partition::new(flash, range.start, range.end - range.start);
    let home = board::home(BOARD, kind, label, signers);
    let updater = Updater::new(home, part(map::SPARE), part(map::STATE));
    let records = 0..map::RECORDS.end - map::RECORDS.start;
    let device = Device::boot(config, part(map::RECORDS), records, || {
        let busy = Output::new(p.PB14, Level::Low, Speed::Low);
        let ntc = p.PC3.degrade_adc();
        Panel::new(busy, p.IWDG, Adc::new(p.ADC1), ntc, SampleTime::CYCLES47_5)
    });
    let device = device.with_updates(updater);
    let outlet = Outlet {
        output: Output::new(p.PA5, Level::Low, Speed::Low),
        coin: Output::new(p.PA7, Level::Low, Speed::Low),
        hot_unlock: Output::new(p.PA6, Level::Low, Speed::Low),
        plug_or_door: Input::new(p.PB4, Pull::Up),
        leaking: Input::new(p.PB1, Pull::Up),
        closed_or_running: Input::new(p.PA15, Pull::Up),
    };
    Board {
        device,
        outlet,
        pulse: (p.PB0, p.EXTI0),
        meter: (p.USART3, p.PC4, p.PC5),
    }
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
