//! What `holdfast device provision` gives a device: all it needs, and of what a thief could use only what was asked for.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use gateway::{
    config::{self, Config},
    provision::{self, PAGE_BYTES, Trusted},
};
use proto::{
    id::{DeviceId, Kind},
    identity::Identity,
};

const EXAMPLE: &str = include_str!("../../../deploy/config/holdfast.toml");
const SECRETS: &str = include_str!("../../../deploy/config/secrets.toml");

fn load(dir: &Path) -> Config {
    fs::write(dir.join("holdfast.toml"), EXAMPLE).unwrap();
    fs::write(dir.join("secrets.toml"), SECRETS).unwrap();
    fs::set_permissions(dir.join("secrets.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    config::load(&dir.join("holdfast.toml"), None).unwrap()
}

#[test]
fn every_device_of_the_configuration_gets_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let config = load(dir.path());
    for (id, device) in &config.core.devices {
        let out = dir.path().join(format!("{id}.bin"));
        let identity = provision::identity(&config, id, Trusted::default()).unwrap();
        provision::write(&identity, &out).unwrap();
        let page = fs::read(&out).unwrap();
        assert_eq!(page.len(), PAGE_BYTES);
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Identity::read(&page).unwrap();
        assert_eq!((read.id, read.kind, read.outlets), (*id, device.kind, device.outlets));
        assert_eq!(read.secret, config.device_secrets[id]);
        assert_eq!(read.site, Some(config.site));
        let pinned: Vec<[u8; 32]> = read.issuers.iter().map(|key| *key.as_bytes()).collect();
        let configured: Vec<[u8; 32]> = config.issuer_keys.iter().map(|key| *key.as_bytes()).collect();
        assert_eq!(pinned, configured);
        let signers: Vec<[u8; 32]> = read.signers.iter().map(|key| *key.as_bytes()).collect();
        let configured: Vec<[u8; 32]> = config.firmware_keys.iter().map(|key| *key.as_bytes()).collect();
        assert_eq!(signers, configured);
        assert!(read.keypad && !signers.is_empty());
        assert!(
            read.site_key.is_none() && read.enrolments.is_empty(),
            "nobody asked for these"
        );
    }
}

#[test]
fn what_a_thief_could_use_comes_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = load(dir.path());
    let id = *config.core.devices.keys().next().unwrap();
    let enrolment = proto::instrument::Enrolment {
        account: 7,
        key: proto::instrument::TotpKey([9; 32]),
        limit: proto::money::Money(500),
    };
    config.core.instruments.enrolments.insert(7, enrolment);
    let with = |groups, codes| provision::identity(&config, &id, Trusted { groups, codes }).unwrap();
    assert!(
        with(true, false)
            .site_key
            .is_some_and(|key| key.0 == config.token_key.0)
    );
    assert!(with(true, false).enrolments.is_empty());
    assert_eq!(with(false, true).enrolments.len(), 1);
    assert!(with(false, true).site_key.is_none());
}

#[test]
fn what_cannot_be_is_named_and_nothing_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = load(dir.path());
    let stranger: DeviceId = "stranger-1".parse().unwrap();
    let error = provision::identity(&config, &stranger, Trusted::default()).unwrap_err();
    assert!(
        error.to_string().starts_with("stranger-1 is not a device of this site"),
        "{error}"
    );

    let id = *config.core.devices.keys().next().unwrap();
    let identity = provision::identity(&config, &id, Trusted::default()).unwrap();
    let out = dir.path().join("page.bin");
    fs::write(&out, "somebody's").unwrap();
    let error = provision::write(&identity, &out).unwrap_err();
    assert!(error.to_string().contains("page.bin: File exists"), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"somebody's");

    let key = config.core.instruments.issuers[0];
    config.core.instruments.issuers = vec![key; 5];
    let error = provision::identity(&config, &id, Trusted::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "5 issuer keys are more than the 4 that a device keeps"
    );

    config.core.devices.get_mut(&id).unwrap().kind = Kind::Unknown;
    config.core.instruments.issuers.truncate(1);
    assert!(
        provision::identity(&config, &id, Trusted::default()).is_err(),
        "no firmware serves it"
    );
}
