//! Faults of ours: what a panic may take with it, and when to give up.
//!
//! A panic while decoding costs the connection whose bytes were decoded, however often: the codec keeps nothing that
//! could be left broken. A panic inside the engine costs what this input had put into the tray, and its connection; then
//! the engine checks itself. If that fails, or it happens again within a minute on whichever shard, or the panic was in the transport itself,
//! no more is sent, and the shard ends as poisoned. So it does where no connection caused the call: what a tick or another
//! shard's message had taken in hand is lost, and whoever waits for it would wait for ever, since nobody knows who that is.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sol_engine::{Close, ConnectionId, Flow, Input, Instant, Mark};

use super::Core;
use crate::conns::{Conn, Phase};
use crate::observer::{Notice, Observer};

/// A second fault within this time is one too many.
const PANIC_DISTANCE_MIN: Duration = Duration::from_secs(60);

/// What the shard is doing, in case it does not get to its end.
#[derive(Debug)]
pub(super) struct Watch {
    step: Step,
    /// The tray before the input that the engine is handling.
    mark: Option<Mark>,
    poisoned: Option<String>,
}

/// Where a panic would come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The transport.
    Transport,
    /// The codec.
    Decode,
    /// The engine.
    Engine,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            step: Step::Transport,
            mark: None,
            poisoned: None,
        }
    }
}

impl Watch {
    pub(super) const fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    pub(super) const fn poisoned(&mut self) -> Option<String> {
        self.poisoned.take()
    }

    pub(super) const fn set(&mut self, step: Step) {
        self.step = step;
    }
}

impl<O: Observer> Core<O> {
    /// Gives the engine an input. Panics when the engine does: callers stand inside [`Core::contain`].
    #[inline]
    pub(super) fn handle(&mut self, input: Input<'_>) -> Flow {
        self.watch.mark = Some(self.effects.mark());
        self.watch.set(Step::Engine);
        #[cfg(test)]
        super::tests::trap(&input);
        let flow = self.engine.handle(self.now, input, &mut self.effects);
        self.watch.set(Step::Transport);
        flow
    }

    /// As [`Core::handle`], for an input that is not of a packet.
    pub(super) fn tell(&mut self, about: Option<ConnectionId>, input: Input<'_>) -> Option<Flow> {
        self.contain(about, |core| core.handle(input))
    }

    /// Lets the engine do what has come due.
    pub(super) fn tick(&mut self) {
        self.contain(None, |core| {
            core.watch.mark = Some(core.effects.mark());
            core.watch.set(Step::Engine);
            core.engine.tick(core.now, &mut core.effects);
            core.watch.set(Step::Transport);
        });
    }

    /// Does `work`, which is `about` a connection, and survives its panic if that is sound, which it is for no work that is
    /// about none. Once poisoned, does nothing: what cannot be trusted is asked nothing more.
    pub(super) fn contain<T>(&mut self, about: Option<ConnectionId>, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.watch.is_poisoned() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.survive(about, panic.as_ref());
                None
            }
        }
    }

    #[cold]
    fn survive(&mut self, about: Option<ConnectionId>, panic: &(dyn Any + Send)) {
        let text = panic_text(panic);
        self.counters.panics += 1;
        self.give_place_back();
        let waiting = match self.recover(about) {
            Ok(waiting) => waiting,
            Err(why) => {
                self.watch.poisoned.get_or_insert_with(|| format!("{text}; {why}"));
                return;
            }
        };
        let source = about.and_then(|id| self.conns.get(id)).map(Conn::source);
        self.observer.notice(Notice::Survived { source, panic: text });
        for id in about.into_iter().chain(waiting) {
            self.fail(id);
        }
    }

    /// Takes back what the failed step left behind, and looks whether the rest can be trusted. Gives the connections that
    /// wait for what was taken back.
    fn recover(&mut self, about: Option<ConnectionId>) -> Result<Vec<ConnectionId>, &'static str> {
        match mem::replace(&mut self.watch.step, Step::Transport) {
            Step::Transport => Err("the transport itself failed"),
            Step::Decode => Ok(Vec::new()),
            Step::Engine if about.is_none() => Err("others wait for what failed, and nobody can be told"),
            Step::Engine if self.is_again() => Err("the second within a minute"),
            Step::Engine => {
                let mark = self.watch.mark.take().unwrap_or_else(|| self.effects.mark());
                let Self { engine, effects, .. } = self;
                let look = || {
                    let waiting = engine.take_back(&mark, effects)?;
                    engine.check().map(|()| waiting)
                };
                catch_unwind(AssertUnwindSafe(look)).unwrap_or(Err("and so did looking at what it left"))
            }
        }
    }

    /// Whether an engine failed a short while ago already, now that this one has. On whichever shard: what goes wrong again
    /// and again is the program, and clients choose their shards.
    fn is_again(&self) -> bool {
        let now = self.now.mono;
        is_too_soon(self.mailbox.exchange().whole.fail(now), now)
    }

    /// Ends a connection for a fault of ours: the engine tells its client so, if it can.
    fn fail(&mut self, id: ConnectionId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.ended || conn.phase == Phase::Closing {
            return;
        }
        conn.stopped = true;
        let is_engines = conn.is_engines();
        self.forget_input(id);
        if is_engines {
            self.tell(Some(id), Input::Fault(id));
        }
        // One that the engine does not know any more is not closed by it.
        if !self.effects.closes.iter().any(|close| close.connection == id) {
            self.closes.push(Close {
                connection: id,
                flush: true,
            });
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "a panic without words"
    }
}

/// Whether what failed `now` had failed a short while ago.
fn is_too_soon(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_since(last) < PANIC_DISTANCE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second fault is one too many within a minute of the first, and none after it.
    #[test]
    fn faults_that_are_a_minute_apart_do_not_add_up() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        assert!(!is_too_soon(None, at(100)));
        assert!(!is_too_soon(Some(at(100)), at(160)));
        assert!(is_too_soon(Some(at(221)), at(280)));
        // Another shard's may have been seen a little later than ours.
        assert!(is_too_soon(Some(at(281)), at(280)));
    }
}
