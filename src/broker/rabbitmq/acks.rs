//! Which acks to send for a set of tags: one with `multiple` for all that are done up to a tag, single ones for the rest.
//!
//! An ack with `multiple` covers every unacked message of its channel up to its tag. So it may only be used as far as
//! all of them are in the set; a message that somebody still works on must not go with it. Pure: no IO.

use std::collections::BTreeSet;

/// The acks that a set of tags needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// Ack this tag and every unacked one before it.
    pub(super) up_to: Option<u64>,
    /// Ack each of these alone.
    pub(super) single: Vec<u64>,
    /// How many tags weren't waiting for an ack.
    pub(super) unknown: usize,
}

/// Takes `tags` out of `unacked`, the tags of one channel that were handed out.
pub(super) fn plan(unacked: &mut BTreeSet<u64>, tags: impl IntoIterator<Item = u64>) -> Acks {
    let mut done = BTreeSet::new();
    let mut acks = Acks::default();
    for tag in tags {
        if unacked.remove(&tag) {
            done.insert(tag);
        } else {
            acks.unknown += 1;
        }
    }
    let oldest_at_work = unacked.first().copied().unwrap_or(u64::MAX);
    acks.single = done.split_off(&oldest_at_work).into_iter().collect();
    acks.up_to = done.last().copied();
    acks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn acks_cover_the_given_tags_and_no_others(
            unacked in proptest::collection::btree_set(1_u64..60, 0..40),
            tags in proptest::collection::vec(1_u64..70, 0..40),
        ) {
            let mut left = unacked.clone();
            let acks = plan(&mut left, tags.iter().copied());
            let covered: BTreeSet<u64> = unacked
                .iter()
                .copied()
                .filter(|tag| acks.up_to.is_some_and(|last| *tag <= last) || acks.single.contains(tag))
                .collect();
            let given: BTreeSet<u64> = tags.iter().copied().filter(|tag| unacked.contains(tag)).collect();
            prop_assert_eq!(&covered, &given);
            prop_assert_eq!(left, unacked.difference(&given).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(acks.unknown, tags.len() - given.len());
        }
    }

    #[test]
    fn a_run_from_the_oldest_on_is_one_ack() {
        let mut unacked = (1..=10).collect();
        assert_eq!(plan(&mut unacked, [3, 1, 2, 5]), Acks { up_to: Some(3), single: vec![5], unknown: 0 });
        assert_eq!(plan(&mut unacked, [3]), Acks { unknown: 1, ..Acks::default() });
    }
}
