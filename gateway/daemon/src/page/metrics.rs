//! How the gateway is, in Prometheus' text format. Every family stands in [`METRICS`], every label has few values, none of
//! them an id: sessions, tokens and devices are no labels. `docs/metrics.md` explains each.

use std::fmt::Write as _;

use proto::message::RefusalReason;
use serde_json::Value;

use super::{day::Counts, look::STATES};

/// What scrapers are told this is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name: unit last, `_total` for what only rises.
    pub name: &'static str,
    /// gauge or counter.
    pub kind: &'static str,
    /// One line.
    pub help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    let kind = "gauge";
    Metric { name, kind, help }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    let kind = "counter";
    Metric { name, kind, help }
}

/// Every family there is, in the order in which they are told.
pub const METRICS: [Metric; 43] = [
    gauge("holdfast_build_info", "Always 1; the version is a label."),
    gauge("holdfast_up_seconds", "Time since the gateway started."),
    gauge("holdfast_boot", "Number of this start of the gateway."),
    gauge(
        "holdfast_capability_mode",
        "1 for the mode in which the capability is, 0 for the others.",
    ),
    gauge(
        "holdfast_capability_mode_seconds",
        "How long the capability has been in its mode.",
    ),
    counter(
        "holdfast_capability_outages_total",
        "Changes of a capability into LOCAL, in the journal.",
    ),
    gauge(
        "holdfast_cloud_healthy",
        "1 if the operator's backend itself was heard not long ago.",
    ),
    gauge("holdfast_cloud_link_up", "1 if a link to the hub stands."),
    gauge("holdfast_mass_denial", "1 while no unsigned denial counts."),
    gauge("holdfast_tokens_denied", "Listed tokens that the cloud denies."),
    gauge("holdfast_devices", "Devices in the configuration."),
    gauge("holdfast_devices_connected", "Devices with an open connection."),
    gauge(
        "holdfast_outlets",
        "Outlets by the state that their device told last; away if it is not connected.",
    ),
    gauge("holdfast_sessions_open", "Sessions whose money is held."),
    counter("holdfast_grants_total", "Grants, in the journal."),
    counter("holdfast_refusals_total", "Refusals by reason, in the journal."),
    counter(
        "holdfast_captured_minor_units_total",
        "Money captured, in minor units of the currency, in the journal.",
    ),
    gauge(
        "holdfast_exposure_minor_units",
        "Money at the site's risk, in minor units of the currency.",
    ),
    gauge(
        "holdfast_budget_left_minor_units",
        "What may still be put at risk, in minor units of the currency.",
    ),
    gauge(
        "holdfast_held_minor_units",
        "Money held for sessions, in minor units of the currency.",
    ),
    gauge(
        "holdfast_leased_minor_units",
        "What is left of the leases, in minor units of the currency.",
    ),
    gauge("holdfast_book_balanced", "1 if the book balances."),
    gauge("holdfast_outbox_records", "Ledger records without a receipt."),
    gauge(
        "holdfast_outbox_wait_seconds",
        "How long records have waited with none of them acknowledged.",
    ),
    gauge(
        "holdfast_outbox_quarantined_records",
        "Records that the hub cannot book and keeps aside.",
    ),
    gauge("holdfast_remarks", "Records that the hub did not simply book."),
    counter(
        "holdfast_ledger_records_total",
        "Ledger records written, in this epoch.",
    ),
    counter(
        "holdfast_ledger_records_receipted_total",
        "Ledger records with a receipt, in this epoch.",
    ),
    counter("holdfast_journal_records_total", "Records of the journal."),
    gauge(
        "holdfast_disk_scarce",
        "1 if the disk's reserve is reached: no new unsecured session begins.",
    ),
    gauge("holdfast_clock_synchronised", "1 if the network vouches for the clock."),
    gauge("holdfast_artifact_revision", "Revision of what is trusted; 0: none."),
    gauge(
        "holdfast_artifact_set_aside",
        "1 if one of this kind waits for an operator's decision.",
    ),
    gauge(
        "holdfast_ring_reach",
        "How far what is new is tried: 0 nowhere, 1 by a device, 2 by its kind, 3 by the site.",
    ),
    gauge(
        "holdfast_ring_back",
        "1 if what was tried went back and still lies aside.",
    ),
    gauge(
        "holdfast_configuration_refused",
        "1 if the configuration was read again and not taken over.",
    ),
    gauge("holdfast_list_tokens", "Id tokens in the active list."),
    counter(
        "holdfast_messages_dropped_total",
        "Messages of devices that were dropped, since the start.",
    ),
    counter(
        "holdfast_artifacts_rejected_total",
        "Artifacts that were not believed, since the start.",
    ),
    gauge("holdfast_epoch", "Epoch of the journal."),
    gauge(
        "holdfast_fenced",
        "1 if the hub expects another epoch and takes nothing.",
    ),
    gauge("holdfast_reservations", "Outlets that are kept free for somebody."),
    counter(
        "holdfast_page_logins_failed_total",
        "Wrong tokens tried on the page, since the start.",
    ),
];

struct Text(String);

impl Text {
    /// Begins a family.
    fn family(&mut self, name: &'static str) {
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric = metric.expect("a test renders every family, and looks for each in the table");
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: i64) {
        self.0.push_str(name);
        for (i, (label, of)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let escaped = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{before}{label}=\"{escaped}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A family of one; nothing, if the value is not known.
    fn one(&mut self, name: &'static str, value: Option<i64>) {
        self.each(name, std::iter::once(([], value)));
    }

    /// A family of several; those that are not known are left out.
    fn each<'a, const N: usize>(
        &mut self,
        name: &'static str,
        rows: impl Iterator<Item = ([(&'a str, &'a str); N], Option<i64>)>,
    ) {
        self.family(name);
        for (labels, value) in rows {
            if let Some(value) = value {
                self.sample(name, &labels, value);
            }
        }
    }
}

const CAPABILITIES: [&str; 3] = ["authorize", "commit", "control"];
const MODES: [&str; 4] = ["ONLINE", "SUSPECT", "LOCAL", "RECOVERING"];
const KINDS: [&str; 3] = ["charger", "washer", "dispenser"];

/// All of them. `answer`: of [`crate::control::Query::Page`]. `counts`: none while the journal is read for the first time;
/// then what is counted in it is left out, so that no counter seems to fall.
pub(super) fn render(answer: &Value, counts: Option<&Counts>, logins_failed: u64) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    let status = &answer["status"];
    let version = env!("CARGO_PKG_VERSION");
    text.each(
        "holdfast_build_info",
        std::iter::once(([("version", version)], Some(1))),
    );
    text.one("holdfast_up_seconds", number(&status["up_s"]));
    text.one("holdfast_boot", number(&status["boot"]));
    cloud(&mut text, status, counts);
    devices(&mut text, answer);
    sessions(&mut text, answer, counts);
    money(&mut text, status);
    outbox(&mut text, status);
    trust(&mut text, status);
    text.one("holdfast_messages_dropped_total", number(&status["messages_dropped"]));
    text.one(
        "holdfast_artifacts_rejected_total",
        number(&status["artifacts_rejected"]),
    );
    text.one("holdfast_epoch", number(&status["epoch"]));
    text.one(
        "holdfast_fenced",
        number(&status["epoch_expected"]).map(|expected| i64::from(expected != 0)),
    );
    let reservations = status["reservations"].as_array();
    text.one("holdfast_reservations", reservations.map(|rows| rows.len() as i64));
    text.one("holdfast_page_logins_failed_total", i64::try_from(logins_failed).ok());
    text.0
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_bool().map(i64::from))
}

fn cloud(text: &mut Text, status: &Value, counts: Option<&Counts>) {
    let modes = CAPABILITIES.into_iter().flat_map(|capability| {
        let now = status[capability].as_str();
        MODES.into_iter().map(move |mode| {
            let is = now.map(|now| i64::from(now == mode));
            ([("capability", capability), ("mode", mode)], is)
        })
    });
    text.each("holdfast_capability_mode", modes);
    let since = CAPABILITIES.map(|capability| {
        let since_s = &status[format!("{capability}_since_s")];
        ([("capability", capability)], number(since_s))
    });
    text.each("holdfast_capability_mode_seconds", since.into_iter());
    let outages = CAPABILITIES.map(|capability| {
        let count = counts.map(|counts| counts.outages.get(capability).copied().unwrap_or_default() as i64);
        ([("capability", capability)], count)
    });
    text.each("holdfast_capability_outages_total", outages.into_iter());
    text.one("holdfast_cloud_healthy", number(&status["healthy"]));
    text.one("holdfast_cloud_link_up", number(&status["link"]));
    text.one(
        "holdfast_mass_denial",
        Some(i64::from(!status["mass_denial_s"].is_null())),
    );
    text.one("holdfast_tokens_denied", number(&status["tokens_denied"]));
}

/// What the answer says of a kind.
fn of_kind<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    let rows = answer["view"]["kinds"].as_array();
    rows.and_then(|rows| rows.iter().find(|row| row["kind"] == kind))
        .unwrap_or(&Value::Null)
}

fn devices(text: &mut Text, answer: &Value) {
    let by_kind = |field: &'static str| {
        KINDS
            .into_iter()
            .map(move |kind| ([("kind", kind)], number(&of_kind(answer, kind)[field])))
    };
    text.each("holdfast_devices", by_kind("devices"));
    text.each("holdfast_devices_connected", by_kind("connected"));
    let outlets = KINDS.into_iter().flat_map(|kind| {
        let row = of_kind(answer, kind);
        let states = STATES
            .into_iter()
            .map(move |state| (state, number(&row["states"][state])));
        states
            .chain(std::iter::once(("silent", number(&row["silent"]))))
            .map(move |(state, count)| ([("kind", kind), ("state", state)], count))
    });
    text.each("holdfast_outlets", outlets);
}

fn sessions(text: &mut Text, answer: &Value, counts: Option<&Counts>) {
    let open = KINDS.map(|kind| ([("kind", kind)], number(&of_kind(answer, kind)["sessions"])));
    text.each("holdfast_sessions_open", open.into_iter());
    let granted = KINDS.map(|kind| {
        let count = counts.map(|counts| counts.granted.get(kind).copied().unwrap_or_default() as i64);
        ([("kind", kind)], count)
    });
    text.each("holdfast_grants_total", granted.into_iter());
    // Every reason from the start: an alarm on one that comes for the first time needs its zero.
    let refused = REASONS.map(|reason| {
        let count = counts.map(|counts| counts.refused.get(reason.word()).copied().unwrap_or_default() as i64);
        ([("reason", reason.word())], count)
    });
    text.each("holdfast_refusals_total", refused.into_iter());
    let captured = KINDS.map(|kind| {
        let amount = counts.map(|counts| counts.captured.get(kind).copied().unwrap_or_default());
        ([("kind", kind)], amount)
    });
    text.each("holdfast_captured_minor_units_total", captured.into_iter());
}

/// Every reason of this version.
const REASONS: [RefusalReason; 21] = [
    RefusalReason::Other,
    RefusalReason::DeviceState,
    RefusalReason::Revoked,
    RefusalReason::Rate,
    RefusalReason::Replay,
    RefusalReason::Concurrent,
    RefusalReason::OnlineRequired,
    RefusalReason::Unknown,
    RefusalReason::Denied,
    RefusalReason::Invalid,
    RefusalReason::NoCredit,
    RefusalReason::ListExpired,
    RefusalReason::NoTariff,
    RefusalReason::Version,
    RefusalReason::Storage,
    RefusalReason::Reserved,
    RefusalReason::Forged,
    RefusalReason::Elsewhere,
    RefusalReason::Expired,
    RefusalReason::LockedOut,
    RefusalReason::Clock,
];

fn money(text: &mut Text, status: &Value) {
    for (name, field) in [
        ("holdfast_exposure_minor_units", "exposure"),
        ("holdfast_budget_left_minor_units", "budget_left"),
        ("holdfast_held_minor_units", "held"),
        ("holdfast_leased_minor_units", "leased"),
        ("holdfast_book_balanced", "balanced"),
    ] {
        text.one(name, number(&status[field]));
    }
}

fn outbox(text: &mut Text, status: &Value) {
    text.one("holdfast_outbox_records", number(&status["waiting"]));
    text.one("holdfast_outbox_wait_seconds", number(&status["waiting_s"]));
    text.one("holdfast_outbox_quarantined_records", number(&status["quarantined"]));
    let remarks = ["quarantined", "disputed", "adjusted", "aside", "other"].map(|word| {
        let rows = status["remarks"].as_array();
        let count = rows.map(|rows| rows.iter().filter(|row| row["is"] == word).count() as i64);
        ([("remark", word)], count)
    });
    text.each("holdfast_remarks", remarks.into_iter());
    text.one("holdfast_ledger_records_total", number(&status["records"]));
    text.one("holdfast_ledger_records_receipted_total", number(&status["receipted"]));
    text.one("holdfast_journal_records_total", number(&status["journal"]));
    text.one("holdfast_disk_scarce", number(&status["disk_scarce"]));
    let is_synchronised = status["clock"].as_str().map(|word| i64::from(word == "synchronised"));
    text.one("holdfast_clock_synchronised", is_synchronised);
}

/// What the gate may set aside, and rings try.
const STAGED: [&str; 4] = ["list", "tariffs", "policy", "config"];
/// How far a ring reaches, from the narrowest on.
const REACHES: [&str; 3] = ["device", "kind", "site"];

fn trust(text: &mut Text, status: &Value) {
    let revisions = ["list", "revocations", "tariffs", "policy"];
    let rows = revisions.map(|artifact| {
        let revision = &status[format!("{artifact}_revision")];
        ([("artifact", artifact)], number(revision))
    });
    text.each("holdfast_artifact_revision", rows.into_iter());
    let row = |field: &str, artifact: &str| {
        let rows = status[field].as_array();
        rows.map(|rows| rows.iter().find(|row| row["what"] == artifact))
    };
    let aside = STAGED.map(|artifact| {
        let revision = number(&status[format!("{artifact}_aside")]);
        // What is on its way needs nobody.
        let is_tried = row("rings", artifact).flatten().is_some();
        let waits = revision.map(|revision| i64::from(revision != 0 && !is_tried));
        ([("artifact", artifact)], waits)
    });
    text.each("holdfast_artifact_set_aside", aside.into_iter());
    let reach = STAGED.map(|artifact| {
        let reach = row("rings", artifact).map(|row| {
            let word = row.and_then(|row| row["reach"].as_str());
            let at = word.and_then(|word| REACHES.iter().position(|reach| *reach == word));
            at.map_or(0, |at| at as i64 + 1)
        });
        ([("artifact", artifact)], reach)
    });
    text.each("holdfast_ring_reach", reach.into_iter());
    let back = STAGED.map(|artifact| {
        let back = row("rings_back", artifact).map(|row| i64::from(row.is_some()));
        ([("artifact", artifact)], back)
    });
    text.each("holdfast_ring_back", back.into_iter());
    text.one("holdfast_configuration_refused", number(&status["reload"]["failed"]));
    text.one("holdfast_list_tokens", number(&status["tokens"]));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn families(text: &str) -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        lines.filter_map(|line| line.split(' ').next()).collect()
    }

    #[test]
    fn every_family_is_told_once_and_in_order() {
        let names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(families(&render(&json!({}), None, 0)), names);
    }

    #[test]
    fn names_follow_the_conventions() {
        for Metric { name, kind, help } in METRICS {
            assert!(name.starts_with("holdfast_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            for unit in ["_ms", "_minutes", "_kib", "_percent"] {
                assert!(!name.contains(unit), "{name} is not in a base unit");
            }
        }
    }

    #[test]
    fn labels_are_escaped_and_the_unknown_is_left_out() {
        let mut text = Text(String::new());
        let rows = [([("kind", "a\"b\\c\nd")], Some(-1)), ([("kind", "e")], None)];
        text.each("holdfast_devices", rows.into_iter());
        assert!(
            text.0.ends_with("\nholdfast_devices{kind=\"a\\\"b\\\\c\\nd\"} -1\n"),
            "{}",
            text.0
        );
    }

    #[test]
    fn every_reason_has_its_zero() {
        let codes: Vec<_> = (0..=u8::MAX).map(RefusalReason::from_code).collect();
        let known: std::collections::BTreeSet<_> = codes.iter().map(|reason| reason.word()).collect();
        assert_eq!(known, REASONS.iter().map(|reason| reason.word()).collect());
    }
}
