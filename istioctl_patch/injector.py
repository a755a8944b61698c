"""A revision's injector: the ConfigMap that istiod reads its templates from. Pure.

Source: Istio's chart istiod, ``istio-sidecar-injector``: ``config`` is YAML with
``defaultTemplates`` and ``templates``; ``values`` are the chart's, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from istioctl_patch import injection

NAME = "istio-sidecar-injector"


def is_one(config_map: Mapping[str, Any]) -> bool:
    """Revision ``x`` has one with ``-x`` behind the name."""
    name = str(config_map["metadata"]["name"])
    return name == NAME or name.startswith(f"{NAME}-")


def revision(config_map: Mapping[str, Any]) -> str:
    return str((config_map["metadata"].get("labels") or {}).get("istio.io/rev", "default"))


def remedy(config_map: Mapping[str, Any]) -> str:
    """The command that puts our templates in."""
    name = revision(config_map)
    return "sidegate-istioctl install" + (f" --revision {name}" if name != "default" else "")


def problem(config_map: Mapping[str, Any]) -> str:
    """Why its pods do not get our module as they should, "" if they do."""
    config = _config(config_map)
    templates = config.get("templates") or {}
    if injection.NAME not in templates:
        return f"has no template {injection.NAME}"
    for name, text in injection.TEMPLATES.items():
        if str(templates.get(name, "")).strip() != text.strip():
            return f"template {name} is not this version's"
    if injection.NAME not in (config.get("defaultTemplates") or []):
        return f"template {injection.NAME} is not among its defaultTemplates"
    return ""


def carries(config_map: Mapping[str, Any]) -> bool:
    """Whether it has anything of ours."""
    config = _config(config_map)
    return bool(_OURS & {*(config.get("templates") or {}), *(config.get("defaultTemplates") or [])})


def without(config_map: Mapping[str, Any]) -> dict[str, str]:
    """Its ``data`` without what is ours; the rest says the same."""
    config = _stripped(_config(config_map))
    data = {"config": yaml.safe_dump(config, sort_keys=False)}
    if text := (config_map.get("data") or {}).get("values"):
        values = json.loads(text)
        values["sidecarInjectorWebhook"] = _stripped(values.get("sidecarInjectorWebhook") or {})
        data["values"] = json.dumps(values, indent=2)
    return data


_OURS = frozenset(injection.TEMPLATES)


def _config(config_map: Mapping[str, Any]) -> dict[str, Any]:
    found = yaml.safe_load((config_map.get("data") or {}).get("config") or "{}")
    return found if isinstance(found, dict) else {}


def _stripped(config: dict[str, Any]) -> dict[str, Any]:
    kept = dict(config)
    if names := config.get("defaultTemplates"):
        kept["defaultTemplates"] = [name for name in names if name not in _OURS]
    if templates := config.get("templates"):
        kept["templates"] = {name: t for name, t in templates.items() if name not in _OURS}
    return kept
