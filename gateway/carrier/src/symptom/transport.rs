//! What failures below the protocol mean: sockets, names, TLS.

use std::{error::Error as StdError, io};

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

use super::{Class, Symptom};

/// A socket's failure, or TLS's in one.
#[must_use]
pub fn io(error: &io::Error) -> Symptom {
    if let Some(found) = tls_inside(error) {
        return tls(found);
    }
    let class = match error.kind() {
        // What we asked for makes no sense, for example an address that is none.
        io::ErrorKind::InvalidInput => Class::Protocol,
        // Refused, reset, unreachable, timed out, a name that does not resolve: no way there.
        _ => Class::Partition,
    };
    Symptom::new(class, 0, error.to_string())
}

/// TLS wraps its errors in those of sockets, some layers deep.
fn tls_inside(error: &io::Error) -> Option<&TlsError> {
    let mut inner: &(dyn StdError + 'static) = error.get_ref()?;
    loop {
        if let Some(found) = inner.downcast_ref::<TlsError>() {
            return Some(found);
        }
        inner = match inner.downcast_ref::<io::Error>() {
            Some(nested) => nested.get_ref()?,
            None => inner.source()?,
        };
    }
}

/// A failure of TLS.
#[must_use]
pub fn tls(error: &TlsError) -> Symptom {
    let class = match error {
        TlsError::InvalidCertificate(why) => certificate(why),
        TlsError::AlertReceived(alert) => received(*alert),
        // Plain text where TLS should be: the page of a portal.
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Class::Intercepted,
        TlsError::NoCertificatesPresented => Class::Intercepted,
        TlsError::PeerIncompatible(_)
        | TlsError::NoApplicationProtocol
        | TlsError::InconsistentKeys(_)
        | TlsError::UnsupportedNameType
        | TlsError::BadMaxFragmentSize => Class::Protocol,
        TlsError::FailedToGetCurrentTime => Class::Clock,
        // Records that do not decrypt or do not parse: a damaged line, or nobody we can speak with.
        _ => Class::Partition,
    };
    Symptom::new(class, 0, format!("TLS: {error}"))
}

/// What is wrong with the certificate of who answers.
fn certificate(why: &CertificateError) -> Class {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Class::Clock,
        // A foreign issuer, another name, a forged signature.
        _ => Class::Intercepted,
    }
}

/// What the other side did not like.
const fn received(alert: AlertDescription) -> Class {
    match alert {
        AlertDescription::CertificateRevoked
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::UnknownCA
        // TLS 1.2 has no other word for a client certificate that is missing.
        | AlertDescription::HandshakeFailure => Class::Denied,
        AlertDescription::CertificateExpired => Class::Clock,
        AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::InappropriateFallback
        | AlertDescription::UnrecognisedName
        | AlertDescription::NoApplicationProtocol
        | AlertDescription::MissingExtension
        | AlertDescription::UnsupportedExtension => Class::Protocol,
        // An error of its own, or a damaged line.
        _ => Class::Partition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets() {
        for (kind, class) in [
            (io::ErrorKind::ConnectionRefused, Class::Partition),
            (io::ErrorKind::ConnectionReset, Class::Partition),
            (io::ErrorKind::TimedOut, Class::Partition),
            (io::ErrorKind::NetworkUnreachable, Class::Partition),
            (io::ErrorKind::HostUnreachable, Class::Partition),
            (io::ErrorKind::UnexpectedEof, Class::Partition),
            (io::ErrorKind::InvalidInput, Class::Protocol),
        ] {
            assert_eq!(io(&kind.into()).class, class, "{kind:?}");
        }
        // What getaddrinfo says has no kind of its own.
        let unresolved = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(io(&unresolved).class, Class::Partition);
    }

    #[test]
    fn tls_through_layers_of_sockets() {
        use CertificateError as C;
        let check = |error: TlsError, class: Class| {
            let once = io::Error::new(io::ErrorKind::InvalidData, error.clone());
            let twice = io::Error::new(io::ErrorKind::InvalidData, io::Error::other(error.clone()));
            for symptom in [tls(&error), io(&once), io(&twice)] {
                assert_eq!(symptom.class, class, "{symptom}");
            }
        };
        for (why, class) in [
            (C::Expired, Class::Clock),
            (C::NotValidYet, Class::Clock),
            (C::UnknownIssuer, Class::Intercepted),
            (C::NotValidForName, Class::Intercepted),
            (C::BadSignature, Class::Intercepted),
            (C::Revoked, Class::Intercepted),
        ] {
            check(TlsError::InvalidCertificate(why), class);
        }
        use AlertDescription as A;
        for (alert, class) in [
            (A::CertificateRevoked, Class::Denied),
            (A::BadCertificate, Class::Denied),
            (A::AccessDenied, Class::Denied),
            (A::UnknownCA, Class::Denied),
            (A::CertificateRequired, Class::Denied),
            (A::HandshakeFailure, Class::Denied),
            (A::CertificateExpired, Class::Clock),
            (A::InternalError, Class::Partition),
            (A::BadRecordMac, Class::Partition),
            (A::NoApplicationProtocol, Class::Protocol),
            (A::ProtocolVersion, Class::Protocol),
        ] {
            check(TlsError::AlertReceived(alert), class);
        }
        check(TlsError::DecryptError, Class::Partition);
        check(
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType),
            Class::Intercepted,
        );
    }
}
