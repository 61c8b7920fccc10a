//! How a device proves to the cloud who it is: an HMAC under its secret over its names. The cloud does not look at how
//! old the timestamp is, so a gateway whose clock is lost signs in as well as any other.

use std::fmt::{self, Write as _};

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

/// What stands for the time everywhere: the vendor's own constant, 2050-01-01. Any clock may be wrong, this is never.
pub const TIMESTAMP_MS: &str = "2524608000000";

/// The secret of a device, or of a product. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// With which hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The default.
    #[default]
    HmacSha256,
    /// For products that ask for it.
    HmacSha1,
    /// For products that ask for it.
    HmacMd5,
}

impl Method {
    /// As a login calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmacsha256",
            Self::HmacSha1 => "hmacsha1",
            Self::HmacMd5 => "hmacmd5",
        }
    }

    /// As the topology calls it.
    #[must_use]
    pub const fn topology_word(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmacSha256",
            Self::HmacSha1 => "hmacSha1",
            Self::HmacMd5 => "hmacMd5",
        }
    }

    /// The signature over named values, in lower hexadecimal.
    #[must_use]
    pub fn sign(self, secret: &Secret, values: &[(&str, &str)]) -> String {
        let content = content(values);
        match self {
            Self::HmacSha256 => mac::<Sha256>(secret, &content),
            Self::HmacSha1 => mac::<Sha1>(secret, &content),
            Self::HmacMd5 => mac::<Md5>(secret, &content),
        }
    }

    /// The signature of a device that logs in.
    #[must_use]
    pub fn sign_login(self, secret: &Secret, client: &str, device: &str, product: &str) -> String {
        let values = [
            ("clientId", client),
            ("deviceName", device),
            ("productKey", product),
            ("timestamp", TIMESTAMP_MS),
        ];
        self.sign(secret, &values)
    }
}

/// Names and values one after the other, by name, with nothing in between.
fn content(values: &[(&str, &str)]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

fn mac<H: EagerHash>(secret: &Secret, content: &str) -> String
where
    Hmac<H>: Mac + KeyInit,
{
    let mut mac = <Hmac<H> as KeyInit>::new_from_slice(secret.0.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(content.as_bytes());
    let mut text = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "0123456789abcdef0123456789abcdef";
    const SUB: &str = "fedcba9876543210fedcba9876543210";

    fn login<'a>(client: &'a str, device: &'a str, product: &'a str, time: &'a str) -> Vec<(&'a str, &'a str)> {
        // Not in the order in which they are signed.
        vec![
            ("timestamp", time),
            ("productKey", product),
            ("clientId", client),
            ("deviceName", device),
        ]
    }

    #[test]
    fn vectors_as_published_and_as_recomputed() {
        let check = |what: &str, secret: &str, values: &[(&str, &str)], text: &str, expected: [&str; 3]| {
            assert_eq!(content(values), text, "{what}");
            let methods = [Method::HmacSha256, Method::HmacSha1, Method::HmacMd5];
            for (method, digest) in methods.into_iter().zip(expected) {
                if !digest.is_empty() {
                    let signed = method.sign(&Secret(secret.to_owned()), values);
                    assert!(signed.eq_ignore_ascii_case(digest), "{what}, {method:?}: {signed}");
                }
            }
        };
        check(
            "V1",
            "oLyaKqVxtRvjH284LdhqVgVUx1UPy6zq",
            &login("SN1928339", "light1983432", "a14Xib5kdYd", "1539421321846"),
            "clientIdSN1928339deviceNamelight1983432productKeya14Xib5kdYdtimestamp1539421321846",
            ["", "b2488041f64f425016b467ee1c94959ebd592ad1", ""],
        );
        check(
            "V2",
            "secret",
            &login("12345", "device", "pk", "789"),
            "clientId12345deviceNamedeviceproductKeypktimestamp789",
            [
                "6074a46a91b1ebb2cc4ea42790ad0e80202c9843859fc292e57c4eb19fad9e57",
                "FAFD82A3D602B37FB0FA8B7892F24A477F851A14",
                "14b198324fe55e1d3c88f2e705e201ee",
            ],
        );
        check(
            "V4",
            OURS,
            &login("a1Bc2De3Fg4.gw-0001", "gw-0001", "a1Bc2De3Fg4", TIMESTAMP_MS),
            "clientIda1Bc2De3Fg4.gw-0001deviceNamegw-0001productKeya1Bc2De3Fg4timestamp2524608000000",
            [
                "9009122E20B22EB3B2E8F7BAB3AB7C6579859C5DA4F431B2F15E36BC9ABAA14C",
                "596C015AD12EC63F2D498FDF108718819C5EFD5E",
                "620363D59FA7EA3812739F500CE05D59",
            ],
        );
        check(
            "V5",
            SUB,
            &login("a1Zz9Yy8Xx7&washer-07", "washer-07", "a1Zz9Yy8Xx7", "1700000000000"),
            "clientIda1Zz9Yy8Xx7&washer-07deviceNamewasher-07productKeya1Zz9Yy8Xx7timestamp1700000000000",
            [
                "53b7f6df968f259c4d95bd98ef22cb2a86115e84a90c1244342f103f9b3e5817",
                "1d8c98376c4b17950093bd64ac8e7456a2e61101",
                "8405bce0e8e8f0928ce0476aaa268876",
            ],
        );
        check(
            "V6",
            "productSecret123",
            &[
                ("random", "8Ygb7ULYh53B6OA"),
                ("productKey", "a1Bc2De3Fg4"),
                ("deviceName", "gw-0001"),
            ],
            "deviceNamegw-0001productKeya1Bc2De3Fg4random8Ygb7ULYh53B6OA",
            [
                "C82B0F7E71E4122AF1CF8F342D8ED570CCDF7328547C3EF4496FF9603CE54E2C",
                "70026bb40c775d67aca4c738ad309a88b23ccdbf",
                "",
            ],
        );
    }

    #[test]
    fn a_login_signs_the_constant_time_and_shows_no_secret() {
        let secret = Secret(OURS.to_owned());
        let signed = Method::default().sign_login(&secret, "a1Bc2De3Fg4.gw-0001", "gw-0001", "a1Bc2De3Fg4");
        assert!(signed.starts_with("9009122e20b22eb3"), "{signed}");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
