//! Towards the hub: receipts, welcome, rewinding. Towards devices: hello and commands.

use crate::site::*;
use gateway_core::{Event, Input, Said};
use proto::{
    id::{Hash, Kind},
    link::{LedgerReceipt, Mark, Note, OrderVerb, Welcome},
    message::{CommandAnswer, CommandOutcome, Fault, Hello, OutletState},
    money::Money,
};

/// Two closed sessions: five records.
fn busy_site() -> Site {
    let mut site = Site::new();
    for units in [0, 500] {
        let session = site.mint("c1");
        site.say("c1", authorize(session, 0, 1, 0));
        site.say("c1", Said::Stop(stop(session, 0, units, 60)));
    }
    assert_eq!(site.gateway.outbox().head(), 5);
    site
}

#[test]
fn only_a_receipt_retires_records() {
    let ours = Hash([1; 32]);
    let check = |epoch: u32, upto: u64, hash: Hash, expected: &str, cursor: u64| {
        let mut site = busy_site();
        let first = LedgerReceipt {
            epoch: 1,
            upto: 2,
            hash: ours,
            ..LedgerReceipt::default()
        };
        site.put(&Input::Receipt {
            receipt: first,
            own_hash: ours,
        });
        let receipt = LedgerReceipt {
            epoch,
            upto,
            hash,
            ..LedgerReceipt::default()
        };
        let own_hash = ours;
        assert_eq!(
            words(&site.put(&Input::Receipt { receipt, own_hash })),
            expected,
            "{epoch} {upto}"
        );
        assert_eq!(site.gateway.outbox().cursor(), cursor, "{epoch} {upto}");
        assert_eq!(site.gateway.outbox().waiting(), 5 - cursor);
        site.check();
    };
    check(1, 4, ours, "", 4);
    check(1, 5, ours, "", 5);
    check(1, 2, ours, "ignored: receipt up to 2, the cursor is at 2", 2);
    check(1, 1, ours, "ignored: receipt up to 1, the cursor is at 2", 2);
    check(
        1,
        6,
        ours,
        "ignored: receipt up to 6 of epoch 1 for records that this journal does not have",
        2,
    );
    check(
        2,
        4,
        ours,
        "ignored: receipt up to 4 of epoch 2 for records that this journal does not have",
        2,
    );
    check(
        1,
        4,
        Hash([2; 32]),
        "alarm: the hub's books differ from ours at record 4",
        2,
    );
    check(
        1,
        1,
        Hash([2; 32]),
        "alarm: the hub's books differ from ours at record 1",
        2,
    );
}

#[test]
fn a_receipt_ends_the_exposure() {
    let mut site = busy_site();
    let hash = Hash::ZERO;
    let mut exposure = |upto| {
        let receipt = LedgerReceipt {
            epoch: 1,
            upto,
            hash,
            ..LedgerReceipt::default()
        };
        site.put(&Input::Receipt {
            receipt,
            own_hash: hash,
        });
        site.gateway.risk().exposure()
    };
    assert_eq!(exposure(4), Money(30), "the capture is record 5");
    assert_eq!(exposure(5), Money(0));
}

#[test]
fn a_hub_that_was_put_back_gets_everything_again() {
    let mut site = busy_site();
    let hash = Hash::ZERO;
    let receipt = |upto| Input::Receipt {
        receipt: LedgerReceipt {
            epoch: 1,
            upto,
            hash,
            ..LedgerReceipt::default()
        },
        own_hash: hash,
    };
    let welcome = |epoch, upto| {
        Input::Welcome(Welcome {
            version: 1,
            epoch,
            upto,
            hash,
            wall_s: WALL_S,
            ..Welcome::default()
        })
    };
    site.put(&receipt(4));
    let mut say = |input: &Input, expected: &str, cursor: u64| {
        assert_eq!(words(&site.put(input)), expected);
        assert_eq!(site.gateway.outbox().cursor(), cursor);
    };
    say(&welcome(1, 4), "", 4);
    say(&welcome(1, 5), "", 4); // Its receipt was lost; the next upload brings it again.
    say(
        &welcome(1, 1),
        "alarm: the hub has lost records 2 to 4; they are sent again",
        1,
    );
    say(&receipt(5), "", 5);
    let copy = "alarm: the hub expects epoch 2, this journal has 1: it is a copy, or the hub is another one, \
                ignored: a welcome to epoch 2";
    say(&welcome(2, 5), copy, 5);
    let old = "alarm: the hub's books differ from ours at record 9, \
               ignored: receipt up to 9 of epoch 1 for records that this journal does not have";
    say(&welcome(1, 9), old, 5);
    site.check();
}

#[test]
fn receipts_count_within_an_epoch() {
    let mut site = busy_site();
    let hash = Hash::ZERO;
    let receipt = LedgerReceipt {
        epoch: 1,
        upto: 4,
        hash,
        ..LedgerReceipt::default()
    };
    site.put(&Input::Receipt {
        receipt,
        own_hash: hash,
    });
    let mut boot = |boot, epoch, cursor| {
        site.put(&Input::Boot { boot, epoch });
        assert_eq!(site.gateway.outbox().cursor(), cursor);
    };
    boot(2, 1, 4);
    boot(3, 2, 0);
    // The hub has nothing of this epoch: it lost nothing.
    let welcome = Welcome {
        version: 1,
        epoch: 2,
        wall_s: WALL_S,
        ..Welcome::default()
    };
    assert_eq!(words(&site.put(&Input::Welcome(welcome))), "");
    assert_eq!(site.gateway.outbox().waiting(), 5);
    site.check();
}

#[test]
fn records_are_chained_in_order() {
    let site = busy_site();
    let records: Vec<_> = site.journal.iter().filter_map(|(_, event)| event.record()).collect();
    let mut hash = Hash::ZERO;
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, i as u64 + 1);
        hash = proto::link::chain(&hash, &proto::codec::to_vec(*record));
    }
    assert_eq!(site.gateway.outbox().chain(), hash);
}

#[test]
fn hello() {
    let check = |device: &str, said: Hello, expected: &str| {
        let mut site = Site::new();
        assert_eq!(words(&site.say(device, Said::Hello(said))), expected, "{device}");
        site.check();
    };
    let Said::Hello(good) = crate::site::hello(Kind::Charger, 2, 3) else {
        unreachable!("made as such")
    };
    let but = |change: fn(&mut Hello)| {
        let mut said = good.clone();
        change(&mut said);
        said
    };
    check("c1", good.clone(), "raise 77, clock 3");
    check("c1", but(|h| h.outlets = 4), "raise 77, clock 3");
    check(
        "c1",
        but(|h| h.outlets = 1),
        "raise 77, ignored: c1 says it is another kind of device than the configuration says",
    );
    check(
        "w1",
        good.clone(),
        "raise 77, ignored: w1 says it is another kind of device than the configuration says",
    );
    check("c1", but(|h| h.version_min = 2), "raise 77, refuse version 0");
    check("c1", but(|h| h.version_max = 0), "raise 77, refuse version 0");
    check(
        "c1",
        but(|h| (h.version_min, h.version_max) = (0, 9)),
        "raise 77, clock 3",
    );
}

#[test]
fn commands_are_numbered_across_boots() {
    let mut site = Site::new();
    let report = |id, device| ordered(order(id, OrderVerb::Report, device));
    assert_eq!(words(&site.put(&report(1, "c1"))), "command 1 report, order 1 done");
    assert_eq!(words(&site.put(&report(2, "c1"))), "command 2 report, order 2 done");
    assert_eq!(words(&site.put(&report(3, "c2"))), "command 1 report, order 3 done");
    site.reboot(1_000);
    assert_eq!(words(&site.put(&report(4, "c1"))), "command 3 report, order 4 done");
    let answer = CommandAnswer {
        id: 3,
        outcome: CommandOutcome::Done,
        at: STAMP,
    };
    site.say("c1", Said::CommandAnswer(answer));
    assert_eq!(site.count(|event| matches!(event, Event::CommandAnswered(_))), 1);
    site.check();
}

#[test]
fn a_fault_is_told_to_the_operator() {
    let mut site = Site::new();
    let said = status(1, OutletState::Faulted, Fault::Leakage);
    assert_eq!(words(&site.say("c1", said)), "alarm: c1 outlet 1: fault Leakage");
    assert_eq!(words(&site.say("c1", status(1, OutletState::Free, Fault::None))), "");
}

#[test]
fn the_hub_says_what_became_of_a_record() {
    let mut site = busy_site();
    let hash = Hash::ZERO;
    let noted = |upto, notes: &[(u64, Mark)]| Input::Receipt {
        receipt: LedgerReceipt {
            epoch: 1,
            upto,
            hash,
            quarantined: 1,
            notes: notes.iter().map(|&(sequence, mark)| Note { sequence, mark }).collect(),
        },
        own_hash: hash,
    };
    let mut say = |input: &Input, expected: &str| assert_eq!(words(&site.put(input)), expected);
    let quarantined = "alarm: the backend cannot book record 3; it is quarantined there, 1 in all";
    say(&noted(4, &[(3, Mark::Quarantined)]), quarantined);
    say(
        &noted(4, &[(3, Mark::Quarantined)]),
        "ignored: receipt up to 4, the cursor is at 4",
    );
    say(&noted(5, &[(5, Mark::Adjusted)]), "");
    say(
        &noted(5, &[(5, Mark::Disputed)]),
        "alarm: the backend disputes record 5",
    );
    say(
        &noted(5, &[(6, Mark::Disputed)]),
        "ignored: receipt up to 5, the cursor is at 5",
    );
    let outbox = site.gateway.outbox();
    assert_eq!((outbox.cursor(), outbox.quarantined()), (5, 1), "the others went on");
    assert_eq!(
        outbox.marks().collect::<Vec<_>>(),
        [(3, Mark::Quarantined), (5, Mark::Disputed)]
    );
    site.check();
}
