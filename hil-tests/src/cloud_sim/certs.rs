//! Certificates: a root of the cloud's own, made anew with each start, servers' certificates that are right or wrong in
//! one way, and clients' for clouds that want them.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use super::fault::CertFault;

/// The name on a certificate that is somebody else's.
const SOMEBODY_ELSE: &str = "portal.example.net";

/// How a cloud is served over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The host name in its certificate.
    pub name: String,
    /// Whether clients must show a certificate.
    pub client_certificates: bool,
    /// Protocols it speaks behind ALPN; empty: it does not say.
    pub alpn: Vec<String>,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("TLS does not take a certificate: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// TLS does not take the root for clients.
    #[error("TLS does not take the root for clients: {0}")]
    Clients(#[from] tokio_rustls::rustls::server::VerifierBuilderError),
}

/// A client's certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Everything a cloud shows.
pub(crate) struct Shop {
    root: Issuer<'static, KeyPair>,
    root_pem: String,
    sound: Arc<ServerConfig>,
    faulty: [(CertFault, Arc<ServerConfig>); 4],
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shop(..)")
    }
}

impl Shop {
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, CertError> {
        let (root, root_pem, root_der) = authority("cloud-sim root")?;
        let (other_root, _, _) = authority("another root")?;
        let mut roots = RootCertStore::empty();
        roots.add(root_der)?;
        let roots = Arc::new(roots);
        let name = options.name.as_str();
        let right = |issuer: &Issuer<'_, KeyPair>, name: &str| {
            let leaf = leaf(name)?;
            serve(options, &roots, issuer, &leaf)
        };
        let mut expired = leaf(name)?;
        (expired.not_before, expired.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        let mut not_yet = leaf(name)?;
        (not_yet.not_before, not_yet.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2095, 1, 1));
        Ok(Self {
            sound: right(&root, name)?,
            faulty: [
                (CertFault::Expired, serve(options, &roots, &root, &expired)?),
                (CertFault::NotYet, serve(options, &roots, &root, &not_yet)?),
                (CertFault::WrongName, right(&root, SOMEBODY_ELSE)?),
                (CertFault::NewRoot, right(&other_root, name)?),
            ],
            root,
            root_pem,
        })
    }

    /// The root to be pinned, in PEM.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What is shown now.
    pub(crate) fn config(&self, fault: Option<CertFault>) -> Arc<ServerConfig> {
        let shown = fault.and_then(|fault| self.faulty.iter().find(|(known, _)| *known == fault));
        shown.map_or(&self.sound, |(_, config)| config).clone()
    }

    /// A certificate for a client of this name.
    pub(crate) fn client(&self, name: &str) -> Result<ClientCertificate, CertError> {
        let mut params = leaf(name)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok(ClientCertificate {
            certificate: params.signed_by(&key, &self.root)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String, CertificateDer<'static>), CertError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let (pem, der) = (certificate.pem(), certificate.der().clone());
    Ok((Issuer::new(params, key), pem, der))
}

fn leaf(name: &str) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn serve(
    options: &TlsOptions,
    clients: &Arc<RootCertStore>,
    issuer: &Issuer<'_, KeyPair>,
    leaf: &CertificateParams,
) -> Result<Arc<ServerConfig>, CertError> {
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if options.client_certificates {
        let verifier = WebPkiClientVerifier::builder_with_provider(clients.clone(), provider).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
