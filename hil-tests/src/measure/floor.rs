//! What no gateway on this machine can beat: a request crosses loopback, 128 bytes are written to a log and synced, an
//! answer crosses loopback. The log is laid out beforehand, so a sync writes nothing but the data.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Bytes of a request and of an answer: those of a sealed authorize and of a sealed grant with their MQTT headers.
pub const REQUEST_BYTES: usize = 120;
/// As well.
pub const ANSWER_BYTES: usize = 200;
/// Bytes of a log entry.
const ENTRY_BYTES: usize = 128;
/// Bytes of the log; from its end it goes on at its beginning.
const LOG_BYTES: usize = 8 << 20;

/// A server that does that.
#[derive(Debug)]
pub struct Floor {
    stream: TcpStream,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

/// A log whose blocks are all written once.
pub(crate) struct Log {
    file: File,
    at: u64,
}

impl Log {
    /// In this directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("floor.log");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        file.write_all_at(&vec![0; LOG_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Appends and syncs.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn append(&mut self, entry: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(entry, self.at)?;
        self.file.sync_data()?;
        self.at = (self.at + entry.len() as u64) % (LOG_BYTES - entry.len()) as u64;
        Ok(())
    }
}

impl Floor {
    /// With its log in `dir`; `None`: without a log, which leaves the round trip.
    ///
    /// # Errors
    /// If no port or no file can be had.
    pub fn start(dir: Option<&Path>) -> anyhow::Result<Self> {
        let mut log = dir.map(Log::create).transpose()?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let (mut request, answer) = ([0; REQUEST_BYTES], [0x5a; ANSWER_BYTES]);
            while stream.read_exact(&mut request).is_ok() {
                if let Some(log) = &mut log {
                    log.append(&[0xa5; ENTRY_BYTES])?;
                }
                stream.write_all(&answer)?;
            }
            Ok(())
        });
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            server: Some(server),
        })
    }

    /// So many round trips, one after the other.
    ///
    /// # Errors
    /// If the disk or the connection fails.
    pub fn round(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut answer = [0; ANSWER_BYTES];
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let since = Instant::now();
            self.stream.write_all(&[0; REQUEST_BYTES])?;
            self.stream.read_exact(&mut answer)?;
            took.push(since.elapsed());
        }
        Ok(took)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the server met.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both)?;
        if let Some(server) = self.server.take() {
            server.join().map_err(|_| anyhow::anyhow!("the floor panicked"))??;
        }
        Ok(())
    }
}
