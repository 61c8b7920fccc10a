//! `schema/v1.cddl` against the code: a second CBOR implementation reads every vector as the CDDL says, the fields have
//! the CDDL's names and places, the enums its numbers. Understands the part of CDDL that the file uses.

use std::{collections::BTreeMap, fs};

use ciborium::Value;
use proto::{artifact, id, instrument, link, message, policy, tariff, trust, update};

use crate::{samples, vector::read};

/// The rules of the file, and the names of the fields of those that are structs.
struct Schema {
    rules: BTreeMap<String, String>,
    fields: BTreeMap<String, Vec<String>>,
}

impl Schema {
    fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/v1.cddl");
        let text = fs::read_to_string(path).expect("the schema");
        let (mut rules, mut fields): (BTreeMap<String, String>, BTreeMap<String, Vec<String>>) = Default::default();
        let mut rule = String::new();
        for line in text.lines() {
            let (code, comment) = line.split_once(';').unwrap_or((line, ""));
            let mut code = code.trim();
            if !line.starts_with(' ')
                && let Some((name, start)) = code.split_once(" = ")
            {
                rule = name.trim().to_string();
                assert!(
                    rules.insert(rule.clone(), String::new()).is_none(),
                    "{rule} is defined twice"
                );
                code = start.trim();
            } else if line.starts_with("  ") && code.split(':').next().is_some_and(|key| key.parse::<u32>().is_ok()) {
                let name = comment.split([',', ';', ':']).next().unwrap_or_default();
                let name = name.split_whitespace().next().unwrap_or_default();
                fields.entry(rule.clone()).or_default().push(name.to_string());
            }
            if !code.is_empty() {
                let body = rules.get_mut(&rule).expect("text stands inside a rule");
                body.push_str(code);
                body.push(' ');
            }
        }
        Self { rules, fields }
    }

    fn body(&self, rule: &str) -> &str {
        self.rules.get(rule).unwrap_or_else(|| panic!("no rule {rule}")).trim()
    }

    /// The numbers and words of an enum.
    fn numbers(&self, rule: &str) -> Vec<(String, u8)> {
        let body = self
            .body(rule)
            .strip_prefix("&(")
            .and_then(|body| body.strip_suffix(')'))
            .expect("an enum");
        let pair = |pair: &str| {
            let (word, number) = pair.split_once(':').expect("word: number");
            (word.trim().to_string(), number.trim().parse().expect("a number"))
        };
        body.split(',').map(pair).collect()
    }

    /// Whether `value` is a `type_text`; what is wrong, and where, if not.
    fn check(&self, type_text: &str, value: &Value) -> Result<(), String> {
        let text = type_text.trim();
        let wrong = || Err(format!("{value:?} is not {text}"));
        if let Some(body) = text.strip_prefix('{') {
            return self.check_map(body.trim_end_matches(['}', ' ']), value);
        }
        if let Some(body) = text.strip_prefix('[') {
            return self.check_array(body.trim_end_matches(']'), value);
        }
        if let Some(choices) = text.split_once(" / ") {
            return self.check(choices.0, value).or_else(|_| self.check(choices.1, value));
        }
        if text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && let Some((low, high)) = text.split_once("..")
        {
            let number = |text: &str| text.parse::<i128>().expect("a number");
            let fits = integer(value).is_some_and(|n| (number(low)..=number(high)).contains(&n));
            return if fits { Ok(()) } else { wrong() };
        }
        let (base, limit) = text.split_once(" .").unwrap_or((text, ""));
        let fits = match (base, value) {
            ("bool", Value::Bool(_)) | ("null", Value::Null) => true,
            ("uint", _) => {
                let bytes: u32 = limit.strip_prefix("size ").expect("a size").parse().expect("bytes");
                integer(value).is_some_and(|n| (0..1i128 << (8 * bytes)).contains(&n))
            }
            ("bstr", Value::Bytes(bytes)) => has_size(limit, bytes.len()),
            ("tstr", Value::Text(text)) => match limit.strip_prefix("regexp ") {
                Some(pattern) => pattern == "\"[a-z0-9-]{1,20}\"" && id::Name::new(text).is_ok(),
                None => has_size(limit, text.len()),
            },
            ("bool" | "null" | "bstr" | "tstr", _) => false,
            (rule, _) if self.body(rule).starts_with("&(") => self
                .numbers(rule)
                .iter()
                .any(|(_, number)| integer(value) == Some(i128::from(*number))),
            (rule, _) => {
                return self
                    .check(self.body(rule), value)
                    .map_err(|error| format!("{rule}: {error}"));
            }
        };
        if fits { Ok(()) } else { wrong() }
    }

    /// A struct: the keys are 0, 1, 2 ... in this order, nothing is missing, nothing is left.
    fn check_map(&self, body: &str, value: &Value) -> Result<(), String> {
        let Value::Map(pairs) = value else {
            return Err(format!("{value:?} is no map"));
        };
        let types: Vec<&str> = fields_of(body).collect();
        if types.len() != pairs.len() {
            return Err(format!("{} fields, the schema has {}", pairs.len(), types.len()));
        }
        for (position, (field, (key, value))) in types.iter().zip(pairs).enumerate() {
            let (number, field_type) = field.split_once(':').expect("number: type");
            if number.trim() != position.to_string() || integer(key) != Some(position as i128) {
                return Err(format!("key {key:?} at position {position} of {body}"));
            }
            self.check(field_type, value)
                .map_err(|error| format!("{position}: {error}"))?;
        }
        Ok(())
    }

    fn check_array(&self, body: &str, value: &Value) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(format!("{value:?} is no array"));
        };
        let (occurrence, item_type) = body.split_once(' ').expect("occurrence and type");
        let (low, high) = occurrence.split_once('*').expect("an occurrence");
        let limit = |text: &str, default| {
            if text.is_empty() {
                default
            } else {
                text.parse().expect("a number")
            }
        };
        if !(limit(low, 0)..=limit(high, usize::MAX)).contains(&items.len()) {
            return Err(format!("{} items, the schema has {occurrence}", items.len()));
        }
        items.iter().try_for_each(|item| self.check(item_type, item))
    }
}

/// `0: a, 1: [0*8 b], ` without its commas; none of the types in the file has one inside.
fn fields_of(body: &str) -> impl Iterator<Item = &str> {
    body.split(',').map(str::trim).filter(|field| !field.is_empty())
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Integer(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// `size n` or `size (a..b)`.
fn has_size(limit: &str, len: usize) -> bool {
    let Some(size) = limit.strip_prefix("size ") else {
        assert!(limit.is_empty(), "{limit}");
        return true;
    };
    let (low, high) = size.trim_matches(['(', ')']).split_once("..").unwrap_or((size, size));
    let number = |text: &str| text.parse::<usize>().expect("a number");
    (number(low)..=number(high)).contains(&len)
}

fn parsed(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).expect("CBOR");
    assert!(rest.is_empty(), "bytes are left");
    value
}

#[test]
fn a_second_implementation_reads_every_body_as_the_schema_says() {
    let schema = Schema::load();
    for sample in samples::all() {
        let body = read(sample.name).bytes("body");
        schema
            .check(sample.rule, &parsed(&body))
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let mut again = Vec::new();
        ciborium::into_writer(&parsed(&body), &mut again).expect("memory");
        assert_eq!(again, body, "{}: not in the shortest form", sample.name);
    }
    for name in [
        "envelope-list",
        "envelope-list-changes",
        "envelope-keys-extreme",
        "envelope-revocations-extreme",
        "envelope-tariffs-extreme",
        "envelope-leases-extreme",
        "envelope-policy-extreme",
        "envelope-firmware-extreme",
    ] {
        let vector = read(name);
        let payload = parsed(&vector.bytes("payload"));
        schema
            .check(vector.get("rule"), &payload)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A check that passes everything proves nothing.
#[test]
fn the_schema_check_refuses_what_is_not_in_the_schema() {
    let schema = Schema::load();
    let good = parsed(&read("clock-typical").bytes("body"));
    assert_eq!(schema.check("clock", &good), Ok(()));
    let Value::Map(pairs) = good else { panic!("a map") };
    let with = |change: fn(&mut Vec<(Value, Value)>)| {
        let mut pairs = pairs.clone();
        change(&mut pairs);
        schema.check("clock", &Value::Map(pairs))
    };
    let wrong = [
        with(|pairs| drop(pairs.pop())),
        with(|pairs| pairs.push((5.into(), 0.into()))),
        with(|pairs| pairs.swap(0, 1)),
        with(|pairs| pairs[0].0 = Value::Text("version".into())),
        with(|pairs| pairs[0].1 = 256.into()),
        with(|pairs| pairs[0].1 = Value::Float(1.0)),
        with(|pairs| pairs[1].1 = (-1).into()),
        with(|pairs| pairs[3].1 = 4.into()),
        with(|pairs| pairs[4].1 = 841.into()),
        with(|pairs| pairs[4].1 = (-721).into()),
        schema.check("session-id", &Value::Bytes(vec![0; 15])),
        schema.check("session-id", &Value::Text("0123456789abcdef".into())),
        schema.check("name", &Value::Text("Upper".into())),
        schema.check("bill", &Value::Map(vec![(0.into(), Value::Array(vec![0.into(); 7]))])),
        schema.check("money", &Value::from(1u64 << 63)),
    ];
    for (row, result) in wrong.iter().enumerate() {
        assert!(result.is_err(), "row {row}");
    }
}

/// The second implementation also knows the names of the fields: position and name must be those of the schema, down to
/// the structs inside.
#[test]
fn the_fields_have_the_names_and_places_of_the_schema() {
    let schema = Schema::load();
    let mut checked = 0;
    for sample in samples::all().iter().filter(|sample| sample.rule != "list-chunk") {
        let Value::Map(pairs) = sample.value.named() else {
            panic!("{} is no struct", sample.name)
        };
        checked += check_names(&schema, sample.rule, &pairs);
    }
    let Value::Array(entries) = samples::content::entries().named_value() else {
        panic!("an array")
    };
    let Value::Map(pairs) = &entries[0] else {
        panic!("a struct")
    };
    checked += check_names(&schema, "list-entry", pairs);
    println!("{checked} fields");
    assert!(checked > 300);
}

trait Named {
    fn named_value(&self) -> Value;
}

impl<T: samples::Value> Named for T {
    fn named_value(&self) -> Value {
        self.named()
    }
}

fn check_names(schema: &Schema, rule: &str, pairs: &[(Value, Value)]) -> usize {
    let names: Vec<&str> = pairs.iter().filter_map(|(name, _)| name.as_text()).collect();
    let expected = schema
        .fields
        .get(rule)
        .unwrap_or_else(|| panic!("{rule} is no struct of the schema"));
    assert_eq!(names, *expected, "{rule}");
    let body = schema.body(rule).trim_start_matches('{').trim_end_matches(['}', ' ']);
    let mut checked = names.len();
    for (field, (_, value)) in fields_of(body).zip(pairs) {
        let field_type = field.split_once(':').expect("number: type").1;
        let inner = field_type
            .trim()
            .trim_matches(['[', ']'])
            .split(' ')
            .find(|word| schema.fields.contains_key(*word));
        let inner_pairs = match value {
            Value::Map(pairs) => Some(pairs),
            Value::Array(items) => items.first().and_then(Value::as_map),
            _ => None,
        };
        if let (Some(inner), Some(pairs)) = (inner, inner_pairs) {
            checked += check_names(schema, inner, pairs);
        }
    }
    checked
}

#[test]
fn the_enums_have_the_words_and_numbers_of_the_schema() {
    let schema = Schema::load();
    macro_rules! check {
        ($($rule:literal => $name:path: $fallback:ident,)+) => {
            $(
                let ours: Vec<(String, u8)> =
                    <$name>::ALL.iter().map(|variant| (snake_case(&format!("{variant:?}")), variant.code())).collect();
                assert_eq!(ours, schema.numbers($rule), $rule);
                for code in 0..=u8::MAX {
                    let known = ours.iter().any(|(_, number)| *number == code);
                    let variant = <$name>::from_code(code);
                    assert_eq!(if known { code } else { <$name>::$fallback.code() }, variant.code(), "{} {code}", $rule);
                }
            )+
        };
    }
    check! {
        "kind" => id::Kind: Unknown,
        "token-kind" => id::TokenKind: Unknown,
        "clock-quality" => message::ClockQuality: Unknown,
        "order-verb" => link::OrderVerb: Other,
        "order-outcome" => link::OrderOutcome: Other,
        "start-proof" => message::StartProof: Other,
        "stop-reason" => message::StopReason: Other,
        "outlet-state" => message::OutletState: Other,
        "fault" => message::Fault: Other,
        "command-outcome" => message::CommandOutcome: Other,
        "refusal-reason" => message::RefusalReason: Other,
        "closing" => message::Closing: Other,
        "verb" => message::Verb: Other,
        "dimension" => tariff::Dimension: Other,
        "record-kind" => link::RecordKind: Other,
        "verdict" => link::Verdict: Other,
        "artifact-kind" => trust::ArtifactKind: Other,
        "whitelist" => artifact::Whitelist: Never,
        "voucher-scope" => instrument::Scope: Other,
        "reason" => artifact::Reason: Other,
        "scope" => artifact::Scope: Other,
        "gift" => link::Gift: Other,
        "mode" => link::Mode: Other,
        "class" => policy::Class: Unknown,
        "unsigned-disable" => policy::UnsignedDisable: Alert,
        "update-state" => update::State: Other,
        "update-fault" => update::Fault: Other,
    }
    for reason in message::RefusalReason::ALL {
        assert!(
            schema
                .numbers("refusal-reason")
                .contains(&(reason.word().to_string(), reason.code()))
        );
    }
    for kind in id::Kind::ALL {
        assert!(schema.numbers("kind").contains(&(kind.word().to_string(), kind.code())));
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Every rule must be reachable from a vector or an envelope, or it is dead text.
#[test]
fn every_struct_of_the_schema_has_a_vector() {
    let schema = Schema::load();
    let rules: Vec<&str> = samples::all().iter().map(|sample| sample.rule).collect();
    let enveloped = [
        "revocations",
        "revoked",
        "revoked-scope",
        "issuer-keys",
        "leases",
        "tariff-table",
        "tariff-of",
        "protected-header",
        "list-entry",
        "identity",
        "manifest",
    ];
    let inside = [
        "id-token",
        "stamp",
        "price-element",
        "bill",
        "evidence",
        "class-limits",
        "free-vend",
        "lease",
        "note",
        "enrolment",
        "mode-since",
    ];
    for rule in schema.fields.keys().map(String::as_str) {
        let covered = rules.contains(&rule) || enveloped.contains(&rule) || inside.contains(&rule);
        assert!(covered, "{rule}");
    }
}
