//! The `sol` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use sol_server::serve::{Broker, Startup};

fn main() -> ExitCode {
    sol_server::main(launch)
}

fn launch(_: &Startup) -> Result<Arc<dyn Broker>, String> {
    Err("this build has no transport to serve clients with".to_owned())
}
