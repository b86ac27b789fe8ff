//! What clients and the world around do: connect, say something, and be lost.

use std::collections::BTreeSet;

use sol_codec::{ProtocolVersion, QoS, ReasonCode, SubscriptionOptions};

use super::{ConnectPlan, Party, PublishPlan, World};
use crate::marks::Mark;
use crate::oracle::{LinkId, Message};
use crate::packet::{ConnectRequest, PublishRequest, Request, WillRequest, payload_of};

impl World {
    /// A client connects, in place of a connection that it has. Nothing happens while an earlier CONNECT of its is under
    /// way.
    pub fn connect(&mut self, who: usize, plan: &ConnectPlan) {
        let plan = &ConnectPlan {
            clean_start: plan.clean_start || self.parties[who].client.insists,
            ..plan.clone()
        };
        let under_way = self.links.iter().any(|(_, link)| {
            let waits = link.who == who && !link.active && !link.ended;
            waits && !(self.may_overlap(who, plan) && self.resumes_for_ever(&link.connect))
        });
        if under_way {
            return;
        }
        self.abandon(who);
        let will = plan.will.as_ref().map(|will| self.will(who, will));
        let party = &mut self.parties[who];
        if plan.clean_start {
            party.client.forget();
            party.is_untold = true;
        }
        let v5 = party.client.version == ProtocolVersion::V5;
        let connect = ConnectRequest {
            version: party.client.version,
            client_id: party.client.client_id.clone(),
            clean_start: plan.clean_start,
            session_expiry_interval: match (v5, plan.clean_start) {
                (true, _) => plan.session_expiry_interval,
                (false, true) => 0,
                (false, false) => u32::MAX,
            },
            receive_maximum: plan.receive_maximum.filter(|_| v5),
            maximum_packet_size: plan.maximum_packet_size.filter(|_| v5),
            topic_alias_maximum: if v5 { plan.topic_alias_maximum } else { 0 },
            will,
            username: (party.listener.0 > 0).then(|| format!("user {who}")),
        };
        let link = self.links.next();
        self.parties[who].link = Some(link);
        let shard = self.places.below(self.shards.len());
        self.open(shard, who, connect);
    }

    /// Whether a client may connect once more while an earlier CONNECT is under way: it is the same to it which of the
    /// two comes first.
    fn may_overlap(&self, who: usize, plan: &ConnectPlan) -> bool {
        let v5 = self.parties[who].client.version == ProtocolVersion::V5;
        let for_ever = !plan.clean_start && (!v5 || plan.session_expiry_interval == u32::MAX);
        for_ever && self.oracle.lasts_for_ever(who)
    }

    fn resumes_for_ever(&self, connect: &ConnectRequest) -> bool {
        !connect.clean_start && connect.session_expiry_interval == u32::MAX
    }

    fn will(&mut self, who: usize, (topic, qos, retain, delay): &(String, QoS, bool, u32)) -> WillRequest {
        self.last_number += 1;
        let number = self.last_number;
        let payload = payload_of(number, 0);
        let v5 = self.parties[who].client.version == ProtocolVersion::V5;
        self.oracle.introduce(Message {
            number,
            origin: who,
            is_will: true,
            delay: if v5 { *delay } else { 0 },
            topic: topic.clone(),
            payload: payload.clone(),
            qos: *qos,
            retain: *retain,
            expiry: None,
            tagged: false,
        });
        WillRequest {
            number,
            topic: topic.clone(),
            payload,
            qos: *qos,
            retain: *retain,
            delay: if v5 { *delay } else { 0 },
        }
    }

    /// A client gives up its connection without a word: what is on its way to the broker may arrive or not. If it
    /// `vanishes`, nobody tells the broker.
    pub fn lose(&mut self, who: usize, vanishes: bool) {
        let Some((id, link)) = self.parties[who]
            .link
            .and_then(|id| Some((id, self.links.get_mut(id)?)))
        else {
            return;
        };
        // A CONNECT arrives, so that the client knows what became of its Session.
        let least = usize::from(matches!(link.to_broker.front(), Some(Request::Connect(_))));
        let most = link.to_broker.len();
        let kept = least + self.places.below(most - least + 1);
        link.to_broker.truncate(kept);
        if !vanishes {
            link.to_broker.push_back(Request::End);
        }
        if link.connection.is_none() && !link.ended {
            self.marks.hit(Mark::LostOnTheWay);
        }
        self.offer_take(id);
        self.abandon(who);
    }

    /// A client says good-bye.
    pub fn disconnect(&mut self, who: usize, with_will: bool, session_expiry_interval: Option<u32>) {
        let Party { client, link, .. } = &mut self.parties[who];
        let Some((id, link)) = link
            .filter(|_| client.connected)
            .and_then(|id| Some((id, self.links.get_mut(id)?)))
        else {
            return;
        };
        let v5 = client.version == ProtocolVersion::V5;
        // A Session that was to end with its connection cannot be made to last (section 3.14.2.2.2).
        let may_change = v5 && link.connect.session_expiry_interval > 0;
        link.to_broker.push_back(Request::Disconnect {
            reason_code: if with_will && v5 {
                ReasonCode::DisconnectWithWillMessage
            } else {
                ReasonCode::Success
            },
            session_expiry_interval: session_expiry_interval.filter(|_| may_change),
        });
        self.offer_take(id);
        self.abandon(who);
    }

    /// A client no longer looks at its connection.
    pub(super) fn abandon(&mut self, who: usize) {
        let Party { client, link, .. } = &mut self.parties[who];
        client.leave();
        if let Some(id) = link.take() {
            if let Some(link) = self.links.get_mut(id) {
                link.to_client.clear();
            }
            self.reap(id);
        }
    }

    /// Forgets a connection that nobody looks at any more.
    pub(super) fn reap(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id) else { return };
        if link.ended && self.parties[link.who].link != Some(id) {
            self.links.remove(id);
            self.swapped.remove(&id);
        }
    }

    /// A client subscribes.
    pub fn subscribe(&mut self, who: usize, filters: &[(String, SubscriptionOptions)], subscription_id: Option<u32>) {
        let client = &mut self.parties[who].client;
        if !client.connected {
            return;
        }
        let v5 = client.version == ProtocolVersion::V5;
        let mut names = BTreeSet::new();
        let mut filters: Vec<_> = filters
            .iter()
            .filter(|(name, _)| names.insert(name.clone()))
            .cloned()
            .collect();
        for (name, options) in &mut filters {
            if !v5 {
                *options = SubscriptionOptions {
                    qos: options.qos,
                    ..SubscriptionOptions::default()
                };
            }
            // [MQTT-3.8.3-4]
            options.no_local &= !name.starts_with("$share/");
        }
        client.ask(true, filters.len(), |packet_id| Request::Subscribe {
            packet_id,
            subscription_id: subscription_id.filter(|_| v5),
            filters,
        });
        self.carry(who);
    }

    /// A client unsubscribes.
    pub fn unsubscribe(&mut self, who: usize, filters: &[String]) {
        let client = &mut self.parties[who].client;
        if client.connected {
            client.ask(false, filters.len(), |packet_id| Request::Unsubscribe {
                packet_id,
                filters: filters.to_vec(),
            });
            self.carry(who);
        }
    }

    /// A client publishes.
    pub fn publish(&mut self, who: usize, plan: &PublishPlan) {
        let client = &mut self.parties[who].client;
        if !client.connected {
            return;
        }
        self.last_number += 1;
        let number = self.last_number;
        let v5 = client.version == ProtocolVersion::V5;
        let payload = if plan.empty {
            String::new()
        } else {
            payload_of(number, plan.padding)
        };
        let message = Message {
            number,
            origin: who,
            is_will: false,
            delay: 0,
            topic: plan.topic.clone(),
            payload: payload.clone(),
            qos: plan.qos,
            retain: plan.retain,
            expiry: plan.expiry.filter(|_| v5),
            tagged: plan.tagged && v5,
        };
        let publish = PublishRequest {
            number,
            dup: false,
            qos: plan.qos,
            retain: plan.retain,
            topic: Some(plan.topic.clone()),
            alias: None,
            packet_id: None,
            expiry: message.expiry,
            tagged: message.tagged,
            payload,
        };
        self.oracle.introduce(message);
        client.publish(publish, plan.alias && v5);
        self.carry(who);
    }

    /// A client keeps its acknowledgements to itself from now on, or no longer.
    pub fn withhold(&mut self, who: usize, withholds: bool) {
        self.parties[who].client.withholds = withholds;
        if !withholds {
            self.release(who, usize::MAX);
        }
    }

    /// A client gives some of the acknowledgements that it kept to itself.
    pub fn release(&mut self, who: usize, count: usize) {
        self.parties[who].client.release(count);
        self.carry(who);
    }

    /// What a client says enters its pipe.
    pub(super) fn carry(&mut self, who: usize) {
        let Party { client, link, .. } = &mut self.parties[who];
        if let Some(id) = *link
            && let Some(link) = self.links.get_mut(id)
            && !client.says.is_empty()
        {
            link.to_broker.append(&mut client.says);
            self.offer_take(id);
        }
    }
}
