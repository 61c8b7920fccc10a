//! Devices on Ethernet: the gateway's second listener takes TLS 1.3 and certificates of the site's authority, each device under
//! its own name alone, and takes other files into use while it runs.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use carrier::{
    Qos,
    mqtt::{Connection, Event, Options},
    tls::{Files, Identity, Tls},
};
use gateway::pki::{AUTHORITY_FILE, Authority, PkiError};
use hil_tests::site::{BrokerKind, DevicePlan, Plan, SITE, Site, binary, free_port};
use proto::{id::Name, topic};
use support::PATIENCE;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

const HOST: &str = "localhost";

/// An authority in a folder, and what it made.
struct Shop {
    dir: PathBuf,
    authority: Authority,
}

impl Shop {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let authority = Authority::create(dir, &Name::new(SITE).unwrap()).unwrap();
        Self {
            dir: dir.to_owned(),
            authority,
        }
    }

    /// What the gateway shows, written where its configuration looks; devices must show what this authority signed.
    fn put_up(&self, gateway_dir: &Path) {
        let pair = self.authority.gateway(&Name::new("gw-1").unwrap(), &[HOST.to_owned()]);
        pair.unwrap().write(gateway_dir, "gateway").unwrap();
        fs::copy(self.dir.join(AUTHORITY_FILE), gateway_dir.join(AUTHORITY_FILE)).unwrap();
    }

    fn identity(&self, device: &DevicePlan) -> Identity {
        let pair = self.authority.device(&device.id).unwrap();
        let (certificate, key) = pair.write(&self.dir, device.id.as_str()).unwrap();
        Identity { certificate, key }
    }
}

/// A device's connection with TLS, trusting `shop`.
fn options(port: u16, device: &DevicePlan, shop: &Shop, identity: Option<Identity>) -> Options {
    Options {
        filters: vec![(topic::down_filter(&device.id).to_string(), Qos::AtLeastOnce)],
        tls: Some(Tls::new(Files {
            roots: vec![shop.dir.join(AUTHORITY_FILE)],
            identity,
            ..Files::default()
        })),
        ..Options::new(format!("{HOST}:{port}"), device.id.to_string())
    }
}

/// Whether it is let in, with its subscriptions.
async fn is_let_in(options: &Options) -> bool {
    let mut connection = Connection::open(options);
    let outcome = async {
        loop {
            match connection.next().await {
                Event::Up => return true,
                Event::Down(_) => return false,
                Event::Message(_) | Event::Symptom(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, outcome).await.expect("an answer")
}

/// The version that is agreed on, if any.
async fn handshake(
    port: u16,
    shop: &Shop,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> Option<ProtocolVersion> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(shop.dir.join(AUTHORITY_FILE)).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&identity.key).unwrap())
        .unwrap();
    let stream = tokio::net::TcpStream::connect((HOST, port)).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    stream.get_ref().1.protocol_version()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_whom_its_certificate_names() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let mut plan = Plan::new(31, 2, 3);
    plan.limits = format!(
        "[devices.tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"gateway.pem\"\nkey = \"gateway.key\"\n\
         clients = \"{AUTHORITY_FILE}\"\n"
    );
    let gateway_dir = dir.path().join("gateway");
    let (ours, other) = (
        Shop::new(&dir.path().join("ours")),
        Shop::new(&dir.path().join("other")),
    );
    fs::create_dir_all(&gateway_dir).unwrap();
    ours.put_up(&gateway_dir);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    let [first, second] = &site.plan.devices[..] else {
        panic!("two devices")
    };

    let right = options(port, first, &ours, Some(ours.identity(first)));
    assert!(is_let_in(&right).await, "the certificate alone is enough");
    let with_password = |password: String| Options {
        user: Some((first.id.to_string(), password)),
        ..right.clone()
    };
    assert!(is_let_in(&with_password(first.secret.password().to_string())).await);
    let nosy = Options {
        filters: vec![(topic::down_filter(&second.id).to_string(), Qos::AtLeastOnce)],
        ..right.clone()
    };
    let refused = [
        ("a wrong password", with_password("wrong".to_owned())),
        ("no certificate", options(port, first, &ours, None)),
        (
            "another authority's",
            options(port, first, &ours, Some(other.identity(first))),
        ),
        (
            "another device's",
            options(port, first, &ours, Some(ours.identity(second))),
        ),
        ("a stranger's name", {
            let stranger = DevicePlan {
                id: Name::new("stranger").unwrap(),
                ..first.clone()
            };
            options(port, &stranger, &ours, Some(ours.identity(&stranger)))
        }),
        ("another's topics", nosy),
    ];
    for (what, options) in &refused {
        assert!(!is_let_in(options).await, "{what}");
    }
    let identity = ours.identity(first);
    assert_eq!(handshake(port, &ours, &identity, &TLS12).await, None);
    assert_eq!(
        handshake(port, &ours, &identity, &TLS13).await,
        Some(ProtocolVersion::TLSv1_3)
    );
    let status = site.ask_gateway("status").unwrap();
    assert!(status["endpoint"]["tls_refused"].as_u64().unwrap() >= 3, "{status}");

    // A bad file changes nothing.
    fs::write(gateway_dir.join(AUTHORITY_FILE), "nothing").unwrap();
    assert!(is_let_in(&right).await);
    // Other files: who was right is wrong, without a restart.
    other.put_up(&gateway_dir);
    let renewed = options(port, first, &other, Some(other.identity(first)));
    let since = Instant::now();
    while !is_let_in(&renewed).await {
        assert!(since.elapsed() < PATIENCE, "the new files come into use");
    }
    assert!(!is_let_in(&options(port, first, &other, Some(ours.identity(first)))).await);
    assert_eq!(site.stop().unwrap(), (0, 0));
}

/// Exit code and what was said.
fn holdfast(config: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary("holdfast").unwrap());
    let output = command.arg("--config").arg(config).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operators_commands_make_lets_a_device_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(33, 2, 3);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    let gateway_dir = dir.path().join("gateway");
    let config = gateway_dir.join("holdfast.toml");
    let [first, second] = [0, 1].map(|n: usize| site.plan.devices[n].clone());
    let (drawer, out) = (dir.path().join("drawer"), dir.path().join("out"));
    let [at_drawer, at_out] = [&drawer, &out].map(|path| path.to_str().unwrap());

    let authority = ["device", "authority", "--out", at_drawer, "--host", HOST];
    let make = |device: &str| {
        holdfast(
            &config,
            &[
                "device",
                "certificate",
                device,
                "--authority",
                at_drawer,
                "--out",
                at_out,
            ],
        )
    };
    let (code, said) = make(first.id.as_str());
    assert_eq!(code, Some(69), "there is no authority yet: {said}");
    let (code, said) = holdfast(&config, &authority);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("[devices.tls]"), "{said}");
    assert_eq!(holdfast(&config, &authority).0, Some(73), "an authority is made once");
    let (code, said) = make(first.id.as_str());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("does not have yet"), "{said}");
    let identity = Identity {
        certificate: out.join(format!("{}.pem", first.id)),
        key: out.join(format!("{}.key", first.id)),
    };
    let before = fs::read(&identity.key).unwrap();
    let (code, said) = make(first.id.as_str());
    assert_eq!(code, Some(73), "{said}");
    assert_eq!(fs::read(&identity.key).unwrap(), before, "nothing is written over");
    let (code, said) = make("nobody");
    assert_eq!(code, Some(66), "{said}");
    for path in [
        &identity.certificate,
        &identity.key,
        &drawer.join("site-ca.key"),
        &drawer.join("gateway.key"),
    ] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }

    // As the command says.
    for file in ["gateway.pem", "gateway.key", AUTHORITY_FILE] {
        fs::copy(drawer.join(file), gateway_dir.join(file)).unwrap();
    }
    assert_eq!(site.gateway.stop().unwrap(), 0);
    let port = free_port().unwrap();
    let table = format!(
        "[devices.tls]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"gateway.pem\"\nkey = \"gateway.key\"\n\
         clients = \"{AUTHORITY_FILE}\"\n"
    );
    let text = fs::read_to_string(&config).unwrap() + &table;
    fs::write(&config, text).unwrap();
    site.boot_gateway(&[]).unwrap();
    let shop = Shop {
        authority: Authority::open(&drawer, &Name::new(SITE).unwrap()).unwrap(),
        dir: drawer.clone(),
    };
    assert!(is_let_in(&options(port, &first, &shop, Some(identity.clone()))).await);
    assert!(
        !is_let_in(&options(port, &second, &shop, Some(identity))).await,
        "as itself alone"
    );
    let (code, said) = make(second.id.as_str());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("port {port}")), "{said}");

    // A backup has them, so that the devices come to a restored gateway as well.
    let (file, elsewhere) = (dir.path().join("site.backup"), dir.path().join("elsewhere"));
    assert_eq!(holdfast(&config, &["backup", file.to_str().unwrap()]).0, Some(0));
    let restore = ["restore", file.to_str().unwrap(), "--dir", elsewhere.to_str().unwrap()];
    let (code, said) = holdfast(&config, &restore);
    assert_eq!(code, Some(0), "{said}");
    assert!(elsewhere.join("gateway.key").is_file() && elsewhere.join(AUTHORITY_FILE).is_file());
    assert!(!elsewhere.join("site-ca.key").exists());
    assert_eq!(site.stop().unwrap(), (0, 0));
}

#[test]
fn an_authority_is_made_once_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let site = Name::new(SITE).unwrap();
    let shop = Shop::new(dir.path());
    assert!(matches!(Authority::create(dir.path(), &site), Err(PkiError::Exists(_))));
    let again = Authority::open(dir.path(), &site).unwrap();
    let device = Name::new("c-1").unwrap();
    let [one, two] = [&shop.authority, &again].map(|authority| authority.device(&device).unwrap());
    assert_ne!(one.key, two.key);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.path().join(AUTHORITY_FILE)).unwrap())
        .unwrap();
    let verifier = tokio_rustls::rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(ring::default_provider()),
    )
    .build()
    .unwrap();
    for pair in [&one, &two] {
        let leaf = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let now = tokio_rustls::rustls::pki_types::UnixTime::now();
        verifier.verify_client_cert(&leaf, &[], now).unwrap();
    }
    let (_, key) = one.write(dir.path(), "c-1").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(
        Authority::open(&dir.path().join("nowhere"), &site),
        Err(PkiError::File { .. })
    ));
    assert_eq!(format!("{one:?}"), "Pair(..)");
}
