//! What could happen next: everything that can is in here, and some of it no longer can.

use super::World;
use crate::oracle::LinkId;
use crate::packet::Request;

/// Something that could happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A client takes a packet out of its pipe, or sees that its connection is closed.
    Hear(usize),
    /// A shard takes a packet out of a pipe.
    Take(LinkId),
    /// A shard takes one piece of mail.
    Mail(usize),
    /// A shard does what has come due.
    Tick(usize),
    /// A shard's tray is applied, and what it posts is posted to the next receiver.
    Flush(usize),
    /// The journal's thread writes, or answers for what it has written.
    Write,
    /// A shard hears what the journal has kept.
    Durable(usize),
    /// A shard hears that another one's mailbox has filled or drained.
    Peer(usize),
    /// A login was checked.
    Login(usize),
}

/// Whether an act can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    Now,
    /// When a pause has ended.
    Later,
    /// Not until it is offered again.
    No,
}

/// Acts of one shard.
const SHARD_ACTS: usize = 6;
/// How often chance is asked before all is looked through.
const TRIES: usize = 8;

impl World {
    /// A client may have something to hear.
    pub(super) fn offer_hear(&mut self, who: usize) {
        if !std::mem::replace(&mut self.parties[who].offered, true) {
            self.ready.push(Act::Hear(who));
        }
    }

    /// A shard may have something to take.
    pub(super) fn offer_take(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && !std::mem::replace(&mut link.offered, true)
        {
            self.ready.push(Act::Take(id));
        }
    }

    /// Something that happens next, by chance. `None`: nothing can happen.
    pub(super) fn choose(&mut self) -> Option<Act> {
        self.draw().or_else(|| {
            // All that could go on pauses: the pauses end.
            for shard in &mut self.shards {
                shard.wakes = 0;
            }
            self.writer.wakes = 0;
            self.links.end_stalls();
            self.draw()
        })
    }

    fn draw(&mut self) -> Option<Act> {
        let mut due = [Act::Hear(0); SHARD_ACTS * super::SHARDS_MAX + 1];
        let due_len = self.shard_acts(&mut due);
        for _ in 0..TRIES {
            let all = due_len + self.ready.len();
            if all == 0 {
                return None;
            }
            let at = self.rng.below(all);
            let Some(at) = at.checked_sub(due_len) else {
                return Some(due[at]);
            };
            match self.chance_of(self.ready[at]) {
                Chance::Now => return Some(self.ready[at]),
                Chance::Later => {}
                Chance::No => self.withdraw(at),
            }
        }
        let mut at = 0;
        let mut now = Vec::new();
        while at < self.ready.len() {
            match self.chance_of(self.ready[at]) {
                Chance::No => {
                    self.withdraw(at);
                    continue;
                }
                Chance::Now => now.push(self.ready[at]),
                Chance::Later => {}
            }
            at += 1;
        }
        now.extend_from_slice(&due[..due_len]);
        if now.is_empty() {
            return None;
        }
        Some(*self.rng.pick(&now))
    }

    fn withdraw(&mut self, at: usize) {
        match self.ready.swap_remove(at) {
            Act::Hear(who) => self.parties[who].offered = false,
            Act::Take(id) => {
                if let Some(link) = self.links.get_mut(id) {
                    link.offered = false;
                }
            }
            _ => {}
        }
    }

    fn shard_acts(&self, acts: &mut [Act]) -> usize {
        let mut len = 0;
        if self.writer.has_work() && self.writer.wakes <= self.steps {
            acts[len] = Act::Write;
            len += 1;
        }
        for (n, shard) in self.shards.iter().enumerate() {
            if shard.wakes > self.steps {
                continue;
            }
            let mut add = |act: Act, can: bool| {
                acts[len] = act;
                len += usize::from(can);
            };
            if shard.is_posting() {
                add(Act::Flush(n), true);
                continue;
            }
            add(Act::Mail(n), !shard.mailbox.is_empty());
            add(Act::Tick(n), shard.deadline.is_some_and(|due| due <= self.now.mono));
            add(Act::Flush(n), !shard.tray.is_empty());
            add(Act::Durable(n), self.writer.has_news(n));
            add(Act::Peer(n), self.credits.has_news(n));
            add(Act::Login(n), !shard.logins.is_empty());
        }
        len
    }

    fn chance_of(&self, act: Act) -> Chance {
        match act {
            Act::Hear(who) => self.chance_to_hear(who),
            Act::Take(id) => self.chance_to_take(id),
            _ => Chance::Now,
        }
    }

    fn chance_to_hear(&self, who: usize) -> Chance {
        let link = self.parties[who].link.and_then(|id| self.links.get(id));
        match link {
            Some(link) if link.ended || !link.to_client.is_empty() => {
                if link.client_stalls > self.steps {
                    Chance::Later
                } else {
                    Chance::Now
                }
            }
            _ => Chance::No,
        }
    }

    fn chance_to_take(&self, id: LinkId) -> Chance {
        let Some(link) = self.links.get(id) else {
            return Chance::No;
        };
        let Some(first) = link.to_broker.front() else {
            return Chance::No;
        };
        // The end of a stream is seen though nothing is read.
        if link.ended || link.connection.is_none() || link.stopped && !matches!(first, Request::End) {
            Chance::No
        } else if link.broker_stalls > self.steps || self.shards[link.shard].is_held_up(self.steps) {
            Chance::Later
        } else {
            Chance::Now
        }
    }
}

impl super::Shard {
    /// It rests, or is about to post.
    fn is_held_up(&self, steps: u64) -> bool {
        self.wakes > steps || self.is_posting()
    }
}
