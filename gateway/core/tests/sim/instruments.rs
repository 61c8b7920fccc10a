//! Vouchers and keypad tokens in the world (one-time codes: `codes.rs`): who sells them, who believes them, and the people who present them, again and
//! elsewhere too.

use std::collections::BTreeMap;

use device::Input;
use gateway_core::Instruments;
use proto::{
    codec,
    id::{AccountId, DeviceId, IdToken, Name, OutletId, TokenKind},
    instrument::{AmountClass, KeypadToken, Scope, Voucher, keypad_number},
    message::Redeemed,
    money::Units,
    trust::Issuer,
};
use serde::Deserialize;

use crate::{
    auditor::Sold,
    codes::{self, Typed},
    shell::TOKEN_KEY,
    world::{DAY_MS, World},
};

const CURRENCY: u16 = 156;
const SITE: &str = "sim";

/// What somebody holds in his hand.
#[derive(Clone, Debug)]
pub(crate) enum Paper {
    /// The envelope of a voucher.
    Voucher(Vec<u8>),
    /// Twelve digits.
    Digits(IdToken),
    /// Twelve digits that nobody sold.
    Guess(IdToken),
    /// An account, and what is typed as its code.
    Code(AccountId, Typed),
}

/// Who sells instruments, and all that was sold.
pub(crate) struct Shop {
    issuer: Issuer,
    sold: Vec<Paper>,
    vouchers: u64,
    /// Tokens sold for each keypad.
    counters: BTreeMap<DeviceId, u32>,
    valid_s: (u64, u64),
}

impl Shop {
    pub(crate) fn new(begin_wall_s: u64) -> Self {
        Self {
            issuer: Issuer::from_seed(&[0x77; 32]),
            sold: Vec::new(),
            vouchers: 0,
            counters: BTreeMap::new(),
            valid_s: (begin_wall_s - 3 * DAY_MS / 1000, begin_wall_s + 365 * DAY_MS / 1000),
        }
    }

    pub(crate) fn is_guess(&self, sold: usize) -> bool {
        matches!(self.sold[sold], Paper::Guess(_) | Paper::Code(_, Typed::Guess))
    }

    pub(crate) fn believed_by_device(&self) -> device::Instruments {
        let mut issuers = heapless::Vec::new();
        issuers.push(self.issuer.key()).expect("room for one key");
        device::Instruments {
            site: Name::new(SITE).ok(),
            currency: CURRENCY,
            issuers,
            enrolments: codes::enrolments().collect(),
            keypad: true,
        }
    }

    pub(crate) fn believed_by_gateway(&self, devices: &[device::Config]) -> Instruments {
        Instruments {
            site: Name::new(SITE).ok(),
            currency: CURRENCY,
            issuers: vec![self.issuer.key()],
            keypads: devices
                .iter()
                .map(|config| (config.id, config.secret.keypad_key()))
                .collect(),
            enrolments: codes::enrolments().map(|each| (each.account, each)).collect(),
        }
    }
}

/// What a device has stored of a session that it granted by itself; `None`: an empty slot.
pub(crate) fn stored(bytes: &[u8]) -> Option<Redeemed> {
    #[derive(Deserialize)]
    struct Slot {
        #[allow(dead_code, reason = "it stands before what is wanted")]
        version: u8,
        redeemed: Option<Redeemed>,
    }
    let slot: Slot = codec::decode(bytes).expect("what a device stored can be read");
    slot.redeemed
}

impl World {
    /// What a visitor brings instead of his card: bought just now, bought long ago and perhaps used up, or made up.
    pub(crate) fn buy(&mut self, at: usize) -> Option<usize> {
        match self.random.below(100) {
            0..7 => self.sell_digits(at),
            7..14 => self.sell_voucher(at),
            14..20 if !self.shop.sold.is_empty() => {
                let recent = self.shop.sold.len().min(12) as u64;
                return Some(self.shop.sold.len() - 1 - self.random.below(recent) as usize);
            }
            20..22 => {
                let digits = format!("{:012}", self.random.below(1_000_000_000_000));
                let token = IdToken::new(TokenKind::Keypad, digits.as_bytes()).expect("12 digits");
                self.shop.sold.push(Paper::Guess(token));
            }
            22..28 => {
                let (account, typed) = self.think_of_code();
                self.shop.sold.push(Paper::Code(account, typed));
            }
            _ => return None,
        }
        Some(self.shop.sold.len() - 1)
    }

    fn sell_digits(&mut self, at: usize) {
        let config = &self.twins[at].config;
        let counter = self.shop.counters.entry(config.id).or_default();
        *counter += 1;
        let face = self.random.pick(&[
            AmountClass::AMOUNTS[1],
            AmountClass::AMOUNTS[5],
            AmountClass::AMOUNTS[8],
        ]);
        let class = AmountClass::of(face).expect("one of the amounts");
        let counter = *counter;
        let digits = config.secret.keypad_key().digits(KeypadToken { counter, class });
        let token = IdToken::new(TokenKind::Keypad, &digits).expect("12 digits");
        self.auditor.sold(Sold {
            number: keypad_number(&config.id, counter),
            token: token.hash(&TOKEN_KEY),
            face: face.0,
            device: Some(config.id),
            kind: config.kind,
            valid_s: (0, u64::MAX),
        });
        self.shop.sold.push(Paper::Digits(token));
    }

    fn sell_voucher(&mut self, at: usize) {
        let (id, kind) = (self.twins[at].config.id, self.twins[at].config.kind);
        let bound = self.random.chance(5_000);
        self.shop.vouchers += 1;
        let voucher = Voucher {
            number: self.shop.vouchers,
            scope: if bound { Scope::Device } else { Scope::Site },
            place: if bound {
                id
            } else {
                Name::new(SITE).expect("a short name")
            },
            kind,
            amount: AmountClass::AMOUNTS[self.random.below(9) as usize + 1],
            currency: CURRENCY,
            not_before_s: self.shop.valid_s.0,
            not_after_s: self.shop.valid_s.1,
        };
        self.auditor.sold(Sold {
            number: voucher.number,
            token: Voucher::id_token(voucher.number).hash(&TOKEN_KEY),
            face: voucher.amount.0,
            device: bound.then_some(id),
            kind,
            valid_s: self.shop.valid_s,
        });
        let envelope = voucher.sign(&self.shop.issuer).expect("a voucher is small");
        self.shop.sold.push(Paper::Voucher(envelope));
    }

    pub(crate) fn present_instrument(&mut self, at: usize, outlet: OutletId, sold: usize, units_wished: Units) {
        match self.shop.sold[sold].clone() {
            Paper::Digits(token) | Paper::Guess(token) => {
                let input = Input::Token {
                    outlet,
                    token,
                    units_wished,
                };
                self.drive(at, input);
            }
            Paper::Code(account, typed) => self.present_code(at, outlet, (account, typed), units_wished),
            Paper::Voucher(envelope) => {
                let input = Input::Voucher {
                    outlet,
                    envelope: &envelope,
                    units_wished,
                };
                self.drive(at, input);
            }
        }
    }
}
