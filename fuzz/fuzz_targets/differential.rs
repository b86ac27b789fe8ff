//! One packet, three codecs: ours and two others accept and refuse the same bytes and mean the same by them, or a rule
//! of `DIFFERENTIAL.md` says why not.
//!
//! Input: a byte for version and sender ([`sol_fuzz::receiver`], the sender has no say here), then what the peer sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_fuzz::{differential, receiver};

fuzz_target!(
    init: differential::check_table(),
    |input: &[u8]| {
        let Some((&first, bytes)) = input.split_first() else {
            return;
        };
        let (version, _) = receiver(first);
        if let Err(finding) = differential::compare(version, bytes) {
            panic!("{finding}");
        }
    }
);
