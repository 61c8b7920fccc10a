//! The report as a person reads it.

use core::fmt;

use alloc::{
    format,
    string::{String, ToString},
};

use proto::money::Money;

use super::{Report, Sum};
use crate::{authorize::Rule, words};

fn minor(amount: i64) -> String {
    Money(amount).to_string()
}

impl Sum {
    fn words(&self) -> String {
        format!("{}, {}", words::count(self.sessions, "session"), minor(self.amount))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.served_text(f)?;
        self.money(f)?;
        self.otherwise_text(f)?;
        self.end(f)
    }
}

impl Report {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = self
            .duration_ms
            .map_or_else(|| String::from("for how long no clock tells"), words::duration_ms);
        let what = if self.outage { "Outage" } else { "Span of time" };
        match (&self.ended, self.outage) {
            (Some(ended), _) => writeln!(f, "{what} from {} to {}: {lasted}", self.began.text, ended.text)?,
            (None, true) => writeln!(f, "{what} since {}: {lasted} so far, IT GOES ON", self.began.text)?,
            (None, false) => writeln!(f, "{what} from {} to now: {lasted}", self.began.text)?,
        }
        writeln!(f, "\nWhat happened")?;
        if self.modes.is_empty() {
            writeln!(f, "  no capability changed its mode")?;
        }
        for change in &self.modes {
            let because = if change.because.is_empty() {
                String::new()
            } else {
                format!(" after {}", change.because)
            };
            writeln!(
                f,
                "  {}  {} {}{because}",
                change.at.text, change.capability, change.mode
            )?;
        }
        let more = self.mode_changes - self.modes.len() as u64;
        if more > 0 {
            writeln!(f, "  ... and {} more", words::count(more, "change"))?;
        }
        Ok(())
    }

    fn served_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.served;
        writeln!(f, "\nWho was served")?;
        writeln!(
            f,
            "  {} of {}",
            words::count(s.granted.sessions, "session"),
            words::count(s.users, "user")
        )?;
        for (kind, sum) in &s.by_kind {
            writeln!(f, "    at a {kind:<12} {}", sum.words())?;
        }
        for (step, sum) in &s.by_rule {
            writeln!(
                f,
                "    step {step:>2} {:<38} {}",
                Rule::from(*step).words(),
                sum.words()
            )?;
        }
        let refused: u64 = s.refused.values().sum();
        writeln!(f, "  {} refused", words::count(refused, "request"))?;
        for (reason, count) in &s.refused {
            writeln!(f, "    {reason:<18} {count}")?;
        }
        Ok(())
    }

    fn money(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, r, l) = (&self.served, &self.risk, &self.ledger);
        writeln!(f, "\nMoney of these sessions")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, sum: &Sum| writeln!(f, "  {name:<42} {}", sum.words());
        row(f, "held", &s.granted)?;
        row(f, "charged", &s.captured)?;
        row(f, "  of that at the site's risk", &s.captured_unsecured)?;
        row(f, "released, nothing was delivered", &s.voided)?;
        row(f, "still open", &s.open)?;
        row(f, "without the hub's receipt", &s.unreceipted)?;
        writeln!(f, "\nMoney at risk and lost, as far as this gateway knows")?;
        let when = r
            .exposure_max_at
            .as_ref()
            .map(|at| format!(", {}", at.text))
            .unwrap_or_default();
        writeln!(
            f,
            "  {:<42} {} of {}{when}",
            "most at risk at one time",
            minor(r.exposure_max),
            minor(r.site_budget)
        )?;
        row(f, "charged to tokens that were revoked later", &r.lost_revoked)?;
        row(f, "emergency credit", &r.lost_emergency)?;
        row(f, "held for silent devices", &r.silent)?;
        writeln!(f, "\nThe ledger, records {} to {}", l.first, l.last)?;
        row(f, "held", &l.held)?;
        row(f, "charged", &l.captured)?;
        row(f, "released", &l.voided)?;
        for (kind, amount) in &l.revenue {
            writeln!(f, "    revenue:{kind:<30}    {}", minor(*amount))?;
        }
        Ok(())
    }

    fn otherwise_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.otherwise;
        writeln!(f, "\nHad the gateway refused whom the cloud did not accept")?;
        writeln!(
            f,
            "  {} of {} turned away, {} not earned",
            words::count(o.refused_without_cloud.sessions, "session"),
            words::count(o.refused_users, "user"),
            minor(o.refused_without_cloud.amount)
        )?;
        writeln!(f, "Had it believed every answer of the cloud")?;
        for (said, sum) in &o.believed {
            writeln!(
                f,
                "  {:<42} {}",
                format!("refused by {}", said_words(said)),
                sum.words()
            )?;
        }
        writeln!(
            f,
            "  {:<42} {}",
            "not asked: it had failed, or by policy",
            o.not_asked.words()
        )?;
        writeln!(f, "Had it accepted everybody (at most, one session each)")?;
        for (name, sum) in [
            ("revoked, blocked or denied tokens", &o.accepted_bad),
            ("tokens that nobody knows", &o.accepted_unknown),
            ("tokens that need the cloud's word", &o.accepted_never),
        ] {
            writeln!(f, "  {name:<42} {}", sum.words())?;
        }
        Ok(())
    }

    fn end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.orders.is_empty() {
            writeln!(f, "\nOrders of the operator")?;
        }
        for (what, count) in &self.orders {
            writeln!(f, "  {what:<42} {count}")?;
        }
        writeln!(f, "\nAlarms")?;
        if self.alarms.is_empty() {
            writeln!(f, "  none")?;
        }
        for alarm in &self.alarms {
            let times = if alarm.count > 1 {
                format!(" ({} times)", alarm.count)
            } else {
                String::new()
            };
            writeln!(f, "  {}  {}{times}", alarm.at.text, alarm.text)?;
        }
        if !self.outage {
            return Ok(());
        }
        let r = &self.recovery;
        writeln!(f, "\nRecovery")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, at: Option<&crate::words::Moment>, after: Option<u64>| {
            let after = after
                .map(|ms| format!(", {} later", words::duration_ms(ms)))
                .unwrap_or_default();
            let text = at.map_or_else(|| "not yet".to_string(), |at| at.text.clone());
            writeln!(f, "  {name:<42} {text}{after}")
        };
        row(f, "first sign of life", r.first_good.as_ref(), None)?;
        row(f, "back with the cloud", r.back.as_ref(), r.cautious_ms)?;
        row(f, "every record has its receipt", r.receipted.as_ref(), r.backlog_ms)
    }
}

fn said_words(word: &str) -> &str {
    match word {
        "deny_unbacked" => "a denial that nothing backs",
        "error" => "an error",
        "silence" => "silence",
        _ => "something else",
    }
}
