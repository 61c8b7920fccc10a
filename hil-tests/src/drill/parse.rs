//! From a file to a [`Scenario`]. Every error names the line, or the key and what is wrong with it.

use gateway_core::Capability;
use proto::id::Name;
use serde::Deserialize;

use super::{
    report,
    scenario::{Check, Condition, Fault, Happening, ListFlaw, People, Published, Relation, Scenario, Site},
    when::{Moment, parse_begin, parse_duration},
};
use crate::cloud_sim::{FALSE_DENIAL, THROTTLED};

/// Largest campus: ten times the test target.
const DEVICES_MAX: u32 = 20_000;
/// As many as a list holds.
const USERS_MAX: u32 = 190_000;
/// Longest replay, in ms: a month.
const LASTS_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// Most gateways of one campus.
const REGIONS_MAX: usize = 8;

/// Why a text is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, or not these keys and types.
    #[error("{0}")]
    Toml(String),
    /// A value that cannot be meant.
    #[error("{key}: {why}")]
    Value {
        /// Where.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

fn wrong<T>(key: impl Into<String>, why: impl Into<String>) -> Result<T, ScenarioError> {
    Err(ScenarioError::Value {
        key: key.into(),
        why: why.into(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    about: String,
    begins: String,
    lasts: String,
    #[serde(default)]
    site: SiteTable,
    #[serde(default)]
    people: PeopleTable,
    #[serde(default)]
    cloud: Vec<CloudTable>,
    #[serde(default)]
    publish: Vec<PublishTable>,
    #[serde(default)]
    checks: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SiteTable {
    chargers: u32,
    washers: u32,
    dispensers: u32,
    users: u32,
    sessions_a_day: u32,
    share_chargers: u32,
    share_washers: u32,
    share_dispensers: u32,
    demand: Vec<u32>,
    regions: Vec<String>,
    budget_minor: i64,
    list_age: String,
    list_every: String,
    offset_min: i16,
}

/// The model campus (semantics, section 10, at the test target's 2,000 devices): half of the visits between five and
/// eleven in the evening.
impl Default for SiteTable {
    fn default() -> Self {
        Self {
            chargers: 1_000,
            washers: 400,
            dispensers: 600,
            users: 20_000,
            sessions_a_day: 50_000,
            share_chargers: 10,
            share_washers: 8,
            share_dispensers: 82,
            demand: vec![
                8, 4, 2, 1, 1, 4, 18, 40, 45, 35, 35, 45, 55, 40, 35, 35, 45, 65, 80, 90, 95, 95, 75, 35,
            ],
            regions: vec!["home".to_owned()],
            budget_minor: 6_000_000,
            list_age: "2h".to_owned(),
            list_every: "6h".to_owned(),
            offset_min: 480,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PeopleTable {
    always: u8,
    allowed: u8,
    never: u8,
    invalid: u8,
    revoked: u8,
    poor: u8,
    leased: u8,
    strangers: u8,
}

impl Default for PeopleTable {
    fn default() -> Self {
        Self {
            always: 10,
            allowed: 20,
            never: 4,
            invalid: 1,
            revoked: 1,
            poor: 3,
            leased: 10,
            strangers: 1,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudTable {
    from: String,
    until: String,
    does: String,
    capabilities: Option<Vec<String>>,
    regions: Option<Vec<String>>,
    percent: Option<u8>,
    sealed: Option<bool>,
    codes: Option<Vec<u16>>,
    text: Option<String>,
    rate_a_second: Option<u32>,
    period: Option<String>,
    delay: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishTable {
    at: String,
    what: String,
    flaw: Option<String>,
    percent: Option<u8>,
    count: Option<u32>,
    by: Option<String>,
}

/// Reads a scenario. `name`: what it is called in reports.
///
/// # Errors
/// [`ScenarioError`].
pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let file: File =
        toml::from_str(text).map_err(|error| ScenarioError::Toml(error.to_string().trim_end().to_owned()))?;
    let (begins_s, clock_s) = match parse_begin(&file.begins, file.site.offset_min) {
        Ok(begin) => begin,
        Err(why) => return wrong("begins", why),
    };
    let lasts_ms = duration("lasts", &file.lasts)?;
    if lasts_ms == 0 || lasts_ms > LASTS_MS_MAX {
        return wrong("lasts", "between 1s and 31d");
    }
    let site = site(&file.site, &file.people)?;
    let moment = Moment { clock_s, lasts_ms };
    let mut cloud = Vec::new();
    for (i, table) in file.cloud.iter().enumerate() {
        cloud.push(condition(&format!("cloud[{i}]"), table, &moment, &site)?);
    }
    let mut events = Vec::new();
    for (i, table) in file.publish.iter().enumerate() {
        events.push(happening(&format!("publish[{i}]"), table, &moment)?);
    }
    Ok(Scenario {
        name: name.to_owned(),
        title: file.title,
        about: file.about.trim().to_owned(),
        begins_s,
        offset_min: file.site.offset_min,
        lasts_ms,
        site,
        cloud,
        events,
        checks: checks(&file.checks)?,
    })
}

fn duration(key: &str, text: &str) -> Result<u64, ScenarioError> {
    parse_duration(text).or_else(|why| wrong(key, why))
}

fn site(table: &SiteTable, people: &PeopleTable) -> Result<Site, ScenarioError> {
    let devices = [table.chargers, table.washers, table.dispensers];
    let share = [table.share_chargers, table.share_washers, table.share_dispensers];
    let all: u64 = devices.iter().map(|n| u64::from(*n)).sum();
    if all == 0 || all > u64::from(DEVICES_MAX) {
        return wrong("site", format!("{all} devices, allowed are 1 to {DEVICES_MAX}"));
    }
    if table.users == 0 || table.users > USERS_MAX {
        return wrong("site.users", format!("{}, allowed are 1 to {USERS_MAX}", table.users));
    }
    if table.sessions_a_day == 0 {
        return wrong("site.sessions_a_day", "at least 1");
    }
    if share
        .iter()
        .zip(devices)
        .all(|(share, devices)| *share == 0 || devices == 0)
    {
        return wrong(
            "site.share_chargers",
            "no kind has both devices and a share of the visits",
        );
    }
    let Ok(demand) = <[u32; 24]>::try_from(table.demand.clone()) else {
        return wrong(
            "site.demand",
            format!("{} weights, one for each of 24 hours", table.demand.len()),
        );
    };
    if demand.iter().all(|weight| *weight == 0) || demand.iter().any(|weight| *weight > 1_000_000) {
        return wrong("site.demand", "weights from 0 to 1,000,000, not all 0");
    }
    if table.regions.is_empty() || table.regions.len() > REGIONS_MAX {
        return wrong(
            "site.regions",
            format!("1 to {REGIONS_MAX} regions, each with a gateway"),
        );
    }
    for (i, region) in table.regions.iter().enumerate() {
        if let Err(error) = Name::new(region) {
            return wrong(format!("site.regions[{i}]"), error.to_string());
        }
        if table.regions[..i].contains(region) {
            return wrong(format!("site.regions[{i}]"), format!("{region:?} twice"));
        }
    }
    if let Some(few) = devices.iter().find(|n| **n > 0 && (**n as usize) < table.regions.len()) {
        return wrong(
            "site.regions",
            format!("{few} devices of a kind for {} gateways", table.regions.len()),
        );
    }
    if table.budget_minor <= 0 {
        return wrong("site.budget_minor", "above 0");
    }
    let p = people;
    let policies = u32::from(p.always) + u32::from(p.allowed) + u32::from(p.never);
    let others = u32::from(p.invalid) + u32::from(p.revoked) + u32::from(p.poor) + u32::from(p.leased);
    if policies > 100 || others > 100 || p.strangers > 100 {
        return wrong(
            "people",
            "shares in hundredths: policies, and the other groups, may not exceed 100",
        );
    }
    Ok(Site {
        devices,
        users: table.users,
        sessions_a_day: table.sessions_a_day,
        share,
        demand,
        regions: table.regions.clone(),
        budget: table.budget_minor,
        list_age_ms: duration("site.list_age", &table.list_age)?,
        list_every_s: duration("site.list_every", &table.list_every)? / 1000,
        people: People {
            always: p.always,
            allowed: p.allowed,
            never: p.never,
            invalid: p.invalid,
            revoked: p.revoked,
            poor: p.poor,
            leased: p.leased,
            strangers: p.strangers,
        },
    })
}

fn condition(key: &str, table: &CloudTable, moment: &Moment, site: &Site) -> Result<Condition, ScenarioError> {
    let at = |name: &str, text: &str| moment.parse(text).or_else(|why| wrong(format!("{key}.{name}"), why));
    let (from_ms, until_ms) = (at("from", &table.from)?, at("until", &table.until)?);
    if from_ms >= until_ms {
        return wrong(
            format!("{key}.until"),
            format!("{:?} is not after {:?}", table.until, table.from),
        );
    }
    let regions = match &table.regions {
        None => (0..site.regions.len()).collect(),
        Some(names) => {
            let find = |name: &String| site.regions.iter().position(|region| region == name);
            let unknown = names.iter().find(|name| find(name).is_none());
            if let Some(name) = unknown {
                return wrong(
                    format!("{key}.regions"),
                    format!("{name:?} is not one of {:?}", site.regions),
                );
            }
            names.iter().filter_map(find).collect()
        }
    };
    let capabilities = match &table.capabilities {
        None => Capability::ALL.to_vec(),
        Some(words) => {
            let find = |word: &String| Capability::ALL.into_iter().find(|capability| capability.word() == word);
            if let Some(word) = words.iter().find(|word| find(word).is_none()) {
                return wrong(
                    format!("{key}.capabilities"),
                    format!("{word:?} is not authorize, commit or control"),
                );
            }
            words.iter().filter_map(find).collect()
        }
    };
    let fault = fault(key, table)?;
    let whole_link = matches!(fault, Fault::Dark | Fault::LoginLoop);
    if whole_link && capabilities.len() < Capability::ALL.len() {
        return wrong(
            format!("{key}.capabilities"),
            format!(
                "{} takes the whole link; for a part of it say hang or half-dead",
                fault.word()
            ),
        );
    }
    Ok(Condition {
        from_ms,
        until_ms,
        regions,
        capabilities,
        fault,
    })
}

fn fault(key: &str, table: &CloudTable) -> Result<Fault, ScenarioError> {
    let percent = || match table.percent.unwrap_or(100) {
        percent @ 1..=100 => Ok(percent),
        percent => wrong(format!("{key}.percent"), format!("{percent} is not 1 to 100")),
    };
    let text = |usual: &str| table.text.clone().unwrap_or_else(|| usual.to_owned());
    let code = |usual: u16| {
        table
            .codes
            .as_ref()
            .and_then(|codes| codes.first().copied())
            .unwrap_or(usual)
    };
    let used: &[&str] = match table.does.as_str() {
        "error" => &["codes", "text"],
        "deny" => &["percent", "sealed", "codes", "text"],
        "throttle" => &["rate_a_second"],
        "flap" => &["percent", "period", "codes"],
        "slow" => &["delay"],
        _ => &[],
    };
    let fault = match table.does.as_str() {
        "honest" => Fault::Honest,
        "dark" => Fault::Dark,
        "login-loop" => Fault::LoginLoop,
        "hang" => Fault::Hang,
        "half-dead" => Fault::HalfDead,
        "error" => Fault::Error {
            codes: table
                .codes
                .clone()
                .filter(|codes| !codes.is_empty())
                .unwrap_or(vec![500, 503]),
            text: text("InternalError: The request processing has failed due to some unknown error."),
        },
        "deny" => Fault::Deny {
            percent: percent()?,
            sealed: table.sealed.unwrap_or(false),
            code: code(404),
            text: text(FALSE_DENIAL),
        },
        "throttle" => match table.rate_a_second {
            Some(rate_a_second) => Fault::Throttle { rate_a_second },
            None => return wrong(format!("{key}.rate_a_second"), "throttle needs one"),
        },
        "flap" => Fault::Flap {
            percent: percent()?,
            period_ms: duration(&format!("{key}.period"), table.period.as_deref().unwrap_or("0s"))?,
            code: code(503),
        },
        "slow" => Fault::Slow {
            delay_ms: duration(&format!("{key}.delay"), table.delay.as_deref().unwrap_or("5s"))?,
        },
        other => {
            return wrong(
                format!("{key}.does"),
                format!(
                    "{other:?} is not honest, dark, login-loop, hang, half-dead, error, deny, throttle, flap or slow"
                ),
            );
        }
    };
    let given = [
        ("percent", table.percent.is_some()),
        ("sealed", table.sealed.is_some()),
        ("codes", table.codes.is_some()),
        ("text", table.text.is_some()),
        ("rate_a_second", table.rate_a_second.is_some()),
        ("period", table.period.is_some()),
        ("delay", table.delay.is_some()),
    ];
    match given.iter().find(|(name, given)| *given && !used.contains(name)) {
        Some((name, _)) => wrong(format!("{key}.{name}"), format!("means nothing for {:?}", table.does)),
        None => Ok(fault),
    }
}

fn happening(key: &str, table: &PublishTable, moment: &Moment) -> Result<Happening, ScenarioError> {
    let at_ms = moment.parse(&table.at).or_else(|why| wrong(format!("{key}.at"), why))?;
    let percent = |usual: u8| match table.percent.unwrap_or(usual) {
        percent @ 1..=100 => Ok(percent),
        percent => wrong(format!("{key}.percent"), format!("{percent} is not 1 to 100")),
    };
    let count = table.count.unwrap_or(1).max(1);
    let what = match (table.what.as_str(), table.flaw.as_deref()) {
        ("list", None) => Published::List,
        ("list", Some("short")) => Published::BadList(ListFlaw::Short(percent(40)?)),
        ("list", Some("empty")) => Published::BadList(ListFlaw::Empty),
        ("list", Some("zeroed")) => Published::BadList(ListFlaw::Zeroed(percent(100)?)),
        ("list", Some("forged")) => Published::BadList(ListFlaw::Forged),
        ("list", Some("older")) => Published::BadList(ListFlaw::Older),
        ("list", Some("miscounted")) => Published::BadList(ListFlaw::Miscounted),
        ("leavers", None) => Published::Leavers { percent: percent(3)? },
        ("revocations", None) => Published::Revocations { count },
        ("revocations", Some("forged")) => Published::ForgedRevocations { count },
        ("list", Some(flaw)) => {
            let why = format!("{flaw:?} is not short, empty, zeroed, forged, older or miscounted");
            return wrong(format!("{key}.flaw"), why);
        }
        ("revocations" | "leavers", Some(flaw)) => {
            return wrong(
                format!("{key}.flaw"),
                format!("{flaw:?}: revocations can be forged, leavers cannot"),
            );
        }
        (other, _) => {
            return wrong(
                format!("{key}.what"),
                format!("{other:?} is not list, leavers or revocations"),
            );
        }
    };
    let by_file = match table.by.as_deref() {
        None | Some("link") => false,
        Some("file") => true,
        Some(other) => return wrong(format!("{key}.by"), format!("{other:?} is not link or file")),
    };
    Ok(Happening { at_ms, what, by_file })
}

/// What always must hold (semantics, section 9), unless the file says otherwise.
fn always() -> Vec<Check> {
    let check = |key: &str, relation, value| Check {
        key: key.to_owned(),
        relation,
        value,
    };
    vec![
        check("good_users_refused", Relation::Equal, 0),
        check("revoked_users_granted", Relation::Equal, 0),
        check("trust_evicted", Relation::Equal, 0),
        check("leased_overspend_minor", Relation::Equal, 0),
        check("exposure_over_budget_minor", Relation::Equal, 0),
        check("verdict_p99_ms", Relation::AtMost, 2_000),
        check("reconnects_a_minute_max", Relation::AtMost, 5),
        check("books_closed", Relation::Equal, 1),
    ]
}

fn checks(table: &toml::Table) -> Result<Vec<Check>, ScenarioError> {
    let mut checks = always();
    for (key, value) in table {
        let name = format!("checks.{key}");
        if !report::NUMBERS.contains(&key.as_str()) {
            return wrong(
                name,
                format!("no such number; there are {}", report::NUMBERS.join(", ")),
            );
        }
        let (relation, value) = match value {
            toml::Value::Boolean(value) => (Relation::Equal, i64::from(*value)),
            toml::Value::Integer(value) => (Relation::Equal, *value),
            toml::Value::String(text) => match relation(text) {
                Some(parsed) => parsed,
                None => return wrong(name, format!("{text:?} is not \"= N\", \"<= N\" or \">= N\"")),
            },
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                return wrong(name, "a number, true, false, or a text like \"<= 5\"");
            }
        };
        checks.retain(|check| check.key != *key);
        checks.push(Check {
            key: key.clone(),
            relation,
            value,
        });
    }
    Ok(checks)
}

fn relation(text: &str) -> Option<(Relation, i64)> {
    let text = text.trim();
    let (relation, rest) = if let Some(rest) = text.strip_prefix("<=") {
        (Relation::AtMost, rest)
    } else if let Some(rest) = text.strip_prefix(">=") {
        (Relation::AtLeast, rest)
    } else {
        (Relation::Equal, text.strip_prefix('=')?)
    };
    Some((relation, rest.trim().parse().ok()?))
}

/// The words of a cloud that wants its users to slow down.
pub(super) const SLOW_DOWN: &str = THROTTLED;
