//! The program `lfm2-export`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lfm2_export::cli::run()
}
