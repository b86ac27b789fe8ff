//! From the configuration to the engine's limits.

use std::num::NonZeroU32;
use std::sync::Arc;

use sol_codec::{ProtocolVersion, QoS};
use sol_engine::{EngineConfig, ListenerId, ListenerRules, ListenerTerms, QueueFull, Rules};
use sol_transport::{Admission, Limits, ListenerLimits, Rates};

use crate::config::demand::some;
use crate::config::{self, Authenticator, Config, Listener, Versions};
use crate::scram;

/// The engine's limits. The transport's listeners are told by the one of the configuration that each is of: a host name
/// may have bound several.
pub(crate) fn engine_config(
    config: &Config,
    rights: &[Option<Arc<Rules>>],
    listening: impl Iterator<Item = usize> + Clone,
) -> EngineConfig {
    let limits = &config.limits;
    let rules = |listener: usize| {
        let listener = &config.listeners[listener];
        ListenerRules {
            allow_anonymous: listener.auth.allow_anonymous,
            ask: listener.auth.checks_passwords(config.dialect),
            named: listener.certificate_name.is_some() && !listener.is_gone,
        }
    };
    let counted_at = |listener: usize| listening.clone().position(|other| other == listener);
    let terms = |listener: usize| terms(&config.listeners[listener], counted_at(listener));
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    EngineConfig {
        shards: config.shard_count(),
        listeners: listening.clone().map(rules).collect(),
        terms: listening.clone().map(terms).collect(),
        rights: listening
            .map(|listener| rights.get(listener).cloned().flatten())
            .collect(),
        maximum_packet_size: limits.packet_bytes_max,
        payload_bytes_max: limits.payload_bytes_max.map_or(usize::MAX, count),
        inflight_max: limits.inflight_max,
        inflight_bytes_max: limits.inflight_bytes_max.map_or(usize::MAX, size),
        upgrade_outgoing_qos: limits.upgrade_outgoing_qos,
        queue_max: limits.queued_messages_max.map_or(usize::MAX, count),
        queue_bytes_max: limits.queued_bytes_max.map_or(usize::MAX, size),
        queue_full: match limits.queue_full {
            config::QueueFull::Refuse => QueueFull::Refuse,
            config::QueueFull::DropNewest => QueueFull::DropNewest,
            config::QueueFull::DropOldest => QueueFull::DropOldest,
        },
        queue_qos0: limits.queue_qos0,
        keep_alive_max: limits.keep_alive_max.unwrap_or(0),
        session_expiry_max: limits
            .session_expiry_max
            .map_or(u32::MAX, |span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX)),
        retain_available: limits.retain_available,
        retained_expiry: limits
            .retain_expiry
            .map(|expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
        check_retain_source: limits.check_retain_source,
        authentication_methods: vec![scram::METHOD.to_owned()],
        connections_max: limits.connections_max.map_or(usize::MAX, count),
        connections_per_user_max: some(limits.demand.per_user_max).map_or(usize::MAX, count),
        sessions_max: limits.sessions_max.map_or(usize::MAX, count),
        memory_bytes_max: limits.memory_bytes_max.map_or(usize::MAX, size),
        ..EngineConfig::default()
    }
}

/// What the transport's listeners accept, and how fast their clients may send.
pub(crate) fn transport_limits(config: &Config, listening: impl Iterator<Item = usize> + Clone) -> Limits {
    let all = &config.limits.demand;
    let admission = |accepted: u32, per_address: u32| Admission {
        accepted_per_second: NonZeroU32::new(accepted),
        per_address_max: NonZeroU32::new(per_address),
    };
    let of = |listener: usize| {
        let own = &config.listeners[listener].demand;
        let counted_at = listening.clone().position(|other| other == listener);
        ListenerLimits {
            rates: Rates {
                messages_max: NonZeroU32::new(own.messages_rate_max.unwrap_or(all.messages_rate_max)),
                bytes_max: NonZeroU32::new(own.bytes_rate_max.unwrap_or(all.bytes_rate_max)),
            },
            admission: admission(own.connect_rate_max, own.per_address_max),
            counted_at: counted_at.and_then(|at| u16::try_from(at).ok()).map(ListenerId),
        }
    };
    Limits {
        all: admission(all.connect_rate_max, all.per_address_max),
        listeners: listening.clone().map(of).collect(),
    }
}

fn count(max: u32) -> usize {
    usize::try_from(max).unwrap_or(usize::MAX)
}

/// What the clients of one listener are granted, whose connections are counted at this one of the transport's.
fn terms(listener: &Listener, counted_at: Option<usize>) -> ListenerTerms {
    let auth = &listener.auth;
    let Versions { v31, v311, v5 } = listener.versions;
    let spoken = [
        (v31, ProtocolVersion::V31),
        (v311, ProtocolVersion::V311),
        (v5, ProtocolVersion::V5),
    ];
    let refused = spoken.into_iter().filter(|(spoken, _)| !spoken);
    ListenerTerms {
        connections_max: listener.connections_max.map_or(usize::MAX, count),
        connections_per_user_max: some(listener.demand.per_user_max).map_or(usize::MAX, count),
        counted_at: counted_at.and_then(|at| u16::try_from(at).ok()).map(ListenerId),
        maximum_qos: match listener.qos_max {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        topic_alias_maximum: listener.topic_alias_max,
        topic_alias_out_max: listener.topic_alias_broker_max,
        allow_empty_client_id: auth.allow_zero_length_clientid,
        assigned_client_id_prefix: auth.auto_id_prefix.clone(),
        client_id_prefix: auth.clientid_prefixes.clone(),
        username_is_client_id: auth.use_username_as_clientid,
        asks_nameless: auth.asks_nameless(),
        refuses_methods: !auth.order.contains(&Authenticator::PasswordFile),
        refused_versions: refused.map(|(_, version)| version).collect(),
        mount_point: listener.mount_point.as_deref().map(Arc::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn engine(text: &str) -> EngineConfig {
        engine_config(
            &Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap(),
            &[Some(Arc::new(Rules::for_open_listener()))],
            [0, 0].into_iter(),
        )
    }

    /// Every limit of the file arrives, and "no limit" is none.
    #[test]
    fn limits_arrive() {
        let config = engine(
            "listener 1\nallow_anonymous true\nmax_packet_size 1KB\nmax_inflight_messages 7\nmax_queued_messages 8\n\
             max_queued_bytes 9\nqueue_full drop_oldest\nqueue_qos0_messages true\nmax_topic_alias 3\nmax_topic_alias_broker 4\nmax_keepalive 60\n\
             persistent_client_expiration 1h\nmax_qos 1\nretain_available false\nallow_zero_length_clientid false\n\
             auto_id_prefix x\nglobal_max_connections 11\nmax_connections 12\nmax_memory 1MB\nmessage_size_limit 512\nmax_inflight_bytes 6\n\
             upgrade_outgoing_qos true\nretain_expiry_interval 2\nclientid_prefixes p-\nuse_username_as_clientid true\n\
             mount_point m/\naccept_protocol_versions 5\nglobal_max_clients 13\nmax_connections_per_user 5\n\
             listener_max_connections_per_user 3\n",
        );
        let wanted = EngineConfig {
            listeners: vec![
                ListenerRules {
                    allow_anonymous: true,
                    ask: false,
                    named: false,
                };
                2
            ],
            rights: vec![Some(Arc::new(Rules::for_open_listener())); 2],
            maximum_packet_size: 1024,
            inflight_max: 7,
            queue_max: 8,
            queue_bytes_max: 9,
            queue_full: QueueFull::DropOldest,
            queue_qos0: true,
            keep_alive_max: 60,
            session_expiry_max: 3600,
            retain_available: false,
            payload_bytes_max: 512,
            inflight_bytes_max: 6,
            upgrade_outgoing_qos: true,
            retained_expiry: Some(120),
            terms: vec![
                ListenerTerms {
                    connections_max: 12,
                    connections_per_user_max: 3,
                    counted_at: Some(ListenerId(0)),
                    maximum_qos: QoS::AtLeastOnce,
                    topic_alias_maximum: 3,
                    topic_alias_out_max: 4,
                    allow_empty_client_id: false,
                    assigned_client_id_prefix: "x".to_owned(),
                    client_id_prefix: Some("p-".to_owned()),
                    username_is_client_id: true,
                    asks_nameless: false,
                    refuses_methods: true,
                    refused_versions: vec![ProtocolVersion::V31, ProtocolVersion::V311],
                    mount_point: Some(Arc::from("m/")),
                };
                2
            ],
            authentication_methods: vec!["SCRAM-SHA-256".to_owned()],
            connections_max: 11,
            connections_per_user_max: 5,
            sessions_max: 13,
            memory_bytes_max: 1 << 20,
            ..EngineConfig::default()
        };
        assert_eq!(config, wanted);
        let unlimited = engine("max_queued_messages 0\nmax_queued_bytes 0\nmax_memory 0\nglobal_max_connections -1");
        assert_eq!(
            (unlimited.queue_max, unlimited.queue_bytes_max),
            (usize::MAX, usize::MAX)
        );
        assert_eq!(
            (unlimited.memory_bytes_max, unlimited.connections_max),
            (usize::MAX, usize::MAX)
        );
    }

    /// A listener's own rates win over those of all, 0 included; what is counted at a listener is counted beside what is counted
    /// at all, and two addresses of one listener are one.
    #[test]
    fn limits_of_the_transport() {
        let text = "max_messages_rate 10\nmax_bytes_rate 8KB\nmax_connect_rate 20\nmax_connections_per_address 4\n\
                    listener 1\nlistener_max_messages_rate 0\nlistener_max_bytes_rate 4KB\nlistener_max_connect_rate 5\n\
                    listener_max_connections_per_address 2\nlistener 2\n";
        let config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap();
        let limits = transport_limits(&config, [0, 0, 1].into_iter());
        let admission = |accepted, per_address| Admission {
            accepted_per_second: NonZeroU32::new(accepted),
            per_address_max: NonZeroU32::new(per_address),
        };
        let of = |messages, bytes, admission, counted_at| ListenerLimits {
            rates: Rates {
                messages_max: NonZeroU32::new(messages),
                bytes_max: NonZeroU32::new(bytes),
            },
            admission,
            counted_at: Some(ListenerId(counted_at)),
        };
        let first = of(0, 4 << 10, admission(5, 2), 0);
        let wanted = Limits {
            all: admission(20, 4),
            listeners: vec![first, first, of(10, 8 << 10, admission(0, 0), 2)],
        };
        assert_eq!(limits, wanted);
    }

    /// Who is asked about: nobody without a password file, and in the old dialect only with anonymous clients shut out.
    #[test]
    fn who_is_asked() {
        let rules = |text: &str| engine(text).listeners[0];
        let is = |allow_anonymous, ask| ListenerRules {
            allow_anonymous,
            ask,
            named: false,
        };
        assert_eq!(rules("ip_port 1"), is(true, false));
        assert_eq!(rules("ip_port 1\npassword_file p"), is(true, false));
        assert_eq!(
            rules("ip_port 1\npassword_file p\nallow_anonymous false"),
            is(false, true)
        );
        assert_eq!(rules("port 1\npassword_file p"), is(false, true));
        assert_eq!(rules("port 1\npassword_file p\nallow_anonymous true"), is(true, true));
        assert_eq!(rules("port 1"), is(false, false));
    }
}
