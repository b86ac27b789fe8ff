//! The `sol` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sol_server::main(sol_server::broker::bind)
}
