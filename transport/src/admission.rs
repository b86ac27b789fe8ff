//! Who is accepted: so many connections a second, and so many of one address at a time, whichever shard accepts them.
//!
//! Both are looked at when a connection comes and when it goes, never for a message. A connection above the rate waits in
//! the system's queue, where it costs nothing; one of an address that has its number is closed before it has said anything.

use core::num::NonZeroU32;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use sol_engine::{Instant, ListenerId};

use crate::observer::Source;
use crate::peer::PeerAddr;
use crate::rates::Rates;
use crate::tables::Tables;

const SECOND: u64 = 1_000_000_000;
/// What may be accepted at once after a silence: what a listener that looks ten times a second needs to keep to its rate.
const BURST: u64 = SECOND / 5;

/// What is limited before a connection is let in, and how fast its client may send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all listeners together.
    pub all: Admission,
    /// Of each listener; one beyond the end has no limits.
    pub listeners: Vec<ListenerLimits>,
}

impl Limits {
    /// Of one listener.
    pub(crate) fn of(&self, listener: ListenerId) -> ListenerLimits {
        self.listeners.get(usize::from(listener.0)).copied().unwrap_or_default()
    }

    /// How fast clients may send, by listener.
    pub(crate) fn rates(&self) -> impl Iterator<Item = Rates> + '_ {
        self.listeners.iter().map(|limits| limits.rates)
    }
}

/// The limits of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// How fast each of its clients may send.
    pub rates: Rates,
    /// Who is accepted at it.
    pub admission: Admission,
    /// Where its connections are counted, if not at itself: at the first of those that share a limit.
    pub counted_at: Option<ListenerId>,
}

/// How many connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Connections a second.
    pub accepted_per_second: Option<NonZeroU32>,
    /// Connections of one address at a time, those included that are not let in yet; a /64 of IPv6 is one address. Whether
    /// there is such a limit must not change while the shards run. Peers on a Unix socket have no address.
    pub per_address_max: Option<NonZeroU32>,
}

/// A network: a whole IPv4 address, or a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network([u8; 16]);

impl Network {
    fn of(peer: PeerAddr) -> Option<Self> {
        let ip = match peer.client()?.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64),
        };
        Some(Self(ip.octets()))
    }
}

/// Where something is counted: at one listener, or for all.
type Scope = Option<ListenerId>;

/// What all shards know together of who was accepted.
#[derive(Debug)]
pub(crate) struct Doors {
    /// When all that was accepted would have been due, had it come evenly, in nanoseconds: for all, then by listener.
    due: Box<[AtomicU64]>,
    /// Connections.
    addresses: Tables<(Scope, Network), u32>,
}

impl Default for Doors {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Doors {
    /// For so many listeners.
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            due: (0..=listeners).map(|_| AtomicU64::new(0)).collect(),
            addresses: Tables::default(),
        }
    }

    /// Whether one more connection may be accepted now.
    pub(crate) fn may_accept(&self, limits: &Limits, listener: ListenerId, now: Instant) -> bool {
        scopes(limits, listener).into_iter().all(|(scope, admission)| {
            let is_due = |due: &AtomicU64| due.load(Ordering::Relaxed) <= now.as_nanos();
            admission.accepted_per_second.is_none() || self.due(scope).is_none_or(is_due)
        })
    }

    /// A connection was accepted. Two shards may do so at the same time where one was to: the next waits for it.
    pub(crate) fn accepted(&self, limits: &Limits, listener: ListenerId, now: Instant) {
        for (scope, admission) in scopes(limits, listener) {
            let (Some(rate), Some(due)) = (admission.accepted_per_second, self.due(scope)) else {
                continue;
            };
            let part = SECOND / u64::from(rate.get());
            let next = |due: u64| Some(due.max(now.as_nanos().saturating_sub(BURST)).saturating_add(part));
            // Never fails: there is always a next.
            let _ = due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
    }

    fn due(&self, scope: Scope) -> Option<&AtomicU64> {
        let at = scope.map_or(0, |listener| usize::from(listener.0) + 1);
        self.due.get(at)
    }

    /// Counts a connection of an address, unless that has its number already.
    pub(crate) fn enter(&self, limits: &Limits, source: Source) -> bool {
        let Some(network) = Network::of(source.peer) else {
            return true;
        };
        let scopes = scopes(limits, source.listener);
        for (at, (scope, admission)) in scopes.into_iter().enumerate() {
            let Some(max) = admission.per_address_max else { continue };
            let enters = self.addresses.change((scope, network), |count| {
                let enters = *count < max.get();
                *count += u32::from(enters);
                enters
            });
            if !enters {
                self.take_out(scopes.into_iter().take(at), network);
                return false;
            }
        }
        true
    }

    /// A connection that had entered is gone.
    pub(crate) fn leave(&self, limits: &Limits, source: Source) {
        if let Some(network) = Network::of(source.peer) {
            self.take_out(scopes(limits, source.listener).into_iter(), network);
        }
    }

    fn take_out(&self, scopes: impl Iterator<Item = (Scope, Admission)>, network: Network) {
        for (scope, _) in scopes.filter(|(_, admission)| admission.per_address_max.is_some()) {
            self.addresses
                .change((scope, network), |count| *count = count.saturating_sub(1));
        }
    }
}

/// Where a connection of a listener counts, and what is allowed there.
fn scopes(limits: &Limits, listener: ListenerId) -> [(Scope, Admission); 2] {
    let own = limits.of(listener);
    [
        (None, limits.all),
        (Some(own.counted_at.unwrap_or(listener)), own.admission),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: Admission, own: Admission) -> Limits {
        let one = ListenerLimits {
            admission: own,
            ..ListenerLimits::default()
        };
        // The second is counted at the first, as where a host name has two addresses.
        let second = ListenerLimits {
            counted_at: Some(ListenerId(0)),
            ..one
        };
        Limits {
            all,
            listeners: vec![one, second, ListenerLimits::default()],
        }
    }

    fn of_address(max: u32) -> Admission {
        Admission {
            per_address_max: NonZeroU32::new(max),
            ..Admission::default()
        }
    }

    fn from(address: &str, listener: u16) -> Source {
        Source {
            peer: PeerAddr::from(address.parse::<std::net::SocketAddr>().unwrap()),
            listener: ListenerId(listener),
        }
    }

    #[test]
    fn an_address_has_its_number_at_a_listener_and_at_all_together() {
        let limits = limits(of_address(3), of_address(2));
        let doors = Doors::new(3);
        let enter = |address, listener| doors.enter(&limits, from(address, listener));
        assert!(enter("10.0.0.1:1", 0) && enter("10.0.0.1:2", 1));
        assert!(
            !enter("10.0.0.1:3", 0),
            "two at the listener, its second socket included"
        );
        assert!(enter("10.0.0.1:4", 2) && !enter("10.0.0.1:5", 2), "three at all");
        assert!(enter("10.0.0.2:1", 0), "another address");
        doors.leave(&limits, from("10.0.0.1:4", 2));
        assert!(
            !enter("10.0.0.1:6", 0),
            "who was refused took no place, and gave none back"
        );
        doors.leave(&limits, from("10.0.0.1:2", 1));
        assert!(enter("10.0.0.1:7", 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_unix_socket_is_none() {
        // Whoever has one address of a /64 has all of them.
        let limits = limits(of_address(1), Admission::default());
        let doors = Doors::new(3);
        assert!(doors.enter(&limits, from("[2001:db8::1]:1", 0)));
        assert!(!doors.enter(&limits, from("[2001:db8::ffff:2]:1", 0)));
        assert!(doors.enter(&limits, from("[2001:db8:0:1::1]:1", 0)));
        let unix = Source {
            peer: PeerAddr::UNIX,
            listener: ListenerId(0),
        };
        assert!(doors.enter(&limits, unix) && doors.enter(&limits, unix));
    }

    #[test]
    fn nothing_is_remembered_of_addresses_that_are_gone() {
        let limits = limits(of_address(1), of_address(1));
        let doors = Doors::new(3);
        for n in 0..1_000 {
            let source = from(&format!("10.0.{}.{}:1", n / 256, n % 256), 0);
            assert!(doors.enter(&limits, source) && !doors.enter(&limits, source));
            doors.leave(&limits, source);
        }
        assert!(doors.addresses.is_empty());
    }

    #[test]
    fn over_any_time_no_more_are_accepted_than_the_rate_and_a_few_at_once() {
        let of_rate = |rate| Admission {
            accepted_per_second: NonZeroU32::new(rate),
            ..Admission::default()
        };
        for (all, own, rate) in [(10, 0, 10), (0, 10, 10), (1_000, 50, 50)] {
            let limits = limits(of_rate(all), of_rate(own));
            let doors = Doors::new(3);
            let mut accepted = 0;
            // Listeners that rest look again ten times a second.
            for look in 0..100_u64 {
                let now = Instant::from_nanos(SECOND + look * SECOND / 10);
                while doors.may_accept(&limits, ListenerId(1), now) {
                    doors.accepted(&limits, ListenerId(1), now);
                    accepted += 1;
                }
            }
            assert!(
                (rate * 98 / 10..=rate * 102 / 10 + 2).contains(&accepted),
                "{rate}: {accepted}"
            );
        }
    }
}
