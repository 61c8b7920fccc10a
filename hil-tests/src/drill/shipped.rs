//! The drills that come with the program.

use super::{ScenarioError, parse, scenario::Scenario};

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// Name and text of each.
        pub const SHIPPED: &[(&str, &str)] = &[
            $(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/drills/", $name, ".toml"))),)+
        ];
    };
}

shipped![
    "2023-11-12",
    "2023-11-27",
    "2022-12-18",
    "2022-12-18-24h",
    "partial-whitelist",
    "half-dead",
    "mass-disable-unsigned",
    "signed-revocation-during-outage",
    "forged-revocation",
    "bad-lists",
    "login-loop",
];

/// A shipped drill by its name.
///
/// # Errors
/// [`ScenarioError`] if its text is wrong; a test reads them all.
#[must_use]
pub fn find(name: &str) -> Option<Result<Scenario, ScenarioError>> {
    let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    Some(parse(name, text))
}
