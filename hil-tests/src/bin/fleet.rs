//! `fleet ORDERS.json`: simulated devices and the people who use them, against a broker. Started by the demo and by tests.

use anyhow::Context;
use hil_tests::fleet;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .context("usage: fleet ORDERS.json (see hil_tests::fleet::Orders)")?;
    let orders = serde_json::from_slice(&std::fs::read(path)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(fleet::run(orders))
}
