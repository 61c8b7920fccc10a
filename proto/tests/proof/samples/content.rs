//! What travels inside messages and envelopes: tariffs, records, lists, revocations.

use proto::{
    artifact::{Lease, Leases, ListEntry, ListManifest, Revocations, Revoked, TariffOf, TariffTable, Whitelist},
    id::*,
    link::{Evidence, LedgerRecord, RecordKind},
    message::StopReason,
    money::{Money, Units},
    tariff::{Bill, Dimension, PRICE_MILLI_MAX, PriceElement, Tariff},
};

use super::{DEVICE, MOST_SESSION, MOST_STAMP, Place, Sample, at, name, sample, session};

/// The card of the samples.
pub(crate) fn card() -> IdToken {
    IdToken::new(TokenKind::Card, &[0x04, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6]).expect("a card")
}

/// Day and night prices for energy, an idle fee, a start fee and a cap.
pub(crate) fn evening_tariff() -> Tariff {
    let mut tariff = Tariff {
        id: 202_603,
        start_fee: Money(50),
        minimum: Money(100),
        cap: Money(6_000),
        ..Tariff::default()
    };
    let day = PriceElement {
        minute_from: 8 * 60,
        minute_to: 22 * 60,
        ..PriceElement::flat(Dimension::Energy, 120_000)
    };
    let night = PriceElement {
        minute_from: 22 * 60,
        minute_to: 8 * 60,
        ..PriceElement::flat(Dimension::Energy, 45_500)
    };
    for element in [day, night, PriceElement::flat(Dimension::Idle, 10_000)] {
        tariff.elements.push(element).expect("three of eight");
    }
    tariff
}

/// Eight elements, every field at its end; a tariff that passes its check.
pub(crate) fn most_tariff() -> Tariff {
    let element = PriceElement {
        dimension: Dimension::Idle,
        price_milli: PRICE_MILLI_MAX,
        minute_from: 1439,
        minute_to: 1440,
        power_w_min: u32::MAX - 1,
        power_w_max: u32::MAX,
    };
    Tariff {
        id: u32::MAX,
        start_fee: Money(i64::MAX),
        minimum: Money(i64::MAX),
        cap: Money(i64::MAX),
        elements: core::iter::repeat_n(element, 8).collect(),
    }
}

/// A token hash under an arbitrary key of the samples.
pub(crate) fn card_hash() -> TokenHash {
    card().hash(&TokenKey([0x5a; 32]))
}

/// A capture as a gateway uploads it.
pub(crate) fn record() -> LedgerRecord {
    LedgerRecord {
        sequence: 4_712,
        kind: RecordKind::Capture,
        session: session(1),
        device: name(DEVICE),
        outlet: 1,
        device_kind: Kind::Charger,
        token: card_hash(),
        account: 90_210,
        amount: Money(784),
        register_start: Units(1_204_550),
        register_end: Units(1_212_390),
        bill: Bill {
            quantities: [5_000, 2_840, 64, 0, 0, 0, 0, 0],
        },
        tariff_hash: evening_tariff().hash(),
        stop_reason: StopReason::Finished,
        rule: 7,
        online: false,
        at: at(4_164_900),
        boot: 9,
        evidence: Evidence {
            mode: 2,
            credential_revision: 3,
            list_revision: 41,
            revocations_revision: 7,
            lease: 0,
            instrument: 0,
        },
    }
}

/// The largest record.
pub(crate) fn most_record() -> LedgerRecord {
    LedgerRecord {
        sequence: u64::MAX,
        kind: RecordKind::Indeterminate,
        session: MOST_SESSION,
        device: name("dispenser-0123456789"),
        outlet: u8::MAX,
        device_kind: Kind::Unknown,
        token: TokenHash([0xff; 16]),
        account: u64::MAX,
        amount: Money(i64::MIN),
        register_start: Units(u64::MAX),
        register_end: Units(u64::MAX),
        bill: Bill {
            quantities: [u64::MAX; 8],
        },
        tariff_hash: Hash([0xff; 32]),
        stop_reason: StopReason::Abandoned,
        rule: u8::MAX,
        online: true,
        at: MOST_STAMP,
        boot: u32::MAX,
        evidence: Evidence {
            mode: u8::MAX,
            credential_revision: u64::MAX,
            list_revision: u64::MAX,
            revocations_revision: u64::MAX,
            lease: u64::MAX,
            instrument: u64::MAX,
        },
    }
}

/// An entry of a list.
pub(crate) fn entry() -> ListEntry {
    ListEntry {
        token: card_hash(),
        account: 90_210,
        group: 0,
        valid: true,
        whitelist: Whitelist::AllowedOffline,
        credential_revision: 3,
        balance: Money(12_345),
        not_after_s: 0,
        lease_only: false,
    }
}

fn most_entry() -> ListEntry {
    ListEntry {
        token: TokenHash([0xff; 16]),
        account: u64::MAX,
        group: u64::MAX,
        valid: false,
        whitelist: Whitelist::Never,
        credential_revision: u64::MAX,
        balance: Money(i64::MIN),
        not_after_s: u64::MAX,
        lease_only: false,
    }
}

/// The list of the vectors: two entries.
pub(crate) fn entries() -> Vec<ListEntry> {
    vec![entry(), most_entry()]
}

/// What travels inside something else.
pub(crate) fn inside() -> Vec<Sample> {
    let place = Place::Inside;
    let chunk = entries();
    let manifest = ListManifest {
        revision: u64::MAX,
        base: u64::MAX,
        count: 192_000,
        issued_s: u64::MAX,
        chunks: vec![Hash([0xff; 32]); 3],
    };
    vec![
        sample(
            place,
            "ledger-record",
            "record-typical",
            "a capture made offline",
            record(),
        ),
        sample(
            place,
            "ledger-record",
            "record-extreme",
            "the largest record",
            most_record(),
        ),
        sample(place, "list-chunk", "chunk-typical", "two entries", chunk),
        sample(place, "list-chunk", "chunk-empty", "none", Vec::<ListEntry>::new()),
        sample(
            place,
            "list-manifest",
            "manifest-extreme",
            "numbers at their ends",
            manifest,
        ),
        sample(
            place,
            "tariff",
            "tariff-typical",
            "day, night and idle",
            evening_tariff(),
        ),
        sample(
            place,
            "tariff",
            "tariff-extreme",
            "eight elements, every field at its end",
            most_tariff(),
        ),
        sample(place, "tariff", "tariff-empty", "free", Tariff::default()),
    ]
}

/// Revocations of the envelope vectors: typical and extreme.
pub(crate) fn leases() -> [Leases; 2] {
    let lease = |account, epoch, amount, not_after_s| Lease {
        account,
        epoch,
        amount: Money(amount),
        not_after_s,
    };
    [
        Leases {
            revision: 12,
            gateway: name("gw-01"),
            journal_epoch: 1,
            entries: vec![
                lease(90_210, 4_294_967_297, 600, 1_772_976_600),
                lease(90_211, 4_294_967_290, 0, 1_772_900_000),
            ],
        },
        Leases {
            revision: u64::MAX,
            gateway: name("gateway-0123456789ab"),
            journal_epoch: u32::MAX,
            entries: vec![lease(u64::MAX, u64::MAX, i64::MAX, u64::MAX)],
        },
    ]
}

pub(crate) fn revocations() -> [Revocations; 2] {
    let revoked = |token, credential_revision| Revoked {
        token,
        credential_revision,
    };
    [
        Revocations {
            revision: 6,
            entries: vec![revoked(card_hash(), 3)],
        },
        Revocations {
            revision: u64::MAX,
            entries: vec![revoked(TokenHash::ZERO, 0), revoked(TokenHash([0xff; 16]), u64::MAX)],
        },
    ]
}

/// Price tables of the envelope vectors: one kind and all kinds.
pub(crate) fn tariff_tables() -> [TariffTable; 2] {
    let of = |kind, tariff| TariffOf { kind, tariff };
    let washer = Tariff::flat(2, &[(Dimension::Cycle, 600_000)]);
    let dispenser = Tariff::flat(3, &[(Dimension::Volume, 40_000)]);
    [
        TariffTable {
            revision: 4,
            entries: vec![of(Kind::Charger, evening_tariff())],
        },
        TariffTable {
            revision: u64::MAX,
            entries: vec![
                of(Kind::Charger, most_tariff()),
                of(Kind::Washer, washer),
                of(Kind::Dispenser, dispenser),
            ],
        },
    ]
}
