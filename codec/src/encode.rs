//! Writing packets: every packet describes its bytes once, to a [`Sink`] that either counts or keeps them, so that
//! the length in front and the bytes behind cannot disagree.

use bytes::BufMut;

use crate::property::PropertyId;
use crate::{ProtocolVersion, var_int};

/// The bytes of a packet behind its Remaining Length.
pub(crate) trait Body {
    /// Packet type and flags.
    fn first_byte(&self) -> u8;

    /// Writes Variable Header and Payload.
    fn write(&self, version: ProtocolVersion, out: &mut impl Sink);

    #[inline]
    fn remaining_length(&self, version: ProtocolVersion) -> usize {
        let mut counter = Counter(0);
        self.write(version, &mut counter);
        counter.0
    }
}

#[inline]
pub(crate) fn encoded_len(packet: &impl Body, version: ProtocolVersion) -> usize {
    let remaining = packet.remaining_length(version);
    var_int::len_with(remaining).saturating_add(1)
}

#[inline]
pub(crate) fn encode(packet: &impl Body, version: ProtocolVersion, out: &mut impl BufMut) {
    let mut out = Buffer(out);
    out.put_u8(packet.first_byte());
    out.put_var_int(packet.remaining_length(version));
    packet.write(version, &mut out);
}

/// Gives a packet its public methods, so that nobody has to import a trait.
macro_rules! encodable {
    ($($packet:ty),+) => {$(
        impl $packet {
            /// How many bytes [`encode`](Self::encode) appends: the packet's size as Maximum Packet Size counts it.
            #[inline]
            #[must_use]
            pub fn encoded_len(&self, version: $crate::ProtocolVersion) -> usize {
                $crate::encode::encoded_len(self, version)
            }

            /// Appends the packet in the form of `version`; what that version cannot say is left out.
            ///
            /// Strings and binary data above 65,535 bytes are cut there, at a character's end.
            ///
            /// # Panics
            /// If the packet would be longer than the 268,435,455 bytes that a Fixed Header can announce, or `out` is
            /// a slice that is too short.
            #[inline]
            pub fn encode(&self, version: $crate::ProtocolVersion, out: &mut impl bytes::BufMut) {
                $crate::encode::encode(self, version, out);
            }
        }
    )+};
}
pub(crate) use encodable;

/// Where bytes go.
pub(crate) trait Sink {
    fn put_slice(&mut self, bytes: &[u8]);

    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_var_int(&mut self, value: usize) {
        assert!(
            value <= var_int::MAX as usize,
            "a packet is longer than its Fixed Header can say"
        );
        let mut rest = value;
        while rest > 0x7f {
            self.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }

    #[inline]
    fn put_str(&mut self, text: &str) {
        let end = if text.len() > usize::from(u16::MAX) {
            text.floor_char_boundary(usize::from(u16::MAX))
        } else {
            text.len()
        };
        self.put_binary(text.as_bytes().split_at(end).0);
    }

    #[inline]
    fn put_binary(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(len);
        self.put_slice(bytes.split_at(usize::from(len)).0);
    }

    /// A Property section: its length, then its Properties.
    #[inline]
    fn put_section(&mut self, section: &impl Section)
    where
        Self: Sized,
    {
        let len = section.len();
        self.put_var_int(len);
        if len > 0 {
            section.write(self);
        }
    }

    #[inline]
    fn put_bool_property(&mut self, id: PropertyId, value: Option<bool>) {
        if let Some(value) = value {
            self.put_slice(&[id.value(), u8::from(value)]);
        }
    }

    #[inline]
    fn put_u16_property(&mut self, id: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.put_u8(id.value());
            self.put_u16(value);
        }
    }

    #[inline]
    fn put_u32_property(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.put_u8(id.value());
            self.put_u32(value);
        }
    }

    #[inline]
    fn put_str_property(&mut self, id: PropertyId, value: Option<&str>) {
        if let Some(value) = value {
            self.put_u8(id.value());
            self.put_str(value);
        }
    }

    #[inline]
    fn put_binary_property(&mut self, id: PropertyId, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.put_u8(id.value());
            self.put_binary(value);
        }
    }
}

/// The Properties of one packet.
pub(crate) trait Section {
    fn write(&self, out: &mut impl Sink);

    #[inline]
    fn len(&self) -> usize {
        let mut counter = Counter(0);
        self.write(&mut counter);
        counter.0
    }
}

/// Counts bytes instead of keeping them.
#[derive(Debug)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    #[inline]
    fn put_section(&mut self, section: &impl Section) {
        self.0 = self.0.saturating_add(var_int::len_with(section.len()));
    }
}

/// Keeps bytes in a buffer of the caller's.
#[derive(Debug)]
pub(crate) struct Buffer<'b, B>(pub(crate) &'b mut B);

impl<B: BufMut> Sink for Buffer<'_, B> {
    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }
}
