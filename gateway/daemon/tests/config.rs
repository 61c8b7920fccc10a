//! The configuration: the shipped example is good and complete, and whatever is wrong is named.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use gateway::config::{self, DeviceSide};

const EXAMPLE: &str = include_str!("../../../deploy/config/holdfast.toml");
const SECRETS: &str = include_str!("../../../deploy/config/secrets.toml");

fn load(dir: &Path, text: &str, secrets: &str, mode: u32) -> Result<config::Config, String> {
    fs::write(dir.join("holdfast.toml"), text).unwrap();
    fs::write(dir.join("secrets.toml"), secrets).unwrap();
    fs::set_permissions(dir.join("secrets.toml"), fs::Permissions::from_mode(mode)).unwrap();
    config::load(&dir.join("holdfast.toml"), None).map_err(|error| error.to_string())
}

#[test]
fn the_example_is_good_and_its_commented_keys_are_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let as_shipped = load(dir.path(), EXAMPLE, SECRETS, 0o600).unwrap();
    assert_eq!(as_shipped.core.devices.len(), 3);
    // With every default written out the result is the same: the file names every key and tells the truth.
    let spelled: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key)
                if key.contains(" = ")
                    && !key.starts_with(' ')
                    && !key.starts_with("broker")
                    && !key.starts_with("username") =>
            {
                key
            }
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let spelled = load(dir.path(), &spelled, SECRETS, 0o600).unwrap();
    assert_eq!(spelled.core, as_shipped.core);
    assert_eq!(spelled.snapshot_every, as_shipped.snapshot_every);
    assert_eq!(spelled.keep_d, as_shipped.keep_d);
    let devices = |config: &config::Config| format!("{:?}", config.device_side);
    assert_eq!(devices(&spelled), devices(&as_shipped));
    let telemetry_s = |config: &config::Config| config.link.as_ref().map(|link| link.pacing.telemetry_s);
    assert_eq!((telemetry_s(&spelled), telemetry_s(&as_shipped)), (Some(60), Some(60)));
    assert!(matches!(
        spelled.device_side,
        DeviceSide::Embedded { tls: None, ref limits, .. } if limits.connections_max == 12_000
    ));
}

#[test]
fn what_is_wrong_is_named() {
    let table: &[(&str, &str, &str)] = &[
        (
            "name = \"campus\"",
            "name = \"Campus Nord\"",
            "site.name: \"Campus Nord\": a name has 1 to 20 characters",
        ),
        ("[store]", "[storr]", "unknown field `storr`"),
        (
            "listen = \"0.0.0.0:1883\"",
            "listen = \"somewhere\"",
            "invalid socket address",
        ),
        ("listen = \"0.0.0.0:1883\"", "", "devices: either `listen`"),
        (
            "kind = \"washer\"",
            "kind = \"dryer\"",
            "device[1].kind: \"dryer\" is not charger, washer or dispenser",
        ),
        (
            "id = \"washer-001\"",
            "id = \"charger-001\"",
            "device[1].id: charger-001 stands here twice",
        ),
        (
            "id = \"washer-001\"",
            "id = \"washer-009\"",
            "no secret for device washer-009",
        ),
        (
            "#outlets = 1",
            "outlets = 40",
            "device[0].outlets: a device has 1 to 20 outlets",
        ),
        (
            "#ask_ms = 1200",
            "ask_ms = 5000",
            "limits.ask_ms: nobody waits longer than 2,000 ms",
        ),
        ("#ask_ms = 1200", "ask_ms = \"soon\"", "invalid type"),
        (
            "#ask_ms = 1200",
            "ask_ms = 1900",
            "health.canary_ms: nobody waits longer than 2,000 ms",
        ),
        (
            "#mass_tokens_min = 3",
            "mass_tokens_min = 1",
            "one token alone is no mass denial",
        ),
        ("#probe_ms = 2000", "probe_ms = 0", "probe_ms, canary_ms"),
        (
            "#starts_an_hour_max = 30",
            "starts_an_hour_max = 0",
            "limits.starts_an_hour_max: above zero",
        ),
        (
            "#outage_count_lower = 1",
            "outage_count_lower = 3",
            "limits.charger.outage_count_lower: at most outage_count_max",
        ),
        (
            "kind = \"washer\"",
            "kind = \"washer\"\ncar = true",
            "device[1].car: a washer charges no car",
        ),
        ("#utc_offset_min = 0", "utc_offset_min = 2000", "site.utc_offset_min"),
        (
            "broker = \"hub.example.org:1884\"",
            "broker = \"hub.example.org\"",
            "cloud[0].broker: \"hub.example.org\" is not host:port",
        ),
        (
            "#telemetry_s = 60",
            "telemetry_s = 86401",
            "link.telemetry_s: at most 86400 s",
        ),
        ("d75a980182b10ab7d54b", "0000", "trust.issuer_keys"),
        (
            "[\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"]",
            "[]",
            "at least one key",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (from, to, expected) in table {
        assert!(EXAMPLE.contains(from), "the table is out of date: {from}");
        let error = load(dir.path(), &EXAMPLE.replacen(from, to, 1), SECRETS, 0o600).unwrap_err();
        assert!(
            error.contains(expected),
            "{to}: \"{error}\" does not say \"{expected}\""
        );
        assert!(error.contains(".toml"), "the file is named: {error}");
    }
    let error = load(dir.path(), EXAMPLE, SECRETS, 0o644).unwrap_err();
    assert!(error.contains("chmod 600"), "{error}");
    let error = load(
        dir.path(),
        EXAMPLE,
        &SECRETS.replace("token_key = \"0000", "token_key = \"zz"),
        0o600,
    )
    .unwrap_err();
    assert!(error.contains("secrets.toml: token_key"), "{error}");
    fs::remove_file(dir.path().join("secrets.toml")).unwrap();
    let error = config::load(&dir.path().join("holdfast.toml"), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read") && error.contains("secrets.toml"),
        "{error}"
    );
}
