//! The time of a line in a form of the operator's own: a part of strftime(3), in UTC.

use std::fmt::Write;
use std::time::Duration;

use super::line::civil;

/// What may stand behind a `%`.
const KNOWN: &str = "YmdeHMSyjFTDRszZba%";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// The first day of 1970 was a Thursday.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Checks a form.
///
/// # Errors
/// A sentence about what is not known.
pub(crate) fn check(format: &str) -> Result<(), String> {
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            continue;
        }
        match rest.next() {
            Some(known) if KNOWN.contains(known) => {}
            Some(other) => {
                return Err(format!(
                    "`%{other}` is not known here, of strftime's conversions %{KNOWN} are"
                ));
            }
            None => return Err("`%` stands at the end".to_owned()),
        }
    }
    Ok(())
}

/// Writes a time, since the epoch, in a form that was checked.
pub(super) fn push(line: &mut String, format: &str, time: Duration) {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            line.push(c);
            continue;
        }
        // A String takes everything.
        let _ = match rest.next().unwrap_or('%') {
            'Y' => write!(line, "{year:04}"),
            'y' => write!(line, "{:02}", year % 100),
            'm' => write!(line, "{month:02}"),
            'd' => write!(line, "{day:02}"),
            'e' => write!(line, "{day:2}"),
            'H' => write!(line, "{hour:02}"),
            'M' => write!(line, "{minute:02}"),
            'S' => write!(line, "{second:02}"),
            'j' => write!(line, "{:03}", day_of_year(year, month, day)),
            'F' => write!(line, "{year:04}-{month:02}-{day:02}"),
            'T' => write!(line, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(line, "{hour:02}:{minute:02}"),
            'D' => write!(line, "{month:02}/{day:02}/{:02}", year % 100),
            's' => write!(line, "{seconds}"),
            'z' => write!(line, "+0000"),
            'Z' => write!(line, "UTC"),
            'b' => write!(line, "{}", name(&MONTHS, month.saturating_sub(1))),
            'a' => write!(line, "{}", name(&DAYS, days % 7)),
            other => write!(line, "{other}"),
        };
    }
}

fn name(names: &[&'static str], at: u64) -> &'static str {
    usize::try_from(at)
        .ok()
        .and_then(|at| names.get(at))
        .copied()
        .unwrap_or("")
}

fn day_of_year(year: u64, month: u64, day: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month_start = usize::try_from(month.saturating_sub(1))
        .ok()
        .and_then(|at| before.get(at));
    month_start.copied().unwrap_or(0) + day + u64::from(is_leap && month > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every conversion that is known writes what strftime does, and nothing else passes the check.
    #[test]
    fn conversions() {
        let written = |format: &str| {
            check(format).unwrap();
            let mut line = String::new();
            push(&mut line, format, Duration::from_millis(1_709_208_005_042));
            line
        };
        assert_eq!(written("%Y-%m-%dT%H:%M:%S%z"), "2024-02-29T12:00:05+0000");
        assert_eq!(written("%F %T %Z"), "2024-02-29 12:00:05 UTC");
        assert_eq!(written("%a %b %e %R %y %D"), "Thu Feb 29 12:00 24 02/29/24");
        assert_eq!(written("%s %j 100%%"), "1709208005 060 100%");
        assert!(check("%q").unwrap_err().starts_with("`%q` is not known here"));
        assert_eq!(check("12%").unwrap_err(), "`%` stands at the end");
        assert_eq!((day_of_year(2023, 12, 31), day_of_year(2024, 12, 31)), (365, 366));
    }
}
