//! What goes into a device and what comes out of it. The shell (embassy tasks, or a twin on the host) does the rest.

use proto::{
    id::{AccountId, IdToken, OutletId},
    message::{Fault, RefusalReason, StopReason},
    money::{Money, Units},
    topic::Topic,
};

use crate::stored::Record;

/// Largest frame a device sends, in bytes; the largest message is `redeemed`, with a tariff and an instrument.
pub const UP_FRAME_BYTES_MAX: usize = proto::seal::FRAME_BYTES_MAX;

/// The only time a device knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since this boot; never runs backwards.
    pub mono_ms: u64,
}

/// One look at everything that surrounds an outlet. What the hardware does not have stays at the value that means
/// "in order": plugged, door locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// Cumulative register, kept over power losses by whoever counts: Wh, ml, or cycles finished and running.
    pub register: Units,
    /// Power now, in W.
    pub power_w: u32,
    /// Current now, in mA.
    pub current_ma: u32,
    /// Temperature of the hottest sensor, in degrees Celsius.
    pub temperature_c: i16,
    /// The contactor's sense contact: closed.
    pub relay_closed: bool,
    /// Pulses came in since the last reading.
    pub flowing: bool,
    /// The washer's door is locked.
    pub door_locked: bool,
    /// The washer reports a running programme.
    pub running: bool,
    /// A plug is in the socket.
    pub plugged: bool,
    /// Residual current at a charger, water under a washer or dispenser.
    pub leaking: bool,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A token was presented.
    Token {
        /// Where.
        outlet: OutletId,
        /// Which.
        token: IdToken,
        /// How much the user asks for; zero: no wish.
        units_wished: Units,
    },
    /// A voucher was presented: a QR code or a tag.
    Voucher {
        /// Where.
        outlet: OutletId,
        /// The signed envelope.
        envelope: &'a [u8],
        /// How much the user asks for; zero: no wish.
        units_wished: Units,
    },
    /// An account and its one-time code were typed.
    Code {
        /// Where.
        outlet: OutletId,
        /// Whose.
        account: AccountId,
        /// The digits.
        code: &'a [u8],
        /// How much the user asks for; zero: no wish.
        units_wished: Units,
    },
    /// The stop button was pressed.
    Button {
        /// Where.
        outlet: OutletId,
    },
    /// A reading. Wanted at least every second, more often for water: limits are enforced on readings.
    Sense {
        /// Where.
        outlet: OutletId,
        /// What.
        sense: Sense,
    },
    /// The connection to the broker stands and the filter of `topic::down_filter` is subscribed.
    LinkUp,
    /// The connection is gone.
    LinkDown,
    /// A message arrived.
    Message {
        /// On which topic.
        topic: &'a str,
        /// The sealed frame.
        frame: &'a [u8],
    },
    /// Time passed: at the latest at [`crate::Device::next_deadline`].
    Tick,
}

/// Something to do. The order is part of the contract: an effect is begun only when the one before is complete, a
/// [`Effect::Store`] when its record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one exists at a time, and there is no allocator to box it"
)]
pub enum Effect {
    /// Switch an output.
    Switch {
        /// Which.
        outlet: OutletId,
        /// On or off.
        on: bool,
    },
    /// Store a record under its key, replacing the former one atomically.
    Store(Record),
    /// Publish with QoS 1.
    Publish {
        /// On which topic.
        topic: Topic,
        /// The sealed frame.
        frame: heapless::Vec<u8, UP_FRAME_BYTES_MAX>,
    },
    /// Show something to the user.
    Show {
        /// On whose display.
        outlet: OutletId,
        /// What.
        screen: Screen,
    },
}

/// What the user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Present a token.
    Free,
    /// Waiting for the answer.
    Asking,
    /// No.
    Refused {
        /// Why.
        reason: RefusalReason,
        /// Worth asking again after so many seconds; zero: no.
        retry_after_s: u16,
    },
    /// Not possible now: the device has no reading yet, or too many sessions wait for their receipts.
    Unavailable,
    /// Granted: plug in, close the door and press start, open the tap.
    Begin {
        /// Most money.
        money_max: Money,
        /// Most units.
        units_max: Units,
    },
    /// Delivering.
    Delivering {
        /// So far.
        units: Units,
        /// So far.
        money: Money,
    },
    /// Over.
    Ended {
        /// Why.
        reason: StopReason,
        /// Delivered.
        units: Units,
        /// What it costs.
        money: Money,
    },
    /// The receipt is there.
    Receipt {
        /// What was charged.
        amount: Money,
    },
    /// After a power loss: finding out whether the session goes on.
    Recovering,
    /// Out of order.
    Faulted(Fault),
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use proto::{
        id::{Kind, Name, SessionId, TokenKind},
        instrument::{INSTRUMENT_BYTES_MAX, Instrument},
        message::{Authorize, ClockQuality, FIRMWARE_BYTES_MAX, Hello, Redeemed, Stamp, Stop},
        seal::{Direction, PairSecret},
        tariff::{Dimension, ELEMENTS_MAX, PriceElement, Tariff},
        topic::{self, Up},
    };

    use super::*;

    #[test]
    fn the_largest_messages_fit_a_frame() {
        let at = Stamp {
            mono_ms: u64::MAX,
            wall_s: u64::MAX,
            quality: ClockQuality::Relative,
        };
        let stop = Stop {
            session: SessionId([255; 16]),
            outlet: 255,
            reason: StopReason::Abandoned,
            started: true,
            register_start: Units(u64::MAX),
            register_end: Units(u64::MAX),
            elapsed_s: u32::MAX,
            idle_s: u32::MAX,
            shown: Money(i64::MIN),
            at,
        };
        let authorize = Authorize {
            session: SessionId([255; 16]),
            outlet: 255,
            token: IdToken::new(TokenKind::Keypad, &[255; 32]).unwrap(),
            units_wished: Units(u64::MAX),
            register: Units(u64::MAX),
            at,
            instrument: Instrument::new(&[255; INSTRUMENT_BYTES_MAX]).unwrap(),
        };
        let element = PriceElement {
            dimension: Dimension::Idle,
            price_milli: i64::MAX,
            minute_from: u16::MAX,
            minute_to: u16::MAX,
            power_w_min: u32::MAX,
            power_w_max: u32::MAX,
        };
        let redeemed = Redeemed {
            session: SessionId([255; 16]),
            outlet: 255,
            token: IdToken::new(TokenKind::Keypad, &[255; 32]).unwrap(),
            instrument: Instrument::new(&[255; INSTRUMENT_BYTES_MAX]).unwrap(),
            number: u64::MAX,
            units_max: Units(u64::MAX),
            money_max: Money(i64::MIN),
            duration_max_s: u32::MAX,
            meter_every_s: u16::MAX,
            tariff: Tariff {
                id: u32::MAX,
                start_fee: Money(i64::MIN),
                minimum: Money(i64::MIN),
                cap: Money(i64::MIN),
                elements: core::iter::repeat_n(element, ELEMENTS_MAX).collect(),
            },
            register: Units(u64::MAX),
            at,
        };
        let firmware = String::from("a").repeat(FIRMWARE_BYTES_MAX);
        let hello = Hello {
            version_min: 255,
            version_max: 255,
            kind: Kind::Unknown,
            outlets: 255,
            boot: u32::MAX,
            down_counter: u64::MAX,
            firmware: firmware.as_str().try_into().unwrap(),
            at,
        };
        let key = PairSecret([1; 32]).key(Direction::Up);
        let topic = topic::up(&Name::new("charger-0123456789ab").unwrap(), Up::CommandAnswer);
        let mut frame = [0; UP_FRAME_BYTES_MAX];
        for (word, len) in [
            ("stop", key.seal(&topic, u64::MAX, &stop, &mut frame)),
            ("authorize", key.seal(&topic, u64::MAX, &authorize, &mut frame)),
            ("redeemed", key.seal(&topic, u64::MAX, &redeemed, &mut frame)),
            ("hello", key.seal(&topic, u64::MAX, &hello, &mut frame)),
        ] {
            std::println!("{word}: {len:?} of {UP_FRAME_BYTES_MAX} bytes");
            assert!(len.is_ok_and(|len| len + 32 <= UP_FRAME_BYTES_MAX), "{word}");
        }
    }
}
