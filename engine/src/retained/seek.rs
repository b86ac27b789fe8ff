//! Where a scan in topic order goes next: the one place that knows why a jump skips nothing.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::string::String;

use sol_codec::mutants::mutant;

/// What a filter says about one topic of the scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It matches; the next one may too.
    Match,
    /// It does not; the next one may.
    Next,
    /// It does not, and none before the target does.
    Jump,
    /// It does not, and none after it does.
    Never,
}

/// Where a scan for `filter` begins: at the text in front of its first wildcard.
pub(super) fn begin(filter: &str, target: &mut String) -> Verdict {
    target.clear();
    let (literal, rest) = filter.split_at(filter.find(['+', '#']).unwrap_or(filter.len()));
    // `a/#` matches `a` itself [MQTT-4.7.1-2], which lies before `a/`.
    let parent = literal.strip_suffix('/').filter(|_| rest == "#");
    target.push_str(parent.unwrap_or(literal));
    Verdict::Jump
}

/// Compares `topic` with `filter` level by level; with [`Verdict::Jump`], `target` is a text after `topic` before
/// which no topic matches.
pub(super) fn judge(filter: &str, topic: &str, target: &mut String) -> Verdict {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) && !mutant("5.0/4.7.2-1") {
        // [MQTT-4.7.2-1]; `%` follows `$`.
        return jump(target, &["%"]);
    }
    let mut levels = topic.split('/');
    // Bytes of `topic` before the level at hand, and of them those up to the last level that a `+` stood for.
    let (mut passed, mut wild) = (0, 0);
    let mut last = "";
    for wanted in filter.split('/') {
        if wanted == "#" {
            return Verdict::Match;
        }
        let Some(level) = levels.next() else {
            // Too short. After a literal level, all that match begin with this topic and a `/`. After a `+` they need
            // not: `+/b` matches `a-/b`, which lies between `a` and `a/`.
            return if last == "+" {
                Verdict::Next
            } else {
                jump(target, &[topic, "/"])
            };
        };
        if wanted != "+" && wanted != level {
            return miss(wanted, topic, passed, wild, target);
        }
        last = wanted;
        passed = passed.saturating_add(level.len()).saturating_add(1);
        if wanted == "+" {
            wild = passed;
        }
    }
    if levels.next().is_none() {
        return Verdict::Match;
    }
    // Too long, and so is everything below the same levels.
    leave(topic, wild, target)
}

/// The level of `topic` at byte `passed` is not the one that is `wanted`. All topics up to the last with the same
/// bytes before that level have these bytes, and the ones that match go on with `wanted`, then end or have a `/`.
fn miss(wanted: &str, topic: &str, passed: usize, wild: usize, target: &mut String) -> Verdict {
    let (before, from_here) = topic.split_at(passed);
    if wanted > from_here {
        return jump(target, &[before, wanted]);
    }
    jump(target, &[before, wanted, "/"]);
    if target.as_str() > topic {
        return Verdict::Jump;
    }
    leave(topic, wild, target)
}

/// Nothing more matches with the same text for every `+`: jumps over all that has the first `wild` bytes of `topic`,
/// which end with the `/` behind the last such text.
fn leave(topic: &str, wild: usize, target: &mut String) -> Verdict {
    match topic.split_at(wild).0.strip_suffix('/') {
        // `0` follows `/`.
        Some(levels) => jump(target, &[levels, "0"]),
        None => Verdict::Never,
    }
}

fn jump(target: &mut String, parts: &[&str]) -> Verdict {
    target.clear();
    for part in parts {
        target.push_str(part);
    }
    Verdict::Jump
}
