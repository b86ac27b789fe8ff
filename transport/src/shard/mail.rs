//! What lies in the mailbox.

use std::rc::Rc;

use sol_engine::{EngineConfig, Input};

use super::{Core, Rules};
use crate::backend::Backend;
use crate::mailbox::{Batch, Mail};
use crate::observer::Observer;

impl<O: Observer> Core<O> {
    /// Takes the mail that is there now; what comes meanwhile is the next turn's.
    pub(super) fn take_mail<B: Backend>(&mut self, backend: &mut B) {
        for _ in 0..self.mailbox.len() {
            match self.mailbox.take() {
                Some(Mail::Batch(batch)) => self.take_batch(backend, *batch),
                Some(Mail::Authenticated(id, outcome)) => {
                    self.tell(Some(id), Input::Authenticated(id, outcome));
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

    fn take_batch<B: Backend>(&mut self, backend: &mut B, batch: Batch) {
        let Batch {
            from, messages, moved, ..
        } = batch;
        for message in messages {
            self.tell(None, Input::Shard { from, message });
        }
        for moved in moved {
            self.adopt(backend, moved);
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
