//! The alphabet of the evidence: what was seen of which capability, and how much it weighs.

use serde::{Deserialize, Serialize};

/// A thing the cloud does for the gateway. Each has its own mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Capability {
    /// Says who may draw.
    Authorize,
    /// Takes ledger records and gives receipts.
    Commit,
    /// Sends artifacts and commands.
    Control,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Authorize, Self::Commit, Self::Control];

    /// The word in logs and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Commit => "commit",
            Self::Control => "control",
        }
    }
}

impl From<Capability> for u8 {
    fn from(capability: Capability) -> Self {
        match capability {
            Capability::Authorize => 0,
            Capability::Commit => 1,
            Capability::Control => 2,
        }
    }
}

/// A number of a newer version reads as control: the capability on which no verdict depends.
impl From<u8> for Capability {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Authorize,
            1 => Self::Commit,
            _ => Self::Control,
        }
    }
}

/// How a signal moves the mode of its capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It works. `proves`: the answer to a probe of ours, so it counts towards leaving LOCAL.
    Good {
        /// Whether it counts.
        proves: bool,
    },
    /// It failed once.
    Failure,
    /// It is not to be believed: LOCAL at once.
    Fatal,
    /// It says nothing about the mode by itself.
    Neutral,
}

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $capability:ident, $weight:expr, $probe:literal, $words:literal;)+) => {
        /// What was seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "u8", into = "u8")]
        pub enum Signal {
            /// A signal of a newer version; it weighs nothing.
            Other,
            $($(#[$doc])* $name,)+
        }

        impl Signal {
            /// Every signal of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Of which capability.
            #[must_use]
            pub const fn capability(self) -> Capability {
                match self {
                    Self::Other => Capability::Control,
                    $(Self::$name => Capability::$capability,)+
                }
            }

            /// How it moves the mode.
            #[must_use]
            pub const fn weight(self) -> Weight {
                match self {
                    Self::Other => Weight::Neutral,
                    $(Self::$name => $weight,)+
                }
            }

            /// Whether it ends a probe of ours.
            #[must_use]
            pub const fn ends_probe(self) -> bool {
                match self {
                    Self::Other => false,
                    $(Self::$name => $probe,)+
                }
            }

            /// In plain words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    Self::Other => "something that a newer version saw",
                    $(Self::$name => $words,)+
                }
            }
        }

        impl From<Signal> for u8 {
            fn from(signal: Signal) -> Self {
                match signal {
                    Signal::Other => 0,
                    $(Signal::$name => $code,)+
                }
            }
        }

        impl From<u8> for Signal {
            fn from(code: u8) -> Self {
                match code {
                    $($code => Self::$name,)+
                    _ => Self::Other,
                }
            }
        }
    };
}

const GOOD: Weight = Weight::Good { proves: false };
const PROOF: Weight = Weight::Good { proves: true };

signals! {
    /// A token for which the signed list vouches was accepted.
    Accepted = 1, Authorize, GOOD, false, "a listed token was accepted";
    /// Any other credible answer to a user's question.
    Answered = 2, Authorize, GOOD, false, "a question was answered";
    /// No answer in time.
    NoAnswer = 3, Authorize, Weight::Failure, false, "a question was not answered in time";
    /// An error instead of an answer.
    Failed = 4, Authorize, Weight::Failure, false, "a question was answered with an error";
    /// A denial that nothing backs, of a token for which the list vouches and that was in use here. Many are fatal.
    Denied = 5, Authorize, Weight::Neutral, false, "a listed token was denied";
    /// As well, of one that was not in use here.
    DeniedIdle = 6, Authorize, Weight::Neutral, false, "a listed token not lately in use was denied";
    /// The known-good canary was accepted, the known-bad one denied.
    CanariesRight = 7, Authorize, PROOF, true, "both canaries were answered right";
    /// A canary was answered wrongly.
    CanariesWrong = 8, Authorize, Weight::Fatal, true, "a canary was answered wrongly";
    /// A canary was not answered, or with an error.
    CanariesSilent = 9, Authorize, Weight::Fatal, true, "a canary was not answered";
    /// A canary was told to slow down.
    CanariesThrottled = 10, Authorize, Weight::Neutral, true, "a canary was told to slow down";
    /// The operator's backend returned our echo.
    Echoed = 11, Commit, PROOF, true, "the operator's backend returned an echo";
    /// It did, but records wait for their receipt for too long.
    EchoedOnly = 12, Commit, Weight::Neutral, true, "the operator's backend returned an echo, but gives no receipts";
    /// It did not.
    EchoMissed = 13, Commit, Weight::Failure, true, "an echo was not returned";
    /// Records were acknowledged.
    Receipted = 14, Commit, GOOD, false, "records were acknowledged";
    /// Records wait for their receipt for too long.
    ReceiptOverdue = 15, Commit, Weight::Failure, false, "records wait too long for their receipt";
    /// The hub answered our hello.
    Welcomed = 16, Control, PROOF, true, "the hub answered a hello";
    /// It did not.
    HelloUnanswered = 17, Control, Weight::Failure, true, "a hello was not answered";
    /// A genuine artifact came.
    Artifact = 18, Control, GOOD, false, "a genuine artifact came";
    /// A genuine artifact that looks wrong came, and was set aside.
    Implausible = 19, Control, Weight::Failure, false, "an artifact was set aside";
    /// Something in between reported an error about no question in particular.
    Refused = 20, Control, Weight::Failure, false, "an error was reported about no question in particular";
}
