//! What must hold of each packet as it crosses the engines' border. A file each.

pub(crate) mod answers;
pub(crate) mod flights;
pub(crate) mod owners;
