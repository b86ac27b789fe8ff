//! The old broker's dialect: what its users' files mean here, and what they are told about it.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails where it unwraps; its tables are data"
)]

use sol_server::config::{Config, Dialect, Host, Levels, Overrides, Refused, TlsVersion, directives};

const OLD_SAMPLE: &str = include_str!("data/old-sample.conf");

fn parse(text: &str) -> Result<Config, Refused> {
    parse_on(text, 8 << 30)
}

fn parse_on(text: &str, memory_bytes: u64) -> Result<Config, Refused> {
    Config::parse(
        "/etc/sol.conf".as_ref(),
        text.as_bytes(),
        &Host {
            memory_bytes,
            ..Host::default()
        },
    )
}

/// Accepted, with exactly these warnings.
fn warnings(text: &str) -> Vec<String> {
    let config = parse(text).unwrap_or_else(|refused| panic!("{refused}"));
    config
        .warnings
        .iter()
        .map(|warning| warning.to_string().replace("/etc/sol.conf:", ""))
        .collect()
}

/// Refused, with exactly these errors.
fn errors(text: &str) -> Vec<String> {
    let refused = parse(text).unwrap_err();
    refused
        .errors
        .iter()
        .map(|error| error.to_string().replace("/etc/sol.conf:", ""))
        .collect()
}

/// The old sample file with its TLS lines commented out starts; the one warning is about the protocols without TLS.
#[test]
fn old_sample_without_tls() {
    assert_eq!(
        warnings(OLD_SAMPLE),
        ["26:15: tls_protocols has no effect without certfile and keyfile"]
    );
    let config = parse(OLD_SAMPLE).unwrap();
    assert_eq!(
        config.to_directives(),
        "\
# /etc/sol.conf, read in the dialect `sol`
log_level DEBUG
log_path /tmp/sol.log
ip_address 127.0.0.1
ip_port 8883
max_memory 2GB
max_request_size 50MB
tcp_backlog 128
stats_publish_interval 10s
allow_anonymous true
max_connections -1
queue_full refuse
max_keepalive 0
max_connect_size 16KB
connect_timeout 5
max_messages_rate 0
max_bytes_rate 0
max_connect_rate 0
max_connections_per_address 0
max_connections_per_user 0
login_failures_max 20
login_failures_window 600s
login_ban 600s
login_ban_exempt 127.0.0.0/8 ::1/128
log_format text
sandbox on
persistence none
persistence_max_size 0
persistence_damage refuse
shards auto
pin_shards false
io auto
# shards auto is 1 here
# metrics 127.0.0.1:9883, if that port is free
"
    );
}

/// With its TLS lines it is encrypted by the versions that are spoken, and the others are warned about.
#[test]
fn old_sample_with_tls() {
    let text = OLD_SAMPLE
        .replace("# cafile", "cafile")
        .replace("# certfile", "certfile")
        .replace("# keyfile", "keyfile");
    assert_eq!(
        warnings(&text),
        ["26:15: `tlsv1_1` is not spoken: it can be broken, and RFC 8996 forbids it; clients need TLS 1.2 or 1.3",]
    );
    let config = parse(&text).unwrap();
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert!(tls.cafile.is_some() && !tls.require_certificate);
    assert_eq!((tls.version_min, tls.version_max), (TlsVersion::V1_2, TlsVersion::V1_3));
    assert_eq!(config.listeners[0].place_of("keyfile").line, 22);
    let only = |list: &str| text.replace("tlsv1,tlsv1_1,tlsv1_2,tlsv1_3", list);
    let newest = parse(&only("tlsv1_3")).unwrap();
    assert_eq!(newest.listeners[0].tls.as_ref().unwrap().version_min, TlsVersion::V1_3);
    assert!(newest.to_directives().contains("tls_protocols tlsv1_3\n"));
    assert!(errors(&only("tlsv1"))[0].starts_with("26:15: `tlsv1` is not spoken"));
}

/// Authorities, key or certificate alone are refused: whoever names one expects encryption.
#[test]
fn no_tls_file_goes_alone() {
    for key in ["cafile", "certfile", "keyfile", "CertF"] {
        assert_eq!(errors(&format!("ip_port 1883\n{key} x")).len(), 1, "{key}");
    }
}

/// The defaults of the old broker's code hold for every key that is not given.
#[test]
fn defaults() {
    let config = parse("ip_port 1883").unwrap();
    assert_eq!(config.dialect, Dialect::Sol);
    assert_eq!(config.listeners[0].to_string(), "127.0.0.1:1883");
    assert_eq!(config.limits.memory_bytes_max, Some(2 << 30));
    assert_eq!(config.limits.packet_bytes_max, 512 << 10);
    assert_eq!(config.tcp_backlog, 4096);
    assert_eq!(config.sys_interval.unwrap().as_secs(), 10);
    assert_eq!(config.log.levels, Levels::UP_TO_WARNING);
    assert!(config.listeners[0].auth.allow_anonymous);
    assert_eq!(
        (
            config.listeners[0].topic_alias_max,
            config.listeners[0].topic_alias_broker_max
        ),
        (32, 32)
    );
    assert_eq!(config.warnings, []);
}

/// Each trap of the old syntax is read, and said.
#[test]
fn every_trap_has_its_warning() {
    for (line, warning) in [
        (
            "ip_port 1883  # the port",
            "1:15: `# the port` is ignored: a key has one value",
        ),
        (
            "ip_prot 1883",
            "1:1: unknown key `ip_prot` is ignored; did you mean `ip_port`?",
        ),
        ("colour blue", "1:1: unknown key `colour` is ignored"),
        (
            " # indented",
            "1:2: taken for a comment, though a comment starts in the first column",
        ),
        ("log DEBUG", "1:1: `log` is read as log_level"),
        ("log_level D", "1:11: `D` is read as DEBUG"),
        (
            "log_level info",
            "1:11: `info` is honoured now; the old broker ignored it and stayed at WARNING",
        ),
        (
            "log_level debgu",
            "1:11: `debgu` is no log level, WARNING stays; did you mean `debug`?",
        ),
        ("log_level", "1:1: `log_level` has no value, its default stays"),
        ("log_path", "1:1: `log_path` has no value, its default stays"),
        (
            "stats_publish_interval 1h",
            "1:24: `1h` is read as 3600 seconds; the old broker read it as 1 seconds",
        ),
        (
            "max_memory 5000000K",
            "1:12: `5000000K` is read as 5000000 bytes, as the old broker did; units are KB, MB and GB",
        ),
        (
            "allow_anonymous 0\npassword_file p",
            "1:17: `0` is read as false; the old broker read it as true",
        ),
        (
            "allow_anonymous FALSE",
            "1: nobody can connect: anonymous clients are refused and there is no password_file",
        ),
        (
            "password_file p",
            "1: password_file has no effect: anonymous clients are allowed",
        ),
        (
            "keepalive 60s",
            "1: keepalive has no effect: as in the old broker, each client names its own",
        ),
        (
            "tcp_backlog 9999",
            "1: tcp_backlog is cut to 4096, as the old broker did",
        ),
        (
            "tls_protocols tlsv1_2",
            "1:15: tls_protocols has no effect without certfile and keyfile",
        ),
        (
            "max_request_size 1GB",
            "1: cut to 268435460 bytes, the largest packet of the protocol",
        ),
    ] {
        // The last line only makes it the old broker's file.
        let text = format!("{line}\nip_address 127.0.0.1");
        assert_eq!(warnings(&text), [warning], "{line}");
    }
    let both = warnings("tls_protocols tlsv1_4,,tlsv1_2");
    assert_eq!(
        both[0],
        "1:15: `tlsv1_4` is no protocol of TLS; did you mean `tlsv1_1`?"
    );
}

/// There is one listener, and of two lines the later wins, with a warning that names the earlier.
#[test]
fn the_later_listener_wins() {
    let unix = "ip_address 127.0.0.1\nunix_socket /tmp/s.sock\n";
    assert_eq!(
        warnings(unix),
        ["2: wins over ip_address 127.0.0.1 of line 1: a sol file has one listener"]
    );
    assert_eq!(parse(unix).unwrap().listeners[0].to_string(), "/tmp/s.sock");
    let tcp = "unix_socket /tmp/s.sock\nip_address ::1\nip_port 1\nip_port 2";
    assert_eq!(
        warnings(tcp),
        [
            "2: wins over unix_socket /tmp/s.sock of line 1: a sol file has one listener",
            "4:1: wins over line 3"
        ]
    );
    assert_eq!(parse(tcp).unwrap().listeners[0].to_string(), "[::1]:2");
}

/// Keys are compared without case, as before.
#[test]
fn keys_have_no_case() {
    assert_eq!(
        parse("IP_PORT 7\nIp_Address 0.0.0.0").unwrap().listeners[0].to_string(),
        "0.0.0.0:7"
    );
}

/// A bad number, an oversized value and Mosquitto's names in a sol file are errors with a place, all at once.
#[test]
fn errors_have_places() {
    let text = "\
ip_port 65536
tcp_backlog many
max_memory lots
max_request_size 2M
max_memory 2G
acl_file /etc/acl
max_qos 1
stats_publish_interval soon
metrics here
allow_anonymous maybe
";
    assert_eq!(
        errors(text),
        [
            "1:9: `65536` is not a whole number from 0 to 65535",
            "2:13: `many` is not a whole number from 1 to 4294967295",
            "3:12: `lots` is not a size: a number with KB, MB, GB or nothing",
            "4: 2 bytes are too few, 128 is the least: no client could be served; units are KB, MB and GB",
            "5: 2 bytes are too few, 1048576 is the least: the limit is enforced, unlike in the old broker; units are \
             KB, MB and GB",
            "6:1: `acl_file` does not exist in a sol file: one file is either in the old broker's dialect or in \
             Mosquitto's",
            "7:1: `max_qos` does not exist in a sol file: one file is either in the old broker's dialect or in \
             Mosquitto's",
            "8:24: `soon` is not a time: a number with s, m, h, d or nothing",
            "9:9: `here` is neither ADDRESS:PORT nor off",
            "10:17: `maybe` is neither true nor false",
        ]
    );
    let host = "h".repeat(255);
    assert_eq!(
        errors(&format!("ip_address {host}")),
        ["1:12: host name longer than 254 bytes"]
    );
    let path = "p".repeat(120);
    assert_eq!(
        errors(&format!("unix_socket /{path}")),
        ["1:13: the path of a Unix socket has at most 103 bytes"]
    );
}

/// Names of our own are read in the old broker's file too, strictly.
#[test]
fn own_names_in_a_sol_file() {
    let text = "ip_port 1883\nlog_format sol\nmetrics off\npid_file /run/sol.pid\nmax_connections 10\n\
                queue_full drop_oldest\nconnect_timeout 3\nmax_connect_size 4KB\n";
    assert_eq!(warnings(text), [""; 0]);
    let shown = parse(text).unwrap().to_directives();
    for line in text.lines() {
        assert!(shown.contains(&format!("{line}\n")), "{line} in {shown}");
    }
}

/// What `sol check` prints is a file that means the same.
#[test]
fn printed_configuration_reads_back() {
    let text = "unix_socket /tmp/s.sock\nlog_level INFO\nmax_memory 3GB\nallow_anonymous false\npassword_file /p\n";
    for text in [OLD_SAMPLE, text] {
        let mut first = parse(text).unwrap();
        let mut second = parse(&first.to_directives()).unwrap();
        for config in [&mut first, &mut second] {
            config.warnings.clear();
        }
        assert_eq!(first, second);
    }
}

/// The old 2 GB are the limit where the machine has them; on a small one its own share, and more than it has is warned
/// about.
#[test]
fn memory_of_the_machine() {
    let limit = |text: &str, memory_bytes| parse_on(text, memory_bytes).unwrap().limits.memory_bytes_max;
    assert_eq!(limit("ip_port 1", 8 << 30), Some(2 << 30));
    assert_eq!(limit("ip_port 1", 1 << 30), Some(716 << 20));
    let config = parse_on("ip_port 1\nmax_memory 2GB", 1 << 30).unwrap();
    assert_eq!(config.limits.memory_bytes_max, Some(2 << 30), "the file wins");
    assert_eq!(
        config.warnings[0].to_string(),
        "/etc/sol.conf:2: 2GB are more than this process can have (1GB)"
    );
}

/// `::` is every interface, IPv4 too, as it was; the command line says the same with it.
#[test]
fn every_interface() {
    let mut config = parse("ip_address ::\nip_port 1884").unwrap();
    assert_eq!(config.listeners[0].to_string(), "*:1884");
    assert!(config.to_directives().contains("ip_address ::\n"));
    let overrides = |address: &str| Overrides {
        address: Some(address.to_owned()),
        ..Overrides::default()
    };
    config.apply(&overrides("::1")).unwrap();
    assert_eq!(config.listeners[0].to_string(), "[::1]:1884");
    config.apply(&overrides("::")).unwrap();
    assert_eq!(config.listeners[0].to_string(), "*:1884");
}

/// `-v` wins over a level of the file and says so; where the file names none, or everything, there is nothing to say.
#[test]
fn verbose_wins() {
    let warnings = |text: &str| {
        let mut config = parse(text).unwrap();
        let verbose = Overrides {
            verbose: true,
            ..Overrides::default()
        };
        config.apply(&verbose).unwrap();
        assert_eq!(config.log.levels, Levels::ALL);
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings("ip_port 1\nlog_level ERROR"),
        ["/etc/sol.conf:2: the command line wins: -v logs everything"]
    );
    assert_eq!(warnings("ip_port 1\nlog_level DEBUG"), [""; 0]);
    assert_eq!(warnings("ip_port 1"), [""; 0]);
}

const SHIPPED: &str = include_str!("../../conf/sol.conf");

/// The file that ships starts as it is, without a warning, and says nothing but defaults.
#[test]
fn shipped_file() {
    assert_eq!(warnings(SHIPPED), [""; 0]);
    let shipped = parse(SHIPPED).unwrap();
    assert_eq!(shipped, parse("ip_address 127.0.0.1").unwrap());
}

/// It explains every key: each stands in it, active or commented out, and what is commented out can be switched on.
#[test]
fn shipped_file_has_every_key() {
    let shown = |line: &str, name: &str| line.trim_start_matches("# ").split(' ').next() == Some(name);
    for directive in directives().filter(|directive| directive.is_in(Dialect::Sol)) {
        let name = directive.name;
        let line = SHIPPED
            .lines()
            .find(|line| shown(line, name))
            .unwrap_or_else(|| panic!("{name} is missing"));
        let text = format!("{}\nip_address 127.0.0.1", line.trim_start_matches("# "));
        if let Err(refused) = parse(&text) {
            // Of the three files none goes alone.
            assert!(["cafile", "certfile", "keyfile"].contains(&name), "{refused}");
        }
    }
}
