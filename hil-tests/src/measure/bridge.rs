//! The peer of `drain`: a mosquitto that bridges to another one behind a wire that can be cut, by raw clients that count every
//! PUBACK and every message.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    peer::mosquitto,
    seat::{Inbox, WELCOME_BYTES, publish_to, string, subscribe},
};
use crate::{
    mqtt_wire::{Publish, packet},
    process::Process,
    proxy::{Proxy, Weather},
    site::free_port,
};

/// Bytes of a message: what a record of ours takes.
const RECORD_BYTES: usize = 230;
/// Messages that may wait for their PUBACK.
const WINDOW: u64 = 64;
/// A broker that has been silent for so long after link-up has nothing more.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the wire is cut each time ...
pub(super) const CUT: Duration = Duration::from_millis(100);
/// ... and how long it then carries.
pub(super) const CARRY: Duration = Duration::from_millis(150);

/// What a store-and-forward came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forwarded {
    /// Messages that were acknowledged to their sender.
    pub acknowledged: u64,
    /// Of these, never arrived.
    pub lost: u64,
    /// Arrived, or booked, twice.
    pub doubled: u64,
    /// From link-up to the first one.
    pub first: Option<Duration>,
    /// From link-up to the last one.
    pub took: Duration,
    /// Most resident memory of the one that stored, in KiB.
    pub memory_kib: u64,
}

/// How the bridge is set up, and what is done to it.
#[derive(Clone, Copy, Debug)]
pub struct Bridge {
    /// Lines of its configuration.
    pub lines: &'static str,
    /// Messages.
    pub count: u64,
    /// Whether it is killed with SIGKILL during the outage, and started again.
    pub is_killed: bool,
    /// How often the wire is cut while it drains.
    pub flaps: u32,
}

/// Plays it.
///
/// # Errors
/// If anything does not start.
pub fn run(dir: &Path, bridge: Bridge) -> anyhow::Result<Forwarded> {
    std::fs::create_dir_all(dir)?;
    let (_far, far) = mosquitto(dir, "far", "max_queued_messages 0\nmax_inflight_messages 1000\n")?;
    let wire = Proxy::start(far, 1)?;
    wire.set(Weather::Dark);
    let mut listener = client(far, "listener", Some("records/#"))?;
    let near_port = free_port()?;
    let lines = format!(
        "listener {near_port} 127.0.0.1\npersistence true\npersistence_location {}/\n{}connection cloud\n\
         address 127.0.0.1:{}\ntopic records/# out 1\ncleansession false\nrestart_timeout 1 1\n\
         bridge_protocol_version mqttv50\n",
        dir.display(),
        bridge.lines,
        wire.address().port()
    );
    let near = SocketAddr::from(([127, 0, 0, 1], near_port));
    let (mut broker, _) = mosquitto(dir, "near", &lines)?;
    publish(near, bridge.count)?;
    let mut memory_kib = most(&broker);
    if bridge.is_killed {
        broker.kill()?;
        (broker, _) = mosquitto(dir, "near", &lines)?;
    }
    let mut forwarded = std::thread::scope(|scope| {
        wire.set(Weather::Calm);
        let since = Instant::now();
        let flapping = scope.spawn(|| flap(&wire, bridge.flaps));
        let counted = count(&mut listener, bridge.count, since);
        let _ = flapping.join();
        counted
    })?;
    memory_kib = memory_kib.max(most(&broker));
    forwarded.memory_kib = memory_kib;
    Ok(forwarded)
}

/// Cuts the wire so often while something drains through it.
pub(super) fn flap(wire: &Proxy, times: u32) {
    for _ in 0..times {
        // The weather of a wire is an input of this measurement.
        std::thread::sleep(CARRY);
        wire.set(Weather::Dark);
        std::thread::sleep(CUT);
        wire.set(Weather::Calm);
    }
}

fn most(broker: &Process) -> u64 {
    super::proc::Memory::of(broker.pid()).map_or(0, |memory| memory.most)
}

fn client(address: SocketAddr, name: &str, filter: Option<&str>) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut connect = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    string(&mut connect, name);
    stream.write_all(&packet(0x10, &connect))?;
    stream.read_exact(&mut [0; 4])?;
    if let Some(filter) = filter {
        stream.write_all(&subscribe(filter))?;
        stream.read_exact(&mut [0; WELCOME_BYTES - 4])?;
    }
    Ok(stream)
}

/// Publishes so many and waits until every one is acknowledged.
fn publish(near: SocketAddr, count: u64) -> anyhow::Result<()> {
    let mut stream = client(near, "publisher", None)?;
    let (mut inbox, mut out, mut bytes) = (Inbox::default(), Vec::new(), [0; 4_096]);
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < WINDOW {
            let mut payload = sent.to_be_bytes().to_vec();
            payload.resize(RECORD_BYTES, 0x55);
            publish_to(
                &mut out,
                "records/one",
                (sent % u64::from(u16::MAX)) as u16 + 1,
                &payload,
            );
            sent += 1;
        }
        stream.write_all(&out)?;
        out.clear();
        let read = stream.read(&mut bytes)?;
        ensure!(read > 0, "the broker closed the connection after {acknowledged}");
        inbox.add(&bytes[..read]);
        while let Some(packet) = inbox.next() {
            acknowledged += u64::from(packet[0] >> 4 == 4);
        }
    }
    Ok(())
}

/// Counts what arrives until everything has, or nothing comes any more.
fn count(stream: &mut TcpStream, count: u64, since: Instant) -> anyhow::Result<Forwarded> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut seen = vec![false; usize::try_from(count)?];
    let mut result = Forwarded {
        acknowledged: count,
        lost: count,
        ..Forwarded::default()
    };
    let (mut inbox, mut out, mut bytes) = (Inbox::default(), Vec::new(), vec![0; 64 * 1024]);
    while result.lost > 0 {
        let Ok(read) = stream.read(&mut bytes) else { break };
        ensure!(read > 0, "the far broker closed the connection");
        inbox.add(&bytes[..read]);
        while let Some(packet) = inbox.next() {
            let Some(publish) = Publish::parse(packet, 4) else {
                continue;
            };
            if let Some(id) = publish.packet_id {
                let [high, low] = id.to_be_bytes();
                out.extend_from_slice(&[0x40, 2, high, low]);
            }
            let number = publish
                .payload
                .first_chunk()
                .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
            let seen = seen
                .get_mut(usize::try_from(number)?)
                .context("a message that was never published")?;
            result.first.get_or_insert_with(|| since.elapsed());
            if std::mem::replace(seen, true) {
                result.doubled += 1;
            } else {
                result.lost -= 1;
            }
            result.took = since.elapsed();
        }
        stream.write_all(&out)?;
        out.clear();
    }
    Ok(result)
}
