//! A small memory of answers with an age limit. Never of what an identity is linked to: that is read afresh.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many answers are kept at most.
const KEPT: usize = 10_000;

#[derive(Debug)]
pub(super) struct Memory<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(super) fn recall(&self, key: &K) -> Option<V> {
        let entries = self.entries();
        let (until, value) = entries.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    pub(super) fn keep(&self, key: K, value: V, ttl: Duration) {
        let now = Instant::now();
        let mut entries = self.entries();
        if entries.len() >= KEPT {
            entries.retain(|_, (until, _)| now < *until);
        }
        if entries.len() >= KEPT {
            entries.clear();
        }
        entries.insert(key, (now + ttl, value));
    }

    pub(super) fn forget(&self, key: &K) {
        self.entries().remove(key);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_recalled_until_its_time_is_over_or_it_is_forgotten() {
        let memory = Memory::default();
        memory.keep("a", 1, Duration::from_secs(30));
        memory.keep("b", 2, Duration::from_secs(60));
        assert_eq!((memory.recall(&"a"), memory.recall(&"b"), memory.recall(&"c")), (Some(1), Some(2), None));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!((memory.recall(&"a"), memory.recall(&"b")), (None, Some(2)));
        memory.forget(&"b");
        assert_eq!(memory.recall(&"b"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_grow_without_end() {
        let memory = Memory::default();
        for key in 0..3 * KEPT {
            memory.keep(key, (), Duration::from_secs(60));
        }
        assert!(memory.entries().len() <= KEPT);
        assert_eq!(memory.recall(&(3 * KEPT - 1)), Some(()));
    }
}
