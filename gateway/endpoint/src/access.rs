//! Who may connect, publish and subscribe, and which messages go to the application: asked of the caller, never decided here.

use std::net::SocketAddr;

/// The protocol a client speaks; both are served on one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5 (protocol level 5).
    V5,
}

/// What a client shows when it connects.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    /// The client identifier; made up by the endpoint if the client sent none (see `client_id_assigned`).
    pub client_id: &'a str,
    /// True if the client sent no identifier and the endpoint made one up.
    pub client_id_assigned: bool,
    /// User name, if sent.
    pub username: Option<&'a str>,
    /// Password, if sent.
    pub password: Option<&'a [u8]>,
    /// Protocol version of the connection.
    pub protocol: Protocol,
    /// The name that the client proved before it said anything: that of its TLS certificate. `None` on a plain listener.
    pub identity: Option<&'a str>,
    /// Address of the peer, as given by accept or by whoever attached the stream.
    pub peer: SocketAddr,
}

/// Why a connection is refused. The client is told by the CONNACK code of its protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectDenied {
    /// User name or password is wrong (3.1.1: 4, MQTT 5: 0x86).
    #[error("bad user name or password")]
    BadCredentials,
    /// The client is known but may not connect (3.1.1: 5, MQTT 5: 0x87).
    #[error("not authorized")]
    NotAuthorized,
    /// The client identifier is not acceptable (3.1.1: 2, MQTT 5: 0x85).
    #[error("client identifier rejected")]
    ClientIdRejected,
    /// Not now; the client may try again (3.1.1: 3, MQTT 5: 0x88).
    #[error("server unavailable")]
    Unavailable,
    /// The client is banned (3.1.1: 5, MQTT 5: 0x8A).
    #[error("banned")]
    Banned,
}

/// The caller's rules. Called on the connection's task for every CONNECT, PUBLISH, SUBSCRIBE and will, so it must not block:
/// a table lookup, not a file or a network.
pub trait Access: Send + Sync + 'static {
    /// May this client connect?
    ///
    /// # Errors
    /// The reason, which is sent to the client.
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<(), ConnectDenied>;

    /// May this client publish to this topic (or leave a will for it)? The topic is valid and holds no wildcard.
    fn may_publish(&self, client_id: &str, topic: &str) -> bool;

    /// May this client subscribe to this filter? The filter is valid and may hold wildcards; of a
    /// shared subscription it is what comes behind the share name.
    fn may_subscribe(&self, client_id: &str, filter: &str) -> bool;

    /// True: a message to this topic is handed to the application, which acknowledges it. It is neither routed to
    /// subscribers nor retained. False: it is routed as a broker would and acknowledged at once.
    fn intercepts(&self, topic: &str) -> bool;
}
