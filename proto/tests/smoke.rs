//! One message of each direction through codec and seal.
use proto::{codec, id::*, message::*, money::*, seal::*, tariff::*, topic};

#[test]
fn a_grant_with_a_full_tariff_fits_and_comes_back() {
    let mut tariff = Tariff {
        id: u32::MAX,
        start_fee: Money(i64::MAX),
        minimum: Money(i64::MAX),
        cap: Money(i64::MAX),
        ..Tariff::default()
    };
    while tariff
        .elements
        .push(PriceElement {
            dimension: Dimension::Idle,
            price_milli: i64::MAX,
            minute_from: 1439,
            minute_to: 1440,
            power_w_min: u32::MAX,
            power_w_max: u32::MAX,
        })
        .is_ok()
    {}
    let grant = Grant {
        session: SessionId([0xff; 16]),
        units_max: Units(u64::MAX),
        money_max: Money(i64::MAX),
        duration_max_s: u32::MAX,
        start_within_s: u16::MAX,
        meter_every_s: u16::MAX,
        tariff_hash: tariff.hash(),
        tariff,
        stop_tokens: heapless::Vec::new(),
        decision: u64::MAX,
    };
    let device = Name::new("charger-0123456789ab").unwrap();
    let key = PairSecret([7; 32]).key(Direction::Down);
    let topic = topic::down(&device, topic::Down::Grant);
    let mut frame = [0; FRAME_BYTES_MAX];
    let len = key.seal(&topic, 5, &grant, &mut frame).unwrap();
    println!("largest grant: {len} bytes");
    let opened = key.open(&topic, &frame[..len], FRAME_BYTES_MAX).unwrap();
    assert_eq!(codec::decode::<Grant>(opened.body).unwrap(), grant);
    frame[12] ^= 1;
    assert_eq!(key.open(&topic, &frame[..len], FRAME_BYTES_MAX), Err(SealError::Forged));
}

#[test]
fn an_artifact_opens_only_as_what_it_is() {
    use proto::{artifact::*, trust::*};
    let issuer = Issuer::from_seed(&[3; 32]);
    let entry = ListEntry {
        token: TokenHash([1; 16]),
        account: 7,
        group: 0,
        valid: true,
        whitelist: Whitelist::Allowed,
        credential_revision: 1,
        balance: Money(100),
        not_after_s: 0,
        lease_only: false,
    };
    let (envelope, chunks) = sign_list(&issuer, 1, 0, vec![entry]).unwrap();
    assert_eq!(
        verify_list(&envelope, &chunks, &[issuer.key()])
            .unwrap()
            .entries()
            .len(),
        1
    );
    let mut scratch = [0; 4096];
    assert_eq!(
        open(ArtifactKind::Tariffs, &envelope, &[issuer.key()], &mut scratch),
        Err(TrustError::Forged)
    );
}
