//! What one client may read and write, as JSON beside its login: the claim `acl` of a token, in EMQX's two forms.
//!
//! ```json
//! {"pub": ["state/${clientid}"], "sub": ["command/${clientid}/#"], "all": ["chat"]}
//!
//! [{"permission": "deny", "action": "subscribe", "topic": "house/safe"},
//!  {"permission": "allow", "action": "all", "topics": ["house/#"]}]
//! ```
//!
//! `${clientid}` and `%c` are the Client Identifier, `${username}` and `%u` the User Name; with a wildcard or a `/` in such
//! a name no rule counts that stands in a list with one of them. What denies comes before what allows, wherever it stands,
//! but for a denial of `#` behind all that allows, which says what holds anyway. What nothing allows is denied. What is not
//! understood (`qos`, `retain`, `eq` before a topic) is a fault: a rule that was half read would allow too much.

use serde_json::{Map, Value};
use sol_codec::{TopicError, TopicFilter};
use sol_engine::{Access, Rule, RuleSet, Rules};

use crate::acl_file::FILTER_LEVELS_MAX;

/// Rules of one client.
pub const RULES_MAX: usize = 256;

/// Compiles the rules of one client, which are those for clients without a User Name.
///
/// # Errors
/// What is not understood.
pub fn rules(acl: &Value) -> Result<Rules, &'static str> {
    let mut rules = match acl {
        Value::Object(lists) => of_lists(lists)?,
        Value::Array(list) => of_list(list)?,
        _ => return Err("its acl is neither an object nor an array"),
    };
    let last = rules.iter().rposition(|rule| !denies(rule.access));
    let behind = rules.split_off(last.map_or(0, |last| last + 1));
    rules.extend(behind.into_iter().filter(|rule| &*rule.filter != "#"));
    let names_client = rules
        .iter()
        .any(|rule| rule.filter.contains("%c") || rule.filter.contains("%u"));
    // Together, since a client's own rules come before patterns, and none that denies must come behind one that allows.
    let set = if names_client {
        RuleSet {
            patterns: rules,
            ..RuleSet::default()
        }
    } else {
        RuleSet {
            anonymous: rules,
            ..RuleSet::default()
        }
    };
    Ok(Rules::new(set))
}

const fn denies(access: Access) -> bool {
    matches!(access, Access::Deny | Access::DenyRead | Access::DenyWrite)
}

fn of_lists(lists: &Map<String, Value>) -> Result<Vec<Rule>, &'static str> {
    let mut rules = Vec::new();
    for (name, topics) in lists {
        let access = match &**name {
            "pub" => Access::Write,
            "sub" => Access::Read,
            "all" => Access::ReadWrite,
            _ => return Err("its acl has another key than pub, sub and all"),
        };
        let topics = topics.as_array().ok_or("a list of its acl is no array")?;
        add(&mut rules, access, topics)?;
    }
    Ok(rules)
}

fn of_list(list: &[Value]) -> Result<Vec<Rule>, &'static str> {
    let mut rules = Vec::new();
    for rule in list {
        let rule = rule.as_object().ok_or("a rule of its acl is no object")?;
        let known = ["permission", "action", "topic", "topics"];
        if rule.keys().any(|key| !known.contains(&&**key)) {
            return Err("a rule of its acl has another key than permission, action, topic and topics");
        }
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let access = match (text("permission"), text("action").unwrap_or("all")) {
            (Some("allow"), "publish") => Access::Write,
            (Some("allow"), "subscribe") => Access::Read,
            (Some("allow"), "all") => Access::ReadWrite,
            (Some("deny"), "publish") => Access::DenyWrite,
            (Some("deny"), "subscribe") => Access::DenyRead,
            (Some("deny"), "all") => Access::Deny,
            _ => return Err("a rule of its acl has no permission (allow, deny) or action (publish, subscribe, all)"),
        };
        match (rule.get("topic"), rule.get("topics").map(Value::as_array)) {
            (Some(topic), None) => add(&mut rules, access, std::slice::from_ref(topic))?,
            (None, Some(Some(topics))) => add(&mut rules, access, topics)?,
            _ => return Err("a rule of its acl has neither a topic nor an array topics, or both"),
        }
    }
    Ok(rules)
}

fn add(rules: &mut Vec<Rule>, access: Access, topics: &[Value]) -> Result<(), &'static str> {
    if rules.len() + topics.len() > RULES_MAX {
        return Err("its acl has more rules than 256");
    }
    for topic in topics {
        let topic = topic.as_str().ok_or("a topic of its acl is no text")?;
        rules.push(Rule::new(access, &filter(topic)?));
    }
    Ok(())
}

/// A topic of a rule as a filter of ours.
fn filter(topic: &str) -> Result<String, &'static str> {
    let filter = topic.replace("${clientid}", "%c").replace("${username}", "%u");
    if filter.contains("${") {
        return Err("a topic of its acl has another ${…} than ${clientid} and ${username}");
    }
    if filter.starts_with("eq ") {
        return Err("a topic of its acl begins with eq, which is not understood");
    }
    let shared = |error| matches!(error, TopicError::InvalidShareName | TopicError::ShareWithoutFilter);
    match TopicFilter::new(&filter) {
        Err(error) if !shared(error) => Err("a topic of its acl is no Topic Filter"),
        _ if filter.split('/').count() > FILTER_LEVELS_MAX => Err("a topic of its acl has too many levels"),
        _ => Ok(filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(json: &str) -> Result<Rules, &'static str> {
        rules(&serde_json::from_str(json).unwrap())
    }

    fn own(rules: &[(Access, &str)]) -> Rules {
        Rules::new(RuleSet {
            anonymous: rules
                .iter()
                .map(|(access, filter)| Rule::new(*access, filter))
                .collect(),
            ..RuleSet::default()
        })
    }

    fn patterns(rules: &[(Access, &str)]) -> Rules {
        Rules::new(RuleSet {
            patterns: rules
                .iter()
                .map(|(access, filter)| Rule::new(*access, filter))
                .collect(),
            ..RuleSet::default()
        })
    }

    /// Both forms, with either way to name the client; none allows nothing.
    #[test]
    fn both_forms() {
        use Access::*;
        for (json, wanted) in [
            (
                r#"{"pub":["a"],"sub":["b/#"],"all":["+/c"]}"#,
                own(&[(Write, "a"), (Read, "b/#"), (ReadWrite, "+/c")]),
            ),
            (
                r#"{"pub":["${clientid}/x"],"sub":["%u/y","z"]}"#,
                patterns(&[(Write, "%c/x"), (Read, "%u/y"), (Read, "z")]),
            ),
            (
                r#"[{"permission":"deny","action":"subscribe","topic":"a/no"},
                    {"permission":"allow","topics":["a/#","b"]},
                    {"permission":"allow","action":"publish","topic":"c"}]"#,
                own(&[(DenyRead, "a/no"), (ReadWrite, "a/#"), (ReadWrite, "b"), (Write, "c")]),
            ),
            ("{}", own(&[])),
            ("[]", own(&[])),
        ] {
            assert_eq!(compiled(json), Ok(wanted), "{json}");
        }
    }

    /// A denial of everything at the end, which EMQX's users write for all the rest, takes nothing away; others do, wherever
    /// they stand.
    #[test]
    fn denials() {
        let deny = |topic: &str| format!(r#"{{"permission":"deny","action":"all","topic":"{topic}"}}"#);
        let allow = |topic: &str| format!(r#"{{"permission":"allow","action":"all","topic":"{topic}"}}"#);
        let list = |rules: &[String]| compiled(&format!("[{}]", rules.join(","))).unwrap();
        assert_eq!(
            list(&[allow("a/#"), deny("a/b"), deny("#"), deny("c")]),
            own(&[(Access::ReadWrite, "a/#"), (Access::Deny, "a/b"), (Access::Deny, "c")])
        );
        assert_eq!(
            list(&[deny("#"), allow("a")]),
            own(&[(Access::Deny, "#"), (Access::ReadWrite, "a")])
        );
        assert_eq!(
            list(&[allow("a/#"), deny("a/b"), allow("c")]),
            own(&[
                (Access::ReadWrite, "a/#"),
                (Access::Deny, "a/b"),
                (Access::ReadWrite, "c")
            ])
        );
    }

    /// What is not understood as a whole allows nothing, not even what was understood of it.
    #[test]
    fn faults() {
        let many = format!(r#"{{"all":[{}]}}"#, vec![r#""a""#; RULES_MAX + 1].join(","));
        let deep = format!(r#"{{"all":["{}"]}}"#, "a/".repeat(FILTER_LEVELS_MAX));
        for json in [
            "null",
            "true",
            "\"#\"",
            r#"{"publish":["a"]}"#,
            r##"{"all":"#"}"##,
            r#"{"all":[1]}"#,
            r#"{"all":["a/#/b"]}"#,
            r#"{"all":[""]}"#,
            r#"{"all":["${cert_common_name}/x"]}"#,
            r#"{"all":["eq a/+"]}"#,
            r#"["a"]"#,
            r#"[{"permission":"allow","action":"all"}]"#,
            r#"[{"permission":"allow","action":"all","topic":"a","topics":["b"]}]"#,
            r#"[{"permission":"allow","action":"all","topics":"a"}]"#,
            r#"[{"permission":"maybe","action":"all","topic":"a"}]"#,
            r#"[{"action":"all","topic":"a"}]"#,
            r#"[{"permission":"allow","action":"read","topic":"a"}]"#,
            r#"[{"permission":"allow","action":"all","topic":"a","qos":[0]}]"#,
            r#"[{"permission":"allow","action":"all","topic":"a","retain":false}]"#,
            &many,
            &deep,
        ] {
            assert!(compiled(json).is_err(), "{json}");
        }
    }
}
