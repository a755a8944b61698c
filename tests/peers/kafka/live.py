"""A librdkafka client that holds its connection: prints each change of what it is told.

python live.py produce|consume BROKER TOPIC SECONDS -> JSON lines {"seen", "t" (CLOCK_MONOTONIC ns)}
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer


class Changes:
    def __init__(self) -> None:
        self._last = ""

    def say(self, error: KafkaError | None) -> None:
        seen = "ok" if error is None else error.name()
        if seen != self._last:
            print(json.dumps({"seen": seen, "t": time.monotonic_ns()}), flush=True)
            self._last = seen


def produce(broker: str, topic: str, end: float) -> None:
    changes = Changes()
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "retries": 0})
    while time.monotonic() < end:
        try:
            producer.produce(topic, b"x", on_delivery=lambda error, _: changes.say(error))
        except KafkaException as error:  # librdkafka remembers an unauthorised topic for a while
            changes.say(error.args[0])
        producer.poll(0.005)


def consume(broker: str, topic: str, end: float) -> None:
    changes = Changes()
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "live",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    while time.monotonic() < end:
        if (message := consumer.poll(0.05)) is not None:
            changes.say(message.error())


if __name__ == "__main__":
    action, broker, topic, seconds = sys.argv[1:]
    run = produce if action == "produce" else consume
    run(broker, topic, time.monotonic() + float(seconds))
