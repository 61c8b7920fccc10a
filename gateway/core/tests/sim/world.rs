//! Everything that exists in the simulation, and the queue of what happens next, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use device::{RecordKey, Screen};
use gateway_core::{Config, Ignored, Input, Now, config::DeviceConfig};
use proto::{
    artifact::Whitelist,
    id::{DeviceId, IdToken, Kind, SessionId, TokenKind},
    link::{Ask, LedgerReceipt, OrderDone},
    message::ClockQuality,
    seal::PairSecret,
};

use crate::{
    auditor::Auditor,
    codes::{self, Apps},
    hub::{Hub, Mood, Token},
    instruments::Shop,
    issuer::Signed,
    marks::{Mark, Marks},
    orders::Desk,
    outlet::Physical,
    random::Random,
    shell::{Frame, Shell, TOKEN_KEY},
};

pub(crate) const SECOND_MS: u64 = 1_000;
pub(crate) const MINUTE_MS: u64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: u64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
/// 2026-01-15 12:00 UTC: where virtual time begins.
const BEGIN_WALL_S: u64 = 1_768_478_400;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    GatewayWake { generation: u32 },
    Commit,
    Restart,
    FrameUp(Frame),
    FrameDown { to: usize, frame: Frame },
    DeviceWake { at: usize, generation: u32 },
    PowerOn { at: usize },
    LinkCut { at: usize },
    Storm,
    LinkTry { at: usize },
    AskArrives(Ask),
    BackendAsked(Box<Input>),
    CloudSays(Box<Input>),
    ArtifactArrives(Box<Signed>),
    UploadDue,
    UploadArrives { first: u64, records: Vec<Vec<u8>> },
    ReceiptArrives(LedgerReceipt),
    HelloArrives,
    OrderOver { id: u64 },
    DoneArrives(OrderDone),
    CloudLink,
    Mood,
    Publish,
    HubBackup,
    Clock,
    Disk,
    Operator,
    Snapshot,
    Arrival,
    Visit { at: usize, outlet: usize, number: u32 },
}

struct Scheduled {
    at_ms: u64,
    order: u64,
    next: Next,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.order) == (other.at_ms, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// How hostile the world is, in ten-thousandths where not said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Climate {
    pub(crate) frame_lost: u32,
    pub(crate) frame_twice: u32,
    pub(crate) frame_overtaken: u32,
    pub(crate) frame_replayed: u32,
    /// Longest delay of a frame, in ms.
    pub(crate) delay_ms: u64,
    /// Of each effect of a device.
    pub(crate) power_cut: u32,
    /// Of each decision.
    pub(crate) crash: u32,
    pub(crate) append_fails: u32,
    /// How long decisions wait for a common flush, in ms; 0: each is flushed at once.
    pub(crate) commit_ms: u64,
    /// Mean times between events, in ms; 0: never.
    pub(crate) mood_ms: u64,
    pub(crate) link_cut_ms: u64,
    pub(crate) cloud_link_ms: u64,
    pub(crate) hub_backup_ms: u64,
    pub(crate) clock_ms: u64,
    pub(crate) publish_ms: u64,
    pub(crate) arrival_ms: u64,
    pub(crate) operator_ms: u64,
    pub(crate) disk_ms: u64,
    pub(crate) snapshot_ms: u64,
}

/// One person at one outlet.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) token: usize,
    pub(crate) number: u32,
    pub(crate) since_ms: u64,
    pub(crate) attempts: u32,
    /// When he stops by himself; in ms.
    pub(crate) stops_at_ms: u64,
    /// Whether he does his part: plugs in, opens the tap, presses start.
    pub(crate) acts: bool,
    pub(crate) acted: bool,
    /// What he presents instead of his card, by its place among what was sold.
    pub(crate) instrument: Option<usize>,
}

/// One outlet: physics, the session that its device has open, and its visitor.
pub(crate) struct Place {
    pub(crate) physical: Physical,
    pub(crate) session: Option<SessionId>,
    pub(crate) screen: Screen,
    pub(crate) visit: Option<Visit>,
}

/// One device: the real code, its flash, its place in the network.
pub(crate) struct Twin {
    pub(crate) config: device::Config,
    pub(crate) device: Option<device::Device>,
    pub(crate) flash: BTreeMap<RecordKey, Vec<u8>>,
    pub(crate) booted_ms: u64,
    pub(crate) generation: u32,
    pub(crate) wakes_at_ms: u64,
    pub(crate) next_sense_ms: u64,
    pub(crate) places: Vec<Place>,
    pub(crate) has_link: bool,
    pub(crate) is_lost: bool,
    /// Arrival of the newest frame each way, so that frames keep their order unless one is overtaken.
    pub(crate) arrives_up_ms: u64,
    pub(crate) arrives_down_ms: u64,
    pub(crate) rejected: u32,
    pub(crate) ended_by_cut: Option<SessionId>,
}

pub(crate) struct World {
    pub(crate) t_ms: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    pub(crate) random: Random,
    pub(crate) climate: Climate,
    /// Faults are over: everything must come to rest.
    pub(crate) calm: bool,
    pub(crate) shell: Shell,
    pub(crate) gateway_generation: u32,
    pub(crate) gateway_wakes_ms: u64,
    pub(crate) commit_due: bool,
    pub(crate) twins: Vec<Twin>,
    pub(crate) cards: Vec<IdToken>,
    pub(crate) shop: Shop,
    pub(crate) apps: Apps,
    pub(crate) hub: Hub,
    pub(crate) mood: Mood,
    pub(crate) cloud_link: bool,
    pub(crate) upload_due: bool,
    pub(crate) wall_skew_s: i64,
    /// How much faster than it should the wall clock runs, in millionths.
    pub(crate) wall_drift_ppm: i64,
    pub(crate) quality: ClockQuality,
    pub(crate) visits: u32,
    pub(crate) desk: Desk,
    pub(crate) auditor: Auditor,
    pub(crate) marks: Marks,
    /// Why the last input changed nothing.
    pub(crate) ignored: Option<Ignored>,
    pub(crate) trace: bool,
}

const NAMES: [(&str, Kind, u8); 5] = [
    ("c1", Kind::Charger, 2),
    ("w1", Kind::Washer, 1),
    ("d1", Kind::Dispenser, 1),
    ("c2", Kind::Charger, 1),
    ("w2", Kind::Washer, 1),
];

impl World {
    pub(crate) fn new(climate: Climate, mut random: Random, limits: gateway_core::config::Limits) -> Self {
        let count = random.range(3, 6) as usize;
        let shop = Shop::new(BEGIN_WALL_S);
        let mut twins = Vec::new();
        let mut devices = BTreeMap::new();
        for &(name, kind, outlets) in &NAMES[..count] {
            let id = DeviceId::new(name).expect("a short name");
            devices.insert(
                id,
                DeviceConfig {
                    kind,
                    outlets,
                    car: name == "c2",
                },
            );
            let mut twin = twin(id, kind, outlets, &mut random);
            twin.config.instruments = shop.believed_by_device();
            twins.push(twin);
        }
        let configs: Vec<_> = twins.iter().map(|twin| twin.config.clone()).collect();
        let config = Config {
            devices,
            limits,
            offset_min: 480,
            gateway: None,
            instruments: shop.believed_by_gateway(&configs),
            ring: gateway_core::config::RingLimits::default(),
        };
        let (cards, tokens) = tokens(&mut random);
        let hub = Hub::new(tokens, &mut random);
        let mut auditor = Auditor::new(&config);
        auditor.enrol(codes::enrolled());
        Self {
            t_ms: 0,
            queue: BinaryHeap::new(),
            order: 0,
            climate,
            calm: false,
            auditor,
            shell: Shell::new(config, &configs),
            gateway_generation: 0,
            gateway_wakes_ms: u64::MAX,
            commit_due: false,
            twins,
            cards,
            shop,
            apps: Apps::default(),
            hub,
            mood: Mood::Healthy,
            cloud_link: false,
            upload_due: false,
            wall_skew_s: 0,
            wall_drift_ppm: 0,
            quality: ClockQuality::Synchronised,
            desk: Desk::default(),
            visits: 0,
            marks: Marks::new(),
            ignored: None,
            trace: false,
            random,
        }
    }

    pub(crate) fn after(&mut self, ms: u64, next: Next) {
        self.at(self.t_ms + ms, next);
    }

    pub(crate) fn at(&mut self, at_ms: u64, next: Next) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled {
            at_ms,
            order: self.order,
            next,
        }));
    }

    /// Something that comes again and again, after a mean time; never if that is zero or the faults are over.
    pub(crate) fn sometime(&mut self, mean_ms: u64, next: Next) {
        if mean_ms > 0 && !self.calm {
            let ms = self.random.range(mean_ms / 8 + 1, mean_ms * 2);
            self.after(ms, next);
        }
    }

    /// What happens next, if it does before `end_ms`.
    pub(crate) fn pop(&mut self, end_ms: u64) -> Option<Next> {
        if self.queue.peek()?.0.at_ms > end_ms {
            self.t_ms = end_ms;
            return None;
        }
        let Reverse(scheduled) = self.queue.pop()?;
        self.t_ms = scheduled.at_ms;
        Some(scheduled.next)
    }

    /// What time it is, in s since 1970 UTC.
    pub(crate) const fn true_wall_s(&self) -> u64 {
        BEGIN_WALL_S + self.t_ms / 1000
    }

    /// What the gateway's clocks say.
    pub(crate) fn now(&self) -> Now {
        let drift_s = (self.t_ms / 1000) as i64 * self.wall_drift_ppm / 1_000_000;
        let skew_s = self.wall_skew_s.saturating_add(drift_s);
        let wall_s = self.true_wall_s().saturating_add_signed(skew_s);
        let known = self.quality != ClockQuality::Unknown;
        Now {
            mono_ms: self.t_ms - self.shell.booted_ms,
            wall_s: if known { wall_s } else { 0 },
            quality: self.quality,
        }
    }

    pub(crate) fn hit(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }
}

fn twin(id: DeviceId, kind: Kind, outlets: u8, random: &mut Random) -> Twin {
    let mut secret = [9; 32];
    secret[..id.as_str().len()].copy_from_slice(id.as_str().as_bytes());
    let place = |random: &mut Random| Place {
        physical: Physical::new(kind, random.below(100_000)),
        session: None,
        screen: Screen::Free,
        visit: None,
    };
    let config = device::Config {
        site_key: Some(TOKEN_KEY),
        ..device::Config::new(id, kind, outlets, PairSecret(secret))
    };
    Twin {
        config,
        device: None,
        flash: BTreeMap::new(),
        booted_ms: 0,
        generation: 0,
        wakes_at_ms: u64::MAX,
        next_sense_ms: 0,
        places: (0..outlets).map(|_| place(random)).collect(),
        has_link: false,
        is_lost: false,
        arrives_up_ms: 0,
        arrives_down_ms: 0,
        rejected: 0,
        ended_by_cut: None,
    }
}

/// People who come here.
const PEOPLE: u8 = 20;
/// People who are in the list and never come: so many that one in twenty-odd may leave it without an alarm.
const NEIGHBOURS: u8 = 26;

/// The people: every whitelist policy, good and bad, known and unknown; two share an account.
fn tokens(random: &mut Random) -> (Vec<IdToken>, Vec<Token>) {
    let mut cards = Vec::new();
    let mut tokens = Vec::new();
    for i in 0..PEOPLE + NEIGHBOURS {
        let card = IdToken::new(TokenKind::Card, &[i, 1, 2, 3]).expect("four bytes");
        let policies = [
            Whitelist::Always,
            Whitelist::Allowed,
            Whitelist::AllowedOffline,
            Whitelist::AllowedOffline,
            Whitelist::Never,
        ];
        tokens.push(Token {
            hash: card.hash(&TOKEN_KEY),
            account: u64::from(i.max(1)),
            // Two families, and two caretakers.
            group: match i {
                0..4 => 1,
                4..7 => 2,
                18 | 19 => crate::hub::MASTERS,
                _ => 0,
            },
            is_stranger: i == 17,
            is_listed: !matches!(i, 15..=17),
            is_valid: i != 14,
            is_revoked: false,
            whitelist: random.pick(&policies),
            revision: random.range(1, 4),
        });
        if i < PEOPLE {
            cards.push(card);
        }
    }
    (cards, tokens)
}
