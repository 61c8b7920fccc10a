//! The decision order, step by step, in sentences: what each step found, and why it did not decide, or did.

use alloc::{format, string::String, vec::Vec};

use proto::{
    artifact::Whitelist,
    instrument::NUMBER_MAX,
    link::{Gift, MODE_ALONE},
    message::RefusalReason,
    money::Money,
};

use super::{
    Step,
    course::{Story, Verdict},
};
use crate::{
    authorize::Rule,
    event::{Granted, Refused},
    grounds::{CloudWord, Grounds, Listed},
    session::Terms,
    words,
};

/// Every step at which a request can be decided, in order. Step 1, stopping, decides no request.
const ORDER: [Rule; 10] = [
    Rule::Device,
    Rule::Revoked,
    Rule::Rate,
    Rule::Instrument,
    Rule::Cloud,
    Rule::Lease,
    Rule::List,
    Rule::CachedAccept,
    Rule::Never,
    Rule::Unknown,
];

/// The policy as OCPI writes it.
pub(super) const fn policy_word(policy: Whitelist) -> &'static str {
    match policy {
        Whitelist::Always => "ALWAYS",
        Whitelist::Allowed => "ALLOWED",
        Whitelist::AllowedOffline => "ALLOWED_OFFLINE",
        Whitelist::Never => "NEVER",
    }
}

impl Story {
    pub(super) fn walk(&self) -> Vec<Step> {
        let Some((_, verdict)) = &self.verdict else {
            return Vec::new();
        };
        let (rule, grounds) = match verdict {
            Verdict::Granted(e) => (e.rule, &e.grounds),
            Verdict::Refused(e) => (e.rule, &e.grounds),
        };
        // A device alone does not go through the order: an instrument is all that it takes.
        let order = if self.terms().is_some_and(is_alone) {
            &[][..]
        } else {
            &ORDER
        };
        let before = order.iter().take_while(|step| **step != rule).map(|&step| Step {
            step: step.step(),
            decided: false,
            text: passed(step, grounds),
        });
        let text = match verdict {
            Verdict::Granted(e) => granted(e),
            Verdict::Refused(e) => refused(e),
        };
        let last = Step {
            step: rule.step(),
            decided: true,
            text,
        };
        before.chain([last]).collect()
    }
}

/// Why a step did not decide.
fn passed(step: Rule, g: &Grounds) -> String {
    match step {
        Rule::Device => String::from("the device and its outlet can serve, and there is a price"),
        Rule::Revoked if g.revocations_revision == 0 => String::from("not revoked: there are no revocations yet"),
        Rule::Revoked => format!("not revoked (revocations of revision {})", g.revocations_revision),
        Rule::Rate => format!(
            "request {} of {} in this minute, and no other session of this token is open",
            g.attempts.max(1),
            g.caps.attempts_a_minute_max
        ),
        Rule::Instrument => String::from("no voucher or code"),
        Rule::Cloud => cloud(g),
        Rule::Lease => String::from("no lease of this account"),
        Rule::List => not_by_list(g),
        Rule::CachedAccept => match g.confirmed_age_s {
            None => String::from("the cloud never accepted this token before"),
            Some(age_s) => format!(
                "the cloud accepted this token {} ago, longer than {}",
                words::duration_s(age_s),
                words::duration_s(g.caps.confirmation_s)
            ),
        },
        Rule::Never => String::from("no policy NEVER"),
        Rule::Unknown => String::from("known"),
    }
}

/// What the cloud said, and what it counts.
fn cloud(g: &Grounds) -> String {
    let waited = words::duration_ms(g.waited_ms);
    match g.cloud {
        CloudWord::NotAsked => match g.listed.map(|listed| listed.policy) {
            Some(policy @ (Whitelist::Always | Whitelist::Allowed)) => {
                format!("the cloud is not asked: the policy is {}", policy_word(policy))
            }
            Some(Whitelist::AllowedOffline | Whitelist::Never) | None if !g.mode.asks() => {
                format!(
                    "the cloud is not asked: authorize is {}, and nobody waits for it",
                    g.mode.word()
                )
            }
            Some(Whitelist::AllowedOffline | Whitelist::Never) | None => String::from("the cloud is not asked"),
        },
        CloudWord::Accept => format!("the cloud said yes after {waited}"),
        CloudWord::DenyNewer => format!("the cloud said no after {waited}, with a newer credential than ours"),
        CloudWord::DenyUnopposed => format!("the cloud said no after {waited}, and nothing here speaks for the token"),
        CloudWord::DenyUnbacked => format!(
            "the cloud said no after {waited}, but showed nothing newer than credential revision {}, which is good: evidence, not authority",
            g.listed.map_or(0, |listed| listed.credential_revision)
        ),
        CloudWord::DenyUpheld => format!(
            "the cloud said no, showed nothing newer, and answered both its canaries right after {waited}: followed this once"
        ),
        CloudWord::Error => format!(
            "an error {} came after {waited}, unsigned: evidence about the cloud, no authority over the token",
            g.code
        ),
        CloudWord::Silence => format!("the cloud did not answer within {waited}"),
        CloudWord::Other => format!("the cloud said something after {waited} that this version does not know"),
    }
}

fn list_of(g: &Grounds) -> String {
    match g.list_revision {
        0 => String::from("there is no list yet"),
        revision => format!(
            "the list of revision {revision}, {} old,",
            words::duration_s(g.list_age_s)
        ),
    }
}

fn not_by_list(g: &Grounds) -> String {
    match g.listed {
        None if g.list_revision == 0 => list_of(g),
        None => format!("{} does not name this token", list_of(g)),
        Some(Listed {
            policy: Whitelist::Never,
            ..
        }) => format!("{} names this token with policy NEVER", list_of(g)),
        Some(_) if g.list_age_s > g.caps.list_half_s => format!("{} is too old for credit", list_of(g)),
        Some(_) => format!("{} does not decide", list_of(g)),
    }
}

/// Full or half, as the limits were applied.
fn caps_words(e: &Granted) -> &'static str {
    let by_age = e.grounds.list_age_s > e.grounds.caps.list_full_s && e.rule == Rule::List;
    if by_age || e.rule == Rule::CachedAccept {
        "half caps"
    } else {
        "full caps"
    }
}

/// Whether the device granted it by itself.
fn is_alone(terms: &Terms) -> bool {
    terms.evidence.mode == MODE_ALONE
}

/// Which instrument it was, by its number.
fn instrument(terms: &Terms) -> String {
    match terms.evidence.instrument {
        0 => format!("a one-time code of account {}", terms.account),
        number if number > NUMBER_MAX => format!("keypad token {} of this device", number as u32),
        number => format!("voucher {number}"),
    }
}

fn granted(e: &Granted) -> String {
    let g = &e.grounds;
    let caps = caps_words(e);
    match e.rule {
        Rule::Cloud => format!("{}: granted", cloud(g)),
        Rule::List => {
            let policy = g.listed.map_or("?", |listed| policy_word(listed.policy));
            format!(
                "{} has this token as valid ({policy}): granted unsecured, {caps}",
                list_of(g)
            )
        }
        Rule::CachedAccept => format!(
            "the cloud accepted this token {} ago, at most {} count: granted unsecured, {caps}",
            words::duration_s(g.confirmed_age_s.unwrap_or(0)),
            words::duration_s(g.caps.confirmation_s)
        ),
        Rule::Lease => format!(
            "a lease of epoch {} covers it: granted without credit risk",
            e.terms.evidence.lease
        ),
        Rule::Instrument if is_alone(&e.terms) => format!(
            "{}: the device was alone, verified it and granted up to {} by itself; the hold was booked when it told",
            instrument(&e.terms),
            words::amount(e.terms.money_max)
        ),
        Rule::Instrument => format!(
            "{} proves itself, is bound to this place and in date: granted up to {}, which is what is left of it",
            instrument(&e.terms),
            words::amount(e.terms.money_max)
        ),
        Rule::Unknown => gift(e),
        Rule::Device | Rule::Revoked | Rule::Rate | Rule::Never => format!("granted: {}", e.rule.words()),
    }
}

/// Why the operator pays.
fn gift(e: &Granted) -> String {
    let most = words::units(e.request.kind, e.terms.units_max);
    match e.terms.evidence.gift {
        Gift::Emergency => {
            format!("nobody here has seen this token: at most {most} of this day's emergency credit, the operator pays")
        }
        Gift::FreeVend => format!(
            "nobody here has seen this token: the policy of revision {} gives at most {most} away now, the operator pays",
            e.grounds.policy_revision
        ),
        Gift::None | Gift::Other => String::from("nobody here has seen this token, and the operator pays"),
    }
}

fn refused(e: &Refused) -> String {
    let (g, kind) = (&e.grounds, e.request.kind.word());
    match e.reason {
        RefusalReason::DeviceState => {
            String::from("the device or its outlet is faulted, updating, or not one of this site")
        }
        RefusalReason::Reserved => String::from("the outlet is kept free for somebody else, by the operator's order"),
        RefusalReason::NoTariff => format!(
            "there is no price for a {kind} (tariffs of revision {})",
            g.tariffs_revision
        ),
        RefusalReason::Revoked => format!(
            "the token is revoked (revocations of revision {})",
            g.revocations_revision
        ),
        RefusalReason::Rate => match e.rule {
            Rule::Rate if g.is_elsewhere => {
                String::from("this token began a session at another device a moment ago: nobody walks that fast")
            }
            Rule::Rate if g.starts >= g.caps.starts_an_hour_max && g.attempts < g.caps.attempts_a_minute_max => {
                format!(
                    "this token began {} within an hour; {} are allowed",
                    words::count(u64::from(g.starts), "session"),
                    g.caps.starts_an_hour_max
                )
            }
            Rule::Rate => format!(
                "this token was presented {} in this minute already; {} are allowed",
                words::count(u64::from(g.attempts), "time"),
                g.caps.attempts_a_minute_max
            ),
            Rule::Device
            | Rule::Revoked
            | Rule::Instrument
            | Rule::Cloud
            | Rule::Lease
            | Rule::List
            | Rule::CachedAccept
            | Rule::Never
            | Rule::Unknown => format!(
                "{}this token drew {} at a {kind} in this outage already; {} are allowed without the cloud",
                basis(e.rule, g),
                words::count(u64::from(g.tally.count), "time"),
                g.caps.outage_count_max
            ),
        },
        RefusalReason::Concurrent => format!("this token has another session open at a {kind}"),
        RefusalReason::Denied => match g.cloud {
            CloudWord::DenyNewer | CloudWord::DenyUnopposed | CloudWord::DenyUpheld => cloud(g),
            CloudWord::NotAsked
            | CloudWord::Accept
            | CloudWord::DenyUnbacked
            | CloudWord::Error
            | CloudWord::Silence
            | CloudWord::Other => {
                String::from("the cloud refused this token before, with a newer credential than ours")
            }
        },
        RefusalReason::Invalid => match g.listed {
            Some(listed) if listed.valid && listed.is_over => {
                format!("{} has this token, but past its end", list_of(g))
            }
            Some(_) | None => format!("{} has this token as blocked", list_of(g)),
        },
        RefusalReason::OnlineRequired => {
            String::from("the policy is NEVER: only the cloud may say yes, and it did not")
        }
        RefusalReason::ListExpired => format!(
            "{} is older than {}: too old for credit",
            list_of(g),
            words::duration_s(g.caps.list_half_s)
        ),
        RefusalReason::Unknown => String::from("nobody here has ever seen this token"),
        RefusalReason::NoCredit => format!("{}{}", basis(e.rule, g), no_credit(e)),
        RefusalReason::Other => String::from("the device ended the request before there was a decision"),
        RefusalReason::Replay => {
            String::from("this voucher, keypad token or code was used before: nothing is left of it")
        }
        RefusalReason::Forged => String::from(
            "what was presented proves nothing: signature, digits or code fit no key of this place; forged, damaged or mistyped",
        ),
        RefusalReason::Elsewhere => {
            format!("it was issued for another site, device, kind or currency than this {kind}")
        }
        RefusalReason::Expired => String::from("its time has not come, or is over"),
        RefusalReason::LockedOut => {
            String::from("too many wrong ones were tried here: nothing is judged until the wait is over")
        }
        RefusalReason::Clock => String::from("it has a date, and no clock here is good enough to judge it"),
        RefusalReason::Storage => format!(
            "{}the disk's reserve is reached: nothing unsecured until there is room",
            basis(e.rule, g)
        ),
        RefusalReason::Version => format!("refused: {}", e.reason.word()),
    }
}

/// Why the step had the word, when a limit then refused.
fn basis(rule: Rule, g: &Grounds) -> String {
    match rule {
        Rule::List => {
            let policy = g.listed.map_or("?", |listed| policy_word(listed.policy));
            format!("{} has this token as valid ({policy}), but ", list_of(g))
        }
        Rule::Cloud => format!("{}, but ", cloud(g)),
        Rule::CachedAccept => format!(
            "the cloud accepted this token {} ago, but ",
            words::duration_s(g.confirmed_age_s.unwrap_or(0))
        ),
        Rule::Device | Rule::Revoked | Rule::Rate | Rule::Instrument | Rule::Lease | Rule::Never | Rule::Unknown => {
            String::new()
        }
    }
}

/// What is used up: the smallest of what was left.
fn no_credit(e: &Refused) -> String {
    let g = &e.grounds;
    let balance = g.listed.map_or(Money(i64::MAX), |listed| listed.balance);
    let left = |most: Money, used: Money| most.saturating_sub(used).max(Money::ZERO);
    let (account, site) = (left(balance, g.spent), left(g.caps.site_budget, g.exposure));
    let outage = match g.mode.asks() {
        true => Money(i64::MAX),
        false => left(g.caps.outage_money_max, g.tally.money),
    };
    if e.rule == Rule::Instrument {
        return String::from("what is left of the voucher or code is less than the least that can be sold");
    }
    if e.rule == Rule::Cloud {
        return String::from("it allows less than the least that can be sold");
    }
    let least = account.min(site).min(outage);
    if least == site && site < account {
        format!(
            "{} of the site's budget of {} are at risk already: less is left than the least that can be sold",
            g.exposure, g.caps.site_budget
        )
    } else if least == outage && outage < account {
        format!(
            "this token drew {} of {} in this outage already: less is left than the least that can be sold",
            g.tally.money, g.caps.outage_money_max
        )
    } else {
        format!(
            "the balance was {} when the list was made, and {} are spent or held since: less is left than the least that can be sold",
            words::amount(balance),
            g.spent
        )
    }
}
