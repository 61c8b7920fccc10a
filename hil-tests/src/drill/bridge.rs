//! The one place where the drill touches the shapes of the two cores: configuration, what goes from one to the other, and
//! how artifacts are made. When a core changes, this file follows.

use std::{collections::BTreeMap, fmt::Debug};

use gateway_core::{
    Config, Effect, Event, Gateway, Input, Instruments, Rule, Told,
    config::{DeviceConfig, Limits},
};
use hub::core::{Catalogue, Content, RevocationSpec, TokenSpec};
use proto::{
    VERSION,
    artifact::{self, ListEntry, Reason, Revocations, Revoked},
    id::{AccountId, DeviceId, GatewayId, Kind, TokenHash},
    link::LinkHello,
    money::Money,
    tariff::{Dimension, Tariff},
    trust::{ArtifactKind, Issuer, IssuerKey},
};

use super::{
    cloud::Request,
    oracle::PRICES_MILLI,
    people::Person,
    scenario::{ListFlaw, Scenario, kind_index},
};

/// What a core wants done.
#[expect(clippy::large_enum_variant, reason = "done at once, never kept")]
pub(super) enum Act {
    Send(DeviceId, Told),
    RaiseCounter(DeviceId, u64),
    Request(Request),
    /// Say hello on the link that stands.
    Hello,
    /// Its class, and its words.
    Alarm(String, String),
}

/// An artifact as it travels.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    kind: ArtifactKind,
    envelope: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

/// Money at risk allowed to one gateway.
pub(super) fn budget_of_gateway(scenario: &Scenario) -> i64 {
    scenario.site.budget / scenario.site.regions.len() as i64
}

/// The shipped defaults, but for the budget.
pub(super) fn config<'a>(
    scenario: &Scenario,
    gateway: usize,
    devices: impl Iterator<Item = &'a device::Config>,
) -> Config {
    let devices = devices.map(|config| {
        let device = DeviceConfig {
            kind: config.kind,
            outlets: config.outlets,
            car: false,
        };
        (config.id, device)
    });
    Config {
        devices: devices.collect(),
        limits: Limits {
            site_budget: Money(budget_of_gateway(scenario)),
            jitter_seed: gateway as u64 + 1,
            ..Limits::default()
        },
        offset_min: scenario.offset_min,
        gateway: Some(gateway_id(gateway)),
        // Nobody pays with instruments here; the simulation of the core has them.
        instruments: Instruments::default(),
        ring: gateway_core::config::RingLimits::default(),
    }
}

/// The modes, for people.
pub(super) fn modes(core: &Gateway) -> &'static str {
    core.health().authorize.mode.word()
}

/// Whether users do not wait for the cloud.
pub(super) fn is_local(core: &Gateway) -> bool {
    !core.health().authorize.mode.asks()
}

/// What the largest lease of an account has left here, in minor units.
pub(super) fn leased(core: &Gateway, account: AccountId) -> i64 {
    let own = core.leases().rows().filter(|(of, ..)| *of == account);
    own.map(|(_, _, row)| row.left().0).max().unwrap_or(0)
}

/// The last record with a receipt.
pub(super) fn cursor(core: &Gateway) -> u64 {
    core.outbox().cursor()
}

/// Whether money granted by a rule is at the site's risk (semantics, sections 3 and 5).
pub(super) const fn is_unsecured(rule: Rule) -> bool {
    match rule {
        Rule::List | Rule::CachedAccept | Rule::Unknown => true,
        Rule::Device | Rule::Revoked | Rule::Rate | Rule::Instrument | Rule::Cloud | Rule::Lease | Rule::Never => false,
    }
}

/// Events that follow from frames that are hashed already, or are parts of artifacts: left out of the run's hash.
pub(super) const fn is_hashed(event: &Event) -> bool {
    !matches!(event, Event::Heard(_) | Event::Metered(_) | Event::ListStaged(_))
}

/// Whether the gateway would believe a token, without asking anybody.
pub(super) fn trusts(core: &Gateway, token: &TokenHash) -> bool {
    let trust = core.trust();
    trust.entry(token).is_some_and(|entry| entry.valid) && !trust.is_revoked(token) && !trust.is_denied(token)
}

/// First message of a connection.
pub(super) fn hello(core: &Gateway) -> LinkHello {
    let (list_revision, revocations_revision, tariffs_revision) = core.trust().revisions();
    LinkHello {
        version_min: VERSION,
        version_max: VERSION,
        epoch: 1,
        boot: 1,
        head: core.outbox().head(),
        cursor: core.outbox().cursor(),
        list_revision,
        revocations_revision,
        tariffs_revision,
        down_counter: 0,
        leases_revision: core.leases().revision(),
        policy_revision: core.policy_revision(),
    }
}

/// What an effect of the gateway's core means here.
pub(super) fn act(effect: Effect) -> Act {
    match effect {
        Effect::Send { device, message } => Act::Send(device, message),
        Effect::RaiseCounter { device, last } => Act::RaiseCounter(device, last),
        Effect::Ask(ask) => Act::Request(Request::Ask(ask)),
        Effect::Echo(echo) => Act::Request(Request::Echo(echo)),
        Effect::Hello => Act::Hello,
        Effect::Alarm(alarm) => Act::Alarm(class(&alarm), alarm.to_string()),
        // No operator gives orders in a drill.
        Effect::OrderDone(done) => Act::Alarm("Order".to_owned(), format!("order {}: {:?}", done.id, done.outcome)),
    }
}

/// The name of a variant.
pub(super) fn class(alarm: &impl Debug) -> String {
    let text = format!("{alarm:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The gateway's name at the hub.
pub(super) fn gateway_id(gateway: usize) -> GatewayId {
    GatewayId::new(&format!("gateway-{gateway}")).expect("a short name")
}

/// What a gateway sent, as the hub's core takes it.
pub(super) fn hub_input(gateway: usize, counter: u64, request: Request) -> hub::core::Input {
    let gateway = gateway_id(gateway);
    match request {
        Request::Hello(hello) => hub::core::Input::Hello {
            gateway,
            counter,
            hello,
        },
        Request::Ask(ask) => hub::core::Input::Ask { gateway, ask },
        Request::Upload(upload) => hub::core::Input::Upload { gateway, upload },
        Request::Echo(echo) => hub::core::Input::Echo { gateway, echo },
    }
}

/// What the hub says, as the gateway's core takes it; `None`: nothing for the core. The hash of a receipt's own record is
/// filled in at the gateway's end.
pub(super) fn gateway_input(effect: hub::core::Effect) -> Option<Input> {
    match effect {
        hub::core::Effect::Welcome { welcome, .. } => Some(Input::Welcome(welcome)),
        hub::core::Effect::Answer(_, answer) => Some(Input::Answer(answer)),
        hub::core::Effect::Receipt(_, receipt) => Some(Input::Receipt {
            receipt,
            own_hash: super::hub::NOTHING,
        }),
        hub::core::Effect::Echo(_, echo) => Some(Input::Echo { nonce: echo.nonce }),
        hub::core::Effect::Artifact { .. }
        | hub::core::Effect::Announce { .. }
        | hub::core::Effect::Duplicates(..)
        | hub::core::Effect::Imported(_)
        | hub::core::Effect::ImportRefused(_)
        | hub::core::Effect::Ordered(_)
        | hub::core::Effect::Settled(..)
        | hub::core::Effect::OrderRefused(_)
        | hub::core::Effect::Released(_)
        | hub::core::Effect::ReleaseRefused(_)
        | hub::core::Effect::Order(..)
        | hub::core::Effect::Dispatched { .. }
        | hub::core::Effect::DispatchRefused(_)
        | hub::core::Effect::Alarm(_) => None,
    }
}

/// Everything the operator's hub knows at the beginning.
pub(super) fn catalogue(scenario: &Scenario, persons: &[Person]) -> Catalogue {
    let accounts = persons.iter().map(|person| (person.account, Money(person.deposit)));
    let tariffs = Kind::SERVED
        .into_iter()
        .filter(|kind| scenario.site.devices[kind_index(*kind)] > 0)
        .map(|kind| (kind, tariff(kind)));
    Catalogue {
        accounts: accounts.collect(),
        tokens: Some(tokens(persons)),
        revocations: revocations(persons.iter().filter(|person| person.is_revoked)),
        tariffs: tariffs.collect(),
        lease_only: persons
            .iter()
            .filter(|person| person.is_leased)
            .map(|person| person.account)
            .collect(),
        ..Catalogue::default()
    }
}

/// Tokens of everybody who has not left.
pub(super) fn tokens(persons: &[Person]) -> BTreeMap<TokenHash, TokenSpec> {
    let spec = |person: &Person| TokenSpec {
        account: person.account,
        group: 0,
        valid: person.is_valid,
        whitelist: person.whitelist,
        not_after_s: 0,
        credential_revision: 0,
    };
    let listed = persons.iter().filter(|person| !person.has_left);
    listed.map(|person| (person.hash, spec(person))).collect()
}

/// Revocations of these people's tokens.
pub(super) fn revocations<'a>(persons: impl Iterator<Item = &'a Person>) -> BTreeMap<TokenHash, RevocationSpec> {
    let spec = RevocationSpec {
        credential_revision: 0,
        reason: Reason::Lost,
    };
    persons.map(|person| (person.hash, spec)).collect()
}

fn tariff(kind: Kind) -> Tariff {
    let (id, dimension) = match kind {
        Kind::Charger => (1, Dimension::Energy),
        Kind::Washer => (2, Dimension::Cycle),
        Kind::Dispenser | Kind::Unknown => (3, Dimension::Volume),
    };
    Tariff::flat(id, &[(dimension, PRICES_MILLI[kind_index(kind)])])
}

/// Signs what the hub publishes.
pub(super) fn sign(issuer: &Issuer, content: &Content) -> Option<Signed> {
    let (kind, envelope, chunks) = match content {
        Content::List(list) => {
            let (envelope, chunks) =
                artifact::sign_list(issuer, list.revision, list.issued_s, list.entries.clone()).ok()?;
            (ArtifactKind::List, envelope, chunks)
        }
        Content::Revocations(set) => {
            let kind = ArtifactKind::Revocations;
            (kind, artifact::sign(issuer, kind, set).ok()?, Vec::new())
        }
        Content::Tariffs(table) => {
            let kind = ArtifactKind::Tariffs;
            (kind, artifact::sign(issuer, kind, table).ok()?, Vec::new())
        }
        Content::Policy(policy) => {
            let kind = ArtifactKind::Policy;
            (kind, artifact::sign(issuer, kind, policy).ok()?, Vec::new())
        }
        Content::Keys(keys) => {
            let kind = ArtifactKind::Keys;
            (kind, artifact::sign(issuer, kind, keys).ok()?, Vec::new())
        }
        Content::ListChanges(changes) => {
            let (envelope, chunks) = artifact::sign_changes(
                issuer,
                (changes.base, changes.revision),
                changes.issued_s,
                (&changes.changed, changes.removed.clone()),
                (changes.total, changes.digest),
            )
            .ok()?;
            (ArtifactKind::List, envelope, chunks)
        }
    };
    Some(Signed { kind, envelope, chunks })
}

/// The leases of one gateway.
pub(super) fn sign_leases(issuer: &Issuer, hub: &hub::core::Hub, gateway: usize) -> Option<Signed> {
    let kind = ArtifactKind::Lease;
    let leases = hub.leases_of(gateway_id(gateway))?;
    let envelope = artifact::sign(issuer, kind, &leases).ok()?;
    let chunks = Vec::new();
    Some(Signed { kind, envelope, chunks })
}

/// Checks an artifact as the daemon does before the core hears of it.
pub(super) fn verify(signed: &Signed, keys: &[IssuerKey]) -> Result<Input, String> {
    let input = match signed.kind {
        ArtifactKind::List => artifact::verify_list(&signed.envelope, &signed.chunks, keys).map(Input::List),
        ArtifactKind::Revocations => artifact::verify_revocations(&signed.envelope, keys).map(Input::Revocations),
        ArtifactKind::Tariffs => artifact::verify_tariffs(&signed.envelope, keys).map(Input::Tariffs),
        ArtifactKind::Policy => artifact::verify_policy(&signed.envelope, keys).map(Input::Policy),
        ArtifactKind::Lease => artifact::verify_leases(&signed.envelope, keys).map(Input::Leases),
        ArtifactKind::Keys => artifact::verify_keys(&signed.envelope, keys).map(Input::Keys),
        kind => return Err(format!("nobody makes a {} here", kind.word())),
    };
    input.map_err(|error| format!("{}: {error}", signed.kind.word()))
}

/// A list that must not be adopted, made of the hub's newest one. `number`: how many were made before.
pub(super) fn bad_list(
    issuer: &Issuer,
    forger: &Issuer,
    list: &hub::core::PublishedList,
    flaw: ListFlaw,
    number: u64,
) -> Option<Signed> {
    let mut entries = list.entries.clone();
    let mut revision = list.revision + 1_000 + number;
    let mut signer = issuer;
    let part = |percent: u8| entries.len() * usize::from(percent) / 100;
    match flaw {
        ListFlaw::Short(percent) => entries.truncate(entries.len() - part(percent)),
        ListFlaw::Empty => entries.clear(),
        ListFlaw::Zeroed(percent) => {
            let zeroed = part(percent);
            entries
                .iter_mut()
                .take(zeroed)
                .for_each(|entry| entry.balance = Money::ZERO);
        }
        ListFlaw::Forged => {
            signer = forger;
            entries.iter_mut().for_each(|entry: &mut ListEntry| entry.valid = false);
        }
        ListFlaw::Older => revision = list.revision.saturating_sub(1),
        ListFlaw::Miscounted => {}
    }
    let (envelope, mut chunks) = artifact::sign_list(signer, revision, list.issued_s, entries).ok()?;
    if flaw == ListFlaw::Miscounted {
        chunks.pop();
    }
    Some(Signed {
        kind: ArtifactKind::List,
        envelope,
        chunks,
    })
}

/// Revocations that somebody without the issuer's key made: signed with another key, and once with the right key's id.
pub(super) fn forged_revocations(issuer: &Issuer, forger: &Issuer, tokens: &[TokenHash]) -> Vec<Signed> {
    let set = |revision| Revocations {
        revision,
        entries: tokens
            .iter()
            .map(|token| Revoked {
                token: *token,
                credential_revision: u64::MAX / 2,
                reason: Reason::Lost,
            })
            .collect(),
        scopes: Vec::new(),
    };
    let kind = ArtifactKind::Revocations;
    let signed = |envelope| Signed {
        kind,
        envelope,
        chunks: Vec::new(),
    };
    let foreign = artifact::sign(forger, kind, &set(9_000)).ok();
    // A genuine one, for nobody, with other content put in: the signature does not fit any more.
    let changed = artifact::sign(issuer, kind, &set(9_001)).ok().map(|mut envelope| {
        let middle = envelope.len() / 2;
        envelope[middle] ^= 1;
        envelope
    });
    // A genuine envelope of another kind.
    let misused = artifact::sign(issuer, ArtifactKind::Tariffs, &set(9_002)).ok();
    [foreign, changed, misused].into_iter().flatten().map(signed).collect()
}
