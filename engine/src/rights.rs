//! The one gate for rights.
//!
//! It stands wherever a message passes between a Session and a topic: at [`Action`]'s seven places, and at no other.
//! Until there are rules it knows one: the broker's own topics are not for clients to write.

use crate::session::Session;

/// What a Session is about to do with a topic, or have done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// PUBLISH to a Topic Name.
    Publish,
    /// SUBSCRIBE to a Topic Filter.
    Subscribe,
    /// Receive a live message.
    Deliver,
    /// Receive a retained message.
    Retained,
    /// Receive a message that waited in the queue.
    Replay,
    /// Have the Will published.
    Will,
    /// Receive a message as a member of a Shared Subscription.
    Share,
}

/// Whether `session` has the right to `action` on `topic` (a Topic Filter for [`Action::Subscribe`]).
#[inline]
pub(crate) fn may(_session: &Session, action: Action, topic: &str) -> bool {
    match action {
        Action::Publish | Action::Will => !is_reserved(topic),
        Action::Subscribe | Action::Deliver | Action::Retained | Action::Replay | Action::Share => true,
    }
}

/// Topics that only the broker publishes to, and such that nobody could subscribe to.
fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
        && ["$SYS", "$SOL", "$CONTROL", "$share"].contains(&topic.split('/').next().unwrap_or_default())
}
