//! Envelopes from anywhere, and signed contents that make no sense.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    artifact::{self, IssuerKeys, ListEntry, ListManifest, Revocations, TariffTable},
    trust::{self, ArtifactKind, ENVELOPE_OVERHEAD_BYTES, Issuer, PAYLOAD_BYTES_MAX},
};
use proto_fuzz::same_again;

fuzz_target!(|bytes: &[u8]| {
    let issuer = Issuer::from_seed(&[3; 32]);
    let keys = [issuer.key()];
    let mut scratch = vec![0; bytes.len() + ENVELOPE_OVERHEAD_BYTES];
    assert!(
        trust::open(ArtifactKind::List, bytes, &keys, &mut scratch).is_err(),
        "never signed"
    );
    same_again::<ListManifest>(bytes);
    same_again::<Revocations>(bytes);
    same_again::<TariffTable>(bytes);
    same_again::<IssuerKeys>(bytes);
    let _ = artifact::read_bundle(bytes);
    same_again::<Vec<ListEntry>>(bytes);
    if bytes.len() <= PAYLOAD_BYTES_MAX {
        let sign = |kind| issuer.sign(kind, bytes).expect("short enough");
        let _ = artifact::verify_list(&sign(ArtifactKind::List), &[bytes], &keys);
        let _ = artifact::verify_revocations(&sign(ArtifactKind::Revocations), &keys);
        let _ = artifact::verify_tariffs(&sign(ArtifactKind::Tariffs), &keys);
        let _ = artifact::verify_keys(&sign(ArtifactKind::Keys), &keys);
    }
});
