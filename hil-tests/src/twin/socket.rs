//! A charging socket: contactor, meter IC, and a battery that fills at constant power and tapers at the end.

use device::Sense;
use proto::money::Units;

/// Above this share of its capacity a battery takes less and less, in percent.
const TAPER_FROM_PERCENT: u64 = 80;
/// Below this share of its full power the battery's electronics switch the current off, in percent.
const CUT_OFF_PERCENT: u64 = 3;
/// What a full battery's charger still draws, in mW.
const STANDBY_MW: u64 = 1_000;
/// Share of the energy that arrives in the battery, in percent.
const EFFICIENCY_PERCENT: u64 = 90;
/// Mains voltage, in V.
const VOLTAGE_V: u64 = 230;
/// Longest step of the integration, in ms of the battery's time.
const STEP_MS: u64 = 10_000;
/// A mW for a ms is a uJ; this many are one Wh.
const UJ_PER_WH: u64 = 3_600_000_000;
const UJ_PER_MWH: u64 = UJ_PER_WH / 1_000;

/// A battery with its charger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Battery {
    /// What fits in, in Wh.
    pub capacity_wh: u64,
    /// What is in, in Wh.
    pub charge_wh: u64,
    /// Drawn from the mains until the taper begins, in W.
    pub power_w: u64,
}

#[derive(Debug)]
struct Plugged {
    capacity_uj: u64,
    charge_uj: u64,
    power_mw: u64,
}

#[derive(Debug)]
pub(crate) struct Socket {
    speed: u64,
    plugged: Option<Plugged>,
    /// The meter IC: keeps its count without power.
    meter_uj: u64,
    drawn_mw: u64,
    closed: bool,
}

impl Socket {
    pub(crate) fn new(speed: u64, meter_wh: u64) -> Self {
        Self {
            speed,
            plugged: None,
            meter_uj: meter_wh * UJ_PER_WH,
            drawn_mw: 0,
            closed: false,
        }
    }

    pub(crate) fn plug(&mut self, battery: Battery) {
        self.plugged = Some(Plugged {
            capacity_uj: battery.capacity_wh * UJ_PER_WH,
            charge_uj: battery.charge_wh.min(battery.capacity_wh) * UJ_PER_WH,
            power_mw: battery.power_w * 1_000,
        });
    }

    /// Pulls the plug; returns what is in the battery, in Wh.
    pub(crate) fn unplug(&mut self) -> Option<u64> {
        self.drawn_mw = 0;
        self.plugged.take().map(|plugged| plugged.charge_uj / UJ_PER_WH)
    }

    /// Lets `real_ms` pass with the contactor open or closed; returns what went through the meter, in mWh.
    pub(crate) fn advance(&mut self, real_ms: u64, on: bool) -> u64 {
        self.closed = on;
        self.drawn_mw = 0;
        let before = self.meter_uj;
        let mut left_ms = real_ms * self.speed;
        let Some(plugged) = self.plugged.as_mut().filter(|_| on) else {
            return 0;
        };
        loop {
            self.drawn_mw = plugged.draw_mw();
            if left_ms == 0 {
                break;
            }
            let step_ms = left_ms.min(STEP_MS);
            let energy_uj = self.drawn_mw * step_ms;
            self.meter_uj += energy_uj;
            plugged.charge_uj = plugged
                .capacity_uj
                .min(plugged.charge_uj + energy_uj / 100 * EFFICIENCY_PERCENT);
            left_ms -= step_ms;
        }
        self.meter_uj / UJ_PER_MWH - before / UJ_PER_MWH
    }

    pub(crate) fn power_lost(&mut self) {
        (self.closed, self.drawn_mw) = (false, 0);
    }

    pub(crate) fn sense(&self) -> Sense {
        let power_w = self.drawn_mw / 1_000;
        Sense {
            register: Units(self.meter_uj / UJ_PER_WH),
            power_w: power_w as u32,
            current_ma: (self.drawn_mw / VOLTAGE_V) as u32,
            temperature_c: 22 + (power_w / 100) as i16,
            relay_closed: self.closed,
            plugged: self.plugged.is_some(),
            door_locked: true,
            ..Sense::default()
        }
    }
}

impl Plugged {
    fn draw_mw(&self) -> u64 {
        let percent_free = (self.capacity_uj - self.charge_uj) as u128 * 100 / u128::from(self.capacity_uj.max(1));
        let taper = 100 - TAPER_FROM_PERCENT;
        let room_uj = (self.capacity_uj - self.charge_uj) as u128;
        let full_uj = u128::from(self.capacity_uj) * u128::from(taper) / 100;
        if percent_free >= u128::from(taper) {
            return self.power_mw;
        }
        let power_mw = (u128::from(self.power_mw) * room_uj / full_uj.max(1)) as u64;
        if power_mw * 100 < self.power_mw * CUT_OFF_PERCENT {
            STANDBY_MW
        } else {
            power_mw
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_meter_as_much_as_a_long_one() {
        let metered = |steps: u64| {
            let mut socket = Socket::new(1, 0);
            socket.plug(Battery {
                capacity_wh: 20_000,
                charge_wh: 100,
                power_w: 1_500,
            });
            (0..steps).map(|_| socket.advance(3_600 / steps, true)).sum::<u64>()
        };
        assert_eq!((metered(1), metered(3_600)), (1_500, 1_500), "a Wh and a half in 3.6 s");
    }

    #[test]
    fn a_battery_fills_and_then_takes_nothing() {
        let mut socket = Socket::new(60, 5);
        socket.plug(Battery {
            capacity_wh: 500,
            charge_wh: 100,
            power_w: 200,
        });
        assert_eq!(socket.advance(60_000, false), 0, "an open contactor");
        let mut curve = Vec::new();
        let mut metered_mwh = 0;
        for _ in 0..12 {
            metered_mwh += socket.advance(20_000, true);
            curve.push(socket.sense().power_w);
        }
        assert_eq!(curve[..4], [200, 200, 200, 200], "constant power at first");
        assert!(curve.windows(2).all(|w| w[1] <= w[0]), "then it tapers: {curve:?}");
        assert_eq!(curve[11], 1, "full: {curve:?}");
        let charge_wh = socket.unplug().unwrap();
        assert!((490..=500).contains(&charge_wh), "{charge_wh}");
        let into_wh = (charge_wh - 100) * 100 / EFFICIENCY_PERCENT;
        assert!(metered_mwh / 1_000 >= into_wh && metered_mwh / 1_000 <= into_wh + 10);
        let sense = socket.sense();
        assert_eq!((sense.register, sense.plugged), (Units(5 + metered_mwh / 1_000), false));
    }
}
