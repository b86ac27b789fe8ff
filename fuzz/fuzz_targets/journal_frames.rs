//! Whatever lies in place of the journal's log is refused with a sentence, or opened; then it is opened again as the same.
//!
//! Input: a byte that says how to read the rest: as a segment's file, or as the operations of frames, separated by 0xff, which
//! get heads and checksums that are right; or those with one bit flipped.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| sol_journal::model::check_bytes(input));
