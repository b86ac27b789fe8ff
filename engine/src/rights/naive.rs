//! Rules as their list, looked through from the front with the codec's own matcher: the twin of [`super::rules`].

use alloc::{format, string::String, vec::Vec};

use sol_codec::{TopicFilter, TopicName};

use super::rules::{Access, Rule, RuleSet, Who};

/// Whether a client may read, and write.
pub(super) fn ruling(set: &RuleSet, who: &Who<'_>, topic: &str) -> (bool, bool) {
    let is_allowed = |denies: [Access; 2], allows: [Access; 2]| {
        for rules in [own(set, who), patterns(set, who)] {
            let says = |accesses: &[Access]| {
                rules
                    .iter()
                    .any(|(access, filter)| accesses.contains(access) && matches(filter, topic))
            };
            if says(&denies) {
                return false;
            }
            if says(&allows) {
                return true;
            }
        }
        false
    };
    (
        is_allowed([Access::Deny, Access::DenyRead], [Access::Read, Access::ReadWrite]),
        is_allowed([Access::Deny, Access::DenyWrite], [Access::Write, Access::ReadWrite]),
    )
}

fn own(set: &RuleSet, who: &Who<'_>) -> Vec<(Access, String)> {
    let text = |rule: &Rule| (rule.access, String::from(&*rule.filter));
    match who.username {
        None => set.anonymous.iter().map(text).collect(),
        Some(name) => {
            let named = set.users.iter().filter(|(known, _)| known == name);
            named.flat_map(|(_, rules)| rules.iter().map(text)).collect()
        }
    }
}

/// The patterns as they read for this client; none where a name of it is more than a name.
fn patterns(set: &RuleSet, who: &Who<'_>) -> Vec<(Access, String)> {
    let uses = |place: &str| set.patterns.iter().any(|rule| rule.filter.contains(place));
    let begins = |place: &str| set.patterns.iter().any(|rule| rule.filter.starts_with(place));
    let is_no_name = |name: &str, place: &str| {
        name.contains(['+', '#']) || uses(place) && name.contains('/') || begins(place) && name.starts_with('$')
    };
    let names = [(Some(who.client_id), "%c"), (who.username, "%u")];
    if names
        .iter()
        .any(|(name, place)| name.is_some_and(|name| is_no_name(name, place)))
    {
        return Vec::new();
    }
    let text = |rule: &Rule| {
        if who.username.is_none() && rule.filter.contains("%u") {
            return None;
        }
        let levels: Vec<_> = rule.filter.split('/').map(|level| fill(level, who)).collect();
        Some((rule.access, levels.join("/")))
    };
    set.patterns.iter().filter_map(text).collect()
}

fn fill(level: &str, who: &Who<'_>) -> String {
    match level.split_once("%c") {
        Some((before, behind)) => format!("{before}{}{behind}", who.client_id),
        None => level.replace("%u", who.username.unwrap_or_default()),
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    TopicFilter::new(filter).is_ok_and(|filter| filter.matches(TopicName::new(topic).unwrap()))
}
