//! Mosquitto's directives that are not read yet.
//!
//! They are refused by name, because skipping one would promise what does not happen.

/// Names, separated by spaces, and the sentence that refuses them.
const LATER: [(&str, &str); 11] = [
    (
        "cafile capath certfile keyfile crlfile require_certificate use_identity_as_username use_subject_as_username \
         tls_version ciphers ciphers_tls1.3 dhparamfile psk_hint psk_file tls_engine tls_engine_kpass_sha1 tls_keyform \
         disable_client_cert_date_checks",
        "TLS is not supported yet",
    ),
    (
        "protocol http_dir websockets_origin websockets_log_level websockets_headers_size",
        "WebSocket is not supported yet",
    ),
    (
        "enable_proxy_protocol proxy_protocol_v2_require_tls",
        "the PROXY protocol is not supported yet",
    ),
    ("acl_file check_retain_source", "access rules are not supported yet"),
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
        "persistence_location persistence_file autosave_interval autosave_on_changes retained_persistence",
        "persistence is not supported yet; everything is in memory",
    ),
    (
        "plugin global_plugin plugin_load plugin_use auth_plugin auth_plugin_deny_special_chars enable_control_api",
        "plugins are not supported",
    ),
    (
        "per_listener_settings listener_allow_anonymous listener_auto_id_prefix mount_point use_username_as_clientid \
         clientid_prefixes accept_protocol_versions socket_domain bind_interface max_topic_alias_broker",
        "settings of one listener alone are not supported yet",
    ),
    ("include_dir", "including other files is not supported yet"),
    (
        "user",
        "dropping privileges is not supported yet; start as the user that is meant",
    ),
    (
        "global_max_connections global_max_clients max_inflight_bytes upgrade_outgoing_qos message_size_limit \
         retain_expiry_interval log_timestamp_format log_facility connection_messages packet_buffer_size retry_interval \
         allow_duplicate_messages",
        "this is not supported yet",
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
