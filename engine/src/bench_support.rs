//! What the benchmarks reach into. No part of the engine's interface: anything here may change at any time.

pub use crate::retained::{Page, Retained};
pub use crate::topic_tree::{
    FilterKey, Group, GroupJoin, GroupKey, GroupLeave, Matches, RemoteWeight, Removed, Subscribed, Subscription,
    TopicTree, Weight, is_wildcard,
};
