//! A washer.
#![no_std]
#![no_main]

#[cortex_m_rt::entry]
fn main() -> ! {
    nucleo_f429zi::wiring::washer()
}
