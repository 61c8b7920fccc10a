//! Reading the configuration again while the gateway runs: whole or not at all. A file that is wrong, or that changes what
//! needs a restart, changes nothing; why is told to whoever asked, in the log and in the status, until a reload is done.

use std::{collections::BTreeSet, sync::Arc};

use gateway_core::Config as CoreConfig;
use proto::{id::DeviceId, seal::PairSecret, trust::IssuerKey};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::{Changes, Loaded},
    devices::{Opener, blocked::Blocked, embedded::DeviceAccess},
    engine::Job,
    exit,
    firmware::Firmware,
    page::Page,
};

/// Reloads that may wait for the one before.
const ASKED_MAX: usize = 4;

/// What the engine takes over.
#[derive(Debug)]
pub struct Taken {
    /// Devices, limits and whom to believe.
    pub core: CoreConfig,
    /// One secret a device.
    pub secrets: std::collections::BTreeMap<DeviceId, PairSecret>,
    /// Keys under which artifacts may be signed.
    pub issuer_keys: Vec<IssuerKey>,
}

/// What is asked of the reloader.
struct Asked {
    /// Only say what would change.
    is_check: bool,
    /// What the secrets file says, from somebody who could read it.
    secrets: Option<String>,
    reply: oneshot::Sender<Value>,
}

/// The way to the reloader.
#[derive(Clone, Debug)]
pub struct Reloader {
    asked: mpsc::Sender<Asked>,
    last: watch::Receiver<Value>,
}

/// What is told of a reload that was never tried.
fn never() -> Value {
    json!({"failed": false, "why": "", "restart": []})
}

impl Reloader {
    /// Reads the files again; what came of it.
    pub async fn reload(&self, is_check: bool, secrets: Option<String>) -> Value {
        let stopping = || json!({"error": "the gateway is stopping"});
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            is_check,
            secrets,
            reply,
        };
        match self.asked.send(asked).await {
            Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
            Err(_) => stopping(),
        }
    }

    /// How the last reload ended, for the status.
    #[must_use]
    pub fn last(&self) -> Value {
        self.last.borrow().clone()
    }
}

/// Everything that holds a piece of the configuration.
pub struct Holders {
    /// The engine.
    pub engine: mpsc::Sender<Job>,
    /// Opens what devices say.
    pub opener: Arc<Opener>,
    /// Lets devices in; none where a broker does.
    pub access: Option<Arc<DeviceAccess>>,
    /// Who is blocked.
    pub blocked: Blocked,
    /// Firmware of devices.
    pub firmware: Firmware,
    /// The page.
    pub page: Page,
}

/// Starts the reloader. `loaded`: what is in force.
#[must_use]
pub fn start(loaded: Arc<Loaded>, holders: Holders) -> Reloader {
    let (asked, inbox) = mpsc::channel(ASKED_MAX);
    let (told, last) = watch::channel(never());
    tokio::spawn(run(loaded, holders, inbox, told));
    Reloader { asked, last }
}

async fn run(
    mut loaded: Arc<Loaded>,
    mut holders: Holders,
    mut inbox: mpsc::Receiver<Asked>,
    told: watch::Sender<Value>,
) {
    while let Some(asked) = inbox.recv().await {
        let outcome = match asked.is_check {
            true => look(&loaded, asked.secrets).map(|(_, changes)| changes),
            false => {
                service::reloading("reading the configuration again");
                let outcome = take(&mut loaded, &mut holders, asked.secrets).await;
                log(&loaded, &outcome);
                told.send_replace(match &outcome {
                    Ok(_) => never(),
                    Err(refused) => json!({"failed": true, "why": refused.why, "restart": refused.restart}),
                });
                // Its status is told anew by whoever watches it.
                service::ready(&format!("serving {} devices", loaded.config.device_secrets.len()));
                outcome
            }
        };
        let answer = match outcome {
            Ok(changes) => json!({
                "result": if asked.is_check { "would be taken over" } else { "taken over" },
                "changed": changes.live,
            }),
            Err(refused) => json!({
                "error": refused.why, "exit": exit::CONFIG, "restart": refused.restart, "changed": refused.live,
            }),
        };
        // Who asked may have gone away.
        drop(asked.reply.send(answer));
    }
}

/// Why nothing was taken over.
struct Refused {
    why: String,
    restart: Vec<String>,
    live: Vec<String>,
}

impl Refused {
    fn because(why: impl ToString) -> Self {
        Self {
            why: why.to_string(),
            restart: Vec::new(),
            live: Vec::new(),
        }
    }
}

fn log(loaded: &Loaded, outcome: &Result<Changes, Refused>) {
    let path = loaded.path().display();
    match outcome {
        Ok(changes) if changes.live.is_empty() => tracing::info!(%path, "configuration read again: nothing is new"),
        Ok(changes) => {
            tracing::info!(%path, changed = changes.live.join(", "), "configuration read again, and taken over")
        }
        Err(refused) => {
            tracing::error!(%path, why = refused.why, "ALARM configuration not taken over; the old one stays")
        }
    }
}

/// Reads and compares, and changes nothing.
fn look(loaded: &Loaded, secrets: Option<String>) -> Result<(Loaded, Changes), Refused> {
    let new = loaded.again(secrets).map_err(Refused::because)?;
    let changes = loaded.changes(&new);
    if changes.restart.is_empty() {
        return Ok((new, changes));
    }
    let keys = changes.restart.join(", ");
    Err(Refused {
        why: format!(
            "{} needs a restart: [{keys}]; nothing is taken over until then. Type: systemctl restart holdfast",
            loaded.path().display()
        ),
        restart: changes.restart,
        live: changes.live,
    })
}

async fn take(loaded: &mut Arc<Loaded>, holders: &mut Holders, secrets: Option<String>) -> Result<Changes, Refused> {
    let (new, changes) = look(loaded, secrets)?;
    let config = &new.config;
    // The engine can still say no, and whoever holds something after it cannot.
    let taken = Taken {
        core: config.core.clone(),
        secrets: config.device_secrets.clone(),
        issuer_keys: config.issuer_keys.clone(),
    };
    let (reply, answer) = oneshot::channel();
    let sent = holders.engine.send(Job::Reconfigure(Box::new(taken), reply)).await;
    let stopping = || Refused::because("the gateway is stopping");
    sent.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?.map_err(Refused::because)?;
    holders.opener.reconfigure(&config.device_secrets);
    if let Some(access) = &holders.access {
        access.reconfigure(&config.device_secrets, config.monitor_password.clone());
    }
    let before = &loaded.config.device_secrets;
    for (device, secret) in before {
        let stays = config
            .device_secrets
            .get(device)
            .is_some_and(|new| new.password() == secret.password());
        if !stays {
            holders.blocked.cut(device);
        }
    }
    let all: BTreeSet<&DeviceId> = before.keys().chain(config.device_secrets.keys()).collect();
    for device in all {
        holders.blocked.set(*device, config.blocked.contains(device));
    }
    let kinds = config.core.devices.iter().map(|(device, known)| (*device, known.kind));
    holders.firmware.reconfigure(kinds.collect()).await;
    holders.page.reconfigure(config);
    *loaded = Arc::new(new);
    Ok(changes)
}
