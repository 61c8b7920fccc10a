//! The result for a person: what happened piece by piece, what it amounts to, and whether it is good.

use std::fmt::{self, Write};

use proto::money::Money;

use super::report::{Checked, Report};

/// Longest description of the cloud in the table, in characters.
const CLOUD_CHARS_MAX: usize = 44;
/// Alarms shown.
const ALARMS_SHOWN: usize = 8;

/// Writes the report.
///
/// # Errors
/// As `out` gives it.
pub fn write(out: &mut String, report: &Report) -> fmt::Result {
    head(out, report)?;
    rows(out, report)?;
    sums(out, report)?;
    alarms(out, report)?;
    checks(out, report)
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "{}: {}", report.scenario, report.title)?;
    writeln!(
        out,
        "{} devices, {} users, seed {}\n",
        report.devices, report.users, report.seed
    )
}

fn rows(out: &mut String, report: &Report) -> fmt::Result {
    let cloud_chars = report.rows.iter().map(|row| row.cloud.chars().count());
    let width = cloud_chars.max().unwrap_or(0).clamp(5, CLOUD_CHARS_MAX);
    let modes = report
        .rows
        .iter()
        .map(|row| row.modes.chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    writeln!(
        out,
        "{:>9}  {:width$}  {:modes$}  {:>6}  {:>7}  {:>5}  {:>6}  {:>10}  {:>7}  {:>6}  {:>6}",
        "from", "cloud", "mode", "served", "refused", "good", "p99 ms", "at risk", "outbox", "lies", "hub/s"
    )?;
    for row in &report.rows {
        writeln!(
            out,
            "{:>9}  {:width$}  {:modes$}  {:>6}  {:>7}  {:>5}  {:>6}  {:>10}  {:>7}  {:>6}  {:>6}",
            row.from,
            short(&row.cloud, width),
            row.modes,
            row.served,
            row.refused,
            row.good_refused,
            row.verdict_p99_ms,
            Money(row.exposure_max_minor).to_string(),
            row.records_waiting,
            row.negatives + row.swallowed,
            row.hub_peak_a_second,
        )?;
    }
    writeln!(
        out,
        "\nserved, refused: answers to people; good: refusals of good users within their limits; at risk: most money granted"
    )?;
    writeln!(
        out,
        "on local evidence and not yet acknowledged; outbox: records waiting; lies: false, failed or swallowed requests.\n"
    )
}

fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width - 2).collect();
    cut.push_str("..");
    cut
}

fn sums(out: &mut String, report: &Report) -> fmt::Result {
    let n = |key: &str| report.number(key);
    let money = |key: &str| Money(n(key));
    let c = &report.counterfactuals;
    writeln!(
        out,
        "People      {} tries, {} sessions, {} of them while the cloud's authorizations were out of order;",
        n("attempts"),
        n("sessions_served"),
        n("sessions_served_in_outage")
    )?;
    writeln!(
        out,
        "            {} good users within their limits came, {} of them were refused.",
        n("good_attempts"),
        n("good_users_refused")
    )?;
    let list = |map: &std::collections::BTreeMap<&'static str, u64>| {
        let parts: Vec<String> = map.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if parts.is_empty() {
            "nobody".to_owned()
        } else {
            parts.join(", ")
        }
    };
    writeln!(out, "            Refused by reason: {}.", list(&report.refusals))?;
    writeln!(out, "            Refused by right: {}.", list(&report.rightly_refused))?;
    writeln!(
        out,
        "Waiting     half {} ms or less, 99 of 100 {} ms, the longest {} ms.",
        n("verdict_p50_ms"),
        n("verdict_p99_ms"),
        n("verdict_max_ms")
    )?;
    writeln!(
        out,
        "Money       {} charged; at risk at most {} of {}; leased accounts overspent by {}; overdrafts {}.",
        money("charged_minor"),
        money("exposure_max_minor"),
        money("budget_minor"),
        money("leased_overspend_minor"),
        money("overdraft_minor")
    )?;
    writeln!(
        out,
        "Books       {} records, {} waiting, {} differing lines: {}.",
        n("records"),
        n("records_waiting"),
        n("book_lines_differing"),
        if report.books_closed { "closed" } else { "NOT CLOSED" }
    )?;
    writeln!(
        out,
        "Hub         at most {} requests a second before the first fault, {} after it; a gateway connected {} times a minute at most.",
        n("hub_peak_before_a_second"),
        n("hub_peak_after_a_second"),
        n("reconnects_a_minute_max")
    )?;
    writeln!(
        out,
        "Otherwise   had we refused without the cloud: {} sessions less, {} good users at a closed door.",
        c.had_we_refused_sessions, c.had_we_refused_good_attempts
    )?;
    writeln!(
        out,
        "            had we trusted blindly: {} sessions for people without a right to them, up to {}.",
        c.had_we_trusted_sessions,
        Money(c.had_we_trusted_minor)
    )?;
    writeln!(
        out,
        "            had we believed the cloud: {} good tokens struck from the list.\n",
        c.had_we_believed_tokens
    )
}

fn alarms(out: &mut String, report: &Report) -> fmt::Result {
    if report.alarms_by_class.is_empty() {
        return writeln!(out, "Alarms      none.\n");
    }
    let classes: Vec<String> = report
        .alarms_by_class
        .iter()
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    writeln!(out, "Alarms      {}", classes.join(", "))?;
    for alarm in report.alarm_lines.iter().take(ALARMS_SHOWN) {
        writeln!(out, "            {} {}: {}", alarm.at, alarm.region, alarm.text)?;
    }
    let more = report.number("alarms") - ALARMS_SHOWN as i64;
    if more > 0 {
        writeln!(out, "            and {more} more")?;
    }
    writeln!(out)
}

fn checks(out: &mut String, report: &Report) -> fmt::Result {
    for Checked {
        key,
        wanted,
        found,
        holds,
    } in &report.checks
    {
        let mark = if *holds { "ok  " } else { "FAIL" };
        writeln!(out, "{mark}  {key} {wanted} (found {found})")?;
    }
    writeln!(out, "hash  {}", report.hash)
}
