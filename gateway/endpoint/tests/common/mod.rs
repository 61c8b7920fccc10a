//! A rig with one endpoint and its rules, and a client that writes and reads packets byte by byte, so that the peer shares no
//! code with the endpoint.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part; tests fail by panic"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqtt_endpoint::{
    Access, Ack, ConnectDenied, ConnectRequest, DisconnectReason, Endpoint, Handle, Inbound, Limits, Protocol,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Until when something that must happen has to. Only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Events the application's queue holds unless a test says otherwise.
pub const INBOUND_CAPACITY: usize = 256;

/// Wait for something that must happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The rules of the rig: `up/...` is intercepted, `forbidden/...` may be neither published nor subscribed to, and a user name,
/// if given, decides the verdict on CONNECT.
pub struct Rules;

impl Access for Rules {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        match request.username {
            Some("bad") => Err(ConnectDenied::BadCredentials),
            Some("unauthorized") => Err(ConnectDenied::NotAuthorized),
            Some("id") => Err(ConnectDenied::ClientIdRejected),
            Some("later") => Err(ConnectDenied::Unavailable),
            Some("banned") => Err(ConnectDenied::Banned),
            Some("user") if request.password != Some(b"pw") => Err(ConnectDenied::BadCredentials),
            _ => Ok(()),
        }
    }

    fn may_publish(&self, _: &str, topic: &str) -> bool {
        !topic.starts_with("forbidden/")
    }

    fn may_subscribe(&self, _: &str, filter: &str) -> bool {
        !filter.starts_with("forbidden/")
    }

    fn intercepts(&self, topic: &str) -> bool {
        topic.starts_with("up/")
    }
}

/// An endpoint on a free port and the application's end of its queue.
pub struct Rig {
    pub endpoint: Endpoint,
    pub handle: Handle,
    pub inbound: mpsc::Receiver<Inbound>,
    pub addr: SocketAddr,
}

impl Rig {
    pub async fn new() -> Rig {
        Rig::with(Limits::default(), INBOUND_CAPACITY).await
    }

    pub async fn with(limits: Limits, capacity: usize) -> Rig {
        let (sender, inbound) = mpsc::channel(capacity);
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), limits, Arc::new(Rules), sender)
            .await
            .expect("a free port on loopback");
        Rig {
            handle: endpoint.handle(),
            addr: endpoint.local_addr(),
            endpoint,
            inbound,
        }
    }

    pub async fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.addr).await.expect("the endpoint listens");
        stream.set_nodelay(true).expect("a socket option");
        Raw { stream }
    }

    /// A client on a stream in memory, for tests under paused time, which a socket would not wait for. It holds `bytes` each way.
    pub fn attach(&self, bytes: usize) -> Raw<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(bytes);
        assert!(self.endpoint.attach(theirs, ([127, 0, 0, 1], 1).into()));
        Raw { stream: ours }
    }

    /// The same, connected.
    pub async fn attached(&self, connect: &Connect) -> Raw<DuplexStream> {
        let mut raw = self.attach(64 * 1024);
        raw.send(&connect.bytes()).await;
        raw.accepted(connect.protocol).await;
        raw
    }

    /// A connected client. The `Connected` event stays in the queue.
    pub async fn client(&self, connect: &Connect) -> Raw {
        let mut raw = self.raw().await;
        raw.send(&connect.bytes()).await;
        raw.accepted(connect.protocol).await;
        raw
    }

    /// The next event; fails if there is none.
    pub async fn event(&mut self) -> Inbound {
        soon("an event", self.inbound.recv()).await.expect("the endpoint lives")
    }

    /// The next message, past clients coming and going: its payload and its acknowledgement.
    pub async fn message(&mut self) -> (Vec<u8>, bool, Ack) {
        loop {
            if let Inbound::Publish { payload, dup, ack, .. } = self.event().await {
                return (payload.to_vec(), dup, ack);
            }
        }
    }

    /// Why the next client to leave left, past everything else.
    pub async fn departure(&mut self) -> (String, DisconnectReason) {
        loop {
            if let Inbound::Disconnected { client_id, reason } = self.event().await {
                return (client_id.to_string(), reason);
            }
        }
    }
}

/// A CONNECT to be written out.
#[derive(Clone)]
pub struct Connect {
    pub protocol: Protocol,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub username: Option<&'static str>,
    pub password: Option<&'static str>,
    pub will: Option<(&'static str, &'static str, u8, bool)>,
    pub properties: Vec<u8>,
    pub will_properties: Vec<u8>,
}

pub fn v311(client_id: &str) -> Connect {
    Connect {
        protocol: Protocol::V311,
        client_id: client_id.into(),
        clean: true,
        keep_alive_s: 60,
        username: None,
        password: None,
        will: None,
        properties: Vec::new(),
        will_properties: Vec::new(),
    }
}

pub fn v5(client_id: &str) -> Connect {
    Connect {
        protocol: Protocol::V5,
        ..v311(client_id)
    }
}

pub fn connect(protocol: Protocol, client_id: &str) -> Connect {
    Connect {
        protocol,
        ..v311(client_id)
    }
}

/// A client whose session outlives its connection, in either version.
pub fn persistent(protocol: Protocol, client_id: &str) -> Connect {
    Connect {
        clean: false,
        properties: if protocol == Protocol::V5 {
            vec![0x11, 0, 0, 0x0E, 0x10]
        } else {
            Vec::new()
        },
        ..connect(protocol, client_id)
    }
}

pub const BOTH: [Protocol; 2] = [Protocol::V311, Protocol::V5];

impl Connect {
    pub fn bytes(&self) -> Vec<u8> {
        let five = self.protocol == Protocol::V5;
        let mut flags = u8::from(self.clean) << 1;
        if let Some((_, _, qos, retain)) = self.will {
            flags |= 4 | qos << 3 | u8::from(retain) << 5;
        }
        flags |= u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        let mut body = string("MQTT");
        body.extend([if five { 5 } else { 4 }, flags]);
        body.extend(self.keep_alive_s.to_be_bytes());
        if five {
            body.extend(sized(&self.properties));
        }
        body.extend(string(&self.client_id));
        if let Some((topic, payload, _, _)) = self.will {
            if five {
                body.extend(sized(&self.will_properties));
            }
            body.extend(string(topic));
            body.extend(string(payload));
        }
        body.extend(self.username.into_iter().chain(self.password).flat_map(string));
        packet(0x10, &body)
    }
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { low | 128 } else { low });
        if length == 0 {
            return bytes;
        }
    }
}

/// Bytes with their length before them, as MQTT 5 writes properties.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [length(bytes.len()), bytes.to_vec()].concat()
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], length(body.len()), body.to_vec()].concat()
}

pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const PINGRESP: [u8; 2] = [0xD0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A PUBLISH; `flags` are DUP, QoS and RETAIN as on the wire.
pub fn publish(protocol: Protocol, flags: u8, topic: &str, id: u16, payload: &str) -> Vec<u8> {
    publish_with(protocol, flags, topic, id, payload, &[])
}

pub fn publish_with(protocol: Protocol, flags: u8, topic: &str, id: u16, payload: &str, properties: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if flags & 6 != 0 {
        body.extend(id.to_be_bytes());
    }
    if protocol == Protocol::V5 {
        body.extend(sized(properties));
    }
    body.extend(payload.as_bytes());
    packet(0x30 | flags, &body)
}

pub const QOS0: u8 = 0;
pub const QOS1: u8 = 2;
pub const QOS2: u8 = 4;
pub const DUP: u8 = 8;
pub const RETAIN: u8 = 1;

pub fn subscribe(protocol: Protocol, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_with(protocol, id, filters, &[])
}

pub fn subscribe_with(protocol: Protocol, id: u16, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.extend(sized(properties));
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(protocol: Protocol, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.push(0);
    }
    body.extend(filters.iter().flat_map(|filter| string(filter)));
    packet(0xA2, &body)
}

pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;

/// A received PUBLISH, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub flags: u8,
    pub topic: String,
    pub id: u16,
    pub properties: Vec<u8>,
    pub payload: String,
}

pub struct Raw<S = TcpStream> {
    pub stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is up");
    }

    /// The next packet: first byte and body. `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a packet", self.read()).await
    }

    /// The same, however long it takes: for tests in which time is made to pass.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    pub async fn packet(&mut self) -> (u8, Vec<u8>) {
        self.next().await.expect("a packet, not the end of the connection")
    }

    /// Fails unless the next packet is exactly this.
    pub async fn expect(&mut self, bytes: &[u8]) {
        let (first, body) = self.packet().await;
        assert_eq!(packet(first, &body), bytes);
    }

    /// The CONNACK accepts; returns session present and properties.
    pub async fn accepted(&mut self, protocol: Protocol) -> (bool, Vec<u8>) {
        let (first, body) = self.packet().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK {body:?}");
        let properties = if protocol == Protocol::V5 {
            body[3..].to_vec()
        } else {
            Vec::new()
        };
        (body[0] == 1, properties)
    }

    pub async fn subscribe(&mut self, protocol: Protocol, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(&subscribe(protocol, 77, filters)).await;
        let (first, body) = self.packet().await;
        assert_eq!((first, &body[..2]), (0x90, &[0, 77][..]));
        body[if protocol == Protocol::V5 { 3 } else { 2 }..].to_vec()
    }

    pub async fn publish(&mut self, protocol: Protocol) -> Received {
        let (first, body) = self.packet().await;
        assert_eq!(first & 0xF0, 0x30, "PUBLISH, not {first:#x} {body:?}");
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..topic_end].to_vec()).unwrap();
        let (id, mut at) = if first & 6 == 0 {
            (0, topic_end)
        } else {
            (
                u16::from_be_bytes([body[topic_end], body[topic_end + 1]]),
                topic_end + 2,
            )
        };
        let mut properties = Vec::new();
        if protocol == Protocol::V5 {
            // Property lengths in these tests fit into one byte.
            assert!(body[at] < 128);
            let end = at + 1 + usize::from(body[at]);
            properties = body[at + 1..end].to_vec();
            at = end;
        }
        let payload = String::from_utf8(body[at..].to_vec()).unwrap();
        Received {
            flags: first & 0x0F,
            topic,
            id,
            properties,
            payload,
        }
    }

    /// A PINGREQ is answered by the next packet: nothing else was waiting to be sent.
    pub async fn nothing_before_pingresp(&mut self) {
        self.send(&PINGREQ).await;
        self.expect(&PINGRESP).await;
    }

    /// The connection ends without another packet.
    pub async fn closed(&mut self) {
        if let Some((first, body)) = self.next().await {
            panic!("expected the end, got {first:#x} {body:?}");
        }
    }

    /// The connection ends; an MQTT 5 client is told this first.
    pub async fn closed_with(&mut self, protocol: Protocol, code: u8) {
        if protocol == Protocol::V5 {
            let (first, body) = self.packet().await;
            assert_eq!(
                (first, body.first().copied()),
                (0xE0, Some(code)),
                "DISCONNECT {body:?}"
            );
        }
        self.closed().await;
    }
}
