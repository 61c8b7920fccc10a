//! A mosquitto of one's own, at a socket in a folder of its own, so that no port is ever taken by somebody else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

use super::{certs, soon};

/// A running mosquitto.
pub struct Broker {
    pub socket: PathBuf,
    log: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
    _child: Child,
}

/// What the broker asks of TLS: its own pair, and whose clients it lets in.
pub struct Secured<'a> {
    pub pair: &'a certs::Pair,
    pub clients: Option<&'a certs::Authority>,
    pub revoked: Option<String>,
    pub version: Option<&'static str>,
}

impl Broker {
    /// Plain TCP.
    pub async fn plain(dir: &Path) -> Self {
        Self::start(dir, "allow_anonymous true\n").await
    }

    /// TLS.
    pub async fn secured(dir: &Path, secured: Secured<'_>) -> Self {
        let own = certs::write_pair(dir, "broker", secured.pair);
        let mut text = format!(
            "certfile {}\nkeyfile {}\n",
            own.certificate.display(),
            own.key.display()
        );
        match secured.clients {
            None => text.push_str("allow_anonymous true\n"),
            Some(authority) => {
                let path = certs::write(dir, "clients.pem", authority.pem());
                text.push_str(&format!("cafile {}\n", path.display()));
                text.push_str("require_certificate true\nuse_identity_as_username true\n");
            }
        }
        if let Some(list) = secured.revoked {
            let path = certs::write(dir, "revoked.pem", &list);
            text.push_str(&format!("crlfile {}\n", path.display()));
        }
        if let Some(version) = secured.version {
            text.push_str(&format!("tls_version {version}\n"));
        }
        Self::start(dir, &text).await
    }

    async fn start(dir: &Path, listener: &str) -> Self {
        let socket = dir.join("broker.sock");
        // As root it would become another user, who may not enter this folder.
        let text = format!(
            "user root\nset_tcp_nodelay true\nlog_dest stderr\nlog_type all\nlistener 0 {}\n{listener}",
            socket.display()
        );
        let file = certs::write(dir, "mosquitto.conf", &text);
        // Debian keeps daemons where an ordinary user's PATH does not look.
        let mut child = ["mosquitto", "/usr/sbin/mosquitto"]
            .into_iter()
            .find_map(|program| {
                let mut command = Command::new(program);
                command.arg("-c").arg(&file).stderr(Stdio::piped()).kill_on_drop(true);
                command.spawn().ok()
            })
            .expect("mosquitto is installed");
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (counter, lines) = watch::channel(0);
        let written = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
                counter.send_modify(|lines| *lines += 1);
            }
        });
        let broker = Self {
            socket,
            log,
            lines,
            _child: child,
        };
        broker.says("running").await;
        broker
    }

    /// Waits until the log contains this.
    pub async fn says(&self, what: &str) {
        let mut lines = self.lines.clone();
        soon(&format!("{what:?} in mosquitto's log"), async {
            while !self.log.lock().unwrap().contains(what) {
                assert!(
                    lines.changed().await.is_ok(),
                    "mosquitto ended:\n{}",
                    self.log.lock().unwrap()
                );
            }
        })
        .await;
    }
}
