//! The engine as its caller sees it, in nodes of one, two and three shards. A file for each chapter of the specification.

mod c3_3_publish;
mod support;
