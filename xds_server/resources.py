"""Small makers of xDS messages that every resource is put together from."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.dynamic_modules.v3 import dynamic_modules_pb2 as modules
from envoy.extensions.filters.http.dynamic_modules.v3 import dynamic_modules_pb2 as http_modules
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

MODULE = "sidegate"

LISTENER_TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"
CLUSTER_TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTE_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
VIRTUAL_HOST_TYPE = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105

# The messages of the three kinds of filter, by package; they share one layout on the wire.
_MODULE_FILTERS = {
    "http": "DynamicModuleFilter",
    "network": "DynamicModuleNetworkFilter",
    "listener": "DynamicModuleListenerFilter",
}


def packed(message: Message) -> AnyMessage:
    """The message as ``google.protobuf.Any``, the same bytes for the same content."""
    result = AnyMessage()
    result.Pack(message, deterministic=True)
    return result


def extension(name: str, message: Message) -> Any:
    """A ``TypedExtensionConfig``."""
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))


def duration(seconds: float) -> Duration:
    """``seconds`` 0 turns off those of Envoy's timeouts that know an "off"."""
    result = Duration()
    result.FromTimedelta(timedelta(seconds=seconds))
    return result


def module_filter(kind: str, name: str) -> AnyMessage:
    """The configuration of one of our module's filters; ``kind``: http, network or listener.

    xds-protos has only the HTTP message. The other two have the same first three fields with the
    same numbers, so the HTTP message's bytes go under their type's name (a test decodes them).
    """
    message = http_modules.DynamicModuleFilter(
        dynamic_module_config=modules.DynamicModuleConfig(name=MODULE), filter_name=name
    )
    package = f"envoy.extensions.filters.{kind}.dynamic_modules.v3"
    return AnyMessage(
        type_url=f"type.googleapis.com/{package}.{_MODULE_FILTERS[kind]}",
        value=message.SerializeToString(deterministic=True),
    )
