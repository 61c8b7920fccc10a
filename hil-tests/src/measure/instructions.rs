//! What the same costs on a microcontroller: instructions, counted by QEMU. The image is `firmware/count`.

use std::process::Command;

use anyhow::{Context, ensure};

use super::{stat::thousands, table::Table};

/// Names the image; `cargo xtask bench` and the step `measure` of the tests build it.
const IMAGE_VARIABLE: &str = "HOLDFAST_COUNT_IMAGE";
const PROGRAM: &str = "qemu-system-arm";
/// An instruction takes a nanosecond of the virtual clock, whatever the host does.
const ARGUMENTS: [&str; 13] = [
    "-machine",
    "mps2-an386",
    "-nographic",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-semihosting-config",
    "enable=on,target=native",
    "-icount",
    "shift=0,align=off,sleep=off",
    "-no-reboot",
    "-kernel",
];

/// Prints the table, or why there is none.
///
/// # Errors
/// If there is an image, and it does not run to its end.
pub(super) fn print() -> anyhow::Result<()> {
    let Some(image) = std::env::var_os(IMAGE_VARIABLE) else {
        println!("Instructions on a Cortex-M4: not counted, {IMAGE_VARIABLE} names no image.\n");
        return Ok(());
    };
    let output = Command::new(PROGRAM)
        .args(ARGUMENTS)
        .arg(&image)
        .output()
        .context(PROGRAM)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{PROGRAM}: {said}{text}");
    let mut table = Table::new(&["on a Cortex-M4", "instructions", "bytes"]);
    for line in text.lines() {
        let mut fields = line.split('\t');
        let mut next = || fields.next().with_context(|| format!("the image says {line:?}"));
        let (name, instructions, bytes) = (next()?, next()?.parse()?, next()?);
        table.row(&[name.to_owned(), thousands(instructions), bytes.to_owned()]);
    }
    println!(
        "Counted by QEMU, the same in every run. A Cortex-M4 takes one to three cycles for most of them, and waits for its \
         flash; at 80 MHz, 80,000 cycles are a millisecond.\n"
    );
    println!("{}", table.text());
    Ok(())
}
