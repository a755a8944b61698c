"""The OpenAPI schema of a policy's spec, with CEL rules, from the names that the engine knows.

Sizes are bounded because the API server estimates what a rule may cost by them.
Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

from typing import Any

from policy_engine.kafka_api import ROLES
from policy_engine.selector import ENTITIES

Schema = dict[str, Any]

_RULES, _PEERS, _TO_PORTS, _PORTS, _L7 = 250, 200, 40, 40, 100
_PORT = (
    r"^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4}"
    r"|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*)$"
)
# Known to the engine, which says in the status that it does not enforce them.
_REFUSED_BY_ENGINE: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def spec(rules: bool) -> Schema:
    """``rules``: with CEL. A list of specs goes without, or its estimate is over the budget."""
    sections = {
        "ingress": _section("from", rules, True),
        "ingressDeny": _section("from", rules, False),
        "egress": _section("to", rules, True),
        "egressDeny": _section("to", rules, False),
    }
    toggles = {"ingress": {"type": "boolean"}, "egress": {"type": "boolean"}}
    return _validated(
        _object(
            {
                "endpointSelector": selector(),
                "nodeSelector": _REFUSED_BY_ENGINE,
                "enableDefaultDeny": _object(toggles),
                "description": {"type": "string"},
                "labels": _REFUSED_BY_ENGINE,
                "log": _REFUSED_BY_ENGINE,
                **sections,
            },
            required=["endpointSelector"],
        ),
        rules,
        (
            " || ".join(f"has(self.{name})" for name in sections),
            "neither ingress nor egress is given; [] denies a direction",
        ),
    )


def selector() -> Schema:
    """A LabelSelector of Kubernetes."""
    expression = _object(
        {
            "key": {"type": "string"},
            "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": _list({"type": "string", "maxLength": 63}, _PEERS),
        },
        required=["key", "operator"],
    )
    labels = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
    return _object({"matchLabels": labels, "matchExpressions": _list(expression, _PEERS)})


def _section(side: str, rules: bool, allows: bool) -> Schema:
    refused = ("Requires", "Groups", "Nodes")
    fields = {
        f"{side}Endpoints": _list(selector(), _PEERS),
        f"{side}Entities": _list({"type": "string", "enum": list(ENTITIES)}, len(ENTITIES)),
        f"{side}CIDR": _list(_cidr(rules), _PEERS),
        f"{side}CIDRSet": _list(_cidr_set(rules), _PEERS),
        "toPorts": _list(_ports(rules, allows), _TO_PORTS),
        **{f"{side}{name}": _REFUSED_BY_ENGINE for name in refused},
        "icmps": _REFUSED_BY_ENGINE,
    }
    if allows:
        modes = {"type": "string", "enum": ["disabled", "required", "test-always-fail"]}
        fields["authentication"] = _object({"mode": modes}, required=["mode"])
    if side == "to":
        fields |= {"toServices": _list(_service(), _PEERS), "toFQDNs": _REFUSED_BY_ENGINE}
    return _list(_object(fields), _RULES)


def _service() -> Schema:
    namespaced = {"namespace": {"type": "string"}}
    return _object(
        {
            "k8sService": _object({"serviceName": {"type": "string"}, **namespaced}),
            "k8sServiceSelector": _object({"selector": selector(), **namespaced}),
        }
    )


def _cidr(rules: bool) -> Schema:
    text = {"type": "string", "maxLength": 49}
    return _validated(text, rules, ("isCIDR(self) || isIP(self)", "give address/length"))


def _cidr_set(rules: bool) -> Schema:
    return _object(
        {
            "cidr": _cidr(rules),
            "except": _list(_cidr(False), _PEERS),
            "cidrGroupRef": _REFUSED_BY_ENGINE,
            "cidrGroupSelector": _REFUSED_BY_ENGINE,
        }
    )


def _ports(rules: bool, allows: bool) -> Schema:
    port = _validated(
        _object(
            {
                "port": {"type": "string", "maxLength": 63, "pattern": _PORT},
                "endPort": {"type": "integer", "minimum": 0, "maximum": 65535},
                "protocol": {"type": "string", "enum": ["TCP", "UDP", "SCTP", "ANY"]},
            },
            required=["port"],
        ),
        rules,
        (
            "!has(self.endPort) || self.endPort == 0 || int(self.port) <= self.endPort",
            "endPort ends a range that a number begins, at its highest port",
        ),
    )
    fields = {"ports": _list(port, _PORTS, least=1)}
    if not allows:
        return _object(fields, required=["ports"])
    fields |= {
        "rules": _l7(rules),
        **dict.fromkeys(
            ("listener", "terminatingTLS", "originatingTLS", "serverNames"), _REFUSED_BY_ENGINE
        ),
    }
    return _validated(
        _object(fields, required=["ports"]),
        rules,
        (
            "!has(self.rules) || self.ports.all(p, !has(p.protocol) ||"
            " p.protocol in ['TCP', 'ANY'])",
            "L7 rules hold on TCP only",
        ),
    )


def _l7(rules: bool) -> Schema:
    text = {"type": "string", "maxLength": 4096}
    match = _object({"name": text, "value": text, "mismatch": _REFUSED_BY_ENGINE,
                     "secret": _REFUSED_BY_ENGINE}, required=["name"])  # fmt: skip
    http = _object(
        {
            "method": text,
            "path": text,
            "host": text,
            "headers": _list(text, _L7),
            "headerMatches": _list(match, _L7),
        }
    )
    number = {"type": "string", "pattern": "^[0-9]{1,5}$"}
    kafka = _validated(
        _object(
            {
                "role": {"type": "string", "enum": sorted(ROLES)},
                "apiKey": {"type": "string", "maxLength": 64},
                "apiVersion": number,
                "clientID": {"type": "string", "maxLength": 256},
                "topic": {"type": "string", "maxLength": 249, "pattern": "^[a-zA-Z0-9._-]*$"},
            }
        ),
        rules,
        ("!has(self.role) || !has(self.apiKey)", "role and apiKey exclude each other"),
    )
    fields = {
        "http": _list(http, _L7),
        "kafka": _list(kafka, _L7),
        **dict.fromkeys(("dns", "l7", "l7proto"), _REFUSED_BY_ENGINE),
    }
    return _validated(
        _object(fields),
        rules,
        (
            "!has(self.http) || !has(self.kafka)",
            "http and kafka cannot hold for one port: use two items of toPorts",
        ),
    )


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    made: Schema = {"type": "object", "properties": properties}
    return made | ({"required": required} if required else {})


def _list(items: Schema, most: int, least: int = 0) -> Schema:
    made: Schema = {"type": "array", "items": items, "maxItems": most}
    return made | ({"minItems": least} if least else {})


def _validated(schema: Schema, rules: bool, *validations: tuple[str, str]) -> Schema:
    if not rules:
        return schema
    made = [{"rule": rule, "message": message} for rule, message in validations]
    return {**schema, "x-kubernetes-validations": made}
