//! How other threads speak to the shards.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{after, bounded, select};
use sol_engine::{Answer, ChangedUser, EngineConfig, ListenerId, Message, Query, ShardId};

use crate::admission::Limits;
use crate::counters::Counters;
use crate::listener::Tls;
use crate::mailbox::{Exchange, Mail};
use crate::websocket::Files;
use crate::whole::Maxima;

/// One shard's answer to a question.
#[derive(Clone, Debug)]
pub struct ShardAnswer {
    /// Who answers.
    pub shard: ShardId,
    /// What its engine says.
    pub answer: Answer,
    /// What its transport counts.
    pub counters: Counters,
}

/// Posts to the shards' mailboxes; never waits for a shard, but for [`Handle::ask`].
#[derive(Clone, Debug)]
pub struct Handle {
    exchange: Arc<Exchange>,
    journal: Option<sol_journal::Handle>,
}

impl Handle {
    pub(crate) const fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            journal: None,
        }
    }

    /// What is durable is written here.
    pub(crate) fn set_journal(&mut self, journal: sol_journal::Handle) {
        self.journal = Some(journal);
    }

    pub(crate) const fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Asks every shard, and gives the answers that came within `timeout`, in order of shards.
    #[must_use]
    pub fn ask(&self, query: Query, timeout: Duration) -> Vec<ShardAnswer> {
        let shards = self.exchange.shards().count();
        let (reply, replies) = bounded(shards);
        self.exchange.post_all(|| Mail::Ask(query, reply.clone()));
        // With the last shard's copy gone there is nothing to wait for.
        drop(reply);
        let timeout = after(timeout);
        let mut answers = Vec::with_capacity(shards);
        while answers.len() < shards {
            select! {
                recv(replies) -> answer => match answer {
                    Ok(answer) => answers.push(answer),
                    Err(_) => break,
                },
                recv(timeout) -> _ => break,
            }
        }
        answers.sort_by_key(|answer: &ShardAnswer| answer.shard);
        answers
    }

    /// What there was at most, in all shards together.
    #[must_use]
    pub fn maxima(&self) -> Maxima {
        self.exchange.whole.maxima()
    }

    /// What the journal has done and how large it is; `None`: there is none.
    #[must_use]
    pub fn journal(&self) -> Option<sol_journal::Numbers> {
        self.journal.as_ref().map(sol_journal::Handle::numbers)
    }

    /// Publishes a message of the broker's own.
    pub fn publish(&self, message: Message) {
        self.exchange.post(ShardId(0), Mail::Publish(Box::new(message)));
    }

    /// Puts new limits in force. The number of shards must be as before.
    pub fn reload(&self, config: EngineConfig) {
        let config = Arc::new(config);
        self.exchange.post_all(|| Mail::Reload(Arc::clone(&config)));
    }

    /// Has these be accepted, and clients send so fast, from now on. Whether connections of one address have a limit must be
    /// as before.
    pub fn change_limits(&self, limits: Limits) {
        let limits = Arc::new(limits);
        self.exchange.post_all(|| Mail::Limits(Arc::clone(&limits)));
    }

    /// Has a listener's connections be encrypted in this way from now on. Those that exist stay as they are. Does nothing
    /// to a listener without TLS.
    pub fn change_tls(&self, listener: ListenerId, tls: Tls) {
        let tls = Arc::new(tls);
        self.exchange.post_all(|| Mail::Tls(listener, Arc::clone(&tls)));
    }

    /// Has a listener serve these files from now on; what is on its way goes on. Does nothing to a listener without WebSocket.
    pub fn change_files(&self, listener: ListenerId, files: &Arc<Files>) {
        self.exchange.post_all(|| Mail::Files(listener, Arc::clone(files)));
    }

    /// Tells the shards what has become of these users.
    pub fn change_users(&self, changed: Vec<ChangedUser>) {
        let changed = Arc::new(changed);
        self.exchange.post_all(|| Mail::Users(Arc::clone(&changed)));
    }

    /// Ends the connections that grants have let in at these listeners.
    pub fn end_grants(&self, listeners: &[ListenerId]) {
        let listeners: Arc<[ListenerId]> = listeners.into();
        self.exchange.post_all(|| Mail::GrantsEnd(Arc::clone(&listeners)));
    }

    /// Stops the shards: clients are told, what was sent to them leaves, and [`crate::Shards::join`] returns. Harmless
    /// when repeated.
    pub fn stop(&self) {
        self.exchange.stop();
    }
}
