//! A connection, request by request: what they share.

mod denials;
mod fetching;
mod properties;
mod requests;
mod versions;

use std::cell::{Cell, RefCell};

use crate::codec::Writer;
use crate::request::{Request, api};
use crate::ruling::{Judge, Question};
use crate::session::{Actions, Session};

/// Allows these topics, and every request without one.
struct Topics {
    allowed: RefCell<Vec<&'static str>>,
    generation: Cell<u64>,
    codes: RefCell<Vec<i16>>,
}

impl Topics {
    fn new(allowed: &[&'static str]) -> Self {
        Self {
            allowed: RefCell::new(allowed.to_vec()),
            generation: Cell::new(1),
            codes: RefCell::default(),
        }
    }

    fn change(&self, allowed: &[&'static str]) {
        *self.allowed.borrow_mut() = allowed.to_vec();
        self.generation.set(self.generation.get() + 1);
    }
}

impl Judge for Topics {
    fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn allows(&self, question: &Question) -> bool {
        question.topic.is_none_or(|topic| self.allowed.borrow().contains(&topic))
    }

    fn record(&self, _: &Request, _: &[String], error_code: i16) {
        self.codes.borrow_mut().push(error_code);
    }
}

fn frame_of(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.into_frame()
}

fn request(key: u16, version: u16, correlation: i64, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    frame_of(|w| {
        w.number(2, key.into());
        w.number(2, version.into());
        w.number(4, correlation);
        w.text(false, Some("test"));
        body(w);
    })
}

/// Produce v7 (not flexible) of one empty batch to partition 3.
fn produce(topic: &str, correlation: i64, acks: i64) -> Vec<u8> {
    request(api::PRODUCE, 7, correlation, |w| {
        w.text(false, None);
        w.number(2, acks);
        w.number(4, 1000);
        w.count(false, 1);
        w.text(false, Some(topic));
        w.count(false, 1);
        w.number(4, 3);
        w.no_bytes(false);
    })
}

fn response(correlation: i64, body: &[u8]) -> Vec<u8> {
    frame_of(|w| {
        w.number(4, correlation);
        w.0.extend_from_slice(body);
    })
}

fn client(session: &mut Session, judge: &Topics, bytes: &[u8]) -> Actions {
    let mut out = Actions::default();
    session.on_client(bytes, judge, &mut out);
    out
}

fn broker(session: &mut Session, judge: &Topics, bytes: &[u8]) -> Actions {
    let mut out = Actions::default();
    session.on_broker(bytes, judge, &mut out);
    out
}
