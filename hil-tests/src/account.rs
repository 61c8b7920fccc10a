//! What an operator has at a cloud for his one gateway: names, keys, certificates. From it follow how the simulated cloud
//! is started and what stands in the gateway's configuration.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, ensure};
use proto::{
    id::{DeviceId, GatewayId, Name},
    seal::PairSecret,
};

use crate::{
    cloud_sim::{
        CloudSim, Member, Options, Vendor, Way,
        alink::{AlinkOptions, Home, Triple},
        aws::AwsOptions,
        certs::TlsOptions,
        webhook::WebhookOptions,
    },
    site::{GATEWAY, Plan, Ways, hex, key, write_secret},
};

/// The site of every plan.
const SITE: &str = "campus";
/// The rule that takes records and telemetry without AWS's broker.
const RULE: &str = "hf_ingest";
/// What a client says on port 443 of AWS.
const ALPN: &str = "x-amzn-mqtt-ca";
/// The host name in the clouds' certificates.
const HOST: &str = "localhost";

/// One gateway's.
#[derive(Clone, Debug)]
pub struct Account {
    vendor: Vendor,
    seed: u64,
    site: Name,
    gateway: GatewayId,
    password: String,
    own: Triple,
    devices: Vec<(DeviceId, Triple)>,
}

impl Account {
    /// Of a plan's gateway and devices, at a cloud of this kind.
    ///
    /// # Errors
    /// If a name does not fit.
    pub fn new(plan: &Plan, vendor: Vendor) -> anyhow::Result<Self> {
        let names = (Name::new(SITE)?, Name::new(GATEWAY)?);
        let mut account = Self::of(vendor, plan.seed, names, PairSecret(key(plan.seed, "link")));
        account.devices = plan
            .devices
            .iter()
            .map(|device| {
                let product = format!("a1{}", device.kind.word());
                (device.id, triple(plan.seed, &product, device.id.as_str()))
            })
            .collect();
        Ok(account)
    }

    /// Of any gateway, without its devices. `link`: what it shares with the hub.
    #[must_use]
    pub fn of(vendor: Vendor, seed: u64, (site, gateway): (Name, GatewayId), link: PairSecret) -> Self {
        Self {
            vendor,
            seed,
            site,
            gateway,
            password: link.password().to_string(),
            own: triple(seed, "a1gateway", gateway.as_str()),
            devices: Vec::new(),
        }
    }

    /// The simulated cloud, before the hub.
    ///
    /// # Errors
    /// If a name does not fit.
    pub fn cloud(&self, hub: std::net::SocketAddr) -> anyhow::Result<Options> {
        let tls = |client_certificates, alpn: &[&str]| {
            Some(TlsOptions {
                name: HOST.to_owned(),
                client_certificates,
                alpn: alpn.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        let (way, tls) = match self.vendor {
            Vendor::Hcp => (Way::Hcp, None),
            Vendor::Alink => {
                let home = Home {
                    gateway: self.gateway,
                    triple: self.own.clone(),
                };
                let devices = self.devices.iter().map(|(_, triple)| triple.clone()).collect();
                (Way::Alink(AlinkOptions::new(vec![home], devices)), tls(false, &[]))
            }
            Vendor::Aws => {
                let mut options = AwsOptions::new(BTreeMap::from([(self.gateway.to_string(), self.gateway)]));
                options.rules = vec![RULE.to_owned()];
                options.wants_alpn = true;
                (Way::Aws(options), tls(true, &[ALPN]))
            }
            Vendor::Webhook => {
                let keys = BTreeMap::from([(self.gateway, self.sign_key().to_vec())]);
                (Way::Webhook(WebhookOptions { keys }), tls(false, &[]))
            }
            Vendor::Oss => (Way::Oss, None),
            Vendor::Pop => (Way::Pop, None),
        };
        let member = Member {
            gateway: self.gateway,
            site: self.site,
            password: self.password.clone(),
        };
        Ok(Options {
            seed: self.seed,
            tls,
            ..Options::new(way, hub, vec![member])
        })
    }

    fn sign_key(&self) -> [u8; 32] {
        key(self.seed, "webhook")
    }

    /// What stands in the gateway's files for a cloud that runs. Certificates are written into `dir`.
    ///
    /// # Errors
    /// If the cloud is none that carries frames, or a file cannot be written.
    pub fn ways(&self, cloud: &CloudSim, dir: &Path) -> anyhow::Result<Ways> {
        let port = cloud.address().port();
        let tls = self.tls(cloud, dir)?;
        let mut clouds = format!("[[cloud]]\nname = \"main\"\nkind = \"{}\"\n", self.vendor.word());
        let mut secrets = "[clouds.main]\n".to_owned();
        match self.vendor {
            Vendor::Hcp => {
                let _ = writeln!(clouds, "broker = \"{HOST}:{port}\"\nkeep_alive_s = 5");
                secrets.clear();
            }
            Vendor::Alink => {
                let own = &self.own;
                let _ = writeln!(
                    clouds,
                    "broker = \"{HOST}:{port}\"\nkeep_alive_s = 30\nproduct_key = \"{}\"\ndevice_name = \"{}\"\nhas_user_topic = true\n{tls}",
                    own.product_key, own.device_name
                );
                let _ = writeln!(
                    secrets,
                    "device_secret = \"{}\"\n\n[clouds.main.devices]",
                    own.device_secret
                );
                for (id, triple) in &self.devices {
                    let _ = writeln!(
                        clouds,
                        "[[cloud.device]]\nid = \"{id}\"\nproduct_key = \"{}\"\ndevice_name = \"{}\"",
                        triple.product_key, triple.device_name
                    );
                    let _ = writeln!(secrets, "{id} = \"{}\"", triple.device_secret);
                }
            }
            Vendor::Aws => {
                let _ = writeln!(
                    clouds,
                    "broker = \"{HOST}:{port}\"\nkeep_alive_s = 30\nthing = \"{}\"\nrule = \"{RULE}\"\n{tls}",
                    self.gateway
                );
                secrets.clear();
            }
            Vendor::Webhook => {
                let _ = writeln!(clouds, "url = \"https://{HOST}:{port}\"\n{tls}");
                let _ = writeln!(secrets, "sign_key = \"{}\"", hex(&self.sign_key()));
            }
            Vendor::Oss | Vendor::Pop => ensure!(false, "{} carries no frames", self.vendor.word()),
        }
        Ok(Ways {
            clouds,
            secrets,
            ..Ways::default()
        })
    }

    /// The `tls` key of the configuration; empty without TLS.
    fn tls(&self, cloud: &CloudSim, dir: &Path) -> anyhow::Result<String> {
        let Some(root) = cloud.root_pem() else {
            return Ok(String::new());
        };
        fs::create_dir_all(dir)?;
        let path = |name: &str| dir.join(name);
        fs::write(path("cloud.pem"), root)?;
        let mut text = format!("tls = {{ roots = [\"{}\"]", path("cloud.pem").display());
        if self.vendor == Vendor::Aws {
            let pair = cloud
                .client_certificate(self.gateway.as_str())?
                .context("a cloud with TLS makes certificates")?;
            fs::write(path("thing.pem"), pair.certificate)?;
            write_secret(&path("thing.key"), &pair.key)?;
            let _ = write!(
                text,
                ", certificate = \"{}\", key = \"{}\", alpn = [\"{ALPN}\"]",
                path("thing.pem").display(),
                path("thing.key").display()
            );
        }
        Ok(text + " }\n")
    }
}

fn triple(seed: u64, product: &str, name: &str) -> Triple {
    Triple {
        product_key: product.to_owned(),
        device_name: name.to_owned(),
        device_secret: hex(&key(seed, &format!("cloud {name}"))[..16]),
    }
}
