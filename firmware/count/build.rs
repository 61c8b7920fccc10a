//! Hands the memory map to the linker.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::copy("memory.x", out.join("memory.x")).expect("the memory map lies beside the manifest");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed=memory.x");
    for script in ["--nmagic", "-Tlink.x"] {
        println!("cargo::rustc-link-arg-bins={script}");
    }
}
