//! What a decision says it rested on must be what was the case: `why` has nothing else.

use gateway_core::{CloudWord, Grounds, Request, Rule};
use proto::artifact::Whitelist;
use proto::id::TokenHash;

use super::Auditor;
use crate::world::DAY_MS;

impl Auditor {
    /// Called before the decision is counted anywhere.
    pub(super) fn grounds(&mut self, t_ms: u64, request: &Request, grounds: &Grounds) {
        let token = request.token;
        assert_eq!(
            grounds.decision,
            self.decisions + 1,
            "decisions are numbered without a gap"
        );
        self.decisions = grounds.decision;
        assert_eq!(grounds.boot, self.boot, "the boot that decided");
        // An answer that changes the mode decides the request in the mode in which it was asked.
        let mode = self.modes.authorize();
        let turned = self.waiting.contains_key(&request.session) && grounds.mode == self.mode_before;
        assert!(grounds.mode == mode || turned, "{:?} in {:?}", grounds.mode, mode);
        // While the cloud is asked, the device may say more.
        let heard = self.counters[&request.device];
        let waits = self.waiting.contains_key(&request.session);
        assert!(
            request.counter == heard || (waits && request.counter < heard),
            "the request was heard"
        );
        assert_eq!(grounds.exposure.0, self.exposure(), "money at risk before");
        let tally = self
            .tallies
            .get(&(token, self.class_of(&request.device)))
            .copied()
            .unwrap_or_default();
        let said = (grounds.tally.count, grounds.tally.money.0);
        assert!(
            said == tally || turned,
            "the token's tally before is {tally:?}, not {said:?}"
        );
        let known = self
            .list
            .get(&token)
            .map(|entry| (entry.whitelist, entry.valid, entry.balance));
        let said = grounds
            .listed
            .map(|listed| (listed.policy, listed.valid, listed.balance));
        assert_eq!(said, known, "what the list says of the token");
        let since_ms = t_ms - self.list_adopted_ms;
        assert!(
            grounds.list_revision == 0 || (grounds.list_age_s * 1000).abs_diff(since_ms) <= 3 * DAY_MS + self.down_ms,
            "the list is {since_ms} ms old, not {} s",
            grounds.list_age_s
        );
        assert!(
            waits || grounds.cloud == CloudWord::NotAsked,
            "{:?} of a cloud that nobody asked",
            grounds.cloud
        );
    }

    /// Called when the cloud is asked; by the answer, another list may say otherwise of the token.
    pub(super) fn asked(&self, token: &TokenHash) {
        let policy = self.list.get(token).map(|entry| entry.whitelist);
        let asks = matches!(policy, None | Some(Whitelist::AllowedOffline | Whitelist::Never));
        assert!(asks, "its policy does not ask");
    }

    /// Whom the decision followed must be whom it names.
    pub(super) fn cloud_word(rule: Rule, grounds: &Grounds) {
        if rule == Rule::Cloud {
            assert_eq!(grounds.cloud, CloudWord::Accept, "granted on the cloud's word");
        } else {
            assert_ne!(
                grounds.cloud,
                CloudWord::Accept,
                "the cloud said yes and rule {rule:?} granted"
            );
        }
    }
}
