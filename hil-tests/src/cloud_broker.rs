//! A real mosquitto between gateways and hub, as `deploy/mosquitto/cloud.conf` has it: TLS, client certificates, and an
//! ACL that lets each gateway speak for itself only.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::{
    process::Process,
    site::{free_port, write_secret},
};

/// An authority that names gateways, hub and broker.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes a certificate for `name` and its key as `name.pem` and `name.key` into `dir`. `year`: of its end.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path, name: &str, year: i32) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        // The key first: whoever reads between the two keeps the pair he has.
        write_secret(&dir.join(format!("{name}.key")), &key.serialize_pem())?;
        fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
        Ok(())
    }
}

/// A running broker.
#[derive(Debug)]
pub struct CloudBroker {
    process: Process,
    dir: PathBuf,
    port: u16,
}

/// Year in which the certificates of a broker end.
const YEAR: i32 = 2040;

impl CloudBroker {
    /// Starts one with its files in `dir`, which trusts `authority`.
    ///
    /// # Errors
    /// If mosquitto is not installed or does not come up.
    pub fn start(dir: &Path, authority: &Authority) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let port = free_port()?;
        authority.write(dir, "server", YEAR)?;
        authority.write(dir, "hub", YEAR)?;
        let process = run(dir, port, authority)?;
        Ok(Self {
            process,
            dir: dir.to_owned(),
            port,
        })
    }

    /// Ends it, and starts it again trusting this authority alone.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn trust(&mut self, authority: &Authority) -> anyhow::Result<()> {
        self.process.stop()?;
        authority.write(&self.dir, "server", YEAR)?;
        authority.write(&self.dir, "hub", YEAR)?;
        self.process = run(&self.dir, self.port, authority)?;
        Ok(())
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The `[[brokers]]` table of the hub.
    #[must_use]
    pub fn for_hub(&self, name: &str) -> String {
        let dir = self.dir.display();
        format!(
            "[[brokers]]\nname = \"{name}\"\nbroker = \"localhost:{}\"\nkeep_alive_s = 5\n\
             tls = {{ roots = [\"{dir}/ca.pem\"], certificate = \"{dir}/hub.pem\", key = \"{dir}/hub.key\" }}\n\n",
            self.port
        )
    }
}

/// The `[[cloud]]` table of a gateway behind a broker that is reached at `port`, with its certificate in `dir`.
#[must_use]
pub fn for_gateway(name: &str, port: u16, mqtt: &str, dir: &Path, gateway: &str) -> String {
    let dir = dir.display();
    format!(
        "[[cloud]]\nname = \"{name}\"\nkind = \"hcp\"\nbroker = \"localhost:{port}\"\nmqtt = \"{mqtt}\"\n\
         keep_alive_s = 5\n\
         tls = {{ roots = [\"{dir}/ca.pem\"], certificate = \"{dir}/{gateway}.pem\", key = \"{dir}/{gateway}.key\" }}\n\n"
    )
}

fn run(dir: &Path, port: u16, authority: &Authority) -> anyhow::Result<Process> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mosquitto");
    let here = dir.display().to_string();
    let text = fs::read_to_string(shipped.join("cloud.conf"))?
        .replace("listener 8883", &format!("listener {port} 127.0.0.1"))
        .replace("/etc/mosquitto/certs", &here)
        .replace("/etc/mosquitto", &here);
    ensure!(
        text.contains(&here),
        "the shipped configuration names no files any more"
    );
    let log = "log_dest stderr\nlog_type error\nlog_type notice\nlog_type information\n";
    // As root it would become another user, who may not enter this folder.
    fs::write(dir.join("mosquitto.conf"), format!("user root\n{text}{log}"))?;
    fs::copy(shipped.join("cloud.acl"), dir.join("cloud.acl"))?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    let program = ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|program| Command::new(program).arg("-h").output().is_ok())
        .context("mosquitto is not installed; type: apt-get install mosquitto")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(dir.join("mosquitto.conf"));
    let process = Process::start("mosquitto", command, &dir.join("mosquitto.log"))?;
    process.wait_for("running")?;
    Ok(process)
}
