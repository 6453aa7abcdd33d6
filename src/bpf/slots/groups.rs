//! Slots that are called the same are shown as one: the containers that one name has had, one after another; functions of
//! the same name in two modules. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Counters that can be added up.
pub trait Sum: Copy {
    /// Adds what another slot has counted.
    fn add(&mut self, other: &Self);
}

/// The names of slots, and what slots that went have left to others of their name: a sum must not fall.
#[derive(Debug)]
pub struct Groups<K, L, V> {
    /// By slot, until nothing is shown of it any more.
    names: Vec<Option<L>>,
    groups: HashMap<L, Group<K, V>>,
    generation: u64,
    named: usize,
    /// Groups to which something was left.
    heirs: usize,
}

#[derive(Debug)]
struct Group<K, V> {
    slots: Vec<u32>,
    left: Option<(K, V)>,
}

/// What is to be added to slots that stand for several, and which others are not shown.
#[derive(Debug)]
pub struct Sums<V> {
    extra: HashMap<u32, V>,
    hidden: HashSet<u32>,
}

impl<K, L, V> Default for Groups<K, L, V> {
    fn default() -> Self {
        Groups { names: Vec::new(), groups: HashMap::new(), generation: 0, named: 0, heirs: 0 }
    }
}

impl<K: Copy, L: Clone + Eq + Hash, V: Sum> Groups<K, L, V> {
    /// Gives every slot a name that has none; what gets none is not shown, and asked for again next time. With another `generation` than last time all of them are named anew, as are
    /// `retired` ones that are still shown with others, and what was left; that is forgotten whose name nobody has any more.
    pub fn name(
        &mut self,
        live: &[(u32, K)],
        retired: &[(u32, K)],
        generation: u64,
        mut name: impl FnMut(u32, &K) -> Option<L>,
    ) {
        let mut left = Vec::new();
        let mut also = Vec::new();
        if generation != self.generation {
            also = retired.iter().filter(|(slot, _)| self.of(*slot).is_some()).collect();
            left = self.groups.drain().filter_map(|(_, group)| group.left).collect();
            (self.generation, self.named, self.heirs) = (generation, 0, 0);
            self.names.clear();
        }
        for (slot, key) in live.iter().chain(also) {
            let index = *slot as usize;
            if self.names.len() <= index {
                self.names.resize_with(index + 1, || None);
            }
            if self.names[index].is_none()
                && let Some(name) = name(*slot, key)
            {
                let new = || Group { slots: Vec::new(), left: None };
                self.groups.entry(name.clone()).or_insert_with(new).slots.push(*slot);
                self.names[index] = Some(name);
                self.named += 1;
            }
        }
        for (key, value) in left {
            // Slot 0 leaves nothing: it stays.
            if let Some(group) = name(u32::MAX, &key).and_then(|name| self.groups.get_mut(&name)) {
                self.heirs += usize::from(group.left.is_none());
                group.inherit(key, &value);
            }
        }
    }

    /// The name of a slot that has got one.
    pub fn of(&self, slot: u32) -> Option<&L> {
        self.names.get(slot as usize)?.as_ref()
    }

    /// How to show `live` slots. What `retired` ones have counted, which are on their way out, is shown with them.
    pub fn sums<E>(&self, live: &[u32], retired: &[u32], read: impl Fn(u32) -> Result<V, E>) -> Result<Sums<V>, E> {
        let mut sums = Sums { extra: HashMap::new(), hidden: HashSet::new() };
        if self.groups.len() == self.named && self.heirs == 0 {
            return Ok(sums);
        }
        let mut first = HashMap::new();
        for &slot in live {
            let Some(name) = self.of(slot) else { continue };
            let group = &self.groups[name];
            if group.slots.len() == 1 && group.left.is_none() {
                continue;
            }
            if let Some(&shown) = first.get(name) {
                sums.more(shown, &read(slot)?);
                sums.hidden.insert(slot);
            } else {
                first.insert(name, slot);
                if let Some((_, left)) = &group.left {
                    sums.more(slot, left);
                }
            }
        }
        for &slot in retired {
            if let Some(&shown) = self.of(slot).and_then(|name| first.get(name)) {
                sums.more(shown, &read(slot)?);
            }
        }
        Ok(sums)
    }

    /// A slot was retired. If no slot of its name is in use any more, the name ends, and is given back with all that was
    /// counted under it.
    pub fn retire<E>(
        &mut self,
        slot: u32,
        retired: &[u32],
        read: impl Fn(u32) -> Result<V, E>,
    ) -> Result<Option<(L, V)>, E> {
        let Some(name) = self.of(slot).cloned() else { return Ok(None) };
        let group = &self.groups[&name];
        if !group.slots.iter().all(|other| *other == slot || retired.contains(other)) {
            return Ok(None);
        }
        let mut total = read(slot)?;
        for &other in group.slots.iter().filter(|other| **other != slot) {
            total.add(&read(other)?);
        }
        let group = self.groups.remove(&name).expect("it is there");
        for &slot in &group.slots {
            self.names[slot as usize] = None;
        }
        self.named -= group.slots.len();
        if let Some((_, left)) = group.left {
            self.heirs -= 1;
            total.add(&left);
        }
        Ok(Some((name, total)))
    }

    /// The slot is about to be recycled: what it has counted goes to the others of its name, if it still has one.
    pub fn leave(&mut self, slot: u32, key: K, value: &V) {
        let Some(name) = self.names.get_mut(slot as usize).and_then(Option::take) else { return };
        self.named -= 1;
        let Some(group) = self.groups.get_mut(&name) else { return };
        group.slots.retain(|other| *other != slot);
        self.heirs += usize::from(group.left.is_none());
        group.inherit(key, value);
    }
}

impl<K, V: Sum> Group<K, V> {
    fn inherit(&mut self, key: K, value: &V) {
        match &mut self.left {
            Some((_, left)) => left.add(value),
            None => self.left = Some((key, *value)),
        }
    }
}

impl<V: Sum> Sums<V> {
    fn more(&mut self, slot: u32, value: &V) {
        self.extra.entry(slot).and_modify(|extra| extra.add(value)).or_insert(*value);
    }

    /// What is to be shown of a slot that has counted `value`.
    pub fn show(&self, slot: u32, mut value: V) -> Option<V> {
        if self.hidden.contains(&slot) {
            return None;
        }
        if let Some(extra) = self.extra.get(&slot) {
            value.add(extra);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    impl Sum for u64 {
        fn add(&mut self, other: &u64) {
            *self += other;
        }
    }

    type Slots<'a> = &'a [u32];

    fn read(slot: u32) -> Result<u64, Infallible> {
        Ok(10u64.pow(slot))
    }

    /// What is shown under each name.
    fn shown(groups: &Groups<u64, u64, u64>, live: Slots<'_>, retired: Slots<'_>) -> Vec<(u64, u64)> {
        let sums = groups.sums(live, retired, read).unwrap();
        let one = |&slot: &u32| Some((*groups.of(slot)?, sums.show(slot, read(slot).unwrap())?));
        live.iter().filter_map(one).collect()
    }

    #[test]
    fn slots_of_one_name_are_one_sum() {
        let mut groups = Groups::default();
        groups.name(&[(1, 7), (2, 8), (3, 7)], &[], 0, |_, key| Some(*key));
        assert_eq!(shown(&groups, &[1, 2, 3], &[]), [(7, 1010), (8, 100)]);
    }

    #[test]
    fn a_sum_does_not_fall_when_one_of_its_slots_goes() {
        let mut groups = Groups::default();
        groups.name(&[(1, 7), (2, 7)], &[], 0, |_, key| Some(*key));
        assert_eq!(groups.retire(1, &[], read).unwrap(), None);
        assert_eq!(shown(&groups, &[2], &[1]), [(7, 110)]);
        groups.leave(1, 7, &10);
        assert_eq!(shown(&groups, &[2], &[]), [(7, 110)]);
        // Somebody else has the slot now.
        groups.name(&[(1, 9), (2, 7)], &[], 0, |_, key| Some(*key));
        assert_eq!(shown(&groups, &[1, 2], &[]), [(9, 10), (7, 110)]);
        assert_eq!(groups.retire(2, &[], read).unwrap(), Some((7, 110)));
        assert_eq!(shown(&groups, &[1], &[2]), [(9, 10)]);
    }

    #[test]
    fn a_name_that_ended_starts_again_from_nothing() {
        let mut groups = Groups::default();
        groups.name(&[(1, 7), (2, 7)], &[], 0, |_, key| Some(*key));
        assert_eq!(groups.retire(1, &[], read).unwrap(), None);
        assert_eq!(groups.retire(2, &[1], read).unwrap(), Some((7, 110)));
        groups.name(&[(3, 7)], &[(1, 7), (2, 7)], 0, |_, key| Some(*key));
        assert_eq!(shown(&groups, &[3], &[1, 2]), [(7, 1000)]);
        groups.leave(1, 7, &10);
        groups.leave(2, 7, &100);
        assert_eq!(shown(&groups, &[3], &[]), [(7, 1000)]);
    }

    #[test]
    fn with_a_new_generation_everything_is_named_anew() {
        let mut groups = Groups::default();
        groups.name(&[(1, 7), (2, 7), (3, 8), (4, 8)], &[], 0, |_, key| Some(*key));
        groups.retire(1, &[], read).unwrap();
        groups.leave(1, 7, &10);
        groups.retire(4, &[], read).unwrap();
        let total = |groups: &Groups<_, _, _>| shown(groups, &[2, 3], &[4]).iter().map(|(_, sum)| sum).sum::<u64>();
        groups.name(&[(2, 7), (3, 8)], &[(4, 8)], 1, |_, _| Some(5));
        assert_eq!((shown(&groups, &[2, 3], &[4]), total(&groups)), (vec![(5, 11110)], 11110));
        groups.name(&[(2, 7), (3, 8)], &[(4, 8)], 2, |_, key| Some(*key));
        assert_eq!(total(&groups), 11110);
    }
}
