//! Events about what the cloud is worth: denials that nothing backs, canaries, echoes, hellos, and who was served lately.

use alloc::vec::Vec;

use proto::id::{SessionId, TokenHash};
use serde::{Deserialize, Serialize};

use crate::{grounds::CloudWord, time::Instant};

payload! {
    /// The cloud denied a token and nothing backs it: the user waits for the canaries.
    Contested {
        /// Which session.
        session: SessionId,
        /// Until when.
        until: Instant,
        /// What the cloud said.
        #[serde(default)]
        cloud: CloudWord,
        /// The code, if it was an error.
        #[serde(default)]
        code: u16,
    }
    /// One of the canaries was answered right; the other one is awaited.
    CanaryRight {
        /// Number of the question.
        ask: u64,
    }
    /// The operator's backend is asked for an echo.
    EchoAsked {
        /// What it must return.
        nonce: u64,
        /// Until when.
        until: Instant,
    }
    /// The hub is asked where it stands.
    HelloAsked {
        /// Until when an answer counts.
        until: Instant,
    }
    /// When tokens were last granted, as a snapshot keeps it; part by part.
    KeptActivity {
        /// Token and time.
        rows: Vec<(TokenHash, Instant)>,
    }
}
