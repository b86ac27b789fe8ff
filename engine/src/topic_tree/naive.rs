//! The obviously right matcher, which the fast ones are held against.

/// Whether `topic` matches `filter` (4.7).
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    match_levels(Some(filter), Some(topic))
}

fn match_levels(filter: Option<&str>, topic: Option<&str>) -> bool {
    match (filter.map(first_level), topic.map(first_level)) {
        (Some(("#", _)), _) | (None, None) => true,
        (Some((wanted, filter)), Some((level, topic))) => {
            (wanted == "+" || wanted == level) && match_levels(filter, topic)
        }
        _ => false,
    }
}

fn first_level(text: &str) -> (&str, Option<&str>) {
    text.split_once('/')
        .map_or((text, None), |(level, rest)| (level, Some(rest)))
}

mod tests {
    use super::matches;

    /// The examples of the specification [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1, MQTT-4.7.3-1].
    #[test]
    fn the_examples_of_the_specification_hold() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("accounts", "ACCOUNTS", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
