"""What the kernel itself says of packets and connections, a JSON line for each event.

Runs under the system's Python, where BCC is: ``python3 -m tracing.probe drops|tcp``. Only
tracepoints are used; their fields are those of the running kernel, whatever headers there are.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tracing.btf import Btf

TRACEFS = Path("/sys/kernel/tracing")
_POLL_MS = 100
_NOT_SPECIFIED = 2  # up to here no drops: "not dropped", "consumed", frees without a reason
_TCP_STATES = (
    *("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)
_EVENT = """
#include <linux/skbuff.h>
struct event {
    u64 time;
    u32 code;      /* reason, or new state */
    u32 old;
    u8 saddr[16];  /* v4 in the first four bytes */
    u8 daddr[16];
    u16 sport;     /* host order */
    u16 dport;
    u8 family;     /* 4 or 6 */
    u8 protocol;
    u8 retransmit;
    u8 pad;
};
BPF_RINGBUF_OUTPUT(events, 64);
BPF_ARRAY(lost, u64, 1);

static void emit(struct event *e)
{
    if (events.ringbuf_output(e, sizeof(*e), 0))
        lost.increment(0);
}
"""
_DROPS = """
TRACEPOINT_PROBE(skb, kfree_skb)
{
    struct event e = {.time = bpf_ktime_get_ns(), .code = args->reason};
    unsigned char *head, *ip, *l4;
    u16 offset, ports[2];
    u8 first;

    if (e.code <= NOT_SPECIFIED)
        return 0;
    bpf_probe_read_kernel(&head, sizeof(head), args->skbaddr + SKB_HEAD);
    bpf_probe_read_kernel(&offset, sizeof(offset), args->skbaddr + SKB_NETWORK_HEADER);
    ip = head + offset;
    bpf_probe_read_kernel(&first, 1, ip);
    if (args->protocol == 0x0800 && first >> 4 == 4) {
        e.family = 4;
        bpf_probe_read_kernel(&e.protocol, 1, ip + 9);
        bpf_probe_read_kernel(e.saddr, 4, ip + 12);
        bpf_probe_read_kernel(e.daddr, 4, ip + 16);
        l4 = ip + (first & 15) * 4;
    } else if (args->protocol == 0x86dd && first >> 4 == 6) {
        e.family = 6;
        bpf_probe_read_kernel(&e.protocol, 1, ip + 6);
        bpf_probe_read_kernel(e.saddr, 16, ip + 8);
        bpf_probe_read_kernel(e.daddr, 16, ip + 24);
        l4 = ip + 40;
    } else {
        return 0;
    }
    if (e.protocol == 6 || e.protocol == 17) {
        bpf_probe_read_kernel(ports, sizeof(ports), l4);
        e.sport = ntohs(ports[0]);
        e.dport = ntohs(ports[1]);
    }
    emit(&e);
    return 0;
}
"""
_TCP = """
#define ENDS(e)                                                        \\
    e.sport = args->sport;                                             \\
    e.dport = args->dport;                                             \\
    e.protocol = 6;                                                    \\
    if (args->family == 2) {                                           \\
        e.family = 4;                                                  \\
        __builtin_memcpy(e.saddr, args->saddr, 4);                     \\
        __builtin_memcpy(e.daddr, args->daddr, 4);                     \\
    } else {                                                           \\
        e.family = 6;                                                  \\
        __builtin_memcpy(e.saddr, args->saddr_v6, 16);                 \\
        __builtin_memcpy(e.daddr, args->daddr_v6, 16);                 \\
    }

TRACEPOINT_PROBE(tcp, tcp_retransmit_skb)
{
    struct event e = {.time = bpf_ktime_get_ns(), .code = args->state, .retransmit = 1};

    ENDS(e)
    emit(&e);
    return 0;
}

TRACEPOINT_PROBE(sock, inet_sock_set_state)
{
    struct event e = {.time = bpf_ktime_get_ns(), .code = args->newstate, .old = args->oldstate};

    if (args->protocol != 6)
        return 0;
    ENDS(e)
    emit(&e);
    return 0;
}
"""


def drop_reasons(format_text: str) -> dict[int, str]:
    """Names by number from the ``format`` file of skb:kfree_skb."""
    return {int(number): name for number, name in re.findall(r'\{ (\d+), "(\w+)" \}', format_text)}


def _address(raw: Any, family: int) -> str:
    data = bytes(raw)
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, data[:4])
    text = socket.inet_ntop(socket.AF_INET6, data)
    return text.removeprefix("::ffff:")


def main(what: str) -> None:
    import bcc  # noqa: PLC0415 - there under the system's Python only

    # BCC's library says what is wrong on standard output, which is for events.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reasons: dict[int, str] = {}
    flags = []
    if what == "drops":
        btf = Btf()
        flags = [
            f"-DSKB_HEAD={btf.offset('sk_buff', 'head')}",
            f"-DSKB_NETWORK_HEADER={btf.offset('sk_buff', 'network_header')}",
            f"-DNOT_SPECIFIED={_NOT_SPECIFIED}",
        ]
        reasons = drop_reasons((TRACEFS / "events/skb/kfree_skb/format").read_text())
    program = bcc.BPF(text=_EVENT + (_DROPS if what == "drops" else _TCP), cflags=[*flags, "-w"])
    epoch = time.time_ns() - time.monotonic_ns()

    def say(_context: Any, data: Any, _size: int) -> None:
        event = program["events"].event(data)
        line = {
            "time": epoch + event.time,
            "source": _address(event.saddr, event.family),
            "destination": _address(event.daddr, event.family),
            "sport": event.sport,
            "dport": event.dport,
            "protocol": {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}.get(
                event.protocol, str(event.protocol)
            ),
        }
        if what == "drops":
            line |= {"kind": "drop", "reason": reasons.get(event.code, str(event.code))}
        elif event.retransmit:
            line |= {"kind": "retransmit", "state": _TCP_STATES[event.code]}
        else:
            line |= {"kind": "state", "old": _TCP_STATES[event.old]}
            line |= {"state": _TCP_STATES[event.code]}
        print(json.dumps(line), file=output, flush=True)

    program["events"].open_ring_buffer(say)
    print(json.dumps({"kind": "ready"}), file=output, flush=True)
    lost = 0
    while True:
        program.ring_buffer_poll(_POLL_MS)
        if (count := program["lost"][0].value) > lost:
            said = {"kind": "lost", "count": count - lost}
            print(json.dumps(said), file=output, flush=True)
            lost = count


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(0)
