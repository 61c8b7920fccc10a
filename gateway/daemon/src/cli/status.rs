//! `holdfast status`: one screen.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use serde_json::Value;

use super::{
    asked, fail, no_daemon,
    show::{self, Paint, Tone, plain, span},
};
use crate::{cloud::fence::remedy, control::Query, disk, exit};

/// Bytes that a waiting record takes on the disk, rounded up from what an evening of sessions wrote: for an estimate.
const RECORD_BYTES: u64 = 1_024;
/// What a busy hour writes while the cloud is away: the campus of 50,000 sessions a day, at four records a session.
const RECORDS_AN_HOUR: u64 = 50_000 * 4 / 24;

/// Asks and shows.
pub(super) fn run(dir: &Path, json: bool) -> ExitCode {
    let answer = match asked(dir, &Query::Status) {
        Ok(answer) => answer,
        Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
    };
    if json || answer.get("error").is_some() {
        return show::answer(&answer, json);
    }
    let mut text = screen(&answer, disk::free_bytes(dir).ok(), Paint::stdout());
    let expected = answer["epoch_expected"]
        .as_u64()
        .and_then(|epoch| epoch.try_into().ok());
    if let Some(expected) = expected.filter(|expected| *expected > 0) {
        let _ = writeln!(text, "\n{}", remedy(expected));
    }
    show::print(&text);
    ExitCode::SUCCESS
}

/// Hours until the disk is full, at the pace of a busy site whose cloud is away.
fn hours_left(free_bytes: u64) -> u64 {
    free_bytes / (RECORDS_AN_HOUR * RECORD_BYTES)
}

fn screen(status: &Value, free_bytes: Option<u64>, paint: Paint) -> String {
    let mut out = String::new();
    let text = |field: &str| plain(&status[field]);
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    let mut line = |name: &str, rest: String| {
        let _ = writeln!(out, "{name:<11} {rest}");
    };
    line(
        "gateway",
        format!(
            "up {}, boot {}, epoch {}, clock {}, books {}",
            span(number("up_s")),
            text("boot"),
            text("epoch"),
            text("clock"),
            match status["balanced"].as_bool() {
                Some(true) => paint.tone(Tone::Good, "balanced"),
                _ => paint.tone(Tone::Bad, "NOT BALANCED"),
            }
        ),
    );
    for capability in ["authorize", "commit", "control"] {
        let mode = text(capability);
        let tone = match mode.as_str() {
            "ONLINE" => Tone::Good,
            "LOCAL" => Tone::Bad,
            _ => Tone::Careful,
        };
        let since = span(number(&format!("{capability}_since_s")));
        let evidence = text(&format!("{capability}_evidence"));
        line(
            capability,
            format!("{} for {since} ({evidence})", paint.tone(tone, &mode)),
        );
    }
    line(
        "devices",
        format!(
            "{} connected of {}; {} blocked; firmware: {} updates open",
            text("devices_connected"),
            text("devices"),
            number("devices_blocked"),
            number("updates_open"),
        ),
    );
    line("sessions", format!("{} open", text("sessions_open")));
    line(
        "exposure",
        format!(
            "{} at risk, {} left of the budget; {} held, {} leased",
            text("exposure"),
            text("budget_left"),
            text("held"),
            text("leased")
        ),
    );
    line("outbox", outbox(status, paint));
    line("disk", disk_line(status, free_bytes, paint));
    line(
        "trust",
        format!(
            "list {}, revocations {}, tariffs {}, policy {}{}",
            text("list_revision"),
            text("revocations_revision"),
            text("tariffs_revision"),
            text("policy_revision"),
            aside(status, paint),
        ),
    );
    for row in status["rings"].as_array().into_iter().flatten() {
        line("ring", paint.tone(Tone::Careful, &ring(row)));
    }
    for row in status["rings_back"].as_array().into_iter().flatten() {
        let (what, revision) = (plain(&row["what"]), plain(&row["revision"]));
        let text = format!(
            "{what} {revision} went back: {}; holdfast list diff {what}",
            plain(&row["why"])
        );
        line("ring", paint.tone(Tone::Bad, &text));
    }
    if status["reload"]["failed"] == true {
        let text = format!("the file was not taken over: {}", plain(&status["reload"]["why"]));
        line("config", paint.tone(Tone::Bad, &text));
    }
    for cloud in status["clouds"].as_array().into_iter().flatten() {
        line("cloud", of_cloud(cloud, paint));
    }
    if status["clouds"].as_array().is_none_or(Vec::is_empty) {
        line("cloud", "none is configured: the site decides alone".to_owned());
    }
    for row in status["reservations"].as_array().into_iter().flatten() {
        line("reserved", reservation(row));
    }
    out
}

fn outbox(status: &Value, paint: Paint) -> String {
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    let mut text = match number("waiting") {
        0 => "empty: every record has its receipt".to_owned(),
        waiting => format!(
            "{waiting} of {} records wait, for {}",
            number("records"),
            span(number("waiting_s"))
        ),
    };
    if number("quarantined") > 0 {
        let quarantined = format!("; {} quarantined at the hub", number("quarantined"));
        text += &paint.tone(Tone::Bad, &quarantined);
    }
    text
}

fn disk_line(status: &Value, free_bytes: Option<u64>, paint: Paint) -> String {
    let Some(free_bytes) = free_bytes else {
        return "its free space cannot be read".to_owned();
    };
    let mut text = format!(
        "{} MiB free, enough for {} at 50,000 sessions a day without a cloud",
        free_bytes >> 20,
        span(hours_left(free_bytes) * 3600)
    );
    if status["journal_oldest"].as_u64() > Some(1) {
        text += &format!("; records are kept from {} on", plain(&status["journal_oldest"]));
    }
    if status["disk_scarce"] == true {
        text += &paint.tone(
            Tone::Bad,
            "; the reserve is reached: no new unsecured session begins; make room",
        );
    }
    text
}

/// What the gate holds back, and how to look at it.
fn aside(status: &Value, paint: Paint) -> String {
    let held = [
        ("list_aside", "list"),
        ("tariffs_aside", "tariffs"),
        ("policy_aside", "policy"),
    ];
    // What is in a ring, or came back from it, has a line of its own.
    let rings = ["rings", "rings_back"]
        .map(|field| status[field].as_array().map_or(&[][..], Vec::as_slice))
        .concat();
    let held = held.into_iter().filter(|(field, _)| status[*field].as_u64() > Some(0));
    let held = held.filter(|(_, word)| !rings.iter().any(|row| row["what"] == *word));
    let words = held.map(|(field, word)| {
        let text = format!(
            "; {word} {} is set aside: holdfast list diff {word}",
            plain(&status[field])
        );
        paint.tone(Tone::Careful, &text)
    });
    words.collect()
}

/// One cloud, in a line for people.
fn of_cloud(cloud: &Value, paint: Paint) -> String {
    let text = |field: &str| plain(&cloud[field]);
    let since = span(cloud["since_s"].as_u64().unwrap_or(0));
    let stage = text("stage");
    let tone = if stage == "greeted" { Tone::Good } else { Tone::Careful };
    let mut line = format!(
        "{}: {}, {} for {since}",
        text("name"),
        text("kind"),
        paint.tone(tone, &stage)
    );
    if cloud["goes_first"] == true {
        line += ", goes first";
    }
    if cloud["doubted"] == true {
        line += &paint.tone(Tone::Bad, ", doubted");
    }
    if !cloud["trouble"].is_null() {
        let ago = span(cloud["trouble_s"].as_u64().unwrap_or(0));
        line += &format!("; {ago} ago: {}", text("trouble"));
    }
    line
}

/// What is tried by some devices, in a line for people.
fn ring(row: &Value) -> String {
    let text = |field: &str| plain(&row[field]);
    let reach = match row["reach"].as_str() {
        Some("device") => format!("by {} alone", text("device")),
        Some("kind") => format!("by every {}", text("kind")),
        _ => "by the whole site".to_owned(),
    };
    let held = if row["held"] == true { ", held" } else { "" };
    format!(
        "{} {} is tried {reach} for {}: {} requests, {} would fare worse{held}",
        text("what"),
        text("revision"),
        span(row["since_s"].as_u64().unwrap_or(0)),
        text("requests"),
        text("worse"),
    )
}

/// One outlet that is kept free, in a line for people.
fn reservation(row: &Value) -> String {
    let text = |field: &str| plain(&row[field]);
    format!(
        "{} outlet {} for token {}, {} s more, by order {}",
        text("device"),
        text("outlet"),
        text("token"),
        text("left_s"),
        text("order"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_says_what_is_wrong_in_its_line() {
        let status = json!({
            "up_s": 3_700, "boot": 3, "epoch": 1, "clock": "synchronised", "balanced": true,
            "authorize": "LOCAL", "authorize_since_s": 125, "authorize_evidence": "no answer, 2 s ago",
            "commit": "ONLINE", "control": "ONLINE", "devices": 7, "devices_connected": 6, "devices_blocked": 1,
            "waiting": 12, "waiting_s": 90, "records": 40, "quarantined": 1, "disk_scarce": true,
            "list_aside": 5, "policy_aside": 3, "reload": {"failed": true, "why": "x.toml: limits.ask_ms: too long"},
            "rings": [{"what": "policy", "revision": 3, "reach": "kind", "device": "w-1", "kind": "washer",
                "since_s": 60, "held": true, "requests": 4, "worse": 1}],
            "rings_back": [{"what": "tariffs", "revision": 9, "why": "2 of 3"}], "clouds": [{"name": "main", "kind": "hcp", "stage": "down", "since_s": 9,
                "trouble": "connection refused", "trouble_s": 2}],
        });
        let text = screen(&status, Some(RECORDS_AN_HOUR * RECORD_BYTES * 30), Paint::none());
        for part in [
            "authorize   LOCAL for 2 min (no answer, 2 s ago)",
            "6 connected of 7; 1 blocked",
            "12 of 40 records wait, for 1 min; 1 quarantined",
            "enough for 1 d 6 h",
            "the reserve is reached",
            "holdfast list diff list",
            "policy 3 is tried by every washer for 1 min: 4 requests, 1 would fare worse, held",
            "tariffs 9 went back: 2 of 3; holdfast list diff tariffs",
            "the file was not taken over: x.toml: limits.ask_ms: too long",
            "main: hcp, down for 9 s; 2 s ago: connection refused",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(text.lines().count() <= 24, "one screen:\n{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
