//! What clients are offered.

use super::{Topics, broker, client, frame_of, request};
use crate::codec::Writer;
use crate::request::api;
use crate::session::Session;

const ENTRIES: [(i64, i64, i64); 4] = [(0, 3, 99), (3, 0, 2), (1, 98, 99), (999, 0, 1)];

fn answer(compact: bool, entries: &[(i64, i64, i64)]) -> Vec<u8> {
    frame_of(|w: &mut Writer| {
        w.number(4, 7);
        w.number(2, 0);
        w.count(compact, entries.len());
        for &(key, min, max) in entries {
            for number in [key, min, max] {
                w.number(2, number);
            }
            if compact {
                w.varint(0);
            }
        }
        w.number(4, 0);
        if compact {
            // A tagged field that we know nothing of stays: features, of KIP-584.
            w.0.extend_from_slice(&[1, 0, 2, 0xAB, 0xCD]);
        }
    })
}

#[test]
fn no_newer_version_and_no_other_api_is_offered() {
    for (version, compact) in [(2, false), (4, true)] {
        let judge = Topics::new(&[]);
        let mut session = Session::default();
        client(
            &mut session,
            &judge,
            &request(api::API_VERSIONS, version, 7, |w| {
                if compact {
                    w.varint(0);
                    w.text(true, Some("test"));
                    w.text(true, Some("1"));
                    w.varint(0);
                }
            }),
        );
        let out = broker(&mut session, &judge, &answer(compact, &ENTRIES));
        assert_eq!(out.to_client, answer(compact, &[(0, 3, 13), (3, 0, 2)]), "version {version}");
    }
}

#[test]
fn a_version_that_we_do_not_know_is_answered_as_a_broker_would() {
    let judge = Topics::new(&[]);
    let mut session = Session::default();
    let asked = request(api::API_VERSIONS, 77, 9, |w| w.number(8, -1));
    let out = client(&mut session, &judge, &asked);
    assert!(out.to_broker.is_empty() && !out.not_protocol);
    let wanted = frame_of(|w| {
        w.number(4, 9);
        w.number(2, 35);
        w.count(false, 1);
        for number in [18, 0, 4] {
            w.number(2, number);
        }
    });
    assert_eq!(out.to_client, wanted);
}

#[test]
fn an_old_brokers_refusal_passes() {
    let judge = Topics::new(&[]);
    let mut session = Session::default();
    client(&mut session, &judge, &request(api::API_VERSIONS, 2, 7, |_| ()));
    let refusal = frame_of(|w| {
        w.number(4, 7);
        w.number(2, 35);
        w.count(false, 0);
    });
    assert_eq!(broker(&mut session, &judge, &refusal).to_client, refusal);
}
