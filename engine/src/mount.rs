//! Mount points: what stands before every topic of a listener's clients, unseen by them.
//!
//! Inside, a topic is whole: trees, retained messages, Wills, rights and other shards know nothing of mount points. A topic
//! gets its front where a mounted client's packet comes in, and loses it in the last step before the tray. Who has none
//! pays for neither.

use alloc::{format, rc::Rc, string::String, sync::Arc};

use sol_codec::TopicFilter;

use crate::clients::Clients;
use crate::connection::Marks;
use crate::effects::{Delivery, Effects};
use crate::ids::{ConnectionId, ListenerId};
use crate::message::Message;
use crate::time::Now;

/// The whole topic that a mounted client means. `None`: no packet could hold it.
pub(crate) fn whole_topic(mount: &str, topic: &str) -> Option<String> {
    whole(format!("{mount}{topic}"))
}

/// The whole Topic Filter that a mounted client means, with what it shares in front as before.
pub(crate) fn whole_filter(mount: &str, filter: TopicFilter<'_>) -> Option<String> {
    whole(match filter.shared() {
        Some((share, plain)) => format!("$share/{}/{mount}{}", share.as_str(), plain.as_str()),
        None => format!("{mount}{}", filter.as_str()),
    })
}

fn whole(text: String) -> Option<String> {
    (text.len() <= usize::from(u16::MAX)).then_some(text)
}

/// A message as mounted clients get it: kept for as long as one call lasts, for they may be many.
#[derive(Debug)]
pub(crate) struct Unmounted {
    of: Rc<Message>,
    by: ListenerId,
    message: Rc<Message>,
}

impl Clients {
    /// The mount point of a connection that has one.
    pub(crate) fn mount_of(&self, id: ConnectionId) -> Option<Arc<str>> {
        let connection = self.connections.get(id)?;
        let mount = self.config.mount_point(connection.listener);
        mount.filter(|_| connection.marks.has(Marks::MOUNTED)).cloned()
    }

    /// Sends a PUBLISH to a mounted client. `false`: it is not for that client to see, or too large, and done with.
    #[cold]
    pub(crate) fn send_unmounted(
        &mut self,
        now: Now,
        id: ConnectionId,
        mut delivery: Delivery,
        effects: &mut Effects,
    ) -> bool {
        let Some(message) = self.unmounted(id, &delivery.message, effects) else {
            // A Session that was at another listener before may have Subscriptions from there.
            self.stats.deliver_unauthorized += 1;
            self.let_go(delivery.message, effects);
            return false;
        };
        let whole = core::mem::replace(&mut delivery.message, message);
        self.let_go(whole, effects);
        self.send_seen(now, id, delivery, effects)
    }

    fn unmounted(&mut self, id: ConnectionId, message: &Rc<Message>, effects: &mut Effects) -> Option<Rc<Message>> {
        let by = self.connections.get(id)?.listener;
        if let Some(known) = &self.unmounted
            && known.by == by
            && Rc::ptr_eq(&known.of, message)
        {
            return Some(Rc::clone(&known.message));
        }
        let mount = self.config.mount_point(by)?;
        let seen = message.topic().strip_prefix(&**mount).filter(|seen| !seen.is_empty())?;
        let made = Rc::new(message.with_topic(seen));
        self.forget_unmounted(effects);
        self.has_copies = true;
        self.unmounted = Some(Unmounted {
            of: Rc::clone(message),
            by,
            message: Rc::clone(&made),
        });
        Some(made)
    }

    /// The present call ends, or another message is sent.
    pub(crate) fn forget_unmounted(&mut self, effects: &mut Effects) {
        if let Some(Unmounted { of, message, .. }) = self.unmounted.take() {
            self.let_go(of, effects);
            self.let_go(message, effects);
        }
    }
}
