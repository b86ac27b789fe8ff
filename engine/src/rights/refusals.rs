//! What follows when the gate stays shut: answers, counts, and a word for the log.

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, ReasonCode};

use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::{Attempt, Event};
use crate::handle::publish::Publisher;
use crate::ids::{ConnectionId, SessionKey};
use crate::input::Flow;
use crate::session::acks::Lane;
use crate::time::Now;

impl Engine {
    /// A PUBLISH goes nowhere. One of 5.0 is told so; one of 3.1.1 is acknowledged as usual, since its acknowledgement
    /// cannot say it ([MQTT-3.3.5-2] of 3.1.1).
    #[cold]
    pub(crate) fn refuse_publish(
        &mut self,
        now: Now,
        from: Publisher,
        topic: &str,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        self.clients.stats.publish_unauthorized += 1;
        self.tell_refusal(Some(from.id), from.key, Attempt::Publish, topic, effects);
        let ack = ack.filter(|_| from.v5 || !mutant("3.1.1/3.3.5-2"));
        self.answer_refused(now, from, ack, ReasonCode::NotAuthorized, effects)
    }

    /// A Topic Filter is not subscribed to: nothing that it matches could be read.
    pub(crate) fn refuse_filter(&mut self, key: SessionKey, filter: &str, effects: &mut Effects) {
        self.clients.stats.subscribe_unauthorized += 1;
        let connection = self.clients.sessions.get(key).and_then(|session| session.connection);
        self.tell_refusal(connection, key, Attempt::Subscribe, filter, effects);
    }

    /// A Will is not published.
    pub(crate) fn refuse_will(&mut self, key: SessionKey, topic: &str, effects: &mut Effects) {
        self.clients.stats.publish_unauthorized += 1;
        self.tell_refusal(None, key, Attempt::Will, topic, effects);
    }

    fn tell_refusal(
        &mut self,
        connection: Option<ConnectionId>,
        key: SessionKey,
        attempt: Attempt,
        topic: &str,
        effects: &mut Effects,
    ) {
        let state = connection.and_then(|id| self.clients.connections.get_mut(id));
        let count = state.map_or(1, |state| {
            let last = state.last_route.get_or_insert_default();
            last.refused = last.refused.saturating_add(1);
            last.refused
        });
        if count.is_power_of_two()
            && let Some(session) = self.clients.sessions.get(key)
        {
            effects.events.push(Event::NotAuthorized {
                connection,
                client_id: session.client_id.clone(),
                username: session.username().map(Into::into),
                attempt,
                topic: topic.into(),
                count,
            });
        }
    }
}
