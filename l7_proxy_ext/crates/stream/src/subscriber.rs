//! The connection to the agent: policies in, acknowledgements and verdicts out.

use crate::{Policies, Verdicts};
use hyper_util::rt::TokioIo;
use sidegate_proto::v1;
use sidegate_proto::v1::policy_service_client::PolicyServiceClient;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const PROTOCOL_VERSION: u32 = 1;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// At most one batch of verdicts in this time.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);
/// How often merged verdicts are looked at when nothing new comes.
const MERGE_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last batch may take when Envoy exits.
const FAREWELL: Duration = Duration::from_millis(200);
/// A full set of a large node is well below.
const MAX_MESSAGE: usize = 256 << 20;

/// Whom to subscribe to, and as whom.
#[derive(Clone, Debug)]
pub struct Agent {
    pub node: String,
    pub socket: PathBuf,
}

/// Receives a line for the log, `true` for a failure.
pub type Log = fn(bool, &str);

/// The thread that keeps the streams to the agent. It outlives every death of the agent: the
/// policies stay as they are until a new agent sends a full set.
pub struct Subscriber {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Subscriber {
    /// # Errors
    /// When the thread or its event loop cannot be made.
    pub fn start(
        agent: Agent,
        policies: Arc<Policies>,
        verdicts: Arc<Verdicts>,
        log: Log,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sidegate".into()).spawn(move || {
            runtime.block_on(subscribe(&agent, &policies, &verdicts, log, stopped));
        })?;
        Ok(Self { stop, thread })
    }

    /// Sends what is left of the verdicts and ends the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        _ = self.thread.join();
    }
}

async fn subscribe(
    agent: &Agent,
    policies: &Policies,
    verdicts: &Verdicts,
    log: Log,
    mut stopped: watch::Receiver<bool>,
) {
    let mut retry = RETRY_MIN;
    let mut connected = true;
    while !*stopped.borrow() {
        let failure = match connect(&agent.socket).await {
            Ok(client) => {
                connected = true;
                retry = RETRY_MIN;
                log(false, "sidegate: connected to the agent");
                let mut receiving = client.clone();
                tokio::select! {
                    ended = receive(&mut receiving, agent, policies) => ended,
                    ended = send(client, agent, verdicts, stopped.clone()) => ended,
                }
            }
            Err(failure) => Err(failure),
        };
        if *stopped.borrow() {
            return;
        }
        // One line for each loss of the agent, not for each attempt.
        if std::mem::take(&mut connected) {
            let why = failure.err().unwrap_or_else(|| "it closed the stream".into());
            log(true, &format!("sidegate: no agent at {}: {why}", agent.socket.display()));
        }
        let pause = jitter(retry);
        retry = (retry * 2).min(RETRY_MAX);
        _ = tokio::time::timeout(pause, stopped.changed()).await;
    }
}

type Ended = Result<(), Box<dyn std::error::Error>>;

async fn connect(
    socket: &Path,
) -> Result<PolicyServiceClient<Channel>, Box<dyn std::error::Error>> {
    let socket = socket.to_owned();
    // The authority is not used: the connector knows where to go.
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await?;
    Ok(PolicyServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

async fn receive(
    client: &mut PolicyServiceClient<Channel>,
    agent: &Agent,
    policies: &Policies,
) -> Ended {
    use v1::policy_request::Message;
    let request = |message| v1::PolicyRequest { message: Some(message) };
    let (requests, stream) = mpsc::channel(16);
    let hello = v1::Hello {
        node: agent.node.clone(),
        protocol_version: PROTOCOL_VERSION,
        module_version: env!("CARGO_PKG_VERSION").into(),
    };
    requests.send(request(Message::Hello(hello))).await?;
    let mut responses = client.stream_policies(ReceiverStream::new(stream)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let errors = policies.apply(&response);
        let ack = v1::Ack { nonce: response.nonce, errors };
        requests.send(request(Message::Ack(ack))).await?;
    }
    Ok(())
}

async fn send(
    mut client: PolicyServiceClient<Channel>,
    agent: &Agent,
    verdicts: &Verdicts,
    mut stopped: watch::Receiver<bool>,
) -> Ended {
    let (batches, stream) = mpsc::channel(4);
    let call = client.stream_verdicts(ReceiverStream::new(stream));
    tokio::pin!(call);
    let pump = async {
        loop {
            let stop = *stopped.borrow();
            let (records, lost) = verdicts.take(stop);
            if !records.is_empty() || lost > 0 {
                let node = agent.node.clone();
                batches.send(v1::VerdictBatch { node, records, lost }).await?;
            }
            if stop {
                return Ended::Ok(());
            }
            tokio::time::sleep(BATCH_INTERVAL).await;
            tokio::select! {
                () = verdicts.wait(MERGE_INTERVAL) => {}
                _ = stopped.changed() => {}
            }
        }
    };
    tokio::select! {
        answer = &mut call => {
            answer?;
            return Ok(());
        }
        ended = pump => ended?,
    }
    drop(batches);
    _ = tokio::time::timeout(FAREWELL, call).await;
    Ok(())
}

/// Between half of `pause` and all of it, so that many Envoys do not come at the same moment.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1000;
    pause.mul_f64(0.5 + random as f64 / 2000.0)
}
