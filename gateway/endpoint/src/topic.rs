//! Topic names and filters: what is valid, what matches, and the tree that finds the subscriptions of a topic.

use std::collections::HashMap;

/// True if `name` may be published to: not empty, within the limit, no wildcard, no NUL.
pub(crate) fn valid_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.bytes().any(|b| matches!(b, b'+' | b'#' | 0))
}

/// True if `filter` may be subscribed to: wildcards stand alone in their level, `#` only in the last one.
pub(crate) fn valid_filter(filter: &str, bytes_max: usize, levels_max: usize) -> bool {
    if filter.is_empty() || filter.len() > bytes_max || filter.contains('\0') {
        return false;
    }
    let levels = filter.split('/').count();
    levels <= levels_max
        && filter.split('/').enumerate().all(|(at, level)| match level {
            "+" => true,
            "#" => at + 1 == levels,
            _ => !level.contains(['+', '#']),
        })
}

/// True if `filter` matches `name`. A leading wildcard does not match a name that begins with `$`.
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// Children that are searched one by one; more are hashed. Below the level of the devices each node has one or two.
const FEW_MAX: usize = 8;

/// Subscriptions by filter, one node a level. `V` is kept per (filter, owner).
#[derive(Debug)]
pub(crate) struct Tree<V> {
    children: Children<V>,
    here: Vec<(u64, V)>,
}

impl<V> Default for Tree<V> {
    fn default() -> Tree<V> {
        Tree {
            children: Children::Few(Vec::new()),
            here: Vec::new(),
        }
    }
}

/// The nodes of the next level. An empty hash map of each device's nodes would be most of what the tree takes.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "every node would be as large as a hash map")]
enum Children<V> {
    Few(Vec<(Box<str>, Tree<V>)>),
    Many(Box<HashMap<Box<str>, Tree<V>>>),
}

impl<V> Children<V> {
    fn get(&self, level: &str) -> Option<&Tree<V>> {
        match self {
            Children::Few(few) => few.iter().find(|(name, _)| **name == *level).map(|(_, node)| node),
            Children::Many(many) => many.get(level),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Tree<V>> {
        match self {
            Children::Few(few) => few.iter_mut().find(|(name, _)| **name == *level).map(|(_, node)| node),
            Children::Many(many) => many.get_mut(level),
        }
    }

    /// Adds an empty node where there is none.
    fn add(&mut self, level: &str) {
        if let Children::Few(few) = self
            && few.len() == FEW_MAX
        {
            *self = Children::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Children::Few(few) => {
                few.reserve_exact(1);
                few.push((level.into(), Tree::default()));
            }
            Children::Many(many) => drop(many.insert(level.into(), Tree::default())),
        }
    }

    /// A tree that once held many clients gives their memory back.
    fn remove(&mut self, level: &str) {
        match self {
            Children::Few(few) => few.retain(|(name, _)| **name != *level),
            Children::Many(many) => {
                many.remove(level);
                if many.is_empty() {
                    *self = Children::Few(Vec::new());
                } else if many.capacity() > 64 && many.len() * 4 < many.capacity() {
                    many.shrink_to_fit();
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Children::Few(few) => few.is_empty(),
            Children::Many(many) => many.is_empty(),
        }
    }
}

impl<V> Tree<V> {
    /// Put the value of `owner` at `filter`; true if there was none.
    pub(crate) fn insert(&mut self, filter: &str, owner: u64, value: V) -> bool {
        let mut node = self;
        for level in filter.split('/') {
            if node.children.get(level).is_none() {
                node.children.add(level);
            }
            node = node.children.get_mut(level).expect("inserted above if it was missing");
        }
        match node.here.iter_mut().find(|(id, _)| *id == owner) {
            Some(entry) => {
                entry.1 = value;
                false
            }
            None => {
                if node.here.is_empty() {
                    node.here.reserve_exact(1); // A device's own filter has one subscriber.
                }
                node.here.push((owner, value));
                true
            }
        }
    }

    /// The value of `owner` at `filter`.
    pub(crate) fn get_mut(&mut self, filter: &str, owner: u64) -> Option<&mut V> {
        let mut node = self;
        for level in filter.split('/') {
            node = node.children.get_mut(level)?;
        }
        node.here
            .iter_mut()
            .find(|(id, _)| *id == owner)
            .map(|(_, value)| value)
    }

    /// Take the value of `owner` from `filter`; true if there was one. Nodes left empty go.
    pub(crate) fn remove(&mut self, filter: &str, owner: u64) -> bool {
        let (level, rest) = match filter.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (filter, None),
        };
        let Some(child) = self.children.get_mut(level) else {
            return false;
        };
        let removed = match rest {
            Some(rest) => child.remove(rest, owner),
            None => {
                let before = child.here.len();
                child.here.retain(|(id, _)| *id != owner);
                child.here.len() < before
            }
        };
        if child.here.is_empty() && child.children.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    /// Call `found` with every value whose filter matches `name`.
    pub(crate) fn for_each_match<'a>(&'a self, name: &str, found: &mut impl FnMut(u64, &'a V)) {
        self.walk(Some(name), name.starts_with('$'), found);
    }

    /// `rest` is what follows this node's level; `dollar` is true at the root of a name that begins with `$`.
    fn walk<'a>(&'a self, rest: Option<&str>, dollar: bool, found: &mut impl FnMut(u64, &'a V)) {
        let mut visit_here = |node: &'a Tree<V>| node.here.iter().for_each(|(id, value)| found(*id, value));
        if !dollar && let Some(hash) = self.children.get("#") {
            visit_here(hash);
        }
        let Some(rest) = rest else {
            visit_here(self);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(level) {
            child.walk(rest, false, found);
        }
        if !dollar && let Some(child) = self.children.get("+") {
            child.walk(rest, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 40;
    const LEVELS_MAX: usize = 5;

    #[test]
    fn filters_and_names_are_checked() {
        for (filter, valid) in [
            ("a", true),
            ("/", true),
            ("a/+/#", true),
            ("#", true),
            ("+", true),
            ("$share/x/y", true),
            ("", false),
            ("a#", false),
            ("a/#/b", false),
            ("a+/b", false),
            ("a/b+", false),
            ("a\0b", false),
            ("1/2/3/4/5", true),
            ("1/2/3/4/5/6", false),
            ("0123456789012345678901234567890123456789", true),
            ("01234567890123456789012345678901234567890", false),
        ] {
            assert_eq!(valid_filter(filter, BYTES_MAX, LEVELS_MAX), valid, "{filter:?}");
        }
        for (name, valid) in [
            ("a/b", true),
            ("/", true),
            ("", false),
            ("a/+", false),
            ("#", false),
            ("a\0", false),
        ] {
            assert_eq!(valid_name(name, BYTES_MAX), valid, "{name:?}");
        }
    }

    #[test]
    fn tree_and_single_filter_agree_with_the_standard() {
        for (filter, name, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "/", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("+/b/#", "a/b", true),
            ("+/b/#", "a/c", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("a/$x", "a/$x", true),
            ("a/+", "a/$x", true),
        ] {
            let mut tree = Tree::default();
            assert!(tree.insert(filter, 1, ()));
            let mut found = 0;
            tree.for_each_match(name, &mut |_, ()| found += 1);
            assert_eq!(found == 1, expected, "tree: {filter} against {name}");
            assert_eq!(matches(filter, name), expected, "{filter} against {name}");
            assert!(tree.remove(filter, 1));
            assert!(tree.children.is_empty(), "{filter} left a node behind");
        }
    }

    #[test]
    fn few_children_and_many_are_found_alike_and_leave_nothing_behind() {
        let mut tree = Tree::default();
        let names: Vec<String> = (0..20 * FEW_MAX).map(|n| format!("a/{n}/b")).collect();
        let found = |tree: &Tree<usize>, name: &str| {
            let mut found = Vec::new();
            tree.for_each_match(name, &mut |_, value| found.push(*value));
            found
        };
        for (n, name) in names.iter().enumerate() {
            assert!(tree.insert(name, 1, n));
            assert!(!tree.insert(&names[0], 1, 0));
            assert_eq!(found(&tree, name), [n]);
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(found(&tree, name), [n]);
            assert!(tree.remove(name, 1) && !tree.remove(name, 1));
            assert!(found(&tree, name).is_empty());
            assert_eq!(tree.children.is_empty(), n + 1 == names.len());
        }
    }

    #[test]
    fn owners_share_a_filter_without_touching_each_other() {
        let mut tree = Tree::default();
        assert!(tree.insert("a/+", 1, "first"));
        assert!(!tree.insert("a/+", 1, "again"));
        assert!(tree.insert("a/+", 2, "other"));
        assert!(!tree.remove("a/b", 1));
        assert!(tree.remove("a/+", 1));
        let mut found = Vec::new();
        tree.for_each_match("a/b", &mut |owner, value| found.push((owner, *value)));
        assert_eq!(found, [(2, "other")]);
    }
}
