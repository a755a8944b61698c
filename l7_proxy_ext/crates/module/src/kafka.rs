//! Network filter `sidegate_kafka`: carries bytes between Envoy and [`Session`], which judges each
//! request by the policy in force when it comes.

use crate::engine::{Engine, Judgement};
use crate::facts::{Facts, KEY};
use crate::guard::log_not_protocol;
use sidegate_abi::network::{Connection, Flow, NetworkFilter};
use sidegate_kafka::{Actions, Judge, Question, Request, Session};
use sidegate_policy::KafkaRequest;
use sidegate_proto::v1::{KafkaRecord, Verdict, VerdictRecord, verdict_record};
use sidegate_stream::MergeKey;

pub struct Kafka {
    engine: &'static Engine,
    session: Session,
    closed: bool,
}

impl Kafka {
    pub fn new(engine: &'static Engine) -> Self {
        Self { engine, session: Session::default(), closed: false }
    }

    fn run(
        &mut self,
        envoy: &Connection,
        step: impl FnOnce(&mut Session, &dyn Judge, &mut Actions),
    ) -> Actions {
        let mut actions = Actions::default();
        match envoy.filter_state(KEY).and_then(Facts::from_bytes) {
            Some(facts) if !self.closed => {
                let judge = ByPolicy { engine: self.engine, facts };
                step(&mut self.session, &judge, &mut actions);
            }
            _ => actions.not_protocol = !self.closed,
        }
        actions
    }

    fn end_if_not_kafka(&mut self, envoy: &Connection, actions: &Actions) -> Flow {
        if !actions.not_protocol {
            return Flow::Continue;
        }
        self.closed = true;
        if let Some(facts) = envoy.filter_state(KEY).and_then(Facts::from_bytes) {
            log_not_protocol(self.engine, &facts, None);
        }
        envoy.close(false);
        Flow::Stop
    }
}

impl NetworkFilter for Kafka {
    fn on_read(&mut self, envoy: &Connection, _end_stream: bool) -> Flow {
        let mut bytes = Vec::new();
        envoy.read_buffer(|chunk| bytes.extend_from_slice(chunk));
        let actions = self.run(envoy, |session, judge, out| session.on_client(&bytes, judge, out));
        envoy.replace_read_buffer(&actions.to_broker);
        if !actions.to_client.is_empty() {
            envoy.inject_write(&actions.to_client);
        }
        self.end_if_not_kafka(envoy, &actions)
    }

    fn on_write(&mut self, envoy: &Connection, _end_stream: bool) -> Flow {
        let mut bytes = Vec::new();
        envoy.write_buffer(|chunk| bytes.extend_from_slice(chunk));
        let actions = self.run(envoy, |session, judge, out| session.on_broker(&bytes, judge, out));
        envoy.replace_write_buffer(&actions.to_client);
        if !actions.to_broker.is_empty() {
            envoy.inject_read(&actions.to_broker);
        }
        self.end_if_not_kafka(envoy, &actions)
    }
}

struct ByPolicy {
    engine: &'static Engine,
    facts: Facts,
}

impl ByPolicy {
    fn judgement(&self, question: &Question) -> Judgement {
        let request = KafkaRequest {
            api_key: question.api_key,
            api_version: question.api_version,
            client_id: question.client_id,
            topic: question.topic,
        };
        let port = self.facts.destination_port();
        self.engine.judge(&self.facts, None, |endpoint, direction, peer| {
            endpoint.kafka(direction, peer, port, &request)
        })
    }
}

impl Judge for ByPolicy {
    fn generation(&self) -> u64 {
        self.engine.generation()
    }

    fn allows(&self, question: &Question) -> bool {
        !self.judgement(question).decision.is_denied()
    }

    fn record(&self, request: &Request, topics: &[String], error_code: i16) {
        let ask = |topic| {
            self.judgement(&Question {
                api_key: request.api_key,
                api_version: request.api_version,
                client_id: &request.client_id,
                topic,
            })
        };
        // Of several topics the one that is denied tells why; else the first.
        let judgement = topics
            .iter()
            .map(|topic| ask(Some(topic)))
            .reduce(|one, other| if one.decision.is_denied() { one } else { other })
            .unwrap_or_else(|| ask(None));
        let record = || VerdictRecord {
            l7: Some(verdict_record::L7::Kafka(KafkaRecord {
                api_key: request.api_key.into(),
                api_version: request.api_version.into(),
                correlation_id: request.correlation_id.cast_unsigned(),
                client_id: request.client_id.clone(),
                topics: topics.to_vec(),
                error_code: error_code.into(),
            })),
            ..judgement.record(&self.facts)
        };
        if judgement.decision.verdict != Verdict::Allowed || error_code != 0 {
            self.engine.verdicts().push(record());
            return;
        }
        let key = MergeKey::new((
            (judgement.endpoint_id(), judgement.revision(), judgement.direction as i32),
            (self.facts.addresses(), self.facts.destination_port(), &request.client_id),
            (request.api_key, request.api_version, topics),
        ));
        self.engine.verdicts().merge(key, 0, record);
    }
}
