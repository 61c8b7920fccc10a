//! What is brought to the gateway past the cloud: revocations on a stick, the operator's and somebody else's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    cloud_sim::script::{Deed, Script},
    process::Process,
    site::{self, Plan, Site, Standing, binary, hex},
};

/// How long the gateway may take to adopt an artifact.
const ADOPTED: Duration = Duration::from_secs(20);

/// What became of a deed.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// When it was done, in ms since people began to come.
    pub(super) at_ms: u64,
    /// Users whose tokens it revokes.
    pub(super) users: Vec<usize>,
    /// Whether the gateway took it.
    pub(super) believed: bool,
    /// From the moment the file was there until the revocation held, in ms.
    pub(super) effective_ms: u64,
    /// Whether it was somebody else's.
    pub(super) forged: bool,
}

/// What had to be there before.
pub(super) struct Prepared {
    forger: Option<Forger>,
}

/// Somebody with a hub and keys of his own.
struct Forger {
    plan: Plan,
    dir: PathBuf,
    _hub: Process,
}

/// A script with forgeries needs somebody who forges: a hub with keys of its own.
pub(super) fn prepare(script: &Script, site: &Site, dir: &Path) -> anyhow::Result<Option<Prepared>> {
    if script.deeds.is_empty() {
        return Ok(None);
    }
    let mut prepared = Prepared { forger: None };
    if script.deeds.iter().any(|deed| deed.forged) {
        let forger = dir.join("forger");
        let plan = Plan::new(
            site.plan.seed ^ 0xf0_96e2,
            site.plan.devices.len(),
            site.plan.users.len(),
        );
        let (hub, _) = Site::start_hub(&plan, &forger)?;
        prepared.forger = Some(Forger {
            plan,
            dir: forger,
            _hub: hub,
        });
    }
    Ok(Some(prepared))
}

/// Good users whose tokens are revoked: the last ones, of whom some have been here.
fn victims(plan: &Plan, count: u32) -> Vec<usize> {
    let good = plan
        .users
        .iter()
        .enumerate()
        .filter(|(_, user)| user.standing == Standing::Good);
    let all: Vec<usize> = good.map(|(i, _)| i).collect();
    // Spread over the users, so that some of them come.
    let step = (all.len() / (count as usize).max(1)).max(1);
    all.into_iter().step_by(step).take(count as usize).collect()
}

/// Has a hub, which knows `own`, revoke tokens of these users; the file with everything it has signed.
fn revoke(hub: &Path, own: &Plan, plan: &Plan, users: &[usize]) -> anyhow::Result<PathBuf> {
    let mut seed = own.hub_seed();
    for user in users {
        let raw = hex(&plan.users[*user].token);
        seed += &format!("[[revocations]]\nkind = \"card\"\nraw = \"{raw}\"\n\n");
    }
    fs::write(hub.join("hub/seed.toml"), seed)?;
    site::ask_hub(hub, "reload")?;
    let file = hub.join("artifacts.bin");
    let mut export = Command::new(binary("holdfast-hub")?);
    export
        .arg("export-artifacts")
        .arg(&file)
        .arg("--config")
        .arg(hub.join("hub/hub.toml"));
    let output = export.output()?;
    ensure!(
        output.status.success(),
        "export-artifacts: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(file)
}

/// Does it, and waits until it holds or is refused.
pub(super) fn run(deed: &Deed, site: &Site, prepared: &Prepared, began: Instant) -> anyhow::Result<Done> {
    let users = victims(&site.plan, deed.revokes);
    let file = match (&prepared.forger, deed.forged) {
        (Some(forger), true) => revoke(&forger.dir, &forger.plan, &site.plan, &users)?,
        (None, true) => anyhow::bail!("nobody forges"),
        (_, false) => revoke(&site.dir, &site.plan, &site.plan, &users)?,
    };
    let revision = || -> anyhow::Result<u64> {
        let status = site.ask_gateway("status")?;
        status["revocations_revision"].as_u64().context("a revision")
    };
    let before = revision()?;
    let here = Instant::now();
    let at_ms = began.elapsed().as_millis() as u64;
    let mut import = Command::new(binary("holdfast")?);
    import
        .arg("--config")
        .arg(site.dir.join("gateway/holdfast.toml"))
        .args(["trust", "import"])
        .arg(&file);
    let output = import.output()?;
    let taken = output.status.success();
    ensure!(
        taken != deed.forged,
        "trust import ended with {:?}: {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    while taken && revision()? == before {
        ensure!(here.elapsed() < ADOPTED, "the revocations are not adopted");
        std::thread::sleep(Duration::from_millis(5)); // A poll of another process, with its limit above.
    }
    Ok(Done {
        at_ms,
        users,
        believed: revision()? != before,
        effective_ms: here.elapsed().as_millis() as u64,
        forged: deed.forged,
    })
}
