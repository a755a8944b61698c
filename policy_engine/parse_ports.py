"""The ``toPorts`` part of a rule: ports, HTTP rules, Kafka rules."""

from __future__ import annotations

import re
from typing import Any

from policy_engine.errors import Errors, RegexError
from policy_engine.kafka_api import API_KEYS, MAX_API_KEY, ROLES
from policy_engine.model import TRANSPORTS, HeaderMatch, HttpRule, KafkaRule, Parser, Protocol
from policy_engine.rules import Port, PortSet

_PROTOCOLS = {name: (each,) for name, each in TRANSPORTS.items()} | dict.fromkeys(
    ("", "ANY"), tuple(TRANSPORTS.values())
)
_NUMBER = re.compile(r"[0-9]{1,5}")  # isdecimal() takes the digits of every script
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # IANA_SVC_NAME
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_ITEM_REFUSED = ("listener", "terminatingTLS", "originatingTLS", "serverNames")


def parse_ports(value: Any, path: str, errors: Errors, regex: RegexError) -> tuple[PortSet, ...]:
    return tuple(_port_set(item, at, errors, regex) for at, item in errors.items(value, path))


def _port_set(value: Any, path: str, errors: Errors, regex: RegexError) -> PortSet:
    fields = errors.fields(value, path, ("ports", "rules"), _ITEM_REFUSED)
    ports = [
        port
        for at, item in errors.items(fields.get("ports") or [], f"{path}.ports")
        for port in _port(item, at, errors)
    ]
    at = f"{path}.rules"
    refused = ("dns", "l7", "l7proto")
    rules = errors.fields(fields.get("rules") or {}, at, ("http", "kafka"), refused)
    http = tuple(
        _http(item, where, errors, regex)
        for where, item in errors.items(rules.get("http") or [], f"{at}.http")
    )
    kafka = tuple(
        _kafka(item, where, errors)
        for where, item in errors.items(rules.get("kafka") or [], f"{at}.kafka")
    )
    if http and kafka:
        errors.add(at, "http and kafka cannot hold for one port", "use two toPorts items")
    if not fields.get("ports"):
        remedy = "name at least one; without toPorts a rule is for every port"
        errors.add(f"{path}.ports", "there is no port", remedy)
    parser = Parser.HTTP if http else Parser.KAFKA if kafka else None
    if parser is not None:
        ports = _l7_ports(ports, fields.get("ports"), path, errors)
    return PortSet(tuple(ports), parser, http, kafka)


def _l7_ports(ports: list[Port], given: Any, path: str, errors: Errors) -> list[Port]:
    """L7 rules are for TCP: ANY means TCP here, anything else is an error."""
    for index, item in enumerate(given if isinstance(given, list) else ()):
        protocol = item.get("protocol") if isinstance(item, dict) else None
        if isinstance(protocol, str) and protocol.upper() in ("UDP", "SCTP"):
            errors.add(f"{path}.ports[{index}].protocol", f"no L7 rule holds on {protocol}", "TCP")
    for index, port in enumerate(ports):
        if port.port == 0 and not port.name:
            errors.add(f"{path}.ports[{index}].port", "L7 rules need a port other than 0")
    return [port for port in ports if port.protocol is Protocol.TCP]


def _port(value: Any, path: str, errors: Errors) -> list[Port]:
    fields = errors.fields(value, path, ("port", "endPort", "protocol"))
    text = errors.typed(fields.get("port"), str, f"{path}.port")
    protocol = fields.get("protocol", "")
    if not isinstance(protocol, str) or protocol.upper() not in _PROTOCOLS:
        remedy = "one of TCP, UDP, SCTP, ANY"
        errors.add(f"{path}.protocol", f"unknown or not enforced: {protocol!r}", remedy)
        return []
    if text is None:
        return []
    if not _NUMBER.fullmatch(text):
        name = parse_port_name(text, f"{path}.port", errors)
        if fields.get("endPort"):
            errors.add(f"{path}.endPort", "a named port begins no range", "give numbers")
        return [Port(0, 0, each, name) for each in _PROTOCOLS[protocol.upper()]]
    first, last = int(text), 0
    if not 0 <= first <= 65535:
        errors.add(f"{path}.port", f"{first} is not a port", "0 to 65535")
        return []
    if fields.get("endPort"):
        last = errors.typed(fields["endPort"], int, f"{path}.endPort") or 0
        if not first <= last <= 65535 or first == 0:
            errors.add(f"{path}.endPort", f"{last} does not end a range that begins at {first}")
            return []
    return [Port(first, last, each) for each in _PROTOCOLS[protocol.upper()]]


def parse_port_name(text: str, path: str, errors: Errors) -> str:
    """In lower case, as the names of container ports are."""
    if not _NAME.fullmatch(text.lower()):
        remedy = "0 to 65535, or the name of a container port"
        errors.add(path, f"{text!r} is neither a number nor a name", remedy)
    return text.lower()


def parse_number(value: Any, path: str, errors: Errors) -> int:
    """A port of 1 to 65535."""
    number = errors.typed(value, int, path)
    if number is not None and not 1 <= number <= 65535:
        errors.add(path, f"{number} is not a port", "1 to 65535")
    return number or 0


def _http(value: Any, path: str, errors: Errors, regex: RegexError) -> HttpRule:
    known = ("method", "path", "host", "headers", "headerMatches")
    fields = errors.fields(value, path, known)
    patterns = {}
    for name in ("method", "path", "host"):
        text = errors.typed(fields.get(name, ""), str, f"{path}.{name}") or ""
        problem = regex(text) if text else None
        if problem:
            errors.add(f"{path}.{name}", f"bad regular expression: {problem}", "RE2 syntax")
        patterns[name] = text
    headers = []
    for at, item in errors.items(fields.get("headers") or [], f"{path}.headers"):
        line = errors.typed(item, str, at)
        if line:
            header, _, wanted = line.partition(" ")
            headers.append(HeaderMatch(header.rstrip(":").lower(), wanted.strip() or None))
    for at, item in errors.items(fields.get("headerMatches") or [], f"{path}.headerMatches"):
        match = errors.fields(item, at, ("name", "value"), ("mismatch", "secret"))
        key = errors.typed(match.get("name"), str, f"{at}.name")
        exact = match.get("value")
        if exact is not None:
            exact = errors.typed(exact, str, f"{at}.value") or ""
        if key:
            headers.append(HeaderMatch(key.lower(), exact))
    return HttpRule(**patterns, headers=tuple(headers))


def _kafka(value: Any, path: str, errors: Errors) -> KafkaRule:
    known = ("role", "apiKey", "apiVersion", "clientID", "topic")
    fields = errors.fields(value, path, known)
    texts = {
        name: errors.typed(fields.get(name, ""), str, f"{path}.{name}") or "" for name in known
    }
    keys: frozenset[int] = frozenset()
    if texts["role"] and texts["apiKey"]:
        errors.add(f"{path}.apiKey", "role and apiKey exclude each other", "remove one of them")
    if role := texts["role"].lower():
        keys = ROLES.get(role, frozenset())
        if not keys:
            errors.add(f"{path}.role", f"unknown role {role!r}", f"one of {', '.join(ROLES)}")
    if api := texts["apiKey"].lower():
        number = API_KEYS.get(api, int(api) if _NUMBER.fullmatch(api) else -1)
        if not 0 <= number <= MAX_API_KEY:
            errors.add(f"{path}.apiKey", f"unknown Kafka API {api!r}", "such as produce, fetch")
        keys = frozenset({number})
    version = texts["apiVersion"]
    if version and not (_NUMBER.fullmatch(version) and int(version) <= MAX_API_KEY):
        errors.add(f"{path}.apiVersion", f"{version!r} is no API version", "a number in quotes")
        version = ""
    if texts["topic"] and not _TOPIC.fullmatch(texts["topic"]):
        remedy = "1 to 249 of a-z A-Z 0-9 . _ -"
        errors.add(f"{path}.topic", f"{texts['topic']!r} is no topic name", remedy)
    return KafkaRule(keys, int(version) if version else None, texts["clientID"], texts["topic"])
