//! Where peers come in: TCP and Unix sockets, bound with one clear sentence when they cannot be.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::proxy::ProxyRules;
use crate::websocket::WebSocketRules;

/// A TCP connection on which nothing is heard for so long is probed: MQTT's Keep Alive may be off.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes after which the peer is gone.
const PROBES_MAX: u32 = 3;
/// How long what was sent may stay unacknowledged by the peer's system. Not less than all probes take: Linux ends the
/// probing by it as well, so that a single lost probe would end a connection, and it cuts a peer that lives and does not
/// read, which is the engine's business.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);
/// How long a connection is held back for its first bytes. Linux rounds it to its own retries, of which this is the
/// shortest: a peer that stays silent comes in after a second, and has the rest of its time then.
#[cfg(target_os = "linux")]
const DEFER_SECONDS: libc::c_int = 1;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP port of one address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket in the file system.
    Unix(PathBuf),
}

/// `address:port`, or the path.
impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Tells from a client's certificates, its own first, what its User Name is; or why it cannot be told, in a sentence
/// without a full stop. Called once for a connection, on its shard's thread. There are none where none were asked for.
pub type NameOf = dyn Fn(&[CertificateDer<'_>]) -> Result<String, String> + Send + Sync;

/// How the connections of a listener are encrypted.
#[derive(Clone)]
pub struct Tls {
    /// Certificate, key, authorities, versions, and what resumes a Session of TLS, on whichever shard.
    pub config: Arc<ServerConfig>,
    /// Who a client is, where its certificate says that instead of its User Name and Password.
    pub name_of: Option<Arc<NameOf>>,
}

/// Keys are nobody's business.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("names_clients", &self.name_of.is_some())
            .finish_non_exhaustive()
    }
}

/// What is spoken at a listener, inside of TLS where there is TLS.
#[derive(Clone, Debug, Default)]
pub enum Protocol {
    /// MQTT and nothing around it.
    #[default]
    Mqtt,
    /// MQTT in WebSocket frames.
    WebSocket(Arc<WebSocketRules>),
}

/// One listener and its choices.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Where.
    pub address: ListenAddr,
    /// Connections that the system may hold before they are accepted.
    pub backlog: u32,
    /// Small packets leave at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Where the system can, a TCP connection is accepted only when its first bytes are there. A peer that stays silent
    /// is accepted after about a second, and `connect_time_max` begins then.
    pub defer_accept: bool,
    /// The only network interface that peers come by. Linux only.
    pub interface: Option<String>,
    /// Permissions of a Unix socket's file; what the umask leaves where there are none.
    pub unix_mode: Option<u32>,
    /// Who owns a Unix socket's file: user and group, by number.
    pub unix_owner: (Option<u32>, Option<u32>),
    /// How it is encrypted, if it is. [`crate::Handle::change_tls`] changes it for those who come later.
    pub tls: Option<Tls>,
    /// What is spoken.
    pub protocol: Protocol,
    /// What stands before the first byte of each connection, if a proxy puts something there.
    pub proxy: Option<ProxyRules>,
}

impl ListenerConfig {
    /// A listener with the usual choices.
    #[must_use]
    pub const fn new(address: ListenAddr) -> Self {
        Self {
            address,
            backlog: 1_024,
            nodelay: true,
            defer_accept: true,
            interface: None,
            unix_mode: None,
            unix_owner: (None, None),
            tls: None,
            protocol: Protocol::Mqtt,
            proxy: None,
        }
    }

    /// Whether clients are who a proxy says.
    pub(crate) fn proxies_name_clients(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.names_clients)
    }
}

/// Why a listener could not be had. Its sentence is for the operator.
#[derive(Debug)]
pub struct ListenError {
    /// Where.
    pub address: ListenAddr,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match (self.source.kind(), &self.address) {
            (io::ErrorKind::AddrInUse, ListenAddr::Tcp(_)) => {
                f.write_str("the port is in use; another broker may be running")
            }
            (io::ErrorKind::AddrInUse, ListenAddr::Unix(_)) => {
                f.write_str("somebody answers on that socket; another broker may be running")
            }
            (io::ErrorKind::AlreadyExists, _) => f.write_str("there is a file of that name which is no socket"),
            (io::ErrorKind::AddrNotAvailable, _) => f.write_str("this machine does not have that address"),
            (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(address)) if address.port() < 1_024 => {
                f.write_str("ports below 1024 need a privilege that this process lacks")
            }
            (io::ErrorKind::PermissionDenied, _) => f.write_str("no permission"),
            (io::ErrorKind::NotFound, ListenAddr::Unix(_)) => f.write_str("its directory does not exist"),
            _ => self.source.fmt(f),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A bound listener: one socket for each shard.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Where, with the port that the system chose.
    pub(crate) address: ListenAddr,
    /// A socket for each shard, listening and non-blocking.
    pub(crate) sockets: Vec<Socket>,
    /// The file to remove in the end.
    pub(crate) file: Option<SocketFile>,
}

/// A Unix socket's file, removed with this value.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed by hand, which is just as well.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds a listener for `shards` shards.
pub(crate) fn bind(config: &ListenerConfig, shards: usize) -> Result<Bound, ListenError> {
    let bound = match &config.address {
        ListenAddr::Tcp(address) => bind_tcp(config, *address, shards),
        ListenAddr::Unix(path) => bind_unix(config, path, shards),
    };
    bound.map_err(|source| ListenError {
        address: config.address.clone(),
        source,
    })
}

fn bind_tcp(config: &ListenerConfig, address: SocketAddr, shards: usize) -> io::Result<Bound> {
    // Alone first: with SO_REUSEPORT a second broker would be given a share of the connections instead of an error.
    let first = tcp_socket(config, address, false)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let sockets = if shards > 1 && cfg!(target_os = "linux") {
        drop(first);
        (0..shards)
            .map(|_| tcp_socket(config, address, true))
            .collect::<io::Result<Vec<_>>>()?
    } else {
        // Elsewhere SO_REUSEPORT does not spread connections; the shards take turns at one queue.
        shared(first, shards)?
    };
    for socket in &sockets {
        socket.listen(backlog(config))?;
        if config.defer_accept {
            defer_accept(socket)?;
        }
    }
    Ok(Bound {
        address: ListenAddr::Tcp(address),
        sockets,
        file: None,
    })
}

fn tcp_socket(config: &ListenerConfig, address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are two listeners everywhere, whatever the system's default is.
        socket.set_only_v6(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit these, which saves system calls for each.
    socket.set_tcp_nodelay(config.nodelay)?;
    notice_dead_peers(&socket)?;
    if let Some(interface) = &config.interface {
        bind_interface(&socket, interface)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn bind_interface(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}

#[cfg(not(target_os = "linux"))]
fn bind_interface(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only Linux can bind to an interface",
    ))
}

/// Has the system find out that a peer is gone that cannot say so.
fn notice_dead_peers(socket: &Socket) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER);
    #[cfg(not(target_os = "openbsd"))]
    let probes = probes.with_interval(PROBE_INTERVAL).with_retries(PROBES_MAX);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

fn bind_unix(config: &ListenerConfig, path: &Path, shards: usize) -> io::Result<Bound> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let file = SocketFile(path.to_owned());
    // Before it listens: whoever may not connect never could.
    if let Some(mode) = config.unix_mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let (user, group) = config.unix_owner;
    if user.is_some() || group.is_some() {
        lchown(path, user, group)?;
    }
    socket.listen(backlog(config))?;
    Ok(Bound {
        address: ListenAddr::Unix(path.to_owned()),
        sockets: shared(socket, shards)?,
        file: Some(file),
    })
}

/// Removes the file of a socket that nobody listens on any more, as a killed broker leaves it.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Connected, or its queue is full: somebody is there.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn shared(socket: Socket, shards: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(shards);
    for _ in 1..shards {
        sockets.push(socket.try_clone()?);
    }
    sockets.push(socket);
    Ok(sockets)
}

fn backlog(config: &ListenerConfig) -> i32 {
    i32::try_from(config.backlog).unwrap_or(i32::MAX)
}

/// Lets the system hold a connection back for a while, until it has something to read.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe crate of ours has this socket option")]
fn defer_accept(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let seconds = DEFER_SECONDS;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads exactly the given number
    // of bytes from a value that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn defer_accept(_: &Socket) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn local() -> ListenerConfig {
        ListenerConfig::new(ListenAddr::Tcp("127.0.0.1:0".parse().unwrap()))
    }

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("sol-listener-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory.join("socket")
    }

    #[test]
    fn a_second_broker_on_the_same_port_is_refused_even_where_shards_share_it() {
        for shards in [1, 3] {
            let first = bind(&local(), shards).unwrap();
            assert_eq!(first.sockets.len(), shards);
            for others in [1, 2] {
                let error = bind(&ListenerConfig::new(first.address.clone()), others).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!(
                        "cannot listen on {}: the port is in use; another broker may be running",
                        first.address
                    )
                );
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_dead_peer_is_noticed_on_every_accepted_connection() {
        // A client without a Keep Alive that loses its network would stay for ever. Accepted sockets inherit all of it.
        let bound = bind(&local(), 1).unwrap();
        let ListenAddr::Tcp(address) = bound.address else {
            panic!("not TCP")
        };
        let mut client = std::net::TcpStream::connect(address).unwrap();
        io::Write::write_all(&mut client, b"x").unwrap();
        let socket = &bound.sockets[0];
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), PROBES_MAX);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        assert!(UNACKNOWLEDGED_MAX >= PROBE_AFTER + PROBE_INTERVAL * PROBES_MAX);
    }

    #[test]
    fn an_address_that_the_machine_lacks_is_told_in_one_sentence() {
        let config = ListenerConfig::new(ListenAddr::Tcp("203.0.113.7:1883".parse().unwrap()));
        let error = bind(&config, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on 203.0.113.7:1883: this machine does not have that address"
        );
    }

    #[test]
    fn a_killed_brokers_socket_file_is_replaced_and_ours_is_removed_in_the_end() {
        let path = scratch("stale");
        let _ = fs::remove_file(&path);
        // Dropping a listener leaves its file, as a killed process does.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = bind(&ListenerConfig::new(ListenAddr::Unix(path.clone())), 2).unwrap();
        assert_eq!(bound.sockets.len(), 2);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_has_the_mode_and_the_owner_that_are_asked_for() {
        let path = scratch("mode");
        let _ = fs::remove_file(&path);
        let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata(path.parent().unwrap()).unwrap());
        let config = ListenerConfig {
            unix_mode: Some(0o620),
            unix_owner: (None, Some(group)),
            ..ListenerConfig::new(ListenAddr::Unix(path.clone()))
        };
        let bound = bind(&config, 1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        drop(bound);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_interface_that_there_is_not_is_an_error() {
        let address = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
        let of = |interface: &str| ListenerConfig {
            interface: Some(interface.to_owned()),
            ..ListenerConfig::new(address.clone())
        };
        assert!(bind(&of("none0"), 1).is_err());
        assert!(bind(&of("lo"), 2).is_ok());
    }

    #[test]
    fn a_socket_file_that_somebody_answers_on_is_left_alone() {
        let path = scratch("alive");
        let _ = fs::remove_file(&path);
        let _alive = UnixListener::bind(&path).unwrap();
        let error = bind(&ListenerConfig::new(ListenAddr::Unix(path.clone())), 1).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("somebody answers on that socket; another broker may be running")
        );
        UnixStream::connect(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let path = scratch("file");
        fs::write(&path, "precious").unwrap();
        let error = bind(&ListenerConfig::new(ListenAddr::Unix(path.clone())), 1).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("there is a file of that name which is no socket")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named_as_such() {
        let config = ListenerConfig::new(ListenAddr::Unix("/nonexistent/directory/socket".into()));
        let error = bind(&config, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on /nonexistent/directory/socket: its directory does not exist"
        );
    }
}
