//! Mosquitto's dialect with our own names: strict, and fail closed.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails where it unwraps; its tables are data"
)]

use sol_server::config::{Address, Config, Dialect, Host, Io, Levels, LogStream, Metrics, Overrides, Refused, Shards};

const HOST: Host = Host {
    memory_bytes: 1 << 30,
    cores: 2,
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
listener 1883 127.0.0.1
set_tcp_nodelay true
allow_zero_length_clientid true
auto_id_prefix auto-
max_packet_size 1MB
max_connections -1
max_inflight_messages 256
max_queued_messages 10000
max_queued_bytes 8MB
queue_full refuse
queue_qos0_messages false
max_keepalive 0
max_qos 2
max_topic_alias 32
retain_available true
max_connect_size 16KB
connect_timeout 5
persistence false
sys_interval 10
log_dest stderr
log_type error
log_type warning
log_type information
log_format text
log_timestamp true
shards auto
pin_shards false
io auto
# shards auto is 2 here
# metrics 127.0.0.1:9883, if that port is free
"
    );
}

/// An empty file is as good as none; a listener shuts anonymous clients out unless they are let in by name.
#[test]
fn anonymous_only_where_it_is_said_or_local() {
    assert!(parse("").unwrap().auth.allow_anonymous);
    let config = parse("listener 1883").unwrap();
    assert_eq!(config.dialect, Dialect::Listener);
    assert!(!config.auth.allow_anonymous);
    assert_eq!(config.warnings.len(), 1, "nobody could connect");
    assert!(
        parse("listener 1883\nallow_anonymous true")
            .unwrap()
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
acl_file /etc/acl
connection cloud
persistence true
log_dest syslog
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
            "12:1: `acl_file`: access rules are not supported yet".to_owned(),
            "13:1: `connection`: bridges are not supported yet".to_owned(),
            "14:13: persistence is not supported yet; everything is in memory".to_owned(),
            "15:10: log_dest syslog is not supported yet".to_owned(),
            "16:10: `everything` is none of error, warning, notice, information, debug, all, none".to_owned(),
            "17:30: `5` is not a span: a number with h, d, w, m (months) or y".to_owned(),
            "18:16: `a/b` is longer than 50 bytes or has one of + # /".to_owned(),
            "19:2: unknown directive `#`".to_owned(),
            "20:1: unknown directive `frobnicate`".to_owned(),
            "21: 1 bytes are too few, 128 is the least: no client could be served; units are KB, MB and GB".to_owned(),
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
listener 0 /run/sol.sock
allow_anonymous true
memory_limit 0
max_packet_size 0
max_connections 100
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 3KB
queue_full drop_newest
queue_qos0_messages true
max_keepalive 600
max_qos 1
max_topic_alias 0
retain_available false
persistent_client_expiration 2m
sys_interval 0
log_dest stdout
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
    assert_eq!(first.limits.packet_bytes_max, 268_435_460);
    for listener in first.listeners.iter_mut().chain(&mut second.listeners) {
        listener.line = 0;
    }
    (first.log.levels_line, second.log.levels_line) = (0, 0);
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
