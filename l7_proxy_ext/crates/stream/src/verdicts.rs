//! The log of verdicts: workers put them in and never wait, the stream's thread takes them out.

use foldhash::HashMap;
use foldhash::fast::RandomState;
use sidegate_proto::v1;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Equal allowed verdicts within this time are one record. Each record costs the agent as well, and
/// the first of its kind goes at once.
pub const MERGE_WINDOW: Duration = Duration::from_millis(500);
/// Merges that end within this time of each other go together.
const MERGE_SLACK: Duration = Duration::from_millis(50);
/// Records that a shard holds for a stream that does not take them.
const SHARD_RECORDS: usize = 8192;
/// Different verdicts that a shard merges at a time; more are logged one by one.
const SHARD_MERGES: usize = 2048;
const SHARDS: usize = 16;

/// A queue of verdict records, bounded; what does not fit is counted.
#[derive(Default)]
pub struct Verdicts {
    /// Each worker has one to itself, unless there are more workers than shards.
    shards: [Mutex<Shard>; SHARDS],
    lost: AtomicU64,
    waiting: AtomicBool,
    ready: Notify,
}

#[derive(Default)]
struct Shard {
    records: Vec<v1::VerdictRecord>,
    merges: HashMap<u64, Merge>,
}

/// Verdicts equal to one that has been sent already; `record.count` says how many.
struct Merge {
    since: Instant,
    record: v1::VerdictRecord,
}

/// What was ready, how much was lost, and when to look again though nothing comes.
pub(crate) struct Taken {
    pub records: Vec<v1::VerdictRecord>,
    pub lost: u64,
    pub due: Option<Instant>,
}

/// What makes an allowed verdict equal to another, in the order that its maker likes.
pub struct MergeKey(u64);

impl MergeKey {
    pub fn new(of: impl Hash) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self(STATE.hash_one(of))
    }
}

impl Verdicts {
    /// Logs a verdict that is never merged.
    pub fn push(&self, record: v1::VerdictRecord) {
        let mut shard = self.shard();
        self.store(&mut shard, record);
    }

    /// Logs an allowed verdict, as one with the others of equal `key` within [`MERGE_WINDOW`].
    /// `record` is called for the first of them only.
    pub fn merge(
        &self,
        key: MergeKey,
        latency_nanos: u64,
        record: impl FnOnce() -> v1::VerdictRecord,
    ) {
        let MergeKey(key) = key;
        let mut shard = self.shard();
        if let Some(merge) = shard.merges.get_mut(&key) {
            merge.record.count += 1;
            merge.record.latency_nanos = merge.record.latency_nanos.max(latency_nanos);
            return;
        }
        let record = record();
        if shard.merges.len() < SHARD_MERGES {
            let later = v1::VerdictRecord { count: 0, latency_nanos: 0, ..record.clone() };
            shard.merges.insert(key, Merge { since: Instant::now(), record: later });
        }
        self.store(&mut shard, record);
    }

    fn store(&self, shard: &mut Shard, record: v1::VerdictRecord) {
        if shard.records.len() < SHARD_RECORDS {
            shard.records.push(record);
        } else {
            self.lost.fetch_add(record.count.into(), Ordering::Relaxed);
        }
        // One wake-up for all that comes until the stream's thread has looked.
        if !self.waiting.swap(true, Ordering::AcqRel) {
            self.ready.notify_one();
        }
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        lock(&self.shards[MINE.with(|mine| *mine)])
    }

    /// Waits until something new comes, or a merge is `due`.
    pub(crate) async fn wait(&self, due: Option<Instant>) {
        match due {
            Some(due) => {
                let due = (due + MERGE_SLACK).into();
                _ = tokio::time::timeout_at(due, self.ready.notified()).await;
            }
            None => self.ready.notified().await,
        }
    }

    /// Takes what is ready; merges that have run their time are. `all`: those that have not too.
    pub(crate) fn take(&self, all: bool) -> Taken {
        self.waiting.store(false, Ordering::Release);
        let (mut taken, mut due) = (Vec::new(), None);
        let now = Instant::now();
        for shard in &self.shards {
            let mut shard = lock(shard);
            taken.append(&mut shard.records);
            shard.merges.retain(|_, merge| {
                let ends = merge.since + MERGE_WINDOW;
                let goes_on = merge.record.count > 0 || (now < ends && !all);
                if goes_on && (now >= ends || all) {
                    let next =
                        v1::VerdictRecord { count: 0, latency_nanos: 0, ..merge.record.clone() };
                    taken.push(mem::replace(&mut merge.record, next));
                    merge.since = now;
                }
                if goes_on {
                    due = earlier(due, merge.since + MERGE_WINDOW);
                }
                goes_on
            });
        }
        Taken { records: taken, lost: self.lost.swap(0, Ordering::Relaxed), due }
    }
}

fn earlier(due: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(due.map_or(other, |due| due.min(other)))
}

/// A worker that panicked left the shard as it was: nothing in it is half done.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(latency_nanos: u64) -> v1::VerdictRecord {
        v1::VerdictRecord { count: 1, latency_nanos, ..Default::default() }
    }

    fn counts(verdicts: &Verdicts, all: bool) -> Vec<(u32, u64)> {
        let taken = verdicts.take(all);
        taken.records.iter().map(|record| (record.count, record.latency_nanos)).collect()
    }

    #[test]
    fn the_first_at_once_the_rest_as_one() {
        let verdicts = Verdicts::default();
        for latency in [5, 9, 7] {
            verdicts.merge(MergeKey::new("same"), latency, || record(latency));
        }
        verdicts.merge(MergeKey::new("other"), 1, || record(1));
        assert_eq!(counts(&verdicts, false), [(1, 5), (1, 1)]);
        assert_eq!(counts(&verdicts, false), []);
        assert_eq!(counts(&verdicts, true), [(2, 9)]);
        verdicts.merge(MergeKey::new("same"), 4, || record(4));
        assert_eq!(counts(&verdicts, false), [], "a stream of equal ones stays merged");
        std::thread::sleep(MERGE_WINDOW);
        assert_eq!(counts(&verdicts, false), [(1, 4)]);
        std::thread::sleep(MERGE_WINDOW);
        assert_eq!(counts(&verdicts, false), []);
        verdicts.merge(MergeKey::new("same"), 3, || record(3));
        assert_eq!(counts(&verdicts, false), [(1, 3)], "after a pause the first goes at once");
    }

    #[test]
    fn too_many_are_counted() {
        let verdicts = Verdicts::default();
        for _ in 0..SHARD_RECORDS + 3 {
            verdicts.push(record(0));
        }
        let taken = verdicts.take(false);
        assert_eq!((taken.records.len(), taken.lost), (SHARD_RECORDS, 3));
        assert_eq!(verdicts.take(false).lost, 0);
    }
}
