//! One engine and four clients: whatever they say and whatever happens to them, the engine stays sound, comes to rest,
//! and sends nothing that a client could object to.
//!
//! Input: a [`Story`], as `arbitrary` makes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_fuzz::conversation::Story;
use sol_fuzz::world::World;

fuzz_target!(|story: Story| {
    let mut world = World::new(story.setup);
    for step in story.steps.iter().take(200) {
        world.step(step);
    }
    world.end();
});
