//! A TCP socket of embassy-net as the way to the gateway, for boards with a network of their own.

use embassy_net::{IpAddress, IpEndpoint, Stack, dns::DnsQueryType, tcp::TcpSocket};
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorType, Read, Write};
use proto::address::Address;

use crate::transport::Transport;

/// Where a gateway listens whose address nobody gave.
const PORT: u16 = 1883;
/// Bytes of each of the socket's buffers: what the largest frame needs, so that none waits for a window.
pub const BUFFER_BYTES: usize = 2048;
/// Sockets of the stack: this one, one of DHCP, one of DNS.
pub const SOCKETS: usize = 3;
/// How long the peer may take to hear that the old connection is over, in ms. On a cable that is out it never does.
const ABORT_MS: u64 = 200;
/// How long an address may take: a cable that is put in negotiates for 3 s, then DHCP asks.
const CONFIG_S: u64 = 20;
/// How long a name or a connection may take, in s.
const ANSWER_S: u64 = 5;
/// A peer that acknowledges nothing for so long is gone, in s; sooner than MQTT's keep-alive would find out.
const SILENT_S: u64 = 10;
/// How often a silent peer is asked whether it is there, in s.
const KEEP_ALIVE_S: u64 = 4;

/// A MAC address of the local kind, from what tells this chip from all others: 40 bits of FNV-1a.
#[must_use]
pub fn mac_of(uid: &[u8; 12]) -> [u8; 6] {
    const LOCAL: u8 = 0x02;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = uid.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    let [a, b, c, d, e, ..] = (hash ^ hash >> 40).to_le_bytes();
    [LOCAL, a, b, c, d, e]
}

/// A socket, and where it leads.
pub struct Tcp<'a> {
    stack: Stack<'a>,
    socket: TcpSocket<'a>,
    gateway: Option<Address>,
}

impl<'a> Tcp<'a> {
    /// `gateway`: where it listens; none: at port 1883 of the default router, as DHCP names it.
    pub fn new(
        stack: Stack<'a>,
        received: &'a mut [u8; BUFFER_BYTES],
        sent: &'a mut [u8; BUFFER_BYTES],
        gateway: Option<Address>,
    ) -> Self {
        let mut socket = TcpSocket::new(stack, received, sent);
        socket.set_timeout(Some(Duration::from_secs(SILENT_S)));
        socket.set_keep_alive(Some(Duration::from_secs(KEEP_ALIVE_S)));
        // Small requests whose answer somebody stands and waits for.
        socket.set_nagle_enabled(false);
        Self { stack, socket, gateway }
    }

    async fn endpoint(&self) -> Option<IpEndpoint> {
        let Some(gateway) = &self.gateway else {
            let router = self.stack.config_v4()?.gateway?;
            return Some(IpEndpoint::new(IpAddress::Ipv4(router), PORT));
        };
        // An address that is written as numbers is not asked for.
        let found = self.stack.dns_query(gateway.host(), DnsQueryType::A).await.ok()?;
        Some(IpEndpoint::new(*found.first()?, gateway.port().get()))
    }

    async fn connect(&mut self) -> Option<()> {
        with_timeout(Duration::from_secs(CONFIG_S), self.stack.wait_config_up())
            .await
            .ok()?;
        let answer = Duration::from_secs(ANSWER_S);
        let endpoint = with_timeout(answer, self.endpoint()).await.ok()??;
        with_timeout(answer, self.socket.connect(endpoint)).await.ok()?.ok()
    }
}

impl Transport for Tcp<'_> {
    async fn renew(&mut self) -> Result<(), ()> {
        self.socket.abort();
        // Whether the peer hears it or not: what it sends to a port that is no longer open is refused.
        drop(with_timeout(Duration::from_millis(ABORT_MS), self.socket.flush()).await);
        self.connect().await.ok_or(())
    }
}

impl ErrorType for Tcp<'_> {
    type Error = embassy_net::tcp::Error;
}

impl Read for Tcp<'_> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.socket.read(bytes).await
    }
}

impl Write for Tcp<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.socket.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.socket.flush().await
    }
}
