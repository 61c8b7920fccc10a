//! The operator's own command for orders, and what the hub knows of them.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::site::{GATEWAY, Site, binary, hex};

/// Orders something of a site's gateway; the number of the order.
///
/// # Errors
/// If the hub does not take it.
pub fn give(site: &Site, verb: &str, more: &[&str]) -> anyhow::Result<u64> {
    let output = Command::new(binary("holdfast-hub")?)
        .args(["order", verb, "--json", "--gateway", GATEWAY])
        .args(more)
        .arg("--data")
        .arg(site.dir.join("hub/data"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "order {verb} {more:?}: {said}");
    let row: Value = serde_json::from_slice(&output.stdout)?;
    row["order"].as_u64().context("an order has a number")
}

/// The same, at the first outlet of a device.
///
/// # Errors
/// If the hub does not take it.
pub fn give_at(site: &Site, verb: &str, device: &str, more: &[&str]) -> anyhow::Result<u64> {
    let place = ["--device", device, "--outlet", "0"];
    give(site, verb, &[&place, more].concat())
}

/// Where an order stands at the hub: `waits`, `overdue`, or what became of it.
///
/// # Errors
/// If the hub does not answer, or does not know it.
pub fn state(site: &Site, order: u64) -> anyhow::Result<String> {
    let rows = site.ask_hub("orders")?;
    let row = rows.iter().find(|row| row["order"] == order);
    let state = row.and_then(|row| row["state"].as_str());
    Ok(state.with_context(|| format!("order {order} at the hub"))?.to_owned())
}

/// A card as the command wants it.
#[must_use]
pub fn card(uid: &[u8]) -> String {
    format!("card:{}", hex(uid))
}
