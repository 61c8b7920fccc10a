//! A plain broker on the endpoint, for interoperability suites: `cargo run -p mqtt-endpoint --example serve [address:port]`
//! Everybody may do everything, except subscribe to `test/nosubscribe`; nothing is intercepted.

use std::net::SocketAddr;
use std::sync::Arc;

use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Limits};

struct Open;

impl Access for Open {
    fn connect(&self, _: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        Ok(())
    }
    fn may_publish(&self, _: &str, _: &str) -> bool {
        true
    }
    fn may_subscribe(&self, _: &str, filter: &str) -> bool {
        filter != "test/nosubscribe"
    }
    fn intercepts(&self, _: &str) -> bool {
        false
    }
}

// One thread, so that packets of different clients are handled in the order in which they arrive, as suites expect.
#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let addr: SocketAddr = match std::env::args().nth(1).map(|addr| addr.parse()) {
        Some(Ok(addr)) => addr,
        Some(Err(error)) => return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)),
        None => ([127, 0, 0, 1], 1883).into(),
    };
    let limits = Limits {
        packet_bytes_max: 1024 * 1024,
        keep_alive_s_max: 60,
        ..Limits::default()
    };
    let (sender, mut inbound) = tokio::sync::mpsc::channel(1024);
    let endpoint = Endpoint::bind(addr, limits, Arc::new(Open), sender).await?;
    println!("serving on {}", endpoint.local_addr());
    while let Some(event) = inbound.recv().await {
        println!("{event:?}");
    }
    Ok(())
}
