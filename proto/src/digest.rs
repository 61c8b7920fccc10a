//! SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104), from the library that suits the machine: on a host ring, which has
//! assembly for each processor; on a device sha2, which needs no C compiler. What is hashed seldom calls sha2 everywhere.

#[cfg(not(feature = "host"))]
pub(crate) use device::{MacKey, code};
#[cfg(feature = "host")]
pub(crate) use host::{MacKey, Sha256, code};

#[cfg(any(test, not(feature = "host")))]
mod device {
    use hmac::{Hmac, KeyInit, Mac};

    /// A key of HMAC-SHA256.
    #[derive(Clone)]
    pub(crate) struct MacKey([u8; 32]);

    impl MacKey {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(*key)
        }

        /// [`code`] under this key.
        pub(crate) fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
            code(&self.0, parts)
        }
    }

    /// The code of `parts`, one behind the other.
    pub(crate) fn code(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

#[cfg(feature = "host")]
mod host {
    use alloc::boxed::Box;

    use ring::{
        digest::{Context, SHA256},
        hmac::{self, HMAC_SHA256, Key},
    };

    const BYTES: &str = "SHA-256 has 32 bytes";

    /// SHA-256 over what comes piece by piece.
    pub(crate) struct Sha256(Context);

    impl Sha256 {
        pub(crate) fn new() -> Self {
            Self(Context::new(&SHA256))
        }

        /// The digest of `parts`, one behind the other.
        pub(crate) fn of(parts: &[&[u8]]) -> [u8; 32] {
            let mut digest = Self::new();
            for part in parts {
                digest.update(part);
            }
            digest.finish()
        }

        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(crate) fn finish(self) -> [u8; 32] {
            self.0.finish().as_ref().try_into().expect(BYTES)
        }
    }

    /// A key of HMAC-SHA256 that is taken in already: two of the blocks of every code are hashed once. Boxed, so that a
    /// device that runs on a host is no larger than on its board.
    #[derive(Clone)]
    pub(crate) struct MacKey(Box<Key>);

    impl MacKey {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(Box::new(Key::new(HMAC_SHA256, key)))
        }

        /// [`code`] under this key.
        pub(crate) fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
            code_under(&self.0, parts)
        }
    }

    /// The code of `parts`, one behind the other.
    pub(crate) fn code(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        code_under(&Key::new(HMAC_SHA256, key), parts)
    }

    fn code_under(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(key);
        for part in parts {
            mac.update(part);
        }
        mac.sign().as_ref().try_into().expect(BYTES)
    }
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_host_and_a_device_compute_the_same(
            key in any::<[u8; 32]>(),
            head in proptest::collection::vec(any::<u8>(), 0..200),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let parts = [head.as_slice(), body.as_slice()];
            prop_assert_eq!(MacKey::new(&key).code(&parts), device::MacKey::new(&key).code(&parts));
            prop_assert_eq!(code(&key, &parts), device::code(&key, &parts));
            let device: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
                <sha2::Sha256 as sha2::Digest>::new_with_prefix(&head),
                &body,
            ))
            .into();
            prop_assert_eq!(Sha256::of(&parts), device);
        }
    }
}
