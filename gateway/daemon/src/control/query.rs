//! What the running daemon may be asked.

use std::path::PathBuf;

use gateway_core::{report::Span, ring::Staged, why::Wanted};
use proto::{id::DeviceId, trust::ArtifactKind};
use serde::{Deserialize, Serialize};

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "get", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// How the gateway is.
    Status,
    /// Open and recent sessions.
    Sessions,
    /// Why a session was granted or refused.
    Why {
        /// Which.
        wanted: Wanted,
        /// Offset of local time from UTC, in minutes.
        offset_min: i16,
    },
    /// What an outage did.
    Report {
        /// Of what.
        span: Span,
        /// Offset of local time from UTC, in minutes.
        offset_min: i16,
    },
    /// The lists: active, before, set aside.
    Lists,
    /// What would change if that which is set aside were adopted.
    Diff {
        /// Lists, prices or limits.
        what: Gated,
    },
    /// Adopt what is set aside.
    Adopt {
        /// Lists, prices or limits.
        what: Gated,
        /// Its revision; 0: whichever it is.
        revision: u64,
    },
    /// Go back to the one before.
    RollBack {
        /// Lists or limits; of prices none is kept.
        #[serde(default)]
        what: Gated,
    },
    /// Take in a file of signed artifacts.
    Import {
        /// How it is called.
        name: PathBuf,
        /// How many bytes of it follow the question.
        length: u64,
    },
    /// What the page shows.
    Page,
    /// Every device, with its firmware and how its update stands.
    Devices,
    /// Every record of the journal: not one line, but as `stream` says.
    Journal,
    /// Records without a receipt, and those of which the hub said more than that it has them.
    Outbox {
        /// Most records in the answer, at most [`crate::outbox::OUTBOX_ROWS_MAX`].
        rows_max: usize,
    },
    /// Hold what is adopted by rings where it is, or let it go on.
    Hold {
        /// What is meant.
        what: Gated,
        /// Or let it go on.
        held: bool,
    },
    /// Read the configuration again.
    Reload {
        /// Only say what would change.
        check: bool,
        /// What the secrets file says, from somebody who may read it; otherwise the gateway reads its own.
        #[serde(default)]
        secrets: Option<String>,
    },
    /// Block a device, or let it in again. Lasts until the next start; the configuration says what is then.
    Block {
        /// Which.
        device: DeviceId,
        /// Or let it in.
        blocked: bool,
    },
    /// Update the firmware of a device.
    Update {
        /// Which.
        device: DeviceId,
        /// How the signed image is called.
        name: PathBuf,
        /// How many bytes of it follow the question.
        length: u64,
    },
}

impl Query {
    /// Whether the journal has to be read, or files to be checked, which takes as long as it takes.
    #[must_use]
    pub const fn is_search(&self) -> bool {
        matches!(
            self,
            Self::Why { .. }
                | Self::Report { .. }
                | Self::Import { .. }
                | Self::Update { .. }
                | Self::Reload { .. }
                | Self::Journal
        )
    }
}

/// What the gate may set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Gated {
    /// The list of id tokens.
    #[default]
    List,
    /// The prices.
    Tariffs,
    /// The signed limits.
    Policy,
    /// The limits of the configuration.
    Config,
}

impl Gated {
    /// As it is signed; `None`: it is not.
    #[must_use]
    pub const fn kind(self) -> Option<ArtifactKind> {
        match self {
            Self::List => Some(ArtifactKind::List),
            Self::Tariffs => Some(ArtifactKind::Tariffs),
            Self::Policy => Some(ArtifactKind::Policy),
            Self::Config => None,
        }
    }

    /// As it is adopted by rings.
    #[must_use]
    pub const fn staged(self) -> Staged {
        match self {
            Self::List => Staged::List,
            Self::Tariffs => Staged::Tariffs,
            Self::Policy => Staged::Policy,
            Self::Config => Staged::Limits,
        }
    }
}
