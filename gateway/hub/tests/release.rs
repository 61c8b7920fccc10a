//! Leases that nobody will spend any more are released by the operator, and no money is lost or doubled by it.
#![allow(clippy::unwrap_used)]

mod support;

use hub::{
    core::{
        Alarm, Catalogue, Decision, Effect, Event, Hub, Input, Order, OrderRefusal, ReleaseRefusal, Released, TokenSpec,
    },
    export::LedgerLine,
};
use proto::{
    artifact::Lease,
    book::{Account, Book},
    id::{GatewayId, Kind, Name, SessionId},
    link::{Ask, Evidence, LedgerRecord, RecordKind},
    money::Money,
};
use support::*;

/// A hub with one gateway, whose records are numbered here.
struct Site {
    kept: Kept,
    next: u64,
    hellos: u64,
    lease: Lease,
}

impl Site {
    /// An account that is never served on credit, and a lease of 600 that its gateway has taken.
    fn new() -> Self {
        let mut kept = Kept::default();
        kept.step(&Input::Start);
        let wanted = Catalogue {
            lease_only: [ACCOUNT].into(),
            ..catalogue([(token(1), TokenSpec { ..spec() })])
        };
        kept.step(&Input::Import(wanted));
        let mut site = Self {
            kept,
            next: 1,
            hellos: 0,
            lease: Lease {
                account: 0,
                epoch: 0,
                amount: Money::ZERO,
                not_after_s: 0,
            },
        };
        site.hello(1, 0);
        site.lease = site.ask();
        site.upload(1, RecordKind::LeaseTaken, 0, 600);
        site
    }

    fn step(&mut self, input: &Input) -> Decision {
        let decision = self.kept.step(input);
        self.audit();
        decision
    }

    fn hello(&mut self, epoch: u32, head: u64) -> Decision {
        self.hellos += 1;
        self.step(&greet(hello(epoch, head), self.hellos))
    }

    fn ask(&mut self) -> Lease {
        let ask = Ask {
            ask: 1,
            session: session(99),
            token: token(1),
            kind: Kind::Charger,
            amount: Money(100),
        };
        let gateway = gateway();
        let decision = self.step(&Input::Ask { gateway, ask });
        match &decision.effects[0] {
            Effect::Answer(_, answer) => answer.lease,
            other => panic!("{other:?}"),
        }
    }

    /// One record more, paid by the lease.
    fn upload(&mut self, epoch: u32, kind: RecordKind, session_number: u64, amount: i64) -> Decision {
        let mut told = record(self.next, kind, session_number, amount);
        told.evidence = Evidence {
            lease: self.lease.epoch,
            ..Evidence::default()
        };
        if matches!(kind, RecordKind::LeaseTaken | RecordKind::LeaseReturn) {
            told.session = SessionId::ZERO;
        }
        let input = upload(epoch, self.next, [bytes(&LedgerRecord { ..told })]);
        self.next += 1;
        self.step(&input)
    }

    /// The gateway was put back from a backup, with the procedure for that: it begins a new epoch.
    fn put_back(&mut self) -> Decision {
        self.next = 1;
        self.hello(2, 0)
    }

    fn release(&mut self, gone: bool) -> Released {
        let gateway = gateway();
        let decision = self.step(&Input::ReleaseLeases { gateway, gone });
        let released = decision.effects.iter().find_map(|effect| match effect {
            Effect::Released(released) => Some(*released),
            _ => None,
        });
        released.unwrap()
    }

    fn close(&mut self, amount: i64) -> Decision {
        self.step(&Input::Order(Order::Close {
            session: session(1),
            amount: Money(amount),
            reason: "the box burnt down".to_owned(),
        }))
    }

    fn available(&self) -> i64 {
        self.kept.hub.available(ACCOUNT).0
    }

    fn lease_in_book(&self) -> i64 {
        let sums = self.kept.hub.book().balance(&Account::Lease(ACCOUNT, self.lease.epoch));
        sums.credits_posted.0 - sums.debits_posted.0
    }

    /// What is leased and what is not add up to what was paid in and not spent; the ledger's lines are the book.
    fn audit(&self) {
        let hub = &self.kept.hub;
        let untaken = hub.leases().values().filter(|row| !row.is_taken);
        let untaken: i64 = untaken.map(|row| row.amount.0).sum();
        let spent = hub.book().balance(&Account::Revenue(Kind::Charger));
        let spent = spent.credits_posted.0 - spent.debits_posted.0;
        assert_eq!(
            self.available() + untaken + self.lease_in_book() + spent,
            DEPOSIT.0,
            "{} free, {untaken} on their way, {} leased, {spent} spent",
            self.available(),
            self.lease_in_book()
        );
        assert!(hub.book().is_balanced());
        let mut book = Book::default();
        for event in &self.kept.events {
            match event {
                Event::Booked { record, .. } => drop(book.book(record).unwrap()),
                Event::Adjusted(entry) => entry.transfers().for_each(|line| book.transfer(&line).unwrap()),
                _ => {}
            }
        }
        assert_eq!(book, *hub.book(), "every line of the book is in the ledger");
        assert_eq!(replayed(&self.kept.events), *hub, "a restart from events");
        assert_eq!(restored(hub), *hub, "a restart from a snapshot");
    }
}

fn lines(decision: &Decision) -> Vec<String> {
    let entries = decision.events.iter().filter_map(|event| match event {
        Event::Adjusted(entry) => Some(entry),
        _ => None,
    });
    let lines = entries.flat_map(|entry| entry.transfers().map(|line| LedgerLine::of_hub(entry, &line)));
    lines
        .map(|line| format!("{} {} {} {}", line.phase, line.debit, line.credit, line.amount))
        .collect()
}

#[test]
fn leases_of_a_gateway_that_was_put_back_are_free_when_the_operator_says_so() {
    let mut site = Site::new();
    site.upload(1, RecordKind::Hold, 1, 240);
    site.upload(1, RecordKind::Capture, 1, 120);
    assert_eq!(site.release(false).leases, 0, "it may still spend them");
    let decision = site.put_back();
    let alarm = decision.effects.iter().find_map(|effect| match effect {
        Effect::Alarm(alarm @ Alarm::Withheld { .. }) => Some(alarm.to_string()),
        _ => None,
    });
    assert_eq!(
        alarm.unwrap(),
        "gateway gw-1 was put back: 4.80 of its leases stay withheld until you release them: holdfast-hub release --gateway gw-1"
    );
    let amount = Money(480);
    let (gateway, leases) = (gateway(), 1);
    let released = Released {
        gateway,
        leases,
        amount,
    };
    assert_eq!(site.release(false), released);
    assert_eq!((site.available(), site.lease_in_book()), (DEPOSIT.0 - 120, 0));
    assert_eq!(site.release(false).leases, 0, "once");
    assert_eq!(site.kept.hub.conflicts().number(), 1, "one entry");
    // What it tells of the former epoch is quarantined, and moves nothing.
    site.upload(2, RecordKind::LeaseTaken, 0, 600);
    site.upload(2, RecordKind::Hold, 2, 100);
    assert_eq!(site.kept.hub.quarantine().len(), 2);
    assert_eq!(site.available(), DEPOSIT.0 - 120);
}

#[test]
fn what_an_open_session_holds_stays_set_aside_until_it_is_closed() {
    // (how it ends, what is spent)
    let table: [(RecordKind, i64); 3] = [
        (RecordKind::Capture, 120),
        (RecordKind::Capture, 240),
        (RecordKind::Void, 0),
    ];
    for (kind, spent) in table {
        let mut site = Site::new();
        site.upload(1, RecordKind::Hold, 1, 240);
        site.put_back();
        assert_eq!(site.release(false).amount, Money(360));
        assert_eq!((site.available(), site.lease_in_book()), (DEPOSIT.0 - 240, 240));
        let amount = if kind == RecordKind::Void { 240 } else { spent };
        let decision = site.upload(2, kind, 1, amount);
        let left = 240 - spent;
        let expected: Vec<_> = (left > 0)
            .then(|| format!("direct lease:7:{} customer:7 {left}", site.lease.epoch))
            .into_iter()
            .collect();
        assert_eq!(lines(&decision), expected, "{kind:?} of {spent}");
        assert_eq!((site.available(), site.lease_in_book()), (DEPOSIT.0 - spent, 0));
    }
}

#[test]
fn a_gateway_that_is_gone_leaves_nobody_without_money() {
    let mut site = Site::new();
    site.upload(1, RecordKind::Hold, 1, 240);
    let untaken = site.ask();
    assert_eq!(site.available(), DEPOSIT.0 - 1200);
    let decision = site.close(120);
    let refusal = OrderRefusal::Leased(session(1), gateway());
    assert_eq!(decision.effects, [Effect::OrderRefused(refusal)]);

    let released = site.release(true);
    assert_eq!((released.leases, released.amount), (2, Money(960)));
    assert_eq!(site.kept.hub.gateways()[&gateway()].epoch, 2, "fenced");
    assert!(site.kept.hub.leases().is_empty());
    assert_eq!(site.release(true).leases, 0);
    assert_eq!(site.kept.hub.gateways()[&gateway()].epoch, 2, "not again");
    site.close(120);
    assert_eq!((site.available(), site.lease_in_book()), (DEPOSIT.0 - 120, 0));

    // It comes back, as if nothing had happened, and takes the second lease.
    let decision = site.hello(1, site.next - 1);
    let expected = decision
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Welcome { welcome, is_agreed: false, .. } if welcome.epoch == 2));
    assert!(expected, "{decision:?}");
    let before = site.kept.hub.clone();
    site.lease = Lease { ..untaken };
    site.upload(1, RecordKind::LeaseTaken, 0, 600);
    assert_eq!(site.kept.hub, before, "nothing of the former epoch is committed");

    // In a new epoch, it says what the session had cost: its word replaces the operator's.
    site.lease = Lease {
        epoch: site.kept.events.iter().find_map(given).unwrap(),
        ..untaken
    };
    site.put_back();
    site.upload(2, RecordKind::Capture, 1, 180);
    assert_eq!((site.available(), site.lease_in_book()), (DEPOSIT.0 - 180, 0));
}

/// The first lease that was ever given.
fn given(event: &Event) -> Option<u64> {
    match event {
        Event::LeaseGiven { lease, .. } => Some(lease.epoch),
        _ => None,
    }
}

#[test]
fn a_fence_alone_releases_nothing() {
    let mut site = Site::new();
    // A disk that was put back and keeps its epoch may still spend what it has.
    site.hello(1, 0);
    assert_eq!(site.kept.hub.gateways()[&gateway()].epoch, 2);
    assert_eq!(site.release(false).leases, 0);
    assert_eq!(
        site.release(true).amount,
        Money(600),
        "unless the operator says that it never comes back"
    );
    assert_eq!(site.kept.hub.gateways()[&gateway()].epoch, 2, "one fence is enough");
}

#[test]
fn who_never_said_hello_is_unknown() {
    let mut site = Site::new();
    let stranger: GatewayId = Name::new("gw-9").unwrap();
    for gone in [false, true] {
        let gateway = stranger;
        let decision = site.step(&Input::ReleaseLeases { gateway, gone });
        let refusal = ReleaseRefusal::Unknown(stranger);
        assert_eq!(decision.effects, [Effect::ReleaseRefused(refusal)]);
        assert!(decision.events.is_empty());
        assert_eq!(refusal.to_string(), "gateway gw-9 is unknown here: it never said hello");
    }
}

/// A crash between any two events of a release leaves nothing undone.
#[test]
fn what_a_crash_cut_off_is_released_at_the_next_start() {
    let mut whole = Site::new();
    whole.upload(1, RecordKind::Hold, 1, 240);
    let before = whole.kept.events.clone();
    whole.release(true);
    let events = whole.kept.events.len() - before.len();
    assert_eq!(events, 3, "fenced, released, settled");
    for cut in 0..events {
        let mut site = Site::new();
        site.upload(1, RecordKind::Hold, 1, 240);
        site.kept.events = before.clone();
        site.kept
            .events
            .extend_from_slice(&whole.kept.events[before.len()..before.len() + cut]);
        site.kept.hub = replayed(&site.kept.events);
        site.step(&Input::Start);
        site.release(true);
        let at = |hub: &Hub| {
            (
                hub.available(ACCOUNT),
                hub.leases().len(),
                hub.gateways()[&gateway()].epoch,
            )
        };
        assert_eq!(at(&site.kept.hub), at(&whole.kept.hub), "cut behind {cut}");
    }
}
