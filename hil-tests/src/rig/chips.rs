//! The chips around a board, as the bench plays them: what they say is made by the inverse of the firmware's parsers.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use drivers::{
    meter::{
        Parts,
        bl0942::{Address, PACKET_BYTES, REFERENCE_MV},
        sim::{Bl0942, Load},
    },
    reader::{
        Uid,
        pn532::{
            IN_LIST_PASSIVE_TARGET, encode,
            frame::{ACK, Decoder, Frame, TO_READER},
        },
    },
};

use crate::rig::{line::Chip, world::passed_ms};

/// A reader that finds no card says so after this, in ms.
const LOOKING_MS: u64 = 300;

/// A card reader PN532.
#[derive(Debug)]
pub struct Reader {
    /// The card that somebody holds to it, once.
    card: Arc<Mutex<Option<Uid>>>,
    decoder: Decoder,
    looking_until: Option<Instant>,
}

impl Reader {
    /// A reader, and where cards are put.
    #[must_use]
    pub fn new() -> (Self, Arc<Mutex<Option<Uid>>>) {
        let card: Arc<Mutex<Option<Uid>>> = Arc::default();
        let reader = Self {
            card: card.clone(),
            decoder: Decoder::new(TO_READER),
            looking_until: None,
        };
        (reader, card)
    }
}

impl Chip for Reader {
    fn reset(&mut self) {
        self.decoder = Decoder::new(TO_READER);
        self.looking_until = None;
    }

    fn hear(&mut self, byte: u8, answer: &mut Vec<u8>) {
        self.decoder.push(byte);
        while let Some(frame) = self.decoder.frame() {
            // Whatever comes ends what it was doing.
            self.looking_until = None;
            let Frame::Data(command) = frame else { continue };
            let Some(code) = command.first() else { continue };
            answer.extend_from_slice(&ACK);
            if *code == IN_LIST_PASSIVE_TARGET {
                self.looking_until = Some(Instant::now() + Duration::from_millis(LOOKING_MS));
            } else {
                answer.extend_from_slice(&encode::done(*code));
            }
        }
    }

    fn look(&mut self, answer: &mut Vec<u8>) {
        let Some(until) = self.looking_until else { return };
        let card = self.card.lock().expect("nothing panics under this lock").take();
        if card.is_some() || Instant::now() >= until {
            self.looking_until = None;
            answer.extend_from_slice(&encode::card(card.as_ref()));
        }
    }
}

/// What a meter sees.
#[derive(Debug)]
pub struct Wire {
    /// Now.
    pub load: Load,
    /// How much faster energy is counted than in the world.
    pub speed: u32,
    /// The chip does not answer.
    pub broken: bool,
}

/// An energy meter BL0942 with the parts of the board.
#[derive(Debug)]
pub struct MeterChip {
    wire: Arc<Mutex<Wire>>,
    chip: Bl0942,
    asked: bool,
    drawn: Instant,
}

impl MeterChip {
    /// A meter, and the wire that it looks at.
    #[must_use]
    pub fn new(speed: u32) -> (Self, Arc<Mutex<Wire>>) {
        let load = Load {
            voltage_mv: 230_000,
            current_ma: 0,
            power_mw: 0,
        };
        let wire = Arc::new(Mutex::new(Wire {
            load,
            speed,
            broken: false,
        }));
        // Five resistors of 390 kOhm over 510 Ohm, and a shunt of 1 mOhm.
        let parts = Parts::new(1_950_000, 510_000, 1_000_000).expect("no part is zero");
        let meter = Self {
            wire: wire.clone(),
            chip: Bl0942::new(parts, REFERENCE_MV, 4_000),
            asked: false,
            drawn: Instant::now(),
        };
        (meter, wire)
    }
}

impl MeterChip {
    /// Counts up to now; what it says of it, unless it is broken.
    fn draw(&mut self) -> Option<[u8; PACKET_BYTES]> {
        let wire = self.wire.lock().expect("nothing panics under this lock");
        let elapsed_ms = passed_ms(&mut self.drawn, Instant::now()) as u32;
        let packet = self.chip.draw(&wire.load, elapsed_ms * wire.speed, Address::A0);
        (!wire.broken).then_some(packet)
    }
}

impl Chip for MeterChip {
    /// It has the board's supply, and forgets with it.
    fn reset(&mut self) {
        self.chip.restart();
        self.asked = false;
        self.drawn = Instant::now();
    }

    fn hear(&mut self, byte: u8, answer: &mut Vec<u8>) {
        let [command, register] = Address::A0.request();
        if self.asked
            && byte == register
            && let Some(packet) = self.draw()
        {
            answer.extend_from_slice(&packet);
        }
        self.asked = byte == command;
    }

    /// It counts all the while, not only when it is asked.
    fn look(&mut self, _answer: &mut Vec<u8>) {
        let _unasked = self.draw();
    }
}
