//! What a device is told, made from what was decided.

use proto::message::{Closing, Grant, Receipt, Refusal, RefusalReason};

use crate::{
    authorize::{Rule, retry_after_s},
    session::{Request, Session, Terms},
};

pub(super) fn grant_of(request: &Request, terms: &Terms, decision: u64) -> Grant {
    Grant {
        session: request.session,
        units_max: terms.units_max,
        money_max: terms.money_max,
        duration_max_s: terms.duration_max_s,
        start_within_s: terms.start_within_s,
        meter_every_s: terms.meter_every_s,
        tariff: terms.tariff.clone(),
        tariff_hash: terms.tariff_hash,
        decision,
        stop_tokens: terms.stop_tokens.clone(),
    }
}

pub(super) fn refusal_of(request: &Request, reason: RefusalReason, rule: Option<Rule>) -> Refusal {
    Refusal {
        session: request.session,
        reason,
        retry_after_s: retry_after_s(reason, rule.unwrap_or(Rule::Device)),
    }
}

pub(super) fn receipt_of(session: &Session) -> Receipt {
    Receipt {
        session: session.request.session,
        closing: session.closing.unwrap_or(Closing::Unknown),
        amount: session.amount,
        units: session.units,
    }
}
