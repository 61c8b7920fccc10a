//! What was billed, and whether it flowed, was held and was shown.

use std::collections::BTreeMap;

use gateway_core::event::Closed;
use proto::{
    id::{Hash, Kind, SessionId},
    link::RecordKind,
    message::Closing,
};

use super::Auditor;
use crate::{
    bill,
    marks::{Mark, Marks},
};

impl Auditor {
    pub(super) fn secured(&mut self, session: &SessionId) {
        let hold = self
            .holds
            .get_mut(session)
            .expect("only a granted session can be secured");
        if hold.closed.is_none() && std::mem::take(&mut hold.unsecured) {
            self.unsecured_held -= hold.amount;
            if std::mem::take(&mut hold.counted) {
                let tally = self.tallies.get_mut(&(hold.token, hold.class)).expect("it was counted");
                *tally = (tally.0 - 1, tally.1 - hold.amount);
            }
        }
    }

    pub(super) fn closed(&mut self, e: &Closed, marks: &mut Marks) {
        let session = e.session;
        let hold = self
            .holds
            .get_mut(&session)
            .expect("only a granted session can be closed");
        assert!(hold.closed.is_none(), "session {session} is closed twice");
        assert!(self.open.remove(&session), "session {session} was open");
        let (amount, units) = (e.amount.0, e.units.0);
        hold.closed = Some((e.closing, amount, units));
        let record = &e.record;
        self.law
            .ended(&session, hold.token, hold.units_max - units, hold.asked_ms);
        assert!(amount <= hold.amount, "{amount} billed, {} held", hold.amount);
        if hold.unsecured {
            self.unsecured_held -= hold.amount;
        }
        let (account, change) = (hold.account, amount - hold.amount);
        if std::mem::take(&mut hold.counted) {
            let tally = self.tallies.get_mut(&(hold.token, hold.class)).expect("it was counted");
            tally.1 += amount - hold.amount;
            tally.0 -= u32::from(e.closing == Closing::Voided);
        }
        self.spend(account, change);
        match e.closing {
            Closing::Voided => {
                marks.hit(Mark::Voided);
                assert_eq!((record.kind, amount, units), (RecordKind::Void, 0, 0));
                assert!(
                    self.stops.contains_key(&session),
                    "session {session} is voided by a timeout alone"
                );
                let read = self.read.get(&session).copied().unwrap_or(0);
                assert!(
                    read == 0 || self.cut.contains(&session),
                    "session {session} delivered {read} and is voided"
                );
            }
            Closing::Captured => {
                marks.hit(Mark::Captured);
                assert_eq!(record.kind, RecordKind::Capture);
                self.captured(e, marks);
            }
            Closing::Other | Closing::Unknown => panic!("closed as {:?}", e.closing),
        }
    }

    pub(super) fn captured(&mut self, e: &Closed, marks: &mut Marks) {
        let (session, amount, record) = (e.session, e.amount.0, &e.record);
        let hold = &self.holds[&session];
        let (from, upto) = (record.register_start.0, record.register_end.0);
        let units = (upto - from).min(hold.units_max);
        assert_eq!(
            e.units.0, units,
            "units billed are what the register advanced, within the grant"
        );
        let delivered = self.delivered.get(&session).copied().unwrap_or(0);
        assert!(upto - from <= delivered, "{from}..{upto} is billed, {delivered} flowed");
        let most = bill::most(&hold.tariff, units);
        match self.stops.get(&session) {
            None => {
                marks.hit(Mark::CapturedAfterSevenDays);
                assert!(amount <= most, "{amount} billed, at most {most} flowed");
            }
            Some(stop) => {
                let shown = stop.shown.0;
                assert!(
                    amount <= most.min(shown).min(hold.amount),
                    "{amount} of {most}, {shown} and {}",
                    hold.amount
                );
                let heard = stop.register_end.0 == upto;
                if heard && bill::is_flat(&hold.tariff) {
                    let exact = most.min(shown).min(hold.amount);
                    assert_eq!(amount, exact, "a flat price leaves no room: {stop:?} {hold:?}");
                }
            }
        }
        let intervals = self.intervals.entry((hold.device, hold.outlet)).or_default();
        if upto > from {
            let before = intervals.range(..upto).next_back().map_or(0, |(_, upto)| *upto);
            assert!(
                before <= from,
                "the register above {from} is billed already, up to {before}"
            );
            intervals.insert(from, upto);
        }
        match hold.is_gift {
            true => self.gifts += amount,
            false => *self.customers.entry(hold.account).or_default() += amount,
        }
        *self.revenue.entry(hold.kind).or_default() += amount;
        if amount > 0 {
            self.charges
                .insert(record.sequence, (hold.account, amount, hold.unsecured));
            self.unsecured_charged += if hold.unsecured { amount } else { 0 };
        }
    }

    /// At rest: what the journal adds up to, account by account.
    pub(crate) fn at_rest(
        &self,
        hub: &[Vec<u8>],
        own: &[(Vec<u8>, Hash)],
    ) -> (BTreeMap<u64, i64>, BTreeMap<Kind, i64>, i64) {
        assert!(self.open.is_empty(), "open at rest: {:?}", self.open);
        assert_eq!(self.unsecured_held, 0, "nothing is held at rest");
        assert_eq!(self.sequence, own.len() as u64, "every durable record is there");
        assert_eq!(hub.len(), own.len(), "the hub has every record");
        assert!(
            hub.iter().zip(own).all(|(theirs, (ours, _))| theirs == ours),
            "and the same ones"
        );
        let debits = self.customers.values().sum::<i64>() + self.gifts;
        let credits: i64 = self.revenue.values().sum();
        assert_eq!(debits, credits, "debits are credits");
        (self.customers.clone(), self.revenue.clone(), self.gifts)
    }
}
