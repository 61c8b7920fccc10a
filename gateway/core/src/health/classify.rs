//! What an answer of the cloud means. Pure: the same reply about the same token is of the same class.

use proto::{link::Verdict, money::Money};

use crate::grounds::CloudWord;

/// What came back for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An authenticated answer to this very question.
    Answer {
        /// Yes or no.
        verdict: Verdict,
        /// Revision of the token's credential at the hub.
        credential_revision: u64,
        /// Most the session may cost; `None`: a canary, nothing will be drawn.
        money_max: Option<Money>,
    },
    /// An authenticated answer to another question: it names another session or token.
    Elsewhere,
    /// An error that anybody may have said. As in HTTP; an adapter translates the codes of its cloud.
    Trouble {
        /// The code.
        code: u16,
    },
    /// Something that cannot be read: a parse error, a page of HTML, a redirect.
    Unreadable,
    /// Nothing in time.
    Silence,
}

/// What is known here of the token that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether there is a reason of our own to trust it: a valid list entry or an earlier accept, and no revocation.
    pub good: bool,
    /// The newest revision of its credential; 0: never seen.
    pub credential_revision: u64,
    /// The newest revision that a backed denial named; 0: none.
    pub denied_revision: u64,
}

/// What an answer is worth (semantics, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Authenticated, and yes.
    Accept,
    /// Authenticated, and no, with a newer credential than ours: authority, applied for good.
    DenyAttributable,
    /// Authenticated, and no, about a token that nothing here speaks for: followed, for this attempt.
    DenyUncontested,
    /// No, and nothing backs it: evidence about the cloud, not about the token.
    DenyUnattributable,
    /// No answer that says anything. Never written to any cache.
    Error,
    /// "Slow down": sets the pace, and nothing else.
    Throttled,
}

impl Class {
    /// How an authenticated answer of this class is called in the grounds of a decision.
    #[must_use]
    pub const fn word(self) -> CloudWord {
        match self {
            Self::Accept => CloudWord::Accept,
            Self::DenyAttributable => CloudWord::DenyNewer,
            Self::DenyUncontested => CloudWord::DenyUnopposed,
            Self::DenyUnattributable => CloudWord::DenyUnbacked,
            Self::Error | Self::Throttled => CloudWord::Other,
        }
    }
}

/// "Slow down".
const CODE_THROTTLED: u16 = 429;

/// The class of a reply about a token.
#[must_use]
pub const fn classify(reply: &Reply, known: &Known) -> Class {
    match reply {
        Reply::Answer {
            verdict,
            credential_revision,
            money_max,
        } => match verdict {
            // A backed denial is sticky: an accept of an older credential does not lift it.
            Verdict::Accept if *credential_revision < known.denied_revision => Class::Error,
            Verdict::Accept => match money_max {
                // A balance of zero is a negative like any other: the signed list speaks for the token, with money.
                Some(money) if known.good && money.0 <= 0 => Class::DenyUnattributable,
                Some(_) | None => Class::Accept,
            },
            Verdict::Deny if *credential_revision > known.credential_revision => Class::DenyAttributable,
            Verdict::Deny if known.good => Class::DenyUnattributable,
            Verdict::Deny => Class::DenyUncontested,
            Verdict::Other => Class::Error,
        },
        Reply::Trouble { code } => match *code {
            // Unauthorized, overdue, forbidden, not found, gone: the texts of 2023-11-12, and of a key that really is bad.
            401..=404 | 410 => Class::DenyUnattributable,
            CODE_THROTTLED => Class::Throttled,
            _ => Class::Error,
        },
        Reply::Elsewhere | Reply::Unreadable | Reply::Silence => Class::Error,
    }
}
