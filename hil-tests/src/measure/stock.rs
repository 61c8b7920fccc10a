//! Stores with much in them, filled by the store's own interface: a list of many tokens, and the sessions of an outage whose
//! records wait for a receipt.

use std::{path::Path, time::SystemTime};

use anyhow::{Context, ensure};
use gateway::store::Store;
use gateway_core::{Gateway, Input, Now, Presented, Said};
use proto::{
    artifact::{ListEntry, TariffOf, TariffTable, Whitelist, sign_list, verify_list},
    id::{DeviceId, IdToken, Kind, SessionId, TokenHash, TokenKey, TokenKind},
    message::{ClockQuality, Stamp, StartProof, Started, Stop, StopReason},
    money::{Money, Units},
    tariff::{Dimension, Tariff},
    trust::Issuer,
};

use crate::site::{Plan, key};

/// Units of a session: half a litre.
const UNITS: u64 = 500;
/// What it costs at 0.30 a litre.
const PRICE: Money = Money(15);
/// Virtual time of a session, in ms: 350,000 of them end before the list is too old to vouch for anybody.
const SESSION_MS: u64 = 500;
/// Sessions that share a sync while a store is filled.
const TOGETHER: u32 = 64;
/// What every account has, in minor units.
const BALANCE: Money = Money(1_000_000);

/// Records of a session: the hold, the start, the charge.
pub const RECORDS_A_SESSION: u32 = 3;

/// The clock of the machine, for a gateway that trusts it.
pub(super) fn now(mono_ms: u64) -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        mono_ms,
        wall_s: since.map_or(0, |since| since.as_secs()),
        quality: ClockQuality::Synchronised,
    }
}

/// Tokens like hashes: neighbours in a list are not neighbours in memory.
fn filler(n: u32) -> TokenHash {
    let mut token = TokenHash::ZERO;
    token.0[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b1).to_be_bytes());
    token.0[4..8].copy_from_slice(&n.to_be_bytes());
    token
}

/// The hashes of a plan's users.
pub(super) fn people(plan: &Plan) -> anyhow::Result<Vec<TokenHash>> {
    let token_key = TokenKey(key(plan.seed, "token key"));
    let hash = |token: &[u8; 7]| anyhow::Ok(IdToken::new(TokenKind::Card, token)?.hash(&token_key));
    plan.users.iter().map(|user| hash(&user.token)).collect()
}

/// As well, and after them others, so many in all.
pub(super) fn tokens(plan: &Plan, tokens: u32) -> anyhow::Result<Vec<TokenHash>> {
    let mut all = people(plan)?;
    all.extend((0..tokens.saturating_sub(all.len() as u32)).map(filler));
    Ok(all)
}

/// A signed list with a plan's users and so many tokens in all, and prices.
pub(super) fn artifacts(plan: &Plan, tokens: u32) -> anyhow::Result<[Input; 2]> {
    let tokens = self::tokens(plan, tokens)?;
    let entries = tokens.into_iter().zip(1_000..).map(|(token, account)| ListEntry {
        token,
        account,
        group: 0,
        valid: true,
        whitelist: Whitelist::Always,
        credential_revision: 7,
        balance: BALANCE,
        not_after_s: 0,
        lease_only: false,
    });
    let issuer = Issuer::from_seed(&key(plan.seed, "issuer"));
    let (envelope, chunks) = sign_list(&issuer, 1, now(0).wall_s, entries.collect())?;
    let list = verify_list(&envelope, &chunks, &[issuer.key()])?;
    let price = |kind, dimension, milli| TariffOf {
        kind,
        tariff: Tariff::flat(1, &[(dimension, milli)]),
    };
    let tariffs = TariffTable {
        revision: 1,
        entries: vec![
            price(Kind::Charger, Dimension::Energy, 120_000),
            price(Kind::Washer, Dimension::Cycle, 400_000),
            price(Kind::Dispenser, Dimension::Volume, 30_000),
        ],
    };
    Ok([Input::List(list), Input::Tariffs(tariffs)])
}

/// A gateway without a store that knows so many tokens.
pub(super) fn in_memory(config: &gateway::config::Config, plan: &Plan, tokens: u32) -> anyhow::Result<Gateway> {
    let mut gateway = Gateway::new(config.core.clone());
    let now = now(0);
    for input in [Input::Boot { boot: 1, epoch: 1 }]
        .into_iter()
        .chain(artifacts(plan, tokens)?)
    {
        for event in gateway.decide(&now, &input).events {
            gateway.apply(&now, &event);
        }
    }
    ensure!(gateway.trust().tokens() >= tokens as usize, "the list was not adopted");
    Ok(gateway)
}

/// What a store gets.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    /// Tokens of the list; 0: it has one already, from a hub.
    pub tokens: u32,
    /// Sessions, [`RECORDS_A_SESSION`] records each.
    pub sessions: u32,
}

/// Fills the store of the gateway in `dir/gateway`, which does not run. The sessions are those of the first dispenser.
///
/// # Errors
/// If a file fails, or somebody is refused.
pub fn fill(dir: &Path, plan: &Plan, stock: Stock) -> anyhow::Result<()> {
    let config = gateway::config::load(&dir.join("gateway/holdfast.toml"), None)?;
    let mut core = config.core;
    core.limits.starts_an_hour_max = u32::MAX;
    let (mut store, mut gateway) = Store::open(&config.dir, core, u64::MAX)?;
    let (boot, epoch) = (gateway.timeline().boot + 1, gateway.timeline().epoch.max(1));
    let mut now = now(0);
    let mut put = |store: &mut Store, now: &Now, input: &Input| {
        for event in gateway.decide(now, input).events {
            store.stage(&mut gateway, now, event);
        }
    };
    put(&mut store, &now, &Input::Boot { boot, epoch });
    store.commit()?;
    if stock.tokens > 0 {
        for input in artifacts(plan, stock.tokens)? {
            put(&mut store, &now, &input);
            store.commit()?;
        }
    }
    let device = plan.devices.iter().find(|device| device.kind == Kind::Dispenser);
    let device = device.context("the plan has a dispenser")?.id;
    let people = people(plan)?;
    let mut counter = 0;
    for number in 1..=stock.sessions {
        let session = SessionId::mint(&device, 1, number);
        let start = Units(u64::from(number) * UNITS);
        let token = people[number as usize % people.len()];
        for said in draw(session, token, start, now.mono_ms) {
            counter += 1;
            if matches!(said, Said::Stop(_)) {
                now.mono_ms += SESSION_MS;
            }
            put(&mut store, &now, &Input::Device { device, counter, said });
        }
        if number % TOGETHER == 0 {
            store.commit()?;
        }
    }
    store.commit()?;
    let records = gateway.outbox().head();
    ensure!(
        records >= u64::from(stock.sessions) * u64::from(RECORDS_A_SESSION),
        "{} sessions made {records} records",
        stock.sessions
    );
    store.close(&gateway)?;
    Ok(())
}

/// Half a litre.
pub(super) fn draw(session: SessionId, token: TokenHash, start: Units, mono_ms: u64) -> [Said; 3] {
    let at = Stamp::relative(mono_ms);
    [
        authorize(session, token, start),
        Said::Started(Started {
            session,
            outlet: 0,
            register_start: start,
            proof: StartProof::Flow,
            at,
        }),
        Said::Stop(Stop {
            session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: start,
            register_end: Units(start.0 + UNITS),
            elapsed_s: 1,
            idle_s: 0,
            shown: PRICE,
            at,
        }),
    ]
}

pub(super) const fn authorize(session: SessionId, token: TokenHash, register: Units) -> Said {
    Said::Authorize {
        session,
        outlet: 0,
        token,
        units_wished: Units::ZERO,
        register,
        presented: Presented::Token,
    }
}

/// The end of a session of which nothing was drawn.
pub(super) const fn void(session: SessionId, register: Units) -> Said {
    Said::Stop(Stop {
        session,
        outlet: 0,
        reason: StopReason::NotStarted,
        started: false,
        register_start: register,
        register_end: register,
        elapsed_s: 1,
        idle_s: 0,
        shown: Money::ZERO,
        at: Stamp::relative(0),
    })
}

/// A device of a plan by its number.
pub(super) fn device(plan: &Plan, number: usize) -> DeviceId {
    plan.devices[number % plan.devices.len()].id
}
