//! Reason codes of MQTT 5 and return codes of MQTT 3.1.1, and how our own reasons map to them.

use crate::access::{ConnectDenied, Protocol};
use crate::inbound::{DisconnectReason, Refusal};

pub(crate) const SUCCESS: u8 = 0x00;
pub(crate) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
/// Also the one failure code of a 3.1.1 SUBACK.
pub(crate) const UNSPECIFIED: u8 = 0x80;
pub(crate) const MALFORMED_PACKET: u8 = 0x81;
pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
pub(crate) const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
pub(crate) const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
pub(crate) const CLIENT_ID_NOT_VALID: u8 = 0x85;
pub(crate) const BAD_CREDENTIALS: u8 = 0x86;
pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
pub(crate) const SERVER_UNAVAILABLE: u8 = 0x88;
pub(crate) const BANNED: u8 = 0x8A;
pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
pub(crate) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
pub(crate) const TOPIC_FILTER_INVALID: u8 = 0x8F;
pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(crate) const PACKET_ID_NOT_FOUND: u8 = 0x92;
pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
pub(crate) const ADMINISTRATIVE_ACTION: u8 = 0x98;
pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// CONNACK of 3.1.1: unacceptable protocol version.
pub(crate) const V311_UNACCEPTABLE_PROTOCOL: u8 = 1;

/// The CONNACK code for a refusal.
pub(crate) fn connect_denied(protocol: Protocol, denied: ConnectDenied) -> u8 {
    let (v311, v5) = match denied {
        ConnectDenied::BadCredentials => (4, BAD_CREDENTIALS),
        ConnectDenied::NotAuthorized => (5, NOT_AUTHORIZED),
        ConnectDenied::ClientIdRejected => (2, CLIENT_ID_NOT_VALID),
        ConnectDenied::Unavailable => (3, SERVER_UNAVAILABLE),
        ConnectDenied::Banned => (5, BANNED),
    };
    match protocol {
        Protocol::V311 => v311,
        Protocol::V5 => v5,
    }
}

/// The code of an MQTT 5 PUBACK or PUBREC that refuses.
pub(crate) fn refusal(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Unspecified => UNSPECIFIED,
        Refusal::ImplementationSpecific => IMPLEMENTATION_SPECIFIC,
        Refusal::NotAuthorized => NOT_AUTHORIZED,
        Refusal::TopicNameInvalid => TOPIC_NAME_INVALID,
        Refusal::QuotaExceeded => QUOTA_EXCEEDED,
        Refusal::PayloadFormatInvalid => PAYLOAD_FORMAT_INVALID,
    }
}

/// The code of the DISCONNECT an MQTT 5 client is sent; `None` if there is nobody to tell.
pub(crate) fn disconnect(reason: DisconnectReason) -> Option<u8> {
    match reason {
        DisconnectReason::ByClient | DisconnectReason::ByClientWithWill | DisconnectReason::ConnectionLost => None,
        DisconnectReason::KeepAliveExpired => Some(KEEP_ALIVE_TIMEOUT),
        DisconnectReason::TakenOver => Some(SESSION_TAKEN_OVER),
        DisconnectReason::ProtocolViolation(_) => Some(PROTOCOL_ERROR),
        DisconnectReason::PacketTooLarge => Some(PACKET_TOO_LARGE),
        DisconnectReason::ReceiveMaximumExceeded => Some(RECEIVE_MAXIMUM_EXCEEDED),
        DisconnectReason::SlowConsumer => Some(QUOTA_EXCEEDED),
        DisconnectReason::Forbidden => Some(NOT_AUTHORIZED),
        DisconnectReason::AckDropped => Some(IMPLEMENTATION_SPECIFIC),
        DisconnectReason::Administrative => Some(ADMINISTRATIVE_ACTION),
        DisconnectReason::ShuttingDown => Some(SERVER_SHUTTING_DOWN),
    }
}
