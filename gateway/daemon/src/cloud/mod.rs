//! The cloud side: one link, one adapter a cloud. HCP, our own protocol, is the first.

pub mod fence;
pub mod hcp;
pub mod lane;
pub mod link;
pub mod reconnect;
mod reports;

use proto::link::{Ask, Echo};

/// Something for the link.
#[derive(Debug)]
pub enum LinkJob {
    /// Ask the hub; whoever waits has his own deadline.
    Ask(Ask),
    /// A list came as changes that do not fit ours: say hello again and claim to have none.
    FetchList,
    /// Ask the operator's backend for an echo.
    Echo(Echo),
    /// Say hello again on the link that stands.
    Hello,
}
