"""One request after another on one live connection, without a client's own pauses and retries.

python tight.py produce|consume HOST PORT TOPIC SECONDS -> a JSON line {"error", "t"} (Kafka's error
code, CLOCK_MONOTONIC ns) for each change of what the broker, or whoever is before it, answers.
Source: Apache Kafka, "Kafka Protocol Guide": Produce version 3, Fetch version 4.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

# A record batch (magic 2) of one record with the value "x". Its time is -1, "none": the broker's
# retention would delete what an old time is written on, and with it the offset that is fetched.
BATCH = bytes.fromhex(
    "000000000000000000000039ffffffff02dc16b1e2000000000000ffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffffffffffff000000010e00000001027800"
)


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def produce(topic: str) -> bytes:
    partition = struct.pack(">iii", 1, 0, len(BATCH)) + BATCH
    return struct.pack(">hhii", -1, 1, 1000, 1) + text(topic) + partition


def fetch(topic: str) -> bytes:
    partition = struct.pack(">iiqi", 1, 0, 0, 1000)
    return struct.pack(">iiiibi", -1, 0, 0, 1000, 0, 1) + text(topic) + partition


def main(action: str, host: str, port: int, topic: str, seconds: float) -> None:
    key, version, body = (0, 3, produce) if action == "produce" else (1, 4, fetch)
    last = None
    with socket.create_connection((host, port), 5) as connection:
        stream = connection.makefile("rb")
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            header = struct.pack(">hhi", key, version, number) + text("tight")
            message = header + body(topic)
            connection.sendall(struct.pack(">i", len(message)) + message)
            (size,) = struct.unpack(">i", stream.read(4))
            answer = stream.read(size)
            # Correlation id, (throttle time,) one topic, its name, one partition, its index, error.
            start = 4 + (4 if key == 1 else 0) + 4 + len(text(topic)) + 4 + 4
            (error,) = struct.unpack_from(">h", answer, start)
            if error != last:
                print(json.dumps({"error": error, "t": time.monotonic_ns()}), flush=True)
                last = error
            time.sleep(0.001)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
