//! What a check found.

use std::fmt;

/// A broken invariant, by its name, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its short name: I1 no loss after an acknowledgement, I2 exactly once, I3 DUP, I4 order, I5 no delivery without
    /// cause, I6 retained, I7 Packet Identifiers, I8 charges, I9 one owner, I10 Wills, I12 legal output, I13 containment, I14 it
    /// comes to rest, I15 bounded work, I16 a restart changes nothing.
    pub invariant: &'static str,
    /// What happened.
    pub what: String,
}

/// What a check says.
pub type Verdict = Result<(), Violation>;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A violation.
pub(crate) fn broken(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

/// A verdict: a violation unless `holds`.
pub(crate) fn ensure(holds: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(broken(invariant, what())) }
}
