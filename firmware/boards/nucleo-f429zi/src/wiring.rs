//! From pins to traits.

use app::transport::Ring;
use board::{Charger, CountPulses, Device, Dispenser, Outlet, Panel, People, Washer};
use embassy_executor::Spawner;
use embassy_stm32::{
    Peri, Peripherals,
    adc::{Adc, AdcChannel as _, SampleTime},
    bind_interrupts, eth,
    exti::{self, ExtiInput},
    flash::{self, Async, Bank2Region1, Flash},
    gpio::{Input, Level, Output, Pull, Speed},
    interrupt, pac, peripherals, rng,
    time::Hertz,
    usart::{self, BufferedUart},
};
use proto::id::Kind;
use static_cell::StaticCell;

use crate::network::{self, Parts};

/// Flash of the records, as offsets in the first region of the second bank: sectors of 16 KiB, each erased in half a
/// second at most.
const RECORDS: core::ops::Range<u32> = 0..0x1_0000;
/// Flash of the identity, as an address.
const IDENTITY: usize = 0x0811_0000;
/// The ST-LINK's clock.
const HSE: Hertz = Hertz(8_000_000);
/// Rings for sending of the UARTs.
const CARDS_TX_BYTES: usize = 32;
const METER_TX_BYTES: usize = 4;

bind_interrupts!(pub(crate) struct Irqs {
    ETH => eth::InterruptHandler;
    EXTI0 => CountPulses;
    EXTI15_10 => exti::InterruptHandler<interrupt::typelevel::EXTI15_10>;
    FLASH => flash::InterruptHandler;
    HASH_RNG => rng::InterruptHandler<peripherals::RNG>;
    UART4 => usart::BufferedInterruptHandler<peripherals::UART4>;
    USART2 => usart::BufferedInterruptHandler<peripherals::USART2>;
    USART6 => usart::BufferedInterruptHandler<peripherals::USART6>;
});

type RecordFlash = Bank2Region1<'static, Async>;

/// The board, up and running.
struct Board {
    device: Device<RecordFlash>,
    outlet: Outlet,
    pulse: (Peri<'static, peripherals::PE0>, Peri<'static, peripherals::EXTI0>),
    meter: (
        Peri<'static, peripherals::USART2>,
        Peri<'static, peripherals::PD5>,
        Peri<'static, peripherals::PD6>,
    ),
}

/// Runs a charger for good.
pub fn charger() -> ! {
    board::run(|spawner| {
        let board = init(spawner, Kind::Charger);
        let (uart, tx_pin, rx_pin) = board.meter;
        static TX: StaticCell<[u8; METER_TX_BYTES]> = StaticCell::new();
        static RX: StaticCell<[u8; 64]> = StaticCell::new();
        let (tx, rx) = (TX.init([0; METER_TX_BYTES]), RX.init([0; 64]));
        let config = board::serial(9_600);
        let uart = BufferedUart::new(uart, rx_pin, tx_pin, tx, rx, Irqs, config).expect("pins of USART2");
        let machine = board.outlet.charger(spawner, Ring::new(uart, METER_TX_BYTES));
        spawner.spawn(control_charger(board.device, machine).expect("once"));
    })
}

/// Runs a washer for good.
pub fn washer() -> ! {
    board::run(|spawner| {
        let board = init(spawner, Kind::Washer);
        spawner.spawn(control_washer(board.device, board.outlet.washer()).expect("once"));
    })
}

/// Runs a dispenser for good.
pub fn dispenser() -> ! {
    board::run(|spawner| {
        let board = init(spawner, Kind::Dispenser);
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

/// Sets everything up; the control task is the caller's. Not inlined: what it needs of the stack is needed only now.
#[inline(never)]
fn init(spawner: Spawner, kind: Kind) -> Board {
    let p = clocks();
    // Before the second bank is read (erratum 2.2.11).
    core::mem::forget(Output::new(p.PA12, Level::Low, Speed::Low));
    pac::GPIOA
        .pupdr()
        .modify(|pins| pins.set_pupdr(12, pac::gpio::vals::Pupdr::PULL_DOWN));
    let (config, gateway, _) = board::identity(board::flash_page(IDENTITY), kind);
    let (id, secret) = config.link();

    static CARDS_TX: StaticCell<[u8; CARDS_TX_BYTES]> = StaticCell::new();
    static CARDS_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CARDS_TX.init([0; CARDS_TX_BYTES]), CARDS_RX.init([0; 64]));
    let cards = BufferedUart::new(p.USART6, p.PG9, p.PG14, tx, rx, Irqs, board::serial(115_200));

    static CODES_TX: StaticCell<[u8; 1]> = StaticCell::new();
    static CODES_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CODES_TX.init([0; 1]), CODES_RX.init([0; 64]));
    let codes = BufferedUart::new(p.UART4, p.PC11, p.PC10, tx, rx, Irqs, board::serial(9_600));
    let people = People {
        cards: Ring::new(cards.expect("pins of USART6"), CARDS_TX_BYTES),
        codes: codes.expect("pins of UART4").split().1,
        button: ExtiInput::new(p.PC13, p.EXTI13, Pull::Down, Irqs),
        pressed: Level::High,
    };
    people.listen(spawner);

    let flash = Flash::new(p.FLASH, Irqs).into_regions().bank2_region1;
    let device = Device::boot(config, flash, RECORDS, || {
        let busy = Output::new(p.PB7, Level::Low, Speed::Low);
        let ntc = p.PA3.degrade_adc();
        Panel::new(busy, p.IWDG, Adc::new(p.ADC1), ntc, SampleTime::CYCLES56)
    });
    let parts = Parts {
        eth: p.ETH,
        sma: p.ETH_SMA,
        rng: p.RNG,
        ref_clk: p.PA1,
        mdio: p.PA2,
        mdc: p.PC1,
        crs_dv: p.PA7,
        rxd0: p.PC4,
        rxd1: p.PC5,
        tx_en: p.PG11,
        txd0: p.PG13,
        txd1: p.PB13,
    };
    network::start(spawner, parts, id, secret, gateway);
    let outlet = Outlet {
        output: Output::new(p.PF12, Level::Low, Speed::Low),
        coin: Output::new(p.PD15, Level::Low, Speed::Low),
        hot_unlock: Output::new(p.PD14, Level::Low, Speed::Low),
        plug_or_door: Input::new(p.PE9, Pull::Up),
        leaking: Input::new(p.PE11, Pull::Up),
        closed_or_running: Input::new(p.PF13, Pull::Up),
    };
    Board {
        device,
        outlet,
        pulse: (p.PE0, p.EXTI0),
        meter: (p.USART2, p.PD5, p.PD6),
    }
}

/// 168 MHz from the ST-LINK's clock, and 48 MHz for random numbers.
fn clocks() -> Peripherals {
    use embassy_stm32::rcc::{
        AHBPrescaler, APBPrescaler, Hse, HseMode, Pll, PllMul, PllPDiv, PllPreDiv, PllQDiv, PllSource, Sysclk,
    };
    let mut config = embassy_stm32::Config::default();
    config.rcc.hse = Some(Hse {
        freq: HSE,
        mode: HseMode::Bypass,
    });
    config.rcc.pll_src = PllSource::HSE;
    config.rcc.pll = Some(Pll {
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL168,
        divp: Some(PllPDiv::DIV2),
        divq: Some(PllQDiv::DIV7),
        divr: None,
    });
    config.rcc.ahb_pre = AHBPrescaler::DIV1;
    config.rcc.apb1_pre = APBPrescaler::DIV4;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.sys = Sysclk::PLL1_P;
    embassy_stm32::init(config)
}
