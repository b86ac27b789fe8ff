//! What `sol check` prints.

use super::{Config, Metrics, Shards, directives};

impl Config {
    /// The configuration as it would run, as directives of its dialect: every one that is in force, defaults included.
    ///
    /// The text is itself a configuration file that means the same.
    pub fn to_directives(&self) -> String {
        let origin = match &self.source {
            Some(path) => path.display().to_string(),
            None => "no file".to_owned(),
        };
        let mut text = format!("# {origin}, read in the dialect `{}`\n", self.dialect);
        for directive in directives().filter(|row| row.is_in(self.dialect)) {
            for value in (directive.show)(self) {
                text += &format!("{} {value}\n", directive.name);
            }
        }
        if self.shards == Shards::Auto {
            text += &format!("# shards auto is {} here\n", self.shard_count());
        }
        if self.metrics == Metrics::Default {
            text += &format!("# metrics {}, if that port is free\n", super::METRICS_DEFAULT);
        }
        text
    }
}
