//! May this token draw?

use proto::{
    book::Account,
    id::SessionId,
    link::{Answer, Ask, Verdict},
    money::Money,
};

use super::{Hub, Now, SessionPhase};

impl Hub {
    /// The answer to a question. A token that was never heard of is denied with revision 0, which no gateway may take
    /// as authority; a revoked or changed one carries the newer revision that makes the denial authority.
    #[must_use]
    pub fn answer(&self, now: Now, ask: &Ask) -> Answer {
        let revoked = self.revoked.get(&ask.token).copied().unwrap_or(0);
        let answer = |verdict, credential_revision, account, money_max| Answer {
            ask: ask.ask,
            session: ask.session,
            token: ask.token,
            verdict,
            credential_revision,
            account,
            money_max,
            lease: proto::artifact::Lease::default(),
        };
        let Some(row) = self.tokens.get(&ask.token).filter(|row| row.listed) else {
            return answer(Verdict::Deny, revoked, 0, Money::ZERO);
        };
        let deny = answer(
            Verdict::Deny,
            row.credential_revision.max(revoked),
            row.account,
            Money::ZERO,
        );
        let over = row.not_after_s != 0 && now.wall_s > row.not_after_s;
        if !row.valid || over || self.is_revoked(&ask.token) {
            return deny;
        }
        if self.is_lease_only(row.account) {
            return answer(Verdict::Accept, row.credential_revision, row.account, Money::ZERO);
        }
        let free = self.free_for(ask, row.account);
        let is_canary = ask.session == SessionId::ZERO;
        if is_canary || free >= ask.amount || free > Money::ZERO {
            let money_max = ask.amount.min(free).max(Money::ZERO);
            return answer(Verdict::Accept, row.credential_revision, row.account, money_max);
        }
        deny
    }

    /// What the session may spend: a hold that this very session has already counts as free.
    fn free_for(&self, ask: &Ask, account: u64) -> Money {
        let own = match self.sessions.get(&ask.session) {
            Some(row) if row.phase == SessionPhase::Held && row.payer == Account::Customer(account) => row.hold,
            Some(_) | None => Money::ZERO,
        };
        self.available(account).saturating_add(own)
    }
}
