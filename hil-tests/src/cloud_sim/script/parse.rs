//! From a file to a [`Script`]. Every error names the key and what would be right.

use serde::Deserialize;

use super::{Check, Deed, Relation, Script, Span};
use crate::{
    cloud_sim::{
        Vendor,
        fault::{Body, CertFault, Fault, Of, Stage},
    },
    drill::when::{Moment, parse_begin, parse_duration},
};

/// Longest script, in ms of the world.
const LASTS_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// Fastest.
const TIMES_MAX: u64 = 100_000;
/// Most gateways of a storm.
const GATEWAYS_MAX: u32 = 10_000;
/// Most devices or tokens that are disabled at once.
const DISABLED_MAX: u32 = 100_000;
/// Local time is that of the outages: Beijing.
const OFFSET_MIN: i16 = 480;

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
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

fn wrong<T>(key: impl Into<String>, why: impl ToString) -> Result<T, ScriptError> {
    Err(ScriptError::Value {
        key: key.into(),
        why: why.to_string(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    about: String,
    clouds: Vec<String>,
    #[serde(default)]
    tls: bool,
    begins: String,
    lasts: String,
    times: u64,
    #[serde(default = "one")]
    gateways: u32,
    #[serde(default)]
    fault: Vec<FaultTable>,
    #[serde(default)]
    publish: Vec<PublishTable>,
    #[serde(default)]
    checks: toml::Table,
}

const fn one() -> u32 {
    1
}

/// What a fault has, whichever; which ones belong to which is checked.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FaultTable {
    from: String,
    until: String,
    does: String,
    clouds: Option<Vec<String>>,
    at: Option<String>,
    of: Option<String>,
    percent: Option<u8>,
    code: Option<u16>,
    kicks: Option<bool>,
    least: Option<String>,
    most: Option<String>,
    status: Option<u16>,
    body: Option<String>,
    period: Option<String>,
    backends: Option<u64>,
    rate_a_second: Option<u32>,
    count: Option<u32>,
    by: Option<String>,
    wrong: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishTable {
    at: String,
    revokes: u32,
    #[serde(default)]
    forged: bool,
}

/// Reads a script.
///
/// # Errors
/// [`ScriptError`]: the line, or the key and what is wrong with it; also if a cloud that is to play it has no words for a
/// fault.
pub fn parse(name: &str, text: &str) -> Result<Script, ScriptError> {
    let file: File =
        toml::from_str(text).map_err(|error| ScriptError::Toml(error.to_string().trim_end().to_owned()))?;
    let (_, clock_s) = parse_begin(&file.begins, OFFSET_MIN).or_else(|why| wrong("begins", why))?;
    let lasts_ms = parse_duration(&file.lasts).or_else(|why| wrong("lasts", why))?;
    if !(1..=LASTS_MS_MAX).contains(&lasts_ms) {
        return wrong("lasts", "more than nothing, and at most 31 days");
    }
    if !(1..=TIMES_MAX).contains(&file.times) {
        return wrong("times", format!("1 to {TIMES_MAX}"));
    }
    if !(1..=GATEWAYS_MAX).contains(&file.gateways) {
        return wrong("gateways", format!("1 to {GATEWAYS_MAX}"));
    }
    let clouds = vendors("clouds", &file.clouds)?;
    let moment = Moment { clock_s, lasts_ms };
    let reader = Reader {
        moment: &moment,
        clouds: &clouds,
        tls: file.tls,
        times: file.times,
    };
    let spans = file.fault.iter().enumerate();
    let spans: Result<Vec<Span>, ScriptError> = spans
        .map(|(i, table)| reader.span(&format!("fault[{i}]"), table))
        .collect();
    let deeds = file.publish.iter().enumerate();
    let deeds: Result<Vec<Deed>, ScriptError> = deeds
        .map(|(i, table)| {
            let at_ms = moment
                .parse(&table.at)
                .or_else(|why| wrong(format!("publish[{i}].at"), why))?;
            Ok(Deed {
                at_ms,
                revokes: table.revokes,
                forged: table.forged,
            })
        })
        .collect();
    Ok(Script {
        name: name.to_owned(),
        title: file.title,
        about: file.about,
        tls: file.tls,
        lasts_ms,
        times: file.times,
        clock_s,
        spans: spans?,
        deeds: deeds?,
        gateways: file.gateways,
        checks: checks(&file.checks)?,
        clouds,
    })
}

fn vendors(key: &str, words: &[String]) -> Result<Vec<Vendor>, ScriptError> {
    if words.is_empty() {
        return wrong(key, "at least one of hcp, alink, aws, webhook, oss, pop");
    }
    let vendor = |word: &String| {
        let found = Vendor::ALL.into_iter().find(|vendor| vendor.word() == word);
        found.map_or_else(
            || wrong(key, format!("{word:?} is not hcp, alink, aws, webhook, oss or pop")),
            Ok,
        )
    };
    words.iter().map(vendor).collect()
}

fn checks(table: &toml::Table) -> Result<Vec<Check>, ScriptError> {
    let check = |(key, value): (&String, &toml::Value)| {
        let key_path = format!("checks.{key}");
        let problem = || wrong(&key_path, "a number, \">= 1\", \"<= 5\" or \"= 0\"");
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let relation = match value {
            toml::Value::Integer(wanted) => Some(Relation::Equal(*wanted as f64)),
            toml::Value::String(text) => match text.split_at_checked(2) {
                Some((">=", rest)) => number(rest).map(Relation::AtLeast),
                Some(("<=", rest)) => number(rest).map(Relation::AtMost),
                Some(("= ", rest)) => number(rest).map(Relation::Equal),
                Some(_) | None => None,
            },
            _ => None,
        };
        match relation {
            Some(relation) => Ok(Check {
                key: key.clone(),
                relation,
            }),
            None => problem(),
        }
    };
    table.iter().map(check).collect()
}

struct Reader<'a> {
    moment: &'a Moment,
    clouds: &'a [Vendor],
    tls: bool,
    times: u64,
}

impl Reader<'_> {
    fn span(&self, key: &str, table: &FaultTable) -> Result<Span, ScriptError> {
        let at = |field: &str, text: &str| {
            let key = format!("{key}.{field}");
            self.moment.parse(text).or_else(|why| wrong(key, why))
        };
        let (from_ms, until_ms) = (at("from", &table.from)?, at("until", &table.until)?);
        if from_ms >= until_ms {
            return wrong(format!("{key}.until"), "it ends before it begins");
        }
        let clouds = match &table.clouds {
            None => self.clouds.to_vec(),
            Some(words) => vendors(&format!("{key}.clouds"), words)?,
        };
        let fault = self.fault(key, table)?;
        for vendor in &clouds {
            if !self.clouds.contains(vendor) {
                return wrong(format!("{key}.clouds"), format!("{vendor} does not play this script"));
            }
            let tls = self.tls || *vendor == Vendor::Aws;
            fault.expressible(*vendor, tls).or_else(|error| wrong(key, error))?;
        }
        Ok(Span {
            from_ms,
            until_ms,
            clouds,
            fault,
        })
    }

    /// A time of the world, as long as it lasts here.
    fn here_ms(&self, key: &str, field: &str, text: Option<&String>) -> Result<u64, ScriptError> {
        let key = format!("{key}.{field}");
        let Some(text) = text else {
            return wrong(key, "missing: 90s, 4m");
        };
        let world_ms = parse_duration(text).or_else(|why| wrong(&key, why))?;
        match world_ms / self.times {
            0 => wrong(key, "too short: it is nothing after times"),
            ms => Ok(ms),
        }
    }

    fn fault(&self, key: &str, table: &FaultTable) -> Result<Fault, ScriptError> {
        let taken = Taken::new(key, table);
        let fault = match table.does.as_str() {
            "deny" => Fault::Deny {
                at: taken.stage()?,
                of: taken.of()?,
                percent: taken.percent()?,
                code: taken.needs("code", table.code)?,
                kicks: taken.may("kicks", table.kicks).unwrap_or(false),
            },
            "hang" => Fault::Hang(taken.stage()?),
            "close_after" => Fault::CloseAfter(taken.stage()?),
            "drop_reply" => Fault::DropReply(taken.percent()?),
            "dup_reply" => Fault::DupReply(taken.percent()?),
            "delay" => {
                let ms = |field: &'static str, text: &Option<String>| {
                    let text = taken.needs(field, text.clone())?;
                    parse_duration(&text).or_else(|why| wrong(format!("{key}.{field}"), why))
                };
                let (least_ms, most_ms) = (ms("least", &table.least)?, ms("most", &table.most)?);
                if least_ms > most_ms {
                    return wrong(format!("{key}.most"), "less than least");
                }
                Fault::Delay { least_ms, most_ms }
            }
            "wrong_id" => Fault::WrongId,
            "http" => Fault::Http {
                status: taken.needs("status", table.status)?,
                body: taken.body()?,
            },
            "flap" => Fault::Flap {
                period_ms: self.here_ms(key, "period", taken.may("period", table.period.as_ref()))?,
                backends: taken.may("backends", table.backends).unwrap_or(2).max(2),
            },
            "throttle" => Fault::Throttle(taken.needs("rate_a_second", table.rate_a_second)?),
            "mass_disable" => {
                let count = taken.needs("count", table.count)?;
                if !(1..=DISABLED_MAX).contains(&count) {
                    return wrong(format!("{key}.count"), format!("1 to {DISABLED_MAX}"));
                }
                Fault::MassDisable(count)
            }
            "topo_wipe" => Fault::TopoWipe,
            "clock_skew" => {
                let text = taken.needs("by", table.by.clone())?;
                let (sign, rest) = text.strip_prefix('-').map_or((1, text.as_str()), |rest| (-1, rest));
                let ms = parse_duration(rest).or_else(|why| wrong(format!("{key}.by"), why))?;
                Fault::ClockSkew(sign * i64::try_from(ms).unwrap_or(i64::MAX))
            }
            "cert" => Fault::Cert(taken.wrong()?),
            "captive" => Fault::Captive,
            "half_dead" => Fault::HalfDead,
            "billing" => Fault::Billing,
            "takeover" => Fault::Takeover(self.here_ms(key, "period", taken.may("period", table.period.as_ref()))?),
            other => {
                let words = "deny, hang, close_after, drop_reply, dup_reply, delay, wrong_id, http, flap, throttle, \
                    mass_disable, topo_wipe, clock_skew, cert, captive, half_dead, billing, takeover";
                return wrong(format!("{key}.does"), format!("{other:?} is none of {words}"));
            }
        };
        taken.nothing_left()?;
        Ok(fault)
    }
}

/// Which keys of a table a fault has used.
struct Taken<'a> {
    key: &'a str,
    table: &'a FaultTable,
    used: std::cell::RefCell<Vec<&'static str>>,
}

impl<'a> Taken<'a> {
    fn new(key: &'a str, table: &'a FaultTable) -> Self {
        Self {
            key,
            table,
            used: std::cell::RefCell::default(),
        }
    }

    fn may<T>(&self, field: &'static str, value: Option<T>) -> Option<T> {
        self.used.borrow_mut().push(field);
        value
    }

    fn needs<T>(&self, field: &'static str, value: Option<T>) -> Result<T, ScriptError> {
        let why = || format!("missing: {} needs it", self.table.does);
        self.may(field, value)
            .map_or_else(|| wrong(format!("{}.{field}", self.key), why()), Ok)
    }

    fn word<T: Copy>(
        &self,
        field: &'static str,
        value: &Option<String>,
        words: &[(T, &str)],
    ) -> Result<T, ScriptError> {
        let text = self.needs(field, value.clone())?;
        let found = words.iter().find(|(_, word)| *word == text);
        let all: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        found.map_or_else(
            || {
                wrong(
                    format!("{}.{field}", self.key),
                    format!("{text:?} is none of {}", all.join(", ")),
                )
            },
            |(value, _)| Ok(*value),
        )
    }

    fn stage(&self) -> Result<Stage, ScriptError> {
        self.word("at", &self.table.at, &Stage::ALL)
    }

    fn of(&self) -> Result<Of, ScriptError> {
        let words = [(Of::Gateway, "gateway"), (Of::Device, "device"), (Of::Token, "token")];
        match self.may("of", self.table.of.as_ref()) {
            None => Ok(Of::Gateway),
            Some(_) => self.word("of", &self.table.of, &words),
        }
    }

    fn body(&self) -> Result<Body, ScriptError> {
        let words = [(Body::S1, "S1"), (Body::S2, "S2"), (Body::S3, "S3"), (Body::S4, "S4")];
        self.word("body", &self.table.body, &words)
    }

    fn wrong(&self) -> Result<CertFault, ScriptError> {
        let words = [
            (CertFault::Expired, "expired"),
            (CertFault::NotYet, "notyet"),
            (CertFault::WrongName, "wrongname"),
            (CertFault::NewRoot, "newroot"),
        ];
        self.word("wrong", &self.table.wrong, &words)
    }

    fn percent(&self) -> Result<u8, ScriptError> {
        let percent = self.may("percent", self.table.percent).unwrap_or(100);
        if (1..=100).contains(&percent) {
            Ok(percent)
        } else {
            wrong(format!("{}.percent", self.key), "1 to 100")
        }
    }

    /// A key that the fault does not have is a mistake.
    fn nothing_left(&self) -> Result<(), ScriptError> {
        let t = self.table;
        let written = [
            ("at", t.at.is_some()),
            ("of", t.of.is_some()),
            ("percent", t.percent.is_some()),
            ("code", t.code.is_some()),
            ("kicks", t.kicks.is_some()),
            ("least", t.least.is_some()),
            ("most", t.most.is_some()),
            ("status", t.status.is_some()),
            ("body", t.body.is_some()),
            ("period", t.period.is_some()),
            ("backends", t.backends.is_some()),
            ("rate_a_second", t.rate_a_second.is_some()),
            ("count", t.count.is_some()),
            ("by", t.by.is_some()),
            ("wrong", t.wrong.is_some()),
        ];
        let used = self.used.borrow();
        match written.iter().find(|(field, is)| *is && !used.contains(field)) {
            Some((field, _)) => wrong(format!("{}.{field}", self.key), format!("{} has no such key", t.does)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "title = \"t\"\nabout = \"a\"\nclouds = [\"hcp\"]\nbegins = \"2024-01-01 10:00\"\nlasts = \"1h\"\ntimes = 60\n";

    fn fault(lines: &str) -> Result<Script, ScriptError> {
        parse(
            "t",
            &format!("{HEAD}[[fault]]\nfrom = \"10:10\"\nuntil = \"10:20\"\n{lines}\n"),
        )
    }

    #[test]
    fn faults_are_read() {
        let check = |lines: &str, expected: Fault| {
            let script = fault(lines).unwrap_or_else(|error| panic!("{lines}: {error}"));
            assert_eq!(script.acts(Vendor::Hcp)[1], (600_000, vec![expected]), "{lines}");
        };
        check(
            "does = \"deny\"\nat = \"reply\"\nof = \"token\"\npercent = 40\ncode = 404",
            Fault::Deny {
                at: Stage::Reply,
                of: Of::Token,
                percent: 40,
                code: 404,
                kicks: false,
            },
        );
        check("does = \"hang\"\nat = \"suback\"", Fault::Hang(Stage::Suback));
        check("does = \"drop_reply\"\npercent = 7", Fault::DropReply(7));
        check(
            "does = \"delay\"\nleast = \"5ms\"\nmost = \"2s\"",
            Fault::Delay {
                least_ms: 5,
                most_ms: 2_000,
            },
        );
        check(
            "does = \"flap\"\nperiod = \"4m\"",
            Fault::Flap {
                period_ms: 4_000,
                backends: 2,
            },
        );
        check("does = \"takeover\"\nperiod = \"1m\"", Fault::Takeover(1_000));
        check("does = \"throttle\"\nrate_a_second = 6", Fault::Throttle(6));
        check("does = \"half_dead\"", Fault::HalfDead);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |found: Result<Script, ScriptError>, expected: &str| {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\ninstead of\n{expected}");
        };
        check(fault("does = \"sulk\""), "fault[0].does: \"sulk\" is none of deny");
        check(fault("does = \"hang\""), "fault[0].at: missing: hang needs it");
        check(
            fault("does = \"hang\"\nat = \"door\""),
            "fault[0].at: \"door\" is none of tcp",
        );
        check(
            fault("does = \"hang\"\nat = \"tcp\"\ncode = 4"),
            "fault[0].code: hang has no such key",
        );
        check(
            fault("does = \"topo_wipe\""),
            "fault[0]: hcp cannot play topo_wipe: it knows no devices",
        );
        check(
            fault("does = \"hang\"\nat = \"tls\""),
            "fault[0]: hcp cannot play hang: there is no stage tls",
        );
        check(fault("does = \"cert\"\nwrong = \"expired\""), "served without TLS");
        check(
            fault("does = \"takeover\"\nperiod = \"30ms\""),
            "fault[0].period: too short",
        );
        check(
            fault("does = \"captive\"\nclouds = [\"alink\"]"),
            "alink does not play this script",
        );
        check(parse("t", &HEAD.replace("hcp", "gcp")), "clouds: \"gcp\" is not hcp");
        check(parse("t", &HEAD.replace("times = 60", "times = 0")), "times: 1 to");
        check(
            parse("t", &format!("{HEAD}[checks]\ndenied = \"> 1\"")),
            "checks.denied: a number",
        );
        let backwards = format!("{HEAD}[[fault]]\nfrom = \"10:20\"\nuntil = \"10:10\"\ndoes = \"captive\"");
        check(parse("t", &backwards), "fault[0].until: it ends before it begins");
    }
}
