//! Numbers with units: strict readers, and the printer whose output they read back.

use std::time::Duration;

/// A number of bytes with an optional unit, in 1024 steps: `KB`, `MB`, `GB` in any case.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        _ => {
            return Err(format!(
                "`{text}` is not a size: a number of bytes, or one with KB, MB or GB"
            ));
        }
    };
    scaled(digits, 1 << shift).ok_or_else(|| format!("`{text}` is not a size that fits 64 bits"))
}

/// Mosquitto's spans: a number and `h`, `d`, `w`, `m` (month) or `y`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    const HOUR: u64 = 3600;
    let (digits, unit) = split(text);
    let factor = match unit {
        "h" => HOUR,
        "d" => 24 * HOUR,
        "w" => 7 * 24 * HOUR,
        "m" => 30 * 24 * HOUR,
        "y" => 365 * 24 * HOUR,
        _ => {
            return Err(format!(
                "`{text}` is not a span: a number with h, d, w, m (months) or y"
            ));
        }
    };
    scaled(digits, factor)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is not a span"))
}

/// Seconds, with an optional `s`, `m`, `h` or `d`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => {
            return Err(format!(
                "`{text}` is not a time: a number of seconds, or one with s, m, h or d"
            ));
        }
    };
    scaled(digits, factor)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is not a time"))
}

/// A number and what stands behind it.
pub(crate) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `digits` times `factor`, if it fits.
pub(crate) fn scaled(digits: &str, factor: u64) -> Option<u64> {
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Prints bytes so that [`size`] reads them back: in the largest unit that divides them.
pub(crate) fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GB"), (20, "MB"), (10, "KB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Prints a span so that [`span`] reads it back.
pub(crate) fn show_span(span: Duration) -> String {
    let hours = span.as_secs() / 3600;
    if hours.is_multiple_of(24) {
        format!("{}d", hours / 24)
    } else {
        format!("{hours}h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units are read as written; anything else is refused, never guessed.
    #[test]
    fn strict_units() {
        assert_eq!(size("512kb"), Ok(512 << 10));
        assert_eq!(size("7"), Ok(7));
        assert_eq!(span("2m").unwrap().as_secs(), 60 * 86_400);
        assert_eq!(seconds("2m").unwrap().as_secs(), 120);
        for bad in [
            "",
            "KB",
            "-1",
            "1.5GB",
            "1K",
            "99999999999999999999",
            "18446744073709551615GB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["1", "1s", "h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert!(seconds("1w").is_err());
    }

    /// What is printed is read back unchanged.
    #[test]
    fn printed_sizes_are_read_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 2 << 20, (1 << 30) + 1, 2 << 30, u64::MAX] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        for hours in [0, 1, 24, 25] {
            let duration = Duration::from_secs(hours * 3600);
            assert_eq!(span(&show_span(duration)), Ok(duration));
        }
    }
}
