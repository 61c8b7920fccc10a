//! The transparent serial-to-TCP module between a board and its gateway, at the pace of its UART. It can be unplugged.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// 115,200 baud, ten bits a byte.
const BYTES_A_SECOND: u64 = 11_520;
/// Bytes that leave the UART together.
const BURST_BYTES: usize = 64;

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
    /// How many times as fast as its baud rate the line is.
    times: AtomicU64,
    /// Connections that the module has made.
    connections: AtomicU64,
    /// The one connection: board and gateway.
    open: Mutex<Option<(TcpStream, TcpStream)>>,
}

impl Module {
    /// A module that connects to `gateway` whenever its board is there.
    ///
    /// # Errors
    /// If loopback has no port.
    pub fn start(gateway: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            gateway,
            unplugged: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            times: AtomicU64::new(1),
            connections: AtomicU64::new(0),
            open: Mutex::new(None),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for board in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                serving.join(board);
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

    /// Makes the line so many times as fast as its baud rate, for what takes long and is not about it.
    pub fn hurry(&self, times: u64) {
        self.shared.times.store(times.max(1), Ordering::Relaxed);
    }

    /// Pulls the network cable, or puts it back.
    pub fn unplug(&self, unplugged: bool) {
        self.shared.unplugged.store(unplugged, Ordering::Relaxed);
        if unplugged {
            self.shared.cut();
        }
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

impl Shared {
    fn cut(&self) {
        if let Some((board, gateway)) = self.open.lock().expect("nothing panics under this lock").take() {
            // Either may be closed already.
            drop(board.shutdown(std::net::Shutdown::Both));
            drop(gateway.shutdown(std::net::Shutdown::Both));
        }
    }

    fn join(self: &Arc<Self>, board: TcpStream) {
        if self.unplugged.load(Ordering::Relaxed) {
            return;
        }
        let Ok(gateway) = TcpStream::connect_timeout(&self.gateway, Duration::from_secs(1)) else {
            return;
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        let pair = || -> std::io::Result<_> {
            board.set_nodelay(true)?;
            gateway.set_nodelay(true)?;
            Ok((
                (board.try_clone()?, gateway.try_clone()?),
                (board.try_clone()?, gateway.try_clone()?),
                (gateway.try_clone()?, board.try_clone()?),
            ))
        };
        let Ok((handles, up, down)) = pair() else { return };
        // A line has one other end.
        self.cut();
        *self.open.lock().expect("nothing panics under this lock") = Some(handles);
        let (one, other) = (self.clone(), self.clone());
        thread::spawn(move || pump(&one, up.0, up.1));
        thread::spawn(move || pump(&other, down.0, down.1));
    }
}

/// Hands bytes on at the pace of the UART until either side closes.
fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; BURST_BYTES];
    let mut free_at = Instant::now();
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // The line is busy for as long as these bytes take.
        let pace = BYTES_A_SECOND * shared.times.load(Ordering::Relaxed);
        free_at = free_at.max(Instant::now()) + Duration::from_nanos(read as u64 * 1_000_000_000 / pace);
        thread::sleep(free_at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    drop(from.shutdown(std::net::Shutdown::Both));
    drop(to.shutdown(std::net::Shutdown::Both));
}
