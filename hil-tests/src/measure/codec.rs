//! `codec`: what sealing, opening, encoding and decoding a message costs, beside two other implementations of CBOR.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use minicbor_serde::Serializer;
use proto::{
    codec,
    id::{Hash, IdToken, Kind, Name, SessionId, TokenHash, TokenKind},
    instrument::Instrument,
    link::{Evidence, LedgerRecord, RecordKind},
    message::{Authorize, ClockQuality, Closing, Grant, Receipt, Stamp, Stop, StopReason},
    money::{Money, Units},
    seal::{Direction, FRAME_BYTES_MAX, PairSecret},
    tariff::{Bill, Dimension, Tariff},
    topic::{self, Up},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Size, instructions, stat::Spread, table::Table};

/// Calls between two looks at the clock.
const TOGETHER: u32 = 500;

struct Scale {
    rounds: usize,
    time: Duration,
}

/// Nanoseconds of a call, one figure a round.
fn nanos(scale: &Scale, mut what: impl FnMut()) -> Spread {
    let rounds = (0..scale.rounds).map(|_| {
        let (since, mut calls) = (Instant::now(), 0_u64);
        while since.elapsed() < scale.time {
            (0..TOGETHER).for_each(|_| what());
            calls += u64::from(TOGETHER);
        }
        since.elapsed().as_nanos() as f64 / calls as f64
    });
    Spread::of(rounds.collect())
}

/// Runs it; prints its tables.
///
/// # Errors
/// If an implementation cannot read what it wrote.
pub fn run(size: Size) -> anyhow::Result<()> {
    let scale = match size {
        Size::Quick => Scale {
            rounds: 1,
            time: Duration::from_millis(5),
        },
        Size::Full => Scale {
            rounds: 5,
            time: Duration::from_millis(150),
        },
    };
    println!(
        "Nanoseconds of a call and bytes of the result; the median of {} rounds, in brackets least and most. The same structs \
         for all: ours packed (maps keyed by position, `proto::codec`: serde_cbor writes, our own reader reads), ciborium and \
         minicbor-serde with the names of the fields.\n",
        scale.rounds
    );
    let mut table = Table::new(&[
        "message",
        "ours: bytes",
        "encode",
        "decode",
        "ciborium: bytes",
        "encode",
        "decode",
        "minicbor-serde: bytes",
        "encode",
        "decode",
    ]);
    row(&scale, &mut table, "authorize", &authorize()?)?;
    row(&scale, &mut table, "grant", &grant()?)?;
    row(&scale, &mut table, "stop", &stop()?)?;
    row(&scale, &mut table, "receipt", &receipt()?)?;
    row(&scale, &mut table, "ledger record", &record()?)?;
    println!("{}", table.text());
    derived(&scale)?;
    seals(&scale)?;
    instructions::print()
}

/// An authorize as minicbor's own derive wants it: fields numbered, bytes as bytes.
#[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Numbered<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    session: &'a [u8],
    #[n(1)]
    outlet: u8,
    #[n(2)]
    token_kind: u8,
    #[cbor(n(3), with = "minicbor::bytes")]
    token: &'a [u8],
    #[n(4)]
    units_wished: u64,
    #[n(5)]
    register: u64,
    #[n(6)]
    mono_ms: u64,
    #[n(7)]
    wall_s: u64,
    #[n(8)]
    quality: u8,
    #[cbor(n(9), with = "minicbor::bytes")]
    instrument: &'a [u8],
}

/// What an implementation without serde makes of the same content, for comparison: it needs a struct of its own.
fn derived(scale: &Scale) -> anyhow::Result<()> {
    let message = Numbered {
        session: &[7; 16],
        outlet: 0,
        token_kind: 1,
        token: &[4, 1, 2, 3, 4, 5, 6],
        units_wished: 0,
        register: 1_234_567,
        mono_ms: AT.mono_ms,
        wall_s: AT.wall_s,
        quality: 2,
        instrument: &[],
    };
    let bytes = minicbor::to_vec(&message)?;
    anyhow::ensure!(
        minicbor::decode::<Numbered<'_>>(&bytes)? == message,
        "minicbor reads what it writes"
    );
    let mut out = Vec::with_capacity(2_048);
    let encoding = nanos(scale, || {
        out.clear();
        let _ = black_box(minicbor::encode(black_box(&message), &mut out));
    });
    let decoding = nanos(scale, || {
        drop(black_box(minicbor::decode::<Numbered<'_>>(black_box(&bytes))))
    });
    println!(
        "minicbor's derive, on a flat struct with the content of an authorize, borrowing its bytes: {} bytes, encode {} ns, \
         decode {} ns.\n",
        bytes.len(),
        encoding.text(),
        decoding.text()
    );
    Ok(())
}

fn row<T: Serialize + DeserializeOwned + PartialEq>(
    scale: &Scale,
    table: &mut Table,
    name: &str,
    message: &T,
) -> anyhow::Result<()> {
    let mut cells = vec![name.to_owned()];
    let mut buffer = [0; 2_048];
    let len = codec::encode(message, &mut buffer)?;
    let bytes = buffer[..len].to_vec();
    anyhow::ensure!(codec::decode::<T>(&bytes)? == *message, "ours reads what it writes");
    cells.push(bytes.len().to_string());
    cells.push(
        nanos(scale, || {
            let _ = black_box(codec::encode(black_box(message), &mut buffer));
        })
        .text(),
    );
    cells.push(nanos(scale, || drop(black_box(codec::decode::<T>(black_box(&bytes))))).text());

    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes)?;
    anyhow::ensure!(
        ciborium::from_reader::<T, _>(bytes.as_slice())? == *message,
        "ciborium reads what it writes"
    );
    cells.push(bytes.len().to_string());
    let mut out = Vec::with_capacity(2_048);
    let encode = || {
        out.clear();
        let _ = black_box(ciborium::into_writer(black_box(message), &mut out));
    };
    cells.push(nanos(scale, encode).text());
    cells.push(
        nanos(scale, || {
            drop(black_box(ciborium::from_reader::<T, _>(black_box(bytes.as_slice()))))
        })
        .text(),
    );

    let bytes = minicbor_serde::to_vec(message)?;
    anyhow::ensure!(
        minicbor_serde::from_slice::<T>(&bytes)? == *message,
        "minicbor reads what it writes"
    );
    cells.push(bytes.len().to_string());
    let mut out = Vec::with_capacity(2_048);
    let encode = || {
        out.clear();
        let _ = black_box(black_box(message).serialize(&mut Serializer::new(&mut out)));
    };
    cells.push(nanos(scale, encode).text());
    cells.push(
        nanos(scale, || {
            drop(black_box(minicbor_serde::from_slice::<T>(black_box(&bytes))))
        })
        .text(),
    );
    table.row(&cells);
    Ok(())
}

fn seals(scale: &Scale) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "sealed message",
        "frame, bytes",
        "encode and seal",
        "open",
        "open and decode",
    ]);
    let secret = PairSecret([7; 32]);
    let key = secret.key(Direction::Up);
    let device = Name::new("charger-001")?;
    let topic = topic::up(&device, Up::Authorize);
    let mut frame = [0; FRAME_BYTES_MAX];
    let (authorize, grant) = (authorize()?, grant()?);
    let mut one = |name: &str, seal: &mut dyn FnMut(&mut [u8]) -> usize, decode: &dyn Fn(&[u8]) -> bool| {
        let len = seal(&mut frame);
        let sealed = frame[..len].to_vec();
        let sealing = nanos(scale, || {
            black_box(seal(&mut frame));
        });
        let open = |frame| key.open(&topic, frame, FRAME_BYTES_MAX);
        let opening = nanos(scale, || {
            let _ = black_box(open(black_box(&sealed)));
        });
        let both = nanos(scale, || {
            let _ = black_box(open(black_box(&sealed)).is_ok_and(|opened| decode(opened.body)));
        });
        table.row(&[
            name.to_owned(),
            len.to_string(),
            sealing.text(),
            opening.text(),
            both.text(),
        ]);
    };
    one(
        "authorize",
        &mut |frame| key.seal(&topic, 1, &authorize, frame).unwrap_or_default(),
        &|body| codec::decode::<Authorize>(body).is_ok(),
    );
    one(
        "grant",
        &mut |frame| key.seal(&topic, 1, &grant, frame).unwrap_or_default(),
        &|body| codec::decode::<Grant>(body).is_ok(),
    );
    println!("{}", table.text());
    Ok(())
}

fn session() -> anyhow::Result<SessionId> {
    Ok(SessionId::mint(&Name::new("charger-001")?, 12, 345))
}

const AT: Stamp = Stamp {
    mono_ms: 86_400_000,
    wall_s: 1_768_464_000,
    quality: ClockQuality::Synchronised,
};

fn authorize() -> anyhow::Result<Authorize> {
    Ok(Authorize {
        session: session()?,
        outlet: 0,
        token: IdToken::new(TokenKind::Card, &[4, 1, 2, 3, 4, 5, 6])?,
        units_wished: Units::ZERO,
        register: Units(1_234_567),
        at: AT,
        instrument: Instrument::NONE,
    })
}

fn grant() -> anyhow::Result<Grant> {
    let tariff = Tariff::flat(1, &[(Dimension::Energy, 120_000), (Dimension::Idle, 1_000)]);
    Ok(Grant {
        session: session()?,
        units_max: Units(3_000),
        money_max: Money(300),
        duration_max_s: 28_800,
        start_within_s: 60,
        meter_every_s: 60,
        tariff_hash: tariff.hash(),
        tariff,
        decision: 12_345,
        stop_tokens: heapless::Vec::new(),
    })
}

fn stop() -> anyhow::Result<Stop> {
    Ok(Stop {
        session: session()?,
        outlet: 0,
        reason: StopReason::User,
        started: true,
        register_start: Units(1_234_567),
        register_end: Units(1_235_067),
        elapsed_s: 3_600,
        idle_s: 12,
        shown: Money(60),
        at: AT,
    })
}

fn receipt() -> anyhow::Result<Receipt> {
    Ok(Receipt {
        session: session()?,
        closing: Closing::Captured,
        amount: Money(60),
        units: Units(500),
    })
}

fn record() -> anyhow::Result<LedgerRecord> {
    Ok(LedgerRecord {
        sequence: 123_456,
        kind: RecordKind::Capture,
        session: session()?,
        device: Name::new("charger-001")?,
        outlet: 0,
        device_kind: Kind::Charger,
        token: TokenHash([7; 16]),
        account: 1_234,
        amount: Money(60),
        register_start: Units(1_234_567),
        register_end: Units(1_235_067),
        bill: Bill::default(),
        tariff_hash: Hash([9; 32]),
        stop_reason: StopReason::User,
        rule: 7,
        online: false,
        at: AT,
        boot: 12,
        evidence: Evidence::default(),
    })
}
