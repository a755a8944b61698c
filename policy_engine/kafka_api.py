"""Kafka's API names and keys, and what the roles ``produce`` and ``consume`` stand for.

Source: Apache Kafka 4.1, "Protocol API Keys"; roles as Cilium had them before 1.20, widened by
what today's clients send on their own (idempotent and transactional producers, KIP-714 telemetry,
KIP-848 groups).
"""

from __future__ import annotations

API_KEYS = {
    "produce": 0,
    "fetch": 1,
    "offsets": 2,
    "listoffsets": 2,
    "metadata": 3,
    "leaderandisr": 4,
    "stopreplica": 5,
    "updatemetadata": 6,
    "controlledshutdown": 7,
    "offsetcommit": 8,
    "offsetfetch": 9,
    "findcoordinator": 10,
    "joingroup": 11,
    "heartbeat": 12,
    "leavegroup": 13,
    "syncgroup": 14,
    "describegroups": 15,
    "listgroups": 16,
    "saslhandshake": 17,
    "apiversions": 18,
    "createtopics": 19,
    "deletetopics": 20,
    "deleterecords": 21,
    "initproducerid": 22,
    "offsetforleaderepoch": 23,
    "addpartitionstotxn": 24,
    "addoffsetstotxn": 25,
    "endtxn": 26,
    "writetxnmarkers": 27,
    "txnoffsetcommit": 28,
    "describeacls": 29,
    "createacls": 30,
    "deleteacls": 31,
    "describeconfigs": 32,
    "alterconfigs": 33,
    "alterreplicalogdirs": 34,
    "describelogdirs": 35,
    "saslauthenticate": 36,
    "createpartitions": 37,
    "deletegroups": 42,
    "electleaders": 43,
    "incrementalalterconfigs": 44,
    "alterpartitionreassignments": 45,
    "listpartitionreassignments": 46,
    "offsetdelete": 47,
    "describeclientquotas": 48,
    "alterclientquotas": 49,
    "describecluster": 60,
    "describeproducers": 61,
    "describetransactions": 65,
    "listtransactions": 66,
    "consumergroupheartbeat": 68,
    "consumergroupdescribe": 69,
    "gettelemetrysubscriptions": 71,
    "pushtelemetry": 72,
    "listclientmetricsresources": 74,
    "describetopicpartitions": 75,
    "sharegroupheartbeat": 76,
    "sharegroupdescribe": 77,
    "sharefetch": 78,
    "shareacknowledge": 79,
}

MAX_API_KEY = 32767

_EVERY_CLIENT = (
    "metadata",
    "apiversions",
    "findcoordinator",
    "saslhandshake",
    "saslauthenticate",
    "gettelemetrysubscriptions",
    "pushtelemetry",
    "describetopicpartitions",
)
_ROLES = {
    "produce": (
        "produce",
        "initproducerid",
        "addpartitionstotxn",
        "addoffsetstotxn",
        "endtxn",
        "txnoffsetcommit",
    ),
    "consume": (
        "fetch",
        "listoffsets",
        "offsetcommit",
        "offsetfetch",
        "joingroup",
        "heartbeat",
        "leavegroup",
        "syncgroup",
        "offsetforleaderepoch",
        "consumergroupheartbeat",
        "consumergroupdescribe",
    ),
}

ROLES = {
    role: frozenset(API_KEYS[name] for name in (*names, *_EVERY_CLIENT))
    for role, names in _ROLES.items()
}

NAMES = {key: name for name, key in API_KEYS.items()}
