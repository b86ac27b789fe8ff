//! What happens to clients, as log lines: peer address, Client Identifier, User Name and reason, each in a field of its
//! own, because a client chose most of them.
//!
//! What a healthy client does is DEBUG; what somebody should look at is a WARNING; what is our own fault is an ERROR.

use std::fmt;

use sol_codec::ReasonCode;
use sol_engine::{Attempt, Cause, Event, MemoryLevel};
use sol_journal::Pressure;
use sol_transport::{Notice, Source};
use tracing::{debug, error, info, warn};

/// Logs an event of the engine.
pub(crate) fn event(event: &Event, source: Option<Source>) {
    let peer = Peer(source);
    match event {
        Event::Connected {
            client_id,
            username,
            version,
            keep_alive,
            clean_start,
            session_present,
            ..
        } => {
            let user = username.as_deref().unwrap_or_default();
            debug!(%peer, client = %client_id, user, ?version, keep_alive, clean_start, session_present, "connected");
        }
        Event::Refused {
            client_id,
            username,
            reason,
            ..
        } => {
            let user = username.as_deref().unwrap_or_default();
            match reason {
                // The ban itself has its line; whoever goes on trying shall not fill the log.
                ReasonCode::Banned => debug!(%peer, client = %client_id, user, %reason, "connection refused"),
                _ => warn!(%peer, client = %client_id, user, %reason, "connection refused"),
            }
        }
        Event::Disconnected { client_id, cause, .. } => disconnected(peer, client_id, cause),
        Event::Dropped { client_id, count } => warn!(client = %client_id, count, "messages dropped for a session"),
        Event::NotRetained { topic, count } => warn!(%topic, count, "retained messages not kept: memory is full"),
        // The broker's level is told where that of all shards is known.
        Event::Memory(_) => {}
        Event::NotAuthorized {
            client_id,
            username,
            attempt,
            topic,
            count,
            ..
        } => {
            let user = username.as_deref().unwrap_or_default();
            match attempt {
                Attempt::Publish => warn!(%peer, client = %client_id, user, %topic, count, "no right to publish"),
                Attempt::Subscribe => warn!(%peer, client = %client_id, user, %topic, count, "no right to subscribe"),
                Attempt::Will => warn!(%peer, client = %client_id, user, %topic, count, "no right to publish its Will"),
            }
        }
        Event::Odd(what) => error!("survived: {what}"),
    }
}

/// Logs how far memory is used up, when that has changed.
pub(crate) fn memory(level: MemoryLevel) {
    match level {
        MemoryLevel::Plenty => info!("memory is plenty again: nothing is refused for it"),
        MemoryLevel::Tight => {
            warn!(
                "memory: four fifths of max_memory are used; new lasting sessions, new retained topics and large Wills are refused"
            );
        }
        MemoryLevel::Scarce => {
            warn!(
                "memory: nine tenths of max_memory are used; what would be queued is refused too, and slow clients lose QoS 0"
            );
        }
        MemoryLevel::Full => error!("memory: max_memory is met; nothing is kept any more until some is free"),
    }
}

/// Whether an event tells of nothing but a client that comes or goes, as clients do.
pub(crate) fn is_coming_or_going(event: &Event) -> bool {
    match event {
        Event::Connected { .. } => true,
        Event::Disconnected { cause, .. } => matches!(
            cause,
            Cause::Client(_)
                | Cause::Lost
                | Cause::KeepAlive
                | Cause::TakenOver
                | Cause::LoginExpired
                | Cause::Shutdown
        ),
        _ => false,
    }
}

fn disconnected(peer: Peer, client: &str, cause: &Cause) {
    match cause {
        Cause::Client(reason) => debug!(%peer, %client, %reason, "disconnected"),
        Cause::Lost => debug!(%peer, %client, "connection lost"),
        Cause::KeepAlive => info!(%peer, %client, "closed: nothing heard for one and a half Keep Alives"),
        Cause::TakenOver => info!(%peer, %client, "closed: its Client Identifier connected again"),
        Cause::Reauthentication(reason) => {
            warn!(%peer, %client, %reason, "closed: it failed to authenticate once more")
        }
        Cause::Malformed(error) => warn!(%peer, %client, reason = %error, "closed: malformed packet"),
        Cause::Violation(violation) => warn!(%peer, %client, reason = %violation, "closed: protocol error"),
        Cause::Slow => warn!(%peer, %client, "closed: it does not read what it is sent"),
        Cause::Parked => warn!(%peer, %client, "closed: it published more than memory allows"),
        Cause::Unwritten => warn!(
            %peer, %client,
            "closed: what it published waited too long for room in the journal, or was more than may wait"
        ),
        Cause::Paused => warn!(%peer, %client, "closed: it had to be paused for too long"),
        Cause::Revoked => {
            warn!(%peer, %client, "closed: what let it in has changed or is gone")
        }
        Cause::LoginExpired => info!(%peer, %client, "closed: its login has expired"),
        Cause::Fault => warn!(%peer, %client, "closed: handling its input failed"),
        Cause::Shutdown => debug!(%peer, %client, "closed: the broker stops"),
    }
}

/// Logs a notice of the transport.
pub(crate) fn notice(notice: &Notice<'_>) {
    match notice {
        Notice::ConnectTimeout(source) => {
            info!(peer = %source.peer, "closed: no CONNECT in time, or no AUTH that was due")
        }
        Notice::Journal(Pressure::Normal) => {
            info!("journal: there is room again; what had to wait goes on, and nothing is refused any more")
        }
        Notice::Journal(Pressure::DiskFull) => error!(
            "journal: the disk is full. New messages, Sessions and Subscriptions that would be kept are refused (0x97), and \
             publishers that cannot be told wait; what is acknowledged is safe. Make room: it goes on by itself"
        ),
        Notice::Journal(Pressure::MaxBytes) => error!(
            "journal: persistence_max_size is met. New messages, Sessions and Subscriptions that would be kept are refused \
             (0x97), and publishers that cannot be told wait, until queues have shrunk or retained messages are deleted; or \
             raise it and restart"
        ),
        Notice::NotMqtt(source) => warn!(peer = %source.peer, "closed: not MQTT"),
        Notice::TlsOnPlain(source) => warn!(peer = %source.peer, "closed: it speaks TLS, and this listener does not"),
        Notice::PlainOnTls(source) => {
            warn!(peer = %source.peer, "closed: it does not speak TLS, and this listener speaks nothing else")
        }
        Notice::HandshakeFailed { source, why } => warn!(peer = %source.peer, "closed: {why}"),
        Notice::FilterFailed { source, why } => warn!(peer = %source.peer, "closed: {why}"),
        Notice::NoProxy(source) => {
            warn!(peer = %source.peer, "closed: it is not among the proxies of proxy_protocol_from")
        }
        Notice::ProxyFailed { source, why } => warn!(peer = %source.peer, "closed: {why}"),
        Notice::NoName { source, why } => warn!(peer = %source.peer, "not let in: {why}"),
        Notice::Evicted(source) => warn!(peer = %source.peer, "closed: too many connections that are not logged in"),
        Notice::TooManyOfAddress(source) => {
            warn!(peer = %source.peer, "closed: its address has as many connections as it may have");
        }
        Notice::FrameTimeout(source) => warn!(peer = %source.peer, "closed: a packet did not arrive whole in time"),
        Notice::FileNotTaken(source) => {
            warn!(peer = %source.peer, "closed: it did not take in time a file that it had asked for")
        }
        Notice::Shed(source) => {
            warn!(peer = %source.peer, "closed: unfinished packets and unsent output fill the memory, and it held the most");
        }
        Notice::AcceptFailed {
            error, paused: true, ..
        } => {
            error!(reason = %error, "no connection can be accepted for now, the listener rests");
        }
        Notice::AcceptFailed {
            error, paused: false, ..
        } => warn!(reason = %error, "a connection was not accepted"),
        Notice::NotPinned(error) => warn!(reason = %error, "a shard does not stay on one core"),
        Notice::Survived { source, panic } => error!(peer = %Peer(*source), "a fault of the broker, survived: {panic}"),
    }
}

/// The other end, or `-` where there is none.
struct Peer(Option<Source>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(source) => source.peer.fmt(f),
            None => f.write_str("-"),
        }
    }
}
