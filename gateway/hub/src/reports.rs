//! What gateways say of themselves: the last report of each, in memory only. It is telemetry: no decision rests on it,
//! and a hub that starts again waits for the next one.

use std::{
    fmt,
    time::{Duration, Instant},
};

use proto::{
    id::GatewayId,
    link::{Mode, ModeSince, Telemetry},
    money::Money,
};
use serde::{Deserialize, Serialize};

use crate::core::GatewayRow;

/// What was heard of one gateway since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    seen: Option<Instant>,
    report: Option<(Instant, Telemetry)>,
}

impl Heard {
    /// A frame of it was taken.
    pub const fn seen(&mut self, at: Instant) {
        self.seen = Some(at);
    }

    /// Whether it was heard so recently.
    #[must_use]
    pub fn is_within(&self, silence: Duration, now: Instant) -> bool {
        self.seen.is_some_and(|at| now.saturating_duration_since(at) <= silence)
    }

    /// It told how it is. The one before is forgotten.
    pub fn reported(&mut self, at: Instant, report: Telemetry) {
        self.report = Some((at, report));
    }
}

/// One gateway, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Which.
    pub gateway: String,
    /// Whether it is connected and was greeted.
    pub connected: bool,
    /// The epoch expected of it.
    pub epoch: u32,
    /// The last of its records that is committed, in this epoch.
    pub upto: u64,
    /// Its last frame was taken so many seconds ago; none: it was not heard since the hub started.
    pub seen_s: Option<u64>,
    /// Its last report came so many seconds ago; none: it made none since the hub started.
    pub report_s: Option<u64>,
    /// What that report said.
    pub report: Option<Report>,
}

/// A report in words and numbers; money in minor units, times in s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Mode of the capability authorize: `ONLINE`, `SUSPECT`, `LOCAL`, `RECOVERING`, or `unknown`.
    pub authorize: String,
    /// For how long.
    pub authorize_since_s: u64,
    /// Mode of the capability commit.
    pub commit: String,
    /// For how long.
    pub commit_since_s: u64,
    /// Mode of the capability control.
    pub control: String,
    /// For how long.
    pub control_since_s: u64,
    /// Money at risk.
    pub exposure: i64,
    /// How much more may be at risk.
    pub budget_left: i64,
    /// Open sessions.
    pub sessions_open: u32,
    /// Connected devices; none: they are behind a broker, which does not say.
    pub devices_connected: Option<u32>,
    /// Records without a receipt.
    pub waiting: u64,
    /// For how long with none of them receipted.
    pub waiting_s: u64,
    /// Whether the disk's reserve is reached.
    pub disk_scarce: bool,
    /// `unknown`, `informative`, `synchronised` or `relative`.
    pub clock: String,
    /// Revision of the list; 0: none.
    pub list_revision: u64,
    /// Revision of the tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Revision of the policy; 0: none.
    pub policy_revision: u64,
    /// Revision of the revocations; 0: none.
    pub revocations_revision: u64,
    /// Since the gateway's boot.
    pub up_s: u64,
    /// Reports that were shed before this one.
    pub shed: u64,
}

impl GatewayReport {
    /// Of a gateway that the store knows as `row`.
    #[must_use]
    pub fn new(gateway: &GatewayId, row: &GatewayRow, connected: bool, heard: &Heard, now: Instant) -> Self {
        let ago_s = |at: Instant| now.saturating_duration_since(at).as_secs();
        Self {
            gateway: gateway.to_string(),
            connected,
            epoch: row.epoch,
            upto: row.upto,
            seen_s: heard.seen.map(ago_s),
            report_s: heard.report.as_ref().map(|(at, _)| ago_s(*at)),
            report: heard.report.as_ref().map(|(_, report)| Report::from(report)),
        }
    }
}

impl From<&Telemetry> for Report {
    fn from(told: &Telemetry) -> Self {
        let word = |since: &ModeSince| word(since.mode).to_owned();
        Self {
            authorize: word(&told.authorize),
            authorize_since_s: told.authorize.since_s,
            commit: word(&told.commit),
            commit_since_s: told.commit.since_s,
            control: word(&told.control),
            control_since_s: told.control.since_s,
            exposure: told.exposure.0,
            budget_left: told.budget_left.0,
            sessions_open: told.sessions_open,
            devices_connected: told.devices_connected,
            waiting: told.waiting,
            waiting_s: told.waiting_s,
            disk_scarce: told.disk_scarce,
            clock: told.clock.word().to_owned(),
            list_revision: told.list_revision,
            tariffs_revision: told.tariffs_revision,
            policy_revision: told.policy_revision,
            revocations_revision: told.revocations_revision,
            up_s: told.up_s,
            shed: told.shed,
        }
    }
}

const fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Online => "ONLINE",
        Mode::Suspect => "SUSPECT",
        Mode::Local => "LOCAL",
        Mode::Recovering => "RECOVERING",
        Mode::Other => "unknown",
    }
}

impl fmt::Display for GatewayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = if self.connected { "connected" } else { "not connected" };
        write!(
            f,
            "{}: {link}, epoch {}, committed up to record {}",
            self.gateway, self.epoch, self.upto
        )?;
        match self.seen_s {
            Some(seen_s) => write!(f, ", seen {} ago", Span(seen_s))?,
            None => write!(f, ", not heard since the hub started")?,
        }
        match self.report.as_ref().zip(self.report_s) {
            Some((report, report_s)) => write!(f, "\n  reported {} ago:\n{report}", Span(report_s)),
            None if self.seen_s.is_some() => write!(f, "\n  no report since the hub started"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  authorize {} for {}, commit {} for {}, control {} for {}",
            self.authorize,
            Span(self.authorize_since_s),
            self.commit,
            Span(self.commit_since_s),
            self.control,
            Span(self.control_since_s)
        )?;
        let devices = self
            .devices_connected
            .map_or_else(|| "behind a broker".to_owned(), |count| format!("{count} connected"));
        writeln!(
            f,
            "  money at risk {}, budget left {}; open sessions {}; devices {devices}",
            Money(self.exposure),
            Money(self.budget_left),
            self.sessions_open
        )?;
        writeln!(
            f,
            "  records waiting {}, unreceipted for {}; disk {}; clock {}; up for {}",
            self.waiting,
            Span(self.waiting_s),
            if self.disk_scarce { "at its reserve" } else { "has room" },
            self.clock,
            Span(self.up_s)
        )?;
        write!(
            f,
            "  list {}, tariffs {}, policy {}, revocations {}; reports shed before it {}",
            self.list_revision, self.tariffs_revision, self.policy_revision, self.revocations_revision, self.shed
        )
    }
}

/// A time in the largest unit of which it has two.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: Duration = Duration::from_secs(60);
        let Self(seconds) = *self;
        let (minute, hour, day) = (MINUTE.as_secs(), 60 * MINUTE.as_secs(), 24 * 60 * MINUTE.as_secs());
        match seconds {
            s if s >= 2 * day => write!(f, "{} d", s / day),
            s if s >= 2 * hour => write!(f, "{} h", s / hour),
            s if s >= 2 * minute => write!(f, "{} min", s / minute),
            s => write!(f, "{s} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::message::ClockQuality;

    use super::*;

    fn told() -> Telemetry {
        let since = |mode, since_s| ModeSince { mode, since_s };
        Telemetry {
            authorize: since(Mode::Online, 86_400),
            commit: since(Mode::Other, 119),
            control: since(Mode::Local, 45),
            exposure: Money(12_300),
            budget_left: Money(187_700),
            sessions_open: 17,
            devices_connected: Some(41),
            waiting: 3,
            waiting_s: 1,
            disk_scarce: false,
            clock: ClockQuality::Synchronised,
            list_revision: 31,
            tariffs_revision: 4,
            policy_revision: 12,
            revocations_revision: 6,
            up_s: 200_000,
            shed: 2,
        }
    }

    #[test]
    fn a_gateway_is_told_in_words() {
        let start = Instant::now();
        let row = GatewayRow {
            epoch: 1,
            upto: 4_712,
            ..GatewayRow::default()
        };
        let gateway = GatewayId::new("gw-1").expect("a name");
        let text = |connected, heard: &Heard, after_s| {
            let now = start + Duration::from_secs(after_s);
            GatewayReport::new(&gateway, &row, connected, heard, now).to_string()
        };
        let mut heard = Heard::default();
        assert_eq!(
            text(false, &heard, 9),
            "gw-1: not connected, epoch 1, committed up to record 4712, not heard since the hub started"
        );
        heard.seen(start);
        assert_eq!(
            text(true, &heard, 119),
            "gw-1: connected, epoch 1, committed up to record 4712, seen 119 s ago\n  no report since the hub started"
        );
        heard.reported(start, Telemetry { shed: 9, ..told() });
        heard.reported(start, told());
        assert_eq!(
            text(true, &heard, 120),
            "gw-1: connected, epoch 1, committed up to record 4712, seen 2 min ago\n  reported 2 min ago:\n  \
             authorize ONLINE for 24 h, commit unknown for 119 s, control LOCAL for 45 s\n  \
             money at risk 123.00, budget left 1877.00; open sessions 17; devices 41 connected\n  \
             records waiting 3, unreceipted for 1 s; disk has room; clock synchronised; up for 2 d\n  \
             list 31, tariffs 4, policy 12, revocations 6; reports shed before it 2"
        );
        let scarce = Telemetry {
            devices_connected: None,
            disk_scarce: true,
            ..told()
        };
        heard.reported(start, scarce);
        let text = text(true, &heard, 1);
        assert!(
            text.contains("devices behind a broker") && text.contains("disk at its reserve"),
            "{text}"
        );
    }
}
