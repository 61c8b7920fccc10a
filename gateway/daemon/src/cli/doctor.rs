//! `holdfast doctor`: what is wrong on this machine, and what to do. It changes nothing, and works whether the gateway runs
//! or not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use carrier::tls::ServerTls;
use proto::message::ClockQuality;
use serde_json::{Value, json};

use super::{
    Place, asked, block_on,
    show::{self, Paint, Tone},
};
use crate::{
    clock::Clock,
    cloud::fence::remedy,
    config::{self, CloudConfig, Config, DeviceSide, DeviceTls},
    control::{Query, socket_path},
    disk, exit,
};

/// A certificate that ends within so many days is worth a warning.
const CERTIFICATE_DAYS: i64 = 30;
/// How long a cloud may take, in s.
const REACH_S: u16 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Careful,
            Self::Problem => Tone::Bad,
        }
    }
}

/// What was looked at, what was found and what to do.
struct Finding {
    what: String,
    verdict: Verdict,
    found: String,
    remedy: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: impl Into<String>, verdict: Verdict, found: impl ToString, remedy: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            verdict,
            found: found.to_string(),
            remedy: remedy.into(),
        });
    }

    fn good(&mut self, what: impl Into<String>, found: impl ToString) {
        self.add(what, Verdict::Ok, found, "");
    }

    fn worst(&self) -> Verdict {
        let has = |verdict| self.0.iter().any(|finding| finding.verdict == verdict);
        if has(Verdict::Problem) {
            Verdict::Problem
        } else if has(Verdict::Warning) {
            Verdict::Warning
        } else {
            Verdict::Ok
        }
    }

    fn text(&self, paint: Paint) -> String {
        let line = |finding: &Finding| {
            let verdict = paint.tone(finding.verdict.tone(), &format!("{:<8}", finding.verdict.word()));
            let mut line = format!("{verdict} {}: {}\n", finding.what, finding.found);
            if !finding.remedy.is_empty() {
                line += &format!("{:8} -> {}\n", "", finding.remedy);
            }
            line
        };
        self.0.iter().map(line).collect()
    }

    fn json(&self) -> Value {
        let row = |finding: &Finding| {
            json!({
                "what": finding.what,
                "verdict": finding.verdict.word().to_lowercase(),
                "found": finding.found,
                "remedy": finding.remedy,
            })
        };
        self.0.iter().map(row).collect()
    }
}

pub(super) fn run(place: &Place, json: bool) -> ExitCode {
    let mut findings = Findings::default();
    clock(&mut findings);
    let config = config::load(&place.config, place.secrets.as_deref());
    let code = match &config {
        Ok(config) => {
            let devices = config.core.devices.len();
            findings.good(
                "configuration",
                format!("{}, {devices} devices", place.config.display()),
            );
            site(&mut findings, config);
            exit::UNAVAILABLE
        }
        Err(error) => {
            let remedy = match error {
                config::ConfigError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                    "make one: holdfast init"
                }
                config::ConfigError::Read { .. } => "look as root, or as the gateway's user",
                config::ConfigError::Permissions { .. } => "nobody but the owner may read the secrets",
                config::ConfigError::Form { .. } | config::ConfigError::Value { .. } => {
                    "correct the file; the example that comes with holdfast names every key"
                }
            };
            findings.add("configuration", Verdict::Problem, error, remedy);
            exit::CONFIG
        }
    };
    if json {
        show::print(&format!("{}\n", findings.json()));
    } else {
        show::print(&findings.text(Paint::stdout()));
    }
    match findings.worst() {
        Verdict::Ok | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Problem => ExitCode::from(code),
    }
}

fn clock(findings: &mut Findings) {
    match Clock::start().now().quality {
        ClockQuality::Synchronised => findings.good("clock", "set from the network"),
        ClockQuality::Unknown => findings.add(
            "clock",
            Verdict::Warning,
            "it was never set",
            "sessions go on; time of use is not charged. Connect a time server: timedatectl set-ntp true",
        ),
        ClockQuality::Informative | ClockQuality::Relative => findings.add(
            "clock",
            Verdict::Warning,
            "nothing says that it was set from the network",
            "time of use is not charged until then. Is systemd-timesyncd running? timedatectl set-ntp true",
        ),
    }
}

fn site(findings: &mut Findings, config: &Config) {
    let running = asked(&config.dir, &Query::Status);
    store(findings, config);
    disk(findings, config);
    gateway(findings, config, &running);
    port(findings, config, running.is_ok());
    if let DeviceSide::Embedded { tls: Some(tls), .. } = &config.device_side {
        listener("port for devices with TLS", findings, tls.listen, running.is_ok());
        device_certificates(findings, tls);
    }
    let clouds = config.link.as_ref().map_or(&[][..], |link| &link.clouds);
    if clouds.is_empty() {
        findings.good("clouds", "none is configured: the site decides alone");
    }
    for cloud in clouds {
        certificates(findings, cloud);
        reach(findings, cloud);
    }
}

fn store(findings: &mut Findings, config: &Config) {
    let dir = config.dir.display().to_string();
    let what = "journal's directory";
    let metadata = match std::fs::metadata(&config.dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "it is made at the first start; or: holdfast init";
            return findings.add(what, Verdict::Warning, format!("{dir}: {error}"), remedy);
        }
        Err(error) => {
            let remedy = "look as root, or as the gateway's user";
            return findings.add(what, Verdict::Problem, format!("{dir}: {error}"), remedy);
        }
    };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 == 0 {
        findings.good(what, format!("{dir}, of user {}, mode {mode:o}", metadata.uid()));
    } else {
        let remedy = format!("chmod o-w {dir}");
        findings.add(
            what,
            Verdict::Problem,
            format!("{dir}: anybody may write, mode {mode:o}"),
            remedy,
        );
    }
}

fn disk(findings: &mut Findings, config: &Config) {
    // The directory that will be made is on the disk of the one above it.
    let there = config.dir.ancestors().find(|dir| dir.exists());
    let free_bytes = there.map_or(Err(io::ErrorKind::NotFound.into()), disk::free_bytes);
    match free_bytes {
        Err(error) => findings.add("disk", Verdict::Problem, error, "is it mounted?"),
        Ok(free_bytes) => {
            let (free, reserve) = (free_bytes >> 20, config.reserve_bytes >> 20);
            let found = format!("{free} MiB free, {reserve} MiB are kept as a reserve");
            match free_bytes {
                _ if free_bytes <= config.reserve_bytes => {
                    let remedy = "no new unsecured session begins: make room on this disk, or lower store.reserve_mib";
                    findings.add("disk", Verdict::Problem, found, remedy);
                }
                _ if free_bytes <= config.reserve_bytes.saturating_mul(4) => {
                    findings.add(
                        "disk",
                        Verdict::Warning,
                        found,
                        "make room before the reserve is reached",
                    );
                }
                _ => findings.good("disk", found),
            }
        }
    }
}

fn gateway(findings: &mut Findings, config: &Config, running: &io::Result<Value>) {
    let path = socket_path(&config.dir);
    let status = match running {
        Ok(status) => status,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "ask as root, or set [control] group and be a member of it",
                io::ErrorKind::TimedOut => {
                    let remedy = "it hangs; why: journalctl -u holdfast; start it again: systemctl restart holdfast";
                    let found = format!("{}: it runs and does not answer", path.display());
                    return findings.add("gateway", Verdict::Problem, found, remedy);
                }
                _ => "start it: systemctl start holdfast; why it stopped: journalctl -u holdfast",
            };
            return findings.add(
                "gateway",
                Verdict::Warning,
                format!("{}: {error}", path.display()),
                remedy,
            );
        }
    };
    if let Some(error) = status["error"].as_str() {
        return findings.add("gateway", Verdict::Problem, error, "ask as root");
    }
    let up_s = status["up_s"].as_u64().unwrap_or(0);
    findings.good("gateway", format!("it runs and answers, up {}", show::span(up_s)));
    if status["balanced"] != true {
        let remedy = "keep a backup now (holdfast backup), and look: holdfast ledger verify";
        findings.add("books", Verdict::Problem, "debits and credits differ", remedy);
    }
    if status["reload"]["failed"] == true {
        let why = status["reload"]["why"].as_str().unwrap_or("no reason is told");
        let remedy =
            "the old one is in force. Correct the file, look with holdfast reload --check, then: holdfast reload";
        findings.add(
            "configuration",
            Verdict::Problem,
            format!("not taken over: {why}"),
            remedy,
        );
    }
    for row in status["rings_back"].as_array().into_iter().flatten() {
        let (what, why) = (show::plain(&row["what"]), show::plain(&row["why"]));
        let found = format!(
            "{what} {} went back from its ring: {why}",
            show::plain(&row["revision"])
        );
        let remedy = format!("look: holdfast list diff {what}; push a better one, or: holdfast list adopt {what}");
        findings.add("ring", Verdict::Warning, found, remedy);
    }
    let quarantined = status["quarantined"].as_u64().unwrap_or(0);
    if quarantined > 0 {
        let found = format!("{quarantined} records are quarantined at the hub");
        findings.add(
            "books",
            Verdict::Warning,
            found,
            "look at them: holdfast outbox quarantine",
        );
    }
    let expected = status["epoch_expected"].as_u64().unwrap_or(0);
    if let Some(expected) = u32::try_from(expected).ok().filter(|expected| *expected > 0) {
        let found = format!("the hub takes nothing of this journal and expects epoch {expected}");
        findings.add("epoch", Verdict::Problem, found, remedy(expected));
    }
}

fn port(findings: &mut Findings, config: &Config, is_running: bool) {
    match &config.device_side {
        DeviceSide::Embedded { listen, .. } => listener("port for devices", findings, *listen, is_running),
        DeviceSide::External { broker, .. } => {
            let Some((host, port)) = carrier::split_host_port(broker) else {
                return;
            };
            match block_on(carrier::reach(host, port, None, REACH_S)) {
                Ok(()) => findings.good("broker of the devices", format!("{broker} can be reached")),
                Err(symptom) => {
                    let remedy = "is it running, and reachable from here?";
                    findings.add(
                        "broker of the devices",
                        Verdict::Problem,
                        format!("{broker}: {symptom}"),
                        remedy,
                    );
                }
            }
        }
    }
}

/// Whether a port is had by whoever shall have it.
fn listener(what: &'static str, findings: &mut Findings, listen: SocketAddr, is_running: bool) {
    match TcpListener::bind(listen) {
        Ok(_) if is_running => {
            let remedy = "it runs with another configuration than this; start it again";
            let found = format!("the gateway runs, and {listen} is free");
            findings.add(what, Verdict::Problem, found, remedy);
        }
        Ok(_) => findings.good(what, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            findings.good(what, format!("{listen} is in use, and the gateway runs"));
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let remedy = format!("another program has it; find it: ss -ltnp 'sport = :{}'", listen.port());
            findings.add(what, Verdict::Problem, format!("{listen}: {error}"), remedy);
        }
        Err(error) => {
            let remedy = "correct it in [devices]: an address of this machine, or 0.0.0.0";
            findings.add(what, Verdict::Problem, format!("{listen}: {error}"), remedy);
        }
    }
}

/// What devices are shown, and who may sign theirs.
fn device_certificates(findings: &mut Findings, tls: &DeviceTls) {
    let what = "TLS files for devices";
    match ServerTls::new(tls.files.clone()).and_then(|server| server.validity()) {
        Ok(own) => {
            let (verdict, found) = expiry(own.days_left(now_s()));
            let remedy = match verdict {
                Verdict::Ok => "",
                Verdict::Warning | Verdict::Problem => {
                    "put a new certificate into the same files; it is used within a minute"
                }
            };
            findings.add(what, verdict, format!("{}: {found}", own.subject), remedy);
        }
        Err(error) => findings.add(
            what,
            Verdict::Problem,
            error,
            "the gateway does not start like this: correct the files named in [devices.tls]",
        ),
    }
}

/// In s since 1970 UTC, as this machine has it.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn certificates(findings: &mut Findings, cloud: &CloudConfig) {
    let Some(tls) = &cloud.road.tls else { return };
    let what = format!("TLS files of cloud {}", cloud.name);
    let status = tls.status();
    if let Some(problem) = status.problem {
        return findings.add(
            what,
            Verdict::Problem,
            problem,
            "correct the files named in [cloud.tls]",
        );
    }
    match status.identity {
        None => findings.good(what, "good; no certificate of our own"),
        Some(own) => {
            let (verdict, found) = expiry(own.days_left(now_s()));
            let remedy = match verdict {
                Verdict::Ok => "",
                Verdict::Warning | Verdict::Problem => {
                    "put a new certificate into the same files; it is used from the next connection on"
                }
            };
            findings.add(what, verdict, format!("{}: {found}", own.subject), remedy);
        }
    }
}

fn expiry(days: i64) -> (Verdict, String) {
    match days {
        ..0 => (Verdict::Problem, format!("expired {} days ago", -days)),
        0..=CERTIFICATE_DAYS => (Verdict::Warning, format!("expires in {days} days")),
        _ => (Verdict::Ok, format!("good for {days} days")),
    }
}

/// The site goes on without its clouds, so one that cannot be reached is a warning.
fn reach(findings: &mut Findings, cloud: &CloudConfig) {
    let what = format!("cloud {}", cloud.name);
    let address = endpoint(cloud);
    let Some((host, port)) = carrier::split_host_port(&address) else {
        return findings.add(
            what,
            Verdict::Problem,
            format!("{address} is not host:port"),
            "correct [[cloud]]",
        );
    };
    match block_on(carrier::reach(host, port, cloud.road.tls.clone(), REACH_S)) {
        Ok(()) => {
            let with = if cloud.road.tls.is_some() { "TCP and TLS" } else { "TCP" };
            findings.good(what, format!("{address} can be reached by {with}"));
        }
        Err(symptom) => findings.add(
            what,
            Verdict::Warning,
            format!("{address}: {symptom}"),
            "the site goes on without it. Look at name, network, firewall and certificates; docs/clouds.md",
        ),
    }
}

/// `host:port` of a cloud; a webhook has a URL instead.
fn endpoint(cloud: &CloudConfig) -> String {
    match &cloud.kind {
        config::CloudKind::Webhook { url, .. } => host_of(url),
        config::CloudKind::Hcp { .. } | config::CloudKind::Alink(_) | config::CloudKind::Aws(_) => {
            cloud.road.broker.clone()
        }
    }
}

fn host_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split('/').next().unwrap_or_default();
    if Path::new(host).as_os_str().is_empty() || carrier::split_host_port(host).is_some() {
        host.to_owned()
    } else {
        format!("{host}:{}", if scheme == "http" { 80 } else { 443 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_told_of_in_time() {
        for (days, verdict) in [
            (-1, Verdict::Problem),
            (0, Verdict::Warning),
            (30, Verdict::Warning),
            (31, Verdict::Ok),
        ] {
            assert_eq!(expiry(days).0, verdict, "{days}");
        }
    }

    #[test]
    fn a_url_has_a_host_and_a_port() {
        for (url, address) in [
            ("https://example.org/hcp", "example.org:443"),
            ("https://example.org:8443", "example.org:8443"),
            ("http://localhost/x", "localhost:80"),
        ] {
            assert_eq!(host_of(url), address);
        }
    }

    #[test]
    fn every_line_that_is_not_good_says_what_to_do() {
        let mut findings = Findings::default();
        findings.good("a", "fine");
        assert_eq!(findings.worst(), Verdict::Ok);
        findings.add("b", Verdict::Warning, "so so", "look");
        assert_eq!(findings.worst(), Verdict::Warning);
        findings.add("c", Verdict::Problem, "bad", "mend");
        assert_eq!(findings.worst(), Verdict::Problem);
        let text = findings.text(Paint::none());
        assert_eq!(
            text,
            "ok       a: fine\nwarning  b: so so\n         -> look\nPROBLEM  c: bad\n         -> mend\n"
        );
        assert_eq!(findings.json()[2]["verdict"], "problem");
    }
}
