//! A site of real processes behind a cloud that can fail, and the devices of one rig at it; and what people do there, with
//! a limit on every wait.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use proto::{id::Kind, seal::PairSecret, topic::Up};
use tempfile::TempDir;

use crate::{
    cloud_sim::{CloudSim, Mode},
    rig::{Order, Rig, Supplier, words},
    site::{BrokerKind, DevicePlan, Plan, Site, binary},
    twin::{Thing, usual_thing},
};

/// How long anything may take: boards share the processors with everything else.
const PATIENCE: Duration = Duration::from_secs(90);
/// After so long people hold their card up again.
const TAP_AGAIN: Duration = Duration::from_secs(5);
/// Pace of the world around the devices, in ms.
const STEP_MS: u64 = 5;
/// Users of a site: a scenario gives every visitor a card of their own, so that no limit of one meets another.
const USERS: usize = 400;
/// Delivered before something happens to a session: of Wh and ml, in thousandths.
const SOME_MILLI: u64 = 2_000;
/// One cycle.
const CYCLE_MILLI: u64 = 1_000;
/// Limits that a scenario reaches within seconds, and a start that is not waited for long.
const LIMITS: &str = "[limits.charger]\nunits_max = 600\nstart_within_s = 20\n\n\
                      [limits.washer]\nstart_within_s = 20\n\n\
                      [limits.dispenser]\nunits_max = 1500\nstart_within_s = 20\n";
/// `units_max` above, in thousandths.
pub(super) const CHARGER_LIMIT_MILLI: u64 = 600_000;
pub(super) const DISPENSER_LIMIT_MILLI: u64 = 1_500_000;

/// A valve has closed so long after its coil lost the current, in ms: what still runs belongs to its own scenario.
const VALVE_MS: u64 = 300;

/// The only device of a scenario, or the first.
pub const ONE: usize = 0;

/// A site and its devices.
pub struct Bench {
    /// Gateway and hub.
    pub site: Site,
    /// What is between them.
    pub cloud: CloudSim,
    boards: Vec<Box<dyn Rig>>,
    /// Which of the boards play; scenarios count these.
    cast: Vec<usize>,
    /// Cards that were given out, by standing and whitelist.
    given: BTreeMap<(String, String), usize>,
    /// Lines of each log when the scenario began.
    began: Vec<usize>,
    _runtime: tokio::runtime::Runtime,
    dir: TempDir,
}

impl Bench {
    /// A site with devices of these kinds, linked.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn open(supplier: &dyn Supplier, seed: u64, kinds: &[Kind]) -> anyhow::Result<Self> {
        println!("{}: a site of seed {seed}", supplier.name());
        let dir = tempfile::tempdir()?;
        let mut plan = Plan::new(seed, Kind::SERVED.len(), USERS);
        plan.limits = LIMITS.to_owned();
        let (hub, hub_address) = Site::start_hub(&plan, dir.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let cloud = runtime.block_on(CloudSim::start(plan.cloud(hub_address)))?;
        let site = Site::start(plan, dir.path(), hub, cloud.address(), BrokerKind::Embedded)?;
        let mut boards = Vec::new();
        for device in site.plan.devices.iter().filter(|device| kinds.contains(&device.kind)) {
            let page = provision(&site, device.id.as_str())?;
            boards.push(supplier.supply(&Order {
                dir: dir.path(),
                device,
                page: &page,
                gateway: site.device_address,
            })?);
        }
        let mut bench = Self {
            site,
            cloud,
            cast: (0..boards.len()).collect(),
            began: vec![0; boards.len()],
            boards,
            given: BTreeMap::new(),
            _runtime: runtime,
            dir,
        };
        match bench.come_up() {
            Ok(()) => Ok(bench),
            Err(error) => bail!("{error:#}\n{}", bench.logs()),
        }
    }

    fn come_up(&mut self) -> anyhow::Result<()> {
        for i in 0..self.boards.len() {
            self.wait_log(i, 0, words::LINKED)?;
        }
        self.wait("every artifact of the hub at the gateway", |bench| {
            let status = bench.site.ask_gateway("status")?;
            let has = |name: &str| status[name].as_u64().is_some_and(|revision| revision > 0);
            Ok(["list_revision", "revocations_revision", "tariffs_revision"]
                .into_iter()
                .all(has))
        })
    }

    /// The devices of the next scenario.
    pub(super) fn cast(&mut self, kinds: &[Kind]) {
        let boards = self.boards.iter().enumerate();
        let fit = boards.filter(|(_, board)| kinds.contains(&board.kind()));
        self.cast = fit.map(|(i, _)| i).collect();
        self.began = self.boards.iter().map(|board| board.log().len()).collect();
    }

    /// How many devices play.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cast.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cast.is_empty()
    }

    /// One of the devices that play.
    ///
    /// # Panics
    /// If fewer play.
    pub fn board(&mut self, i: usize) -> &mut dyn Rig {
        &mut *self.boards[self.cast[i]]
    }

    /// The secret that the gateway shares with a device.
    pub(super) fn secret(&mut self, i: usize) -> anyhow::Result<PairSecret> {
        Ok(self.plan(i)?.secret.clone())
    }

    /// The name of a device.
    pub(super) fn name(&mut self, i: usize) -> anyhow::Result<String> {
        Ok(self.plan(i)?.id.to_string())
    }

    fn plan(&mut self, i: usize) -> anyhow::Result<&DevicePlan> {
        let kind = self.board(i).kind();
        let device = self.site.plan.devices.iter().find(|device| device.kind == kind);
        device.context("a device of the plan")
    }

    /// The card of somebody of this standing and OCPI policy who was not here before.
    ///
    /// # Errors
    /// If everybody was.
    pub fn card(&mut self, standing: &str, whitelist: &str) -> anyhow::Result<[u8; 7]> {
        let given = self
            .given
            .entry((standing.to_owned(), whitelist.to_owned()))
            .or_default();
        let users = self.site.plan.users.iter();
        let mut fit = users.filter(|user| user.standing.word() == standing && user.whitelist == whitelist);
        let user = fit.nth(*given).context("nobody is left who was not here before")?;
        *given += 1;
        Ok(user.token)
    }

    /// Lets the world go on until `is` says so.
    ///
    /// # Errors
    /// If it does not in time, or somebody cannot tell.
    pub fn wait(&mut self, what: &str, mut is: impl FnMut(&mut Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.step()?;
            if is(self)? {
                return Ok(());
            }
            ensure!(Instant::now() < end, "not {what} within {} s", PATIENCE.as_secs());
        }
    }

    /// Waits for a line with `text` in a device's log, at or behind line `from`; the number of the line behind it.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn wait_log(&mut self, i: usize, from: usize, text: &str) -> anyhow::Result<usize> {
        let mut at = from;
        self.wait(&format!("\"{}\" in the log", text.trim()), |bench| {
            let found = bench.board(i).log().find(from, text);
            at = found.unwrap_or(at);
            Ok(found.is_some())
        })?;
        Ok(at)
    }

    /// Waits until the output of a device is on, or off.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn wait_output(&mut self, i: usize, on: bool) -> anyhow::Result<()> {
        self.wait(if on { "on" } else { "off" }, |bench| Ok(bench.board(i).is_on()? == on))
    }

    /// Lets so much time pass for the devices, in ms of their clock. `check` looks all the while.
    ///
    /// # Errors
    /// What `check` finds.
    pub fn pass(
        &mut self,
        device_ms: u64,
        mut check: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let haste = u64::from(self.board(ONE).haste());
        let end = Instant::now() + Duration::from_millis(device_ms / haste);
        while Instant::now() < end {
            self.step()?;
            check(self)?;
        }
        Ok(())
    }

    fn step(&mut self) -> anyhow::Result<()> {
        for board in &mut self.boards {
            board.step()?;
        }
        std::thread::sleep(Duration::from_millis(STEP_MS)); // The world's own pace; whoever calls has a limit.
        Ok(())
    }

    /// Somebody brings the usual thing and presents a card; waits for the grant. The number of the line behind it.
    ///
    /// # Errors
    /// If it is not granted in time.
    pub fn ask(&mut self, i: usize, card: &[u8]) -> anyhow::Result<usize> {
        let thing = usual_thing(self.board(i).kind());
        self.ask_with(i, card, thing)
    }

    /// The same with a thing of one's own.
    ///
    /// # Errors
    /// If it is not granted in time.
    pub fn ask_with(&mut self, i: usize, card: &[u8], thing: Thing) -> anyhow::Result<usize> {
        let at = self.board(i).log().len();
        self.board(i).bring(thing)?;
        self.present(i, card)?;
        let mut granted = at;
        self.wait("granted", |bench| {
            let log = bench.board(i).log();
            ensure!(log.find(at, words::REFUSED).is_none(), "a good card is refused");
            granted = log.find(at, words::GRANTED).unwrap_or(at);
            Ok(granted > at)
        })?;
        Ok(granted)
    }

    /// Presents a card until the device asks its gateway: a reader misses one now and then, and people hold it up again.
    ///
    /// # Errors
    /// If it does not ask in time.
    pub fn present(&mut self, i: usize, card: &[u8]) -> anyhow::Result<()> {
        let asked = |bench: &mut Self| bench.board(i).module().heard(Up::Authorize).len();
        let before = asked(self);
        self.tap_until(i, card, "asked", |bench| Ok(asked(bench) > before))
    }

    /// Holds a card up again and again until `is` says that it was seen.
    ///
    /// # Errors
    /// If it never is, or somebody cannot tell.
    pub fn tap_until(
        &mut self,
        i: usize,
        card: &[u8],
        what: &str,
        mut is: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut again = Instant::now();
        self.wait(what, |bench| {
            if is(bench)? {
                return Ok(true);
            }
            if Instant::now() >= again {
                again = Instant::now() + TAP_AGAIN;
                bench.board(i).tap(card)?;
            }
            Ok(false)
        })
    }

    /// As [`Self::ask`], and waits until something is delivered and the device has said so.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn begin(&mut self, i: usize, card: &[u8]) -> anyhow::Result<usize> {
        let before = self.board(i).delivered_milli()?;
        let started = |bench: &mut Self| bench.board(i).module().heard(Up::Started).len();
        let before_started = started(self);
        let at = self.ask(i, card)?;
        self.deliver(i, before)?;
        self.wait("a start that is told", |bench| Ok(started(bench) > before_started))?;
        Ok(at)
    }

    /// Waits until something is delivered beyond `before_milli`.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn deliver(&mut self, i: usize, before_milli: u64) -> anyhow::Result<()> {
        let some = match self.board(i).kind() {
            Kind::Washer => CYCLE_MILLI,
            Kind::Charger | Kind::Dispenser | Kind::Unknown => SOME_MILLI,
        };
        self.wait("a delivery", |bench| {
            Ok(bench.board(i).delivered_milli()? >= before_milli + some)
        })
    }

    /// Waits for the end of a session, as people bring it about: a plug is pulled, a wash and a vessel take their time.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(&mut self, i: usize, from: usize) -> anyhow::Result<usize> {
        if self.board(i).kind() == Kind::Charger {
            self.board(i).take_away()?;
        }
        let at = self.wait_log(i, from, words::ENDED)?;
        self.wait_output(i, false)?;
        self.board(i).take_away()?;
        Ok(at)
    }

    /// As [`Self::end`], and waits for the receipt.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn finish(&mut self, i: usize, from: usize) -> anyhow::Result<usize> {
        let at = self.end(i, from)?;
        self.wait_log(i, at, words::RECEIPT)
    }

    /// Somebody comes, is served, leaves, and gets a receipt.
    ///
    /// # Errors
    /// If not in time.
    pub fn serve(&mut self, i: usize, card: &[u8]) -> anyhow::Result<()> {
        let at = self.begin(i, card)?;
        self.finish(i, at)?;
        Ok(())
    }

    /// What the device logged since line `from`.
    pub fn logged(&mut self, i: usize, from: usize) -> String {
        self.board(i).log().text(from)
    }

    /// A voucher of the hub, as a scanner sends it.
    ///
    /// # Errors
    /// If the hub issues none.
    pub fn voucher(&self, kind: Kind, amount: i64) -> anyhow::Result<String> {
        let printed = said_by(
            Command::new(binary("holdfast-hub")?)
                .args(["issue", "voucher", "--config"])
                .arg(self.site.dir.join("hub/hub.toml"))
                .args(["--site", "campus", "--kind", kind.word(), "--until", "4102444800"])
                .args(["--amount", &amount.to_string()]),
        )?;
        let envelope = printed.split_whitespace().find(|word| word.len() > 100);
        let envelope = envelope.with_context(|| format!("no voucher in \"{printed}\""))?;
        Ok(envelope.to_owned())
    }

    /// A keypad token for a device, as its seller issues it: the first of this site.
    ///
    /// # Errors
    /// If gateway or hub refuse.
    pub fn keypad_token(&mut self, i: usize, amount: i64) -> anyhow::Result<String> {
        let id = self.plan(i)?.id;
        let gateway = self.site.dir.join("gateway");
        let (key_file, counter_file) = (gateway.join("keypad.key"), gateway.join("keypad.counter"));
        let key = said_by(holdfast(&self.site)?.args(["keypad", "key", id.as_str()]))?;
        fs::write(&key_file, key)?;
        let printed = said_by(
            Command::new(binary("holdfast-hub")?)
                .args(["issue", "keypad", "--amount", &amount.to_string()])
                .arg("--key-file")
                .arg(&key_file)
                .arg("--counter-file")
                .arg(&counter_file),
        )?;
        let digits = printed.lines().last().map(|digits| digits.replace(' ', ""));
        digits.with_context(|| format!("no keypad token in \"{printed}\""))
    }

    /// Puts everything back, waits until every session has its receipt, and compares the books.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        self.cloud.set(Mode::Honest);
        for board in &self.boards {
            board.module().change(None);
            board.module().unplug(false);
        }
        self.settle()?;
        let books = self.site.books()?;
        ensure!(books.are_closed(), "the books do not close: {books:?}");
        self.rest()
    }

    /// The world goes on while gateway and hub finish.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut status = serde_json::Value::Null;
        let settled = self.wait("settled", |bench| {
            status = bench.site.ask_gateway("status")?;
            Ok(["waiting", "sessions_open"]
                .iter()
                .all(|name| status[name].as_u64() == Some(0)))
        });
        settled.with_context(|| format!("{status}"))
    }

    /// Nothing of this scenario reaches into the next one: outputs are off, nobody stands there, the link is up.
    fn rest(&mut self) -> anyhow::Result<()> {
        for i in self.cast.clone() {
            self.boards[i].take_away()?;
        }
        for i in 0..self.len() {
            self.wait_output(i, false)?;
            self.wait("a machine at rest", |bench| Ok(!bench.board(i).is_running()))?;
            // A door that was locked till now.
            self.board(i).take_away()?;
            self.pass(VALVE_MS, |_| Ok(()))?;
            let from = self.began[self.cast[i]];
            self.wait("linked", |bench| {
                let log = bench.board(i).log();
                Ok(log.count(from, words::UNLINKED) == 0
                    || log.text(from).rfind(words::LINKED) > log.text(from).rfind(words::UNLINKED))
            })?;
        }
        Ok(())
    }

    /// What devices and gateway logged in this scenario, for whoever looks for what went wrong.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for i in &self.cast {
            let board = &self.boards[*i];
            let _ = writeln!(
                text,
                "--- the {} ({}), {} connections, logged:\n{}",
                board.kind().word(),
                board.kind_of_rig(),
                board.module().connections(),
                board.log().text(self.began[*i])
            );
        }
        let log = fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let _ = write!(
            text,
            "--- the gateway's log ends:\n{}",
            lines[lines.len().saturating_sub(40)..].join("\n")
        );
        text
    }
}

/// The page that the gateway's own program writes for a device.
fn provision(site: &Site, id: &str) -> anyhow::Result<Vec<u8>> {
    let page = site.dir.join(format!("{id}.bin"));
    said_by(holdfast(site)?.args(["device", "provision", id, "--out"]).arg(&page))?;
    Ok(fs::read(page)?)
}

/// The gateway's program with the site's configuration.
fn holdfast(site: &Site) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("holdfast")?);
    command.arg("--config").arg(site.dir.join("gateway/holdfast.toml"));
    Ok(command)
}

/// What a program prints that does what it is told.
fn said_by(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
