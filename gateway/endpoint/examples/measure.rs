//! Measures what an idle connection costs and how long a message takes through the endpoint and back:
//! device PUBLISH -> application -> answer and PUBACK -> device. `cargo run -p mqtt-endpoint --example measure [connections]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Inbound, Limits, Qos};

/// Round trips measured.
const ROUNDS: usize = 20_000;
/// Bytes of the request and of the answer, about those of an authorization.
const PAYLOAD_BYTES: usize = 120;

struct Open;

impl Access for Open {
    fn connect(&self, _: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        Ok(())
    }
    fn may_publish(&self, _: &str, _: &str) -> bool {
        true
    }
    fn may_subscribe(&self, _: &str, _: &str) -> bool {
        true
    }
    fn intercepts(&self, topic: &str) -> bool {
        topic.starts_with("up/")
    }
}

/// A packet whose body is shorter than 128 bytes is not enough here, so the length is written in two bytes.
fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = [(body.len() & 127) as u8 | 128, (body.len() >> 7) as u8];
    [&[first], &length[..], &body].concat()
}

/// A connected client, subscribed to `down/<id>`.
fn client(addr: SocketAddr, id: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let name = [&(id.len() as u16).to_be_bytes(), id.as_bytes()].concat();
    stream.write_all(&packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &name]))?;
    stream.read_exact(&mut [0; 4])?;
    let filter = format!("down/{id}");
    stream.write_all(&packet(
        0x82,
        &[&[0, 1], &(filter.len() as u16).to_be_bytes(), filter.as_bytes(), &[1]],
    ))?;
    stream.read_exact(&mut [0; 5])?;
    Ok(stream)
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn round_trips(addr: SocketAddr) -> std::io::Result<()> {
    let mut stream = client(addr, "timed")?;
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let answer_bytes = packet(0x32, &[b"\0\x0Adown/timed\0\x01", &payload]).len();
    let mut took = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let id = (round % 65_535 + 1) as u16;
        let request = packet(0x32, &[b"\0\x08up/timed", &id.to_be_bytes(), &payload]);
        let began = Instant::now();
        stream.write_all(&request)?;
        let mut received = vec![0; answer_bytes + 4];
        stream.read_exact(&mut received)?;
        took.push(began.elapsed());
        // The answer comes first or second; its packet id lies behind the topic.
        let at = if received[0] == 0x40 { 4 } else { 0 };
        let id = [received[at + 15], received[at + 16]];
        stream.write_all(&[0x40, 2, id[0], id[1]])?;
    }
    took.sort();
    let at = |share: usize| took[took.len() * share / 1000].as_secs_f64() * 1e6;
    println!(
        "request to answer and PUBACK: p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us",
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}

fn main() -> std::io::Result<()> {
    let connections: usize = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(5_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (sender, mut inbound) = tokio::sync::mpsc::channel(1024);
    let endpoint = runtime.block_on(Endpoint::bind(
        ([127, 0, 0, 1], 0).into(),
        // What it can, not what one client may.
        Limits {
            packets_a_second_max: u32::MAX,
            bytes_a_second_max: u32::MAX,
            ..Limits::default()
        },
        Arc::new(Open),
        sender,
    ))?;
    let handle = endpoint.handle();
    // The application is a plain thread, as the engine of a gateway may be.
    std::thread::spawn(move || {
        while let Some(event) = inbound.blocking_recv() {
            if let Inbound::Publish {
                client_id,
                payload,
                ack,
                ..
            } = event
            {
                let _ = handle.publish(&format!("down/{client_id}"), &payload, Qos::AtLeastOnce, false);
                ack.accept();
            }
        }
    });
    let addr = endpoint.local_addr();
    round_trips(addr)?;

    let before = resident();
    let mut idle = Vec::with_capacity(connections);
    for number in 0..connections {
        idle.push(client(addr, &format!("device-{number:06}"))?);
    }
    let each = (resident() - before) / connections as u64;
    println!(
        "{connections} idle connections with a subscription: {each} bytes each (the clients' sockets are in the kernel)"
    );
    round_trips(addr)
}
