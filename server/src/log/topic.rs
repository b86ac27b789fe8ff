//! The log as messages: each line under `$SYS/broker/log/` and its level's letter, as Mosquitto names them.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// Publishes a line under a topic.
pub type Publish = Box<dyn Fn(&'static str, &str) + Send + Sync>;

/// Lines from before somebody can publish them go to the other destinations alone.
#[derive(Clone, Default)]
pub(super) struct Topic(Arc<OnceLock<Publish>>);

impl Topic {
    /// Has lines be published in this way from now on. Only the first call has an effect.
    pub(super) fn publish_by(&self, publish: Publish) {
        // A broker is launched once in a process.
        let _ = self.0.set(publish);
    }

    /// Publishes a line. What only those see who look for faults stays in the other destinations: it is written about
    /// each message, and a line is one.
    pub(super) fn write(&self, level: &str, line: &str) {
        let topic = match level {
            "ERROR" => "$SYS/broker/log/E",
            "WARNING" => "$SYS/broker/log/W",
            "INFO" => "$SYS/broker/log/I",
            _ => return,
        };
        if let Some(publish) = self.0.get() {
            publish(topic, line.trim_end());
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.0.get().is_some()).finish()
    }
}
