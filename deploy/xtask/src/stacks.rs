//! How deep the stack of an image gets by its machine code: frames as their functions make them, along direct calls.
//!
//! The deepest way through start-up, or the way to the executor and from there through the deepest task, and one interrupt on
//! top: embassy gives all the same priority. A call through a pointer that a task makes is not followed (wakers and formatters,
//! which are shallow), so this is an estimate; what QEMU measures is the check of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind, elf};

/// What the processor stacks when it takes an interrupt, floating-point registers among them, aligned to 8 bytes.
const INTERRUPT_BYTES: u64 = 108;
/// Where the program begins.
const RESET: &str = "Reset";
/// Runs the tasks; inside the mangled name.
const EXECUTOR: &str = "8executor3run";

/// One function.
#[derive(Debug, Default)]
struct Function {
    name: String,
    frame_bytes: u64,
    calls: BTreeSet<u64>,
}

/// Functions by address.
type Program = BTreeMap<u64, Function>;

/// The depth of an image's stack in bytes.
pub(crate) fn depth_of(file: &[u8]) -> Result<u64> {
    let elf = object::File::parse(file)?;
    let program = read(&elf)?;
    let find = |what: &str| {
        let found = program.iter().find(|(_, function)| function.name.contains(what));
        found.map(|(address, _)| *address)
    };
    let reset = find(RESET).with_context(|| format!("no function {RESET}"))?;
    let mut known = HashMap::new();
    let start_up = deepest(&program, reset, &mut known)?;
    let to_tasks = match find(EXECUTOR) {
        Some(executor) => {
            way(&program, reset, executor, &mut BTreeSet::new()).context("Reset does not reach the executor")?
        }
        // A bootloader has no tasks: what it points at may be called from anywhere.
        None => start_up,
    };
    let (vectors, pointers) = pointed_at(&elf, &program)?;
    let mut highest = |functions: &BTreeSet<u64>| -> Result<u64> {
        let depths = functions.iter().map(|address| deepest(&program, *address, &mut known));
        Ok(depths.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
    };
    let task = highest(&pointers)?;
    let interrupt = highest(&vectors)?;
    Ok(start_up.max(to_tasks + task) + interrupt + INTERRUPT_BYTES)
}

/// Frames from a function down the deepest of its calls. A call back into a function that waits is not followed again.
fn deepest(program: &Program, address: u64, known: &mut HashMap<u64, Option<u64>>) -> Result<u64> {
    match known.get(&address) {
        Some(Some(depth)) => return Ok(*depth),
        Some(None) => return Ok(0),
        None => {}
    }
    let function = program.get(&address).context("a call to no function")?;
    known.insert(address, None);
    let mut below = 0;
    for call in &function.calls {
        below = below.max(deepest(program, *call, known)?);
    }
    let depth = function.frame_bytes + below;
    known.insert(address, Some(depth));
    Ok(depth)
}

/// Frames on the deepest way from one function to another, both among them.
fn way(program: &Program, from: u64, to: u64, seen: &mut BTreeSet<u64>) -> Option<u64> {
    let function = program.get(&from)?;
    if from == to {
        return Some(function.frame_bytes);
    }
    if !seen.insert(from) {
        return None;
    }
    let ways = function.calls.iter().filter_map(|call| way(program, *call, to, seen));
    ways.max().map(|below| below + function.frame_bytes)
}

/// Functions of the vector table but `Reset`, and those that anything else points at.
fn pointed_at(elf: &object::File<'_>, program: &Program) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let (mut vectors, mut pointers) = (BTreeSet::new(), BTreeSet::new());
    for section in elf.sections() {
        let name = section.name()?;
        let found = match name {
            ".vector_table" => &mut vectors,
            ".text" | ".rodata" | ".data" => &mut pointers,
            _ => continue,
        };
        for word in section.data()?.chunks_exact(4) {
            let value = u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            let function = program.get(&(value & !1)).filter(|_| value & 1 == 1);
            if function.is_some_and(|function| function.name != RESET) {
                found.insert(value & !1);
            }
        }
    }
    Ok((vectors, pointers))
}

fn read(elf: &object::File<'_>) -> Result<Program> {
    let mut program = Program::new();
    let mut ends = BTreeMap::new();
    // `$t` and `$d` say where instructions and where data begin.
    let mut marks = BTreeMap::new();
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        if name.starts_with("$t") || name.starts_with("$d") {
            marks.insert(symbol.address(), name.starts_with("$t"));
        } else if symbol.kind() == SymbolKind::Text && symbol.size() > 0 {
            let address = symbol.address() & !1;
            let function = program.entry(address).or_default();
            function.name = name.to_owned();
            ends.insert(address, address + symbol.size());
        }
    }
    if marks.is_empty() || program.is_empty() {
        bail!("the image has no symbols");
    }
    let starts: BTreeSet<u64> = program.keys().copied().collect();
    for section in elf.sections() {
        let flags = match section.flags() {
            object::SectionFlags::Elf { sh_flags } => sh_flags,
            _ => 0,
        };
        if flags & u64::from(elf::SHF_EXECINSTR) == 0 {
            continue;
        }
        let (base, bytes) = (section.address(), section.data()?);
        let half = |at: u64| {
            let i = usize::try_from(at - base).ok()?;
            Some(u32::from(u16::from_le_bytes([*bytes.get(i)?, *bytes.get(i + 1)?])))
        };
        for (address, function) in program.range_mut(base..base + section.size()) {
            scan(function, *address, ends[address], &starts, &marks, half);
        }
    }
    Ok(program)
}

/// Reads a function's instructions (ARMv7-M, chapter A7): what takes stack, and what calls.
fn scan(
    function: &mut Function,
    start: u64,
    end: u64,
    starts: &BTreeSet<u64>,
    marks: &BTreeMap<u64, bool>,
    half: impl Fn(u64) -> Option<u32>,
) {
    let mut at = start;
    while at < end {
        let is_code = marks.range(..=at).next_back().is_none_or(|(_, code)| *code);
        let Some(first) = half(at) else { return };
        if !is_code {
            at += 2;
            continue;
        }
        let is_wide = first >> 11 >= 0b11101;
        let jump = if is_wide {
            let Some(second) = half(at + 2) else { return };
            function.frame_bytes += wide_frame(first, second);
            wide_jump(first, second)
        } else {
            function.frame_bytes += match first {
                _ if first & 0xfe00 == 0xb400 => 4 * u64::from((first & 0x1ff).count_ones()),
                _ if first & 0xff80 == 0xb080 => 4 * u64::from(first & 0x7f),
                _ => 0,
            };
            (first & 0xf800 == 0xe000).then(|| extend(first << 1 & 0xfff, 12))
        };
        if let Some(target) = jump.map(|by| at.wrapping_add(4).wrapping_add_signed(by)) {
            // A jump inside the function is none of a call; one to the start of another is a call in its last place.
            if starts.contains(&target) && target != start {
                function.calls.insert(target);
            }
        }
        at += if is_wide { 4 } else { 2 };
    }
}

/// Bytes of stack that an instruction of 32 bits takes.
fn wide_frame(first: u32, second: u32) -> u64 {
    let imm12 = first << 1 & 0x800 | second >> 4 & 0x700 | second & 0xff;
    let bytes = match (first, second) {
        // push, str and strd before the stack pointer, vpush.
        (0xe92d, _) => 4 * second.count_ones(),
        (0xf84d, _) if second & 0xfff == 0xd04 => 4,
        (0xe96d, _) => 4 * (second & 0xff),
        _ if first & 0xffbf == 0xed2d => 4 * (second & 0xff),
        // sub sp, sp, with a constant in either encoding.
        _ if first & 0xfbef == 0xf1ad && second & 0x8f00 == 0x0d00 => expand(imm12),
        _ if first & 0xfbff == 0xf2ad && second & 0x8f00 == 0x0d00 => imm12,
        _ => 0,
    };
    u64::from(bytes)
}

/// How far `bl` and `b.w` jump, from 4 bytes behind themselves.
fn wide_jump(first: u32, second: u32) -> Option<i64> {
    if first & 0xf800 != 0xf000 || second & 0x9000 != 0x9000 {
        return None;
    }
    let sign = first >> 10 & 1;
    let (j1, j2) = (second >> 13 & 1, second >> 11 & 1);
    let (i1, i2) = (1 ^ j1 ^ sign, 1 ^ j2 ^ sign);
    let offset = sign << 24 | i1 << 23 | i2 << 22 | (first & 0x3ff) << 12 | (second & 0x7ff) << 1;
    Some(extend(offset, 25))
}

/// A number of so many bits with its sign.
fn extend(value: u32, bits: u32) -> i64 {
    i64::from(((value << (32 - bits)) as i32) >> (32 - bits))
}

/// A constant as instructions hold it (ARMv7-M, A5.3.2).
fn expand(imm12: u32) -> u32 {
    let byte = imm12 & 0xff;
    match imm12 >> 8 {
        0 => byte,
        1 => byte << 16 | byte,
        2 => byte << 24 | byte << 8,
        3 => byte << 24 | byte << 16 | byte << 8 | byte,
        _ => (0x80 | imm12 & 0x7f).rotate_right(imm12 >> 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_take_what_the_manual_says() {
        for (what, first, second, bytes) in [
            ("push.w {r4-r11, lr}", 0xe92d, 0x4ff0, 36),
            ("sub.w sp, sp, #4096", 0xf5ad, 0x5d80, 4096),
            ("subw sp, sp, #1300", 0xf2ad, 0x5d14, 1300),
            ("str lr, [sp, #-4]!", 0xf84d, 0xed04, 4),
            ("vpush {d8-d11}", 0xed2d, 0x8b08, 32),
            ("add.w sp, sp, #4096", 0xf50d, 0x5d80, 0),
            ("ldr.w r0, [r1]", 0xf8d1, 0x0000, 0),
        ] {
            assert_eq!(wide_frame(first, second), bytes, "{what}");
        }
        assert_eq!(wide_jump(0xf7ff, 0xfffe), Some(-4), "bl to itself");
        assert_eq!(wide_jump(0xf000, 0xf802), Some(4), "bl behind the next instruction");
        assert_eq!(wide_jump(0xf000, 0x8002), None, "beq.w");
    }

    fn program(rows: &[(u64, u64, &[u64])]) -> Program {
        let function = |&(address, frame_bytes, calls): &(u64, u64, &[u64])| {
            let calls = calls.iter().copied().collect();
            let name = String::new();
            (
                address,
                Function {
                    name,
                    frame_bytes,
                    calls,
                },
            )
        };
        rows.iter().map(function).collect()
    }

    #[test]
    fn the_deepest_way_counts_and_a_circle_ends() {
        let program = program(&[(2, 10, &[4, 6]), (4, 100, &[8]), (6, 50, &[8, 2]), (8, 7, &[])]);
        assert_eq!(deepest(&program, 2, &mut HashMap::new()).unwrap(), 117);
        assert_eq!(way(&program, 2, 8, &mut BTreeSet::new()), Some(117));
        assert_eq!(way(&program, 4, 6, &mut BTreeSet::new()), None);
    }
}
