//! Man page and completions, from the same description as the command line itself.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use clap_complete::Shell;

use super::{command, fail};
use crate::exit;

/// `holdfast generate`.
#[derive(Debug, Subcommand)]
pub(super) enum GenerateCommand {
    /// Man pages, in the format of man(7)
    Man {
        /// Write one page for each command into this directory; without it: the page of `holdfast`, to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Completions for a shell, to standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl GenerateCommand {
    pub(super) fn run(self) -> ExitCode {
        let done = match self {
            Self::Man { dir: None } => clap_mangen::Man::new(command()).render(&mut io::stdout()),
            Self::Man { dir: Some(dir) } => {
                std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(command(), &dir))
            }
            Self::Completions { shell } => {
                clap_complete::generate(shell, &mut command(), "holdfast", &mut io::stdout());
                Ok(())
            }
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(exit::UNAVAILABLE, &error),
        }
    }
}
