"""What a node needs beside the agent, put there before it starts and taken away after the last one.

``python -m node_agent.node_setup install`` and ``... remove``: the chart's init containers.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import shutil
import sys
import time
from pathlib import Path

from datapath import announce
from datapath.facade import Datapath, DatapathConfig
from l7_proxy_ext.process import Detached
from node_agent import cni_config
from node_agent.config import AgentConfig, run_dir_of

_ROOT = Path(__file__).parent.parent
PLUGIN = _ROOT / "cni_plugin" / "bin" / "sidegate-cni"
MODULE = AgentConfig().module
_AGENT_SECONDS = 60.0


class AgentRuns(RuntimeError):
    """An agent holds the node."""


def install_plugin(directory: Path, plugin: Path = PLUGIN) -> None:
    """Renamed into place: a runtime may execute it at any moment. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f".{plugin.name}.new"
    shutil.copy(plugin, fresh)
    fresh.chmod(0o755)
    fresh.rename(directory / plugin.name)


def install_module(directory: Path, module: Path = MODULE) -> Path:
    """The library by a path with its hash, which ``current`` then leads to; its new path.

    What an Envoy has loaded is never written over. The one before stays too: whoever was started
    with it can be started again. Raises OSError.
    """
    target = directory / hashlib.sha256(module.read_bytes()).hexdigest()[:16]
    current, previous = directory / "current", ""
    if current.is_symlink():
        previous = current.readlink().name
    if not target.exists():
        fresh = directory / f".{target.name}.new"
        fresh.mkdir(parents=True, exist_ok=True)
        shutil.copy(module, fresh)
        fresh.rename(target)
    if previous != target.name:
        link = directory / ".current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        link.rename(current)
        for path in directory.iterdir():
            if not path.is_symlink() and path.name not in (target.name, previous):
                shutil.rmtree(path)
    return target / module.name


def remove(run_dir: Path, bpffs: Path, cni: Path | None, seconds: float = _AGENT_SECONDS) -> None:
    """Once the agent has ended: new pods go to another network plugin, and nothing is enforced.

    The plugin itself stays: the runtime calls it for the pods that it made. Raises AgentRuns when
    the agent does not end in time, BpfError, NetlinkError, OSError.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "agent.lock").open("w") as lock:
        deadline = time.monotonic() + seconds
        while not _is_free(lock.fileno()):
            if time.monotonic() > deadline:
                raise AgentRuns(f"an agent runs in {run_dir}: delete its DaemonSet first")
            time.sleep(0.1)
        if cni:
            (cni / cni_config.NAME).unlink(missing_ok=True)
        envoy = Detached.load(run_dir / "envoy" / "envoy.pid")
        if envoy:
            asyncio.run(envoy.terminate())
        Datapath(DatapathConfig(bpffs)).destroy()
        announce.release_others(frozenset())
        # Not ipam/: pods that run on still have their addresses.
        for name in ("envoy", "state"):
            shutil.rmtree(run_dir / name, ignore_errors=True)
        for name in ("agent.sock", "xds.sock"):
            (run_dir / name).unlink(missing_ok=True)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="node_setup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("install")
    verb.add_argument(
        "--cni-bin", type=Path, required=True, help="directory of the runtime's CNI plugins"
    )
    verb.add_argument("--modules", type=Path, required=True, help="directory of Envoy's modules")
    verb = verbs.add_parser("remove")
    verb.add_argument("--bpffs", type=Path, required=True, help="where the agent pins")
    verb.add_argument("--cni-config", type=Path, help="directory of CNI configurations")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    given = _parse(arguments)
    try:
        if given.verb == "install":
            install_plugin(given.cni_bin)
            print(f"installed {install_module(given.modules)}")
        else:
            remove(run_dir_of("default"), given.bpffs, given.cni_config)
    except (AgentRuns, OSError) as error:
        print(f"node_setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
