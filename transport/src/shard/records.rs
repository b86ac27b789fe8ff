//! What becomes of what was written.

use sol_engine::{Input, ShardId, Ticket};
use sol_journal::{Event, Pressure};

use super::Core;
use crate::backend::Backend;
use crate::observer::{Notice, Observer};

impl<O: Observer> Core<O> {
    /// The journal's thread says something.
    pub(super) fn hear_of_records<B: Backend>(&mut self, backend: &mut B, event: Event) {
        match event {
            Event::Kept(ticket) => {
                self.tell(None, Input::Durable(Ticket(ticket)));
            }
            Event::KeptAlone(ticket) => {
                self.tell(None, Input::DurableAlone(Ticket(ticket)));
            }
            Event::Pressure(pressure) => {
                self.tell(None, Input::JournalFull(pressure != Pressure::Normal));
                if self.mailbox.shard() == ShardId(0) {
                    self.observer.notice(Notice::Journal(pressure));
                }
            }
            Event::Failed(failure) => {
                self.unkept.get_or_insert_with(|| failure.to_string());
            }
            // Looked at in every turn, which this begins.
            Event::Load(_) => {}
        }
        // All that waited for it may leave at once.
        if self.effects.transmits.len() > self.config.tray_max {
            self.empty_tray(backend);
        }
    }

    /// Holds up who writes while too much waits to be written, and has them go on.
    pub(super) fn look_at_journal(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let is_busy = ledger.is_busy();
        if is_busy != self.journal_busy {
            self.journal_busy = is_busy;
            self.tell(None, Input::JournalBusy(is_busy));
        }
    }
}
