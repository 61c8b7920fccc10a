//! What follows when clocks disagree.

use proto::{
    VERSION,
    message::{Clock, ClockQuality, Hello},
};

use super::Draft;
use crate::{
    Alarm, Told, Whose,
    event::{ClockChanged, Event},
    time::skew_s,
};

impl Draft<'_> {
    /// The wall clock was set, or is worth more or less than when it was last looked at: noted first, because what is
    /// decided now must not rest on the old one. Devices are told.
    pub(super) fn look_at_clock(&mut self) {
        let time = &self.gateway.time;
        let (skew_s, quality) = (time.step_s(self.now), self.now.quality);
        if time.boot == 0 || (skew_s == 0 && quality == time.quality) {
            return;
        }
        self.is_clock_set = skew_s != 0;
        self.event(Event::ClockChanged(ClockChanged { skew_s, quality }));
        self.skewed(Whose::Gateway, skew_s);
        for (id, device) in self.gateway.devices.iter().filter(|(_, device)| device.boot > 0) {
            let clock = self.clock(device.boot);
            self.send(id, Told::Clock(clock));
        }
    }

    /// The gateway starts: a clock that is behind what it once said lost its battery.
    pub(super) fn look_at_first_clock(&mut self) {
        self.skewed(Whose::Gateway, self.gateway.time.behind_s(self.now));
    }

    /// What a device is told of the time.
    pub(super) fn clock(&self, boot: u32) -> Clock {
        Clock {
            version: VERSION,
            boot,
            wall_s: self.now.wall().unwrap_or(0),
            quality: self.now.quality,
            offset_min: self.gateway.config.offset_min,
        }
    }

    /// A device says what time it has; it is told ours in any case.
    pub(super) fn compare_device(&mut self, device: &proto::id::DeviceId, hello: &Hello) {
        let its_s = match hello.at.quality {
            ClockQuality::Informative | ClockQuality::Synchronised => hello.at.wall_s,
            ClockQuality::Unknown | ClockQuality::Relative => return,
        };
        if let Some(ours_s) = self.now.wall() {
            self.skewed(Whose::Device(*device), skew_s(ours_s, its_s));
        }
    }

    /// The hub says what time it has; 0: it does not say.
    pub(super) fn compare_hub(&mut self, its_s: u64) {
        if let Some(ours_s) = self.now.wall().filter(|_| its_s > 0) {
            self.skewed(Whose::Hub, skew_s(ours_s, its_s));
        }
    }

    fn skewed(&mut self, whose: Whose, skew_s: i64) {
        if skew_s != 0 {
            self.alarm(Alarm::Clock { whose, skew_s });
        }
    }
}
