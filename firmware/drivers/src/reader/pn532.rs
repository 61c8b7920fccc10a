//! PN532 on a UART (its "high speed UART": 115200 baud, 8 data bits, no parity, switches for HSU set).
//!
//! The reader sleeps until it is woken, wants to be told that it is no secure module's front end, and is then asked for
//! a card of type A at 106 kbit/s again and again. Each question is acknowledged, and answered when a card came or a
//! few attempts were in vain, so that a reader that has died is told from a hall without people.
//!
//! The state of the conversation is kept in [`Pn532`], not in the future: a future that was dropped while it waited is
//! gone on with, one that was dropped while it wrote makes the reader be woken anew.
//!
//! The published crate for this chip reads answers of a length known beforehand, leaves finding frames in a stream to its
//! user, waits busily, and begins afresh with every future; hence this one.

pub mod frame;

use embassy_futures::select::{Either, select};
use embedded_hal_async::delay::DelayNs;
use embedded_io_async::{Read, Write};

use super::{Cards, ReaderError, Uid};
use crate::inbox::{Inbox, Missing};
use frame::{ACK, Decoder, FROM_READER, Frame, TO_READER};

/// Tell the reader what it is for.
pub const SAM_CONFIGURATION: u8 = 0x14;
/// Set how often it tries.
pub const RF_CONFIGURATION: u8 = 0x32;
/// Ask for cards.
pub const IN_LIST_PASSIVE_TARGET: u8 = 0x4A;
/// Normal mode: no secure module. No timeout, and no interrupt line.
const SAM_NORMAL: [u8; 4] = [SAM_CONFIGURATION, 0x01, 0x00, 0x00];
/// Item 5: attempts for ATR_REQ and PSL_REQ as they are from the factory, and those to find a card.
const RF_ATTEMPTS: [u8; 5] = [RF_CONFIGURATION, 0x05, 0xFF, 0x01, ATTEMPTS];
/// A question is answered after so many attempts in vain: some tenths of a second.
const ATTEMPTS: u8 = 0x10;
/// One card, 106 kbit/s type A.
const ONE_CARD: [u8; 3] = [IN_LIST_PASSIVE_TARGET, 0x01, 0x00];
/// What wakes the reader: any byte with edges, then time, which zeros give.
const WAKE: [u8; 16] = [0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Acknowledges and answers to settings come within so many ms; the manual says 15 for the former.
const PROMPT_MS: u32 = 100;
/// An answer to [`ONE_CARD`] comes within so many ms, with much to spare.
const ANSWER_MS: u32 = 2_000;

/// Where the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The reader may be asleep, or in the middle of something.
    Unknown,
    /// It waits for a command.
    Ready,
    /// It was asked for a card, and has not acknowledged.
    Asked,
    /// It was asked for a card, and looks for one.
    Looking,
}

/// A PN532 on a UART.
#[derive(Debug)]
pub struct Pn532<U, D> {
    inbox: Inbox<U>,
    delay: D,
    decoder: Decoder,
    stage: Stage,
}

impl<U: Read + Write, D: DelayNs> Pn532<U, D> {
    /// The UART must have 115200 baud, 8 data bits and no parity.
    pub const fn new(uart: U, delay: D) -> Self {
        Self {
            inbox: Inbox::new(uart),
            delay,
            decoder: Decoder::new(FROM_READER),
            stage: Stage::Unknown,
        }
    }

    /// Bytes that belonged to no frame: a measure of the wiring.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.decoder.dropped()
    }

    async fn step(&mut self) -> Result<Option<Uid>, ReaderError> {
        match self.stage {
            Stage::Unknown => {
                self.write(&WAKE).await?;
                // What it was doing, it shall not do any longer.
                self.write(&ACK).await?;
                self.set(&SAM_NORMAL).await?;
                self.set(&RF_ATTEMPTS).await?;
                self.stage = Stage::Ready;
                Ok(None)
            }
            Stage::Ready => {
                // Until all is written.
                self.stage = Stage::Unknown;
                self.command(&ONE_CARD).await?;
                self.stage = Stage::Asked;
                Ok(None)
            }
            Stage::Asked => {
                self.acknowledged().await?;
                self.stage = Stage::Looking;
                Ok(None)
            }
            Stage::Looking => {
                let answer = self.answer(IN_LIST_PASSIVE_TARGET, ANSWER_MS).await?;
                self.stage = Stage::Ready;
                Ok(uid(&answer))
            }
        }
    }

    /// A command whose answer says nothing.
    async fn set(&mut self, payload: &[u8]) -> Result<(), ReaderError> {
        self.command(payload).await?;
        self.acknowledged().await?;
        let code = payload.first().copied().unwrap_or_default();
        self.answer(code, PROMPT_MS).await.map(|_| ())
    }

    async fn command(&mut self, payload: &[u8]) -> Result<(), ReaderError> {
        // Whatever came before answers another question.
        self.inbox.clear();
        self.decoder.clear();
        let frame = frame::encode(TO_READER, payload).ok_or(ReaderError::Rejected)?;
        self.write(&frame).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ReaderError> {
        self.inbox.uart.write_all(bytes).await.map_err(|_| ReaderError::Io)?;
        self.inbox.uart.flush().await.map_err(|_| ReaderError::Io)
    }

    async fn acknowledged(&mut self) -> Result<(), ReaderError> {
        match select(
            acknowledge(&mut self.inbox, &mut self.decoder),
            self.delay.delay_ms(PROMPT_MS),
        )
        .await
        {
            Either::First(result) => result,
            Either::Second(()) => Err(ReaderError::Silent),
        }
    }

    async fn answer(&mut self, code: u8, within_ms: u32) -> Result<frame::Payload, ReaderError> {
        let answer = answer(&mut self.inbox, &mut self.decoder, code);
        match select(answer, self.delay.delay_ms(within_ms)).await {
            Either::First(result) => result,
            Either::Second(()) => Err(ReaderError::Silent),
        }
    }
}

impl<U: Read + Write, D: DelayNs> Cards for Pn532<U, D> {
    async fn next(&mut self) -> Result<Uid, ReaderError> {
        loop {
            match self.step().await {
                Ok(Some(uid)) => return Ok(uid),
                Ok(None) => {}
                Err(error) => {
                    self.stage = Stage::Unknown;
                    return Err(error);
                }
            }
        }
    }
}

async fn acknowledge<U: Read>(inbox: &mut Inbox<U>, decoder: &mut Decoder) -> Result<(), ReaderError> {
    loop {
        match next_frame(inbox, decoder).await? {
            Frame::Ack => return Ok(()),
            Frame::Nack | Frame::Error => return Err(ReaderError::Rejected),
            // The answer to a question before.
            Frame::Data(_) => {}
        }
    }
}

/// What answers a command: its code and one, and what follows that.
async fn answer<U: Read>(inbox: &mut Inbox<U>, decoder: &mut Decoder, code: u8) -> Result<frame::Payload, ReaderError> {
    loop {
        match next_frame(inbox, decoder).await? {
            Frame::Data(payload) if payload.first() == Some(&code.wrapping_add(1)) => return Ok(payload),
            Frame::Data(_) | Frame::Ack => {}
            Frame::Nack | Frame::Error => return Err(ReaderError::Rejected),
        }
    }
}

async fn next_frame<U: Read>(inbox: &mut Inbox<U>, decoder: &mut Decoder) -> Result<Frame, ReaderError> {
    loop {
        if let Some(frame) = decoder.frame() {
            return Ok(frame);
        }
        match inbox.byte().await {
            Ok(byte) => decoder.push(byte),
            Err(Missing::Io(_)) => return Err(ReaderError::Io),
            Err(Missing::Ended) => return Err(ReaderError::Ended),
        }
    }
}

/// The card in an answer to [`IN_LIST_PASSIVE_TARGET`]: code, number of cards, then for the first its number, SENS_RES
/// (2 bytes), SEL_RES, length of the UID, UID.
#[must_use]
pub fn uid(answer: &[u8]) -> Option<Uid> {
    match answer {
        [code, cards, _, _, _, _, len, rest @ ..] if *code == IN_LIST_PASSIVE_TARGET + 1 && *cards > 0 => {
            rest.get(..usize::from(*len)).and_then(Uid::new)
        }
        _ => None,
    }
}

/// What a reader says. For a bench that plays one; it understands commands with a [`Decoder`] for [`TO_READER`].
#[cfg(any(test, feature = "encode"))]
pub mod encode {
    use super::{
        IN_LIST_PASSIVE_TARGET, Uid,
        frame::{self, FROM_READER, FrameBytes, PAYLOAD_BYTES_MAX},
    };

    /// The answer to a command that has no content.
    #[must_use]
    pub fn done(command: u8) -> FrameBytes {
        answer(&[command.wrapping_add(1)])
    }

    /// The answer to [`IN_LIST_PASSIVE_TARGET`]: a card, or none.
    #[must_use]
    pub fn card(uid: Option<&Uid>) -> FrameBytes {
        let mut payload = heapless::Vec::<u8, PAYLOAD_BYTES_MAX>::new();
        // Everything fits: the head has 7 bytes, the UID 10 at most.
        let _ = payload.extend_from_slice(&[IN_LIST_PASSIVE_TARGET + 1, u8::from(uid.is_some())]);
        if let Some(uid) = uid {
            let sens_res = [0x00, [0x04, 0x44, 0x84][usize::from(uid.len) / 3 - 1]];
            let _ = payload.extend_from_slice(&[1, sens_res[0], sens_res[1], 0x08, uid.len]);
            let _ = payload.extend_from_slice(uid.as_bytes());
        }
        answer(&payload)
    }

    fn answer(payload: &[u8]) -> FrameBytes {
        frame::encode(FROM_READER, payload).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
