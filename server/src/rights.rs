//! Which rules each listener has: its ACL file's, or those of a listener that is open to the network.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sol_engine::{RuleSet, Rules};

use crate::acl_file;
use crate::config::{Config, Diagnostic, Listener};

/// The rules of each listener of the configuration, in its order; where there are none, everything is allowed.
pub type Rights = Vec<Option<Arc<Rules>>>;

/// Reads the ACL files, each of them once. The warnings are those of the files, and about names that nobody checks. A listener
/// that is gone has no rules here, but those that it had.
///
/// # Errors
/// As [`acl_file::load`].
pub(crate) fn rights(config: &Config) -> Result<(Rights, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut files: HashMap<&Path, (RuleSet, Arc<Rules>)> = HashMap::new();
    let (mut rights, mut warnings, mut errors) = (Rights::new(), Vec::new(), Vec::new());
    for listener in &config.listeners {
        if listener.is_gone {
            rights.push(None);
            continue;
        }
        let Some(path) = listener.auth.acl_file.as_deref() else {
            rights.push(without_file(listener));
            continue;
        };
        if !files.contains_key(path) {
            match acl_file::load(path) {
                Ok((set, told)) => {
                    warnings.extend(told);
                    let rules = Arc::new(Rules::new(set.clone()));
                    files.insert(path, (set, rules));
                }
                Err(told) => {
                    errors.extend(
                        told.into_iter()
                            .filter(|error| !errors.contains(error))
                            .collect::<Vec<_>>(),
                    );
                    continue;
                }
            }
        }
        let (set, rules) = &files[path];
        let has_names = listener.certificate_name.is_some() || listener.auth.checks_passwords(config.dialect);
        if !set.users.is_empty() && listener.auth.allow_anonymous && !has_names {
            let text = "acl_file gives rights to users by their names, and nobody checks these: a password_file does";
            let warning = listener.place_of("acl_file").say(text);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        rights.push(Some(Arc::clone(rules)));
    }
    if errors.is_empty() {
        Ok((rights, warnings))
    } else {
        Err(errors)
    }
}

/// Whoever can connect to an open listener without a login reads neither what the broker says of itself, nor all at once.
fn without_file(listener: &Listener) -> Option<Arc<Rules>> {
    let is_open = listener.auth.allow_anonymous && !listener.is_local();
    is_open.then(|| Arc::new(Rules::for_open_listener()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn config(text: &str) -> Config {
        Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap()
    }

    /// One file is read once for all listeners that name it; one that is open to the network has rules without a file.
    #[test]
    fn each_listener_has_its_rules() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        std::fs::write(&path, "user ann\ntopic #\n").unwrap();
        let path = path.display();
        let text = format!(
            "per_listener_settings true\nlistener 1 127.0.0.1\nacl_file {path}\npassword_file /p\nlistener 2 127.0.0.1\n\
             acl_file {path}\nallow_anonymous true\nlistener 3\nallow_anonymous true\nlistener 4\npassword_file /p\n\
             listener 5 localhost\nallow_anonymous true\n"
        );
        let (rights, warnings) = rights(&config(&text)).unwrap();
        let [Some(first), Some(second), Some(open), None, None] = &rights[..] else {
            panic!("{rights:?}")
        };
        assert!(Arc::ptr_eq(first, second));
        assert_eq!(**open, Rules::for_open_listener());
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let [mode, claimed] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert!(mode.contains("chmod o-rwx"), "{mode}");
        assert_eq!(
            claimed,
            "f:6: acl_file gives rights to users by their names, and nobody checks these: a password_file does"
        );
    }

    /// Where a certificate tells who a client is, the names of an ACL file are checked, and nobody is warned.
    #[test]
    fn certificates_confirm_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        std::fs::write(&path, "user ann\ntopic #\n").unwrap();
        let listener = format!(
            "listener 1\nallow_anonymous true\nacl_file {}\ncertfile /c\nkeyfile /k\ncafile /a\n",
            path.display()
        );
        for (more, warned) in [
            ("use_identity_as_username true", false),
            ("require_certificate true", true),
        ] {
            let (_, warnings) = rights(&config(&format!("{listener}{more}"))).unwrap();
            let is_of_names = |warning: &Diagnostic| warning.to_string().contains("nobody checks these");
            assert_eq!(warnings.iter().any(is_of_names), warned, "{more}");
        }
    }

    /// A file that cannot be read is told once, however many listeners name it, and nobody gets any rights by the others.
    #[test]
    fn a_file_that_is_missing_is_told_once() {
        let errors = rights(&config("acl_file /nonexistent/acl\nlistener 1\nlistener 2\n")).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}
