"""The image ``apache/kafka``: a real broker (KRaft, one node) and its Java command-line clients.

    python -m sandbox.kafka_broker prepare                fetch the jars into the cache
    python -m sandbox.kafka_broker serve                  run a broker, set up by KAFKA_*
    python -m sandbox.kafka_broker topics|producer|consumer ARG...

Like the image, ``KAFKA_SOME_KEY`` sets ``some.key`` of server.properties. ``SIDEGATE_KAFKA_TOPICS``
(``orders,audit:3``) names topics, with their partitions, to be made once the broker is up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.binaries import cache_dir

_POM = Path(__file__).parent.parent / "tests" / "peers" / "kafka" / "pom.xml"
_QUICK = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
_TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "producer": "org.apache.kafka.tools.ConsoleProducer",
    "consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}
_OUR_OWN = "SIDEGATE_KAFKA_TOPICS"


def jars() -> Path:
    """Where the jars of this very pom are, or will be."""
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    return cache_dir() / "kafka" / digest


def prepare() -> Path:
    """Fetch the jars unless they are there. Raises CalledProcessError."""
    target = jars()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        made = Path(directory) / "jars"
        subprocess.run(
            [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(_POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={made}",
            ],
            check=True,
        )
        made.rename(target)
    return target


def java(main: str, *arguments: str, heap: str = "128m") -> list[str]:
    """The command line of one of the jars' classes."""
    return ["java", f"-Xmx{heap}", *_QUICK, "-cp", f"{jars()}/*", main, *arguments]


def tool(name: str, *arguments: str) -> list[str]:
    """The command line of a Java client: topics, producer or consumer."""
    return java(_TOOLS[name], *arguments)


def properties(env: Mapping[str, str], log_dir: str) -> dict[str, str]:
    """server.properties from the image's environment, over defaults for a single small node."""
    made = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://localhost:9093",
        "advertised.listeners": f"PLAINTEXT://{socket.gethostname()}:9092",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": "1@localhost:9093",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "log.dirs": log_dir,
    }
    for name, value in env.items():
        if name.startswith("KAFKA_"):
            made[name.removeprefix("KAFKA_").lower().replace("_", ".")] = value
    return made


def serve(env: Mapping[str, str]) -> None:
    """Format the storage and become the broker. Raises CalledProcessError or OSError."""
    home = tempfile.mkdtemp(prefix="sidegate-kafka-")
    config = Path(home) / "server.properties"
    settings = properties(env, f"{home}/data")
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    identifier = "sidegateAAAAAAAAAAAAAA"  # of the cluster: 16 bytes in base64
    command = ("format", "-t", identifier, "-c", str(config))
    subprocess.run(java("kafka.tools.StorageTool", *command), check=True)
    if env.get(_OUR_OWN):
        _make_topics_later(env[_OUR_OWN], home)
    broker = java("kafka.Kafka", str(config), heap="256m")
    os.execvp(broker[0], broker)


def _make_topics_later(topics: str, home: str) -> None:
    """In a child: the broker takes this process. The child also removes the data afterwards."""
    broker = os.getpid()
    if os.fork():
        return
    for _ in range(600):
        try:
            socket.create_connection(("localhost", 9092), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    for item in topics.split(","):
        name, _, partitions = item.strip().partition(":")
        where = ("--bootstrap-server", "localhost:9092", "--create", "--if-not-exists")
        count = ("--topic", name, "--partitions", partitions or "1")
        subprocess.run(tool("topics", *where, *count), check=False)
    while os.getppid() == broker:
        time.sleep(0.5)
    shutil.rmtree(home, ignore_errors=True)
    os._exit(0)


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["prepare"]:
            print(prepare())
        case ["serve"]:
            prepare()
            serve(os.environ)
        case [name, *rest] if name in _TOOLS:
            command = tool(name, *rest)
            os.execvp(command[0], command)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
