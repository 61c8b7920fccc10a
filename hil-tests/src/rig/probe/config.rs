//! `bench.toml`: the boards of a bench. Read strictly; every complaint names file, line and field.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proto::id::Kind;
use serde::Deserialize;

use crate::twin::Injury;

/// Boards of one bench; each has a thread and a site of processes of its own.
const BOARDS_MAX: usize = 32;
/// The identity's page is aligned as flash pages of our chips are.
const PAGE_BYTES: u64 = 2048;

/// What is wrong with a bench's file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or a field is missing, unknown or of another type.
    #[error("{path}, line {line}: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
        /// What and why.
        why: String,
    },
    /// A value that cannot be.
    #[error("{path}, line {line}: board \"{board}\": {field}: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line of the field, or of its board.
        line: usize,
        /// Which board.
        board: String,
        /// Which field.
        field: &'static str,
        /// Why.
        why: String,
    },
}

/// A program with its arguments.
pub type Command = Vec<String>;

/// Two commands: one way and back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// On: powered, or broken.
    pub on: Command,
    /// Off: without power, or mended.
    pub off: Command,
}

/// What is wired to a board. What is not is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wiring {
    /// Holds a card to the reader: `{uid}`.
    pub card: Option<Command>,
    /// Types a line: `{line}`.
    pub line: Option<Command>,
    /// Presses the stop button.
    pub stop: Option<Command>,
    /// Brings a thing.
    pub bring: Option<Command>,
    /// Takes it away.
    pub take_away: Option<Command>,
    /// Prints `on` or `off`.
    pub output: Option<Command>,
    /// Prints what was ever delivered, in thousandths of the base unit.
    pub delivered: Option<Command>,
    /// Breaks something, and mends it.
    #[serde(default)]
    pub injuries: Injuries,
}

/// How things are broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "named as the injuries are")]
pub struct Injuries {
    pub leak: Option<Switch>,
    pub heat: Option<Switch>,
    pub overload: Option<Switch>,
    pub weld: Option<Switch>,
    pub stuck: Option<Switch>,
    pub silent_meter: Option<Switch>,
    pub still_meter: Option<Switch>,
    pub open_door: Option<Switch>,
    pub drip: Option<Switch>,
    pub dry: Option<Switch>,
}

impl Injuries {
    /// How this one is done here.
    #[must_use]
    pub const fn of(&self, injury: Injury) -> Option<&Switch> {
        match injury {
            Injury::Leak => self.leak.as_ref(),
            Injury::Heat => self.heat.as_ref(),
            Injury::Overload => self.overload.as_ref(),
            Injury::Weld => self.weld.as_ref(),
            Injury::Stuck => self.stuck.as_ref(),
            Injury::SilentMeter => self.silent_meter.as_ref(),
            Injury::StillMeter => self.still_meter.as_ref(),
            Injury::OpenDoor => self.open_door.as_ref(),
            Injury::Drip => self.drip.as_ref(),
            Injury::Dry => self.dry.as_ref(),
        }
    }
}

/// Why a board is not run, and until when that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// The first day on which it is an error, as `2026-12-01`.
    pub until: String,
    /// Who decides.
    pub owner: String,
    /// Why.
    pub reason: String,
}

/// A board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// For people.
    pub name: String,
    /// What is behind its outlet.
    pub kind: Kind,
    /// As probe-rs calls the chip.
    pub chip: String,
    /// `VID:PID:serial` of its probe.
    pub probe: String,
    /// Its bootloader, if it has one.
    pub boot: Option<PathBuf>,
    /// Its image.
    pub image: PathBuf,
    /// Address of the identity's page.
    pub identity_at: u64,
    /// Where its module connects.
    pub link: SocketAddr,
    /// The switch of its supply.
    pub power: Option<Switch>,
    /// What is wired.
    pub wiring: Wiring,
    /// Why it is not run.
    pub quarantine: Option<Quarantine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    board: Vec<toml::Spanned<BoardSection>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BoardSection {
    name: toml::Spanned<String>,
    kind: toml::Spanned<String>,
    chip: String,
    probe: toml::Spanned<String>,
    boot: Option<PathBuf>,
    image: PathBuf,
    identity_at: toml::Spanned<u64>,
    link: toml::Spanned<SocketAddr>,
    power: Option<Switch>,
    #[serde(default)]
    wiring: Wiring,
    quarantine: Option<toml::Spanned<Quarantine>>,
}

/// A day as people write it: `2026-12-01`.
///
/// # Errors
/// Why it is none.
pub fn day(text: &str) -> Result<(u16, u8, u8), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let day = match parts.as_slice() {
        [year, month, day] if (year.len(), month.len(), day.len()) == (4, 2, 2) => {
            (year.parse().ok(), month.parse().ok(), day.parse().ok())
        }
        _ => (None, None, None),
    };
    match day {
        (Some(year), Some(month @ 1..=12), Some(day @ 1..=31)) => Ok((year, month, day)),
        _ => Err(format!("\"{text}\" is no day like 2026-12-01")),
    }
}

/// Today in UTC, as people write it.
#[must_use]
pub fn today(unix_s: u64) -> String {
    // Howard Hinnant's days-to-civil, for days since 1970.
    let shifted = unix_s / 86_400 + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

struct Checker<'a> {
    path: &'a Path,
    text: &'a str,
    board: &'a str,
}

impl Checker<'_> {
    fn fail<T>(&self, at: usize, field: &'static str, why: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, at),
            board: self.board.to_owned(),
            field,
            why: why.into(),
        })
    }

    fn switch(&self, at: usize, field: &'static str, switch: Option<&Switch>) -> Result<(), ConfigError> {
        match switch {
            Some(switch) if switch.on.is_empty() || switch.off.is_empty() => self.fail(at, field, "an empty command"),
            Some(_) | None => Ok(()),
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

/// Reads the boards of a bench. `today` decides which quarantines have expired, as [`today()`] gives it.
///
/// # Errors
/// [`ConfigError`], the first that is found.
pub fn load(path: &Path, today: &str) -> Result<Vec<Board>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    parse(path, &text, today)
}

/// The same from its text.
///
/// # Errors
/// [`ConfigError`], the first that is found.
pub fn parse(path: &Path, text: &str, today: &str) -> Result<Vec<Board>, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        why: error.message().to_owned(),
    })?;
    let (mut names, mut probes, mut links) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let mut boards = Vec::new();
    for section in file.board {
        let at = section.span().start;
        let section = section.into_inner();
        let name = section.name.get_ref().clone();
        let check = Checker {
            path,
            text,
            board: &name,
        };
        if boards.len() == BOARDS_MAX {
            return check.fail(at, "board", format!("a bench has at most {BOARDS_MAX} boards"));
        }
        if !names.insert(name.clone()) {
            return check.fail(section.name.span().start, "name", "there is another board of this name");
        }
        if !probes.insert(section.probe.get_ref().clone()) {
            return check.fail(section.probe.span().start, "probe", "another board has this probe");
        }
        if let Some(other) = links.insert(*section.link.get_ref(), name.clone()) {
            return check.fail(
                section.link.span().start,
                "link",
                format!("\"{other}\" has this address"),
            );
        }
        boards.push(board(&check, path, at, section, today)?);
    }
    Ok(boards)
}

fn board(
    check: &Checker<'_>,
    path: &Path,
    at: usize,
    section: BoardSection,
    today: &str,
) -> Result<Board, ConfigError> {
    let word = section.kind.get_ref();
    let kind = Kind::SERVED.into_iter().find(|kind| kind.word() == word);
    let Some(kind) = kind else {
        let why = format!("\"{word}\" is none of charger, washer, dispenser");
        return check.fail(section.kind.span().start, "kind", why);
    };
    let probe = section.probe.get_ref();
    let parts: Vec<&str> = probe.split(':').collect();
    let hex = |text: &str| text.len() == 4 && u16::from_str_radix(text, 16).is_ok();
    if !matches!(parts.as_slice(), [vendor, product, serial] if hex(vendor) && hex(product) && !serial.is_empty()) {
        let why = format!("\"{probe}\" is not VID:PID:serial, as 0483:374b:0670FF");
        return check.fail(section.probe.span().start, "probe", why);
    }
    if !section.identity_at.get_ref().is_multiple_of(PAGE_BYTES) {
        let why = format!("a page begins at a multiple of {PAGE_BYTES}");
        return check.fail(section.identity_at.span().start, "identity_at", why);
    }
    check.switch(at, "power", section.power.as_ref())?;
    let wiring = &section.wiring;
    let commands = [
        &wiring.card,
        &wiring.line,
        &wiring.stop,
        &wiring.bring,
        &wiring.take_away,
        &wiring.output,
        &wiring.delivered,
    ];
    if commands.into_iter().flatten().any(Vec::is_empty) {
        return check.fail(at, "wiring", "an empty command");
    }
    for injury in Injury::ALL {
        check.switch(at, "wiring.injuries", wiring.injuries.of(injury))?;
    }
    let quarantine = match section.quarantine {
        None => None,
        Some(quarantine) => {
            let at = quarantine.span().start;
            let quarantine = quarantine.into_inner();
            match day(&quarantine.until) {
                Err(why) => return check.fail(at, "quarantine.until", why),
                // Days written like this are in order as text.
                Ok(_) if today >= quarantine.until.as_str() => {
                    let Quarantine { until, owner, reason } = quarantine;
                    let why = format!(
                        "it ended on {until} (owner: {owner}; reason: {reason}): mend the board and remove this, or give it another day"
                    );
                    return check.fail(at, "quarantine", why);
                }
                Ok(_) => Some(quarantine),
            }
        }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(Board {
        name: section.name.into_inner(),
        kind,
        chip: section.chip,
        probe: section.probe.into_inner(),
        boot: section.boot.map(|boot| folder.join(boot)),
        image: folder.join(section.image),
        identity_at: section.identity_at.into_inner(),
        link: section.link.into_inner(),
        power: section.power,
        wiring: section.wiring,
        quarantine,
    })
}
