//! A washer.
#![no_std]
#![no_main]

#[cortex_m_rt::entry]
fn main() -> ! {
    b_l475e_iot01a::wiring::washer()
}
