//! What other shards say.

use alloc::boxed::Box;
use core::mem::take;

use sol_codec::mutants::mutant;

use crate::effects::Effects;
use crate::engine::Engine;
use crate::fanout::Hold;
use crate::ids::ShardId;
use crate::retaining::Question;
use crate::route::{Publish, Source};
use crate::shard_message::{Forward, Interest, ShardMessage};
use crate::time::Now;

impl Engine {
    pub(crate) fn on_shard(&mut self, now: Now, from: ShardId, message: ShardMessage, effects: &mut Effects) {
        match message {
            ShardMessage::Interest { n, filter } => {
                self.set_interest(from, &filter, true);
                self.links.on_announced(from, n);
            }
            ShardMessage::Lost(filter) => self.set_interest(from, &filter, false),
            ShardMessage::Members {
                n,
                share,
                filter,
                online,
                offline,
            } => {
                self.tree.group_set_remote(&filter, &share, from.0, online, offline);
                self.links.on_announced(from, n);
            }
            ShardMessage::Confirmed(n) => {
                self.links.on_confirmed(from, n);
                self.on_confirmed(now, effects);
            }
            ShardMessage::Forward(forward) => self.on_forward(now, from, forward, effects),
            ShardMessage::Taken(upto) => {
                while let Some(who) = self.links.next_taken(from, upto) {
                    if let Some(who) = who {
                        self.complete(now, who, false, effects);
                    }
                }
                if self.links.has_caught_up(from, self.clients.config.unanswered_bytes_max) {
                    self.resume(now, Hold::Retaining(from), effects);
                }
            }
            ShardMessage::Refused(n) => {
                if let Some(who) = self.links.on_refused(from, n) {
                    self.complete(now, who, !mutant("shards/refused-ignored"), effects);
                }
            }
            ShardMessage::RetainedQuery { id, filter, after } => {
                let question = Question::There {
                    from,
                    id,
                    filter,
                    after,
                };
                self.on_question(now, question, effects);
            }
            ShardMessage::RetainedPage { id, messages, more } => {
                self.on_retained_page(now, id, messages, more, effects);
            }
        }
    }

    fn set_interest(&mut self, from: ShardId, filter: &Interest, interested: bool) {
        match (filter, interested) {
            (Interest::Exact(hash), true) => self.tree.exact_interest_add(*hash, from.0),
            (Interest::Exact(hash), false) => self.tree.exact_interest_remove(*hash, from.0),
            (Interest::Wildcard(filter), true) => self.tree.interest_add(filter, from.0),
            (Interest::Wildcard(filter), false) => self.tree.interest_remove(filter, from.0),
            (Interest::Nothing, _) => false,
        };
    }

    fn on_forward(&mut self, now: Now, from: ShardId, mut forward: Box<Forward>, effects: &mut Effects) {
        self.clients.stats.forwards_received += 1;
        self.links.on_forward(from, forward.n);
        if self.clients.is_kept(&forward.message) {
            self.clients.charge_message(&mut forward.message);
        }
        let source = Source::Shard {
            from,
            n: forward.n,
            route: forward.route,
            retain: forward.retain,
            groups: take(&mut forward.groups),
            may_refuse: forward.may_refuse,
        };
        let author = forward.author.take();
        let transaction = forward.transaction;
        let message = effects.unpack(forward);
        let publish = Publish {
            message,
            source,
            transaction,
        };
        if self.line.is_busy() {
            self.wait_in_line_or_drop(publish, author, effects);
        } else {
            self.route_of(author, |engine| engine.route_and_settle(now, publish, effects));
        }
    }
}
