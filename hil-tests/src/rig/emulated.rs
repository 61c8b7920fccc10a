//! Boards in QEMU as rigs.

use std::path::PathBuf;

use proto::id::Kind;

use crate::{
    rig::{
        Not, Order, Rig, Skill, Supplier,
        image::Image,
        log::Log,
        module::Module,
        pins,
        qemu::{self, Board},
    },
    twin::{Injury, Thing},
};

/// Counts of the thermistor's input at 25 degrees Celsius, and far above any limit: it pulls to ground.
const COOL_COUNTS: u32 = 2048;
const HOT_COUNTS: u32 = 300;
/// One of so many pulses of the flow meter at most is merged into its neighbour when the emulator's host is busy.
const MERGED_PART: u64 = 20;
/// Where the firmware for QEMU keeps what its inputs measure.
const ADC_SYMBOL: &str = "ADC_COUNTS";

/// Boards in QEMU, flashed with the images of a folder.
#[derive(Debug)]
pub struct Qemu {
    images: PathBuf,
}

impl Qemu {
    /// With the images in `images`, one named after each kind.
    #[must_use]
    pub const fn new(images: PathBuf) -> Self {
        Self { images }
    }
}

impl Supplier for Qemu {
    fn name(&self) -> &str {
        "qemu"
    }

    fn has(&self, kind: Kind) -> Result<(), Not> {
        if let Some(missing) = qemu::missing() {
            return Err(Not(missing));
        }
        let image = self.images.join(kind.word());
        if image.is_file() {
            Ok(())
        } else {
            Err(Not(format!("{} was not built", image.display())))
        }
    }

    fn can(&self, kind: Kind, skill: Skill) -> Result<(), Not> {
        match skill {
            Skill::Injure(injury) => can_injure(kind, injury),
            Skill::Card
            | Skill::Line
            | Skill::Stop
            | Skill::Things
            | Skill::BigThings
            | Skill::Power
            | Skill::Cable
            | Skill::Processor => Ok(()),
        }
    }

    fn supply(&self, order: &Order<'_>) -> anyhow::Result<Box<dyn Rig>> {
        let image = Image::load(&self.images.join(order.device.kind.word()))?;
        let thermistor = image.address_of(ADC_SYMBOL)? + 4 * pins::THERMISTOR_CHANNEL;
        let mut board = Board::new(order.dir, &image, order.page, order.gateway)?;
        board.power_on()?;
        Ok(Box::new(Emulated { board, thermistor }))
    }
}

/// A board in QEMU.
#[derive(Debug)]
struct Emulated {
    board: Board,
    /// Where the thermistor's counts are in memory.
    thermistor: u64,
}

/// What the board's wiring can feel, kind by kind.
fn can_injure(kind: Kind, injury: Injury) -> Result<(), Not> {
    let fits = match injury {
        Injury::Leak | Injury::Heat => true,
        Injury::Overload | Injury::Weld => kind == Kind::Charger,
        Injury::Stuck => kind != Kind::Dispenser,
        Injury::SilentMeter if kind == Kind::Dispenser => {
            return Err(Not::because(
                "the emulator merges pulses that come faster than water; told on the twin",
            ));
        }
        Injury::SilentMeter => kind == Kind::Charger,
        Injury::OpenDoor => kind == Kind::Washer,
        Injury::Drip | Injury::Dry => kind == Kind::Dispenser,
        Injury::StillMeter => {
            return Err(Not::because(
                "the board takes five minutes to find it; told on the twin",
            ));
        }
    };
    if fits {
        Ok(())
    } else {
        Err(Not(format!("this board has no wire that feels {}", injury.word())))
    }
}

impl Rig for Emulated {
    fn kind_of_rig(&self) -> &'static str {
        "qemu"
    }

    fn kind(&self) -> Kind {
        self.board.kind()
    }

    fn haste(&self) -> u32 {
        1
    }

    fn log(&self) -> &Log {
        self.board.lines()
    }

    fn module(&self) -> &Module {
        self.board.module()
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.board.step()
    }

    fn tap(&mut self, uid: &[u8]) -> anyhow::Result<()> {
        self.board.tap(uid);
        Ok(())
    }

    fn scan(&mut self, line: &str) -> anyhow::Result<()> {
        self.board.scan(line)
    }

    fn press_stop(&mut self) -> anyhow::Result<()> {
        self.board.press_stop()
    }

    fn bring(&mut self, thing: Thing) -> anyhow::Result<()> {
        self.board.world().bring_thing(thing);
        Ok(())
    }

    fn take_away(&mut self) -> anyhow::Result<()> {
        self.board.world().take_away();
        Ok(())
    }

    fn power(&mut self, on: bool) -> anyhow::Result<()> {
        if on {
            self.board.power_on()
        } else {
            self.board.power_off()
        }
    }

    fn injure(&mut self, injury: Injury, is_injured: bool) -> anyhow::Result<()> {
        can_injure(self.kind(), injury)?;
        if injury == Injury::Heat {
            let counts = if is_injured { HOT_COUNTS } else { COOL_COUNTS };
            let thermistor = self.thermistor;
            self.board.pins()?.write(thermistor, counts)?;
        } else {
            self.board.world().injure(injury, is_injured);
        }
        Ok(())
    }

    fn is_on(&mut self) -> anyhow::Result<bool> {
        self.board.is_on()
    }

    fn delivered_milli(&mut self) -> anyhow::Result<u64> {
        Ok(self.board.world().delivered_milli())
    }

    fn is_running(&mut self) -> bool {
        self.board.world().is_running()
    }

    fn missed_milli(&self, delivered_milli: u64) -> u64 {
        match self.board.kind() {
            Kind::Dispenser => delivered_milli / MERGED_PART,
            Kind::Charger | Kind::Washer | Kind::Unknown => 0,
        }
    }

    fn coins(&mut self) -> Option<u32> {
        Some(self.board.world().coins())
    }

    fn cpu_ms(&self) -> anyhow::Result<u64> {
        self.board.cpu_ms()
    }
}
