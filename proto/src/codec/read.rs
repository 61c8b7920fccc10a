//! Reading CBOR (RFC 8949) into whatever serde asks for.
//!
//! serde_cbor reads every value with one function that knows all forms, and the compiler makes a copy of it for each
//! type: 190 KiB on a microcontroller. This reader looks at the form that the type asks for, and takes a tenth of it.
//! `tests/proof/twins.rs` holds the two against each other.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

/// Containers and tags inside each other.
const LEVELS_MAX: u8 = 127;

/// What went wrong; where, the reader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the input ends early")]
    Early,
    #[error("bad CBOR")]
    Bad,
    #[error("a field has the wrong form or is missing")]
    Field,
    #[error("an indefinite-length string")]
    Indefinite,
}

/// Nothing of what serde would say is kept, so that no text of it is in the firmware.
impl de::Error for Fault {
    fn custom<T: core::fmt::Display>(_: T) -> Self {
        Self::Field
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::Field
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::Field
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Self::Field
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::Field
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Field
    }

    fn missing_field(_: &'static str) -> Self {
        Self::Field
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::Field
    }
}

/// The first byte of an item and its argument, without what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Unsigned(u64),
    /// -1 - n
    Negative(u64),
    Bytes(u64),
    Text(u64),
    /// `None`: of indefinite length.
    Array(Option<u64>),
    Map(Option<u64>),
    Bool(bool),
    Null,
    Float,
    /// The end of something of indefinite length.
    Break,
}

/// Reads one body.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    levels: u8,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            levels: 0,
        }
    }

    /// How far it got, in bytes.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            self.at += 1;
            Err(Fault::Bad)
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            self.at = self.bytes.len();
            return Err(Fault::Early);
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Reads a head; tags are passed over.
    fn head(&mut self) -> Result<Head, Fault> {
        let mut tags = 0;
        loop {
            let first = self.take(1)?[0];
            let (major, info) = (first >> 5, first & 0x1f);
            let argument = match info {
                0..=23 => Some(u64::from(info)),
                // Simple values above 31, of which none has a meaning.
                24 if major == 7 => return Err(Fault::Bad),
                24..=27 => {
                    let bytes = self.take(1 << (info - 24))?;
                    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
                }
                31 => None,
                _ => return Err(Fault::Bad),
            };
            return Ok(match (major, argument) {
                (0, Some(number)) => Head::Unsigned(number),
                (1, Some(number)) => Head::Negative(number),
                (2, Some(length)) => Head::Bytes(length),
                (3, Some(length)) => Head::Text(length),
                (2 | 3, None) => return Err(Fault::Indefinite),
                (4, length) => Head::Array(length),
                (5, length) => Head::Map(length),
                (6, Some(_)) => {
                    tags += 1;
                    if self.levels + tags > LEVELS_MAX {
                        return Err(Fault::Bad);
                    }
                    continue;
                }
                (7, None) => Head::Break,
                (7, Some(20 | 21)) if info < 24 => Head::Bool(info == 21),
                (7, Some(22 | 23)) if info < 24 => Head::Null,
                (7, Some(_)) if info > 24 => Head::Float,
                _ => return Err(Fault::Bad),
            });
        }
    }

    fn text(&mut self, length: u64) -> Result<&'a str, Fault> {
        let from = self.at;
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes).map_err(|error| {
            self.at = from + error.valid_up_to();
            Fault::Bad
        })
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.levels += 1;
        if self.levels > LEVELS_MAX {
            Err(Fault::Bad)
        } else {
            Ok(())
        }
    }

    /// Passes over what follows a head. Containers are walked with a count for each level, none on the stack.
    fn skip(&mut self) -> Result<(), Fault> {
        // Items left at each level; `None`: until the break.
        let mut open: heapless::Vec<Option<u64>, { LEVELS_MAX as usize }> = heapless::Vec::new();
        loop {
            let mut deeper = None;
            match self.head()? {
                Head::Bytes(length) => {
                    self.take(length)?;
                }
                Head::Text(length) => {
                    self.text(length)?;
                }
                Head::Array(length) => deeper = Some(length),
                // An odd number of items in a map of indefinite length passes here; nobody wants what is in it.
                Head::Map(length) => deeper = Some(length.map(|pairs| pairs.saturating_mul(2))),
                Head::Break => match open.last() {
                    Some(None) => {
                        open.pop();
                    }
                    Some(Some(_)) | None => return Err(Fault::Bad),
                },
                Head::Unsigned(_) | Head::Negative(_) | Head::Bool(_) | Head::Null | Head::Float => {}
            }
            if let Some(items) = deeper {
                let full = usize::from(self.levels) + open.len() >= usize::from(LEVELS_MAX);
                if full || open.push(items).is_err() {
                    return Err(Fault::Bad);
                }
            }
            // What was read may have been the last of its level, and that level the last of the one above.
            loop {
                match open.last_mut() {
                    None => return Ok(()),
                    Some(None) => break,
                    Some(Some(0)) => {
                        open.pop();
                    }
                    Some(Some(items)) => {
                        *items -= 1;
                        break;
                    }
                }
            }
        }
    }

    /// The item is not what the type asks for; a string is passed over, so that the fault is behind it.
    fn unfit<T>(&mut self, head: Head) -> Result<T, Fault> {
        match head {
            Head::Bytes(length) => drop(self.take(length)?),
            Head::Text(length) => drop(self.text(length)?),
            Head::Break => return Err(Fault::Bad),
            _ => {}
        }
        Err(Fault::Field)
    }

    fn items<V: Visitor<'a>>(&mut self, left: Option<u64>, visitor: V) -> Result<V::Value, Fault> {
        self.enter()?;
        let mut items = Items { reader: self, left };
        let value = visitor.visit_seq(&mut items)?;
        items.close()?;
        self.levels -= 1;
        Ok(value)
    }

    fn pairs<V: Visitor<'a>>(&mut self, left: Option<u64>, visitor: V) -> Result<V::Value, Fault> {
        self.enter()?;
        let mut items = Items { reader: self, left };
        let value = visitor.visit_map(&mut items)?;
        items.close()?;
        self.levels -= 1;
        Ok(value)
    }
}

/// What is left of a container: items of an array, pairs of a map.
struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: Option<u64>,
}

impl Items<'_, '_> {
    /// Whether another one follows.
    fn step(&mut self) -> Result<bool, Fault> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.reader.peek() == Some(0xff) => {
                self.reader.at += 1;
                self.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The visitor must have taken everything.
    fn close(mut self) -> Result<(), Fault> {
        if self.step()? { Err(Fault::Field) } else { Ok(()) }
    }

    fn hint(&self) -> Option<usize> {
        let rest = self.reader.bytes.len() - self.reader.at;
        self.left.map(|left| usize::try_from(left).unwrap_or(rest).min(rest))
    }
}

impl<'a> de::SeqAccess<'a> for &mut Items<'_, 'a> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.step()? {
            seed.deserialize(&mut *self.reader).map(Some)
        } else {
            Ok(None)
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'a> de::MapAccess<'a> for &mut Items<'_, 'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if self.step()? {
            seed.deserialize(&mut *self.reader).map(Some)
        } else {
            Ok(None)
        }
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// A variant with content: a map of one pair.
struct Variant<'r, 'a>(&'r mut Reader<'a>);

impl<'a> de::EnumAccess<'a> for Variant<'_, 'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let value = seed.deserialize(Word(&mut *self.0))?;
        Ok((value, self))
    }
}

/// The word of a variant: its position, or its name.
struct Word<'r, 'a>(&'r mut Reader<'a>);

impl<'de> de::Deserializer<'de> for Word<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.head()? {
            Head::Unsigned(number) => visitor.visit_u64(number),
            Head::Text(length) => visitor.visit_borrowed_str(self.0.text(length)?),
            head => self.0.unfit(head),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'a> de::VariantAccess<'a> for Variant<'_, 'a> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        de::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_seq(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_map(self.0, visitor)
    }
}

/// Types that are one number.
macro_rules! numbers {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.head()? {
                Head::Unsigned(number) => visitor.visit_u64(number),
                Head::Negative(number) => match i64::try_from(number) {
                    Ok(number) => visitor.visit_i64(-1 - number),
                    Err(_) => Err(Fault::Field),
                },
                head => self.unfit(head),
            }
        })+
    };
}

/// Types that are read as another.
macro_rules! like {
    ($($method:ident($($argument:ty),*) = $other:ident;)+) => {
        $(fn $method<V: Visitor<'a>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value, Fault> {
            self.$other(visitor)
        })+
    };
}

impl<'a> de::Deserializer<'a> for &mut Reader<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Unsigned(number) => visitor.visit_u64(number),
            Head::Negative(number) => match i64::try_from(number) {
                Ok(number) => visitor.visit_i64(-1 - number),
                Err(_) => Err(Fault::Field),
            },
            Head::Bytes(length) => visitor.visit_borrowed_bytes(self.take(length)?),
            Head::Text(length) => visitor.visit_borrowed_str(self.text(length)?),
            Head::Array(length) => self.items(length, visitor),
            Head::Map(length) => self.pairs(length, visitor),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Null => visitor.visit_unit(),
            // No message of this protocol has a number with a point.
            Head::Float => Err(Fault::Field),
            Head::Break => Err(Fault::Bad),
        }
    }

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }

    like! {
        deserialize_string() = deserialize_str;
        deserialize_char() = deserialize_str;
        deserialize_byte_buf() = deserialize_bytes;
        deserialize_f32() = deserialize_any;
        deserialize_f64() = deserialize_any;
        deserialize_unit_struct(&'static str) = deserialize_unit;
        deserialize_tuple(usize) = deserialize_seq;
        deserialize_tuple_struct(&'static str, usize) = deserialize_seq;
        deserialize_struct(&'static str, &'static [&'static str]) = deserialize_map;
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Bool(value) => visitor.visit_bool(value),
            head => self.unfit(head),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Text(length) => visitor.visit_borrowed_str(self.text(length)?),
            head => self.unfit(head),
        }
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Bytes(length) => visitor.visit_borrowed_bytes(self.take(length)?),
            head => self.unfit(head),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(0xf6 | 0xf7) = self.peek() {
            self.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Null => visitor.visit_unit(),
            head => self.unfit(head),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Array(length) => self.items(length, visitor),
            head => self.unfit(head),
        }
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Map(length) => self.pairs(length, visitor),
            head => self.unfit(head),
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Unsigned(number) => {
                let number = u32::try_from(number).map_err(|_| Fault::Field)?;
                visitor.visit_enum(number.into_deserializer())
            }
            Head::Text(length) => visitor.visit_enum(self.text(length)?.into_deserializer()),
            Head::Map(Some(1)) => {
                self.enter()?;
                let value = visitor.visit_enum(Variant(self))?;
                self.levels -= 1;
                Ok(value)
            }
            head => self.unfit(head),
        }
    }

    /// Fields go by their positions; their names are not even in the firmware.
    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.head()? {
            Head::Unsigned(number) => visitor.visit_u64(number),
            head => self.unfit(head),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
