//! Board B-L475E-IOT01A (STM32L475VG): the wiring of one outlet behind a transparent serial-to-TCP module.
//!
//! | pin | Arduino | what |
//! |---|---|---|
//! | PA0, PA1 | D1, D0 | UART4: serial-to-TCP module, 115,200 baud |
//! | PA2, PA3 | D10, D4 | USART2: card reader PN532 (HSU), 115,200 baud |
//! | PC4, PC5 | A1, A0 | USART3: energy meter BL0942, 9,600 baud (charger) |
//! | PB6, PB7 | ST-LINK | USART1: scanner or keypad, one line for each code, 9,600 baud |
//! | PA5 | D13, LED1 | contactor, start permit or valve |
//! | PA15 | D9 | sense contact of the contactor; running (washer); low: yes |
//! | PB4 | D5 | plug in the socket; door locked (washer); low: yes |
//! | PB1 | D6 | residual current, or water on the floor; low: yes |
//! | PB0 | D3 | flow pulses (dispenser), falling edge |
//! | PA7 | D11 | coin pulses (washer), active high |
//! | PA6 | D12 | hot-water lock (dispenser), high: unlocked |
//! | PC3 | A2 | NTC 10 kOhm, B 3,950 K, below 10 kOhm to 3.3 V |
//! | PC13 | button | stop |
//! | PB14 | LED2 | delivering or asking |
//!
//! | flash | what |
//! |---|---|
//! | 0x0800_0000, 32 KiB | bootloader |
//! | 0x0800_8000, 4 KiB | what the bootloader is to do |
//! | 0x0801_0000, 240 KiB | program |
//! | 0x0808_0000, 64 KiB | records, in the second bank: the program runs on while it is erased |
//! | 0x0809_0000, 242 KiB | spare slot: the program before, or the one to come |
//! | 0x080f_f800, 2 KiB | identity |
#![no_std]

#[cfg(feature = "emulated")]
mod emulated;
mod map;
mod systick;
pub mod wiring;
