//! From the facts of a session to the answer.

use alloc::{format, string::String, string::ToString, vec, vec::Vec};

use proto::{
    book::Account,
    money::{Money as Amount, Units},
    tariff::{Bill, Tariff},
};

use super::{
    Decided, Limits, Money, PriceLine, Request, Why,
    course::{At, Story, Verdict, stop_words},
    walk::policy_word,
};
use crate::{Terms, grounds::Grounds, words};

impl Story {
    pub(super) fn explain(&self, offset_min: i16) -> Why {
        let request = &self.request;
        let first = self.asked.or(self.verdict.as_ref().map(|(at, _)| *at));
        let at = first.expect("a story begins with a request");
        Why {
            session: request.session.to_string(),
            state: String::from(self.state()),
            summary: self.summary(),
            request: Request {
                device: request.device.to_string(),
                outlet: request.outlet,
                kind: String::from(request.kind.word()),
                token: request.token.to_string(),
                counter: request.counter,
                units_wished: request.units_wished.0,
                register: request.register.0,
                at: at.moment(offset_min),
            },
            decision: self
                .verdict
                .as_ref()
                .map(|(at, verdict)| decided(at, verdict, offset_min)),
            walk: self.walk(),
            limits: self.limits(),
            money: self.terms().map(|terms| self.money(terms)),
            course: self.course(offset_min),
            records: self.records(offset_min),
        }
    }

    fn state(&self) -> &'static str {
        use proto::message::Closing;
        match (&self.verdict, &self.closed) {
            (None, _) if self.forgotten => "forgotten",
            (None, _) => "asking",
            (Some((_, Verdict::Refused(_))), _) => "refused",
            (Some((_, Verdict::Granted(_))), Some((_, closed))) => match closed.closing {
                Closing::Captured => "captured",
                Closing::Voided => "voided",
                Closing::Other | Closing::Unknown => "closed",
            },
            (Some((_, Verdict::Granted(_))), None) if self.is_silent() => "indeterminate",
            (Some((_, Verdict::Granted(_))), None) if self.started => "metering",
            (Some((_, Verdict::Granted(_))), None) => "held",
        }
    }

    fn is_silent(&self) -> bool {
        let last = self.last_reading.as_ref().map_or(0, |(at, _)| at.journal);
        self.silent.is_some_and(|silent| silent.journal > last)
    }

    fn summary(&self) -> Vec<String> {
        let mut lines = vec![match &self.verdict {
            None if self.forgotten => String::from("There was no decision: the gateway stopped before it had one."),
            None => String::from("There is no decision yet: the cloud is asked."),
            Some((_, Verdict::Refused(e))) => format!(
                "Refused ({}) at step {}: {}.",
                e.reason.word(),
                e.rule.step(),
                e.rule.words()
            ),
            Some((_, Verdict::Granted(e))) => {
                let risk = match (e.terms.unsecured, self.secured) {
                    (true, Some(_)) => "at the site's risk, until the cloud accepted it",
                    (true, None) => "at the site's risk",
                    (false, _) => "at no risk to the site",
                };
                format!(
                    "Granted at step {}: {}; {} held, {risk}.",
                    e.rule.step(),
                    e.rule.words(),
                    e.terms.money_max
                )
            }
        }];
        if let (Some(terms), Some((_, closed))) = (self.terms(), &self.closed) {
            lines.extend(self.ending(terms, closed));
        } else if self.is_silent() {
            lines.push(String::from(
                "The device is silent. The hold stays; after 7 days without a word the last reading is charged, and nothing is ever voided by a timeout.",
            ));
        }
        if self.revoked.is_some() {
            lines.push(String::from(
                "The token was revoked later; at the time of the decision nobody here could know.",
            ));
        }
        let waiting = self.records.iter().filter(|(_, _, receipt)| receipt.is_none()).count();
        if waiting > 0 {
            let waits = if waiting == 1 { "waits" } else { "wait" };
            let records = words::count(waiting as u64, "ledger record");
            lines.push(format!("{records} of it {waits} for the hub's receipt."));
        }
        lines
    }

    fn ending(&self, terms: &Terms, closed: &crate::event::Closed) -> Option<String> {
        use proto::message::Closing;
        match closed.closing {
            Closing::Voided => Some(format!(
                "Voided ({}): nothing was delivered, nothing is charged, the whole hold of {} is free again.",
                stop_words(closed.record.stop_reason),
                terms.money_max
            )),
            Closing::Captured if self.is_closed_by_silence() => Some(format!(
                "The device was silent for 7 days: what was evidenced is charged, {}.",
                closed.amount
            )),
            Closing::Captured => {
                let bill = closed.record.bill.total(&terms.tariff);
                let units = words::units(self.request.kind, closed.units);
                let because = match closed.shown {
                    Some(shown) if shown < bill && closed.amount == shown => {
                        format!(
                            ": the quantities come to {bill}, but the display showed {shown}, and nobody pays more than was shown"
                        )
                    }
                    Some(shown) if shown > closed.amount => {
                        format!(
                            ": the display showed {shown}, but the quantities come to {bill}, and the smaller amount counts"
                        )
                    }
                    Some(_) | None if bill > closed.amount => {
                        format!(": the quantities come to {bill}, but no more was held")
                    }
                    Some(_) | None => String::new(),
                };
                Some(format!("{} charged for {units}{because}.", closed.amount))
            }
            Closing::Other | Closing::Unknown => None,
        }
    }

    fn limits(&self) -> Option<Limits> {
        let (_, verdict) = self.verdict.as_ref()?;
        let (grounds, after) = match verdict {
            Verdict::Granted(e) => (&e.grounds, e.exposure),
            Verdict::Refused(e) => (&e.grounds, e.grounds.exposure),
        };
        let Grounds { caps, tally, .. } = grounds;
        Some(Limits {
            session_money: caps.money_max.0,
            session_units: caps.units_max.0,
            outage_count: tally.count,
            outage_count_max: caps.outage_count_max,
            outage_money: tally.money.0,
            outage_money_max: caps.outage_money_max.0,
            attempts: grounds.attempts,
            attempts_max: caps.attempts_a_minute_max,
            balance: grounds.listed.map(|listed| listed.balance.0),
            spent: grounds.spent.0,
            exposure_before: grounds.exposure.0,
            exposure_after: after.0,
            site_budget: caps.site_budget.0,
        })
    }

    fn money(&self, terms: &Terms) -> Money {
        let closed = self.closed.as_ref().map(|(_, closed)| closed);
        let bill = closed.map_or_else(Bill::default, |closed| closed.record.bill);
        let last = self.last_reading.as_ref().map(|(_, reading)| reading.register);
        let delivered = closed.is_some_and(|closed| closed.closing == proto::message::Closing::Captured);
        Money {
            payer: Account::payer(terms.account, &terms.evidence).to_string(),
            unsecured: terms.unsecured && self.secured.is_none(),
            hold: terms.money_max.0,
            units_max: terms.units_max.0,
            tariff: terms.tariff.id,
            tariff_hash: terms.tariff_hash.to_string(),
            start_fee: terms.tariff.start_fee.0,
            minimum: terms.tariff.minimum.0,
            cap: terms.tariff.cap.0,
            lines: price_lines(&terms.tariff, &bill),
            computed: delivered.then(|| bill.total(&terms.tariff).0),
            shown: closed.and_then(|closed| closed.shown).map(|shown| shown.0),
            charged: closed.map(|closed| closed.amount.0),
            units: closed.map_or(Units::ZERO, |closed| closed.units).0,
            register_start: closed
                .map_or(self.request.register, |closed| closed.record.register_start)
                .0,
            register_end: closed
                .map(|closed| closed.register_end)
                .or(last)
                .unwrap_or(self.request.register)
                .0,
        }
    }
}

fn decided(at: &At, verdict: &Verdict, offset_min: i16) -> Decided {
    let (grounds, rule, mode, reason, terms) = match verdict {
        Verdict::Granted(e) => (&e.grounds, e.rule, e.mode, None, Some(&e.terms)),
        Verdict::Refused(e) => (&e.grounds, e.rule, e.mode, Some(e.reason), None),
    };
    let evidence = terms.map(|terms| terms.evidence).unwrap_or_default();
    let known = grounds.listed.map_or(0, |listed| listed.credential_revision);
    Decided {
        decision: grounds.decision,
        granted: terms.is_some(),
        reason: reason.map(|reason| String::from(reason.word())),
        rule: rule.step(),
        at: at.moment(offset_min),
        waited_ms: grounds.waited_ms,
        authorize: String::from(mode.word()),
        cloud: String::from(grounds.cloud.word()),
        cloud_code: grounds.code,
        policy: grounds.listed.map(|listed| String::from(policy_word(listed.policy))),
        credential_revision: terms.map_or(known, |_| evidence.credential_revision),
        list_revision: grounds.list_revision,
        list_age_s: grounds.list_age_s,
        revocations_revision: grounds.revocations_revision,
        tariffs_revision: grounds.tariffs_revision,
        policy_revision: grounds.policy_revision,
        tariff_hash: grounds.tariff_hash.to_string(),
        lease: evidence.lease,
        instrument: evidence.instrument,
        confirmed_age_s: grounds.confirmed_age_s,
        journal: at.journal,
        ledger_previous: grounds.previous.to_string(),
        journal_previous: String::new(),
        journal_hash: String::new(),
    }
}

/// Enough to compute the bill again with pencil and paper.
fn price_lines(tariff: &Tariff, bill: &Bill) -> Vec<PriceLine> {
    let rows = tariff.elements.iter().zip(bill.quantities);
    rows.map(|(element, quantity)| {
        let per = words::priced_units(element.dimension);
        let exact = i128::from(quantity) * i128::from(element.price_milli);
        let amount_milli = exact / i128::from(per);
        let unit = words::priced_unit(element.dimension);
        let price = words::milli(i128::from(element.price_milli));
        let rest = if exact % i128::from(per) == 0 { "" } else { "..." };
        let text = match quantity {
            0 => format!("{price} per {unit}{}", when_words(element)),
            _ => format!(
                "{} x {price} per {unit}{} = {}{rest}",
                words::quantity(element.dimension, quantity),
                when_words(element),
                words::milli(amount_milli),
            ),
        };
        PriceLine {
            dimension: String::from(unit),
            quantity,
            per,
            price_milli: element.price_milli,
            amount_milli: i64::try_from(amount_milli).unwrap_or(i64::MAX),
            text,
        }
    })
    .collect()
}

/// When a price applies, if not always.
fn when_words(element: &proto::tariff::PriceElement) -> String {
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let mut text = String::new();
    if (element.minute_from, element.minute_to) != (0, 1440) {
        text += &format!(" from {} to {}", clock(element.minute_from), clock(element.minute_to));
    }
    match (element.power_w_min, element.power_w_max) {
        (0, 0) => {}
        (from, 0) => text += &format!(" from {from} W"),
        (from, below) => text += &format!(" from {from} W to below {below} W"),
    }
    text
}

/// An amount for people.
pub(super) fn minor(amount: i64) -> String {
    Amount(amount).to_string()
}
