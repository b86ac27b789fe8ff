//! What lies in the mailbox.

use std::rc::Rc;

use sol_engine::{EngineConfig, Input};

use super::{Core, Rules};
use crate::backend::{Backend, Sink};
use crate::mailbox::{Batch, Mail};
use crate::observer::Observer;

/// Packets that the mail of one turn may have sent before the sockets are looked after: a burst that another shard has
/// passed on is handed out as it comes, and a fan-out of it that is larger is cut as any other is.
const MAIL_TRANSMITS_MAX: usize = 64 << 10;

impl<O: Observer> Core<O> {
    /// Takes the mail that is there now; what comes meanwhile is the next turn's, and so is what is left when it has
    /// brought so much to send that the sockets should have their turn first.
    pub(super) fn take_mail<B: Backend>(&mut self, backend: &mut B) {
        if self.mailbox.exchange().is_stopping() {
            self.begin_stop(backend);
        }
        let mut room = MAIL_TRANSMITS_MAX;
        for _ in 0..self.mailbox.len() {
            if room == 0 {
                return;
            }
            match self.mailbox.take() {
                Some(Mail::Batch(batch)) => self.take_batch(backend, *batch, &mut room),
                Some(Mail::Authenticated(id, outcome)) => {
                    self.contain(Some(id), |core| core.handle_login(Input::Authenticated(id, outcome)));
                }
                Some(Mail::Ask(query, reply)) => {
                    self.asks.push_back(reply);
                    if self.tell(None, Input::Ask(query)).is_none() {
                        self.asks.pop_back();
                    }
                }
                Some(Mail::Publish(message)) => {
                    self.tell(None, Input::Publish(message));
                }
                Some(Mail::Reload(config)) => self.reload(&config),
                Some(Mail::Users(changed)) => {
                    self.tell(None, Input::Users(&changed));
                }
                Some(Mail::Stop) => self.begin_stop(backend),
                None => return,
            }
        }
    }

    fn take_batch<B: Backend>(&mut self, backend: &mut B, batch: Batch, room: &mut usize) {
        if self.stops_at.is_some() {
            // Its clients are told that they are to go; what they did not hear of by now they do not wait for any more.
            return;
        }
        let Batch {
            from, messages, moved, ..
        } = batch;
        for message in messages {
            self.tell(None, Input::Shard { from, message });
            let transmits = self.effects.transmits.len();
            if transmits > self.config.tray_max && *room > 0 {
                *room = room.saturating_sub(transmits);
                self.empty_tray(backend);
            }
        }
        for moved in moved {
            self.adopt(backend, moved);
        }
    }

    /// Empties the tray: what does not fit it waits inside the engine, and QoS 0 does not wait for long.
    fn empty_tray<B: Backend>(&mut self, backend: &mut B) {
        if !self.apply() || self.is_full() {
            self.relieve(backend);
        }
    }

    fn reload(&mut self, config: &EngineConfig) {
        self.rules = Rules::new(&self.config, config);
        self.tell(None, Input::Reload(Rc::new(config.clone())));
    }

    fn begin_stop<B: Backend>(&mut self, backend: &mut B) {
        if self.stops_at.is_none() {
            self.stops_at = Some(self.now.mono.saturating_add(self.config.stop_time_max));
            backend.stop_listening();
            self.tell(None, Input::Shutdown);
        }
    }
}
