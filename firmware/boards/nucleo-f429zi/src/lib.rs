//! Board NUCLEO-F429ZI (STM32F429ZI): the wiring of one outlet on Ethernet.
//!
//! | pin | Zio | what |
//! |---|---|---|
//! | PA1, PA2, PA7, PB13, PC1, PC4, PC5, PG11, PG13 | - | Ethernet, RMII, to the board's PHY |
//! | PG14, PG9 | D1, D0 | USART6: card reader PN532 (HSU), 115,200 baud |
//! | PD5, PD6 | D53, D52 | USART2: energy meter BL0942, 9,600 baud (charger) |
//! | PC10, PC11 | D45, D46 | UART4: scanner or keypad, one line for each code, 9,600 baud |
//! | PF12 | D8 | contactor, start permit or valve |
//! | PF13 | D7 | sense contact of the contactor; running (washer); low: yes |
//! | PE9 | D6 | plug in the socket; door locked (washer); low: yes |
//! | PE11 | D5 | residual current, or water on the floor; low: yes |
//! | PE0 | D34 | flow pulses (dispenser), falling edge |
//! | PD15 | D9 | coin pulses (washer), active high |
//! | PD14 | D10 | hot-water lock (dispenser), high: unlocked |
//! | PA3 | A0 | NTC 10 kOhm, B 3,950 K, below 10 kOhm to 3.3 V |
//! | PC13 | button | stop |
//! | PB7 | LD2 | delivering or asking |
//! | PA12 | USB | not connected: held low, or early chips (before revision 3) misread the second bank |
//! | PH0 | ST-LINK | 8 MHz clock |
//!
//! | flash | what |
//! |---|---|
//! | 0x0800_0000, 1 MiB | program, the first bank |
//! | 0x0810_0000, 64 KiB | records: four sectors of 16 KiB in the second bank, the program runs on while one is erased |
//! | 0x0811_0000, 64 KiB | identity, in a sector of its own |
#![no_std]

mod network;
pub mod wiring;
