//! `holdfast reload`.

use std::process::ExitCode;

use serde_json::Value;

use super::{Place, block_on, fail, no_daemon, show};
use crate::{
    config,
    control::{self, Query},
    exit,
};

pub(super) fn run(place: &Place, check: bool, json: bool) -> ExitCode {
    let dir = match config::store_dir(&place.config) {
        Ok(dir) => dir,
        Err(error) => return fail(exit::CONFIG, &error),
    };
    // Where the service manager hands out secrets, the gateway has those of its start: who may read the file tells them.
    let secrets = std::fs::read_to_string(place.secrets()).ok();
    let answer = match block_on(control::ask(&dir, &Query::Reload { check, secrets })) {
        Ok(answer) => answer,
        Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(&dir, &error)),
    };
    if json {
        show::print(&format!("{answer}\n"));
        return match answer.get("error") {
            None => ExitCode::SUCCESS,
            Some(_) => ExitCode::from(exit::CONFIG),
        };
    }
    if let Some(code) = show::refused(&answer) {
        return code;
    }
    let keys = answer["changed"].as_array().into_iter().flatten();
    let keys: Vec<&str> = keys.filter_map(Value::as_str).collect();
    let text = match (keys.is_empty(), check) {
        (true, _) => "the gateway has it so already: nothing changes\n".to_owned(),
        (false, true) => format!("would be taken over: {}\n", keys.join(", ")),
        (false, false) => format!("taken over: {}\n", keys.join(", ")),
    };
    show::print(&text);
    ExitCode::SUCCESS
}
