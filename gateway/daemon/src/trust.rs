//! What the gateway trusts, for people: which lists there are, and how two of them differ.

use gateway_core::{Gateway, List, Now, Suspect, ring::Staged};
use proto::{artifact::list_changes, policy::Class};
use serde_json::{Value, json};

/// Most tokens that a comparison names.
const NAMED_MAX: usize = 20;

/// The lists, one a row: the active one, the one before, and what is set aside.
#[must_use]
pub fn show(gateway: &Gateway, now: &Now) -> Value {
    let (trust, time) = (gateway.trust(), gateway.timeline());
    let row = |word: &str, list: &List, why: String| {
        let head = list.head();
        json!({
            "list": word,
            "revision": head.revision,
            "tokens": list.rows().len(),
            "issued_s": head.issued_s,
            "age_s": time.at(now).since_ms(head.arrived) / 1000,
            "why": why,
        })
    };
    let mut rows = vec![row("active", trust.list(), String::new())];
    rows.extend(trust.previous().map(|list| row("previous", list, String::new())));
    rows.extend(trust.aside().map(|aside| row("aside", &aside.list, why(gateway))));
    Value::Array(rows)
}

/// Why a list lies aside.
fn why(gateway: &Gateway) -> String {
    let findings = gateway.trust().aside().map(|aside| aside.findings);
    if let Some(doubts) = findings.filter(|findings| findings.are_doubtful()) {
        return doubts.to_string();
    }
    if let Some(ring) = gateway.rings().get(Staged::List) {
        return format!("it is tried: {} ({})", ring.reach.word(), ring.device);
    }
    let back = gateway.rings().back().find(|(what, _, _)| *what == Staged::List);
    back.map_or_else(
        || "an operator went back from it".to_owned(),
        |(_, _, why)| why.to_string(),
    )
}

/// What would change if that which is set aside were adopted.
///
/// # Errors
/// A text, if nothing is set aside.
pub fn diff(gateway: &Gateway, what: Staged) -> Value {
    match what {
        Staged::List => diff_list(gateway),
        Staged::Tariffs => diff_tariffs(gateway),
        Staged::Policy => diff_policy(gateway),
        Staged::Limits => match gateway.aside_revision(what) {
            0 => json!({"error": "no configuration is set aside"}),
            revision => changes(&gateway.limits_changes(), revision),
        },
    }
}

fn diff_list(gateway: &Gateway) -> Value {
    let trust = gateway.trust();
    let Some(aside) = trust.aside() else {
        return json!({"error": "no list is set aside"});
    };
    let (active, new) = (trust.list(), &aside.list);
    let (changed, removed) = list_changes(&active.entries(), &new.entries());
    let before = |token| active.get(token);
    let count = |is: &dyn Fn(&proto::artifact::ListEntry, &proto::artifact::ListEntry) -> bool| {
        changed
            .iter()
            .filter(|new| before(&new.token).is_some_and(|old| is(&old, new)))
            .count()
    };
    let findings = &aside.findings;
    let left: Vec<String> = removed.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    json!({
        "active": active.head().revision,
        "aside": new.head().revision,
        "why": why(gateway),
        "tokens_before": active.rows().len(),
        "tokens_after": new.rows().len(),
        "joined": changed.iter().filter(|new| before(&new.token).is_none()).count(),
        "left": removed.len(),
        "blocked": count(&|old, new| old.valid && !new.valid),
        "unblocked": count(&|old, new| !old.valid && new.valid),
        "richer": count(&|old, new| new.balance > old.balance),
        "poorer": count(&|old, new| new.balance < old.balance),
        "users": findings.users,
        "users_refused": findings.users_refused,
        "balances": findings.balances,
        "balances_zeroed": findings.balances_zeroed,
        "left_tokens": left,
    })
}

fn diff_tariffs(gateway: &Gateway) -> Value {
    let trust = gateway.trust();
    let Some(aside) = trust.tariffs_aside() else {
        return json!({"error": "no tariffs are set aside"});
    };
    let rows = aside.entries.iter().map(|entry| {
        let before = trust.tariff(entry.kind);
        json!({
            "kind": entry.kind.word(),
            "revision": aside.revision,
            "before": before.map(price),
            "after": price(&entry.tariff),
        })
    });
    Value::Array(rows.collect())
}

fn diff_policy(gateway: &Gateway) -> Value {
    let Some(aside) = gateway.policy_aside() else {
        return json!({"error": "no policy is set aside"});
    };
    changes(&gateway.policy_changes(), aside.revision)
}

fn changes(changes: &[Suspect], revision: u64) -> Value {
    let rows = changes.iter().map(|change| {
        json!({
            "class": change.class.map_or("site", Class::word),
            "limit": change.limit,
            "revision": revision,
            "before": change.active,
            "after": change.found,
        })
    });
    Value::Array(rows.collect())
}

/// A price on one line.
fn price(tariff: &proto::tariff::Tariff) -> String {
    let elements = tariff.elements.iter().map(|element| {
        let (from, to) = (element.minute_from, element.minute_to);
        let dimension = format!("{:?}", element.dimension).to_lowercase();
        format!("{dimension} {} from {from} to {to} min", element.price_milli)
    });
    let elements: Vec<String> = elements.collect();
    format!(
        "id {}, start {}, minimum {}, cap {}; {}",
        tariff.id,
        tariff.start_fee.0,
        tariff.minimum.0,
        tariff.cap.0,
        elements.join("; ")
    )
}
