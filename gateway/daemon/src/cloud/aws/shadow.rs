//! The named shadow: the operator writes which artifacts are newest, we write which we have. It points and nothing more:
//! what it points at comes signed, from the hub.
//!
//! What was queued while we were away may be older than what is there, so the document is fetched first, and of changes
//! only those count that are newer than it. Of our own writes only those that rest on the newest version are taken.

use std::collections::BTreeMap;

use carrier::Class;
use proto::{link::LinkHello, trust::ArtifactKind};
use serde::{Deserialize, Serialize};

use super::words::{Code, ErrorDocument, Pending, Turn, class};
use crate::cloud::adapter::Heard;

/// Where it lies, behind the thing.
pub(super) const PLACE: &str = "shadow/name/holdfast/";
/// What is subscribed, behind the thing.
pub(super) const FILTERS: [&str; 6] = [
    "shadow/name/holdfast/get/accepted",
    "shadow/name/holdfast/get/rejected",
    "shadow/name/holdfast/update/accepted",
    "shadow/name/holdfast/update/rejected",
    "shadow/name/holdfast/update/delta",
    "shadow/name/holdfast/delete/accepted",
];
/// The code of a shadow that is not there.
const CODE_ABSENT: u16 = 404;
/// The code of a write that rests on an older version.
const CODE_CONFLICT: u16 = 409;
/// What an operator may point at.
const KINDS: [ArtifactKind; 7] = [
    ArtifactKind::List,
    ArtifactKind::Revocations,
    ArtifactKind::Tariffs,
    ArtifactKind::Policy,
    ArtifactKind::Lease,
    ArtifactKind::Firmware,
    ArtifactKind::Keys,
];

/// Revisions by the word of their kind.
type Revisions = BTreeMap<String, u64>;

/// The shadow as we know it.
#[derive(Debug)]
pub(super) struct Shadow {
    prefix: String,
    /// The newest version seen on this connection; 0: there is none. `None`: not fetched yet.
    version: Option<u64>,
    /// What our last hello said.
    applied: Revisions,
    /// What the document says that we have.
    reported: Revisions,
    /// What we said hello for: the same pointer makes no second one.
    pointed: Revisions,
    get: Pending,
    update: Pending,
    /// What the update on its way reports.
    sent: Revisions,
    /// The cloud does not understand our updates: none until the next connection.
    is_refused: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    state: State,
    version: u64,
    client_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct State {
    desired: Option<Section>,
    reported: Option<Section>,
}

#[derive(Default, Deserialize)]
struct Section {
    artifacts: Option<Revisions>,
}

#[derive(Deserialize)]
struct Delta {
    version: u64,
    #[serde(default)]
    state: Section,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    client_token: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    state: Reported<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    client_token: String,
}

#[derive(Serialize)]
struct Reported<'a> {
    reported: Artifacts<'a>,
}

#[derive(Serialize)]
struct Artifacts<'a> {
    artifacts: &'a Revisions,
}

impl Shadow {
    pub(super) fn new(thing: &str) -> Self {
        Self {
            prefix: format!("{thing}{PLACE}"),
            version: None,
            applied: Revisions::new(),
            reported: Revisions::new(),
            pointed: Revisions::new(),
            get: Pending::default(),
            update: Pending::default(),
            sent: Revisions::new(),
            is_refused: false,
        }
    }

    /// The connection before is over.
    pub(super) fn lost(&mut self) {
        self.version = None;
        self.applied.clear();
        self.pointed.clear();
        self.is_refused = false;
        self.get.lost();
        self.update.lost();
    }

    /// A connection stands.
    pub(super) fn connected(&mut self, turn: &mut Turn<'_>) {
        self.fetch(turn);
    }

    fn fetch(&mut self, turn: &mut Turn<'_>) {
        self.version = None;
        let topic = format!("{}get", self.prefix);
        self.get.ask(turn, topic, |client_token| Get { client_token });
    }

    /// A hello goes up, and says what we have.
    pub(super) fn applied(&mut self, turn: &mut Turn<'_>, hello: &LinkHello) {
        let revisions = [
            (ArtifactKind::List, hello.list_revision),
            (ArtifactKind::Revocations, hello.revocations_revision),
            (ArtifactKind::Tariffs, hello.tariffs_revision),
            (ArtifactKind::Policy, hello.policy_revision),
            (ArtifactKind::Lease, hello.leases_revision),
        ];
        let pairs = revisions.into_iter().filter(|(_, revision)| *revision > 0);
        self.applied = pairs
            .map(|(kind, revision)| (kind.word().to_owned(), revision))
            .collect();
        self.report(turn);
    }

    /// Writes what we have, if the document says otherwise and nothing is on its way.
    fn report(&mut self, turn: &mut Turn<'_>) {
        let Some(version) = self.version else {
            return;
        };
        let is_known = self.applied.is_empty() || self.applied == self.reported;
        // An update that failed is tried again in its own time.
        if is_known || self.is_refused || self.update.tick_at().is_some() {
            return;
        }
        self.sent = self.applied.clone();
        let state = Reported {
            reported: Artifacts { artifacts: &self.sent },
        };
        let topic = format!("{}update", self.prefix);
        self.update.ask(turn, topic, |client_token| Update {
            state,
            version: (version > 0).then_some(version),
            client_token,
        });
    }

    /// A message, by what stands behind the shadow's place.
    pub(super) fn heard(&mut self, turn: &mut Turn<'_>, about: &str, payload: &[u8]) {
        match about {
            "get/accepted" => {
                if let Some(document) = turn.read::<Document>("shadow/get", payload)
                    && self.get.is_answer(document.client_token.as_ref())
                {
                    self.get.went_well();
                    self.fetched(turn, document);
                }
            }
            "get/rejected" => {
                if let Some(error) = turn.read::<ErrorDocument>("shadow/get", payload)
                    && self.get.is_answer(error.client_token.as_ref())
                {
                    self.not_fetched(turn, &error);
                }
            }
            "update/accepted" => {
                if let Some(document) = turn.read::<Document>("shadow/update", payload) {
                    self.updated(turn, document);
                }
            }
            "update/rejected" => {
                if let Some(error) = turn.read::<ErrorDocument>("shadow/update", payload)
                    && self.update.is_answer(error.client_token.as_ref())
                {
                    self.not_updated(turn, &error);
                }
            }
            "update/delta" => {
                if let Some(delta) = turn.read::<Delta>("shadow/delta", payload)
                    && self.is_newer(delta.version)
                {
                    self.version = Some(delta.version);
                    self.point(turn, delta.state.artifacts);
                }
            }
            "delete/accepted" => self.fetch(turn),
            _ => turn.complain(format!("a message about the shadow that we do not know: {about}")),
        }
    }

    /// Before the document is here nothing is newer than it.
    fn is_newer(&self, version: u64) -> bool {
        self.version.is_some_and(|known| version > known)
    }

    fn fetched(&mut self, turn: &mut Turn<'_>, document: Document) {
        self.version = Some(document.version);
        let State { desired, reported } = document.state;
        self.reported = reported.and_then(|section| section.artifacts).unwrap_or_default();
        self.point(turn, desired.and_then(|section| section.artifacts));
        self.report(turn);
    }

    fn not_fetched(&mut self, turn: &mut Turn<'_>, error: &ErrorDocument) {
        if error.code == Code::Number(CODE_ABSENT) {
            self.get.went_well();
            self.version = Some(0);
            self.reported.clear();
            return self.report(turn);
        }
        error.say(turn, "shadow/get");
        self.get.failed(turn);
    }

    /// Somebody wrote: we, or the operator.
    fn updated(&mut self, turn: &mut Turn<'_>, document: Document) {
        let is_ours = self.update.is_answer(document.client_token.as_ref());
        if is_ours {
            self.update.went_well();
            self.reported = std::mem::take(&mut self.sent);
        }
        if self.is_newer(document.version) {
            self.version = Some(document.version);
            self.point(turn, document.state.desired.and_then(|section| section.artifacts));
        }
        if is_ours {
            self.report(turn);
        }
    }

    fn not_updated(&mut self, turn: &mut Turn<'_>, error: &ErrorDocument) {
        if error.code == Code::Number(CODE_CONFLICT) {
            // Somebody wrote meanwhile: the next try rests on what is there now, and comes later each time.
            self.update.failed(turn);
            return self.fetch(turn);
        }
        error.say(turn, "shadow/update");
        self.is_refused = class(&error.code).0 == Class::Protocol;
        if !self.is_refused {
            self.update.failed(turn);
        }
    }

    /// The operator says which artifacts are newest.
    fn point(&mut self, turn: &mut Turn<'_>, desired: Option<Revisions>) {
        let desired = desired.unwrap_or_default();
        let mut is_newer = false;
        for kind in KINDS {
            let Some(revision) = desired.get(kind.word()).copied() else {
                continue;
            };
            let known = self.applied.get(kind.word()).max(self.pointed.get(kind.word()));
            if revision > known.copied().unwrap_or(0) {
                is_newer = true;
                self.pointed.insert(kind.word().to_owned(), revision);
            }
        }
        if let Some(kind) = desired
            .keys()
            .find(|kind| !KINDS.iter().any(|known| known.word() == *kind))
        {
            turn.complain(format!("the shadow points at {kind:?}, which is no kind of artifact"));
        }
        if is_newer {
            turn.out.say(Heard::Newer);
        }
    }

    /// When something is due.
    pub(super) fn tick_at(&self) -> Option<u64> {
        self.get.tick_at().into_iter().chain(self.update.tick_at()).min()
    }

    /// Time passed.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.get.is_due(turn, "shadow/get") {
            self.fetch(turn);
        }
        if self.update.is_due(turn, "shadow/update") {
            self.update.lost();
            self.report(turn);
        }
    }
}
