//! A device as a load generator needs it: MQTT 3.1.1 and real seals, no socket. The same code speaks to the gateway and to
//! the broker that is its peer.

use anyhow::{Context, bail, ensure};
use proto::{
    codec,
    id::{IdToken, SessionId, TokenKind},
    instrument::Instrument,
    message::{Authorize, Grant, Hello, Meter, Receipt, Refusal, Stamp, StartProof, Started, Stop, StopReason},
    money::{Money, Units},
    seal::{Direction, FRAME_BYTES_MAX, SealKey},
    topic::{self, Down, Topic, Up},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    mqtt_wire::{Publish, packet, varint},
    site::DevicePlan,
};

/// CONNACK and SUBACK of one filter, in bytes.
pub(crate) const WELCOME_BYTES: usize = 4 + 5;
const PUBLISH: u8 = 3;
/// QoS 1.
const PUBLISH_FIRST: u8 = 0x32;
const PUBACK: u8 = 0x40;
/// Keep-alive of those that stay idle, in s: longer than anything here lasts.
const KEEP_ALIVE_S: u16 = 3_600;

/// Packets out of a stream, without a copy.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbox {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole packet.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let rest = &self.bytes[self.read..];
        let (len, digits) = varint(rest.get(1..)?)?;
        let end = 1 + digits + len;
        if rest.len() < end {
            return None;
        }
        let from = self.read;
        self.read += end;
        Some(&self.bytes[from..from + end])
    }
}

/// What a device heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Clock,
    Grant(Box<Grant>),
    Receipt(Receipt),
    /// A message that is answered by nothing else.
    Acknowledged,
}

/// A sealed answer, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// On which topic.
    pub topic: Topic,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Seat {
    device: DevicePlan,
    up: SealKey,
    down: SealKey,
    boot: u32,
    counter: u64,
    packet_id: u16,
    sessions: u32,
    session: SessionId,
    /// To be written.
    pub(crate) out: Vec<u8>,
    inbox: Inbox,
    /// Whether the sealed bytes of answers are kept for the peer, and those of the last one.
    keeps: bool,
    kept: Option<Answer>,
    /// The message whose PUBACK is waited for.
    awaited: Option<u16>,
    /// Whether answers have to name the session; those of the peer are canned.
    is_canned: bool,
}

impl Seat {
    /// In its boot of this number.
    pub(crate) fn new(device: &DevicePlan, boot: u32) -> Self {
        Self {
            up: device.secret.key(Direction::Up),
            down: device.secret.key(Direction::Down),
            counter: u64::from(boot) << 32,
            boot,
            packet_id: 0,
            sessions: 0,
            session: SessionId::mint(&device.id, boot, 0),
            device: device.clone(),
            out: Vec::with_capacity(FRAME_BYTES_MAX),
            inbox: Inbox::default(),
            awaited: None,
            keeps: false,
            kept: None,
            is_canned: false,
        }
    }

    /// At a peer whose answers are canned.
    pub(crate) fn canned(self) -> Self {
        Self {
            is_canned: true,
            ..self
        }
    }

    /// The sealed bytes of its answers are wanted.
    pub(crate) fn keeping(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// CONNECT and SUBSCRIBE, to be written first; they are answered by [`WELCOME_BYTES`].
    pub(crate) fn knock(&self) -> Vec<u8> {
        let id = self.device.id.as_str();
        let mut connect = b"\0\x04MQTT\x04\xc2".to_vec();
        connect.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
        for text in [id, id, &self.device.secret.password()] {
            string(&mut connect, text);
        }
        [packet(0x10, &connect), subscribe(&topic::down_filter(&self.device.id))].concat()
    }

    /// Whether it was let in.
    pub(crate) fn check_welcome(welcome: &[u8; WELCOME_BYTES]) -> anyhow::Result<()> {
        ensure!(
            welcome[..4] == [0x20, 2, 0, 0],
            "the device may not connect: {welcome:?}"
        );
        ensure!(welcome[4] == 0x90 && welcome[8] <= 1, "no subscription: {welcome:?}");
        Ok(())
    }

    /// Says hello.
    pub(crate) fn hello(&mut self) {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            kind: self.device.kind,
            outlets: 1,
            boot: self.boot,
            down_counter: 0,
            firmware: "measure".parse().expect("seven characters fit"),
            at: Stamp::relative(1),
        };
        self.say(Up::Hello, &hello);
    }

    /// Asks for a user.
    pub(crate) fn authorize(&mut self, token: &[u8]) -> anyhow::Result<()> {
        self.sessions += 1;
        self.session = SessionId::mint(&self.device.id, self.boot, self.sessions);
        let authorize = Authorize {
            session: self.session,
            outlet: 0,
            token: IdToken::new(TokenKind::Card, token)?,
            units_wished: Units::ZERO,
            register: Units::ZERO,
            at: Stamp::relative(2),
            instrument: Instrument::NONE,
        };
        self.say(Up::Authorize, &authorize);
        Ok(())
    }

    /// The start is proven; answered by PUBACK.
    pub(crate) fn started(&mut self) {
        let started = Started {
            session: self.session,
            outlet: 0,
            register_start: Units::ZERO,
            proof: StartProof::Flow,
            at: Stamp::relative(3),
        };
        self.say(Up::Started, &started);
        self.awaited = Some(self.packet_id);
    }

    /// One unit was drawn; answered by PUBACK.
    pub(crate) fn meter(&mut self) {
        let meter = Meter {
            session: self.session,
            outlet: 0,
            register_start: Units::ZERO,
            register: Units(1),
            power_w: 0,
            elapsed_s: 1,
            idle_s: 0,
            at: Stamp::relative(4),
        };
        self.say(Up::Meter, &meter);
        self.awaited = Some(self.packet_id);
    }

    /// Ends the session; nothing was drawn, or one unit for which nothing was shown.
    pub(crate) fn stop(&mut self, is_started: bool) {
        let stop = Stop {
            session: self.session,
            outlet: 0,
            reason: if is_started {
                StopReason::User
            } else {
                StopReason::NotStarted
            },
            started: is_started,
            register_start: Units::ZERO,
            register_end: Units(is_started.into()),
            elapsed_s: 1,
            idle_s: 0,
            shown: Money::ZERO,
            at: Stamp::relative(5),
        };
        self.say(Up::Stop, &stop);
    }

    /// Seals and frames a message, to be written.
    pub(crate) fn say<T: Serialize>(&mut self, word: Up, message: &T) {
        self.counter += 1;
        self.packet_id = self.packet_id % u16::MAX + 1;
        let topic = topic::up(&self.device.id, word);
        let mut frame = [0; FRAME_BYTES_MAX];
        let len = self
            .up
            .seal(&topic, self.counter, message, &mut frame)
            .expect("a message fits into the largest frame");
        publish_to(&mut self.out, &topic, self.packet_id, &frame[..len]);
    }

    /// Takes what came.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.add(bytes);
    }

    /// The next whole packet that is a message, opened and decoded, and its PUBACK to be written; others are passed over.
    pub(crate) fn hear(&mut self) -> anyhow::Result<Option<Heard>> {
        while let Some(packet) = self.inbox.next() {
            if packet[0] == PUBACK {
                let id = packet.get(2..4).map(|id| u16::from_be_bytes([id[0], id[1]]));
                if self.awaited.is_some() && self.awaited == id {
                    self.awaited = None;
                    return Ok(Some(Heard::Acknowledged));
                }
            }
            if packet[0] >> 4 != PUBLISH {
                continue;
            }
            let publish = Publish::parse(packet, 4).context("a damaged PUBLISH")?;
            if let Some(id) = publish.packet_id {
                let [high, low] = id.to_be_bytes();
                self.out.extend_from_slice(&[PUBACK, 2, high, low]);
            }
            let (_, word) = topic::parse_down(publish.topic).context("a topic that devices do not hear")?;
            let opened = self.down.open(publish.topic, publish.payload, FRAME_BYTES_MAX)?;
            let heard = match word {
                Down::Clock => Heard::Clock,
                Down::Grant => Heard::Grant(Box::new(decode(opened.body)?)),
                Down::Receipt => Heard::Receipt(decode(opened.body)?),
                Down::Refusal => {
                    let refusal: Refusal = decode(opened.body)?;
                    bail!("{} is refused: {}", self.device.id, refusal.reason.word());
                }
                Down::Command | Down::Offer | Down::Piece => bail!("nobody orders anything here: {word:?}"),
            };
            let about = match &heard {
                Heard::Clock | Heard::Acknowledged => self.session,
                Heard::Grant(grant) => grant.session,
                Heard::Receipt(receipt) => receipt.session,
            };
            ensure!(
                self.is_canned || about == self.session,
                "an answer about another session"
            );
            if self.keeps {
                self.kept = Some(Answer {
                    topic: publish.topic.try_into().ok().context("a topic longer than any")?,
                    frame: publish.payload.to_vec(),
                });
            }
            return Ok(Some(heard));
        }
        Ok(None)
    }

    /// The sealed bytes of the last answer.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.kept.clone()
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    Ok(codec::decode(body)?)
}

/// SUBSCRIBE to one filter with QoS 1.
pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    string(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

/// PUBLISH with QoS 1, behind what `out` holds.
pub(crate) fn publish_to(out: &mut Vec<u8>, topic: &str, packet_id: u16, payload: &[u8]) {
    out.push(PUBLISH_FIRST);
    let mut len = 2 + topic.len() + 2 + payload.len();
    loop {
        let digit = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    string(out, topic);
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(payload);
}

pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
