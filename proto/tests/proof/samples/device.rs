//! Messages between device and gateway.

use proto::{
    codec,
    id::*,
    instrument::{INSTRUMENT_BYTES_MAX, Instrument, Voucher},
    message::*,
    money::{Money, Units},
    topic::{Down, Up},
    trust::{ArtifactKind, Issuer},
    update::{self, MANIFEST_BYTES_MAX, Octets, Offer, PIECE_BYTES, Piece, Update},
};

use super::{
    EVENING_S, MOST, MOST_SESSION, MOST_STAMP, Place, Sample, at,
    content::{card, evening_tariff, most_tariff, voucher},
    sample, session,
};

fn longest_token() -> IdToken {
    IdToken::new(TokenKind::Keypad, &[0xff; TOKEN_BYTES_MAX]).expect("a keypad token")
}

/// What a device says until it delivers.
pub(crate) fn up() -> Vec<Sample> {
    let place = Place::Up;
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        kind: Kind::Charger,
        outlets: 2,
        boot: 3,
        down_counter: (7 << 32) + 41,
        firmware: "1.4.2".try_into().expect("short"),
        at: Stamp::relative(812),
    };
    let most_hello = Hello {
        version_min: u8::MAX,
        version_max: u8::MAX,
        kind: Kind::Unknown,
        outlets: OUTLETS_MAX as u8,
        boot: u32::MAX,
        down_counter: u64::MAX,
        firmware: "123456789012345678901234".try_into().expect("24 bytes"),
        at: MOST_STAMP,
    };
    let authorize = Authorize {
        session: session(1),
        outlet: 1,
        token: card(),
        units_wished: Units::ZERO,
        register: Units(1_204_550),
        at: at(90_000),
        instrument: Instrument::NONE,
    };
    let with_voucher = Authorize {
        token: Voucher::id_token(voucher().number),
        instrument: envelope(&voucher()),
        ..authorize.clone()
    };
    let most_authorize = Authorize {
        session: MOST_SESSION,
        outlet: u8::MAX,
        token: longest_token(),
        units_wished: Units(u64::MAX),
        register: Units(u64::MAX),
        at: MOST_STAMP,
        instrument: Instrument::new(&[0xff; INSTRUMENT_BYTES_MAX]).expect("192 bytes"),
    };
    let started = Started {
        session: session(1),
        outlet: 1,
        register_start: Units(1_204_550),
        proof: StartProof::RelaySense,
        at: at(93_250),
    };
    let most_started = Started {
        session: MOST_SESSION,
        outlet: u8::MAX,
        register_start: Units(u64::MAX),
        proof: StartProof::Flow,
        at: MOST_STAMP,
    };
    vec![
        sample(
            place(Up::Hello),
            "hello",
            "hello-typical",
            "a charger after its third boot",
            hello,
        ),
        sample(place(Up::Hello), "hello", "hello-extreme", MOST, most_hello),
        sample(
            place(Up::Authorize),
            "authorize",
            "authorize-typical",
            "a card at outlet 1",
            authorize,
        ),
        sample(
            place(Up::Authorize),
            "authorize",
            "authorize-voucher",
            "a voucher at outlet 1",
            with_voucher,
        ),
        sample(
            place(Up::Authorize),
            "authorize",
            "authorize-extreme",
            MOST,
            most_authorize,
        ),
        sample(
            place(Up::Started),
            "started",
            "started-typical",
            "the contactor closed",
            started,
        ),
        sample(place(Up::Started), "started", "started-extreme", MOST, most_started),
    ]
}

/// What a device says that was alone.
pub(crate) fn up_alone() -> Vec<Sample> {
    let place = Place::Up;
    let redeemed = Redeemed {
        session: session(2),
        outlet: 0,
        token: Voucher::id_token(voucher().number),
        instrument: envelope(&voucher()),
        number: voucher().number,
        units_max: Units(4_166),
        money_max: Money(500),
        duration_max_s: 28_800,
        meter_every_s: 60,
        tariff: evening_tariff(),
        register: Units(1_212_390),
        at: Stamp::relative(9_812),
    };
    let most_redeemed = Redeemed {
        session: MOST_SESSION,
        outlet: u8::MAX,
        token: longest_token(),
        instrument: Instrument::new(&[0xff; INSTRUMENT_BYTES_MAX]).expect("192 bytes"),
        number: u64::MAX,
        units_max: Units(u64::MAX),
        money_max: Money(i64::MIN),
        duration_max_s: u32::MAX,
        meter_every_s: u16::MAX,
        tariff: most_tariff(),
        register: Units(u64::MAX),
        at: MOST_STAMP,
    };
    vec![
        sample(
            place(Up::Redeemed),
            "redeemed",
            "redeemed-typical",
            "a voucher at a device without a link",
            redeemed,
        ),
        sample(place(Up::Redeemed), "redeemed", "redeemed-extreme", MOST, most_redeemed),
    ]
}

fn envelope(voucher: &Voucher) -> Instrument {
    let envelope = voucher.sign(&Issuer::from_seed(&[0x15; 32])).expect("small");
    Instrument::new(&envelope).expect("a voucher fits")
}

/// What a device says from then on.
pub(crate) fn up_ends() -> Vec<Sample> {
    let place = Place::Up;
    let meter = Meter {
        session: session(1),
        outlet: 1,
        register_start: Units(1_204_550),
        register: Units(1_206_120),
        power_w: 6_940,
        elapsed_s: 815,
        idle_s: 3,
        at: at(908_250),
    };
    let most_meter = Meter {
        session: MOST_SESSION,
        outlet: u8::MAX,
        register_start: Units(u64::MAX),
        register: Units(u64::MAX),
        power_w: u32::MAX,
        elapsed_s: u32::MAX,
        idle_s: u32::MAX,
        at: MOST_STAMP,
    };
    let stop = Stop {
        session: session(1),
        outlet: 1,
        reason: StopReason::Finished,
        started: true,
        register_start: Units(1_204_550),
        register_end: Units(1_212_390),
        elapsed_s: 4_071,
        idle_s: 64,
        shown: Money(784),
        at: at(4_164_250),
    };
    let not_started = Stop {
        reason: StopReason::NotStarted,
        started: false,
        register_end: stop.register_start,
        elapsed_s: 0,
        idle_s: 0,
        shown: Money::ZERO,
        ..stop.clone()
    };
    let most_stop = Stop {
        session: MOST_SESSION,
        outlet: u8::MAX,
        reason: StopReason::Abandoned,
        started: true,
        register_start: Units(u64::MAX),
        register_end: Units(u64::MAX),
        elapsed_s: u32::MAX,
        idle_s: u32::MAX,
        shown: Money(i64::MIN),
        at: MOST_STAMP,
    };
    let status = Status {
        outlet: 0,
        state: OutletState::Free,
        fault: Fault::None,
        register: Units(88_012),
        at: at(1_000),
    };
    let most_status = Status {
        outlet: u8::MAX,
        state: OutletState::Faulted,
        fault: Fault::Meter,
        register: Units(u64::MAX),
        at: MOST_STAMP,
    };
    let answer = CommandAnswer {
        id: 12,
        outcome: CommandOutcome::Done,
        at: at(5_000_000),
    };
    let most_answer = CommandAnswer {
        id: u64::MAX,
        outcome: CommandOutcome::NotApplicable,
        at: MOST_STAMP,
    };
    vec![
        sample(place(Up::Meter), "meter", "meter-typical", "a charger at 6.9 kW", meter),
        sample(place(Up::Meter), "meter", "meter-extreme", MOST, most_meter),
        sample(place(Up::Stop), "stop", "stop-typical", "the battery is full", stop),
        sample(
            place(Up::Stop),
            "stop",
            "stop-not-started",
            "granted, but nothing flowed",
            not_started,
        ),
        sample(
            place(Up::Stop),
            "stop",
            "stop-extreme",
            "every field at its end, the money at its lowest",
            most_stop,
        ),
        sample(place(Up::Status), "status", "status-typical", "a free outlet", status),
        sample(place(Up::Status), "status", "status-extreme", MOST, most_status),
        sample(
            place(Up::CommandAnswer),
            "command-answer",
            "answer-typical",
            "done",
            answer,
        ),
        sample(
            place(Up::CommandAnswer),
            "command-answer",
            "answer-extreme",
            MOST,
            most_answer,
        ),
    ]
}

/// What a device hears.
pub(crate) fn down() -> Vec<Sample> {
    let place = Place::Down;
    let clock = Clock {
        version: 1,
        boot: 3,
        wall_s: EVENING_S,
        quality: ClockQuality::Synchronised,
        offset_min: 480,
    };
    let west_clock = Clock {
        version: u8::MAX,
        boot: u32::MAX,
        wall_s: u64::MAX,
        quality: ClockQuality::Relative,
        offset_min: -720,
    };
    let grant = Grant {
        session: session(1),
        units_max: Units(20_000),
        money_max: Money(4_000),
        duration_max_s: 28_800,
        start_within_s: 60,
        meter_every_s: 30,
        tariff_hash: evening_tariff().hash(),
        tariff: evening_tariff(),
        decision: 4_711,
        stop_tokens: [super::content::card_hash()].into_iter().collect(),
    };
    let most_grant = Grant {
        session: MOST_SESSION,
        units_max: Units(u64::MAX),
        money_max: Money(i64::MAX),
        duration_max_s: u32::MAX,
        start_within_s: u16::MAX,
        meter_every_s: u16::MAX,
        tariff_hash: most_tariff().hash(),
        tariff: most_tariff(),
        decision: u64::MAX,
        stop_tokens: core::iter::repeat_n(TokenHash([0xff; 16]), STOP_TOKENS_MAX).collect(),
    };
    let refusal = Refusal {
        session: session(2),
        reason: RefusalReason::NoCredit,
        retry_after_s: 0,
    };
    let most_refusal = Refusal {
        session: MOST_SESSION,
        reason: RefusalReason::Storage,
        retry_after_s: u16::MAX,
    };
    let receipt = Receipt {
        session: session(1),
        closing: Closing::Captured,
        amount: Money(784),
        units: Units(7_840),
    };
    let most_receipt = Receipt {
        session: MOST_SESSION,
        closing: Closing::Unknown,
        amount: Money(i64::MIN),
        units: Units(u64::MAX),
    };
    let stop = Command {
        id: 12,
        verb: Verb::Stop,
        outlet: 1,
        session: session(1),
        not_after_s: EVENING_S + 600,
        token: None,
        units: Units::ZERO,
    };
    let most_command = Command {
        id: u64::MAX,
        verb: Verb::Limit,
        outlet: u8::MAX,
        session: MOST_SESSION,
        not_after_s: u64::MAX,
        token: Some(longest_token()),
        units: Units(u64::MAX),
    };
    vec![
        sample(
            place(Down::Clock),
            "clock",
            "clock-typical",
            "an evening in China",
            clock,
        ),
        sample(
            place(Down::Clock),
            "clock",
            "clock-extreme",
            "every field at its end, far west",
            west_clock,
        ),
        sample(
            place(Down::Grant),
            "grant",
            "grant-typical",
            "20 kWh under a day and night tariff",
            grant,
        ),
        sample(
            place(Down::Grant),
            "grant",
            "grant-extreme",
            "the largest body: a full tariff",
            most_grant,
        ),
        sample(
            place(Down::Refusal),
            "refusal",
            "refusal-typical",
            "the balance is used up",
            refusal,
        ),
        sample(place(Down::Refusal), "refusal", "refusal-extreme", MOST, most_refusal),
        sample(
            place(Down::Receipt),
            "receipt",
            "receipt-typical",
            "7.84 for 7.84 kWh",
            receipt,
        ),
        sample(
            place(Down::Receipt),
            "receipt",
            "receipt-extreme",
            "every field at its end, the money at its lowest",
            most_receipt,
        ),
        sample(
            place(Down::Command),
            "command",
            "command-typical",
            "stop a session, without a token",
            stop,
        ),
        sample(
            place(Down::Command),
            "command",
            "command-extreme",
            "every field at its end, with a token",
            most_command,
        ),
    ]
}

/// How firmware travels.
pub(crate) fn firmware() -> Vec<Sample> {
    let fetching = Update {
        version: 3,
        floor: 3,
        state: update::State::Fetching,
        offered: 4,
        fault: update::Fault::None,
        offset: 67_584,
        at: at(120_000),
    };
    let most_update = Update {
        version: u32::MAX,
        floor: u32::MAX,
        state: update::State::Trial,
        offered: u32::MAX,
        fault: update::Fault::Crashed,
        offset: u32::MAX,
        at: MOST_STAMP,
    };
    let [manifest, _] = super::content::manifests();
    let envelope = Issuer::from_seed(&[0x15; 32]).sign(ArtifactKind::Firmware, &codec::to_vec(&manifest));
    let offer = Offer {
        manifest: Octets::new(&envelope.expect("small")).expect("160 bytes"),
    };
    let most_offer = Offer {
        manifest: Octets::new(&[0xff; MANIFEST_BYTES_MAX]).expect("192 bytes"),
    };
    let piece = Piece {
        version: 4,
        offset: 67_584,
        bytes: Octets::new(&[0x5a; 24]).expect("24 bytes"),
    };
    let most_piece = Piece {
        version: u32::MAX,
        offset: u32::MAX,
        bytes: Octets::new(&[0xff; PIECE_BYTES]).expect("512 bytes"),
    };
    let (up, offers, pieces) = (
        Place::Up(Up::Update),
        Place::Down(Down::Offer),
        Place::Down(Down::Piece),
    );
    vec![
        sample(up, "update", "update-typical", "the 133rd piece is wanted", fetching),
        sample(up, "update", "update-extreme", MOST, most_update),
        sample(offers, "offer", "offer-typical", "version 4 for a charger", offer),
        sample(offers, "offer", "offer-extreme", MOST, most_offer),
        sample(pieces, "piece", "piece-typical", "the last piece", piece),
        sample(pieces, "piece", "piece-extreme", MOST, most_piece),
    ]
}
