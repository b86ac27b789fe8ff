//! Every limit of the engine, with its unit and its default.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::num::NonZeroU16;
use core::time::Duration;

use sol_codec::{ProtocolVersion, QoS};

use crate::ids::ListenerId;
use crate::rights::rules::Rules;

/// What happens to a QoS 1 or 2 message when a Session's queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// The message is not queued. A 5.0 publisher gets Reason Code 0x97; for a 3.1.1 publisher, whose acknowledgement
    /// has no room for a reason, the drop is counted and told as an event.
    #[default]
    Refuse,
    /// The message is not queued, and counted.
    DropNewest,
    /// The oldest queued message makes room, and is counted.
    DropOldest,
}

/// Who may connect through one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRules {
    /// A CONNECT without a User Name is let in.
    pub allow_anonymous: bool,
    /// A CONNECT with a User Name or an Authentication Method is asked about ([`crate::Effects::auth_requests`]). When
    /// this is off nobody can be asked: a User Name is taken as it comes if anonymous clients are allowed, and no
    /// Authentication Method is supported.
    pub ask: bool,
    /// A client is who the transport says it is ([`crate::Input::Identified`]), whatever its CONNECT says; one of whom it
    /// says nothing is not let in.
    pub named: bool,
}

impl Default for ListenerRules {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            ask: false,
            named: false,
        }
    }
}

/// What the clients of one listener are granted, where listeners differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTerms {
    /// Sessions with a Network Connection of this listener, those of other shards included
    /// ([`crate::Elsewhere::ConnectionsOf`]).
    pub connections_max: usize,
    /// Sessions of one User Name with a Network Connection of this listener, those of other shards included
    /// ([`crate::Elsewhere::Tallies`]).
    pub connections_per_user_max: usize,
    /// Where these Sessions are counted, if not at this listener: at the first of those that share a limit. A reload must not
    /// change it.
    pub counted_at: Option<ListenerId>,
    /// As [`EngineConfig::maximum_qos`](field@EngineConfig::maximum_qos).
    pub maximum_qos: QoS,
    /// As [`EngineConfig::topic_alias_maximum`](field@EngineConfig::topic_alias_maximum).
    pub topic_alias_maximum: u16,
    /// As [`EngineConfig::topic_alias_out_max`](field@EngineConfig::topic_alias_out_max).
    pub topic_alias_out_max: u16,
    /// As [`EngineConfig::allow_empty_client_id`](field@EngineConfig::allow_empty_client_id).
    pub allow_empty_client_id: bool,
    /// As [`EngineConfig::assigned_client_id_prefix`](field@EngineConfig::assigned_client_id_prefix).
    pub assigned_client_id_prefix: String,
    /// What every Client Identifier has to begin with.
    pub client_id_prefix: Option<String>,
    /// The User Name is the Client Identifier, whatever CONNECT says; a client without one is refused.
    pub username_is_client_id: bool,
    /// A CONNECT with a Password and no User Name is asked about, too, where those with one are.
    pub asks_nameless: bool,
    /// Nobody can prove here who he is by an Authentication Method: there are no users that it could be about.
    pub refuses_methods: bool,
    /// Protocol versions that are refused.
    pub refused_versions: Vec<ProtocolVersion>,
    /// What stands before every topic of these clients, unseen by them. A reload must not change it.
    pub mount_point: Option<Arc<str>>,
}

impl Default for ListenerTerms {
    /// What [`EngineConfig::default`] says.
    fn default() -> Self {
        let all = EngineConfig::default();
        Self {
            connections_max: usize::MAX,
            connections_per_user_max: usize::MAX,
            counted_at: None,
            maximum_qos: all.maximum_qos,
            topic_alias_maximum: all.topic_alias_maximum,
            topic_alias_out_max: all.topic_alias_out_max,
            allow_empty_client_id: all.allow_empty_client_id,
            assigned_client_id_prefix: all.assigned_client_id_prefix,
            client_id_prefix: None,
            username_is_client_id: false,
            asks_nameless: false,
            refuses_methods: false,
            refused_versions: Vec::new(),
            mount_point: None,
        }
    }
}

/// The engine's limits and choices. Counts end in `_max`, byte counts in `_bytes_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Number of shards, each with an engine of its own; at most 64.
    pub shards: u16,
    /// One entry a listener, by [`crate::ListenerId`]; a listener beyond the end has the defaults.
    pub listeners: Vec<ListenerRules>,
    /// What the clients of each listener are granted, one entry a listener like `listeners`; a listener beyond the end has
    /// what is said below.
    pub terms: Vec<ListenerTerms>,
    /// Who may read and write what, one entry a listener like `listeners`; without one everything is allowed.
    pub rights: Vec<Option<Arc<Rules>>>,
    /// Largest packet a client may send, in bytes; announced as Maximum Packet Size.
    pub maximum_packet_size: u32,
    /// Largest payload that is passed on, in bytes.
    pub payload_bytes_max: usize,
    /// Levels of a Topic Name or Topic Filter.
    pub topic_levels_max: u16,
    /// Length of a Client Identifier, in bytes.
    pub client_id_bytes_max: usize,
    /// QoS 1 and 2 messages a client may have unacknowledged towards us; announced as Receive Maximum.
    pub receive_maximum: NonZeroU16,
    /// QoS 1 and 2 messages we have unacknowledged towards one client; its Receive Maximum may lower it.
    pub inflight_max: u16,
    /// Bytes of payload on their way to one client from which on no other message follows.
    pub inflight_bytes_max: usize,
    /// A message goes out with its Subscription's QoS, even where it was published with a lower one.
    pub upgrade_outgoing_qos: bool,
    /// Messages waiting in one Session.
    pub queue_max: usize,
    /// Bytes of messages waiting in one Session.
    pub queue_bytes_max: usize,
    /// What a full queue does.
    pub queue_full: QueueFull,
    /// QoS 0 messages are queued for a Session that is away, too.
    pub queue_qos0: bool,
    /// Topic Aliases a client may use; announced as Topic Alias Maximum.
    pub topic_alias_maximum: u16,
    /// Topic Aliases we use towards one client; its Topic Alias Maximum may lower it.
    pub topic_alias_out_max: u16,
    /// Longest Keep Alive in seconds, 0 for no cap; a longer one is answered with Server Keep Alive, and cut down in
    /// silence for clients whose version has no such answer.
    pub keep_alive_max: u16,
    /// Longest Session Expiry Interval in seconds, `u32::MAX` for no cap.
    pub session_expiry_max: u32,
    /// Highest QoS that clients may publish with.
    pub maximum_qos: QoS,
    /// Retained messages are kept and replayed.
    pub retain_available: bool,
    /// How long a retained message is kept that has no Message Expiry Interval, in seconds; `None` is for ever.
    pub retained_expiry: Option<u32>,
    /// A retained message whose publisher has lost the right to its topic is not replayed. Who that was is noted only
    /// while there are [`rights`](Self::rights).
    pub check_retain_source: bool,
    /// An empty Client Identifier is given an assigned one.
    pub allow_empty_client_id: bool,
    /// What an assigned Client Identifier begins with.
    pub assigned_client_id_prefix: String,
    /// Authentication Methods that whoever is asked knows. A CONNECT with another one is refused [MQTT-4.12.0-1].
    pub authentication_methods: Vec<String>,
    /// Sessions with a Network Connection, those of other shards included ([`crate::Elsewhere::Connections`]).
    pub connections_max: usize,
    /// Sessions of one User Name with a Network Connection, those of other shards included ([`crate::Elsewhere::Tallies`]).
    pub connections_per_user_max: usize,
    /// Sessions, with and without a Network Connection, those of other shards included ([`crate::Elsewhere::Tallies`]).
    pub sessions_max: usize,
    /// Bytes that Sessions, queues and retained messages may take together, with what is held elsewhere
    /// ([`crate::Elsewhere::Memory`]).
    pub memory_bytes_max: usize,
    /// Unsent bytes of a congested connection above which its QoS 1 and 2 messages wait in the queue and QoS 0 is
    /// dropped.
    pub unsent_bytes_high: u32,
    /// Unsent bytes of a connection above which it is closed.
    pub unsent_bytes_max: u32,
    /// How long a congested connection may take nothing at all.
    pub congested_time_max: Duration,
    /// Bytes of PUBLISH packets of a 3.1.1 client that wait unacknowledged for memory, or for room in the journal.
    pub parked_bytes_max: usize,
    /// How long a connection may stay paused, or hold such packets, before it is closed.
    pub pause_time_max: Duration,
    /// Packets in the tray, and steps of one call, after which a fan-out, the line behind it and replays go on in the
    /// next [`crate::Engine::tick`]. A step is a Session or Shared Subscription that a message goes to, or a topic that
    /// a replay looks at.
    pub tray_max: usize,
    /// Publishes that wait behind an open fan-out before their connections are paused, and QoS 0 of other shards and of
    /// the broker itself is dropped, unless it is to be retained and there is memory for it.
    pub fanout_waiting_max: usize,
    /// Bytes of QoS 0 messages that another shard is to retain and has not answered, above which who publishes such is not
    /// read.
    pub unanswered_bytes_max: usize,
    /// Acknowledgements of one kind that wait in one Session before its connection is paused.
    pub acks_waiting_max: usize,
    /// Retained messages in one page of a replay.
    pub retained_page_max: usize,
    /// Topics of live updates that a replay remembers; beyond it live messages wait for the replay's end.
    pub replay_seen_max: usize,
    /// Subscriptions of one Session.
    pub subscriptions_max: usize,
    /// Durable changes are emitted as records, and acknowledgements wait for [`crate::Input::Durable`].
    pub journal: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            shards: 1,
            listeners: Vec::new(),
            terms: Vec::new(),
            rights: Vec::new(),
            maximum_packet_size: 1 << 20,
            payload_bytes_max: usize::MAX,
            topic_levels_max: 128,
            client_id_bytes_max: 1024,
            receive_maximum: NonZeroU16::MIN.saturating_add(255),
            inflight_max: 256,
            inflight_bytes_max: usize::MAX,
            upgrade_outgoing_qos: false,
            queue_max: 10_000,
            queue_bytes_max: 8 << 20,
            queue_full: QueueFull::Refuse,
            queue_qos0: false,
            topic_alias_maximum: 32,
            topic_alias_out_max: 32,
            keep_alive_max: 0,
            session_expiry_max: u32::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            retained_expiry: None,
            check_retain_source: true,
            allow_empty_client_id: true,
            assigned_client_id_prefix: String::from("auto-"),
            authentication_methods: Vec::new(),
            connections_max: usize::MAX,
            connections_per_user_max: usize::MAX,
            sessions_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            unsent_bytes_high: 1 << 20,
            unsent_bytes_max: 4 << 20,
            congested_time_max: Duration::from_secs(60),
            parked_bytes_max: 64 << 10,
            pause_time_max: Duration::from_secs(30),
            tray_max: 8_192,
            fanout_waiting_max: 1_024,
            unanswered_bytes_max: 256 << 10,
            acks_waiting_max: 1_024,
            retained_page_max: 256,
            replay_seen_max: 1_024,
            subscriptions_max: 1 << 20,
            journal: false,
        }
    }
}

impl EngineConfig {
    /// The rules of a listener.
    #[must_use]
    pub fn listener(&self, listener: ListenerId) -> ListenerRules {
        self.listeners.get(usize::from(listener.0)).copied().unwrap_or_default()
    }

    /// What a listener's clients are granted, if that is its own.
    pub(crate) fn terms(&self, listener: ListenerId) -> Option<&ListenerTerms> {
        self.terms.get(usize::from(listener.0))
    }

    /// The QoS that a message may go out with at most: as it was published [MQTT-3.8.4-8], unless its Subscriptions alone are
    /// to say it.
    #[inline]
    pub(crate) const fn qos_out_max(&self, published: QoS) -> QoS {
        if self.upgrade_outgoing_qos {
            QoS::ExactlyOnce
        } else {
            published
        }
    }

    /// Where the connections of a listener are counted: [`ListenerTerms::counted_at`].
    pub(crate) fn counted_at(&self, listener: ListenerId) -> ListenerId {
        let terms = self.terms(listener);
        terms.and_then(|terms| terms.counted_at).unwrap_or(listener)
    }

    /// The listeners whose connections have a limit of their own, and of those that share one the first.
    pub(crate) fn limited_listeners(&self) -> impl Iterator<Item = ListenerId> + '_ {
        let terms = (0..).map(ListenerId).zip(&self.terms);
        let limited = terms.filter(|(_, terms)| terms.connections_max < usize::MAX);
        let first = limited.filter(|(listener, terms)| terms.counted_at.is_none_or(|first| first == *listener));
        first.map(|(listener, _)| listener)
    }

    pub(crate) fn maximum_qos(&self, listener: ListenerId) -> QoS {
        self.terms(listener).map_or(self.maximum_qos, |terms| terms.maximum_qos)
    }

    pub(crate) fn topic_alias_maximum(&self, listener: ListenerId) -> u16 {
        let own = self.terms(listener);
        own.map_or(self.topic_alias_maximum, |terms| terms.topic_alias_maximum)
    }

    pub(crate) fn topic_alias_out_max(&self, listener: ListenerId) -> u16 {
        let own = self.terms(listener);
        own.map_or(self.topic_alias_out_max, |terms| terms.topic_alias_out_max)
    }

    pub(crate) fn allow_empty_client_id(&self, listener: ListenerId) -> bool {
        let own = self.terms(listener);
        own.map_or(self.allow_empty_client_id, |terms| terms.allow_empty_client_id)
    }

    pub(crate) fn assigned_client_id_prefix(&self, listener: ListenerId) -> &str {
        let own = self.terms(listener);
        own.map_or(&*self.assigned_client_id_prefix, |terms| {
            &*terms.assigned_client_id_prefix
        })
    }

    pub(crate) fn mount_point(&self, listener: ListenerId) -> Option<&Arc<str>> {
        self.terms(listener)?.mount_point.as_ref()
    }
}
