//! The command line of firmware.

use std::{fmt::Display, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use proto::id::{Kind, Name};

use super::sign::{self, SignError};
use crate::exit;

/// `holdfast image`.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Make a key that signs firmware, and print its public half for trust.firmware_keys. Keep it off the gateway
    Key {
        /// Where to; a file that is there already is not written over
        out: PathBuf,
    },
    /// Stamp a version into an image and sign it
    Sign {
        /// The key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The board that it was built for
        #[arg(long)]
        board: Name,
        /// What it dispenses
        #[arg(long, value_parser = kind)]
        kind: Kind,
        /// Its version, above that of every image that its devices ever confirmed
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: u32,
        /// The ELF as it was built, or what of it lies in flash
        image: PathBuf,
        /// The signed image; a file that is there already is not written over
        out: PathBuf,
    },
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::SERVED.into_iter().find(|kind| kind.word() == text);
    known.ok_or_else(|| "charger, washer or dispenser".to_owned())
}

impl ImageCommand {
    /// Does it, without any gateway.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        match self {
            Self::Key { out } => match sign::make_key(out) {
                Ok(key) => {
                    println!("firmware_keys = [\"{key}\"]");
                    ExitCode::SUCCESS
                }
                Err(error) => fail(exit::UNAVAILABLE, &error),
            },
            Self::Sign {
                key,
                board,
                kind,
                version,
                image,
                out,
            } => {
                let signed =
                    sign::read_key(key).and_then(|issuer| sign::sign(&issuer, *board, *kind, *version, image, out));
                match signed {
                    Ok(signed) => {
                        let manifest = signed.manifest;
                        println!(
                            "{}: {} {}, version {}, {} bytes, SHA-256 {}",
                            out.display(),
                            manifest.board,
                            manifest.kind.word(),
                            manifest.version,
                            manifest.length,
                            manifest.hash
                        );
                        ExitCode::SUCCESS
                    }
                    Err(error @ (SignError::Io { .. } | SignError::Key { .. })) => fail(exit::UNAVAILABLE, &error),
                    Err(error @ (SignError::Elf { .. } | SignError::Image { .. })) => fail(exit::DATA, &error),
                }
            }
        }
    }
}

fn fail(code: u8, error: &dyn Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::from(code)
}
