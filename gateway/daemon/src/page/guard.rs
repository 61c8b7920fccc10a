//! Who may see the page, and who may decide on it. A login is a token that is compared in constant time, and then a cookie
//! that scripts cannot read and other sites cannot send. Everything that is remembered has a bound and lives in memory only.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{HeaderMap, header};
use proto::id::Hash;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::PageConfig;

/// How long a login holds, on the monotonic clock: a shift.
pub(super) const LOGIN_FOR: Duration = Duration::from_secs(12 * 3600);
/// Most logins at once; one more ends the oldest.
const LOGINS_MAX: usize = 32;
/// Failed tries of one address within [`TRIES_WITHIN`].
const TRIES_MAX: usize = 5;
/// As above.
const TRIES_WITHIN: Duration = Duration::from_secs(60);
/// Addresses whose failed tries are remembered; beyond it the one that failed longest ago is forgotten.
const ADDRESSES_MAX: usize = 256;
/// Name of the cookie.
pub(super) const COOKIE: &str = "holdfast";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody that is known: to the login.
    Stranger,
    /// Somebody at this machine, without a login: may look.
    Onlooker,
    /// Somebody who logged in: may look and decide. With what his requests to decide must carry.
    Operator(String),
}

/// What came of a try to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The cookie's value.
    Welcome(String),
    /// Another token.
    Wrong,
    /// Too many tries from this address.
    Wait,
}

struct Login {
    since: Instant,
    csrf: String,
}

#[derive(Default)]
struct State {
    /// By the hash of the cookie: what is in memory logs nobody in.
    logins: BTreeMap<[u8; 32], Login>,
    failures: BTreeMap<IpAddr, Vec<Instant>>,
}

/// Keeps the door.
pub(super) struct Guard {
    config: PageConfig,
    state: Mutex<State>,
    failed: AtomicU64,
}

impl Guard {
    pub(super) fn new(config: PageConfig) -> Self {
        Self {
            config,
            state: Mutex::default(),
            failed: AtomicU64::new(0),
        }
    }

    /// Whether there is a login.
    pub(super) const fn has_login(&self) -> bool {
        self.config.token.is_some()
    }

    /// Failed tries to log in since the start.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether a browser was really sent to us: a name that somebody else points here would make his page ours.
    pub(super) fn knows_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
            return false;
        };
        let host = without_port(host);
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // An address cannot be pointed elsewhere.
        literal.unwrap_or(host).parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.config.hosts.iter().any(|known| host.eq_ignore_ascii_case(known))
    }

    /// Whether another site had the browser send this: a form there, a script there.
    pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
            return true;
        }
        let host = text("host").unwrap_or_default();
        text("origin").is_some_and(|origin| {
            let of = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            of != Some(host)
        })
    }

    /// Who asks.
    pub(super) fn who(&self, headers: &HeaderMap, now: Instant) -> Who {
        if !self.has_login() {
            return Who::Onlooker;
        }
        let Some(key) = cookie(headers).map(digest) else {
            return Who::Stranger;
        };
        let state = self.state.lock().expect("nothing panics under this lock");
        match state.logins.get(&key) {
            Some(login) if now.saturating_duration_since(login.since) < LOGIN_FOR => Who::Operator(login.csrf.clone()),
            Some(_) | None => Who::Stranger,
        }
    }

    /// Whether a machine may read the metrics. People who may look may read them too.
    pub(super) fn may_measure(&self, headers: &HeaderMap, now: Instant) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match (&self.config.metrics_token, bearer) {
            (Some(token), Some(found)) if is_same(token, found) => true,
            (Some(_), _) => matches!(self.who(headers, now), Who::Operator(_)),
            (None, _) => self.who(headers, now) != Who::Stranger,
        }
    }

    /// A try to log in.
    pub(super) fn log_in(&self, peer: IpAddr, found: &str, now: Instant) -> std::io::Result<Tried> {
        let Some(token) = &self.config.token else {
            return Ok(Tried::Wrong);
        };
        let mut state = self.state.lock().expect("nothing panics under this lock");
        let failures = state.failures.entry(peer).or_default();
        failures.retain(|at| now.saturating_duration_since(*at) < TRIES_WITHIN);
        if failures.len() >= TRIES_MAX {
            return Ok(Tried::Wait);
        }
        if !is_same(token, found) {
            failures.push(now);
            self.failed.fetch_add(1, Ordering::Relaxed);
            bound_failures(&mut state.failures);
            return Ok(Tried::Wrong);
        }
        state.failures.remove(&peer);
        state
            .logins
            .retain(|_, login| now.saturating_duration_since(login.since) < LOGIN_FOR);
        if state.logins.len() >= LOGINS_MAX {
            let oldest = state
                .logins
                .iter()
                .min_by_key(|(_, login)| login.since)
                .map(|(key, _)| *key);
            oldest.map(|key| state.logins.remove(&key));
        }
        let (value, csrf) = (random()?, random()?);
        state.logins.insert(digest(&value), Login { since: now, csrf });
        Ok(Tried::Welcome(value))
    }

    /// Ends a login.
    pub(super) fn log_out(&self, headers: &HeaderMap) {
        if let Some(key) = cookie(headers).map(digest) {
            let mut state = self.state.lock().expect("nothing panics under this lock");
            state.logins.remove(&key);
        }
    }
}

fn bound_failures(failures: &mut BTreeMap<IpAddr, Vec<Instant>>) {
    if failures.len() > ADDRESSES_MAX {
        let last = |times: &Vec<Instant>| times.last().copied();
        let oldest = failures
            .iter()
            .min_by_key(|(_, times)| last(times))
            .map(|(peer, _)| *peer);
        oldest.map(|peer| failures.remove(&peer));
    }
}

/// Hashes first: neither content nor length shows in the time it takes.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    digest(one).ct_eq(&digest(other)).into()
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn random() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(Hash(bytes).to_string())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(token: Option<&str>) -> Guard {
        Guard::new(PageConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            hosts: vec!["gw.campus.example".to_owned()],
            token: token.map(ToOwned::to_owned),
            metrics_token: None,
        })
    }

    fn headers(rows: &[(&str, &str)]) -> HeaderMap {
        let row = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        rows.iter().map(row).collect()
    }

    fn welcome(guard: &Guard, peer: IpAddr, now: Instant) -> HeaderMap {
        let Tried::Welcome(value) = guard.log_in(peer, TOKEN, now).unwrap() else {
            panic!("the right token")
        };
        headers(&[("cookie", &format!("other=1; {COOKIE}={value}"))])
    }

    #[test]
    fn a_foreign_name_for_our_address_is_not_ours() {
        let guard = guard(None);
        for (host, expected) in [
            ("localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("192.168.1.5", true),
            ("[::1]:8080", true),
            ("GW.campus.example:8080", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(guard.knows_host(&headers(&[("host", host)])), expected, "{host}");
        }
        assert!(!guard.knows_host(&headers(&[])));
        let mut two = headers(&[("host", "localhost")]);
        two.append("host", HeaderValue::from_static("evil.example"));
        assert!(!guard.knows_host(&two));
    }

    #[test]
    fn another_site_is_told_from_ours() {
        for (rows, expected) in [
            (vec![("host", "localhost:1"), ("origin", "http://localhost:1")], false),
            (vec![("host", "localhost:1")], false),
            (vec![("host", "localhost:1"), ("origin", "http://localhost:2")], true),
            (vec![("host", "localhost:1"), ("origin", "null")], true),
            (vec![("host", "localhost:1"), ("sec-fetch-site", "same-site")], true),
            (vec![("host", "localhost:1"), ("sec-fetch-site", "cross-site")], true),
            (vec![("host", "localhost:1"), ("sec-fetch-site", "same-origin")], false),
        ] {
            assert_eq!(Guard::is_foreign(&headers(&rows)), expected, "{rows:?}");
        }
    }

    #[test]
    fn a_login_ends_by_time_and_by_wish() {
        let (guard, now, peer) = (guard(Some(TOKEN)), Instant::now(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(guard.who(&headers(&[]), now), Who::Stranger);
        let known = welcome(&guard, peer, now);
        assert!(matches!(guard.who(&known, now), Who::Operator(_)));
        assert_eq!(guard.who(&known, now + LOGIN_FOR), Who::Stranger);
        guard.log_out(&known);
        assert_eq!(guard.who(&known, now), Who::Stranger);
    }

    #[test]
    fn tries_are_limited_for_each_address() {
        let (guard, now, peer) = (guard(Some(TOKEN)), Instant::now(), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..TRIES_MAX {
            assert_eq!(guard.log_in(peer, "wrong", now).unwrap(), Tried::Wrong);
        }
        assert_eq!(
            guard.log_in(peer, TOKEN, now).unwrap(),
            Tried::Wait,
            "the right one, too"
        );
        welcome(&guard, IpAddr::from([10, 0, 0, 2]), now);
        welcome(&guard, peer, now + TRIES_WITHIN);
        assert_eq!(guard.failed(), TRIES_MAX as u64);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (guard, now) = (guard(Some(TOKEN)), Instant::now());
        let first = welcome(&guard, IpAddr::from([10, 0, 0, 1]), now);
        for i in 1..=LOGINS_MAX as u64 {
            welcome(&guard, IpAddr::from([10, 0, 0, 1]), now + Duration::from_millis(i));
        }
        assert_eq!(guard.who(&first, now), Who::Stranger, "the oldest went");
        for i in 0..=ADDRESSES_MAX as u32 {
            guard.log_in(IpAddr::from(i.to_be_bytes()), "wrong", now).unwrap();
        }
        let state = guard.state.lock().unwrap();
        assert_eq!((state.logins.len(), state.failures.len()), (LOGINS_MAX, ADDRESSES_MAX));
    }

    #[test]
    fn without_a_login_one_may_look_and_not_decide() {
        assert_eq!(guard(None).who(&headers(&[]), Instant::now()), Who::Onlooker);
    }

    #[test]
    fn metrics_need_their_token_or_a_login() {
        let now = Instant::now();
        assert!(guard(None).may_measure(&headers(&[]), now));
        let mut with = guard(Some(TOKEN));
        assert!(!with.may_measure(&headers(&[]), now));
        assert!(with.may_measure(&welcome(&with, IpAddr::from([10, 0, 0, 1]), now), now));
        with.config.metrics_token = Some("fedcba9876543210".to_owned());
        assert!(with.may_measure(&headers(&[("authorization", "Bearer fedcba9876543210")]), now));
        assert!(!with.may_measure(&headers(&[("authorization", "Bearer 0123456789abcdef")]), now));
    }
}
