//! The `lfm2-host` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lfm2_host::cli::main(std::env::args_os())
}
