//! The transparent serial-to-TCP module between a board and its gateway, at the pace of its UART: the bench's hand on the
//! link. It can be unplugged, and whoever holds it is a man in the middle: PUBLISH packets on their way to the board can
//! be held back, let go, doubled, changed or made up.

use std::{
    collections::VecDeque,
    fmt,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use proto::topic::{self, Down, Up};

use crate::mqtt_wire::{Publish, Splitter, publish, with_payload};

/// 115,200 baud, ten bits a byte.
const BYTES_A_SECOND: u64 = 11_520;
/// Bytes that leave the UART together.
const BURST_BYTES: usize = 64;
/// What every device of ours speaks.
const MQTT_VERSION: u8 = 5;
/// Messages that are kept for being played again.
const SEEN_MAX: usize = 512;

/// A message on its way to a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// The sealed frame.
    pub frame: Vec<u8>,
}

/// What is done to every message on its way down: another frame, or the same (`None`).
pub type Change = Box<dyn Fn(&Message) -> Option<Vec<u8>> + Send>;

/// A module.
#[derive(Debug)]
pub struct Module {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateway: SocketAddr,
    unplugged: AtomicBool,
    ended: AtomicBool,
    /// Connections that the module has made.
    connections: AtomicU64,
    /// The one connection: board and gateway.
    open: Mutex<Option<(TcpStream, TcpStream)>>,
    down: Mutex<Middle>,
}

/// The man in the middle.
#[derive(Default)]
struct Middle {
    to_board: Option<TcpStream>,
    hold: Option<Down>,
    /// Packets that are held back, of the present connection.
    held: Vec<Vec<u8>>,
    /// The last messages that came by on their way down, held back or not, over all connections.
    seen: VecDeque<Message>,
    /// On their way up.
    heard: VecDeque<Message>,
    change: Option<Change>,
}

impl fmt::Debug for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Middle")
            .field("hold", &self.hold)
            .field("held", &self.held.len())
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
}

impl Module {
    /// A module that connects to `gateway` whenever its board is there.
    ///
    /// # Errors
    /// If loopback has no port.
    pub fn start(gateway: SocketAddr) -> std::io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), gateway)
    }

    /// The same at an address of one's own, which a real module connects to.
    ///
    /// # Errors
    /// If the address is taken or not this machine's.
    pub fn listen(address: SocketAddr, gateway: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            gateway,
            unplugged: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            open: Mutex::new(None),
            down: Mutex::default(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for board in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                Shared::join(&serving, board);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the board's UART ends.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it has connected to the gateway.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Pulls the network cable, or puts it back.
    pub fn unplug(&self, unplugged: bool) {
        self.shared.unplugged.store(unplugged, Ordering::Relaxed);
        if unplugged {
            self.shared.cut();
        }
    }

    /// Holds back every message of this topic from now on; `None`: none any more, and what was held back goes on.
    ///
    /// # Errors
    /// If the board is gone.
    pub fn hold(&self, word: Option<Down>) -> anyhow::Result<()> {
        let mut middle = self.shared.middle();
        middle.hold = word;
        if word.is_none() {
            for packet in std::mem::take(&mut middle.held) {
                self.shared.send_to_board(&mut middle, &packet)?;
            }
        }
        Ok(())
    }

    /// How many messages are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.middle().held.len()
    }

    /// Every message of this topic that came by so far, held back or not; the oldest first.
    #[must_use]
    pub fn seen(&self, word: Down) -> Vec<Message> {
        let middle = self.shared.middle();
        let seen = middle
            .seen
            .iter()
            .filter(|message| word_of(&message.topic) == Some(word));
        seen.cloned().collect()
    }

    /// Every message of this topic that the board sent so far; the oldest first.
    #[must_use]
    pub fn heard(&self, word: Up) -> Vec<Message> {
        let middle = self.shared.middle();
        let is = |message: &&Message| topic::parse_up(&message.topic).is_some_and(|(_, found)| found == word);
        middle.heard.iter().filter(is).cloned().collect()
    }

    /// Says something to the board in the gateway's name.
    ///
    /// # Errors
    /// If the board is gone.
    pub fn say(&self, message: &Message) -> anyhow::Result<()> {
        let packet = publish(&message.topic, &message.frame, MQTT_VERSION);
        self.shared.send_to_board(&mut self.shared.middle(), &packet)
    }

    /// Changes every message from now on; `None`: none any more.
    pub fn change(&self, change: Option<Change>) {
        self.shared.middle().change = change;
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.cut();
        // Wakes the listener, which then ends; if nobody listens it has ended already.
        drop(TcpStream::connect(self.address));
    }
}

fn word_of(topic: &str) -> Option<Down> {
    topic::parse_down(topic).map(|(_, word)| word)
}

/// Remembers a message, and forgets the oldest if there are too many.
fn note(messages: &mut VecDeque<Message>, message: Message) {
    if messages.len() == SEEN_MAX {
        messages.pop_front();
    }
    messages.push_back(message);
}

impl Middle {
    /// Looks at a packet on its way down; `None`: it is held back.
    fn pass(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some(publish) = Publish::parse(&packet, MQTT_VERSION) else {
            return Some(packet);
        };
        let message = Message {
            topic: publish.topic.to_owned(),
            frame: publish.payload.to_vec(),
        };
        let changed = self.change.as_ref().and_then(|change| change(&message));
        let changed = changed.and_then(|frame| with_payload(&packet, MQTT_VERSION, &frame));
        let is_held = self.hold.is_some() && word_of(&message.topic) == self.hold;
        note(&mut self.seen, message);
        let packet = changed.unwrap_or(packet);
        if is_held {
            self.held.push(packet);
            return None;
        }
        Some(packet)
    }
}

impl Shared {
    /// At the pace of the UART.
    fn send(&self, to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        let mut free_at = Instant::now();
        for burst in bytes.chunks(BURST_BYTES) {
            // The line is busy for as long as these bytes take.
            free_at += Duration::from_nanos(burst.len() as u64 * 1_000_000_000 / BYTES_A_SECOND);
            thread::sleep(free_at.saturating_duration_since(Instant::now())); // The pace of the UART.
            to.write_all(burst)?;
        }
        Ok(())
    }

    fn send_to_board(&self, middle: &mut Middle, packet: &[u8]) -> anyhow::Result<()> {
        let to_board = middle.to_board.as_mut().context("the board is not connected")?;
        self.send(to_board, packet)?;
        Ok(())
    }

    fn middle(&self) -> MutexGuard<'_, Middle> {
        self.down.lock().expect("nothing panics under this lock")
    }

    fn cut(&self) {
        if let Some((board, gateway)) = self.open.lock().expect("nothing panics under this lock").take() {
            // Either may be closed already.
            drop(board.shutdown(std::net::Shutdown::Both));
            drop(gateway.shutdown(std::net::Shutdown::Both));
        }
    }

    fn join(shared: &Arc<Self>, board: TcpStream) {
        if shared.unplugged.load(Ordering::Relaxed) {
            return;
        }
        let Ok(gateway) = TcpStream::connect_timeout(&shared.gateway, Duration::from_secs(1)) else {
            return;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let pair = || -> std::io::Result<_> {
            board.set_nodelay(true)?;
            gateway.set_nodelay(true)?;
            Ok((
                (board.try_clone()?, gateway.try_clone()?),
                (board.try_clone()?, gateway.try_clone()?),
                (gateway.try_clone()?, board.try_clone()?),
                board.try_clone()?,
            ))
        };
        let Ok((handles, up, down, to_board)) = pair() else {
            return;
        };
        // A line has one other end.
        shared.cut();
        *shared.open.lock().expect("nothing panics under this lock") = Some(handles);
        let mut middle = shared.middle();
        // What was held back was of the connection before: the gateway says it again.
        middle.held.clear();
        middle.to_board = Some(to_board);
        drop(middle);
        let listening = shared.clone();
        thread::spawn(move || pump_up(&listening, up.0, up.1));
        let shared = shared.clone();
        thread::spawn(move || pump_down(&shared, down.0, down.1));
    }
}

/// Hands bytes on at the pace of the UART until either side closes; listens, and changes nothing.
fn pump_up(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut splitter = Splitter::default();
    let mut bytes = [0; BURST_BYTES];
    while let Some(read) = read(&mut from, &mut bytes) {
        splitter.add(&bytes[..read]);
        while let Some(packet) = splitter.next() {
            if let Some(publish) = Publish::parse(&packet, MQTT_VERSION) {
                let (topic, frame) = (publish.topic.to_owned(), publish.payload.to_vec());
                note(&mut shared.middle().heard, Message { topic, frame });
            }
        }
        if shared.send(&mut to, &bytes[..read]).is_err() {
            break;
        }
    }
    close(&from, &to);
}

/// The other way, packet by packet through the hands of the man in the middle.
fn pump_down(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut splitter = Splitter::default();
    let mut bytes = [0; 1024];
    'open: while let Some(read) = read(&mut from, &mut bytes) {
        splitter.add(&bytes[..read]);
        while let Some(packet) = splitter.next() {
            // Locked while it is sent: nothing else gets between the bytes of a packet.
            let mut middle = shared.middle();
            let Some(packet) = middle.pass(packet) else { continue };
            if shared.send(&mut to, &packet).is_err() {
                break 'open;
            }
        }
    }
    close(&from, &to);
}

fn read(from: &mut TcpStream, bytes: &mut [u8]) -> Option<usize> {
    loop {
        match from.read(bytes) {
            Ok(0) => return None,
            Ok(read) => return Some(read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn close(one: &TcpStream, other: &TcpStream) {
    // Either may be closed already.
    drop(one.shutdown(std::net::Shutdown::Both));
    drop(other.shutdown(std::net::Shutdown::Both));
}
