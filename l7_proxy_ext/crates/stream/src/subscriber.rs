//! The connection to the agent: policies in, acknowledgements and verdicts out.

use crate::verdicts::Taken;
use crate::{Peers, Policies, Soon, Verdicts};
use hyper_util::rt::TokioIo;
use sidegate_proto::v1;
use sidegate_proto::v1::policy_service_client::PolicyServiceClient;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Of policy.proto's meaning; `xds_server/policy_versions.py` has the agent's.
const PROTOCOL_VERSION: u32 = 2;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// At most one batch of verdicts in this time.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);
/// How long the last batch may take when Envoy exits.
const FAREWELL: Duration = Duration::from_millis(200);
/// A full set of a large node is well below.
const MAX_MESSAGE: usize = 256 << 20;

/// How often a sidecar says that it enforces; the datapath waits for 1 s.
const LEASE_INTERVAL: Duration = Duration::from_millis(200);

/// Whom to subscribe to, and as whom.
pub struct Agent {
    pub node: String,
    pub socket: PathBuf,
    /// None: the node's own Envoy.
    pub sidecar: Option<Sidecar>,
}

/// What a pod's own proxy has besides.
pub struct Sidecar {
    pub peers: Arc<Peers>,
    pub soon: Arc<Soon>,
    pub lease_socket: PathBuf,
    /// Takes what the agent has put into the socket.
    pub receive: fn(BorrowedFd) -> io::Result<Box<dyn Lease>>,
    /// On which sides the proxy has filters of ours that judge: where it has none it has no
    /// lease, whatever its policy.
    pub enforces: fn() -> Sides,
}

/// What of the pod's traffic is judged: what comes to it, what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    pub ingress: bool,
    pub egress: bool,
}

/// What the datapath looks at (docs/adr/0013, 0014).
pub trait Lease: Send {
    fn hold(&self, revision: u64, sides: Sides);
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
            let held = RefCell::default();
            let mut ended = stopped.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = subscribe(&agent, &policies, &verdicts, log, stopped, &held) => {}
                    () = enforce(&agent, &policies, &held, &mut ended) => {}
                    () = call_back(&agent) => {}
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Sends what is left of the verdicts and ends the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        _ = self.thread.join();
    }
}

type Held = RefCell<Option<Box<dyn Lease>>>;

/// Holds the lease while there is a policy, and lets nobody wait for ever, whether or not there is
/// an agent. Never ends on the node's own Envoy.
async fn enforce(
    agent: &Agent,
    policies: &Policies,
    held: &Held,
    stopped: &mut watch::Receiver<bool>,
) {
    let Some(sidecar) = &agent.sidecar else { return std::future::pending().await };
    while !*stopped.borrow() {
        hold(sidecar, policies, held);
        sidecar.peers.expire();
        _ = tokio::time::timeout(LEASE_INTERVAL, stopped.changed()).await;
    }
    // The farewell of the other half.
    std::future::pending().await
}

/// Never ends.
async fn call_back(agent: &Agent) {
    match &agent.sidecar {
        Some(sidecar) => sidecar.soon.run().await,
        None => std::future::pending().await,
    }
}

fn hold(sidecar: &Sidecar, policies: &Policies, held: &Held) {
    let sides = (sidecar.enforces)();
    if !(sides.ingress || sides.egress) {
        return;
    }
    if let (Some(lease), Some(policy)) = (&*held.borrow(), policies.only()) {
        lease.hold(policy.revision, sides);
    }
}

async fn subscribe(
    agent: &Agent,
    policies: &Policies,
    verdicts: &Verdicts,
    log: Log,
    mut stopped: watch::Receiver<bool>,
    held: &Held,
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
                    ended = receive(&mut receiving, agent, policies, held) => ended,
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
    held: &Held,
) -> Ended {
    use v1::policy_request::Message;
    let request = |message| v1::PolicyRequest { message: Some(message) };
    let (requests, stream) = mpsc::channel(16);
    let kind = match agent.sidecar {
        None => v1::ModuleKind::Node,
        Some(_) => v1::ModuleKind::Sidecar,
    };
    let hello = v1::Hello {
        node: agent.node.clone(),
        protocol_version: PROTOCOL_VERSION,
        module_version: env!("CARGO_PKG_VERSION").into(),
        kind: kind.into(),
    };
    requests.send(request(Message::Hello(hello))).await?;
    let mut responses = client.stream_policies(ReceiverStream::new(stream)).await?.into_inner();
    let ask = async |all| match &agent.sidecar {
        Some(sidecar) => {
            let addresses = sidecar.peers.questions(all);
            let query = request(Message::Peers(v1::PeerQuery { addresses }));
            Ended::Ok(requests.send(query).await?)
        }
        None => Ended::Ok(()),
    };
    ask(true).await?;
    if let Some(sidecar) = &agent.sidecar {
        held.replace(Some(receive_lease(sidecar).await?));
    }
    loop {
        let asked = async {
            match &agent.sidecar {
                Some(sidecar) => sidecar.peers.asked().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            response = responses.message() => {
                let Some(response) = response? else { return Ok(()) };
                if let Some(sidecar) = &agent.sidecar {
                    sidecar.peers.learn(&response.peers);
                }
                let errors = policies.apply(&response);
                if let Some(sidecar) = &agent.sidecar {
                    hold(sidecar, policies, held);
                }
                let ack = v1::Ack { nonce: response.nonce, errors };
                requests.send(request(Message::Ack(ack))).await?;
            }
            () = asked => ask(false).await?,
        }
    }
}

async fn receive_lease(sidecar: &Sidecar) -> io::Result<Box<dyn Lease>> {
    let socket = UnixStream::connect(&sidecar.lease_socket).await?;
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || (sidecar.receive)(socket.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
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
            let Taken { records, lost, due } = verdicts.take(stop);
            if !records.is_empty() || lost > 0 {
                let node = agent.node.clone();
                batches.send(v1::VerdictBatch { node, records, lost }).await?;
            }
            if stop {
                return Ended::Ok(());
            }
            tokio::time::sleep(BATCH_INTERVAL).await;
            tokio::select! {
                () = verdicts.wait(due) => {}
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
