//! Mosquitto's directives that are not read yet.
//!
//! They are refused by name, because skipping one would promise what does not happen.

/// Names, separated by spaces, and the sentence that refuses them.
const LATER: [(&str, &str); 4] = [
    (
        "psk_hint psk_file",
        "pre-shared keys are not supported: clients are told apart by certificates or passwords",
    ),
    (
        "tls_engine tls_engine_kpass_sha1",
        "keys in hardware are not supported; the key stands in a file",
    ),
    (
        "connection address addresses topic bridge_protocol_version bridge_attempt_unsubscribe bridge_bind_address \
         bridge_max_packet_size bridge_max_topic_alias bridge_receive_maximum bridge_session_expiry_interval \
         bridge_outgoing_retain bridge_reload_type bridge_tcp_keepalive bridge_tcp_user_timeout cleansession \
         local_cleansession clientid remote_clientid local_clientid username remote_username password remote_password \
         local_username local_password keepalive_interval idle_timeout notifications notifications_local_only \
         notification_topic restart_timeout round_robin start_type threshold try_private bridge_cafile bridge_capath \
         bridge_certfile bridge_keyfile bridge_insecure bridge_alpn bridge_identity bridge_psk bridge_require_ocsp \
         bridge_tls_version bridge_tls_use_os_certs bridge_ciphers bridge_ciphers_tls1.3",
        "bridges are not supported yet",
    ),
    (
        "plugin global_plugin plugin_load plugin_use auth_plugin auth_plugin_deny_special_chars",
        "plugins are not supported",
    ),
];

/// Why `name` is refused although Mosquitto knows it.
pub(crate) fn later(name: &str) -> Option<&'static str> {
    if name.starts_with("plugin_opt_") || name.starts_with("auth_opt_") {
        return Some("plugins are not supported");
    }
    LATER
        .iter()
        .find(|(names, _)| names.split(' ').any(|known| known == name))
        .map(|(_, sentence)| *sentence)
}

/// Every name that [`later`] knows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    LATER.iter().flat_map(|(names, _)| names.split(' '))
}
