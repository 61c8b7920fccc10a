//! Clouds that lie. Each stands between gateways and their hub on the wire, checks what the real one checks, and, told
//! to, answers falsely, falls silent, goes away or throttles. It holds no key of the link: whatever it says is what
//! anybody between the two could say.
//!
//! | part | what it is |
//! |---|---|
//! | [`fault`] | what a cloud can do to its users, and which cloud can do what |
//! | `broker` | a vendor's MQTT broker without sockets; `hcp`, `alink` and `aws` are its personalities |
//! | `bridge` | the operator's bridge to the hub: the reference for operators |
//! | `gate`, `serve`, `certs` | sockets, TLS, tasks |

pub mod alink;
mod allowance;
pub mod aws;
mod bridge;
pub(crate) mod broker;
pub mod certs;
pub mod counters;
pub mod fault;
mod gate;
mod hcp;
mod http;
pub mod script;
mod serve;
mod store;
pub mod webhook;

use std::{net::SocketAddr, sync::Arc};

use proto::id::{GatewayId, Name};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};

use self::{
    alink::{Alink, AlinkOptions},
    aws::{Aws, AwsOptions},
    bridge::Bridge,
    broker::{Personality, machine::Broker},
    certs::{CertError, ClientCertificate, Shop, TlsOptions},
    counters::Counters,
    fault::{Fault, Faults, Inexpressible, Of, Stage},
    gate::{Clock, Gate},
    serve::Served,
    store::Store,
    webhook::{Webhook, WebhookOptions},
};

/// The text that clients saw on 2023-11-12, and see for a key that really does not exist.
pub const FALSE_DENIAL: &str = "InvalidAccessKeyId.NotFound: Specified access key is not found.";
/// The text of a cloud that recovers.
pub const THROTTLED: &str = "Throttling.User: Request was denied due to user flow control.";
/// The text of a cloud that wants to be paid.
pub const OVERDUE: &str = "Forbidden: The request is forbidden because of overdue payments.";

/// Commands that may wait for a cloud.
const COMMANDS_MAX: usize = 64;

/// Whose way a cloud has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// Our own protocol on a plain MQTT broker.
    Hcp,
    /// Alibaba Cloud IoT Platform.
    Alink,
    /// AWS IoT Core.
    Aws,
    /// The operator's own HTTPS interface.
    Webhook,
    /// Object storage, where artifacts lie.
    Oss,
    /// A control plane's interface.
    Pop,
}

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Hcp, Self::Alink, Self::Aws, Self::Webhook, Self::Oss, Self::Pop];

    /// The word in files and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hcp => "hcp",
            Self::Alink => "alink",
            Self::Aws => "aws",
            Self::Webhook => "webhook",
            Self::Oss => "oss",
            Self::Pop => "pop",
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Hcp => "a plain MQTT cloud",
            Self::Alink => "an Alibaba Cloud IoT Platform",
            Self::Aws => "an AWS IoT Core",
            Self::Webhook => "an HTTPS interface of the operator's",
            Self::Oss => "an object storage",
            Self::Pop => "a control plane",
        }
    }

    /// Whether it speaks HTTP; else MQTT.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Webhook | Self::Oss | Self::Pop)
    }
}

/// A gateway, as cloud and operator know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub gateway: GatewayId,
    /// Its site.
    pub site: Name,
    /// Its password at the hub: [`proto::seal::PairSecret::password`] of its link secret.
    pub password: String,
}

/// Whose way a cloud has, and what that vendor is told besides.
#[derive(Clone, Debug)]
pub enum Way {
    /// Our own protocol on a plain MQTT broker.
    Hcp,
    /// Alibaba Cloud IoT Platform.
    Alink(AlinkOptions),
    /// AWS IoT Core; needs TLS.
    Aws(AwsOptions),
    /// The operator's own HTTPS interface.
    Webhook(WebhookOptions),
    /// Object storage, where artifacts lie.
    Oss,
    /// A control plane's interface.
    Pop,
}

impl Way {
    /// Whose.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        match self {
            Self::Hcp => Vendor::Hcp,
            Self::Alink(_) => Vendor::Alink,
            Self::Aws(_) => Vendor::Aws,
            Self::Webhook(_) => Vendor::Webhook,
            Self::Oss => Vendor::Oss,
            Self::Pop => Vendor::Pop,
        }
    }
}

/// What whoever owns a cloud can have it say; a cloud that has no words for it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// That there is another configuration (alink).
    PushConfig,
    /// That there is a job (aws).
    Job {
        /// For whom.
        gateway: GatewayId,
        /// What it says.
        document: serde_json::Value,
    },
}

/// How a cloud is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose way it has.
    pub way: Way,
    /// Where gateways connect; port 0: any free one.
    pub listen: SocketAddr,
    /// Where the hub is.
    pub hub: SocketAddr,
    /// Who may connect.
    pub members: Vec<Member>,
    /// Everything random follows from it.
    pub seed: u64,
    /// How much faster the vendor's clock runs than the world's: what it keeps for an hour it keeps for an hour of that.
    pub times: u64,
    /// How it is served over TLS, if it is.
    pub tls: Option<TlsOptions>,
}

impl Options {
    /// A cloud on a free loopback port, without TLS.
    #[must_use]
    pub fn new(way: Way, hub: SocketAddr, members: Vec<Member>) -> Self {
        Self {
            way,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hub,
            members,
            seed: 1,
            times: 1,
            tls: None,
        }
    }
}

/// What a cloud does to its users, for those who need no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Carries everything.
    Honest,
    /// Acknowledges everything on the MQTT level, and answers every request with the false denial of 2023-11-12.
    Lying,
    /// An incomplete whitelist: questions about a stable part of the tokens, so many in a hundred, are denied as on
    /// 2023-11-12; everything else is carried.
    Partial(u8),
    /// Takes everything and answers nothing.
    Hanging,
    /// Closes every connection.
    Dark,
    /// Carries so many requests a second; the rest is told to slow down.
    Throttled(u32),
}

impl Mode {
    /// The faults of which it is made.
    fn faults(self, vendor: Vendor) -> Vec<Fault> {
        let deny = |of, percent| Fault::Deny {
            at: if vendor.is_http() { Stage::Http } else { Stage::Reply },
            of,
            percent,
            code: 404,
            kicks: false,
        };
        match self {
            Self::Honest => Vec::new(),
            Self::Lying => vec![deny(Of::Gateway, 100), Fault::HalfDead],
            Self::Partial(percent) => vec![deny(Of::Token, percent)],
            Self::Hanging => vec![Fault::Hang(Stage::Tcp)],
            Self::Dark => vec![Fault::CloseAfter(Stage::Tcp)],
            Self::Throttled(rate) => vec![Fault::Throttle(rate)],
        }
    }
}

/// Why a cloud does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A cloud that nobody reaches without TLS.
    #[error("{0} is served with TLS only: give it a [tls] table")]
    Plain(Vendor),
    /// No certificates.
    #[error(transparent)]
    Cert(#[from] CertError),
}

/// How a running cloud is told and asked.
type Strings = (watch::Sender<Faults>, watch::Receiver<u64>, mpsc::Sender<Command>);

/// A running cloud; dropped, it ends.
#[derive(Debug)]
pub struct CloudSim {
    vendor: Vendor,
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    taken: watch::Receiver<u64>,
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    shop: Option<Arc<Shop>>,
}

impl CloudSim {
    /// Starts a cloud. Needs a runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let vendor = options.way.vendor();
        let (faults, watched) = watch::channel(Faults::default());
        let counters = Arc::new(Counters::default());
        let clock = Clock::start();
        let shop = options.tls.as_ref().map(Shop::new).transpose()?.map(Arc::new);
        let listen = |error| StartError::Listen {
            address: options.listen,
            error,
        };
        let gate = Gate::open(options.listen, shop.clone(), watched.clone(), clock, counters.clone());
        let gate = gate.await.map_err(listen)?;
        let address = gate.address().map_err(listen)?;
        let (bridge, down) = Bridge::new(options.hub, &options.members, counters.clone());
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        // Servers of HTTP look at the faults with each request: what is set is known.
        let (telling, taken) = watch::channel(if vendor.is_http() { u64::MAX } else { 0 });
        let personality: Box<dyn Personality> = match options.way {
            Way::Webhook(own) => {
                let webhook = Webhook::start(&own, bridge, down, &gate);
                http::spawn(gate, webhook);
                return Ok(Self::running(
                    vendor,
                    address,
                    (faults, taken, commands),
                    counters,
                    shop,
                ));
            }
            Way::Oss | Way::Pop => {
                http::spawn(gate, Arc::new(Store::new(vendor == Vendor::Pop)));
                return Ok(Self::running(
                    vendor,
                    address,
                    (faults, taken, commands),
                    counters,
                    shop,
                ));
            }
            Way::Hcp => Box::new(hcp::Hcp::new(&options.members)),
            Way::Alink(alink) => Box::new(Alink::new(alink)),
            Way::Aws(aws) => {
                let host = options.tls.map(|tls| tls.name).ok_or(StartError::Plain(vendor))?;
                Box::new(Aws::new(aws, host, &options.members))
            }
        };
        let served = Served {
            broker: Broker::new(personality, options.seed, options.times, counters.clone()),
            bridge,
            down,
            commands: commanded,
            faults: watched,
            taken: telling,
            clock,
        };
        serve::spawn(gate, served);
        Ok(Self::running(
            vendor,
            address,
            (faults, taken, commands),
            counters,
            shop,
        ))
    }

    fn running(
        vendor: Vendor,
        address: SocketAddr,
        (faults, taken, commands): Strings,
        counters: Arc<Counters>,
        shop: Option<Arc<Shop>>,
    ) -> Self {
        Self {
            vendor,
            address,
            faults,
            taken,
            commands,
            counters,
            shop,
        }
    }

    /// Where gateways connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whose way it has.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// Changes what it does, for connections that stand too.
    pub fn set(&self, mode: Mode) {
        self.faults
            .send_modify(|faults| faults.replace(mode.faults(self.vendor)));
    }

    /// From now on these faults hold, and no others.
    ///
    /// # Errors
    /// If the cloud has no words for one of them; then nothing changes.
    pub fn play(&self, faults: Vec<Fault>) -> Result<(), Inexpressible> {
        for fault in &faults {
            fault.expressible(self.vendor, self.shop.is_some())?;
        }
        self.faults.send_modify(|now| now.replace(faults));
        Ok(())
    }

    /// Waits until what was set or played last is known everywhere in the cloud.
    pub async fn taken(&self) {
        let change = self.faults.borrow().change;
        // A cloud whose tasks have ended takes nothing more.
        let _ = self.taken.clone().wait_for(|taken| *taken >= change).await;
    }

    /// Has it say something.
    ///
    /// # Errors
    /// The command, if too many wait.
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.commands.try_send(command).map_err(TrySendError::into_inner)
    }

    /// What passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The root to be pinned by those who connect, in PEM; `None` without TLS.
    #[must_use]
    pub fn root_pem(&self) -> Option<&str> {
        self.shop.as_deref().map(Shop::root_pem)
    }

    /// A certificate for a client of this name.
    ///
    /// # Errors
    /// If none can be made; `None` without TLS.
    pub fn client_certificate(&self, name: &str) -> Result<Option<ClientCertificate>, CertError> {
        self.shop.as_deref().map(|shop| shop.client(name)).transpose()
    }
}
