//! Identifiers that are never zero on the wire.

use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

use crate::var_int;

/// A Packet Identifier: pairs a PUBLISH above QoS 0, a SUBSCRIBE or an UNSUBSCRIBE with its acknowledgements
/// [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

/// A Topic Alias: stands in for a Topic Name on one Network Connection, in one direction [MQTT-3.3.2-8].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicAlias(NonZeroU16);

/// A Subscription Identifier, 1 to 268,435,455 (section 3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

macro_rules! identifier {
    ($name:ident, $integer:ty, $non_zero:ty, $maximum:expr) => {
        impl $name {
            /// The largest identifier.
            pub const MAX: $integer = $maximum;

            /// The identifier with this value; `None` for zero and for values above `MAX`.
            #[inline]
            #[must_use]
            pub const fn new(value: $integer) -> Option<Self> {
                if value > Self::MAX {
                    return None;
                }
                match <$non_zero>::new(value) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The value as it stands on the wire.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $integer {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

identifier!(PacketId, u16, NonZeroU16, u16::MAX);
identifier!(TopicAlias, u16, NonZeroU16, u16::MAX);
identifier!(SubscriptionId, u32, NonZeroU32, var_int::MAX);
