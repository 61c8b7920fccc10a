//! What people do at the outlet.

use app::{
    gesture::{self, Gesture},
    transport::Ring,
};
use drivers::reader::pn532::Pn532;
use embassy_executor::Spawner;
use embassy_stm32::{
    exti::ExtiInput,
    gpio::Level,
    mode,
    usart::{BufferedUart, BufferedUartRx},
};
use embassy_time::{Delay, Timer};

use crate::{DESK, OUTLET};

/// Contacts bounce.
const BOUNCE_MS: u64 = 200;

/// Whom the outlet listens to.
pub struct People {
    /// A card reader PN532.
    pub cards: Ring<BufferedUart<'static>>,
    /// A scanner or keypad.
    pub codes: BufferedUartRx<'static>,
    /// The stop button.
    pub button: ExtiInput<'static, mode::Async>,
    /// What the button's pin is when it is pressed.
    pub pressed: Level,
}

impl People {
    /// Listens from now on.
    ///
    /// # Panics
    /// If called twice.
    pub fn listen(self, spawner: Spawner) {
        spawner.spawn(read_cards(self.cards).expect("once"));
        spawner.spawn(read_codes(self.codes).expect("once"));
        spawner.spawn(watch_button(self.button, self.pressed).expect("once"));
    }
}

#[embassy_executor::task]
async fn read_cards(uart: Ring<BufferedUart<'static>>) {
    gesture::read_cards(Pn532::new(uart, Delay), OUTLET, &DESK).await;
}

#[embassy_executor::task]
async fn read_codes(uart: BufferedUartRx<'static>) {
    gesture::read_lines(uart, OUTLET, &DESK).await;
}

#[embassy_executor::task]
async fn watch_button(mut button: ExtiInput<'static, mode::Async>, pressed: Level) {
    loop {
        match pressed {
            Level::High => button.wait_for_rising_edge().await,
            Level::Low => button.wait_for_falling_edge().await,
        }
        DESK.send(Gesture::Button(OUTLET)).await;
        Timer::after_millis(BOUNCE_MS).await;
    }
}
