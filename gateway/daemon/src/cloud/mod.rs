//! The cloud side: one link, one adapter a cloud. HCP, our own protocol, is the first.

pub mod hcp;
pub mod link;

use proto::link::Ask;

/// Something for the link.
#[derive(Debug)]
pub enum LinkJob {
    /// Ask the hub; whoever waits has his own deadline.
    Ask(Ask),
    /// A list came as changes that do not fit ours: say hello again and claim to have none.
    FetchList,
}
