//! Switches that break one behaviour each, so that the tests can show that they would notice.
//!
//! Without the feature `mutants` there are none: [`mutant`] is `false` at compile time and costs nothing. With it the
//! environment variable `SOL_MUTANT` names the statement to break. `tests/conformance/bite` tries one after the other.

/// Whether the behaviour that the statement `id` of the specification demands is to be broken.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn mutant(_id: &str) -> bool {
    false
}

/// Whether the behaviour that the statement `id` of the specification demands is to be broken.
#[cfg(feature = "mutants")]
#[must_use]
pub fn mutant(id: &str) -> bool {
    extern crate std;
    static CHOSEN: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    CHOSEN
        .get_or_init(|| std::env::var_os("SOL_MUTANT"))
        .as_ref()
        .is_some_and(|chosen| chosen == id)
}

/// Whether a fault is to be planted at `place`: a PUBLISH to the topic of that name asks for it.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn planted(_place: &str, _topic: &str) -> bool {
    false
}

/// Whether a fault is to be planted at `place`: a PUBLISH to the topic of that name asks for it. Never in a release build.
#[cfg(feature = "mutants")]
#[must_use]
pub fn planted(place: &str, topic: &str) -> bool {
    cfg!(debug_assertions) && place == topic
}
