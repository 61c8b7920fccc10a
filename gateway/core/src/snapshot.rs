//! The state as a short list of events that make it again, so that boot does not grow with history.

use alloc::{boxed::Box, vec::Vec};

use proto::{
    artifact::{Revoked, TariffOf},
    book::{Account, Balance},
};

use crate::{
    Gateway,
    event::{
        Event, Kept, KeptBalance, KeptCharge, KeptConfirmation, KeptDecisions, KeptDenial, KeptDevice, KeptLease,
        KeptLeases, KeptNote, KeptOutbox, KeptOutlet, KeptSpent, KeptTally, KeptTrust, RevocationsAdopted,
        TariffAdopted,
    },
    trust::REVOKED_ENTRIES_MAX,
};

impl Gateway {
    /// Events that make this state from nothing, except for what ends with a boot anyway: the probe and the number of the
    /// last question, the counts of attempts, and a list that is staged in part. The time with which they are applied does not matter.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.snapshot_trust(&mut events);
        self.snapshot_risk(&mut events);
        self.snapshot_leases(&mut events);
        events.extend(self.devices.iter().map(|(id, device)| {
            let outlets = device.outlets.iter().map(|(&outlet, kept)| KeptOutlet {
                outlet,
                state: kept.state,
                fault: kept.fault,
                billed: kept.claims.upto,
                gaps: kept.claims.gaps.clone(),
            });
            Event::Kept(Kept::Device(KeptDevice {
                device: *id,
                counter: device.counter,
                boot: device.boot,
                command: device.command,
                outlets: outlets.collect(),
            }))
        }));
        let balances = self
            .book
            .balances()
            .map(|row| Event::Kept(Kept::Balance(KeptBalance::from(row))));
        events.extend(balances);
        events.extend(
            self.sessions
                .in_order()
                .map(|session| Event::Kept(Kept::Session(Box::new(session.clone())))),
        );
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
        events.push(Event::Kept(Kept::Orders(self.orders)));
        events.push(Event::Kept(Kept::Health(self.health.clone())));
        let decisions = self.decisions;
        events.push(Event::Kept(Kept::Decisions(KeptDecisions { decisions })));
        // Last, because applying the others has moved the clock.
        events.push(Event::Kept(Kept::Timeline(self.time.clone())));
        events
    }

    fn snapshot_trust(&self, events: &mut Vec<Event>) {
        let trust = &self.trust;
        events.extend(trust.staged_in_snapshot());
        let revoked: Vec<Revoked> = trust
            .revoked
            .iter()
            .map(|(token, &credential_revision)| Revoked {
                token: *token,
                credential_revision,
            })
            .collect();
        let revision = trust.revocations_revision;
        events.extend(revoked.chunks(REVOKED_ENTRIES_MAX).map(|part| {
            Event::RevocationsAdopted(RevocationsAdopted {
                revision,
                entries: part.to_vec(),
            })
        }));
        let revision = trust.tariffs_revision;
        events.extend(trust.tariffs.iter().map(|(&kind, tariff)| {
            Event::TariffAdopted(TariffAdopted {
                revision,
                entry: TariffOf {
                    kind,
                    tariff: tariff.clone(),
                },
            })
        }));
        events.push(Event::Kept(Kept::Trust(KeptTrust {
            list_revision: trust.list_revision,
            list_issued_s: trust.list_issued_s,
            list_adopted: trust.list_adopted,
            revocations_revision: trust.revocations_revision,
            tariffs_revision: trust.tariffs_revision,
        })));
        events.extend(
            trust.confirmed.iter().map(|(&token, &confirmation)| {
                Event::Kept(Kept::Confirmation(KeptConfirmation { token, confirmation }))
            }),
        );
        events.extend(trust.denied.iter().map(|(&token, &credential_revision)| {
            Event::Kept(Kept::Denial(KeptDenial {
                token,
                credential_revision,
            }))
        }));
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

    fn snapshot_risk(&self, events: &mut Vec<Event>) {
        let tallies = self.risk.outage.iter();
        events
            .extend(tallies.map(|(&(token, kind), &tally)| Event::Kept(Kept::Tally(KeptTally { token, kind, tally }))));
        events.extend(self.risk.charges.iter().map(|(&sequence, charge)| {
            let (account, amount, unsecured) = (charge.account, charge.amount, charge.unsecured);
            Event::Kept(Kept::Charge(KeptCharge {
                sequence,
                account,
                amount,
                unsecured,
            }))
        }));
        events.extend(
            self.risk
                .spent
                .iter()
                .map(|(&account, &amount)| Event::Kept(Kept::Spent(KeptSpent { account, amount }))),
        );
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
