//! A Subscription's options in one byte, as SUBSCRIBE carries them (section 3.8.3.1).

use sol_codec::mutants::mutant;
use sol_codec::{QoS, RetainHandling, SubscriptionOptions};

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

/// Subscription Options, packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options(pub(crate) u8);

impl Options {
    pub(crate) fn new(options: SubscriptionOptions, granted: QoS) -> Self {
        let retain_handling = match options.retain_handling {
            RetainHandling::SendAtSubscribe => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        Self(
            granted as u8
                | if options.no_local { NO_LOCAL } else { 0 }
                | if options.retain_as_published {
                    RETAIN_AS_PUBLISHED
                } else {
                    0
                }
                | retain_handling << 4,
        )
    }

    /// The granted maximum QoS.
    pub(crate) const fn qos(self) -> QoS {
        match self.0 & 0x03 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    pub(crate) const fn no_local(self) -> bool {
        self.0 & NO_LOCAL != 0
    }

    pub(crate) const fn retain_as_published(self) -> bool {
        self.0 & RETAIN_AS_PUBLISHED != 0
    }

    /// The options of one delivery that two overlapping Subscriptions caused: the higher QoS [MQTT-3.3.4-2], and RETAIN
    /// as published if either asked for it.
    pub(crate) fn merged(self, other: Self) -> Self {
        let qos = if (self.0 & 0x03 > other.0 & 0x03) != mutant("5.0/3.3.4-2") {
            self.0 & 0x03
        } else {
            other.0 & 0x03
        };
        Self(qos | (self.0 | other.0) & RETAIN_AS_PUBLISHED)
    }
}
