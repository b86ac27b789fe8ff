//! What lies in the mailbox.

use std::rc::Rc;
use std::time::Duration;

use sol_engine::{EngineConfig, Input, Instant};

use super::{Core, Rules};
use crate::admission::Limits;
use crate::backend::{Backend, Sink};
use crate::listener::Tls;
use crate::mailbox::{Batch, Mail};
use crate::observer::Observer;

/// How long the mail of one turn may take. Where the rest of the turn takes longer, so may the mail, so that neither the
/// shard's own clients nor those of others get more than half of a shard that cannot keep up.
const MAIL_TIME_MIN: Duration = Duration::from_millis(1);

/// Messages between two looks at the clock, which are of very different cost.
const MAIL_STRIDE: u32 = 8;

/// What the mail of this turn may still take.
struct Quantum {
    ends: Instant,
    is_over: bool,
    /// Messages since the last look at the clock.
    messages: u32,
}

impl<O: Observer> Core<O> {
    /// Takes the mail that is there now; what comes meanwhile is the next turn's, and so is what is left when it has taken
    /// so long that the sockets should have their turn first.
    pub(super) fn take_mail<B: Backend>(&mut self, backend: &mut B) {
        if self.mailbox.exchange().is_stopping() {
            self.begin_stop(backend);
        }
        let rest_of_turn = self.mail_cut.take().map(|cut| self.now.mono.saturating_since(cut));
        let time = rest_of_turn.unwrap_or_default().max(MAIL_TIME_MIN);
        let mut quantum = Quantum {
            ends: self.now.mono.saturating_add(time),
            is_over: false,
            messages: 0,
        };
        for _ in 0..self.mailbox.len() {
            match self.mailbox.take() {
                Some(Mail::Batch(mut batch)) => {
                    self.take_batch(backend, &mut batch, &mut quantum);
                    self.mailbox.give_back(batch);
                }
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
                Some(Mail::Tls(listener, tls)) => {
                    if let Some(config) = self.config.listeners.get_mut(usize::from(listener.0)) {
                        config.tls = config.tls.is_some().then(|| Tls::clone(&tls));
                    }
                }
                Some(Mail::Files(listener, files)) => self.config.change_files(listener, files),
                Some(Mail::Limits(limits)) => {
                    self.config.limits = Limits::clone(&limits);
                    self.meters.set(limits.rates());
                }
                Some(Mail::Users(changed)) => {
                    self.tell(None, Input::Users(&changed));
                }
                Some(Mail::GrantsEnd(listeners)) => {
                    self.tell(None, Input::GrantsEnd(&listeners));
                }
                Some(Mail::Begun) => self.has_begun = true,
                Some(Mail::Journal(event)) => self.hear_of_records(backend, event),
                Some(Mail::Stop) => self.begin_stop(backend),
                None => return,
            }
            self.spend(&mut quantum);
            if quantum.is_over {
                if self.mailbox.len() > 0 {
                    self.mail_cut = Some(self.clock.now().mono);
                }
                return;
            }
        }
    }

    fn take_batch<B: Backend>(&mut self, backend: &mut B, batch: &mut Batch, quantum: &mut Quantum) {
        if self.stops_at.is_some() {
            // Its clients are told that they are to go; what they did not hear of by now they do not wait for any more.
            batch.clear();
        }
        let from = batch.from;
        while !quantum.is_over
            && let Some(message) = batch.next(|| self.effects.spare_forward())
        {
            self.tell(None, Input::Shard { from, message });
            // A burst that another shard has passed on is handed out as it comes.
            if self.effects.transmits.len() > self.config.tray_max {
                self.empty_tray(backend);
            }
            self.spend(quantum);
        }
        while !quantum.is_over
            && let Some(moved) = batch.next_moved()
        {
            self.adopt(backend, moved);
            self.spend(quantum);
        }
    }

    #[inline]
    fn spend(&self, quantum: &mut Quantum) {
        quantum.messages += 1;
        if quantum.messages == MAIL_STRIDE {
            quantum.messages = 0;
            quantum.is_over = self.clock.now().mono >= quantum.ends;
        }
    }

    /// Empties the tray: what does not fit it waits inside the engine, and QoS 0 does not wait for long.
    pub(super) fn empty_tray<B: Backend>(&mut self, backend: &mut B) {
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
            let unknown: Vec<_> = self.conns.unknown().collect();
            for id in unknown {
                self.lose(id);
            }
            self.tell(None, Input::Shutdown);
        }
    }
}
