//! A proxy between a client and a broker that forwards whole packets or TLS records, and at one of them misbehaves.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};

/// What the bytes are cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Mqtt,
    Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to broker.
    Up,
    /// Broker to client.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both sides are closed.
    Cut,
    /// The client gets a RST.
    Reset,
    /// Nothing is forwarded any more, in either direction, and nothing closed.
    Stall,
    /// The same, and nothing read either, so that the client's bytes find no way.
    Clog,
    /// One unit arrives with flipped bits.
    Corrupt,
    /// From here on a few bytes at a time.
    Slow,
}

/// What goes wrong, and when: at the unit with this number in this direction.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub direction: Direction,
    pub unit: usize,
}

/// How many units went up and down on the connection before.
pub type Counts = (usize, usize);

pub struct Proxy {
    pub address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that pass at once on a slow line.
const SLOW_BYTES: usize = 16;
/// Between two of them.
const SLOW_TICK: Duration = Duration::from_micros(500);

impl Proxy {
    /// Forwards to the socket of a broker; every connection has the same fault.
    pub async fn new(socket: PathBuf, framing: Framing, fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Mutex::new((0, 0)));
        let counted = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = connect(&socket).await;
                let line = Line {
                    framing,
                    fault,
                    counts: counted.clone(),
                    slow: false,
                };
                tokio::spawn(line.run(client, broker));
            }
        });
        Self { address, counts, task }
    }

    /// A name for the address that certificates can have.
    pub fn host_port(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Of the last connection.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }
}

/// A socket whose backlog is full says so at once.
async fn connect(socket: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("{}: {error}", socket.display()),
        }
    }
}

struct Line {
    framing: Framing,
    fault: Option<Fault>,
    counts: Arc<Mutex<Counts>>,
    slow: bool,
}

impl Line {
    async fn run(mut self, mut client: TcpStream, mut broker: UnixStream) {
        client.set_nodelay(true).unwrap();
        *self.counts.lock().unwrap() = (0, 0);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        loop {
            let (read, direction) = tokio::select! {
                read = client.read_buf(&mut up) => (read, Direction::Up),
                read = broker.read_buf(&mut down) => (read, Direction::Down),
            };
            let waiting = if direction == Direction::Up { &mut up } else { &mut down };
            let is_over = !matches!(read, Ok(bytes) if bytes > 0);
            while let Some(mut unit) = take_unit(self.framing, waiting) {
                match self.at_fault(direction) {
                    Some(Kind::Cut) => return,
                    Some(Kind::Reset) => {
                        client.set_zero_linger().unwrap();
                        return;
                    }
                    Some(Kind::Stall) => {
                        // Until the client gives up.
                        while matches!(client.read(&mut [0; 1024]).await, Ok(bytes) if bytes > 0) {}
                        return;
                    }
                    Some(Kind::Clog) => return std::future::pending().await,
                    Some(Kind::Corrupt) => flip(&mut unit),
                    Some(Kind::Slow) => self.slow = true,
                    None => {}
                }
                let forwarded = match direction {
                    Direction::Up => self.forward(&mut broker, &unit).await,
                    Direction::Down => self.forward(&mut client, &unit).await,
                };
                // Who does not take any more may have said why.
                if forwarded.is_err() {
                    waiting.clear();
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// Counts a unit, and says what is to happen to it.
    fn at_fault(&self, direction: Direction) -> Option<Kind> {
        let mut counts = self.counts.lock().unwrap();
        let count = if direction == Direction::Up {
            &mut counts.0
        } else {
            &mut counts.1
        };
        let unit = *count;
        *count += 1;
        let fault = self.fault?;
        (fault.direction == direction && fault.unit == unit).then_some(fault.kind)
    }

    async fn forward(&self, to: &mut (impl AsyncWriteExt + Unpin), unit: &[u8]) -> std::io::Result<()> {
        if !self.slow {
            return to.write_all(unit).await;
        }
        for few in unit.chunks(SLOW_BYTES) {
            // The pace is the fault, not a way to wait for something.
            tokio::time::sleep(SLOW_TICK).await;
            to.write_all(few).await?;
        }
        Ok(())
    }
}

/// The frame stays whole, so that the damage is in what it holds.
fn flip(unit: &mut [u8]) {
    let last = unit.len() - 1;
    unit[last] ^= 0x55;
    unit[last.midpoint(last.min(5))] ^= 0x2A;
}

/// The first whole unit.
fn take_unit(framing: Framing, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = match framing {
        Framing::Tls => 5 + usize::from(u16::from_be_bytes([*bytes.get(3)?, *bytes.get(4)?])),
        Framing::Mqtt => {
            let mut length = 0;
            let mut at = 1;
            loop {
                let byte = usize::from(*bytes.get(at)?);
                length += (byte & 0x7F) << (7 * (at - 1));
                at += 1;
                if byte & 0x80 == 0 {
                    break at + length;
                }
            }
        }
    };
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}
