//! Mosquitto's dialect with our own names: strict, and fail closed.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails where it unwraps; its tables are data"
)]

use sol_server::config::{
    Address, CertificateName, Config, Dialect, Host, Io, Levels, LogStream, Metrics, Overrides, Refused, Shards,
    TlsVersion,
};

const HOST: Host = Host {
    memory_bytes: 1 << 30,
    cores: 2,
    is_root: true,
};

fn parse(text: &str) -> Result<Config, Refused> {
    Config::parse("/etc/sol.conf".as_ref(), text.as_bytes(), &HOST)
}

fn errors(text: &str) -> Vec<String> {
    let refused = parse(text).unwrap_err();
    refused
        .errors
        .iter()
        .map(|error| error.to_string().replace("/etc/sol.conf:", ""))
        .collect()
}

/// Without a file: this machine only, anonymous.
#[test]
fn without_a_file() {
    assert_eq!(
        Config::without_file(&HOST).to_directives(),
        "\
# no file, read in the dialect `listener`
max_memory 716MB
allow_anonymous true
allow_zero_length_clientid true
auto_id_prefix auto-
max_packet_size 2000000
message_size_limit 0
global_max_connections -1
global_max_clients -1
max_inflight_messages 20
max_inflight_bytes 0
max_queued_messages 1000
max_queued_bytes 0
queue_full refuse
queue_qos0_messages false
upgrade_outgoing_qos false
max_keepalive 0
retain_available true
retain_expiry_interval 0
check_retain_source true
max_connect_size 16KB
connect_timeout 5
websockets_headers_size 4096
max_messages_rate 0
max_bytes_rate 0
max_connect_rate 0
max_connections_per_address 0
max_connections_per_user 0
login_failures_max 20
login_failures_window 600s
login_ban 600s
login_ban_exempt 127.0.0.0/8 ::1/128
log_dest stderr
log_type error
log_type warning
log_type information
log_format text
log_timestamp true
connection_messages true
set_tcp_nodelay true
sys_interval 10
sandbox on
persistence none
persistence_max_size 0
persistence_damage refuse
shards auto
pin_shards false
io auto
listener 1883 127.0.0.1
protocol mqtt
max_connections -1
max_qos 2
max_topic_alias 10
max_topic_alias_broker 10
accept_protocol_versions 3, 4, 5
use_username_as_clientid false
use_identity_as_username false
use_subject_as_username false
# shards auto is 2 here
# metrics 127.0.0.1:9883, if that port is free
"
    );
}

/// An empty file is as good as none; a listener shuts anonymous clients out unless they are let in by name.
#[test]
fn anonymous_only_where_it_is_said_or_local() {
    assert!(parse("").unwrap().listeners[0].auth.allow_anonymous);
    let config = parse("listener 1883").unwrap();
    assert_eq!(config.dialect, Dialect::Listener);
    assert!(!config.listeners[0].auth.allow_anonymous);
    assert_eq!(config.warnings.len(), 1, "nobody could connect");
    assert!(
        parse("listener 1883\nallow_anonymous true").unwrap().listeners[0]
            .auth
            .allow_anonymous
    );
}

/// Any number of listeners of every kind; `port` and `bind_address` are one more.
#[test]
fn listeners() {
    let text = "listener 1884\nlistener 1885 ::1\nlistener 0 /run/sol.sock\nport 1886\nbind_address localhost\n";
    let config = parse(text).unwrap();
    let shown: Vec<_> = config.listeners.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["localhost:1886", "*:1884", "[::1]:1885", "/run/sol.sock"]);
    assert!(matches!(config.listeners[3].address, Address::Unix(_)));
    assert_eq!(
        parse("bind_address ::1").unwrap().listeners[0].to_string(),
        "[::1]:1883"
    );
}

/// Unknown, repeated, malformed and mixed lines refuse the start, each with its place and what was meant.
#[test]
fn strict() {
    let text = "\
lisetner 1883
listener
listener 1883 127.0.0.1 extra
listener 1883 /run/sol.sock
listener 0
max_qos 3
max_qos 1
allow_anonymous no
queue_full never
ip_port 1883
keepalive 60
psk_hint x
connection cloud
persistence sometimes
log_dest nowhere
log_type everything
persistent_client_expiration 5
auto_id_prefix a/b
 # note
frobnicate
max_packet_size 1
metrics 9883
shards 0
shards
pin_shards maybe
io poll
";
    let mixed = "one file is either in the old broker's dialect or in Mosquitto's";
    assert_eq!(
        errors(text),
        [
            "1:1: unknown directive `lisetner`; did you mean `listener`?".to_owned(),
            "2:9: `listener` needs a value".to_owned(),
            "3:25: `extra` is one value too many".to_owned(),
            "4:15: a Unix socket has port 0".to_owned(),
            "5: port 0 needs the path of a Unix socket".to_owned(),
            "6:9: `3` is not a whole number from 0 to 2".to_owned(),
            "7:1: `max_qos` stands on line 6 already".to_owned(),
            "8:17: `no` is neither true nor false".to_owned(),
            "9:12: `never` is none of refuse, drop_newest, drop_oldest".to_owned(),
            format!("10:1: `ip_port` exists only in a sol file: {mixed}"),
            format!("11:1: `keepalive` exists only in a sol file: {mixed}"),
            "12:1: `psk_hint`: pre-shared keys are not supported: clients are told apart by certificates or passwords"
                .to_owned(),
            "13:1: `connection`: bridges are not supported yet".to_owned(),
            "14:13: `sometimes` is none of none, os, fsync, true and false".to_owned(),
            "15:10: `nowhere` is none of stderr, stdout, syslog, topic, none, file".to_owned(),
            "16:10: `everything` is none of error, warning, notice, information, debug, all, none".to_owned(),
            "17:30: `5` is not a span: a number with h, d, w, m (months) or y".to_owned(),
            "18:16: `a/b` is longer than 50 bytes or has one of + # /".to_owned(),
            "19:2: unknown directive `#`".to_owned(),
            "20:1: unknown directive `frobnicate`".to_owned(),
            "21: 1 bytes are too few, 20 is the least: no client could be served; units are KB, MB and GB".to_owned(),
            "22:9: `9883` is neither ADDRESS:PORT nor off".to_owned(),
            "23:8: `0` is neither auto nor a whole number from 1 to 64".to_owned(),
            "24:1: `shards` stands on line 23 already".to_owned(),
            "25:12: `maybe` is neither true nor false".to_owned(),
            "26:4: `poll` is none of auto, io_uring, epoll".to_owned(),
        ]
    );
    assert_eq!(
        errors("max_memory 1GB\nmemory_limit 1GB"),
        ["2:1: `memory_limit` and `max_memory` are two names of one thing"]
    );
}

/// Log destinations and kinds replace the defaults and then add up; a path may have spaces.
#[test]
fn log_directives() {
    let config = parse("log_dest file /var/log/sol log/a.log\nlog_type error\nlog_type notice\n").unwrap();
    assert_eq!(config.log.stream, LogStream::None);
    assert_eq!(config.log.file.as_deref(), Some("/var/log/sol log/a.log".as_ref()));
    assert_eq!(config.log.levels, Levels::ERROR.with(Levels::INFO));
    let config = parse("log_type none\nlog_dest none\n").unwrap();
    assert_eq!((config.log.levels, config.log.stream), (Levels::NONE, LogStream::None));
}

/// What `sol check` prints is a file that means the same.
#[test]
fn printed_configuration_reads_back() {
    let text = "\
listener 1883
max_connections 100
max_qos 1
max_topic_alias 0
max_topic_alias_broker 7
accept_protocol_versions 4,5
listener_max_messages_rate 0
listener_max_bytes_rate 4KB
listener_max_connect_rate 7
listener_max_connections_per_address 8
listener_max_connections_per_user 9
mount_point home/
socket_domain ipv4
bind_interface lo
use_username_as_clientid true
enable_proxy_protocol 2
proxy_protocol_from 10.0.0.0/8 fd00::1
proxy_protocol_v2_require_tls true
listener 9001 localhost
protocol websockets
websockets_origin https://a.example
websockets_origin https://b.example
certfile /c
keyfile /k
cafile /a b
crlfile /r
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
ciphers ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384
ciphers_tls1.3 TLS_AES_128_GCM_SHA256
disable_client_cert_date_checks true
http_dir /srv/www
listener 0 /run/sol.sock
unix_socket_mode 0660
unix_socket_owner mosquitto:iot
listener_allow_anonymous false
listener_auto_id_prefix box-
allow_anonymous true
acl_file /acl
clientid_prefixes home-
memory_limit 0
max_packet_size 0
global_max_connections 1000
global_max_clients 5000
max_messages_rate 100
max_bytes_rate 1MB
max_connect_rate 50
max_connections_per_address 5
max_connections_per_user 6
message_size_limit 4KB
max_inflight_bytes 1MB
upgrade_outgoing_qos true
retain_expiry_interval 90
check_retain_source false
websockets_headers_size 1024
log_timestamp_format %F %T
log_facility 3
connection_messages false
user mosquitto
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 3KB
queue_full drop_newest
queue_qos0_messages true
max_keepalive 600
retain_available false
persistent_client_expiration 2m
sys_interval 0
log_dest stdout
log_dest syslog
log_dest topic
log_dest file /var/log/sol.log
log_type all
log_format json
log_timestamp false
metrics 127.0.0.1:9999
pid_file /run/sol pid
connect_timeout 9
max_connect_size 1KB
set_tcp_nodelay false
auto_id_prefix x
allow_zero_length_clientid false
shards 7
pin_shards true
io epoll
";
    let mut first = parse(text).unwrap();
    let mut second = parse(&first.to_directives()).unwrap();
    (first.warnings, second.warnings) = (Vec::new(), Vec::new());
    assert_eq!(first.limits.packet_bytes_max, 268_435_460);
    assert_eq!(first, second);
}

/// The command line wins over the file, and says so where they differ.
#[test]
fn command_line_wins() {
    let overrides = Overrides {
        address: Some("0.0.0.0".to_owned()),
        port: None,
        verbose: true,
        pid_file: Some("/run/b.pid".into()),
        metrics: Some(Metrics::Off),
        shards: Some(Shards::Count(3)),
        io: Some(Io::IoUring),
    };
    let mut config = parse(
        "listener 1884 127.0.0.1\nallow_anonymous true\npid_file /run/a.pid\nmetrics 127.0.0.1:1\nshards 2\nio epoll\n",
    )
    .unwrap();
    config.apply(&overrides).unwrap();
    assert_eq!(config.listeners[0].to_string(), "0.0.0.0:1884");
    assert_eq!(config.log.levels, Levels::ALL);
    assert_eq!(
        (config.metrics, config.pid_file.as_deref()),
        (Metrics::Off, Some("/run/b.pid".as_ref()))
    );
    assert_eq!((config.shard_count(), config.io), (3, Io::IoUring));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "/etc/sol.conf:1: the command line wins: listening on 0.0.0.0:1884, not on 127.0.0.1:1884",
            "command line: --pid-file wins over pid_file in the file",
            "command line: --metrics wins over metrics in the file",
            "command line: --shards wins over shards in the file",
            "command line: --io wins over io in the file",
        ]
    );
    let mut config = Config::without_file(&HOST);
    config
        .apply(&Overrides {
            port: Some(0),
            ..Overrides::default()
        })
        .unwrap();
    assert_eq!(
        (config.listeners[0].to_string().as_str(), config.warnings.len()),
        ("127.0.0.1:0", 0)
    );
}

/// With several listeners nobody can know which one `-p` means.
#[test]
fn command_line_and_several_listeners() {
    let mut config = parse("listener 1\nlistener 2\nallow_anonymous true").unwrap();
    let refused = config
        .apply(&Overrides {
            port: Some(3),
            ..Overrides::default()
        })
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "command line: -a and -p need a file with one listener, not 2"
    );
}

/// A file that was asked for must be there; its reason is told without the system's number.
#[test]
fn missing_file() {
    let refused = Config::load(Some("/nonexistent/sol.conf".as_ref()), &HOST).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/nonexistent/sol.conf: cannot be read: No such file or directory"
    );
}

fn warnings(text: &str) -> Vec<String> {
    let config = parse(text).unwrap_or_else(|refused| panic!("{refused}"));
    let warnings = config.warnings.iter();
    warnings
        .map(|warning| warning.to_string().replace("/etc/sol.conf:", ""))
        .collect()
}

/// Who may connect is said for all listeners, wherever it stands; one listener may be told otherwise by name.
#[test]
fn security_is_of_all_listeners() {
    let config = parse(
        "listener 1\nallow_anonymous false\npassword_file /p\nlistener 2\nlistener_allow_anonymous true\n\
         listener_auto_id_prefix guest-\nauto_id_prefix x-\nacl_file /a\nlistener 3\n",
    )
    .unwrap();
    let said: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| (listener.auth.allow_anonymous, listener.auth.auto_id_prefix.as_str()))
        .collect();
    assert_eq!(said, [(false, "x-"), (true, "guest-"), (false, "x-")]);
    for listener in &config.listeners {
        assert_eq!(listener.auth.password_file.as_deref(), Some("/p".as_ref()));
        assert_eq!(listener.auth.acl_file.as_deref(), Some("/a".as_ref()));
    }
}

/// With per_listener_settings it is said for the listener above, and nothing is handed on.
#[test]
fn security_of_each_listener() {
    let text = "per_listener_settings true\nlistener 1\nallow_anonymous true\nallow_zero_length_clientid false\n\
                listener 2\npassword_file /p\nacl_file /a\nlistener 3\nuse_username_as_clientid true\n";
    let config = parse(text).unwrap();
    let [first, second, third] = &config.listeners[..] else {
        panic!("three listeners");
    };
    assert!(first.auth.allow_anonymous && !first.auth.allow_zero_length_clientid);
    assert!(!second.auth.allow_anonymous && second.auth.allow_zero_length_clientid);
    assert_eq!((&first.auth.password_file, &third.auth.acl_file), (&None, &None));
    assert!(second.auth.password_file.is_some() && second.auth.acl_file.is_some());
    assert!(!third.auth.allow_anonymous && third.auth.use_username_as_clientid);
    assert_eq!(warnings(text).len(), 1, "nobody can connect to the third");
    assert_eq!(parse(&config.to_directives()).unwrap().listeners, config.listeners);
}

/// It changes what follows alone, so it has to stand above all of that.
#[test]
fn per_listener_settings_come_first() {
    assert_eq!(
        errors("listener 1\nallow_anonymous true\nper_listener_settings true"),
        [
            "3: per_listener_settings stands above all directives that it changes, but `allow_anonymous` stands on line 2 \
          already"
        ]
    );
    assert!(parse("listener 1\nallow_anonymous true\nper_listener_settings false").is_ok());
}

/// What speaks of one listener speaks of the last one above it; `port` is one, and so is what is said above all of them,
/// with a warning. What makes no sense without one is refused.
#[test]
fn directives_of_a_listener() {
    let config = parse("listener 1\nmax_connections 5\nlistener 2\nmaximum_qos 1\nport 3\nmax_topic_alias 7").unwrap();
    let said: Vec<_> = config
        .listeners
        .iter()
        .map(|l| (l.to_string(), l.connections_max, l.qos_max, l.topic_alias_max))
        .collect();
    assert_eq!(
        said,
        [
            ("*:3".to_owned(), None, 2, 7),
            ("*:1".to_owned(), Some(5), 2, 10),
            ("*:2".to_owned(), None, 1, 10)
        ]
    );
    let above = "max_qos 1\nlistener 2\nallow_anonymous true";
    assert_eq!(
        warnings(above),
        [
            "1: `max_qos` stands above every listener, which makes one of its own at *:1883, as in Mosquitto; put it below the \
          `listener` that it is for"
        ]
    );
    assert_eq!(parse(above).unwrap().listeners.len(), 2);
    let as_it_is = "max_qos 2\nmax_connections -1\nlistener 2\nallow_anonymous true";
    assert_eq!(parse(as_it_is).unwrap().listeners.len(), 1);
    let alone = parse("max_qos 1").unwrap();
    assert_eq!(
        (alone.listeners[0].to_string().as_str(), alone.listeners[0].qos_max),
        ("127.0.0.1:1883", 1)
    );
    assert_eq!(
        errors("mount_point home/\nlistener 1\nmax_qos 1\nmax_qos 1"),
        [
            "1:1: `mount_point` stands below the `listener` that it is for",
            "4:1: `max_qos` stands on line 3 already"
        ]
    );
}

/// A listener is encrypted by its certificate and its key; nothing that speaks of encryption is taken without it.
#[test]
fn encryption() {
    let config = parse("listener 8883\ncertfile /c\nkeyfile /k\nallow_anonymous true").unwrap();
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(
        (tls.certfile.as_path(), tls.keyfile.as_path()),
        ("/c".as_ref(), "/k".as_ref())
    );
    assert_eq!((tls.version_min, tls.version_max), (TlsVersion::V1_2, TlsVersion::V1_3));
    assert!(tls.check_client_dates && !tls.require_certificate);
    assert_eq!(
        (
            config.listeners[0].place_of("keyfile").line,
            config.listeners[0].place_of("cafile").line
        ),
        (3, 1)
    );
    for (lines, error) in [
        (
            "certfile /c",
            "2: `certfile` needs the key of the certificate beside it: keyfile",
        ),
        (
            "keyfile /k",
            "2: `keyfile` needs the certificate of the key beside it: certfile",
        ),
        (
            "cafile /a",
            "2: `cafile` gives no TLS without certfile and keyfile, the server's own certificate and its key",
        ),
        (
            "disable_client_cert_date_checks true",
            "2: `disable_client_cert_date_checks` gives no TLS without certfile and keyfile, the server's own certificate and its \
             key",
        ),
        (
            "tls_version tlsv1.3",
            "2: `tls_version` gives no TLS without certfile and keyfile, the server's own certificate and its key",
        ),
        (
            "ciphers A:B",
            "2: `ciphers` gives no TLS without certfile and keyfile, the server's own certificate and its key",
        ),
        (
            "ciphers_tls1.3 A:B",
            "2: `ciphers_tls1.3` gives no TLS without certfile and keyfile, the server's own certificate and its key",
        ),
        (
            "certfile /c\nkeyfile /k\nrequire_certificate true",
            "4: `require_certificate` needs authorities that clients are checked against: cafile or capath",
        ),
        (
            "certfile /c\nkeyfile /k\nuse_subject_as_username true",
            "4: `use_subject_as_username` needs certificates of clients: certfile and keyfile, and the clients' authorities in \
             cafile or capath",
        ),
        (
            "tls_version tlsv1.1",
            "2:13: `tlsv1.1` is not spoken: it can be broken, and RFC 8996 forbids it; clients need TLS 1.2 or 1.3",
        ),
        (
            "tls_keyform engine",
            "2:13: keys in hardware are not supported; the key stands in a file",
        ),
    ] {
        assert_eq!(errors(&format!("listener 8883\n{lines}")), [error], "{lines}");
    }
    let by_name = "listener 1\ncertfile /c\nkeyfile /k\ncafile /a\nuse_identity_as_username true";
    assert_eq!(
        parse(by_name).unwrap().listeners[0].certificate_name,
        Some(CertificateName::CommonName)
    );
    assert_eq!(warnings(by_name), [""; 0], "certificates let clients in");
}

/// Proxies are believed by their addresses; only this machine's own listeners believe everybody.
#[test]
fn proxies() {
    let text = "listener 1\nenable_proxy_protocol 1\nproxy_protocol_from 10.0.0.0/8 192.0.2.1\nallow_anonymous true";
    let proxy = parse(text).unwrap().listeners[0].proxy.clone().unwrap();
    assert_eq!((proxy.version, proxy.trusted.len(), proxy.requires_tls), (1, 2, false));
    assert!(parse("listener 1 127.0.0.1\nenable_proxy_protocol 2").is_ok());
    for (lines, error) in [
        (
            "enable_proxy_protocol 1",
            "2: `enable_proxy_protocol` needs proxy_protocol_from, the addresses of the proxies: others could say to be \
             anywhere",
        ),
        (
            "proxy_protocol_from 10.0.0.1",
            "2: `proxy_protocol_from` has no effect without enable_proxy_protocol",
        ),
        ("enable_proxy_protocol 3", "2:23: `3` is not a whole number from 1 to 2"),
        (
            "proxy_protocol_v2_require_tls true",
            "2: `proxy_protocol_v2_require_tls` has no effect without `enable_proxy_protocol 2`",
        ),
    ] {
        assert_eq!(errors(&format!("listener 1\n{lines}")), [error], "{lines}");
    }
}

/// What is not for a kind of socket is refused there.
#[test]
fn sockets() {
    for (text, error) in [
        (
            "listener 1\nunix_socket_mode 660",
            "2: `unix_socket_mode` is for Unix sockets",
        ),
        (
            "listener 1\nunix_socket_owner a",
            "2: `unix_socket_owner` is for Unix sockets",
        ),
        (
            "listener 0 /s\nsocket_domain ipv6",
            "2: `socket_domain` is not for Unix sockets",
        ),
        (
            "listener 0 /s\nbind_interface lo",
            "2: `bind_interface` is not for Unix sockets",
        ),
        (
            "listener 1\nwebsockets_origin x",
            "2: `websockets_origin` has no effect without `protocol websockets`",
        ),
        (
            "listener 0 /s\nunix_socket_mode 888",
            "2:18: `888` are no permissions: an octal number up to 0777",
        ),
        (
            "listener 1\nprotocol http_api",
            "2:10: there is no http_api listener; numbers about the broker are served by `metrics`",
        ),
        (
            "log_timestamp_format %Q",
            "1:22: `%Q` is not known here, of strftime's conversions %YmdeHMSyjFTDRszZba% are",
        ),
        (
            "listener 1\naccept_protocol_versions 3,6",
            "2:26: `6` is none of 3, 4, 5",
        ),
    ] {
        assert_eq!(errors(text), [error], "{text}");
    }
}

/// Files of a directory are read where it is named, in the order that Mosquitto gives their names, each with its own lines;
/// what they say again wins, and what is wrong in them is told with their name.
#[test]
fn included_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("b.conf", "listener 2\nmax_connections 20\n");
    write("a.conf", "allow_anonymous true\n");
    write("B.conf", "listener 3\n");
    write("C.conf", "listener 4\n");
    write("ignored.txt", "frobnicate\n");
    let main = format!(
        "allow_anonymous false\nlistener 1\ninclude_dir {}\nmax_connections 10\n",
        dir.path().display()
    );
    let config = parse(&main).unwrap();
    let said: Vec<_> = config
        .listeners
        .iter()
        .map(|l| (l.to_string(), l.connections_max, l.auth.allow_anonymous))
        .collect();
    // The last line is still of the main file's listener.
    assert_eq!(
        said,
        [
            ("*:1".to_owned(), Some(10), true),
            ("*:3".to_owned(), None, true),
            ("*:2".to_owned(), Some(20), true),
            ("*:4".to_owned(), None, true)
        ]
    );
    assert_eq!(
        config.warnings[0].to_string(),
        format!("{}/a.conf:1:1: wins over line 1 of /etc/sol.conf", dir.path().display())
    );
    write("c.conf", "\nmax_keepalive soon\nmount_point x\ninclude_dir /\n");
    let refused = parse(&main).unwrap_err();
    let at = format!("{}/c.conf", dir.path().display());
    assert_eq!(
        refused.to_string(),
        format!(
            "{at}:2:15: `soon` is not a whole number from 0 to 65535\n\
             {at}:3:1: `mount_point` stands below the `listener` that it is for\n\
             {at}:4:1: include_dir stands in the main file alone"
        )
    );
    assert_eq!(
        errors("include_dir /nonexistent"),
        ["1: /nonexistent cannot be read: No such file or directory"]
    );
}

/// Of a switch that another file says again the last line wins, be it the one that turns it off, as its warning says.
#[test]
fn the_last_line_wins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.conf");
    let tls = "port 1\ncertfile /c\nkeyfile /k\ncafile /a";
    for (main, included, name) in [
        ("use_identity_as_username true", "use_identity_as_username false", None),
        (
            "use_identity_as_username true\nuse_subject_as_username true",
            "use_identity_as_username false",
            Some(CertificateName::Subject),
        ),
        (
            "use_subject_as_username false",
            "use_subject_as_username true",
            Some(CertificateName::Subject),
        ),
    ] {
        // What is included speaks of the default listener, as what stands below `port` does.
        std::fs::write(&file, included).unwrap();
        let text = format!("{tls}\n{main}\ninclude_dir {}\n", dir.path().display());
        let config = parse(&text).unwrap();
        assert_eq!(config.listeners[0].certificate_name, name, "{main}, {included}");
    }
    let per_listener = |main: &str, included: &str| {
        std::fs::write(&file, included).unwrap();
        parse(&format!("{main}\ninclude_dir {}\nlistener 1\n", dir.path().display()))
    };
    let shared = "per_listener_settings false\nlistener 2\nallow_anonymous true\n";
    let config = per_listener("per_listener_settings true", shared).unwrap();
    assert!(config.listeners.iter().all(|listener| listener.auth.allow_anonymous));
    let too_late = per_listener(
        "per_listener_settings true\nallow_anonymous true",
        "per_listener_settings false",
    );
    let text = too_late.unwrap_err().to_string();
    assert!(
        text.contains("1: per_listener_settings stands above all directives"),
        "{text}"
    );
}

/// Files for browsers need a listener that browsers can speak to; a file of Mosquitto that has them elsewhere starts.
#[test]
fn files_without_websockets() {
    let warnings = |text: &str| {
        let config = parse(text).unwrap();
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let allowed = "allow_anonymous true\n";
    let said = warnings(&format!("listener 1\nhttp_dir /srv\n{allowed}"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].ends_with(":2: `http_dir` has no effect without `protocol websockets`"),
        "{said:?}"
    );
    let none = warnings(&format!("listener 1\nhttp_dir /srv\nprotocol websockets\n{allowed}"));
    assert!(none.is_empty(), "{none:?}");
}

/// Mosquitto's `persistence true` is the strongest promise that there is; a directory alone is the one that costs little.
#[test]
fn what_persistence_promises() {
    for (lines, said) in [
        ("persistence true", "fsync"),
        ("persistence TRUE", "fsync"),
        ("retained_persistence 1", "fsync"),
        ("persistence fsync", "fsync"),
        ("persistence os", "os"),
        ("persistence false\npersistence_location /d", "none"),
        ("persistence 0", "none"),
        ("persistence_location /d", "os"),
        ("persistence_location /d\npersistence fsync", "fsync"),
        ("", "none"),
    ] {
        let text = format!("listener 1883\n{lines}\nallow_anonymous true\n");
        let config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap();
        assert_eq!(config.warnings, [], "{lines}");
        let printed = config.to_directives();
        assert!(
            printed.contains(&format!("\npersistence {said}\n")),
            "{lines}: {printed}"
        );
    }
    for line in [
        "persistence maybe",
        "persistence_damage ignore",
        "persistence_max_size lots",
    ] {
        let text = format!("listener 1883\n{line}\nallow_anonymous true\n");
        let refused = Config::parse("f".as_ref(), text.as_bytes(), &Host::default());
        assert!(refused.is_err(), "{line}");
    }
}

/// What changes nothing is taken, and said to change nothing.
#[test]
fn without_effect() {
    for line in [
        "persistence_file mosquitto.db",
        "autosave_interval 1800",
        "autosave_on_changes false",
        "dhparamfile /dh",
        "retry_interval 20",
        "allow_duplicate_messages true",
        "packet_buffer_size 4096",
        "websockets_log_level 0",
        "log_dest dlt",
    ] {
        let said = warnings(&format!("{line}\nallow_anonymous true"));
        assert!(said[0].contains("has no effect"), "{line}: {said:?}");
    }
}
