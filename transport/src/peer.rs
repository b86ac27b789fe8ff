//! Who is at the other end, in few bytes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address of a connection's other end. An IPv6 scope is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    // IPv4 as a mapped address; all zeros and port 0 stand for a Unix socket, which is nobody's TCP address. Port 0 of any other
    // is a proxy's own connection: nobody connects from it.
    ip: [u8; 16],
    port: u16,
}

impl PeerAddr {
    /// Somebody on a Unix socket.
    pub const UNIX: Self = Self { ip: [0; 16], port: 0 };

    /// Somebody whom a proxy has brought, and has said where he is. Of one whose port it does not know it may say 0.
    pub(crate) fn brought(self) -> Self {
        let has_address = self != Self::UNIX;
        Self {
            port: if has_address { self.port.max(1) } else { self.port },
            ..self
        }
    }

    /// Whom this proxy has brought without saying who it is, or the proxy itself.
    pub(crate) const fn without_client(self) -> Self {
        Self { port: 0, ..self }
    }

    /// The IP address and port of the client, where they are known: not of one that its proxy does not name.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.socket_addr().filter(|_| self.port != 0)
    }

    /// The IP address and port, if it is one; of a client that its proxy does not name the proxy's, with port 0.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        if *self == Self::UNIX {
            return None;
        }
        let ip = Ipv6Addr::from(self.ip);
        Some(SocketAddr::new(
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            self.port,
        ))
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            ip: ip.octets(),
            port: address.port(),
        }
    }
}

/// `address:port`, or `unix`.
impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_addr() {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_came() {
        // Logs and the authenticator see the address that the kernel told.
        for text in ["127.0.0.1:1883", "[::1]:1", "[2001:db8::7]:65535", "0.0.0.0:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(PeerAddr::from(address).socket_addr(), Some(address));
            assert_eq!(PeerAddr::from(address).to_string(), text);
        }
        for unnamed in ["192.0.2.1:7", "[::1]:7"] {
            let proxy = PeerAddr::from(unnamed.parse::<SocketAddr>().unwrap());
            assert_eq!(
                (proxy.client().is_some(), proxy.without_client().client()),
                (true, None)
            );
            assert_eq!(
                proxy.without_client().to_string(),
                unnamed.replace(":7", ":0"),
                "the log tells of the proxy"
            );
            assert!(
                proxy.without_client().brought().client().is_some(),
                "port 0 is not told of a client"
            );
        }
        assert_eq!(PeerAddr::UNIX.brought(), PeerAddr::UNIX);
        assert_eq!(PeerAddr::UNIX.without_client(), PeerAddr::UNIX);
        assert_eq!(PeerAddr::UNIX.to_string(), "unix");
        assert_eq!(PeerAddr::UNIX.socket_addr(), None);
    }
}
