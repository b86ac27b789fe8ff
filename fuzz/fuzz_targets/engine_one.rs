//! One engine and four clients: whatever they say and whatever happens to them, the engine stays sound, comes to rest,
//! and sends nothing that a client could object to.
//!
//! Input: a [`Story`], as `arbitrary` makes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_fuzz::conversation::Story;

fuzz_target!(|story: Story| story.happen(1));
