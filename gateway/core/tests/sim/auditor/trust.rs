//! Lists, keys and revocations as the journal tells them, and the gate computed a second time.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Findings,
    event::{Adopted, KeysAdopted, ListAdopted, ListStaged, Quarantined, RevocationsAdopted, RolledBack},
};
use proto::{
    artifact::{ListEntry, Subject, Whitelist},
    id::TokenHash,
    trust::{ArtifactKind, KeyId},
};

use super::Auditor;
use crate::{
    issuer::roots,
    marks::{Mark, Marks},
    world::DAY_MS,
};

/// A list that is kept beside the active one.
#[derive(Clone, Debug, Default)]
pub(super) struct Lying {
    revision: u64,
    arrived_ms: u64,
    list: BTreeMap<TokenHash, ListEntry>,
    spent: BTreeMap<u64, i64>,
    /// Prices, if it is no list.
    doubtful: bool,
}

/// What the auditor knows of trust beside the active list.
#[derive(Default)]
pub(super) struct Ring {
    staged: (u64, BTreeMap<TokenHash, ListEntry>, BTreeSet<TokenHash>),
    revision: u64,
    newest: u64,
    previous: Option<Lying>,
    aside: Option<Lying>,
    used: BTreeMap<TokenHash, u64>,
    /// What the hub really published.
    published: BTreeSet<(u8, u64)>,
    epoch: u64,
    keys: BTreeSet<KeyId>,
    scopes: BTreeSet<Subject>,
}

impl Ring {
    /// Of the active list.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }
}

impl Auditor {
    /// The hub published something; nothing else may ever be adopted.
    pub(crate) fn published(&mut self, kind: ArtifactKind, revision: u64) {
        self.ring.published.insert((kind.code(), revision));
    }

    pub(super) fn was_published(&self, kind: ArtifactKind, revision: u64) {
        let known = self.ring.published.contains(&(kind.code(), revision));
        assert!(known, "nobody published {} revision {revision}", kind.word());
    }

    /// An artifact was taken for genuine: its key signs, and it is neither retired nor revoked.
    pub(crate) fn believed(&self, kind: ArtifactKind, signer: &KeyId) {
        let is_root = roots().iter().any(|root| root.id() == signer.0);
        let anchors = is_root && (self.ring.epoch == 0 || kind == ArtifactKind::Keys);
        let signs = anchors || self.ring.keys.contains(signer);
        let revoked = self.ring.scopes.contains(&Subject::Key(*signer));
        assert!(signs && !revoked, "{} of key {signer} is believed", kind.word());
    }

    pub(super) fn keys_adopted(&mut self, e: &KeysAdopted, marks: &mut Marks) {
        marks.hit(Mark::KeysRotated);
        self.was_published(ArtifactKind::Keys, e.epoch);
        assert!(e.epoch > self.ring.epoch, "an older set of keys");
        self.ring.epoch = e.epoch;
        self.ring.keys = e
            .keys
            .iter()
            .map(|key| KeyId(key.0[..8].try_into().expect("eight of 32")))
            .collect();
    }

    pub(super) fn revocations_adopted(&mut self, e: &RevocationsAdopted, marks: &mut Marks) {
        marks.hit(Mark::RevocationsAdopted);
        for revoked in &e.entries {
            if self.open.iter().any(|id| self.holds[id].token == revoked.token) {
                marks.hit(Mark::RevokedWhileOpen);
            }
            let upto = self.revoked.entry(revoked.token).or_default();
            *upto = revoked.credential_revision.max(*upto);
        }
        for subject in e.scopes.iter().filter_map(|scope| scope.read()) {
            marks.hit(match subject {
                Subject::Account(_) => Mark::AccountRevoked,
                Subject::Device(_) => Mark::DeviceRevoked,
                Subject::Key(_) => Mark::KeyRevoked,
            });
            self.ring.scopes.insert(subject);
        }
    }

    pub(super) fn is_account_revoked(&self, account: u64) -> bool {
        self.ring.scopes.contains(&Subject::Account(account))
    }

    pub(crate) fn is_device_revoked(&self, device: &proto::id::DeviceId) -> bool {
        self.ring.scopes.contains(&Subject::Device(*device))
    }

    pub(super) fn forget_staged(&mut self) {
        self.ring.staged = Default::default();
    }

    pub(super) fn list_staged(&mut self, e: &ListStaged) {
        if self.ring.staged.0 != e.revision {
            self.ring.staged = (e.revision, BTreeMap::new(), BTreeSet::new());
        }
        let entries = e.entries.iter().map(|entry| (entry.token, entry.clone()));
        self.ring.staged.1.extend(entries);
        self.ring.staged.2.extend(e.removed.iter().copied());
    }

    /// The whole list that was staged.
    fn whole(&mut self, revision: u64, base: u64) -> BTreeMap<TokenHash, ListEntry> {
        let (staged, changed, removed) = std::mem::take(&mut self.ring.staged);
        let mut whole = if base > 0 { self.list.clone() } else { BTreeMap::new() };
        assert!(base == 0 || base == self.ring.revision, "changes onto another list");
        if staged == revision {
            whole.extend(changed);
            whole.retain(|token, _| !removed.contains(token));
        }
        whole
    }

    pub(super) fn list_adopted(&mut self, t_ms: u64, e: &ListAdopted, marks: &mut Marks) {
        marks.hit(if e.base > 0 {
            Mark::ListChangesAdopted
        } else {
            Mark::ListAdopted
        });
        self.was_published(ArtifactKind::List, e.revision);
        assert!(e.revision > self.ring.newest, "an older list");
        let whole = self.whole(e.revision, e.base);
        let findings = self.findings(t_ms, &whole);
        assert!(
            !doubtful(&findings),
            "trust shrank without a person's word: {findings:?}"
        );
        self.ring.aside = self.ring.aside.take().filter(|aside| aside.revision > e.revision);
        let new = Lying {
            revision: e.revision,
            arrived_ms: t_ms,
            list: whole,
            spent: self.not_in_balances(),
            doubtful: false,
        };
        self.activate(new);
    }

    fn activate(&mut self, new: Lying) {
        let old = self.lay_down();
        self.ring.newest = self.ring.newest.max(new.revision);
        self.ring.previous = (old.revision > 0).then_some(old);
        self.take_up(new);
    }

    fn lay_down(&mut self) -> Lying {
        Lying {
            revision: self.ring.revision,
            arrived_ms: self.list_adopted_ms,
            list: std::mem::take(&mut self.list),
            spent: std::mem::take(&mut self.spent),
            doubtful: false,
        }
    }

    fn take_up(&mut self, new: Lying) {
        self.ring.revision = new.revision;
        self.list_adopted_ms = new.arrived_ms;
        self.law.listed.extend(new.list.keys());
        self.list = new.list;
        self.spent = new.spent;
    }

    pub(super) fn quarantined(&mut self, t_ms: u64, e: &Quarantined, marks: &mut Marks) {
        self.was_published(e.kind, e.revision);
        if e.kind != ArtifactKind::List {
            return marks.hit(Mark::TariffsSetAside);
        }
        marks.hit(Mark::ListSetAside);
        let list = self.whole(e.revision, e.base);
        let findings = self.findings(t_ms, &list);
        assert!(doubtful(&findings), "a sound list is set aside: {findings:?}");
        assert_eq!(findings, e.findings, "the figures of the alarm");
        if findings.balances_zeroed * 2 > findings.balances {
            marks.hit(Mark::ListZeroed);
        }
        self.ring.aside = Some(Lying {
            revision: e.revision,
            arrived_ms: t_ms,
            list,
            spent: self.not_in_balances(),
            doubtful: true,
        });
    }

    pub(super) fn adopted(&mut self, e: &Adopted, marks: &mut Marks) {
        if e.kind != ArtifactKind::List {
            return marks.hit(Mark::TariffsAdoptedByOperator);
        }
        let aside = self.ring.aside.take().expect("an operator adopts what is there");
        assert_eq!(aside.revision, e.revision);
        marks.hit(match aside.doubtful {
            true => Mark::ListAdoptedByOperator,
            false => Mark::ListTakenUpAgain,
        });
        self.activate(aside);
    }

    pub(super) fn rolled_back(&mut self, e: &RolledBack, marks: &mut Marks) {
        marks.hit(Mark::ListRolledBack);
        let previous = self
            .ring
            .previous
            .take()
            .expect("an operator goes back to what is there");
        assert_eq!((previous.revision, self.ring.revision), (e.revision, e.from));
        let old = self.lay_down();
        self.ring.aside = Some(old);
        self.take_up(previous);
    }

    /// Money leaves an account, or comes back to it, in the count of every list that is kept.
    pub(super) fn spend(&mut self, account: u64, amount: i64) {
        *self.spent.entry(account).or_default() += amount;
        for lying in [&mut self.ring.previous, &mut self.ring.aside].into_iter().flatten() {
            *lying.spent.entry(account).or_default() += amount;
        }
    }

    pub(super) fn used(&mut self, token: TokenHash, t_ms: u64) {
        self.ring.used.insert(token, t_ms);
    }

    fn not_in_balances(&self) -> BTreeMap<u64, i64> {
        let mut spent = BTreeMap::new();
        let open = self
            .open
            .iter()
            .map(|id| (self.holds[id].account, self.holds[id].amount));
        let charged = self.charges.values().map(|&(account, amount, _)| (account, amount));
        for (account, amount) in open.chain(charged) {
            *spent.entry(account).or_default() += amount;
        }
        spent
    }

    /// What a person would count with two lists on the table.
    fn findings(&self, t_ms: u64, new: &BTreeMap<TokenHash, ListEntry>) -> Findings {
        let good = |entry: &ListEntry| {
            let credential = self.confirmed.get(&entry.token).map_or(0, |known| known.1);
            let credential = credential.max(entry.credential_revision);
            let revoked = self.revoked.get(&entry.token).is_some_and(|upto| credential <= *upto);
            let out = revoked || self.is_account_revoked(entry.account);
            entry.valid && entry.whitelist != Whitelist::Never && !out
        };
        let users: Vec<&TokenHash> = self
            .list
            .values()
            .filter(|entry| good(entry) && !self.is_denied(&entry.token))
            .map(|entry| &entry.token)
            .filter(|token| {
                self.ring
                    .used
                    .get(token)
                    .is_some_and(|used_ms| t_ms - used_ms <= 7 * DAY_MS)
            })
            .collect();
        let refused = users.iter().filter(|token| !new.get(token).is_some_and(good)).count();
        let left = |entry: &ListEntry| entry.balance.0 - self.spent.get(&entry.account).copied().unwrap_or(0);
        let funded: Vec<&ListEntry> = self
            .list
            .values()
            .filter(|entry| left(entry) > 0)
            .filter_map(|entry| new.get(&entry.token))
            .collect();
        Findings {
            active: self.list.len() as u32,
            found: new.len() as u32,
            users: users.len() as u32,
            users_refused: refused as u32,
            balances: funded.len() as u32,
            balances_zeroed: funded.iter().filter(|entry| entry.balance.0 <= 0).count() as u32,
            price: None,
        }
    }
}

/// Semantics, section 1, in floating point.
fn doubtful(findings: &Findings) -> bool {
    let share = |part: u32, of: u32| if of == 0 { 0.0 } else { f64::from(part) / f64::from(of) };
    let lost = findings.active.saturating_sub(findings.found);
    share(lost, findings.active) > 0.05
        || share(findings.users_refused, findings.users) > 0.005
        || share(findings.balances_zeroed, findings.balances) > 0.01
}
