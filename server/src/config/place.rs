//! Where in which file something stands.

use super::diagnostic::Diagnostic;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A line of a file.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file: the one that was named, or one that it includes.
    pub path: Arc<Path>,
    /// The line, from 1; 0 if no line but a default or the command line says it.
    pub line: usize,
}

impl Place {
    /// No line.
    pub fn nowhere() -> Self {
        Self {
            path: Arc::from(Path::new("")),
            line: 0,
        }
    }

    /// Speaks of this line.
    pub fn say(&self, text: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.path, self.line, 0, text)
    }
}

/// Two configurations mean the same, wherever their lines stand.
impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

/// Where each directive that was given stands.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<&'static str, Place>);

impl Places {
    /// The line of a directive.
    pub fn of(&self, directive: &str) -> Option<&Place> {
        self.0.get(directive)
    }

    /// The first of these directives that was given, and its line.
    pub(crate) fn first<'a>(&self, directives: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &Place)> {
        directives.into_iter().find_map(|name| Some((name, self.of(name)?)))
    }

    /// The directive that stands above all others.
    pub(crate) fn topmost(&self) -> Option<(&'static str, &Place)> {
        let all = self.0.iter().map(|(name, place)| (*name, place));
        all.min_by_key(|(_, place)| place.line)
    }

    /// Notes a line, and returns the one before.
    pub(crate) fn note(&mut self, directive: &'static str, place: Place) -> Option<Place> {
        self.0.insert(directive, place)
    }
}

/// As for [`Place`].
impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Places {}
