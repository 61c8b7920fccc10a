//! A serial line between a board and a chip that the bench plays. What is written while the board has no power is lost,
//! as on a desk.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::Context;

/// How often a chip that waits for something looks, in ms.
const LOOK_MS: u64 = 5;

/// A chip at the end of a line.
pub trait Chip: Send + 'static {
    /// The board was switched on.
    fn reset(&mut self) {}
    /// A byte of the board; what is pushed to `answer` is sent.
    fn hear(&mut self, byte: u8, answer: &mut Vec<u8>);
    /// Time passed.
    fn look(&mut self, _answer: &mut Vec<u8>) {}
}

/// Nobody answers.
#[derive(Debug)]
pub struct Deaf;

impl Chip for Deaf {
    fn hear(&mut self, _: u8, _: &mut Vec<u8>) {}
}

/// A line.
#[derive(Debug)]
pub struct Line {
    path: PathBuf,
    stream: Arc<Mutex<Option<UnixStream>>>,
}

impl Line {
    /// A line with a chip.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(path: PathBuf, mut chip: impl Chip) -> anyhow::Result<Self> {
        let listener = listen(&path)?;
        let stream: Arc<Mutex<Option<UnixStream>>> = Arc::default();
        let latest = stream.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(handle) = stream.try_clone() else { continue };
                *latest.lock().expect("nothing panics under this lock") = Some(handle);
                chip.reset();
                // It ends when the board loses its power.
                drop(serve(stream, &mut chip));
            }
        });
        Ok(Self { path, stream })
    }

    /// As QEMU is told.
    #[must_use]
    pub fn chardev(&self, id: &str) -> String {
        format!("socket,id={id},path={}", self.path.display())
    }

    /// Sends bytes to the board.
    ///
    /// # Errors
    /// If it has no power.
    pub fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.stream.lock().expect("nothing panics under this lock");
        let stream = stream.as_mut().context("the board has no power")?;
        Ok(stream.write_all(bytes)?)
    }
}

fn serve(mut stream: UnixStream, chip: &mut impl Chip) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(LOOK_MS)))?;
    let mut bytes = [0; 256];
    loop {
        let mut answer = Vec::new();
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => bytes[..read].iter().for_each(|byte| chip.hear(*byte, &mut answer)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        chip.look(&mut answer);
        if !answer.is_empty() {
            stream.write_all(&answer)?;
        }
    }
}

/// A socket that QEMU connects to.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    // Left over from a board of the same name.
    drop(std::fs::remove_file(path));
    UnixListener::bind(path).with_context(|| path.display().to_string())
}
