//! What is provisioned: frozen like what travels, because firmware of every age reads the same page.

use proto::{
    address::{Address, HOST_BYTES_MAX},
    id::{Kind, Name, TokenKey},
    identity::{ENROLMENTS_MAX, IDENTITY_BYTES_MAX, ISSUERS_MAX, Identity},
    instrument::{Enrolment, TotpKey},
    money::Money,
    seal::PairSecret,
    trust::Issuer,
    update::SIGNERS_MAX,
};

use crate::vector::Vector;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn address(text: &str) -> Option<Address> {
    Some(text.parse().expect("an address"))
}

fn typical() -> Identity {
    Identity {
        site: Some(name("north-campus")),
        currency: 156,
        issuers: [Issuer::from_seed(&[0x15; 32]).key()].into_iter().collect(),
        keypad: true,
        gateway: address("192.168.1.10:1883"),
        signers: [Issuer::from_seed(&[0x16; 32]).key()].into_iter().collect(),
        ..Identity::new(name("charger-07"), Kind::Charger, 2, PairSecret([0xd1; 32]))
    }
}

fn extreme() -> Identity {
    let key = |seed: u8| Issuer::from_seed(&[seed; 32]).key();
    let enrolment = |i: usize| Enrolment {
        account: u64::MAX - i as u64,
        key: TotpKey([0xee; 32]),
        limit: Money(i64::MIN),
    };
    Identity {
        site_key: Some(TokenKey([0xab; 32])),
        site: Some(name("a-site-of-20-letters")),
        currency: u16::MAX,
        issuers: (1..=ISSUERS_MAX as u8).map(key).collect(),
        enrolments: (0..ENROLMENTS_MAX).map(enrolment).collect(),
        keypad: true,
        gateway: address(&format!("{}:65535", "g".repeat(HOST_BYTES_MAX))),
        signers: (8..8 + SIGNERS_MAX as u8).map(key).collect(),
        ..Identity::new(
            name("dispenser-0123456789"),
            Kind::Dispenser,
            20,
            PairSecret([0xff; 32]),
        )
    }
}

pub(crate) fn vectors() -> Vec<Vector> {
    let rows = [
        ("identity-typical", "a charger with two sockets", typical()),
        ("identity-extreme", "everything at its limit", extreme()),
    ];
    let vector = |(file, comment, identity): (&str, &str, Identity)| {
        let mut page = [0xff; IDENTITY_BYTES_MAX];
        let len = identity.write(&mut page).expect("room for the largest");
        Vector::new(file, "identity", comment)
            .with("rule", "identity")
            .with_bytes("body", &page[8..len - 8])
            .with_bytes("page", &page[..len])
    };
    rows.map(vector).into()
}
