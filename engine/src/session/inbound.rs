//! QoS 2 as receiver (section 4.3.3): the Packet Identifiers that expect PUBREL.

use alloc::{boxed::Box, collections::BTreeMap};

use sol_codec::PacketId;

use crate::record::RecordId;

/// `ReceiverFlow::ExpectPubrel`, by identifier, each with its record. Eight bytes for the many that never receive QoS 2.
#[derive(Debug, Default)]
pub(crate) struct Inbound(Option<Box<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    records: BTreeMap<PacketId, RecordId>,
    /// How many of them the present connection has used, as its client counts them (section 4.9).
    fresh: usize,
}

impl Inbound {
    /// How many the present connection has used: an identifier of an earlier one does not count against its Receive
    /// Maximum.
    pub(crate) fn fresh(&self) -> usize {
        self.0.as_ref().map_or(0, |ids| ids.fresh)
    }

    /// The connection has ended.
    pub(crate) fn leave(&mut self) {
        if let Some(ids) = &mut self.0 {
            ids.fresh = 0;
        }
    }

    /// Puts an identifier back as it was recorded.
    pub(crate) fn restore(&mut self, packet_id: PacketId, record: RecordId) {
        self.0.get_or_insert_default().records.insert(packet_id, record);
    }

    pub(crate) fn contains_key(&self, packet_id: &PacketId) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.records.contains_key(packet_id))
    }

    pub(crate) fn insert(&mut self, packet_id: PacketId, record: RecordId) {
        let ids = self.0.get_or_insert_default();
        ids.records.insert(packet_id, record);
        ids.fresh += 1;
    }

    pub(crate) fn remove(&mut self, packet_id: &PacketId) -> Option<RecordId> {
        let ids = self.0.as_mut()?;
        let record = ids.records.remove(packet_id)?;
        // Quota counts like this: what an earlier connection began may end on this one.
        ids.fresh = ids.fresh.saturating_sub(1);
        Some(record)
    }

    /// The record of an identifier, which has none from now on.
    pub(crate) fn take_record(&mut self, packet_id: &PacketId) -> Option<RecordId> {
        let record = self.0.as_mut()?.records.get_mut(packet_id)?;
        Some(core::mem::replace(record, RecordId(0)))
    }

    /// Forgets all of them, and gives their records.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = RecordId> + use<> {
        self.0.take().into_iter().flat_map(|ids| ids.records.into_values())
    }
}
