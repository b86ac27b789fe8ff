//! Quality of Service.

/// How hard sender and receiver try to deliver an Application Message (section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// Fire and forget.
    #[default]
    AtMostOnce = 0,
    /// Acknowledged by PUBACK; may arrive twice.
    AtLeastOnce = 1,
    /// Settled by PUBREC, PUBREL and PUBCOMP; arrives once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level that the two bits stand for; `None` for 3 [MQTT-3.3.1-4] and anything above.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
