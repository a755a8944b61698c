"""Statuses as the API spells them, without what only a writer knows (times, others' entries)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway_translator.conditions import Condition, render
from gateway_translator.gateways import CompiledGateway
from gateway_translator.listeners import ListenerState
from gateway_translator.resources.meta import Object
from gateway_translator.resources.refs import GROUP, ParentReference

Status = dict[str, Any]


def gateway_status(compiled: CompiledGateway, attached: Mapping[tuple[Any, str], int]) -> Status:
    gateway = compiled.gateway
    generation = gateway.metadata.generation
    own = [each for each in compiled.listeners if each.owner == gateway.key]
    status: Status = {
        "addresses": [{"type": "IPAddress", "value": each} for each in compiled.addresses.assigned],
        "conditions": render(compiled.conditions, generation),
        "listeners": _listeners(own, attached, generation, compiled.programmed),
    }
    if gateway.spec.allowed_listeners is not None or compiled.attached_sets:
        status["attachedListenerSets"] = compiled.attached_sets
    return status


def listener_set_status(
    item: Object,
    conditions: Iterable[Condition],
    listeners: Iterable[ListenerState],
    attached: Mapping[tuple[Any, str], int],
    gateway: Condition,
) -> Status:
    """``gateway``: Programmed of the Gateway that it belongs to."""
    generation = item.metadata.generation
    return {
        "conditions": render(conditions, generation),
        "listeners": _listeners(listeners, attached, generation, gateway),
    }


def class_status(item: Object, accepted: Condition, features: Iterable[str]) -> Status:
    supported = Condition("SupportedVersion", True, "SupportedVersion")
    return _claims(item, (accepted, supported), features)


def mesh_status(item: Object, accepted: Condition, features: Iterable[str]) -> Status:
    return _claims(item, (accepted,), features)


def route_status(
    item: Object, controller: str, parents: Iterable[tuple[ParentReference, list[Condition]]]
) -> Status:
    """``parents``: ours alone; the writer keeps those of other controllers."""
    return {
        "parents": [
            {
                "parentRef": ref.as_written(),
                "controllerName": controller,
                "conditions": render(conditions, item.metadata.generation),
            }
            for ref, conditions in parents
        ]
    }


def policy_status(
    item: Object, controller: str, gateways: Iterable[tuple[str, str]], found: list[Condition]
) -> Status:
    """``gateways``: (namespace, name) of those whose routes meet the policy; at most 16."""
    return {
        "ancestors": [
            {
                "ancestorRef": {
                    "group": GROUP,
                    "kind": "Gateway",
                    "namespace": namespace,
                    "name": name,
                },
                "controllerName": controller,
                "conditions": render(found, item.metadata.generation),
            }
            for namespace, name in sorted(gateways)[:16]
        ]
    }


def _claims(item: Object, conditions: Iterable[Condition], features: Iterable[str]) -> Status:
    return {
        "conditions": render(conditions, item.metadata.generation),
        "supportedFeatures": [{"name": each} for each in sorted(features)],
    }


def _listeners(
    listeners: Iterable[ListenerState],
    attached: Mapping[tuple[Any, str], int],
    generation: int,
    gateway: Condition,
) -> list[Status]:
    return [
        {
            "name": each.spec.name,
            "supportedKinds": [{"group": GROUP, "kind": kind} for kind in each.kinds],
            "attachedRoutes": attached.get((each.owner, each.spec.name), 0),
            "conditions": render(each.conditions(gateway), generation),
        }
        for each in listeners
    ]
