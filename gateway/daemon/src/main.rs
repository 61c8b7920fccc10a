//! `holdfast`: the gateway. What it can be told is in [`gateway::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
