//! From pins to traits.

use app::{
    control::{self, Booted, Stopped},
    gesture::{self, Desk},
    link::{self, Wires},
    machine::{Dispenser, FlowPulses, Panel},
    store::Store,
    transport::Module,
};
use device::{Config, Screen};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_stm32::{
    Peripherals, bind_interrupts,
    exti::{self, ExtiInput},
    flash::{Blocking, Flash},
    gpio::{Input, Level, Output, Pull, Speed},
    interrupt::{self, typelevel::Handler},
    mode, peripherals,
    usart::{self, BufferedUart, BufferedUartRx},
    wdg::IndependentWatchdog,
};
use embassy_time::Timer;
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
/// This board has one.
const OUTLET: OutletId = 0;

static DESK: Desk = Desk::new();
static WIRES: Wires = Wires::new();
static PULSES: FlowPulses = FlowPulses::new();
static BOOTED: StaticCell<Booted<1>> = StaticCell::new();

bind_interrupts!(struct Irqs {
    UART4 => usart::BufferedInterruptHandler<peripherals::UART4>;
    USART1 => usart::BufferedInterruptHandler<peripherals::USART1>;
    // Flow pulses first: what it takes is not seen by the other.
    EXTI15_10 => CountPulses, exti::InterruptHandler<interrupt::typelevel::EXTI15_10>;
});

/// Counts pulses at line 15.
struct CountPulses;

#[expect(unsafe_code, reason = "embassy's contract with a handler")]
impl Handler<interrupt::typelevel::EXTI15_10> for CountPulses {
    unsafe fn on_interrupt() {
        const LINE: u32 = 1 << 15;
        let pending = embassy_stm32::pac::EXTI.pr(0);
        if pending.read().0 & LINE != 0 {
            pending.write(|lines| lines.0 = LINE);
            PULSES.count();
        }
    }
}

type RecordFlash = BlockingAsync<Flash<'static, Blocking>>;

/// The board, up and running.
struct Board {
    booted: &'static mut Booted<1>,
    store: Store<RecordFlash>,
    output: Output<'static>,
    leak: Input<'static>,
    pulse: ExtiInput<'static, mode::Blocking>,
    lights: Lights,
}

/// Lamps and watchdog.
struct Lights {
    busy: Output<'static>,
    watchdog: IndependentWatchdog<'static, peripherals::IWDG>,
}

impl Panel for Lights {
    fn show(&mut self, screen: &Screen) {
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
            Screen::Free | Screen::Asking | Screen::Delivering { .. } | Screen::Recovering | Screen::Unavailable => {}
        }
    }

    fn linked(&mut self, is_linked: bool) {
        defmt::info!("{=str}", if is_linked { "linked" } else { "unlinked" });
    }

    fn alive(&mut self) {
        self.watchdog.pet();
    }

    fn temperature_c(&mut self) -> i16 {
        25
    }
}

/// Runs a dispenser for good.
pub fn dispenser() -> ! {
    crate::executor::run(|spawner| {
        let board = init(spawner, Kind::Dispenser);
        spawner.spawn(control_dispenser(board).expect("once"));
    })
}

#[embassy_executor::task]
async fn control_dispenser(board: Board) {
    let _keep_counting = &board.pulse;
    let machine = Dispenser {
        valve: board.output,
        leak: board.leak,
        pulses: &PULSES,
        pulses_a_litre: 450,
        panel: board.lights,
        seen: 0,
        total: 0,
    };
    restart(control::run(board.booted, machine, board.store, &DESK, &WIRES).await);
}

#[embassy_executor::task]
async fn run_link(id: DeviceId, secret: PairSecret, uart: BufferedUart<'static>) {
    link::run(&id, &secret, Module(uart), &WIRES).await;
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
    defmt::info!("{=str} boots", config.id.as_str());

    static LINK_TX: StaticCell<[u8; 256]> = StaticCell::new();
    static LINK_RX: StaticCell<[u8; 2048]> = StaticCell::new();
    let (tx, rx) = (LINK_TX.init([0; 256]), LINK_RX.init([0; 2048]));
    let uart = BufferedUart::new(p.UART4, p.PA1, p.PA0, tx, rx, Irqs, serial(115_200)).expect("pins of UART4");
    spawner.spawn(run_link(config.id, config.secret.clone(), uart).expect("once"));

    static CODES_TX: StaticCell<[u8; 1]> = StaticCell::new();
    static CODES_RX: StaticCell<[u8; 64]> = StaticCell::new();
    let (tx, rx) = (CODES_TX.init([0; 1]), CODES_RX.init([0; 64]));
    let uart = BufferedUart::new(p.USART1, p.PB7, p.PB6, tx, rx, Irqs, serial(9_600)).expect("pins of USART1");
    spawner.spawn(read_codes(uart.split().1).expect("once"));

    let button = ExtiInput::new(p.PC13, p.EXTI13, Pull::Up, Irqs);
    spawner.spawn(watch_button(button).expect("once"));

    let mut watchdog = IndependentWatchdog::new(p.IWDG, WATCHDOG_US);
    watchdog.unleash();
    let mut store = Store::new(BlockingAsync::new(Flash::new_blocking(p.FLASH)), RECORDS);
    let booted = match Booted::new(config) {
        Ok(booted) => BOOTED.init(booted),
        Err(stopped) => restart(stopped),
    };
    if let Err(stopped) = booted.boot(&mut store) {
        restart(stopped);
    }
    Board {
        booted,
        store,
        output: Output::new(p.PA5, Level::Low, Speed::Low),
        leak: Input::new(p.PB1, Pull::Up),
        pulse: ExtiInput::new_blocking(p.PA15, p.EXTI15, Pull::Up, exti::TriggerEdge::Falling),
        lights: Lights {
            busy: Output::new(p.PB14, Level::Low, Speed::Low),
            watchdog,
        },
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

fn serial(baudrate: u32) -> usart::Config {
    let mut config = usart::Config::default();
    config.baudrate = baudrate;
    // Bytes are handed on as they come: an emulated line is never idle.
    config.eager_reads = Some(1);
    config
}

/// Who this is. Without an identity, or with one of another kind, nothing is ever switched on.
fn identity(kind: Kind) -> Config {
    #[expect(unsafe_code, reason = "flash is read in place")]
    // SAFETY: a page of the flash that nothing writes while the firmware runs.
    let page = unsafe { &*IDENTITY };
    match Identity::read(page) {
        Ok(identity) if identity.kind == kind && identity.outlets == 1 => Config::provisioned(identity),
        Ok(identity) => {
            defmt::error!(
                "provisioned as kind {=u8} with {=u8} outlets, this image serves kind {=u8} with one",
                identity.kind.code(),
                identity.outlets,
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
        Stopped::Config(error) => defmt::error!("stopped: {}", defmt::Display2Format(&error)),
        Stopped::Unreadable => defmt::error!("stopped: a record in flash cannot be read"),
        Stopped::Unwritable => defmt::error!("stopped: a record cannot be written to flash"),
    }
    cortex_m::peripheral::SCB::sys_reset()
}
