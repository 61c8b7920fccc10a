//! The table `[page]`: where the page for people and the metrics for machines are served, and to whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::{Checker, ConfigError, secrets::SecretsFile};

/// Fewest characters of a token: at the few tries a minute that the page allows, nobody guesses that many.
const TOKEN_CHARS_MIN: usize = 16;
/// Most: what fits into a form.
const TOKEN_CHARS_MAX: usize = 128;
/// Most names under which the page is reached.
const HOSTS_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageSection {
    #[serde(default = "listen_default")]
    listen: SocketAddr,
    #[serde(default)]
    hosts: Vec<String>,
}

const fn listen_default() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080)
}

/// Where the page is served, and to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct PageConfig {
    /// Where; port 0 is any free one, for tests.
    pub listen: SocketAddr,
    /// Names under which browsers reach it, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// What a person must know to log in; `None`: on loopback, to look at and not to decide.
    pub token: Option<String>,
    /// What a machine must send to read the metrics; `None`: with a login only a person may, without one whoever can reach it.
    pub metrics_token: Option<String>,
}

impl std::fmt::Debug for PageConfig {
    /// Tokens are never logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageConfig")
            .field("listen", &self.listen)
            .field("hosts", &self.hosts)
            .field("has_login", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// The page, if it is wanted.
///
/// # Errors
/// [`ConfigError`]: beyond loopback without a login, a token that is too short, a name that is none.
pub(super) fn page(
    check: &Checker<'_>,
    check_secrets: &Checker<'_>,
    section: Option<PageSection>,
    secrets: &SecretsFile,
) -> Result<Option<PageConfig>, ConfigError> {
    let Some(PageSection { listen, hosts }) = section else {
        return Ok(None);
    };
    for (key, token) in [
        ("page_token", &secrets.page_token),
        ("metrics_token", &secrets.metrics_token),
    ] {
        let fits = |token: &String| {
            (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if token.as_ref().is_some_and(|token| !fits(token)) {
            return check_secrets.fail(
                key,
                format_args!(
                    "{TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} printable characters without spaces, as `openssl rand -hex 16` makes them"
                ),
            );
        }
    }
    if !listen.ip().is_loopback() && secrets.page_token.is_none() {
        return check.fail(
            "page.listen",
            format_args!(
                "{listen} is reached from beyond this machine: that needs a login; write `page_token` into the secrets file, or listen on 127.0.0.1"
            ),
        );
    }
    let is_name = |host: &String| {
        let of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        (1..=253).contains(&host.len()) && host.bytes().all(of_names)
    };
    if hosts.len() > HOSTS_MAX || !hosts.iter().all(is_name) {
        return check.fail(
            "page.hosts",
            format_args!("at most {HOSTS_MAX} names of a-z, 0-9, '-' and '.', without a port"),
        );
    }
    Ok(Some(PageConfig {
        listen,
        hosts,
        token: secrets.page_token.clone(),
        metrics_token: secrets.metrics_token.clone(),
    }))
}
