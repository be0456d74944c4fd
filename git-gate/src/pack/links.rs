//! Which deltas stand on which entry, found again from the other side: for each base, what is built on it.

use std::sync::atomic::{AtomicBool, Ordering};

use gix_hash::ObjectId;

use super::index::NONE;

pub(super) struct Links {
    /// For each entry, the first delta that gives its distance; then, for each such delta, the next one.
    first: Vec<u32>,
    next: Vec<u32>,
    /// How many deltas stand on each entry, directly or not, as far as distances tell.
    weights: Vec<u32>,
    /// The deltas that give a name, sorted by it; and for the first of each name, whether an entry took them.
    named: Vec<(ObjectId, u32)>,
    taken: Vec<AtomicBool>,
}

impl Links {
    pub(super) fn new(bases: &[u32], mut named: Vec<(ObjectId, u32)>) -> Self {
        let mut first = vec![NONE; bases.len()];
        let mut next = vec![NONE; bases.len()];
        let mut weights = vec![0u32; bases.len()];
        // From the last to the first: a base is always before what stands on it, so weights are complete when they are
        // added, and each list comes out in the pack's order.
        for (entry, base) in bases.iter().enumerate().rev() {
            if *base != NONE {
                let base = *base as usize;
                next[entry] = first[base];
                first[base] = u32::try_from(entry).unwrap_or(NONE);
                weights[base] += weights[entry] + 1;
            }
        }
        named.sort_unstable();
        let taken = named.iter().map(|_| AtomicBool::new(false)).collect();
        Self { first, next, weights, named, taken }
    }

    /// What stands directly on `entry`, whose name is `id`, the one with the most on it first. A delta that gives a name
    /// is given out once, to whichever entry of that name asks first.
    pub(super) fn children(&self, entry: u32, id: &ObjectId) -> Vec<u32> {
        let mut children = Vec::new();
        let mut child = self.first[entry as usize];
        while child != NONE {
            children.push(child);
            child = self.next[child as usize];
        }
        let start = self.named.partition_point(|(name, _)| name < id);
        let group = self.named[start..].iter().take_while(|(name, _)| name == id);
        // All of a name are taken at once, so the mark on the first of them speaks for all: an agent can send a million
        // objects of one name and a million deltas on it.
        if self.taken.get(start).is_some_and(|taken| !taken.load(Ordering::Acquire))
            && self.named[start].0 == *id
            && !self.taken[start].swap(true, Ordering::AcqRel)
        {
            children.extend(group.map(|(_, child)| *child));
        }
        children.sort_by_key(|child| std::cmp::Reverse(self.weights[*child as usize]));
        children
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_with_the_heaviest_first_and_named_ones_once() {
        let name = |n| ObjectId::from_bytes_or_panic(&[n; 20]);
        // 1 and 2 stand on 0, 3 and 4 on 2; 5 and 6 name their bases.
        let links = Links::new(&[NONE, 0, 0, 2, 2, NONE, NONE], vec![(name(9), 5), (name(7), 6)]);
        assert_eq!(links.children(0, &name(1)), [2, 1]);
        assert_eq!(links.children(2, &name(7)), [3, 4, 6]);
        assert!(links.children(1, &name(7)).is_empty(), "6 has its base");
        assert_eq!(links.children(1, &name(9)), [5]);
    }
}
