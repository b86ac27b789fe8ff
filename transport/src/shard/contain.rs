//! Faults of ours: what a panic may take with it, and when to give up.
//!
//! A panic while decoding costs the connection whose bytes were decoded, however often: the codec keeps nothing that
//! could be left broken. A panic inside the engine costs what this input had put into the tray, and its connection; then
//! the engine checks itself. If that fails, or it happens again within a minute, or the panic was in the transport itself,
//! no more is sent, and the shard ends as poisoned.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sol_engine::{ConnectionId, Flow, Input, Instant, Mark};

use super::Core;
use crate::observer::{Notice, Observer};

/// A second fault within this time is one too many.
const PANIC_DISTANCE_MIN: Duration = Duration::from_secs(60);

/// What the shard is doing, in case it does not get to its end.
#[derive(Debug)]
pub(super) struct Watch {
    step: Step,
    /// The tray before the input that the engine is handling.
    mark: Option<Mark>,
    /// When the engine failed last.
    last_panic: Option<Instant>,
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
            last_panic: None,
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

    /// Does `work`, which is `about` a connection, and survives its panic if that is sound. Once poisoned, does nothing:
    /// what cannot be trusted is asked nothing more.
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
        if !self.is_sound() {
            self.watch.poisoned.get_or_insert_with(|| text.to_owned());
            return;
        }
        let source = about.and_then(|id| self.conns.get(id)).map(crate::conns::Conn::source);
        self.observer.notice(Notice::Survived { source, panic: text });
        if let Some(id) = about {
            self.lose(id);
        }
    }

    /// Whether the engine failed a short while ago already.
    fn is_again(&mut self) -> bool {
        let now = self.now.mono;
        self.watch
            .last_panic
            .replace(now)
            .is_some_and(|last| now.saturating_since(last) < PANIC_DISTANCE_MIN)
    }

    /// Takes back what the failed step left behind, and looks whether the rest can be trusted.
    fn is_sound(&mut self) -> bool {
        match core::mem::replace(&mut self.watch.step, Step::Transport) {
            Step::Transport => false,
            Step::Decode => true,
            Step::Engine if self.is_again() => false,
            Step::Engine => {
                if let Some(mark) = &self.watch.mark {
                    self.effects.truncate(mark);
                }
                matches!(catch_unwind(AssertUnwindSafe(|| self.engine.check())), Ok(Ok(())))
            }
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
