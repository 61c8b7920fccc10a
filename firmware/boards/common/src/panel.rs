//! Lamp, log, watchdog, thermometer, and an eye on the stack.

use device::Screen;
use drivers::ntc::Ntc;
use embassy_stm32::{
    Peri,
    adc::{Adc, AnyAdcChannel, SampleTime},
    gpio::Output,
    peripherals::{ADC1, IWDG},
    wdg::IndependentWatchdog,
};
use proto::{
    id::OutletId,
    update::{State, Update},
};

use crate::stack;

/// What a board has beside the machine.
pub struct Panel {
    busy: Output<'static>,
    watchdog: IndependentWatchdog<'static, IWDG>,
    adc: Adc<'static, ADC1>,
    ntc: AnyAdcChannel<'static, ADC1>,
    sample_time: SampleTime,
    stack: stack::Watch,
}

impl Panel {
    /// Starts the watchdog. `busy`: the lamp of somebody who asks or draws; `ntc`: the sensor of 10 kOhm, and how long it
    /// is sampled.
    pub fn new(
        busy: Output<'static>,
        watchdog: Peri<'static, IWDG>,
        adc: Adc<'static, ADC1>,
        ntc: AnyAdcChannel<'static, ADC1>,
        sample_time: SampleTime,
    ) -> Self {
        let mut watchdog = IndependentWatchdog::new(watchdog, crate::WATCHDOG_US);
        watchdog.unleash();
        Self {
            busy,
            watchdog,
            adc,
            ntc,
            sample_time,
            stack: stack::Watch::new(),
        }
    }
}

impl app::control::Panel for Panel {
    fn show(&mut self, _outlet: OutletId, screen: &Screen) {
        let busy = matches!(
            screen,
            Screen::Asking | Screen::Begin { .. } | Screen::Delivering { .. }
        );
        self.busy.set_level(busy.into());
        match screen {
            Screen::Refused { reason, .. } => defmt::info!("refused, reason {=u8}", reason.code()),
            Screen::Begin { units_max, money_max } => {
                defmt::info!("granted: {=u64} units, {=i64} minor units", units_max.0, money_max.0);
            }
            Screen::Ended { reason, units, money } => {
                defmt::info!(
                    "ended, reason {=u8}: {=u64} units, {=i64} minor units",
                    reason.code(),
                    units.0,
                    money.0
                );
            }
            Screen::Receipt { amount } => defmt::info!("receipt: {=i64} minor units", amount.0),
            Screen::Faulted(fault) => defmt::warn!("fault {=u8}", fault.code()),
            Screen::Free => defmt::info!("free"),
            Screen::Recovering => defmt::info!("recovering"),
            Screen::Unavailable => defmt::info!("unavailable"),
            Screen::Asking | Screen::Delivering { .. } => {}
        }
    }

    fn update(&mut self, update: &Update) {
        let (version, floor) = (update.version, update.floor);
        let (state, offered, fault) = (update.state.code(), update.offered, update.fault.code());
        if update.offset == 0 || update.state != State::Fetching {
            defmt::info!(
                "firmware {=u32}, floor {=u32}, state {=u8} of {=u32}, fault {=u8}",
                version,
                floor,
                state,
                offered,
                fault
            );
        }
    }

    fn linked(&mut self, is_linked: bool) {
        defmt::info!("{=str}", if is_linked { "linked" } else { "unlinked" });
    }

    fn alive(&mut self) {
        self.watchdog.pet();
        self.stack.look();
    }

    fn temperature_c(&mut self, _outlet: OutletId) -> i16 {
        let count = self.adc.blocking_read(&mut self.ntc, self.sample_time);
        Ntc::USUAL.celsius(count).unwrap_or(i16::MAX)
    }
}
