//! The directives that say how many threads serve clients, where they run, and how they wait.

use super::directives::Directive;
use super::show::one;
use super::{Io, Shards};

/// The most threads that may serve clients: the engine keeps sets of them in one word.
pub(crate) const SHARDS_MAX: u16 = 64;

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "shards",
        "auto|COUNT",
        "auto: one for each core that the process may use",
        "How many threads serve clients.",
        |draft, reader| {
            draft.config.shards = reader.with(shards)?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.shards)),
    Directive::new(
        "pin_shards",
        "true|false",
        "false",
        "Whether each of these threads stays on one core. Linux only.",
        |draft, reader| {
            draft.config.pin_shards = reader.switch()?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.pin_shards)),
    Directive::new(
        "io",
        "auto|io_uring|epoll",
        "auto: io_uring where the system permits it, else epoll",
        "How these threads wait for sockets. With io_uring the broker does not start where that is not permitted.",
        |draft, reader| {
            draft.config.io = reader.with(io)?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.io)),
];

/// Reads a number of threads.
pub(crate) fn shards(text: &str) -> Result<Shards, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Shards::Auto);
    }
    match text.parse() {
        Ok(count @ 1..=SHARDS_MAX) => Ok(Shards::Count(count)),
        _ => Err(format!(
            "`{text}` is neither auto nor a whole number from 1 to {SHARDS_MAX}"
        )),
    }
}

/// Reads the name of a backend.
pub(crate) fn io(text: &str) -> Result<Io, String> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|_| format!("`{text}` is none of {}", Io::ALL.map(Io::as_str).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of threads is one that can run, or left to the broker; everything else is refused with a sentence.
    #[test]
    fn numbers_of_shards() {
        assert_eq!(shards("auto"), Ok(Shards::Auto));
        assert_eq!(shards("1"), Ok(Shards::Count(1)));
        assert_eq!(shards("64"), Ok(Shards::Count(SHARDS_MAX)));
        for bad in ["0", "65", "-1", "65537", "two", "", "1.5"] {
            assert_eq!(
                shards(bad),
                Err(format!("`{bad}` is neither auto nor a whole number from 1 to 64"))
            );
        }
    }

    /// A backend has one of three names.
    #[test]
    fn backends() {
        assert_eq!(io("io_uring"), Ok(Io::IoUring));
        assert_eq!(
            io("kqueue"),
            Err("`kqueue` is none of auto, io_uring, epoll".to_owned())
        );
    }
}
