//! The responses that a client waits for, in the order of its requests.

use std::collections::VecDeque;

use crate::deny::Codes;
use crate::request::Request;

/// What is kept of each request on its way, besides what it names.
const REQUEST_COST: usize = 128;

/// What becomes of the next response of the broker.
pub enum Expected {
    Pass,
    /// Of an API that is answered by topic: those that were denied are added. What fetches is held
    /// back if policy changes meanwhile.
    Topics {
        request: Box<Request>,
        denied: Codes,
        generation: u64,
    },
    Metadata {
        request: Box<Request>,
        denied: Codes,
    },
    /// To ApiVersions of this version.
    Versions(u16),
    /// Of our own question.
    Ours,
    /// Our answer, in its turn.
    Answer(Vec<u8>),
}

pub struct Turn {
    pub correlation_id: i32,
    pub expected: Expected,
    held: usize,
}

#[derive(Default)]
pub struct Turns {
    queue: VecDeque<Turn>,
    held: usize,
}

impl Turns {
    /// How many bytes are kept, about.
    pub fn held(&self) -> usize {
        self.held
    }

    pub fn front(&self) -> Option<&Turn> {
        self.queue.front()
    }

    /// `size` is of what is kept for it.
    pub fn push(&mut self, correlation_id: i32, size: usize, expected: Expected) {
        let held = size + REQUEST_COST;
        self.held += held;
        self.queue.push_back(Turn { correlation_id, expected, held });
    }

    /// Instead of the broker's, this answers the first request.
    pub fn answer_first(&mut self, correlation_id: i32, answer: Vec<u8>) {
        let held = answer.len();
        self.held += held;
        let expected = Expected::Answer(answer);
        self.queue.push_front(Turn { correlation_id, expected, held });
    }

    pub fn pop(&mut self) -> Option<Turn> {
        let turn = self.queue.pop_front()?;
        self.held -= turn.held;
        Some(turn)
    }
}
