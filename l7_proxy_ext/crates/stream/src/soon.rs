//! Calls back in a moment, for what Envoy tells a filter of when it is asked, but not when it
//! happens.

use crate::peers::Wake;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Less than a handshake between nodes takes.
const MOMENT: Duration = Duration::from_millis(1);

#[derive(Default)]
pub struct Soon {
    waiting: Mutex<Vec<Wake>>,
    asked: Notify,
}

impl Soon {
    pub fn call(&self, wake: Wake) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
        self.asked.notify_one();
    }

    pub(crate) async fn run(&self) {
        loop {
            self.asked.notified().await;
            tokio::time::sleep(MOMENT).await;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let wakes = mem::take(&mut *waiting);
            drop(waiting);
            wakes.into_iter().for_each(|wake| wake());
        }
    }
}
