"""Programs of the field that a cluster on one machine runs, built from their Go modules.

``python -m sandbox.binaries build NAME...``; each is kept in the cache by the digest of what it is
built from, so that a second checkout finds it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_GO = Path(__file__).parent / "go_modules"
_KUBERNETES = "v1.36.1"  # kubectl parses it, and so do we: it must be what go.mod says
_ENVOY_GATEWAY = "github.com/envoyproxy/gateway"
_ISTIO = "1.31.0"  # what the pinned commit is on the way to; istioctl and istiod report it


@dataclass(frozen=True, slots=True)
class GoModule:
    """``packages`` is what ``go build`` is told; "tool" means all tools that go.mod names.
    ``files`` are kept beside the programs: (module, path in it), a file or a directory.
    ``test`` is what the module's own tests are called as a program, "" for none."""

    source: Path
    packages: str = "tool"
    ldflags: str = "-s -w"
    files: tuple[tuple[str, str], ...] = ()
    test: str = ""

    def digest(self) -> str:
        made = hashlib.sha256("".join((self.ldflags, *map(str, self.files))).encode())
        for path in sorted(self.source.rglob("*.go")) + sorted(self.source.glob("go.*")):
            made.update(path.name.encode() + path.read_bytes())
        return made.hexdigest()[:16]


def _version_flags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".")
    return _stamped(
        "k8s.io/component-base/version", gitVersion=version, gitMajor=major, gitMinor=minor
    )


def _istio_flags(version: str) -> str:
    return _stamped(
        "istio.io/istio/pkg/version",
        buildVersion=version, buildStatus="Clean", buildTag=version,
    )  # fmt: skip


def _stamped(package: str, **variables: str) -> str:
    """Flags of the linker that set variables of a package."""
    return " ".join(["-s -w", *(f"-X {package}.{name}={v}" for name, v in variables.items())])


MODULES = {
    "kubernetes": GoModule(_GO / "kubernetes", ldflags=_version_flags(_KUBERNETES)),
    "etcd": GoModule(_GO / "etcd"),
    "coredns": GoModule(_GO / "coredns"),
    "cni": GoModule(_GO / "cni"),
    "helm": GoModule(_GO / "helm"),
    "istio": GoModule(
        _GO / "istio",
        ldflags=_istio_flags(_ISTIO),
        files=(("istio.io/istio", "tools/packaging/common/envoy_bootstrap.json"),),
    ),
    "istio-cni": GoModule(  # what it shares with the others is built once
        _GO / "istio", "istio.io/istio/cni/cmd/istio-cni", ldflags=_istio_flags(_ISTIO)
    ),
    "istio-echo": GoModule(  # the image echo-advanced of the Gateway API's suite
        _GO / "istio",
        "istio.io/istio/pkg/test/echo/cmd/...",
        files=tuple(
            ("istio.io/istio", f"tests/testdata/certs/dns/{name}")
            for name in ("cert-chain.pem", "key.pem")
        ),
    ),
    "envoy-gateway": GoModule(  # a peer of benchmarks
        _GO / "envoy-gateway",
        files=(
            ("github.com/envoyproxy/gateway", "charts/gateway-helm/charts/crds/crds/generated"),
        ),
    ),
    "streaming": GoModule(_GO / "streaming", "."),
    "gateway-conformance": GoModule(
        _GO / "gateway-conformance",
        files=(
            ("sigs.k8s.io/gateway-api", "config/crd/standard"),
            ("sigs.k8s.io/gateway-api", "config/crd/experimental"),
        ),
        test="conformance",
    ),
    "http-peer": GoModule(_ROOT / "tests" / "peers" / "http", "."),
}


def cache_dir() -> Path:
    """Where builds are kept between checkouts."""
    return Path(os.environ.get("SIDEGATE_CACHE") or Path.home() / ".cache" / "sidegate")


def binary(module: str, name: str) -> Path:
    """Where a program of a module is, or will be once built."""
    return _folder(module) / name


def build(module: str) -> None:
    """Nothing to do if it is there. Raises CalledProcessError."""
    what, target = MODULES[module], _folder(module)
    if target.exists():
        return
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    fresh.mkdir(parents=True)
    command = ["go", "build", "-trimpath", "-ldflags", what.ldflags, "-o", f"{fresh}/"]
    subprocess.run([*command, what.packages], cwd=what.source, check=True)
    if what.test:
        command = ["go", "test", "-c", "-trimpath", "-ldflags", what.ldflags]
        subprocess.run([*command, "-o", str(fresh / what.test), "."], cwd=what.source, check=True)
    for owner, path in what.files:
        _copy(_module_dir(what.source, owner) / path, fresh)
    fresh.rename(target)


def _copy(found: Path, folder: Path) -> None:
    if found.is_dir():
        shutil.copytree(found, folder / found.name, copy_function=shutil.copyfile)
        (folder / found.name).chmod(0o755)  # Go's module cache is read-only
    else:
        shutil.copy(found, folder)


def _module_dir(source: Path, module: str) -> Path:
    asked = ["go", "list", "-m", "-f", "{{.Dir}}", module]
    found = subprocess.run(asked, cwd=source, check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


def _folder(module: str) -> Path:
    return cache_dir() / "bin" / f"{module}-{MODULES[module].digest()}"


if __name__ == "__main__":
    if sys.argv[1:2] != ["build"] or not set(sys.argv[2:]) <= MODULES.keys():
        sys.exit(f"usage: python -m sandbox.binaries build [{' | '.join(MODULES)}]...")
    for each in sys.argv[2:] or MODULES:
        build(each)
