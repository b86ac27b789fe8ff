//! A place to listen at, and everything that holds for its clients alone.

use super::Dialect;
use super::demand::ListenerDemand;
use super::place::{Place, Places};
use super::tls::Tls;
use super::tokens::{Authenticator, HttpAuth, Jwt};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;

/// Longest host name, in bytes: the old broker's buffer, and DNS's own limit is 253.
pub(crate) const HOST_BYTES_MAX: usize = 254;
/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds on every system we know.
pub(crate) const UNIX_PATH_BYTES_MAX: usize = 103;

/// A place to listen at, and everything that holds for its clients alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// The line that asked for it.
    pub place: Place,
    /// Where the directives stand that were given for it.
    pub places: Places,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How it is encrypted, if it is.
    pub tls: Option<Tls>,
    /// What the certificate of a client says about who it is.
    pub certificate_name: Option<CertificateName>,
    /// Who may connect.
    pub auth: Auth,
    /// It was taken out of the file since the start: it is bound still, and lets nobody in.
    pub is_gone: bool,
    /// Network Connections at a time.
    pub connections_max: Option<u32>,
    /// What it and its clients may ask for.
    pub demand: ListenerDemand,
    /// Maximum QoS announced.
    pub qos_max: u8,
    /// Topic Alias Maximum announced.
    pub topic_alias_max: u16,
    /// Topic Aliases used towards one client.
    pub topic_alias_broker_max: u16,
    /// The versions of MQTT that are spoken.
    pub versions: Versions,
    /// What stands before every topic of its clients, unseen by them.
    pub mount_point: Option<String>,
    /// What holds for WebSocket.
    pub websockets: WebSockets,
    /// What stands before each connection's first byte, if a proxy puts something there.
    pub proxy: Option<Proxy>,
    /// How its socket is made.
    pub socket: SocketChoices,
}

impl Listener {
    /// Whether only this machine can be at the other end. A proxy on it speaks for others.
    pub fn is_local(&self) -> bool {
        self.address.is_local() && self.proxy.is_none()
    }

    /// A listener of which nothing more is said.
    pub(crate) fn new(address: Address, place: Place, topic_aliases: u16) -> Self {
        Self {
            address,
            place,
            places: Places::default(),
            protocol: Protocol::Mqtt,
            tls: None,
            certificate_name: None,
            auth: Auth::default(),
            is_gone: false,
            connections_max: None,
            demand: ListenerDemand::default(),
            qos_max: 2,
            topic_alias_max: topic_aliases,
            topic_alias_broker_max: topic_aliases,
            versions: Versions::ALL,
            mount_point: None,
            websockets: WebSockets::default(),
            proxy: None,
            socket: SocketChoices::default(),
        }
    }

    /// The line of a directive that was given for it; else its own.
    pub fn place_of(&self, directive: &str) -> &Place {
        self.places.of(directive).unwrap_or(&self.place)
    }

    /// Whether only clients with a certificate are let in.
    pub(crate) fn requires_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.require_certificate)
    }

    /// Tells what is spoken there from what other listeners may speak: `tcp`, `tls`, `ws`, `wss` or `unix`.
    pub fn transport(&self) -> &'static str {
        match (&self.address, self.protocol, &self.tls) {
            (_, Protocol::WebSockets, None) => "ws",
            (_, Protocol::WebSockets, Some(_)) => "wss",
            (_, Protocol::Mqtt, Some(_)) => "tls",
            (Address::Tcp { .. }, Protocol::Mqtt, None) => "tcp",
            (Address::Unix(_), Protocol::Mqtt, None) => "unix",
        }
    }
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// MQTT and nothing around it.
    Mqtt,
    /// MQTT in WebSocket frames.
    WebSockets,
}

/// What the certificate of a client says about who it is, instead of its User Name and Password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateName {
    /// The Common Name is the user.
    CommonName,
    /// The whole subject is the user.
    Subject,
}

/// Who may connect at a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Auth {
    /// Whether a client without a user name is let in.
    pub allow_anonymous: bool,
    /// `user:hash` lines.
    pub password_file: Option<PathBuf>,
    /// Who may do what with which topics.
    pub acl_file: Option<PathBuf>,
    /// The Client Identifier is the User Name, whatever the client gave.
    pub use_username_as_clientid: bool,
    /// What every Client Identifier has to begin with.
    pub clientid_prefixes: Option<String>,
    /// Whether a client may leave its Client Identifier empty.
    pub allow_zero_length_clientid: bool,
    /// What a Client Identifier made by the broker starts with.
    pub auto_id_prefix: String,
    /// What is taken as a token.
    pub jwt: Option<Jwt>,
    /// Who is asked over HTTP.
    pub http: Option<HttpAuth>,
    /// Those who know clients, in the order in which they are asked.
    pub order: Vec<Authenticator>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            allow_anonymous: false,
            password_file: None,
            acl_file: None,
            use_username_as_clientid: false,
            clientid_prefixes: None,
            allow_zero_length_clientid: true,
            auto_id_prefix: "auto-".to_owned(),
            jwt: None,
            http: None,
            order: Vec::new(),
        }
    }
}

impl Auth {
    /// Whether all is the same that `per_listener_settings` may make another for each listener.
    pub(crate) fn lets_in_as(&self, other: &Self) -> bool {
        let named = Self {
            use_username_as_clientid: other.use_username_as_clientid,
            ..self.clone()
        };
        named == *other
    }

    /// Whether somebody is asked who may know a client by its password alone.
    pub fn asks_nameless(&self) -> bool {
        self.order
            .iter()
            .any(|authenticator| *authenticator != Authenticator::PasswordFile)
    }

    /// Whether user names and passwords, tokens among them, are checked at all.
    ///
    /// The old broker read its password file only with anonymous clients shut out; the other dialect checks whoever
    /// gives a name.
    pub fn checks_passwords(&self, dialect: Dialect) -> bool {
        let is_open = dialect == Dialect::Sol && self.allow_anonymous;
        !self.order.is_empty() && !is_open
    }
}

/// The versions of MQTT that a listener speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// MQTT 3.1, Protocol Level 3.
    pub v31: bool,
    /// MQTT 3.1.1, Protocol Level 4.
    pub v311: bool,
    /// MQTT 5.0.
    pub v5: bool,
}

impl Versions {
    /// Every version.
    pub const ALL: Self = Self {
        v31: true,
        v311: true,
        v5: true,
    };
}

/// What holds for WebSocket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebSockets {
    /// The pages that may connect, by their `Origin`; every one, where there is none.
    pub origins: Vec<String>,
    /// The most bytes of a request's headers.
    pub headers_bytes_max: u16,
    /// The directory of files for browsers.
    pub http_dir: Option<PathBuf>,
}

impl Default for WebSockets {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            headers_bytes_max: 4096,
            http_dir: None,
        }
    }
}

/// A header of the PROXY protocol that stands before each connection's first byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proxy {
    /// 1 or 2.
    pub version: u8,
    /// The peers that are believed; where there is none, every peer is: only this machine can reach such a listener.
    pub trusted: Vec<Network>,
    /// Only connections are let in that came to the proxy over TLS.
    pub requires_tls: bool,
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    /// One of them.
    pub address: IpAddr,
    /// How many bits they share.
    pub bits: u8,
}

impl Network {
    /// Whether an address is one of them. An IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bytes, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let differ = u32::from(ours) ^ u32::from(other);
                (u128::from(differ), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => (u128::from(ours) ^ u128::from(other), 128),
            _ => return false,
        };
        bytes.checked_shr(width - u32::from(self.bits).min(width)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an address, nor ADDRESS/BITS");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits }).ok_or_else(wrong)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// How the socket of a listener is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SocketChoices {
    /// Only this family of a host name's addresses.
    pub domain: Option<SocketDomain>,
    /// The only network interface that peers come by.
    pub interface: Option<String>,
    /// Permissions of a Unix socket's file.
    pub unix_mode: Option<u32>,
    /// Who owns a Unix socket's file: `USER`, `USER:GROUP` or `:GROUP`.
    pub unix_owner: Option<String>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SocketDomain {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
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

    /// Networks hold what shares their bits, and nothing else.
    #[test]
    fn networks() {
        let has = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(has("10.1.0.0/16", "10.1.2.3") && !has("10.1.0.0/16", "10.2.0.1"));
        assert!(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.2"));
        assert!(has("10.1.2.3", "::ffff:10.1.2.3"));
        assert!(has("0.0.0.0/0", "192.0.2.1") && !has("0.0.0.0/0", "::1"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fe80::1") && has("::/0", "::1"));
        for bad in [
            "",
            "10.1.0.0/33",
            "10.1/16",
            "fd00::/129",
            "host",
            "10.0.0.0/-1",
            "10.0.0.0/",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
