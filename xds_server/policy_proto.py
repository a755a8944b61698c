"""`EndpointPolicy` of the policy engine as the module's `sidegate.policy.v1.EndpointPolicy`."""

from __future__ import annotations

from policy_engine.model import (
    DirectionPolicy,
    EndpointPolicy,
    HttpRule,
    KafkaRule,
    Parser,
    PortRule,
    Protocol,
)
from sidegate_api.policy.v1 import policy_pb2 as pb

# The module sees TCP alone; the other protocols' rules are the kernel's.
_MODULE_PROTOCOLS = frozenset((Protocol.ANY, Protocol.TCP))


def endpoint_policy(policy: EndpointPolicy) -> pb.EndpointPolicy:
    return pb.EndpointPolicy(
        endpoint_id=policy.endpoint_id,
        identity=policy.identity,
        revision=policy.revision,
        ingress=_direction(policy.ingress),
        egress=_direction(policy.egress),
    )


def _direction(policy: DirectionPolicy) -> pb.DirectionPolicy:
    rules = [_rule(rule) for rule in policy.rules if rule.protocol in _MODULE_PROTOCOLS]
    return pb.DirectionPolicy(
        enforced=policy.enforced,
        audit=policy.audit,
        rules=rules,
        default_allow=policy.default_allow,
    )


def _rule(rule: PortRule) -> pb.PortRule:
    result = pb.PortRule(
        port=rule.port,
        end_port=rule.end_port,
        any_peer=rule.peers is None,
        peers=sorted(rule.peers or ()),
        deny=rule.deny,
        rule=rule.origin,
        authentication=pb.Authentication.ValueType(rule.authentication),
    )
    if rule.parser is Parser.HTTP:
        result.http.CopyFrom(pb.HttpRules(rules=map(_http, rule.http)))
    elif rule.parser is Parser.KAFKA:
        result.kafka.CopyFrom(pb.KafkaRules(rules=map(_kafka, rule.kafka)))
    return result


def _http(rule: HttpRule) -> pb.HttpRule:
    headers = [
        pb.HeaderMatch(name=h.name, has_value=h.value is not None, value=h.value or "")
        for h in rule.headers
    ]
    return pb.HttpRule(method=rule.method, path=rule.path, host=rule.host, headers=headers)


def _kafka(rule: KafkaRule) -> pb.KafkaRule:
    return pb.KafkaRule(
        api_keys=sorted(rule.api_keys),
        api_version=rule.api_version,
        client_id=rule.client_id,
        topic=rule.topic,
    )
