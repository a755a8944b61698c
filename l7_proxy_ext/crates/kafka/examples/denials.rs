//! Prints what is answered where everything is denied, for another implementation to read:
//! a line "<case> <api key> <version> <hex of the response, without its length>" each.

use sidegate_kafka::{Actions, Judge, Question, Request, Session, sample};

struct DenyAll;

impl Judge for DenyAll {
    fn generation(&self) -> u64 {
        1
    }

    fn allows(&self, _: &Question) -> bool {
        false
    }

    fn record(&self, _: &Request, _: &[String], _: i16) {}
}

const CORRELATION: i32 = 7;
const METADATA: u16 = 3;

/// The answer to a request with so many elements in its arrays; `known`: whether the broker knows
/// the topic ids that Sidegate asks it about.
fn denial(key: u16, version: u16, elements: usize, known: bool) -> Option<Vec<u8>> {
    let mut session = Session::default();
    let mut out = Actions::default();
    session.on_client(&sample::request(key, version, CORRELATION, elements)?, &DenyAll, &mut out);
    while let [_, _, _, _, k0, k1, v0, v1, c0, c1, c2, c3, ..] = *out.to_broker {
        let asked = u16::from_be_bytes([k0, k1]);
        let correlation = i32::from_be_bytes([c0, c1, c2, c3]);
        let ours = correlation != CORRELATION;
        let answer = sample::response(
            asked,
            u16::from_be_bytes([v0, v1]),
            correlation,
            if ours && known { elements } else { 0 },
        )?;
        assert_eq!(asked, METADATA, "API {key} version {version} reached the broker");
        out.to_broker.clear();
        session.on_broker(&answer, &DenyAll, &mut out);
    }
    (!out.not_protocol && out.to_client.len() > 4).then(|| out.to_client.split_off(4))
}

fn main() {
    for (case, elements, known) in [("known", 2, true), ("unknown", 2, false), ("empty", 0, true)] {
        for (key, version) in sample::versions() {
            let Some(answer) = denial(key, version, elements, known) else {
                panic!("{case}: no answer to API {key} version {version}");
            };
            let hex: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{case} {key} {version} {hex}");
        }
    }
}
