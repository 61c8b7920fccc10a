//! Prints a line for each thing measured: its name, the instructions that one call takes, and the bytes it makes or takes.
//!
//! For QEMU with `-icount shift=0`, where the virtual clock advances by a nanosecond an instruction; the system timer runs by
//! that clock. How many instructions a tick is, is measured with a loop whose length is known. On a real Cortex-M4 most
//! instructions take one to three cycles, and flash adds waits.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
use proto::{
    codec,
    id::{IdToken, Name, SessionId, TokenKind},
    instrument::Instrument,
    message::{Authorize, ClockQuality, Closing, Grant, Receipt, Stamp, Stop, StopReason},
    money::{Money, Units},
    seal::{Direction, FRAME_BYTES_MAX, PairSecret},
    tariff::{Dimension, Tariff},
    topic::{self, Up},
};
use semihosting::{println, process};
use serde::{Serialize, de::DeserializeOwned};

/// Calls of what is measured: a tick of the timer is forty instructions.
const CALLS: u32 = 200;
/// Rounds of the loop whose length is known, and its instructions: subtract, and branch.
const ROUNDS: u32 = 1_000_000;
const ROUND_INSTRUCTIONS: u32 = 2;
const BUFFER_BYTES: usize = 1_024;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(1)
}

struct Counter {
    /// Ticks of the calibration.
    of_rounds: u64,
}

impl Counter {
    fn new(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(0x00ff_ffff);
        timer.clear_current();
        timer.enable_counter();
        let mut counter = Self { of_rounds: 0 };
        counter.of_rounds = counter.ticks(|| cortex_m::asm::delay(ROUNDS * ROUND_INSTRUCTIONS));
        counter
    }

    /// Ticks that something takes; at most one round of the timer, 16,777,215.
    fn ticks(&self, what: impl FnOnce()) -> u64 {
        let before = SYST::get_current();
        what();
        // It counts down.
        u64::from(before.wrapping_sub(SYST::get_current()) & 0x00ff_ffff)
    }

    fn count(&self, name: &str, bytes: usize, mut what: impl FnMut()) {
        let ticks = self.ticks(|| (0..CALLS).for_each(|_| what()));
        let instructions = ticks * u64::from(ROUNDS * ROUND_INSTRUCTIONS) / self.of_rounds / u64::from(CALLS);
        println!("{name}\t{instructions}\t{bytes}");
    }

    fn message<T: Serialize + DeserializeOwned>(&self, name: &str, message: &T) {
        let mut buffer = [0; BUFFER_BYTES];
        let len = codec::encode(message, &mut buffer).expect("it fits");
        let bytes = buffer;
        self.count_of(name, "encode", len, || {
            let _ = black_box(codec::encode(black_box(message), &mut buffer));
        });
        self.count_of(name, "decode", len, || {
            drop(black_box(codec::decode::<T>(black_box(&bytes[..len]))));
        });
        let written = encode_minicbor(message, &mut buffer);
        let bytes = buffer;
        self.count_of(name, "encode, minicbor-serde", written, || {
            black_box(encode_minicbor(black_box(message), &mut buffer));
        });
        self.count_of(name, "decode, minicbor-serde", written, || {
            drop(black_box(minicbor_serde::from_slice::<T>(black_box(&bytes[..written]))));
        });
    }

    fn count_of(&self, name: &str, what: &str, bytes: usize, run: impl FnMut()) {
        let mut text = heapless::String::<64>::new();
        for part in [name, ": ", what] {
            text.push_str(part).expect("names are short");
        }
        self.count(&text, bytes, run);
    }
}

fn encode_minicbor(message: &impl Serialize, buffer: &mut [u8]) -> usize {
    let room = buffer.len();
    let mut cursor = minicbor::encode::write::Cursor::new(buffer);
    let written = message.serialize(&mut minicbor_serde::Serializer::new(&mut cursor));
    assert!(written.is_ok() && cursor.position() < room);
    cursor.position()
}

const AT: Stamp = Stamp {
    mono_ms: 86_400_000,
    wall_s: 1_768_464_000,
    quality: ClockQuality::Synchronised,
};

#[cortex_m_rt::entry]
fn main() -> ! {
    let counter = Counter::new(Peripherals::take().expect("taken once").SYST);
    let device = Name::new("charger-001").expect("a name");
    let session = SessionId::mint(&device, 12, 345);
    let authorize = Authorize {
        session,
        outlet: 0,
        token: IdToken::new(TokenKind::Card, &[4, 1, 2, 3, 4, 5, 6]).expect("a card"),
        units_wished: Units::ZERO,
        register: Units(1_234_567),
        at: AT,
        instrument: Instrument::NONE,
    };
    let tariff = Tariff::flat(1, &[(Dimension::Energy, 120_000), (Dimension::Idle, 1_000)]);
    let grant = Grant {
        session,
        units_max: Units(3_000),
        money_max: Money(300),
        duration_max_s: 28_800,
        start_within_s: 60,
        meter_every_s: 60,
        tariff_hash: tariff.hash(),
        tariff,
        decision: 12_345,
        stop_tokens: heapless::Vec::new(),
    };
    let stop = Stop {
        session,
        outlet: 0,
        reason: StopReason::User,
        started: true,
        register_start: Units(1_234_567),
        register_end: Units(1_235_067),
        elapsed_s: 3_600,
        idle_s: 12,
        shown: Money(60),
        at: AT,
    };
    let receipt = Receipt {
        session,
        closing: Closing::Captured,
        amount: Money(60),
        units: Units(500),
    };
    counter.message("authorize", &authorize);
    counter.message("grant", &grant);
    counter.message("stop", &stop);
    counter.message("receipt", &receipt);

    let key = PairSecret([7; 32]).key(Direction::Up);
    let topic = topic::up(&device, Up::Authorize);
    let mut frame = [0; FRAME_BYTES_MAX];
    let seal = |frame: &mut [u8]| key.seal(&topic, 1, black_box(&authorize), frame).expect("it fits");
    let len = seal(&mut frame);
    let sealed = frame;
    counter.count("authorize: encode and seal", len, || {
        black_box(seal(&mut frame));
    });
    let open = |frame| key.open(&topic, frame, FRAME_BYTES_MAX);
    counter.count("authorize: open", len, || {
        let _ = black_box(open(black_box(&sealed[..len])));
    });
    process::exit(0)
}
