//! What `sol check` prints.

use super::directives::{Directive, Scope, Show};
use super::{Config, Dialect, Metrics, Shards, directives};

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
        let differ = self
            .listeners
            .windows(2)
            .any(|pair| !pair[0].auth.lets_in_as(&pair[1].auth));
        if differ {
            text += "per_listener_settings true\n";
        }
        let rows = || directives().filter(|row| row.is_in(self.dialect));
        if self.dialect == Dialect::Sol {
            rows().for_each(|row| print(&mut text, row, row.values_of(self)));
        } else {
            let is_shared = |row: &Directive| {
                matches!(row.scope, Scope::Broker | Scope::Security) && !matches!(row.show, Show::Listener(_))
                    || row.scope == Scope::Security && !differ
            };
            for row in rows().filter(|row| is_shared(row)) {
                let values = match (row.show, self.listeners.first()) {
                    (Show::Listener(show), Some(first)) => show(first),
                    _ => row.values_of(self),
                };
                print(&mut text, row, values);
            }
            for listener in &self.listeners {
                let opens = |row: &&Directive| row.name == "listener";
                let rest = rows().filter(|row| !opens(row) && !is_shared(row));
                for row in rows().filter(opens).chain(rest) {
                    if let Show::Listener(show) = row.show {
                        print(&mut text, row, show(listener));
                    }
                }
            }
        }
        for row in rows() {
            let mut given = self
                .listeners
                .iter()
                .map(|listener| &listener.places)
                .chain([&self.places]);
            if let (Some(why), Some(place)) = (row.no_effect, given.find_map(|places| places.of(row.name))) {
                text += &format!("# {} of line {} has no effect: {why}\n", row.name, place.line);
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

fn print(text: &mut String, row: &Directive, values: Vec<String>) {
    for value in values {
        *text += &format!("{} {value}\n", row.name);
    }
}
