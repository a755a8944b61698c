"""A real control plane on one machine: etcd, kube-apiserver, controller manager and scheduler.

They run in a namespace of the cluster's segment, so that nodes and pods reach the API server, and
it them. A link of its own lets programs of the machine (kubectl) reach it too.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import httpx

from sandbox import processes
from sandbox.binaries import binary
from sandbox.node import SANDBOX_ROOT
from sandbox.pki import Pki
from sandbox.segment import Segment, addresses, ip

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
_NUMBER = 2
_PORT = 6443
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc",
          "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1",
          "10.96.0.1", "fd00:10:96::1")  # fmt: skip
_READY_SECONDS = 60.0
_END_WITHOUT_API = ("kube-controller-manager", "kube-scheduler")  # if it goes while they start
_CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", "system:masters"),
}


class ControlPlaneError(RuntimeError):
    """A part did not come up; the message says which, and shows the end of its log."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Names and addresses of a cluster on this machine."""

    name: str = "sandbox"

    @property
    def directory(self) -> Path:
        return SANDBOX_ROOT / f"cluster-{self.name}"

    @property
    def segment(self) -> Segment:
        return Segment(self.name)

    @property
    def netns(self) -> str:
        return f"sidegate-{self.name}-control-plane"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, from anywhere on the machine."""
        return self.directory / "pki" / "admin.kubeconfig"

    @property
    def link(self) -> tuple[str, IPv4Address, IPv4Address]:
        """The machine's interface, its address, and the API server's there: of RFC 2544's range."""
        number = zlib.crc32(self.name.encode())
        base = IPv4Address("198.18.0.0") + 4 * (number % 2**15)
        return f"sgk{number:08x}", base + 1, base + 2


class ControlPlane:
    """See the module. ``pki`` can issue certificates for kubelets while it is up."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def server(self) -> tuple[str, int]:
        """Where nodes and pods reach the API server."""
        return str(addresses(_NUMBER)[0].ip), _PORT

    @property
    def outside(self) -> str:
        """Its URL for programs of the machine."""
        return f"https://{self.cluster.link[2]}:{_PORT}"

    def start(self) -> None:
        """Raises ControlPlaneError, CalledProcessError; what is left of an earlier one goes."""
        self.remove()
        cluster = self.cluster
        self._network()
        self.pki = Pki(cluster.directory / "pki")
        outside = str(cluster.link[2])
        own = [str(address.ip) for address in addresses(_NUMBER)]
        self.pki.issue("apiserver", "kube-apiserver", *_NAMES, *own, outside)
        self.pki.issue("service-account", "service-account")
        for name, (user, group) in _CLIENTS.items():
            self.pki.issue(name, user, group=group)
            self.pki.kubeconfig(name, f"https://127.0.0.1:{_PORT}")
        self.pki.kubeconfig("admin", self.outside)
        self.start_part("etcd")
        self.start_part("kube-apiserver")
        self.wait_ready()
        self.start_part("kube-controller-manager")
        self.start_part("kube-scheduler")

    def start_part(self, name: str) -> None:
        """Also after :meth:`stop_part`, on what it had."""
        command = {
            "etcd": self._etcd,
            "kube-apiserver": self._apiserver,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
        }[name]()
        with (self.cluster.directory / f"{name}.log").open("ab") as log:
            self._parts[name] = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.cluster.netns}", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop_part(self, name: str) -> None:
        part = self._parts.pop(name, None)
        if part:
            part.terminate()
            try:
                part.wait(10)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()

    def stop(self) -> None:
        """The API server before etcd, or it says much; then everything goes."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.stop_part(name)
        self.remove()

    def remove(self) -> None:
        """Nothing to remove is no error."""
        cluster = self.cluster
        processes.end(processes.inside(cluster.netns))
        for netns in (cluster.netns, cluster.segment.router_netns):
            subprocess.run(["ip", "netns", "del", netns], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", cluster.link[0]], check=False, capture_output=True)
        shutil.rmtree(cluster.directory, ignore_errors=True)

    def wait_ready(self) -> None:
        """Until the API server answers; its clients that ended without it start again.

        Raises ControlPlaneError.
        """
        deadline = time.monotonic() + _READY_SECONDS
        with self.client() as api:
            while time.monotonic() < deadline:
                for name in self._ended():
                    if name not in _END_WITHOUT_API:
                        raise ControlPlaneError(f"{name} ended:\n{self._end_of_log(name)}")
                with contextlib.suppress(httpx.HTTPError):
                    if api.get("/readyz").status_code == 200:
                        for name in self._ended():
                            self.start_part(name)
                        return
                time.sleep(0.05)
        why = self._end_of_log("kube-apiserver")
        raise ControlPlaneError(f"kube-apiserver is not ready after {_READY_SECONDS:.0f} s:\n{why}")

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """As the administrator."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(self.pki.certificate("admin"), self.pki.key("admin"))
        with httpx.Client(base_url=self.outside, verify=context, timeout=10) as client:
            yield client

    def _ended(self) -> list[str]:
        return [name for name, part in self._parts.items() if part.poll() is not None]

    def _network(self) -> None:
        cluster = self.cluster
        cluster.directory.mkdir(parents=True)
        cluster.segment.create()
        ip("netns", "add", cluster.netns)
        ip("link", "set", "lo", "up", netns=cluster.netns)
        cluster.segment.attach(cluster.netns, _NUMBER)
        name, here, there = cluster.link
        ip("link", "add", name, "type", "veth", "peer", "name", "machine", "netns", cluster.netns)
        ip("addr", "add", f"{here}/30", "dev", name)
        ip("link", "set", name, "up")
        ip("addr", "add", f"{there}/30", "dev", "machine", netns=cluster.netns)
        ip("link", "set", "machine", "up", netns=cluster.netns)

    def _end_of_log(self, name: str) -> str:
        text = (self.cluster.directory / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def _etcd(self) -> list[str]:
        # No fsync: this cluster's life is that of the machine's memory.
        data = self.cluster.directory / "etcd"
        return [str(binary("etcd", "server")), f"--data-dir={data}", "--unsafe-no-fsync",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380"]  # fmt: skip

    def _apiserver(self) -> list[str]:
        pki = self.pki
        return [
            str(binary("kubernetes", "kube-apiserver")),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={addresses(_NUMBER)[0].ip}",
            f"--secure-port={_PORT}",
            f"--service-cluster-ip-range={','.join(SERVICE_CIDRS)}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-aggregator-routing=true",
            "--allow-privileged",
            f"--client-ca-file={pki.ca}",
            f"--tls-cert-file={pki.certificate('apiserver')}",
            f"--tls-private-key-file={pki.key('apiserver')}",
            f"--service-account-issuer={_ISSUER}",
            f"--api-audiences={_ISSUER},istio-ca",
            f"--service-account-key-file={pki.key('service-account')}",
            f"--service-account-signing-key-file={pki.key('service-account')}",
            f"--kubelet-certificate-authority={pki.ca}",
            f"--kubelet-client-certificate={pki.certificate('apiserver-kubelet')}",
            f"--kubelet-client-key={pki.key('apiserver-kubelet')}",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _controller_manager(self) -> list[str]:
        pki = self.pki
        return [
            str(binary("kubernetes", "kube-controller-manager")),
            f"--kubeconfig={pki.ca.parent / 'kube-controller-manager.kubeconfig'}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki.key('service-account')}",
            f"--root-ca-file={pki.ca}",
            "--allocate-node-cidrs",
            f"--cluster-cidr={','.join(CLUSTER_CIDRS)}",
            "--node-cidr-mask-size-ipv4=24",
            "--node-cidr-mask-size-ipv6=64",
            f"--service-cluster-ip-range={','.join(SERVICE_CIDRS)}",
        ]

    def _scheduler(self) -> list[str]:
        config = self.pki.ca.parent / "kube-scheduler.kubeconfig"
        return [str(binary("kubernetes", "kube-scheduler")), f"--kubeconfig={config}",
                "--leader-elect=false"]  # fmt: skip
