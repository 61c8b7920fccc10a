//! What the operator wants: accounts, tokens, tariffs, revocations. An import compares it with the state; the
//! differences become events.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    artifact::{LIST_ENTRIES_MAX, Reason, Subject, Whitelist},
    id::{AccountId, Kind, TokenHash},
    money::Money,
    policy::{Policy, PolicyError},
    tariff::Tariff,
};

use super::{Decision, Effect, Event, Hub, Now, publish::Changes, state::TokenRow};

/// So many tokens may always disappear with one import; above it the share decides.
pub const SHRINK_TOKENS_FREE: usize = 10;
/// More than this share of the tokens does not disappear by accident (gateways quarantine such a list, too).
const SHRINK_PERCENT_MAX: usize = 5;

/// A token as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    /// Whose account.
    pub account: AccountId,
    /// Tokens of one group may stop each other's sessions; 0: none.
    pub group: u64,
    /// Whether it may be used at all.
    pub valid: bool,
    /// When gateways ask.
    pub whitelist: Whitelist,
    /// Not to be used after (seconds since 1970 UTC); 0: no end.
    pub not_after_s: u64,
    /// Least credential revision; 0: the hub counts. The only way to reissue a token that was revoked.
    pub credential_revision: u64,
}

/// A revocation as the operator wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationSpec {
    /// Least credential revision that is revoked; 0: the present one.
    pub credential_revision: u64,
    /// Why.
    pub reason: Reason,
}

/// Everything the operator wants. A part that is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Accounts with the sum of all deposits. An account is never removed.
    pub accounts: BTreeMap<AccountId, Money>,
    /// Of these accounts, those that are never served on credit: a lease or an instrument pays, or nobody.
    pub lease_only: BTreeSet<AccountId>,
    /// All tokens; one that is not here is no longer listed.
    pub tokens: Option<BTreeMap<TokenHash, TokenSpec>>,
    /// Revocations. Sticky: one that is not here stays.
    pub revocations: BTreeMap<TokenHash, RevocationSpec>,
    /// Revoked accounts, devices and keys, with the reason. Sticky as well.
    pub scopes: BTreeMap<Subject, Reason>,
    /// Prices. A kind that is not here keeps its price.
    pub tariffs: BTreeMap<Kind, Tariff>,
    /// Limits that stand above those of the gateways' own configuration. Revision and time are the hub's.
    pub policy: Option<Policy>,
    /// Whether many tokens are meant to disappear.
    pub may_shrink: bool,
}

/// What an import changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Accounts that are new or have other deposits.
    pub accounts: usize,
    /// Tokens that are new or changed.
    pub tokens_set: usize,
    /// Tokens that are no longer listed.
    pub tokens_gone: usize,
    /// Revocations that are new.
    pub revoked: usize,
    /// Prices that are new or changed.
    pub tariffs: usize,
    /// Whether the limits are new or changed.
    pub policy: bool,
}

/// Why an import changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportRefusal {
    /// An incomplete list is the outage this system exists for.
    #[error("{gone} of {listed} tokens would disappear; if that is meant, say so with `may_shrink = true`")]
    Shrinks {
        /// How many would be gone.
        gone: usize,
        /// How many are listed now.
        listed: usize,
    },
    /// Limits that contradict themselves.
    #[error("policy: {0}")]
    Policy(PolicyError),
    /// More tokens than a list holds.
    #[error("{0} tokens are more than the {LIST_ENTRIES_MAX} of a list")]
    Long(usize),
}

impl Hub {
    pub(super) fn decide_import(&self, now: Now, catalogue: &Catalogue) -> Decision {
        let mut decision = Decision::default();
        if let Err(refusal) = self.check_import(catalogue) {
            decision.effects.push(Effect::ImportRefused(refusal));
            return decision;
        }
        let mut summary = ImportSummary::default();
        let events = &mut decision.events;
        for (&account, &deposit) in &catalogue.accounts {
            if self.accounts.get(&account) != Some(&deposit) {
                events.push(Event::AccountSet { account, deposit });
                summary.accounts += 1;
            }
            let lease_only = catalogue.lease_only.contains(&account);
            if self.is_lease_only(account) != lease_only {
                events.push(Event::LeaseOnlySet { account, lease_only });
                summary.accounts += 1;
            }
        }
        if let Some(tokens) = &catalogue.tokens {
            self.import_tokens(tokens, events, &mut summary);
        }
        let revisions = later_revisions(events);
        for (token, spec) in &catalogue.revocations {
            if let Some(credential_revision) = self.revokes(token, spec, revisions.get(token).copied()) {
                events.push(Event::Revoked {
                    token: *token,
                    credential_revision,
                    reason: spec.reason,
                });
                summary.revoked += 1;
            }
        }
        for (&subject, &reason) in &catalogue.scopes {
            if !self.revoked_scopes.contains_key(&subject) {
                events.push(Event::ScopeRevoked { subject, reason });
                summary.revoked += 1;
            }
        }
        for (&kind, tariff) in &catalogue.tariffs {
            if self.tariffs.get(&kind) != Some(tariff) {
                events.push(Event::TariffSet {
                    kind,
                    tariff: tariff.clone(),
                });
                summary.tariffs += 1;
            }
        }
        if summary.revoked + summary.tariffs > 0 {
            // Conflicts are judged by when the operator said so.
            events.insert(0, Event::Dated { wall_s: now.wall_s });
        }
        let changes = Changes {
            list: summary.accounts + summary.tokens_set + summary.tokens_gone > 0,
            revocations: summary.revoked,
            tariffs: summary.tariffs > 0,
        };
        summary.policy = self.publish_policy(now, catalogue.policy.as_ref(), &mut decision);
        self.publish(now, changes, &mut decision);
        decision.effects.push(Effect::Imported(summary));
        decision
    }

    fn check_import(&self, catalogue: &Catalogue) -> Result<(), ImportRefusal> {
        if let Some(policy) = &catalogue.policy {
            policy.check().map_err(ImportRefusal::Policy)?;
        }
        let Some(tokens) = &catalogue.tokens else {
            return Ok(());
        };
        if tokens.len() > LIST_ENTRIES_MAX {
            return Err(ImportRefusal::Long(tokens.len()));
        }
        let listed = self.tokens.values().filter(|row| row.listed).count();
        let gone = self
            .tokens
            .iter()
            .filter(|(token, row)| row.listed && !tokens.contains_key(token))
            .count();
        if gone > SHRINK_TOKENS_FREE && gone * 100 > listed * SHRINK_PERCENT_MAX && !catalogue.may_shrink {
            return Err(ImportRefusal::Shrinks { gone, listed });
        }
        Ok(())
    }

    fn import_tokens(
        &self,
        tokens: &BTreeMap<TokenHash, TokenSpec>,
        events: &mut Vec<Event>,
        summary: &mut ImportSummary,
    ) {
        for (token, spec) in tokens {
            let row = self.next_row(token, spec);
            if self.tokens.get(token) != Some(&row) {
                events.push(Event::TokenSet { token: *token, row });
                summary.tokens_set += 1;
            }
        }
        for (token, row) in self.tokens.iter().filter(|(_, row)| row.listed) {
            if !tokens.contains_key(token) {
                let row = TokenRow {
                    listed: false,
                    ..row.clone()
                };
                events.push(Event::TokenSet { token: *token, row });
                summary.tokens_gone += 1;
            }
        }
    }

    /// A token as it will be. Every change makes a new credential revision, except that a revoked token is not revived
    /// by changing something about it.
    fn next_row(&self, token: &TokenHash, spec: &TokenSpec) -> TokenRow {
        let wanted = TokenRow {
            account: spec.account,
            group: spec.group,
            valid: spec.valid,
            whitelist: spec.whitelist,
            credential_revision: spec.credential_revision,
            not_after_s: spec.not_after_s,
            listed: true,
        };
        let credential_revision = match self.tokens.get(token) {
            None => spec.credential_revision.max(1),
            Some(row) => {
                let same = TokenRow {
                    credential_revision: row.credential_revision,
                    ..wanted.clone()
                };
                let changed = same != *row && !self.is_revoked(token);
                spec.credential_revision
                    .max(row.credential_revision.saturating_add(u64::from(changed)))
            }
        };
        TokenRow {
            credential_revision,
            ..wanted
        }
    }

    /// The credential revision that a new revocation carries, one above the token's: so a denial is newer than what
    /// any gateway knows. `None` if it is revoked already.
    fn revokes(&self, token: &TokenHash, spec: &RevocationSpec, later: Option<u64>) -> Option<u64> {
        let asked = spec.credential_revision;
        if self.revoked.get(token).is_some_and(|revoked| asked <= *revoked) {
            return None;
        }
        let current = later.or_else(|| self.tokens.get(token).map(|row| row.credential_revision));
        match current {
            // Reissued since: the old revisions stay revoked, the present one is good.
            Some(current) if asked != 0 && asked < current => Some(asked),
            Some(current) => Some(asked.max(current.saturating_add(1))),
            None => Some(asked.max(1)),
        }
    }
}

/// The credential revisions that tokens have after these events.
fn later_revisions(events: &[Event]) -> BTreeMap<TokenHash, u64> {
    let mut revisions = BTreeMap::new();
    for event in events {
        if let Event::TokenSet { token, row } = event {
            revisions.insert(*token, row.credential_revision);
        }
    }
    revisions
}
