//! A device at the level of bytes, for tests against real processes.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub use hil_tests::mqtt_wire::packet;
use hil_tests::site::DevicePlan;
use proto::{
    codec,
    id::{IdToken, SessionId, TokenKind},
    message::{Authorize, Grant, Hello, Receipt, Refusal, Stamp, StartProof, Started, Stop, StopReason},
    money::{Money, Units},
    seal::{Direction, FRAME_BYTES_MAX},
    topic::{self, Down, Topic, Up},
};
use serde::Serialize;

/// How long an answer of a process on this machine may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A device made of bytes: MQTT 3.1.1 by hand, seals by the contract.
pub struct Bytes {
    pub stream: TcpStream,
    device: DevicePlan,
    counter: u64,
    pub packet_id: u16,
}

impl Bytes {
    pub fn connect(address: SocketAddr, device: &DevicePlan, boot: u32) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = device.id.as_str();
        let mut body = vec![0, 4];
        body.extend_from_slice(b"MQTT\x04\xc2\x00\x3c");
        for text in [id, id, &device.secret.password()] {
            body.extend_from_slice(&(text.len() as u16).to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        stream.write_all(&packet(0x10, &body)).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0], "the device may connect");
        let mut bytes = Self {
            stream,
            device: device.clone(),
            counter: u64::from(boot) << 32,
            packet_id: 0,
        };
        let filter = topic::down_filter(&device.id);
        let mut body = vec![0, 1];
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.push(1);
        bytes.stream.write_all(&packet(0x82, &body)).unwrap();
        assert_eq!(bytes.read_packet().0 >> 4, 9, "SUBACK");
        bytes
    }

    pub fn read_packet(&mut self) -> (u8, Vec<u8>) {
        let mut first = [0; 1];
        self.stream.read_exact(&mut first).unwrap();
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let mut digit = [0; 1];
            self.stream.read_exact(&mut digit).unwrap();
            len |= usize::from(digit[0] & 0x7f) << shift;
            shift += 7;
            if digit[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).unwrap();
        (first[0], body)
    }

    /// Publishes bytes with QoS 1 and waits for the PUBACK; messages that come before it are kept.
    pub fn publish_raw(&mut self, topic: &str, payload: &[u8]) -> Vec<(String, Vec<u8>)> {
        self.packet_id += 1;
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&self.packet_id.to_be_bytes());
        body.extend_from_slice(payload);
        self.stream.write_all(&packet(0x32, &body)).unwrap();
        let mut heard = Vec::new();
        loop {
            let (first, body) = self.read_packet();
            match first >> 4 {
                4 => return heard,
                3 => heard.push(self.take(first, &body)),
                kind => panic!("unexpected packet {kind}"),
            }
        }
    }

    pub fn take(&mut self, first: u8, body: &[u8]) -> (String, Vec<u8>) {
        let len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + len].to_vec()).unwrap();
        let mut rest = &body[2 + len..];
        if first & 0b110 != 0 {
            self.stream.write_all(&packet(0x40, &rest[..2])).unwrap();
            rest = &rest[2..];
        }
        (topic, rest.to_vec())
    }

    pub fn seal<T: Serialize>(&mut self, word: Up, message: &T) -> (Topic, Vec<u8>) {
        self.counter += 1;
        let topic = topic::up(&self.device.id, word);
        let frame = self
            .device
            .secret
            .key(Direction::Up)
            .seal_vec(&topic, self.counter, message);
        (topic, frame)
    }

    pub fn say<T: Serialize>(&mut self, word: Up, message: &T) -> Vec<(String, Vec<u8>)> {
        let (topic, frame) = self.seal(word, message);
        self.publish_raw(&topic, &frame)
    }

    /// Waits for one message, unseals and decodes it.
    pub fn hear<T: for<'a> serde::Deserialize<'a>>(&mut self, word: Down, mut heard: Vec<(String, Vec<u8>)>) -> T {
        let wanted = topic::down(&self.device.id, word);
        loop {
            if let Some(at) = heard.iter().position(|(topic, _)| *topic == wanted.as_str()) {
                let key = self.device.secret.key(Direction::Down);
                let (topic, frame) = &heard[at];
                return codec::decode(key.open(topic, frame, FRAME_BYTES_MAX).unwrap().body).unwrap();
            }
            let (first, body) = self.read_packet();
            assert_eq!(first >> 4, 3, "a PUBLISH");
            heard.push(self.take(first, &body));
        }
    }

    /// Asks for a user who is refused.
    pub fn refused(&mut self, number: u32, token: &[u8]) {
        let hello = self.hello();
        self.say(Up::Hello, &hello);
        let authorize = Authorize {
            session: SessionId::mint(&self.device.id, hello.boot, number),
            outlet: 0,
            token: IdToken::new(TokenKind::Card, token).unwrap(),
            units_wished: Units::ZERO,
            register: Units::ZERO,
            at: Stamp::relative(2),
            instrument: proto::instrument::Instrument::NONE,
        };
        let heard = self.say(Up::Authorize, &authorize);
        let refusal: Refusal = self.hear(Down::Refusal, heard);
        assert_eq!(refusal.session, authorize.session);
    }

    fn hello(&self) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            kind: self.device.kind,
            outlets: 1,
            boot: (self.counter >> 32) as u32,
            down_counter: 0,
            firmware: "bytes".parse().unwrap(),
            at: Stamp::relative(1),
        }
    }

    /// A whole session of a user; what the receipt says.
    pub fn session(&mut self, number: u32, token: &[u8]) -> Receipt {
        self.granted_session(number, token).1
    }

    /// A whole session of a user; what it was granted, and what the receipt says.
    pub fn granted_session(&mut self, number: u32, token: &[u8]) -> (Grant, Receipt) {
        let hello = self.hello();
        self.say(Up::Hello, &hello);
        let grant = self.begin(number, token);
        let receipt = self.end(number);
        (grant, receipt)
    }

    /// A session begins and stays open.
    pub fn begin(&mut self, number: u32, token: &[u8]) -> Grant {
        let hello = self.hello();
        let session = SessionId::mint(&self.device.id, hello.boot, number);
        let start = Units(u64::from(number) * 1_000);
        let token = IdToken::new(TokenKind::Card, token).unwrap();
        let authorize = Authorize {
            session,
            outlet: 0,
            token,
            units_wished: Units::ZERO,
            register: start,
            at: Stamp::relative(2),
            instrument: proto::instrument::Instrument::NONE,
        };
        let heard = self.say(Up::Authorize, &authorize);
        let grant: Grant = self.hear(Down::Grant, heard);
        assert_eq!(grant.session, session);
        let at = Stamp::relative(3);
        let started = Started {
            session,
            outlet: 0,
            register_start: start,
            proof: StartProof::Flow,
            at,
        };
        self.say(Up::Started, &started);
        grant
    }

    /// A session ends that began with this number.
    pub fn end(&mut self, number: u32) -> Receipt {
        let session = SessionId::mint(&self.device.id, self.hello().boot, number);
        let start = Units(u64::from(number) * 1_000);
        let at = Stamp::relative(3);
        let stop = Stop {
            session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: start,
            register_end: Units(start.0 + 500),
            elapsed_s: 5,
            idle_s: 0,
            shown: Money(15),
            at,
        };
        let heard = self.say(Up::Stop, &stop);
        self.hear(Down::Receipt, heard)
    }
}
