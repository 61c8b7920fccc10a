//! Bodies of every message to a device; a granted tariff must bill, whatever it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    message::{Clock, Command, Grant, Receipt, Refusal},
    tariff::{Bill, Dimension, Usage},
    update::{Offer, Piece},
};
use proto_fuzz::same_again;

/// Two days: enough to pass every time of use, short enough for a fuzzer.
const DURATION_S: u32 = 172_800;

fuzz_target!(|body: &[u8]| {
    same_again::<Clock>(body);
    same_again::<Refusal>(body);
    same_again::<Receipt>(body);
    same_again::<Command>(body);
    same_again::<Offer>(body);
    same_again::<Piece>(body);
    let Some(grant) = same_again::<Grant>(body) else {
        return;
    };
    let tariff = &grant.tariff;
    let mut bill = Bill::default();
    for second_of_day in [None, Some(grant.duration_max_s)] {
        let usage = Usage {
            units: grant.units_max,
            duration_s: DURATION_S,
            idle_s: grant.duration_max_s,
            power_w: u32::from(grant.meter_every_s),
            second_of_day,
        };
        bill.add(tariff, Dimension::Energy, &usage);
    }
    let total = bill.total(tariff);
    let _ = (tariff.hash(), tariff.units_within(Dimension::Energy, grant.money_max));
    if tariff.check().is_ok() {
        assert!(total >= tariff.minimum && (tariff.cap.0 == 0 || total <= tariff.cap));
    }
});
