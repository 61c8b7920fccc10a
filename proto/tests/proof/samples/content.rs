//! What travels inside messages and envelopes: tariffs, records, lists, revocations.

use proto::{
    artifact::{
        IssuerKeys, Lease, Leases, ListEntry, ListManifest, PublicKey, Reason, Revocations, Revoked, RevokedScope,
        Subject, TariffOf, TariffTable, Whitelist,
    },
    id::*,
    instrument::{NUMBER_MAX, Scope, Voucher},
    link::{Evidence, Gift, LedgerRecord, RecordKind},
    message::StopReason,
    money::{Money, Units},
    policy::{Class, ClassLimits, FreeVend, Policy, UnsignedDisable},
    tariff::{Bill, Dimension, PRICE_MILLI_MAX, PriceElement, Tariff},
    trust::{Issuer, KeyId},
    update::Manifest,
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

/// 5.00 for a charger of the samples' site, for a month.
pub(crate) fn voucher() -> Voucher {
    Voucher {
        number: 1_000_042,
        scope: Scope::Site,
        place: name("north-campus"),
        kind: Kind::Charger,
        amount: Money(500),
        currency: 156,
        not_before_s: 1_772_323_200,
        not_after_s: 1_775_001_599,
    }
}

/// The largest voucher.
pub(crate) fn most_voucher() -> Voucher {
    Voucher {
        number: NUMBER_MAX,
        scope: Scope::Device,
        place: name("dispenser-0123456789"),
        kind: Kind::Unknown,
        amount: Money(i64::MAX),
        currency: u16::MAX,
        not_before_s: u64::MAX,
        not_after_s: u64::MAX,
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
            gift: Gift::None,
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
            gift: Gift::Other,
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
        count: 191_600,
        issued_s: u64::MAX,
        chunks: vec![Hash([0xff; 32]); 3],
        removed: vec![TokenHash::ZERO, TokenHash([0xff; 16])],
        total: 191_600,
        digest: Hash([0xff; 32]),
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
            "voucher",
            "voucher-typical",
            "for a charger of one site",
            voucher(),
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
        sample(
            place,
            "policy",
            "policy-typical",
            "limits of two classes, and free water for an evening",
            policies()[0].clone(),
        ),
        sample(
            place,
            "policy",
            "policy-extreme",
            "every field at its end",
            policies()[1].clone(),
        ),
    ]
}

/// Policies of the envelope vectors: typical and extreme.
pub(crate) fn policies() -> [Policy; 2] {
    let water = ClassLimits {
        class: Class::Dispenser,
        units_max: Units(5_000),
        money_max: Money(200),
        duration_max_s: 600,
        outage_count_lower: 6,
        outage_count_upper: 10,
        outage_money_max: Money(1_000),
        emergency_units: Units(2_000),
        invalidation_units: Units(100),
    };
    let car = ClassLimits {
        class: Class::Car,
        units_max: Units(20_000),
        money_max: Money(4_000),
        duration_max_s: 28_800,
        outage_count_lower: 1,
        outage_count_upper: 1,
        outage_money_max: Money(4_000),
        emergency_units: Units::ZERO,
        invalidation_units: Units(200),
    };
    let most = ClassLimits {
        class: Class::Unknown,
        units_max: Units(u64::MAX),
        money_max: Money(i64::MAX),
        duration_max_s: u32::MAX,
        outage_count_lower: u32::MAX,
        outage_count_upper: u32::MAX,
        outage_money_max: Money(i64::MAX),
        emergency_units: Units(u64::MAX),
        invalidation_units: Units(u64::MAX),
    };
    [
        Policy {
            revision: 12,
            issued_s: 1_772_371_800,
            classes: vec![water, car],
            site_budget: Money(200_000),
            list_full_s: 259_200,
            list_half_s: 604_800,
            confirmation_s: 259_200,
            attempts_a_minute_max: 10,
            starts_an_hour_max: 30,
            device_change_ms: 5_000,
            master_group: 9,
            unsigned_disable: UnsignedDisable::SuspendAfter,
            unsigned_disable_s: 86_400,
            free_vend: vec![FreeVend {
                class: Class::Dispenser,
                from_s: 1_772_366_400,
                until_s: 1_772_380_800,
                units_max: Units(1_000),
            }],
        },
        Policy {
            revision: u64::MAX,
            issued_s: u64::MAX,
            classes: vec![most],
            site_budget: Money(i64::MAX),
            list_full_s: u64::MAX,
            list_half_s: u64::MAX,
            confirmation_s: u64::MAX,
            attempts_a_minute_max: u32::MAX,
            starts_an_hour_max: u32::MAX,
            device_change_ms: u64::MAX,
            master_group: u64::MAX,
            unsigned_disable: UnsignedDisable::Immediate,
            unsigned_disable_s: u64::MAX,
            free_vend: vec![FreeVend {
                class: Class::Unknown,
                from_s: u64::MAX - 604_800,
                until_s: u64::MAX,
                units_max: Units(u64::MAX),
            }],
        },
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
    let revoked = |token, credential_revision, reason| Revoked {
        token,
        credential_revision,
        reason,
    };
    let scopes = [
        (Subject::Account(u64::MAX), Reason::Closed),
        (Subject::Device(name("dispenser-0123456789")), Reason::Stolen),
        (Subject::Key(KeyId([0xff; 8])), Reason::Compromised),
    ];
    [
        Revocations {
            revision: 6,
            entries: vec![revoked(card_hash(), 3, Reason::Lost)],
            scopes: vec![RevokedScope::new(Subject::Account(90_210), Reason::Fraud)],
        },
        Revocations {
            revision: u64::MAX,
            entries: vec![
                revoked(TokenHash::ZERO, 0, Reason::Other),
                revoked(TokenHash([0xff; 16]), u64::MAX, Reason::Compromised),
            ],
            scopes: scopes
                .map(|(subject, reason)| RevokedScope::new(subject, reason))
                .to_vec(),
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

/// The list before the one of the vectors: another balance, and one token more.
pub(crate) fn entries_before() -> Vec<ListEntry> {
    let gone = ListEntry {
        token: TokenHash([0xee; 16]),
        ..entry()
    };
    let poorer = ListEntry {
        balance: Money(45),
        ..entry()
    };
    vec![poorer, gone, most_entry()]
}

/// Sets of keys of the envelope vectors: one key and as many as there may be.
pub(crate) fn key_sets() -> [IssuerKeys; 2] {
    let key = |seed| PublicKey::from(Issuer::from_seed(&[seed; 32]).key());
    [
        IssuerKeys {
            epoch: 2,
            keys: vec![key(0x16)],
        },
        IssuerKeys {
            epoch: u64::MAX,
            keys: (1..=8).map(key).collect(),
        },
    ]
}

/// What is signed of an image.
pub(crate) fn manifests() -> [Manifest; 2] {
    let typical = Manifest {
        board: name("b-l475e-iot01a"),
        kind: Kind::Charger,
        version: 4,
        length: 67_608,
        hash: Hash([0x4a; 32]),
    };
    let most = Manifest {
        board: name("a-board-of-20-letter"),
        kind: Kind::Unknown,
        version: u32::MAX,
        length: u32::MAX,
        hash: Hash([0xff; 32]),
    };
    [typical, most]
}
