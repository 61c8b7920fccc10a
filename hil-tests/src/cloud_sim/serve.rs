//! A vendor's broker on the wire: one task owns it; connections and the operator's bridge send it what happens.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

use super::{
    Command,
    bridge::Bridge,
    broker::{Conn, FrameDown, Input, Output, Tls, machine::Broker},
    fault::Faults,
    gate::{Clock, Gate, Stream},
};
use crate::mqtt_wire::Splitter;

/// What happened and was not looked at.
const INPUTS_MAX: usize = 1_024;
/// Packets that wait for a connection; a client that does not read more is cut.
const PACKETS_MAX: usize = 4_096;
/// How often the broker is told that time passed.
const TICK: Duration = Duration::from_millis(20);
/// How long a client may take to close after it was told the end.
const CLOSE: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// What others tell the task that owns the broker.
enum Event {
    Opened(Conn, Option<Tls>, mpsc::Sender<Vec<u8>>),
    Packet(Conn, Vec<u8>),
    Gone(Conn),
}

/// What the owner of the broker needs.
pub(crate) struct Served {
    pub(crate) broker: Broker,
    pub(crate) bridge: Bridge,
    pub(crate) down: mpsc::Receiver<FrameDown>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) faults: watch::Receiver<Faults>,
    /// Told how often the faults have changed, once the broker knows.
    pub(crate) taken: watch::Sender<u64>,
    pub(crate) clock: Clock,
}

/// Serves until everybody who could tell it something is gone. Needs a runtime.
pub(crate) fn spawn(gate: Gate, served: Served) {
    let (events, inbox) = mpsc::channel(INPUTS_MAX);
    let packet_bytes_max = served.broker.packet_bytes_max();
    tokio::spawn(own(served, inbox));
    tokio::spawn(async move {
        let mut conn = 0;
        loop {
            let stream = tokio::select! {
                stream = gate.accept() => stream,
                () = events.closed() => return,
            };
            conn += 1;
            tokio::spawn(converse(gate.clone(), stream, conn, packet_bytes_max, events.clone()));
        }
    });
}

async fn own(mut served: Served, mut inbox: mpsc::Receiver<Event>) {
    let mut conns: BTreeMap<Conn, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let input = tokio::select! {
            event = inbox.recv() => match event {
                Some(Event::Opened(conn, tls, packets)) => {
                    conns.insert(conn, packets);
                    Input::Opened { conn, tls }
                }
                Some(Event::Packet(conn, bytes)) => Input::Packet { conn, bytes },
                Some(Event::Gone(conn)) => {
                    conns.remove(&conn);
                    Input::Gone { conn }
                }
                None => return,
            },
            Some(frame) = served.down.recv() => Input::Down(frame),
            Some(command) = served.commands.recv() => Input::Command(command),
            changed = served.faults.changed() => {
                // Whoever started the cloud has dropped it.
                if changed.is_err() {
                    return;
                }
                Input::Faults(served.faults.borrow_and_update().clone())
            }
            _ = tick.tick() => Input::Tick,
        };
        let change = match &input {
            Input::Faults(faults) => Some(faults.change),
            _ => None,
        };
        for output in served.broker.handle(served.clock.now_ms(), Clock::wall_ms(), input) {
            match output {
                Output::Send(conn, bytes) => {
                    let full = conns.get(&conn).is_some_and(|packets| packets.try_send(bytes).is_err());
                    if full {
                        // Its task hears that nobody speaks to it any more, and ends.
                        conns.remove(&conn);
                    }
                }
                Output::Close(conn) => drop(conns.remove(&conn)),
                Output::Up(frame) => served.bridge.up(frame),
                Output::Left(gateway, lane) => served.bridge.left(gateway, lane),
            }
        }
        if let Some(change) = change {
            served.taken.send_replace(change);
        }
    }
}

/// One connection, from its first byte to its last.
async fn converse(gate: Gate, stream: TcpStream, conn: Conn, packet_bytes_max: usize, events: mpsc::Sender<Event>) {
    let Some((stream, tls)) = gate.greet(stream).await else {
        return;
    };
    let (packets, outbox) = mpsc::channel(PACKETS_MAX);
    if events.send(Event::Opened(conn, tls, packets)).await.is_err() {
        return;
    }
    // A broken connection is the client's business.
    let _ = carry(stream, conn, packet_bytes_max, &events, outbox).await;
    let _ = events.send(Event::Gone(conn)).await;
}

async fn carry(
    stream: Box<dyn Stream>,
    conn: Conn,
    packet_bytes_max: usize,
    events: &mpsc::Sender<Event>,
    mut outbox: mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            biased;
            bytes = outbox.recv() => match bytes {
                Some(bytes) => write.write_all(&bytes).await?,
                None => break,
            },
            len = read.read(&mut buffer) => {
                let len = len?;
                if len == 0 {
                    return Ok(());
                }
                splitter.add(&buffer[..len]);
                while let Some(packet) = splitter.next() {
                    // The owner has gone.
                    if events.send(Event::Packet(conn, packet)).await.is_err() {
                        return Ok(());
                    }
                }
                if splitter.coming().is_some_and(|len| len > packet_bytes_max) {
                    return write.shutdown().await;
                }
            }
        }
    }
    write.flush().await?;
    write.shutdown().await?;
    // A socket that is closed with bytes unread is reset, and the client may lose what it was told last.
    let drain = async { while read.read(&mut buffer).await.is_ok_and(|len| len > 0) {} };
    let _ = tokio::time::timeout(CLOSE, drain).await;
    Ok(())
}
