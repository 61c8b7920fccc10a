//! What is counted while a drill runs: rows of the table, refusals, waits, alarms, load.

use std::collections::{BTreeMap, BTreeSet};

use proto::id::{Kind, TokenHash};

use super::{
    oracle::{Judgement, Outcome, SESSION_MONEY_MAX},
    scenario::{HOUR_MS, Scenario, kind_index},
    world::Twin,
};

/// Rows of the table, at most: more are hard to read.
const ROWS_MAX: u64 = 26;
/// Alarms whose words are kept.
const ALARMS_MAX: usize = 200;
/// Waits beyond it are counted together, in ms.
const WAIT_MS_MAX: usize = 40_000;

/// One answer to one person.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) kind: Kind,
    pub(super) judgement: Judgement,
    pub(super) outcome: Outcome,
    pub(super) waited_ms: u64,
    pub(super) is_outage: bool,
    /// Revoked by a signature that the gateway has had for longer than it may take.
    pub(super) is_revoked: bool,
}

/// One row of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    pub(super) from_ms: u64,
    pub(super) cloud: String,
    pub(super) modes: String,
    pub(super) served: u64,
    pub(super) refused_good: u64,
    pub(super) refused: u64,
    pub(super) no_free_outlet: u64,
    pub(super) negatives: u64,
    pub(super) swallowed: u64,
    pub(super) throttled: u64,
    pub(super) exposure_max: i64,
    pub(super) outbox: u64,
    pub(super) hub_peak: u64,
    pub(super) waits_ms: Vec<u32>,
}

/// Sessions and money that another policy would have cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counterfactual {
    pub(super) sessions: u64,
    pub(super) money: i64,
}

/// All counters.
pub(super) struct Tally {
    pub(super) slice_ms: u64,
    pub(super) slices: Vec<Slice>,
    pub(super) slice: Slice,
    pub(super) served: u64,
    pub(super) served_in_outage: u64,
    pub(super) good_attempts: u64,
    pub(super) good_attempts_in_outage: u64,
    pub(super) good_refused: u64,
    pub(super) revoked_granted: u64,
    pub(super) revoked_refused: u64,
    pub(super) refusals: BTreeMap<&'static str, u64>,
    /// Refusals of people who are not good users within their limits, by what they are.
    pub(super) rightly_refused: BTreeMap<&'static str, u64>,
    /// How many waited so many ms.
    waits: Vec<u32>,
    pub(super) wait_ms_max: u64,
    pub(super) alarms: Vec<(u64, usize, String)>,
    pub(super) alarm_classes: BTreeMap<String, u64>,
    pub(super) mode_changes: u64,
    pub(super) frames_rejected: u64,
    pub(super) reconnects_a_minute_max: u64,
    pub(super) hub_peak: u64,
    pub(super) exposure_max: i64,
    pub(super) trust_evicted: u64,
    /// Tokens that the cloud spoke against.
    pub(super) blamed: BTreeSet<TokenHash>,
    /// Who would have been sent away by a site that needs the cloud: sessions that were served in the outage.
    pub(super) had_we_refused: Counterfactual,
    /// Who would have been served for nothing by a site that opens for everybody: refused in the outage.
    pub(super) had_we_trusted: Counterfactual,
    devices: BTreeMap<(usize, usize), Vec<usize>>,
}

impl Tally {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let hours = scenario.lasts_ms.div_ceil(HOUR_MS);
        let slice_ms = match hours {
            0..=2 => HOUR_MS / 4,
            3..=7 => HOUR_MS / 2,
            hours => hours.div_ceil(ROWS_MAX) * HOUR_MS,
        };
        Self {
            slice_ms,
            slices: Vec::new(),
            slice: Slice::default(),
            served: 0,
            served_in_outage: 0,
            good_attempts: 0,
            good_attempts_in_outage: 0,
            good_refused: 0,
            revoked_granted: 0,
            revoked_refused: 0,
            refusals: BTreeMap::new(),
            rightly_refused: BTreeMap::new(),
            waits: vec![0; WAIT_MS_MAX + 1],
            wait_ms_max: 0,
            alarms: Vec::new(),
            alarm_classes: BTreeMap::new(),
            mode_changes: 0,
            frames_rejected: 0,
            reconnects_a_minute_max: 0,
            hub_peak: 0,
            exposure_max: 0,
            trust_evicted: 0,
            blamed: BTreeSet::new(),
            had_we_refused: Counterfactual::default(),
            had_we_trusted: Counterfactual::default(),
            devices: BTreeMap::new(),
        }
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        let wait = (verdict.waited_ms as usize).min(WAIT_MS_MAX);
        self.waits[wait] += 1;
        self.slice.waits_ms.push(wait as u32);
        self.wait_ms_max = self.wait_ms_max.max(verdict.waited_ms);
        let is_good = verdict.judgement == Judgement::Good;
        self.good_attempts += u64::from(is_good);
        self.good_attempts_in_outage += u64::from(is_good && verdict.is_outage);
        let most = SESSION_MONEY_MAX[kind_index(verdict.kind)];
        if verdict.outcome == Outcome::Granted {
            self.served += 1;
            self.slice.served += 1;
            self.revoked_granted += u64::from(verdict.is_revoked);
            if verdict.is_outage {
                self.served_in_outage += 1;
                self.had_we_refused.sessions += 1;
            }
            return;
        }
        self.revoked_refused += u64::from(verdict.is_revoked);
        *self.refusals.entry(reason(verdict.outcome)).or_default() += 1;
        if is_good {
            self.good_refused += 1;
            self.slice.refused_good += 1;
            return;
        }
        self.slice.refused += 1;
        *self.rightly_refused.entry(who(verdict.judgement)).or_default() += 1;
        if verdict.is_outage {
            self.had_we_trusted.sessions += 1;
            self.had_we_trusted.money += most;
        }
    }

    pub(super) fn alarm(&mut self, at_ms: u64, gateway: usize, class: String, text: &str) {
        *self.alarm_classes.entry(class).or_default() += 1;
        if self.alarms.len() < ALARMS_MAX {
            self.alarms.push((at_ms, gateway, text.to_owned()));
        }
    }

    pub(super) fn blamed(&mut self, token: TokenHash) {
        self.blamed.insert(token);
    }

    pub(super) fn exposure(&mut self, exposure: i64) {
        self.exposure_max = self.exposure_max.max(exposure);
        self.slice.exposure_max = self.slice.exposure_max.max(exposure);
    }

    pub(super) fn hub_load(&mut self, a_second: u64) {
        self.hub_peak = self.hub_peak.max(a_second);
        self.slice.hub_peak = self.slice.hub_peak.max(a_second);
    }

    pub(super) fn connects(&mut self, a_minute: u64) {
        self.reconnects_a_minute_max = self.reconnects_a_minute_max.max(a_minute);
    }

    /// The devices of one kind at one gateway.
    pub(super) fn devices(&mut self, twins: &[Twin], gateway: usize, kind: Kind) -> &[usize] {
        self.devices.entry((gateway, kind_index(kind))).or_insert_with(|| {
            let own = |(at, twin): (usize, &Twin)| (twin.gateway == gateway && twin.config.kind == kind).then_some(at);
            twins.iter().enumerate().filter_map(own).collect()
        })
    }

    /// So many of a thousand waited no longer than this, in ms.
    pub(super) fn wait_ms(&self, thousandths: u64) -> u64 {
        let all: u64 = self.waits.iter().map(|n| u64::from(*n)).sum();
        let mut left = (all * thousandths).div_ceil(1_000);
        let at = self.waits.iter().position(|n| {
            let reached = u64::from(*n) >= left;
            left = left.saturating_sub(u64::from(*n));
            reached
        });
        at.unwrap_or(0) as u64
    }
}

impl Slice {
    /// As [`Tally::wait_ms`], of this row.
    pub(super) fn wait_ms(&self, thousandths: u64) -> u64 {
        let mut waits = self.waits_ms.clone();
        waits.sort_unstable();
        let at = (waits.len() as u64 * thousandths).div_ceil(1_000).saturating_sub(1);
        waits.get(at as usize).copied().unwrap_or(0).into()
    }
}

fn reason(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Granted => "granted",
        Outcome::Unavailable => "unavailable",
        Outcome::NoAnswer => "no_answer",
        Outcome::Refused(reason) => reason.word(),
    }
}

const fn who(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Good => "good",
        Judgement::Stranger => "stranger",
        Judgement::Invalid => "invalid",
        Judgement::Revoked => "revoked",
        Judgement::Never => "never",
        Judgement::Left => "left",
        Judgement::BeyondLimits => "beyond_limits",
        Judgement::BeyondBudget => "beyond_budget",
        Judgement::NoLease => "no_lease",
        Judgement::OldList => "old_list",
    }
}
