//! What the operator publishes, how it travels, and what becomes of it at the gateway.

use gateway_core::{Ignored, Input};
use proto::{
    artifact::{ArtifactError, Subject},
    id::Kind,
    trust::{ArtifactKind, TrustError},
};

use crate::{
    hub::{Mood, Wrong},
    issuer::{self, Content, Flaw, Signed},
    marks::Mark,
    world::{Next, World},
};

impl World {
    /// Something is published: from now on it may be adopted.
    pub(crate) fn announce(&mut self, content: &Content) {
        let (kind, revision) = identity(content);
        self.auditor.published(kind, revision);
    }

    /// What the gateway lacks, after its hello. Keys first: what follows is signed with them.
    pub(crate) fn send_artifacts(&mut self, mut ms: u64) {
        let trust = self.shell.gateway.trust();
        let (list, revocations, tariffs) = trust.revisions();
        let list_newest = trust.list_newest();
        let artifacts = [
            (self.hub.keys.clone(), 0, 0),
            (self.hub.revocations.clone(), revocations, 0),
            (self.hub.tariffs.clone(), tariffs, 0),
            (self.hub.policy.clone(), self.shell.gateway.policy_revision(), 0),
            (self.hub.list.clone(), list_newest, list),
        ];
        for (content, known, base) in artifacts {
            let Some(content) = content.filter(|content| identity(content).1 > known) else {
                continue;
            };
            ms += self.random.range(10, 500);
            self.send(&content, base, ms);
        }
    }

    /// Now and then a flawed copy comes first.
    fn send(&mut self, content: &Content, base: u64, ms: u64) {
        let flaws = [
            Flaw::Stranger,
            Flaw::Retired,
            Flaw::Damaged,
            Flaw::Miscounted,
            Flaw::Trailer,
        ];
        let flaw = self.random.pick(&flaws);
        let makes_sense = match flaw {
            Flaw::Retired => !self.hub.office.root_signs() && !matches!(content, Content::Keys(_)),
            Flaw::Miscounted | Flaw::Trailer => matches!(content, Content::List(..)),
            Flaw::None | Flaw::Stranger | Flaw::Damaged => true,
        };
        if !self.calm && makes_sense && self.random.chance(2_000) {
            let signed = self.hub.office.sign(content, 0, flaw, &mut self.random);
            self.after(ms, Next::ArtifactArrives(Box::new(signed)));
        }
        let signed = self.hub.office.sign(content, base, Flaw::None, &mut self.random);
        if !self.calm && self.random.chance(500) {
            // Somebody kept it, and plays it again when it is old.
            let later_ms = self.random.range(60_000, 3_600_000);
            self.after(later_ms, Next::ArtifactArrives(Box::new(signed.clone())));
        }
        self.after(ms + 1, Next::ArtifactArrives(Box::new(signed)));
    }

    pub(crate) fn artifact_arrives(&mut self, signed: &Signed) {
        if !self.cloud_link || !self.shell.is_up {
            return;
        }
        let before = self.shell.gateway.trust().clone();
        match issuer::verify(signed, &before) {
            Ok(input) => {
                // A key that is retired elsewhere is not retired here until the gateway hears of it.
                let not_heard = before.keys_epoch() < self.hub.office.epoch();
                let is_good = signed.flaw == Flaw::None || (signed.flaw == Flaw::Retired && not_heard);
                assert!(
                    is_good,
                    "a {} with flaw {:?} is believed",
                    signed.kind.word(),
                    signed.flaw
                );
                // The auditor knows what is durable; a set of keys may be about to be.
                if self.shell.staged() == 0 {
                    self.auditor.believed(signed.kind, &signed.signer);
                }
                self.ignored = None;
                self.put(&input);
                self.was_ignored(signed);
            }
            Err(error) => {
                let mark = match (signed.flaw, error) {
                    (Flaw::Stranger, _) => Mark::RejectedStranger,
                    (Flaw::Retired, _) => Mark::RejectedRetired,
                    (Flaw::Damaged, _) => Mark::RejectedDamaged,
                    (Flaw::Miscounted, _) => Mark::RejectedMiscounted,
                    (Flaw::Trailer, _) => Mark::RejectedTrailer,
                    // Its key came too late, or went too early; the next hello brings both again.
                    (Flaw::None, ArtifactError::Trust(TrustError::UnknownKey(_))) => Mark::KeysComeTooLate,
                    (Flaw::None, error) => panic!("a good {} is rejected: {error}", signed.kind.word()),
                };
                self.hit(mark);
                assert!(*self.shell.gateway.trust() == before, "an alarm and nothing else");
            }
        }
    }

    fn was_ignored(&mut self, signed: &Signed) {
        match self.ignored.take() {
            Some(Ignored::Stale(stale)) if stale.found < stale.active => self.hit(Mark::RejectedOlder),
            Some(Ignored::Aside { .. }) => self.hit(Mark::SetAsideAgain),
            Some(Ignored::Base { .. }) => {
                self.hit(Mark::ListBaseUnknown);
                // The shell asks for the whole list.
                let newest = self.hub.list.clone().filter(|list| identity(list).1 >= signed.revision);
                if let Some(list) = newest {
                    let ms = self.random.range(10, 500);
                    self.send(&list, 0, ms);
                }
            }
            Some(_) | None => {}
        }
    }

    /// An operator at the site: takes what was set aside, goes back, or leaves it.
    pub(crate) fn operator_looks_at_lists(&mut self) {
        let trust = self.shell.gateway.trust();
        let kind = match (trust.aside().is_some(), trust.tariffs_aside().is_some()) {
            (_, true) if self.random.below(2) == 0 => Some(ArtifactKind::Tariffs),
            (true, _) => Some(ArtifactKind::List),
            (false, _) => None,
        };
        match kind.filter(|_| self.random.chance(5_000)) {
            Some(kind) => self.put(&Input::Adopt { kind, revision: 0 }),
            None if self.random.chance(1_000) => self.put(&Input::RollBack(ArtifactKind::List)),
            None => {}
        }
    }

    /// The operator changes something, and publishes it.
    pub(crate) fn publish(&mut self) {
        let wall_s = self.now().wall_s;
        let one = self.random.below(self.cards.len() as u64) as usize;
        let other = self.random.below(self.cards.len() as u64) as usize;
        let leaves = self.random.chance(4_000) && self.hub.unlisted() < 4;
        let other = &mut self.hub.tokens[other];
        other.is_listed = !leaves;
        let revoked = self.hub.tokens.iter().filter(|token| token.is_revoked).count();
        let token = &mut self.hub.tokens[one];
        // The list that most gateways have: changes to it are sent to all of them.
        let base = self.hub.list.as_ref().map_or(0, |list| identity(list).1);
        let published = match self.random.below(12) {
            0 | 1 if revoked < 4 => {
                token.is_revoked = true;
                // The credential itself, or the one after it, so that a denial shows something newer.
                token.revision += self.random.below(2);
                self.hub.publish_revocations();
                self.hub.revocations.clone()
            }
            2 => {
                // Blocked or unblocked; the list follows some day.
                token.is_valid = !token.is_valid;
                token.revision += 1;
                None
            }
            3 => {
                // A new card for an old customer.
                token.is_revoked = false;
                token.is_valid = true;
                token.revision += 1;
                self.hub.publish_list(wall_s, Wrong::Nothing);
                self.hub.list.clone()
            }
            4 | 5 => {
                let kind = self.random.pick(&Kind::SERVED);
                self.hub.publish_tariffs(&[kind], &mut self.random);
                self.hub.tariffs.clone()
            }
            6 => {
                let wrong = self
                    .random
                    .pick(&[Wrong::CutShort, Wrong::CutShort, Wrong::Zeroed, Wrong::Empty]);
                self.hub.publish_list(wall_s, wrong);
                self.hub.list.clone()
            }
            7 => self.publish_rare(one),
            8 | 9 => {
                let limits = &self.shell.gateway.config().limits;
                self.hub.publish_policy(wall_s, limits, &mut self.random);
                self.hub.policy.clone()
            }
            _ => {
                self.hub.publish_list(wall_s, Wrong::Nothing);
                self.hub.list.clone()
            }
        };
        if let Some(content) = published {
            self.announce(&content);
            let ms = self.random.range(10, 2_000);
            if self.cloud_link && self.mood != Mood::Dark {
                self.send(&content, base, ms);
            }
        }
        self.sometime(self.climate.publish_ms, Next::Publish);
    }

    /// What an operator does once in a while: a new key, an end to an old one, to an account, to a device.
    fn publish_rare(&mut self, one: usize) -> Option<Content> {
        let subject = match self.random.below(8) {
            0..4 => {
                self.hub.rotate_keys();
                return self.hub.keys.clone();
            }
            4..6 => self.hub.office.retired().map(Subject::Key)?,
            6 if !self.calm => Subject::Account(self.hub.tokens[one].account),
            _ => {
                let at = self.random.below(self.twins.len() as u64 * 4) as usize;
                Subject::Device(self.twins.get(at)?.config.id)
            }
        };
        self.hub.revoke(subject);
        self.hub.revocations.clone()
    }
}

/// Kind and revision.
fn identity(content: &Content) -> (ArtifactKind, u64) {
    match content {
        Content::List(revision, _, _) => (ArtifactKind::List, *revision),
        Content::Revocations(set) => (ArtifactKind::Revocations, set.revision),
        Content::Tariffs(table) => (ArtifactKind::Tariffs, table.revision),
        Content::Policy(policy) => (ArtifactKind::Policy, policy.revision),
        Content::Keys(keys) => (ArtifactKind::Keys, keys.epoch),
    }
}
