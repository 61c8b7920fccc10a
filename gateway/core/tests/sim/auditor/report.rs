//! What a report says of an evening must be what the auditor saw, to the minor unit, and what the ledger's export adds up
//! to, line by line.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Event, Mode, Now,
    report::{Report, Reporter, Span},
};
use proto::{
    book::{Account, Book, Phase},
    id::SessionId,
};

use super::Auditor;
use crate::marks::{Mark, Marks};

fn report(journal: &[(Now, Event)], span: Span) -> Option<Report> {
    let mut reporter = Reporter::new(span, 0);
    for (i, (now, event)) in journal.iter().enumerate() {
        reporter.take(i as u64 + 1, now, event);
    }
    reporter.finish().ok()
}

/// Where the last outage begins and ends in the journal; the end is outside.
fn last_outage(journal: &[(Now, Event)]) -> Option<(usize, usize)> {
    let (mut dark, mut out, mut found) = (BTreeSet::new(), false, None);
    for (i, (_, event)) in journal.iter().enumerate() {
        let Event::ModeChanged(e) = event else { continue };
        match e.mode {
            Mode::Local | Mode::Recovering => dark.insert(e.capability),
            Mode::Online | Mode::Suspect => dark.remove(&e.capability),
        };
        let now_out = !dark.is_empty();
        match (out, now_out) {
            (false, true) => found = Some((i, journal.len())),
            (true, false) => found = found.map(|(from, _)| (from, i + 1)),
            (true, true) | (false, false) => {}
        }
        out = now_out;
    }
    found
}

/// Lines and money of each phase, and revenue by kind, of the records between two places of the journal.
type Totals = (BTreeMap<Phase, (u64, i64)>, BTreeMap<String, i64>);

fn exported(journal: &[(Now, Event)], from: usize, upto: usize) -> Totals {
    let (mut book, mut phases, mut revenue) = (Book::default(), BTreeMap::new(), BTreeMap::new());
    for (i, (_, event)) in journal.iter().enumerate() {
        let Some(record) = event.record() else { continue };
        for line in book.book(record).expect("the gateway's own records fit its book") {
            if !(from..upto).contains(&i) {
                continue;
            }
            if let Account::Revenue(kind) = line.credit {
                *revenue.entry(kind.word().to_owned()).or_default() += line.amount.0;
            } else {
                let sum: &mut (u64, i64) = phases.entry(line.phase).or_default();
                *sum = (sum.0 + 1, sum.1 + line.amount.0);
            }
        }
    }
    (phases, revenue)
}

fn same_as_export(report: &Report, journal: &[(Now, Event)], from: usize, upto: usize) {
    let (phases, revenue) = exported(journal, from, upto);
    let of = |phase| phases.get(&phase).copied().unwrap_or_default();
    let l = &report.ledger;
    assert_eq!((l.held.sessions, l.held.amount), of(Phase::Pending), "held");
    assert_eq!((l.captured.sessions, l.captured.amount), of(Phase::Post), "charged");
    assert_eq!((l.voided.sessions, l.voided.amount), of(Phase::Void), "released");
    assert_eq!(l.revenue, revenue, "revenue");
}

/// What each session of these came to, read off the journal without any sums.
fn same_as_followed(report: &Report, journal: &[(Now, Event)], from: usize, upto: usize) {
    let granted: BTreeSet<SessionId> = journal[from..upto]
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Granted(e) => Some(e.request.session),
            _ => None,
        })
        .collect();
    let charged: i64 = journal
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Closed(e) if granted.contains(&e.session) => Some(e.amount.0),
            _ => None,
        })
        .sum();
    let s = &report.served;
    assert_eq!(s.granted.sessions, granted.len() as u64, "sessions granted");
    assert_eq!(s.captured.amount, charged, "charged for them");
    assert_eq!(
        s.captured.sessions + s.voided.sessions + s.open.sessions,
        s.granted.sessions,
        "each has one end"
    );
    let by_kind: u64 = s.by_kind.values().map(|sum| sum.sessions).sum();
    let by_rule: i64 = s.by_rule.values().map(|sum| sum.amount).sum();
    assert_eq!((by_kind, by_rule), (s.granted.sessions, charged), "by kind and by rule");
    let o = &report.otherwise;
    let by_cloud = s.by_rule.get(&5).copied().unwrap_or_default();
    assert_eq!(
        o.refused_without_cloud.sessions + by_cloud.sessions,
        s.granted.sessions,
        "the cloud accepted it or not"
    );
    let believed: i64 = o.believed.values().map(|sum| sum.amount).sum();
    assert_eq!(
        believed + o.not_asked.amount + by_cloud.amount,
        charged,
        "it said yes, no, or was not asked"
    );
}

impl Auditor {
    /// At rest: the whole time, and the last outage.
    pub(crate) fn reports(&self, journal: &[(Now, Event)], marks: &mut Marks) {
        let all = Span::Between {
            since_s: None,
            until_s: None,
        };
        let whole = report(journal, all).expect("a journal has records");
        same_as_export(&whole, journal, 0, journal.len());
        same_as_followed(&whole, journal, 0, journal.len());
        let (s, l) = (&whole.served, &whole.ledger);
        assert_eq!(
            l.captured.amount,
            self.customers.values().sum::<i64>() + self.gifts,
            "what customers and the operator paid"
        );
        assert_eq!(whole.risk.lost_emergency.amount, self.gifts, "what the operator gave");
        for (kind, amount) in &self.revenue {
            assert_eq!(
                l.revenue.get(kind.word()).copied().unwrap_or(0),
                *amount,
                "revenue of {kind:?}"
            );
        }
        assert_eq!(s.granted.sessions, self.holds.len() as u64, "grants");
        let refused: u64 = s.refused.values().sum();
        assert_eq!(
            s.granted.sessions + refused,
            self.decisions,
            "each decision is in the report"
        );
        assert_eq!((s.open.sessions, s.unreceipted.sessions), (0, 0), "at rest");
        assert_eq!(
            (l.first, l.last),
            (u64::from(self.sequence > 0), self.sequence),
            "every record"
        );
        assert!(
            whole.risk.exposure_max <= self.limits.site_budget.0.max(self.law.budget_max),
            "more at risk than the budget"
        );
        match (report(journal, Span::LastOutage), last_outage(journal)) {
            (Some(outage), Some((from, upto))) => {
                marks.hit(Mark::OutageReported);
                assert_eq!(outage.journal, (from as u64 + 1, upto as u64), "where the outage lies");
                same_as_export(&outage, journal, from, upto);
                same_as_followed(&outage, journal, from, upto);
                if outage.otherwise.refused_without_cloud.amount > 0 {
                    marks.hit(Mark::OutageServed);
                }
            }
            (None, None) => {}
            (found, expected) => panic!("{expected:?} is the last outage, not {found:?}"),
        }
    }
}
