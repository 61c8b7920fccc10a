//! The answer as a person reads it.

use core::fmt;

use alloc::{format, string::String};

use proto::{id::Kind, money::Units};

use super::{Decided, Limits, Money, Why, explain::minor};
use crate::words;

/// First digits of a hash: enough to see that two are the same.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// What each letter means for somebody who does not know the standard.
fn clock_words(letter: &str) -> &'static str {
    match letter {
        "S" => "synchronised",
        "I" => "informative: set, but nobody vouches for it",
        "R" => "relative",
        _ => "unknown: not set",
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.request;
        writeln!(
            f,
            "Session {} at {} {}, outlet {}: {}",
            self.session,
            r.kind,
            r.device,
            r.outlet,
            self.state.to_uppercase()
        )?;
        for line in &self.summary {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\nAsked")?;
        writeln!(f, "  {}  by token {}", r.at.text, r.token)?;
        writeln!(
            f,
            "  clock {} ({}); boot {}, {} after it",
            r.at.clock,
            clock_words(&r.at.clock),
            r.at.boot,
            words::duration_ms(r.at.mono_ms)
        )?;
        let wish = match r.units_wished {
            0 => String::from("no wish"),
            units => format!("{} wished", units_of(&r.kind, units)),
        };
        writeln!(
            f,
            "  message {} of the device; register {}; {wish}",
            r.counter,
            units_of(&r.kind, r.register)
        )?;
        if let Some(decided) = &self.decision {
            self.decision(f, decided)?;
        }
        if let Some(limits) = &self.limits {
            limits_text(f, limits, &r.kind)?;
        }
        if let Some(money) = &self.money {
            money_text(f, money, &r.kind)?;
        }
        writeln!(f, "\nWhat happened")?;
        for line in &self.course {
            {
                let after = line
                    .after_ms
                    .map_or_else(String::new, |ms| format!("+{}", words::duration_ms(ms)));
                writeln!(f, "  {}  {after:>12}  {}", line.at.text, line.text)?;
            }
        }
        if !self.records.is_empty() {
            writeln!(f, "\nLedger records")?;
        }
        for record in &self.records {
            match &record.receipt {
                Some(at) => writeln!(
                    f,
                    "  {:>6} {:<14} receipt of the hub {}",
                    record.sequence, record.kind, at.text
                )?,
                None => writeln!(
                    f,
                    "  {:>6} {:<14} waits for the hub's receipt",
                    record.sequence, record.kind
                )?,
            }
        }
        Ok(())
    }
}

impl Why {
    fn decision(&self, f: &mut fmt::Formatter<'_>, d: &Decided) -> fmt::Result {
        writeln!(f, "\nDecided: the first step that decides wins")?;
        for step in &self.walk {
            writeln!(
                f,
                "  {} {:>2}  {}",
                if step.decided { "=>" } else { "  " },
                step.step,
                step.text
            )?;
        }
        writeln!(f, "  {}; authorize was {}", waited(d.waited_ms), d.authorize)?;
        writeln!(f, "\nRelied on")?;
        writeln!(
            f,
            "  list revision {}, {} old; revocations revision {}; tariffs revision {}",
            d.list_revision,
            words::duration_s(d.list_age_s),
            d.revocations_revision,
            d.tariffs_revision
        )?;
        if d.policy_revision > 0 {
            writeln!(f, "  limits of the signed policy of revision {}", d.policy_revision)?;
        }
        let policy = d.policy.as_deref().unwrap_or("not listed");
        writeln!(
            f,
            "  policy {policy}; credential revision {}; lease {}; instrument {}",
            d.credential_revision,
            or_none(d.lease),
            or_none(d.instrument)
        )?;
        writeln!(f, "  decision {}, record {} of the journal", d.decision, d.journal)?;
        if !d.journal_hash.is_empty() {
            writeln!(
                f,
                "  hash {}... after {}...",
                short(&d.journal_hash),
                short(&d.journal_previous)
            )?;
        }
        Ok(())
    }
}

/// `kind`: the word of a kind.
fn units_of(kind: &str, units: u64) -> String {
    let kind = Kind::SERVED.into_iter().find(|known| known.word() == kind);
    words::units(kind.unwrap_or(Kind::Unknown), Units(units))
}

fn waited(ms: u64) -> String {
    match ms {
        0 => String::from("at once"),
        ms => format!("after {}", words::duration_ms(ms)),
    }
}

fn or_none(number: u64) -> String {
    match number {
        0 => String::from("none"),
        number => format!("{number}"),
    }
}

fn limits_text(f: &mut fmt::Formatter<'_>, l: &Limits, kind: &str) -> fmt::Result {
    writeln!(f, "\nLimits then")?;
    writeln!(
        f,
        "  a session: {} and {}",
        minor(l.session_money),
        units_of(kind, l.session_units)
    )?;
    writeln!(
        f,
        "  this token in this outage: {} of {}, {} of {}",
        words::count(u64::from(l.outage_count), "session"),
        l.outage_count_max,
        minor(l.outage_money),
        minor(l.outage_money_max)
    )?;
    match l.balance {
        Some(balance) => writeln!(
            f,
            "  its account: {} when the list was made, {} spent or held since",
            minor(balance),
            minor(l.spent)
        )?,
        None => writeln!(
            f,
            "  its account: balance not known here, {} spent or held since",
            minor(l.spent)
        )?,
    }
    writeln!(
        f,
        "  this site: {} at risk before, {} after, of {}",
        minor(l.exposure_before),
        minor(l.exposure_after),
        minor(l.site_budget)
    )
}

fn money_text(f: &mut fmt::Formatter<'_>, m: &Money, kind: &str) -> fmt::Result {
    writeln!(f, "\nMoney")?;
    let risk = if m.unsecured { "at the site's risk" } else { "secured" };
    writeln!(f, "  held {} of {}, {risk}", minor(m.hold), m.payer)?;
    writeln!(f, "  price {} ({}...)", m.tariff, short(&m.tariff_hash))?;
    for line in &m.lines {
        writeln!(f, "    {}", line.text)?;
    }
    let extras = [("start fee", m.start_fee), ("minimum", m.minimum), ("cap", m.cap)];
    for (name, amount) in extras.iter().filter(|(_, amount)| *amount != 0) {
        writeln!(f, "    {name} {}", minor(*amount))?;
    }
    if let Some(computed) = m.computed {
        writeln!(
            f,
            "    together {}, rounded once, half a minor unit up",
            minor(computed)
        )?;
    }
    match (m.charged, m.shown) {
        (Some(_), _) if m.computed.is_none() => writeln!(f, "  charged nothing: nothing was delivered")?,
        (Some(charged), Some(shown)) => writeln!(
            f,
            "  charged {}: the least of what was computed, shown ({}) and held ({})",
            minor(charged),
            minor(shown),
            minor(m.hold)
        )?,
        (Some(charged), None) => writeln!(f, "  charged {}", minor(charged))?,
        (None, _) => writeln!(f, "  not charged yet")?,
    }
    writeln!(
        f,
        "  register {} to {}: {} billed, at most {}",
        units_of(kind, m.register_start),
        units_of(kind, m.register_end),
        units_of(kind, m.units),
        units_of(kind, m.units_max)
    )
}
