//! Verdicts of small policies, as tables.

use sidegate_policy::{Endpoint, HttpRequest, KafkaRequest, Peer};
use sidegate_proto::v1;
use std::borrow::Cow;
use v1::{Direction, Reason, Verdict};

const ALICE: u32 = 1001;
const BOB: u32 = 1002;

/// By its address alone.
fn plain(identity: u32) -> Peer {
    Peer { identity, authenticated: false }
}

struct Request<'a>(&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

impl HttpRequest for Request<'_> {
    fn method(&self) -> &[u8] {
        self.0.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.1.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.2.as_bytes()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.3.iter().find(|(key, _)| *key == name)?.1;
        Some(Cow::Borrowed(value.as_bytes()))
    }
}

fn http(rules: &[(&str, &str)]) -> Option<v1::port_rule::L7> {
    let rules = rules
        .iter()
        .map(|&(method, path)| v1::HttpRule {
            method: method.into(),
            path: path.into(),
            ..Default::default()
        })
        .collect();
    Some(v1::port_rule::L7::Http(v1::HttpRules { rules }))
}

fn rule(name: &str, port: u32, peers: &[u32], l7: Option<v1::port_rule::L7>) -> v1::PortRule {
    v1::PortRule {
        port,
        peers: peers.into(),
        any_peer: peers.is_empty(),
        rule: name.into(),
        l7,
        ..Default::default()
    }
}

fn ingress(rules: Vec<v1::PortRule>) -> v1::EndpointPolicy {
    v1::EndpointPolicy {
        endpoint_id: 7,
        revision: 3,
        ingress: Some(v1::DirectionPolicy { enforced: true, rules, ..Default::default() }),
        ..Default::default()
    }
}

fn get(endpoint: &Endpoint, peer: u32, port: u16, path: &str) -> (Verdict, Reason, String) {
    let decision =
        endpoint.http(Direction::Ingress, plain(peer), port, &Request("GET", path, "h", &[]));
    let rule = endpoint.rule(Direction::Ingress, &decision).unwrap_or_default().to_owned();
    (decision.verdict, decision.reason, rule)
}

#[test]
fn deny_wins_then_any_rule_allows() {
    let mut deny = rule("deny", 80, &[BOB], http(&[("", "/v1/secret")]));
    deny.deny = true;
    let endpoint = Endpoint::compile(&ingress(vec![
        rule("api", 80, &[], http(&[("GET", "/v1/.*"), ("POST", "/v1/orders")])),
        rule("l4", 8080, &[ALICE], None),
        v1::PortRule { end_port: 9010, ..rule("range", 9000, &[], http(&[("GET", "/")])) },
        rule("everywhere", 0, &[BOB], http(&[("GET", "/health")])),
        deny,
    ]))
    .unwrap();
    for (peer, port, path, verdict, reason, origin) in [
        (ALICE, 80, "/v1/orders", Verdict::Allowed, Reason::Rule, "api"),
        (ALICE, 80, "/v2/orders", Verdict::Denied, Reason::NoRule, ""),
        (ALICE, 80, "/v1/secret", Verdict::Allowed, Reason::Rule, "api"),
        (BOB, 80, "/v1/secret", Verdict::Denied, Reason::Rule, "deny"),
        (BOB, 80, "/v1/x/../secret", Verdict::Denied, Reason::Rule, "deny"),
        (BOB, 80, "/v1/%73ecret", Verdict::Denied, Reason::Rule, "deny"),
        (ALICE, 80, "/v1/../admin", Verdict::Denied, Reason::NoRule, ""),
        (ALICE, 80, "/v1/%2e%2e/admin", Verdict::Denied, Reason::NoRule, ""),
        (ALICE, 80, "/v1/a/../b", Verdict::Allowed, Reason::Rule, "api"),
        (ALICE, 8080, "/anything/../x", Verdict::Allowed, Reason::Rule, "l4"),
        (BOB, 8080, "/anything", Verdict::Denied, Reason::NoRule, ""),
        (ALICE, 9005, "/", Verdict::Allowed, Reason::Rule, "range"),
        (ALICE, 9011, "/", Verdict::Denied, Reason::NoRule, ""),
        (BOB, 443, "/health", Verdict::Allowed, Reason::Rule, "everywhere"),
        (ALICE, 443, "/health", Verdict::Denied, Reason::NoRule, ""),
    ] {
        let expected = (verdict, reason, origin.to_owned());
        assert_eq!(get(&endpoint, peer, port, path), expected, "{peer} {port} {path}");
    }
    let egress = endpoint.http(Direction::Egress, plain(ALICE), 80, &Request("GET", "/x", "", &[]));
    assert_eq!((egress.verdict, egress.reason), (Verdict::Allowed, Reason::NotEnforced));
}

#[test]
fn default_allow_passes_what_no_rule_is_about() {
    let mut deny = rule("deny", 8080, &[BOB], None);
    deny.deny = true;
    let mut policy = ingress(vec![rule("api", 80, &[ALICE], http(&[("GET", "/v1/.*")])), deny]);
    policy.ingress.as_mut().unwrap().default_allow = true;
    let endpoint = Endpoint::compile(&policy).unwrap();
    for (peer, port, path, verdict, reason) in [
        (ALICE, 80, "/v1/a", Verdict::Allowed, Reason::Rule),
        (ALICE, 80, "/x", Verdict::Denied, Reason::NoRule),
        (BOB, 80, "/x", Verdict::Allowed, Reason::NotEnforced),
        (ALICE, 443, "/x", Verdict::Allowed, Reason::NotEnforced),
        (BOB, 8080, "/v1/a", Verdict::Denied, Reason::Rule),
    ] {
        let (seen, why, _) = get(&endpoint, peer, port, path);
        assert_eq!((seen, why), (verdict, reason), "{peer} {port} {path}");
    }
}

#[test]
fn audit_passes_what_it_would_deny() {
    let mut policy = ingress(vec![rule("api", 80, &[], http(&[("GET", "/v1/.*")]))]);
    policy.ingress.as_mut().unwrap().audit = true;
    let endpoint = Endpoint::compile(&policy).unwrap();
    assert_eq!(get(&endpoint, ALICE, 80, "/v1/a"), (Verdict::Allowed, Reason::Rule, "api".into()));
    assert_eq!(get(&endpoint, ALICE, 80, "/x"), (Verdict::Audit, Reason::NoRule, String::new()));
    let slipped = get(&endpoint, ALICE, 80, "/v1/../x");
    assert_eq!(slipped, (Verdict::Audit, Reason::NoRule, String::new()));
}

#[test]
fn every_field_of_an_http_rule_must_match() {
    let http = v1::HttpRule {
        method: "PUT|PATCH".into(),
        path: "/v1/.*".into(),
        host: r"shop\.example\.com(:\d+)?".into(),
        headers: vec![
            v1::HeaderMatch { name: "x-team".into(), has_value: true, value: "blue".into() },
            v1::HeaderMatch { name: "x-trace".into(), ..Default::default() },
        ],
    };
    let l7 = v1::port_rule::L7::Http(v1::HttpRules { rules: vec![http] });
    let endpoint = Endpoint::compile(&ingress(vec![rule("r", 80, &[], Some(l7))])).unwrap();
    let good: &[(&str, &str)] = &[("x-team", "blue"), ("x-trace", "")];
    for (request, allowed) in [
        (Request("PUT", "/v1/a", "shop.example.com", good), true),
        (Request("PATCH", "/v1/a", "shop.example.com:8080", good), true),
        (Request("GET", "/v1/a", "shop.example.com", good), false),
        (Request("PUT", "/v2/a", "shop.example.com", good), false),
        (Request("PUT", "/v1/a", "shopxexample.com", good), false),
        (Request("PUT", "/v1/a", "shop.example.com", &[("x-team", "red"), ("x-trace", "")]), false),
        (
            Request(
                "PUT",
                "/v1/a",
                "shop.example.com",
                &[("x-team", "blue,blue"), ("x-trace", "")],
            ),
            false,
        ),
        (Request("PUT", "/v1/a", "shop.example.com", &[("x-team", "blue")]), false),
    ] {
        let decision = endpoint.http(Direction::Ingress, plain(ALICE), 80, &request);
        assert_eq!(decision.verdict == Verdict::Allowed, allowed, "{} {}", request.0, request.1);
    }
}

#[test]
fn many_patterns_answer_as_one_by_one() {
    let paths: Vec<String> = (0..50).map(|n| format!("/v{n}/[a-z]+")).collect();
    let rules = |paths: &[String]| {
        let pairs: Vec<_> = paths.iter().map(|path| ("GET", path.as_str())).collect();
        Endpoint::compile(&ingress(vec![rule("many", 80, &[], http(&pairs))])).unwrap()
    };
    let all = rules(&paths);
    for (number, path) in paths.iter().enumerate() {
        let one = rules(std::slice::from_ref(path));
        for request in [format!("/v{number}/abc"), format!("/v{number}/ABC"), "/v5/abc".into()] {
            let expected =
                request == "/v5/abc" || get(&one, ALICE, 80, &request).0 == Verdict::Allowed;
            assert_eq!(get(&all, ALICE, 80, &request).0 == Verdict::Allowed, expected, "{request}");
        }
    }
}

#[test]
fn kafka_by_topic_and_key() {
    let rules = vec![
        v1::KafkaRule { api_keys: vec![0, 3], topic: "orders".into(), ..Default::default() },
        v1::KafkaRule { api_version: Some(9), client_id: "batch".into(), ..Default::default() },
    ];
    let l7 = v1::port_rule::L7::Kafka(v1::KafkaRules { rules });
    let endpoint = Endpoint::compile(&ingress(vec![rule("k", 9092, &[], Some(l7))])).unwrap();
    for (api_key, api_version, client_id, topic, allowed) in [
        (0, 11, "c", Some("orders"), true),
        (0, 11, "c", Some("audit"), false),
        (1, 11, "c", Some("orders"), false),
        (3, 12, "c", None, true),
        (18, 3, "c", None, false),
        (18, 9, "batch", None, true),
        (1, 9, "batch", Some("audit"), true),
    ] {
        let request = KafkaRequest { api_key, api_version, client_id, topic };
        let decision = endpoint.kafka(Direction::Ingress, plain(ALICE), 9092, &request);
        assert_eq!(decision.verdict == Verdict::Allowed, allowed, "{request:?}");
    }
    assert_eq!(get(&endpoint, ALICE, 9092, "/").1, Reason::NoRule, "Kafka rules allow no HTTP");
}

#[test]
fn a_bad_rule_is_named() {
    for (mut bad, message) in [
        (rule("r", 80, &[], http(&[("GET", "/a(")])), "path \"/a(\": "),
        (rule("r", 80, &[], http(&[("[", "/a")])), "method \"[\": "),
        (rule("r", 70_000, &[], None), "port 70000: "),
        (v1::PortRule { end_port: 70, ..rule("r", 80, &[], None) }, "end_port 70: "),
    ] {
        bad.rule = "cnp/x#ingress[0]".into();
        let error = Endpoint::compile(&ingress(vec![rule("ok", 1, &[], None), bad])).unwrap_err();
        assert_eq!(error.rule, "cnp/x#ingress[0]");
        assert!(error.message.starts_with(message), "{}", error.message);
    }
}

#[test]
fn the_strictest_proof_that_a_rule_asks_for_counts() {
    let asking = |name, port, peers: &[u32], proof: v1::Authentication| v1::PortRule {
        authentication: proof.into(),
        ..rule(name, port, peers, None)
    };
    let (required, never) = (v1::Authentication::Required, v1::Authentication::AlwaysFail);
    let mut deny = rule("deny", 443, &[BOB], None);
    deny.deny = true;
    let endpoint = Endpoint::compile(&ingress(vec![
        rule("open", 80, &[], None),
        asking("proof", 80, &[ALICE], required),
        asking("either", 443, &[], required),
        deny,
        asking("never", 8080, &[ALICE], never),
        asking("also", 8080, &[ALICE], required),
    ]))
    .unwrap();
    for (identity, authenticated, port, verdict, reason, origin) in [
        (ALICE, false, 80, Verdict::Denied, Reason::Unauthenticated, "proof"),
        (ALICE, true, 80, Verdict::Allowed, Reason::Rule, "open"),
        (BOB, false, 80, Verdict::Allowed, Reason::Rule, "open"),
        (ALICE, true, 443, Verdict::Allowed, Reason::Rule, "either"),
        (BOB, true, 443, Verdict::Denied, Reason::Rule, "deny"),
        (ALICE, true, 8080, Verdict::Denied, Reason::Unauthenticated, "never"),
    ] {
        let peer = Peer { identity, authenticated };
        let decision = endpoint.l4(Direction::Ingress, peer, port);
        let by = endpoint.rule(Direction::Ingress, &decision).unwrap_or_default();
        assert_eq!((decision.verdict, decision.reason, by), (verdict, reason, origin), "{port}");
    }
}

#[test]
fn a_proof_that_nobody_knows_is_refused() {
    let odd = v1::PortRule { authentication: 7, ..rule("odd", 80, &[], None) };
    let error = Endpoint::compile(&ingress(vec![odd])).unwrap_err();
    assert_eq!((error.rule.as_str(), error.message.as_str()), ("odd", "authentication 7: unknown"));
}
