"""The listeners as they are, redirected to by nftables in place of the datapath: the client's
address is kept, both families are judged, and every packet of Envoy's carries its mark."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from policy_engine.model import DirectionPolicy, EndpointPolicy, HttpRule, Parser, PortRule
from tests.system.envoy_rig import eventually, node
from tests.system.module_rig import CLIENT_IDENTITY, SERVER_ID, SERVER_IDENTITY
from xds_server.listeners import node_resources

pytestmark = pytest.mark.system

NODE, CLIENT, SERVER = (f"sgt{os.getpid()}-{name}" for name in ("node", "client", "server"))
# By pod: host-side device, node's and pod's addresses.
LINKS = {
    CLIENT: ("sgx1", "10.77.1.1/24", "10.77.1.2/24", "fd77:1::1/64", "fd77:1::2/64"),
    SERVER: ("sgx2", "10.77.2.1/24", "10.77.2.2/24", "fd77:2::1/64", "fd77:2::2/64"),
}
RULES = """
table inet sidegate_test {
  counter marked { }
  counter unmarked { }
  chain to_envoy {
    type filter hook prerouting priority mangle;
    meta l4proto tcp socket transparent 1 meta mark set 0x200 accept
    ip daddr 10.77.2.2 tcp dport 80 tproxy ip to 127.0.0.1:15001 meta mark set 0x200 accept
    ip6 daddr fd77:2::2 tcp dport 80 tproxy ip6 to [::1]:15001 meta mark set 0x200 accept
  }
  chain from_envoy {
    type filter hook output priority 0;
    oifname "sgx*" meta l4proto tcp meta mark and 0xf00 == 0xa00 counter name marked accept
    oifname "sgx*" meta l4proto tcp counter name unmarked
  }
}
"""
# Answers with the address that the connection came from.
WEB = """
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = Server(("::", 80), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *" ".join(arguments).split()], check=True)


@pytest.fixture
def namespaces() -> Iterator[None]:
    """The node with two pods; this process is in the node's namespace meanwhile."""
    with contextlib.ExitStack() as undo:
        for name in (NODE, *LINKS):
            ip("netns add", name)
            undo.callback(ip, "netns del", name)
            ip("-n", name, "link set lo up")
        for pod, (device, node4, pod4, node6, pod6) in LINKS.items():
            ip("-n", NODE, "link add", device, "type veth peer name eth0 netns", pod)
            for place, link, v4, v6 in ((NODE, device, node4, node6), (pod, "eth0", pod4, pod6)):
                ip("-n", place, "addr add", v4, "dev", link)
                ip("-n", place, "addr add", v6, "dev", link, "nodad")
                ip("-n", place, "link set", link, "up")
            for gateway in (node4, node6):
                ip("-n", pod, "route add default via", gateway.split("/")[0])
        for family in ("-4", "-6"):
            ip(family, "-n", NODE, "rule add fwmark 0x200/0xf00 lookup 2004")
            ip(family, "-n", NODE, "route add local default dev lo table 2004")
        netns.pushns(NODE)
        undo.callback(netns.popns)
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
        yield


@pytest.fixture
def web(namespaces: None) -> Iterator[None]:
    command = ["ip", "netns", "exec", SERVER, sys.executable, "-c", WEB]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        yield
        server.kill()


async def curl(url: str) -> tuple[str, str]:
    """Status and body."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", CLIENT),
        *("curl", "--silent", "--globoff", "--max-time", "5", "--write-out", "\n%{http_code}", url),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    body, _, status = output.decode().rpartition("\n")
    return status, body


def packets() -> dict[str, int]:
    output = subprocess.run(["nft", "-j", "list", "counters"], capture_output=True, check=True)
    found = json.loads(output.stdout)["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in found if "counter" in c}


async def test_redirected_connections(web: None) -> None:
    with tempfile.TemporaryDirectory(prefix="sgx") as folder:
        async with node(Path(folder)) as rig:
            for type_url, named in node_resources({Parser.HTTP: 15001}).items():
                rig.server.set_resources(type_url, named)
            rule = PortRule("r", None, parser=Parser.HTTP, http=(HttpRule(path="/ok"),))
            ingress = DirectionPolicy(True, rules=(rule,))
            rig.server.publish_policy(
                EndpointPolicy(SERVER_ID, SERVER_IDENTITY, ingress, DirectionPolicy(), {}, 1)
            )
            for address in ("10.77.1.2", "fd77:1::2"):
                rig.ipcache.put(address, CLIENT_IDENTITY)
            for address in ("10.77.2.2", "fd77:2::2"):
                rig.ipcache.put(address, SERVER_IDENTITY, SERVER_ID)
            await rig.server.start()
            await rig.supervisor.start()
            await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])

            assert await curl("http://10.77.2.2/ok") == ("200", "::ffff:10.77.1.2")
            assert await curl("http://[fd77:2::2]/ok") == ("200", "fd77:1::2")
            assert (await curl("http://10.77.2.2/no"))[0] == "403"
            assert (await curl("http://[fd77:2::2]/no"))[0] == "403"
            seen = packets()
            assert seen["marked"] > 0
            assert seen["unmarked"] == 0
