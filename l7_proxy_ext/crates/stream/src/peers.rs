//! Who the addresses are that a sidecar meets: asked for when first met, kept until told otherwise.

use arc_swap::ArcSwap;
use foldhash::HashMap;
use sidegate_proto::v1;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a request waits to know its peer.
const PATIENCE: Duration = Duration::from_secs(1);

/// IPv4 is mapped into IPv6.
pub type Address = [u8; 16];

/// Who an address is.
#[derive(Clone, Debug)]
pub struct Peer {
    pub identity: u32,
    /// Of the certificate that it has to show, without scheme and trust domain; empty: no pod.
    pub spiffe_path: Box<str>,
}

pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// One writer, the stream's thread; readers never wait.
#[derive(Default)]
pub struct Peers {
    known: ArcSwap<HashMap<Address, Arc<Peer>>>,
    generation: AtomicU64,
    waiting: Mutex<HashMap<Address, Vec<(Instant, Wake)>>>,
    asked: Notify,
}

impl Peers {
    pub fn get(&self, address: &Address) -> Option<Arc<Peer>> {
        self.known.load().get(address).cloned()
    }

    /// Rises after each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for an address; `wake` is called when there is an answer, or none in time.
    pub fn ask(&self, address: Address, wake: Wake) {
        let mut waiting = self.waiting();
        // The answer may have come since the caller looked.
        if self.get(&address).is_some() {
            drop(waiting);
            return wake();
        }
        match waiting.entry(address) {
            Entry::Occupied(mut others) => others.get_mut().push((Instant::now(), wake)),
            Entry::Vacant(first) => {
                first.insert(vec![(Instant::now(), wake)]);
                self.asked.notify_one();
            }
        }
    }

    /// Waits until something is asked for.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// What requests wait for; `all`: what is known too, for an agent that has not been asked yet.
    pub(crate) fn questions(&self, all: bool) -> Vec<Vec<u8>> {
        let mut addresses: Vec<Address> = self.waiting().keys().copied().collect();
        if all {
            addresses.extend(self.known.load().keys());
        }
        addresses.into_iter().map(|address| address.to_vec()).collect()
    }

    pub(crate) fn learn(&self, peers: &[v1::Peer]) {
        if peers.is_empty() {
            return;
        }
        let mut known = HashMap::clone(&self.known.load());
        let mut answered = Vec::new();
        for peer in peers {
            let Ok(address) = Address::try_from(&*peer.address) else { continue };
            let spiffe_path = peer.spiffe_path.as_str().into();
            known.insert(address, Arc::new(Peer { identity: peer.identity, spiffe_path }));
            answered.push(address);
        }
        self.known.store(known.into());
        self.generation.fetch_add(1, Ordering::Release);
        let mut waiting = self.waiting();
        let wakes: Vec<_> = answered.iter().filter_map(|address| waiting.remove(address)).collect();
        drop(waiting);
        wakes.into_iter().flatten().for_each(|(_, wake)| wake());
    }

    /// Wakes those that have waited for long enough.
    pub(crate) fn expire(&self) {
        let mut expired = Vec::new();
        self.waiting().retain(|_, waiters| {
            for waiter in mem::take(waiters) {
                if waiter.0.elapsed() < PATIENCE {
                    waiters.push(waiter);
                } else {
                    expired.push(waiter.1);
                }
            }
            !waiters.is_empty()
        });
        expired.into_iter().for_each(|wake| wake());
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Address, Vec<(Instant, Wake)>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn told(address: Address, identity: u32) -> v1::Peer {
        v1::Peer { address: address.to_vec(), identity, ..Default::default() }
    }

    #[test]
    fn who_asks_is_woken_once_by_the_answer() {
        let (peers, woken) = (Peers::default(), Arc::new(AtomicU32::new(0)));
        let wake = || -> Wake {
            let woken = Arc::clone(&woken);
            Box::new(move || _ = woken.fetch_add(1, Ordering::Relaxed))
        };
        peers.ask([1; 16], wake());
        peers.ask([1; 16], wake());
        assert_eq!(peers.questions(false), [vec![1; 16]]);
        peers.learn(&[told([2; 16], 7)]);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        peers.learn(&[told([1; 16], 9)]);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert_eq!(peers.get(&[1; 16]).map(|peer| peer.identity), Some(9));
        peers.ask([1; 16], wake());
        assert_eq!(woken.load(Ordering::Relaxed), 3, "it is known already");
        assert_eq!(peers.questions(true).len(), 2, "a new agent is asked for all");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (peers, woken) = (Peers::default(), Arc::new(AtomicU32::new(0)));
        let also = Arc::clone(&woken);
        peers.ask([1; 16], Box::new(move || _ = also.fetch_add(1, Ordering::Relaxed)));
        peers.expire();
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        std::thread::sleep(PATIENCE);
        peers.expire();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(peers.questions(true).is_empty());
    }
}
