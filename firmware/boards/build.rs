//! Hands a board's memory map to the linker.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // Of the board whose crate is being built.
    fs::copy("memory.x", out.join("memory.x")).expect("every board has a memory map");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed=memory.x");
    let has_log = !env::var("CARGO_PKG_NAME").expect("cargo sets it").ends_with("-boot");
    let scripts = ["--nmagic", "-Tlink.x"]
        .into_iter()
        .chain(has_log.then_some("-Tdefmt.x"));
    for script in scripts {
        println!("cargo::rustc-link-arg-bins={script}");
    }
}
