//! mosquitto as devices would use it without us: it routes a request to a responder and the answer back. The responder
//! does nothing but answer, with what the gateway answered before; nothing is written to a disk, nothing is decided.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread::JoinHandle,
};

use anyhow::{Context, ensure};
use proto::topic::{self, Down, Topic, Up};

use super::seat::{Answer, Inbox, WELCOME_BYTES, publish_to, string, subscribe};
use crate::{
    mqtt_wire::{Publish, packet},
    process::Process,
    site::free_port,
};

/// Bytes that the responder reads at once.
const READ_BYTES: usize = 64 * 1024;

/// A mosquitto with these lines behind its address, TCP_NODELAY on.
///
/// # Errors
/// If it is not installed or does not come up.
pub fn mosquitto(dir: &Path, name: &'static str, lines: &str) -> anyhow::Result<(Process, SocketAddr)> {
    let port = free_port()?;
    let file = dir.join(format!("{name}.conf"));
    fs::write(
        &file,
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\nlog_dest stderr\n\
             log_type error\nlog_type notice\nlog_type information\nconnection_messages false\n{lines}"
        ),
    )?;
    let program = ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|program| Command::new(program).arg("-h").output().is_ok())
        .context("mosquitto is not installed; type: apt-get install mosquitto")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    let process = Process::start(name, command, &dir.join(format!("{name}.log")))?;
    process.wait_for("running")?;
    Ok((process, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// What the responder says: to each message of a device the answer that it gets.
pub type Answers = HashMap<Topic, Answer>;

/// Adds what a device hears when it says these two.
pub fn teach(answers: &mut Answers, device: &proto::id::DeviceId, heard: [(Up, Down, Vec<u8>); 2]) {
    for (word, answer, frame) in heard {
        let topic = topic::down(device, answer);
        answers.insert(topic::up(device, word), Answer { topic, frame });
    }
}

/// The broker with its responder.
#[derive(Debug)]
pub struct Peer {
    /// The broker.
    pub broker: Process,
    /// Where devices connect.
    pub address: SocketAddr,
    stream: TcpStream,
    responder: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Peer {
    /// With these answers.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(dir: &Path, answers: Answers) -> anyhow::Result<Self> {
        let lines = "max_inflight_messages 1000\nmax_queued_messages 0\n";
        let (broker, address) = mosquitto(dir, "mosquitto", lines)?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut connect = b"\0\x04MQTT\x04\x02\0\0".to_vec();
        string(&mut connect, "responder");
        stream.write_all(&[packet(0x10, &connect), subscribe(&topic::up_filter())].concat())?;
        let mut welcome = [0; WELCOME_BYTES];
        stream.read_exact(&mut welcome)?;
        ensure!(welcome[0] == 0x20 && welcome[4] == 0x90, "the responder is not let in");
        let mut responding = stream.try_clone()?;
        let responder = std::thread::spawn(move || respond(&mut responding, &answers));
        Ok(Self {
            broker,
            address,
            stream,
            responder: Some(responder),
        })
    }

    /// Ends both.
    ///
    /// # Errors
    /// What the responder met.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both)?;
        if let Some(responder) = self.responder.take() {
            responder
                .join()
                .map_err(|_| anyhow::anyhow!("the responder panicked"))??;
        }
        Ok(())
    }
}

/// As fast as it can be done: everything that came is answered in one write.
fn respond(stream: &mut TcpStream, answers: &Answers) -> anyhow::Result<()> {
    let (mut inbox, mut out, mut bytes) = (Inbox::default(), Vec::new(), vec![0; READ_BYTES]);
    let mut packet_id = 0_u16;
    loop {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        inbox.add(&bytes[..read]);
        while let Some(packet) = inbox.next() {
            let Some(publish) = Publish::parse(packet, 4) else {
                continue;
            };
            if let Some(id) = publish.packet_id {
                let [high, low] = id.to_be_bytes();
                out.extend_from_slice(&[0x40, 2, high, low]);
            }
            let topic: Topic = publish.topic.try_into().ok().context("a topic longer than any")?;
            let answer = answers.get(&topic).with_context(|| format!("nobody answers {topic}"))?;
            packet_id = packet_id % u16::MAX + 1;
            publish_to(&mut out, &answer.topic, packet_id, &answer.frame);
        }
        stream.write_all(&out)?;
        out.clear();
    }
}
