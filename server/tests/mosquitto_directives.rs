//! Every directive that stands in real files of Mosquitto is known here: in force, taken and said to change nothing, or
//! refused by its name. None is passed over.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeSet;

use sol_server::config::{Config, Host, directives};

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is printed as it is in force, below its listener if it is of one.
    InForce,
    /// It says the same as the directive of this name, which is printed.
    SaidBy(&'static str),
    /// A warning says that it has no effect.
    NoEffect,
    /// It is refused by its name.
    Refused,
}

use Fate::{InForce, NoEffect, Refused, SaidBy};

/// Lines below `listener 1883`, and what else they need.
const LINES: &[(&str, &str, Fate)] = &[
    ("listener 1884 localhost", "", InForce),
    ("port 1884", "", SaidBy("listener 1884")),
    ("bind_address localhost", "", SaidBy("listener 1883 localhost")),
    ("protocol websockets", "", InForce),
    ("protocol mqtt", "", InForce),
    ("socket_domain ipv4", "", InForce),
    ("bind_interface lo", "", InForce),
    ("allow_anonymous true", "", InForce),
    ("password_file /p", "", InForce),
    ("acl_file /a", "", InForce),
    ("per_listener_settings false", "", SaidBy("allow_anonymous false")),
    ("listener_allow_anonymous true", "", SaidBy("allow_anonymous true")),
    ("max_connections 7", "", InForce),
    ("global_max_connections 7", "", InForce),
    ("global_max_clients 7", "", InForce),
    ("mount_point home/", "", InForce),
    ("use_username_as_clientid true", "", InForce),
    ("clientid_prefixes home-", "", InForce),
    ("allow_zero_length_clientid false", "", InForce),
    ("auto_id_prefix x-", "", InForce),
    ("listener_auto_id_prefix x-", "", SaidBy("auto_id_prefix x-")),
    ("persistence false", "", SaidBy("persistence none")),
    ("persistence true", "", SaidBy("persistence fsync")),
    ("persistence os", "", InForce),
    ("persistence_location /var/lib/mosquitto/", "", InForce),
    ("persistence_max_size 100MB", "", InForce),
    ("persistence_damage salvage", "", InForce),
    ("persistence_file mosquitto.db", "", NoEffect),
    ("autosave_interval 1800", "", NoEffect),
    ("autosave_on_changes true", "", NoEffect),
    ("retained_persistence false", "", SaidBy("persistence none")),
    ("retained_persistence true", "", SaidBy("persistence fsync")),
    (
        "persistent_client_expiration 2m",
        "",
        SaidBy("persistent_client_expiration 60d"),
    ),
    ("retain_available false", "", InForce),
    ("retain_expiry_interval 90", "", InForce),
    ("check_retain_source false", "", InForce),
    ("max_inflight_messages 7", "", InForce),
    ("max_inflight_bytes 7", "", InForce),
    ("max_queued_messages 7", "", InForce),
    ("max_queued_bytes 7", "", InForce),
    ("queue_qos0_messages true", "", InForce),
    ("upgrade_outgoing_qos true", "", InForce),
    ("max_packet_size 70000", "", InForce),
    ("message_size_limit 7", "", InForce),
    ("memory_limit 10000001", "", SaidBy("max_memory 10000001")),
    ("max_keepalive 7", "", InForce),
    ("max_qos 1", "", InForce),
    ("maximum_qos 1", "", SaidBy("max_qos 1")),
    ("max_topic_alias 7", "", InForce),
    ("max_topic_alias_broker 7", "", InForce),
    ("set_tcp_nodelay false", "", InForce),
    ("sys_interval 7", "", InForce),
    ("log_dest stdout", "", InForce),
    ("log_dest file /var/log/sol.log", "", InForce),
    ("log_dest syslog", "", InForce),
    ("log_dest topic", "", InForce),
    ("log_dest dlt", "", NoEffect),
    ("log_type error", "", InForce),
    ("log_timestamp false", "", InForce),
    ("log_timestamp_format %F", "", InForce),
    ("log_facility 3", "", InForce),
    ("connection_messages false", "", InForce),
    ("include_dir /nonexistent", "", Refused),
    ("pid_file /run/sol.pid", "", InForce),
    ("user mosquitto", "", InForce),
    ("cafile /a", "certfile /c\nkeyfile /k\n", InForce),
    ("capath /a", "certfile /c\nkeyfile /k\n", InForce),
    ("certfile /c", "keyfile /k\n", InForce),
    ("keyfile /k", "certfile /c\n", InForce),
    ("crlfile /r", "certfile /c\nkeyfile /k\ncafile /a\n", InForce),
    (
        "require_certificate true",
        "certfile /c\nkeyfile /k\ncafile /a\n",
        InForce,
    ),
    (
        "use_identity_as_username true",
        "certfile /c\nkeyfile /k\ncafile /a\n",
        InForce,
    ),
    (
        "use_subject_as_username true",
        "certfile /c\nkeyfile /k\ncafile /a\n",
        InForce,
    ),
    ("tls_version tlsv1.3", "certfile /c\nkeyfile /k\n", InForce),
    ("ciphers A:B", "certfile /c\nkeyfile /k\n", InForce),
    ("ciphers_tls1.3 A:B", "certfile /c\nkeyfile /k\n", InForce),
    (
        "disable_client_cert_date_checks true",
        "certfile /c\nkeyfile /k\n",
        InForce,
    ),
    ("dhparamfile /d", "", NoEffect),
    ("psk_hint x", "", Refused),
    ("psk_file /p", "", Refused),
    ("accept_protocol_versions 3, 5", "", InForce),
    ("enable_proxy_protocol 2", "proxy_protocol_from 127.0.0.1\n", InForce),
    (
        "proxy_protocol_v2_require_tls true",
        "proxy_protocol_from 127.0.0.1\nenable_proxy_protocol 2\n",
        InForce,
    ),
    ("http_dir /srv", "protocol websockets\n", InForce),
    ("http_dir /srv", "", NoEffect),
    ("websockets_origin https://a.example", "protocol websockets\n", InForce),
    // What is seldom met.
    ("plugin /x.so", "", Refused),
    ("global_plugin /x.so", "", Refused),
    ("plugin_load a /x.so", "", Refused),
    ("plugin_use a", "", Refused),
    ("auth_plugin /x.so", "", Refused),
    ("plugin_opt_a b", "", Refused),
    ("auth_opt_a b", "", Refused),
    ("auth_plugin_deny_special_chars true", "", Refused),
    ("enable_control_api true", "", Refused),
    ("tls_engine x", "", Refused),
    ("tls_engine_kpass_sha1 x", "", Refused),
    ("tls_keyform engine", "", Refused),
    ("websockets_log_level 0", "", NoEffect),
    ("websockets_headers_size 512", "", InForce),
    ("websockets_headers_size 0", "", SaidBy("websockets_headers_size 4096")),
    ("packet_buffer_size 512", "", NoEffect),
    ("retry_interval 20", "", NoEffect),
    ("allow_duplicate_messages true", "", NoEffect),
    ("connection cloud", "", Refused),
    ("address 192.0.2.1", "", Refused),
    ("topic # both 1", "", Refused),
    ("bridge_cafile /a", "", Refused),
    ("remote_username u", "", Refused),
];

fn fate(line: &str, more: &str) -> (Fate, String) {
    let name = line.split(' ').next().unwrap();
    let text = if name == "per_listener_settings" {
        format!("{line}\nlistener 1883\n")
    } else {
        format!("listener 1883\n{more}{line}\n")
    };
    let config = match Config::parse("/etc/sol.conf".as_ref(), text.as_bytes(), &Host::default()) {
        Ok(config) => config,
        Err(refused) => {
            let text = refused.to_string();
            assert!(!text.contains("unknown directive"), "{text}");
            return (Refused, text);
        }
    };
    let mut warnings = config.warnings.iter().map(ToString::to_string);
    let says_none = |text: &String| text.contains("has no effect") && text.contains(name) && name != "user";
    if let Some(said) = warnings.find(says_none) {
        return (NoEffect, said);
    }
    (InForce, config.to_directives())
}

/// Each line has its fate, and what is in force is printed as it stands.
#[test]
fn no_directive_is_passed_over() {
    for &(line, more, wanted) in LINES {
        let (fate, text) = fate(line, more);
        if line.starts_with("user ") {
            // Who is not root has nothing to give up.
            assert_eq!(fate, InForce, "{text}");
            continue;
        }
        let shown = match wanted {
            SaidBy(shown) => shown,
            _ => line,
        };
        match wanted {
            InForce | SaidBy(_) => {
                assert_eq!(fate, InForce, "{line}: {text}");
                assert!(
                    text.lines().any(|printed| printed == shown),
                    "{shown} is not in force:\n{text}"
                );
            }
            _ => assert_eq!(fate, wanted, "{line}: {text}"),
        }
    }
}

/// The table has every directive of that dialect but our own.
#[test]
fn every_directive_has_a_line() {
    let ours = BTreeSet::from([
        "max_memory",
        "max_messages_rate",
        "max_bytes_rate",
        "max_connect_rate",
        "max_connections_per_address",
        "max_connections_per_user",
        "listener_max_messages_rate",
        "listener_max_bytes_rate",
        "listener_max_connect_rate",
        "listener_max_connections_per_address",
        "listener_max_connections_per_user",
        "queue_full",
        "auth_order",
        "jwt_key_file",
        "jwt_audience",
        "jwt_issuer",
        "jwt_username_claim",
        "http_auth_url",
        "http_auth_cafile",
        "http_auth_timeout",
        "http_auth_cache",
        "max_connect_size",
        "connect_timeout",
        "login_failures_max",
        "login_failures_window",
        "login_ban",
        "login_ban_exempt",
        "log_format",
        "metrics",
        "shards",
        "pin_shards",
        "io",
        "unix_socket_mode",
        "unix_socket_owner",
        "proxy_protocol_from",
        "sandbox",
    ]);
    let lines: BTreeSet<_> = LINES.iter().filter_map(|(line, ..)| line.split(' ').next()).collect();
    for row in directives().filter(|row| row.is_in(sol_server::config::Dialect::Listener)) {
        assert_ne!(lines.contains(row.name), ours.contains(row.name), "{}", row.name);
    }
}
