//! QoS 2 as receiver (section 4.3.3): the Packet Identifiers that expect PUBREL.

use alloc::{boxed::Box, collections::BTreeMap};

use sol_codec::PacketId;

use crate::record::RecordId;

/// `ReceiverFlow::ExpectPubrel`, by identifier, each with its record. Eight bytes for the many that never receive QoS 2.
#[derive(Debug, Default)]
pub(crate) struct Inbound(Option<Box<Ids>>);

#[derive(Debug, Default)]
struct Ids(BTreeMap<PacketId, RecordId>);

impl Inbound {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ids| ids.0.len())
    }

    pub(crate) fn contains_key(&self, packet_id: &PacketId) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.0.contains_key(packet_id))
    }

    pub(crate) fn insert(&mut self, packet_id: PacketId, record: RecordId) {
        self.0.get_or_insert_default().0.insert(packet_id, record);
    }

    pub(crate) fn remove(&mut self, packet_id: &PacketId) -> Option<RecordId> {
        self.0.as_mut()?.0.remove(packet_id)
    }

    /// Forgets all of them, and gives their records.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = RecordId> + use<> {
        self.0.take().into_iter().flat_map(|ids| ids.0.into_values())
    }
}
