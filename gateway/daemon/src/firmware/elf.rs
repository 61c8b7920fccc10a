//! An image out of the ELF that cargo builds: what lies in flash, as it lies there.

use object::{
    Endianness,
    elf::PT_LOAD,
    read::elf::{ElfFile32, ProgramHeader as _},
};
use proto::update::IMAGE_BYTES_MAX;

/// Where the memories of a microcontroller end that are flash and not RAM.
const RAM: u32 = 0x2000_0000;

/// Whether bytes are an ELF.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// What of an ELF lies in flash: where it begins, and its bytes. Between segments the flash is erased.
///
/// # Errors
/// A text that says why there is no such thing.
pub fn flatten(elf: &[u8]) -> Result<(u32, Vec<u8>), String> {
    let file = ElfFile32::<Endianness>::parse(elf).map_err(|error| error.to_string())?;
    let endian = file.endian();
    let mut parts = Vec::new();
    for segment in file.elf_program_headers() {
        let place = segment.p_paddr(endian);
        if segment.p_type(endian) != PT_LOAD || segment.p_filesz(endian) == 0 || place >= RAM {
            continue;
        }
        let data = segment.data(endian, elf);
        parts.push((
            place,
            data.map_err(|()| "a segment lies outside of the file".to_owned())?,
        ));
    }
    parts.sort_by_key(|(place, _)| *place);
    let start = parts.first().ok_or("nothing of it lies in flash")?.0;
    let mut image = Vec::new();
    for (place, data) in parts {
        let at = (place - start) as usize;
        if at + data.len() > IMAGE_BYTES_MAX as usize {
            return Err(format!("it spans more than {IMAGE_BYTES_MAX} bytes"));
        }
        if at < image.len() {
            return Err("segments lie upon each other".to_owned());
        }
        image.resize(at, 0xff);
        image.extend_from_slice(data);
    }
    Ok((start, image))
}
