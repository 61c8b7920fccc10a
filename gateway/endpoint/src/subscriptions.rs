//! Who subscribed to what: single subscriptions, and shared ones of which one member gets each message.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::message::Qos;
use crate::session::Session;
use crate::topic::Tree;

/// What an MQTT 5 filter begins with that asks for a share of the messages.
const SHARE: &str = "$share/";
/// Set in the owner of a group's entry in the tree; sessions count from one and never get there.
const GROUP_BIT: u64 = 1 << 63;

/// A subscription of one session.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<Session>,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

/// True if the filter asks for a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE)
}

/// The share name and the filter behind it; `None` for an ordinary filter, or one that has no name or no filter.
pub(crate) fn shared(filter: &str) -> Option<(&str, &str)> {
    let (name, rest) = filter.strip_prefix(SHARE)?.split_once('/')?;
    (!name.is_empty() && !name.contains(['+', '#'])).then_some((name, rest))
}

#[derive(Debug)]
enum Entry {
    One(Subscriber),
    Group(Group),
}

/// The members of a shared subscription, served in turn.
#[derive(Debug, Default)]
struct Group {
    members: Vec<Subscriber>,
    next: Cell<usize>,
}

impl Group {
    /// Whose turn it is: the next one who is connected; if none is, the next one, for whom the message then waits.
    fn turn(&self) -> Option<&Subscriber> {
        let count = self.members.len();
        let first = self.next.get();
        let turns = (0..count).map(|step| (first + step) % count);
        let connected = turns
            .clone()
            .find(|at| self.members[*at].session.lock().mailbox.is_some());
        let at = connected.or_else(|| turns.clone().next())?;
        self.next.set((at + 1) % count);
        self.members.get(at)
    }
}

/// All subscriptions of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    tree: Tree<Entry>,
    /// Owners of the groups, by their whole filter, share name included.
    groups: HashMap<Box<str>, u64>,
    last_group: u64,
    count: usize,
}

impl Subscriptions {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Add a subscription, or replace the one this session has with the same filter.
    pub(crate) fn insert(&mut self, filter: &str, subscriber: Subscriber) {
        let Some((_, inner)) = shared(filter) else {
            let owner = subscriber.session.id;
            self.count += usize::from(self.tree.insert(filter, owner, Entry::One(subscriber)));
            return;
        };
        let owner = match self.groups.get(filter) {
            Some(owner) => *owner,
            None => {
                self.last_group += 1;
                let owner = GROUP_BIT | self.last_group;
                self.groups.insert(filter.into(), owner);
                self.tree.insert(inner, owner, Entry::Group(Group::default()));
                owner
            }
        };
        if let Some(Entry::Group(group)) = self.tree.get_mut(inner, owner) {
            let id = subscriber.session.id;
            match group.members.iter_mut().find(|member| member.session.id == id) {
                Some(member) => *member = subscriber,
                None => {
                    group.members.push(subscriber);
                    self.count += 1;
                }
            }
        }
    }

    /// Remove the subscription of a session; true if there was one.
    pub(crate) fn remove(&mut self, filter: &str, session_id: u64) -> bool {
        let removed = match shared(filter) {
            None => self.tree.remove(filter, session_id),
            Some((_, inner)) => self.remove_member(filter, inner, session_id),
        };
        self.count -= usize::from(removed);
        removed
    }

    fn remove_member(&mut self, filter: &str, inner: &str, session_id: u64) -> bool {
        let Some(owner) = self.groups.get(filter).copied() else {
            return false;
        };
        let Some(Entry::Group(group)) = self.tree.get_mut(inner, owner) else {
            return false;
        };
        let before = group.members.len();
        group.members.retain(|member| member.session.id != session_id);
        let removed = group.members.len() < before;
        group.next.set(0);
        if group.members.is_empty() {
            self.tree.remove(inner, owner);
            self.groups.remove(filter);
        }
        removed
    }

    /// Everybody who is to get a message to `name`, one chunk per delivery: the overlapping subscriptions of one session
    /// together, each shared subscription by itself. `publisher` is left out where it asked for that.
    pub(crate) fn matching(&self, name: &str, publisher: Option<u64>) -> Vec<(u64, &Subscriber)> {
        let mut matched = Vec::new();
        self.tree.for_each_match(name, &mut |owner, entry| match entry {
            Entry::One(subscriber) if subscriber.no_local && publisher == Some(owner) => {}
            Entry::One(subscriber) => matched.push((owner, subscriber)),
            Entry::Group(group) => matched.extend(group.turn().map(|subscriber| (owner, subscriber))),
        });
        matched.sort_by_key(|(owner, _)| *owner);
        matched
    }
}
