//! Routing.
#[cfg(test)]
pub(crate) mod naive;
