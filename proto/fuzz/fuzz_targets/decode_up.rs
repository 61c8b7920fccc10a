//! Bodies of every message of a device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::message::{Authorize, CommandAnswer, Hello, Meter, Started, Status, Stop};
use proto::update::Update;
use proto_fuzz::same_again;

fuzz_target!(|body: &[u8]| {
    same_again::<Hello>(body);
    same_again::<Authorize>(body);
    same_again::<Started>(body);
    same_again::<Meter>(body);
    same_again::<Stop>(body);
    same_again::<Status>(body);
    same_again::<CommandAnswer>(body);
    same_again::<Update>(body);
});
