"""The images that the sandbox knows, as local commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from l7_proxy_ext.supervisor import envoy_binary
from sandbox.binaries import binary

_ROOT = Path(__file__).parent.parent
_PYTHON = _ROOT / ".venv" / "bin" / "python"
_ISTIO = {"proxyv2": "pilot-agent", "pilot": "pilot-discovery"}  # what the images run
_BIN = "/usr/local/bin"
_COREDNS = f"{_BIN}/coredns"
_BOOTSTRAP = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
_OURS = frozenset({"agent", "operator", "sidegate-agent", "sidegate-operator"})


class UnknownImage(ValueError):
    """No command is known for the image, and the container gives none."""


def http_peer() -> Path:
    """The Go peer's binary for this very source."""
    return binary("http-peer", "http")


def search_path(image: str, inherited: str) -> str:
    """``PATH`` in a container: our own images have what this checkout has, Istio's echo its client,
    others the HTTP peer as ``http``."""
    if _name(image) in _OURS:
        return f"{_PYTHON.parent}:{inherited}"
    if _name(image) == "echo-advanced":
        return f"{binary('istio-echo', 'client').parent}:{inherited}"
    return f"{http_peer().parent}:{inherited}"


def files(image: str) -> Mapping[str, Path]:
    """What an image has at paths that its programs expect, by path in the container."""
    if _name(image) == "coredns":  # a volume at /root would hide the cache that it is in
        return {_COREDNS: binary("coredns", "coredns")}
    if _name(image) == "echo-advanced":  # as Istio's Dockerfile.app has it
        certificate, key = (binary("istio-echo", name) for name in ("cert-chain.pem", "key.pem"))
        return {"/cert.crt": certificate, "/cert.key": key}
    program = _ISTIO.get(_name(image))
    if not program:
        return {}
    found = {f"{_BIN}/{program}": binary("istio", program)}
    if program == "pilot-agent":
        found[f"{_BIN}/envoy"] = envoy_binary()
        found[_BOOTSTRAP] = binary("istio", "envoy_bootstrap.json")
    return found


def command(image: str, arguments: tuple[str, ...], has_command: bool) -> tuple[str, ...]:
    """What to run for an image; its arguments follow. Raises UnknownImage."""
    if has_command:
        return arguments
    match image.partition("/")[0], _name(image):
        case "sidegate.test", "http":
            return (str(http_peer()), "serve", "--http", ":8080", *arguments)
        case "sidegate.test", "client":
            return ("sleep", "infinity")
        case _, name if name in _ISTIO:
            return (f"{_BIN}/{_ISTIO[name]}", *arguments)
        case _, "coredns":
            return (_COREDNS, *arguments)
        case _, "echo-advanced":
            return (str(binary("istio-echo", "server")), *arguments)
        case _, "echo-basic":
            return (str(binary("gateway-conformance", "echo-basic")), *arguments)
        case _, "kafka":
            return (str(_PYTHON), "-m", "sandbox.kafka_broker", "serve", *arguments)
    raise UnknownImage(f"{image!r} is not known here; give the container a command")


def _name(image: str) -> str:
    """Without registry, tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]
