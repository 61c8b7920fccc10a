//! The cloud's error codes, and what they are worth here. None of them takes anything away: a code that says that a
//! device is deleted is a claim, whoever it comes from.

use carrier::{Class, Symptom};

/// Everything is well.
pub(super) const CODE_OK: u32 = 200;
/// What we answer to a message that is wrong in itself.
pub(super) const CODE_PARAMETER: u32 = 460;
/// What we answer to a service that we do not have: the first code that is free for devices.
pub(super) const CODE_NO_SUCH_SERVICE: u32 = 100_000;
/// A sub-device has no session: it may log in again.
pub(super) const CODE_NO_SESSION: u32 = 520;
/// The sub-device is not in our topology.
pub(super) const CODE_NOT_IN_TOPOLOGY: u32 = 6401;
/// More sub-devices than the cloud lets us have.
pub(super) const CODE_TOO_MANY_DEVICES: u32 = 428;

/// What a code means; `None`: nothing is wrong that concerns us.
#[must_use]
pub(super) const fn class(code: u32) -> Option<Class> {
    Some(match code {
        // 6710, 6713: no remote configuration, or none switched on. 9112, 9200, 9201: about a device's firmware or
        // presence, told to whoever asked the cloud.
        CODE_OK | 6710 | 6713 | 9112 | 9200 | 9201 => return None,
        401 | 6287 => Class::Denied,
        403 => Class::Billing,
        427 | 527 => Class::Duplicate,
        429 | 26010 => Class::Throttled,
        CODE_NO_SESSION => Class::SessionLost,
        // Deleted, forbidden, not found, disabled, not in the topology: of a device that was good, a claim.
        521 | 522 | 6100 | 6204 | CODE_NOT_IN_TOPOLOGY => Class::Claimed,
        // Their validation service is down: it is among the codes of wrong data, and is none.
        6313 => Class::Broken,
        // Wrong parameters, too many of something, wrong shapes, wrong data; registration that we do not do; scripts.
        428
        | CODE_PARAMETER
        | 6104
        | 6106
        | 6203
        | 6207
        | 6280
        | 6288
        | 6289
        | 6292
        | 6300..=6328
        | 6356
        | 6357
        | 6400
        | 6402
        | 6600
        | 6619
        | 26001..=26009 => Class::Protocol,
        // 400, 500, 5005, 6250, 6661, 6760, and whatever else they may think of.
        _ => Class::Broken,
    })
}

/// The code of HTTP that is nearest to what a class means: what the core is told.
#[must_use]
pub(super) const fn http(class: Class) -> u16 {
    match class {
        Class::Denied => 401,
        Class::Billing => 402,
        Class::Claimed => 404,
        Class::Duplicate => 409,
        Class::Throttled => 429,
        Class::Protocol => 400,
        Class::Partition | Class::Intercepted | Class::Clock | Class::Broken | Class::HalfDead | Class::SessionLost => {
            503
        }
    }
}

/// What the cloud said against one of many devices: a claim, whichever code it has for it, and no denial of the gateway.
pub(super) fn claim(code: u32, message: &str, whom: &str) -> Option<Symptom> {
    let mut symptom = symptom(code, message, whom)?;
    if is_against_a_device(symptom.class) {
        symptom.class = Class::Claimed;
        symptom.code = http(Class::Claimed);
    }
    Some(symptom)
}

/// What the cloud said, as a symptom about `whom`; `None`: nothing is wrong.
#[must_use]
pub(super) fn symptom(code: u32, message: &str, whom: &str) -> Option<Symptom> {
    let class = class(code)?;
    let text = match (message, whom) {
        ("", "") => format!("code {code}"),
        ("", whom) => format!("code {code}: {whom}"),
        (message, "") => format!("code {code}: {message}"),
        (message, whom) => format!("code {code} about {whom}: {message}"),
    };
    Some(Symptom::new(class, http(class), text))
}

/// Whether it speaks against one device, and nothing backs it.
#[must_use]
pub(super) const fn is_against_a_device(class: Class) -> bool {
    match class {
        Class::Denied | Class::Claimed => true,
        Class::Partition
        | Class::Intercepted
        | Class::Clock
        | Class::Throttled
        | Class::Broken
        | Class::HalfDead
        | Class::Duplicate
        | Class::Protocol
        | Class::Billing
        | Class::SessionLost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the vendor's table.
    #[test]
    fn every_code_has_its_class() {
        let check = |codes: &[u32], expected: Option<Class>| {
            for code in codes {
                assert_eq!(class(*code), expected, "{code}");
            }
        };
        check(&[200, 6710, 6713, 9112, 9200, 9201], None);
        check(&[400, 500, 5005, 6250, 6313, 6661, 6760, 777], Some(Class::Broken));
        check(&[401, 6287], Some(Class::Denied));
        check(&[403], Some(Class::Billing));
        check(&[427, 527], Some(Class::Duplicate));
        check(&[429, 26010], Some(Class::Throttled));
        check(&[520], Some(Class::SessionLost));
        check(&[521, 522, 6100, 6204, 6401], Some(Class::Claimed));
        check(
            &[
                428, 460, 6104, 6106, 6203, 6207, 6280, 6288, 6289, 6292, 6300, 6310, 6328, 6356, 6357, 6400, 6402,
                6600, 6619, 26001, 26009,
            ],
            Some(Class::Protocol),
        );
    }

    #[test]
    fn a_symptom_names_code_device_and_the_clouds_words() {
        let check = |code, message, whom, expected: &str| {
            let found = symptom(code, message, whom).map_or_else(String::new, |symptom| symptom.to_string());
            assert_eq!(found, expected);
        };
        check(200, "success", "", "");
        check(
            521,
            "device deleted",
            "washer-07",
            "claimed: code 521 about washer-07: device deleted",
        );
        check(429, "", "", "throttled: code 429");
        check(6287, "invalid sign", "", "denied: code 6287: invalid sign");
        let one = claim(6287, "invalid sign", "washer-07").unwrap();
        assert_eq!(one.to_string(), "claimed: code 6287 about washer-07: invalid sign");
    }
}
