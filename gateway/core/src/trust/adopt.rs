//! How lists and prices come in: staged, compared, and adopted in one event, or set aside. And how an operator overrules
//! the gate, in both directions.

use alloc::{borrow::Cow, boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};

use proto::{
    artifact::{ListEntry, TariffTable, VerifiedList, check_trailer, list_changes, list_with},
    id::{Kind, TokenHash},
    tariff::Tariff,
    trust::ArtifactKind,
};

use super::{
    Aside, List, ListHead, Stale, Trust,
    gate::{Findings, Look},
    rows::Rows,
};
use crate::{
    Ignored,
    event::{
        Adopted, Event, Kept, KeptList, KeptListSlot, ListAdopted, ListStaged, Quarantined, RolledBack,
        STAGED_ENTRIES_MAX, STAGED_REMOVED_MAX, TariffsAdopted, TariffsStaged,
    },
    time::Instant,
};

/// The parts of a list as events; of a list of changes also who leaves.
fn staged(revision: u64, changed: &[ListEntry], removed: &[TokenHash]) -> Vec<Event> {
    let of_changed = changed
        .chunks(STAGED_ENTRIES_MAX)
        .map(|part| (part.to_vec(), Vec::new()));
    let of_removed = removed
        .chunks(STAGED_REMOVED_MAX)
        .map(|part| (Vec::new(), part.to_vec()));
    let event = |(entries, removed)| {
        Event::ListStaged(ListStaged {
            revision,
            entries,
            removed,
        })
    };
    of_changed.chain(of_removed).map(event).collect()
}

impl Trust {
    pub(crate) fn decide_list(&self, list: &VerifiedList, look: &Look<'_>) -> Result<Vec<Event>, Ignored> {
        let manifest = list.manifest();
        let (revision, base) = (manifest.revision, manifest.base);
        if revision <= self.list_newest {
            return Err(Ignored::Stale(Stale {
                kind: ArtifactKind::List,
                found: revision,
                active: self.list_newest,
            }));
        }
        let known = self.aside.as_ref().map(|aside| aside.list.head);
        if known.is_some_and(|head| (head.revision, head.digest) == (revision, manifest.digest)) {
            let kind = ArtifactKind::List;
            return Err(Ignored::Aside { kind, revision });
        }
        let whole = if base == 0 {
            Cow::Borrowed(list.entries())
        } else if base == self.list.head.revision {
            Cow::Owned(list_with(&self.list.entries(), list.entries(), &manifest.removed))
        } else {
            let active = self.list.head.revision;
            return Err(Ignored::Base { revision, base, active });
        };
        if check_trailer(manifest, &whole).is_err() {
            return Err(Ignored::Trailer { revision, base });
        }
        let findings = self.compare_list(&whole, look);
        let mut events = staged(revision, list.entries(), &manifest.removed);
        let (issued_s, digest) = (manifest.issued_s, manifest.digest);
        events.push(match findings.are_doubtful() {
            true => Event::Quarantined(Quarantined {
                kind: ArtifactKind::List,
                revision,
                base,
                issued_s,
                digest,
                findings,
            }),
            false => Event::ListAdopted(ListAdopted {
                revision,
                issued_s,
                base,
                digest,
            }),
        });
        Ok(events)
    }

    pub(crate) fn decide_tariffs(&self, table: &TariffTable) -> Result<Vec<Event>, Ignored> {
        let (revision, entries) = (table.revision, table.entries.clone());
        if revision <= self.tariffs_revision {
            return Err(Ignored::Stale(Stale {
                kind: ArtifactKind::Tariffs,
                found: revision,
                active: self.tariffs_revision,
            }));
        }
        if self.tariffs_aside.as_ref() == Some(table) {
            let kind = ArtifactKind::Tariffs;
            return Err(Ignored::Aside { kind, revision });
        }
        let findings = self.compare_tariffs(&entries);
        if !findings.are_doubtful() {
            return Ok(alloc::vec![Event::TariffsAdopted(TariffsAdopted { revision, entries })]);
        }
        let quarantined = Quarantined {
            kind: ArtifactKind::Tariffs,
            revision,
            base: 0,
            issued_s: 0,
            digest: proto::id::Hash::ZERO,
            findings,
        };
        Ok(alloc::vec![
            Event::TariffsStaged(TariffsStaged { revision, entries }),
            Event::Quarantined(quarantined),
        ])
    }

    /// An operator takes what the gate set aside. `revision` 0: whichever it is.
    pub(crate) fn decide_adopt(&self, kind: ArtifactKind, revision: u64) -> Result<Vec<Event>, Ignored> {
        let aside = match kind {
            ArtifactKind::List => self.aside.as_ref().map(|aside| aside.list.head.revision),
            ArtifactKind::Tariffs => self.tariffs_aside.as_ref().map(|table| table.revision),
            ArtifactKind::Other
            | ArtifactKind::Revocations
            | ArtifactKind::Policy
            | ArtifactKind::Lease
            | ArtifactKind::Voucher
            | ArtifactKind::Firmware
            | ArtifactKind::Keys => None,
        };
        match aside.filter(|aside| revision == 0 || revision == *aside) {
            Some(revision) => Ok(alloc::vec![Event::Adopted(Adopted { kind, revision })]),
            None => Err(Ignored::NothingAside(kind)),
        }
    }

    /// An operator goes back to the list before the active one.
    pub(crate) fn decide_roll_back(&self, kind: ArtifactKind) -> Result<Vec<Event>, Ignored> {
        let previous = self.previous.as_ref().filter(|_| kind == ArtifactKind::List);
        let previous = previous.ok_or(Ignored::NothingBefore(kind))?;
        Ok(alloc::vec![Event::RolledBack(RolledBack {
            revision: previous.head.revision,
            from: self.list.head.revision,
        })])
    }

    pub(crate) fn stage(&mut self, revision: u64, changed: &[ListEntry], removed: &[TokenHash]) {
        self.staged.add(revision, changed, removed);
    }

    pub(crate) fn forget_staged(&mut self) {
        self.staged = super::list::Staged::default();
        self.tariffs_staged = None;
    }

    /// The staged list is the list now.
    pub(crate) fn adopt(&mut self, event: &ListAdopted, at: Instant) {
        let head = ListHead {
            revision: event.revision,
            issued_s: event.issued_s,
            arrived: at,
            digest: event.digest,
        };
        let new = self.staged.finish(head, (event.base > 0).then_some(&self.list));
        self.aside = self
            .aside
            .take()
            .filter(|aside| aside.list.head.revision > event.revision);
        self.activate(new);
    }

    fn activate(&mut self, new: List) {
        let old = core::mem::replace(&mut self.list, new);
        self.previous = (old.head.revision > 0).then_some(old);
        self.list_newest = self.list_newest.max(self.list.head.revision);
        // What an operator may go back to must not forget a denial, nor what stands in for a list that no longer names
        // the token: the cloud's earlier yes.
        let before = self.previous.as_ref();
        let (list, confirmed, denied) = (&self.list, &self.confirmed, &mut self.denied);
        denied.retain(|token, denied| {
            let newer = |list: &List| {
                list.get(token)
                    .is_some_and(|entry| entry.credential_revision >= *denied)
            };
            let older = confirmed
                .get(token)
                .is_some_and(|known| known.credential_revision < *denied);
            !newer(list) || before.is_some_and(|before| !newer(before)) || older
        });
    }

    /// The staged artifact looks wrong: it is kept for a person to look at.
    pub(crate) fn set_aside(&mut self, event: &Quarantined, at: Instant) {
        match event.kind {
            ArtifactKind::List => {
                let head = ListHead {
                    revision: event.revision,
                    issued_s: event.issued_s,
                    arrived: at,
                    digest: event.digest,
                };
                let list = self.staged.finish(head, (event.base > 0).then_some(&self.list));
                let findings = event.findings;
                self.aside = Some(Aside { list, findings });
            }
            ArtifactKind::Tariffs => self.tariffs_aside = self.tariffs_staged.take(),
            ArtifactKind::Other
            | ArtifactKind::Revocations
            | ArtifactKind::Policy
            | ArtifactKind::Lease
            | ArtifactKind::Voucher
            | ArtifactKind::Firmware
            | ArtifactKind::Keys => {}
        }
    }

    /// An operator has looked at it.
    pub(crate) fn adopt_aside(&mut self, kind: ArtifactKind) {
        match kind {
            ArtifactKind::List => {
                if let Some(aside) = self.aside.take() {
                    self.activate(aside.list);
                }
            }
            ArtifactKind::Tariffs => {
                if let Some(table) = self.tariffs_aside.take() {
                    self.price(
                        table.revision,
                        table.entries.into_iter().map(|entry| (entry.kind, entry.tariff)),
                    );
                }
            }
            ArtifactKind::Other
            | ArtifactKind::Revocations
            | ArtifactKind::Policy
            | ArtifactKind::Lease
            | ArtifactKind::Voucher
            | ArtifactKind::Firmware
            | ArtifactKind::Keys => {}
        }
    }

    /// The list before is the list again; it is as old as it is. The one that was left is set aside, so that going back
    /// can be taken back, too, and no revision up to its is adopted by itself.
    pub(crate) fn roll_back(&mut self) {
        if let Some(previous) = self.previous.take() {
            let list = core::mem::replace(&mut self.list, previous);
            let findings = Findings::default();
            self.aside = Some(Aside { list, findings });
        }
    }

    pub(crate) fn price(&mut self, revision: u64, entries: impl IntoIterator<Item = (Kind, Tariff)>) {
        self.tariffs_revision = revision;
        for (kind, tariff) in entries {
            self.tariff_hashes.insert(kind, tariff.hash());
            self.tariffs.insert(kind, tariff);
        }
        self.tariffs_aside = self.tariffs_aside.take().filter(|aside| aside.revision > revision);
    }

    /// The lists for a snapshot: the active one whole, the others as changes to it. They are made events when there is time.
    pub(crate) fn lists(&self) -> Lists {
        let (previous, aside) = (self.previous.as_ref(), self.aside.as_ref());
        let lists = [
            (KeptListSlot::Active, Some(&self.list), None),
            (KeptListSlot::Previous, previous, None),
            (KeptListSlot::Aside, aside.map(|a| &a.list), aside.map(|a| a.findings)),
        ];
        let there = lists.into_iter().filter_map(|(slot, list, findings)| {
            let list = list.filter(|list| list.head.revision > 0)?;
            Some((slot, list.clone(), findings.unwrap_or_default()))
        });
        Lists {
            active: self.list.clone(),
            there: there.collect(),
        }
    }

    pub(crate) fn keep_list(&mut self, kept: &KeptList) {
        match kept.slot {
            KeptListSlot::Active => self.list = self.staged.finish(kept.head, None),
            KeptListSlot::Previous => self.previous = Some(self.staged.finish(kept.head, Some(&self.list))),
            KeptListSlot::Aside => {
                let list = self.staged.finish(kept.head, Some(&self.list));
                let findings = kept.findings;
                self.aside = Some(Aside { list, findings });
            }
        }
    }
}

/// Lists of one moment. Cheap to have, for they share their entries with the state.
#[derive(Debug)]
pub(crate) struct Lists {
    active: List,
    there: Vec<(KeptListSlot, List, Findings)>,
}

impl Lists {
    /// As events, which are made one by one: all at once, they would be a second copy of everything.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Event> {
        let Self { active, there } = self;
        there.into_iter().flat_map(move |(slot, list, findings)| {
            let head = list.head;
            let parts: Box<dyn Iterator<Item = Event> + Send> = match slot {
                KeptListSlot::Active => Box::new(parts(head.revision, list.rows)),
                KeptListSlot::Previous | KeptListSlot::Aside => {
                    let (changed, removed) = list_changes(&active.entries(), &list.entries());
                    Box::new(staged(head.revision, &changed, &removed).into_iter())
                }
            };
            let kept = Event::Kept(Kept::List(KeptList { slot, head, findings }));
            parts.chain(core::iter::once(kept))
        })
    }
}

/// The parts of a whole list, one by one.
fn parts(revision: u64, rows: Arc<Rows>) -> impl Iterator<Item = Event> {
    (0..rows.len()).step_by(STAGED_ENTRIES_MAX).map(move |from| {
        Event::ListStaged(ListStaged {
            revision,
            entries: rows.part(from, STAGED_ENTRIES_MAX),
            removed: Vec::new(),
        })
    })
}

/// Prices by kind.
pub(super) type Tariffs = BTreeMap<Kind, Tariff>;
