//! Every bound of the endpoint, in one place. Whatever a peer sends, memory stays within what these allow.

/// Connections at once: the largest site in the plan has 10,000 devices, and a fifth of them may still hold a dead one.
pub const CONNECTIONS_MAX: usize = 12_000;
/// Connections at once from one address. Devices behind one router share its address; a thousand of them are a whole campus.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// Connections that have not been let in yet. Each holds its place for `CONNECT_TIMEOUT_MS` at most, and a few kilobytes.
pub const PENDING_MAX: usize = 2_048;
/// As well, from one address: a router whose devices all come back at once, and an eighth of all there are.
pub const PENDING_PER_ADDRESS_MAX: usize = 256;
/// Connections of one client in a minute, which is also how many it may make at once. A device on a bad line comes back every
/// few seconds.
pub const CONNECTS_A_MINUTE_MAX: u32 = 120;
/// Packets of one client in a second, all kinds. A gateway that uploads the backlog of an outage sends a tenth of this.
pub const PACKETS_A_SECOND_MAX: u32 = 2_000;
/// Bytes of one client in a second. As well: twenty batches of the largest size.
pub const BYTES_A_SECOND_MAX: u32 = 8 * 1024 * 1024;
/// Clients whose rates are remembered: every session's, and as many that went a moment ago.
pub const PACES_MAX: usize = 2 * SESSIONS_MAX;
/// Sessions kept, connected or not. Twice the connections, so that replaced devices do not lock out new ones.
pub const SESSIONS_MAX: usize = 24_000;
/// Bytes of one packet in either direction. Device messages are far below 4 KiB; a batch of a gateway fits into this.
pub const PACKET_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of a topic or filter. A topic of the product has under 100.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Levels of a filter. Each level of a stored filter costs a node, and a filter of only slashes would cost 256 of them.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// Bytes of a client identifier.
pub const CLIENT_ID_BYTES_MAX: usize = 128;
/// Subscriptions of one client. A device needs two or three.
pub const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 32;
/// Unacknowledged QoS 1 and 2 messages of one client, in each direction.
pub const INFLIGHT_MAX: u16 = 64;
/// Messages of one client that wait for the application's word. Above all that an MQTT 5 client may have open, and all that
/// libraries for 3.1.1 do.
pub const UNSETTLED_MAX: usize = 1_024;
/// Messages waiting for a connected client beyond those in flight. A client further behind than this is not reading.
pub const OUTBOUND_QUEUE_MAX: usize = 512;
/// Messages kept for a persistent session while its client is away.
pub const OFFLINE_QUEUE_MAX: usize = 256;
/// Bytes (topics, payloads, properties) of the messages that wait for one client, connected or away.
pub const QUEUE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the messages that wait for all clients together, beside each one's share.
pub const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What may wait for a client even if the others have used up `QUEUED_BYTES_MAX`: a few answers, so that deaf clients cannot
/// make a good one deaf.
pub const QUEUE_BYTES_SHARE: usize = 16 * 1024;
/// Retained messages of the whole endpoint.
pub const RETAINED_MAX: usize = 20_000;
/// Bytes of all retained messages together.
pub const RETAINED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// From accept to a complete CONNECT. A serial module at 9600 baud needs a tenth of this.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Longest keep-alive granted to an MQTT 5 client, in seconds: how long a dead connection may hold its place, less a half.
pub const KEEP_ALIVE_S_MAX: u16 = 600;
/// Longest silence of an MQTT 3.1.1 client, in seconds, whatever keep-alive it chose: so long may a dead one that wanted none
/// hold its place. The standard leaves it to the server.
pub const SILENCE_S_MAX: u64 = 24 * 3600;
/// Longest life of a session without its client, in seconds: a week, as long as the oldest list still grants offline.
pub const SESSION_EXPIRY_S_MAX: u32 = 7 * 24 * 3600;
/// How long a client may take no bytes while some wait for it.
pub const WRITE_STALL_MS: u64 = 20_000;

/// The bounds one endpoint works within. `Limits::default()` is the set of constants of this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed on arrival.
    pub connections_max: usize,
    /// Connections at once from one address; one more is closed on arrival.
    pub connections_per_address_max: usize,
    /// Connections that have not been let in yet (TLS handshake, CONNECT); one more is closed on arrival.
    pub pending_max: usize,
    /// The same from one address.
    pub pending_per_address_max: usize,
    /// Connections of one client in a minute; one more is refused with "server unavailable". Counted once its password was right.
    pub connects_a_minute_max: u32,
    /// Packets of one client in a second. Above it, and two seconds' worth at once, the client is read no faster than this.
    pub packets_a_second_max: u32,
    /// Bytes of one client in a second; as well.
    pub bytes_a_second_max: u32,
    /// Sessions kept, connected or not; one more is refused with "server unavailable" or "quota exceeded".
    pub sessions_max: usize,
    /// Bytes of one received packet, fixed header included. A larger one closes the connection before it is read.
    pub packet_bytes_max: u32,
    /// Bytes of a topic or topic filter.
    pub topic_bytes_max: usize,
    /// Levels of a topic filter.
    pub topic_levels_max: usize,
    /// Bytes of a client identifier.
    pub client_id_bytes_max: usize,
    /// Subscriptions of one client; one more is refused in SUBACK.
    pub subscriptions_per_client_max: usize,
    /// Unacknowledged QoS 1 and 2 messages of one client, in each direction (MQTT 5: the receive maximum announced).
    pub inflight_max: u16,
    /// Messages of one client that wait for the application's word; while there are so many, it is not read. A low one keeps a
    /// client that floods the application from making the others wait behind it.
    pub unsettled_max: usize,
    /// Messages waiting for a connected client. One more, and the client is cut as a slow consumer.
    pub outbound_queue_max: usize,
    /// Messages kept for a persistent session whose client is away. One more is refused to its publisher.
    pub offline_queue_max: usize,
    /// Bytes of the messages that wait for one client.
    pub queue_bytes_max: usize,
    /// Bytes of the messages that wait for all clients together; what exceeds a client's share of `QUEUE_BYTES_SHARE` counts.
    pub queued_bytes_max: usize,
    /// Retained messages; one more is delivered but not kept.
    pub retained_max: usize,
    /// Bytes of all retained messages together.
    pub retained_bytes_max: usize,
    /// Milliseconds from accept to a complete CONNECT.
    pub connect_timeout_ms: u64,
    /// Longest keep-alive in seconds for MQTT 5 clients, who are told. MQTT 3.1.1 cannot be told and keeps its own.
    pub keep_alive_s_max: u16,
    /// Seconds of silence after which any client is cut, even one without keep-alive.
    pub silence_s_max: u64,
    /// Longest session expiry in seconds; also the expiry of every MQTT 3.1.1 session with clean_session = 0.
    pub session_expiry_s_max: u32,
    /// Milliseconds a client may take no bytes while some wait for it, before it is cut as a slow consumer.
    pub write_stall_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            pending_max: PENDING_MAX,
            pending_per_address_max: PENDING_PER_ADDRESS_MAX,
            connects_a_minute_max: CONNECTS_A_MINUTE_MAX,
            packets_a_second_max: PACKETS_A_SECOND_MAX,
            bytes_a_second_max: BYTES_A_SECOND_MAX,
            sessions_max: SESSIONS_MAX,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_bytes_max: TOPIC_BYTES_MAX,
            topic_levels_max: TOPIC_LEVELS_MAX,
            client_id_bytes_max: CLIENT_ID_BYTES_MAX,
            subscriptions_per_client_max: SUBSCRIPTIONS_PER_CLIENT_MAX,
            inflight_max: INFLIGHT_MAX,
            unsettled_max: UNSETTLED_MAX,
            outbound_queue_max: OUTBOUND_QUEUE_MAX,
            offline_queue_max: OFFLINE_QUEUE_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            queued_bytes_max: QUEUED_BYTES_MAX,
            retained_max: RETAINED_MAX,
            retained_bytes_max: RETAINED_BYTES_MAX,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            keep_alive_s_max: KEEP_ALIVE_S_MAX,
            silence_s_max: SILENCE_S_MAX,
            session_expiry_s_max: SESSION_EXPIRY_S_MAX,
            write_stall_ms: WRITE_STALL_MS,
        }
    }
}
