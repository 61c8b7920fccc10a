//! The state as a short list of events that make it again, so that boot does not grow with history.

use alloc::{boxed::Box, vec::Vec};
use core::fmt;

use proto::{
    artifact::TariffOf,
    book::{Account, Balance},
    id::TokenHash,
};

use crate::{
    Gateway,
    charges::Charges,
    event::{
        DiskChanged, Event, GONE_PER_EVENT, Kept, KeptBalance, KeptConfirmation, KeptDecisions, KeptDenial, KeptDevice,
        KeptDrawn, KeptGone, KeptLease, KeptLeases, KeptNote, KeptOutbox, KeptOutlet, KeptReservation, KeptRing,
        KeptSpent, KeptTally, KeptTariffs, KeptTrust, KeysAdopted, LimitsAdopted, LimitsStaged, PolicyAdopted,
        PolicySetAside, RingEnded, TariffsAdopted,
    },
    trust::Lists,
};

impl Gateway {
    /// Events that make this state from nothing, except for what ends with a boot anyway: probes, the number of the last
    /// question, the counts of attempts, starts and denials, and a list that is staged in part. The time with which they are applied does not matter.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut before = Vec::new();
        self.snapshot_policy(&mut before);
        Snapshot {
            before,
            lists: self.trust.lists(),
            charges: self.risk.charges.clone(),
            behind: self.snapshot_behind(),
        }
    }

    fn snapshot_behind(&self) -> Parts {
        let mut parts = Parts::default();
        self.snapshot_trust(&mut parts);
        parts.few(|events| self.snapshot_rings(events));
        self.snapshot_risk(&mut parts);
        self.snapshot_strangers(&mut parts);
        parts.few(|events| {
            self.snapshot_leases(events);
            self.spent.snapshot(events);
        });
        self.snapshot_devices(&mut parts);
        parts.rows(self.book.balances().map(KeptBalance::from), |row| {
            Event::Kept(Kept::Balance(row))
        });
        parts.rows(self.sessions.in_order().cloned(), |session| {
            Event::Kept(Kept::Session(Box::new((*session).clone())))
        });
        parts.few(|events| self.snapshot_last(events));
        parts
    }

    fn snapshot_devices(&self, parts: &mut Parts) {
        let rows = self.devices.iter().map(|(id, device)| {
            let outlets = device.outlets.iter().map(|(&outlet, kept)| KeptOutlet {
                outlet,
                state: kept.state,
                fault: kept.fault,
                billed: kept.claims.upto,
                gaps: kept.claims.gaps.clone(),
            });
            KeptDevice {
                device: *id,
                counter: device.counter,
                boot: device.boot,
                command: device.command,
                outlets: outlets.collect(),
                course: device.course,
            }
        });
        parts.rows(rows, |row| Event::Kept(Kept::Device(row)));
    }

    fn snapshot_last(&self, events: &mut Vec<Event>) {
        let (head, chain, cursor) = (self.outbox.head(), self.outbox.chain(), self.outbox.cursor());
        events.push(Event::Kept(Kept::Outbox(KeptOutbox { head, chain, cursor })));
        let quarantined = self.outbox.quarantined();
        events.extend(self.outbox.marks().map(|(sequence, mark)| {
            Event::Kept(Kept::Note(KeptNote {
                sequence,
                mark,
                quarantined,
            }))
        }));
        events.push(Event::Kept(Kept::Orders(self.orders.clone())));
        events.extend(self.reservations.iter().map(|(device, outlet, reservation)| {
            let (device, reservation) = (*device, *reservation);
            Event::Kept(Kept::Reservation(KeptReservation {
                device,
                outlet,
                reservation,
            }))
        }));
        self.activity.snapshot(events);
        events.push(Event::Kept(Kept::Health(Box::new(self.health.clone()))));
        let decisions = self.decisions;
        events.push(Event::Kept(Kept::Decisions(KeptDecisions { decisions })));
        // Last, because applying the others has moved the clock.
        events.push(Event::Kept(Kept::Timeline(self.time.clone())));
    }

    fn snapshot_trust(&self, parts: &mut Parts) {
        parts.few(|events| self.snapshot_signed(events));
        let confirmed = self.trust.confirmed.iter();
        let confirmed = confirmed.map(|(&token, &confirmation)| KeptConfirmation { token, confirmation });
        parts.rows(confirmed, |row| Event::Kept(Kept::Confirmation(row)));
        let denied = self.trust.denied.iter();
        let denied = denied.map(|(&token, &credential_revision)| KeptDenial {
            token,
            credential_revision,
        });
        parts.rows(denied, |row| Event::Kept(Kept::Denial(row)));
    }

    fn snapshot_signed(&self, events: &mut Vec<Event>) {
        let trust = &self.trust;
        events.extend(trust.revoked.events(trust.revocations_revision));
        if !trust.tariffs.is_empty() {
            let entries = trust.tariffs.iter().map(|(&kind, tariff)| TariffOf {
                kind,
                tariff: tariff.clone(),
            });
            events.push(Event::TariffsAdopted(TariffsAdopted {
                revision: trust.tariffs_revision,
                entries: entries.collect(),
            }));
        }
        if let Some(aside) = &trust.tariffs_aside {
            let (revision, entries) = (aside.revision, aside.entries.clone());
            events.push(Event::Kept(Kept::Tariffs(KeptTariffs { revision, entries })));
        }
        if trust.keys.epoch > 0 {
            let (epoch, keys) = (trust.keys.epoch, trust.keys.set.clone());
            events.push(Event::KeysAdopted(KeysAdopted { epoch, keys }));
        }
        events.push(Event::Kept(Kept::Trust(KeptTrust {
            list_newest: trust.list_newest,
            revocations_revision: trust.revocations_revision,
            tariffs_revision: trust.tariffs_revision,
        })));
    }

    /// Behind what lies aside, which they are about.
    fn snapshot_rings(&self, events: &mut Vec<Event>) {
        events.extend(self.rings.rows.iter().map(|(&what, ring)| {
            let ring = ring.clone();
            Event::Kept(Kept::Ring(KeptRing { what, ring }))
        }));
        events.extend(self.rings.back.iter().map(|(&what, &(revision, verdict))| {
            Event::RingEnded(RingEnded {
                what,
                revision,
                verdict,
            })
        }));
    }

    fn snapshot_policy(&self, events: &mut Vec<Event>) {
        let policies = &self.policies;
        if policies.configured_revision > 0 {
            let (revision, limits) = (policies.configured_revision, policies.configured.clone());
            events.push(Event::LimitsAdopted(LimitsAdopted { revision, limits }));
        }
        if let Some((revision, limits)) = policies.configured_aside.clone() {
            events.push(Event::LimitsStaged(LimitsStaged { revision, limits }));
        }
        // The one before was adopted first, whichever is newer.
        let adopted = [&self.policies.previous, &self.policies.active].into_iter().flatten();
        events.extend(
            adopted
                .cloned()
                .map(|policy| Event::PolicyAdopted(PolicyAdopted { policy })),
        );
        let aside = self.policies.aside.clone();
        events.extend(aside.map(|policy| Event::PolicySetAside(PolicySetAside { policy })));
        if self.is_disk_scarce {
            events.push(Event::DiskChanged(DiskChanged { is_scarce: true }));
        }
    }

    fn snapshot_strangers(&self, parts: &mut Parts) {
        let drawn = self.strangers.drawn.iter();
        let drawn = drawn.map(|(&token, &drawn)| KeptDrawn { token, drawn });
        parts.rows(drawn, |row| Event::Kept(Kept::Drawn(row)));
        let gone: Vec<TokenHash> = self.strangers.gone.iter().copied().collect();
        let gone = gone.chunks(GONE_PER_EVENT).map(|tokens| KeptGone {
            tokens: tokens.to_vec(),
        });
        parts.rows(gone, |row| Event::Kept(Kept::Gone(row)));
    }

    /// Before the sessions, which add what they hold.
    fn snapshot_leases(&self, events: &mut Vec<Event>) {
        events.extend(self.leases.rows().map(|(account, epoch, row)| {
            let row = *row;
            Event::Kept(Kept::Lease(KeptLease { account, epoch, row }))
        }));
        let revision = self.leases.revision();
        events.push(Event::Kept(Kept::Leases(KeptLeases { revision })));
    }

    fn snapshot_risk(&self, parts: &mut Parts) {
        let tallies = self.risk.outage.iter();
        let tallies = tallies.map(|(&(token, class), &tally)| KeptTally { token, class, tally });
        parts.rows(tallies, |row| Event::Kept(Kept::Tally(row)));
        let spent = self.risk.spent.rows().into_iter();
        let spent = spent.map(|(slot, account, amount)| KeptSpent { account, amount, slot });
        parts.rows(spent, |row| Event::Kept(Kept::Spent(row)));
    }
}

/// A part of a snapshot, whose events are made one by one.
type Part = Box<dyn Iterator<Item = Event> + Send>;

/// Parts in order. Rows are kept as rows: an event has the size of the largest of all kinds, ten times that of a row.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn rows<T: Send + 'static>(&mut self, rows: impl Iterator<Item = T>, event: fn(T) -> Event) {
        let mut rows: Vec<T> = rows.collect();
        rows.shrink_to_fit();
        self.0.push(Box::new(rows.into_iter().map(event)));
    }

    fn few(&mut self, put: impl FnOnce(&mut Vec<Event>)) {
        let mut events = Vec::new();
        put(&mut events);
        self.0.push(Box::new(events.into_iter()));
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parts").field(&self.0.len()).finish()
    }
}

/// The state of one moment. It shares lists, charges and sessions with the gateway, so that it is quickly taken; its events are made
/// while it is read, on whichever thread that is.
#[derive(Debug)]
pub struct Snapshot {
    before: Vec<Event>,
    lists: Lists,
    charges: Charges,
    behind: Parts,
}

impl IntoIterator for Snapshot {
    type Item = Event;
    type IntoIter = Box<dyn Iterator<Item = Event> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        let shared = self.lists.into_events().chain(self.charges.into_events());
        Box::new(
            self.before
                .into_iter()
                .chain(shared)
                .chain(self.behind.0.into_iter().flatten()),
        )
    }
}

impl From<(&Account, &Balance)> for KeptBalance {
    fn from((account, balance): (&Account, &Balance)) -> Self {
        let (class, number, part) = account.parts();
        Self {
            class,
            number,
            part,
            debits_pending: balance.debits_pending,
            debits_posted: balance.debits_posted,
            credits_pending: balance.credits_pending,
            credits_posted: balance.credits_posted,
        }
    }
}

impl KeptBalance {
    /// The account and its sums; `None` for a class of a newer version.
    #[must_use]
    pub fn account(&self) -> Option<(Account, Balance)> {
        let account = Account::from_parts(self.class, self.number, self.part)?;
        let balance = Balance {
            debits_pending: self.debits_pending,
            debits_posted: self.debits_posted,
            credits_pending: self.credits_pending,
            credits_posted: self.credits_posted,
        };
        Some((account, balance))
    }
}
