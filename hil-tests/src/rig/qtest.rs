//! QEMU's test channel: pins and memory of a running machine (docs/devel/testing/qtest of QEMU). One line asks, one
//! answers.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use anyhow::{Context, bail};

use super::pins::Pin;

/// A channel to one machine.
#[derive(Debug)]
pub struct Qtest {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

/// A port of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the data sheet")]
pub enum Port {
    A,
    B,
    C,
}

impl Port {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "gpioa",
            Self::B => "gpiob",
            Self::C => "gpioc",
        }
    }

    const fn output_register(self) -> u32 {
        0x4800_0014
            + match self {
                Self::A => 0,
                Self::B => 0x400,
                Self::C => 0x800,
            }
    }
}

impl Qtest {
    /// A channel that QEMU has connected.
    ///
    /// # Errors
    /// If the system refuses a second handle.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        let from = BufReader::new(stream.try_clone()?);
        Ok(Self { to: stream, from })
    }

    fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.to, "{line}")?;
        let mut answer = String::new();
        loop {
            answer.clear();
            if self.from.read_line(&mut answer)? == 0 {
                bail!("the machine is gone");
            }
            if let Some(rest) = answer.trim_end().strip_prefix("OK") {
                return Ok(rest.trim().to_owned());
            }
            if !answer.starts_with("IRQ") {
                bail!("\"{line}\" is answered with \"{}\"", answer.trim_end());
            }
        }
    }

    /// Puts a level on an input pin.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn set_pin(&mut self, (port, pin): Pin, high: bool) -> anyhow::Result<()> {
        let (port, level) = (port.name(), u8::from(high));
        self.ask(&format!("set_irq_in /machine/soc/{port} unnamed-gpio-in {pin} {level}"))?;
        Ok(())
    }

    /// Whether an output pin is high.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn pin(&mut self, (port, pin): Pin) -> anyhow::Result<bool> {
        Ok(self.read(port.output_register().into())? >> pin & 1 == 1)
    }

    /// A word of memory.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn read(&mut self, address: u64) -> anyhow::Result<u32> {
        let answer = self.ask(&format!("readl {address:#x}"))?;
        let digits = answer.strip_prefix("0x").context("a number in hexadecimal")?;
        Ok(u64::from_str_radix(digits, 16)? as u32)
    }

    /// Writes a word of memory.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn write(&mut self, address: u64, value: u32) -> anyhow::Result<()> {
        self.ask(&format!("writel {address:#x} {value:#x}"))?;
        Ok(())
    }
}
