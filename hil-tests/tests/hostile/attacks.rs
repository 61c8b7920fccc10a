//! What hostile peers do, packet by packet. Each attack goes on until its time is up, whatever the gateway does about it.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Instant};

use hil_tests::{mqtt_wire::packet, site::DevicePlan};
use proto::{
    id::{IdToken, SessionId, TokenKind},
    instrument::Instrument,
    message::{Authorize, Stamp},
    money::Units,
    seal::{Direction, OVERHEAD_BYTES},
    topic::{self, Up},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, timeout},
};

/// Bytes of a frame before its body: version and counter.
const HEADER_BYTES: usize = 9;
/// How long an attacker waits for an answer before it goes on, in ms.
const ANSWER_MS: u64 = 200;

/// An attack at work.
pub(crate) struct Attack {
    pub(crate) address: SocketAddr,
    /// Devices of the site whose secrets the attacker knows.
    pub(crate) bad: Vec<DevicePlan>,
    /// One whose secret it does not know.
    pub(crate) good: DevicePlan,
    pub(crate) until: Instant,
    /// So many attacks came before: numbers under seals only rise.
    pub(crate) number: u32,
}

pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Counters of status of which each must rise: what the gateway did about it.
    pub(crate) rises: &'static [&'static str],
    pub(crate) attack: fn(Arc<Attack>) -> Work,
}

macro_rules! case {
    ($name:literal, [$($rises:literal),*], $attack:expr) => {
        Case { name: $name, rises: &[$($rises),*], attack: |a| Box::pin($attack(a)) }
    };
}

/// The table.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("connect flood", ["accepted"], |a| repeat(a, 2, |_, _| Vec::new())),
        case!("half-open TCP, one address", ["over_pending"], |a| hold(
            a,
            3..4,
            400,
            &[]
        )),
        case!("thousands of connections, 20 addresses", ["over_pending"], |a| hold(
            a,
            20..40,
            150,
            &[]
        )),
        case!("half a CONNECT", ["over_pending"], |a| hold(
            a,
            4..5,
            300,
            b"\x10\x40\x00\x04MQ"
        )),
        case!("CONNECT of 256 MB announced", ["violations"], |a| repeat(
            a,
            5,
            |_, _| vec![0x10, 0xff, 0xff, 0xff, 0x7f]
        )),
        case!("giant PUBLISH", ["violations"], |a| pour(a, 0, |a, _| publish(
            &own(&a.bad[0], Up::Meter),
            1,
            1,
            &[7; 60_000]
        ))),
        case!("giant topic", ["violations"], |a| pour(a, 0, |_, _| publish(
            &"t".repeat(4_000),
            1,
            1,
            b"x"
        ))),
        case!("topic of 2,000 levels", ["violations"], |a| pour(a, 0, |_, _| publish(
            &"/".repeat(2_000),
            1,
            1,
            b"x"
        ))),
        case!("wildcard subscriptions", [], |a| pour(a, 0, |_, i| subscribe(
            i,
            ["#", "+/#", "dev/1/+/down/#", "$SYS/#"][usize::from(i) % 4]
        ))),
        case!("foreign topics", ["forbidden"], |a| pour(a, 0, |a, _| publish(
            &own(&a.good, Up::Stop),
            1,
            1,
            b"x"
        ))),
        case!("subscriptions to another's topics", [], |a| pour(a, 0, |a, i| {
            subscribe(i, &topic::down_filter(&a.good.id))
        })),
        case!("will in another's name", ["connects_refused"], |a| repeat(
            a,
            6,
            |a, _| connect(&a.bad[0], None, 60, Some(&topic::presence(&a.good.id)))
        )),
        case!("wills, again and again", ["connects_too_often"], |a| repeat(
            a,
            6,
            |a, _| connect(&a.bad[0], None, 60, Some(&topic::presence(&a.bad[0].id)))
        )),
        case!("retained messages, again and again", ["throttled"], |a| pour(
            a,
            1,
            |a, i| {
                let mut bytes = publish(&topic::presence(&a.bad[1].id), 0, 0, &[i as u8; 1_000]);
                bytes[0] |= 1;
                bytes
            }
        )),
        case!("malformed packets of every kind", ["violations"], |a| repeat(
            a, 7, malformed
        )),
        case!("not MQTT", ["violations"], |a| repeat(a, 8, |_, i| match i % 3 {
            0 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            1 => vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            _ => (0..200).map(|byte| (byte * 7 + i) as u8).collect(),
        })),
        case!("a device that never reads", ["throttled"], never_reads),
        case!("QoS 2, never released", ["throttled"], |a| pour(a, 0, |a, i| publish(
            &own(&a.bad[0], Up::Meter),
            2,
            i.max(1),
            b"x"
        ))),
        case!("packet ids: 0, the same, unknown ones", ["violations"], |a| pour(
            a,
            1,
            |a, i| match i % 4 {
                0 => publish(&own(&a.bad[1], Up::Meter), 2, 7, b"x"),
                1 => packet(0x62, &i.to_be_bytes()),
                2 => packet(0x40, &i.to_be_bytes()),
                _ => publish(&own(&a.bad[1], Up::Meter), 1, u16::from(i % 64 != 63), b"x"),
            }
        )),
        case!("takeover storm", ["connects_too_often"], |a| repeat(a, 9, |a, _| {
            connect(&a.bad[2], None, 60, None)
        })),
        case!("wrong passwords", ["connects_refused"], |a| repeat(a, 10, |a, i| {
            connect(&a.good, Some(&format!("{i:032x}")), 60, None)
        })),
        case!("another's name with one's own password", ["connects_refused"], |a| {
            repeat(a, 10, |a, _| {
                let password = a.bad[0].secret.password();
                connect(&a.good, Some(&password), 60, None)
            })
        }),
        case!("keep-alive of 1 s and silence", ["accepted"], |a| hold_in(a, 3)),
        case!("subscription flood", ["throttled"], |a| pour(a, 3, |a, i| subscribe(
            i,
            &format!("dev/1/{}/down/{i}", a.bad[3].id)
        ))),
        case!("ping flood", ["throttled"], |a| pour(a, 3, |_, _| packet(0xc0, &[]))),
        case!("largest frames at full speed", ["throttled", "messages_dropped"], |a| {
            pour(a, 0, |a, _| publish(&own(&a.bad[0], Up::Meter), 0, 0, &[9; 900]))
        }),
        case!("everything in one write, before CONNACK", ["connects_refused"], |a| {
            repeat(a, 11, |a, _| {
                let ping = packet(0xc0, &[]).repeat(5_000);
                [connect(&a.good, Some("x"), 60, None), ping].concat()
            })
        }),
        case!("MQTT 5 properties and aliases", ["violations"], |a| repeat(
            a, 12, v5_abuse
        )),
        case!("replayed sealed frames", ["throttled"], |a| pour(a, 1, |a, _| {
            let (topic, frame) = authorize(a, 1, 1, 1);
            publish(&topic, 1, 1, &frame)
        })),
        case!("mutated sealed frames", ["messages_dropped"], |a| pour(a, 2, |a, i| {
            let (topic, mut frame) = authorize(a, 2, i, u32::from(i));
            let at = usize::from(i) % frame.len();
            frame[at] ^= 1 << (i % 8);
            publish(&topic, 1, 1, &frame)
        })),
        case!("another device's frames", ["messages_dropped"], |a| pour(
            a,
            2,
            |a, i| {
                let (_, frame) = authorize(a, 3, i, u32::from(i));
                publish(&own(&a.bad[2], Up::Authorize), 1, 1, &frame)
            }
        )),
        case!("CBOR bombs under a right seal", ["messages_dropped"], |a| pour(
            a, 3, bomb
        )),
        case!("a device that asks without end", ["throttled"], |a| pour(
            a,
            3,
            |a, i| {
                let (topic, frame) = authorize(a, 3, i, u32::from(i));
                publish(&topic, 1, i.max(1), &frame)
            }
        )),
    ]
}

fn own(device: &DevicePlan, word: Up) -> String {
    topic::up(&device.id, word).to_string()
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn connect(device: &DevicePlan, password: Option<&str>, keep_alive_s: u16, will: Option<&str>) -> Vec<u8> {
    let id = device.id.as_str().as_bytes();
    let right = device.secret.password();
    let flags = if will.is_some() { 0xe6 } else { 0xc2 };
    let mut body = [
        &b"\0\x04MQTT\x04"[..],
        &[flags],
        &keep_alive_s.to_be_bytes(),
        &field(id),
    ]
    .concat();
    if let Some(topic) = will {
        body.extend([field(topic.as_bytes()), field(&[1; 500])].concat());
    }
    body.extend([field(id), field(password.unwrap_or(&right).as_bytes())].concat());
    packet(0x10, &body)
}

fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = if qos == 0 { &[][..] } else { &id[..] };
    packet(0x30 | qos << 1, &[&field(topic.as_bytes()), id, payload].concat())
}

fn subscribe(id: u16, filter: &str) -> Vec<u8> {
    packet(
        0x82,
        &[&id.max(1).to_be_bytes(), &field(filter.as_bytes())[..], &[1]].concat(),
    )
}

/// An authorize of a bad device, rightly sealed; the highest counter is that of the newest attack.
fn authorize(a: &Attack, bad: usize, number: u16, session: u32) -> (String, Vec<u8>) {
    let device = &a.bad[bad];
    let topic = own(device, Up::Authorize);
    let message = Authorize {
        session: SessionId::mint(&device.id, a.number, session),
        outlet: 0,
        token: IdToken::new(TokenKind::Card, &[4, 9, 9, 9, 9, 9, 9]).unwrap(),
        units_wished: Units::ZERO,
        register: Units::ZERO,
        at: Stamp::relative(1),
        instrument: Instrument::NONE,
    };
    let counter = u64::from(a.number + 1) << 32 | u64::from(number);
    let frame = device.secret.key(Direction::Up).seal_vec(&topic, counter, &message);
    (topic, frame)
}

/// Not the message that belongs there, but rightly sealed: nested deep, or announcing more than there can be.
fn bomb(a: &Attack, i: u16) -> Vec<u8> {
    let device = &a.bad[3];
    let topic = own(device, Up::Authorize);
    let key = device.secret.key(Direction::Up);
    let counter = u64::from(a.number + 1) << 32 | u64::from(i);
    let body: Vec<u8> = match i % 4 {
        0 => vec![0x81; 700],
        1 => vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        2 => vec![0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
        _ => vec![0x5b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff],
    };
    // In place: the body is as it is, without an encoder's help.
    let mut frame = vec![0; body.len() + OVERHEAD_BYTES];
    frame[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(&body);
    key.seal_in_place(&topic, counter, &mut frame, body.len()).unwrap();
    publish(&topic, 1, 1, &frame)
}

fn malformed(a: &Attack, i: usize) -> Vec<u8> {
    let hello = connect(&a.bad[i % 4], None, 60, None);
    let broken: [Vec<u8>; 12] = [
        packet(0x00, &[]),
        packet(0xf0, &[]),
        packet(0x36, &[0, 1, b'a', 0, 1]),
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff],
        packet(0x32, &[0, 200, b'a']),
        packet(0x32, &[0, 2, 0xc3, 0x28, 0, 1]),
        packet(0x80, &[0, 1, 0, 1, b'a', 0]),
        packet(0x82, &[0, 1]),
        packet(0x82, &[0, 1, 0, 1, b'a', 3]),
        packet(0x60, &[0, 1]),
        packet(0x20, &[0, 0]),
        hello.clone(),
    ];
    [hello, broken[i % broken.len()].clone()].concat()
}

fn v5_abuse(a: &Attack, i: usize) -> Vec<u8> {
    let device = &a.bad[i % 4];
    let id = device.id.as_str().as_bytes();
    let password = device.secret.password();
    let body = [
        &b"\0\x04MQTT\x05\xc2\0\x3c\0"[..],
        &field(id),
        &field(id),
        &field(password.as_bytes()),
    ]
    .concat();
    let topic = own(device, Up::Meter);
    let properties: Vec<u8> = match i % 4 {
        0 => vec![0x23, 0xff, 0xff],
        1 => [&[0x26][..], &field(b"k"), &field(b"v")].concat().repeat(18),
        2 => vec![0x23, 0, 0],
        _ => vec![0x01, 0, 0x01, 0],
    };
    let mut publish = field(topic.as_bytes());
    publish.extend([0, 1, properties.len() as u8]);
    publish.extend(properties);
    [packet(0x10, &body), packet(0x32, &publish)].concat()
}

impl Attack {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// A connection from 127.0.0.`host`.
    async fn dial(&self, host: u8) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).ok()?;
        timeout(Duration::from_millis(ANSWER_MS), socket.connect(self.address))
            .await
            .ok()?
            .ok()
    }
}

/// Connects, writes, reads a little, and again.
async fn repeat(a: Arc<Attack>, host: u8, bytes: fn(&Attack, usize) -> Vec<u8>) {
    let mut i = 0;
    while a.goes_on() {
        if let Some(mut stream) = a.dial(host).await {
            let bytes = bytes(&a, i);
            if !bytes.is_empty() && stream.write_all(&bytes).await.is_ok() {
                let mut answer = [0; 256];
                // Up to the close, or a pause.
                while let Ok(Ok(1..)) = timeout(Duration::from_millis(20), stream.read(&mut answer)).await {}
            }
        }
        i += 1;
    }
}

/// Opens connections from several addresses, writes the same few bytes into each, and holds them.
async fn hold(a: Arc<Attack>, hosts: std::ops::Range<u8>, of_each: usize, bytes: &'static [u8]) {
    let mut held = Vec::new();
    for _ in 0..of_each {
        for host in hosts.clone() {
            if !a.goes_on() {
                return;
            }
            if let Some(mut stream) = a.dial(host).await {
                // The gateway may have closed it.
                let _ = stream.write_all(bytes).await;
                held.push(stream);
            }
        }
    }
    tokio::time::sleep_until(a.until.into()).await;
}

/// Logs in and is silent.
async fn hold_in(a: Arc<Attack>, bad: usize) {
    while a.goes_on() {
        let Some(mut stream) = a.dial(13).await else { continue };
        let _ = stream.write_all(&connect(&a.bad[bad], None, 1, None)).await;
        let mut answer = [0; 16];
        while let Ok(Ok(1..)) = timeout(Duration::from_secs(2), stream.read(&mut answer)).await {}
    }
}

/// Logs in and writes packets as fast as they are taken; whatever comes back is thrown away.
async fn pour(a: Arc<Attack>, bad: usize, packet: fn(&Attack, u16) -> Vec<u8>) {
    let mut i = 0_u16;
    while a.goes_on() {
        let Some(mut stream) = a.dial(14).await else { continue };
        if stream.write_all(&connect(&a.bad[bad], None, 60, None)).await.is_err() {
            continue;
        }
        let (mut from, mut to) = stream.split();
        let mut answer = vec![0; 4_096];
        while a.goes_on() {
            i = i.wrapping_add(1);
            let bytes = packet(&a, i);
            tokio::select! {
                biased;
                written = timeout(Duration::from_millis(ANSWER_MS), to.write_all(&bytes)) => match written {
                    Ok(Ok(())) => {}
                    // Cut in the middle of a packet: a new connection.
                    Ok(Err(_)) | Err(_) => break,
                },
                read = from.read(&mut answer) => if !matches!(read, Ok(1..)) { break },
            }
            while let Ok(read) = from.try_read(&mut answer) {
                if read == 0 {
                    break;
                }
            }
        }
    }
}

/// Asks and asks, and takes no answer.
async fn never_reads(a: Arc<Attack>) {
    let Some(mut stream) = a.dial(15).await else { return };
    let _ = stream.write_all(&connect(&a.bad[0], None, 60, None)).await;
    let _ = stream.write_all(&subscribe(1, &topic::down_filter(&a.bad[0].id))).await;
    let mut i = 0;
    while a.goes_on() {
        i += 1;
        let (topic, frame) = authorize(&a, 0, i, u32::from(i));
        let bytes = publish(&topic, 1, i, &frame);
        let written = timeout(Duration::from_millis(ANSWER_MS), stream.write_all(&bytes));
        if matches!(written.await, Ok(Err(_))) {
            return;
        }
    }
}
