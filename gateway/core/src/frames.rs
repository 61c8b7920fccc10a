//! What devices say and are told, to and from the bodies of frames. Seals and counters belong to the shell.

use alloc::{boxed::Box, vec::Vec};

use proto::{
    codec::{self, CodecError},
    id::{DeviceId, TokenKey},
    message::{Authorize, Redeemed},
    seal::SealKey,
    topic::{self, Down, Topic, Up},
};

use crate::{Presented, Said, Told};

impl Said {
    /// What the body of a frame says. Of a token only the hash goes on from here.
    ///
    /// # Errors
    /// [`CodecError`]: the body is not what its topic announces.
    pub fn decode(word: Up, body: &[u8], token_key: &TokenKey) -> Result<Self, CodecError> {
        Ok(match word {
            Up::Hello => Self::Hello(codec::decode(body)?),
            Up::Authorize => {
                let Authorize {
                    session,
                    outlet,
                    token,
                    units_wished,
                    register,
                    at: _,
                    instrument,
                } = codec::decode(body)?;
                let (token, presented) = Presented::of(token, &instrument);
                Self::Authorize {
                    session,
                    outlet,
                    token: token.hash(token_key),
                    units_wished,
                    register,
                    presented,
                }
            }
            Up::Redeemed => {
                let redeemed: Redeemed = codec::decode(body)?;
                let (token, presented) = Presented::of(redeemed.token.clone(), &redeemed.instrument);
                Self::Redeemed {
                    redeemed: Box::new(redeemed),
                    token: token.hash(token_key),
                    presented,
                }
            }
            Up::Started => Self::Started(codec::decode(body)?),
            Up::Meter => Self::Meter(codec::decode(body)?),
            Up::Stop => Self::Stop(codec::decode(body)?),
            Up::Status => Self::Status(codec::decode(body)?),
            Up::CommandAnswer => Self::CommandAnswer(codec::decode(body)?),
            // No matter of money: the shell keeps firmware to itself.
            Up::Update => {
                return Err(CodecError::Malformed {
                    what: "firmware is not decided here",
                    at: 0,
                });
            }
        })
    }
}

impl Told {
    /// Topic and sealed frame. `counter`: above every one that was used with this key.
    #[must_use]
    pub fn seal(&self, device: &DeviceId, key: &SealKey, counter: u64) -> (Topic, Vec<u8>) {
        let word = match self {
            Self::Clock(_) => Down::Clock,
            Self::Grant(_) => Down::Grant,
            Self::Refusal(_) => Down::Refusal,
            Self::Receipt(_) => Down::Receipt,
            Self::Command(_) => Down::Command,
        };
        let topic = topic::down(device, word);
        let frame = match self {
            Self::Clock(message) => key.seal_vec(&topic, counter, message),
            Self::Grant(message) => key.seal_vec(&topic, counter, message),
            Self::Refusal(message) => key.seal_vec(&topic, counter, message),
            Self::Receipt(message) => key.seal_vec(&topic, counter, message),
            Self::Command(message) => key.seal_vec(&topic, counter, message),
        };
        (topic, frame)
    }
}
