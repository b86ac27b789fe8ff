//! What a client and the broker agree on: a CONNECT as it is kept, and the CONNACK that answers it.

use alloc::{boxed::Box, string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{Connect, ProtocolVersion, QoS, ReasonCode};

use crate::connection::Marks;
use crate::effects::ConnAckData;
use crate::engine::Engine;
use crate::ids::{ConnectionId, ListenerId};
use crate::input::{OwnedConnect, OwnedWill};
use crate::mount::whole_topic;
use crate::time::UnixMillis;

impl Engine {
    /// Gives a client that may come in the Client Identifier and the Will that its listener makes of its own.
    pub(crate) fn settle_names(&self, listener: ListenerId, connect: &mut OwnedConnect) -> Result<(), ReasonCode> {
        let config = &self.clients.config;
        let Some(terms) = config.terms(listener) else {
            return Ok(());
        };
        if terms.username_is_client_id {
            let username = connect.username.as_ref().ok_or(ReasonCode::NotAuthorized)?;
            if username.is_empty() || username.len() > config.client_id_bytes_max {
                return Err(ReasonCode::ClientIdentifierNotValid);
            }
            connect.client_id.clone_from(username);
        }
        let prefix = terms.client_id_prefix.as_deref();
        if prefix.is_some_and(|prefix| !connect.client_id.starts_with(prefix)) {
            return Err(ReasonCode::NotAuthorized);
        }
        if let (Some(mount), Some(will)) = (&terms.mount_point, &mut connect.will) {
            will.topic = whole_topic(mount, &will.topic).ok_or(ReasonCode::TopicNameInvalid)?;
        }
        Ok(())
    }

    /// Whether a CONNACK is within the client's Maximum Packet Size [MQTT-3.1.2-24].
    pub(crate) fn takes(&self, id: ConnectionId, connack: &ConnAckData) -> bool {
        let connection = self.clients.connections.get(id);
        connection.is_some_and(|c| connack.packet().encoded_len(connack.version) <= c.maximum_packet_size as usize)
    }

    /// Puts what both sides agree on into the connection, and says it in a CONNACK.
    pub(crate) fn agree(&mut self, id: ConnectionId, connect: &mut OwnedConnect) -> ConnAckData {
        let config = &self.clients.config;
        // A 3.1.1 client cannot be told. It is judged by the same limit: a Keep Alive of its own choice would let it
        // hold its place for a day in silence.
        let capped =
            config.keep_alive_max > 0 && (connect.keep_alive == 0 || connect.keep_alive > config.keep_alive_max);
        let keep_alive = if capped {
            config.keep_alive_max
        } else {
            connect.keep_alive
        };
        let quota = connect.receive_maximum.min(config.inflight_max).max(1);
        let mut listener = ListenerId::default();
        if let Some(connection) = self.clients.connections.get_mut(id) {
            listener = connection.listener;
            connection.agree(connect, keep_alive, quota, config.topic_alias_out_max(listener));
            if config.mount_point(listener).is_some() {
                connection.marks.set(Marks::MOUNTED);
            }
        }
        let maximum_qos = config.maximum_qos(listener);
        let mut connack = ConnAckData::new(connect.version, ReasonCode::Success);
        let expiry = connect.session_expiry_interval.min(config.session_expiry_max);
        connack.session_expiry_interval = (expiry != connect.session_expiry_interval).then_some(expiry);
        connack.receive_maximum = Some(config.receive_maximum.get());
        connack.maximum_qos = (maximum_qos != QoS::ExactlyOnce).then_some(maximum_qos);
        connack.retain_available = (!config.retain_available).then_some(false);
        connack.maximum_packet_size = Some(config.maximum_packet_size);
        connack.assigned_client_id = (connect.assigned && !mutant("5.0/3.1.3-7")).then(|| connect.client_id.clone());
        connack.topic_alias_maximum = Some(config.topic_alias_maximum(listener));
        let told = capped && connect.version == ProtocolVersion::V5 && !mutant("5.0/3.2.2-22");
        connack.server_keep_alive = told.then_some(keep_alive);
        // [MQTT-4.12.0-5], [MQTT-4.12.0-6]
        connack.authentication_method = connect
            .enhanced
            .as_ref()
            .map(|enhanced| String::from(&*enhanced.method));
        connack.authentication_data = connect.authentication_data.take();
        connack
    }
}

impl ConnAckData {
    pub(crate) const fn new(version: ProtocolVersion, reason_code: ReasonCode) -> Self {
        Self {
            version,
            session_present: false,
            reason_code,
            session_expiry_interval: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            server_keep_alive: None,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

pub(crate) fn maximum_packet_size(connect: &Connect<'_>) -> u32 {
    let maximum = connect.properties.maximum_packet_size;
    maximum.map_or(
        u32::MAX,
        |max| if mutant("5.0/3.1.2-24") { u32::MAX } else { max.get() },
    )
}

pub(crate) fn owned_connect(connect: &Connect<'_>) -> OwnedConnect {
    let properties = &connect.properties;
    let session_expiry_interval = match (connect.version, connect.clean_start) {
        (ProtocolVersion::V5, _) => properties.session_expiry_interval.unwrap_or(0),
        // Clean Session of 3.1.1 is both: begin anew, and end with the connection [MQTT-3.1.2-6].
        (_, true) => 0,
        (_, false) => u32::MAX,
    };
    OwnedConnect {
        version: connect.version,
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        client_id: String::from(connect.client_id),
        assigned: false,
        username: connect.username.map(String::from),
        vouched: false,
        granted: false,
        rules: None,
        expires_at: UnixMillis::NEVER,
        revocations: 0,
        will: connect.will.as_ref().map(|will| Box::new(owned_will(will))),
        session_expiry_interval,
        receive_maximum: properties.receive_maximum.map_or(u16::MAX, |max| max.get()),
        maximum_packet_size: maximum_packet_size(connect),
        topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
        enhanced: None,
        authentication_data: None,
    }
}

fn owned_will(will: &sol_codec::Will<'_>) -> OwnedWill {
    let mut properties = Vec::new();
    will.properties.application.write_to(&mut properties);
    OwnedWill {
        topic: String::from(will.topic.as_str()),
        properties,
        payload: will.payload.to_vec(),
        qos: will.qos,
        retain: will.retain,
        delay: will.properties.will_delay_interval,
        message_expiry_interval: will.properties.message_expiry_interval,
    }
}
