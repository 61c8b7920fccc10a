//! The words in which a device logs what it shows: those of the firmware's boards, which a twin speaks as well, so that a
//! scenario waits for the same line on every rig.

use device::Screen;
use proto::message::{Fault, RefusalReason, StopReason};

// Behind a space, because "unlinked" ends in "linked".
/// The gateway answered the hello.
pub const LINKED: &str = " linked";
/// The connection is gone.
pub const UNLINKED: &str = " unlinked";
/// Granted.
pub const GRANTED: &str = "granted: ";
/// Refused, whatever the reason.
pub const REFUSED: &str = "refused, reason";
/// Over, whatever the reason.
pub const ENDED: &str = "ended, reason";
/// The receipt is there.
pub const RECEIPT: &str = "receipt: ";
/// Out of order, whatever the reason.
pub const FAULT: &str = "fault ";
/// Ready for the next.
pub const FREE: &str = " free";
/// Deciding, after a power cut, whether a session goes on.
pub const RECOVERING: &str = "recovering";

/// Refused for this reason.
#[must_use]
pub fn refused(reason: RefusalReason) -> String {
    format!("{REFUSED} {}", reason.code())
}

/// Over for this reason.
#[must_use]
pub fn ended(reason: StopReason) -> String {
    format!("{ENDED} {}: ", reason.code())
}

/// Out of order for this reason.
#[must_use]
pub fn fault(fault: Fault) -> String {
    format!("{FAULT}{}", fault.code())
}

/// The line for a screen; `None`: it is not logged.
#[must_use]
pub fn line(screen: &Screen) -> Option<String> {
    Some(match screen {
        Screen::Refused { reason, .. } => refused(*reason),
        Screen::Begin { units_max, money_max } => {
            format!("{GRANTED}{} units, {} minor units", units_max.0, money_max.0)
        }
        Screen::Ended { reason, units, money } => {
            format!("{}{} units, {} minor units", ended(*reason), units.0, money.0)
        }
        Screen::Receipt { amount } => format!("{RECEIPT}{} minor units", amount.0),
        Screen::Faulted(found) => fault(*found),
        Screen::Free => FREE.trim_start().to_owned(),
        Screen::Recovering => RECOVERING.to_owned(),
        Screen::Unavailable => "unavailable".to_owned(),
        Screen::Asking | Screen::Delivering { .. } => return None,
    })
}
