//! Network filter `sidegate_kafka`: carries bytes between Envoy and [`Session`], which judges each
//! request by the policy in force when it comes.

use crate::engine::{Engine, Judgement};
use crate::facts::{Facts, KEY};
use crate::guard::log_not_protocol;
use crate::held::Held;
use crate::sidecar::Side;
use sidegate_abi::network::{Connection, Flow, NetworkFilter};
use sidegate_kafka::{Actions, Judge, Question, Request, Session};
use sidegate_policy::KafkaRequest;
use sidegate_proto::v1::{KafkaRecord, Reason, Verdict, VerdictRecord, verdict_record};
use sidegate_stream::MergeKey;

pub struct Kafka {
    engine: &'static Engine,
    side: Option<Side>,
    session: Session,
    closed: bool,
    passage: Passage,
    held: Held,
}

/// What a connection is where the same filter sees all that is not HTTP: in a sidecar, and of a
/// Service with routes.
#[derive(Clone, Copy, PartialEq)]
enum Passage {
    /// Nobody has asked yet; where policy has chosen it for Kafka it stays so, and every byte is
    /// read. Where a backend is chosen, it is known when the first bytes pass.
    New,
    /// It is not known yet who the peer is.
    Waits,
    /// Policy asks for Kafka: every byte is read. The client was judged in this generation.
    Read(u64),
    /// A rule without L7 lets it pass, or there is none, in this generation.
    Open(u64),
}

impl Kafka {
    /// `side` is None on the node.
    pub fn new(engine: &'static Engine, side: Option<Side>) -> Self {
        let (session, held) = (Session::default(), Held::default());
        Self { engine, side, session, closed: false, passage: Passage::New, held }
    }

    fn is_balanced(&self) -> bool {
        self.side.is_some_and(Side::is_balanced)
    }

    fn facts(&self, envoy: &Connection) -> Option<Facts> {
        match self.side {
            None => envoy.filter_state(KEY).and_then(Facts::from_bytes),
            Some(side) => side.connection(envoy),
        }
    }

    /// Where it need not be Kafka: whether this connection is to be read. Closes what has no right to be. What
    /// was begun to be read is read to its end.
    fn admit(&mut self, envoy: &Connection) -> Flow {
        let generation = self.engine.generation();
        let Some(facts) = self.facts(envoy) else { return self.refuse(envoy, None) };
        let port = facts.destination_port();
        let uri = self.side.map_or(&[][..], |side| side.connection_uri(envoy));
        let judgement = self.engine.judge(&facts, self.side, uri, |endpoint, direction, peer| {
            endpoint.l4(direction, peer, port)
        });
        if judgement.decision.reason == Reason::UnknownPeer {
            if self.passage != Passage::Waits {
                self.passage = Passage::Waits;
                self.engine.ask_peer(&facts, self.side, envoy.waker());
                return Flow::Stop;
            }
            return self.refuse(envoy, Some(judgement.record(&facts)));
        }
        let denied = judgement.decision.is_denied();
        let not_proven =
            matches!(judgement.decision.reason, Reason::PeerMismatch | Reason::Unauthenticated);
        self.passage = match self.passage {
            _ if denied && not_proven => {
                return self.refuse(envoy, Some(judgement.record(&facts)));
            }
            Passage::Open(_) if denied => {
                return self.refuse(envoy, Some(judgement.record(&facts)));
            }
            Passage::Read(_) => Passage::Read(generation),
            _ if denied => Passage::Read(generation),
            _ => Passage::Open(generation),
        };
        Flow::Continue
    }

    fn refuse(&mut self, envoy: &Connection, record: Option<VerdictRecord>) -> Flow {
        self.closed = true;
        if let Some(record) = record {
            self.engine.verdicts().push(record);
        }
        envoy.close(false);
        Flow::Stop
    }

    /// Whether bytes pass unread; `Err` says what to do instead.
    fn passes(&mut self, envoy: &Connection) -> Result<bool, Flow> {
        let now = self.engine.generation();
        match self.passage {
            Passage::New if !self.is_balanced() => Ok(false),
            Passage::Waits => Err(Flow::Stop),
            _ if self.closed => Err(Flow::Stop),
            Passage::Open(generation) if generation == now => Ok(true),
            Passage::Read(generation) if generation == now => Ok(false),
            Passage::New | Passage::Open(_) | Passage::Read(_) => match self.admit(envoy) {
                Flow::Continue => Ok(matches!(self.passage, Passage::Open(_))),
                Flow::Stop => Err(Flow::Stop),
            },
        }
    }

    fn run(
        &mut self,
        envoy: &Connection,
        step: impl FnOnce(&mut Session, &dyn Judge, &mut Actions),
    ) -> Actions {
        let mut actions = Actions::default();
        match self.facts(envoy) {
            Some(facts) if !self.closed => {
                let uri = self.side.map_or(&[][..], |side| side.connection_uri(envoy));
                let judge = ByPolicy { engine: self.engine, side: self.side, facts, uri };
                step(&mut self.session, &judge, &mut actions);
            }
            _ => actions.not_protocol = !self.closed,
        }
        actions
    }

    /// Lets go what was held while nobody knew who the peer is, as if it came now.
    fn release(&mut self, envoy: &Connection) -> Flow {
        let Held { from_client, from_server, ended } = std::mem::take(&mut self.held);
        if !matches!(self.passage, Passage::Read(_)) {
            if !from_client.is_empty() {
                envoy.inject_read(&from_client);
            }
            if !from_server.is_empty() || ended {
                envoy.inject_write(&from_server, ended);
            }
            return Flow::Continue;
        }
        let actions = self.run(envoy, |session, judge, out| {
            session.on_client(&from_client, judge, out);
            session.on_broker(&from_server, judge, out);
        });
        if !actions.to_broker.is_empty() {
            envoy.inject_read(&actions.to_broker);
        }
        if !actions.to_client.is_empty() || ended {
            envoy.inject_write(&actions.to_client, ended);
        }
        self.end_if_not_kafka(envoy, &actions)
    }

    fn end_if_not_kafka(&mut self, envoy: &Connection, actions: &Actions) -> Flow {
        if !actions.not_protocol {
            return Flow::Continue;
        }
        self.closed = true;
        if let Some(facts) = self.facts(envoy) {
            log_not_protocol(self.engine, &facts, self.side);
        }
        envoy.close(false);
        Flow::Stop
    }
}

impl NetworkFilter for Kafka {
    fn on_new_connection(&mut self, envoy: &Connection) -> Flow {
        match self.side {
            Some(Side::Ingress) => self.admit(envoy),
            _ => Flow::Continue,
        }
    }

    fn on_scheduled(&mut self, envoy: &Connection) -> Flow {
        match self.admit(envoy) {
            Flow::Continue => self.release(envoy),
            Flow::Stop => Flow::Stop,
        }
    }

    fn on_read(&mut self, envoy: &Connection, _end_stream: bool) -> Flow {
        match self.passes(envoy) {
            Ok(true) => return Flow::Continue,
            Ok(false) => {}
            Err(flow) => {
                if self.is_balanced() {
                    self.held.read(envoy);
                }
                return flow;
            }
        }
        let mut bytes = Vec::new();
        envoy.read_buffer(|chunk| bytes.extend_from_slice(chunk));
        let actions = self.run(envoy, |session, judge, out| session.on_client(&bytes, judge, out));
        envoy.replace_read_buffer(&actions.to_broker);
        if !actions.to_client.is_empty() {
            envoy.inject_write(&actions.to_client, false);
        }
        self.end_if_not_kafka(envoy, &actions)
    }

    fn on_write(&mut self, envoy: &Connection, end_stream: bool) -> Flow {
        match self.passes(envoy) {
            Ok(true) => return Flow::Continue,
            Ok(false) => {}
            Err(flow) => {
                if self.is_balanced() {
                    self.held.write(envoy, end_stream);
                }
                return flow;
            }
        }
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

struct ByPolicy<'a> {
    engine: &'static Engine,
    side: Option<Side>,
    facts: Facts,
    uri: &'a [u8],
}

impl ByPolicy<'_> {
    fn judgement(&self, question: &Question) -> Judgement {
        let request = KafkaRequest {
            api_key: question.api_key,
            api_version: question.api_version,
            client_id: question.client_id,
            topic: question.topic,
        };
        let port = self.facts.destination_port();
        self.engine.judge(&self.facts, self.side, self.uri, |endpoint, direction, peer| {
            endpoint.kafka(direction, peer, port, &request)
        })
    }
}

impl Judge for ByPolicy<'_> {
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
