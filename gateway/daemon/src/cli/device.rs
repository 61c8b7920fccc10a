//! `holdfast device`: who belongs to the site.

use std::{path::Path, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use proto::{
    id::{DeviceId, Kind},
    message::OUTLETS_MAX,
};
use serde_json::json;

use super::{
    Place,
    args::DeviceCommand,
    asked, attach, block_on,
    edit::{Edit, EditError, random_key},
    fail, no_daemon, show,
};
use crate::{
    config::{self, Config},
    control::{self, Query},
    exit, firmware,
    provision::{self, Trusted},
    store::Store,
};

/// `holdfast device add`.
#[derive(Args, Debug)]
pub(super) struct AddCommand {
    /// Its name: 1 to 20 characters of a-z, 0-9 and '-'; also its MQTT client id and user name
    device: DeviceId,
    /// What it dispenses
    #[arg(long, value_enum)]
    kind: Served,
    /// Number of its outlets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=OUTLETS_MAX as i64))]
    outlets: u8,
    /// A charger of cars: the limits of [limits.car] apply
    #[arg(long)]
    car: bool,
}

/// Kinds that a device of this version can be.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Served {
    Charger,
    Washer,
    Dispenser,
}

impl Served {
    const fn kind(self) -> Kind {
        match self {
            Self::Charger => Kind::Charger,
            Self::Washer => Kind::Washer,
            Self::Dispenser => Kind::Dispenser,
        }
    }
}

pub(super) fn run(place: &Place, command: DeviceCommand) -> ExitCode {
    match command {
        DeviceCommand::Add(add) => done(add_device(place, &add)),
        DeviceCommand::Rotate { device } => done(rotate(place, &device)),
        DeviceCommand::Block { device } => block(place, device, true),
        DeviceCommand::Unblock { device } => block(place, device, false),
        DeviceCommand::List { json } => place.at(|dir| list(place, dir, json)),
        DeviceCommand::Update { device, file } => match attach(&file, firmware::FILE_BYTES_MAX) {
            Ok(file) => place.at(|dir| match block_on(control::update(dir, device, &file)) {
                Ok(answer) => show::answer(&answer, false),
                Err(error) => fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
            }),
            Err(code) => code,
        },
        DeviceCommand::Provision {
            device,
            out,
            groups,
            codes,
            gateway,
        } => place.with(|config| provision_device(config, &device, &out, Trusted { groups, codes }, gateway)),
        DeviceCommand::Authority(authority) => authority.run(place),
        DeviceCommand::Certificate(certificate) => certificate.run(place),
    }
}

fn done(result: Result<String, EditError>) -> ExitCode {
    match result {
        Ok(text) => {
            show::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &EditError) -> ExitCode {
    let code = match error {
        EditError::Exists(_) => exit::EXISTS,
        EditError::Unknown(_) => exit::NOT_FOUND,
        EditError::Io { .. } | EditError::NoSecrets(_) => exit::UNAVAILABLE,
        EditError::Form { .. } | EditError::Shape { .. } | EditError::Bad(_) => exit::CONFIG,
    };
    fail(code, error)
}

fn open(place: &Place) -> Result<Edit, EditError> {
    Edit::open(&place.config, Some(&place.secrets()))
}

fn new_secret(edit: &mut Edit, device: &DeviceId) -> Result<(), EditError> {
    let key = random_key().map_err(|error| EditError::Io {
        path: PathBuf::from("the system's random numbers"),
        error,
    })?;
    edit.secret(device, &key)
}

fn add_device(place: &Place, add: &AddCommand) -> Result<String, EditError> {
    let mut edit = open(place)?;
    let device = &add.device;
    edit.add(device, add.kind.kind().word(), add.outlets, add.car)?;
    new_secret(&mut edit, device)?;
    edit.save()?;
    Ok(format!(
        "{device}: added to {}, its secret to {}\n\
         What to do next:\n\
         - Have the running gateway read its files again: holdfast reload\n\
         - Write its identity, and flash it: holdfast --config {} device provision {device} --out {device}.bin\n",
        place.config.display(),
        place.secrets().display(),
        place.config.display(),
    ))
}

fn rotate(place: &Place, device: &DeviceId) -> Result<String, EditError> {
    let mut edit = open(place)?;
    new_secret(&mut edit, device)?;
    edit.save()?;
    Ok(format!(
        "{device}: a new secret is in {}. The old one ends when the gateway reads its files again; until then the device goes \
         on with it.\n\
         What to do next, in this order:\n\
         - Write the new identity: holdfast --config {} device provision {device} --out {device}.bin\n\
         - When it is idle, flash the device, with the options that it was provisioned with before\n\
         - Have the gateway read its files again: holdfast reload. A device with the old secret is cut off, and refused from then on\n\
         - If keypad tokens are sold for it, give the hub its new key: holdfast keypad key {device}\n",
        place.secrets().display(),
        place.config.display(),
    ))
}

/// Writes it down first, so that it lasts, and then tells the running gateway, so that it holds at once.
fn block(place: &Place, device: DeviceId, blocked: bool) -> ExitCode {
    // No secret changes, so they may be encrypted, or with somebody else.
    let written = Edit::open(&place.config, None).and_then(|mut edit| {
        let changed = edit.block(&device, blocked)?;
        edit.save().map(|()| changed)
    });
    let changed = match written {
        Ok(changed) => changed,
        Err(error) => return refuse(&error),
    };
    let now = match (blocked, changed) {
        (true, true) => "blocked",
        (true, false) => "was blocked already",
        (false, true) => "not blocked any more",
        (false, false) => "was not blocked",
    };
    let dir = match config::store_dir(&place.config) {
        Ok(dir) => dir,
        Err(error) => return fail(exit::CONFIG, &error),
    };
    match asked(&dir, &Query::Block { device, blocked }) {
        Ok(answer) if answer.get("error").is_some() => show::answer(&answer, false),
        Ok(_) if blocked => {
            println!(
                "{device}: {now}, from this moment on and over restarts: it is cut off, not heard, and told nothing."
            );
            println!("What is open there stays open until its last reading is charged: semantics, conflict 10.");
            ExitCode::SUCCESS
        }
        Ok(_) => {
            println!("{device}: {now}; it may connect again.");
            ExitCode::SUCCESS
        }
        Err(_) if !Store::is_in_use(&dir) => {
            println!(
                "{device}: {now} in {}. No gateway runs on it now.",
                place.config.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => fail(
            exit::UNAVAILABLE,
            &format!(
                "{device}: {now} in {}, but the gateway that runs was not told, and knows it from its next start on: {}",
                place.config.display(),
                no_daemon(&dir, &error)
            ),
        ),
    }
}

/// Of the running gateway; of the configuration, if none runs.
fn list(place: &Place, dir: &Path, json: bool) -> ExitCode {
    match asked(dir, &Query::Devices) {
        Ok(answer) => show::answer(&answer, json),
        Err(error) if Store::is_in_use(dir) => fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
        Err(_) => place.with(|config| {
            let rows = config.core.devices.iter().map(|(device, known)| {
                json!({
                    "device": device.as_str(),
                    "kind": known.kind.word(),
                    "outlets": known.outlets,
                    "blocked": config.blocked.contains(device),
                })
            });
            eprintln!("No gateway runs; this is what the configuration says.");
            show::answer(&rows.collect(), json)
        }),
    }
}

pub(super) fn keypad_key(config: &Config, device: &DeviceId) -> ExitCode {
    match config.core.instruments.keypads.get(device) {
        Some(key) => {
            println!("{}", proto::id::Hash(key.0));
            ExitCode::SUCCESS
        }
        None => fail(exit::USAGE, &format_args!("{device} is not a device of this site")),
    }
}

fn provision_device(
    config: &Config,
    device: &DeviceId,
    out: &Path,
    trusted: Trusted,
    gateway: Option<proto::address::Address>,
) -> ExitCode {
    let identity = match provision::identity(config, device, trusted) {
        Ok(identity) => proto::identity::Identity { gateway, ..identity },
        Err(error) => return fail(exit::CONFIG, &error),
    };
    if let Err(error) = provision::write(&identity, out) {
        return fail(exit::UNAVAILABLE, &error);
    }
    println!(
        "{}: {} {}, {} bytes for the identity's page. By board:",
        out.display(),
        identity.kind.word(),
        identity.id,
        provision::PAGE_BYTES,
    );
    for (board, chip, address) in provision::BOARDS {
        println!(
            "{board}:\n  probe-rs download --chip {chip} --binary-format bin --base-address {address:#010x} {}",
            out.display()
        );
    }
    println!("It contains the device's secret: delete it afterwards.");
    ExitCode::SUCCESS
}
