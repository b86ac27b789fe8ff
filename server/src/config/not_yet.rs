//! What is understood but has no effect in this build.
//!
//! It is refused, because starting without it would promise what does not happen. Whatever gets its effect leaves this
//! list.

use super::listener::Listener;
use super::{Config, Diagnostic, Protocol, Refused, Versions};

/// Whether something is asked for.
enum Asked {
    OfBroker(fn(&Config) -> bool),
    OfListener(fn(&Listener) -> bool),
}

use Asked::{OfBroker, OfListener};

/// The directives that may have asked for it, the one that is named first; and what is missing.
const LIST: &[(&[&str], Asked, &str)] = &[
    (&["certfile"], OfListener(|l| l.tls.is_some()), "TLS"),
    (
        &["protocol"],
        OfListener(|l| l.protocol == Protocol::WebSockets),
        "WebSocket",
    ),
    (
        &["http_dir"],
        OfListener(|l| l.websockets.http_dir.is_some()),
        "serving files to browsers",
    ),
    (
        &["enable_proxy_protocol"],
        OfListener(|l| l.proxy.is_some()),
        "the PROXY protocol",
    ),
    (
        &["mount_point"],
        OfListener(|l| l.mount_point.is_some()),
        "moving a listener's topics",
    ),
    (
        &["use_username_as_clientid"],
        OfListener(|l| l.auth.use_username_as_clientid),
        "naming clients by their users",
    ),
    (
        &["clientid_prefixes"],
        OfListener(|l| l.auth.clientid_prefixes.is_some()),
        "judging Client Identifiers",
    ),
    (
        &["accept_protocol_versions"],
        OfListener(|l| l.versions != Versions::ALL),
        "refusing versions of MQTT",
    ),
    (
        &["max_connections"],
        OfListener(|l| l.connections_max.is_some()),
        "a limit of one listener's connections",
    ),
    (
        &["socket_domain"],
        OfListener(|l| l.socket.domain.is_some()),
        "choosing a family of addresses",
    ),
    (
        &["bind_interface"],
        OfListener(|l| l.socket.interface.is_some()),
        "choosing an interface",
    ),
    (
        &["unix_socket_mode"],
        OfListener(|l| l.socket.unix_mode.is_some()),
        "choosing a socket's permissions",
    ),
    (
        &["unix_socket_owner"],
        OfListener(|l| l.socket.unix_owner.is_some()),
        "choosing a socket's owner",
    ),
    (
        &["password_file"],
        OfBroker(password_files_differ),
        "a password file for each listener",
    ),
    (
        &[
            "allow_zero_length_clientid",
            "auto_id_prefix",
            "listener_auto_id_prefix",
            "max_qos",
            "maximum_qos",
            "max_topic_alias",
            "max_topic_alias_broker",
        ],
        OfBroker(listeners_differ),
        "another value at another listener",
    ),
    (
        &["max_inflight_bytes"],
        OfBroker(|c| c.limits.inflight_bytes_max.is_some()),
        "counting the bytes of messages on their way",
    ),
    (
        &["message_size_limit"],
        OfBroker(|c| c.limits.payload_bytes_max.is_some()),
        "measuring payloads",
    ),
    (
        &["global_max_clients"],
        OfBroker(|c| c.limits.sessions_max.is_some()),
        "a limit of Sessions",
    ),
    (
        &["upgrade_outgoing_qos"],
        OfBroker(|c| c.limits.upgrade_outgoing_qos),
        "raising the QoS of messages",
    ),
    (
        &["retain_expiry_interval"],
        OfBroker(|c| c.limits.retain_expiry.is_some()),
        "the end of retained messages",
    ),
    (&["log_dest"], OfBroker(|c| c.log.syslog), "the system's log"),
    (&["log_dest"], OfBroker(|c| c.log.topic), "publishing log lines"),
    (
        &["log_timestamp_format"],
        OfBroker(|c| c.log.timestamp_format.is_some()),
        "another form of the time",
    ),
    (
        &["connection_messages"],
        OfBroker(|c| !c.log.connections),
        "keeping quiet about connections",
    ),
    (&["user"], OfBroker(|c| c.user.is_some()), "dropping privileges"),
];

impl Config {
    /// What is asked for and has no effect in this build, a sentence each.
    pub fn not_yet(&self) -> Vec<Diagnostic> {
        let mut missing = Vec::new();
        for (names, asked, what) in LIST {
            let text = |name: &str| format!("`{name}`: {what} is not in this build yet");
            match asked {
                OfBroker(asked) if asked(self) => {
                    let places = self.listeners.iter().map(|listener| &listener.places);
                    let found = places
                        .chain([&self.places])
                        .find_map(|places| places.first(names.iter().copied()));
                    missing.extend(found.map(|(name, place)| place.say(text(name))));
                }
                OfBroker(_) => {}
                OfListener(asked) => {
                    for listener in self.listeners.iter().filter(|listener| asked(listener)) {
                        let name = names[0];
                        let place = listener.places.of(name).or_else(|| self.places.of(name));
                        let said = place.unwrap_or(&listener.place).say(text(name));
                        if !missing.contains(&said) {
                            missing.push(said);
                        }
                    }
                }
            }
        }
        missing
    }

    /// Refuses what has no effect in this build.
    pub(crate) fn refuse_not_yet(self) -> Result<Self, Refused> {
        let errors = self.not_yet();
        if errors.is_empty() {
            return Ok(self);
        }
        Err(Refused {
            errors,
            warnings: self.warnings,
        })
    }
}

fn listeners_differ(config: &Config) -> bool {
    let shared = |listener: &Listener| {
        let auth = &listener.auth;
        (
            auth.allow_zero_length_clientid,
            auth.auto_id_prefix.clone(),
            listener.qos_max,
            listener.topic_alias_max,
            listener.topic_alias_broker_max,
        )
    };
    config
        .listeners
        .windows(2)
        .any(|pair| shared(&pair[0]) != shared(&pair[1]))
}

fn password_files_differ(config: &Config) -> bool {
    let mut files = config
        .listeners
        .iter()
        .filter_map(|listener| listener.auth.password_file.as_ref());
    let first = files.next();
    files.any(|file| Some(file) != first)
}
