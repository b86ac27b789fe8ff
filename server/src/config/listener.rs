//! A place to listen at.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

/// Longest host name, in bytes: the old broker's buffer, and DNS's own limit is 253.
pub(crate) const HOST_BYTES_MAX: usize = 254;
/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds on every system we know.
pub(crate) const UNIX_PATH_BYTES_MAX: usize = 103;

/// A place to listen at, and which line asked for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// The line of the file, 0 if a default or the command line did.
    pub line: usize,
}

/// A TCP address or the path of a Unix socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A host name or address, `None` for every interface, and a port.
    Tcp {
        /// Host name or address.
        host: Option<String>,
        /// 0 lets the system choose.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The address that a sol file means by `host`: the old broker's `::` took IPv4 too.
    pub(crate) fn of_sol(host: String, port: u16) -> Self {
        let host = (host != "::").then_some(host);
        Self::Tcp { host, port }
    }

    /// Whether only this machine can reach it. A host name counts only if it is `localhost`.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host: None, .. } => false,
            Self::Tcp { host: Some(host), .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// The socket addresses to bind, in order; a Unix socket has none. Asks the resolver for host names.
    ///
    /// # Errors
    /// A host name that does not resolve, with the system's reason.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Unix(_) => Ok(Vec::new()),
            Self::Tcp { host: None, port } => {
                let mut every = vec![(Ipv4Addr::UNSPECIFIED, *port).into()];
                if has_ipv6() {
                    every.push((Ipv6Addr::UNSPECIFIED, *port).into());
                }
                Ok(every)
            }
            Self::Tcp { host: Some(host), port } => {
                let mut found: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
                found.dedup();
                Ok(found)
            }
        }
    }
}

/// Whether the system has IPv6 at all; one built or started without it refuses even such a socket.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host: None, port } => write!(f, "*:{port}"),
            Self::Tcp { host: Some(host), port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host: Some(host), port } => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: Option<&str>) -> Address {
        Address::Tcp {
            host: host.map(str::to_owned),
            port: 1883,
        }
    }

    /// What only this machine reaches is told from what the network reaches; it decides what the banner warns about.
    #[test]
    fn local_addresses() {
        for local in ["127.0.0.1", "127.3.2.1", "::1", "localhost"] {
            assert!(tcp(Some(local)).is_local(), "{local}");
        }
        for open in ["0.0.0.0", "::", "192.0.2.1", "broker.example"] {
            assert!(!tcp(Some(open)).is_local(), "{open}");
        }
        assert!(!tcp(None).is_local());
        assert!(Address::Unix("/run/sol.sock".into()).is_local());
    }

    /// Addresses print as people write them, IPv6 in brackets, and resolve without the network when numeric.
    #[test]
    fn prints_and_resolves() {
        assert_eq!(tcp(Some("::1")).to_string(), "[::1]:1883");
        assert_eq!(tcp(Some("::1")).resolve().unwrap(), ["[::1]:1883".parse().unwrap()]);
        assert_eq!(tcp(None).to_string(), "*:1883");
        assert_eq!(tcp(None).resolve().unwrap()[0], "0.0.0.0:1883".parse().unwrap());
    }
}
