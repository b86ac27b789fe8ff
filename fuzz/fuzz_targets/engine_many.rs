//! Two engines and four clients that come in at either: as `engine_one`, with takeover, Shared Subscriptions, retained
//! messages and acknowledgements across shards, and mail that lies for a while.
//!
//! Input: a [`Story`], as `arbitrary` makes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_fuzz::conversation::{Setup, Story};
use sol_fuzz::world::World;

fuzz_target!(
    init: World::check_spread(Setup::PLAIN),
    |story: Story| {
        for shards in 1..=2 {
            story.happen(shards);
        }
    }
);
