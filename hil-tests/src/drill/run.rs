//! One run: the campus settles, the scenario passes, the evening ends, everything comes to rest, the books are compared.

use std::collections::BTreeMap;

use gateway_core::Capability;
use proto::{
    book::{Account, Balance},
    id::AccountId,
};
use sha2::Digest;

use super::{
    bridge,
    link::LinkStep,
    report::{AlarmLine, Counterfactuals, Report, Row},
    scenario::Scenario,
    tally::Slice,
    when,
    world::{Next, REST_MS, World},
};

/// How often the end looks whether everything is at rest, in ms.
const LOOK_MS: u64 = 30_000;

/// Replays a scenario. The same scenario and seed give the same report. `trace`: tell on stderr what happens.
///
/// # Errors
/// If the campus cannot be made: a device that does not boot.
pub fn run(scenario: &Scenario, seed: u64, trace: bool) -> anyhow::Result<Report> {
    let mut world = World::new(scenario, seed, trace)?;
    begin(&mut world);
    let end_ms = world.end_ms;
    go(&mut world, end_ms);
    if world.slice_since_ms() > 0 {
        world.end_slice();
    }
    world.calm = true;
    world.say(|| "the end: nobody comes any more, the cloud is well".to_owned());
    world.send_home();
    let rest_ms = end_ms + REST_MS;
    while world.t_ms < rest_ms && !world.is_at_rest() {
        let until_ms = (world.t_ms + LOOK_MS).min(rest_ms);
        go(&mut world, until_ms);
    }
    world.look_at_trust();
    let mut report = world.report(seed);
    report.check(&scenario.checks);
    Ok(report)
}

fn begin(world: &mut World<'_>) {
    let begin_ms = world.begin_ms;
    for gateway in 0..world.shells.len() {
        world.boot_gateway(gateway);
        let step = LinkStep::Connect;
        world.after(100, Next::Link { gateway, step });
    }
    // Devices come when the list is old enough: a minute before the first person.
    for at in 0..world.twins.len() {
        let ms = world.network_rng.u64(0..30_000);
        world.at(begin_ms - super::world::SETTLE_MS + 1_000 + ms, Next::DeviceLink { at });
    }
    let scenario = world.scenario;
    for condition in &scenario.cloud {
        world.at(begin_ms + condition.from_ms, Next::Edge);
        world.at(begin_ms + condition.until_ms, Next::Edge);
    }
    for (event, happening) in scenario.events.iter().enumerate() {
        world.at(begin_ms + happening.at_ms, Next::Publish { event });
    }
    world.at(begin_ms, Next::Arrival);
    world.at(begin_ms, Next::HubTick);
    world.at(begin_ms + world.tally.slice_ms, Next::Slice);
}

fn go(world: &mut World<'_>, until_ms: u64) {
    while let Some(next) = world.pop(until_ms) {
        world.steps += 1;
        happen(world, next);
    }
}

fn happen(world: &mut World<'_>, next: Next) {
    match next {
        Next::GatewayTick { gateway, generation } => world.gateway_tick(gateway, generation),
        Next::Commit { gateway } => world.commit(gateway),
        Next::FrameUp { at, frame } => world.frame_up(at, &frame),
        Next::FrameDown { at, frame } => world.frame_down(at, &frame),
        Next::DeviceWake { at, generation } => world.device_wakes(at, generation),
        Next::DeviceLink { at } => {
            for outlet in 0..world.twins[at].places.len() {
                world.sense(at, outlet);
            }
            world.device_link(at);
        }
        Next::Arrival => world.arrival(),
        Next::Visit {
            at,
            outlet,
            number,
            step,
        } => world.visit(at, outlet, number, step),
        Next::Link { gateway, step } => world.link_step(gateway, step),
        Next::CloudUp {
            gateway,
            connection,
            request,
        } => world.cloud_up(gateway, connection, *request),
        Next::CloudDown {
            gateway,
            connection,
            says,
        } => world.cloud_down(gateway, connection, *says),
        Next::Artifact { gateway, input } => world.handed_over(gateway, &input),
        Next::Edge => world.edge(),
        Next::Publish { event } => world.publish(event),
        Next::HubTick => {
            world.hub.publish_every(world.scenario.site.list_every_s);
            world.hub_tick();
        }
        Next::Slice => {
            if !world.calm {
                world.end_slice();
                world.after(world.tally.slice_ms, Next::Slice);
            }
        }
        Next::RevokedTries { user } => world.revoked_tries(user),
    }
}

impl World<'_> {
    /// What the cloud does, in words.
    pub(super) fn cloud_words(&self, at_ms: u64) -> String {
        let mut words: Vec<String> = Vec::new();
        let regions = &self.scenario.site.regions;
        for capability in Capability::ALL {
            let found: Vec<Option<&str>> = (0..regions.len())
                .map(|region| {
                    self.scenario
                        .condition(at_ms, region, capability)
                        .map(|c| c.fault.word())
                })
                .collect();
            let mut part: Vec<String> = found.iter().flatten().map(|word| (*word).to_owned()).collect();
            part.dedup();
            if part.is_empty() {
                continue;
            }
            let some = if found.iter().any(Option::is_none) {
                " in part"
            } else {
                ""
            };
            words.push(format!("{}{some}", part.join("+")));
        }
        let all_alike = words.len() == Capability::ALL.len() && words.iter().all(|word| *word == words[0]);
        if words.is_empty() {
            "well".to_owned()
        } else if all_alike {
            words.swap_remove(0)
        } else {
            let hit = Capability::ALL.into_iter().filter(|capability| {
                (0..regions.len()).any(|region| self.scenario.condition(at_ms, region, *capability).is_some())
            });
            let named: Vec<String> = hit
                .zip(words)
                .map(|(capability, word)| format!("{} {word}", capability.word()))
                .collect();
            named.join(", ")
        }
    }

    fn slice_since_ms(&self) -> u64 {
        self.since_begin_ms() - self.tally.slice.from_ms
    }

    /// The end of a row of the table, and a look at what is trusted.
    pub(super) fn end_slice(&mut self) {
        self.look_at_trust();
        let upto_ms = self.since_begin_ms();
        let mut slice = std::mem::take(&mut self.tally.slice);
        let mut clouds: Vec<String> = Vec::new();
        let edges = self
            .scenario
            .cloud
            .iter()
            .flat_map(|condition| [condition.from_ms, condition.until_ms]);
        let mut times: Vec<u64> = edges.filter(|ms| (slice.from_ms..upto_ms).contains(ms)).collect();
        times.push(slice.from_ms);
        times.sort_unstable();
        for at_ms in times {
            let words = self.cloud_words(at_ms);
            if !clouds.contains(&words) {
                clouds.push(words);
            }
        }
        slice.cloud = clouds.join(" > ");
        let modes: Vec<&str> = self.shells.iter().map(|shell| bridge::modes(&shell.core)).collect();
        let mut unique = modes.clone();
        unique.dedup();
        slice.modes = unique.join("/");
        slice.outbox = self.shells.iter().map(|shell| shell.core.outbox().waiting()).sum();
        let exposure_max = self.oracle.exposure();
        self.tally.slices.push(slice);
        self.tally.slice = Slice {
            from_ms: upto_ms,
            exposure_max,
            ..Slice::default()
        };
    }

    /// Every valid token of the genuine lists must be trusted, unless a signature says otherwise.
    pub(super) fn look_at_trust(&mut self) {
        let mut evicted = 0;
        for (gateway, shell) in self.shells.iter().enumerate() {
            for (user, person) in self.persons.iter().enumerate() {
                let should = person.is_valid && !person.is_revoked && !person.has_left;
                let revoked = self.oracle.revoked_since(gateway, user).is_some();
                if should && !revoked && !bridge::trusts(&shell.core, &person.hash) {
                    evicted += 1;
                }
            }
        }
        self.tally.trust_evicted = self.tally.trust_evicted.max(evicted);
    }

    /// Every session closed, every receipt there, nobody at an outlet, the cloud trusted again.
    fn is_at_rest(&self) -> bool {
        let gateways = self.shells.iter().all(|shell| {
            let core = &shell.core;
            core.outbox().waiting() == 0 && core.sessions().open().next().is_none() && !bridge::is_local(core)
        });
        gateways
            && self.twins.iter().all(|twin| {
                let places = twin
                    .places
                    .iter()
                    .all(|place| place.visit.is_none() && place.session.is_none());
                places && twin.device.unreceipted() == 0
            })
    }

    /// Lines of the gateways' books together that are not the hub's, and charges that are not what the people drew.
    fn differing_lines(&self) -> i64 {
        let mut ours: BTreeMap<Account, Balance> = BTreeMap::new();
        for (account, balance) in self.shells.iter().flat_map(|shell| shell.core.book().balances()) {
            let sum = ours.entry(*account).or_default();
            sum.debits_pending = sum.debits_pending.saturating_add(balance.debits_pending);
            sum.debits_posted = sum.debits_posted.saturating_add(balance.debits_posted);
            sum.credits_pending = sum.credits_pending.saturating_add(balance.credits_pending);
            sum.credits_posted = sum.credits_posted.saturating_add(balance.credits_posted);
        }
        let theirs: BTreeMap<Account, Balance> = self.hub.lines.balances().map(|(a, b)| (*a, *b)).collect();
        let nothing = Balance::default();
        let mut accounts: Vec<&Account> = ours.keys().chain(theirs.keys()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let differ =
            |account: &&&Account| ours.get(**account).unwrap_or(&nothing) != theirs.get(**account).unwrap_or(&nothing);
        let lines = accounts.iter().filter(differ).count() as i64;
        // And the third opinion: what was charged for what physically flowed.
        let drawn: BTreeMap<AccountId, i64> = self.oracle.charges(&self.persons);
        let paid = |account: AccountId| {
            let own = |candidate: &Account| match candidate {
                Account::Customer(number) | Account::Lease(number, _) => *number == account,
                Account::Clearing | Account::Revenue(_) | Account::Prepaid | Account::Loss(_) | Account::Dispute => {
                    false
                }
            };
            let range = [Account::Customer(account)];
            let customer = range.iter().filter_map(|key| theirs.get(key));
            let leases = theirs.range(Account::Lease(account, 0)..=Account::Lease(account, u64::MAX));
            let leases = leases.filter(|(key, _)| own(key)).map(|(_, balance)| balance);
            customer
                .chain(leases)
                // What goes into a lease and comes back is nobody's gain.
                .map(|balance| balance.debits_posted.0 - balance.credits_posted.0)
                .sum::<i64>()
        };
        lines
            + drawn
                .iter()
                .filter(|(account, charged)| paid(**account) != **charged)
                .count() as i64
    }

    fn report(&self, seed: u64) -> Report {
        let numbers = self.numbers();
        let books_closed = numbers["books_closed"] == 1;
        let (_, clock_s) = self.begin_clock();
        let rows = self.tally.slices.iter().map(|slice| row(slice, clock_s));
        let alarm_lines = self.tally.alarms.iter().map(|(at_ms, gateway, text)| AlarmLine {
            at: when::clock(clock_s, *at_ms),
            region: self.scenario.site.regions[*gateway].clone(),
            text: text.clone(),
        });
        let blamed = self.good_tokens_blamed();
        Report {
            scenario: self.scenario.name.clone(),
            title: self.scenario.title.clone(),
            seed,
            devices: self.twins.len() as u64,
            users: self.persons.len() as u64,
            virtual_s: self.t_ms / 1_000,
            books_closed,
            refusals: self.tally.refusals.clone(),
            rightly_refused: self.tally.rightly_refused.clone(),
            alarms_by_class: self.tally.alarm_classes.clone(),
            alarm_lines: alarm_lines.collect(),
            counterfactuals: Counterfactuals {
                had_we_refused_sessions: self.tally.had_we_refused.sessions,
                had_we_refused_good_attempts: self.tally.good_attempts_in_outage,
                had_we_trusted_sessions: self.tally.had_we_trusted.sessions,
                had_we_trusted_minor: self.tally.had_we_trusted.money,
                had_we_believed_tokens: blamed as u64,
            },
            rows: rows.collect(),
            checks: Vec::new(),
            hash: hex(&self.digest.clone().finalize()),
            numbers,
        }
    }

    fn begin_clock(&self) -> (u64, u64) {
        let local_s = self.scenario.begins_s as i64 + i64::from(self.scenario.offset_min) * 60;
        (self.scenario.begins_s, local_s.rem_euclid(86_400) as u64)
    }

    fn good_tokens_blamed(&self) -> i64 {
        let good = self
            .persons
            .iter()
            .filter(|person| person.is_valid && !person.is_revoked);
        good.filter(|person| self.tally.blamed.contains(&person.hash)).count() as i64
    }

    fn numbers(&self) -> BTreeMap<&'static str, i64> {
        let (tally, oracle) = (&self.tally, &self.oracle);
        let records: u64 = self.shells.iter().map(|shell| shell.records.len() as u64).sum();
        let booked: u64 = self.hub.booked.iter().sum();
        let waiting: u64 = self.shells.iter().map(|shell| shell.core.outbox().waiting()).sum();
        let open: usize = self
            .shells
            .iter()
            .map(|shell| shell.core.sessions().open().count())
            .sum();
        let differing = self.differing_lines();
        let faults = oracle.faults;
        let closed = waiting == 0
            && open == 0
            && self.is_at_rest()
            && records == booked
            && self.hub.foreign + self.hub.quarantined == 0
            && differing == 0
            && faults.overcharged + faults.undercharged + faults.without_hold == 0
            && tally.frames_rejected == 0
            && self.hub.core.book().is_balanced()
            && self.hub.core.book().holds().next().is_none()
            && self.shells.iter().all(|shell| shell.core.book().is_balanced());
        let class = |name: &str| tally.alarm_classes.get(name).copied().unwrap_or(0) as i64;
        let first_fault = self
            .scenario
            .cloud
            .iter()
            .map(|condition| condition.from_ms)
            .min()
            .unwrap_or(u64::MAX);
        let peak = |before: bool| {
            let rows = tally.slices.iter().chain([&tally.slice]);
            let rows = rows.filter(|slice| (slice.from_ms + tally.slice_ms <= first_fault) == before);
            rows.map(|slice| slice.hub_peak).max().unwrap_or(0) as i64
        };
        let list_entries = self
            .shells
            .iter()
            .map(|shell| shell.core.trust().tokens())
            .min()
            .unwrap_or(0);
        let leavers_listed = (self.shells.iter())
            .map(|shell| {
                let left = self.persons.iter().filter(|person| person.has_left);
                left.filter(|person| bridge::trusts(&shell.core, &person.hash)).count()
            })
            .max()
            .unwrap_or(0);
        let served: u64 = tally.served;
        let refused: u64 = tally.refusals.values().sum();
        let value = |name: &'static str| -> i64 {
            match name {
                "good_users_refused" => tally.good_refused as i64,
                "revoked_users_granted" => tally.revoked_granted as i64,
                "trust_evicted" => tally.trust_evicted as i64,
                "leased_overspend_minor" => oracle.leased_overspend(&self.persons),
                "exposure_over_budget_minor" => faults.over_budget.max(0),
                "verdict_p99_ms" => tally.wait_ms(990) as i64,
                "books_closed" => i64::from(closed),
                "attempts" => (served + refused) as i64,
                "sessions_served" => served as i64,
                "sessions_served_in_outage" => tally.served_in_outage as i64,
                "good_attempts" => tally.good_attempts as i64,
                "good_attempts_in_outage" => tally.good_attempts_in_outage as i64,
                "revoked_users_refused" => tally.revoked_refused as i64,
                "revocation_honoured_ms" => oracle.revocation_ms_max as i64,
                "revocations_not_adopted" => oracle.revocations_not_adopted() as i64,
                "verdict_p50_ms" => tally.wait_ms(500) as i64,
                "verdict_max_ms" => tally.wait_ms_max as i64,
                "exposure_max_minor" => tally.exposure_max,
                "budget_minor" => bridge::budget_of_gateway(self.scenario) * self.shells.len() as i64,
                "charged_minor" => oracle.charged(),
                "overdraft_minor" => oracle.overdraft(&self.persons),
                "sessions_overcharged" => faults.overcharged,
                "sessions_undercharged" => faults.undercharged,
                "flow_without_hold" => faults.without_hold,
                "records" => records as i64,
                "records_foreign" => self.hub.foreign as i64,
                "records_quarantined" => self.hub.quarantined as i64,
                "records_waiting" => waiting as i64,
                "book_lines_differing" => differing,
                "sessions_open" => open as i64,
                "alarms" => tally.alarm_classes.values().sum::<u64>() as i64,
                "alarms_rejected" => class("ArtifactRejected"),
                "alarms_quarantined" => class("Quarantined"),
                "mode_changes" => tally.mode_changes as i64,
                "reconnects_a_minute_max" => tally.reconnects_a_minute_max as i64,
                "hub_peak_before_a_second" => peak(true),
                "hub_peak_after_a_second" => peak(false),
                "good_tokens_blamed" => self.good_tokens_blamed(),
                "list_entries" => list_entries as i64,
                "leavers_listed" => leavers_listed as i64,
                "lists_adopted" => oracle.lists_adopted as i64,
                other => unreachable!("{other} is a number that nobody computes"),
            }
        };
        super::report::NUMBERS
            .into_iter()
            .map(|name| (name, value(name)))
            .collect()
    }
}

fn row(slice: &Slice, clock_s: u64) -> Row {
    Row {
        from: when::clock(clock_s, slice.from_ms),
        cloud: slice.cloud.clone(),
        modes: slice.modes.clone(),
        served: slice.served,
        good_refused: slice.refused_good,
        refused: slice.refused,
        no_free_outlet: slice.no_free_outlet,
        verdict_p99_ms: slice.wait_ms(990),
        exposure_max_minor: slice.exposure_max,
        records_waiting: slice.outbox,
        negatives: slice.negatives,
        swallowed: slice.swallowed,
        throttled: slice.throttled,
        hub_peak_a_second: slice.hub_peak,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
