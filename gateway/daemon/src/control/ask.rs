//! Asking a running gateway.

use std::path::Path;

use proto::id::DeviceId;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{Query, socket_path};
use crate::files::Attached;

/// Asks a running daemon.
///
/// # Errors
/// If none listens, or it does not answer in JSON.
pub async fn ask(dir: &Path, query: &Query) -> std::io::Result<Value> {
    ask_with(dir, query, &[]).await
}

/// Asks a running daemon to take in a file of artifacts.
///
/// # Errors
/// As [`ask`].
pub async fn import(dir: &Path, file: &Attached) -> std::io::Result<Value> {
    let (name, length) = (file.name.clone(), file.bytes.len() as u64);
    ask_with(dir, &Query::Import { name, length }, &file.bytes).await
}

/// Asks a running daemon to update a device with a signed image.
///
/// # Errors
/// As [`ask`].
pub async fn update(dir: &Path, device: DeviceId, file: &Attached) -> std::io::Result<Value> {
    let (name, length) = (file.name.clone(), file.bytes.len() as u64);
    ask_with(dir, &Query::Update { device, name, length }, &file.bytes).await
}

async fn ask_with(dir: &Path, query: &Query, attached: &[u8]) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket_path(dir)).await?;
    let mut line = serde_json::to_string(query)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    stream.write_all(attached).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(serde_json::from_str(&answer)?)
}
