//! The scripts that come with the program.

use super::{Script, ScriptError, parse};

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// Name and text of each.
        pub const SHIPPED: &[(&str, &str)] = &[
            $(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/clouds/", $name, ".toml"))),)+
        ];
    };
}

shipped![
    "aliyun-2023-11-12",
    "partial-whitelist",
    "half-dead",
    "mass-disable-unsigned",
    "signed-revocation-during-outage",
    "forged-revocation",
    "login-loop-520",
    "aws-denied",
    "azure-sas-expired-offline",
    "reconnect-storm",
    "captive-portal",
    "certificates",
    "takeover",
    "billing",
];

/// A shipped script by its name.
///
/// # Errors
/// [`ScriptError`] if its text is wrong; a test reads them all.
#[must_use]
pub fn find(name: &str) -> Option<Result<Script, ScriptError>> {
    let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    Some(parse(name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_script_is_read() {
        for (name, _) in SHIPPED {
            let script = find(name).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
            for vendor in &script.clouds {
                let acts = script.acts(*vendor);
                let last = acts.last().expect("it has a beginning and an end");
                assert_eq!(
                    (last.0, last.1.len()),
                    (script.lasts_ms, 0),
                    "{name} on {vendor} ends well"
                );
                assert!(
                    script.outage(*vendor).is_some(),
                    "{name} on {vendor} has something to play"
                );
            }
        }
    }
}
